//! Transactions and producers, seen from outside.

use crate::base::{Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicName};
use crate::catalog::{TransactionEntry, TransactionPhase};
use crate::log::ProducerInLog;

use super::super::broker::lock;
use super::super::{Broker, BrokerError};

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
        let entry = lock(&self.transactions.machine).entry(id).cloned();
        entry.map(|entry| self.look_at(entry))
    }

    /// All transactional ids, by name.
    pub fn transactions(&self) -> Vec<TransactionLook> {
        let entries: Vec<TransactionEntry> = lock(&self.transactions.machine).entries().cloned().collect();
        entries.into_iter().map(|entry| self.look_at(entry)).collect()
    }

    /// Transactions that have begun and not ended, and transactional ids.
    pub(crate) fn transaction_counts(&self) -> (usize, usize) {
        let over = [TransactionPhase::Empty, TransactionPhase::Committed, TransactionPhase::Aborted];
        let machine = lock(&self.transactions.machine);
        let open = machine.entries().filter(|entry| !over.contains(&entry.phase)).count();
        (open, machine.entries().count())
    }

    fn look_at(&self, entry: TransactionEntry) -> TransactionLook {
        let named = |(topic, partition)| Some((self.topic_named(topic)?, partition));
        TransactionLook {
            partitions: entry.partitions.into_iter().filter_map(named).collect(),
            id: entry.id,
            producer: entry.producer,
            epoch: entry.epoch,
            timeout_ms: entry.timeout_ms,
            phase: entry.phase,
            started_ms: entry.started_ms,
        }
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
