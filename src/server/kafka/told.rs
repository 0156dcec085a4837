//! What the log says of each request: at debug those that failed, at trace all others too. A line has the kind, the version, the client's
//! name, the errors of the answer, and the time from the request to the answer.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};
use std::time::Instant;

use kafka_protocol::ResponseError;

use super::api::Api;
use super::connection::Pending;
use super::errors;
use super::session::Hangup;

/// Kinds of errors that one line names.
const MOST: usize = 8;

/// A request under way, of which a line will be written.
pub struct Told {
    name: &'static str,
    version: i16,
    client: String,
    began: Instant,
}

/// The codes of an answer that are errors, each with how often it is there.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Codes(BTreeMap<i16, usize>);

impl Codes {
    /// Notes a code, if it is an error.
    pub fn note(&mut self, code: i16) {
        if code != errors::NONE {
            *self.0.entry(code).or_default() += 1;
        }
    }

    /// The codes in an answer of one of the crate's structs: by the names of its fields, of which it is asked.
    pub fn of(answer: &impl Debug) -> Self {
        let mut scan = Scan { codes: Self::default(), matched: 0, number: None };
        // It writes what it has, which never fails.
        let _ = write!(scan, "{answer:?}");
        scan.end();
        scan.codes
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (code, times)) in self.0.iter().take(MOST).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match ResponseError::try_from_code(*code) {
                Some(error) => write!(f, "{comma}{error:?} ({code})")?,
                None => write!(f, "{comma}{code}")?,
            }
            if *times > 1 {
                write!(f, " x{times}")?;
            }
        }
        if self.0.len() > MOST { f.write_str(", ...") } else { Ok(()) }
    }
}

/// What is in front of a code in the text of a struct.
const FIELD: &[u8] = b"error_code: ";

/// Reads the codes out of the text of a struct, piece by piece, so that no text is kept.
struct Scan {
    codes: Codes,
    /// Bytes of [`FIELD`] that were just read.
    matched: usize,
    /// The number behind it, as far as it was read: negative, digits.
    number: Option<(bool, i32)>,
}

impl Scan {
    fn end(&mut self) {
        if let Some((negative, number)) = self.number.take() {
            let number = if negative { -number } else { number };
            self.codes.note(i16::try_from(number).unwrap_or(errors::UNKNOWN_SERVER_ERROR));
        }
    }
}

impl Write for Scan {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match (&mut self.number, byte) {
                (Some((negative, 0)), b'-') => *negative = true,
                (Some((_, number)), b'0'..=b'9') => {
                    *number = number.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
                }
                (Some(_), _) => self.end(),
                (None, _) => {}
            }
            // No part of it but its first byte begins it anew.
            self.matched = match byte == FIELD[self.matched] {
                true => self.matched + 1,
                false => usize::from(byte == FIELD[0]),
            };
            if self.matched == FIELD.len() {
                (self.matched, self.number) = (0, Some((false, 0)));
            }
        }
        Ok(())
    }
}

/// Whether anything is said of requests.
pub fn is_wanted() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// The same request, of which a line is written when it is done.
pub fn telling(told: Option<Told>, pending: Pending) -> Pending {
    let Some(told) = told else { return pending };
    Box::pin(async move {
        let outcome = pending.await;
        match &outcome {
            Ok(Some(response)) => told.end(&response.errors),
            Ok(None) => told.end(&Codes::default()),
            Err(reason) => told.hang_up(reason),
        }
        outcome
    })
}

impl Told {
    /// A request that begins; `None` if nothing will be said of it.
    pub fn of(api: &Api, version: i16, client: &str) -> Option<Self> {
        is_wanted().then(|| Self { name: api.name, version, client: client.to_owned(), began: Instant::now() })
    }

    /// Says what came of it.
    pub fn end(self, codes: &Codes) {
        let Self { name, version, client, began } = self;
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if codes.0.is_empty() {
            tracing::trace!(request = name, version, client, us, "request answered");
        } else {
            tracing::debug!(request = name, version, client, error = %codes, us, "request failed");
        }
    }

    /// Says why it has no answer.
    pub fn hang_up(self, reason: &Hangup) {
        let Self { name, version, client, began } = self;
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(request = name, version, client, error = %reason, us, "request failed");
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::MetadataResponse;
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;

    #[test]
    fn the_codes_of_an_answer_are_found_wherever_they_are() {
        let part = |code| MetadataResponsePartition::default().with_error_code(code);
        let topic = |code, parts| MetadataResponseTopic::default().with_error_code(code).with_partitions(parts);
        let none = MetadataResponse::default().with_topics(vec![topic(0, vec![part(0)])]);
        assert_eq!(Codes::of(&none), Codes::default());
        let some = none.with_topics(vec![topic(3, vec![part(-1), part(0)]), topic(3, vec![part(100)])]);
        assert_eq!(Codes::of(&some).0, [(-1, 1), (3, 2), (100, 1)].into());
        let said = Codes::of(&some).to_string();
        assert_eq!(said, "UnknownServerError (-1), UnknownTopicOrPartition (3) x2, UnknownTopicId (100)");
        let mut many = Codes::default();
        (1..20).for_each(|code| many.note(code));
        assert!(many.to_string().ends_with(", ..."));
        // Text that only looks like it.
        assert_eq!(Codes::of(&"error_error_code: 5").0, [(5, 1)].into());
        assert_eq!(Codes::of(&"error_cod error_code:7").0, [].into());
    }
}
