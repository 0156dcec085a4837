//! Whether the server lives, whether it is ready, and what it counts.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Caller, content, granted, json};
use super::problem::Problem;
use crate::base::{Condition, ErrorKind, Severity, Trouble};

/// The content type that Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /health`: the process answers.
pub fn health(caller: &Caller) -> Answer {
    let shared = &caller.shared;
    let uptime = shared.clock.monotonic_ms().saturating_sub(shared.started_monotonic_ms);
    json(
        StatusCode::OK,
        &json!({
            "status": "ok",
            "server_id": shared.broker.server_id(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": uptime,
        }),
    )
}

/// `GET /ready`: it takes work. It does not while it stops, or while something is wrong that keeps it from working. Takes no
/// lock that is held during work of the disk.
///
/// # Errors
/// 503, and everything that is wrong.
pub fn ready(caller: &Arc<Caller>) -> Result<Answer, Problem> {
    let shared = &caller.shared;
    if shared.is_stopping() {
        return Err(Problem::new(ErrorKind::ShuttingDown, "the server is stopping"));
    }
    let troubles = shared.broker.health().troubles();
    let conditions: Vec<_> = troubles.iter().map(condition).collect();
    let failing = |trouble: &&Trouble| trouble.condition.severity() == Severity::Failing;
    let reasons: Vec<_> = troubles
        .iter()
        .filter(failing)
        .map(|trouble| format!("{}: {}", trouble.condition.name(), trouble.reason))
        .collect();
    if !reasons.is_empty() {
        let full = troubles.iter().any(|trouble| trouble.condition == Condition::StorageFull);
        let kind = if full { ErrorKind::StorageFull } else { ErrorKind::Poisoned };
        let problem = Problem::new(kind, reasons.join("; "));
        return Err(problem.with_status(StatusCode::SERVICE_UNAVAILABLE).with("conditions", conditions));
    }
    let mut body = json!({ "status": "ready", "topics": shared.broker.topic_count() });
    if !conditions.is_empty() {
        body["conditions"] = conditions.into();
    }
    Ok(json(StatusCode::OK, &body))
}

fn condition(trouble: &Trouble) -> Value {
    json!({
        "condition": trouble.condition.name(),
        "severity": trouble.condition.severity().name(),
        "since_ms": trouble.since_ms,
        "reason": trouble.reason,
    })
}

/// `GET /metrics`.
pub async fn metrics(caller: &Arc<Caller>) -> Answer {
    let text = caller.shared.metrics_text().await;
    let grant = caller.outgoing.take(text.len()).await;
    content(StatusCode::OK, OPEN_METRICS, granted(text.as_bytes().to_vec(), grant))
}
