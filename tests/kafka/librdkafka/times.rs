//! Places in a topic: by time, by number, from the end.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::super::client::Running;
use super::{Content, PATIENCE, consumer, create, places, producer, take};

/// 100 records in each of two partitions, a thousand milliseconds apart, in batches of several.
async fn timed(running: &Running) {
    create(running, "timed", 2).await;
    let producer = producer(running, "lz4");
    for chunk in 0..10 {
        let mut deliveries = Vec::new();
        for number in chunk * 10..chunk * 10 + 10 {
            let content = |partition: i64| Content {
                value: Some(format!("{partition}-{number}").into_bytes()),
                timestamp: 1_000_000 + partition * 500_000 + number * 1_000,
                ..Content::default()
            };
            deliveries.push(content(0).send(&producer, "timed", 0));
            deliveries.push(content(1).send(&producer, "timed", 1));
        }
        for delivery in deliveries {
            tokio::time::timeout(PATIENCE, delivery).await.expect("no delivery").unwrap().unwrap();
        }
    }
}

fn list(offsets: [Offset; 2]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(offsets) {
        list.add_partition_offset("timed", partition, offset).unwrap();
    }
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time() {
    let running = Running::start().await;
    timed(&running).await;
    let reader: BaseConsumer = consumer(&running, "times", &[]).create().unwrap();
    let at = |time: i64| {
        let found = reader.offsets_for_times(list([Offset::Offset(time); 2]), PATIENCE).unwrap();
        let found = places(&found);
        [found[&("timed".to_owned(), 0)], found[&("timed".to_owned(), 1)]]
    };
    assert_eq!(at(0), [Offset::Offset(0), Offset::Offset(0)]);
    assert_eq!(at(1_000_000), [Offset::Offset(0), Offset::Offset(0)]);
    assert_eq!(at(1_000_001), [Offset::Offset(1), Offset::Offset(0)]);
    assert_eq!(at(1_057_000), [Offset::Offset(57), Offset::Offset(0)]);
    // Behind the last record of one partition.
    assert_eq!(at(1_099_001), [Offset::End, Offset::Offset(0)]);
    assert_eq!(at(1_533_300), [Offset::End, Offset::Offset(34)]);
    assert_eq!(at(1_599_001), [Offset::End, Offset::End]);
    // What was found is where it reads on.
    let found = reader.offsets_for_times(list([Offset::Offset(1_057_000); 2]), PATIENCE).unwrap();
    reader.assign(&found).unwrap();
    for (_, partition, offset, content) in take(&[&reader], 143) {
        assert!(content.timestamp >= 1_057_000);
        assert_eq!(content.value.unwrap(), format!("{partition}-{offset}").into_bytes());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_seeks_pauses_and_is_told_of_the_end() {
    let running = Running::start().await;
    timed(&running).await;
    let reader: BaseConsumer = consumer(&running, "seeks", &[("enable.partition.eof", "true")]).create().unwrap();
    assert_eq!(reader.fetch_watermarks("timed", 1, PATIENCE).unwrap(), (0, 100));
    reader.assign(&list([Offset::OffsetTail(3), Offset::End])).unwrap();
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    until_ends(&reader, 2, &mut seen, &mut ends);
    assert_eq!(seen, [(0, 97), (0, 98), (0, 99)]);
    ends.sort_unstable();
    assert_eq!(ends, [0, 1]);
    // Back, and to the beginning.
    reader.seek("timed", 0, Offset::Offset(95), PATIENCE).unwrap();
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    until_ends(&reader, 1, &mut seen, &mut ends);
    assert_eq!((seen.len(), seen[0], ends), (5, (0, 95), vec![0]));
    let moved = reader.seek_partitions(list([Offset::Beginning, Offset::Offset(90)]), PATIENCE).unwrap();
    places(&moved);
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    until_ends(&reader, 2, &mut seen, &mut ends);
    assert_eq!(seen.iter().filter(|(partition, _)| *partition == 0).count(), 100);
    assert_eq!(seen.iter().filter(|(partition, _)| *partition == 1).count(), 10);
    // One that is paused says nothing until it is resumed.
    let mut first = TopicPartitionList::new();
    first.add_partition("timed", 0);
    reader.pause(&first).unwrap();
    let moved = reader.seek_partitions(list([Offset::Offset(50), Offset::Offset(50)]), PATIENCE).unwrap();
    places(&moved);
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    until_ends(&reader, 1, &mut seen, &mut ends);
    assert!(ends == [1] && seen.len() == 50 && seen.iter().all(|(partition, _)| *partition == 1), "{seen:?}");
    reader.resume(&first).unwrap();
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    until_ends(&reader, 1, &mut seen, &mut ends);
    assert_eq!((seen.len(), seen[0], ends), (50, (0, 50), vec![0]));
    running.stop().await;
}

/// Reads on until it has been told of so many ends.
fn until_ends(reader: &BaseConsumer, count: usize, seen: &mut Vec<(i32, i64)>, ends: &mut Vec<i32>) {
    use rdkafka::message::Message;
    let until = Instant::now() + PATIENCE;
    while ends.len() < count {
        assert!(Instant::now() < until, "{} of {count} ends", ends.len());
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => seen.push((message.partition(), message.offset())),
            Some(Err(KafkaError::PartitionEOF(partition))) => ends.push(partition),
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}
