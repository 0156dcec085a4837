//! What is durable of a push subscription beside its group: where its records are sent, and how.

use serde::{Deserialize, Serialize};

use crate::base::{GroupName, TimestampMs};

/// A push subscription: the queue group of the same name has an HTTP endpoint for a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEntry {
    /// Its name, and that of its group.
    pub name: GroupName,
    /// Where to.
    pub url: String,
    /// Records that are sent together, at most; `None` sends each by itself.
    pub batch: Option<u32>,
    /// Calls at a time.
    pub concurrency: u32,
    /// Time for a call, in milliseconds, if it is less than the server allows.
    pub timeout_ms: Option<u64>,
    /// Why it stands still, if it does.
    pub paused: Option<String>,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: TimestampMs,
    /// When it was last changed.
    pub changed_ms: TimestampMs,
}
