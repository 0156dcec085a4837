#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential;

use bytes::Bytes;

use super::{EvalError, Filter, Input};
use crate::record::Record;

fn record(key: &str, value: &str) -> Record {
    Record {
        offset: 7,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from(key.to_owned())),
        value: Some(Bytes::from(value.to_owned())),
        headers: [("kind", Some(&b"first"[..])), ("kind", Some(b"created")), ("raw", Some(&[0xff, 0]))]
            .into_iter()
            .collect(),
    }
}

fn says(source: &str, record: &Record) -> Result<bool, EvalError> {
    let input = Input { topic: "crm.eu.accounts", partition: 3, offset: record.offset, record };
    Filter::compile(source).unwrap().matches(&input)
}

#[test]
fn every_part_of_a_record_can_be_asked_for() {
    let record =
        record("a-17", r#"{"amount": 120, "rate": 1.5, "lines": [{"q": 1}, {"q": 9}], "who": {"name": "Ann"}}"#);
    for source in [
        "key == 'a-17'",
        "key.startsWith('a-')",
        "headers.kind == 'created'",
        "headers['kind'] in ['created', 'changed']",
        "has(headers.kind) && !has(headers.other)",
        "headers.raw == b'\\xff\\x00'",
        "value.amount > 100",
        "value.amount > 100.5",
        "value.rate < 2",
        "value.rate > 1",
        "value.who.name.matches('^A.*n$')",
        "value.lines.exists(line, line.q > 8)",
        "value.lines.all(line, line.q > 0) && size(value.lines) == 2",
        "value.lines.filter(line, line.q > 8).size() == 1",
        "topic.startsWith('crm.') && partition == 3 && offset >= 7",
        "timestamp > timestamp('2023-01-01T00:00:00Z')",
        "timestamp.getFullYear() == 2023",
        "type(value.amount) == int",
        "value.amount > 100 ? true : false",
    ] {
        assert_eq!(says(source, &record), Ok(true), "{source}");
    }
}

#[test]
fn what_has_no_answer_is_an_error_and_no_match() {
    let json = record("k", r#"{"a": 1}"#);
    assert!(says("value.missing == 1", &json).is_err());
    assert!(says("value.a", &json).unwrap_err().message.contains("no boolean"));
    assert!(says("value.a == 1", &record("k", "not json")).unwrap_err().message.contains("no JSON"));
    assert!(says("headers.other == 'x'", &json).is_err());
    let mut gone = json;
    (gone.key, gone.value) = (None, None);
    assert_eq!(says("key == null && value == null", &gone), Ok(true));
}

#[test]
fn a_value_that_is_not_mentioned_is_not_parsed() {
    assert_eq!(says("key == 'k'", &record("k", "not json")), Ok(true));
    let record = record("k", r#"{"a": 1}"#);
    let input = Input { topic: "t", partition: 3, offset: record.offset, record: &record };
    let parsed = |source: &str| {
        let mut parsed = 0;
        let _ = Filter::compile(source).unwrap().ask(&input, &mut parsed);
        parsed
    };
    for source in [
        "key.startsWith('k')",
        "headers.kind == 'created' || headers.none == 'x'",
        "size(key) == 1 && timestamp > timestamp('2023-01-01T00:00:00Z')",
        "topic in ['t', 'u'] && partition + 1 == 4 && offset > 0",
    ] {
        assert_eq!(parsed(source), 0, "{source}");
    }
    assert_eq!(parsed("value.a == 1 && value.a < 2"), 1);
    assert_eq!(parsed("value.a + 1 == 2"), 1);
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let place = |source: &str| {
        let error = Filter::compile(source).unwrap_err();
        (error.line, error.column, error.message)
    };
    let (line, column, message) = place("key == 'a' &&\n  valu.a == 1");
    assert_eq!((line, column), (2, 3), "{message}");
    assert!(message.contains("no variable 'valu'"), "{message}");
    let (line, _, message) = place("key ==");
    assert_eq!(line, 1, "{message}");
    assert!(place("sleep(10)").2.contains("no function 'sleep'"));
    assert!(place("").2.contains("empty"));
    assert!(place(&"(".repeat(5000)).2.contains("deeper"));
    assert!(place(&"!".repeat(5000)).2.contains("deeper"));
    assert!(place(&format!("key == '{}'", "a".repeat(20_000))).2.contains("the limit is 16384"));
    let nested = "value.all(a, value.all(b, value.all(c, a == b)))";
    assert!(place(nested).2.contains("nest"));
}

#[test]
fn long_chains_of_operators_neither_overflow_nor_hang() {
    let glues = ["&&", "||", "+", ">", "==", "+'&&'+", "+r'\\'+", "+(1&&1)+", " in ", "?1:", ",", "+[1,1].", ".a["];
    for source in glues.iter().flat_map(|glue| [50, 150, 380, 4000].map(|times| vec!["1"; times].join(glue))) {
        if let Ok(filter) = Filter::compile(&source) {
            let record = record("k", "{}");
            let _ = filter.matches(&Input { topic: "t", partition: 0, offset: 0, record: &record });
        }
    }
    for tail in
        [".a", "[0]", ".map(a, a)", "(1)"].iter().flat_map(|tail| [150, 390, 4000].map(|times| tail.repeat(times)))
    {
        if let Ok(filter) = Filter::compile(&format!("value{tail}")) {
            let record = record("k", "{}");
            let _ = filter.matches(&Input { topic: "t", partition: 0, offset: 0, record: &record });
        }
    }
    let many = vec!["value.kind == 'created'"; 300].join(" || ");
    assert_eq!(says(&many, &record("k", r#"{"kind": "changed"}"#)), Ok(false), "many alternatives are not deep");
}

#[test]
fn deep_and_long_documents_meet_a_limit() {
    let deep = record("k", &"[".repeat(100_000));
    assert!(says("size(value) == 0", &deep).unwrap_err().message.contains("deeper than the limit of 127 levels"));
    let fits = record("k", &format!("{}{}", "[".repeat(127), "]".repeat(127)));
    assert_eq!(says("size(value) == 1", &fits), Ok(true));
    let long = record("k", &format!("[{}1]", "1,".repeat(20_000)));
    assert_eq!(says("value.all(a, a == 1)", &long), Ok(true));
    let error = says("value.all(a, value.all(b, a == b))", &long).unwrap_err().message;
    assert!(error.contains("lists of up to 20001 elements; the limit is 100000000 steps"), "{error}");
    let shorter = record("k", &format!("[{}1]", "1,".repeat(199)));
    assert_eq!(says("value.all(a, value.all(b, a == b))", &shorter), Ok(true));
}

#[test]
fn what_could_run_for_minutes_or_fill_the_memory_is_refused() {
    let doubling = format!("['aaaaaaaa']{}.size() == 1", ".map(a, a + a)".repeat(40));
    let error = Filter::compile(&doubling).unwrap_err();
    assert!(error.message.contains("on any record"), "{error}");
    let big = record("k", &format!(r#"{{"big": "{}", "list": [{}1]}}"#, "a".repeat(1_000_000), "1,".repeat(5_000)));
    for source in [
        "value.list.map(a, value.big + value.big).size() == 1",
        "value.list.all(a, !value.big.contains('b'))",
        "value.list.all(a, value.big == value.big)",
        "value.big.matches('((a|b|ab)*c(a|b|ab)*c(a|b|ab)*c(a|b|ab)*c(a|b|ab)*c(a|b|ab)*c(a|b|ab)*c(a|b|ab)*c)*(d|e|f|g)$')",
        "value.list.all(a, string(a).matches('^[a-z]+$'))",
    ] {
        let error = says(source, &big).unwrap_err();
        assert!(error.message.contains("the limit is 100000000 steps"), "{source}: {error}");
    }
    assert_eq!(says("value.list.all(a, a == 1) && size(value.big) == 1000000", &big), Ok(true));
    let refused = |source: &str| Filter::compile(source).unwrap_err().message;
    assert!(refused("key.matches('(a{1000}){1000}')").contains("262144 bytes allowed"));
    assert!(refused("key.matches(key)").contains("must be a string in quotes"));
    assert!(refused("key.matches('(')").contains("unclosed group"));
}

#[test]
fn random_text_never_panics() {
    let words = [
        "value", "key", ".a", "(", ")", "[", "]", "'x", "'", "==", "&&", "||", "!", "1", "-", "{", "}", ":", "in", " ",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let record = record("k", r#"{"a": [1, {"b": null}]}"#);
    for _ in 0..3000 {
        let source: String = (0..random.usize(1..12)).map(|_| words[random.usize(..words.len())]).collect();
        if let Ok(filter) = Filter::compile(&source) {
            let _ = filter.matches(&Input { topic: "t", partition: 0, offset: 0, record: &record });
        }
    }
}
