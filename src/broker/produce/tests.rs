//! Topics that give records the server's time, and topics that have a codec.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::base::{Clock, ErrorKind, SystemClock, TopicName};
use crate::broker::*;
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchHeader, BatchOptions, Batches, Compression, Record, read_records};

fn open(dir: &std::path::Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap()
}

fn name() -> TopicName {
    TopicName::new("t").unwrap()
}

async fn create(broker: &Arc<Broker>, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    broker.create_topic(NewTopic { name: name(), partitions: Some(1), settings, if_not_exists: false }).await.unwrap();
}

async fn set(broker: &Arc<Broker>, setting: &str, value: &str) {
    broker.alter_topic(&name(), None, &[(setting.to_owned(), value.to_owned())], &[]).await.unwrap();
}

fn of(options: BatchOptions, time: i64, bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(options);
    for at in 0..3 {
        builder.push(time + at, Some(b"k"), Some(&vec![b'x'; bytes]), &[]);
    }
    builder.build()
}

fn packed(compression: Compression) -> BatchOptions {
    BatchOptions { compression, ..BatchOptions::default() }
}

/// The batches from an offset on, and their records.
async fn stored(broker: &Broker, offset: u64) -> Vec<(BatchHeader, Vec<Record>)> {
    let request = FetchRequest {
        topic: "t",
        partition: 0,
        offset,
        max_bytes: 8 << 20,
        min_bytes: 1,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    let opened = Batches::new(broker.fetch(request).await.unwrap().bytes).map(|batch| {
        let (header, batch) = batch.unwrap();
        (header, read_records(&batch, 1 << 24).unwrap().collect::<Result<_, _>>().unwrap())
    });
    opened.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_have_the_servers_time_where_the_topic_says_so_and_the_producers_judges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, &[("timestamp_type", "append"), ("timestamp_before_max", "1h")]).await;
    let began = SystemClock::new().wall_ms();
    // Long ago, in the far future, and none at all.
    let mut last = began;
    for (at, time) in [5, began * 1000, -1].into_iter().enumerate() {
        for (number, codec) in Compression::ALL.into_iter().enumerate() {
            let produced = broker.produce("t", 0, of(packed(codec), time, 10), AckLevel::Durable).await.unwrap();
            let stamp = produced.stamped.unwrap();
            // The server's clock may be a little ahead of the wall clock.
            assert!((last..began + 3_600_000).contains(&stamp) && stamp == produced.timestamp);
            last = stamp;
            let offset = (at * Compression::ALL.len() + number) as u64 * 3;
            assert_eq!(produced.base_offset, offset);
            let (header, records) = stored(&broker, offset).await.remove(0);
            assert!(header.log_append_time() && header.max_timestamp == stamp && header.compression() == Ok(codec));
            assert!(records.iter().all(|record| record.timestamp == stamp), "{codec}");
            assert_eq!(broker.append_time("t", 0, offset + 1).await, Some(stamp));
        }
    }
    let (offset, time) = broker.list_offset("t", 0, OffsetAt::Newest).await.unwrap();
    assert_eq!((broker.append_time("t", 0, offset).await, time), (Some(last), last));
    assert_eq!(broker.list_offset("t", 0, OffsetAt::Timestamp(began)).await.unwrap().0, 0);
    assert_eq!(broker.list_offset("t", 0, OffsetAt::Timestamp(last + 1)).await.unwrap(), (45, -1));
    let described = broker.describe_topic(&name()).await.unwrap();
    assert_eq!(described.partitions[0].newest_timestamp, last, "retention goes by it");
    // What is sent again is told where it is, and its time is looked up.
    let options = BatchOptions { producer_id: 7, producer_epoch: 0, base_sequence: 0, ..BatchOptions::default() };
    let first = broker.produce("t", 0, of(options, 5, 10), AckLevel::Durable).await.unwrap();
    let again = broker.produce("t", 0, of(options, 5, 10), AckLevel::Durable).await.unwrap();
    assert!(again.duplicate && again.stamped.is_none());
    assert_eq!(broker.append_time("t", 0, again.base_offset).await, first.stamped);
    // Each batch says whose time it has.
    let old = stored(&broker, 0).await;
    set(&broker, "timestamp_type", "create").await;
    let refused = broker.produce("t", 0, of(BatchOptions::default(), 5, 10), AckLevel::Durable).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRecord, "{refused}");
    let now = SystemClock::new().wall_ms() - 1000;
    let own = broker.produce("t", 0, of(BatchOptions::default(), now, 10), AckLevel::Durable).await.unwrap();
    assert_eq!(own.stamped, None);
    let all = stored(&broker, 0).await;
    assert_eq!(all[..old.len()], old);
    let times: Vec<_> = all[old.len()].1.iter().map(|record| record.timestamp).collect();
    assert_eq!((times, broker.append_time("t", 0, own.base_offset).await), (vec![now, now + 1, now + 2], None));
    set(&broker, "timestamp_type", "append").await;
    assert!(
        broker.produce("t", 0, of(BatchOptions::default(), 5, 10), AckLevel::Durable).await.unwrap().stamped > None
    );
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(stored(&broker, 0).await[..all.len()], all);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_stored_in_the_topics_codec_and_what_is_long_is_packed_by_the_workers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    create(&broker, &[]).await;
    let key = WorkKey::new();
    let produce = async |codec, bytes| {
        let offer = broker.look_into(&key, "t", of(packed(codec), 1_000, bytes)).await;
        let produced = broker.produce_at("t", 0, offer, AckLevel::Durable, Place::CommitThread).await.unwrap();
        stored(&broker, produced.base_offset).await.remove(0)
    };
    for wanted in [None, Some(Compression::None), Some(Compression::Gzip), Some(Compression::Zstd)] {
        let value = match wanted {
            None => "producer",
            Some(Compression::None) => "uncompressed",
            Some(codec) => codec.name(),
        };
        set(&broker, "compression", value).await;
        for codec in Compression::ALL {
            for bytes in [10, 100_000] {
                let (header, records) = produce(codec, bytes).await;
                assert_eq!(header.compression(), Ok(wanted.unwrap_or(codec)), "{codec} to {value}, {bytes} bytes");
                let as_sent = |(at, record): (usize, &Record)| {
                    record.timestamp == 1_000 + at as i64 && record.value.as_ref().unwrap().len() == bytes
                };
                assert!(records.len() == 3 && records.iter().enumerate().all(as_sent));
            }
        }
    }
    set(&broker, "compression", "gzip").await;
    let before = broker.workers.portions.get();
    produce(Compression::None, 10).await;
    assert_eq!(broker.workers.portions.get(), before, "short: where it is checked");
    produce(Compression::None, 20_000).await;
    produce(Compression::Zstd, 10).await;
    assert!(broker.workers.portions.get() >= before + 2, "by the workers");
    // What the server itself writes comes into the same form.
    let own = broker.produce_own("t", 0, of(BatchOptions::default(), 1_000, 50_000)).await.unwrap();
    assert_eq!(stored(&broker, own.base_offset).await[0].0.compression(), Ok(Compression::Gzip));
    // Both at once.
    set(&broker, "timestamp_type", "append").await;
    let (header, records) = produce(Compression::Lz4, 100).await;
    assert!(header.log_append_time() && header.compression() == Ok(Compression::Gzip));
    assert!(records.iter().all(|record| record.timestamp == header.max_timestamp));
    broker.shutdown().await;
}
