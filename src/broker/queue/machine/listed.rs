//! The records that are not done, one by one.

use crate::base::{Offset, TimestampMs};

use super::{BURIAL, CONDEMNED, Machine, MemberId, RELEASED, State};

/// A record that is not done, as the machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) offset: Offset,
    /// Deliveries so far, the one under way included.
    pub(crate) attempt: u32,
    pub(crate) state: ListedState,
}

/// What a record that is not done waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListedState {
    /// For its member, until the lease ends.
    InHand { member: MemberId, deadline: TimestampMs },
    /// For its next delivery, after it has failed.
    BackingOff { due: TimestampMs },
    /// For the time that the record names.
    Delayed { due: TimestampMs },
    /// For another record of its key; and for a time behind that, if one is known.
    Blocked { due: Option<TimestampMs> },
    /// For a member with room.
    Due,
    /// To be written as a dead letter.
    Burying,
}

impl Machine {
    /// The records that are not done from an offset on, below the cursor and, of those above it, the ones that have failed before:
    /// so many at most. Takes time by their number, and not by that of the records that are done.
    pub(crate) fn listed(&self, from: Offset, most: usize, now: TimestampMs) -> Vec<Listed> {
        let mut found = Vec::new();
        let before = self.spans.range(..from).next_back().filter(|(_, span)| span.end > from);
        for (&at, span) in before.into_iter().chain(self.spans.range(from..)) {
            let dead = span.failed >= self.rules.max_deliveries;
            let leased = matches!(span.state, State::Leased { member, .. } if member != BURIAL);
            let failed = if span.failed == CONDEMNED { 0 } else { span.failed };
            let state = match span.state {
                State::Leased { member: BURIAL, .. } => ListedState::Burying,
                State::Leased { member, deadline } => ListedState::InHand { member, deadline },
                State::Blocked { due } => ListedState::Blocked { due: due.filter(|due| *due > now) },
                State::Waiting { .. } if dead => ListedState::Burying,
                State::Waiting { due } if due == RELEASED || due <= now => ListedState::Due,
                State::Waiting { due } if span.failed == 0 => ListedState::Delayed { due },
                State::Waiting { due } => ListedState::BackingOff { due },
            };
            for offset in at.max(from)..span.end {
                if found.len() >= most {
                    return found;
                }
                found.push(Listed { offset, attempt: failed + u32::from(leased), state });
            }
        }
        let known = self.known_failed.range(from.max(self.cursor)..).take(most.saturating_sub(found.len()));
        for (&offset, &(failed, due)) in known {
            let state = match failed {
                _ if failed >= self.rules.max_deliveries => ListedState::Burying,
                _ if due <= now => ListedState::Due,
                _ => ListedState::BackingOff { due },
            };
            let attempt = if failed == CONDEMNED { 0 } else { failed };
            found.push(Listed { offset, attempt, state });
        }
        found
    }
}
