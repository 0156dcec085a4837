//! Keeping deletion and compaction off what is still to be looked for.
//!
//! Whoever writes something that must not be written twice takes hold of the log first, and lets go when it is durable
//! elsewhere that it was written. What a crash cuts off in between is looked for in the log from the offset that was held: so
//! from there on nothing may be deleted or compacted, or it would be taken for not written.

use crate::base::Offset;

use super::PartitionLog;

impl PartitionLog {
    /// Takes hold of all that is written from now on; gives the offset to look from, and to let go of. That is the synced
    /// end, which never goes back: not in a power cut, and not when a log is opened anew after a failed sync.
    pub fn hold(&mut self) -> Offset {
        self.hold_from(self.synced.offset);
        self.synced.offset
    }

    /// Takes hold of all that lies at or above an offset.
    pub fn hold_from(&mut self, offset: Offset) {
        *self.held.entry(offset).or_default() += 1;
    }

    /// Lets go of what was taken hold of at this offset, once.
    pub fn let_go(&mut self, offset: Offset) {
        if let Some(times) = self.held.get_mut(&offset) {
            *times -= 1;
            if *times == 0 {
                self.held.remove(&offset);
            }
        }
    }

    /// What lies at or above this is held.
    pub(super) fn held_from(&self) -> Offset {
        self.held.first_key_value().map_or(Offset::MAX, |(offset, _)| *offset)
    }
}
