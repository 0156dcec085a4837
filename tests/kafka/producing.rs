//! Produce: ack levels, batches that are refused, and producers that send again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, InitProducerIdRequest, ProduceRequest,
};
use tidelog::client::{Client as Native, StartAt};
use tidelog::record::{BatchOptions, Compression};

use super::client::{Client, Running, batch, batch_of, packed, text};
use super::topics::{create_topic, name};

pub fn produce_request(acks: i16, parts: Vec<(&str, i32, Option<Bytes>)>) -> ProduceRequest {
    let topics = parts.into_iter().map(|(topic, partition, records)| {
        let part = PartitionProduceData::default().with_index(partition).with_records(records);
        TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![part])
    });
    let topics: Vec<TopicProduceData> = topics.collect();
    // Who writes in transactions names an id; which transaction it is, the batch says.
    let transactional = |part: &PartitionProduceData| {
        part.records.as_ref().and_then(|records| records.get(22)).is_some_and(|attributes| attributes & 0x10 != 0)
    };
    let id = topics.iter().any(|topic| topic.partition_data.iter().any(transactional)).then(|| text("an id").into());
    ProduceRequest::default().with_transactional_id(id).with_acks(acks).with_timeout_ms(1000).with_topic_data(topics)
}

pub async fn produce(client: &mut Client, version: i16, topic: &str, records: Bytes) -> PartitionProduceResponse {
    let answer = client.call(version, &produce_request(-1, vec![(topic, 0, Some(records))])).await;
    answer.responses[0].partition_responses[0].clone()
}

/// Trap 14: no version is without compression, but for zstd, which is younger than the first of them.
#[tokio::test]
async fn batches_are_appended_in_every_version_and_with_every_compression() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut offset = 0;
    for version in 3..=11 {
        for codec in Compression::ALL {
            let answer = produce(&mut client, version, "t", batch_of(packed(codec), &["a", "b"])).await;
            if codec == Compression::Zstd && version < 7 {
                assert_eq!(answer.error_code, 76, "zstd is not in version {version}");
                continue;
            }
            assert_eq!((answer.error_code, answer.base_offset), (0, offset), "{codec} in version {version}");
            if version >= 5 {
                assert_eq!(answer.log_start_offset, 0);
            }
            offset += 2;
        }
    }
    running.stop().await;
}

/// Who waits for each answer is served by the thread that reads; then several requests come at once, and one at a time again.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_each_answer_and_one_that_does_not_are_told_the_same() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let mut offset = 0;
    for _ in 0..3 {
        for _ in 0..20 {
            let answer = produce(&mut client, 9, "t", batch(&["a"])).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, offset));
            offset += 1;
        }
        let refused = produce(&mut client, 9, "nowhere", batch(&["a"])).await;
        assert_eq!(refused.error_code, 3);
        let mut sent = Vec::new();
        for _ in 0..20 {
            sent.push(client.send(9, &produce_request(-1, vec![("t", 0, Some(batch(&["a", "b"])))])).await);
        }
        for expected in sent {
            let (correlation, answer) = client.answer::<ProduceRequest>(9).await;
            let answer = &answer.responses[0].partition_responses[0];
            assert_eq!((correlation, answer.error_code, answer.base_offset), (expected, 0, offset));
            offset += 2;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn several_partitions_in_one_request_are_answered_one_by_one() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 2).await;
    let parts = vec![
        ("t", 0, Some(batch(&["a"]))),
        ("nowhere", 0, Some(batch(&["a"]))),
        ("t", 1, Some(batch(&["a"]))),
        ("t", 2, Some(batch(&["a"]))),
        ("t", -1, Some(batch(&["a"]))),
        ("a b", 0, Some(batch(&["a"]))),
        ("t", 1, None),
    ];
    let answer = client.call(9, &produce_request(1, parts)).await;
    let codes: Vec<_> = answer.responses.iter().map(|topic| topic.partition_responses[0].error_code).collect();
    assert_eq!(codes, [0, 3, 0, 3, 3, 17, 87]);
    let wrong = client.call(9, &produce_request(2, vec![("t", 0, Some(batch(&["a"])))])).await;
    assert_eq!(wrong.responses[0].partition_responses[0].error_code, 21);
    running.stop().await;
}

