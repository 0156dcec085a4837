//! Producing: records are gathered in batches, a queue and a worker for each partition.

mod batch;
mod message;
mod queue;
mod receipt;
mod sequence;
mod topic;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::{ErrorKind, limits};
use crate::protocol::{Ack, Metadata};
use crate::record::{BatchBuilder, Compression};

use super::ClientError;
use super::link::{Again, Link, pause};
use queue::{NotPushed, QueueConfig};
use topic::Topic;
use worker::WorkerConfig;

pub use message::Message;
pub use receipt::{Receipt, RecordMetadata};

/// What a record costs of the producer's memory beside its own bytes.
const RECORD_OVERHEAD: usize = 64;
/// Topics that one producer remembers.
const TOPICS: usize = 100_000;
/// From so long a linger time on, a producer without room ends it for all partitions.
const LONG_LINGER: Duration = Duration::from_millis(5);

/// Builds a [`Producer`].
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    link: Arc<Link>,
    ack: Ack,
    linger: Duration,
    batch_bytes: usize,
    compression: Compression,
    max_in_flight: usize,
    memory: usize,
    delivery_timeout: Duration,
    idempotent: bool,
}

/// Sends records. Clones share everything. Records that one task sends to one partition are stored in that order.
/// Dropping the last clone sends what is queued, as long as the runtime lives; [`Producer::close`] waits for it.
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    link: Arc<Link>,
    queue_config: QueueConfig,
    worker_config: WorkerConfig,
    batch_bytes: usize,
    memory_bytes: usize,
    memory: Arc<Semaphore>,
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    closed: AtomicBool,
    first_failure: Mutex<Option<ClientError>>,
    trouble: Mutex<Option<ClientError>>,
}

impl ProducerBuilder {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            ack: Ack::Durable,
            linger: Duration::from_millis(1),
            batch_bytes: 256 * 1024,
            compression: Compression::None,
            max_in_flight: limits::PRODUCER_BATCHES,
            memory: 64 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(60),
            idempotent: true,
        }
    }

    /// When a record counts as stored. Default [`Ack::Durable`].
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How long a batch that is not full waits for more records. Default 1 ms.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Size at which a batch is full, in bytes before compression; at most what the topic takes. Default 256 KiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How batches are compressed. Default not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Batches on their way per partition, 1 to 5: so many the server recognizes when they come again. Default 5. Always 1
    /// without idempotence, or the order could break.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = batches.clamp(1, limits::PRODUCER_BATCHES);
        self
    }

    /// Bytes of records that may wait to be stored; sending waits while there are more. Default 64 MiB.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// How long a record may take from [`Producer::send`] to its acknowledgement, all retries included. Default 60 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Whether the server shall recognize what is sent a second time after a lost connection. Default yes; never with
    /// [`Ack::None`].
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Makes the producer; it asks the server when it sends first.
    ///
    /// # Errors
    /// A setting that makes no sense.
    pub async fn build(self) -> Result<Producer, ClientError> {
        let wrong = |message: &str| Err(ClientError::new(ErrorKind::InvalidRequest, message));
        if self.batch_bytes == 0 || self.memory == 0 {
            return wrong("a producer needs a batch size and a memory bound above 0 bytes");
        }
        if self.delivery_timeout.is_zero() || self.linger >= self.delivery_timeout {
            return wrong("a producer's delivery timeout has to be longer than its linger time");
        }
        let memory_bytes = self.memory.min(u32::MAX as usize);
        Ok(Producer {
            inner: Arc::new(Inner {
                link: Arc::clone(&self.link),
                queue_config: QueueConfig {
                    link: self.link,
                    linger: self.linger,
                    delivery_timeout: self.delivery_timeout,
                    compression: self.compression,
                },
                worker_config: WorkerConfig {
                    ack: self.ack,
                    idempotent: self.idempotent && self.ack != Ack::None,
                    max_in_flight: self.max_in_flight,
                },
                batch_bytes: self.batch_bytes,
                memory_bytes,
                memory: Arc::new(Semaphore::new(memory_bytes)),
                topics: RwLock::default(),
                closed: AtomicBool::new(false),
                first_failure: Mutex::default(),
                trouble: Mutex::default(),
            }),
        })
    }
}

impl Producer {
    /// Queues a record. Waits only for room in the producer's memory (and, the first time, for the topic's metadata); the
    /// receipt tells what became of it.
    ///
    /// # Errors
    /// The record is too large, the topic or partition does not exist and is not created, or the producer is closed. The
    /// record is not sent then.
    pub async fn send(&self, message: Message) -> Result<Receipt, ClientError> {
        self.inner.push(&message).await.map(|(receipt, _)| receipt)
    }

