//! Records that are done without a delivery, since an operator says so.

use crate::base::{Offset, TimestampMs};
use crate::catalog::Processed;

use super::{BURIAL, MAX_SPANS, Machine, State};

/// Why a record is not skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSkipped {
    Done,
    Burying,
    Full,
}

impl Machine {
    /// A record that is not done is done without a delivery. If a member has it, what that says of it later counts for nothing.
    ///
    /// # Errors
    /// It is done, it is being written as a dead letter, or too many are known to be done behind the cursor.
    pub(crate) fn skip(&mut self, offset: Offset, now: TimestampMs) -> Result<(), NotSkipped> {
        let span = self.spans.range(..=offset).next_back().map(|(_, span)| *span).filter(|span| span.end > offset);
        match span.map(|span| span.state) {
            _ if self.is_done(offset) => return Err(NotSkipped::Done),
            Some(State::Leased { member: BURIAL, .. }) => return Err(NotSkipped::Burying),
            None if self.known_done.len() >= MAX_SPANS => return Err(NotSkipped::Full),
            // It is not its turn: whose turn it is does not change.
            Some(State::Blocked { .. }) => {
                self.endings.add(offset, offset + 1, Processed::Skipped);
                for (from, span) in self.carve(offset, offset + 1) {
                    if let Some(others) = span.key.and_then(|key| self.keys.get_mut(&key)) {
                        others.retain(|other| *other != offset);
                    }
                    self.touch(from, span.end);
                }
            }
            _ => self.mark_done(offset, Processed::Skipped, now),
        }
        Ok(())
    }
}