#[tokio::test]
async fn without_acknowledgement_there_is_no_answer_and_a_failure_ends_the_connection() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    client.send(9, &produce_request(0, vec![("t", 0, Some(batch(&["a"])))])).await;
    client.call(1, &DescribeClusterRequest::default()).await;
    client.send(9, &produce_request(0, vec![("nowhere", 0, Some(batch(&["a"])))])).await;
    assert!(client.next().await.is_none());
    running.stop().await;
}

#[tokio::test]
async fn produce_requests_in_flight_are_answered_in_order() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut sent = Vec::new();
    for _ in 0..100 {
        sent.push(client.send(9, &produce_request(-1, vec![("t", 0, Some(batch(&["a"])))])).await);
    }
    for (offset, sent) in sent.into_iter().enumerate() {
        let (correlation, answer) = client.answer::<ProduceRequest>(9).await;
        assert_eq!(correlation, sent);
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, i64::try_from(offset).unwrap());
    }
    running.stop().await;
}

/// Seals what was changed behind the checksum.
fn sealed(bytes: Bytes, change: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::from(&bytes[..]);
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn put(at: usize, value: &'static [u8]) -> impl Fn(&mut BytesMut) {
    move |bytes| bytes[at..at + value.len()].copy_from_slice(value)
}

/// Trap 14: what is refused is refused with the code that says why.
#[tokio::test]
async fn batches_that_are_wrong_have_the_right_error() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let good = batch(&["a", "b"]);
    let mut flipped = BytesMut::from(&good[..]);
    *flipped.last_mut().unwrap() ^= 1;
    let mut two = BytesMut::from(&good[..]);
    two.put_slice(&good);
    let with = |at, value| sealed(good.clone(), put(at, value));
    let old = |magic: u8| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[16] = magic;
        bytes.freeze()
    };
    let packed_with = |at, value| sealed(batch_of(packed(Compression::Lz4), &["a", "b"]), put(at, value));
    let cases: Vec<(&str, Bytes, i16)> = vec![
        ("format 0", old(0), 43),
        ("format 1", old(1), 43),
        ("format 3", old(3), 2),
        ("nothing", Bytes::new(), 87),
        ("a cut batch", good.slice(..good.len() - 1), 87),
        ("a flipped bit", flipped.freeze(), 2),
        ("two batches", two.freeze(), 87),
        ("a control batch", with(21, &[0, 0x20]), 87),
        ("a transactional batch of nobody", with(21, &[0, 0x10]), 49),
        ("append time", with(21, &[0, 0x08]), 32),
        ("codec 5", with(21, &[0, 5]), 76),
        ("codec 7", with(21, &[0, 7]), 76),
        ("a lying count", with(57, &[0, 0, 0, 3]), 87),
        ("a lying last offset", with(23, &[0, 0, 0, 9]), 87),
        ("no records", with(57, &[0, 0, 0, 0]), 87),
        ("two thousand million records", with(57, &[0x7f, 0xff, 0xff, 0xff]), 87),
        ("a producer without a sequence", with(43, &[0, 0, 0, 0, 0, 0, 0, 1]), 87),
        ("a lying count, compressed", packed_with(57, &[0, 0, 0, 9]), 87),
        ("another codec than it says", packed_with(21, &[0, 1]), 87),
        ("no codec where there is one", packed_with(21, &[0, 0]), 87),
    ];
    for (what, bytes, code) in cases {
        let answer = produce(&mut client, 9, "t", bytes).await;
        assert_eq!(answer.error_code, code, "{what}: {:?}", answer.error_message);
        assert_eq!(answer.base_offset, -1);
    }
    let unnamed = produce_request(-1, vec![("t", 0, Some(with(21, &[0, 0x10])))]).with_transactional_id(None);
    let answer = client.call(9, &unnamed).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 53, "no transactional id");
    assert_eq!(produce(&mut client, 9, "t", good).await.base_offset, 0, "none of them was appended");
    running.stop().await;
}

