//! One error for every door: a kind that prescribes what to do, and a line that says what happened.

use std::fmt;

use bytes::BytesMut;

#[cfg(test)]
use crate::base::limits;
use crate::base::{ErrorKind, NameError, Offset, TopicName};
use crate::catalog::{CatalogError, SettingError};
use crate::log::LogError;
use crate::record::BatchError;

use super::refused::RefusedBatch;

/// Why the broker refused or failed.
#[derive(Debug)]
pub struct BrokerError {
    kind: ErrorKind,
    message: String,
    range: Option<(Offset, Offset)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// The batch, if it was refused because of some of its records.
    refused: Option<Box<RefusedBatch>>,
}

impl BrokerError {
    /// An error without a cause below.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), range: None, source: None, refused: None }
    }

    /// An error with the cause below.
    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { source: Some(Box::new(cause)), ..Self::new(kind, message) }
    }

    /// The same of a batch that was refused.
    pub(super) fn of_batch(mut self, batch: BytesMut) -> Self {
        self.refused = RefusedBatch::of(&self, batch);
        self
    }

    pub(super) fn take_refused(&mut self) -> Option<Box<RefusedBatch>> {
        self.refused.take()
    }

    /// The same, with the partition it is about.
    pub(crate) fn at(mut self, topic: &TopicName, partition: u32) -> Self {
        self.message = format!("topic '{topic}' partition {partition}: {}", self.message);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What offsets there are, if one was out of range: the first, and the one behind the last.
    pub fn range(&self) -> Option<(Offset, Offset)> {
        self.range
    }

    /// Milliseconds after which there is a place for a new idempotency key, if there was none.
    pub fn key_refused_for(&self) -> Option<u64> {
        match self.source.as_ref()?.downcast_ref::<LogError>()? {
            LogError::TooManyKeys { wait_ms, .. } => Some(*wait_ms),
            _ => None,
        }
    }

    /// An append that finds no place for its idempotency key, as a log refuses it.
    #[cfg(test)]
    pub(crate) fn keys_full(topic: &str, wait_ms: u64) -> Self {
        let error = LogError::TooManyKeys { whose: "the partition can", limit: limits::KEYS_PER_PARTITION, wait_ms };
        TopicName::new(topic).map_or_else(Self::from, |topic| Self::of_log(&topic, 0, error))
    }

    /// A place in a log that is not there; `range` is what there is: the first offset, and the one behind the last.
    pub fn out_of_range(message: String, range: (Offset, Offset)) -> Self {
        Self { range: Some(range), ..Self::new(ErrorKind::OffsetOutOfRange, message) }
    }

    pub(crate) fn no_topic(name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("there is no topic '{name}'"))
    }

    pub(crate) fn no_partition(name: &TopicName, partition: u32, partitions: u32) -> Self {
        let message = format!("topic '{name}' has no partition {partition}: it has {partitions}, numbered from 0");
        Self::new(ErrorKind::NotFound, message)
    }

    /// A log's error, with the topic and partition it is about.
    pub(crate) fn of_log(topic: &TopicName, partition: u32, error: LogError) -> Self {
        let range = match &error {
            LogError::OffsetOutOfRange { start, end, .. } => Some((*start, *end)),
            _ => None,
        };
        let message = match error.kind() {
            ErrorKind::StorageFull => format!("topic '{topic}' partition {partition}: the disk is full: {error}"),
            _ => format!("topic '{topic}' partition {partition}: {error}"),
        };
        Self { kind: error.kind(), message, range, source: Some(Box::new(error)), refused: None }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

impl From<CatalogError> for BrokerError {
    fn from(error: CatalogError) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            range: None,
            source: Some(Box::new(error)),
            refused: None,
        }
    }
}

impl From<SettingError> for BrokerError {
    fn from(error: SettingError) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            range: None,
            source: Some(Box::new(error)),
            refused: None,
        }
    }
}

impl From<NameError> for BrokerError {
    fn from(error: NameError) -> Self {
        Self {
            kind: ErrorKind::InvalidRequest,
            message: error.to_string(),
            range: None,
            source: Some(Box::new(error)),
            refused: None,
        }
    }
}

impl From<BatchError> for BrokerError {
    fn from(error: BatchError) -> Self {
        let kind = match error {
            _ if error.is_too_large() => ErrorKind::TooLarge,
            BatchError::NoKey { .. } | BatchError::Timestamp { .. } => ErrorKind::InvalidRecord,
            _ => ErrorKind::CorruptBatch,
        };
        Self::caused(kind, error.to_string(), error)
    }
}
