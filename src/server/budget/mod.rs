//! Bytes in flight, with one ceiling for all connections and no connection able to take it all.
//!
//! A connection that holds nothing may take what is free. One that already holds bytes gets more only while it holds
//! less than what is free (the dynamic threshold of shared-memory switches, Choudhury and Hahne 1998): however many
//! slow peers pile bytes up, each of their shares shrinks as they do, and something is left for the next one.
//!
//! Shares that shrink by half with each peer that never lets go are soon nothing. So a part of the budget
//! ([`KEPT`]) is only for connections that hold little: there it takes hundreds of such peers to get in the way.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One part in so many of a budget is kept for connections that hold little.
const KEPT: usize = 4;
/// What little is: this, or one part in 64 of a small budget.
const LITTLE: usize = 256 * 1024;

/// The ceiling of one direction.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    used: Mutex<usize>,
    freed: Notify,
}

/// What one connection holds of a [`Budget`].
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    limit: usize,
    held: AtomicUsize,
}

/// Bytes taken; dropping it gives them back.
#[derive(Debug)]
pub struct Grant {
    account: Arc<Account>,
    bytes: usize,
}

impl Budget {
    /// A budget of `total` bytes, all free.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, used: Mutex::new(0), freed: Notify::new() })
    }

    /// Bytes in use now.
    pub fn used(&self) -> usize {
        *self.lock()
    }

    /// A new connection's account, of at most `limit` bytes except for a single grant that is larger.
    pub fn account(self: &Arc<Self>, limit: usize) -> Arc<Account> {
        Arc::new(Account { budget: self.clone(), limit, held: AtomicUsize::new(0) })
    }

    /// A number cannot be left half changed, so a panic elsewhere is no reason to give up.
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Waits until `bytes` are free and takes them. More than the whole budget counts as the whole budget.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> Grant {
        self.take_some(bytes, bytes).await
    }

    /// Waits until at least `least` bytes are free and takes as many as there are, at most `most`.
    pub async fn take_some(self: &Arc<Self>, least: usize, most: usize) -> Grant {
        loop {
            let freed = self.budget.freed.notified();
            tokio::pin!(freed);
            // Registered before looking, so that bytes freed in between wake it.
            freed.as_mut().enable();
            if let Some(grant) = self.try_take(least, most) {
                return grant;
            }
            freed.await;
        }
    }

    /// Takes what there is, `None` if that is less than `least`.
    pub fn try_take(self: &Arc<Self>, least: usize, most: usize) -> Option<Grant> {
        let mut used = self.budget.lock();
        let free = self.budget.total.saturating_sub(*used);
        let held = self.held.load(Ordering::Relaxed);
        let least = least.min(self.budget.total);
        let open = free.saturating_sub(self.budget.total / KEPT);
        let little = LITTLE.min(self.budget.total / 64);
        let room = match held {
            // A single grant may be large, and goes through as soon as there is room for it.
            0 => open.max(free.min(little.max(least))),
            held => {
                open.min(self.limit).saturating_sub(held).max(free.min(little.min(self.limit).saturating_sub(held)))
            }
        };
        let bytes = most.min(self.limit).max(least).min(room);
        if bytes < least {
            return None;
        }
        *used += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Some(Grant { account: self.clone(), bytes })
    }
}

impl Grant {
    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it hold exactly `bytes`: gives the rest back, or overdraws where the bytes are there already and only
    /// their counting is late (a batch larger than asked for).
    pub fn settle(&mut self, bytes: usize) {
        let mut used = self.account.budget.lock();
        *used = used.saturating_sub(self.bytes) + bytes;
        self.account.held.fetch_add(bytes, Ordering::Relaxed);
        self.account.held.fetch_sub(self.bytes, Ordering::Relaxed);
        let less = bytes < self.bytes;
        self.bytes = bytes;
        drop(used);
        if less {
            self.account.budget.freed.notify_waiters();
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.settle(0);
    }
}
