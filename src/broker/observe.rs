//! What is measured when somebody asks, rather than counted as it happens: how far groups are behind, what waits to be
//! appended, and which partitions are not in order.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::{Offset, PartitionId, TopicName};
use crate::catalog::{GroupEntry, GroupKind, Progress};

use super::broker::{blocking, lock};
use super::partition::Topic;
use super::{Broker, BrokerError};

/// Gauges that are set when they are asked for.
#[derive(Default)]
pub(crate) struct Observed {
    lag: Family<GroupLabels, Gauge>,
    in_flight: Family<GroupLabels, Gauge>,
    waiting: Family<GroupLabels, Gauge>,
    queued: Gauge,
    queued_most: Gauge,
    broken: Gauge,
    free: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
    topic: String,
    partition: PartitionId,
}

/// A group's distance from the end of a partition.
pub(crate) struct Distance {
    topic: TopicName,
    partition: PartitionId,
    pub(crate) lag: u64,
    pub(crate) in_flight: u64,
    pub(crate) waiting: u64,
}

impl Observed {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("group_lag", "Records of a partition that a group has not done", self.lag.clone());
        registry.register("group_in_flight", "Records out with members of a queue group", self.in_flight.clone());
        registry.register("group_waiting", "Records that wait to be delivered again", self.waiting.clone());
        registry.register("append_queue", "Batches that wait to be written or synced", self.queued.clone());
        registry.register(
            "append_queue_longest",
            "Batches that wait in the partition with the longest queue",
            self.queued_most.clone(),
        );
        registry.register("partitions_broken", "Partitions that take no writes or are offline", self.broken.clone());
        registry.register("disk_free_bytes", "Bytes free on the data directory's disk", self.free.clone());
    }
}

impl Broker {
    /// Sets the gauges that are only set when somebody asks. Blocks for as long as a few locks take, and one question to
    /// the file system.
    pub fn refresh_metrics(&self) {
        let observed = &self.metrics.observed;
        let topics: Vec<Arc<Topic>> =
            self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let logs = topics.iter().flat_map(|topic| &topic.partitions);
        let depths = logs.map(|partition| partition.log().map_or(0, |log| log.queued() as i64));
        let (sum, most) = depths.fold((0, 0), |(sum, most), depth| (sum + depth, depth.max(most)));
        observed.queued.set(sum);
        observed.queued_most.set(most);
        observed.broken.set(broken(&topics).len() as i64);
        observed.free.set(self.disk_free_bytes().map_or(-1, |free| i64::try_from(free).unwrap_or(i64::MAX)));
        for family in [&observed.lag, &observed.in_flight, &observed.waiting] {
            family.clear();
        }
        for entry in self.list_groups() {
            for at in self.distances(&entry, &topics) {
                let labels =
                    GroupLabels { group: entry.name.to_string(), topic: at.topic.to_string(), partition: at.partition };
                let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                observed.lag.get_or_create(&labels).set(gauge(at.lag));
                if matches!(entry.kind, GroupKind::Queue(_)) {
                    observed.in_flight.get_or_create(&labels).set(gauge(at.in_flight));
                    observed.waiting.get_or_create(&labels).set(gauge(at.waiting));
                }
            }
        }
    }

    /// Partitions that take no writes: their topic, number and state.
    pub async fn broken_partitions(self: &Arc<Self>) -> Vec<(TopicName, PartitionId, String)> {
        let broker = Arc::clone(self);
        blocking(move || {
            let topics: Vec<Arc<Topic>> =
                broker.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            broken(&topics)
        })
        .await
    }

    pub(crate) fn distances(&self, entry: &GroupEntry, topics: &[Arc<Topic>]) -> Vec<Distance> {
        if let Ok(in_use) = self.distances_in_use(entry) {
            return in_use;
        }
        let kept: BTreeMap<_, Progress> =
            lock(&self.catalog).all_progress(&entry.name).map(|(at, progress)| (*at, progress.clone())).collect();
        let mut distances = Vec::new();
        for topic in topics {
            let wanted = matches!(entry.kind, GroupKind::Queue(_))
                && entry.topics.iter().any(|pattern| pattern.matches(&topic.entry.name));
            for partition in &topic.partitions {
                let progress = kept.get(&(topic.entry.id, partition.number));
                let Ok(log) = partition.log() else { continue };
                if progress.is_none() && !wanted {
                    continue;
                }
                let (start, end) = log.with(|log| (log.start_offset(), log.stable_end()));
                let floor = progress.and_then(|progress| progress.position.as_ref()).map_or(0, |at| at.offset);
                let lag = end.saturating_sub(floor.max(start)).saturating_sub(progress.map_or(0, done_above));
                let (topic, partition) = (topic.entry.name.clone(), partition.number);
                distances.push(Distance { topic, partition, lag, in_flight: 0, waiting: 0 });
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
            let Ok(end) = topic.partition(number).and_then(|found| Ok(found.log()?.with(|log| log.stable_end())))
            else {
                continue;
            };
            let machine = lock(&partition.machine);
            let counts = machine.counts();
            let beyond = end.saturating_sub(machine.cursor()).saturating_sub(machine.known_done_below(end));
            distances.push(Distance {
                topic: partition.topic.clone(),
                partition: number,
                lag: counts.leased + counts.waiting + beyond,
                in_flight: counts.leased,
                waiting: counts.waiting,
            });
        }
        Ok(distances)
    }
}

fn done_above(progress: &Progress) -> Offset {
    progress.chunks.values().flat_map(|chunk| &chunk.done).map(|(_, count)| u64::from(*count)).sum()
}

fn broken(topics: &[Arc<Topic>]) -> Vec<(TopicName, PartitionId, String)> {
    let mut broken = Vec::new();
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        let state = match partition.log() {
            Ok(log) => log.with(|log| log.poisoned().map(|why| format!("takes no writes: {why}"))),
            Err(error) => Some(error.to_string()),
        };
        if let Some(state) = state {
            broken.push((partition.topic.clone(), partition.number, state));
        }
    }
    broken
}
