//! Which request is whose.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use super::answer::{Answer, Caller};
use super::guest::{self, Names};
use super::problem::Problem;
use super::{durable, ingest, read, requests, status};
use crate::base::{ErrorKind, Seldom, limits};
use crate::server::tasks;

/// Answers a request, whatever happens.
pub async fn answer(caller: Arc<Caller>, request: Request<Incoming>) -> Answer {
    let name = named(request.uri().path());
    caller.shared.metrics.http_request(name);
    if let Some(agent) = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
        caller.connection().is_of(agent);
    }
    let outcome = match head_bytes(&request) {
        0..=limits::HTTP_HEAD_BYTES => AssertUnwindSafe(route(&caller, request)).catch_unwind().await,
        bytes => Ok(Err(too_large(bytes))),
    };
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = tasks::panic_text(panic.as_ref());
        tracing::error!(path = name, panic = text, "an HTTP request panicked");
        Err(Problem::new(ErrorKind::Internal, format!("the server failed on this request: {text}")))
    });
    let answer = outcome.unwrap_or_else(|problem| {
        caller.shared.metrics.error(problem.kind());
        match problem.kind() {
            ErrorKind::Io | ErrorKind::Internal | ErrorKind::Damaged | ErrorKind::StorageFull => {
                static TOLD: Seldom = Seldom::new();
                if let Some(left_out) = TOLD.turn() {
                    tracing::warn!(path = name, error = problem.detail(), left_out, "HTTP requests fail");
                }
            }
            _ => tracing::debug!(path = name, error = problem.detail(), "HTTP request refused"),
        }
        problem.answer()
    });
    caller.shared.metrics.http_answer(answer.status().as_u16());
    answer
}

/// The bytes of a request's head, as HTTP/1.1 has it on the wire but for blanks that mean nothing.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + " HTTP/1.1\r\n".len() + 1;
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + headers.sum::<usize>() + "\r\n".len()
}

fn too_large(bytes: usize) -> Problem {
    let most = limits::HTTP_HEAD_BYTES;
    Problem::wrong(format!("the head of the request has {bytes} bytes, more than {most}"))
        .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
}

/// The path as metrics and logs have it: nothing that a peer chose.
fn named(path: &str) -> &'static str {
    match path.split('/').nth(1) {
        Some("topics") => "/topics",
        Some("requests") => "/requests",
        Some("metrics") => "/metrics",
        Some("health") => "/health",
        Some("ready") => "/ready",
        _ => "other",
    }
}

async fn route(caller: &Arc<Caller>, request: Request<Incoming>) -> Result<Answer, Problem> {
    guest::check(request.headers(), caller.is_local, &Names(&caller.shared.config.http_names))?;
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !caller.used() {
        return Err(Problem::new(ErrorKind::Overloaded, "the connection had no request yet and lost its place"));
    }
    match parts.as_slice() {
        ["health"] if reads => Ok(status::health(caller)),
        ["ready"] if reads => status::ready(caller),
        ["metrics"] if reads => Ok(status::metrics(caller).await),
        _ if caller.is_kept() => {
            let detail = "all connections of this door are taken; those beyond are for /health, /ready and /metrics";
            Err(Problem::new(ErrorKind::Overloaded, detail))
        }
        ["topics", topic] if *request.method() == Method::POST => ingest::append(caller, topic, request).await,
        ["topics", topic] if *request.method() == Method::GET => read::read(caller, topic, &request).await,
        ["requests", topic] if *request.method() == Method::POST => requests::ask(caller, topic, request).await,
        ["requests", id] if *request.method() == Method::GET => durable::show(caller, id, request.uri().query()).await,
        ["requests", id] if *request.method() == Method::DELETE => {
            durable::cancel(caller, id, request.uri().query()).await
        }
        ["requests"] if *request.method() == Method::GET => durable::list(caller, request.uri().query()).await,
        ["requests", _] => Err(not_allowed(request.method(), &path, "GET, POST, DELETE")),
        ["requests"] => Err(not_allowed(request.method(), &path, "GET")),
        ["topics", _] => Err(not_allowed(request.method(), &path, "GET, POST")),
        ["health" | "ready" | "metrics"] => Err(not_allowed(request.method(), &path, "GET, HEAD")),
        _ => {
            let detail = format!(
                "there is nothing at {path}; there is /topics/TOPIC, /requests, /requests/TOPIC, /requests/ID, /metrics, /health and /ready"
            );
            Err(Problem::new(ErrorKind::NotFound, detail))
        }
    }
}

fn not_allowed(method: &Method, path: &str, allowed: &'static str) -> Problem {
    Problem::wrong(format!("{path} knows no {method}, only {allowed}"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .with_header(header::ALLOW, HeaderValue::from_static(allowed))
}
