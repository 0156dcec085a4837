//! Which partitions open transactions hold up: readers of what is committed stop where the first open one begins.

use std::sync::Arc;

use crate::base::{Offset, PartitionId, ProducerId, TimestampMs, TopicName};

use super::super::Broker;
use super::super::broker::lock;
use super::super::partition::Topic;

/// A transaction that holds up readers for so long, in milliseconds, is reported in the log.
const LONG_MS: u64 = 60_000;

/// A partition with records that readers of what is committed do not see yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Where the first open transaction begins: readers stop here.
    pub from: Offset,
    /// Offsets between there and the stable end.
    pub records: u64,
    /// The producer that has it open.
    pub producer: ProducerId,
    /// Its transactional id; none if the transaction is known to this partition alone.
    pub transaction: Option<String>,
    /// When the transaction began, in milliseconds since the Unix epoch.
    pub since_ms: Option<TimestampMs>,
    /// How long it has been open, in milliseconds.
    pub age_ms: Option<u64>,
}

impl Broker {
    /// The partitions of these topics that are held up. A lock for each log, one after the other.
    pub(crate) fn held_in(&self, topics: &[Arc<Topic>]) -> Vec<Held> {
        let mut held = Vec::new();
        for partition in topics.iter().flat_map(|topic| &topic.partitions) {
            let Ok(log) = partition.log() else { continue };
            let open = log.with(|log| {
                let (committed, stable) = (log.committed_end(), log.stable_end());
                let first = if committed < stable { log.open_transactions().into_iter().next() } else { None };
                first.map(|first| (first.producer, committed, stable - committed))
            });
            if let Some((producer, from, records)) = open {
                let (topic, partition) = (partition.topic.clone(), partition.number);
                let (transaction, since_ms, age_ms) = (None, None, None);
                held.push(Held { topic, partition, from, records, producer, transaction, since_ms, age_ms });
            }
        }
        let now = super::now(self.clock.as_ref());
        let machine = lock(&self.transactions.machine);
        for of in &mut held {
            let Some(id) = machine.id_of(of.producer) else { continue };
            let Some((age_ms, _)) = machine.times(id, now) else { continue };
            of.transaction = Some(id.to_owned());
            of.since_ms = machine.entry(id).map(|entry| entry.started_ms);
            of.age_ms = Some(age_ms);
        }
        drop(machine);
        held
    }

    /// The partitions that are held up, of these topics, or of all if none are named; by topic and number. Blocks.
    pub fn held(&self, topics: &[TopicName]) -> Vec<Held> {
        let wanted = |topic: &Arc<Topic>| topics.is_empty() || topics.contains(&topic.entry.name);
        let topics: Vec<_> = self.all_topics().into_iter().filter(wanted).collect();
        let mut held = self.held_in(&topics);
        held.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        held
    }

    /// Reports transactions that hold up readers for long, each of them once.
    pub(super) fn report_held(&self) {
        let now = super::now(self.clock.as_ref());
        let long = lock(&self.transactions.machine).long_open(LONG_MS, now);
        for open in long {
            let found = open.partitions.iter().find_map(|(id, partition)| {
                let topic = self.topic_of(&self.topic_named(*id)?).ok()?;
                let log = topic.partition(*partition).ok()?.log().ok()?;
                let (from, end) = log.with(|log| (log.committed_end(), log.stable_end()));
                let own = || log.with(|log| log.open_transactions().first().map(|open| open.producer));
                (from < end && own() == Some(open.producer)).then(|| (topic.entry.name.clone(), *partition, from, end))
            });
            let Some((topic, partition, from, end)) = found else { continue };
            tracing::warn!(
                id = open.id, producer = open.producer, age_ms = open.age_ms, started_ms = open.started_ms, %topic,
                partition, from, records = end - from,
                "a transaction is open for long and holds up readers; 'tidelog transaction abort' ends it"
            );
            lock(&self.transactions.machine).reported(&open.id);
        }
    }
}
