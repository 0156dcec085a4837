//! De-duplication of producer retries, by Kafka's rules (ProducerStateEntry of the Kafka broker): the last five batches
//! of every producer are remembered; one that comes again is answered with its first offset and not appended.

use std::collections::{HashMap, VecDeque};

use crate::base::{Offset, ProducerEpoch, ProducerId, TimestampMs, limits};
use crate::record::{BatchHeader, Marker};

use super::LogError;
use super::keys::{Keys, is_key};
use super::transactions::Transactions;

/// One batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: Offset,
    pub(crate) last_offset: Offset,
}

/// What is remembered of one producer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProducerState {
    pub(crate) epoch: ProducerEpoch,
    /// When it last appended, for forgetting it.
    pub(crate) last_ms: TimestampMs,
    pub(crate) batches: VecDeque<ProducerBatch>,
    /// Where its transaction begins, while one is open.
    pub(crate) open_from: Option<Offset>,
}

/// What a batch is to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be appended.
    New,
    /// In the log already.
    Duplicate(ProducerBatch),
}

/// The producers of one log, and the idempotency keys, which are producers of one batch with places of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Producers {
    pub(crate) states: HashMap<ProducerId, ProducerState>,
    pub(crate) keys: Keys,
    pub(crate) transactions: Transactions,
}

impl Producers {
    /// Judges a batch; changes nothing.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Verdict, LogError> {
        let (id, epoch, first) = (header.producer_id, header.producer_epoch, header.base_sequence);
        if id < 0 || header.is_control() {
            return Ok(Verdict::New);
        }
        if is_key(id) {
            return self.keys.check(header);
        }
        // Nothing known (never seen, forgotten, or cut away): any sequence is taken, as in Kafka.
        let Some(state) = self.states.get(&id) else { return Ok(Verdict::New) };
        if epoch < state.epoch {
            return Err(LogError::FencedProducer { id, epoch, current: state.epoch });
        }
        if epoch > state.epoch {
            return if first == 0 {
                Ok(Verdict::New)
            } else {
                Err(LogError::OutOfOrderSequence { id, epoch, got: first, expected: 0 })
            };
        }
        if let Some(first) = state.open_from.filter(|_| !header.is_transactional()) {
            return Err(LogError::OpenTransaction { id, first });
        }
        let last = header.last_sequence();
        if let Some(batch) =
            state.batches.iter().find(|batch| batch.first_sequence == first && batch.last_sequence == last)
        {
            return Ok(Verdict::Duplicate(*batch));
        }
        match state.batches.back() {
            None => Ok(Verdict::New),
            Some(batch) => {
                let expected = next_sequence(batch.last_sequence);
                if first == expected {
                    Ok(Verdict::New)
                } else {
                    Err(LogError::OutOfOrderSequence { id, epoch, got: first, expected })
                }
            }
        }
    }

    /// Remembers a batch that lies in the log, and what it marks, if it is one that does. Batches come in log order.
    /// Returns for how many milliseconds a producer had been idle that was forgotten for it, if one was.
    pub(crate) fn remember(
        &mut self,
        header: &BatchHeader,
        marker: Option<Marker>,
        now_ms: TimestampMs,
    ) -> Option<u64> {
        if header.producer_id < 0 {
            return None;
        }
        if header.is_control() {
            self.end_transaction(header, marker, now_ms);
            return None;
        }
        if is_key(header.producer_id) {
            self.keys.remember(header, now_ms);
            return None;
        }
        let mut forgotten = None;
        if !self.states.contains_key(&header.producer_id) && self.states.len() >= limits::PRODUCERS_PER_PARTITION {
            // What routes have written must be known for sure, or it would be written again.
            // So must it where an open transaction begins.
            let others =
                self.states.iter().filter(|(id, of)| **id < limits::OWN_PRODUCER_IDS && of.open_from.is_none());
            let idlest = others.min_by_key(|(id, state)| (state.last_ms, **id)).map(|(id, _)| *id);
            let gone = idlest.and_then(|id| self.states.remove(&id));
            forgotten = gone.map(|gone| u64::try_from(now_ms.saturating_sub(gone.last_ms)).unwrap_or(0));
        }
        let state = self.states.entry(header.producer_id).or_default();
        if header.producer_epoch != state.epoch {
            state.batches.clear();
            state.epoch = header.producer_epoch;
        }
        state.last_ms = now_ms;
        if header.is_transactional() && state.open_from.is_none() {
            state.open_from = Some(header.base_offset);
            self.transactions.open.insert(header.base_offset);
        }
        if state.batches.len() >= limits::PRODUCER_BATCHES {
            state.batches.pop_front();
        }
        state.batches.push_back(ProducerBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        });
        forgotten
    }

    /// The producer goes on with its sequence numbers after a marker, unless that has a newer epoch.
    fn end_transaction(&mut self, header: &BatchHeader, marker: Option<Marker>, now_ms: TimestampMs) {
        let (Some(marker), Some(state)) = (marker, self.states.get_mut(&header.producer_id)) else { return };
        if header.producer_epoch > state.epoch {
            state.batches.clear();
            state.epoch = header.producer_epoch;
        }
        state.last_ms = now_ms;
        if let Some(first) = state.open_from.take() {
            self.transactions.end(header.producer_id, first, header.base_offset, marker);
        }
    }

    /// What has to be known to undo [`Producers::remember`].
    pub(crate) fn before(&self, header: &BatchHeader) -> Before {
        let id = header.producer_id;
        Before { id, state: self.states.get(&id).cloned(), aborted: self.transactions.aborted.len() }
    }

    /// Takes back what was remembered since; the latest first.
    pub(crate) fn undo(&mut self, before: Before) {
        let Before { id, state, aborted } = before;
        if is_key(id) {
            return self.keys.undo(id);
        }
        let open = |state: Option<&ProducerState>| state.and_then(|state| state.open_from);
        if let Some(first) = open(self.states.get(&id)) {
            self.transactions.open.remove(&first);
        }
        self.transactions.open.extend(open(state.as_ref()));
        self.transactions.aborted.truncate(aborted);
        match state {
            Some(state) => self.states.insert(id, state),
            None => self.states.remove(&id),
        };
    }
}

/// A producer as it was before a batch.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) id: ProducerId,
    state: Option<ProducerState>,
    aborted: usize,
}

/// The sequence number after `sequence`; wraps from `i32::MAX` to 0.
pub(crate) fn next_sequence(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}