/// 300 MiB of zeros in a batch of some KiB.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_and_take_no_memory() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let zeros = "\0".repeat(300 << 20);
    for codec in [Compression::Zstd, Compression::Gzip] {
        let bomb = batch_of(packed(codec), &[&zeros]);
        assert!(bomb.len() < 1 << 20);
        let answer = produce(&mut client, 9, "t", bomb).await;
        assert_eq!(answer.error_code, 10, "{:?}", answer.error_message);
        let said = "more than the limit of 67108799";
        assert!(answer.error_message.as_ref().unwrap().ends_with(said), "{:?}", answer.error_message);
    }
    // The same in many records, each of which is small.
    let zeros = "\0".repeat(1 << 20);
    for codec in [Compression::Zstd, Compression::Gzip] {
        let bomb = batch_of(packed(codec), &vec![&*zeros; 65]);
        let answer = produce(&mut client, 9, "t", bomb).await;
        assert_eq!(answer.error_code, 10, "{:?}", answer.error_message);
        let said = "bytes of compressed records decompress to more than the limit of 67108864 bytes";
        assert!(answer.error_message.as_ref().unwrap().ends_with(said), "{:?}", answer.error_message);
        let honest = batch_of(packed(codec), &vec![&*zeros; 63]);
        assert_eq!(produce(&mut client, 9, "t", honest).await.error_code, 0);
    }
    running.stop().await;
}

#[tokio::test]
async fn too_large_a_batch_is_told_so() {
    let running = Running::start_in(tempfile::tempdir().unwrap(), |config| {
        config.topic_defaults.set("max_message_bytes", "64KiB").unwrap();
    })
    .await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    assert_eq!(produce(&mut client, 9, "t", batch(&[&"x".repeat(70_000)])).await.error_code, 10);
    running.stop().await;
}

fn numbered(id: i64, epoch: i16, sequence: i32) -> Bytes {
    let options =
        BatchOptions { producer_id: id, producer_epoch: epoch, base_sequence: sequence, ..BatchOptions::default() };
    batch_of(options, &["x"])
}

/// Traps 4 and 5: identities are given out, what comes again is recognized (also after a restart), gaps are refused, and
/// what is not known is taken.
#[tokio::test]
async fn a_batch_that_comes_again_is_answered_as_before_and_not_appended() {
    let mut running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for version in 0..=5 {
        let answer = client.call(version, &InitProducerIdRequest::default().with_transactional_id(None)).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
    }
    let one = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await.producer_id.0;
    let other = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await.producer_id.0;
    assert_ne!(one, other);
    for sequence in 0..7 {
        let answer = produce(&mut client, 9, "t", numbered(one, 0, sequence)).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(sequence)));
    }
    for round in 0..2 {
        for sequence in 2..7 {
            let answer = produce(&mut client, 9, "t", numbered(one, 0, sequence)).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(sequence)), "of the last five, {round}");
        }
        assert_eq!(produce(&mut client, 9, "t", numbered(one, 0, 1)).await.error_code, 45, "older than the last five");
        assert_eq!(produce(&mut client, 9, "t", numbered(one, 0, 8)).await.error_code, 45, "a gap");
        let dir = running.stop().await;
        running = Running::start_in(dir, |_| {}).await;
        client = running.client().await;
    }
    assert_eq!(produce(&mut client, 9, "t", numbered(one, 1, 5)).await.error_code, 45, "a new epoch begins at 0");
    assert_eq!(produce(&mut client, 9, "t", numbered(one, 1, 0)).await.base_offset, 7);
    assert_eq!(produce(&mut client, 9, "t", numbered(one, 0, 7)).await.error_code, 47, "an old epoch");
    assert_eq!(produce(&mut client, 9, "t", numbered(other, 0, 40)).await.base_offset, 8, "of whom nothing is known");
    assert_eq!(produce(&mut client, 9, "t", numbered(77, 0, i32::MAX)).await.base_offset, 9);
    assert_eq!(produce(&mut client, 9, "t", numbered(77, 0, 0)).await.base_offset, 10, "sequences begin again at 0");
    let transactional = InitProducerIdRequest::default().with_transactional_id(Some(text("t").into()));
    assert_ne!(client.call(4, &transactional).await.error_code, 0);
    running.stop().await;
}

