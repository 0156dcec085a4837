//! Reading, by offset and by time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::base::{ErrorKind, Offset, PartitionId, TimestampMs};
use crate::log::{LogError, ReadChunk};

use super::broker::blocking;
use super::partition::Partition;
use super::{Broker, BrokerError, FetchRequest, Fetched, OffsetAt, Skipped};

impl Broker {
    /// Reads batches; waits for them as the request says. Empty when nothing came in time.
    ///
    /// # Errors
    /// No such topic or partition, an offset out of range, damage, the disk's.
    pub async fn fetch(&self, request: FetchRequest<'_>) -> Result<Fetched, BrokerError> {
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
            let (log_start, stable_end) = partition.log()?.with(|log| (log.start_offset(), log.stable_end()));
            let chunk = match read(&partition, offset, request.max_bytes, stable_end).await {
                Err(LogError::Damaged(damage)) if request.skip_damaged && damage.to.is_some() => {
                    let to = damage.to.unwrap_or(offset).max(offset + 1).min(stable_end);
                    tracing::warn!(topic = %partition.topic, partition = partition.number, "passed over on request: {damage}");
                    skipped.push(Skipped { from: damage.from, to, reason: damage.to_string() });
                    offset = to;
                    continue;
                }
                other => other.map_err(|error| partition.error(error))?,
            };
            let enough = chunk.bytes.len() >= request.min_bytes.max(1) || !skipped.is_empty();
            if enough || timeout_at(deadline, watch.changed()).await.is_err() {
                self.metrics.bytes_out.inc_by(chunk.bytes.len() as u64);
                let Fetched { bytes, next_offset, .. } = fetched(chunk, log_start, stable_end, Vec::new());
                return Ok(Fetched { bytes, next_offset, log_start, stable_end, skipped });
            }
        }
    }

    /// First offset of a partition, and the end that readers see.
    ///
    /// # Errors
    /// No such topic or partition, or it is offline.
    pub fn partition_ends(&self, topic: &str, partition: PartitionId) -> Result<(Offset, Offset), BrokerError> {
        let topic = self.topic(topic)?;
        Ok(topic.partition(partition)?.log()?.with(|log| (log.start_offset(), log.stable_end())))
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
            tokio::time::timeout(max_wait, watch.wait_for(|stable| stable.closed || stable.end > offset)).await;
        match waited {
            Ok(Ok(stable)) if !stable.closed => Ok(true),
            Ok(_) => Err(closed(&partition)),
            Err(_) => Ok(false),
        }
    }

    /// An offset, and the timestamp of its record (−1 if there is none).
    ///
    /// # Errors
    /// No such topic or partition, damage, the disk's.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
    ) -> Result<(Offset, TimestampMs), BrokerError> {
        let partition = Arc::clone(self.topic(topic)?.partition(partition)?);
        let log = partition.log()?.clone();
        let found = match at {
            OffsetAt::Beginning => return Ok((log.with(|log| log.start_offset()), -1)),
            OffsetAt::End => return Ok((log.with(|log| log.stable_end()), -1)),
            OffsetAt::Timestamp(_) | OffsetAt::Newest => {
                let (plan, end) = log.with(|log| {
                    let time = match at {
                        OffsetAt::Timestamp(time) => time,
                        _ => log.stats().newest_timestamp,
                    };
                    (log.plan_time(time, log.stable_end()), log.stable_end())
                });
                let found = blocking(move || plan.run()).await.map_err(|error| partition.error(error))?;
                found.unwrap_or((end, -1))
            }
        };
        Ok(found)
    }
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

fn fetched(chunk: ReadChunk, log_start: Offset, stable_end: Offset, skipped: Vec<Skipped>) -> Fetched {
    Fetched { bytes: chunk.bytes, next_offset: chunk.next_offset, log_start, stable_end, skipped }
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
