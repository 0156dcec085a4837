use super::*;
use crate::base::{Bytes, ErrorKind, Millis};

#[test]
fn every_setting_reads_what_it_writes() {
    let mut settings = TopicSettings::default();
    for (name, values) in [
        ("retention_time", ["7d", "unlimited", "90s"]),
        ("retention_bytes", ["1GiB", "unlimited", "64KiB"]),
        ("segment_bytes", ["64KiB", "100MiB", "2GiB"]),
        ("segment_time", ["1h", "unlimited", "1s"]),
        ("durability", ["interval", "sync", "sync"]),
        ("max_message_bytes", ["1KiB", "64MiB", "8MiB"]),
        ("cleanup", ["compact", "delete,compact", "delete"]),
        ("timestamp_type", ["append", "create", "create"]),
        ("compression", ["zstd", "uncompressed", "producer"]),
        ("timestamp_before_max", ["0ms", "1h", "unlimited"]),
        ("timestamp_after_max", ["0ms", "1h", "unlimited"]),
        ("delete_retention", ["0ms", "1h", "36500d"]),
        ("min_compaction_lag", ["10m", "250ms", "0ms"]),
        ("min_dirty_ratio", ["0", "1", "0.125"]),
    ] {
        for value in values {
            settings.set(name, value).unwrap();
            assert_eq!(settings.get(name).unwrap(), value, "{name}");
        }
    }
    assert_eq!(SETTINGS.map(|setting| setting.name).len(), 15);
    for setting in SETTINGS {
        let value = settings.get(setting.name).unwrap();
        settings.set(setting.name, &value).unwrap();
    }
}

#[test]
fn defaults_are_as_stated() {
    let settings = TopicSettings::default();
    let values = SETTINGS.map(|setting| settings.get(setting.name).unwrap());
    let kept = ["unlimited", "unlimited", "256MiB", "7d", "skip", "sync", "8MiB"];
    let expected = [&kept[..], &["create", "producer", "unlimited", "1h", "delete", "1d", "0ms", "0.5"]].concat();
    assert_eq!(values[..], expected);
    assert_eq!(settings.check(), Ok(()));
}

#[test]
fn values_out_of_bounds_are_refused_with_value_and_bounds() {
    for (name, value, says) in [
        ("retention_time", "0ms", "less than 1ms"),
        ("retention_time", "36501d", "more than 36500d"),
        ("retention_time", "5", "is not a duration"),
        ("retention_bytes", "65535", "less than 64KiB"),
        ("segment_bytes", "65535", "less than 64KiB"),
        ("segment_bytes", "3GiB", "more than 2GiB"),
        ("segment_bytes", "unlimited", "is not a size"),
        ("segment_time", "0s", "less than 1ms"),
        ("durability", "fast", "no such durability"),
        ("timestamp_type", "CreateTime", "no such time"),
        ("compression", "none", "no such compression"),
        ("compression", "brotli", "no such compression"),
        ("max_message_bytes", "1023", "less than 1KiB"),
        ("max_message_bytes", "65MiB", "more than 64MiB"),
        ("max_message_bytes", "-1", "is not a size"),
        ("cleanup", "burn", "no such cleanup"),
        ("cleanup", "compact,compact", "no such cleanup"),
        ("delete_retention", "36501d", "more than 36500d"),
        ("delete_retention", "unlimited", "is not a duration"),
        ("min_compaction_lag", "-1s", "is not a duration"),
        ("min_dirty_ratio", "1.001", "more than 1"),
        ("min_dirty_ratio", "50%", "is not a ratio"),
        ("min_dirty_ratio", "0.1234", "is not a ratio"),
    ] {
        let mut settings = TopicSettings::default();
        let error = settings.set(name, value).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("{name} = '{value}': ")) && message.contains(says), "{message}");
        assert!(message.contains("allowed: "), "{message}");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(settings, TopicSettings::default());
    }
}

#[test]
fn an_unknown_setting_is_answered_with_the_known_ones() {
    let error = TopicSettings::default().set("retention.ms", "1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown setting 'retention.ms'; known are retention_time, retention_bytes, segment_bytes, segment_time, \
         expired, durability, max_message_bytes, timestamp_type, compression, timestamp_before_max, timestamp_after_max, cleanup, delete_retention, min_compaction_lag, min_dirty_ratio"
    );
    assert_eq!(TopicSettings::default().get("x"), Err(SettingError::Unknown { name: "x".into() }));
}

