//! Consuming: a subscription for each partition, against credit, merged into one stream.

mod credit;
pub(crate) mod stream;
pub(crate) mod subscriber;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs};
use crate::protocol::{ListOffsets, Metadata, OffsetAt};

use super::ClientError;
use super::link::{Again, Link};
use stream::Part;
use subscriber::{Share, Subscriber};

pub use stream::{ConsumedRecord, Consumer, PartitionPosition, SkippedRange};

/// Questions about offsets under way at a time while a consumer is built.
const ASKING: usize = 32;
/// The least that one partition may have under way, in bytes.
const LEAST_CREDIT: u64 = 64 * 1024;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record there is.
    Beginning,
    /// With the first record that comes after building the consumer.
    End,
    /// At this offset, in each partition.
    Offset(Offset),
    /// So many offsets before the end, in each partition.
    Last(u64),
    /// At the first record with this timestamp or a later one, in milliseconds since the Unix epoch.
    Time(TimestampMs),
    /// The same, so long before now.
    Ago(Duration),
}

impl StartAt {
    /// Where a group begins in partitions that are new to it.
    pub(crate) fn of_group(self, now_ms: TimestampMs) -> Result<OffsetAt, ClientError> {
        match self {
            Self::Beginning => Ok(OffsetAt::Beginning),
            Self::End => Ok(OffsetAt::End),
            Self::Time(time) => Ok(OffsetAt::Timestamp(time)),
            Self::Ago(span) => {
                let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                Ok(OffsetAt::Timestamp(now_ms.saturating_sub(span)))
            }
            Self::Offset(_) | Self::Last(_) => {
                let message = "a group begins at the beginning, the end or a time; 'group reset' takes it to an offset";
                Err(ClientError::new(ErrorKind::InvalidRequest, message))
            }
        }
    }
}

/// Builds a [`Consumer`].
#[derive(Debug, Clone)]
pub struct ConsumerBuilder {
    link: Arc<Link>,
    sources: Vec<(String, Option<PartitionId>)>,
    from: StartAt,
    until_end: bool,
    until_offset: Option<Offset>,
    until_time: Option<TimestampMs>,
    max_records: Option<u64>,
    prefetch_bytes: u64,
    prefetch_records: u64,
    skip_damaged: bool,
    filter: Option<Arc<str>>,
    retry_timeout: Duration,
}

/// A partition with its ends resolved.
struct Span {
    topic: Arc<str>,
    partition: PartitionId,
    start: Offset,
    stable_end: Offset,
    until: Option<Offset>,
}

