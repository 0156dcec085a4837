//! Transactions and producers, seen from outside.

use std::sync::Arc;

use crate::base::{GroupName, Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicName};
use crate::catalog::{TransactionClient, TransactionEntry, TransactionPhase};
use crate::log::ProducerInLog;

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError};

/// Ids that are looked at under one lock.
const LOOKED_AT: usize = 4_096;

/// A transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionLook {
    /// The id.
    pub id: String,
    /// The producer id that it has.
    pub producer: ProducerId,
    /// The epoch that counts.
    pub epoch: ProducerEpoch,
    /// How long a transaction may be open, in milliseconds.
    pub timeout_ms: u64,
    /// How far it has come.
    pub phase: TransactionPhase,
    /// When the transaction began, in milliseconds since the Unix epoch; −1 before the first one.
    pub started_ms: TimestampMs,
    /// The partitions that it may have written to.
    pub partitions: Vec<(TopicName, PartitionId)>,
    /// The groups whose positions it commits.
    pub groups: Vec<GroupName>,
    /// When anything of the id changed last.
    pub updated_ms: TimestampMs,
    /// How long the transaction has been open, in milliseconds, if one is.
    pub age_ms: Option<u64>,
    /// How long it may still be open.
    pub left_ms: Option<u64>,
    /// The client that asked for the id last.
    pub client: TransactionClient,
}

/// What there is to measure of transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionCounts {
    pub(crate) ids: usize,
    pub(crate) most_ids: usize,
    pub(crate) open: usize,
    pub(crate) crowded_out: u64,
    pub(crate) oldest_ms: u64,
}

/// A producer that a partition remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerLook {
    /// Its id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence number of its last record, −1 if none is remembered.
    pub last_sequence: i32,
    /// When it wrote last.
    pub last_ms: TimestampMs,
    /// Where its open transaction begins.
    pub open_from: Option<Offset>,
}

impl Broker {
    /// What is known of a transactional id.
    pub fn transaction(&self, id: &str) -> Option<TransactionLook> {
        let now = super::now(self.clock.as_ref());
        let machine = lock(&self.transactions.machine);
        let entry = machine.entry(id).cloned()?;
        let times = machine.times(id, now);
        drop(machine);
        Some(self.look_at(entry, times))
    }

    /// So many transactional ids behind one, by name, that are as wanted by their entry and the age of their open transaction;
    /// and whether there are more. Only what is wanted is copied. Blocks: it is a look at every id, some thousands of them at
    /// a time under the lock that producers need.
    pub fn transactions_where(
        &self,
        after: Option<&str>,
        most: usize,
        wanted: impl Fn(&TransactionEntry, Option<u64>) -> bool,
    ) -> (Vec<TransactionLook>, bool) {
        let now = super::now(self.clock.as_ref());
        let mut found = Vec::new();
        let mut after = after.map(str::to_owned);
        loop {
            let machine = lock(&self.transactions.machine);
            let (mut seen, mut last) = (0, None);
            for entry in machine.entries_after(after.as_deref()).take(LOOKED_AT) {
                (seen, last) = (seen + 1, Some(&entry.id));
                let times = machine.times(&entry.id, now);
                if wanted(entry, times.map(|(age_ms, _)| age_ms)) {
                    found.push((entry.clone(), times));
                }
            }
            after = last.cloned();
            drop(machine);
            if seen < LOOKED_AT || found.len() > most {
                break;
            }
        }
        let more = found.len() > most;
        found.truncate(most);
        (found.into_iter().map(|(entry, times)| self.look_at(entry, times)).collect(), more)
    }

    /// As [`Broker::transactions_where`], all of them and away from the runtime's threads.
    pub async fn transactions(
        self: &Arc<Self>,
        wanted: impl Fn(&TransactionEntry, Option<u64>) -> bool + Send + 'static,
    ) -> Vec<TransactionLook> {
        let broker = Arc::clone(self);
        blocking(move || broker.transactions_where(None, usize::MAX, wanted).0).await
    }

    /// What there is to measure: transactions that have begun and not ended, ids, ids that were forgotten to make room for
    /// others, and the age of the oldest open transaction in milliseconds.
    pub(crate) fn transaction_counts(&self) -> TransactionCounts {
        let now = super::now(self.clock.as_ref());
        let machine = lock(&self.transactions.machine);
        let (ids, open, crowded_out) = machine.counts();
        TransactionCounts { ids, most_ids: machine.most_ids(), open, crowded_out, oldest_ms: machine.oldest_ms(now) }
    }

    fn look_at(&self, entry: TransactionEntry, times: Option<(u64, u64)>) -> TransactionLook {
        let named = |(topic, partition)| Some((self.topic_named(topic)?, partition));
        TransactionLook {
            partitions: entry.partitions.into_iter().filter_map(named).collect(),
            groups: entry.groups,
            id: entry.id,
            producer: entry.producer,
            epoch: entry.epoch,
            timeout_ms: entry.timeout_ms,
            phase: entry.phase,
            started_ms: entry.started_ms,
            updated_ms: entry.updated_ms,
            age_ms: times.map(|(age_ms, _)| age_ms),
            left_ms: times.map(|(_, left_ms)| left_ms),
            client: entry.client,
        }
    }

    /// Where the transaction of a producer begins in these partitions, in their order; none where it has written nothing.
    pub fn first_offsets(&self, producer: ProducerId, at: &[(TopicName, PartitionId)]) -> Vec<Option<Offset>> {
        let first = |(topic, number): &(TopicName, PartitionId)| {
            let topic = self.topic_of(topic).ok()?;
            let open = topic.partition(*number).ok()?.log().ok()?.with(|log| log.open_transactions());
            open.into_iter().find(|open| open.producer == producer).map(|open| open.first)
        };
        at.iter().map(first).collect()
    }

    /// The producers that a partition remembers, by their ids.
    ///
    /// # Errors
    /// No such topic or partition, or it is offline.
    pub fn producers(&self, topic: &str, partition: PartitionId) -> Result<Vec<ProducerLook>, BrokerError> {
        let topic = self.topic(topic)?;
        let known = topic.partition(partition)?.log()?.with(|log| log.producers());
        Ok(known
            .into_iter()
            .map(|ProducerInLog { id, epoch, last_sequence, last_ms, open_from }| ProducerLook {
                producer: id,
                epoch,
                last_sequence,
                last_ms,
                open_from,
            })
            .collect())
    }
}
