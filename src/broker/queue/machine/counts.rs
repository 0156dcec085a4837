//! How many records are in which state.

use std::collections::HashMap;

use super::{Counts, Machine, MemberId, RELEASED, Span, State};
use crate::base::Offset;

impl Machine {
    /// Those that are out, and those that wait.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (from, span) in &self.spans {
            match span.state {
                State::Leased { .. } => counts.leased += span.end - from,
                State::Waiting { .. } | State::Blocked { .. } => counts.waiting += span.end - from,
            }
        }
        counts
    }

    /// Records that wait until their time has come.
    pub(crate) fn delayed(&self) -> u64 {
        self.dues.iter().filter_map(|(_, from)| Some(self.spans.get(from)?.end - from)).sum()
    }

    /// Records at or above the cursor and below `end` that are done, as was read at the start.
    pub(crate) fn known_done_below(&self, end: Offset) -> u64 {
        self.known_done.range(..end).map(|(from, to)| to.min(&end) - from).sum()
    }

    /// Nobody is to settle anything here any more: nobody has a record out. By how much those of each member shrink.
    pub(crate) fn abandon(&mut self) -> HashMap<MemberId, i64> {
        let leased = |span: &Span| matches!(span.state, State::Leased { .. });
        let held: Vec<Offset> = self.spans.iter().filter(|(_, span)| leased(span)).map(|(from, _)| *from).collect();
        for from in held {
            if let Some(span) = self.take(from) {
                self.put(from, Span { state: State::Waiting { due: RELEASED }, ..span });
            }
        }
        self.take_out()
    }
}
