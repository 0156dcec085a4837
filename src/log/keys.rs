//! Idempotency keys of HTTP requests, as a log remembers them: one batch for each key, in places of their own.
//!
//! A key is a producer id of the range from [`limits::KEY_PRODUCER_IDS`] up to the server's own. A key has one batch for ever:
//! the same sequence numbers again are that batch, others are refused. So 32 bytes are enough, where a producer takes 200.
//!
//! Who sends a request again does so within minutes. A log keeps every key for [`limits::KEY_PROMISE_MS`]: a new key for which
//! there is no place is refused rather than a younger one forgotten, because the request of a forgotten key would silently be
//! appended twice. The last [`limits::KEYS_KEPT`] keys stay, however old they are. Beyond those, a log takes places that all
//! logs of a server share ([`KeyPlaces`]), and gives them back when the promised time is over.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::base::{Offset, ProducerId, TimestampMs, limits};
use crate::record::BatchHeader;

use super::LogError;
use super::producers::{ProducerBatch, Verdict};

/// Whether a producer id stands for a key.
pub(crate) fn is_key(id: ProducerId) -> bool {
    (limits::KEY_PRODUCER_IDS..limits::OWN_PRODUCER_IDS).contains(&id)
}

/// The batch of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyBatch {
    appended_ms: TimestampMs,
    base_offset: Offset,
    first_sequence: i32,
    /// The offset of its last record, less that of the first.
    delta: u32,
}

impl KeyBatch {
    fn last_sequence(self) -> i32 {
        // As `BatchHeader::last_sequence`: wraps from the largest to 0.
        let last = i64::from(self.first_sequence) + i64::from(self.delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }

    fn batch(self) -> ProducerBatch {
        ProducerBatch {
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence(),
            base_offset: self.base_offset,
            last_offset: self.base_offset + u64::from(self.delta),
        }
    }

    fn age(self, now_ms: TimestampMs) -> u64 {
        u64::try_from(now_ms.saturating_sub(self.appended_ms)).unwrap_or(0)
    }
}

/// The keys of one log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Keys {
    known: HashMap<ProducerId, KeyBatch>,
    /// The same keys in the order of the log, which is that of their age.
    order: VecDeque<ProducerId>,
}

impl Keys {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether this one is known.
    pub(crate) fn knows(&self, id: ProducerId) -> bool {
        self.known.contains_key(&id)
    }

    /// How many of them lie in places that the logs of a server share.
    fn shared(&self, kept: usize) -> usize {
        self.len().saturating_sub(kept)
    }

