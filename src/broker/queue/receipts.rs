//! Receipts: what became of a record in a group. They are not kept anywhere: what a group has done is durable, and says it,
//! also to whoever asks after a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicName};
use crate::catalog::{GroupKind, Processed};
use crate::expr::{Filter, Input};

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError, Isolation};
use super::graves::Graves;
use super::group::{QueueGroup, QueuePartition};

/// Records asked about at a time.
pub const MAX_ASKED: usize = 10_000;

/// A record, by where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordAt {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
}

impl Broker {
    /// What became of records in a group, as soon as that is known of one of them and is durable; those of which it is not
    /// are not in the answer. Waits at most so long, also for a group that does not exist yet.
    ///
    /// # Errors
    /// Too many records, no such topic or partition.
    pub async fn processed(
        self: &Arc<Self>,
        group: &GroupName,
        records: &[RecordAt],
        wait: Duration,
    ) -> Result<Vec<(RecordAt, Processed)>, BrokerError> {
        if records.len() > MAX_ASKED {
            let message = format!("{} records at once; the limit is {MAX_ASKED}", records.len());
            return Err(BrokerError::new(ErrorKind::TooLarge, message));
        }
        for record in records {
            self.topic(record.topic.as_str())?.partition(record.partition)?;
        }
        let deadline = Instant::now() + wait;
        let mut commits = self.queues.keeper.commits.subscribe();
        loop {
            commits.borrow_and_update();
            let done = self.done_now(group, records).await?;
            // A commit that failed bumps it too, and the next one follows.
            if !done.is_empty() || timeout_at(deadline, commits.changed()).await.is_err() {
                return Ok(done);
            }
        }
    }

    async fn done_now(
        self: &Arc<Self>,
        group: &GroupName,
        records: &[RecordAt],
    ) -> Result<Vec<(RecordAt, Processed)>, BrokerError> {
        let kind = lock(&self.catalog).group(group).map(|entry| entry.kind.clone());
        match kind {
            None => Ok(Vec::new()),
            Some(GroupKind::Stream) => self.below_positions(group, records).await,
            Some(GroupKind::Queue(_)) => self.done_in_queue(group, records).await,
        }
    }

    async fn below_positions(
        self: &Arc<Self>,
        group: &GroupName,
        records: &[RecordAt],
    ) -> Result<Vec<(RecordAt, Processed)>, BrokerError> {
        let mut done = Vec::new();
        let positions = self.positions(group, None).await;
        let positions: HashMap<_, _> =
            positions.iter().map(|at| ((at.topic.clone(), at.partition), at.offset)).collect();
        for record in records {
            let position = positions.get(&(record.topic.clone(), record.partition));
            if position.is_some_and(|position| *position > record.offset) {
                done.push((record.clone(), Processed::Acked));
            }
        }
        Ok(done)
    }

    async fn done_in_queue(
        self: &Arc<Self>,
        name: &GroupName,
        records: &[RecordAt],
    ) -> Result<Vec<(RecordAt, Processed)>, BrokerError> {
        let (broker, of) = (Arc::clone(self), name.clone());
        let group = blocking(move || broker.queue_group(&of)).await?;
        let mut found = Vec::new();
        for record in records {
            let id = self.topic(record.topic.as_str())?.entry.id;
            let partition = lock(&group.inside).partitions.get(&(id, record.partition)).cloned();
            if let Some(partition) = partition
                && let Some(gone) = {
                    let machine = lock(&partition.machine);
                    machine.is_done(record.offset).then(|| machine.is_gone(record.offset))
                }
            {
                found.push((record, partition, gone));
            }
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        // What is done in memory is said only when it is on the disk.
        self.queues.keeper.kept().await?;
        self.know_graves(&group).await?;
        let filter = lock(&group.inside).filter.clone();
        let mut done = Vec::new();
        for (record, partition, gone) in found {
            let buried = {
                let graves = group.graves.lock().await;
                let place = (partition.place.topic, record.partition, record.offset);
                graves.as_ref().is_some_and(|graves| graves.contains(&place))
            };
            let outcome = match (buried, gone) {
                (true, _) => Processed::DeadLettered,
                (false, true) => Processed::Deleted,
                (false, false) => self.ending(filter.as_deref(), record, &partition).await,
            };
            done.push((record.clone(), outcome));
        }
        Ok(done)
    }

    async fn know_graves(&self, group: &QueueGroup) -> Result<(), BrokerError> {
        let mut graves = group.graves.lock().await;
        if graves.is_none() {
            *graves = Some(Graves::read(self, &group.name, &group.dead_letters()?).await?);
        }
        Ok(())
    }

    async fn ending(&self, filter: Option<&Filter>, at: &RecordAt, partition: &QueuePartition) -> Processed {
        if partition.is_expired(at.offset) {
            return Processed::Expired;
        }
        let Some(filter) = filter else { return Processed::Acked };
        // One that retention has deleted is done, whatever it was.
        let Ok((records, _)) =
            self.records_from(at.topic.as_str(), at.partition, at.offset, 1, Isolation::Uncommitted).await
        else {
            return Processed::Acked;
        };
        let Some(record) = records.first().filter(|record| record.offset == at.offset) else { return Processed::Acked };
        let input = Input { topic: at.topic.as_str(), partition: at.partition, offset: at.offset, record };
        if filter.matches(&input).unwrap_or(false) { Processed::Acked } else { Processed::NotWanted }
    }
}
