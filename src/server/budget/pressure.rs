//! Who is sent away while others wait for bytes.
//!
//! Nobody is sent away while nobody waits: a peer behind a slow line takes the time that it needs. While somebody has
//! waited for a whole [`WINDOW`], the accounts whose peers had to send or take bytes and moved less than [`FLOOR`] are
//! evicted, those that hold most first, until what they hold is what is waited for. When somebody has waited for [`LONG`],
//! the ones go as well that would need more than [`DRAIN`] at their pace for what they hold. Should nobody be slow and
//! still nothing move for [`STUCK`], the message that began last gives way. Each decision follows from the numbers alone.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{Account, Budget, State, shares};
use crate::base::Bytes;

/// How often one who waits looks whether somebody is to be sent away.
const TICK: Duration = Duration::from_millis(250);
/// The time over which a pace is measured: long enough for a lost packet to be sent again.
const WINDOW: Duration = Duration::from_secs(2);
/// The slowest pace while others wait, in bytes a second. A line of half a megabit a second carries 64 KiB.
const FLOOR: u64 = 48 * 1024;
/// From this wait on, a pace that keeps the floor is not enough for one who holds much.
const LONG: Duration = Duration::from_secs(10);
/// In how many seconds an account must be able to let go of what it holds, then.
const DRAIN: u64 = 30;
/// From this wait on, the message that began last gives way.
const STUCK: Duration = Duration::from_secs(20);

/// What an account holds at least for requests that wait, or behind them, to be in the way: clients that wait for records
/// send no more than a heartbeat or a commit behind that.
const PILED: usize = 16 * 1024;

/// What one waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiter {
    /// A grant.
    Grant {
        /// The least that helps.
        least: usize,
    },
    /// The first step of a large message.
    Begin {
        /// Its size.
        least: usize,
    },
    /// A further step.
    Grow {
        /// Its size.
        step: usize,
    },
}

/// Why an account was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evicted {
    /// What it held.
    pub held: usize,
    /// Bytes that moved in a second.
    pub pace: u64,
}

impl std::fmt::Display for Evicted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "closed because others wait for memory: the connection held {} and moved {}/s; the least then is {}/s",
            Bytes(self.held as u64),
            Bytes(self.pace),
            Bytes(FLOOR)
        )
    }
}

#[derive(Debug, Default)]
pub(super) struct Pressure {
    waiters: BTreeMap<u64, (u64, Waiter, Instant)>,
    next: u64,
    growing: usize,
    looked: Option<Instant>,
    window: Option<Window>,
    pub(super) evictions: u64,
}

/// What had moved when the window began, of accounts that held something.
#[derive(Debug)]
struct Window {
    began: Instant,
    moved: BTreeMap<u64, u64>,
}

impl Pressure {
    /// Messages that wait for a further step.
    pub fn growing(&self) -> usize {
        self.growing
    }
}

/// One's place among those who wait.
pub(super) struct Place<'a> {
    account: &'a Account,
    number: u64,
}

impl<'a> Place<'a> {
    pub(super) fn new(account: &'a Account, waiter: Waiter, now: Instant) -> Self {
        let mut state = account.budget.lock();
        let pressure = &mut state.pressure;
        let number = pressure.next;
        pressure.next += 1;
        pressure.growing += usize::from(matches!(waiter, Waiter::Grow { .. }));
        pressure.waiters.insert(number, (account.number, waiter, now));
        Self { account, number }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.account.budget.lock();
        if let Some((_, Waiter::Grow { .. }, _)) = state.pressure.waiters.remove(&self.number) {
            state.pressure.growing -= 1;
            let others = state.pressure.growing == 0;
            drop(state);
            if others {
                self.account.budget.freed.notify_waiters();
            }
        }
    }
}

impl Account {
    /// Tries again whenever bytes are freed, and looks after those who are in the way.
    pub(super) async fn wait_for<T>(&self, waiter: Waiter, mut attempt: impl FnMut() -> Option<T>) -> T {
        let _place = Place::new(self, waiter, Instant::now());
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let freed = self.budget.freed.notified();
            tokio::pin!(freed);
            // Registered before looking, so that bytes freed in between wake it.
            freed.as_mut().enable();
            if let Some(taken) = attempt() {
                return taken;
            }
            tokio::select! {
                () = freed => {}
                // Not put off by bytes that are freed and go to others.
                _ = tick.tick() => self.budget.press(Instant::now()),
            }
        }
    }
}

/// An account that may be evicted, in the order of eviction.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Those that keep the floor come last.
    keeps_floor: bool,
    /// Those within the share of their address come behind those beyond it.
    within_share: bool,
    /// Bytes held, the most first.
    held: std::cmp::Reverse<usize>,
    pace: u64,
    number: u64,
}

