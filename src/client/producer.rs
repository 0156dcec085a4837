//! Sending records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::base::{ErrorKind, Offset, TimestampMs, limits};
use crate::protocol::{Ack, InitProducer, MetadataOk};
use crate::record::{BatchBuilder, Compression, partition_for_key};

use super::lane::{Lane, Receipt};
use super::{Client, ClientError};

/// A record to send.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) topic: Arc<str>,
    pub(super) partition: Option<u32>,
    pub(super) timestamp: Option<TimestampMs>,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<(String, Option<Bytes>)>,
}

impl Message {
    /// A record for a topic, without anything in it yet.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        let topic = topic.into();
        Self { topic, partition: None, timestamp: None, key: None, value: None, headers: Vec::new() }
    }

    /// Its key; records of one key stay in order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Its content.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// A header beside it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// A header without a value.
    pub fn empty_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// The partition, instead of the one its key leads to.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// When it happened, in milliseconds since the Unix epoch; now if not set.
    pub fn timestamp(mut self, timestamp: TimestampMs) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: u32,
    /// Its offset; `None` with [`Ack::None`], for nobody says.
    pub offset: Option<Offset>,
    /// Its timestamp.
    pub timestamp: TimestampMs,
}

/// Settings of a producer.
#[derive(Clone)]
pub struct ProducerBuilder {
    pub(super) client: Client,
    pub(super) ack: Ack,
    pub(super) linger: Duration,
    pub(super) batch_bytes: usize,
    pub(super) compression: Compression,
    pub(super) max_in_flight: usize,
    pub(super) memory: usize,
    pub(super) delivery_timeout: Duration,
    pub(super) idempotent: bool,
}

impl ProducerBuilder {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            ack: Ack::Durable,
            linger: Duration::ZERO,
            batch_bytes: 256 * 1024,
            compression: Compression::None,
            max_in_flight: limits::PRODUCER_BATCHES,
            memory: 32 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(120),
            idempotent: true,
        }
    }

    /// When a record counts as sent; [`Ack::Durable`] if not set.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How long a batch waits for more; not at all if not set. Records that come while others are under way share a batch
    /// all the same.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How large a batch may grow, 256 KiB if not set.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.max(limits::BATCH_HEADER_BYTES);
        self
    }

    /// How batches are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Batches under way per partition, 1 to 5 (the server remembers five); 5 if not set.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = batches.clamp(1, limits::PRODUCER_BATCHES);
        self
    }

    /// Bytes of records that may wait for their answer, 32 MiB if not set; [`Producer::send`] waits for room.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes.min(Semaphore::MAX_PERMITS);
        self
    }

    /// How long a record is tried for, 2 minutes if not set.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Whether retries are told apart from new records, so that nothing is stored twice; on if not set.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Makes the producer; asks the server for its identity.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn build(self) -> Result<Producer, ClientError> {
        let identity = if self.idempotent {
            let given = self.client.request(&InitProducer { resume: None }).await?;
            (given.producer_id, given.epoch)
        } else {
            (-1, -1)
        };
        let room = Arc::new(Semaphore::new(self.memory));
        let shared = Shared { options: self, identity, room, topics: Mutex::default(), lanes: Mutex::default() };
        Ok(Producer { shared: Arc::new(shared) })
    }
}

/// Sends records: collects them into batches per partition, keeps several batches under way, and sends again what a
/// broken connection left in doubt, without doubles. Clones share everything.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    options: ProducerBuilder,
    identity: (i64, i16),
    room: Arc<Semaphore>,
    topics: Mutex<HashMap<String, Arc<TopicState>>>,
    lanes: Mutex<HashMap<(String, u32), Arc<Lane>>>,
}

struct TopicState {
    name: Arc<str>,
    metadata: MetadataOk,
    /// Where records without a key go for now, and how many bytes have gone there.
    sticky: Mutex<(u32, usize)>,
}