    /// Sends a record, without lingering, and waits until it is stored.
    ///
    /// # Errors
    /// As [`Producer::send`], or the record could not be stored.
    pub async fn send_and_wait(&self, message: Message) -> Result<RecordMetadata, ClientError> {
        let (receipt, queue) = self.inner.push(&message).await?;
        queue.hurry();
        receipt.await
    }

    /// Waits until every record sent so far is stored or has failed.
    ///
    /// # Errors
    /// The first failure since the last call. Each record's receipt tells its own.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let waiting: Vec<_> = self.inner.queues().into_iter().map(|queue| (queue.hurry(), queue)).collect();
        for (number, queue) in waiting {
            queue.reached(number).await;
        }
        let mut failure = self.inner.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }

    /// Why what was sent last is being tried again, if it is: the disk is full, the server is away. `None` once something is stored.
    pub fn trouble(&self) -> Option<ClientError> {
        self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes no more records, for all clones, and waits for those sent.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), ClientError> {
        self.inner.closed.store(true, Ordering::SeqCst);
        let flushed = self.flush().await;
        self.inner.retire();
        flushed
    }
}

impl Inner {
    async fn push(self: &Arc<Self>, message: &Message) -> Result<(Receipt, Arc<queue::Queue>), ClientError> {
        let size = BatchBuilder::record_bytes(message.key.as_deref(), message.value.as_deref(), &message.header_refs());
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(ClientError::new(ErrorKind::InvalidRequest, "the producer is closed"));
            }
            let mut topic = self.topic(&message.topic).await?;
            if message.partition.is_some_and(|partition| partition >= topic.partitions()) {
                // It may have got more partitions since.
                topic = self.look_up(&message.topic).await?;
            }
            topic.check(message, size, self.queue_config.compression)?;
            let memory = self.room(size).await;
            match topic.push(self, message, self.link.now_ms(), size, memory) {
                Ok(pushed) => return Ok(pushed),
                Err(NotPushed::Retired | NotPushed::NoRoom) => self.memory.add_permits(memory),
            }
        }
    }

    /// Takes memory for a record, once there is some; returns how much.
    async fn room(&self, size: usize) -> usize {
        let memory = (size + RECORD_OVERHEAD).min(self.memory_bytes);
        // At most `memory_bytes`, which fits.
        let permits = u32::try_from(memory).unwrap_or(u32::MAX);
        if let Ok(permit) = self.memory.try_acquire_many(permits) {
            permit.forget();
            return memory;
        }
        // Lingering for more records makes no sense when there is no room for them; a short time is over soon anyway.
        if self.queue_config.linger > LONG_LINGER {
            for queue in self.queues() {
                queue.hurry();
            }
        }
        if let Ok(permit) = self.memory.acquire_many(permits).await {
            permit.forget();
        }
        memory
    }

    async fn topic(&self, name: &Arc<str>) -> Result<Arc<Topic>, ClientError> {
        let known = self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match known {
            Some(topic) => Ok(topic),
            None => self.look_up(name).await,
        }
    }

    /// Asks the server for a topic, which it may create.
    async fn look_up(&self, name: &Arc<str>) -> Result<Arc<Topic>, ClientError> {
        let deadline = Instant::now() + self.queue_config.delivery_timeout;
        let mut failures = 0;
        let metadata = loop {
            let request = Metadata { topic: name.as_ref().to_owned(), create: true };
            match self.link.ask(&request, Again::Yes).await {
                Ok(metadata) => break metadata,
                Err(error) => {
                    failures += 1;
                    let pause = error.retry_after().unwrap_or_default().max(pause(failures));
                    if !error.is_retriable() || Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        };
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let old = topics.get(name);
        if let Some(old) = old
            && old.partitions() == metadata.partitions
            && old.id() == metadata.id
        {
            return Ok(old.clone());
        }
        if old.is_none() && topics.len() >= TOPICS {
            let message = format!("a producer sends to at most {TOPICS} topics");
            return Err(ClientError::new(ErrorKind::TooLarge, message));
        }
        let topic = Arc::new(Topic::new(name.clone(), metadata, self.batch_bytes, old.map(Arc::as_ref)));
        topics.insert(name.clone(), topic.clone());
        Ok(topic)
    }

    fn queues(&self) -> Vec<Arc<queue::Queue>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().flat_map(|topic| topic.queues().cloned()).collect()
    }

    /// The topic does not exist any more; the next record asks anew.
    pub(crate) fn forget(&self, name: &str) {
        let topic = self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(topic) = topic {
            topic.retire();
        }
    }

    fn retire(&self) {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().for_each(|topic| topic.retire());
    }

    /// Remembers the first failure for [`Producer::flush`].
    pub(crate) fn failed(&self, error: &ClientError) {
        let mut failure = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.clone());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.retire();
    }
}
