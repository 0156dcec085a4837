//! What push subscriptions have done since the server started, also as metrics.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::base::{GroupName, TimestampMs};

use super::super::broker::lock;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabel {
    push: String,
}

/// The metrics of all of them.
#[derive(Default)]
pub(super) struct Families {
    delivered: Family<PushLabel, Counter>,
    retried: Family<PushLabel, Counter>,
    dead_letters: Family<PushLabel, Counter>,
    in_flight: Family<PushLabel, Gauge>,
}

impl Families {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("push_delivered", "Records that an endpoint has taken", self.delivered.clone());
        registry.register("push_retried", "Records that an endpoint has not taken, each time", self.retried.clone());
        registry.register("push_dead_letters", "Records that were given up", self.dead_letters.clone());
        registry.register("push_in_flight", "Records in calls that are under way", self.in_flight.clone());
    }

    pub(super) fn of(&self, name: &GroupName) -> PushStats {
        let label = PushLabel { push: name.to_string() };
        PushStats {
            delivered: self.delivered.get_or_create(&label).clone(),
            retried: self.retried.get_or_create(&label).clone(),
            dead_letters: self.dead_letters.get_or_create(&label).clone(),
            in_flight: self.in_flight.get_or_create(&label).clone(),
            seen: Mutex::default(),
        }
    }

    pub(super) fn forget(&self, name: &GroupName) {
        let label = PushLabel { push: name.to_string() };
        self.delivered.remove(&label);
        self.retried.remove(&label);
        self.dead_letters.remove(&label);
        self.in_flight.remove(&label);
    }
}

/// What one has done, for whoever does it to note.
pub struct PushStats {
    delivered: Counter,
    retried: Counter,
    dead_letters: Counter,
    in_flight: Gauge,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    delivered_ms: Option<TimestampMs>,
    trouble: Option<PushTrouble>,
    rests_until: Option<TimestampMs>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushTrouble {
    /// When.
    pub at_ms: TimestampMs,
    /// One line.
    pub message: String,
}

/// What one has done since the server started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushCounts {
    /// Records that the endpoint has taken.
    pub delivered: u64,
    /// Records that it has not taken, each time.
    pub retried: u64,
    /// Records that were given up.
    pub dead_letters: u64,
    /// When it last took something.
    pub delivered_ms: Option<TimestampMs>,
    /// What went wrong last.
    pub trouble: Option<PushTrouble>,
    /// Until when the endpoint is left alone.
    pub rests_until: Option<TimestampMs>,
}

impl PushStats {
    /// Records are under way.
    pub fn sent(&self, records: usize) {
        self.in_flight.inc_by(records as i64);
    }

    /// These are under way no longer.
    pub fn back(&self, records: usize) {
        self.in_flight.dec_by(records as i64);
    }

    /// The endpoint has taken records.
    pub fn delivered(&self, records: usize, now: TimestampMs) {
        self.delivered.inc_by(records as u64);
        let mut seen = lock(&self.seen);
        seen.delivered_ms = Some(now);
        seen.rests_until = None;
    }

    /// The endpoint has not taken records.
    pub fn failed(&self, records: usize, message: &str, now: TimestampMs) {
        self.retried.inc_by(records as u64);
        self.trouble(message, now);
    }

    /// Something went wrong that is no record's.
    pub fn trouble(&self, message: &str, now: TimestampMs) {
        lock(&self.seen).trouble = Some(PushTrouble { at_ms: now, message: message.to_owned() });
    }

    /// The endpoint is left alone until then.
    pub fn rests(&self, until: Option<TimestampMs>) {
        lock(&self.seen).rests_until = until;
    }

    pub(super) fn buried(&self, records: u64) {
        self.dead_letters.inc_by(records);
    }

    pub(super) fn counts(&self) -> PushCounts {
        let seen = lock(&self.seen);
        PushCounts {
            delivered: self.delivered.get(),
            retried: self.retried.get(),
            dead_letters: self.dead_letters.get(),
            delivered_ms: seen.delivered_ms,
            trouble: seen.trouble.clone(),
            rests_until: seen.rests_until,
        }
    }
}
