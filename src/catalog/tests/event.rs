use std::path::PathBuf;

use super::super::event::{EventError, Key, batch_of};
use super::*;
use crate::disk::{self, RealDisk};
use crate::record::read_records;

fn examples() -> [(&'static str, Event); 26] {
    let mut altered = entry("crm.accounts", 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, 12);
    altered.settings.insert("retention_time".into(), "7d".into());
    altered.settings.insert("durability".into(), "interval".into());
    [
        ("topic-created", created("crm.accounts", 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)),
        ("topic-altered", Event::TopicAltered(altered)),
        ("topic-deleted", deleted("erp.orders", u128::MAX)),
        ("topic-purged", Event::TopicPurged { id: TopicId(1) }),
        ("producer-ids-reserved", Event::ProducerIdsReserved { up_to: 3_000_000_000_000 }),
        ("group-declared", Event::GroupDeclared(group("erp/billing"))),
        ("group-deleted", Event::GroupDeleted { name: GroupName::new("erp/billing").unwrap() }),
        ("position-set", position("erp/billing", 7, 12_345)),
        ("chunk-set", chunk("erp/billing", 7, 3)),
        ("member-set", member("erp/billing", "5f3c")),
        ("route-set", route("billing")),
        ("route-deleted", Event::RouteDeleted { name: name("billing") }),
        ("route-moved", moved("billing", 7)),
        ("request-set", request("7f3a-1")),
        ("request-of", request_of("7f3a-1")),
        ("transaction-set", transaction("copier/1")),
        ("push-set", push("erp/hook")),
        ("push-of", push_of("erp/hook")),
        ("receipt-set", receipt("erp/billing", 12)),
        ("push-deleted", Event::PushDeleted { name: GroupName::new("erp/hook").unwrap() }),
        ("consumer-set", consumer("erp/billing", "5f3d")),
        ("transaction-of", transaction_of("copier/1")),
        ("position-at", position_at("erp/billing", 7, 12_345)),
        ("transaction-at", transaction_at("copier/1")),
        ("group-paused", paused("erp/billing")),
        ("classic-set", classic("erp/connect")),
    ]
}

/// The batches of all events, as the first version wrote them. `TIDELOG_BLESS=1` writes files that are missing; one
/// that is there never changes.
#[test]
fn events_of_the_first_version_stay_readable_and_are_written_the_same() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/frozen/events");
    for (file, event) in examples() {
        let file = folder.join(format!("{file}.bin"));
        let batch = batch_of(&event.changes().unwrap(), NOW).freeze();
        if std::env::var_os("TIDELOG_BLESS").is_some() && !RealDisk.exists(&file).unwrap() {
            RealDisk.create_dir_all(&folder).unwrap();
            disk::replace_file(&RealDisk, &file, &batch).unwrap();
        }
        let frozen = disk::read_file(&RealDisk, &file).unwrap();
        assert_eq!(frozen, batch, "{}", file.display());
        let records = read_records(&frozen.into(), 1 << 20).unwrap().map(Result::unwrap);
        let values: Vec<_> = records.filter_map(|record| record.value).collect();
        if !matches!(
            event,
            Event::TopicPurged { .. }
                | Event::GroupDeleted { .. }
                | Event::RouteDeleted { .. }
                | Event::PushDeleted { .. }
        ) {
            assert_eq!(values.len(), 1);
            assert_eq!(Event::decode(&values[0]).unwrap(), event);
        }
    }
}

