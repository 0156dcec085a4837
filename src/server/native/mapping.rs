//! The one place that knows both the wire's types and the broker's.

use std::sync::Arc;

use crate::base::{ErrorKind, NameError, TopicName};
use crate::broker::{self, BrokerError};
use crate::expr::Filter;
use crate::protocol::{self as wire, ErrorBody, OffsetRange};

/// A request that is not fulfilled, as the client hears it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What the client can do about it.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
    /// What there is, where an offset was out of range.
    pub range: Option<(u64, u64)>,
}

impl Refusal {
    /// A refusal without a range.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), range: None }
    }

    /// As it goes over the wire.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            code: self.kind.code(),
            message: self.message.clone(),
            retry_after_ms: retry_after_ms(self.kind),
            range: self.range.map(|(log_start, log_end)| OffsetRange { log_start, log_end }),
        }
    }
}

/// When to try again, where the server has an idea of it.
fn retry_after_ms(kind: ErrorKind) -> Option<u32> {
    match kind {
        ErrorKind::Overloaded | ErrorKind::Busy => Some(100),
        ErrorKind::ShuttingDown | ErrorKind::Poisoned => Some(1000),
        ErrorKind::StorageFull => Some(5000),
        _ => None,
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        // Causes below are part of the message where they are not in it already; the wire carries one line.
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self { kind: error.kind(), message, range: error.range() }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::new(ErrorKind::InvalidRequest, error.to_string())
    }
}

/// A checked name.
///
/// # Errors
/// The rule it breaks.
pub fn topic_name(name: &str) -> Result<TopicName, Refusal> {
    TopicName::new(name).map_err(Refusal::from)
}

/// A filter.
///
/// # Errors
/// What is wrong with it, and where.
pub fn filter(source: &str) -> Result<Arc<Filter>, Refusal> {
    let compiled = Filter::compile(source);
    compiled.map(Arc::new).map_err(|error| Refusal::new(ErrorKind::InvalidRequest, format!("filter: {error}")))
}

/// The wire's settings as the broker takes them.
pub fn settings(settings: Vec<wire::Setting>) -> Vec<(String, String)> {
    settings.into_iter().map(|setting| (setting.name, setting.value)).collect()
}

/// A request for a topic.
///
/// # Errors
/// A wrong name.
pub fn new_topic(request: wire::CreateTopic) -> Result<broker::NewTopic, Refusal> {
    Ok(broker::NewTopic {
        name: topic_name(&request.name)?,
        partitions: request.partitions,
        settings: settings(request.settings),
        if_not_exists: request.if_not_exists,
    })
}

/// A topic as the wire describes it.
pub fn topic_ok(topic: broker::TopicDescription) -> wire::TopicOk {
    let settings = topic.settings.into_iter().map(|setting| wire::SettingValue {
        name: setting.name.to_owned(),
        value: setting.value,
        is_default: setting.is_default,
        meaning: setting.meaning.to_owned(),
    });
    let partitions = topic.partitions.into_iter().map(|partition| wire::PartitionDescription {
        partition: partition.partition,
        log_start: partition.log_start,
        stable_end: partition.stable_end,
        log_end: partition.log_end,
        bytes: partition.bytes,
        segments: partition.segments,
        newest_timestamp: partition.newest_timestamp,
        clean_bytes: partition.clean_bytes,
        dirty_bytes: partition.dirty_bytes,
        state: partition.state,
    });
    wire::TopicOk {
        topic: wire::TopicDescription {
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            settings: settings.collect(),
            partitions: partitions.collect(),
        },
    }
}

/// A list of topics.
pub fn list_topics_ok(topics: Vec<broker::TopicSummary>) -> wire::ListTopicsOk {
    wire::ListTopicsOk { topics: topics.into_iter().map(summary).collect() }
}

/// The topics that meet patterns.
pub fn match_topics_ok(topics: Vec<broker::TopicSummary>) -> wire::MatchTopicsOk {
    wire::MatchTopicsOk { topics: topics.into_iter().map(summary).collect() }
}

/// A topic in a list.
pub fn summary(topic: broker::TopicSummary) -> wire::TopicSummary {
    wire::TopicSummary { name: topic.name.to_string(), id: topic.id.to_string(), partitions: topic.partitions }
}

/// What a producer needs to know of a topic, with the server's own limit on batches applied.
pub fn metadata_ok(metadata: &broker::TopicMetadata, max_batch_bytes: usize) -> wire::MetadataOk {
    wire::MetadataOk {
        id: metadata.id.to_string(),
        partitions: metadata.partitions,
        max_batch_bytes: u32::try_from(metadata.max_batch_bytes.min(max_batch_bytes)).unwrap_or(u32::MAX),
        created: metadata.created,
    }
}

/// How sure a producer wants to be.
pub fn ack_level(ack: wire::Ack) -> broker::AckLevel {
    match ack {
        wire::Ack::None => broker::AckLevel::None,
        wire::Ack::Written => broker::AckLevel::Written,
        wire::Ack::Durable => broker::AckLevel::Durable,
    }
}

/// What became of a batch.
pub fn produce_ok(produced: &broker::Produced) -> wire::ProduceOk {
    wire::ProduceOk {
        base_offset: produced.base_offset,
        last_offset: produced.last_offset,
        timestamp: produced.timestamp,
        duplicate: produced.duplicate,
    }
}

/// Which offset is meant.
pub fn offset_at(at: wire::OffsetAt) -> broker::OffsetAt {
    match at {
        wire::OffsetAt::Beginning => broker::OffsetAt::Beginning,
        wire::OffsetAt::End => broker::OffsetAt::End,
        wire::OffsetAt::Timestamp(at) => broker::OffsetAt::Timestamp(at),
    }
}

/// What is said of bytes that were fetched; they go behind it.
pub fn fetch_ok(fetched: &broker::Fetched) -> wire::FetchOk {
    wire::FetchOk {
        log_start: fetched.log_start,
        stable_end: fetched.stable_end,
        next_offset: fetched.next_offset,
        skipped: skipped(&fetched.skipped),
    }
}

/// Damaged ranges that were passed over.
pub fn skipped(skipped: &[broker::Skipped]) -> Vec<wire::Skipped> {
    skipped.iter().map(|s| wire::Skipped { from: s.from, to: s.to, reason: s.reason.clone() }).collect()
}
