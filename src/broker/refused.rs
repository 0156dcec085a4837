//! Which records of a batch are the reason that it was refused. A producer then gives up only those, and sends the others again.

use std::fmt;

use bytes::BytesMut;

use crate::base::{TimestampMs, limits};
use crate::catalog::TopicSettings;
use crate::record::{BatchError, BatchHeader, Bounds, Compression, walk_records};

use super::work::WorkKey;
use super::{Broker, BrokerError};

/// Records of one batch that are told of.
const MOST: usize = 1_000;

/// A record that its topic does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRecord {
    /// Its place in the batch, from 0.
    pub index: u32,
    /// What is wrong with it; `None` if the error of the batch says it.
    pub why: Option<BadReason>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadReason {
    /// It has no key, and records are compacted by key.
    NoKey,
    /// Its timestamp is further in the past or future than the topic allows.
    Timestamp(TimestampMs),
}

impl fmt::Display for BadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("the record has no key; a compacted topic takes only records with a key"),
            Self::Timestamp(time) => write!(f, "the record's timestamp {time} is further off than the topic allows"),
        }
    }
}

/// A batch that was refused because of some of its records.
pub(super) struct RefusedBatch(BytesMut);

impl fmt::Debug for RefusedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl RefusedBatch {
    /// The batch, if the error is about some of its records and a look at all of them tells which.
    pub(super) fn of(error: &BrokerError, batch: BytesMut) -> Option<Box<Self>> {
        let about_records =
            matches!(error.batch_error(), Some(BatchError::NoKey { .. } | BatchError::Timestamp { .. }));
        about_records.then(|| Box::new(Self(batch)))
    }
}

/// The records that a topic does not take, at most so many.
fn look(batch: &[u8], settings: &TopicSettings, now: TimestampMs) -> Vec<BadRecord> {
    let limit = |limit: Option<crate::base::Millis>| limit.map(|limit| i64::try_from(limit.0).unwrap_or(i64::MAX));
    let beyond = |by: i64, limit: Option<i64>| limit.is_some_and(|limit| by > limit);
    let (after, before) = (limit(settings.timestamp_after_max), limit(settings.timestamp_before_max));
    let mut found = Vec::new();
    let walked = walk_records(batch, Bounds::own(settings.max_message_bytes.as_usize()), |index, time, has_key| {
        let off = time
            .is_some_and(|time| beyond(time.saturating_sub(now), after) || beyond(now.saturating_sub(time), before));
        let why = match time {
            Some(time) if off => Some(BadReason::Timestamp(time)),
            _ if !has_key && settings.cleanup.compacts() => Some(BadReason::NoKey),
            _ => None,
        };
        found.extend(why.map(|why| BadRecord { index, why: Some(why) }));
        found.len() < MOST
    });
    if let Err(error) = walked {
        tracing::debug!(%error, "a refused batch cannot be walked over");
    }
    found
}

impl BrokerError {
    /// What is wrong with the batch that was refused, if that is it.
    pub fn batch_error(&self) -> Option<&BatchError> {
        std::error::Error::source(self)?.downcast_ref()
    }
}

impl Broker {
    /// The records because of which a batch was refused, in their order; at most 1,000. Looking for them may take a worker's time, as
    /// `key`'s work. The error gives the batch away, so that the second time there is nothing to be found.
    pub async fn bad_records(&self, key: &WorkKey, topic: &str, error: &mut BrokerError) -> Vec<BadRecord> {
        let one = error.batch_error().and_then(BatchError::record).map(|index| BadRecord { index, why: None });
        let (Some(refused), Ok(settings)) = (error.take_refused(), self.topic_settings(topic)) else {
            return one.into_iter().collect();
        };
        let (batch, now) = (refused.0, self.clock.stamp_ms());
        let plain = BatchHeader::parse(&batch).and_then(|header| header.compression()) == Ok(Compression::None);
        let found = match plain && batch.len() <= limits::INLINE_BYTES {
            true => look(&batch, &settings, now),
            false => self.workers.run(key, move |_| look(&batch, &settings, now)).await.unwrap_or_default(),
        };
        // The topic may have been altered meanwhile.
        if found.is_empty() { one.into_iter().collect() } else { found }
    }
}
