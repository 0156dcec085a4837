//! Messages that arrive: a large one gets its bytes in steps, by what has come.
//!
//! Messages that each hold a part and wait for the rest could wait for each other for ever. So a step is only given if
//! afterwards some order exists in which all of them can be finished, each with what the ones before it give back (the
//! banker's algorithm, Dijkstra 1965, for one resource). What a message announces counts there and nowhere else: it delays
//! nobody who could be finished before it.

use std::sync::Arc;

use super::pressure::Waiter;
use super::{Account, Budget, Grant, State};

/// The first step of a large message.
const FIRST_STEP: usize = 64 * 1024;
/// Up to here a step takes four times what has come, from here on twice.
const FAST_STEPS: usize = 1024 * 1024;

/// A large message that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    /// Bytes granted.
    granted: usize,
    /// Bytes that it will need in all.
    announced: usize,
}

/// A message on its way in, with what it holds.
#[derive(Debug)]
pub struct Arriving {
    grant: Grant,
    announced: usize,
    large: bool,
}

impl Account {
    /// Waits for room for the beginning of a message of `announced` bytes. A small one gets all of it at once. An account
    /// has one message arriving at a time.
    pub async fn begin(self: &Arc<Self>, announced: usize) -> Arriving {
        let little = self.budget.little();
        if announced <= little {
            return Arriving { grant: self.take(announced).await, announced, large: false };
        }
        let announced = announced.min(Budget::largest(self.budget.total));
        let first = FIRST_STEP.min(little);
        if !self.has_room_for(announced) {
            // Nobody else is in its way: it waits for its own work.
            let own = Waiter::Grant { least: 0 };
            self.wait_for(own, || self.has_room_for(announced).then_some(())).await;
        }
        match self.try_begin(announced, first) {
            Some(arriving) => arriving,
            None => self.wait_for(Waiter::Begin { least: first }, || self.try_begin(announced, first)).await,
        }
    }

    /// Whether the account's own limit lets a message in. A single one may be larger than the limit.
    fn has_room_for(&self, announced: usize) -> bool {
        let held = self.held();
        held == 0 || held + announced <= self.limit
    }

    fn try_begin(self: &Arc<Self>, announced: usize, first: usize) -> Option<Arriving> {
        let total = self.budget.total;
        let mut state = self.budget.lock();
        // Who has begun goes first.
        let waited_for = state.pressure.growing() > 0;
        if waited_for || state.open(total) < first || self.share(0) < first {
            return None;
        }
        let message = Message { granted: 0, announced };
        state.announced += announced;
        state.messages.insert(self.number, message);
        if !state.can_grow(self.number, first, total) {
            state.announced -= announced;
            state.messages.remove(&self.number);
            return None;
        }
        state.grow(self, first);
        Some(Arriving { grant: Grant { account: self.clone(), bytes: first, asks: false }, announced, large: true })
    }

    fn try_grow(self: &Arc<Self>, bytes: usize) -> Option<()> {
        let mut state = self.budget.lock();
        if !state.can_grow(self.number, bytes, self.budget.total) {
            return None;
        }
        state.grow(self, bytes);
        Some(())
    }
}

impl State {
    fn grow(&mut self, account: &Account, bytes: usize) {
        if let Some(message) = self.messages.get_mut(&account.number) {
            message.granted += bytes;
        }
        self.add(account, bytes);
    }

    /// Whether there is room for a step, and everything that has begun can be finished afterwards.
    fn can_grow(&self, number: u64, bytes: usize, total: usize) -> bool {
        let all = Budget::largest(total);
        if self.open(total) < bytes {
            return false;
        }
        if self.announced <= all {
            return true;
        }
        let mut missing: Vec<(usize, usize)> = self
            .messages
            .iter()
            .map(|(at, message)| {
                let granted = message.granted + if *at == number { bytes } else { 0 };
                (message.announced.saturating_sub(granted), granted)
            })
            .collect();
        missing.sort_unstable();
        let mut free = all.saturating_sub(missing.iter().map(|(_, granted)| granted).sum());
        missing.into_iter().all(|(missing, granted)| {
            let can = missing <= free;
            free += granted;
            can
        })
    }

    /// Forgets a message that has come or is given up.
    fn forget(&mut self, number: u64) {
        if let Some(message) = self.messages.remove(&number) {
            self.announced -= message.announced;
        }
    }
}

impl Arriving {
    /// Bytes that may be held in memory now.
    pub fn granted(&self) -> usize {
        self.grant.bytes
    }

    /// Waits for the next step, when `come` bytes are there.
    pub async fn grow(&mut self, come: usize) {
        let account = self.grant.account.clone();
        let most = if come < FAST_STEPS { come.saturating_mul(4) } else { come.saturating_mul(2) };
        let step = most.max(FIRST_STEP).min(self.announced).saturating_sub(self.grant.bytes);
        if step == 0 {
            return;
        }
        if account.try_grow(step).is_none() {
            account.wait_for(Waiter::Grow { step }, || account.try_grow(step)).await;
        }
        self.grant.bytes += step;
    }

    /// Whether so many bytes may be held in memory, or no further step would be given.
    pub fn covers(&self, bytes: usize) -> bool {
        bytes <= self.grant.bytes || self.grant.bytes >= self.announced
    }

    /// Waits for the next step, when all that was granted is there.
    pub async fn grow_on(&mut self) {
        self.grow(self.grant.bytes).await;
    }

    /// The message is there: what it holds, from now on for what is done with it.
    pub fn whole(mut self) -> Grant {
        let empty = Grant { account: self.grant.account.clone(), bytes: 0, asks: false };
        std::mem::replace(&mut self.grant, empty)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.large {
            self.grant.account.budget.lock().forget(self.grant.account.number);
            self.grant.account.budget.freed.notify_waiters();
        }
    }
}
