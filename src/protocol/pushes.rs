//! The messages about push subscriptions.

use serde::{Deserialize, Serialize};

use super::kind::request;
use super::{OffsetAt, QueueRules};

/// Makes a push subscription with its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePush {
    /// Its name, and that of its group.
    pub name: String,
    /// Topics or patterns that it reads.
    pub topics: Vec<String>,
    /// Only records for which this CEL expression is true are sent.
    pub filter: Option<String>,
    /// Where to.
    pub url: String,
    /// Records that are sent together, at most; if not said, each by itself.
    pub batch: Option<u32>,
    /// Calls at a time.
    pub concurrency: u32,
    /// Time for a call, if it is less than the server allows.
    pub timeout_ms: Option<u64>,
    /// The group's rules; left as they are if not said.
    pub rules: Option<QueueRules>,
    /// Where it begins in partitions that its group knows nothing of yet.
    pub start: OffsetAt,
    /// It takes the place of one of that name.
    pub replace: bool,
}

/// It is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePushOk {
    /// As it is.
    pub push: PushDescription,
}

request!(CreatePush, CreatePushOk);

/// Asks for push subscriptions, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPushes {
    /// Only those behind this name: the last of the page before. It need not be there any more.
    pub after: Option<String>,
    /// So many at the most.
    pub limit: u32,
}

impl Default for ListPushes {
    /// As many as one answer holds, from the first one on.
    fn default() -> Self {
        Self { after: None, limit: 1000 }
    }
}

/// Push subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPushesOk {
    /// Those asked for, as many as fit an answer, and at least one if there is one.
    pub pushes: Vec<PushDescription>,
    /// There are more.
    pub more: bool,
}

request!(ListPushes, ListPushesOk);

/// Asks for one push subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribePush {
    /// Its name.
    pub name: String,
}

/// One push subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribePushOk {
    /// As it is.
    pub push: PushDescription,
}

request!(DescribePush, DescribePushOk);

/// A push subscription, and how it is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushDescription {
    /// Its name, and that of its group.
    pub name: String,
    /// Topics or patterns that it reads.
    pub topics: Vec<String>,
    /// Which of their records.
    pub filter: Option<String>,
    /// Where to.
    pub url: String,
    /// Records that are sent together, at most.
    pub batch: Option<u32>,
    /// Calls at a time.
    pub concurrency: u32,
    /// Time for a call, if it is less than the server allows.
    pub timeout_ms: Option<u64>,
    /// Its group's rules.
    pub rules: QueueRules,
    /// Where its dead letters go.
    pub dead_letter: Option<String>,
    /// `running`, `resting` or `paused`.
    pub state: String,
    /// Why it is paused.
    pub paused: Option<String>,
    /// Until when the endpoint is left alone.
    pub rests_until_ms: Option<i64>,
    /// Records that are not done.
    pub lag: u64,
    /// Of these, those that are under way.
    pub in_flight: u64,
    /// Of these, those that wait to be sent again, or for their time.
    pub waiting: u64,
    /// Records taken by the endpoint since the server started.
    pub delivered: u64,
    /// Records not taken, each time, since the server started.
    pub retried: u64,
    /// Records given up since the server started.
    pub dead_letters: u64,
    /// When the endpoint last took something.
    pub delivered_ms: Option<i64>,
    /// When something last went wrong.
    pub last_error_ms: Option<i64>,
    /// What that was.
    pub last_error: Option<String>,
    /// When it was created.
    pub created_ms: i64,
    /// When it was last changed.
    pub changed_ms: i64,
}

/// Lets a push subscription stand still, or go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausePush {
    /// Its name.
    pub name: String,
    /// Whether it is to stand still.
    pub paused: bool,
}

/// It does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausePushOk {
    /// As it is.
    pub push: PushDescription,
}

request!(PausePush, PausePushOk);

/// Deletes a push subscription with its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePush {
    /// Its name.
    pub name: String,
}

/// It is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePushOk {}