#[test]
fn cleanup_is_read_as_kafka_writes_it() {
    let mut settings = TopicSettings::default();
    for value in ["compact,delete", "delete, compact"] {
        settings.set("cleanup", value).unwrap();
        assert_eq!(settings.get("cleanup").unwrap(), "delete,compact");
        assert!(settings.cleanup.deletes() && settings.cleanup.compacts());
    }
    settings.set("cleanup", "compact").unwrap();
    assert!(!settings.cleanup.deletes() && settings.cleanup.compacts());
}

#[test]
fn contradictions_are_found_whatever_the_order_of_setting() {
    let overrides = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let both = overrides(&[("max_message_bytes", "8MiB"), ("segment_bytes", "64KiB")]);
    let error = TopicSettings::default().with(&both).unwrap_err();
    assert!(error.to_string().contains("max_message_bytes = 8MiB is larger than segment_bytes = 64KiB"));
    let small = overrides(&[("segment_bytes", "64KiB"), ("max_message_bytes", "64KiB")]);
    assert_eq!(TopicSettings::default().with(&small).unwrap().segment_bytes, Bytes(65536));
}

#[test]
fn configuration_files_name_what_differs_from_the_defaults() {
    let text = "retention_time = \"30d\"\nmax_message_bytes = 65536\n";
    let settings: TopicSettings = toml::from_str(text).unwrap();
    let expected = TopicSettings {
        retention_time: Some(Millis(30 * 86_400_000)),
        max_message_bytes: Bytes(65536),
        ..TopicSettings::default()
    };
    assert_eq!(settings, expected);
    assert_eq!(toml::from_str::<TopicSettings>(&toml::to_string(&settings).unwrap()).unwrap(), settings);
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<TopicSettings>(&json).unwrap(), settings);
    assert!(toml::from_str::<TopicSettings>("colour = \"red\"").unwrap_err().to_string().contains("unknown setting"));
}

#[test]
fn of_two_sizes_that_contradict_each_other_the_default_gives_way() {
    let with =
        |name: &str, value: &str| TopicSettings::default().with(&[(name.to_owned(), value.to_owned())].into()).unwrap();
    let small = with("segment_bytes", "1MiB");
    assert_eq!((small.segment_bytes, small.max_message_bytes), (Bytes(1 << 20), Bytes(1 << 20)));
    let large = TopicSettings { segment_bytes: Bytes(8 << 20), ..TopicSettings::default() };
    let large = large.with(&[("max_message_bytes".to_owned(), "64MiB".to_owned())].into()).unwrap();
    assert_eq!((large.segment_bytes, large.max_message_bytes), (Bytes(64 << 20), Bytes(64 << 20)));
    assert_eq!(with("max_message_bytes", "1KiB").segment_bytes, TopicSettings::default().segment_bytes);
}

#[test]
fn what_means_something_to_kafka_alone_is_checked_and_kept() {
    let mut settings = TopicSettings::default();
    for hint in HINTS {
        let good = match hint.kind {
            HintKind::Switch => "true",
            HintKind::Int(_) | HintKind::Long(_) => "4711",
            HintKind::Word => "2.8-IV1",
        };
        assert_eq!(settings.get(hint.setting.name).unwrap(), hint.default.unwrap_or_default());
        settings.set(hint.setting.name, good).unwrap();
        assert_eq!(settings.get(hint.setting.name).unwrap(), good);
        let error = settings.set(hint.setting.name, "").unwrap_err().to_string();
        assert!(error.starts_with(hint.setting.name) && error.contains("allowed: "), "{error}");
        assert_eq!(hint.setting.name, format!("{HINT_PREFIX}{}", hint.kafka_name()));
    }
    assert_eq!(settings.hints.len(), HINTS.len());
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<TopicSettings>(&json).unwrap(), settings);
    for (name, value) in
        [("kafka.flush.messages", "0"), ("kafka.preallocate", "yes"), ("kafka.segment.index.bytes", "3")]
    {
        assert!(settings.set(name, value).is_err(), "{name} = {value}");
    }
}

#[test]
fn what_is_kept_and_shown_of_a_value_is_short_whatever_was_said() {
    let said = |value: &str| [("retention_time".to_owned(), value.to_owned())].into();
    let long = format!("{}168h{}", " ".repeat(100_000), " ".repeat(100_000));
    assert_eq!(TopicSettings::canonical(&said(&long)).unwrap(), said("7d"));
    let error = TopicSettings::canonical(&said(&"9".repeat(100_000))).unwrap_err().to_string();
    assert!(error.contains("100000 characters; the limit is 80") && error.len() < 300, "{error}");
    // It is what it was before.
    for setting in SETTINGS {
        let value = TopicSettings::default().get(setting.name).unwrap();
        let one = [(setting.name.to_owned(), value)].into();
        assert_eq!(TopicSettings::canonical(&one).unwrap(), one);
    }
}
