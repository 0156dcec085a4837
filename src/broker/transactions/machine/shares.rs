//! How many transactional ids each address has, and which of them may be forgotten to make room for others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Set in the order of ids that have had a transaction: those that have had none are forgotten before all of them.
pub(super) const HAS_WRITTEN: u64 = 1 << 63;

/// The ids by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    of: HashMap<Arc<str>, Share>,
    /// How many ids the addresses have of which one can be forgotten.
    ranks: BTreeSet<(usize, Arc<str>)>,
}

#[derive(Debug, Clone, Default)]
struct Share {
    ids: usize,
    /// The ids without an open transaction, by their last use.
    idle: BTreeMap<u64, Arc<str>>,
}

impl Shares {
    /// Changes the share of an address, and ranks it anew.
    fn change(&mut self, address: &str, change: impl FnOnce(&mut Share)) {
        let name = self.of.get_key_value(address).map_or_else(|| Arc::from(address), |(name, _)| Arc::clone(name));
        let share = self.of.entry(Arc::clone(&name)).or_default();
        let (ids, ranked) = (share.ids, !share.idle.is_empty());
        change(share);
        let (ids_now, ranked_now) = (share.ids, !share.idle.is_empty());
        if (ids, ranked) != (ids_now, ranked_now) {
            if ranked {
                self.ranks.remove(&(ids, Arc::clone(&name)));
            }
            if ranked_now {
                self.ranks.insert((ids_now, Arc::clone(&name)));
            }
            if ids_now == 0 && !ranked_now {
                self.of.remove(&name);
            }
        }
    }

    /// An address has one id more.
    pub(super) fn add(&mut self, address: &str) {
        self.change(address, |share| share.ids += 1);
    }

    /// An address has one id less, which is busy.
    pub(super) fn remove(&mut self, address: &str) {
        self.change(address, |share| share.ids = share.ids.saturating_sub(1));
    }

    /// An id has no open transaction. `order` is that of its last use, and nobody else's.
    pub(super) fn is_idle(&mut self, address: &str, order: u64, id: &Arc<str>) {
        self.change(address, |share| drop(share.idle.insert(order, Arc::clone(id))));
    }

    /// The id that was idle with this order is not to be forgotten any more.
    pub(super) fn is_busy(&mut self, address: &str, order: u64) {
        self.change(address, |share| drop(share.idle.remove(&order)));
    }

    /// The ids that an address has.
    pub(super) fn count(&self, address: &str) -> usize {
        self.of.get(address).map_or(0, |share| share.ids)
    }

    /// Of the ids of an address that may be forgotten, the one that was used longest ago.
    pub(super) fn oldest_of(&self, address: &str) -> Option<Arc<str>> {
        self.of.get(address)?.idle.first_key_value().map(|(_, id)| Arc::clone(id))
    }

    /// The same of the address that has the most ids, among those of which any may be forgotten.
    pub(super) fn oldest(&self) -> Option<Arc<str>> {
        self.oldest_of(&self.ranks.last()?.1)
    }
}
