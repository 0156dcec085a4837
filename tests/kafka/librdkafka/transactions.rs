//! Transactions: committed, aborted, open, superseded, and positions that go with them.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::super::client::Running;
use super::{Content, PATIENCE, config, consumer, create, places, take};

const PARTITIONS: i32 = 3;

fn transactional(running: &Running, id: &str) -> BaseProducer {
    let producer: BaseProducer =
        config(running, &[("transactional.id", id), ("compression.type", "zstd")]).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn write(producer: &BaseProducer, topic: &str, what: &str, count: usize) {
    for number in 0..count {
        let (key, value) = (format!("{number}"), format!("{what}-{number}"));
        producer.send(BaseRecord::to(topic).key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Everything up to the end that this isolation sees.
fn read(running: &Running, topic: &str, isolation: &str) -> Vec<String> {
    let settings = [("isolation.level", isolation), ("enable.partition.eof", "true")];
    let reader: BaseConsumer = consumer(running, "reader", &settings).create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_range(topic, 0, PARTITIONS - 1);
    all.set_all_offsets(Offset::Beginning).unwrap();
    reader.assign(&all).unwrap();
    let (mut got, mut ends, until) = (Vec::new(), 0, Instant::now() + PATIENCE);
    while ends < PARTITIONS {
        assert!(Instant::now() < until, "the end does not come");
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => got.push(String::from_utf8(Content::seen(&message).value.unwrap()).unwrap()),
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    got.sort_unstable();
    got
}

fn named(names: &[&str], count: usize) -> Vec<String> {
    let mut all: Vec<_> =
        names.iter().flat_map(|name| (0..count).map(move |number| format!("{name}-{number}"))).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_what_is_committed_see_nothing_aborted_and_nothing_open() {
    let running = Running::start().await;
    create(&running, "tx", PARTITIONS).await;
    let (one, two) = (transactional(&running, "one"), transactional(&running, "two"));
    for round in 0..3 {
        one.begin_transaction().unwrap();
        two.begin_transaction().unwrap();
        write(&one, "tx", &format!("yes{round}"), 50);
        write(&two, "tx", &format!("no{round}"), 50);
        two.abort_transaction(PATIENCE).unwrap();
        one.commit_transaction(PATIENCE).unwrap();
    }
    assert_eq!(read(&running, "tx", "read_committed"), named(&["yes0", "yes1", "yes2"], 50));
    let everything = named(&["yes0", "yes1", "yes2", "no0", "no1", "no2"], 50);
    assert_eq!(read(&running, "tx", "read_uncommitted"), everything);
    // One that is open holds back what is committed behind it.
    one.begin_transaction().unwrap();
    write(&one, "tx", "open", 50);
    two.begin_transaction().unwrap();
    write(&two, "tx", "behind", 50);
    two.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read(&running, "tx", "read_committed"), named(&["yes0", "yes1", "yes2"], 50));
    one.commit_transaction(PATIENCE).unwrap();
    let committed = named(&["yes0", "yes1", "yes2", "open", "behind"], 50);
    assert_eq!(read(&running, "tx", "read_committed"), committed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_of_the_same_id_supersedes_the_one_before() {
    let running = Running::start().await;
    create(&running, "tx", PARTITIONS).await;
    let old = transactional(&running, "same");
    old.begin_transaction().unwrap();
    write(&old, "tx", "old", 10);
    let new = transactional(&running, "same");
    let KafkaError::Transaction(error) = old.commit_transaction(PATIENCE).unwrap_err() else {
        panic!("another kind of error")
    };
    assert!(error.is_fatal() && error.code() == RDKafkaErrorCode::Fenced, "{error:?}");
    new.begin_transaction().unwrap();
    write(&new, "tx", "new", 10);
    new.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read(&running, "tx", "read_committed"), named(&["new"], 10));
    running.stop().await;
}

/// Consume, transform, produce: what was read counts as read if, and only if, what was made of it is there.
#[tokio::test(flavor = "multi_thread")]
async fn positions_go_with_their_transaction() {
    let running = Running::start().await;
    create(&running, "in", 1).await;
    create(&running, "out", PARTITIONS).await;
    let plain: BaseProducer = config(&running, &[]).create().unwrap();
    write(&plain, "in", "in", 20);
    let copier = transactional(&running, "copier");
    let reader = || {
        let reader: BaseConsumer =
            consumer(&running, "copy", &[("isolation.level", "read_committed")]).create().unwrap();
        reader.subscribe(&["in"]).unwrap();
        reader
    };
    let copy = |reader: &BaseConsumer, count: usize| {
        let read = take(&[reader], count);
        copier.begin_transaction().unwrap();
        for (.., content) in &read {
            let value = content.value.as_deref().unwrap();
            copier.send(BaseRecord::<[u8], [u8]>::to("out").payload(value)).map_err(|(error, _)| error).unwrap();
        }
        let mut next = TopicPartitionList::new();
        next.add_partition_offset("in", 0, Offset::Offset(read.last().unwrap().2 + 1)).unwrap();
        copier.send_offsets_to_transaction(&next, &reader.group_metadata().unwrap(), PATIENCE).unwrap();
    };
    let held = |reader: &BaseConsumer| {
        let mut place = TopicPartitionList::new();
        place.add_partition("in", 0);
        places(&reader.committed_offsets(place, PATIENCE).unwrap())[&("in".to_owned(), 0)]
    };
    let first = reader();
    copy(&first, 8);
    copier.commit_transaction(PATIENCE).unwrap();
    assert_eq!(held(&first), Offset::Offset(8));
    copy(&first, 5);
    copier.flush(PATIENCE).unwrap();
    copier.abort_transaction(PATIENCE).unwrap();
    assert_eq!(held(&first), Offset::Offset(8));
    drop(first);
    // The next one begins where the last transaction that was committed ended.
    let second = reader();
    copy(&second, 12);
    copier.commit_transaction(PATIENCE).unwrap();
    assert_eq!(held(&second), Offset::Offset(20));
    assert_eq!(read(&running, "out", "read_committed"), named(&["in"], 20));
    running.stop().await;
}
