//! `Idempotency-Key`: an append that is sent again is found to be there already, also after a crash.
//!
//! A key stands for a producer whose only batch in a partition is that of the request. The log knows the last batches of its
//! keys, from the batches themselves; nothing else is kept. What a batch holds is in its sequence number, so the log
//! refuses the same key with something else. How long a key is known, and what happens when there is no place for a new one:
//! `log/keys.rs`.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::base::{ErrorKind, PartitionId, ProducerId, limits};
use crate::broker::BrokerError;
use crate::record::{BatchOptions, Record, partition_for_key};

/// The header.
const NAME: &str = "idempotency-key";
/// Bytes of a key.
const MOST: usize = 255;

/// The key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    text: String,
    producer: ProducerId,
}

impl IdempotencyKey {
    /// The key that the headers hold, with or without quotes.
    ///
    /// # Errors
    /// There are several, or it is empty, too long, or no text.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut all = headers.get_all(NAME).iter();
        let Some(value) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(Problem::wrong("there are several headers Idempotency-Key"));
        }
        let text = value.to_str().map_err(|_| Problem::wrong("the Idempotency-Key is not plain text"))?.trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if text.is_empty() || text.len() > MOST {
            let detail = format!("an Idempotency-Key of {} bytes; allowed are 1 to {MOST}", text.len());
            return Err(Problem::wrong(detail));
        }
        let number = number(&Sha256::digest(text.as_bytes()));
        let producer = limits::KEY_PRODUCER_IDS | (number & (limits::KEY_PRODUCER_IDS - 1));
        Ok(Some(Self { text: text.to_owned(), producer }))
    }

    /// Where records without a key of their own go: to the same partition each time.
    pub fn partition(&self, partitions: u32) -> PartitionId {
        partition_for_key(self.text.as_bytes(), partitions)
    }

    /// What makes the batch of these records known again.
    pub fn options(&self, records: &[(usize, Record)]) -> BatchOptions {
        let mut hash = Sha256::new();
        let mut add = |part: Option<&[u8]>| {
            // With lengths, or what moves from one part to the next would count as the same.
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hash.update(part.unwrap_or_default());
        };
        for (_, record) in records {
            add(record.key.as_deref());
            add(record.value.as_deref());
            add(Some(&(record.headers.len() as u64).to_be_bytes()));
            for header in &record.headers {
                add(Some(header.name));
                add(header.value);
            }
        }
        let base_sequence = i32::try_from(number(&hash.finalize()) & i64::from(i32::MAX)).unwrap_or(0);
        BatchOptions { producer_id: self.producer, producer_epoch: 0, base_sequence, ..BatchOptions::default() }
    }

    /// What a refusal means to whoever sent the key.
    pub fn problem(&self, error: BrokerError) -> Problem {
        if let Some(wait_ms) = error.key_refused_for() {
            let seconds = HeaderValue::from(wait_ms.div_ceil(1000).max(1));
            let problem = Problem::from(error).with_status(StatusCode::TOO_MANY_REQUESTS);
            return problem.with_header(header::RETRY_AFTER, seconds);
        }
        if error.kind() != ErrorKind::OutOfOrderSequence {
            return error.into();
        }
        self.used()
    }

    /// It was used for something else. Also said of what is sent again after the topic got more partitions, and would go to
    /// another one now.
    pub fn used(&self) -> Problem {
        let detail = format!("the Idempotency-Key '{}' was used for other records", self.text);
        Problem::wrong(detail).with_status(StatusCode::UNPROCESSABLE_ENTITY)
    }

    /// The producer that it stands for in the log.
    pub fn producer(&self) -> ProducerId {
        self.producer
    }
}

/// The beginning of a digest.
fn number(digest: &[u8]) -> i64 {
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

#[cfg(test)]
mod tests;
