use super::{field, places, record, route, routed};
use crate::base::limits;

#[test]
fn the_first_condition_that_holds_decides() {
    let route = route(
        r#"
        [[route]]
        name = "r"
        from = "in"
        otherwise = "rest"
        [[route.to]]
        when = 'value.n > 10'
        topic = "big"
        [[route.to]]
        when = 'value.n > 5'
        topic = "middle"
        "#,
    );
    assert_eq!(places(&routed(&route, &record(r#"{"n": 11}"#, &[]))), [r#"big={"n": 11}"#]);
    assert_eq!(places(&routed(&route, &record(r#"{"n": 6}"#, &[]))), [r#"middle={"n": 6}"#]);
    assert_eq!(places(&routed(&route, &record(r#"{"n": 1}"#, &[]))), [r#"rest={"n": 1}"#]);
}

#[test]
fn all_conditions_that_hold_count_and_the_tap_gets_everything() {
    let route = route(
        r#"
        [[route]]
        name = "r"
        from = ["in"]
        match = "all"
        tap = "audit"
        key = 'value.id'
        [route.headers]
        origin = '"billing"'
        size = 'size(value.lines)'
        [[route.to]]
        when = 'value.n > 5'
        topic = '"crm." + value.region'
        [[route.to]]
        take = "$.lines[1]"
        topic = "second"
        key = 'null'
        [[route.to]]
        name = "shaped"
        topic = "shaped"
        shape = '{"of": value.id, "lines": value.lines.map(l, l.q)}'
        headers = { origin = 'null' }
        "#,
    );
    let value = r#"{"id":"i1","n":9,"region":"eu","lines":[{"q":1.10},{"q": 2.50 }]}"#;
    let routed = routed(&route, &record(value, &[("origin", "x"), ("kept", "y")]));
    let shaped = r#"shaped={"lines":[1.1,2.5],"of":"i1"}"#.to_owned();
    let expected = [format!("crm.eu={value}"), r#"second={"q": 2.50 }"#.to_owned(), shaped, format!("audit={value}")];
    assert_eq!(places(&routed), expected, "what is cut is cut byte for byte");
    let [first, second, shaped, tap] = routed.outputs.as_slice() else { panic!("{routed:?}") };
    assert_eq!(first.key.as_deref(), Some(&b"i1"[..]));
    assert_eq!(second.key, None);
    assert_eq!(tap.key.as_deref(), Some(&b"k1"[..]));
    assert_eq!(field(first, "origin").as_deref(), Some("billing"));
    assert_eq!(field(first, "size").as_deref(), Some("2"));
    assert_eq!(field(first, "kept").as_deref(), Some("y"));
    assert_eq!(field(first, "tidelog-source").as_deref(), Some("in/2/7"));
    assert_eq!(field(first, "tidelog-route").as_deref(), Some("r"));
    assert_eq!(field(shaped, "origin"), None);
    assert_eq!(field(tap, "origin").as_deref(), Some("x"));
    let numbers: Vec<_> = routed.outputs.iter().map(|output| field(output, "tidelog-route-output")).collect();
    assert_eq!(numbers, [None, Some("1".to_owned()), Some("2".to_owned()), Some("3".to_owned())]);
}

#[test]
fn a_split_makes_parts_that_know_their_whole() {
    let route = route(
        r#"
        [[route]]
        name = "r"
        from = "in"
        split = "$.lines[*]"
        [[route.to]]
        when = 'part.industry == "banking" && value.total > 1'
        topic = "banking"
        [[route.to]]
        when = 'part.industry == "automotive"'
        topic = "automotive"
        take = "$.text"
        "#,
    );
    let value = r#"{"total":3,"lines":[{"industry":"banking"},{"industry":"automotive","text":"a"},{"industry":"x"}]}"#;
    let first = routed(&route, &record(value, &[]));
    assert_eq!(places(&first), [r#"banking={"industry":"banking"}"#, r#"automotive="a""#]);
    assert_eq!(first.unwanted, 1);
    assert_eq!(field(&first.outputs[1], "tidelog-part").as_deref(), Some("2/3"));
    assert_eq!(field(&first.outputs[1], "tidelog-correlation-id").as_deref(), Some("in/2/7"));
    let own = routed(&route, &record(value, &[("tidelog-correlation-id", "c9")]));
    assert_eq!(field(&own.outputs[0], "tidelog-correlation-id").as_deref(), Some("c9"));
    let again = routed(&route, &record(value, &[("tidelog-correlation-id", "c9"), ("tidelog-part", "2/4")]));
    assert_eq!(field(&again.outputs[0], "tidelog-correlation-id").as_deref(), Some("c9.2"));
    assert_eq!(routed(&route, &record(r#"{"lines":[]}"#, &[])).unwanted, 1);
}

#[test]
fn what_cannot_be_said_is_a_dead_letter_as_a_whole() {
    let route = route(
        r#"
        [[route]]
        name = "r"
        from = "in"
        match = "all"
        tap = "audit"
        dead_letter = "dead"
        [[route.to]]
        topic = "everything"
        [[route.to]]
        name = "eu only"
        when = 'value.region == "eu"'
        topic = "eu"
        "#,
    );
    let broken = routed(&route, &record("{\"id\": ", &[]));
    assert_eq!(places(&broken), ["dead={\"id\": ", "audit={\"id\": "]);
    assert_eq!(field(&broken.outputs[0], "tidelog-rule").as_deref(), Some("eu only"));
    assert!(field(&broken.outputs[0], "tidelog-error").unwrap().contains("no JSON"));
    let missing = routed(&route, &record("{}", &[]));
    let failure = missing.failure.unwrap();
    assert_eq!(failure.rule, "eu only");
    assert!(failure.message.contains("region"), "{}", failure.message);
}

#[test]
fn a_record_that_goes_round_is_stopped() {
    let route = route("[[route]]\nname = 'r'\nfrom = 'in'\n[[route.to]]\ntopic = 'out'");
    let passed = routed(&route, &record("1", &[("tidelog-route", "other")]));
    assert_eq!(field(&passed.outputs[0], "tidelog-hops").as_deref(), Some("2"));
    let limit = limits::ROUTE_HOPS.to_string();
    let stopped = routed(&route, &record("1", &[("tidelog-route", "other"), ("tidelog-hops", &limit)]));
    assert_eq!(places(&stopped), ["dead-letter.r=1"]);
    assert!(stopped.failure.unwrap().message.contains("passed 16 routes"));
}

#[test]
fn hostile_documents_meet_a_limit() {
    let route =
        route("[[route]]\nname = 'r'\nfrom = 'in'\nsplit = '$[*]'\n[[route.to]]\nwhen = 'part == 1'\ntopic = 'out'");
    let message = |value: &str| routed(&route, &record(value, &[])).failure.unwrap().message;
    let million = format!("[{}1]", "1,".repeat(999_999));
    assert_eq!(
        message(&million),
        "the split makes more than 10000 parts parts; the limit is 10000".replace("parts parts", "parts")
    );
    let nested = "[".repeat(100_000);
    assert!(message(&format!("{nested}{}", "]".repeat(100_000))).contains("deeper than the limit of 127 levels"));
    assert!(message(&nested).contains("no JSON"));
    let fits = format!("[{}1]", "1,".repeat(9_999));
    assert_eq!(routed(&route, &record(&fits, &[])).outputs.len(), 10_000);
    let long = super::route(
        "[[route]]\nname = 'r'\nfrom = 'in'\n[[route.to]]\nwhen = 'value.all(a, value.all(b, a == b))'\ntopic = 'out'",
    );
    let slow = routed(&long, &record(&format!("[{}1]", "1,".repeat(50_000)), &[])).failure.unwrap();
    assert!(slow.message.contains("the limit is 100000000 steps"), "{}", slow.message);
}

#[test]
fn paths_of_all_kinds_cut_the_text_as_it_stands() {
    let split = |path: &str, value: &str| {
        let file = format!("[[route]]\nname = 'r'\nfrom = 'in'\nsplit = \"\"\"{path}\"\"\"\n[[route.to]]\ntopic = 'o'");
        places(&routed(&route(&file), &record(value, &[]))).join(" ")
    };
    let value = r#"{"a": {"b c": [ 1.0 , {"x":1e2} ,"\u0041"], "n": {"x": 5}}, "x": [[1], [ 2 ]]}"#;
    assert_eq!(split("$.a['b c'][*]", value), r#"o=1.0 o={"x":1e2} o="\u0041""#);
    assert_eq!(split("$.a['b c'][0:2]", value), r#"o=1.0 o={"x":1e2}"#);
    assert_eq!(split("$.a.n.*", value), "o=5");
    assert_eq!(split("$.a.n", value), r#"o={"x": 5}"#);
    assert_eq!(split("$.x[1]", value), "o=[ 2 ]");
    assert_eq!(split("$.x[-1]", value), "o=[ 2 ]");
    assert_eq!(split("$..x", value).matches("o=").count(), 3);
    assert_eq!(split("$.a['b c'][?@.x]", value), r#"o={"x":1e2}"#);
    assert_eq!(split("$.nothing[*]", value), "");
    assert_eq!(split("$", "7"), "o=7");
}