impl Producer {
    /// Hands a record over. Waits only for room; the receipt tells when it is stored.
    ///
    /// # Errors
    /// The topic does not exist and is not created, or the record is too large.
    pub async fn send(&self, message: Message) -> Result<Receipt, ClientError> {
        let topic = self.topic(&message.topic).await?;
        let headers: Vec<(&str, Option<&[u8]>)> =
            message.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let size = BatchBuilder::record_bytes(message.key.as_deref(), message.value.as_deref(), &headers);
        let limit = topic.metadata.max_batch_bytes as usize - limits::BATCH_HEADER_BYTES;
        let limit = limit.min(self.shared.options.memory);
        if size > limit {
            let text = format!("record of {size} bytes is larger than the limit of {limit} bytes");
            return Err(ClientError::new(ErrorKind::TooLarge, text));
        }
        let partition = match (message.partition, &message.key) {
            (Some(partition), _) if partition < topic.metadata.partitions => partition,
            (Some(partition), _) => {
                let partitions = topic.metadata.partitions;
                let text = format!(
                    "topic '{}' has no partition {partition}: it has {partitions}, numbered from 0",
                    message.topic
                );
                return Err(ClientError::new(ErrorKind::NotFound, text));
            }
            (None, Some(key)) => partition_for_key(key, topic.metadata.partitions),
            (None, None) => topic.sticky(size, self.shared.options.batch_bytes),
        };
        let permit = self.shared.room.acquire_many(size as u32).await;
        permit.map_err(|_| ClientError::new(ErrorKind::Disconnected, "the producer is closed"))?.forget();
        let lane = self.lane(&topic, partition);
        lane.push(&message, &headers, size)
    }

    /// Hands a record over and waits until it is stored.
    ///
    /// # Errors
    /// As [`Producer::send`], and those of storing it.
    pub async fn send_and_wait(&self, message: Message) -> Result<RecordMetadata, ClientError> {
        self.send(message).await?.await
    }

    /// Waits until everything handed over so far is stored or has failed; the receipts tell which.
    ///
    /// # Errors
    /// None so far; a failure to flush at all would be one.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let lanes: Vec<_> = self.lock_lanes().values().cloned().collect();
        for lane in lanes {
            lane.flush().await;
        }
        Ok(())
    }

    /// Flushes, and takes no more.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<(), ClientError> {
        self.flush().await?;
        for lane in self.lock_lanes().values() {
            lane.close();
        }
        Ok(())
    }

    async fn topic(&self, name: &str) -> Result<Arc<TopicState>, ClientError> {
        if let Some(topic) = self.shared.topics.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Arc::clone(topic));
        }
        let client = &self.shared.options.client;
        let mut metadata = client.admin().metadata(name, true).await?;
        let largest = client.connection().await?.max_batch_bytes();
        metadata.max_batch_bytes = metadata.max_batch_bytes.min(u32::try_from(largest).unwrap_or(u32::MAX));
        let topic = Arc::new(TopicState { name: name.into(), metadata, sticky: Mutex::new((0, 0)) });
        let mut topics = self.shared.topics.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(topics.entry(name.to_owned()).or_insert(topic)))
    }

    fn lane(&self, topic: &TopicState, partition: u32) -> Arc<Lane> {
        let shared = &self.shared;
        let limit = topic.metadata.max_batch_bytes as usize;
        let mut lanes = self.lock_lanes();
        let lane = lanes.entry((topic.name.as_ref().to_owned(), partition)).or_insert_with(|| {
            let room = Arc::clone(&shared.room);
            Lane::start(shared.options.clone(), shared.identity, Arc::clone(&topic.name), partition, limit, room)
        });
        Arc::clone(lane)
    }

    fn lock_lanes(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u32), Arc<Lane>>> {
        self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for lane in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            lane.close();
        }
    }
}

impl TopicState {
    /// Records without a key stay on one partition for about a batch, and then move on.
    fn sticky(&self, size: usize, batch_bytes: usize) -> u32 {
        let mut sticky = self.sticky.lock().unwrap_or_else(PoisonError::into_inner);
        if sticky.1 > batch_bytes {
            *sticky = ((sticky.0 + 1) % self.metadata.partitions.max(1), 0);
        }
        sticky.1 += size;
        sticky.0
    }
}
