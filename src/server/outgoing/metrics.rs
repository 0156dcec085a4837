//! What is counted of calls.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::{CallError, CallFailure, Reply};

/// What may come of a call.
const OUTCOMES: [&str; 10] =
    ["2xx", "3xx", "4xx", "5xx", "other", "refused", "unreachable", "timed_out", "broken", "busy"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// All calls together: no endpoint has a name here, because peers name them.
#[derive(Debug)]
pub(super) struct CallMetrics {
    calls: Family<OutcomeLabel, Counter>,
    seconds: Histogram,
    in_flight: Gauge,
}

impl Default for CallMetrics {
    fn default() -> Self {
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        Self { calls: Family::default(), seconds, in_flight: Gauge::default() }
    }
}

/// A call that is under way.
pub(super) struct UnderWay<'a>(&'a Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl CallMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("outgoing_calls", "Calls to other people's endpoints by outcome", self.calls.clone());
        registry.register(
            "outgoing_call_seconds",
            "Time a call took, with the wait for its turn",
            self.seconds.clone(),
        );
        registry.register("outgoing_calls_in_flight", "Calls that are under way", self.in_flight.clone());
        for outcome in OUTCOMES {
            drop(self.calls.get_or_create(&OutcomeLabel { outcome }));
        }
    }

    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.in_flight.inc();
        UnderWay(&self.in_flight)
    }

    pub(super) fn ended(&self, result: &Result<Reply, CallError>, took: Duration) {
        let outcome = match result {
            Ok(reply) => match reply.status / 100 {
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                5 => "5xx",
                _ => "other",
            },
            Err(error) => match error.failure {
                CallFailure::Refused => "refused",
                CallFailure::Unreachable => "unreachable",
                CallFailure::TimedOut => "timed_out",
                CallFailure::Broken => "broken",
                CallFailure::Busy => "busy",
            },
        };
        self.calls.get_or_create(&OutcomeLabel { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
