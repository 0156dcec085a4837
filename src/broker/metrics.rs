//! The one registry of counters, gauges and histograms.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::observe::Observed;
use super::requests::Ending;
use crate::log::Cleaned;
use crate::record::Marker;

const COMMITTED: &str = "committed";
const ABORTED: &str = "aborted";
/// What becomes of a request in memory.
const LIVE_OUTCOMES: [&str; 5] = ["replied", "failed", "no_responder", "timed_out", "overloaded"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The broker's metrics, and the registry to which every other part adds its own.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Batches appended.
    pub batches_in: Counter,
    /// Records appended, by the batches' headers.
    pub records_in: Counter,
    /// Bytes appended.
    pub bytes_in: Counter,
    /// Batches that had been appended before.
    pub duplicates: Counter,
    /// Times that a partition was read, whatever came of it.
    pub reads: Counter,
    /// Bytes read.
    pub bytes_out: Counter,
    /// Records that a filter was asked about.
    pub filtered: Counter,
    /// Records for which a filter had no answer, which counts as no match.
    pub filter_failures: Counter,
    /// Values that were parsed as JSON for a filter.
    pub filter_values: Counter,
    /// Batches that readers of the server's own passed over because their records cannot be read.
    pub unreadable: Counter,
    /// Records that routes have written.
    pub routed: Counter,
    /// Records handed to members of queue groups.
    pub delivered: Counter,
    /// Of these, those that had been handed out before.
    pub redelivered: Counter,
    /// Records whose lease ended without a word.
    pub leases_expired: Counter,
    /// Records written to dead-letter topics.
    pub dead_letters: Counter,
    /// Durable requests taken in.
    pub requests_opened: Counter,
    /// Durable requests that have their outcome.
    pub requests_finished: Counter,
    /// Replies to durable requests that had been decided, or that nobody knows.
    pub replies_late: Counter,
    /// Receipts asked for that are to be POSTed.
    pub receipts_asked: Counter,
    /// Of these, those that their endpoint has.
    pub receipts_delivered: Counter,
    /// Of these, those that are not sent any more.
    pub receipts_given_up: Counter,
    /// Logs compacted, each time.
    pub compactions: Counter,
    /// Attempts at it that failed.
    pub compaction_failures: Counter,
    /// Records that compaction removed.
    pub compaction_records_removed: Counter,
    /// Bytes that compaction read.
    pub compaction_bytes_read: Counter,
    /// Bytes by which it made segments smaller.
    pub compaction_bytes_freed: Counter,
    /// Seconds that compacting a log took.
    pub compaction_seconds: Histogram,
    pub(crate) observed: Observed,
    /// Seconds a sync took.
    pub sync_seconds: Histogram,
    /// Appends that one sync answered.
    pub sync_appends: Histogram,
    /// Syncs that failed.
    pub sync_failures: Counter,
    /// Segments that retention deleted.
    pub retained: Counter,
    /// Groups that have expired.
    pub groups_expired: Counter,
    /// Groups that nobody used and that made room for others.
    pub groups_evicted: Counter,
    transactions: Family<OutcomeLabel, Counter>,
    live_requests: Family<OutcomeLabel, Counter>,
    /// Topics.
    pub topics: Gauge,
    /// Partitions.
    pub partitions: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tidelog");
        let metrics = Self {
            registry: Mutex::default(),
            batches_in: Counter::default(),
            records_in: Counter::default(),
            bytes_in: Counter::default(),
            duplicates: Counter::default(),
            reads: Counter::default(),
            bytes_out: Counter::default(),
            filtered: Counter::default(),
            filter_failures: Counter::default(),
            unreadable: Counter::default(),
            filter_values: Counter::default(),
            routed: Counter::default(),
            delivered: Counter::default(),
            redelivered: Counter::default(),
            leases_expired: Counter::default(),
            dead_letters: Counter::default(),
            requests_opened: Counter::default(),
            requests_finished: Counter::default(),
            replies_late: Counter::default(),
            receipts_asked: Counter::default(),
            receipts_delivered: Counter::default(),
            receipts_given_up: Counter::default(),
            compactions: Counter::default(),
            compaction_failures: Counter::default(),
            compaction_records_removed: Counter::default(),
            compaction_bytes_read: Counter::default(),
            compaction_bytes_freed: Counter::default(),
            compaction_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 18)),
            observed: Observed::default(),
            sync_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            sync_appends: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            sync_failures: Counter::default(),
            retained: Counter::default(),
            groups_expired: Counter::default(),
            groups_evicted: Counter::default(),
            transactions: Family::default(),
            live_requests: Family::default(),
            topics: Gauge::default(),
            partitions: Gauge::default(),
        };
        registry.register("batches_in", "Batches appended", metrics.batches_in.clone());
        registry.register("records_in", "Records appended", metrics.records_in.clone());
        registry.register("appended_bytes", "Bytes appended", metrics.bytes_in.clone());
        registry.register("duplicates", "Batches that had been appended before", metrics.duplicates.clone());
        registry.register("reads", "Times that a partition was read for anybody", metrics.reads.clone());
        registry.register("read_bytes", "Bytes read", metrics.bytes_out.clone());
        registry.register("filtered", "Records that a filter was asked about", metrics.filtered.clone());
        registry.register(
            "filter_failures",
            "Records for which a filter had no answer",
            metrics.filter_failures.clone(),
        );
        registry.register("filter_values", "Values parsed for filters", metrics.filter_values.clone());
        registry.register(
            "unreadable_passed_over",
            "Batches passed over because their records cannot be read",
            metrics.unreadable.clone(),
        );
        registry.register("routed", "Records that routes have written", metrics.routed.clone());
        registry.register("delivered", "Records handed to members of queue groups", metrics.delivered.clone());
        registry.register("redelivered", "Records handed out that had been before", metrics.redelivered.clone());
        registry.register("leases_expired", "Records whose lease ended", metrics.leases_expired.clone());
        registry.register("dead_letters", "Records written to dead-letter topics", metrics.dead_letters.clone());
        registry.register("requests_opened", "Durable requests taken in", metrics.requests_opened.clone());
        registry.register("requests_finished", "Durable requests that ended", metrics.requests_finished.clone());
        registry.register("replies_late", "Replies that decided nothing", metrics.replies_late.clone());
        registry.register("receipts_asked", "Receipts to be POSTed", metrics.receipts_asked.clone());
        registry.register("receipts_delivered", "Receipts POSTed", metrics.receipts_delivered.clone());
        registry.register("receipts_given_up", "Receipts not sent any more", metrics.receipts_given_up.clone());
        metrics.register_compaction(&mut registry);
        registry.register("sync_seconds", "Time one sync took", metrics.sync_seconds.clone());
        registry.register("sync_appends", "Appends that one sync answered", metrics.sync_appends.clone());
        registry.register("sync_failures", "Syncs that failed", metrics.sync_failures.clone());
        registry.register("groups_expired", "Groups that nobody used for their time", metrics.groups_expired.clone());
        registry.register(
            "groups_evicted",
            "Groups that nobody used and that made room for others",
            metrics.groups_evicted.clone(),
        );
        registry.register("retention_segments", "Segments that retention deleted", metrics.retained.clone());
        metrics.register_outcomes(&mut registry);
        registry.register("topics", "Topics", metrics.topics.clone());
        registry.register("partitions", "Partitions of all topics", metrics.partitions.clone());
        metrics.observed.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    fn register_outcomes(&self, registry: &mut Registry) {
        registry.register("transactions", "Transactions that ended, by outcome", self.transactions.clone());
        registry.register("live_requests_ended", "Requests in memory by outcome", self.live_requests.clone());
        // Those that have not been seen are none, not unknown.
        for outcome in [COMMITTED, ABORTED] {
            drop(self.transactions.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in LIVE_OUTCOMES {
            drop(self.live_requests.get_or_create(&OutcomeLabel { outcome }));
        }
    }

    fn register_compaction(&self, registry: &mut Registry) {
        registry.register("compactions", "Logs compacted, each time", self.compactions.clone());
        registry.register(
            "compaction_failures",
            "Attempts at compaction that failed",
            self.compaction_failures.clone(),
        );
        registry.register(
            "compaction_records_removed",
            "Records that compaction removed",
            self.compaction_records_removed.clone(),
        );
        registry.register("compaction_read_bytes", "Bytes that compaction read", self.compaction_bytes_read.clone());
        registry.register(
            "compaction_freed_bytes",
            "Bytes by which compaction made segments smaller",
            self.compaction_bytes_freed.clone(),
        );
        registry.register("compaction_seconds", "Time that compacting a log took", self.compaction_seconds.clone());
    }

    /// Counts a log that was compacted.
    pub(crate) fn compacted(&self, cleaned: &Cleaned, took: Duration) {
        self.compactions.inc();
        self.compaction_records_removed.inc_by(cleaned.removed_records);
        self.compaction_bytes_read.inc_by(cleaned.read_bytes);
        self.compaction_bytes_freed.inc_by(cleaned.replaced_bytes.saturating_sub(cleaned.made_bytes));
        self.compaction_seconds.observe(took.as_secs_f64());
    }

    /// Counts a transaction that has ended.
    pub(crate) fn transaction(&self, marker: Marker) {
        let outcome = match marker {
            Marker::Commit => COMMITTED,
            Marker::Abort => ABORTED,
        };
        self.transactions.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a request in memory that has ended.
    pub(crate) fn live_request(&self, ending: &Ending) {
        let [replied, failed, nobody, late, full] = LIVE_OUTCOMES;
        let outcome = match ending {
            Ending::Reply(_) => replied,
            Ending::Error { .. } => failed,
            Ending::NoResponder { .. } => nobody,
            Ending::TimedOut { .. } => late,
            Ending::Overloaded(_) => full,
        };
        self.live_requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Adds metrics of another part.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything that is counted, in the Prometheus text format (OpenMetrics), and `more` behind it. What is only set when
    /// somebody asks is as it was then: [`Broker::metrics_text`] asks.
    pub fn encode(&self, more: Option<&Registry>) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(more) = more {
            let _ = encode_registry(&mut text, more);
        }
        let _ = encode_eof(&mut text);
        text
    }
}
