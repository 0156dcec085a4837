//! The newest offset of each key, in a table of a fixed size.
//!
//! Keys are known by their SipHash-1-3 of 128 bits under a random key that is made for each run and told to nobody. Two
//! of n keys have one hash with a probability of n² / 2¹²⁹: for the million keys that fit, 2⁻⁸⁹ a run, far below that
//! of the machine getting any other comparison wrong; and who does not know the random key cannot choose keys that do.
//! So keys themselves need not be kept, nor read back.

use siphasher::sip128::SipHasher13;

use crate::base::Offset;

/// Bytes of a slot: 16 of hash, 8 of offset.
pub(super) const SLOT_BYTES: usize = 24;

/// Of four slots three may be taken: probing stays short.
const TAKEN: usize = 3;
const OF: usize = 4;

/// Hashes and offsets by open addressing. An empty slot holds 0, a taken one the offset plus one.
pub(crate) struct KeyMap {
    slots: Vec<[u64; 3]>,
    taken: usize,
    hasher: SipHasher13,
}

impl KeyMap {
    /// An empty map for so many keys, or as many of them as fit `max_bytes`.
    pub(crate) fn new(keys: u64, max_bytes: usize, secret: u128) -> Self {
        let most = (max_bytes / SLOT_BYTES).max(OF);
        let wanted = (usize::try_from(keys).unwrap_or(usize::MAX) / TAKEN).saturating_add(1).saturating_mul(OF);
        let hasher = SipHasher13::new_with_key(&secret.to_ne_bytes());
        Self { slots: vec![[0; 3]; wanted.clamp(OF, most)], taken: 0, hasher }
    }

    /// How many more keys fit for sure.
    pub(crate) fn room(&self) -> usize {
        (self.slots.len() / OF * TAKEN).saturating_sub(self.taken)
    }

    /// Makes an empty map large enough for so many keys, whatever its bound: for one batch that would not fit.
    pub(crate) fn grow(&mut self, keys: usize) {
        if self.taken == 0 && self.room() < keys {
            self.slots = vec![[0; 3]; (keys / TAKEN + 1) * OF];
        }
    }

    /// Keys in it.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// Bytes that it takes up.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    /// Notes that the key has a record at this offset. There must be room.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) {
        let hash = self.hash(key);
        let at = self.find(hash);
        let slot = &mut self.slots[at];
        if slot[2] == 0 {
            *slot = [hash[0], hash[1], 0];
            self.taken += 1;
        }
        slot[2] = slot[2].max(offset + 1);
    }

    /// The newest offset noted for the key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        if self.taken == 0 {
            return None;
        }
        self.slots[self.find(self.hash(key))][2].checked_sub(1)
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = self.hasher.hash(key);
        [hash.h1, hash.h2]
    }

    /// The slot of this hash, or the empty one where it belongs. There is always an empty one.
    fn find(&self, hash: [u64; 2]) -> usize {
        // The upper half of the product, so that any number of slots is as good as a power of two.
        let mut at = ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 || slot[..2] == hash {
                return at;
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }
}
