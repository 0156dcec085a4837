//! What becomes of a record. One completion for all records of a batch; a receipt is that and an index.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs};
use crate::client::ClientError;
use crate::client::link::Link;
use crate::client::processed::Hubs;
use crate::protocol::{ReceiptOutcome, RecordAt};

/// Where a record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset; `None` with [`Ack::None`](crate::protocol::Ack), where nobody answers.
    pub offset: Option<Offset>,
    /// Its own, which readers see and lookups by time go by, in milliseconds since the Unix epoch: what
    /// [`Message::timestamp`](super::Message::timestamp) said, else when it was sent.
    pub timestamp: TimestampMs,
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) base_offset: Option<Offset>,
}

/// Resolves when the record is stored as the producer's ack level promises. Dropping it changes nothing: the record is
/// on its way.
#[derive(Debug)]
pub struct Receipt {
    completion: Arc<Completion>,
    index: u32,
    timestamp: TimestampMs,
    /// Where in the completion's list this receipt's waker is.
    slot: Option<usize>,
}

/// The shared outcome of a batch.
#[derive(Debug)]
pub(crate) struct Completion {
    link: Arc<Link>,
    topic: Arc<str>,
    partition: PartitionId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<Stored, ClientError>>,
    wakers: Vec<Waker>,
}

impl Completion {
    pub(crate) fn new(link: Arc<Link>, topic: Arc<str>, partition: PartitionId) -> Arc<Self> {
        Arc::new(Self { link, topic, partition, state: Mutex::default() })
    }

    pub(crate) fn receipt(self: &Arc<Self>, index: u32, timestamp: TimestampMs) -> Receipt {
        Receipt { completion: self.clone(), index, timestamp, slot: None }
    }

    /// Tells everybody; the first outcome stays.
    pub(crate) fn resolve(&self, outcome: Result<Stored, ClientError>) {
        let wakers = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.outcome.get_or_insert(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Receipt {
    /// The outcome if there is one already.
    pub fn try_get(&self) -> Option<Result<RecordMetadata, ClientError>> {
        let state = self.completion.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.outcome.clone().map(|outcome| self.outcome(outcome))
    }

    /// Waits until the record is stored, and then until a group has done it: acked it, given it up as a dead letter, or passed
    /// it over. The group need not exist yet, and neither it nor the server need to be there all the time: what a group has
    /// done is durable. Whoever has no receipt any more asks [`Client::processed`](crate::client::Client::processed).
    ///
    /// # Errors
    /// The record could not be stored; it was sent with [`Ack::None`](crate::protocol::Ack), so that nobody knows where it is;
    /// the topic is gone.
    pub async fn processed_by(self, group: impl AsRef<str>) -> Result<ReceiptOutcome, ClientError> {
        let link = Arc::clone(&self.completion.link);
        let stored = self.await?;
        let Some(offset) = stored.offset else {
            let message = "a record that was sent without an acknowledgement cannot be asked about";
            return Err(ClientError::new(ErrorKind::InvalidRequest, message));
        };
        let record = RecordAt { topic: stored.topic.as_ref().to_owned(), partition: stored.partition, offset };
        Hubs::outcome(&link, group.as_ref(), record).await
    }

    fn outcome(&self, outcome: Result<Stored, ClientError>) -> Result<RecordMetadata, ClientError> {
        outcome.map(|stored| RecordMetadata {
            topic: self.completion.topic.clone(),
            partition: self.completion.partition,
            offset: stored.base_offset.map(|base| base + Offset::from(self.index)),
            timestamp: self.timestamp,
        })
    }
}

impl Future for Receipt {
    type Output = Result<RecordMetadata, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = {
            let mut state = self.completion.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(outcome) = state.outcome.clone() {
                drop(state);
                return Poll::Ready(self.outcome(outcome));
            }
            match self.slot {
                Some(slot) => {
                    state.wakers[slot].clone_from(context.waker());
                    slot
                }
                None => {
                    state.wakers.push(context.waker().clone());
                    state.wakers.len() - 1
                }
            }
        };
        self.slot = Some(slot);
        Poll::Pending
    }
}
