use super::*;

#[test]
fn topic_names_follow_the_rules() {
    for good in ["a", "crm.eu.accounts", "__consumer_offsets", "A-1_b.2", &"x".repeat(249)] {
        assert_eq!(TopicName::new(good).unwrap().as_str(), good);
    }
    assert_eq!(TopicName::new(""), Err(NameError::Empty));
    assert_eq!(TopicName::new(&"x".repeat(250)), Err(NameError::TooLong { len: 250, limit: 249 }));
    for bad in [".", "..", "a..b", ".a", "a."] {
        assert!(matches!(TopicName::new(bad), Err(NameError::EmptyLevel { .. })), "{bad}");
    }
    for (bad, character) in [("a/b", '/'), ("a b", ' '), ("ü", 'ü'), ("a\0", '\0'), ("a*", '*')] {
        assert_eq!(TopicName::new(bad), Err(NameError::Character { name: bad.into(), character }));
    }
}

#[test]
fn topic_ids_read_what_they_write() {
    let id = TopicId::random();
    assert_eq!(TopicId::parse(&id.to_string()), Some(id));
    assert_eq!(TopicId::parse("12"), None);
    assert_eq!(TopicId::parse(&"g".repeat(32)), None);
}

#[test]
fn error_codes_are_a_round_trip_and_unique() {
    for kind in ErrorKind::ALL {
        assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
    }
    assert_eq!(ErrorKind::from_code(0), None);
    assert_eq!(ErrorKind::from_code(999), None);
}

#[test]
fn sizes_and_durations_read_what_they_write() {
    for (text, bytes, shown) in
        [("0", 0, "0B"), ("1000", 1000, "1000B"), ("64KiB", 65536, "64KiB"), ("1 GiB", 1 << 30, "1GiB")]
    {
        let value: Bytes = text.parse().unwrap();
        assert_eq!((value.0, value.to_string().as_str()), (bytes, shown));
        assert_eq!(value.to_string().parse(), Ok(value));
    }
    for (text, ms, shown) in
        [("250ms", 250, "250ms"), ("90s", 90_000, "90s"), ("1h30m", 5_400_000, "90m"), ("7d", 604_800_000, "7d")]
    {
        let value: Millis = text.parse().unwrap();
        assert_eq!((value.0, value.to_string().as_str()), (ms, shown));
        assert_eq!(value.to_string().parse(), Ok(value));
    }
    for bad in ["", "5", "x", "-5s"] {
        assert!(bad.parse::<Millis>().is_err(), "{bad}");
    }
    assert!("five".parse::<Bytes>().is_err());
}

#[test]
fn a_manual_clock_moves_only_as_told() {
    let clock = ManualClock::at(1000);
    clock.advance(5);
    clock.jump(-500);
    assert_eq!((clock.wall_ms(), clock.monotonic_ms()), (505, 5));
}

#[test]
fn patterns_stand_for_levels() {
    let matches = |pattern: &str, topic: &str| {
        super::TopicPattern::new(pattern).unwrap().matches(&super::TopicName::new(topic).unwrap())
    };
    assert!(matches("crm.*.accounts", "crm.na.accounts"));
    assert!(!matches("crm.*.accounts", "crm.accounts"));
    assert!(!matches("crm.*.accounts", "crm.na.accounts.old"));
    assert!(matches("crm.>", "crm.na") && matches("crm.>", "crm.na.accounts") && !matches("crm.>", "crm"));
    assert!(matches(">", "a") && matches("*", "a") && !matches("*", "a.b"));
    assert!(matches("a.b", "a.b") && !matches("a.b", "a.bc"));
    for wrong in ["", "a..b", "a.>.b", "a b", "a.", "x>"] {
        assert!(super::TopicPattern::new(wrong).is_err(), "{wrong}");
    }
    assert_eq!(super::TopicPattern::new("a.*").unwrap().exact(), None);
    assert_eq!(super::TopicPattern::new("a.b").unwrap().exact().unwrap().as_str(), "a.b");
}

#[test]
fn a_regular_expression_stands_for_whole_names_and_is_bounded() {
    let topic = |name: &str| TopicName::new(name).unwrap();
    for (text, yes, no) in [
        ("^orders[.].*", "orders.eu", "new.orders.eu"),
        ("a|b", "b", "ab"),
        (r"\Qa.b\E.*", "a.b.c", "axb.c"),
        (r"\Qa.b", "a.b", "axb"),
        (r"crm-\d+", "crm-12", "crm-12a"),
        ("(?i)CRM", "crm", "crm2"),
    ] {
        let regex = TopicRegex::new(text).unwrap();
        assert!(regex.matches(&topic(yes)) && !regex.matches(&topic(no)), "{text}");
        assert_eq!(TopicRegex::try_from(String::from(regex.clone())), Ok(regex));
    }
    for wrong in ["(", "a)|(b", "*", "[", r"\p{Greek}", "(?:a{1000}){1000}", "a(?=b)"] {
        let error = TopicRegex::new(wrong).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("'{wrong}' is no regular expression: ")) && !error.contains('\n'),
            "{error}"
        );
    }
    assert_eq!(TopicRegex::new(&"x".repeat(1001)), Err(TopicRegexError::Long { length: 1001 }));
}
