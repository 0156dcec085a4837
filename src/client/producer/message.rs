//! What is sent.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{PartitionId, TimestampMs};

/// A record on its way to a topic. Without a value it is a tombstone for its key.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<PartitionId>,
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

impl Message {
    /// An empty message to a topic. An `Arc<str>` is not copied.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), partition: None, timestamp: None, key: None, value: None, headers: Vec::new() }
    }

    /// Its key: messages of one key go to one partition, in order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Its content.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header; names may repeat.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header without a value.
    pub fn empty_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// Queue groups have it only from this time on, in milliseconds since the Unix epoch: header `tidelog-deliver-at`.
    pub fn deliver_at(self, ms: TimestampMs) -> Self {
        self.header("tidelog-deliver-at", ms.to_string())
    }

    /// It is of no use to queue groups after this time, in milliseconds since the Unix epoch: header `tidelog-expires-at`.
    pub fn expires_at(self, ms: TimestampMs) -> Self {
        self.header("tidelog-expires-at", ms.to_string())
    }

    /// The partition it goes to, whatever its key.
    pub fn partition(mut self, partition: PartitionId) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Its time, in milliseconds since the Unix epoch; by default that of sending.
    pub fn timestamp(mut self, ms: TimestampMs) -> Self {
        self.timestamp = Some(ms);
        self
    }

    /// The headers as the batch builder takes them; allocates only if there are any.
    pub(crate) fn header_refs(&self) -> Vec<(&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect()
    }
}