request!(DeletePush, DeletePushOk);

/// Makes a push subscription whose endpoint gets headers or has a secret of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePushWith {
    /// All else of it.
    pub push: CreatePush,
    /// Headers that go with each call; those that it has stay if not said.
    pub headers: Option<Vec<PushHeader>>,
    /// What signs its calls; that which it has, or the server's for all, if not said.
    pub secret: Option<PushSecret>,
}

/// It is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePushWithOk {
    /// As it is.
    pub push: PushDescription,
    /// Its endpoint.
    pub endpoint: PushEndpoint,
}

request!(CreatePushWith, CreatePushWithOk);

/// A header that an endpoint gets with each call.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHeader {
    /// Its name.
    pub name: String,
    /// Its value, which no answer has.
    pub value: String,
}

/// A secret for an endpoint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushSecret {
    /// `whsec_` and base64; empty for the server's for all.
    pub secret: String,
    /// How long the one before signs as well, in milliseconds.
    pub keep_old_ms: u64,
}

impl std::fmt::Debug for PushHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushHeader({}: ..)", self.name.escape_debug())
    }
}

impl std::fmt::Debug for PushSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushSecret(.., {} ms)", self.keep_old_ms)
    }
}

/// What a push subscription's endpoint gets, without any secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEndpoint {
    /// The push subscription.
    pub push: String,
    /// The names of the headers that go with each call.
    pub headers: Vec<String>,
    /// It has a secret of its own; else the server's for all signs.
    pub own_secret: bool,
    /// Something signs its calls.
    pub signed: bool,
    /// Until when the secret before signs as well.
    pub old_secret_until_ms: Option<i64>,
}

/// Changes a push subscription. What is not said stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterPush {
    /// Its name.
    pub name: String,
    /// Topics or patterns instead of those that it reads; as they are if empty.
    pub topics: Vec<String>,
    /// Its filter from now on.
    pub filter: Option<String>,
    /// It has no filter from now on.
    pub no_filter: bool,
    /// Where to.
    pub url: Option<String>,
    /// Records that are sent together, at most; 0 sends each by itself.
    pub batch: Option<u32>,
    /// Calls at a time.
    pub concurrency: Option<u32>,
    /// Time for a call, in milliseconds; 0 for what the server allows.
    pub timeout_ms: Option<u64>,
    /// How long a record is under way before it is handed out again, in milliseconds.
    pub lease_ms: Option<u64>,
    /// Deliveries of a record after which it is a dead letter.
    pub max_deliveries: Option<u32>,
    /// The wait before the second delivery, in milliseconds.
    pub backoff_ms: Option<u64>,
    /// The longest wait between two deliveries, in milliseconds.
    pub backoff_max_ms: Option<u64>,
    /// The topic for dead letters; empty for `dead-letter.NAME`.
    pub dead_letter: Option<String>,
    /// Whether the next record of a key is sent only when the one before is done.
    pub ordered_by_key: Option<bool>,
    /// Where it begins in partitions that its group knows nothing of yet.
    pub start: OffsetAt,
    /// All the headers that it has go.
    pub drop_headers: bool,
    /// Headers of these names go.
    pub drop: Vec<String>,
    /// These headers are set.
    pub headers: Vec<PushHeader>,
    /// What signs its calls.
    pub secret: Option<PushSecret>,
}

/// It is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterPushOk {
    /// As it is.
    pub push: PushDescription,
    /// Its endpoint.
    pub endpoint: PushEndpoint,
}

request!(AlterPush, AlterPushOk);

/// Asks what endpoints get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeEndpoints {
    /// The push subscriptions; those that are not there are passed over.
    pub names: Vec<String>,
}

/// What they get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeEndpointsOk {
    /// Those asked for, in that order, as many as fit an answer.
    pub endpoints: Vec<PushEndpoint>,
    /// So many of the names were looked at; the rest is to be asked for again.
    pub seen: u32,
}

request!(DescribeEndpoints, DescribeEndpointsOk);
