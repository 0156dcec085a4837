//! What every listener and connection of one server shares.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::budget::Budget;
use super::config::ServerConfig;
use super::connections::Connections;
use super::delay::RuntimeDelay;
use super::metrics::ServerMetrics;
use super::outgoing::Outgoing;
use super::places::Doors;
use super::process::ProcessMetrics;
use crate::base::{TimestampMs, TrustedClock};
use crate::broker::{Broker, WebhookSecrets};

/// The inside of a running server.
pub struct Shared {
    /// What the operator set.
    pub config: ServerConfig,
    /// The one that does the work.
    pub broker: Arc<Broker>,
    /// The clock.
    pub clock: Arc<TrustedClock>,
    /// When the server started, wall time.
    pub started_at_ms: TimestampMs,
    /// When the server started, on the monotonic clock.
    pub started_monotonic_ms: u64,
    /// What is counted.
    pub metrics: Arc<ServerMetrics>,
    /// How late the runtime is.
    pub delay: RuntimeDelay,
    /// What the process uses.
    pub process: ProcessMetrics,
    /// Who makes calls to other people's HTTP endpoints.
    pub calls: Arc<Outgoing>,
    /// What signs all calls but those of pushes that have a secret of their own.
    pub secrets: WebhookSecrets,
    /// Bytes of requests.
    pub incoming: Arc<Budget>,
    /// Bytes of answers.
    pub outgoing: Arc<Budget>,
    /// The places of all doors.
    pub doors: Doors,
    /// The connections that are open.
    pub connections: Arc<Connections>,
    /// One permit a connection that is being refused.
    pub refusals: Arc<Semaphore>,
    /// Becomes true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl Shared {
    /// Returns when the server stops.
    pub async fn stopped(&self) {
        // The sender gone means the server is gone, which is a stop too.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }

    /// Whether it stops.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// How late the runtime has been at most, within this time up to now; up to a minute.
    pub fn runtime_delay(&self, span: Duration) -> Duration {
        self.delay.within(span, self.clock.monotonic_ms())
    }

    /// All metrics as they are now, in the Prometheus text format. See [`Broker::metrics_text`].
    pub async fn metrics_text(self: &Arc<Self>) -> Arc<str> {
        let shared = Arc::clone(self);
        let encode = move || {
            shared.metrics.held_in.set(i64::try_from(shared.incoming.used()).unwrap_or(i64::MAX));
            shared.metrics.held_out.set(i64::try_from(shared.outgoing.used()).unwrap_or(i64::MAX));
            let evictions = shared.incoming.evictions() + shared.outgoing.evictions();
            shared.metrics.evicted.inc_by(evictions.saturating_sub(shared.metrics.evicted.get()));
            shared.metrics.runtime_delay.set(shared.runtime_delay(Duration::from_secs(60)).as_secs_f64());
            shared.process.refresh();
            shared.broker.encode_metrics(Some(shared.process.registry()))
        };
        self.broker.metrics_text(Arc::new(encode)).await
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).field("calls", &self.calls).finish_non_exhaustive()
    }
}
