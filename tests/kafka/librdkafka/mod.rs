//! The crate `rdkafka`, a Rust face of librdkafka, against a server in this process. Compiled with the feature `librdkafka`.

mod administration;
mod crossing;
mod groups;
mod records;
mod times;
mod transactions;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use tidelog::client::ConsumedRecord;

use super::client::Running;

/// Only against a test that hangs; nothing is asserted of times.
const PATIENCE: Duration = Duration::from_secs(120);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A client's configuration, with more settings.
fn config(running: &Running, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", running.server.kafka_addresses()[0].to_string());
    for (name, value) in more {
        config.set(*name, *value);
    }
    config
}

/// The same for a consumer that commits only when it is told to.
fn consumer(running: &Running, group: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = config(running, &[("enable.auto.commit", "false"), ("auto.offset.reset", "earliest")]);
    config.set("group.id", group);
    for (name, value) in more {
        config.set(*name, *value);
    }
    config
}

fn admin(running: &Running) -> AdminClient<DefaultClientContext> {
    config(running, &[]).create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

async fn create(running: &Running, topic: &str, partitions: i32) {
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    admin(running).create_topics(&[topic], &options()).await.unwrap()[0].as_ref().unwrap();
}

/// What a record is made of, whichever client saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: i64,
}

impl Content {
    fn seen(message: &BorrowedMessage<'_>) -> Self {
        let owned = |bytes: &[u8]| bytes.to_vec();
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(owned))).collect::<Vec<_>>()
        });
        Self {
            key: message.key().map(owned),
            value: message.payload().map(owned),
            headers: headers.unwrap_or_default(),
            timestamp: message.timestamp().to_millis().unwrap(),
        }
    }

    fn native(record: &ConsumedRecord) -> Self {
        let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        let owned = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
        Self {
            key: owned(&record.key),
            value: owned(&record.value),
            headers: record
                .headers
                .iter()
                .map(|header| (name(header.name), header.value.map(<[u8]>::to_vec)))
                .collect(),
            timestamp: record.timestamp,
        }
    }

    fn owned_headers(&self) -> OwnedHeaders {
        self.headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }))
    }

    fn send(&self, producer: &FutureProducer, topic: &str, partition: i32) -> DeliveryFuture {
        let record = FutureRecord {
            topic,
            partition: Some(partition),
            payload: self.value.as_deref(),
            key: self.key.as_deref(),
            timestamp: Some(self.timestamp),
            headers: Some(self.owned_headers()),
        };
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    }
}

/// What clients get wrong easily: no key and no value, both empty, headers that repeat, are empty or have no value; and
/// 1 MB, once of one letter and once of bytes that do not compress.
fn awkward() -> Vec<Content> {
    let mut random = fastrand::Rng::with_seed(7);
    let bytes = |bytes: &[u8]| Some(bytes.to_vec());
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let text = |number: u32| format!("value {number} {}", "ä".repeat(number as usize)).into_bytes();
    let mut contents: Vec<_> = (0..200)
        .map(|number| Content {
            key: bytes(format!("key {}", number % 10).as_bytes()),
            value: (number % 7 != 0).then(|| text(number)),
            headers: vec![header("number", Some(&number.to_be_bytes()))],
            timestamp: 0,
        })
        .collect();
    contents.extend([
        Content::default(),
        Content { key: bytes(b""), value: bytes(b""), ..Content::default() },
        Content { key: bytes(b""), ..Content::default() },
        Content { value: bytes(b""), ..Content::default() },
        Content {
            key: bytes(&[0, 0xff, 0xfe, b'\n']),
            value: bytes(&[0xff; 3]),
            headers: vec![
                header("b", Some(b"1")),
                header("a", None),
                header("b", Some(b"")),
                header("ä", Some(&[0xff, 0])),
                header("b", Some(b"1")),
                header("a", Some(b"2")),
            ],
            timestamp: 0,
        },
        Content { value: Some(vec![b'x'; 1_000_000]), ..Content::default() },
        Content { value: Some((0..1_000_000).map(|_| random.u8(..)).collect()), ..Content::default() },
    ]);
    for (number, content) in (0..).zip(&mut contents) {
        content.timestamp = 1_700_000_000_000 + number * 3;
    }
    contents
}

/// A producer that puts what it is given at once into few batches, of 4 MB at the most.
fn producer(running: &Running, codec: &str) -> FutureProducer {
    let settings = [
        ("compression.type", codec),
        ("enable.idempotence", "true"),
        ("message.max.bytes", "4000000"),
        ("linger.ms", "200"),
    ];
    config(running, &settings).create().unwrap()
}

/// The next so many messages of some consumers, which are asked in turn.
fn take(consumers: &[&BaseConsumer], count: usize) -> Vec<(String, i32, i64, Content)> {
    let (mut got, until) = (Vec::new(), Instant::now() + PATIENCE);
    while got.len() < count {
        for consumer in consumers {
            if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                let message = message.unwrap();
                let (topic, partition, offset) = (message.topic().to_owned(), message.partition(), message.offset());
                got.push((topic, partition, offset, Content::seen(&message)));
            }
        }
        assert!(Instant::now() < until, "{} of {count} messages", got.len());
    }
    got
}

fn contents(got: Vec<(String, i32, i64, Content)>) -> Vec<Content> {
    got.into_iter().map(|(_, _, _, content)| content).collect()
}

/// Offsets by topic and partition.
fn places(list: &rdkafka::TopicPartitionList) -> BTreeMap<(String, i32), rdkafka::Offset> {
    list.elements()
        .iter()
        .map(|place| {
            place.error().unwrap();
            ((place.topic().to_owned(), place.partition()), place.offset())
        })
        .collect()
}
