//! The consumer: records of all its partitions, as they come.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs, limits};
use crate::client::ClientError;
use crate::record::{BatchError, Batches, Headers, Record, RecordIter, read_records};

use super::following::Following;
use super::subscriber::{Chunk, Event, Share};

/// Skipped ranges that are remembered.
const SKIPPED_RANGES: usize = 10_000;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its time, in milliseconds since the Unix epoch.
    pub timestamp: TimestampMs,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Headers,
}

/// Damaged data that was passed over, as [`ConsumerBuilder::skip_damaged`](super::ConsumerBuilder::skip_damaged) allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRange {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// First offset that is missing.
    pub from: Offset,
    /// The offset behind the last that is missing.
    pub to: Offset,
    /// What was found.
    pub reason: String,
}

/// How far a consumer is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPosition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// Where it began.
    pub start: Offset,
    /// The offset behind the last record that was returned or passed over.
    pub next_offset: Offset,
    /// The end that readers see, as last heard.
    pub stable_end: Offset,
    /// Where it stops, if it does.
    pub until: Option<Offset>,
}

/// A stream of records, in order within each partition. An error ends the partition it concerns; the stream ends when
/// all partitions have. Dropping it ends its subscriptions.
#[derive(Debug)]
pub struct Consumer {
    parts: Vec<Part>,
    events: mpsc::UnboundedReceiver<Event>,
    following: Option<Following>,
    current: Option<Reading>,
    skipped: Vec<SkippedRange>,
    unanswered: (u64, Option<String>),
    skip_damaged: bool,
    left: u64,
}

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) share: Arc<Share>,
    pub(crate) position: PartitionPosition,
    /// `None` when there is nothing more to come of it.
    pub(crate) task: Option<AbortHandle>,
    /// Found by a pattern: when its topic is deleted, that is the end of it and no failure.
    pub(crate) found: bool,
}

