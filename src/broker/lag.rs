//! How far groups are behind the ends of the partitions that they read, as `group describe` says it too. The end is that of
//! what is written: what is not synced yet, and what an open transaction holds up, is work that the group has not done, though
//! it cannot be read yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Offset, PartitionId, TopicName};
use crate::catalog::{GroupEntry, GroupKind, Progress};

use super::broker::lock;
use super::partition::Topic;
use super::{Broker, BrokerError};

/// A group's distance from the end of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distance {
    pub(crate) topic: TopicName,
    pub(crate) partition: PartitionId,
    /// Records that it has not done.
    pub(crate) lag: u64,
    /// Of these, those that are out with members.
    pub(crate) in_flight: u64,
    /// Those that were out before, or wait for another record of their key.
    pub(crate) waiting: u64,
    /// Of these, those whose time has not come.
    pub(crate) delayed: u64,
}

impl Broker {
    /// The distances of a group in all partitions that it reads, as far as they can be read.
    pub(crate) fn distances(&self, entry: &GroupEntry, topics: &[Arc<Topic>]) -> Vec<Distance> {
        match entry.kind {
            GroupKind::Stream => self.stream_distances(entry),
            GroupKind::Queue(_) => self.distances_in_use(entry).unwrap_or_else(|_| self.distances_kept(entry, topics)),
        }
    }

    /// Of a queue group that nobody has taken into use: from what was kept of it.
    fn distances_kept(&self, entry: &GroupEntry, topics: &[Arc<Topic>]) -> Vec<Distance> {
        let kept: BTreeMap<_, Progress> = lock(&self.catalog).all_progress(&entry.name).collect();
        let mut distances = Vec::new();
        for topic in topics {
            let wanted = entry.topics.iter().any(|pattern| pattern.matches(&topic.entry.name));
            for partition in &topic.partitions {
                let progress = kept.get(&(topic.entry.id, partition.number));
                let Ok(log) = partition.log() else { continue };
                if progress.is_none() && !wanted {
                    continue;
                }
                let (start, end) = log.with(|log| (log.start_offset(), log.written_end()));
                let floor = progress.and_then(|progress| progress.position.as_ref()).map_or(0, |at| at.offset);
                let lag = end.saturating_sub(floor.max(start)).saturating_sub(progress.map_or(0, done_above));
                let (topic, partition) = (topic.entry.name.clone(), partition.number);
                distances.push(Distance { topic, partition, lag, in_flight: 0, waiting: 0, delayed: 0 });
            }
        }
        distances
    }

    /// A queue group that is in use knows better than what was kept of it.
    fn distances_in_use(&self, entry: &GroupEntry) -> Result<Vec<Distance>, BrokerError> {
        let partitions = self.queues.partitions_in_use(&entry.name)?;
        let mut distances = Vec::new();
        for partition in partitions {
            let number = partition.place.partition;
            let Ok(topic) = self.topic(partition.topic.as_str()) else { continue };
            let end = topic.partition(number).and_then(|found| Ok(found.log()?.with(|log| log.written_end())));
            let Ok(end) = end else { continue };
            let machine = lock(&partition.machine);
            let counts = machine.counts();
            let beyond = end.saturating_sub(machine.cursor()).saturating_sub(machine.known_done_below(end));
            distances.push(Distance {
                topic: partition.topic.clone(),
                partition: number,
                lag: counts.leased + counts.waiting + beyond,
                in_flight: counts.leased,
                waiting: counts.waiting,
                delayed: machine.delayed(),
            });
        }
        Ok(distances)
    }
}

fn done_above(progress: &Progress) -> Offset {
    progress.chunks.values().flat_map(|chunk| &chunk.done).map(|(_, count)| u64::from(*count)).sum()
}
