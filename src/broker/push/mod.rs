//! Push subscriptions: queue groups whose consumer is an HTTP endpoint. What there is, and what became of it; the calls
//! themselves are made by the server, which is a member of the group as long as it can be of use ([`super::queue`]).
//!
//! Also how webhooks are signed.

mod admin;
mod alter;
mod endpoint;
mod secret;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::base::{GroupName, TopicName, TopicPattern};
use crate::catalog::{PushEntry, QueueSettings};

use super::{OffsetAt, RulesChange};

pub use endpoint::{EndpointChange, SecretChange, is_over, signing};
pub use secret::{SecretError, WebhookSecret, WebhookSecrets};
pub use stats::{PushCounts, PushStats, PushTrouble};

/// A push subscription as it is to be.
#[derive(Debug, Clone)]
pub struct NewPush {
    /// Its name, and that of its group. A group that is there goes on where it is.
    pub name: GroupName,
    /// The topics that it reads.
    pub topics: Vec<TopicPattern>,
    /// A CEL expression: records that it does not select are not sent.
    pub filter: Option<String>,
    /// Where to.
    pub url: String,
    /// Records that are sent together, at most; `None` sends each by itself.
    pub batch: Option<u32>,
    /// Calls at a time.
    pub concurrency: u32,
    /// Time for a call, in milliseconds, if it is less than the server allows.
    pub timeout_ms: Option<u64>,
    /// The group's rules; those that it has, or the usual ones, if it is not said.
    pub rules: Option<QueueSettings>,
    /// Where it begins in partitions of which the group has done nothing yet.
    pub start: OffsetAt,
    /// It takes the place of one of that name.
    pub replace: bool,
    /// Its headers and its secret, or how they change if it takes the place of another.
    pub endpoint: EndpointChange,
}

/// What is to be different of a push subscription. What is not said stays.
#[derive(Debug, Clone)]
pub struct AlterPush {
    /// Its name.
    pub name: GroupName,
    /// Topics instead of those that it reads.
    pub topics: Vec<TopicPattern>,
    /// Another filter, or `Some(None)` for none.
    pub filter: Option<Option<String>>,
    /// Where to.
    pub url: Option<String>,
    /// Records that are sent together, at most, or `Some(None)` for each by itself.
    pub batch: Option<Option<u32>>,
    /// Calls at a time.
    pub concurrency: Option<u32>,
    /// Time for a call, in milliseconds, or `Some(None)` for what the server allows.
    pub timeout_ms: Option<Option<u64>>,
    /// The group's rules.
    pub rules: RulesChange,
    /// Where it begins in partitions of which the group has done nothing yet.
    pub start: OffsetAt,
    /// Its headers and its secret.
    pub endpoint: EndpointChange,
}

/// A push subscription, and how it is doing.
#[derive(Debug, Clone)]
pub struct PushDescription {
    /// What it is.
    pub entry: PushEntry,
    /// The topics that it reads.
    pub topics: Vec<TopicPattern>,
    /// Which of their records.
    pub filter: Option<String>,
    /// Its group's rules.
    pub rules: QueueSettings,
    /// Where its dead letters go.
    pub dead_letter: Option<TopicName>,
    /// `running`, `resting` or `paused`.
    pub state: &'static str,
    /// Records that are not done.
    pub lag: u64,
    /// Of these, those that are under way.
    pub in_flight: u64,
    /// Of these, those that wait to be sent again, or for their time.
    pub waiting: u64,
    /// What it has done since the server started.
    pub counts: PushCounts,
}

/// The push subscriptions that there are.
pub(crate) struct Pushes {
    /// Held while one is created, changed or deleted.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Goes up when what there is changes.
    changed: watch::Sender<u64>,
    stats: Mutex<BTreeMap<GroupName, Arc<PushStats>>>,
    families: stats::Families,
}

impl Default for Pushes {
    fn default() -> Self {
        Self {
            changing: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
            stats: Mutex::default(),
            families: stats::Families::default(),
        }
    }
}
