//! The order in which waiting work is done. Pure: it knows neither threads nor time; what work has cost is told by its caller.
//!
//! Each key (a connection, a group, a route) has a lane, first in, first out. The next turn is that of the lane that has cost
//! least so far, so a key with expensive work gets as much of the workers as one with cheap work, not more. A key that was
//! idle begins at what the key served last had cost: idleness is no credit.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Lanes without work that are remembered, since they may owe a turn. Beyond it all of them are forgotten: a debt is a few
/// milliseconds.
const IDLE_LANES: usize = 4096;

/// Work that waits, fair between keys.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lanes: HashMap<u64, Lane<T>>,
    /// Lanes with work, by what they have cost.
    order: BTreeSet<(u64, u64)>,
    /// What the lane served last had cost.
    floor: u64,
}

#[derive(Debug)]
struct Lane<T> {
    work: VecDeque<T>,
    cost: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), order: BTreeSet::new(), floor: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Puts work behind what its key has waiting.
    pub(super) fn push(&mut self, key: u64, work: T) {
        let floor = self.floor;
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { work: VecDeque::new(), cost: floor });
        if lane.work.is_empty() {
            lane.cost = lane.cost.max(floor);
            self.order.insert((lane.cost, key));
        }
        lane.work.push_back(work);
    }

    /// Takes the next work, with its key.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let (cost, key) = self.order.pop_first()?;
        self.floor = self.floor.max(cost);
        let lane = self.lanes.get_mut(&key)?;
        let work = lane.work.pop_front()?;
        if !lane.work.is_empty() {
            self.order.insert((cost, key));
        }
        if self.lanes.len() - self.order.len() > IDLE_LANES {
            self.lanes.retain(|_, lane| !lane.work.is_empty());
        }
        Some((key, work))
    }

    /// Notes what work of a key has cost.
    pub(super) fn charge(&mut self, key: u64, cost: u64) {
        let floor = self.floor;
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { work: VecDeque::new(), cost: floor });
        let waiting = self.order.remove(&(lane.cost, key));
        lane.cost = lane.cost.saturating_add(cost);
        if waiting {
            self.order.insert((lane.cost, key));
        }
    }
}
