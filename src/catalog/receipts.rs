//! What is durable of a receipt that is to be POSTed: of which record it is, by which group, where to, and what it says.

use serde::{Deserialize, Serialize};

use crate::base::{GroupName, Offset, PartitionId, TimestampMs, TopicId, TopicName};

/// What became of a record in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Processed {
    /// It was acked, or lies below the group's committed position.
    Acked,
    /// The group gave up: it is in the dead-letter topic.
    DeadLettered,
    /// The group's filter does not select it.
    NotWanted,
    /// It expired before a member was given it.
    Expired,
    /// It was deleted, compacted or aborted before the group had done it.
    Deleted,
    /// The group started behind it, or was moved there.
    Skipped,
}

/// A record, and the group that is to process it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReceiptPlace {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
    /// The group; it need not exist yet.
    pub group: GroupName,
}

/// A receipt that somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptEntry {
    /// Of what.
    pub place: ReceiptPlace,
    /// The topic's name.
    pub topic: TopicName,
    /// Where to.
    pub url: String,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub asked_ms: TimestampMs,
    /// When it says that the group has not processed the record, if it has not by then.
    pub until_ms: TimestampMs,
    /// What it says, once that is known; it never says anything else afterwards.
    pub news: Option<ReceiptNews>,
    /// Why it is not sent any more, if it could not be delivered for long.
    pub given_up: Option<GivenUp>,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptNews {
    /// What became of the record; `None` for nothing until its time was over.
    pub processed: Option<Processed>,
    /// When that was found out.
    pub at_ms: TimestampMs,
}

/// Why something is not sent any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Why.
    pub reason: String,
    /// Since when.
    pub at_ms: TimestampMs,
}
