//! Bytes in flight, with one ceiling for each direction, and no peer able to hold it for others.
//!
//! Four rules, in the order in which they apply:
//! - The ceiling has a kept part, one in [`KEPT`], that only small grants may use: what makes an account hold more than
//!   [`LITTLE`] bytes never takes from it.
//! - An account that already holds bytes gets more only while it holds less than what is free (the dynamic threshold of
//!   shared-memory switches, Choudhury and Hahne 1998). A door and an address have shares ([`shares`]).
//! - A large message takes its bytes in steps as they arrive ([`Arriving`]), never by the length that it announces. A step
//!   is given only if every message that has begun can still be finished by some order ([`arriving`]).
//! - While others wait, an account whose peer moves too little is evicted ([`pressure`]): its connection is closed.

mod arriving;
mod pressure;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};

pub use arriving::Arriving;
pub use pressure::Evicted;
pub use shares::{Gate, Holder, Peer};

use arriving::Message;
use pressure::{Pressure, Waiter};
use shares::{Share, Shares};

/// One part in so many of a budget is kept for connections that hold little.
const KEPT: usize = 4;
/// What little is: this, or one part in 64 of a small budget. Requests of control, heartbeats, commits and the batches of
/// most producers are smaller.
const LITTLE: usize = 256 * 1024;

/// The ceiling of one direction.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    accounts: BTreeMap<u64, Weak<Account>>,
    shares: Shares,
    /// Large messages that have begun to arrive, by their account.
    messages: BTreeMap<u64, Message>,
    /// The sum of what the large messages have announced.
    announced: usize,
    pressure: Pressure,
}

/// What one connection holds of a [`Budget`].
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    number: u64,
    limit: usize,
    held: AtomicUsize,
    gate: Arc<Share>,
    address: Arc<Share>,
    holder: Holder,
    /// Bytes that the peer has sent or taken.
    moved: AtomicU64,
    /// Nothing goes on before the peer sends or takes bytes.
    peers_turn: AtomicBool,
    /// The peer has asked the server to wait, and has sent more behind that.
    asked_to_wait: AtomicBool,
    /// Bytes of requests that wait for somebody's answer for as long as the peer has said.
    asking: AtomicUsize,
    evicted: watch::Sender<Option<Evicted>>,
}

/// Bytes taken; dropping it gives them back.
#[derive(Debug)]
pub struct Grant {
    account: Arc<Account>,
    bytes: usize,
    /// They are those of a request that waits for somebody's answer.
    asks: bool,
}

