//! The records of one partition that are not on their way yet, gathered in batches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::base::{PartitionId, TimestampMs, limits};
use crate::client::link::Link;
use crate::record::{BatchBuilder, BatchOptions};

use super::message::Message;
use super::receipt::{Completion, Receipt};
use super::sequence::{Stamp, advance};

/// Batches on their way that keep the server busy: one is synced, one waits for the next sync.
const FEW: usize = 2;

/// What is true of all partitions of a producer.
#[derive(Debug, Clone)]
pub(crate) struct QueueConfig {
    pub(crate) link: Arc<Link>,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) compression: crate::record::Compression,
}

/// One partition's queue. Senders push, the partition's worker takes.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionId,
    config: QueueConfig,
    batch_bytes: usize,
    state: Mutex<State>,
    /// Something for the worker to look at.
    pub(crate) wake: Notify,
    /// Batches that have come to their end, well or not.
    finished: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<OpenBatch>,
    full: VecDeque<OpenBatch>,
    /// Batches ever begun.
    begun: u64,
    /// Batches up to this number do not linger.
    urgent: u64,
    /// The identity and sequence that the next batch will probably have; the worker corrects it where it is wrong.
    next: Option<Stamp>,
    retired: bool,
}

/// A batch that is gathered.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    pub(crate) builder: BatchBuilder,
    pub(crate) completion: Arc<Completion>,
    pub(crate) stamp: Option<Stamp>,
    /// Bytes of the producer's memory that it holds.
    pub(crate) memory: usize,
    pub(crate) deadline: Instant,
    number: u64,
    lingers_until: Instant,
}

/// A message that was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotPushed {
    /// The queue is of a topic that is gone; ask for the topic again.
    Retired,
    /// There is no open batch with room.
    NoRoom,
}

/// What the worker gets.
#[derive(Debug)]
pub(crate) enum Taken {
    Batch(Box<OpenBatch>),
    /// Nothing yet; something at that time, if no wake-up comes before.
    Wait(Option<Instant>),
    /// Nothing ever.
    End,
}

impl Queue {
    pub(crate) fn new(topic: Arc<str>, partition: PartitionId, config: QueueConfig, batch_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            topic,
            partition,
            config,
            batch_bytes,
            state: Mutex::default(),
            wake: Notify::new(),
            finished: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record of at most `size` bytes that holds `memory` of the producer's memory. Begins a batch only if
    /// `may_begin`.
    pub(crate) fn push(
        &self,
        message: &Message,
        now_ms: TimestampMs,
        size: usize,
        memory: usize,
        may_begin: bool,
    ) -> Result<Receipt, NotPushed> {
        let headers = message.header_refs();
        let mut state = self.lock();
        if state.retired {
            return Err(NotPushed::Retired);
        }
        let fits = state.open.as_ref().is_some_and(|open| open.has_room(size, self.batch_bytes));
        if !fits {
            if !may_begin {
                return Err(NotPushed::NoRoom);
            }
            self.begin(&mut state);
        }
        let Some(open) = state.open.as_mut() else { return Err(NotPushed::NoRoom) };
        let index = open.builder.record_count();
        let timestamp = message.timestamp.unwrap_or(now_ms);
        open.builder.push(timestamp, message.key.as_deref(), message.value.as_deref(), &headers);
        open.memory += memory;
        let receipt = open.completion.receipt(index, timestamp);
        let full = !open.has_room(1, self.batch_bytes);
        if full {
            Self::close(&mut state);
        }
        drop(state);
        if full || !fits {
            self.wake.notify_one();
        }
        Ok(receipt)
    }

    fn begin(&self, state: &mut State) {
        Self::close(state);
        state.begun += 1;
        let now = Instant::now();
        let (id, epoch, base_sequence) = state.next.map_or((-1, -1, -1), |next| (next.id, next.epoch, next.sequence));
        let options = BatchOptions {
            compression: self.config.compression,
            producer_id: id,
            producer_epoch: epoch,
            base_sequence,
            base_offset: 0,
        };
        state.open = Some(OpenBatch {
            builder: BatchBuilder::new(options),
            completion: Completion::new(Arc::clone(&self.config.link), self.topic.clone(), self.partition),
            stamp: state.next,
            memory: 0,
            deadline: now + self.config.delivery_timeout,
            number: state.begun,
            lingers_until: now + self.config.linger,
        });
    }

    /// Closes the open batch, whose length is now known, and with it the next one's sequence.
    fn close(state: &mut State) {
        if let Some(open) = state.open.take() {
            state.next = open.stamp.map(|stamp| advance(stamp, open.builder.record_count()));
            state.full.push_back(open);
        }
    }

    /// The next batch to send. One that is not full lingers, and while [`FEW`] are on their way it waits for one of them: the
    /// server would let it wait for their sync as well, and meanwhile more can be gathered in it.
    pub(crate) fn take(&self, now: Instant, in_flight: usize) -> Taken {
        let mut state = self.lock();
        if state.full.is_empty()
            && let Some(open) = &state.open
        {
            let hurried = open.number <= state.urgent || state.retired;
            if !hurried && in_flight >= FEW {
                return Taken::Wait(None);
            }
            if !hurried && open.lingers_until > now {
                return Taken::Wait(Some(open.lingers_until));
            }
            Self::close(&mut state);
        }
        match state.full.pop_front() {
            Some(batch) => Taken::Batch(Box::new(batch)),
            None if state.retired => Taken::End,
            None => Taken::Wait(None),
        }
    }

    /// What the next batch to be begun should be stamped with, if nothing is queued: a guess that saves stamping later.
    pub(crate) fn expect(&self, next: Stamp) {
        let mut state = self.lock();
        if state.open.is_none() && state.full.is_empty() {
            state.next = Some(next);
        }
    }

    /// Lets nothing that is in the queue linger; returns the number to wait for with [`Queue::reached`].
    pub(crate) fn hurry(&self) -> u64 {
        let mut state = self.lock();
        state.urgent = state.begun;
        let (begun, some) = (state.begun, state.open.is_some());
        drop(state);
        if some {
            self.wake.notify_one();
        }
        begun
    }

    /// Waits until so many batches have come to their end.
    pub(crate) async fn reached(&self, number: u64) {
        // The sender is ours: this cannot fail.
        let _ = self.finished.subscribe().wait_for(|finished| *finished >= number).await;
    }

    /// Counts a batch that has come to its end.
    pub(crate) fn finish_one(&self) {
        self.finished.send_modify(|finished| *finished += 1);
    }

    /// Takes nothing more; what is there is still sent.
    pub(crate) fn retire(&self) {
        self.lock().retired = true;
        self.wake.notify_one();
    }
}

impl OpenBatch {
    fn has_room(&self, size: usize, batch_bytes: usize) -> bool {
        let count = self.builder.record_count();
        count == 0 || (count < limits::RECORDS_PER_BATCH && self.builder.bytes_so_far() + size <= batch_bytes)
    }
}