#[test]
fn keys_read_what_they_write() {
    for (_, event) in examples() {
        assert_eq!(Key::parse(event.key().as_bytes()).unwrap().to_string(), event.key());
    }
    for id in ["a/b", "%2F", "%25", "/%/", "+x=="] {
        let key = member("erp/billing", id).key();
        assert_eq!(key.split('/').count(), 4, "{key}");
        assert_eq!(Key::parse(key.as_bytes()), Ok(Key::Member(GroupName::new("erp/billing").unwrap(), id.into())));
    }
    assert_eq!(created("a.b", 1).key(), "topic/a.b");
    assert_eq!(deleted("a.b", 1).key(), "deleted/00000000000000000000000000000001");
    for bad in [
        "",
        "topic",
        "topic/",
        "topic/a b",
        "deleted/12",
        "group/",
        "position/12/0/g",
        "chunk/00000000000000000000000000000001/0/g",
        "member/5f3c",
        "request/",
        "request/a b",
        "transaction/",
        "push/",
        "producer-ids/1",
        "classic/",
        "\u{0}view",
    ] {
        assert!(Key::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(Key::parse(b"topic/\xff").is_err());
}

#[test]
fn values_that_no_version_wrote_are_refused() {
    for (_, event) in examples() {
        for (_, value) in event.changes().unwrap() {
            let Some(value) = value else { continue };
            for len in 0..value.len() {
                assert!(Event::decode(&value[..len]).is_err());
            }
            let mut longer = value.clone();
            longer.push(0);
            assert!(Event::decode(&longer).unwrap_err().to_string().contains("1 bytes too many"));
            let mut newer = value.clone();
            newer[0] = 2;
            assert_eq!(Event::decode(&newer), Err(EventError::Newer { found: 2, supported: 1 }));
        }
    }
    // Every byte changed in every way gives an error or an event, no panic and no huge allocation.
    let value = examples()[1].1.changes().unwrap().remove(0).1.unwrap();
    for at in 0..value.len() {
        for byte in 0..=255 {
            let mut other = value.clone();
            other[at] = byte;
            let _either = Event::decode(&other);
        }
    }
}

#[test]
fn an_event_under_the_key_of_another_is_refused() {
    let (_, value) = created("a", 1).changes().unwrap().remove(0);
    let error = State::default().apply_change(b"topic/b", value.as_deref()).unwrap_err();
    assert_eq!(error.to_string(), "key topic/b holds an event of topic/a");
}

#[test]
fn the_newest_record_of_each_key_gives_the_whole_state() {
    let events = script();
    for (count, state) in states(&events).into_iter().enumerate() {
        let mut replayed = State::default();
        let mut newest: Vec<super::super::event::KeyChange> = Vec::new();
        for (key, value) in events[..count].iter().flat_map(|event| event.changes().unwrap()) {
            replayed.apply_change(key.as_bytes(), value.as_deref()).unwrap();
            newest.retain(|(other, _)| *other != key);
            newest.push((key, value));
        }
        assert_eq!(replayed, state);
        let mut compacted = State::default();
        for (key, value) in &newest {
            compacted.apply_change(key.as_bytes(), value.as_deref()).unwrap();
        }
        assert_eq!(compacted, state, "after {count} events");
        let mut rebuilt = State::default();
        for (key, value) in state.changes().unwrap() {
            rebuilt.apply_change(key.as_bytes(), value.as_deref()).unwrap();
        }
        assert_eq!(rebuilt, state);
    }
}

#[test]
fn replaying_twice_gives_the_same_state() {
    let mut state = State::default();
    for _ in 0..2 {
        script().into_iter().for_each(|event| state.apply(event));
        assert_eq!(state, *states(&script()).last().unwrap());
    }
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let state = &states(&script())[3];
    for (event, says) in [
        (created("crm.accounts", 9), "topic 'crm.accounts' already exists"),
        (created("new", 1), "is in use"),
        (Event::TopicCreated(entry("new", 9, 0)), "0 partitions; allowed are 1 to 1024"),
        (Event::TopicCreated(entry("new", 9, 1025)), "1025 partitions; allowed are 1 to 1024"),
        (Event::TopicAltered(entry("crm.accounts", 1, 2)), "has 3 partitions; it cannot have fewer (2)"),
        (Event::TopicAltered(entry("crm.accounts", 9, 4)), "topic 'crm.accounts' does not exist"),
        (deleted("new", 1), "topic 'new' does not exist"),
        (deleted("crm.accounts", 2), "topic 'crm.accounts' does not exist"),
        (Event::ProducerIdsReserved { up_to: -1 }, "would go back"),
    ] {
        let message = state.check(&event).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}
