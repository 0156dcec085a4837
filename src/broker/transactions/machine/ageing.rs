//! What time does to transactions: they are open for too long, hold up readers, and their ids are forgotten. Spans are those
//! of the monotonic clock, so that a wall clock that leaps ends nothing.

use std::sync::Arc;

use crate::base::{PartitionId, ProducerId, TimestampMs, TopicId, limits};
use crate::catalog::TransactionPhase as Phase;

use super::{Machine, Now, Transaction, is_live};

/// An open transaction is kept anew when it has been open for this share of its time-out more than was kept.
const KEPT_SHARES: u64 = 8;
/// But not more often than this, in milliseconds.
const KEPT_EVERY_MS: u64 = 5_000;
/// An id is not forgotten before it was idle for so long in this run, in milliseconds, whatever the wall clock says of the
/// time before the start.
const SEEN_IDLE_MS: u64 = 3_600_000;

/// A transaction that is open or being ended, as an operator wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenLook {
    pub(crate) id: String,
    pub(crate) producer: ProducerId,
    /// When it began, in milliseconds since the Unix epoch.
    pub(crate) started_ms: TimestampMs,
    /// How long it has been open, in milliseconds.
    pub(crate) age_ms: u64,
    pub(crate) partitions: Vec<(TopicId, PartitionId)>,
}

impl Transaction {
    /// How long the transaction has been open, in milliseconds; 0 if none is.
    pub(super) fn age_ms(&self, now: Now) -> u64 {
        match is_live(self.entry.phase) {
            true => self.entry.open_ms.saturating_add(now.monotonic.saturating_sub(self.since)),
            false => 0,
        }
    }

    /// Puts the time until now into what is kept.
    pub(super) fn count_time(&mut self, now: Now) {
        if is_live(self.entry.phase) {
            (self.entry.open_ms, self.since) = (self.age_ms(now), now.monotonic);
        }
    }
}

impl Machine {
    /// How long a transaction of an id may be open: what its producer said, or what is allowed by now.
    fn timeout_ms(&self, transaction: &Transaction) -> u64 {
        transaction.entry.timeout_ms.min(self.rules.max_timeout_ms)
    }

    /// How long the transaction of an id has been open, and how much of its time is left.
    pub(crate) fn times(&self, id: &str, now: Now) -> Option<(u64, u64)> {
        let transaction = self.ids.get(id).filter(|transaction| is_live(transaction.entry.phase))?;
        let age_ms = transaction.age_ms(now);
        Some((age_ms, self.timeout_ms(transaction).saturating_sub(age_ms)))
    }

    /// Ends what has been open for too long; the ids of these transactions, with their ages. Of what is open for long, how
    /// long that is, is to be kept.
    pub(crate) fn tick(&mut self, now: Now) -> Vec<(String, u64)> {
        let (mut late, mut long) = (Vec::new(), Vec::new());
        for id in &self.live {
            let Some(transaction) = self.ids.get(id.as_str()) else { continue };
            if transaction.entry.phase != Phase::Ongoing {
                continue;
            }
            let (age_ms, timeout_ms) = (transaction.age_ms(now), self.timeout_ms(transaction));
            if age_ms >= timeout_ms {
                late.push((id.clone(), age_ms));
            } else if age_ms - transaction.entry.open_ms >= (timeout_ms / KEPT_SHARES).max(KEPT_EVERY_MS) {
                long.push(id.clone());
            }
        }
        late.iter().for_each(|(id, _)| self.abort(id, true, now));
        long.iter().for_each(|id| self.touch(id, now));
        late
    }

    /// The age of the oldest transaction that is open or being ended, in milliseconds; 0 if none is.
    pub(crate) fn oldest_ms(&self, now: Now) -> u64 {
        let ages = self.live.iter().filter_map(|id| self.ids.get(id.as_str())).map(|of| of.age_ms(now));
        ages.max().unwrap_or(0)
    }

    /// The transactions that have been open for so long, and of which that was not reported yet.
    pub(crate) fn long_open(&self, age_ms: u64, now: Now) -> Vec<OpenLook> {
        let live = self.live.iter().filter_map(|id| self.ids.get(id.as_str()));
        let long = live.filter(|transaction| !transaction.reported && transaction.age_ms(now) >= age_ms);
        long.map(|transaction| OpenLook {
            id: transaction.entry.id.clone(),
            producer: transaction.entry.producer,
            started_ms: transaction.entry.started_ms,
            age_ms: transaction.age_ms(now),
            partitions: transaction.entry.partitions.clone(),
        })
        .collect()
    }

    /// It was reported that the transaction of an id holds up readers.
    pub(crate) fn reported(&mut self, id: &str) {
        if let Some(transaction) = self.ids.get_mut(id) {
            transaction.reported = true;
        }
    }

    /// Forgets ids that no producer has used for long.
    pub(crate) fn forget_idle(&mut self, now: Now) {
        let seen_ms = self.rules.expiration_ms.min(SEEN_IDLE_MS);
        let idle = |transaction: &Transaction| {
            let here_ms = now.monotonic.saturating_sub(transaction.since.max(self.began));
            let idle_ms = here_ms.saturating_add(transaction.idle_ms);
            !is_live(transaction.entry.phase) && here_ms >= seen_ms && idle_ms > self.rules.expiration_ms
        };
        let idle: Vec<Arc<str>> =
            self.ids.iter().filter(|(_, transaction)| idle(transaction)).map(|(id, _)| Arc::clone(id)).collect();
        idle.iter().for_each(|id| self.remove(id));
    }

    /// The most ids that are remembered.
    pub(crate) fn most_ids(&self) -> usize {
        self.rules.ids.min(limits::TRANSACTIONAL_IDS)
    }
}
