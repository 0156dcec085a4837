//! Which of the news is POSTed next. Pure: what there is, what became of it, and `now` in.
//!
//! Each endpoint has a lane of its own, so that one which is away or hangs holds up nobody else: after a call without an
//! answer its lane rests, for longer each time, and then tries one at a time until there is an answer again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::patience::{Patience, pause};

/// The longest wait, if the endpoint does not ask for more, in first ones.
const LONGEST: u32 = 300;

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// The endpoint has spoken, and it is over, well or not.
    Over,
    /// The endpoint has refused it; it may ask to be left alone for a while.
    Refused(Option<Duration>),
    /// There was no answer.
    Silent,
    /// There was no answer, and it is over all the same.
    GivenUp,
    /// There was no turn; that says nothing about the endpoint.
    NoTurn,
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: BTreeMap<String, Lane<T>>,
    /// The lane that had its turn last.
    last: String,
    count: u64,
    under_way: usize,
    at_once: usize,
    in_one_lane: usize,
    /// The first wait after a failure; it doubles from there.
    first: Duration,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: BTreeMap<(Instant, u64), Turn<T>>,
    under_way: usize,
    patience: Patience,
}

/// Something to be sent, and how often that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<T> {
    /// What.
    pub what: T,
    /// Tries that failed.
    pub tries: u32,
}

impl<T> Lanes<T> {
    /// No lanes yet; so many calls at a time, in all and to one endpoint, and so long a first wait after a failure.
    pub fn new(at_once: usize, in_one_lane: usize, first: Duration) -> Self {
        Self { lanes: BTreeMap::new(), last: String::new(), count: 0, under_way: 0, at_once, in_one_lane, first }
    }

    /// Something new, to be sent as soon as it can be.
    pub fn put(&mut self, endpoint: &str, what: T, now: Instant) {
        self.wait(endpoint, now, Turn { what, tries: 0 });
    }

    fn wait(&mut self, endpoint: &str, from: Instant, turn: Turn<T>) {
        self.count += 1;
        let patience = Patience::new(self.first);
        let empty = || Lane { waiting: BTreeMap::new(), under_way: 0, patience };
        self.lanes.entry(endpoint.to_owned()).or_insert_with(empty).waiting.insert((from, self.count), turn);
    }

    /// The next one to send, with its endpoint. Lanes take turns.
    pub fn next(&mut self, now: Instant) -> Option<(String, Turn<T>)> {
        if self.under_way >= self.at_once {
            return None;
        }
        let most = self.in_one_lane;
        let ready = |(_, lane): &(&String, &Lane<T>)| lane.ready_at(most).is_some_and(|at| at <= now);
        let after =
            self.lanes.range::<str, _>((std::ops::Bound::Excluded(self.last.as_str()), std::ops::Bound::Unbounded));
        let endpoint = after.chain(&self.lanes).find(ready).map(|(endpoint, _)| endpoint.clone())?;
        let lane = self.lanes.get_mut(&endpoint)?;
        let (_, turn) = lane.waiting.pop_first()?;
        lane.under_way += 1;
        self.under_way += 1;
        self.last.clone_from(&endpoint);
        Some((endpoint, turn))
    }

    /// When there may be a next one, if nothing else happens.
    pub fn next_at(&self) -> Option<Instant> {
        if self.under_way >= self.at_once {
            return None;
        }
        self.lanes.values().filter_map(|lane| lane.ready_at(self.in_one_lane)).min()
    }

    /// What became of one that was sent; what is not over is sent again later. `jitter` is between 0 and 1.
    pub fn became(&mut self, endpoint: &str, turn: Turn<T>, became: &Became, jitter: f64, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let (first, longest) = (self.first, self.first.saturating_mul(LONGEST));
        let Some(lane) = self.lanes.get_mut(endpoint) else { return };
        lane.under_way = lane.under_way.saturating_sub(1);
        match became {
            Became::Over | Became::Refused(_) => lane.patience.answered(),
            Became::Silent | Became::GivenUp => lane.patience.silent(jitter, now),
            Became::NoTurn => {}
        }
        let Turn { what, tries } = turn;
        let (tries, wait) = match became {
            Became::Over | Became::GivenUp => {
                if lane.waiting.is_empty() && lane.under_way == 0 && !lane.patience.is_doubtful() {
                    self.lanes.remove(endpoint);
                }
                return;
            }
            Became::Refused(asked) => {
                let wait = pause(tries, first, longest, jitter);
                // It speaks of itself, not of this one callback.
                if let Some(asked) = asked {
                    lane.patience.wait(*asked, now);
                }
                (tries.saturating_add(1), wait.max(asked.unwrap_or_default()))
            }
            Became::Silent => (tries.saturating_add(1), pause(tries, first, longest, jitter)),
            Became::NoTurn => (tries, first),
        };
        self.wait(endpoint, now + wait, Turn { what, tries });
    }
}

impl<T> Lane<T> {
    /// From when on its next one may be sent, if there is one and room for it.
    fn ready_at(&self, most: usize) -> Option<Instant> {
        let most = if self.patience.is_doubtful() { 1 } else { most };
        let (from, _) = self.waiting.keys().next().filter(|_| self.under_way < most)?;
        Some(self.patience.rests_until().map_or(*from, |rest| rest.max(*from)))
    }
}
