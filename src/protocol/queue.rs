//! The messages about what is stuck in a queue group, and what an operator does about it.

use serde::{Deserialize, Serialize};

use super::groups::{ResetPartition, ResetTo, TopicPartition};
use super::kind::request;
use super::receipts::{DeadLetterAt, RecordAt};

/// Asks for the records that a queue group has begun with and not done, by topic, partition and offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroupRecords {
    /// The group.
    pub group: String,
    /// Where to begin: what an answer said in `next`; at the first if not said.
    pub from: Option<RecordAt>,
    /// Records at most, 1 to 1000.
    pub limit: u32,
}

/// A page of the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroupRecordsOk {
    /// The records, by topic, partition and offset.
    pub records: Vec<GroupRecord>,
    /// Where to go on; nothing at the end.
    pub next: Option<RecordAt>,
}

/// A record that a queue group has begun with and not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Which one.
    pub record: RecordAt,
    /// The beginning of its key, if it has one and it could be read: 256 bytes at most.
    pub key: Option<Vec<u8>>,
    /// `in_hand`, `backing_off`, `delayed`, `blocked`, `due` or `burying`.
    pub state: String,
    /// The id of the member that has it.
    pub member: Option<String>,
    /// Who that member says it is.
    pub client: Option<String>,
    /// Its deliveries so far, the one under way included.
    pub attempt: u32,
    /// When its lease ends, or when it may be delivered, in milliseconds since the Unix epoch.
    pub next_ms: Option<i64>,
    /// The reason that was last given for a failure of it, if the server remembers one.
    pub error: Option<String>,
}

request!(ListGroupRecords, ListGroupRecordsOk);

/// Lets a queue group hand out nothing new, or go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseGroup {
    /// The group.
    pub name: String,
    /// Whether it is to be paused.
    pub paused: bool,
}

/// What the group is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseGroupOk {
    /// When it was paused, in milliseconds since the Unix epoch; nothing if it is not paused.
    pub since_ms: Option<i64>,
    /// It was not like this before.
    pub changed: bool,
}

request!(PauseGroup, PauseGroupOk);

/// Asks which groups are paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedGroups {
    /// Only groups whose names begin with it.
    pub prefix: String,
    /// Only groups behind this one; empty for the first page.
    pub after: String,
    /// Groups at most; the server has a limit of its own.
    pub limit: u32,
}

/// A page of the groups that are paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedGroupsOk {
    /// The groups, by name.
    pub groups: Vec<PausedGroup>,
    /// There are more behind the last one.
    pub more: bool,
}

/// A group that is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedGroup {
    /// Its name.
    pub name: String,
    /// When it was paused, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

request!(PausedGroups, PausedGroupsOk);

/// Says that a record is done for a queue group, without a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipRecord {
    /// The group.
    pub group: String,
    /// The record.
    pub record: RecordAt,
}

/// It is done, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipRecordOk {
    /// What it was before; of one that the group had not begun with, the state is `not_reached`.
    pub was: GroupRecord,
}

request!(SkipRecord, SkipRecordOk);

/// Lets a group go on elsewhere in some of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetPartitions {
    /// The group.
    pub name: String,
    /// The partitions, 1 to 1000.
    pub partitions: Vec<TopicPartition>,
    /// Where to, in each of them.
    pub to: ResetTo,
    /// Only say what would change.
    pub dry_run: bool,
    /// Also while the group has members, which are sent away.
    pub force: bool,
}

/// What changes, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetPartitionsOk {
    /// Each partition, by topic and number.
    pub partitions: Vec<ResetPartition>,
}

request!(ResetPartitions, ResetPartitionsOk);

/// Deals with dead letters: sends them back, or discards them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleDeadLetters {
    /// The dead-letter topic.
    pub topic: String,
    /// What is done with them.
    pub way: DeadLetterWay,
    /// Only this one; then `filter` and `from` say nothing.
    pub at: Option<DeadLetterAt>,
    /// The value that it gets on its way back to its topic, instead of its own; only with `at`.
    pub value: Option<Vec<u8>>,
    /// Only those for which this CEL expression is true.
    pub filter: Option<String>,
    /// So many at most; at most 10,000.
    pub max: u32,
    /// Only say which.
    pub dry_run: bool,
    /// Where to begin to look, as an answer said.
    pub from: Option<DeadLetterAt>,
}

/// What is done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadLetterWay {
    /// They are appended to the topics that they came from, for everybody who reads those.
    Topic,
    /// The records that they were come again to the group that gave them up, and to nobody else.
    Group,
    /// They are done with.
    Discard,
}

/// What became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleDeadLettersOk {
    /// The dead letters that were dealt with, or would be.
    pub records: Vec<DeadLetterAt>,
    /// Those that cannot go back.
    pub stranded: u64,
    /// Why the first of these cannot.
    pub why: Option<String>,
    /// Where to look for more; nothing at the end.
    pub next: Option<DeadLetterAt>,
}

request!(SettleDeadLetters, SettleDeadLettersOk);

/// Asks what the filter of a queue group said of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeFilter {
    /// The group.
    pub group: String,
}

/// What it said since the group has it, or since the server started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeFilterOk {
    /// Records that it was asked about; of some of them more than once.
    pub asked: u64,
    /// Those that it wants.
    pub wanted: u64,
    /// Those that it had no answer for, and that were passed over because of that.
    pub unanswered: u64,
    /// Why, of the last of these.
    pub reason: Option<String>,
}

request!(DescribeFilter, DescribeFilterOk);
