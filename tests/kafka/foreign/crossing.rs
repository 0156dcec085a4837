//! Records cross between the doors unchanged, with every compression: what each client writes is read by the native client
//! and by itself, and what the native client writes is read by each.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidelog::client::{Client as Native, Message, StartAt};
use tidelog::record::Compression;
use tokio::task::block_in_place;

use super::super::client::Running;
use super::super::topics::create_topic;
use super::{codecs_in, node, python, run_with, wanted};

/// Bytes or none, as base64: what scripts are given and give back.
type Coded = Option<String>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub key: Coded,
    pub value: Coded,
    pub headers: Vec<(String, Coded)>,
    pub timestamp: i64,
}

pub fn coded(bytes: &[u8]) -> Coded {
    Some(STANDARD.encode(bytes))
}

pub fn plain(text: &Coded) -> Option<Vec<u8>> {
    text.as_ref().map(|text| STANDARD.decode(text).unwrap())
}

/// A record with what it is about: keys and values that are none, empty, binary and large; headers that repeat, are out of
/// order, have no value, an empty or a binary one; times out of order.
pub fn samples() -> Vec<Record> {
    let all: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1_000_000_u32).map(|at| b'a' + u8::try_from((at / 7 + at % 13) % 26).unwrap()).collect();
    let record = |key: Option<&[u8]>, value: Option<&[u8]>| Record {
        key: key.and_then(coded),
        value: value.and_then(coded),
        headers: Vec::new(),
        timestamp: 0,
    };
    let with = |mut record: Record, headers: &[(&str, Option<&[u8]>)]| {
        record.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.and_then(coded))).collect();
        record
    };
    let usual = || record(Some(b"key"), Some(b"value"));
    let mut records = vec![
        usual(),
        record(None, Some(b"without a key")),
        record(Some(b""), Some(b"an empty key")),
        record(Some(b"no value"), None),
        record(Some(b"an empty value"), Some(b"")),
        record(None, Some(b"")),
        record(Some(&all), Some(&all)),
        with(usual(), &[("b", Some(b"1")), ("a", Some(b"2")), ("b", Some(b"3")), ("b", Some(b"3"))]),
        with(usual(), &[("no value", None), ("empty", Some(b"")), ("gr\u{f6}\u{df}e", Some("\u{fc}".as_bytes()))]),
        with(usual(), &[("binary", Some(&all))]),
        with(record(Some(b"large"), Some(&large)), &[("h", Some(b"v"))]),
    ];
    for (at, record) in (0..).zip(&mut records) {
        record.timestamp = 1_700_000_000_123 + [5, 1, 9][at % 3] * 1_000 * at as i64;
    }
    records
}

/// Said in short where they differ: a value may be long.
#[track_caller]
pub fn compare(what: &str, got: &[Record], expected: &[Record]) {
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let short = |record: &Record| format!("{record:?}").chars().take(1_000).collect::<String>();
        assert!(got == expected, "{what}, record {at}: {} instead of {}", short(got), short(expected));
    }
    assert_eq!(got.len(), expected.len(), "{what}");
}

/// Writes through the native door, in this order, all with one codec.
pub async fn write_natively(native: &Native, topic: &str, codec: Compression, records: &[Record]) {
    let producer = native.producer().compression(codec).build().await.unwrap();
    for record in records {
        let mut message = Message::to(topic).partition(0).timestamp(record.timestamp);
        message = plain(&record.key).into_iter().fold(message, Message::key);
        message = plain(&record.value).into_iter().fold(message, Message::value);
        for (name, value) in &record.headers {
            message = match plain(value) {
                Some(value) => message.header(name, value),
                None => message.empty_header(name),
            };
        }
        producer.send(message).await.unwrap();
    }
    producer.flush().await.unwrap();
}

/// All that is there, as the native door reads it.
pub async fn read_natively(native: &Native, topic: &str) -> Vec<Record> {
    let whole = |bytes: Option<Bytes>| bytes.and_then(|bytes| coded(&bytes));
    let mut consumer = native.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        records.push(Record {
            key: whole(record.key),
            value: whole(record.value),
            headers: record.headers.iter().map(|of| (name(of.name), of.value.and_then(coded))).collect(),
            timestamp: record.timestamp,
        });
    }
    records
}

/// A client may send a batch as it is where compression does not make it smaller.
#[track_caller]
pub fn assert_compressed(dir: &Path, topic: &str, codec: Compression) {
    let found = codecs_in(dir, topic);
    assert!(found.contains(codec.name()), "{topic}: {found:?}");
    assert!(found.iter().all(|found| [codec, Compression::None].map(Compression::name).contains(found)), "{found:?}");
}

#[derive(Serialize)]
struct Asked<'a> {
    theirs: &'a [Record],
    native: usize,
}

#[derive(Deserialize)]
struct Shown {
    topic: String,
    #[serde(flatten)]
    record: Record,
}

/// The script writes what it can to `theirs.CODEC`, and shows what it reads there and in `native.CODEC`.
async fn cross(what: &str, mut script: Command, can_write: fn(Record) -> Record, sees: fn(Record) -> Record) {
    if !wanted(what) {
        return;
    }
    let running = Running::start().await;
    let native = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let samples = samples();
    let theirs: Vec<_> = samples.iter().cloned().map(can_write).collect();
    for codec in Compression::ALL {
        create_topic(&mut running.client().await, &format!("native.{codec}"), 1).await;
        create_topic(&mut running.client().await, &format!("theirs.{codec}"), 1).await;
        write_natively(&native, &format!("native.{codec}"), codec, &samples).await;
    }
    script.args([&running.server.kafka_addresses()[0].to_string(), "cross"]);
    let input = serde_json::to_vec(&Asked { theirs: &theirs, native: samples.len() }).unwrap();
    let output = block_in_place(|| run_with(script, input));
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let shown: Vec<Shown> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    for codec in Compression::ALL {
        for (topic, written) in [(format!("theirs.{codec}"), &theirs), (format!("native.{codec}"), &samples)] {
            let seen: Vec<_> = shown.iter().filter(|shown| shown.topic == topic).map(|of| of.record.clone()).collect();
            let expected: Vec<_> = written.iter().cloned().map(sees).collect();
            compare(&format!("{what} reads {topic}"), &seen, &expected);
            compare(&topic, &read_natively(&native, &topic).await, written);
            assert_compressed(running.dir.path(), &topic, codec);
        }
    }
    running.stop().await;
}

fn all(record: Record) -> Record {
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_confluent_kafka() {
    cross("confluent-kafka", python("confluent.py"), all, all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_aiokafka() {
    cross("aiokafka", python("aio.py"), all, all).await;
}

/// This client refuses headers without a value, and reads them.
fn with_values(mut record: Record) -> Record {
    record.headers.retain(|(_, value)| value.is_some());
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_kafka_python() {
    cross("kafka-python", python("kafka_python.py"), with_values, all).await;
}

/// Headers are an object to this client: it neither says nor can tell how different names are mixed, only the order of names
/// and that of the values of each.
fn grouped(mut record: Record) -> Record {
    let names: Vec<_> = record.headers.iter().map(|(name, _)| name.clone()).collect();
    record.headers.sort_by_key(|(name, _)| names.iter().position(|other| other == name));
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_kafkajs() {
    // Nor can it send a header without a value: it fails when it computes how long that is.
    cross("kafkajs", node("kafkajs.js"), |record| grouped(with_values(record)), grouped).await;
}