    /// Every key with its batch and when that was appended, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, TimestampMs, ProducerBatch)> {
        self.order.iter().filter_map(|id| self.known.get(id).map(|key| (*id, key.appended_ms, key.batch())))
    }

    /// Judges the batch of a key; changes nothing.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Verdict, LogError> {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        if epoch != 0 {
            return Err(LogError::FencedProducer { id, epoch, current: 0 });
        }
        let Some(key) = self.known.get(&id) else { return Ok(Verdict::New) };
        let batch = key.batch();
        if (batch.first_sequence, batch.last_sequence) == (header.base_sequence, header.last_sequence()) {
            return Ok(Verdict::Duplicate(batch));
        }
        let (got, expected) = (header.base_sequence, batch.first_sequence);
        Err(LogError::OutOfOrderSequence { id, epoch, got, expected })
    }

    /// Makes a place for one more key.
    ///
    /// # Errors
    /// Every place is taken by a key that is younger than the promised time.
    pub(crate) fn make_place(&mut self, now_ms: TimestampMs, places: &KeyPlaces) -> Result<(), LogError> {
        if self.len() < places.kept {
            return Ok(());
        }
        let oldest = self.oldest().map_or(0, |key| key.age(now_ms));
        if oldest >= places.promise_ms {
            // Two for one, so that shared places go back while keys come.
            self.forget_one(now_ms, places);
            if self.len() >= places.kept && self.oldest().is_some_and(|key| key.age(now_ms) >= places.promise_ms) {
                self.forget_one(now_ms, places);
            }
            return Ok(());
        }
        let (whose, limit) = if self.len() >= places.per_partition {
            ("the partition can", places.per_partition)
        } else if places.taken.load(Ordering::Relaxed) >= places.per_server {
            ("all partitions together can", places.per_server)
        } else {
            return Ok(());
        };
        Err(LogError::TooManyKeys { whose, limit, wait_ms: places.promise_ms - oldest })
    }

    /// Forgets keys beyond those that always stay, as far as the promised time is over.
    pub(crate) fn forget_old(&mut self, now_ms: TimestampMs, places: &KeyPlaces) {
        while self.shared(places.kept) > 0 && self.oldest().is_some_and(|key| key.age(now_ms) >= places.promise_ms) {
            self.forget_one(now_ms, places);
        }
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to(self.known.len() * 2);
            self.order.shrink_to(self.order.len() * 2);
        }
    }

    fn oldest(&self) -> Option<KeyBatch> {
        self.order.front().and_then(|id| self.known.get(id)).copied()
    }

    fn forget_one(&mut self, now_ms: TimestampMs, places: &KeyPlaces) {
        if let Some(key) = self.order.pop_front().and_then(|id| self.known.remove(&id)) {
            places.youngest_forgotten.fetch_min(key.age(now_ms), Ordering::Relaxed);
        }
    }

    /// Remembers the batch of a key that lies in the log. Batches come in log order. If a log that is read again has more keys
    /// than there are places, the oldest one goes.
    pub(crate) fn remember(&mut self, header: &BatchHeader, now_ms: TimestampMs) {
        let delta = u32::try_from(header.last_offset().saturating_sub(header.base_offset)).unwrap_or(0);
        let key = KeyBatch {
            appended_ms: now_ms,
            base_offset: header.base_offset,
            first_sequence: header.base_sequence,
            delta,
        };
        self.put(header.producer_id, key);
        if self.len() > limits::KEYS_PER_PARTITION
            && let Some(id) = self.order.pop_front()
        {
            self.known.remove(&id);
        }
    }

    /// Takes in a key that a checkpoint holds. After the last one comes [`Keys::sort`].
    pub(crate) fn restore(&mut self, id: ProducerId, appended_ms: TimestampMs, batch: ProducerBatch) {
        let delta = u32::try_from(batch.last_offset.saturating_sub(batch.base_offset)).unwrap_or(0);
        let (base_offset, first_sequence) = (batch.base_offset, batch.first_sequence);
        self.put(id, KeyBatch { appended_ms, base_offset, first_sequence, delta });
    }

    /// Puts the keys in the order of the log.
    pub(crate) fn sort(&mut self) {
        let known = &self.known;
        let offset = |id: &ProducerId| known.get(id).map_or(0, |key| key.base_offset);
        self.order.make_contiguous().sort_by_key(offset);
    }

    fn put(&mut self, id: ProducerId, key: KeyBatch) {
        if self.known.insert(id, key).is_some() {
            // A key comes twice only where the log forgot it in between.
            self.order.retain(|known| *known != id);
        }
        self.order.push_back(id);
    }

    /// Takes back the key that was remembered last.
    pub(crate) fn undo(&mut self, id: ProducerId) {
        if self.order.back() == Some(&id) {
            self.order.pop_back();
            self.known.remove(&id);
        }
    }
}

/// The places for keys that the logs of one server share.
#[derive(Debug)]
pub struct KeyPlaces {
    /// Keys of a log that are kept whatever their age, outside of the shared places.
    kept: usize,
    per_partition: usize,
    /// Shared places in all.
    per_server: usize,
    promise_ms: u64,
    taken: AtomicUsize,
    /// Milliseconds.
    youngest_forgotten: AtomicU64,
}

impl Default for KeyPlaces {
    fn default() -> Self {
        Self {
            kept: limits::KEYS_KEPT,
            per_partition: limits::KEYS_PER_PARTITION,
            per_server: limits::KEYS_SHARED,
            promise_ms: limits::KEY_PROMISE_MS,
            taken: AtomicUsize::new(0),
            youngest_forgotten: AtomicU64::new(u64::MAX),
        }
    }
}

impl KeyPlaces {
    /// The age in milliseconds of the youngest key that was forgotten since the start, if one was.
    pub fn youngest_forgotten(&self) -> Option<u64> {
        Some(self.youngest_forgotten.load(Ordering::Relaxed)).filter(|age| *age < u64::MAX)
    }
}

/// The shared places that one log has taken; they are free again when the log is gone.
#[derive(Debug)]
pub(crate) struct TakenPlaces {
    places: Arc<KeyPlaces>,
    taken: usize,
}

impl TakenPlaces {
    pub(crate) fn new(places: Arc<KeyPlaces>, keys: &Keys) -> Self {
        let mut taken = Self { places, taken: 0 };
        taken.count(keys);
        taken
    }

    pub(crate) fn places(&self) -> &KeyPlaces {
        &self.places
    }

    /// Notes how many places the keys of the log take now.
    pub(crate) fn count(&mut self, keys: &Keys) {
        let now = keys.shared(self.places.kept);
        if now > self.taken {
            self.places.taken.fetch_add(now - self.taken, Ordering::Relaxed);
        } else if now < self.taken {
            self.places.taken.fetch_sub(self.taken - now, Ordering::Relaxed);
        }
        self.taken = now;
    }
}

impl Drop for TakenPlaces {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
