//! Fetching by pull: the next records of one partition, whenever the caller asks, and nothing in between.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorKind, Isolation, Offset, PartitionId, limits};
use crate::client::ClientError;
use crate::client::connection::answer_of;
use crate::client::link::Link;
use crate::protocol::{Fetch, FetchOk, Skipped};
use crate::record::{BatchError, Batches, read_records};

use super::stream::{ConsumedRecord, SkippedRange};

/// The longest that one request waits, in milliseconds, so that its answer is not taken for lost.
const LONGEST_WAIT_MS: u64 = 10_000;

/// Reads one partition by pull. It holds no more than a position: what was not asked for is not sent.
#[derive(Debug, Clone)]
pub struct Pull {
    link: Arc<Link>,
    topic: Arc<str>,
    partition: PartitionId,
    position: Offset,
    max_records: usize,
    max_bytes: u32,
    wait: Duration,
    skip_damaged: bool,
    isolation: Isolation,
    filter: Option<String>,
}

/// What one pull brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled {
    /// The records, in order; none if none came in time, or none matched.
    pub records: Vec<ConsumedRecord>,
    /// Where the next pull goes on: past what did not match, too.
    pub next_offset: Offset,
    /// The first offset of the partition.
    pub log_start: Offset,
    /// The end that readers see.
    pub stable_end: Offset,
    /// Damaged ranges that were passed over.
    pub skipped: Vec<SkippedRange>,
}

impl Pull {
    pub(crate) fn new(link: Arc<Link>, topic: String, partition: PartitionId) -> Self {
        Self {
            link,
            topic: topic.into(),
            partition,
            position: 0,
            max_records: usize::MAX,
            max_bytes: 1024 * 1024,
            wait: Duration::ZERO,
            skip_damaged: false,
            isolation: Isolation::Committed,
            filter: None,
        }
    }

    /// The offset to go on from. Default 0.
    pub fn from(mut self, offset: Offset) -> Self {
        self.position = offset;
        self
    }

    /// At most so many records a pull, one at least.
    pub fn max_records(mut self, records: usize) -> Self {
        self.max_records = records.max(1);
        self
    }

    /// At most so many bytes a pull, though one batch at least; 4 MiB is the most that a server sends. Default 1 MiB.
    pub fn max_bytes(mut self, bytes: u32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// For how long a pull waits for a first record. Default: not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Goes on behind damaged data instead of failing.
    pub fn skip_damaged(mut self, skip: bool) -> Self {
        self.skip_damaged = skip;
        self
    }

    /// What to see of transactions: what was committed (the default), or also the records of open and aborted ones.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Only records for which this CEL expression is true, as the server evaluates it.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.filter = Some(expression.into());
        self
    }

    /// Where the next pull begins.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Lets the next pull begin elsewhere.
    pub fn seek(&mut self, offset: Offset) {
        self.position = offset;
    }

    /// The next records. Moves the position; after an error it is where it was, and the same may be tried again. May be
    /// dropped while it waits.
    ///
    /// # Errors
    /// No such topic or partition, a position out of range, a filter that cannot be compiled (with the place), damage; the
    /// server cannot be reached.
    pub async fn pull(&mut self) -> Result<Pulled, ClientError> {
        let deadline = tokio::time::Instant::now() + self.wait;
        let mut position = self.position;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).min(LONGEST_WAIT_MS);
            let pulled = self.ask(position, wait_ms as u32).await?;
            position = pulled.next_offset;
            let nothing = pulled.records.is_empty() && pulled.skipped.is_empty();
            if !nothing || tokio::time::Instant::now() >= deadline {
                self.position = position;
                return Ok(pulled);
            }
        }
    }

    async fn ask(&self, offset: Offset, max_wait_ms: u32) -> Result<Pulled, ClientError> {
        let request = Fetch {
            topic: self.topic.as_ref().to_owned(),
            partition: self.partition,
            offset,
            max_bytes: self.max_bytes,
            min_bytes: 1,
            max_wait_ms,
            skip_damaged: self.skip_damaged,
            filter: self.filter.clone(),
            isolation: self.isolation,
        };
        let timeout = self.link.config().request_timeout + Duration::from_millis(max_wait_ms.into());
        let asked = async {
            let connection = self.link.connection().await?;
            let frame = connection.send(&request, bytes::Bytes::new(), None).await?.await?;
            Ok((answer_of::<Fetch>(&frame)?, frame.payload))
        };
        let (answer, payload) = tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            let message = format!("the server did not answer a fetch within {timeout:?}");
            Err(ClientError::new(ErrorKind::TimedOut, message))
        })?;
        self.read(offset, answer, payload).map_err(|error| {
            let place = format!("{}/{} from offset {offset}", self.topic, self.partition);
            ClientError::caused(
                ErrorKind::CorruptBatch,
                format!("{place}: what the server sent is damaged: {error}"),
                error,
            )
        })
    }

    fn read(&self, from: Offset, answer: FetchOk, payload: bytes::Bytes) -> Result<Pulled, BatchError> {
        let FetchOk { log_start, stable_end, mut next_offset, skipped } = answer;
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        'all: for batch in Batches::new(payload) {
            let (header, batch) = batch?;
            if header.is_control() {
                continue;
            }
            let mut at = from.max(header.base_offset);
            let (read, fault) = match read_records(&batch, limits::MAX_DECOMPRESSED_BYTES) {
                Ok(read) => (Some(read), None),
                Err(error) => (None, Some(Err(error))),
            };
            for record in read.into_iter().flatten().chain(fault) {
                let record = match record {
                    Ok(record) => record,
                    // The batch is whole; its records cannot be read.
                    Err(error) if self.skip_damaged => {
                        let (from, to) = (at, header.next_offset());
                        unreadable.push(Skipped { from, to, reason: error.to_string() });
                        break;
                    }
                    // The next pull begins with it.
                    Err(_) if !records.is_empty() => {
                        next_offset = at;
                        break 'all;
                    }
                    Err(error) => return Err(error),
                };
                at = at.max(record.offset + 1);
                if record.offset < from {
                    continue;
                }
                if records.len() == self.max_records {
                    next_offset = record.offset;
                    break 'all;
                }
                records.push(ConsumedRecord {
                    topic: self.topic.clone(),
                    partition: self.partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
        let skipped =
            skipped.into_iter().chain(unreadable).filter(|skipped| skipped.from < next_offset).map(|skipped| {
                SkippedRange {
                    topic: self.topic.clone(),
                    partition: self.partition,
                    from: skipped.from,
                    to: skipped.to,
                    reason: skipped.reason,
                }
            });
        Ok(Pulled { records, next_offset, log_start, stable_end, skipped: skipped.collect() })
    }
}
