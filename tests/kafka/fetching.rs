//! Fetch and ListOffsets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse, ListOffsetsRequest, MetadataRequest};
use tidelog::record::{BatchHeader, Batches};
use uuid::Uuid;

use super::client::{Client, Running, batch};
use super::producing::produce;
use super::topics::{create_topic, name};

fn part(partition: i32, offset: i64, max_bytes: i32) -> FetchPartition {
    FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(max_bytes)
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1)
}

fn fetch(topic: &str, parts: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(parts);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

async fn one(client: &mut Client, version: i16, request: &FetchRequest) -> PartitionData {
    client.call(version, request).await.responses[0].partitions[0].clone()
}

fn offsets(data: &PartitionData) -> Vec<u64> {
    Batches::new(data.records.clone().unwrap_or_default()).map(|batch| batch.unwrap().0.base_offset).collect()
}

async fn topic_id(client: &mut Client, topic: &str) -> Uuid {
    let all = client.call(12, &MetadataRequest::default().with_topics(None)).await;
    all.topics.iter().find(|known| known.name.as_ref().is_some_and(|name| &***name == topic)).unwrap().topic_id
}

/// Trap 7: by name and by id, in every version.
#[tokio::test]
async fn records_are_read_in_every_version() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for value in ["a", "b", "c"] {
        produce(&mut client, 9, "t", batch(&[value, value])).await;
    }
    let id = topic_id(&mut client, "t").await;
    for version in 4..=17 {
        let mut request = fetch("t", vec![part(0, 3, 1 << 20)]);
        if version >= 13 {
            request.topics[0].topic = name("");
            request.topics[0].topic_id = id;
        }
        if version >= 15 {
            request.replica_id = (-1).into();
        }
        let data = one(&mut client, version, &request).await;
        assert_eq!(data.error_code, 0, "version {version}");
        assert_eq!(offsets(&data), [2, 4], "the first batch is the one that has the offset");
        assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset.max(0)), (6, 6, 0));
        assert!(data.aborted_transactions.is_none(), "who reads uncommitted hears nothing of transactions");
        let committed = one(&mut client, version, &request.with_isolation_level(1)).await;
        assert_eq!(committed.aborted_transactions.map(|list| list.len()), Some(0));
    }
    let mut unknown = fetch("", vec![part(0, 0, 1 << 20)]);
    unknown.topics[0].topic_id = Uuid::from_u128(9);
    assert_eq!(one(&mut client, 13, &unknown).await.error_code, 100);
    // The id is that of this topic, not of the next one of its name.
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(client.call(5, &request).await.responses[0].error_code, 0);
    create_topic(&mut client, "t", 1).await;
    let now = topic_id(&mut client, "t").await;
    for (id, code) in [(id, 100), (now, 0)] {
        unknown.topics[0].topic_id = id;
        assert_eq!(one(&mut client, 17, &unknown).await.error_code, code);
    }
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_has_the_right_error() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    produce(&mut client, 9, "t", batch(&["a"])).await;
    for (offset, code) in [(-1, 1), (0, 0), (1, 0), (2, 1), (i64::MAX, 1)] {
        let data = one(&mut client, 12, &fetch("t", vec![part(0, offset, 1000)])).await;
        assert_eq!(data.error_code, code, "offset {offset}");
        assert_eq!((data.high_watermark, data.log_start_offset), (1, 0), "what there is, is told");
    }
    for (topic, partition, code) in [("nowhere", 0, 3), ("t", 1, 3), ("t", -1, 3), ("a b", 0, 17)] {
        let data = one(&mut client, 12, &fetch(topic, vec![part(partition, 0, 1000)])).await;
        assert_eq!(data.error_code, code, "{topic}/{partition}");
    }
    let newer = part(0, 0, 1000).with_current_leader_epoch(3);
    assert_eq!(one(&mut client, 12, &fetch("t", vec![newer])).await.error_code, 75);
    let ours = part(0, 0, 1000).with_current_leader_epoch(0);
    assert_eq!(one(&mut client, 12, &fetch("t", vec![ours])).await.error_code, 0);
    for (session, epoch, code) in [(0, 0, 0), (0, -1, 0), (7, 1, 70), (0, 3, 71)] {
        let request = fetch("t", vec![part(0, 0, 1000)]).with_session_id(session).with_session_epoch(epoch);
        let answer = client.call(12, &request).await;
        assert_eq!((answer.error_code, answer.session_id), (code, 0), "session {session} epoch {epoch}");
    }
    running.stop().await;
}

