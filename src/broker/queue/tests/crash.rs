//! What was written before a crash and is deleted after it is not written twice.

use super::groups::{header, join, name, next, open, produce, say};
use crate::base::{ErrorKind, Offset, TopicName};
use crate::broker::broker::lock;
use crate::broker::records::Reading;
use crate::broker::*;
use crate::catalog::{Event, Place, Position};
use std::sync::Arc;
use std::time::Duration;

/// Sets the progress of a group back to what it was just before it was kept that something was written.
fn forget_the_last_step(broker: &Broker, group: &str, topic: &str, floor: Offset, intent: &str) {
    let place = Place {
        group: crate::base::GroupName::new(group).unwrap(),
        topic: broker.topic(topic).unwrap().entry.id,
        partition: 0,
    };
    let mut catalog = lock(&broker.catalog);
    let progress = catalog.progress(&place.group, (place.topic, 0)).unwrap();
    let mut events = vec![Event::PositionSet {
        place: place.clone(),
        position: Some(Position { offset: floor, metadata: intent.to_owned(), time_ms: 5, leader_epoch: None }),
    }];
    let gone = progress.chunks.keys().map(|&number| Event::ChunkSet { place: place.clone(), number, chunk: None });
    events.extend(gone);
    catalog.commit_all(events, 5).unwrap();
}

fn end_of(broker: &Broker, topic: &str) -> Offset {
    broker.topic(topic).unwrap().partition(0).unwrap().log().unwrap().with(|log| log.written_end())
}

/// Of ten records the group gives two up.
async fn bury_two(broker: &Arc<Broker>) {
    produce(broker, "orders", 0..10).await;
    let member = broker.join_queue(join("orders", 100)).await.unwrap();
    while broker.topic("dead-letter.erp").is_err() || end_of(broker, "dead-letter.erp") < 2 {
        let got = tokio::time::timeout(Duration::from_millis(50), next(&member)).await;
        let Ok((handed, records)) = got else { continue };
        let verdict = |offset| match offset < 2 {
            true => Verdict::Nack { delay_ms: Some(0), reason: None },
            false => Verdict::Ack,
        };
        let says = records.iter().map(|record| say(&handed, record.offset, record.offset + 1, verdict(record.offset)));
        member.settle(&says.collect::<Vec<_>>(), true).await.unwrap();
    }
    while broker.describe_group(&name()).await.unwrap().partitions[0].lag > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_deleted_after_a_crash_is_not_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    bury_two(&broker).await;
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    let intent = r#"{"topic":"dead-letter.erp","ends":[[0,0]]}"#;
    forget_the_last_step(&broker, "erp", "orders", 0, intent);
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let found = "group 'erp': 2 records had been written before a stop".to_owned();
    assert!(broker.startup().notes.contains(&found), "{:?}", broker.startup().notes);
    // Nobody has joined, and nothing is held any more.
    assert_eq!(broker.delete_records("dead-letter.erp", 0, None, SETTLE).await.unwrap(), 2);
    let member = broker.join_queue(join("orders", 100)).await.unwrap();
    let (handed, records) = next(&member).await;
    assert!(records.iter().all(|record| record.offset >= 2), "done is done");
    member.settle(&[say(&handed, 0, 10, Verdict::Ack)], true).await.unwrap();
    assert_eq!(broker.describe_group(&name()).await.unwrap().partitions[0].lag, 0);
    assert_eq!(end_of(&broker, "dead-letter.erp"), 2);
    // Once more: the intent is gone.
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    assert!(broker.startup().notes.iter().all(|note| !note.contains("written before")), "{:?}", broker.startup().notes);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_went_back_and_is_deleted_after_a_crash_does_not_go_back_twice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    bury_two(&broker).await;
    let redrive = Redrive {
        topic: TopicName::new("dead-letter.erp").unwrap(),
        filter: None,
        max: 100,
        dry_run: false,
        from: None,
        way: DeadLetterWay::Topic,
        only: false,
        value: None,
    };
    assert_eq!(broker.redrive(&redrive).await.unwrap().records, [(0, 0), (0, 1)]);
    assert_eq!(end_of(&broker, "orders"), 12);
    let own = "tidelog.redrive.dead-letter.erp";
    forget_the_last_step(&broker, own, "dead-letter.erp", 0, r#"[["orders",0,10]]"#);
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let found = format!("group '{own}': 2 records had been written before a stop");
    assert!(broker.startup().notes.contains(&found), "{:?}", broker.startup().notes);
    assert_eq!(broker.delete_records("orders", 0, None, SETTLE).await.unwrap(), 12);
    assert_eq!(broker.redrive(&redrive).await.unwrap().records, []);
    assert_eq!(end_of(&broker, "orders"), 12);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_found_out_without_members_and_what_is_held_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    bury_two(&broker).await;
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    let intent = r#"{"topic":"dead-letter.erp","ends":[[0,0]]}"#;
    forget_the_last_step(&broker, "erp", "orders", 0, intent);
    // As after a failure: in use, with an intent, and without members; found out all the same.
    broker.describe_group(&name()).await.unwrap();
    assert_eq!(broker.delete_records("dead-letter.erp", 0, None, SETTLE).await.unwrap(), 2);
    assert_eq!(broker.describe_group(&name()).await.unwrap().partitions[0].floor, 2);
    let held = broker.topic("dead-letter.erp").unwrap();
    let hold = super::super::Hold::of(held.partition(0).unwrap()).unwrap();
    produce(&broker, "dead-letter.erp", 0..1).await;
    let refused = broker.delete_records("dead-letter.erp", 0, None, SETTLE).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    drop(hold);
    assert_eq!(broker.delete_records("dead-letter.erp", 0, None, SETTLE).await.unwrap(), 3);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_cannot_be_written_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..3).await;
    let dead = TopicName::new("dead").unwrap();
    let set = |value: &str| vec![("cleanup".to_owned(), value.to_owned())];
    let new = NewTopic { name: dead.clone(), partitions: None, settings: set("compact"), if_not_exists: false };
    broker.create_topic(new).await.unwrap();
    let mut wish = join("orders", 1);
    if let Some(rules) = &mut wish.settings {
        (rules.dead_letter, rules.max_deliveries) = (Some(dead.clone()), 1);
    }
    let refused = broker.join_queue(wish.clone()).await.err().unwrap().to_string();
    assert_eq!(refused, "topic 'dead' has cleanup=compact, which would remove dead letters; they need cleanup=delete");
    broker.alter_topic(&dead, None, &set("delete"), &[]).await.unwrap();
    let member = broker.join_queue(wish).await.unwrap();
    broker.alter_topic(&dead, None, &set("compact"), &[]).await.unwrap();
    for at in 0..3 {
        let (handed, records) = next(&member).await;
        assert_eq!(records[0].offset, at);
        let verdict = match at {
            0 => Verdict::Nack { delay_ms: None, reason: Some("poison".to_owned()) },
            _ => Verdict::Ack,
        };
        member.settle(&[say(&handed, at, at + 1, verdict)], true).await.unwrap();
    }
    assert_eq!(end_of(&broker, "dead"), 0);
    broker.alter_topic(&dead, None, &set("delete"), &[]).await.unwrap();
    while end_of(&broker, "dead") == 0 || broker.describe_group(&name()).await.unwrap().partitions[0].lag > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (records, _) = broker
        .records_on(&mut Reading::passing(), "test", ("dead", 0), 0, 1 << 20, Isolation::Committed)
        .await
        .unwrap();
    assert_eq!((records.len(), header(&records[0], "tidelog-error")), (1, "poison".to_owned()));
    broker.shutdown().await;
}
