//! What the listeners count, registered beside the broker's own metrics.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::config::ServerConfig;
use super::places::Doors;
use crate::base::ErrorKind;

/// Counters and gauges of the listeners.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections refused because of the limit.
    pub refused: Counter,
    /// Connections closed because others waited for the memory that they held.
    pub evicted: Counter,
    /// Subscriptions open now.
    pub subscriptions: Gauge,
    /// Requests in flight now.
    pub requests_in_flight: Gauge,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Bytes of requests in memory.
    pub held_in: Gauge,
    /// Bytes of answers in memory.
    pub held_out: Gauge,
    /// Kafka connections open now.
    pub kafka_connections: Gauge,
    /// HTTP connections open now.
    pub http_connections: Gauge,
    /// The runtime's longest delay in the last minute, in seconds.
    pub runtime_delay: Gauge<f64, AtomicU64>,
    limits: Family<LimitLabel, Gauge>,
    http_requests: Family<PathLabel, Counter>,
    http_answers: Family<StatusLabel, Counter>,
    requests: Family<KindLabel, Counter>,
    errors: Family<KindLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabel {
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    what: &'static str,
}

impl ServerMetrics {
    /// Connections of all listeners.
    pub fn all_connections(&self) -> i64 {
        self.connections.get() + self.kafka_connections.get() + self.http_connections.get()
    }

    /// Sets what the operator allows, to be held against what there is.
    pub fn set_limits(&self, config: &ServerConfig, doors: &Doors) {
        let half = config.max_total_bytes.as_usize() / 2;
        for (what, limit) in [
            ("connections", doors.native.most()),
            ("kafka_connections", doors.kafka.most()),
            ("http_connections", doors.http.most()),
            ("inbound_bytes", half),
            ("outbound_bytes", half),
            ("segment_files_open", config.max_open_files),
            ("outgoing_calls_in_flight", config.outgoing_calls),
        ] {
            self.limits.get_or_create(&LimitLabel { what }).set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }

    /// Counts an HTTP request to something at this path.
    pub fn http_request(&self, path: &'static str) {
        self.http_requests.get_or_create(&PathLabel { path }).inc();
    }

    /// Counts an HTTP answer with this status.
    pub fn http_answer(&self, status: u16) {
        self.http_answers.get_or_create(&StatusLabel { status }).inc();
    }

    /// Counts a request of this kind.
    pub fn request(&self, kind: &'static str) {
        self.requests.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts a refusal or failure of this kind.
    pub fn error(&self, kind: ErrorKind) {
        self.errors.get_or_create(&KindLabel { kind: kind.name() }).inc();
    }

    /// Adds everything to a registry.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register("connections", "Native connections open now", self.connections.clone());
        registry.register("kafka_connections", "Kafka connections open now", self.kafka_connections.clone());
        registry.register("connections_accepted", "Connections accepted", self.accepted.clone());
        registry.register("connections_refused", "Connections refused at the limit", self.refused.clone());
        registry.register(
            "connections_evicted",
            "Connections closed because others waited for memory and these moved too little",
            self.evicted.clone(),
        );
        registry.register("subscriptions", "Subscriptions open now", self.subscriptions.clone());
        registry.register(
            "requests_in_flight",
            "Requests taken in and not yet answered",
            self.requests_in_flight.clone(),
        );
        registry.register("received_bytes", "Bytes read from clients", self.bytes_in.clone());
        registry.register("sent_bytes", "Bytes written to clients", self.bytes_out.clone());
        registry.register("inbound_bytes", "Bytes of requests in memory", self.held_in.clone());
        registry.register("outbound_bytes", "Bytes of answers in memory", self.held_out.clone());
        let what = "Longest time in the last minute for which the runtime did not get to a task that could run";
        registry.register("runtime_delay_seconds", what, self.runtime_delay.clone());
        registry.register("http_connections", "HTTP connections open now", self.http_connections.clone());
        registry.register("limit", "The most that is allowed of what a gauge of this name tells", self.limits.clone());
        registry.register("http_requests", "HTTP requests by path", self.http_requests.clone());
        registry.register("http_answers", "HTTP answers by status", self.http_answers.clone());
        registry.register("requests", "Requests by kind", self.requests.clone());
        registry.register("request_errors", "Refusals and failures by kind", self.errors.clone());
    }
}
