//! Which records of a batch are the reason that it is refused (KIP-467). A producer gives up those, and may send the others again;
//! where nothing is said, it gives up all of them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use tidelog::record::{BatchBuilder, Compression};

use super::client::{Client, Running, packed, text};
use super::producing::{produce, produce_request};
use super::topics::name;

async fn topic_with(client: &mut Client, topic: &str, settings: &[(&str, &str)]) {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(settings.iter().map(config).collect());
    let answer = client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic])).await;
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
}

/// A batch of records, each with its timestamp and whether it has a key.
fn records(codec: Compression, of: impl Iterator<Item = (i64, bool)>) -> Bytes {
    let mut builder = BatchBuilder::new(packed(codec));
    for (time, keyed) in of {
        builder.push(time, keyed.then_some(&b"key"[..]), Some(b"some value that takes a few bytes"), &[]);
    }
    builder.build().freeze()
}

fn named(answer: &PartitionProduceResponse) -> Vec<usize> {
    answer.record_errors.iter().map(|record| usize::try_from(record.batch_index).unwrap()).collect()
}

#[tokio::test]
async fn every_record_without_a_key_is_named_where_keys_are_needed() {
    let running = Running::start().await;
    let mut client = running.client().await;
    topic_with(&mut client, "state", &[("cleanup.policy", "compact")]).await;
    // A few, many, and more than are told of.
    for (count, every) in [(100, 10), (20_000, 500), (20_000, 2)] {
        let bad: Vec<usize> = (0..count).step_by(every).take(1_000).collect();
        for codec in Compression::ALL {
            for version in 7..=11 {
                let batch = records(codec, (0..count).map(|at| (1_000, at % every != 0)));
                let answer = produce(&mut client, version, "state", batch).await;
                assert_eq!((answer.error_code, answer.base_offset), (87, -1));
                if version < 8 {
                    continue;
                }
                assert_eq!(named(&answer), bad, "{codec} in version {version}");
                let said = answer.record_errors[0].batch_index_error_message.as_deref().unwrap();
                assert!(said.contains("no key"), "{said}");
                assert!(answer.error_message.unwrap().contains("record 0 of the batch has no key"));
            }
        }
    }
    let whole = produce(&mut client, 11, "state", records(Compression::None, [(1_000, true)].into_iter())).await;
    assert_eq!((whole.error_code, whole.base_offset, whole.record_errors.len()), (0, 0, 0), "nothing was appended");
    running.stop().await;
}

#[tokio::test]
async fn every_record_with_a_time_that_is_too_far_off_is_named() {
    let running = Running::start().await;
    let mut client = running.client().await;
    let settings = [
        ("message.timestamp.before.max.ms", "3600000"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("cleanup.policy", "compact"),
    ];
    topic_with(&mut client, "recent", &settings).await;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let (old, coming) = (now - 7_200_000, now + 7_200_000);
    let of = [(now, true), (old, true), (now, false), (coming, true), (-1, true), (old, false), (now, true)];
    for codec in Compression::ALL {
        let answer = produce(&mut client, 9, "recent", records(codec, of.into_iter())).await;
        assert_eq!(answer.error_code, 32, "{codec}");
        assert_eq!(named(&answer), [1, 2, 3, 5], "{codec}");
        let said = |at: usize| answer.record_errors[at].batch_index_error_message.clone().unwrap().to_string();
        assert!(said(0).contains(&old.to_string()) && said(2).contains(&coming.to_string()));
        assert!(said(1).contains("no key"));
        let keyless = of.into_iter().filter(|(time, _)| *time == now);
        let answer = produce(&mut client, 9, "recent", records(codec, keyless)).await;
        assert_eq!((answer.error_code, named(&answer)), (87, vec![1]));
    }
    running.stop().await;
}

/// What is wrong with a record of any topic is found at the first such one; a batch that is wrong as a whole names none.
#[tokio::test]
async fn a_record_that_no_topic_takes_is_named() {
    let running = Running::start().await;
    let mut client = running.client().await;
    topic_with(&mut client, "t", &[("max.message.bytes", "65536")]).await;
    for codec in [Compression::None, Compression::Gzip] {
        let mut builder = BatchBuilder::new(packed(codec));
        builder.push(1_000, None, Some(b"good"), &[]);
        let many: Vec<(&str, Option<&[u8]>)> = vec![("h", None); 5_000];
        builder.push(1_000, None, Some(b"bad"), &many);
        let answer = produce(&mut client, 9, "t", builder.build().freeze()).await;
        assert_eq!((answer.error_code, named(&answer)), (10, vec![1]), "{codec}");
    }
    let large = records(Compression::None, (0..10_000).map(|_| (1_000, true)));
    let answer = produce(&mut client, 9, "t", large).await;
    assert_eq!((answer.error_code, named(&answer)), (10, vec![]), "the batch is too large, none of its records");
    let parts = vec![("t", 0, None)];
    let answer = client.call(9, &produce_request(-1, parts)).await.responses[0].partition_responses[0].clone();
    assert_eq!((answer.error_code, named(&answer)), (87, vec![]));
    running.stop().await;
}
