//! Things that must be written once, though whoever writes them may be cut off before it is kept that he has.
//!
//! 1. He takes [`Hold`] of the partition that he will write to: from the offset that this gives nothing is deleted or compacted.
//! 2. He keeps, durably, that he is about to write, with this offset: the *intent*.
//! 3. He writes.
//! 4. He keeps, durably, that he has written; then he lets go of the partition.
//!
//! After a crash, or a failure that leaves open whether something was written, [`Partition::search`] finds it from the offset of
//! the intent on. The broker takes hold for every intent that it finds before anything can be deleted or compacted, so what was
//! written is found, and only what was not is written then.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{Offset, PartitionId, limits};
use crate::log::LogError;
use crate::record::{Batches, Record, read_records};

use super::broker::blocking;
use super::partition::Partition;
use super::{Broker, BrokerError};

/// Bytes read at a time.
const READ_BYTES: usize = 512 * 1024;
/// How long a sync may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// As long as it is there, nothing at or above its offset is deleted from a partition or compacted.
pub(crate) struct Hold {
    partition: Arc<Partition>,
    offset: Offset,
}

impl Hold {
    /// Takes hold of what is written to a partition from now on.
    ///
    /// # Errors
    /// The partition is offline.
    pub(crate) fn of(partition: &Arc<Partition>) -> Result<Self, BrokerError> {
        let offset = partition.log()?.with(|log| log.hold());
        Ok(Self { partition: Arc::clone(partition), offset })
    }

    /// Takes hold of what lies at or above an offset.
    ///
    /// # Errors
    /// The partition is offline.
    pub(crate) fn from(partition: &Arc<Partition>, offset: Offset) -> Result<Self, BrokerError> {
        partition.log()?.with(|log| log.hold_from(offset));
        Ok(Self { partition: Arc::clone(partition), offset })
    }

    /// Where to look from.
    pub(crate) fn offset(&self) -> Offset {
        self.offset
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Ok(log) = self.partition.log() {
            log.with(|log| log.let_go(self.offset));
        }
    }
}

impl Broker {
    /// Returns when all that is written to a partition by now is durable.
    ///
    /// # Errors
    /// There is no such partition, or it takes no writes.
    pub(super) async fn sync_written(&self, topic: &str, number: PartitionId) -> Result<(), BrokerError> {
        let partition = Arc::clone(self.topic(topic)?.partition(number)?);
        let log = partition.log()?.clone();
        if log.with(|log| log.poisoned().is_none() && log.synced_end() >= log.written_end()) {
            return Ok(());
        }
        blocking(move || log.sync_written(PATIENCE)).await.map_err(|error| partition.error(error))?;
        Ok(())
    }
}

impl Partition {
    /// Shows `each` all records from `from` on, those of transactions that are open or were aborted included, until it has seen
    /// enough (`true`). What it is shown is durable. Gives the offset up to which it looked. Blocks.
    ///
    /// Damage is passed over, loudly: what lies in it nobody can read, and somebody waits for the answer.
    ///
    /// # Errors
    /// The partition is offline or takes no writes, the disk's: what is there is not known then.
    pub(crate) fn search(&self, from: Offset, mut each: impl FnMut(&Record) -> bool) -> Result<Offset, BrokerError> {
        let log = self.log()?;
        let end = log.sync_written(PATIENCE).map_err(|error| self.error(error))?;
        let mut at = from.max(log.with(|log| log.start_offset()));
        while at < end {
            let plan = log.with(|log| log.plan_read(at, READ_BYTES, end));
            let chunk = match plan.and_then(|plan| plan.map(|plan| plan.run()).transpose()) {
                Ok(Some(chunk)) if chunk.next_offset > at => chunk,
                Ok(_) => break,
                Err(LogError::Damaged(damage)) => {
                    tracing::warn!(topic = %self.topic, partition = self.number, "passed over: {damage}");
                    at = damage.to.unwrap_or(end).max(at + 1);
                    continue;
                }
                Err(LogError::OffsetOutOfRange { start, .. }) if start > at => {
                    at = start;
                    continue;
                }
                Err(error) => return Err(self.error(error)),
            };
            for batch in Batches::new(chunk.bytes) {
                let (header, batch) = batch?;
                if header.is_control() || header.next_offset() <= at {
                    continue;
                }
                // One that cannot be opened is none of the server's own.
                let Ok(records) = read_records(&batch, limits::MAX_DECOMPRESSED_BYTES) else { continue };
                for record in records.map_while(Result::ok) {
                    if record.offset >= from && each(&record) {
                        return Ok(record.offset);
                    }
                }
            }
            at = chunk.next_offset;
        }
        Ok(end)
    }
}
