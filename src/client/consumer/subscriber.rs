//! Keeps one partition subscribed: asks for more as records are taken, and goes on where it was after a break.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::base::{ErrorKind, Isolation, Offset, PartitionId};
use crate::client::ClientError;
use crate::client::connection::Push;
use crate::client::link::{Again, Link, pause};
use crate::protocol::{self, Delivery, Metadata, Subscribe};

use super::credit::Credit;

/// What the consumer and a partition's subscriber share.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionId,
    /// The topic's incarnation: another one of its name is another topic.
    pub(crate) topic_id: Arc<str>,
    credit: Mutex<Credit>,
    /// There may be credit to grant.
    due: Notify,
}

/// What a subscriber tells the consumer.
#[derive(Debug)]
pub(crate) enum Event {
    /// Batches of the partition with this index.
    Chunk(usize, Chunk),
    /// It gives up.
    Failed(usize, ClientError),
}

/// One delivery.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) delivery: Delivery,
    pub(crate) payload: Bytes,
    /// What it cost of the credit.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// The task of one partition.
pub(crate) struct Subscriber {
    pub(crate) index: usize,
    pub(crate) share: Arc<Share>,
    pub(crate) link: Arc<Link>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) position: Offset,
    pub(crate) skip_damaged: bool,
    pub(crate) isolation: Isolation,
    pub(crate) filter: Option<Arc<str>>,
    pub(crate) retry_timeout: Duration,
}

impl Share {
    pub(crate) fn new(
        topic: Arc<str>,
        topic_id: Arc<str>,
        partition: PartitionId,
        records: u64,
        bytes: u64,
    ) -> Arc<Self> {
        let credit = Mutex::new(Credit::new(records, bytes));
        Arc::new(Self { topic, partition, topic_id, credit, due: Notify::new() })
    }

    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk is done with.
    pub(crate) fn taken(&self, chunk: &Chunk) {
        let due = self.credit().taken(chunk.records, chunk.bytes);
        if due {
            self.due.notify_one();
        }
    }
}

impl Subscriber {
    /// Runs until it is aborted or fails for good.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        let mut again = false;
        let mut down_since = Instant::now();
        loop {
            let mut subscribed = false;
            let error = match self.session(again, &mut subscribed).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if subscribed {
                (failures, down_since) = (0, Instant::now());
            }
            failures += 1;
            again = true;
            let pause = error.retry_after().unwrap_or_default().max(pause(failures));
            // What is wrong with a connection is gone with it.
            let passing = error.is_retriable() || error.kind() == ErrorKind::BadFrame;
            if !passing || down_since.elapsed() + pause > self.retry_timeout {
                let place = format!("consuming {}/{}", self.share.topic, self.share.partition);
                let _ = self.events.send(Event::Failed(self.index, error.context(place)));
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One subscription, from the current position until it breaks.
    async fn session(&mut self, again: bool, subscribed: &mut bool) -> Result<std::convert::Infallible, ClientError> {
        let connection = self.link.connection().await?;
        if again {
            self.same_topic().await?;
        }
        let (credit_records, credit_bytes) = self.share.credit().renew();
        let request = Subscribe {
            topic: self.share.topic.as_ref().to_owned(),
            partition: self.share.partition,
            offset: self.position,
            credit_records,
            credit_bytes,
            skip_damaged: self.skip_damaged,
            filter: self.filter.as_deref().map(str::to_owned),
            isolation: self.isolation,
        };
        let (_, mut subscription) = connection.subscribe(&request, self.link.config().request_timeout).await?;
        *subscribed = true;
        loop {
            tokio::select! {
                push = subscription.next() => match push {
                    Push::Delivery(delivery, payload) => self.deliver(delivery, payload)?,
                    Push::Ended(error) => return Err(error),
                    // For others only.
                    Push::Handed(..) | Push::Asked(..) | Push::Part(..) => {}
                },
                () = self.share.due.notified() => {
                    let grant = self.share.credit().grant();
                    if let Some((records, bytes)) = grant {
                        let credit = protocol::Credit { subscription: subscription.id(), records, bytes };
                        connection.tell(&credit, Bytes::new()).await?;
                    }
                }
            }
        }
    }

    /// While nobody looked, the topic may have been deleted and another of its name created: its offsets mean other records.
    async fn same_topic(&self) -> Result<(), ClientError> {
        let request = Metadata { topic: self.share.topic.as_ref().to_owned(), create: false };
        if self.link.ask(&request, Again::Yes).await?.id == *self.share.topic_id {
            return Ok(());
        }
        Err(ClientError::new(ErrorKind::NotFound, "the topic was deleted, and another one of its name created"))
    }

    fn deliver(&mut self, delivery: Delivery, payload: Bytes) -> Result<(), ClientError> {
        let Some(records) = delivery.next_offset.checked_sub(self.position) else {
            let message = format!("the server went back from offset {} to {}", self.position, delivery.next_offset);
            return Err(ClientError::new(ErrorKind::Internal, message));
        };
        let bytes = payload.len() as u64;
        if !self.share.credit().received(records, bytes) {
            return Err(ClientError::new(ErrorKind::Internal, "the server sent more than it had credit for"));
        }
        self.position = delivery.next_offset;
        // If nobody listens any more, this task is about to be aborted.
        let _ = self.events.send(Event::Chunk(self.index, Chunk { delivery, payload, records, bytes }));
        Ok(())
    }
}
