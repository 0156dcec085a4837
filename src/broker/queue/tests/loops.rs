//! Dead letters end somewhere: they do not go round between groups, and do not carry the expiry that killed them.

use std::time::Duration;

use super::groups::{header, join, next, number, open, produce, produce_with, records, say};
use crate::base::{GroupName, TopicName, TopicPattern};
use crate::broker::*;
use crate::catalog::QueueSettings;
use crate::record::Record;

async fn all_of(broker: &Broker, topic: &str) -> Vec<Record> {
    let request = FetchRequest {
        topic,
        partition: 0,
        offset: 0,
        max_bytes: 1 << 20,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    broker.fetch(request).await.map(|fetched| records(fetched.bytes)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_read_everything_do_not_feed_each_other_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let group = |name: &str| JoinQueue {
        group: GroupName::new(name).unwrap(),
        settings: Some(QueueSettings { max_deliveries: 1, ..QueueSettings::default() }),
        topics: vec![TopicPattern::new(">").unwrap()],
        ..join("orders", 10)
    };
    let members = [broker.join_queue(group("a")).await.unwrap(), broker.join_queue(group("b")).await.unwrap()];
    // A record that only claims to be a dead letter of both is one like any other.
    let forged = [("tidelog-dead-letter-of", Some(&b"a"[..])), ("tidelog-dead-letter-of", Some(b"b"))];
    produce(&broker, "orders", 0..1).await;
    produce_with(&broker, "orders", [1], &forged).await;
    let refused = |member: usize| {
        let member = &members[member];
        async move {
            let mut refused = 0;
            while let Ok(Some(handed)) = tokio::time::timeout(Duration::from_secs(3), member.next()).await {
                for record in records(handed.batch.clone()) {
                    let no = Verdict::Nack { delay_ms: None, reason: Some("no".into()) };
                    member.settle(&[say(&handed, record.offset, record.offset + 1, no)], false).await.unwrap();
                    refused += 1;
                }
            }
            refused
        }
    };
    let (first, second) = tokio::join!(refused(0), refused(1));
    // Two records from the source; a dead letter of the other; and once more one that was a dead letter of both.
    assert_eq!((first, second), (6, 6));
    for topic in ["dead-letter.a", "dead-letter.b"] {
        let dead = all_of(&broker, topic).await;
        assert_eq!(dead.len(), 4, "{topic}");
        for record in &dead {
            let path = record.headers.iter().filter(|header| header.name == b"tidelog-dead-letter-of").count();
            assert!((1..=2).contains(&path));
        }
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_does_not_carry_the_expiry_that_killed_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..1).await;
    let set = [("expired".to_owned(), "dead-letter".to_owned())];
    broker.alter_topic(&TopicName::new("orders").unwrap(), None, &set, &[]).await.unwrap();
    produce_with(&broker, "orders", [7], &[(EXPIRES_AT, Some(b"1000")), (DELIVER_AT, Some(b"5"))]).await;
    let member = broker.join_queue(join("orders", 10)).await.unwrap();
    let (handed, first) = next(&member).await;
    assert_eq!(first.iter().map(number).collect::<Vec<_>>(), [0]);
    member.settle(&[say(&handed, 0, 1, Verdict::Ack)], false).await.unwrap();
    let other = JoinQueue { group: GroupName::new("readers").unwrap(), ..join("dead-letter.erp", 10) };
    while all_of(&broker, "dead-letter.erp").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reader = broker.join_queue(other).await.unwrap();
    let (_, dead) = next(&reader).await;
    assert_eq!(dead.iter().map(number).collect::<Vec<_>>(), [7]);
    assert_eq!(header(&dead[0], "tidelog-expired-at"), "1000");
    for name in [EXPIRES_AT, DELIVER_AT] {
        assert!(dead[0].headers.get(name).is_none(), "{name}");
    }
    broker.shutdown().await;
}
