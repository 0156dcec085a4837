use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{GroupName, SystemClock, TopicName, TopicPattern, limits};
use crate::broker::*;
use crate::catalog::QueueSettings;
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions, Batches, Record, read_records};

pub(super) fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap()
}

pub(super) fn name() -> GroupName {
    GroupName::new("erp").unwrap()
}

pub(super) fn join(topics: &str, prefetch: u32) -> JoinQueue {
    JoinQueue {
        group: name(),
        settings: Some(QueueSettings { backoff_ms: 5, backoff_max_ms: 5, max_deliveries: 3, ..Default::default() }),
        topics: vec![TopicPattern::new(topics).unwrap()],
        filter: None,
        start: OffsetAt::Beginning,
        prefetch,
        client: "test".into(),
    }
}

pub(super) async fn produce(broker: &Arc<Broker>, topic: &str, values: impl IntoIterator<Item = u64>) {
    broker.metadata(&TopicName::new(topic).unwrap(), true).await.unwrap();
    produce_with(broker, topic, values, &[]).await;
}

pub(super) async fn produce_with(
    broker: &Arc<Broker>,
    topic: &str,
    values: impl IntoIterator<Item = u64>,
    headers: &[(&str, Option<&[u8]>)],
) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in values {
        builder.push(5, Some(&[value as u8 % 4]), Some(value.to_string().as_bytes()), headers);
    }
    broker.produce(topic, 0, builder.build(), AckLevel::Durable).await.unwrap();
}

pub(super) async fn next(member: &QueueMember) -> (Handed, Vec<Record>) {
    let handed = tokio::time::timeout(Duration::from_secs(20), member.next()).await.expect("nothing comes").unwrap();
    member.sent(handed.batch.len());
    let records = records(handed.batch.clone());
    (handed, records)
}

pub(super) fn records(batches: bytes::Bytes) -> Vec<Record> {
    let read = |batch: Result<(_, bytes::Bytes), _>| {
        read_records(&batch.unwrap().1, limits::MAX_DECOMPRESSED_BYTES).unwrap().map(Result::unwrap)
    };
    Batches::new(batches).flat_map(read).collect()
}

pub(super) fn say(of: &Handed, from: u64, to: u64, verdict: Verdict) -> Settlement {
    Settlement { topic: of.topic.clone(), partition: of.partition, from, to, verdict }
}