/// A chunk that records are taken from.
pub(crate) struct Reading {
    pub(crate) part: usize,
    pub(crate) chunk: Chunk,
    batches: Batches,
    records: Option<RecordIter>,
    /// The offset behind the batch that is being read.
    batch_end: Offset,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Consumer {
    pub(crate) fn new(
        parts: Vec<Part>,
        events: mpsc::UnboundedReceiver<Event>,
        following: Option<Following>,
        max_records: u64,
        skip_damaged: bool,
    ) -> Self {
        Self {
            parts,
            events,
            following,
            current: None,
            skipped: Vec::new(),
            unanswered: (0, None),
            left: max_records,
            skip_damaged,
        }
    }

    /// The next record; `None` when there will be none. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Records so far that the filter had no answer for (no such field, no JSON), and so passed over; and why, of the first.
    pub fn unanswered(&self) -> (u64, Option<&str>) {
        (self.unanswered.0, self.unanswered.1.as_deref())
    }

    /// The damaged ranges that were passed over so far, in the order met; the first 10 000 of them.
    pub fn skipped(&self) -> &[SkippedRange] {
        &self.skipped
    }

    /// How far it is in each partition.
    pub fn positions(&self) -> impl Iterator<Item = &PartitionPosition> {
        self.parts.iter().map(|part| &part.position)
    }

    fn end_part(&mut self, index: usize) {
        if let Some(task) = self.parts[index].task.take() {
            task.abort();
        }
    }

    /// Takes in what has been found since. A part whose topic is gone makes room: nothing comes from it any more.
    fn join(&mut self, context: &mut Context<'_>) {
        let Some(following) = &mut self.following else { return };
        while let Poll::Ready(Some(span)) = following.found.poll_recv(context) {
            let gone = self.parts.iter().position(|part| part.found && part.task.is_none());
            let index = gone.unwrap_or(self.parts.len());
            let part = following.starter.start(index, span);
            match gone {
                Some(index) => self.parts[index] = part,
                None => self.parts.push(part),
            }
        }
    }

    fn begin(&mut self, index: usize, chunk: Chunk) {
        let part = &mut self.parts[index];
        if part.task.is_none() {
            return;
        }
        part.position.stable_end = part.position.stable_end.max(chunk.delivery.stable_end);
        self.unanswered.0 += chunk.delivery.unanswered;
        if self.unanswered.1.is_none() {
            self.unanswered.1.clone_from(&chunk.delivery.reason);
        }
        for skipped in &chunk.delivery.skipped {
            if self.skipped.len() == SKIPPED_RANGES {
                break;
            }
            self.skipped.push(SkippedRange {
                topic: part.share.topic.clone(),
                partition: part.share.partition,
                from: skipped.from,
                to: skipped.to,
                reason: skipped.reason.clone(),
            });
        }
        self.current = Some(Reading::new(index, chunk));
    }

    /// The next record of the current chunk; `None` behind the last.
    fn read(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        let reading = self.current.as_mut()?;
        let part = &mut self.parts[reading.part];
        let until = part.position.until.unwrap_or(Offset::MAX);
        loop {
            match reading.next_record() {
                Some(Ok(record)) if record.offset < part.position.next_offset => {}
                Some(Ok(record)) if record.offset >= until => break,
                Some(Ok(record)) => {
                    part.position.next_offset = record.offset + 1;
                    return Some(Ok(ConsumedRecord {
                        topic: part.share.topic.clone(),
                        partition: part.share.partition,
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                // The batch is whole; its records cannot be read.
                Some(Err(error)) if self.skip_damaged && reading.batch_end > part.position.next_offset => {
                    let range = SkippedRange {
                        topic: part.share.topic.clone(),
                        partition: part.share.partition,
                        from: part.position.next_offset,
                        to: reading.batch_end,
                        reason: error.to_string(),
                    };
                    part.position.next_offset = range.to;
                    if self.skipped.len() < SKIPPED_RANGES {
                        self.skipped.push(range);
                    }
                }
                Some(Err(error)) => {
                    let message = format!(
                        "{}/{} at offset {}: what the server sent is damaged: {error}",
                        part.share.topic, part.share.partition, part.position.next_offset
                    );
                    let index = reading.part;
                    self.current = None;
                    self.end_part(index);
                    return Some(Err(ClientError::caused(ErrorKind::CorruptBatch, message, error)));
                }
                None => break,
            }
        }
        self.finish_chunk();
        None
    }

    fn finish_chunk(&mut self) {
        let Some(reading) = self.current.take() else { return };
        let part = &mut self.parts[reading.part];
        part.share.taken(&reading.chunk);
        let next = part.position.next_offset.max(reading.chunk.delivery.next_offset);
        part.position.next_offset = part.position.until.map_or(next, |until| next.min(until));
        if part.position.until.is_some_and(|until| part.position.next_offset >= until) {
            self.end_part(reading.part);
        }
    }
}

impl Reading {
    /// A chunk of the partition with this index.
    pub(crate) fn new(part: usize, chunk: Chunk) -> Self {
        let batches = Batches::new(chunk.payload.clone());
        Self { part, chunk, batches, records: None, batch_end: 0 }
    }

    /// The next record; `None` behind the last.
    pub(crate) fn next_record(&mut self) -> Option<Result<Record, BatchError>> {
        loop {
            if let Some(records) = &mut self.records {
                match records.next() {
                    Some(Ok(record)) => return Some(Ok(record)),
                    Some(Err(error)) => {
                        self.records = None;
                        return Some(Err(error));
                    }
                    None => self.records = None,
                }
            }
            match self.batches.next() {
                // Control batches are the server's own.
                Some(Ok((header, _))) if header.is_control() => {}
                Some(Ok((header, batch))) => {
                    self.batch_end = header.next_offset();
                    match read_records(&batch, limits::MAX_DECOMPRESSED_BYTES) {
                        Ok(records) => self.records = Some(records),
                        Err(error) => return Some(Err(error)),
                    }
                }
                Some(Err(error)) => {
                    self.batch_end = 0;
                    return Some(Err(error));
                }
                None => {
                    let rest = self.batches.remainder();
                    let need = limits::BATCH_HEADER_BYTES.max(rest + 1);
                    return (rest > 0).then_some(Err(BatchError::Truncated { need, have: rest }));
                }
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            if let Some(record) = self.read() {
                if record.is_ok() {
                    self.left -= 1;
                }
                return Poll::Ready(Some(record));
            }
            self.join(context);
            let waits_for_topics = self.following.as_ref().is_some_and(|following| following.wild);
            if !waits_for_topics && self.parts.iter().all(|part| part.task.is_none()) {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.events.poll_recv(context)) {
                Some(Event::Chunk(index, chunk)) => self.begin(index, chunk),
                Some(Event::Failed(index, error)) => {
                    let part = &mut self.parts[index];
                    let gone = part.found && error.kind() == ErrorKind::NotFound;
                    if part.task.take().is_some() && !gone {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        for index in 0..self.parts.len() {
            self.end_part(index);
        }
    }
}