impl Budget {
    /// A budget of `total` bytes, all free.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, state: Mutex::default(), freed: Notify::new() })
    }

    /// The largest grant that a budget of `total` bytes gives: all but the kept part.
    pub const fn largest(total: usize) -> usize {
        total - total / KEPT
    }

    /// Bytes in use now.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    /// Accounts that were evicted so far.
    pub fn evictions(&self) -> u64 {
        self.lock().pressure.evictions
    }

    /// A new connection's account, of at most `limit` bytes except for a single message that is larger.
    pub fn account(self: &Arc<Self>, limit: usize, holder: Holder) -> Arc<Account> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let (gate, address) = state.shares.join(holder);
        let account = Arc::new(Account {
            budget: self.clone(),
            number,
            limit,
            held: AtomicUsize::new(0),
            gate,
            address,
            holder,
            moved: AtomicU64::new(0),
            peers_turn: AtomicBool::new(false),
            asked_to_wait: AtomicBool::new(false),
            asking: AtomicUsize::new(0),
            evicted: watch::Sender::new(None),
        });
        state.accounts.insert(number, Arc::downgrade(&account));
        account
    }

    /// The size up to which a grant is small.
    fn little(&self) -> usize {
        LITTLE.min(self.total / 64)
    }

    /// The numbers of the state are changed together and without a call that could panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self, total: usize) -> usize {
        total.saturating_sub(self.used)
    }

    /// What is free for grants that are not small.
    fn open(&self, total: usize) -> usize {
        self.free(total).saturating_sub(total / KEPT)
    }

    fn add(&mut self, account: &Account, bytes: usize) {
        self.used += bytes;
        for held in [&account.held, &account.gate.held, &account.address.held] {
            held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn subtract(&mut self, account: &Account, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        for held in [&account.held, &account.gate.held, &account.address.held] {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Account {
    /// Waits until `bytes` are free and takes them. More than the largest grant counts as the largest grant.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> Grant {
        self.take_some(bytes, bytes).await
    }

    /// Waits until at least `least` bytes are free and takes as many as there are, at most `most`.
    pub async fn take_some(self: &Arc<Self>, least: usize, most: usize) -> Grant {
        if let Some(grant) = self.try_take(least, most) {
            return grant;
        }
        let waiter = Waiter::Grant { least: least.min(Budget::largest(self.budget.total)) };
        self.wait_for(waiter, || self.try_take(least, most)).await
    }

    /// Takes what there is, `None` if that is less than `least`.
    pub fn try_take(self: &Arc<Self>, least: usize, most: usize) -> Option<Grant> {
        let total = self.budget.total;
        let mut state = self.budget.lock();
        let free = state.free(total);
        let held = self.held();
        let least = least.min(Budget::largest(total));
        let open = state.open(total);
        let little = self.budget.little();
        let room = match held {
            // A single grant may be larger than the account's limit, and goes through as soon as there is room for it.
            0 => open.max(free.min(little)),
            held => {
                open.min(self.limit).saturating_sub(held).max(free.min(little.min(self.limit).saturating_sub(held)))
            }
        };
        let room = room.min(self.share(little));
        let bytes = most.min(self.limit).max(least).min(room);
        if bytes < least {
            return None;
        }
        state.add(self, bytes);
        Some(Grant { account: self.clone(), bytes, asks: false })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Notes that the peer has sent or taken so many bytes.
    pub fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes whether it is the peer's turn to send or take bytes. While others wait for what the account holds, a peer
    /// whose turn it is must keep the pace ([`pressure`]).
    pub fn peers_turn(&self, is: bool) {
        self.peers_turn.store(is, Ordering::Relaxed);
    }

    /// Notes whether the requests that the account holds wait because the peer has asked the server to wait.
    pub fn asked_to_wait(&self, is: bool) {
        self.asked_to_wait.store(is, Ordering::Relaxed);
    }

    /// Whether it is the peer's turn.
    pub fn is_peers_turn(&self) -> bool {
        self.peers_turn.load(Ordering::Relaxed)
    }

    /// Returns when the account was evicted: what it holds must be let go at once.
    pub async fn evicted(&self) -> Evicted {
        let mut evicted = self.evicted.subscribe();
        let evicted = evicted.wait_for(Option::is_some).await.ok().and_then(|evicted| *evicted);
        match evicted {
            Some(evicted) => evicted,
            // The sender is the account's own, so it is there.
            None => std::future::pending().await,
        }
    }

    /// What the shares of its door and its address leave for a grant.
    fn share(&self, little: usize) -> usize {
        let held = self.held();
        [(&self.gate, shares::of_gate(self.budget.total)), (&self.address, shares::of_address(self.budget.total))]
            .into_iter()
            .map(|(share, most)| match share.held.load(Ordering::Relaxed).saturating_sub(held) {
                0 => usize::MAX,
                others => {
                    let all = others + held;
                    let small = shares::of_all(self.budget.total).saturating_sub(all).min(little.saturating_sub(held));
                    most.saturating_sub(all).max(small)
                }
            })
            .min()
            .unwrap_or(usize::MAX)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.accounts.remove(&self.number);
        state.shares.leave(self.holder);
    }
}

impl Grant {
    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on it is held for a request that waits for somebody's answer, for as long as the peer has said.
    pub fn asking(mut self) -> Self {
        if !std::mem::replace(&mut self.asks, true) {
            self.account.asking.fetch_add(self.bytes, Ordering::Relaxed);
        }
        self
    }

    /// Makes it hold exactly `bytes`: gives the rest back, or overdraws where the bytes are there already and only
    /// their counting is late (a batch larger than asked for).
    pub fn settle(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let mut state = self.account.budget.lock();
        state.add(&self.account, bytes);
        state.subtract(&self.account, before);
        if self.asks {
            self.account.asking.fetch_add(bytes, Ordering::Relaxed);
            self.account.asking.fetch_sub(before, Ordering::Relaxed);
        }
        drop(state);
        if bytes < before {
            self.account.budget.freed.notify_waiters();
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.settle(0);
        }
    }
}
