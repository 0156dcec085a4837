//! A record that is done and is to come again, to this group only.

use crate::base::{Offset, TimestampMs};
use crate::catalog::{CHUNK_OFFSETS, Processed};

use super::{Machine, Span, State};

/// When a record is due that comes again as soon as that is kept.
const HELD: TimestampMs = TimestampMs::MAX;

/// Chunks that may have to be kept because the floor goes back, at most: about 16.7 million offsets.
pub(crate) const FURTHEST_CHUNKS: u64 = 4096;

/// Why a record does not come again: so much would have to be kept, or it is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

impl Machine {
    /// A record that is done comes again, as if it had never been delivered; but not before [`Machine::let_go`], so that it can be
    /// kept first, or taken back. `false` if it is not done, and so comes anyway.
    ///
    /// # Errors
    /// It lies too far below the floor; too many records are not done.
    pub(crate) fn reopen(&mut self, offset: Offset, key: Option<u64>) -> Result<bool, TooMuch> {
        if !self.is_done(offset) {
            return Ok(false);
        }
        let floor = self.floor();
        if !self.has_room() || (floor / CHUNK_OFFSETS).saturating_sub(offset / CHUNK_OFFSETS) > FURTHEST_CHUNKS {
            return Err(TooMuch);
        }
        self.endings.forget(offset);
        if offset >= self.cursor {
            // The cursor has yet to come to it.
            let known = self.known_done.range(..=offset).next_back().map(|(from, to)| (*from, *to));
            if let Some((from, to)) = known {
                self.known_done.remove(&from);
                let around = [(from, offset), (offset + 1, to)];
                self.known_done.extend(around.into_iter().filter(|(from, to)| from < to));
            }
            self.touch(offset, offset + 1);
            return Ok(true);
        }
        let mut state = State::Waiting { due: HELD };
        if let Some(key) = key {
            match self.keys.entry(key) {
                std::collections::hash_map::Entry::Occupied(mut others) => {
                    others.get_mut().push_back(offset);
                    state = State::Blocked { due: Some(HELD) };
                }
                std::collections::hash_map::Entry::Vacant(vacant) => drop(vacant.insert(Default::default())),
            }
        }
        // What is done between it and the floor was kept by the floor alone.
        self.touch(offset, floor.max(offset + 1));
        self.put(offset, Span { end: offset + 1, failed: 0, state, key });
        Ok(true)
    }

    /// It is kept that a record comes again.
    pub(crate) fn let_go(&mut self, offset: Offset, now: TimestampMs) {
        for (from, span) in self.carve(offset, offset + 1) {
            let state = match span.state {
                State::Waiting { due: HELD } => State::Waiting { due: now },
                State::Blocked { due: Some(HELD) } => State::Blocked { due: None },
                state => state,
            };
            self.put(from, Span { state, ..span });
        }
    }

    /// It could not be kept that a record comes again: it is done, as it was.
    pub(crate) fn take_back(&mut self, offset: Offset, now: TimestampMs) {
        let blocked = self.spans.get(&offset).filter(|span| matches!(span.state, State::Blocked { .. }));
        if let Some(others) = blocked.and_then(|span| span.key).and_then(|key| self.keys.get_mut(&key)) {
            // It is not its turn: whose turn it is does not change.
            others.retain(|other| *other != offset);
            let cut = self.carve(offset, offset + 1);
            cut.iter().for_each(|(from, span)| self.touch(*from, span.end));
            self.endings.add(offset, offset + 1, Processed::DeadLettered);
            return;
        }
        self.mark_done(offset, Processed::DeadLettered, now);
    }
}
