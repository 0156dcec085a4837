//! The messages about groups.

use serde::{Deserialize, Serialize};

use crate::base::limits;

use super::kind::request;
use super::{Kind, Message, OffsetAt, Request};

/// What a member says about records that it was handed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// They are done.
    Ack,
    /// They failed, and come again.
    Nack {
        /// After so many milliseconds, or as the group's rules say.
        delay_ms: Option<u64>,
        /// Why, for the dead letter.
        reason: Option<String>,
    },
    /// They were not looked at: it was no delivery, and somebody else may have them at once.
    Release,
    /// The lease begins anew.
    Extend,
}

/// Asks to be a member of a queue group, which is made if it is not there. The first member defines the group; one that says
/// otherwise is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGroup {
    /// The group.
    pub group: String,
    /// The group's rules; whatever they are if not said.
    pub rules: Option<QueueRules>,
    /// Topics or patterns that the group reads; whatever they are, with the filter, if empty.
    pub topics: Vec<String>,
    /// Only records for which this CEL expression is true are the group's. With topics, none says that there is none.
    pub filter: Option<String>,
    /// Where the group begins in partitions that it knows nothing of yet.
    pub start: OffsetAt,
    /// Records that the member may have out at a time.
    pub prefetch: u32,
}

impl Message for JoinGroup {
    const KIND: Kind = Kind::JoinGroup;
}

impl Request for JoinGroup {
    type Response = JoinGroupOk;
}

/// The rules of a queue group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRules {
    /// How long a record is its member's, from when it is handed over or extended.
    pub lease_ms: u64,
    /// Deliveries of a record after which it is a dead letter.
    pub max_deliveries: u32,
    /// The wait before the second delivery; it doubles with each further one.
    pub backoff_ms: u64,
    /// The longest wait between two deliveries.
    pub backoff_max_ms: u64,
    /// The topic for dead letters; `dead-letter.GROUP` if not said.
    pub dead_letter: Option<String>,
    /// The next record of a key is delivered only when the one before is done.
    pub ordered_by_key: bool,
}

impl Default for QueueRules {
    /// Those of a group for which nobody says otherwise.
    fn default() -> Self {
        Self {
            lease_ms: limits::QUEUE_LEASE_MS,
            max_deliveries: limits::QUEUE_DELIVERIES,
            backoff_ms: limits::QUEUE_BACKOFF_MS.0,
            backoff_max_ms: limits::QUEUE_BACKOFF_MS.1,
            dead_letter: None,
            ordered_by_key: false,
        }
    }
}

/// The member is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGroupOk {
    /// Its id.
    pub member: u64,
    /// How long a record is its own.
    pub lease_ms: u64,
}

impl Message for JoinGroupOk {
    const KIND: Kind = Kind::JoinGroup;
}

/// Ends a membership: what the member had goes to others at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// The member.
    pub member: u64,
}

impl Message for LeaveGroup {
    const KIND: Kind = Kind::LeaveGroup;
}

impl Request for LeaveGroup {
    type Response = LeaveGroupOk;
}

/// The membership has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveGroupOk {}

impl Message for LeaveGroupOk {
    const KIND: Kind = Kind::LeaveGroup;
}

/// Says what became of records that a member was handed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// The member.
    pub member: u64,
    /// What is said, in this order.
    pub settlements: Vec<Settlement>,
    /// Answer only when it is on disk.
    pub durable: bool,
}

impl Message for Settle {
    const KIND: Kind = Kind::Settle;
}

impl Request for Settle {
    type Response = SettleOk;
}

/// A range of records of a partition, and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset behind the last.
    pub to: u64,
    /// What is said.
    pub verdict: Verdict,
}

/// What was said has been taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleOk {
    /// Records that it was good for.
    pub settled: u64,
    /// Records that another member has by now, or that were never handed over.
    pub lost: u64,
}

impl Message for SettleOk {
    const KIND: Kind = Kind::Settle;
}

/// Records for a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The member.
    pub member: u64,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Which delivery of these records this is, from 1.
    pub attempt: u32,
    /// The offset behind the last of them.
    pub next_offset: u64,
}

impl Message for Handed {
    const KIND: Kind = Kind::Handed;
}

/// Asks for all groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroups {}

impl Message for ListGroups {
    const KIND: Kind = Kind::ListGroups;
}

impl Request for ListGroups {
    type Response = ListGroupsOk;
}

/// All groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroupsOk {
    /// The groups, by name.
    pub groups: Vec<GroupSummary>,
}

impl Message for ListGroupsOk {
    const KIND: Kind = Kind::ListGroups;
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// Its name.
    pub name: String,
    /// `queue` or `stream`.
    pub kind: String,
    /// The topics or patterns that it reads.
    pub topics: Vec<String>,
    /// Its filter.
    pub filter: Option<String>,
    /// When it was created.
    pub created_ms: i64,
}

/// Asks for one group in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeGroup {
    /// The group.
    pub name: String,
}

impl Message for DescribeGroup {
    const KIND: Kind = Kind::DescribeGroup;
}

