use super::{record, route};
use crate::expr::{Expression, Input, Scope, Variables};
use crate::route::{Matching, Rule};

fn condition(random: &mut fastrand::Rng) -> Option<String> {
    let field = ["value.a", "value.b.c", "headers.h", "headers[\"h\"]", "key", "value.list[0]"][random.usize(..6)];
    let literal = ["\"x\"", "\"y\"", "1", "2", "\"z\"", "true"][random.usize(..6)];
    Some(match random.u32(..12) {
        0..=5 => format!("{field} == {literal}"),
        6 => format!("{literal} == {field}"),
        7 => format!("{field} == {literal} && value.n > 2"),
        8 => format!("{field} == {literal} && headers.h == \"x\" && value.n > 1"),
        9 => format!("value.n > {}", random.u32(..5)),
        10 => format!("has(value.a) && {field} == {literal}"),
        _ => return None,
    })
}

fn document(random: &mut fastrand::Rng) -> String {
    let scalar = |random: &mut fastrand::Rng| {
        ["\"x\"", "\"y\"", "1", "2", "1.0", "true", "null", "18446744073709551615", "\"z\""][random.usize(..9)]
    };
    let mut fields = Vec::new();
    if random.u32(..5) > 0 {
        fields.push(format!("\"a\": {}", scalar(random)));
    }
    if random.u32(..5) > 0 {
        fields.push(format!("\"b\": {{\"c\": {}}}", scalar(random)));
    }
    if random.u32(..9) > 0 {
        fields.push(format!("\"n\": {}", random.u32(..5)));
    }
    fields.push(format!("\"list\": [{}]", scalar(random)));
    let text = format!("{{{}}}", fields.join(", "));
    if random.u32(..40) == 0 { text[1..].to_owned() } else { text }
}

/// The index gives the answers and the errors of asking one condition after the other.
#[test]
fn looking_up_is_the_same_as_asking_one_by_one() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(41);
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut failures, mut matches) = (0, 0);
    for round in 0..150 {
        let matching = if round % 2 == 0 { Matching::First } else { Matching::All };
        let word = if round % 2 == 0 { "first" } else { "all" };
        let conditions: Vec<Option<String>> = (0..random.usize(1..25)).map(|_| condition(&mut random)).collect();
        let mut file = format!("[[route]]\nname = 'r'\nfrom = 'in'\nmatch = '{word}'\n");
        for (at, condition) in conditions.iter().enumerate() {
            file += &format!("[[route.to]]\nname = 'n{at}'\ntopic = 't{at}'\n");
            if let Some(condition) = condition {
                file += &format!("when = '{condition}'\n");
            }
        }
        let route = route(&file);
        for _ in 0..30 {
            let headers: &[_] = if random.bool() { &[("h", "x")] } else { &[] };
            let record = record(&document(&mut random), headers);
            let input = Input { topic: "in", partition: 2, offset: record.offset, record: &record };
            let mut expected: Result<Vec<usize>, (String, String)> = Ok(Vec::new());
            for (at, condition) in conditions.iter().enumerate() {
                let says = condition.as_ref().map_or(Ok(true), |condition| {
                    Scope::new(input).says(&Expression::compile(condition, Variables::Record).unwrap())
                });
                match (says, &mut expected) {
                    (Ok(true), Ok(found)) => found.push(at),
                    (Err(error), expected) => *expected = Err((format!("n{at}"), error.message)),
                    _ => {}
                }
                if expected.is_err() || matching == Matching::First && says_yes(&expected) {
                    break;
                }
            }
            let routed = route.route(&input);
            let found = match &routed.failure {
                Some(failure) => Err((failure.rule.clone(), failure.message.clone())),
                None => Ok(routed
                    .outputs
                    .iter()
                    .map(|output| match output.rule {
                        Rule::To(at) => at,
                        other => panic!("{other:?}"),
                    })
                    .collect()),
            };
            assert_eq!(found, expected, "{file}\n{record:?}");
            assert_eq!(route.explain(&input).routed, routed);
            failures += usize::from(expected.is_err());
            matches += usize::from(says_yes(&expected));
        }
    }
    assert!(failures > 100 && matches > 100, "{failures} failures, {matches} matches");
}

fn says_yes(expected: &Result<Vec<usize>, (String, String)>) -> bool {
    expected.as_ref().is_ok_and(|found| !found.is_empty())
}