/// Trap 13: the first batch whatever its size, whole batches only, and every limit kept.
#[tokio::test]
async fn limits_are_kept_and_nobody_is_stuck() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 3).await;
    create_topic(&mut client, "empty", 1).await;
    let large = "x".repeat(5_000);
    for _ in 0..4 {
        produce(&mut client, 9, "t", batch(&[&large])).await;
    }
    let size = i32::try_from(batch(&[&large]).len()).unwrap();
    let tiny = one(&mut client, 12, &fetch("t", vec![part(0, 0, 1)])).await;
    assert_eq!(offsets(&tiny), [0], "larger than the partition's limit");
    let tiny = one(&mut client, 12, &fetch("t", vec![part(0, 0, size)]).with_max_bytes(1)).await;
    assert_eq!(offsets(&tiny), [0], "larger than the limit of all");
    let nearly = one(&mut client, 12, &fetch("t", vec![part(0, 0, 3 * size - 1)])).await;
    assert_eq!(offsets(&nearly), [0, 1]);
    assert_eq!(nearly.records.as_ref().unwrap().len() as i32, 2 * size, "no part of a batch");
    let mut several = fetch("t", vec![part(1, 0, size), part(0, 0, size)]);
    for (topic, limit) in [("u", size), ("v", 1)] {
        create_topic(&mut client, topic, 1).await;
        produce(&mut client, 9, topic, batch(&[&large])).await;
        several.topics.extend(fetch(topic, vec![part(0, 0, limit)]).topics);
    }
    let answer: FetchResponse = client.call(12, &several.with_max_bytes(2 * size)).await;
    let data = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let counts: Vec<_> = data.map(|data| offsets(data).len()).collect();
    assert_eq!(counts, [0, 1, 1, 0], "beyond the first batch, the limits hold");
    running.stop().await;
}

