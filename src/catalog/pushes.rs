//! What is durable of a push subscription beside its group: where its records are sent, and how.
//!
//! Also the credentials that its endpoint wants. They are in the journal as they are: the data directory is its owner's alone (0700).

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
    /// What its endpoint gets with each call, and what signs the calls.
    #[serde(skip)]
    pub endpoint: PushEndpoint,
}

/// What the endpoint of a push subscription gets with each call beside records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEndpoint {
    /// Headers, by name; each name once.
    pub headers: Vec<PushHeader>,
    /// What signs the calls; `None` for the secret that the server has for all.
    pub secret: Option<Hidden>,
    /// What signs them as well for a while: the secret before.
    pub old: Option<OldSecret>,
}

/// A header that an endpoint gets with each call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHeader {
    /// Its name, in lower case.
    pub name: String,
    /// Its value.
    pub value: Hidden,
}

/// A secret that has been replaced and still signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldSecret {
    /// The secret; `None` for the one that the server has for all.
    pub secret: Option<Hidden>,
    /// When it was replaced.
    pub since_ms: TimestampMs,
    /// Until when it signs.
    pub until_ms: TimestampMs,
}

/// A credential: text that is kept and sent, and that nobody is shown. `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden(String);

impl Hidden {
    /// Hides this.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whom it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(..)")
    }
}
