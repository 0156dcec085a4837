//! What is durable of a request: who asked what until when, how far it has come, and what became of it.

use serde::{Deserialize, Serialize};

use crate::base::{Offset, PartitionId, RequestId, TimestampMs, TopicName};

/// A durable request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEntry {
    /// Its correlation id.
    pub id: RequestId,
    /// The topics whose responders are asked, in order; at least one.
    pub steps: Vec<TopicName>,
    /// The step that is waited for, or at which it ended, from 0.
    pub step: u32,
    /// Who asked, for people.
    pub requester: String,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub created_ms: TimestampMs,
    /// When its time is over.
    pub deadline_ms: TimestampMs,
    /// Where the outcome is delivered.
    pub callback: Option<Callback>,
    /// What became of it.
    pub outcome: Option<RequestOutcome>,
    /// What is to be written of it somewhere, and may have been.
    pub writing: Option<Writing>,
    /// What it asks, so that another question with its id is told from the same one sent again: the beginning of the SHA-256
    /// of headers and body. `None` for one that an earlier version took in.
    #[serde(skip)]
    pub content: Option<[u8; 16]>,
}

/// Where an outcome is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Callback {
    /// A record in a topic.
    Topic(TopicName),
    /// A POST to this URL.
    Url(String),
    /// It was to be a POST, which was given up: a record in the topic of those.
    DeadLetter {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
}

impl Callback {
    /// Where it was asked to be delivered: a topic or a URL.
    pub fn address(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Url(url) | Self::DeadLetter { url, .. } => url,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestOutcome {
    /// What it is.
    pub kind: OutcomeKind,
    /// When it was decided.
    pub finished_ms: TimestampMs,
    /// The record in the topic of replies that decided it.
    pub at: Offset,
}

/// The kinds of outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeKind {
    /// A reply.
    Replied,
    /// An error reply.
    Failed {
        /// What a program looks at.
        code: String,
        /// What a person reads.
        text: String,
    },
    /// Its time was over.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

/// A record that is to be written: the request of the next step, or the callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writing {
    /// Where to; for a callback by POST, `None`.
    pub to: Option<(TopicName, PartitionId)>,
    /// The end of that partition before it was first tried: if it is there already, it is at or above.
    pub from: Offset,
    /// The record in the topic of replies that it is made from.
    pub source: Offset,
}
