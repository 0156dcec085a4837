//! The one place that says how a refusal looks in HTTP: a status, and problem details (RFC 9457).

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::answer::{Answer, content};
use crate::base::ErrorKind;
use crate::broker::BrokerError;

/// Characters of what is said; names in it may be as long as a body.
const DETAIL_CHARS: usize = 2000;

/// A request that is not fulfilled.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    /// What the client can do about it.
    kind: ErrorKind,
    detail: String,
    more: Map<String, Value>,
    /// Seldom there, and so not part of every outcome's size.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// A refusal whose status follows from its kind.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { status: status_of(kind), kind, detail: detail.into(), more: Map::new(), header: None }
    }

    /// A request that makes no sense.
    pub fn wrong(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, detail)
    }

    /// With a status of its own.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// With a member more.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// What the client can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// In one line.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// As JSON.
    pub fn body(&self) -> Value {
        let detail: String = self.detail.chars().take(DETAIL_CHARS).collect();
        let mut body = json!({
            "type": format!("urn:tidelog:error:{}", self.kind.name()),
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "kind": self.kind.name(),
            "detail": detail,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.more.clone());
        }
        body
    }

    /// As an answer.
    pub fn answer(&self) -> Answer {
        let mut answer = content(self.status, "application/problem+json", format!("{}\n", self.body()));
        if let Some(header) = &self.header {
            let (name, value) = header.as_ref();
            answer.headers_mut().insert(name, value.clone());
        }
        if let Some(seconds) = retry_after(self.kind) {
            // What was said for this very refusal stands.
            answer.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static(seconds));
        }
        answer
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        let problem = Self::new(error.kind(), error.to_string());
        match error.range() {
            Some((start, end)) => problem.with("log_start", start).with("log_end", end),
            None => problem,
        }
    }
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest | ErrorKind::InvalidRecord | ErrorKind::CorruptBatch | ErrorKind::BadFrame => {
            StatusCode::BAD_REQUEST
        }
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists
        | ErrorKind::FencedProducer
        | ErrorKind::FencedMember
        | ErrorKind::OutOfOrderSequence
        | ErrorKind::Busy => StatusCode::CONFLICT,
        ErrorKind::OffsetOutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Poisoned | ErrorKind::Overloaded | ErrorKind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Disconnected => StatusCode::BAD_GATEWAY,
        ErrorKind::Damaged | ErrorKind::Io | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// When to try again, where the server has an idea of it.
fn retry_after(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Overloaded | ErrorKind::Busy | ErrorKind::ShuttingDown | ErrorKind::Poisoned => Some("1"),
        ErrorKind::StorageFull => Some("5"),
        _ => None,
    }
}
