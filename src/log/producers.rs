//! De-duplication of producer retries, by Kafka's rules (ProducerStateEntry of the Kafka broker): the last five batches
//! of every producer are remembered; one that comes again is answered with its first offset and not appended.

use std::collections::{HashMap, VecDeque};

use crate::base::{Offset, ProducerEpoch, ProducerId, TimestampMs, limits};
use crate::record::BatchHeader;

use super::LogError;

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
}

/// What a batch is to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be appended.
    New,
    /// In the log already.
    Duplicate(ProducerBatch),
}

/// The producers of one log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Producers {
    pub(crate) states: HashMap<ProducerId, ProducerState>,
}

impl Producers {
    /// Judges a batch; changes nothing.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Verdict, LogError> {
        let (id, epoch, first) = (header.producer_id, header.producer_epoch, header.base_sequence);
        if id < 0 {
            return Ok(Verdict::New);
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

    /// Remembers a batch that lies in the log. Batches come in log order.
    pub(crate) fn remember(&mut self, header: &BatchHeader, now_ms: TimestampMs) {
        if header.producer_id < 0 {
            return;
        }
        if !self.states.contains_key(&header.producer_id) && self.states.len() >= limits::PRODUCERS_PER_PARTITION {
            // What routes have written must be known for sure, or it would be written again.
            let others = self.states.iter().filter(|(id, _)| **id < limits::OWN_PRODUCER_IDS);
            let idlest = others.min_by_key(|(id, state)| (state.last_ms, **id)).map(|(id, _)| *id);
            idlest.and_then(|id| self.states.remove(&id));
        }
        let state = self.states.entry(header.producer_id).or_default();
        if header.producer_epoch != state.epoch {
            state.batches.clear();
            state.epoch = header.producer_epoch;
        }
        state.last_ms = now_ms;
        if state.batches.len() >= limits::PRODUCER_BATCHES {
            state.batches.pop_front();
        }
        state.batches.push_back(ProducerBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        });
    }
}

/// The sequence number after `sequence`; wraps from `i32::MAX` to 0.
pub(crate) fn next_sequence(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}