impl Request for DescribeGroup {
    type Response = GroupOk;
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOk {
    /// The group.
    pub group: GroupDescription,
}

impl Message for GroupOk {
    const KIND: Kind = Kind::DescribeGroup;
}

/// A group in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// What the list says of it.
    pub summary: GroupSummary,
    /// Its rules, if it is a queue group.
    pub rules: Option<QueueRules>,
    /// Where its dead letters go, if it is a queue group.
    pub dead_letter: Option<String>,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// Its partitions, by topic and number.
    pub partitions: Vec<GroupPartition>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// Who it says it is.
    pub client: String,
    /// Records that it has out.
    pub in_flight: u64,
    /// The partitions that it owns, in a stream group.
    pub owns: Vec<TopicPartition>,
    /// When it joined, in milliseconds since the Unix epoch.
    pub joined_ms: i64,
    /// When it was heard of last, in a stream group.
    pub heard_ms: Option<i64>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Everything below is done: in a stream group, the committed position.
    pub floor: u64,
    /// Where the partition ends.
    pub end: u64,
    /// Records that are not done, as far as is known without reading them.
    pub lag: u64,
    /// Records that are out with members.
    pub in_flight: u64,
    /// Records that wait to be delivered again, or until their time has come.
    pub waiting: u64,
    /// Deliveries that were not the first, since the server started.
    pub redeliveries: u64,
    /// The time of the first record that is not done, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// The id of the member that owns it, in a stream group.
    pub owner: Option<String>,
    /// Why the partition cannot be read; its end and the lag are not known then.
    pub trouble: Option<String>,
}

/// Makes a group without a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGroup {
    /// Its name.
    pub name: String,
    /// Its rules, which make it a queue group; a stream group has none.
    pub rules: Option<QueueRules>,
    /// Topics or patterns that it reads.
    pub topics: Vec<String>,
    /// Only records for which this CEL expression is true are the group's.
    pub filter: Option<String>,
    /// Where it begins in the partitions that there are.
    pub start: OffsetAt,
}

/// The group is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGroupOk {
    /// It was not there before.
    pub created: bool,
}

request!(CreateGroup, CreateGroupOk);

/// Changes what a group is defined as. What is not said stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterGroup {
    /// The group.
    pub name: String,
    /// Topics or patterns that it reads from now on; as they are if empty.
    pub topics: Vec<String>,
    /// Its filter from now on.
    pub filter: Option<String>,
    /// It has no filter from now on.
    pub no_filter: bool,
    /// How long a record is its member's, in milliseconds; of a queue group, as all that follow.
    pub lease_ms: Option<u64>,
    /// Deliveries of a record after which it is a dead letter.
    pub max_deliveries: Option<u32>,
    /// The wait before the second delivery, in milliseconds.
    pub backoff_ms: Option<u64>,
    /// The longest wait between two deliveries, in milliseconds.
    pub backoff_max_ms: Option<u64>,
    /// The topic for dead letters; empty for `dead-letter.GROUP`.
    pub dead_letter: Option<String>,
    /// Whether the next record of a key is delivered only when the one before is done.
    pub ordered_by_key: Option<bool>,
    /// Where the group begins in partitions of which it has done nothing yet.
    pub start: OffsetAt,
}

/// What the group is defined as now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterGroupOk {
    /// Its kind, topics and filter.
    pub summary: GroupSummary,
    /// Its rules, if it is a queue group.
    pub rules: Option<QueueRules>,
}

request!(AlterGroup, AlterGroupOk);

/// Deletes a group and its progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteGroup {
    /// The group.
    pub name: String,
    /// Also while it has members, which are sent away.
    pub force: bool,
}

impl Message for DeleteGroup {
    const KIND: Kind = Kind::DeleteGroup;
}

impl Request for DeleteGroup {
    type Response = DeleteGroupOk;
}

/// It is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteGroupOk {}

impl Message for DeleteGroupOk {
    const KIND: Kind = Kind::DeleteGroup;
}

/// Lets a group go on elsewhere in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetGroup {
    /// The group.
    pub name: String,
    /// Only these of its topics, or patterns; all of them if empty.
    pub topics: Vec<String>,
    /// Where to, in each partition.
    pub to: ResetTo,
    /// Only say what would change.
    pub dry_run: bool,
    /// Also while it has members, which are sent away.
    pub force: bool,
}

impl Message for ResetGroup {
    const KIND: Kind = Kind::ResetGroup;
}

impl Request for ResetGroup {
    type Response = ResetGroupOk;
}

/// Where a group is to go on in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetTo {
    /// At the first record.
    Beginning,
    /// At the end.
    End,
    /// At this offset, or the nearest that there is.
    Offset(u64),
    /// So many offsets before the end.
    Last(u64),
    /// At the first record with this time or a later one, in milliseconds since the Unix epoch.
    Timestamp(i64),
}

/// What changes, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetGroupOk {
    /// Each partition, by topic and number.
    pub partitions: Vec<ResetPartition>,
}

impl Message for ResetGroupOk {
    const KIND: Kind = Kind::ResetGroup;
}

/// What a reset does in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where the group was: everything below was done.
    pub from: u64,
    /// Where it goes on.
    pub to: u64,
    /// Where the partition ends.
    pub end: u64,
}
