//! A topic as a producer knows it: its partitions' queues, and which one a record goes to.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::base::{ErrorKind, PartitionId, TimestampMs, limits};
use crate::client::ClientError;
use crate::protocol::MetadataOk;
use crate::record::{Compression, partition_for_key};

use super::Inner;
use super::message::Message;
use super::queue::{NotPushed, Queue};
use super::receipt::Receipt;
use super::worker::Worker;

#[derive(Debug)]
pub(crate) struct Topic {
    name: Arc<str>,
    metadata: MetadataOk,
    batch_bytes: usize,
    queues: Vec<OnceLock<Arc<Queue>>>,
    /// Where records without a key go until their batch is full.
    sticky: AtomicU32,
}

impl Topic {
    /// A topic; if it is `old` with more partitions, with the queues that there are.
    pub(crate) fn new(name: Arc<str>, metadata: MetadataOk, batch_bytes: usize, old: Option<&Topic>) -> Self {
        let queues: Vec<OnceLock<Arc<Queue>>> = (0..metadata.partitions.max(1)).map(|_| OnceLock::new()).collect();
        match old {
            Some(old) if old.metadata.id == metadata.id => {
                for (new, old) in queues.iter().zip(&old.queues) {
                    if let Some(queue) = old.get() {
                        let _ = new.set(queue.clone());
                    }
                }
            }
            Some(old) => old.retire(),
            None => {}
        }
        let sticky = AtomicU32::new(fastrand::u32(..metadata.partitions.max(1)));
        let batch_bytes = batch_bytes.min(metadata.max_batch_bytes as usize);
        Self { name, metadata, batch_bytes, queues, sticky }
    }

    pub(crate) fn id(&self) -> &str {
        &self.metadata.id
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.metadata.partitions
    }

    /// Refuses what can never be stored. A compressed batch may turn out smaller than its records, so that the topic's
    /// limit is left to the server then.
    pub(crate) fn check(&self, message: &Message, size: usize, compression: Compression) -> Result<(), ClientError> {
        if let Some(partition) = message.partition.filter(|&partition| partition >= self.partitions()) {
            let message = format!("topic {} has {} partitions and no {partition}", self.name, self.partitions());
            return Err(ClientError::new(ErrorKind::NotFound, message));
        }
        let limit = match compression {
            Compression::None => self.metadata.max_batch_bytes as usize,
            _ => limits::MAX_BATCH_BYTES,
        };
        let batch = size + limits::BATCH_HEADER_BYTES;
        if batch > limit {
            let name = &self.name;
            let message = format!("a record of {batch} bytes is larger than the {limit} bytes that topic {name} takes");
            return Err(ClientError::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// Adds a record to its partition.
    pub(crate) fn push(
        &self,
        producer: &Arc<Inner>,
        message: &Message,
        now_ms: TimestampMs,
        size: usize,
        memory: usize,
    ) -> Result<(Receipt, Arc<Queue>), NotPushed> {
        let keyed = message.key.as_deref().map(|key| partition_for_key(key, self.partitions()));
        if let Some(partition) = message.partition.or(keyed) {
            let queue = self.queue(producer, partition);
            return queue.push(message, now_ms, size, memory, true).map(|receipt| (receipt, queue.clone()));
        }
        let sticky = self.sticky.load(Ordering::Relaxed);
        let queue = self.queue(producer, sticky);
        match queue.push(message, now_ms, size, memory, false) {
            Err(NotPushed::NoRoom) => {}
            other => return other.map(|receipt| (receipt, queue.clone())),
        }
        let next = (sticky + 1) % self.partitions().max(1);
        // If another task has moved on too, its choice is as good.
        let _ = self.sticky.compare_exchange(sticky, next, Ordering::Relaxed, Ordering::Relaxed);
        let queue = self.queue(producer, self.sticky.load(Ordering::Relaxed));
        queue.push(message, now_ms, size, memory, true).map(|receipt| (receipt, queue.clone()))
    }

    /// A partition's queue, and with it the worker that empties it.
    fn queue(&self, producer: &Arc<Inner>, partition: PartitionId) -> &Arc<Queue> {
        let index = partition as usize % self.queues.len();
        self.queues[index].get_or_init(|| {
            let queue = Queue::new(self.name.clone(), partition, producer.queue_config.clone(), self.batch_bytes);
            let worker = Worker::new(
                queue.clone(),
                producer.link.clone(),
                producer.worker_config,
                producer.memory.clone(),
                Arc::downgrade(producer),
            );
            tokio::spawn(worker.run());
            queue
        })
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.iter().filter_map(OnceLock::get)
    }

    pub(crate) fn retire(&self) {
        self.queues().for_each(|queue| queue.retire());
    }
}
