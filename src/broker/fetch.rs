//! Reading, by offset and by time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs};
use crate::log::{Aborted, LogError, PartitionLog, ReadChunk};
use crate::record::{BatchError, BatchHeader, Batches, gap_batches};

use super::broker::blocking;
use super::partition::Partition;
use super::{Broker, BrokerError, FetchRequest, Fetched, Isolation, Marked, OffsetAt, PartitionEnds, Skipped};

impl Broker {
    /// Reads batches of what is committed; waits for them as the request says. Empty when nothing came in time. In the
    /// place of batches of aborted transactions, and of markers, there are empty ones.
    ///
    /// # Errors
    /// No such topic or partition, an offset out of range, damage, the disk's.
    pub async fn fetch(&self, request: FetchRequest<'_>) -> Result<Fetched, BrokerError> {
        let Marked { mut fetched, aborted, .. } = self.fetch_as(request, Isolation::Committed).await?;
        fetched.bytes = leave_out(fetched.bytes, &aborted)?;
        Ok(fetched)
    }

    /// Reads batches as they lie in the log, markers and what was aborted included; else as [`Broker::fetch`].
    ///
    /// # Errors
    /// As there.
    pub async fn fetch_as(&self, request: FetchRequest<'_>, isolation: Isolation) -> Result<Marked, BrokerError> {
        let partition = Arc::clone(self.topic(request.topic)?.partition(request.partition)?);
        let deadline = Instant::now() + request.max_wait;
        let mut watch = partition.watch();
        let mut offset = request.offset;
        let mut skipped = Vec::new();
        loop {
            // What changes from here on is noticed below.
            if watch.borrow_and_update().closed {
                return Err(closed(&partition));
            }
            let log = partition.log()?;
            let (ends, forgotten) = log.with(|log| (ends(log), log.forgotten()));
            let end = match isolation {
                Isolation::Committed => ends.committed,
                Isolation::Uncommitted => ends.stable,
            };
            // An open transaction lies before it: that is no error, but the end.
            let read = match (ends.log_start.max(end)..=ends.stable).contains(&offset) {
                true => Ok(ReadChunk { bytes: Bytes::new(), next_offset: offset }),
                false => read(&partition, offset, request.max_bytes, end).await,
            };
            let chunk = match read {
                Err(LogError::Damaged(damage)) if request.skip_damaged && damage.to.is_some() => {
                    let to = damage.to.unwrap_or(offset).max(offset + 1).min(end);
                    tracing::warn!(topic = %partition.topic, partition = partition.number, "passed over on request: {damage}");
                    skipped.push(Skipped { from: damage.from, to, reason: damage.to_string() });
                    offset = to;
                    continue;
                }
                other => other.map_err(|error| partition.error(error))?,
            };
            let enough = chunk.bytes.len() >= request.min_bytes.max(1) || !skipped.is_empty();
            if enough || timeout_at(deadline, watch.changed()).await.is_err() {
                let ReadChunk { bytes, next_offset } = chunk;
                let aborted = match isolation {
                    Isolation::Committed if !bytes.is_empty() => {
                        let known = |log: &PartitionLog| {
                            (log.forgotten() == forgotten).then(|| log.aborted(offset, next_offset))
                        };
                        // What was read may be of a transaction of which nothing is known any more: read again.
                        let Some(aborted) = log.with(|log| known(log)) else { continue };
                        aborted
                    }
                    _ => Vec::new(),
                };
                self.metrics.bytes_out.inc_by(bytes.len() as u64);
                let fetched = Fetched { bytes, next_offset, log_start: ends.log_start, stable_end: end, skipped };
                return Ok(Marked { fetched, ends, aborted });
            }
        }
    }

    /// Where a partition begins and ends.
    ///
    /// # Errors
    /// No such topic or partition, or it is offline.
    pub fn partition_ends(&self, topic: &str, partition: PartitionId) -> Result<PartitionEnds, BrokerError> {
        let topic = self.topic(topic)?;
        Ok(topic.partition(partition)?.log()?.with(|log| ends(log)))
    }

