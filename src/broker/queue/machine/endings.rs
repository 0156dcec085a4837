//! What became of records that are done and were not acked, as ranges of offsets, as far as is remembered.

use std::collections::BTreeMap;

use crate::base::Offset;
use crate::catalog::Processed;

/// Ranges that are remembered, for those who ask what became of records.
const REMEMBERED: usize = 10_000;

/// The ranges: where each begins and ends, and what became of its records.
#[derive(Debug, Default)]
pub(super) struct Endings(BTreeMap<Offset, (Offset, Processed)>);

impl Endings {
    /// These are done, and no other ending is known of them.
    pub(super) fn add(&mut self, from: Offset, to: Offset, what: Processed) {
        if from >= to {
            return;
        }
        match self.0.range_mut(..=from).next_back() {
            Some((_, (end, ending))) if *end == from && *ending == what => *end = to,
            _ => drop(self.0.insert(from, (to, what))),
        }
        if self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
    }

    /// The record is not done any more.
    pub(super) fn forget(&mut self, offset: Offset) {
        let around = self.0.range(..=offset).next_back().map(|(from, of)| (*from, *of));
        if let Some((from, (end, what))) = around.filter(|(_, (end, _))| *end > offset) {
            self.0.remove(&from);
            self.add(from, offset, what);
            self.add(offset + 1, end, what);
        }
    }

    pub(super) fn of(&self, offset: Offset) -> Option<Processed> {
        let (_, (end, ending)) = self.0.range(..=offset).next_back()?;
        (*end > offset).then_some(*ending)
    }
}
