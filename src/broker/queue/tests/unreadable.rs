//! What lies on the disk and cannot be read ends nobody and holds nobody up: it is told with its place, and passed over by
//! those who would otherwise stand still.

use std::sync::Arc;

use super::groups::*;
use crate::base::ErrorKind;
use crate::broker::records::Reading;
use crate::broker::*;
use crate::disk::{Disk, RealDisk};
use crate::expr::Filter;
use crate::fuzz::past_the_gate;
use crate::log::{AppendRequest, WaitFor, verify_partition};

/// Records 0 and 1; a batch of records 2 and 3 and one that cannot be read, 4; and record 5.
async fn with_one_past_the_gate(broker: &Arc<Broker>) {
    produce(broker, "orders", 0..2).await;
    let bad = past_the_gate(2);
    let refused = broker.produce("orders", 0, bad.clone(), AckLevel::Durable).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    let said = "record 2 of the batch has 1048576 headers, more than the limit of 4096";
    assert_eq!(refused.to_string(), said);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| drop(sender.send(result)));
    let topic = broker.topic("orders").unwrap();
    topic.partition(0).unwrap().log().unwrap().enqueue(AppendRequest { batch: bad, wait: WaitFor::Durable, done });
    receiver.await.unwrap().unwrap();
    produce(broker, "orders", 5..6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_group_gets_what_is_before_and_behind_it_and_a_dead_letter_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    with_one_past_the_gate(&broker).await;
    let member = broker.join_queue(join("orders", 1000)).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 5 {
        let (handed, records) = next(&member).await;
        got.extend(records.iter().map(|record| record.offset));
        let acks: Vec<_> =
            records.iter().map(|record| say(&handed, record.offset, record.offset + 1, Verdict::Ack)).collect();
        member.settle(&acks, true).await.unwrap();
    }
    assert_eq!(got, [0, 1, 2, 3, 5]);
    while broker.describe_group(&name()).await.unwrap().partitions[0].lag > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let (dead, _) = broker
        .records_on(&mut Reading::passing(), "test", ("dead-letter.erp", 0), 0, 1 << 20, Isolation::Committed)
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((header(&dead[0], "tidelog-source"), dead[0].value.clone()), ("orders/0/4".to_owned(), None));
    let why = "offset 4 cannot be read: record 2 of the batch has 1048576 headers, more than the limit of 4160";
    assert_eq!(header(&dead[0], "tidelog-error"), why);
    assert!(broker.metrics().unreadable.get() > 0);
    // There is nothing in it that could go back.
    let redrive = Redrive {
        topic: crate::base::TopicName::new("dead-letter.erp").unwrap(),
        filter: None,
        max: 10,
        dry_run: false,
        from: None,
        way: DeadLetterWay::Topic,
        only: false,
        value: None,
    };
    let back = broker.redrive(&redrive).await.unwrap();
    assert_eq!((back.records.len(), back.stranded), (0, 1));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_look_ups_and_verify_tell_it_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    with_one_past_the_gate(&broker).await;
    let request = |offset| FetchRequest {
        topic: "orders",
        partition: 0,
        offset,
        max_bytes: 1 << 20,
        min_bytes: 0,
        max_wait: std::time::Duration::ZERO,
        skip_damaged: false,
    };
    let all = Arc::new(Filter::compile("true").unwrap());
    let at = |from, skip_damaged| FilterAt { from, skip_damaged, most: 64 << 20 };
    let fetched = broker.fetch(request(0)).await.unwrap();
    let left = broker.filter(&WorkKey::new(), &all, "orders", 0, fetched.bytes, at(0, false)).await.unwrap();
    assert_eq!((records(left.batches).len(), left.next), (4, Some(4)));
    let fetched = broker.fetch(request(4)).await.unwrap();
    let told =
        broker.filter(&WorkKey::new(), &all, "orders", 0, fetched.bytes.clone(), at(4, false)).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Damaged);
    let said = told.to_string();
    assert!(said.contains("00000000000000000000.log at position ") && said.contains(": offset 4: record 2"), "{said}");
    let left = broker.filter(&WorkKey::new(), &all, "orders", 0, fetched.bytes, at(4, true)).await.unwrap();
    let skipped: Vec<_> = left.skipped.iter().map(|skipped| (skipped.from, skipped.to)).collect();
    assert_eq!((records(left.batches).len(), left.next, skipped), (1, None, vec![(4, 5)]));
    assert_eq!(broker.list_offset("orders", 0, OffsetAt::Timestamp(6)).await.unwrap(), (6, -1));
    let id = broker.topic("orders").unwrap().entry.id;
    broker.shutdown().await;
    drop(broker);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut found = Vec::new();
    let folder = dir.path().join(format!("topics/orders~{id}/0"));
    let summary = verify_partition(&disk, &folder, &mut |finding| found.push(finding), &mut |_| ()).unwrap();
    assert_eq!((summary.batches, summary.log_end), (3, 6));
    let damage: Vec<_> = found.iter().filter(|finding| finding.damage).collect();
    assert_eq!(damage.len(), 1, "{found:?}");
    assert_eq!((damage[0].from, damage[0].to), (4, Some(5)));
    assert!(damage[0].what.starts_with("its records cannot be read: record 2"), "{}", damage[0].what);
}
