//! What a log knows of transactions: which are open in it, and which were aborted.
//!
//! A transaction is open in a log from the first batch of a producer that is part of one to the marker that ends it; where
//! it begins is remembered with the producer ([`ProducerState::open_from`](super::producers::ProducerState)). Readers of
//! what is committed see up to where the first open one begins. Of those that were aborted the log remembers where they
//! began and where their marker is, for as long as the marker lies in it.
//!
//! All of it follows from the batches, in their order, and is part of the checkpoint.

use std::collections::BTreeSet;

use crate::base::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use crate::record::{BatchHeader, Marker};

use super::PartitionLog;
use super::producers::Producers;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Its producer.
    pub producer: ProducerId,
    /// Offset of its first record here.
    pub first: Offset,
    /// Offset of its marker: batches of the producer that are part of a transaction and lie between are of this one.
    pub marker: Offset,
    /// Where the first open transaction began when this one had ended: no later one began before that.
    pub(crate) stable: Offset,
}

impl Aborted {
    /// Whether a batch was part of it.
    pub fn holds(&self, batch: &BatchHeader) -> bool {
        batch.is_transactional()
            && !batch.is_control()
            && batch.producer_id == self.producer
            && (self.first..self.marker).contains(&batch.base_offset)
    }
}

/// The transactions of one log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Transactions {
    /// Where the open ones begin.
    pub(crate) open: BTreeSet<Offset>,
    /// Those that were aborted, by their markers.
    pub(crate) aborted: Vec<Aborted>,
}

impl Transactions {
    /// A producer's transaction, which began at `first`, ended with a marker at `marker`.
    pub(crate) fn end(&mut self, producer: ProducerId, first: Offset, marker: Offset, how: Marker) {
        self.open.remove(&first);
        if how == Marker::Abort {
            let stable = self.open.first().copied().unwrap_or(marker + 1);
            self.aborted.push(Aborted { producer, first, marker, stable });
        }
    }

    /// Forgets those whose markers lie before `offset`.
    pub(crate) fn forget_below(&mut self, offset: Offset) {
        let gone = self.aborted.partition_point(|aborted| aborted.marker < offset);
        self.aborted.drain(..gone);
    }

    /// Forgets those whose markers lie at these offsets, which are in order: nothing is left of them.
    pub(crate) fn forget_marked(&mut self, markers: &[Offset]) {
        if !markers.is_empty() {
            self.aborted.retain(|aborted| markers.binary_search(&aborted.marker).is_err());
        }
    }

    /// The aborted ones with batches from `from` on and before `to`, sorted by where they begin. All that begin before
    /// `to` have ended.
    fn between(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        let mut found = Vec::new();
        let first = self.aborted.partition_point(|aborted| aborted.marker < from);
        for aborted in &self.aborted[first..] {
            if aborted.first < to {
                found.push(*aborted);
            }
            if aborted.stable >= to {
                break;
            }
        }
        found.sort_by_key(|aborted| aborted.first);
        found
    }
}

/// A producer that a log remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerInLog {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence number of its last record, −1 if none is remembered.
    pub last_sequence: i32,
    /// When it wrote last.
    pub last_ms: TimestampMs,
    /// Where its open transaction begins.
    pub open_from: Option<Offset>,
}

/// A transaction that is open in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its producer.
    pub producer: ProducerId,
    /// The producer's epoch.
    pub epoch: ProducerEpoch,
    /// Offset of its first record here.
    pub first: Offset,
}

impl Producers {
    /// The transactions that are open.
    pub(crate) fn open(&self) -> impl Iterator<Item = OpenTransaction> {
        self.states.iter().filter_map(|(id, state)| {
            Some(OpenTransaction { producer: *id, epoch: state.epoch, first: state.open_from? })
        })
    }
}

impl PartitionLog {
    /// The end that readers of what is committed see: everything below it is stable, and no transaction is open there.
    pub fn committed_end(&self) -> Offset {
        let open = self.producers.transactions.open.first();
        // One may have begun before the log start if records were deleted by hand.
        open.map_or(self.stable_end(), |first| self.stable_end().min((*first).max(self.log_start)))
    }

    /// The aborted transactions that have records from `from` on and before `to`, which is at most the committed end;
    /// sorted by where they begin.
    pub fn aborted(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        self.producers.transactions.between(from, to)
    }

    /// Goes up when something of what [`PartitionLog::aborted`] tells is forgotten: batches that were read before may not
    /// be judged by what it tells after.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The producers that are remembered, by their ids.
    pub fn producers(&self) -> Vec<ProducerInLog> {
        let states = self.producers.states.iter();
        let mut producers: Vec<_> = states
            .map(|(id, state)| ProducerInLog {
                id: *id,
                epoch: state.epoch,
                last_sequence: state.batches.back().map_or(-1, |batch| batch.last_sequence),
                last_ms: state.last_ms,
                open_from: state.open_from,
            })
            .collect();
        producers.sort_by_key(|producer| producer.id);
        producers
    }

    /// The transactions that are open, as far as it is written.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        let mut open: Vec<_> = self.producers.open().collect();
        open.sort_by_key(|transaction| transaction.first);
        open
    }
}

#[cfg(test)]
mod tests;