pub(super) fn number(record: &Record) -> u64 {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

pub(super) fn header(record: &Record, name: &str) -> String {
    let header = record.headers.iter().find(|header| header.name == name.as_bytes()).unwrap();
    String::from_utf8(header.value.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_not_acked_comes_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..100).await;
    let member = broker.join_queue(join("orders", 1000)).await.unwrap();
    let (handed, got) = next(&member).await;
    assert_eq!((handed.attempt, got.len()), (1, 100));
    let acks: Vec<_> = (0..100).filter(|at| at % 3 != 0).map(|at| say(&handed, at, at + 1, Verdict::Ack)).collect();
    assert_eq!(member.settle(&acks, true).await.unwrap(), Settled { settled: 66, lost: 0 });
    drop(member);
    broker.shutdown().await;
    drop(broker);

    let broker = open(dir.path());
    let described = broker.describe_group(&name()).await.unwrap();
    assert_eq!((described.partitions[0].lag, described.partitions[0].floor), (34, 0));
    let member = broker.join_queue(JoinQueue { topics: vec![], settings: None, ..join("x", 1000) }).await.unwrap();
    let mut again = BTreeMap::new();
    while again.len() < 34 {
        let (handed, records) = next(&member).await;
        again.extend(records.iter().map(|record| (number(record), handed.attempt)));
        let acks: Vec<_> =
            records.iter().map(|record| say(&handed, record.offset, record.offset + 1, Verdict::Ack)).collect();
        member.settle(&acks, false).await.unwrap();
    }
    assert!(again.keys().copied().eq((0..100).step_by(3)));
    // The first was in the hands of the member that left.
    assert_eq!((again[&0], again[&3]), (2, 1));
    assert_eq!(broker.describe_group(&name()).await.unwrap().partitions[0].lag, 0);
    assert!(broker.delete_group(&name(), false).await.unwrap_err().to_string().contains("1 active member;"));
    broker.delete_group(&name(), true).await.unwrap();
    assert!(member.next().await.is_none());
    assert!(broker.describe_group(&name()).await.is_err());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_is_a_dead_letter_after_exactly_so_many_deliveries_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let member = broker.join_queue(join("crm.>", 10)).await.unwrap();
    // The topic is created after the group.
    produce(&broker, "crm.accounts", 0..50).await;
    let (mut deliveries, mut done) = (0, 0);
    while deliveries < 3 || done < 49 {
        let (handed, records) = next(&member).await;
        for record in records {
            let verdict = if number(&record) == 7 {
                deliveries += 1;
                assert_eq!(handed.attempt, deliveries);
                Verdict::Nack { delay_ms: None, reason: Some("no such account".into()) }
            } else {
                done += 1;
                Verdict::Ack
            };
            member.settle(&[say(&handed, record.offset, record.offset + 1, verdict)], false).await.unwrap();
        }
    }
    let dead = loop {
        let request = FetchRequest {
            topic: "dead-letter.erp",
            partition: 0,
            offset: 0,
            max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_secs(5),
            skip_damaged: false,
        };
        match broker.fetch(request).await {
            Ok(fetched) if !fetched.bytes.is_empty() => break records(fetched.bytes),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(dead.len(), 1);
    assert_eq!(number(&dead[0]), 7);
    let said = ["tidelog-source", "tidelog-attempts", "tidelog-error"].map(|name| header(&dead[0], name));
    assert_eq!(said, ["crm.accounts/0/7", "3", "no such account"]);
    let mut lag = 1;
    while lag > 0 {
        lag = broker.describe_group(&name()).await.unwrap().partitions[0].lag;
    }
    assert_eq!(deliveries, 3);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_records_and_what_one_that_leaves_had_goes_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..300).await;
    let first = broker.join_queue(join("orders", 7)).await.unwrap();
    let second = broker.join_queue(join("orders", 7)).await.unwrap();
    let (_, held) = next(&first).await;
    assert_eq!(held.len(), 7);
    let mut seen = BTreeMap::new();
    let mut first = Some(first);
    while seen.len() < 300 {
        let (handed, records) = next(&second).await;
        assert!(records.len() <= 7);
        for record in &records {
            *seen.entry(number(record)).or_insert(0) += 1;
        }
        let end = records.last().unwrap().offset + 1;
        member_acks(&second, &handed, &records).await;
        assert!(end <= 300);
        if seen.len() > 100 {
            first = None;
        }
    }
    assert!(first.is_none() && seen.values().all(|times| *times == 1));
    broker.shutdown().await;
}

async fn member_acks(member: &QueueMember, handed: &Handed, records: &[Record]) {
    let acks: Vec<_> =
        records.iter().map(|record| say(handed, record.offset, record.offset + 1, Verdict::Ack)).collect();
    assert_eq!(member.settle(&acks, false).await.unwrap().lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_delays_and_expiry_hold_for_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..10).await;
    let now = SystemClock::new();
    let at = |ms: i64| (crate::base::Clock::wall_ms(&now) + ms).to_string();
    produce_with(&broker, "orders", [20], &[(DELIVER_AT, Some(at(300).as_bytes()))]).await;
    produce_with(&broker, "orders", [30], &[(EXPIRES_AT, Some(at(-1).as_bytes()))]).await;
    produce_with(&broker, "orders", [40], &[(EXPIRES_AT, Some(at(60_000).as_bytes()))]).await;
    let filter = Some("value >= 5".to_owned());
    let member = broker.join_queue(JoinQueue { filter, ..join("orders", 100) }).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 7 {
        let (handed, records) = next(&member).await;
        member_acks(&member, &handed, &records).await;
        got.extend(records.iter().map(number));
    }
    assert_eq!(got, [5, 6, 7, 8, 9, 40, 20]);
    assert_eq!(broker.describe_group(&name()).await.unwrap().partitions[0].lag, 0);
    let wrong = JoinQueue { filter: Some("value >=".into()), ..join("orders", 100) };
    assert!(broker.join_queue(wrong).await.err().unwrap().to_string().contains("line 1"));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_a_group_that_is_taken_into_use_sees_all_of_it() {
    const PARTITIONS: u32 = 200;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let new = NewTopic {
        name: TopicName::new("wide").unwrap(),
        partitions: Some(PARTITIONS),
        settings: Vec::new(),
        if_not_exists: false,
    };
    broker.create_topic(new).await.unwrap();
    drop(broker.join_queue(join("wide", 10)).await.unwrap());
    for _ in 0..20 {
        // As after a start: it is known, and not in use.
        crate::broker::broker::lock(&broker.queues.groups).clear();
        let looks = (0..4).map(|_| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move { broker.describe_group(&name()).await.unwrap().partitions.len() })
        });
        for look in looks.collect::<Vec<_>>() {
            assert_eq!(look.await.unwrap(), PARTITIONS as usize);
        }
    }
    broker.shutdown().await;
}

/// Right after a start no group has members yet; theirs are about to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_neither_deleted_nor_reset_before_its_members_can_have_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..3).await;
    drop(broker.join_queue(join("orders", 10)).await.unwrap());
    for is_reset in [false, true] {
        let broker = open_again(dir.path(), &broker).await;
        let changing = Arc::clone(&broker);
        let change = tokio::spawn(async move {
            match is_reset {
                false => changing.delete_group(&name(), false).await,
                true => {
                    let to = ResetTo::At(OffsetAt::End);
                    let reset = ResetQueue {
                        group: name(),
                        topics: Vec::new(),
                        partitions: Vec::new(),
                        to,
                        dry_run: false,
                        force: false,
                    };
                    changing.reset_queue(reset).await.map(drop)
                }
            }
        });
        tokio::task::yield_now().await;
        let member = broker.join_queue(join("orders", 10)).await.unwrap();
        let error = change.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), crate::base::ErrorKind::Busy, "{error}");
        // One that the member of before the restart had may come behind the others.
        let mut records = 0;
        while records < 3 {
            records += next(&member).await.1.len();
        }
        broker.shutdown().await;
    }
}

async fn open_again(dir: &Path, before: &Arc<Broker>) -> Arc<Broker> {
    before.shutdown().await;
    open(dir)
}
