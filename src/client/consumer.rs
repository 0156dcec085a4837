//! Receiving records.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::base::{Clock, ErrorKind, Offset, SystemClock, TimestampMs, limits};
use crate::protocol::{Credit, Delivery, Frame, Kind, OffsetAt, Subscribe, SubscribeOk, Unsubscribe};
use crate::record::{Batches, Header, read_records};

use super::connection::{Connection, answer};
use super::{Client, ClientError};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record there is.
    Beginning,
    /// Behind the last record, for what is yet to come.
    End,
    /// At an offset; out of range is an error.
    Offset(Offset),
    /// That many records before the end of each partition, or at its beginning.
    Last(u64),
    /// At the first record with this timestamp or a later one.
    Time(TimestampMs),
    /// So long before now.
    Ago(Duration),
}

/// A record received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp: TimestampMs,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// A damaged range that the server passed over on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRange {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// First offset of it.
    pub from: Offset,
    /// The offset behind it.
    pub to: Offset,
    /// What was found.
    pub reason: String,
}

/// Settings of a consumer.
#[derive(Clone)]
pub struct ConsumerBuilder {
    client: Client,
    topic: String,
    partition: Option<u32>,
    from: StartAt,
    until_end: bool,
    until_offset: Option<Offset>,
    max_records: Option<u64>,
    prefetch_bytes: u64,
    prefetch_records: u64,
    skip_damaged: bool,
}

impl ConsumerBuilder {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            topic: String::new(),
            partition: None,
            from: StartAt::Beginning,
            until_end: false,
            until_offset: None,
            max_records: None,
            prefetch_bytes: 4 * 1024 * 1024,
            prefetch_records: 100_000,
            skip_damaged: false,
        }
    }

    /// All partitions of a topic.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// One partition of a topic.
    pub fn topic_partition(mut self, topic: impl Into<String>, partition: u32) -> Self {
        self.topic = topic.into();
        self.partition = Some(partition);
        self
    }

    /// Where to begin; at the beginning if not set.
    pub fn from(mut self, from: StartAt) -> Self {
        self.from = from;
        self
    }

    /// Ends once everything that was there at the start has been received.
    pub fn until_end(mut self, until_end: bool) -> Self {
        self.until_end = until_end;
        self
    }

    /// Ends before this offset, in every partition.
    pub fn until_offset(mut self, offset: Offset) -> Self {
        self.until_offset = Some(offset);
        self
    }

    /// Ends after so many records.
    pub fn max_records(mut self, records: u64) -> Self {
        self.max_records = Some(records);
        self
    }

    /// How much the server may send ahead, per partition.
    pub fn prefetch(mut self, bytes: u64, records: u64) -> Self {
        (self.prefetch_bytes, self.prefetch_records) = (bytes.max(1), records.max(1));
        self
    }

    /// Goes on behind damaged data; [`Consumer::skipped`] tells what was passed over.
    pub fn skip_damaged(mut self, skip: bool) -> Self {
        self.skip_damaged = skip;
        self
    }

    /// Begins to receive.
    ///
    /// # Errors
    /// There is no such topic or partition; those of the connection.
    pub async fn build(self) -> Result<Consumer, ClientError> {
        let metadata = self.client.admin().metadata(&self.topic, false).await?;
        let partitions = match self.partition {
            Some(partition) if partition >= metadata.partitions => {
                let text = format!(
                    "topic '{}' has no partition {partition}: it has {}, numbered from 0",
                    self.topic, metadata.partitions
                );
                return Err(ClientError::new(ErrorKind::NotFound, text));
            }
            Some(partition) => partition..partition + 1,
            None => 0..metadata.partitions,
        };
        let (sender, receiver) = mpsc::channel(4);
        let skipped = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for partition in partitions {
            let (next, end) = self.start(partition).await?;
            let until = match (self.until_end, self.until_offset) {
                (true, Some(until)) => Some(end.min(until)),
                (true, None) => Some(end),
                (false, until) => until,
            };
            let feeder = Feeder {
                client: self.client.clone(),
                topic: self.topic.as_str().into(),
                partition,
                next,
                until,
                builder: self.clone(),
                skipped: Arc::clone(&skipped),
                sender: sender.clone(),
            };
            tasks.push(tokio::spawn(feeder.run()));
        }
        let left = self.max_records.unwrap_or(u64::MAX);
        Ok(Consumer { receiver, buffer: VecDeque::new(), left, skipped, tasks })
    }

    /// Where a partition's reading begins, and where its end is now.
    async fn start(&self, partition: u32) -> Result<(Offset, Offset), ClientError> {
        let admin = self.client.admin();
        let at = |at| admin.list_offsets(&self.topic, partition, at);
        let (end, _) = at(OffsetAt::End).await?;
        let next = match self.from {
            StartAt::Beginning => at(OffsetAt::Beginning).await?.0,
            StartAt::End => end,
            StartAt::Offset(offset) => offset,
            StartAt::Last(records) => end.saturating_sub(records).max(at(OffsetAt::Beginning).await?.0),
            StartAt::Time(time) => at(OffsetAt::Timestamp(time)).await?.0,
            StartAt::Ago(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                at(OffsetAt::Timestamp(SystemClock::new().now_ms().saturating_sub(ago))).await?.0
            }
        };
        Ok((next, end))
    }
}

type Chunk = Result<Vec<ConsumedRecord>, ClientError>;

