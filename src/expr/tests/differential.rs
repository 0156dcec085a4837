//! What is answered straight from the record is what the interpreter answers: random expressions on random records.

use bytes::Bytes;
use fastrand::Rng;

use crate::expr::{EvalError, Expression, Input, Scalar, Scope, Variables};
use crate::record::Record;

const SEED: u64 = 4_711;

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn literal(rng: &mut Rng) -> String {
    let plain = [
        "'a'",
        "'b'",
        "'ab'",
        "''",
        "'ö'",
        "0",
        "1",
        "2",
        "-1",
        "1u",
        "2u",
        "1.0",
        "1.5",
        "-0.5",
        "true",
        "false",
        "null",
        "9223372036854775807",
        "18446744073709551615u",
        "9.3e18",
        "b'a'",
        "[1]",
        "'\\u00f6'",
    ];
    one(rng, &plain).to_owned()
}

fn path(rng: &mut Rng) -> String {
    let variable = one(rng, &["key", "topic", "partition", "offset", "headers", "value", "value", "value", "part"]);
    let steps = match variable {
        "headers" => usize::from(rng.u8(..12) > 0) + usize::from(rng.u8(..12) == 0),
        "value" | "part" => rng.usize(..4),
        _ => usize::from(rng.u8(..20) == 0),
    };
    (0..steps).fold(variable.to_owned(), |path, _| match rng.u8(..8) {
        0 => format!("{path}[{}]", rng.i8(-1..3)),
        1 => format!("{path}['{}']", one(rng, &["a", "b", "ö", ""])),
        _ => format!("{path}.{}", one(rng, &["a", "a", "b", "c"])),
    })
}

fn operand(rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0..=5 => path(rng),
        6..=8 => literal(rng),
        _ => format!("size({})", path(rng)),
    }
}

fn condition(rng: &mut Rng, depth: u32) -> String {
    match rng.u8(..if depth == 0 { 14 } else { 22 }) {
        0..=6 => {
            let comparison = one(rng, &["==", "==", "!=", "<", "<=", ">", ">="]);
            format!("{} {comparison} {}", operand(rng), operand(rng))
        }
        7..=9 => {
            let search = one(rng, &["startsWith", "endsWith", "contains"]);
            let needle = if rng.u8(..8) == 0 { operand(rng) } else { one(rng, &["'a'", "'b'", "''"]).to_owned() };
            format!("{}.{search}({needle})", path(rng))
        }
        10 => {
            let among: Vec<String> = (0..rng.usize(..4)).map(|_| literal(rng)).collect();
            format!("{} in [{}]", operand(rng), among.join(", "))
        }
        11 => format!("has({}.{})", path(rng), one(rng, &["a", "b"])),
        12 => operand(rng),
        13 => path(rng),
        14..=17 => format!("({} && {})", condition(rng, depth - 1), condition(rng, depth - 1)),
        18..=20 => format!("({} || {})", condition(rng, depth - 1), condition(rng, depth - 1)),
        _ => format!("!({})", condition(rng, depth - 1)),
    }
}

fn json(rng: &mut Rng, depth: u32) -> String {
    match rng.u8(..if depth == 0 { 14 } else { 22 }) {
        0..=13 => {
            let plain = [
                "\"a\"",
                "\"b\"",
                "\"ab\"",
                "\"\"",
                "\"\\u00f6\"",
                "\"\\u0061\"",
                "0",
                "1",
                "2",
                "-1",
                "1.0",
                "1.5",
                "-0.5",
                "-0",
                "9223372036854775807",
                "9223372036854775808",
                "18446744073709551616",
                "true",
                "false",
                "null",
            ];
            one(rng, &plain).to_owned()
        }
        14..=19 => {
            let fields = (0..rng.usize(..4)).map(|_| {
                format!("\"{}\": {}", one(rng, &["a", "a", "b", "c", "\\u0061", "ö", ""]), json(rng, depth - 1))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        _ => format!("[{}]", (0..rng.usize(..3)).map(|_| json(rng, depth - 1)).collect::<Vec<_>>().join(",")),
    }
}

/// A document, or something that is close to one.
fn value(rng: &mut Rng) -> Vec<u8> {
    let mut text = json(rng, 3).into_bytes();
    match rng.u8(..16) {
        0 => text.truncate(rng.usize(..=text.len())),
        1 => text.insert(rng.usize(..=text.len()), one(rng, &["\"", "x", "\\", "1e999", " "]).as_bytes()[0]),
        2 => text.insert(rng.usize(..=text.len()), 0xff),
        3 => text = br#"{"c": "\ud800", "a": 1}"#.to_vec(),
        4 => text = br#"{"c": 1e999, "a": 1}"#.to_vec(),
        5 => text = format!("{{\"a\": 1, \"b\": {}{}}}", "[".repeat(126), "]".repeat(126)).into_bytes(),
        6 => text = format!("{{\"a\": 1, \"b\": {}{}}}", "[".repeat(127), "]".repeat(127)).into_bytes(),
        _ => {}
    }
    text
}

fn bytes(rng: &mut Rng) -> Option<Bytes> {
    let plain: [Option<&[u8]>; 8] =
        [None, Some(b"a"), Some(b"b"), Some(b"ab"), Some(b""), Some("ö".as_bytes()), Some(b"\xff"), Some(b"1")];
    plain[rng.usize(..plain.len())].map(Bytes::from_static)
}

fn record(rng: &mut Rng) -> Record {
    let name = |rng: &mut Rng| Bytes::from(one(rng, &["a", "a", "b", "ö"]).to_owned());
    Record {
        offset: rng.u64(..3),
        timestamp: 0,
        key: bytes(rng),
        value: (rng.u8(..12) > 0).then(|| Bytes::from(value(rng))),
        headers: (0..rng.usize(..4)).map(|_| (name(rng), bytes(rng))).collect(),
    }
}

#[test]
fn straight_answers_are_the_interpreters() {
    let rounds: u32 = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let (mut direct, mut said) = (0, [0; 3]);
    for round in 0..u64::from(rounds) {
        let seed = SEED + round;
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        for _ in 0..4_000 {
            let source = condition(&mut rng, 3);
            let Ok(quick) = Expression::compile(&source, Variables::RecordAndPart) else { continue };
            let mut plain = Expression::compile(&source, Variables::RecordAndPart).unwrap();
            plain.direct = None;
            direct += usize::from(quick.direct.is_some());
            for _ in 0..4 {
                let (record, part) = (record(&mut rng), json(&mut rng, 2));
                let input = Input { topic: "a", partition: 1, offset: record.offset, record: &record };
                let scope = || {
                    let mut scope = Scope::new(input);
                    scope.set_part(part.as_bytes());
                    scope
                };
                let says: Result<bool, EvalError> = scope().says(&plain);
                said[says.as_ref().map_or(2, |says| usize::from(*says))] += 1;
                let shown = || format!("seed {seed}: {source} on {record:?}, part {part}");
                assert_eq!(scope().says(&quick), says, "{}", shown());
                assert_eq!(scope().text(&quick), scope().text(&plain), "{}", shown());
                let scalar: Result<Scalar, EvalError> = scope().scalar(&plain);
                assert_eq!(scope().scalar(&quick), scalar, "{}", shown());
                // One scope for both is the same as one for each.
                let mut shared = scope();
                assert_eq!((shared.says(&plain), shared.says(&quick)), (says.clone(), says), "{}", shown());
            }
        }
    }
    assert!(direct > 1_000 && said.iter().all(|count| *count > 300), "too little was tried: {direct} {said:?}");
}