/// Trap 13: what is waited for is what the request says, of all its partitions together.
#[tokio::test]
async fn a_long_poll_ends_with_an_append_an_error_or_its_time_and_never_before() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let mut producer = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let waits = fetch("t", vec![part(0, 0, 1 << 20), part(1, 0, 1 << 20)]).with_max_wait_ms(60_000);
    client.send(12, &waits).await;
    produce(&mut producer, 9, "t", batch(&["a"])).await;
    let (_, answer) = client.answer::<FetchRequest>(12).await;
    assert_eq!(offsets(&answer.responses[0].partitions[0]), [0]);
    // More than one byte: as soon as there is enough in all partitions together.
    let least = i32::try_from(batch(&["b"]).len()).unwrap() * 3;
    let waits = fetch("t", vec![part(0, 1, 1 << 20)]).with_max_wait_ms(60_000).with_min_bytes(least);
    client.send(12, &waits).await;
    for _ in 0..3 {
        produce(&mut producer, 9, "t", batch(&["b"])).await;
    }
    let (_, answer) = client.answer::<FetchRequest>(12).await;
    assert_eq!(offsets(&answer.responses[0].partitions[0]), [1, 2, 3]);
    // A partition that has reached its own limit does not wait for the rest.
    let full = fetch("t", vec![part(0, 0, 10)]).with_max_wait_ms(60_000).with_min_bytes(1 << 20);
    assert_eq!(offsets(&one(&mut client, 12, &full).await), [0]);
    let error = fetch("t", vec![part(0, 4, 10), part(9, 0, 10)]).with_max_wait_ms(60_000);
    assert_eq!(client.call(12, &error).await.responses[0].partitions[1].error_code, 3);
    let began = Instant::now();
    let nothing = fetch("t", vec![part(0, 4, 10)]).with_max_wait_ms(300);
    assert!(offsets(&one(&mut client, 12, &nothing).await).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300), "it was not polled for");
    let at_once = fetch("t", vec![part(0, 4, 10)]).with_max_wait_ms(600_000).with_min_bytes(0);
    assert!(offsets(&one(&mut client, 12, &at_once).await).is_empty());
    // One that waits does not keep the server from stopping.
    client.send(12, &fetch("t", vec![part(0, 4, 10)]).with_max_wait_ms(600_000)).await;
    running.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_time_and_by_word() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    create_topic(&mut client, "empty", 1).await;
    for (time, value) in [(1_000, "a"), (5_000, "b"), (3_000, "c")] {
        let mut builder = tidelog::record::BatchBuilder::new(tidelog::record::BatchOptions::default());
        builder.push(time, None, Some(value.as_bytes()), &[]);
        builder.push(time + 1, None, Some(value.as_bytes()), &[]);
        produce(&mut client, 9, "t", builder.build().freeze()).await;
    }
    let expected: [(i64, i16, (i64, i64)); 12] = [
        (-1, 1, (6, -1)),
        (-2, 1, (0, -1)),
        (-3, 7, (3, 5_001)),
        (-4, 8, (0, -1)),
        (-5, 9, (-1, -1)),
        (0, 1, (0, 1_000)),
        (1_001, 1, (1, 1_001)),
        (1_002, 1, (2, 5_000)),
        (5_001, 1, (3, 5_001)),
        (5_002, 1, (-1, -1)),
        (i64::MAX, 1, (-1, -1)),
        (2_500, 1, (2, 5_000)),
    ];
    for (time, since, found) in expected {
        for version in since..=9 {
            let answer = list(&mut client, version, "t", 0, time, -1).await;
            assert_eq!(answer, (0, found), "{time} in version {version}");
        }
    }
    assert_eq!(list(&mut client, 9, "empty", 0, -3, -1).await, (0, (-1, -1)));
    assert_eq!(list(&mut client, 9, "empty", 0, 0, -1).await, (0, (-1, -1)));
    assert_eq!(list(&mut client, 9, "empty", 0, -1, -1).await, (0, (0, -1)));
    assert_eq!(list(&mut client, 9, "t", 0, -9, -1).await.0, 42);
    assert_eq!(list(&mut client, 6, "t", 0, -3, -1).await.0, 42);
    assert_eq!(list(&mut client, 9, "t", 7, -1, -1).await.0, 3);
    assert_eq!(list(&mut client, 9, "nowhere", 0, -1, -1).await.0, 3);
    assert_eq!(list(&mut client, 9, "t", 0, -1, 5).await.0, 75);
    running.stop().await;
}

async fn list(
    client: &mut Client,
    version: i16,
    topic: &str,
    partition: i32,
    time: i64,
    epoch: i32,
) -> (i16, (i64, i64)) {
    let part = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(time)
        .with_current_leader_epoch(if version >= 4 { epoch } else { -1 });
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![part]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let answer = client.call(version, &request).await;
    let part = &answer.topics[0].partitions[0];
    (part.error_code, (part.offset, part.timestamp))
}

/// What came through the native door goes out through this one byte for byte.
#[tokio::test]
async fn what_came_through_the_other_door_is_read_through_this_one_unchanged() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let address = running.server.addresses()[0].to_string();
    let native = tidelog::client::Client::connect(&address).await.unwrap();
    let producer = native.producer().build().await.unwrap();
    let message = tidelog::client::Message::to("t").key("k").value("v").header("h", "w");
    producer.send_and_wait(message).await.unwrap();
    let data = one(&mut client, 12, &fetch("t", vec![part(0, 0, 1 << 20)])).await;
    let bytes: Bytes = data.records.unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.record_count, 1);
    let record = tidelog::record::read_records(&bytes, 1 << 20).unwrap().next().unwrap().unwrap();
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!((record.headers.len(), record.headers.get("h")), (1, Some(&b"w"[..])));
    running.stop().await;
}
