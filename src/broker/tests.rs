use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::{ErrorKind, SystemClock, TopicName};
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions};

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
