use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::{Condition, ErrorKind, SystemClock, TopicName};
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions, Compression};

fn open(dir: &std::path::Path) -> Result<Arc<Broker>, BrokerError> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new()))
}

fn batch(value: &str) -> bytes::BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(5, None, Some(value.as_bytes()), &[]);
    builder.build()
}

fn fetch(topic: &str, offset: u64, wait_ms: u64) -> FetchRequest<'_> {
    FetchRequest {
        topic,
        partition: 0,
        offset,
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait: Duration::from_millis(wait_ms),
        skip_damaged: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_records_survive_a_restart_and_a_deleted_topic_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let name = TopicName::new("crm.accounts").unwrap();
    assert!(broker.metadata(&name, false).await.is_err());
    assert!(broker.metadata(&name, true).await.unwrap().created);
    for at in 0..10 {
        let produced = broker.produce("crm.accounts", 0, batch("x"), AckLevel::Durable).await.unwrap();
        assert_eq!(produced.base_offset, at);
    }
    assert_eq!(open(dir.path()).err().unwrap().kind(), ErrorKind::Busy);
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path()).unwrap();
    let fetched = broker.fetch(fetch("crm.accounts", 0, 0)).await.unwrap();
    assert_eq!((fetched.next_offset, fetched.stable_end), (10, 10));
    assert_eq!(broker.fetch(fetch("crm.accounts", 11, 0)).await.unwrap_err().range(), Some((0, 10)));
    broker.delete_topic(&name).await.unwrap();
    assert_eq!(broker.fetch(fetch("crm.accounts", 0, 0)).await.unwrap_err().kind(), ErrorKind::NotFound);
    broker.metadata(&name, true).await.unwrap();
    assert_eq!(broker.fetch(fetch("crm.accounts", 0, 0)).await.unwrap().stable_end, 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_may_not_wait_touches_no_timer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    broker.metadata(&TopicName::new("t").unwrap(), true).await.unwrap();
    let reading = Arc::clone(&broker);
    let read = std::thread::spawn(move || {
        // A timer panics here: the runtime has none.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fetched = runtime.block_on(reading.fetch(fetch("t", 0, 0))).unwrap();
        drop(reading);
        fetched.next_offset
    });
    assert_eq!(read.join().unwrap(), 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_long_to_check_goes_to_the_workers_and_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    broker.metadata(&TopicName::new("t").unwrap(), true).await.unwrap();
    let of = |compression, bytes: usize| {
        let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
        builder.push(5, None, Some(&vec![b'x'; bytes]), &[]);
        builder.build()
    };
    let key = WorkKey::new();
    let mut appends = Vec::new();
    // Plain, small when opened, large when opened (though not before), plain.
    for (compression, bytes, portions) in [
        (Compression::None, 200_000, 0),
        (Compression::Zstd, 20_000, 0),
        (Compression::Zstd, 200_000, 1),
        (Compression::None, 10, 1),
    ] {
        let offer = broker.look_into(&key, "t", of(compression, bytes)).await;
        assert_eq!(broker.workers.portions.get(), portions);
        appends.push(broker.produce_at("t", 0, offer, AckLevel::Durable, Place::CommitThread));
    }
    for (at, append) in appends.into_iter().enumerate() {
        assert_eq!(append.await.unwrap().base_offset, at as u64);
    }
    let gone = broker.look_into(&key, "no-such", of(Compression::Zstd, 10)).await;
    let refused = broker.produce_at("no-such", 0, gone, AckLevel::Durable, Place::CommitThread).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_is_woken_by_an_append_and_by_a_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let name = TopicName::new("t").unwrap();
    broker.metadata(&name, true).await.unwrap();
    let reader = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.fetch(fetch("t", 0, 60_000)).await }
    });
    tokio::task::yield_now().await;
    broker.produce("t", 0, batch("x"), AckLevel::Written).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap().next_offset, 1);
    let reader = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.fetch(fetch("t", 1, 60_000)).await }
    });
    tokio::task::yield_now().await;
    broker.delete_topic(&name).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked_shown_and_altered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let name = TopicName::new("t").unwrap();
    let new = |settings: &[(&str, &str)]| NewTopic {
        name: name.clone(),
        partitions: Some(3),
        settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        if_not_exists: false,
    };
    assert!(broker.create_topic(new(&[("segment_bytes", "1B")])).await.is_err());
    assert!(broker.list_topics().is_empty());
    let topic = broker.create_topic(new(&[("retention_time", "7d")])).await.unwrap();
    assert_eq!(topic.partitions.len(), 3);
    let setting = topic.settings.iter().find(|setting| setting.name == "retention_time").unwrap();
    assert_eq!((setting.value.as_str(), setting.is_default), ("7d", false));
    assert_eq!(broker.create_topic(new(&[])).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(broker.alter_topic(&name, Some(2), &[], &[]).await.is_err());
    let topic = broker.alter_topic(&name, Some(5), &[], &["retention_time".to_owned()]).await.unwrap();
    assert_eq!(topic.partitions.len(), 5);
    assert!(topic.settings.iter().all(|setting| setting.is_default));
    broker.produce("t", 4, batch("x"), AckLevel::Durable).await.unwrap();
    assert!(broker.produce("t", 5, batch("x"), AckLevel::Durable).await.is_err());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_by_the_scrubber_and_by_readers_and_known_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let config = |every| BrokerConfig {
        data_dir: dir.path().to_owned(),
        scrub_interval: crate::base::Millis(every),
        ..BrokerConfig::default()
    };
    let start = |every| Broker::open(config(every), Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    const NEVER: u64 = 3_600_000;
    let broker = start(NEVER);
    let name = TopicName::new("t").unwrap();
    let settings =
        vec![("segment_bytes".to_owned(), "64KiB".to_owned()), ("max_message_bytes".to_owned(), "32KiB".to_owned())];
    let new = NewTopic { name: name.clone(), partitions: Some(2), settings, if_not_exists: false };
    broker.create_topic(new).await.unwrap();
    for _ in 0..20 {
        for partition in 0..2 {
            broker.produce("t", partition, batch(&"x".repeat(10_000)), AckLevel::Durable).await.unwrap();
        }
    }
    let id = broker.topic("t").unwrap().entry.id;
    broker.shutdown().await;
    drop(broker);
    let files: Vec<_> = (0..2)
        .map(|partition| dir.path().join(format!("topics/t~{id}/{partition}/00000000000000000000.log")))
        .collect();
    let flip = |file: &std::path::Path, at: usize| {
        let mut content = crate::disk::read_file(&RealDisk, file).unwrap();
        content[at] ^= 1;
        crate::disk::replace_file(&RealDisk, file, &content).unwrap();
    };
    flip(&files[0], 15_000);
    let broker = start(20);
    let damage = loop {
        let damage = broker.damage().await;
        if !damage.is_empty() {
            break damage;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let places: Vec<_> = damage.iter().map(|damage| (damage.partition, damage.known.damage.from)).collect();
    let is_told = || broker.health().troubles().iter().any(|trouble| trouble.condition == Condition::Damage);
    assert_eq!((places, is_told()), (vec![(0, 1)], true));
    assert_eq!(broker.acknowledge_damage(Some("t")).await.unwrap(), 1);
    assert!(!is_told());
    broker.shutdown().await;
    drop(broker);
    // What a reader meets is noted too, and stored by the thread.
    flip(&files[1], 25_000);
    let broker = start(NEVER);
    let request = |offset| FetchRequest {
        topic: "t",
        partition: 1,
        offset,
        max_bytes: 1 << 20,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    assert_eq!(broker.fetch(request(0)).await.unwrap().next_offset, 2);
    assert_eq!(broker.fetch(request(2)).await.unwrap_err().kind(), ErrorKind::Damaged);
    let stored = files[1].with_file_name("damage");
    while !crate::disk::Disk::exists(&RealDisk, &stored).unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    broker.shutdown().await;
    drop(broker);
    let broker = start(NEVER);
    let known = broker.damage().await;
    let known: Vec<_> = known.iter().map(|of| (of.partition, of.known.damage.from, of.known.acknowledged)).collect();
    assert_eq!(known, [(0, 1, true), (1, 2, false)]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_takes_only_records_with_a_key_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let name = TopicName::new("state").unwrap();
    let settings = vec![("cleanup".to_owned(), "compact".to_owned())];
    broker
        .create_topic(NewTopic { name: name.clone(), partitions: None, settings, if_not_exists: false })
        .await
        .unwrap();
    let error = broker.produce("state", 0, batch("x"), AckLevel::Durable).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRecord);
    assert_eq!(error.to_string(), "record 0 of the batch has no key; a compacted topic takes only records with a key");
    for codec in crate::record::Compression::ALL {
        for key in [None, Some(b"k".as_slice())] {
            let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
            builder.push(5, Some(b"first"), Some(b"x"), &[]);
            builder.push(5, key, None, &[]);
            let outcome = broker.produce("state", 0, builder.build(), AckLevel::Durable).await;
            assert_eq!(outcome.is_ok(), key.is_some(), "{codec}");
        }
    }
    let set = [("cleanup".to_owned(), "delete".to_owned())];
    broker.alter_topic(&name, None, &set, &[]).await.unwrap();
    broker.produce("state", 0, batch("x"), AckLevel::Durable).await.unwrap();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_the_journal_are_compacted_by_themselves_and_are_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        data_dir: dir.path().to_owned(),
        compaction_check: crate::base::Millis(20),
        ..BrokerConfig::default()
    };
    let start = || Broker::open(config.clone(), Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    let broker = start();
    let settings = ["segment_bytes=64KiB", "max_message_bytes=64KiB", "cleanup=compact"];
    let settings = settings.iter().filter_map(|text| text.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let name = TopicName::new("state").unwrap();
    let new = NewTopic { name: name.clone(), partitions: None, settings: settings.collect(), if_not_exists: false };
    broker.create_topic(new).await.unwrap();
    for round in 0..40 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for key in 0..20u32 {
            builder.push(5, Some(&key.to_be_bytes()), Some(format!("{round:01000}").as_bytes()), &[]);
        }
        broker.produce("state", 0, builder.build(), AckLevel::Durable).await.unwrap();
    }
    // More positions than fit a segment of the journal, again and again the same.
    let group = crate::base::GroupName::new("g").unwrap();
    for at in 0..60_000u64 {
        if at % 1_000 == 0 {
            let id = broker.topic("state").unwrap().entry.id;
            let place = crate::catalog::Place { group: group.clone(), topic: id, partition: 0 };
            let mut events = vec![crate::catalog::Event::GroupDeclared(crate::catalog::GroupEntry {
                name: group.clone(),
                kind: crate::catalog::GroupKind::Stream,
                topics: vec![crate::base::TopicPattern::new("state").unwrap()],
                filter: None,
                created_ms: 5,
            })];
            events.extend((at..at + 1_000).map(|offset| crate::catalog::Event::PositionSet {
                place: place.clone(),
                position: Some(crate::catalog::Position {
                    offset: offset % 800,
                    metadata: "x".repeat(300),
                    time_ms: 5,
                    leader_epoch: None,
                }),
            }));
            super::broker::lock(&broker.catalog).commit_all(events, 5).unwrap();
        }
    }
    let journal = dir.path().join("journal");
    let size = || {
        let files = crate::disk::Disk::list(&RealDisk, &journal).unwrap();
        files.iter().map(|file| crate::disk::length_of(&RealDisk, &journal.join(&file.name))).sum::<u64>()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let described = broker.describe_topic(&name).await.unwrap().partitions[0].clone();
        // What the checkpoint does not hold yet is neither clean nor dirty, and its turn comes.
        let small = described.bytes < 250_000 && described.segments <= 6 && size() < 6 << 20;
        if described.clean_bytes > 0 && described.dirty_bytes == 0 && small {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{described:?}, journal {}", size());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = broker.metrics().encode(None);
    assert!(
        metrics.contains("tidelog_compaction_records_removed_total") && metrics.contains("tidelog_compactions_total")
    );
    let id = broker.topic("state").unwrap().entry.id;
    broker.shutdown().await;
    drop(broker);
    for without_view in [false, true] {
        if without_view {
            crate::disk::Disk::remove_dir_all(&RealDisk, &dir.path().join("view")).unwrap();
        }
        let broker = start();
        let progress = super::broker::lock(&broker.catalog).progress(&group, (id, 0)).unwrap();
        assert_eq!(progress.position.unwrap().offset, 799);
        let mut offset = 0;
        let mut newest = std::collections::HashMap::new();
        while offset < 800 {
            let fetched = broker.fetch(fetch("state", offset, 0)).await.unwrap();
            for batch in crate::record::Batches::new(fetched.bytes) {
                for record in crate::record::read_records(&batch.unwrap().1, 1 << 20).unwrap() {
                    let record = record.unwrap();
                    newest.insert(record.key.unwrap(), record.offset);
                }
            }
            offset = fetched.next_offset;
        }
        assert_eq!(newest.len(), 20);
        assert!(newest.values().all(|offset| *offset >= 780));
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_shutdown_the_folder_is_free_and_the_old_broker_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, name) = (open(dir.path()).unwrap(), TopicName::new("t").unwrap());
    old.metadata(&name, true).await.unwrap();
    old.shutdown().await;
    let new = open(dir.path()).unwrap();
    assert!(old.metadata(&TopicName::new("u").unwrap(), true).await.is_err());
    assert!(old.delete_topic(&name).await.is_err());
    assert!(new.topic("t").is_ok());
    new.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_time_of_a_batch_is_that_of_its_records_whatever_its_header_says() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let topic = TopicName::new("t").unwrap();
    broker.metadata(&topic, true).await.unwrap();
    let now = crate::base::Clock::wall_ms(&SystemClock::new());
    for (at, said) in [-1, 0, now + 5, 1 << 62].into_iter().enumerate() {
        for compression in crate::record::Compression::ALL {
            let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
            [now - 7, now, now - 3].into_iter().for_each(|time| builder.push(time, None, Some(b"v"), &[]));
            let mut batch = builder.build();
            crate::record::set_max_timestamp(&mut batch, said);
            let appended = broker.produce("t", 0, batch, AckLevel::Durable).await.unwrap();
            let fetched = broker.fetch(fetch("t", appended.base_offset, 0)).await.unwrap();
            let header = crate::record::verify_batch(&fetched.bytes).unwrap();
            assert_eq!(header.max_timestamp, now, "{at} {compression}");
        }
    }
    assert_eq!(broker.list_offset("t", 0, OffsetAt::Newest).await.unwrap().1, now);
    // Microseconds, a common slip, would keep the partition from being deleted by age.
    let of = |times: &[i64]| {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        times.iter().for_each(|time| builder.push(*time, None, Some(b"v"), &[]));
        builder.build()
    };
    let refused = broker.produce("t", 0, of(&[now, now * 1000]), AckLevel::Durable).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRecord);
    assert!(refused.to_string().contains("ahead of the server's clock, more than the topic's limit of 3600000 ms"));
    broker.produce("t", 0, of(&[now + 3_000_000, 0, -1]), AckLevel::Durable).await.unwrap();
    let set = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    broker.alter_topic(&topic, None, &set("timestamp_after_max", "unlimited"), &[]).await.unwrap();
    broker.alter_topic(&topic, None, &set("timestamp_before_max", "1d"), &[]).await.unwrap();
    broker.produce("t", 0, of(&[now * 1000]), AckLevel::Durable).await.unwrap();
    let refused = broker.produce("t", 0, of(&[now, now - 90_000_000, -1]), AckLevel::Durable).await.unwrap_err();
    assert!(refused.to_string().contains("behind the server's clock, more than the topic's limit of 86400000 ms"));
    broker.produce("t", 0, of(&[now, -1]), AckLevel::Durable).await.unwrap();
    broker.shutdown().await;
}
