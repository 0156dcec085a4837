//! What was deleted before it was done, as ranges of offsets, as far as is remembered.

use std::collections::BTreeMap;

use crate::base::Offset;

/// Ranges that are remembered, for those who ask what became of records.
const REMEMBERED: usize = 10_000;

/// The ranges: where each begins and ends.
#[derive(Debug, Default)]
pub(super) struct Gone(BTreeMap<Offset, Offset>);

impl Gone {
    pub(super) fn add(&mut self, from: Offset, to: Offset) {
        if from >= to {
            return;
        }
        match self.0.last_entry() {
            Some(mut last) if *last.get() == from => *last.get_mut() = to,
            _ => drop(self.0.insert(from, to)),
        }
        if self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
    }

    pub(super) fn contains(&self, offset: Offset) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, end)| *end > offset)
    }
}
