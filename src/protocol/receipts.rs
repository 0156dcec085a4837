//! The messages about what became of records: receipts, dead letters, and sending these back.

use serde::{Deserialize, Serialize};

use super::kind::request;
use super::{Kind, Message, Request};

/// Asks what became of records in a group, and waits until that is known of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processed {
    /// The group; it need not exist yet.
    pub group: String,
    /// The records, at most 10,000.
    pub records: Vec<RecordAt>,
    /// How long to wait at most.
    pub wait_ms: u32,
}

impl Message for Processed {
    const KIND: Kind = Kind::Processed;
}

impl Request for Processed {
    type Response = ProcessedOk;
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordAt {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// Those of which it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessedOk {
    /// The records with their outcome; none if the time is over.
    pub done: Vec<ProcessedRecord>,
}

impl Message for ProcessedOk {
    const KIND: Kind = Kind::Processed;
}

/// A record and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessedRecord {
    /// The record.
    pub record: RecordAt,
    /// What became of it.
    pub outcome: ReceiptOutcome,
}

/// What became of a record in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptOutcome {
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

/// Asks that what becomes of records in a group is POSTed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskReceipts {
    /// The group; it need not exist yet.
    pub group: String,
    /// Where the receipts are sent.
    pub url: String,
    /// The records, at most 10,000; each gets a receipt of its own.
    pub records: Vec<RecordAt>,
    /// After this time a receipt says that the group has not processed the record.
    pub timeout_ms: u64,
}

/// It is durable that they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskReceiptsOk {}

request!(AskReceipts, AskReceiptsOk);

/// Asks for receipts that are to be POSTed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReceipts {
    /// Only those in this state: `waiting`, `sending` or `given_up`.
    pub state: Option<String>,
    /// Only those of this group.
    pub group: Option<String>,
    /// Only those behind this one, as an answer said.
    pub after: Option<ReceiptAt>,
}

/// Receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReceiptsOk {
    /// The receipts, by topic, partition, offset and group.
    pub receipts: Vec<ReceiptInfo>,
    /// Where to go on; nothing at the end.
    pub next: Option<ReceiptAt>,
}

request!(ListReceipts, ListReceiptsOk);

/// Nobody wants the receipts of a group any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReceipts {
    /// The group.
    pub group: String,
    /// Only those that go to this URL.
    pub url: Option<String>,
}

/// They are not sent any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReceiptsOk {
    /// How many those were.
    pub cancelled: u64,
}

request!(CancelReceipts, CancelReceiptsOk);

/// A record of a certain incarnation of a topic, and a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptAt {
    /// The topic's id, 32 hexadecimal digits.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The group.
    pub group: String,
}

/// A receipt that is to be POSTed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptInfo {
    /// The record.
    pub record: RecordAt,
    /// The group.
    pub group: String,
    /// Where it goes.
    pub url: String,
    /// `waiting`, `sending` or `given_up`.
    pub state: String,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub asked_ms: i64,
    /// When it says that the group has not processed the record, if it has not by then.
    pub until_ms: i64,
    /// What it says, once that is known: `acked`, `dead_lettered`, `not_wanted`, `expired`, `deleted`, `skipped` or
    /// `timed_out`.
    pub outcome: Option<String>,
    /// Why it has not been delivered yet, or was given up.
    pub trouble: Option<String>,
}

/// Sends dead letters back to where they came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// The dead-letter topic.
    pub topic: String,
    /// Only those for which this CEL expression is true.
    pub filter: Option<String>,
    /// So many at most; at most 10,000.
    pub max: u32,
    /// Only say which.
    pub dry_run: bool,
    /// Where to begin to look, as an answer said.
    pub from: Option<DeadLetterAt>,
}

impl Message for Redrive {
    const KIND: Kind = Kind::Redrive;
}

impl Request for Redrive {
    type Response = RedriveOk;
}

/// A place in a dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeadLetterAt {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// What went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveOk {
    /// The dead letters that went back, or would.
    pub records: Vec<DeadLetterAt>,
    /// Those that cannot go back: the topic that they came from is gone, or they do not say which it was.
    pub stranded: u64,
    /// Where to look for more; nothing at the end.
    pub next: Option<DeadLetterAt>,
}

impl Message for RedriveOk {
    const KIND: Kind = Kind::Redrive;
}

/// Asks for the topics with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDeadLetters {}

impl Message for ListDeadLetters {
    const KIND: Kind = Kind::ListDeadLetters;
}

impl Request for ListDeadLetters {
    type Response = ListDeadLettersOk;
}

/// The topics with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDeadLettersOk {
    /// The topics, by name.
    pub topics: Vec<DeadLetterTopic>,
}

impl Message for ListDeadLettersOk {
    const KIND: Kind = Kind::ListDeadLetters;
}

/// A topic with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterTopic {
    /// The topic.
    pub topic: String,
    /// The queue groups whose dead letters go there.
    pub groups: Vec<String>,
    /// Dead letters in it.
    pub records: u64,
    /// Those of them that went back.
    pub redriven: u64,
}
