//! Whether the server lives, whether it is ready, and what it counts.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Caller, content, granted, json};
use super::problem::Problem;
use crate::base::ErrorKind;

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

/// `GET /ready`: it takes work. It does not while it stops, or while partitions take no writes.
///
/// # Errors
/// 503, and why.
pub async fn ready(caller: &Arc<Caller>) -> Result<Answer, Problem> {
    let shared = &caller.shared;
    if shared.is_stopping() {
        return Err(Problem::new(ErrorKind::ShuttingDown, "the server is stopping"));
    }
    let broken = shared.broker.broken_partitions().await;
    if let Some((topic, partition, state)) = broken.first() {
        let detail = format!("{} partitions are not in order, the first is {topic}/{partition}: {state}", broken.len());
        return Err(Problem::new(ErrorKind::Poisoned, detail));
    }
    let topics = shared.broker.list_topics().len();
    Ok(json(StatusCode::OK, &json!({ "status": "ready", "topics": topics })))
}

/// `GET /metrics`.
pub async fn metrics(caller: &Arc<Caller>) -> Answer {
    let shared = caller.shared.clone();
    let counted = tokio::task::spawn_blocking(move || shared.metrics_text());
    match counted.await {
        Ok(text) => {
            let grant = caller.outgoing.take(text.len()).await;
            content(StatusCode::OK, OPEN_METRICS, granted(text.into_bytes(), grant))
        }
        Err(error) => Problem::new(ErrorKind::Internal, format!("the metrics failed: {error}")).answer(),
    }
}