/// Trap 5: a producer goes on although all that it wrote is deleted, also where nothing is known of it any more.
#[tokio::test]
async fn a_producer_whose_records_are_deleted_goes_on() {
    let mut running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let one = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await.producer_id.0;
    for sequence in 0..9 {
        assert_eq!(produce(&mut client, 9, "t", numbered(one, 0, sequence)).await.base_offset, i64::from(sequence));
        // From the middle on it is restarted, and from then on nothing is left of what was written before.
        if sequence >= 3 {
            let part = DeleteRecordsPartition::default().with_offset(-1);
            let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![part]);
            let answer = client.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
            assert_eq!(answer.topics[0].partitions[0].low_watermark, i64::from(sequence) + 1);
        }
        if sequence >= 5 {
            let dir = running.stop().await;
            running = Running::start_in(dir, |_| {}).await;
            client = running.client().await;
        }
    }
    // One that is deleted with its topic begins anew in the next of that name, wherever it was.
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(client.call(5, &request).await.responses[0].error_code, 0);
    create_topic(&mut client, "t", 1).await;
    assert_eq!(produce(&mut client, 9, "t", numbered(one, 0, 9)).await.base_offset, 0);
    running.stop().await;
}

#[tokio::test]
async fn what_came_through_this_door_is_read_through_the_other_unchanged() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    for codec in Compression::ALL {
        produce(&mut client, 9, "t", batch_of(packed(codec), &["value", ""])).await;
    }
    let address = running.server.addresses()[0].to_string();
    let native = Native::connect(&address).await.unwrap();
    let mut consumer = native.consumer().topic("t").from(StartAt::Beginning).build().await.unwrap();
    for offset in 0..10 {
        let record = consumer.next().await.unwrap().unwrap();
        assert_eq!((record.offset, record.timestamp), (offset, 1_000));
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(record.value.as_deref(), Some(if offset % 2 == 0 { &b"value"[..] } else { b"" }));
        assert_eq!((record.headers.len(), record.headers.get("h")), (1, Some(&b"v"[..])));
    }
    running.stop().await;
}

/// Every byte of the head of a request that carries a batch, one after the other, made a lie.
#[tokio::test]
async fn a_request_with_a_lying_length_is_refused_or_ends_the_connection() {
    let running = Running::start().await;
    let mut client = running.client().await;
    create_topic(&mut client, "t", 1).await;
    let mut body = BytesMut::new();
    kafka_protocol::protocol::Encodable::encode(
        &produce_request(-1, vec![("t", 0, Some(batch(&["a"])))]),
        &mut body,
        9,
    )
    .unwrap();
    for at in 0..body.len() {
        for lie in [0u8, 1, 0x7f, 0x80, 0xff] {
            let mut body = body.clone();
            body[at] = lie;
            client.send_raw(0, 9, true, &body).await;
            match client.next().await {
                Some(mut answer) => assert!(answer.get_i32() > 0),
                None => client = running.client().await,
            }
        }
    }
    running.stop().await;
}
