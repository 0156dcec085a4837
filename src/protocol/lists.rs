//! Lists page by page, and how much of the limits what is listed takes.

use serde::{Deserialize, Serialize};

use super::groups::GroupSummary;
use super::kind::{Kind, Message, Request};
use super::topics::TopicSummary;

/// Asks for a page of the list of groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroupPage {
    /// Only groups whose names begin with it.
    pub prefix: String,
    /// Only groups behind this one; empty for the first page, which has the totals.
    pub after: String,
    /// Groups at most; the server has a limit of its own.
    pub limit: u32,
}

impl Message for ListGroupPage {
    const KIND: Kind = Kind::ListGroupPage;
}

impl Request for ListGroupPage {
    type Response = ListGroupPageOk;
}

/// A page of the list of groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroupPageOk {
    /// The groups, by name.
    pub groups: Vec<GroupLine>,
    /// There are more behind the last one.
    pub more: bool,
    /// Of all groups, with the first page.
    pub totals: Option<GroupTotals>,
}

impl Message for ListGroupPageOk {
    const KIND: Kind = Kind::ListGroupPage;
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLine {
    /// What it is.
    pub summary: GroupSummary,
    /// Its members.
    pub members: u64,
    /// Its positions.
    pub positions: u64,
    /// Bytes of their metadata.
    pub metadata_bytes: u64,
    /// When it was used last: it had members, was declared, or committed a position.
    pub used_ms: i64,
    /// The client that has made it, if that was since the start of the server.
    pub made_by: Option<String>,
    /// Records that it has not done, of all partitions that it reads.
    pub lag: u64,
    /// `paused`, `active` (it has members) or `idle`.
    pub state: String,
}

/// What all groups take of their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTotals {
    /// Groups.
    pub groups: u64,
    /// Groups at most.
    pub max_groups: u64,
    /// Of the groups, those that are queue groups.
    pub queue: u64,
    /// Of the groups, those with members.
    pub with_members: u64,
    /// Positions.
    pub positions: u64,
    /// Positions at most.
    pub max_positions: u64,
    /// Bytes of the metadata of positions.
    pub metadata_bytes: u64,
    /// Bytes of metadata at most.
    pub max_metadata_bytes: u64,
    /// Bytes of what groups and their members declare.
    pub declared_bytes: u64,
    /// Bytes of declarations at most.
    pub max_declared_bytes: u64,
}

/// Asks for a page of the list of topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopicPage {
    /// Only topics whose names begin with it.
    pub prefix: String,
    /// Only topics behind this one; empty for the first page, which has the totals.
    pub after: String,
    /// Topics at most; the server has a limit of its own.
    pub limit: u32,
}

impl Message for ListTopicPage {
    const KIND: Kind = Kind::ListTopicPage;
}

impl Request for ListTopicPage {
    type Response = ListTopicPageOk;
}

/// A page of the list of topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopicPageOk {
    /// The topics, by name.
    pub topics: Vec<TopicLine>,
    /// There are more behind the last one.
    pub more: bool,
    /// Of all topics, with the first page.
    pub totals: Option<TopicTotals>,
}

impl Message for ListTopicPageOk {
    const KIND: Kind = Kind::ListTopicPage;
}

/// A topic in a list, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLine {
    /// What it is.
    pub summary: TopicSummary,
    /// Offsets between the start and the end of its partitions: the number of its records, if nothing is compacted away and
    /// there are no markers of transactions.
    pub records: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// The newest timestamp of a record; −1 if there is none.
    pub newest_timestamp: i64,
    /// Partitions that cannot be written to or read now.
    pub troubled: u32,
}

/// What all topics take of their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicTotals {
    /// Topics.
    pub topics: u64,
    /// Partitions of all topics.
    pub partitions: u64,
    /// Partitions at most.
    pub max_partitions: u64,
}
