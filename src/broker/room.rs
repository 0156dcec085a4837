//! Memory for what the server's own readers of records hold (queue groups): one ceiling for all of them.
//!
//! A reader takes its room before it reads, and holds it as long as it holds what it has read. One that waits for its members
//! keeps both only as long as nobody else waits for room. A reader that holds room never waits for more: it lets go of all
//! that it holds first. So there is always somebody who goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::base::limits;

/// Bytes of a permit.
const UNIT: usize = 64 * 1024;

/// The ceiling.
#[derive(Debug)]
pub(crate) struct Rooms {
    free: Arc<Semaphore>,
    total: usize,
    waiting: AtomicUsize,
    wanted: Notify,
}

/// Room that was taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: usize,
    _units: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self::new(limits::READERS_BYTES)
    }
}

/// One that waits for room.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Rooms {
    fn new(bytes: usize) -> Self {
        let free = Arc::new(Semaphore::new(bytes / UNIT));
        Self { free, total: bytes / UNIT, waiting: AtomicUsize::new(0), wanted: Notify::new() }
    }

    /// Waits for room. More than there is counts as all of it. `None` if the broker stops.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Room> {
        let count = bytes.div_ceil(UNIT).clamp(1, self.total);
        let units = u32::try_from(count).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.free).try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => {
                self.waiting.fetch_add(1, Ordering::AcqRel);
                let _waiting = Waiting(&self.waiting);
                self.wanted.notify_waiters();
                Arc::clone(&self.free).acquire_many_owned(units).await.ok()?
            }
        };
        Some(Room { bytes: if count == self.total { usize::MAX } else { count * UNIT }, _units: permit })
    }

    /// Returns when somebody waits for room.
    pub(crate) async fn wanted(&self) {
        let wanted = self.wanted.notified();
        if self.waiting.load(Ordering::Acquire) == 0 {
            wanted.await;
        }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        (self.total - self.free.available_permits()) * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_room_is_known_to_those_who_hold_some() {
        let rooms = Rooms::new(4 * UNIT);
        let held = rooms.take(3 * UNIT - 1).await.unwrap();
        assert_eq!((held.bytes(), rooms.taken()), (3 * UNIT, 3 * UNIT));
        let holder = async {
            rooms.wanted().await;
            drop(held);
        };
        // More than there is, is all of it.
        let (all, ()) = tokio::join!(rooms.take(100 * UNIT), holder);
        let all = all.unwrap();
        assert_eq!((all.bytes(), rooms.taken()), (usize::MAX, 4 * UNIT));
        drop(all);
        assert_eq!((rooms.taken(), rooms.waiting.load(Ordering::Acquire)), (0, 0));
    }
}