impl Budget {
    /// Sends away who is in the way of those that wait.
    pub(super) fn press(&self, now: Instant) {
        let mut state = self.lock();
        if state.pressure.looked.is_some_and(|looked| now < looked + TICK / 2) {
            return;
        }
        let stale = state.pressure.looked.is_none_or(|looked| now > looked + WINDOW);
        state.pressure.looked = Some(now);
        let Some((wanted, since)) = state.wanted(self.total, self.little()) else { return };
        // Kept until the lock is free: the last owner of an account locks the budget when it drops it.
        let accounts: Vec<Arc<Account>> = state.accounts.values().filter_map(Weak::upgrade).collect();
        let evict = match state.pressure.window.take().filter(|_| !stale) {
            Some(window) if now < window.began + WINDOW => {
                state.pressure.window = Some(window);
                Vec::new()
            }
            Some(window) => {
                state.pressure.window = Some(Window::begin(now, &accounts));
                let waited = now.saturating_duration_since(since);
                let mut evict = window.slow(self.total, &accounts, now, waited, wanted);
                if evict.is_empty() && waited >= STUCK {
                    evict.extend(state.last_begun());
                }
                evict
            }
            None => {
                state.pressure.window = Some(Window::begin(now, &accounts));
                Vec::new()
            }
        };
        state.pressure.evictions += evict.len() as u64;
        drop(state);
        for (number, pace) in evict {
            let Ok(at) = accounts.binary_search_by_key(&number, |account| account.number) else { continue };
            let account = &accounts[at];
            account.evicted.send_replace(Some(Evicted { held: account.held(), pace }));
        }
    }
}

impl State {
    /// Bytes that are waited for in vain, and since when. Who waits because of its own account is not counted.
    fn wanted(&self, total: usize, little: usize) -> Option<(usize, Instant)> {
        let (free, open) = (self.free(total), self.open(total));
        let mut wanted = 0;
        let mut since: Option<Instant> = None;
        for (number, waiter, began) in self.pressure.waiters.values() {
            let bytes = match *waiter {
                Waiter::Grant { least } => {
                    let there = if least <= little { free } else { open };
                    if least <= there.min(self.share_of(*number, little)) {
                        continue;
                    }
                    least
                }
                Waiter::Begin { least } => least,
                Waiter::Grow { step } => step,
            };
            wanted += bytes;
            since = Some(since.map_or(*began, |since| since.min(*began)));
        }
        since.map(|since| (wanted, since))
    }

    /// What door and address leave an account that waits.
    fn share_of(&self, number: u64, little: usize) -> usize {
        // One that waits has an owner for as long as it has its place here, so it is not dropped by this.
        self.accounts.get(&number).and_then(Weak::upgrade).map_or(usize::MAX, |account| account.share(little))
    }

    /// Of the messages that wait for a step, the one that began last.
    fn last_begun(&self) -> Option<(u64, u64)> {
        let growing = self.pressure.waiters.values().filter(|(_, waiter, _)| matches!(waiter, Waiter::Grow { .. }));
        growing.map(|(account, ..)| *account).max().map(|account| (account, 0))
    }
}

impl Window {
    fn begin(now: Instant, accounts: &[Arc<Account>]) -> Self {
        let holding = accounts.iter().filter(|account| account.held() > 0);
        let moved = holding.map(|account| (account.number, account.moved.load(Ordering::Relaxed))).collect();
        Self { began: now, moved }
    }

    /// Accounts to be evicted, and their pace.
    fn slow(
        &self,
        total: usize,
        accounts: &[Arc<Account>],
        now: Instant,
        waited: Duration,
        wanted: usize,
    ) -> Vec<(u64, u64)> {
        let millis = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX).max(1);
        let candidate = |account: &Arc<Account>| {
            let before = *self.moved.get(&account.number)?;
            let held = account.held();
            let asked_to_wait = account.asked_to_wait.load(Ordering::Relaxed) && held >= PILED;
            let asks = account.asking.load(Ordering::Relaxed) >= PILED;
            let may_go = asked_to_wait || asks || account.peers_turn.load(Ordering::Relaxed);
            if held == 0 || !may_go || account.evicted.borrow().is_some() {
                return None;
            }
            let moved = account.moved.load(Ordering::Relaxed).saturating_sub(before);
            let pace = moved.saturating_mul(1000) / millis;
            let keeps_floor = pace >= FLOOR;
            if keeps_floor && (waited < LONG || held as u64 / pace.max(1) <= DRAIN) {
                return None;
            }
            let within_share = account.address.held.load(Ordering::Relaxed) <= shares::of_address(total);
            let number = account.number;
            Some(Candidate { keeps_floor, within_share, held: std::cmp::Reverse(held), pace, number })
        };
        let mut candidates: Vec<Candidate> = accounts.iter().filter_map(candidate).collect();
        candidates.sort();
        let mut freed = 0;
        let enough = wanted.min(total / 4);
        let needed = candidates.into_iter().take_while(|candidate| {
            let needed = freed < enough;
            freed += candidate.held.0;
            needed
        });
        needed.map(|candidate| (candidate.number, candidate.pace)).collect()
    }
}
