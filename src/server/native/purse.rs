//! A subscription's credit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a client has granted and what is left of it: records and bytes. Below zero after a last batch that was larger
/// than what was left; the next grant pays that first.
#[derive(Debug)]
pub struct Purse {
    left: Mutex<(i64, i64)>,
    granted: Notify,
}

impl Purse {
    /// A purse with this much in it.
    pub fn new(records: u64, bytes: u64) -> Self {
        let purse = Self { left: Mutex::new((0, 0)), granted: Notify::new() };
        purse.add(records, bytes);
        purse
    }

    fn lock(&self) -> MutexGuard<'_, (i64, i64)> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts more in, saturating.
    pub fn add(&self, records: u64, bytes: u64) {
        let mut left = self.lock();
        left.0 = left.0.saturating_add(i64::try_from(records).unwrap_or(i64::MAX));
        left.1 = left.1.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        drop(left);
        self.granted.notify_one();
    }

    /// Takes out what was sent.
    pub fn spend(&self, records: u64, bytes: usize) {
        let mut left = self.lock();
        left.0 = left.0.saturating_sub(i64::try_from(records).unwrap_or(i64::MAX));
        left.1 = left.1.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Waits until there is something of both: records, bytes.
    pub async fn credit(&self) -> (u64, usize) {
        loop {
            let (records, bytes) = *self.lock();
            if records > 0 && bytes > 0 {
                return (records.unsigned_abs(), usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            self.granted.notified().await;
        }
    }
}
