//! A stand-in with the broker's signatures over memory, until the broker is here.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes as Buf, BytesMut};
use tokio::sync::Notify;

use crate::base::*;
use crate::catalog::TopicSettings;
use crate::disk::Disk;

#[derive(Debug, Clone)]
pub struct BrokerConfig {
    pub data_dir: PathBuf,
    pub auto_create_topics: bool,
    pub default_partitions: u32,
    pub topic_defaults: TopicSettings,
    pub sync_interval: Millis,
    pub retention_check: Millis,
    pub commit_threads: usize,
    pub max_open_files: usize,
    pub max_unsynced_bytes: Bytes,
}
impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./tidelog-data"),
            auto_create_topics: true,
            default_partitions: 1,
            topic_defaults: TopicSettings::default(),
            sync_interval: Millis(1000),
            retention_check: Millis(60_000),
            commit_threads: 2,
            max_open_files: 256,
            max_unsynced_bytes: Bytes(64 << 20),
        }
    }
}
#[derive(Debug, Default)]
pub struct Startup {
    pub took: Duration,
    pub topics: usize,
    pub partitions: usize,
    pub notes: Vec<String>,
    pub view_rebuilt: bool,
}
#[derive(Debug, Default)]
pub struct Metrics {
    pub registry: Mutex<prometheus_client::registry::Registry>,
}
impl Metrics {
    pub fn encode(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry.lock().unwrap()).unwrap();
        out
    }
    pub fn register(&self, add: impl FnOnce(&mut prometheus_client::registry::Registry)) {
        add(&mut self.registry.lock().unwrap());
    }
}
#[derive(Debug)]
pub struct BrokerError {
    kind: ErrorKind,
    message: String,
    range: Option<(Offset, Offset)>,
}
impl BrokerError {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), range: None }
    }
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    pub fn range(&self) -> Option<(Offset, Offset)> {
        self.range
    }
}
impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for BrokerError {}
#[derive(Debug, Clone)]
pub struct NewTopic {
    pub name: TopicName,
    pub partitions: Option<u32>,
    pub settings: Vec<(String, String)>,
    pub if_not_exists: bool,
}
#[derive(Debug, Clone)]
pub struct TopicSummary {
    pub name: TopicName,
    pub id: TopicId,
    pub partitions: u32,
}
#[derive(Debug, Clone)]
pub struct SettingValue {
    pub name: &'static str,
    pub value: String,
    pub is_default: bool,
    pub meaning: &'static str,
}
#[derive(Debug, Clone)]
pub struct PartitionDescription {
    pub partition: u32,
    pub log_start: Offset,
    pub stable_end: Offset,
    pub log_end: Offset,
    pub bytes: u64,
    pub segments: u32,
    pub newest_timestamp: i64,
    pub state: String,
}
#[derive(Debug, Clone)]
pub struct TopicDescription {
    pub name: TopicName,
    pub id: TopicId,
    pub settings: Vec<SettingValue>,
    pub partitions: Vec<PartitionDescription>,
}
#[derive(Debug, Clone)]
pub struct TopicMetadata {
    pub id: TopicId,
    pub partitions: u32,
    pub max_batch_bytes: usize,
    pub created: bool,
}
#[derive(Debug, Clone)]
pub struct Produced {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp: TimestampMs,
    pub duplicate: bool,
}
#[derive(Debug, Clone)]
pub struct FetchRequest<'a> {
    pub topic: &'a str,
    pub partition: PartitionId,
    pub offset: Offset,
    pub max_bytes: usize,
    pub min_bytes: usize,
    pub max_wait: Duration,
    pub skip_damaged: bool,
}
#[derive(Debug, Clone)]
pub struct Skipped {
    pub from: Offset,
    pub to: Offset,
    pub reason: String,
}
#[derive(Debug, Clone)]
pub struct Fetched {
    pub bytes: Buf,
    pub next_offset: Offset,
    pub log_start: Offset,
    pub stable_end: Offset,
    pub skipped: Vec<Skipped>,
}
#[derive(Debug, Clone, Copy)]
pub enum OffsetAt {
    Beginning,
    End,
    Timestamp(TimestampMs),
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckLevel {
    None,
    Written,
    Durable,
}
pub type ProduceFuture = Pin<Box<dyn Future<Output = Result<Produced, BrokerError>> + Send>>;

#[derive(Debug)]
struct Topic {
    id: TopicId,
    logs: Vec<Vec<(Offset, Buf)>>,
    ends: Vec<Offset>,
}
#[derive(Debug, Default)]
pub struct Broker {
    topics: Mutex<BTreeMap<String, Topic>>,
    changed: Notify,
    metrics: Metrics,
    startup: Startup,
    config: BrokerConfig,
    stopped: std::sync::atomic::AtomicBool,
}
impl Broker {
    pub fn open(config: BrokerConfig, _: Arc<dyn Disk>, _: Arc<dyn Clock>) -> Result<Arc<Self>, BrokerError> {
        Ok(Arc::new(Self { config, ..Self::default() }))
    }
    pub fn startup(&self) -> &Startup {
        &self.startup
    }
    pub fn server_id(&self) -> String {
        "stub".into()
    }
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
    fn describe(&self, name: &TopicName) -> Result<TopicDescription, BrokerError> {
        let topics = self.topics.lock().unwrap();
        let topic = topics
            .get(name.as_str())
            .ok_or_else(|| BrokerError::new(ErrorKind::NotFound, format!("no topic '{name}'")))?;
        Ok(TopicDescription {
            name: name.clone(),
            id: topic.id,
            settings: vec![],
            partitions: topic
                .ends
                .iter()
                .enumerate()
                .map(|(i, end)| PartitionDescription {
                    partition: i as u32,
                    log_start: 0,
                    stable_end: *end,
                    log_end: *end,
                    bytes: 0,
                    segments: 1,
                    newest_timestamp: -1,
                    state: "ok".into(),
                })
                .collect(),
        })
    }
    pub async fn create_topic(&self, new: NewTopic) -> Result<TopicDescription, BrokerError> {
        {
            let mut topics = self.topics.lock().unwrap();
            if topics.contains_key(new.name.as_str()) {
                if !new.if_not_exists {
                    return Err(BrokerError::new(ErrorKind::AlreadyExists, "topic exists"));
                }
            } else {
                let n = new.partitions.unwrap_or(self.config.default_partitions) as usize;
                topics.insert(
                    new.name.as_str().to_owned(),
                    Topic { id: TopicId::random(), logs: vec![vec![]; n], ends: vec![0; n] },
                );
            }
        }
        self.describe(&new.name)
    }
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        _: Option<u32>,
        _: &[(String, String)],
        _: &[String],
    ) -> Result<TopicDescription, BrokerError> {
        self.describe(name)
    }
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), BrokerError> {
        self.topics.lock().unwrap().remove(name.as_str());
        self.changed.notify_waiters();
        Ok(())
    }
    pub fn list_topics(&self) -> Vec<TopicSummary> {
        let topics = self.topics.lock().unwrap();
        topics
            .iter()
            .map(|(name, t)| TopicSummary {
                name: TopicName::new(name).unwrap(),
                id: t.id,
                partitions: t.ends.len() as u32,
            })
            .collect()
    }
    pub async fn describe_topic(&self, name: &TopicName) -> Result<TopicDescription, BrokerError> {
        self.describe(name)
    }
    pub async fn metadata(&self, name: &TopicName, create: bool) -> Result<TopicMetadata, BrokerError> {
        let before = self.describe(name).is_ok();
        if create && !before {
            self.create_topic(NewTopic { name: name.clone(), partitions: None, settings: vec![], if_not_exists: true })
                .await?;
        }
        let topic = self.describe(name)?;
        Ok(TopicMetadata {
            id: topic.id,
            partitions: topic.partitions.len() as u32,
            max_batch_bytes: limits::DEFAULT_BATCH_BYTES,
            created: !before,
        })
    }
    pub async fn init_producer(
        &self,
        resume: Option<(ProducerId, ProducerEpoch)>,
    ) -> Result<(ProducerId, ProducerEpoch), BrokerError> {
        Ok(resume.map_or((1000, 0), |(id, epoch)| (id, epoch + 1)))
    }
    fn append(&self, topic: &str, partition: PartitionId, mut batch: BytesMut) -> Result<Produced, BrokerError> {
        if self.stopped.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(BrokerError::new(ErrorKind::ShuttingDown, "stopping"));
        }
        if batch.len() < limits::BATCH_HEADER_BYTES {
            return Err(BrokerError::new(ErrorKind::CorruptBatch, "short batch"));
        }
        let mut topics = self.topics.lock().unwrap();
        let topic = topics
            .get_mut(topic)
            .ok_or_else(|| BrokerError::new(ErrorKind::NotFound, format!("no topic '{topic}'")))?;
        let p = partition as usize;
        if p >= topic.ends.len() {
            return Err(BrokerError::new(ErrorKind::NotFound, "no partition"));
        }
        let base = topic.ends[p];
        let delta = u32::from_be_bytes(batch[23..27].try_into().unwrap());
        batch[..8].copy_from_slice(&base.to_be_bytes());
        topic.logs[p].push((base, batch.freeze()));
        topic.ends[p] = base + u64::from(delta) + 1;
        self.changed.notify_waiters();
        Ok(Produced { base_offset: base, last_offset: topic.ends[p] - 1, timestamp: 0, duplicate: false })
    }
    pub fn produce(&self, topic: &str, partition: PartitionId, batch: BytesMut, _: AckLevel) -> ProduceFuture {
        let done = self.append(topic, partition, batch);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            done
        })
    }
    fn read(&self, r: &FetchRequest<'_>) -> Result<Fetched, BrokerError> {
        let topics = self.topics.lock().unwrap();
        let topic = topics
            .get(r.topic)
            .ok_or_else(|| BrokerError::new(ErrorKind::NotFound, format!("no topic '{}'", r.topic)))?;
        let p = r.partition as usize;
        let end = *topic.ends.get(p).ok_or_else(|| BrokerError::new(ErrorKind::NotFound, "no partition"))?;
        if r.offset > end {
            let mut e = BrokerError::new(ErrorKind::OffsetOutOfRange, "out of range");
            e.range = Some((0, end));
            return Err(e);
        }
        let mut bytes = BytesMut::new();
        let mut next = r.offset;
        let log = &topic.logs[p];
        for (i, (_, batch)) in log.iter().enumerate() {
            let after = log.get(i + 1).map_or(end, |(b, _)| *b);
            if after <= r.offset {
                continue;
            }
            if !bytes.is_empty() && bytes.len() + batch.len() > r.max_bytes {
                break;
            }
            bytes.extend_from_slice(batch);
            next = after;
        }
        Ok(Fetched { bytes: bytes.freeze(), next_offset: next, log_start: 0, stable_end: end, skipped: vec![] })
    }
    pub async fn fetch(&self, r: FetchRequest<'_>) -> Result<Fetched, BrokerError> {
        let deadline = tokio::time::Instant::now() + r.max_wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let got = self.read(&r)?;
            if got.bytes.len() >= r.min_bytes.max(1) || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(got);
            }
        }
    }
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
    ) -> Result<(Offset, TimestampMs), BrokerError> {
        let topics = self.topics.lock().unwrap();
        let topic =
            topics.get(topic).ok_or_else(|| BrokerError::new(ErrorKind::NotFound, format!("no topic '{topic}'")))?;
        let end =
            *topic.ends.get(partition as usize).ok_or_else(|| BrokerError::new(ErrorKind::NotFound, "no partition"))?;
        Ok(match at {
            OffsetAt::Beginning => (0, -1),
            _ => (end, -1),
        })
    }
    pub async fn shutdown(&self) {
        self.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
