//! What was acknowledged to anyone counts at once: who asks where a partition ends, or reads to its end, waits until readers
//! see what was written when he came.
//!
//! An append with `ack=written` (Kafka's acks=1) is answered before the sync, and readers of a topic with `durability=sync`
//! see nothing that is not synced. That sync is on its way already, so the wait is that of one sync.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::base::{ErrorKind, Offset, PartitionId};

use super::partition::Partition;
use super::reader::PartitionReader;
use super::{Broker, BrokerError};

/// How long it is waited for readers to see what is written. A sync that takes longer than this is one that hangs.
pub const SETTLE: Duration = Duration::from_secs(5);

/// How often it is looked whether the partition has failed, of which nobody is told.
const LOOK: Duration = Duration::from_millis(50);

impl Partition {
    /// Returns when readers see all that is written by now. A partition whose sync has failed is not waited for: what was
    /// written there is not known before it has been verified, which this asks for.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] at `until`; the partition is offline.
    pub(crate) async fn settled(&self, until: Instant) -> Result<(), BrokerError> {
        let log = self.log()?;
        let (written, stable) = log.with(|log| (log.written_end(), log.stable_end()));
        if stable >= written {
            return Ok(());
        }
        let mut watch = self.watch();
        log.request_sync();
        loop {
            let (stable, failed) = log.with(|log| (log.stable_end(), log.poisoned().is_some()));
            if stable >= written || failed || watch.borrow_and_update().closed {
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Err(self.too_slow(written));
            }
            let _ = timeout_at(until.min(now + LOOK), watch.changed()).await;
        }
    }

    /// Returns when what lies below `end` is durable, syncing it if nobody else does.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] after `patience`; the partition is offline, or takes no writes.
    pub(crate) async fn synced_within(&self, end: Offset, patience: Duration) -> Result<(), BrokerError> {
        match tokio::time::timeout(patience, self.synced(end)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.too_slow(end)),
        }
    }

    fn too_slow(&self, end: Offset) -> BrokerError {
        let Self { topic, number, .. } = self;
        let message = format!("{topic}/{number}: what is written below offset {end} is not on the disk yet: try again");
        BrokerError::new(ErrorKind::TimedOut, message)
    }
}

impl Broker {
    /// Returns when readers of a partition see all that is written by now, for whoever is to go on from there. One that cannot be
    /// read is passed over.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`], after [`SETTLE`].
    pub(crate) async fn settled(&self, topic: &str, partition: PartitionId) -> Result<(), BrokerError> {
        let Ok(topic) = self.topic(topic) else { return Ok(()) };
        let Ok(partition) = topic.partition(partition) else { return Ok(()) };
        match partition.settled(Instant::now() + SETTLE).await {
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(error),
            _ => Ok(()),
        }
    }

    /// [`PartitionReader::settle`], for at most [`SETTLE`].
    ///
    /// # Errors
    /// No such topic or partition, or it is offline.
    pub async fn settle(&self, topic: &str, partition: PartitionId, below: Offset) -> Result<(), BrokerError> {
        let mut reader = self.reader(topic, partition)?;
        reader.settle(below, Instant::now() + SETTLE).await
    }
}

impl PartitionReader {
    /// Returns when what is written by now below an offset can be read, or at `until`.
    ///
    /// # Errors
    /// The topic is deleted or the broker stops; the partition is offline.
    pub async fn settle(&mut self, below: Offset, until: Instant) -> Result<(), BrokerError> {
        let ends = self.look()?;
        if ends.stable < ends.written && ends.stable < below {
            // If that takes too long there is nothing yet, as at any end.
            let _ = self.partition().settled(until).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
