//! Receipts: what became of a record in a group. They are not kept anywhere: what a group has done is durable, and says it,
//! also to whoever asks after a restart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicId, TopicName};
use crate::catalog::{GroupKind, Processed};
use crate::expr::Input;
use crate::record::Record;

use super::super::broker::{blocking, lock};
use super::super::records::Reading;
use super::super::{Broker, BrokerError, Isolation};
use super::dispatch::READ_BYTES;
use super::graves::Graves;
use super::group::QueueGroup;

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

/// What is known of records in a group.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Those that are done, durably.
    pub(crate) done: Vec<(RecordAt, Processed)>,
    /// Those that are not. Of others it is not known: the group does not read them, or not yet.
    pub(crate) undone: HashSet<RecordAt>,
    /// Why it is not known of some that are done what became of them.
    pub(crate) failed: Option<BrokerError>,
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
        let Looked { done, failed, .. } = self.look_at_records(group, records, |_| {}).await?;
        match failed {
            Some(error) if done.is_empty() => Err(error),
            _ => Ok(done),
        }
    }

    /// Looks at what became of records. Each that is not done is named to `undone`, at a moment at which nothing becomes done:
    /// what does later is part of a later commit of the group's progress.
    pub(crate) async fn look_at_records(
        self: &Arc<Self>,
        group: &GroupName,
        records: &[RecordAt],
        undone: impl FnMut(&RecordAt),
    ) -> Result<Looked, BrokerError> {
        let kind = lock(&self.catalog).group(group).map(|entry| entry.kind.clone());
        match kind {
            None => Ok(Looked::default()),
            Some(GroupKind::Stream) => Ok(self.look_at_positions(group, records, undone).await),
            Some(GroupKind::Queue(_)) => self.look_at_queue(group, records, undone).await,
        }
    }

    async fn look_at_positions(
        self: &Arc<Self>,
        group: &GroupName,
        records: &[RecordAt],
        mut undone: impl FnMut(&RecordAt),
    ) -> Looked {
        let mut looked = Looked::default();
        let positions = self.positions(group, None).await;
        let positions: HashMap<_, _> =
            positions.iter().map(|at| ((at.topic.clone(), at.partition), at.offset)).collect();
        for record in records {
            match positions.get(&(record.topic.clone(), record.partition)) {
                Some(position) if *position > record.offset => looked.done.push((record.clone(), Processed::Acked)),
                _ => {
                    undone(record);
                    looked.undone.insert(record.clone());
                }
            }
        }
        looked
    }

    async fn look_at_queue(
        self: &Arc<Self>,
        name: &GroupName,
        records: &[RecordAt],
        mut undone: impl FnMut(&RecordAt),
    ) -> Result<Looked, BrokerError> {
        let (broker, of) = (Arc::clone(self), name.clone());
        let group = blocking(move || broker.queue_group(&of)).await?;
        let mut looked = Looked::default();
        let mut found = Vec::new();
        for record in records {
            let id = self.topic(record.topic.as_str())?.entry.id;
            let partition = lock(&group.inside).partitions.get(&(id, record.partition)).cloned();
            let Some(partition) = partition.filter(|partition| !partition.is_closed()) else { continue };
            let ending = {
                let machine = lock(&partition.machine);
                if !machine.is_done(record.offset) {
                    undone(record);
                    looked.undone.insert(record.clone());
                    continue;
                }
                machine.ending(record.offset)
            };
            found.push((record, partition, ending));
        }
        if found.is_empty() {
            return Ok(looked);
        }
        // What is done in memory is said only when it is on the disk.
        self.queues.keeper.kept().await?;
        found.retain(|(_, partition, _)| !partition.is_closed());
        let mut unknown = Vec::new();
        for (record, partition, ending) in found {
            match ending {
                Some(ending) => looked.done.push((record.clone(), ending)),
                None => unknown.push((record, partition.place.topic)),
            }
        }
        looked.failed = self.look_back(&group, unknown, &mut looked.done).await.err();
        Ok(looked)
    }

    /// What became of records that are done, of which no more is remembered: dead letters are known by their topic, and what
    /// the group did not want by its filter, as it is now.
    async fn look_back(
        self: &Arc<Self>,
        group: &QueueGroup,
        mut unknown: Vec<(&RecordAt, TopicId)>,
        done: &mut Vec<(RecordAt, Processed)>,
    ) -> Result<(), BrokerError> {
        if unknown.is_empty() {
            return Ok(());
        }
        self.know_graves(group).await?;
        let filter = lock(&group.inside).filter.clone();
        unknown.sort_unstable();
        let mut window = Window { of: None, reading: Reading::passing(), records: Vec::new(), end: 0 };
        for (record, topic) in unknown {
            let buried = {
                let graves = group.graves.lock().await;
                graves.as_ref().is_some_and(|graves| graves.contains(&(topic, record.partition, record.offset)))
            };
            let ending = match (buried, &filter) {
                (true, _) => Processed::DeadLettered,
                (false, None) => Processed::Acked,
                (false, Some(filter)) => match window.find(self, record).await? {
                    // One that retention has deleted is done, whatever it was.
                    None => Processed::Acked,
                    Some(found) => {
                        let (topic, partition) = (record.topic.as_str(), record.partition);
                        let input = Input { topic, partition, offset: record.offset, record: found };
                        if filter.matches(&input).unwrap_or(false) { Processed::Acked } else { Processed::NotWanted }
                    }
                },
            };
            done.push((record.clone(), ending));
        }
        Ok(())
    }

    async fn know_graves(&self, group: &QueueGroup) -> Result<(), BrokerError> {
        let mut graves = group.graves.lock().await;
        if graves.is_none() {
            *graves = Some(Graves::read(self, &group.name, &group.dead_letters()?).await?);
        }
        Ok(())
    }
}

/// Records that were read together: those asked about are often neighbours.
struct Window {
    of: Option<(TopicName, PartitionId, Offset)>,
    reading: Reading,
    records: Vec<Record>,
    end: Offset,
}

impl Window {
    /// The record, if it is still there. Asked for in order, each is read once.
    async fn find(&mut self, broker: &Broker, at: &RecordAt) -> Result<Option<&Record>, BrokerError> {
        let inside = self.of.as_ref().is_some_and(|(topic, partition, begin)| {
            (topic, *partition) == (&at.topic, at.partition) && (*begin..self.end).contains(&at.offset)
        });
        if !inside {
            let place = (at.topic.as_str(), at.partition);
            let read = broker
                .records_on(&mut self.reading, "receipts", place, at.offset, READ_BYTES, Isolation::Committed)
                .await;
            (self.records, self.end) = match read {
                Err(error) if error.kind() == ErrorKind::OffsetOutOfRange => return Ok(None),
                other => other?,
            };
            self.of = Some((at.topic.clone(), at.partition, at.offset));
        }
        let found = self.records.binary_search_by_key(&at.offset, |record| record.offset);
        Ok(found.ok().and_then(|found| self.records.get(found)))
    }
}
