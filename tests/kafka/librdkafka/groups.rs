//! Groups that grow and shrink, by each way of sharing partitions; positions.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::super::client::Running;
use super::{Content, PATIENCE, admin, config, consumer, create, options, places, producer, take};

const PARTITIONS: i32 = 6;
const RECORDS: usize = 60;

fn parts(consumer: &BaseConsumer) -> Vec<i32> {
    let mut parts: Vec<_> = consumer.assignment().unwrap().elements().iter().map(|place| place.partition()).collect();
    parts.sort_unstable();
    parts
}

/// Asks the members in turn until each has a part and all parts are with somebody. Nothing comes meanwhile: what there
/// was is committed.
fn settled(members: &[&BaseConsumer]) {
    let until = Instant::now() + PATIENCE;
    loop {
        for member in members {
            if let Some(message) = member.poll(Duration::from_millis(50)) {
                panic!("{:?} comes again", message.map(|message| Content::seen(&message)));
            }
        }
        let parts: Vec<_> = members.iter().map(|member| parts(member)).collect();
        let mut all = parts.concat();
        all.sort_unstable();
        if all == Vec::from_iter(0..PARTITIONS) && parts.iter().all(|parts| !parts.is_empty()) {
            return;
        }
        assert!(Instant::now() < until, "the partitions are not shared out: {parts:?}");
    }
}

/// So many more records, each seen once by the members, who commit them.
async fn round(running: &Running, topic: &str, members: &[&BaseConsumer], number: usize) {
    let producer = producer(running, "snappy");
    let value = |at: usize| format!("{number}-{at}").into_bytes();
    let mut deliveries = Vec::new();
    for at in 0..RECORDS {
        let content = Content { value: Some(value(at)), timestamp: 1_700_000_000_000, ..Content::default() };
        deliveries.push(content.send(&producer, topic, at as i32 % PARTITIONS));
    }
    for delivery in deliveries {
        tokio::time::timeout(PATIENCE, delivery).await.expect("no delivery").unwrap().unwrap();
    }
    let mut got: Vec<_> = take(members, RECORDS).into_iter().map(|(.., content)| content.value.unwrap()).collect();
    let mut expected: Vec<_> = (0..RECORDS).map(value).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert!(got == expected, "other records came");
    for member in members {
        member.commit_consumer_state(CommitMode::Sync).unwrap();
    }
}

async fn grows_and_shrinks(settings: &[(&str, &str)]) {
    let running = Running::start().await;
    let topic = "shared";
    create(&running, topic, PARTITIONS).await;
    let join = || {
        let member: BaseConsumer = consumer(&running, "team", settings).create().unwrap();
        member.subscribe(&[topic]).unwrap();
        member
    };
    let first = join();
    settled(&[&first]);
    round(&running, topic, &[&first], 0).await;
    let (second, third) = (join(), join());
    settled(&[&first, &second, &third]);
    round(&running, topic, &[&first, &second, &third], 1).await;
    drop(first);
    settled(&[&second, &third]);
    round(&running, topic, &[&second, &third], 2).await;
    drop(third);
    settled(&[&second]);
    round(&running, topic, &[&second], 3).await;
    let held = places(&second.committed(PATIENCE).unwrap());
    assert_eq!(held.len(), PARTITIONS as usize);
    assert!(
        held.values().all(|offset| *offset == Offset::Offset(4 * RECORDS as i64 / i64::from(PARTITIONS))),
        "{held:?}"
    );
    drop(second);
    let deleted = admin(&running).delete_groups(&["team"], &options()).await.unwrap();
    assert_eq!(deleted, [Ok("team".to_owned())]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_shares_out_ranges_grows_and_shrinks() {
    grows_and_shrinks(&[("heartbeat.interval.ms", "300"), ("partition.assignment.strategy", "range")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_keeps_what_it_can_grows_and_shrinks() {
    grows_and_shrinks(&[("heartbeat.interval.ms", "300"), ("partition.assignment.strategy", "cooperative-sticky")])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_server_shares_out_grows_and_shrinks() {
    grows_and_shrinks(&[("group.protocol", "consumer")]).await;
}

/// Positions with a note, by a client that is no member; of partitions that nobody has committed; and stored ones, which
/// go with the consumer when it is closed.
#[tokio::test(flavor = "multi_thread")]
async fn positions_are_kept_with_their_notes() {
    let running = Running::start().await;
    create(&running, "kept", 2).await;
    let producer = producer(&running, "none");
    for number in 0..10 {
        let content = Content { timestamp: 1_700_000_000_000 + number, ..Content::default() };
        let delivery = content.send(&producer, "kept", 0);
        tokio::time::timeout(PATIENCE, delivery).await.expect("no delivery").unwrap().unwrap();
    }
    let both = || {
        let mut both = TopicPartitionList::new();
        both.add_partition_range("kept", 0, 1);
        both
    };
    let reader: BaseConsumer = consumer(&running, "keeper", &[]).create().unwrap();
    let mut committed = TopicPartitionList::new();
    let mut place = committed.add_partition("kept", 0);
    place.set_offset(Offset::Offset(4)).unwrap();
    place.set_metadata("up to the fourth");
    reader.commit(&committed, CommitMode::Sync).unwrap();
    let held = reader.committed_offsets(both(), PATIENCE).unwrap();
    let held = held.elements();
    assert_eq!((held[0].offset(), held[0].metadata()), (Offset::Offset(4), "up to the fourth"));
    assert_eq!((held[1].offset(), held[1].metadata()), (Offset::Invalid, ""));
    drop(reader);
    // One that stores as it reads, and is closed before it would commit by itself.
    let mut storing =
        config(&running, &[("auto.commit.interval.ms", "3600000"), ("enable.auto.offset.store", "false")]);
    let storing: BaseConsumer = storing.set("group.id", "keeper").create().unwrap();
    storing.subscribe(&["kept"]).unwrap();
    let got = take(&[&storing], 6);
    assert_eq!(got.iter().map(|(_, _, offset, _)| *offset).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    storing.store_offset("kept", 0, 6).unwrap();
    drop(storing);
    let reader: BaseConsumer = consumer(&running, "keeper", &[]).create().unwrap();
    let held = places(&reader.committed_offsets(both(), PATIENCE).unwrap());
    // librdkafka stores the offset that was processed, and commits the one behind it.
    assert_eq!(held[&("kept".to_owned(), 0)], Offset::Offset(7));
    running.stop().await;
}
