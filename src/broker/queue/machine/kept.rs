//! What is to be kept of it on the disk: the floor, and what lies above it in chunks.

use crate::base::{Offset, TimestampMs};
use crate::catalog::{CHUNK_OFFSETS, Chunk, Failed};

use super::{Machine, State};

/// Something to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keep {
    Floor(Offset),
    Chunk(u64, Option<Chunk>),
}

impl Machine {
    /// Whether there is something to keep.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.kept_floor != Some(self.floor())
    }

    /// The floor is to be kept, though it has not moved.
    pub(crate) fn touch_floor(&mut self) {
        self.kept_floor = None;
    }

    /// What is to be kept, as of now; counts as kept from here on ([`Machine::not_kept`] takes that back).
    pub(crate) fn take_changes(&mut self, now: TimestampMs) -> Vec<Keep> {
        let floor = self.floor();
        let mut keep = Vec::new();
        for number in std::mem::take(&mut self.dirty).split_off(&(floor / CHUNK_OFFSETS)) {
            let chunk = self.chunk(number, floor, now);
            let empty = chunk.is_empty();
            if !empty {
                self.kept_chunks.insert(number);
            }
            if !empty || self.kept_chunks.remove(&number) {
                keep.push(Keep::Chunk(number, (!empty).then_some(chunk)));
            }
        }
        // The floor comes before the chunks below it go: whoever reads the one without the other loses nothing.
        if self.kept_floor != Some(floor) {
            keep.push(Keep::Floor(floor));
            self.kept_floor = Some(floor);
        }
        let above = self.kept_chunks.split_off(&(floor / CHUNK_OFFSETS));
        keep.extend(
            std::mem::replace(&mut self.kept_chunks, above).into_iter().map(|number| Keep::Chunk(number, None)),
        );
        keep
    }

    /// These could not be kept after all.
    pub(crate) fn not_kept(&mut self, keep: &[Keep]) {
        for keep in keep {
            match keep {
                Keep::Floor(_) => self.kept_floor = None,
                Keep::Chunk(number, chunk) => {
                    self.dirty.insert(*number);
                    if chunk.is_none() {
                        self.kept_chunks.insert(*number);
                    }
                }
            }
        }
    }

    fn chunk(&self, number: u64, floor: Offset, now: TimestampMs) -> Chunk {
        let (base, end) = (number * CHUNK_OFFSETS, (number + 1) * CHUNK_OFFSETS);
        // Lossless: distances within a chunk.
        let at = |offset: Offset| (offset - base) as u16;
        let mut chunk = Chunk::default();
        let mut reached = base.max(floor);
        let mut add = |from: Offset, to: Offset| match chunk.done.last_mut() {
            Some((begin, len)) if *begin + *len == at(from) => *len += (to - from) as u16,
            _ => chunk.done.push((at(from), (to - from) as u16)),
        };
        let before = self.spans.range(..base).next_back().filter(|(_, span)| span.end > base);
        for (&from, span) in before.into_iter().chain(self.spans.range(base..end)) {
            let (from, to) = (from.max(base), span.end.min(end));
            if from > reached {
                add(reached, from);
            }
            reached = reached.max(to);
            if span.failed > 0 {
                let due_ms = if let State::Waiting { due } = span.state { due } else { now };
                let failed = |offset| Failed { at: at(offset), deliveries: span.failed, due_ms };
                chunk.failed.extend((from..to).map(failed));
            }
        }
        if self.cursor.min(end) > reached {
            add(reached, self.cursor.min(end));
        }
        for (&from, &to) in self.known_done.range(..end).filter(|(_, to)| **to > base) {
            let (from, to) = (from.max(base).max(floor), to.min(end));
            if from < to {
                add(from, to);
            }
        }
        for (&offset, &(deliveries, due_ms)) in self.known_failed.range(base..end) {
            chunk.failed.push(Failed { at: at(offset), deliveries, due_ms });
        }
        chunk
    }
}