/// A stream of records; of several partitions, as they come. Ends as its settings say, and after an error.
pub struct Consumer {
    receiver: mpsc::Receiver<Chunk>,
    buffer: VecDeque<ConsumedRecord>,
    left: u64,
    skipped: Arc<Mutex<Vec<SkippedRange>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Consumer {
    /// The next record, `None` at the end.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Whether the next record is here already.
    pub fn has_buffered(&self) -> bool {
        !self.buffer.is_empty() || !self.receiver.is_empty()
    }

    /// Damage that was passed over since the last call.
    pub fn skipped(&self) -> Vec<SkippedRange> {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ConsumedRecord, ClientError>>> {
        loop {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            if let Some(record) = self.buffer.pop_front() {
                self.left -= 1;
                return Poll::Ready(Some(Ok(record)));
            }
            match self.receiver.poll_recv(context) {
                Poll::Ready(Some(Ok(chunk))) => self.buffer = chunk.into(),
                Poll::Ready(Some(Err(error))) => {
                    self.left = 0;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl futures_core::Stream for Consumer {
    type Item = Result<ConsumedRecord, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Keeps one partition's subscription, through broken connections.
struct Feeder {
    client: Client,
    topic: Arc<str>,
    partition: u32,
    next: Offset,
    until: Option<Offset>,
    builder: ConsumerBuilder,
    skipped: Arc<Mutex<Vec<SkippedRange>>>,
    sender: mpsc::Sender<Chunk>,
}

impl Feeder {
    async fn run(mut self) {
        let mut tries = 0u32;
        while !self.done() {
            let before = self.next;
            let error = match self.follow().await {
                Ok(()) => return,
                Err(error) => error,
            };
            tries = if self.next > before { 0 } else { tries + 1 };
            // A connection that was there once is waited for; one that never was has failed already in `build`.
            if !error.kind().is_retriable() || tries > 60 {
                let _ = self.sender.send(Err(error)).await;
                return;
            }
            tracing::debug!(topic = %self.topic, partition = self.partition, %error, "subscribing again");
            sleep(Duration::from_millis(u64::from(tries.min(10)) * 100)).await;
        }
    }

    fn done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// One subscription, until it ends. `Ok` when nobody wants more.
    async fn follow(&mut self) -> Result<(), ClientError> {
        let connection = self.client.connection().await?;
        let request = Subscribe {
            topic: self.topic.as_ref().to_owned(),
            partition: self.partition,
            offset: self.next,
            credit_records: self.builder.prefetch_records,
            credit_bytes: self.builder.prefetch_bytes,
            skip_damaged: self.builder.skip_damaged,
        };
        let (sender, mut deliveries) = mpsc::unbounded_channel();
        let opened = connection.start(&request, Bytes::new(), Some(sender))?.await;
        let subscription = answer::<SubscribeOk>(connection.received(opened)?)?.0.subscription;
        let _end = Ending { connection: Arc::clone(&connection), subscription };
        while let Some(frame) = deliveries.recv().await {
            if frame.kind == Kind::SubscriptionEnded.code() {
                return Err(answer::<Delivery>(frame).err().unwrap_or_else(|| {
                    ClientError::new(ErrorKind::Internal, "a subscription ended without a reason")
                }));
            }
            let (before, bytes) = (self.next, frame.payload.len() as u64);
            if !self.take(frame).await? || self.done() {
                return Ok(());
            }
            let records = self.next.saturating_sub(before);
            if records > 0 || bytes > 0 {
                connection.tell(&Credit { subscription, records, bytes }, Bytes::new())?;
            }
        }
        Err(ClientError::new(ErrorKind::Disconnected, "the connection broke"))
    }

    /// Hands on what a delivery holds. `false` if nobody takes it.
    async fn take(&mut self, frame: Frame) -> Result<bool, ClientError> {
        let (delivery, payload) = answer::<Delivery>(frame)?;
        for skipped in delivery.skipped {
            let range = SkippedRange {
                topic: Arc::clone(&self.topic),
                partition: self.partition,
                from: skipped.from,
                to: skipped.to,
                reason: skipped.reason,
            };
            self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(range);
        }
        let wrong = |error: crate::record::BatchError| {
            let text = format!("topic '{}' partition {}: {error}", self.topic, self.partition);
            ClientError::new(ErrorKind::CorruptBatch, text)
        };
        let mut records = Vec::new();
        for batch in Batches::new(payload) {
            let (_, batch) = batch.map_err(wrong)?;
            for record in read_records(&batch, limits::MAX_DECOMPRESSED_BYTES).map_err(wrong)? {
                let record = record.map_err(wrong)?;
                if record.offset < self.next || self.until.is_some_and(|until| record.offset >= until) {
                    continue;
                }
                records.push(ConsumedRecord {
                    topic: Arc::clone(&self.topic),
                    partition: self.partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
        self.next = self.next.max(delivery.next_offset);
        Ok(records.is_empty() || self.sender.send(Ok(records)).await.is_ok())
    }
}

/// Ends a subscription when its feeder does.
struct Ending {
    connection: Arc<Connection>,
    subscription: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.connection.forget(self.subscription);
        // The answer interests nobody, and a connection that is closed has ended it already.
        let _ = self.connection.start(&Unsubscribe { subscription: self.subscription }, Bytes::new(), None);
    }
}
