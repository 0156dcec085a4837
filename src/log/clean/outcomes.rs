//! What compaction knows of transactions. All that have batches where it works have ended: those that were aborted count as
//! never written, the others as any record.
//!
//! A marker is kept for as long as a batch of its transaction stays, be it an empty one: without it the transaction would be
//! open for whoever reads the log without a checkpoint. One that goes takes along what the log knows of an aborted
//! transaction, in the same moment, so readers are never told of one whose end they will not meet.

use std::collections::{HashMap, HashSet};

use crate::base::{Offset, ProducerId};
use crate::record::BatchHeader;

use super::super::checkpoint::SealedSegment;
use super::super::transactions::Aborted;

/// The aborted transactions of a log.
#[derive(Default)]
pub(super) struct AbortedOnes {
    /// Where they begin and where their markers are, in order.
    by_producer: HashMap<ProducerId, Vec<(Offset, Offset)>>,
    /// The markers, in order, with the lowest beginning of it and all behind.
    reach: Vec<(Offset, Offset)>,
}

impl AbortedOnes {
    pub(super) fn new(aborted: Vec<Aborted>) -> Self {
        let mut ones = Self::default();
        for Aborted { producer, first, marker, .. } in aborted {
            ones.by_producer.entry(producer).or_default().push((first, marker));
            ones.reach.push((marker, first));
        }
        ones.reach.sort_unstable();
        let mut lowest = Offset::MAX;
        for (_, first) in ones.reach.iter_mut().rev() {
            lowest = lowest.min(*first);
            *first = lowest;
        }
        ones
    }

    /// Whether a batch was part of one.
    pub(super) fn hold(&self, batch: &BatchHeader) -> bool {
        let Some(ranges) = self.by_producer.get(&batch.producer_id).filter(|_| batch.is_transactional()) else {
            return false;
        };
        let after = ranges.partition_point(|(first, _)| *first <= batch.base_offset);
        after > 0 && batch.base_offset < ranges[after - 1].1
    }

    /// Whether there may be batches of one in a segment.
    pub(super) fn reach_into(&self, info: &SealedSegment) -> bool {
        let after = self.reach.partition_point(|(marker, _)| *marker < info.base_offset);
        self.reach.get(after).is_some_and(|(_, lowest)| *lowest < info.next_offset)
    }
}

/// What was met on the way through the segments, from the front.
#[derive(Default, Clone)]
pub(super) struct Met {
    /// Producers of which a batch stays whose transaction's marker has not been met.
    open: HashSet<ProducerId>,
    /// A segment was passed over: anything may lie in it.
    passed_over: bool,
    /// Producers of which a marker was met since.
    marked: HashSet<ProducerId>,
}

impl Met {
    /// A segment is not looked into.
    pub(super) fn pass_over(&mut self) {
        self.passed_over = true;
        self.marked.clear();
    }

    /// A batch stays.
    pub(super) fn stays(&mut self, batch: &BatchHeader) {
        if batch.is_transactional() && !batch.is_control() {
            self.open.insert(batch.producer_id);
        }
    }

    /// A marker; whether it may go, because nothing of its transaction stays.
    pub(super) fn ends(&mut self, producer: ProducerId) -> bool {
        let all_seen = !self.passed_over || !self.marked.insert(producer);
        !self.open.remove(&producer) && all_seen
    }
}
