//! Requests, replies and callbacks as records: what their headers say.

use bytes::{Bytes, BytesMut};

use sha2::{Digest, Sha256};

use crate::base::{RequestId, TimestampMs, TopicName};
use crate::catalog::{Callback, OutcomeKind, RequestEntry};
use crate::record::{BatchBuilder, BatchOptions, Headers, Record};

use super::Content;
use super::machine::Word;

/// The header with a request's correlation id.
pub const CORRELATION_ID: &str = "tidelog-correlation-id";
/// The header that says in which topic the reply is expected.
pub const REPLY_TO: &str = "tidelog-reply-to";
/// The header that says from when on a reply is of no use, in milliseconds since the Unix epoch.
pub const DEADLINE: &str = "tidelog-deadline";
/// The header with the number of a chain's step, from 0; to be repeated in the reply.
pub const STEP: &str = "tidelog-step";
/// The header with the topics that come after this step, separated by commas.
pub const ITINERARY: &str = "tidelog-itinerary";
/// The header of a reply or callback that says what it is: `replied`, `failed`, `timed_out` or `cancelled`, the words
/// of a request's state. Read are `reply` and `error` as well, which versions before wrote.
pub const OUTCOME: &str = "tidelog-outcome";
/// The header with what a person reads of an error.
pub const ERROR: &str = "tidelog-error";
/// The header with what a program reads of an error.
pub const ERROR_CODE: &str = "tidelog-error-code";
/// The header of a callback with the topic of the step at which it ended.
pub const STEP_TOPIC: &str = "tidelog-step-topic";
/// The header of a callback that could not be delivered: where it was to be POSTed.
pub const CALLBACK_URL: &str = "tidelog-callback-url";
/// The header of a callback that could not be delivered: why.
pub const CALLBACK_ERROR: &str = "tidelog-callback-error";

/// The topic of replies to durable requests.
pub const REPLIES: &str = "tidelog.replies";

const OWN: [&str; 9] = [CORRELATION_ID, REPLY_TO, DEADLINE, STEP, ITINERARY, OUTCOME, ERROR, ERROR_CODE, STEP_TOPIC];

/// What tells a question from another one: the beginning of the SHA-256 of its headers and body, each with its length.
pub(crate) fn fingerprint(content: &Content) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut add = |part: Option<&[u8]>| {
        hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    };
    for header in &content.headers {
        add(Some(header.name));
        add(header.value);
    }
    add(Some(&content.body));
    let digest: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|at| digest[at])
}

/// A header's value as text.
pub(crate) fn text_of<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let header = record.headers.iter().find(|header| header.name == name.as_bytes())?;
    std::str::from_utf8(header.value?).ok()
}

/// The correlation id, if it is one.
pub(crate) fn id_of(record: &Record) -> Option<RequestId> {
    RequestId::new(text_of(record, CORRELATION_ID)?).ok()
}

/// The step; without the header, the first.
pub(crate) fn step_of(record: &Record) -> u32 {
    text_of(record, STEP).and_then(|step| step.parse().ok()).unwrap_or(0)
}

/// What a record in the topic of replies says. A client of another kind need not say that it is a reply, and says with
/// `tidelog-error` alone that it is none.
pub(crate) fn word_of(record: &Record) -> Word {
    let error = text_of(record, ERROR);
    match (text_of(record, OUTCOME), error) {
        (Some("timed_out"), _) => Word::TimedOut,
        (Some("cancelled"), _) => Word::Cancelled,
        (Some("failed" | "error"), _) | (None, Some(_)) => Word::Error {
            code: text_of(record, ERROR_CODE).unwrap_or("error").to_owned(),
            text: error.unwrap_or_default().to_owned(),
        },
        _ => Word::Reply,
    }
}

/// The headers that are not ours.
pub(crate) fn plain(headers: &Headers) -> Headers {
    let mut headers = headers.clone();
    headers.retain(|header| !OWN.iter().any(|own| header.name == own.as_bytes()));
    headers
}

fn header(name: &'static str, value: impl Into<String>) -> (&'static str, Option<String>) {
    (name, Some(value.into()))
}

fn record(id: &RequestId, body: Option<Bytes>, headers: Headers, now: TimestampMs) -> Record {
    let key = Some(Bytes::copy_from_slice(id.as_str().as_bytes()));
    Record { offset: 0, timestamp: now, key, value: body, headers }
}

/// The request of the step that the entry is at.
pub(crate) fn request(entry: &RequestEntry, headers: &Headers, body: Option<Bytes>, now: TimestampMs) -> Record {
    let mut headers = plain(headers);
    headers.extend([
        header(CORRELATION_ID, entry.id.as_str()),
        header(REPLY_TO, REPLIES),
        header(DEADLINE, entry.deadline_ms.to_string()),
    ]);
    if entry.steps.len() > 1 {
        headers.extend([header(STEP, entry.step.to_string())]);
        let rest = entry.steps.get(entry.step as usize + 1..).unwrap_or_default();
        let rest: Vec<&str> = rest.iter().map(TopicName::as_str).collect();
        headers.extend([header(ITINERARY, rest.join(","))]);
    }
    record(&entry.id, body, headers, now)
}

/// A record for the topic of replies.
pub(crate) fn reply(
    id: &RequestId,
    step: u32,
    word: &Word,
    headers: &Headers,
    body: Option<Bytes>,
    now: TimestampMs,
) -> Record {
    let mut headers = plain(headers);
    headers.extend([header(CORRELATION_ID, id.as_str()), header(STEP, step.to_string())]);
    headers.extend([header(OUTCOME, word.name())]);
    if let Word::Error { code, text } = word {
        headers.extend([header(ERROR_CODE, code.clone()), header(ERROR, text.clone())]);
    }
    record(id, body, headers, now)
}

/// The callback of a request that is over, from the record that decided it.
pub(crate) fn callback(entry: &RequestEntry, decided_by: &Record, now: TimestampMs) -> Record {
    let mut headers = plain(&decided_by.headers);
    headers.extend([header(CORRELATION_ID, entry.id.as_str())]);
    let name = match entry.outcome.as_ref().map(|outcome| &outcome.kind) {
        Some(OutcomeKind::Failed { code, text }) => {
            headers.extend([header(ERROR_CODE, code.clone()), header(ERROR, text.clone())]);
            "failed"
        }
        Some(OutcomeKind::TimedOut) => "timed_out",
        Some(OutcomeKind::Cancelled) => "cancelled",
        Some(OutcomeKind::Replied) | None => "replied",
    };
    headers.extend([header(OUTCOME, name), header(STEP, entry.step.to_string())]);
    if let Some(topic) = entry.steps.get(entry.step as usize) {
        headers.extend([header(STEP_TOPIC, topic.as_str())]);
    }
    if let Some(Callback::DeadLetter { url, reason }) = &entry.callback {
        headers.extend([header(CALLBACK_URL, url.clone()), header(CALLBACK_ERROR, reason.clone())]);
    }
    record(&entry.id, decided_by.value.clone(), headers, now)
}

/// The batch of one record.
pub(crate) fn batch(record: &Record) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push_record(record);
    builder.build()
}

impl Word {
    fn name(&self) -> &'static str {
        match self {
            Self::Reply => "replied",
            Self::Error { .. } => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}
