//! The messages about stream groups and positions.

use serde::{Deserialize, Serialize};

use super::{ErrorBody, Kind, Message, OffsetAt, Request, TopicPartition};

/// Asks to be a member of a stream group, which is made if it is not there. The first member defines the group; one that says
/// otherwise is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinStream {
    /// The group.
    pub group: String,
    /// The member's id, which nobody else has and nobody had before; made up by the server if not said.
    pub member: Option<String>,
    /// The name of the place that it fills.
    pub instance: Option<String>,
    /// Topics or patterns that the group reads; whatever they are, with the filter, if empty.
    pub topics: Vec<String>,
    /// Only records for which this CEL expression is true are the group's. With topics, none says that there is none.
    pub filter: Option<String>,
    /// Where the group begins in partitions in which it has no position yet.
    pub start: OffsetAt,
    /// How long it is a member without a heartbeat.
    pub session_ms: u64,
    /// How long it may take to give up a partition.
    pub handover_ms: u64,
}

impl Message for JoinStream {
    const KIND: Kind = Kind::JoinStream;
}

impl Request for JoinStream {
    type Response = JoinStreamOk;
}

/// The member is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinStreamOk {
    /// The group's filter.
    pub filter: Option<String>,
    /// How long a heartbeat should wait for news.
    pub heartbeat_ms: u32,
    /// What it owns.
    pub share: StreamShare,
}

impl Message for JoinStreamOk {
    const KIND: Kind = Kind::JoinStream;
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamShare {
    /// The member's id.
    pub member: String,
    /// Its epoch.
    pub epoch: u32,
    /// The partitions that it owns beyond those that it says it has.
    pub granted: Vec<StreamPartition>,
    /// Those that it says it has and is to give up.
    pub taken: Vec<OwnedTopic>,
}

/// A partition that a member owns from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPartition {
    /// The topic.
    pub topic: String,
    /// The topic's id.
    pub id: String,
    /// The partition.
    pub partition: u32,
    /// The group's position, if it has one.
    pub position: Option<u64>,
    /// First offset of the partition.
    pub log_start: u64,
    /// The end that readers see.
    pub stable_end: u64,
}

/// Partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedTopic {
    /// The topic's id.
    pub id: String,
    /// The partitions.
    pub partitions: Vec<u32>,
}

/// A member's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeartbeat {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member: String,
    /// The epoch that it was told last.
    pub epoch: u32,
    /// All that it has, if that has changed or the answer before may be lost.
    pub owned: Option<Vec<OwnedTopic>>,
    /// How long the answer may wait for news.
    pub wait_ms: u32,
}

impl Message for StreamHeartbeat {
    const KIND: Kind = Kind::StreamHeartbeat;
}

impl Request for StreamHeartbeat {
    type Response = StreamHeartbeatOk;
}

/// It was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeartbeatOk {
    /// What has changed.
    pub share: StreamShare,
}

impl Message for StreamHeartbeatOk {
    const KIND: Kind = Kind::StreamHeartbeat;
}

/// A member goes, and works on nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveStream {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member: String,
    /// Keep what its instance had for the next member of that name, until the session ends.
    pub keep: bool,
}

impl Message for LeaveStream {
    const KIND: Kind = Kind::LeaveStream;
}

impl Request for LeaveStream {
    type Response = LeaveStreamOk;
}

/// It is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveStreamOk {}

impl Message for LeaveStreamOk {
    const KIND: Kind = Kind::LeaveStream;
}

/// Commits positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPositions {
    /// The group.
    pub group: String,
    /// Who commits; nobody in particular if not said, which only an empty group allows.
    pub member: Option<CommittingMember>,
    /// The positions.
    pub positions: Vec<CommitPosition>,
    /// Answer only when they are on disk.
    pub durable: bool,
}

impl Message for CommitPositions {
    const KIND: Kind = Kind::CommitPositions;
}

impl Request for CommitPositions {
    type Response = CommitPositionsOk;
}

/// A member that commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittingMember {
    /// Its id.
    pub id: String,
    /// The epoch that it was told last.
    pub epoch: u32,
}

/// A position to be committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Everything below is done.
    pub offset: u64,
    /// What is to be remembered with it.
    pub metadata: String,
}

/// What became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPositionsOk {
    /// For each, in the order of the request.
    pub outcomes: Vec<CommitOutcome>,
}

impl Message for CommitPositionsOk {
    const KIND: Kind = Kind::CommitPositions;
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitOutcome {
    /// The position that holds now, if it was not refused.
    pub position: Option<u64>,
    /// Why it was refused.
    pub error: Option<ErrorBody>,
}

/// Asks for a group's positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// The group.
    pub group: String,
    /// Of these partitions; of all if empty.
    pub partitions: Vec<TopicPartition>,
}

impl Message for Positions {
    const KIND: Kind = Kind::Positions;
}

impl Request for Positions {
    type Response = PositionsOk;
}

/// The positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionsOk {
    /// Those that there are, by topic and partition.
    pub positions: Vec<GroupPosition>,
}

impl Message for PositionsOk {
    const KIND: Kind = Kind::Positions;
}

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Everything below is done.
    pub offset: u64,
    /// What was to be remembered with it.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}
