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
use percent_encoding::AsciiSet;

use super::outgoing::{Call, CallFailure, Outgoing, Url};
use crate::base::TimestampMs;
use crate::broker::WebhookSecrets;
use crate::record::Header;

/// What its own headers begin with; those of others get [`HEADER`] before them.
const OWN: &str = "tidelog-";
/// What a header of a record is named in a call.
const HEADER: &str = "tidelog-header-";
/// What a call itself says of a record. A header of the record with such a name is a header like any other, so that a record
/// cannot say that it is another, or of another topic.
const RESERVED: [&str; 10] = [
    "tidelog-push",
    "tidelog-topic",
    "tidelog-partition",
    "tidelog-offset",
    "tidelog-delivery",
    "tidelog-tombstone",
    "tidelog-key",
    "tidelog-key-base64",
    "tidelog-records",
    "tidelog-next",
];
/// The bodies that are looked through for whether they are JSON; of larger ones the ends count.
const JSON_BYTES: usize = 256 * 1024;
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
    pub fn headers(&self, body: &[u8], now_ms: TimestampMs, secrets: &WebhookSecrets) -> HeaderMap {
        let mut headers = self.envelope(body, now_ms, secrets);
        set(&mut headers, "ce-specversion", "1.0");
        set_attribute(&mut headers, "id", self.id.as_bytes());
        set_attribute(&mut headers, "source", self.source.as_bytes());
        set_attribute(&mut headers, "type", self.kind.as_bytes());
        if let Some(time) = time(self.time_ms) {
            set(&mut headers, "ce-time", &time);
        }
        headers
    }

    /// Standard Webhooks alone: the body says the rest.
    pub fn envelope(&self, body: &[u8], now_ms: TimestampMs, secrets: &WebhookSecrets) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let seconds = now_ms.div_euclid(1000);
        set(&mut headers, "content-type", self.content_type);
        set(&mut headers, "webhook-id", self.id);
        set(&mut headers, "webhook-timestamp", &seconds.to_string());
        if let Some(signatures) = secrets.sign(self.id, seconds, body) {
            set(&mut headers, "webhook-signature", &signatures);
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

/// Sets an attribute of an event, as the HTTP binding of CloudEvents writes it (3.1.3.2): what is no printable character of
/// ASCII, and space, quote and percent, as `%` and two digits.
pub fn set_attribute(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    let name = HeaderName::try_from(format!("ce-{name}"));
    let value = percent_encoding::percent_encode(value, ATTRIBUTE).to_string();
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
        headers.insert(name, value);
    }
}

const ATTRIBUTE: &AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'%');

/// The value of an attribute that an HTTP header holds: the other way round. What is not UTF-8 then stays as it was sent.
pub fn attribute(value: &[u8]) -> Bytes {
    let decoded: Vec<u8> = percent_encoding::percent_decode(value).collect();
    match std::str::from_utf8(&decoded) {
        Ok(_) => decoded.into(),
        Err(_) => Bytes::copy_from_slice(value),
    }
}

/// Sets the headers of a record, each as often as the record has it, under names that nothing else has; what HTTP cannot say is
/// left out.
pub fn set_record_headers<'a>(headers: &mut HeaderMap, of: impl IntoIterator<Item = Header<'a>>) {
    for Header { name, value } in of {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let own = name.starts_with(OWN) && !name.starts_with(HEADER) && !RESERVED.contains(&name.as_str());
        let name = match name.as_str() {
            "content-type" => {
                // One, and not the usual one beside it: the last that the record has.
                headers.remove(http::header::CONTENT_TYPE);
                name
            }
            _ if own => name,
            _ => format!("{HEADER}{name}"),
        };
        let value = value.into_iter().flatten().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte });
        let value = HeaderValue::from_bytes(&value.collect::<Vec<u8>>());
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value) {
            headers.append(name, value);
        }
    }
}

/// What a body is, when nobody says it.
pub fn content_type(body: &[u8]) -> &'static str {
    match (is_json(body), is_text(body)) {
        (true, _) => "application/json",
        (false, true) => "text/plain; charset=utf-8",
        (false, false) => "application/octet-stream",
    }
}

fn is_json(body: &[u8]) -> bool {
    if body.len() <= JSON_BYTES {
        return serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok();
    }
    let body = body.trim_ascii();
    matches!((body.first(), body.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')))
}

/// Whether it is text for people: characters that JSON writes as six are not.
pub fn is_text(body: &[u8]) -> bool {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    !body.is_empty() && std::str::from_utf8(body).is_ok_and(|text| !text.chars().any(is_odd))
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

/// POSTs. `now_ms` is the time with which a date is compared until which the endpoint wants to be left alone.
pub async fn post(
    calls: &Outgoing,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    now_ms: impl Fn() -> TimestampMs,
) -> Said {
    match calls.call(Call { url, headers, body, timeout }).await {
        Ok(reply) if reply.is_success() => Said::Taken,
        Ok(reply) if reply.status == 410 => Said::Gone("the endpoint answers 410, which is for good".to_owned()),
        Ok(reply) => {
            let excerpt: String = reply.excerpt.chars().filter(|c| !c.is_control()).take(EXCERPT).collect();
            let reason = format!("the endpoint answers {} {excerpt}", reply.status).trim_end().to_owned();
            Said::Refused(reason, reply.retry_after.map(|asked| asked.from(now_ms())))
        }
        Err(error) => match error.failure {
            CallFailure::Busy => Said::NoTurn,
            CallFailure::Refused | CallFailure::Unreachable => Said::Unreachable(error.message),
            CallFailure::TimedOut | CallFailure::Broken => Said::Silent(error.message),
        },
    }
}
