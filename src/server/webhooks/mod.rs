//! What calls to webhooks have in common: their headers and signature, what an answer means, and how long an endpoint is
//! left alone.
//!
//! Knows nothing of what is told; whoever calls decides whether and when to try again.

pub mod courier;
mod lanes;
pub mod patience;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::outgoing::{Call, CallFailure, Outgoing, Url};
use crate::base::TimestampMs;
use crate::broker::WebhookSecret;
use crate::record::Header;

/// What its own headers begin with; those of others get [`HEADER`] before them.
const OWN: &str = "tidelog-";
/// What a header of a record is named in a call.
const HEADER: &str = "tidelog-header-";
/// What a call weighs in the budget beside its body.
pub const OVERHEAD: usize = 4096;
/// Characters of an answer that are repeated in a reason.
const EXCERPT: usize = 200;

/// What is told, as far as headers say it.
#[derive(Debug, Clone)]
pub struct Webhook<'a> {
    /// The same each time that it is sent: the receiver drops what it has had.
    pub id: &'a str,
    /// What it is about, as a path.
    pub source: &'a str,
    /// What kind of news it is.
    pub kind: &'a str,
    /// When it came about.
    pub time_ms: TimestampMs,
    /// What the body is.
    pub content_type: &'a str,
}

impl Webhook<'_> {
    /// CloudEvents 1.0 (HTTP binding, binary mode) and Standard Webhooks.
    pub fn headers(&self, body: &[u8], now_ms: TimestampMs, secret: Option<&WebhookSecret>) -> HeaderMap {
        let mut headers = self.envelope(body, now_ms, secret);
        set(&mut headers, "ce-specversion", "1.0");
        set(&mut headers, "ce-id", self.id);
        set(&mut headers, "ce-source", self.source);
        set(&mut headers, "ce-type", self.kind);
        if let Some(time) = time(self.time_ms) {
            set(&mut headers, "ce-time", &time);
        }
        headers
    }

    /// Standard Webhooks alone: the body says the rest.
    pub fn envelope(&self, body: &[u8], now_ms: TimestampMs, secret: Option<&WebhookSecret>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let seconds = now_ms.div_euclid(1000);
        set(&mut headers, "content-type", self.content_type);
        set(&mut headers, "webhook-id", self.id);
        set(&mut headers, "webhook-timestamp", &seconds.to_string());
        if let Some(secret) = secret {
            set(&mut headers, "webhook-signature", &secret.sign(self.id, seconds, body));
        }
        headers
    }
}

/// A time as CloudEvents write it.
pub fn time(time_ms: TimestampMs) -> Option<String> {
    jiff::Timestamp::from_millisecond(time_ms).ok().map(|time| time.to_string())
}

/// Sets a header; what HTTP cannot say is left out.
pub fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Sets the headers of a record, under names that nothing else has; what HTTP cannot say is left out.
pub fn set_record_headers<'a>(headers: &mut HeaderMap, of: impl IntoIterator<Item = Header<'a>>) {
    for Header { name, value } in of {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let name = if name.starts_with(OWN) || name == "content-type" { name } else { format!("{HEADER}{name}") };
        set_bytes(headers, &name, value);
    }
}

/// Sets a header to bytes that may be anything.
pub fn set_bytes(headers: &mut HeaderMap, name: &str, value: Option<&[u8]>) {
    let value = value.into_iter().flatten().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte });
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value.collect::<Vec<u8>>())) {
        headers.insert(name, value);
    }
}

/// What an endpoint has made of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It has it.
    Taken,
    /// It wants no more of them, by the Standard Webhooks specification.
    Gone(String),
    /// It has answered that it has it not, and perhaps how long it wants to be left alone.
    Refused(String, Option<Duration>),
    /// It was reached, and there was no answer.
    Silent(String),
    /// It could not be reached, or may not be called.
    Unreachable(String),
    /// There was no turn; that says nothing about the endpoint.
    NoTurn,
}

/// POSTs.
pub async fn post(calls: &Outgoing, url: Url, headers: HeaderMap, body: Bytes, timeout: Duration) -> Said {
    match calls.call(Call { url, headers, body, timeout }).await {
        Ok(reply) if reply.is_success() => Said::Taken,
        Ok(reply) if reply.status == 410 => Said::Gone("the endpoint answers 410, which is for good".to_owned()),
        Ok(reply) => {
            let excerpt: String = reply.excerpt.chars().filter(|c| !c.is_control()).take(EXCERPT).collect();
            let reason = format!("the endpoint answers {} {excerpt}", reply.status).trim_end().to_owned();
            Said::Refused(reason, reply.retry_after)
        }
        Err(error) => match error.failure {
            CallFailure::Busy => Said::NoTurn,
            CallFailure::Refused | CallFailure::Unreachable => Said::Unreachable(error.message),
            CallFailure::TimedOut | CallFailure::Broken => Said::Silent(error.message),
        },
    }
}