    /// Begins to watch a partition: what changes from now on is noticed.
    ///
    /// # Errors
    /// No such topic or partition.
    pub fn watch_partition(&self, topic: &str, partition: PartitionId) -> Result<PartitionWatch, BrokerError> {
        Ok(PartitionWatch(self.topic(topic)?.partition(partition)?.watch()))
    }

    /// Waits until readers see more than `offset` of a partition, or the time is over; whether they do.
    ///
    /// # Errors
    /// No such topic or partition; it is deleted meanwhile, or the broker stops.
    pub async fn wait_beyond(
        &self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
        max_wait: Duration,
    ) -> Result<bool, BrokerError> {
        let partition = Arc::clone(self.topic(topic)?.partition(partition)?);
        let mut watch = partition.watch();
        let waited =
            tokio::time::timeout(max_wait, watch.wait_for(|stable| stable.closed || stable.committed > offset)).await;
        match waited {
            Ok(Ok(stable)) if !stable.closed => Ok(true),
            Ok(_) => Err(closed(&partition)),
            Err(_) => Ok(false),
        }
    }

    /// An offset, and the timestamp of its record (−1 if there is none), for readers of what is committed.
    ///
    /// # Errors
    /// No such topic or partition, damage, the disk's.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
    ) -> Result<(Offset, TimestampMs), BrokerError> {
        self.list_offset_as(topic, partition, at, Isolation::Committed).await
    }

    /// The same for readers of either kind.
    ///
    /// # Errors
    /// As there.
    pub async fn list_offset_as(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
        isolation: Isolation,
    ) -> Result<(Offset, TimestampMs), BrokerError> {
        let partition = Arc::clone(self.topic(topic)?.partition(partition)?);
        let log = partition.log()?.clone();
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

fn ends(log: &PartitionLog) -> PartitionEnds {
    PartitionEnds { log_start: log.start_offset(), stable: log.stable_end(), committed: log.committed_end() }
}

/// Notices when readers of a partition may see more, or when it is gone.
pub struct PartitionWatch(tokio::sync::watch::Receiver<super::partition::Stable>);

impl PartitionWatch {
    /// Returns at the next change; at once if there was one since the last.
    pub async fn changed(&mut self) {
        // The sender gone means the partition is gone, which is a change too.
        let _ = self.0.changed().await;
    }
}

/// The end that readers see.
pub(super) fn end_of(log: &PartitionLog, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::Committed => log.committed_end(),
        Isolation::Uncommitted => log.stable_end(),
    }
}

/// What readers of committed records are to see of these batches: empty ones in the place of those that are none for them.
fn leave_out(batches: Bytes, aborted: &[Aborted]) -> Result<Bytes, BatchError> {
    let hidden = |header: &BatchHeader| {
        header.is_control() || header.is_transactional() && aborted.iter().any(|aborted| aborted.holds(header))
    };
    // Nearly always there is nothing to leave out, and then nothing is copied.
    let mut at = 0;
    let mut any = false;
    while at < batches.len() && !any {
        let header = BatchHeader::parse(&batches[at..])?;
        any = hidden(&header);
        at += header.total_bytes();
    }
    if !any {
        return Ok(batches);
    }
    let mut out = BytesMut::with_capacity(batches.len());
    for batch in Batches::new(batches) {
        let (header, batch) = batch?;
        if hidden(&header) {
            for gap in gap_batches(header.base_offset, header.next_offset()) {
                out.extend_from_slice(&gap);
            }
        } else {
            out.extend_from_slice(&batch);
        }
    }
    Ok(out.freeze())
}

fn closed(partition: &Partition) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("topic '{}' has been closed or deleted", partition.topic))
}

async fn read(partition: &Partition, offset: Offset, max_bytes: usize, limit: Offset) -> Result<ReadChunk, LogError> {
    let log = partition.log().map_err(|_| LogError::Closed)?;
    match log.with(|log| log.plan_read(offset, max_bytes, limit))? {
        Some(mut plan) => match plan.run_at_once() {
            Some(chunk) => Ok(chunk),
            None => blocking(move || plan.run()).await,
        },
        None => Ok(ReadChunk { bytes: Bytes::new(), next_offset: offset }),
    }
}
