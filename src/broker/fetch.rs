//! Reading, by offset and by time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::base::{Offset, PartitionId, ProducerId, TimestampMs};
use crate::log::PartitionLog;
use crate::record::BatchHeader;

use super::broker::blocking;
use super::reader::{ReadAt, ends_of, leave_out};
use super::settled::SETTLE;
use super::{Broker, BrokerError, FetchRequest, Fetched, Isolation, Marked, OffsetAt, PartitionEnds};

/// The pause before a reader that wants more than one byte reads again.
const PAUSE: Duration = Duration::from_millis(5);

impl Broker {
    /// Reads batches of what is committed; waits for them as the request says. Empty when nothing came in time. In the
    /// place of batches of aborted transactions, and of markers, there are empty ones.
    ///
    /// # Errors
    /// No such topic or partition, an offset out of range, damage, the disk's.
    pub async fn fetch(&self, request: FetchRequest<'_>) -> Result<Fetched, BrokerError> {
        self.fetch_for(request, Isolation::Committed).await
    }

    /// The same for readers of either kind: those of everything see the records of open and aborted transactions, too.
    ///
    /// # Errors
    /// As there.
    pub async fn fetch_for(&self, request: FetchRequest<'_>, isolation: Isolation) -> Result<Fetched, BrokerError> {
        let Marked { mut fetched, aborted, .. } = self.fetch_as(request, isolation).await?;
        fetched.bytes = leave_out(fetched.bytes, &aborted)?;
        Ok(fetched)
    }

    /// Reads batches as they lie in the log, markers and what was aborted included; else as [`Broker::fetch`].
    ///
    /// # Errors
    /// As there.
    pub async fn fetch_as(&self, request: FetchRequest<'_>, isolation: Isolation) -> Result<Marked, BrokerError> {
        let FetchRequest { offset, max_bytes, min_bytes, max_wait, skip_damaged, .. } = request;
        let mut reader = self.reader(request.topic, request.partition)?;
        let at = ReadAt { offset, max_bytes, largest: usize::MAX, skip_damaged };
        // Where nothing may be waited for no timer is touched: a timer whose time is over is ready only at its next tick, a
        // millisecond later.
        let deadline = (!max_wait.is_zero()).then(|| Instant::now() + max_wait);
        loop {
            let marked = reader.read_as(at, isolation).await?;
            let Some(deadline) = deadline else { return Ok(marked) };
            let enough = marked.fetched.bytes.len() >= min_bytes.max(1) || !marked.fetched.skipped.is_empty();
            if enough || timeout_at(deadline, reader.changed()).await.is_err() {
                return Ok(marked);
            }
            if min_bytes > 1 {
                // A read that finds too little is thrown away, so it is not done once for each append.
                sleep_until(deadline.min(Instant::now() + PAUSE)).await;
            }
        }
    }

    /// Where a partition begins and ends.
    ///
    /// # Errors
    /// No such topic or partition, or it is offline.
    pub fn partition_ends(&self, topic: &str, partition: PartitionId) -> Result<PartitionEnds, BrokerError> {
        let topic = self.topic(topic)?;
        Ok(ends_of(topic.partition(partition)?.log()?))
    }

    /// A partition, but for these, that knows an idempotency key. Partitions that are offline are not asked.
    ///
    /// # Errors
    /// No such topic.
    pub fn key_elsewhere(
        &self,
        topic: &str,
        key: ProducerId,
        but: impl Fn(PartitionId) -> bool,
    ) -> Result<Option<PartitionId>, BrokerError> {
        let topic = self.topic(topic)?;
        let mut others = (0..topic.entry.partitions).filter(|partition| !but(*partition));
        let knows = |partition: &PartitionId| {
            let log = topic.partition(*partition).and_then(|partition| partition.log());
            log.is_ok_and(|log| log.with(|log| log.knows_key(key)))
        };
        Ok(others.find(knows))
    }

    /// The time that the server has given to the records of the batch that holds an offset; `None` if they have their
    /// producer's, or cannot be read (yet).
    pub async fn append_time(&self, topic: &str, partition: PartitionId, offset: Offset) -> Option<TimestampMs> {
        let mut reader = self.reader(topic, partition).ok()?;
        let at = ReadAt { offset, max_bytes: 1, largest: usize::MAX, skip_damaged: false };
        let read = reader.read_as(at, Isolation::Uncommitted).await.ok()?;
        let header = BatchHeader::parse(&read.fetched.bytes).ok()?;
        header.log_append_time().then_some(header.max_timestamp)
    }

    /// An offset, and the timestamp of its record (−1 if there is none), for readers of what is committed. All that is written
    /// when this is called counts, so it waits for the sync of that, up to [`SETTLE`].
    ///
    /// # Errors
    /// No such topic or partition, damage, the disk's; [`crate::base::ErrorKind::TimedOut`], if the sync takes longer.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
    ) -> Result<(Offset, TimestampMs), BrokerError> {
        self.list_offset_as(topic, partition, at, Isolation::Committed, Instant::now() + SETTLE).await
    }

    /// The same for readers of either kind, with a time until which a sync is waited for.
    ///
    /// # Errors
    /// As there.
    pub async fn list_offset_as(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
        isolation: Isolation,
        until: Instant,
    ) -> Result<(Offset, TimestampMs), BrokerError> {
        let partition = Arc::clone(self.topic(topic)?.partition(partition)?);
        let log = partition.log()?.clone();
        if at != OffsetAt::Beginning {
            partition.settled(until).await?;
        }
        let found = match at {
            OffsetAt::Beginning => return Ok((log.with(|log| log.start_offset()), -1)),
            OffsetAt::End => return Ok((log.with(|log| end_of(log, isolation)), -1)),
            OffsetAt::Timestamp(_) | OffsetAt::Newest => {
                let (plan, end) = log.with(|log| {
                    let time = match at {
                        OffsetAt::Timestamp(time) => time,
                        _ => log.stats().newest_timestamp,
                    };
                    let end = end_of(log, isolation);
                    (log.plan_time(time, end), end)
                });
                let found = blocking(move || plan.run()).await.map_err(|error| partition.error(error))?;
                found.unwrap_or((end, -1))
            }
        };
        Ok(found)
    }
}

/// The end that readers see.
pub(super) fn end_of(log: &PartitionLog, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::Committed => log.committed_end(),
        Isolation::Uncommitted => log.stable_end(),
    }
}
