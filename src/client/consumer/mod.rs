//! Consuming: a subscription for each partition, against credit, merged into one stream.

mod credit;
mod following;
mod pull;
mod spans;
pub(crate) mod stream;
pub(crate) mod subscriber;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::{ErrorKind, Isolation, Offset, PartitionId, StartAt, TimestampMs};
use crate::protocol::OffsetAt;

use super::ClientError;
use super::link::Link;
use following::{Following, Starter};

pub use pull::{Pull, Pulled};
pub use stream::{ConsumedRecord, Consumer, PartitionPosition, SkippedRange};

/// The least that one partition may have under way, in bytes.
const LEAST_CREDIT: u64 = 64 * 1024;

/// Where a group begins in partitions that are new to it.
pub(crate) fn start_of_group(start: StartAt, now_ms: TimestampMs) -> Result<OffsetAt, ClientError> {
    match start {
        StartAt::Beginning => Ok(OffsetAt::Beginning),
        StartAt::End => Ok(OffsetAt::End),
        StartAt::Time(time) => Ok(OffsetAt::Timestamp(time)),
        StartAt::Ago(span) => {
            let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            Ok(OffsetAt::Timestamp(now_ms.saturating_sub(span)))
        }
        StartAt::Offset(_) | StartAt::Last(_) => {
            let message = "a group begins at the beginning, the end or a time; 'group reset' takes it to an offset";
            Err(ClientError::new(ErrorKind::InvalidRequest, message))
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
    isolation: Isolation,
    filter: Option<Arc<str>>,
    retry_timeout: Duration,
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
            isolation: Isolation::Committed,
            filter: None,
            retry_timeout: Duration::from_secs(60),
        }
    }

    /// All partitions of a topic, or of all topics that meet a pattern: `*` stands for any one level of a name
    /// (`crm.*.accounts`), `>` at the end for one or more (`crm.>`). May be said for several. A consumer without an end
    /// goes on to partitions that are added, and to topics that are created later and meet a pattern, from their
    /// beginning; when one that was found by a pattern is deleted, only its own part ends.
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

    /// What to see of transactions: what was committed (the default), or also the records of open and aborted ones.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
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
        let found = self.find().await?;
        let spans = self.spans(&found).await?;
        let (sender, events) = mpsc::unbounded_channel();
        let starter = Starter::new(&self, spans.len(), sender);
        let (max_records, skip_damaged) = (self.max_records.unwrap_or(u64::MAX), self.skip_damaged);
        let parts = spans.into_iter().enumerate().map(|(index, span)| starter.start(index, span)).collect();
        let following = self.follows().then(|| Following::begin(&self, starter, &found));
        Ok(Consumer::new(parts, events, following, max_records, skip_damaged))
    }

    /// Whether there is more than what was there when it was built.
    fn follows(&self) -> bool {
        let whole_topics = self.sources.iter().any(|(_, partition)| partition.is_none());
        whole_topics && !self.until_end && self.until_offset.is_none() && self.until_time.is_none()
    }
}