impl ConsumerBuilder {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            sources: Vec::new(),
            from: StartAt::Beginning,
            until_end: false,
            until_offset: None,
            until_time: None,
            max_records: None,
            prefetch_bytes: 16 * 1024 * 1024,
            prefetch_records: 1_000_000,
            skip_damaged: false,
            filter: None,
            retry_timeout: Duration::from_secs(60),
        }
    }

    /// All partitions of a topic (those it has now). May be said for several topics.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.sources.push((topic.into(), None));
        self
    }

    /// One partition of a topic. May be said for several.
    pub fn topic_partition(mut self, topic: impl Into<String>, partition: PartitionId) -> Self {
        self.sources.push((topic.into(), Some(partition)));
        self
    }

    /// Where to begin. Default [`StartAt::Beginning`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.from = start;
        self
    }

    /// Ends each partition at the end that readers see when the consumer is built.
    pub fn until_end(mut self, until_end: bool) -> Self {
        self.until_end = until_end;
        self
    }

    /// Ends each partition before this offset.
    pub fn until_offset(mut self, offset: Offset) -> Self {
        self.until_offset = Some(offset);
        self
    }

    /// Ends each partition before the first record with this timestamp or a later one; at the present end if there is none.
    pub fn until_time(mut self, ms: TimestampMs) -> Self {
        self.until_time = Some(ms);
        self
    }

    /// Ends after so many records.
    pub fn max_records(mut self, records: u64) -> Self {
        self.max_records = Some(records);
        self
    }

    /// How much the server may send ahead: bytes and records, shared by all partitions, though each may have 64 KiB and one
    /// batch. Default 16 MiB and a million records.
    pub fn prefetch(mut self, bytes: u64, records: u64) -> Self {
        self.prefetch_bytes = bytes;
        self.prefetch_records = records;
        self
    }

    /// Goes on behind damaged data instead of failing; [`Consumer::skipped`] tells what was passed over.
    pub fn skip_damaged(mut self, skip: bool) -> Self {
        self.skip_damaged = skip;
        self
    }

    /// Only records for which this CEL expression is true, as the server evaluates it; positions advance past the others.
    /// The server refuses one that it cannot compile, with the place, once records are asked for.
    pub fn filter(mut self, expression: impl AsRef<str>) -> Self {
        self.filter = Some(expression.as_ref().into());
        self
    }

    /// For how long to try to reach the server again before the stream fails. Default 60 s.
    pub fn retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// Finds out where to begin and end, and subscribes.
    ///
    /// # Errors
    /// No topic was named, a topic or partition does not exist, the offset to begin at is out of range, or the server
    /// cannot be reached.
    pub async fn build(self) -> Result<Consumer, ClientError> {
        let partitions = self.partitions().await?;
        let count = (partitions.len() as u64).max(1);
        let asked = partitions.into_iter().map(|(topic, partition)| self.span(topic, partition));
        let spans: Vec<Span> = futures_util::stream::iter(asked).buffered(ASKING).try_collect().await?;
        let (sender, events) = mpsc::unbounded_channel();
        let records = self.prefetch_records.min(self.max_records.unwrap_or(u64::MAX).saturating_mul(count)) / count;
        let bytes = (self.prefetch_bytes / count).max(LEAST_CREDIT.min(self.prefetch_bytes));
        let parts = spans.into_iter().enumerate().map(|(index, span)| {
            let share = Share::new(span.topic.clone(), span.partition, records, bytes);
            let over = span.until.is_some_and(|until| span.start >= until);
            let task = (!over).then(|| {
                let subscriber = Subscriber {
                    index,
                    share: share.clone(),
                    link: self.link.clone(),
                    events: sender.clone(),
                    position: span.start,
                    skip_damaged: self.skip_damaged,
                    filter: self.filter.clone(),
                    retry_timeout: self.retry_timeout,
                };
                tokio::spawn(subscriber.run()).abort_handle()
            });
            let position = PartitionPosition {
                topic: span.topic,
                partition: span.partition,
                start: span.start,
                next_offset: span.start,
                stable_end: span.stable_end,
                until: span.until,
            };
            Part { share, position, task }
        });
        Ok(Consumer::new(parts.collect(), events, self.max_records.unwrap_or(u64::MAX)))
    }

    /// Every partition once.
    async fn partitions(&self) -> Result<Vec<(Arc<str>, PartitionId)>, ClientError> {
        if self.sources.is_empty() {
            return Err(ClientError::new(ErrorKind::InvalidRequest, "a consumer needs a topic"));
        }
        let mut partitions: Vec<(Arc<str>, PartitionId)> = Vec::new();
        for (name, partition) in &self.sources {
            let request = Metadata { topic: name.clone(), create: false };
            let count = self.link.ask(&request, Again::Yes).await?.partitions;
            let name: Arc<str> = name.as_str().into();
            match partition {
                None => partitions.extend((0..count).map(|partition| (name.clone(), partition))),
                Some(partition) if *partition < count => partitions.push((name, *partition)),
                Some(partition) => {
                    let message = format!("topic {name} has {count} partitions and no {partition}");
                    return Err(ClientError::new(ErrorKind::NotFound, message));
                }
            }
        }
        partitions.sort();
        partitions.dedup();
        Ok(partitions)
    }

    async fn span(&self, topic: Arc<str>, partition: PartitionId) -> Result<Span, ClientError> {
        let offset = async |at| {
            let request = ListOffsets { topic: topic.as_ref().to_owned(), partition, at };
            self.link.ask(&request, Again::Yes).await.map(|found| found.offset)
        };
        let begin = offset(OffsetAt::Beginning).await?;
        let end = offset(OffsetAt::End).await?;
        let start = match self.from {
            StartAt::Beginning => begin,
            StartAt::End => end,
            StartAt::Offset(offset) if offset < begin || offset > end => {
                let message =
                    format!("offset {offset} of {topic}/{partition} is out of range: it holds {begin} to {end}");
                return Err(ClientError::new(ErrorKind::OffsetOutOfRange, message).with_range((begin, end)));
            }
            StartAt::Offset(offset) => offset,
            StartAt::Last(count) => end.saturating_sub(count).max(begin),
            StartAt::Time(time) => offset(OffsetAt::Timestamp(time)).await?,
            StartAt::Ago(span) => {
                let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                offset(OffsetAt::Timestamp(self.link.now_ms().saturating_sub(span))).await?
            }
        };
        let mut until = self.until_offset;
        if let Some(time) = self.until_time {
            let found = offset(OffsetAt::Timestamp(time)).await?;
            until = Some(until.map_or(found, |until| until.min(found)));
        }
        if self.until_end {
            until = Some(until.map_or(end, |until| until.min(end)));
        }
        Ok(Span { topic, partition, start, stable_end: end, until })
    }
}
