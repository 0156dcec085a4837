//! The messages about topics.

use serde::{Deserialize, Serialize};

use super::{Kind, Message, Request};

/// A setting's name and value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value, as people write it.
    pub value: String,
}

/// A setting as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether nobody set it.
    pub is_default: bool,
    /// What it is, one line.
    pub meaning: String,
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its partitions.
    pub partitions: u32,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// All settings.
    pub settings: Vec<SettingValue>,
    /// All partitions, in order.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// Its first offset.
    pub log_start: u64,
    /// The end that readers see.
    pub stable_end: u64,
    /// The end of what is written.
    pub log_end: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segment files.
    pub segments: u32,
    /// Newest record timestamp, −1 if there is no record.
    pub newest_timestamp: i64,
    /// Bytes that have been compacted by key, with `cleanup=compact`.
    pub clean_bytes: u64,
    /// Bytes that can be compacted next.
    pub dirty_bytes: u64,
    /// `ok`, or one line on what is wrong.
    pub state: String,
}

/// Creates a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the server's default if none.
    pub partitions: Option<u32>,
    /// Settings that differ from the default.
    pub settings: Vec<Setting>,
    /// Whether an existing topic is fine.
    pub if_not_exists: bool,
}

impl Message for CreateTopic {
    const KIND: Kind = Kind::CreateTopic;
}

impl Request for CreateTopic {
    type Response = TopicOk;
}

/// A topic as it is now. Answers creating (10), altering (11) and describing (14), with the kind of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicOk {
    /// The topic.
    pub topic: TopicDescription,
}

impl Message for TopicOk {
    const KIND: Kind = Kind::CreateTopic;
}

/// Changes a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterTopic {
    /// Its name.
    pub name: String,
    /// A larger number of partitions.
    pub partitions: Option<u32>,
    /// Settings to set.
    pub set: Vec<Setting>,
    /// Settings to put back to the default.
    pub unset: Vec<String>,
}

impl Message for AlterTopic {
    const KIND: Kind = Kind::AlterTopic;
}

impl Request for AlterTopic {
    type Response = TopicOk;
}

/// Deletes a topic and its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// Its name.
    pub name: String,
}

impl Message for DeleteTopic {
    const KIND: Kind = Kind::DeleteTopic;
}

impl Request for DeleteTopic {
    type Response = DeleteTopicOk;
}

/// It is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopicOk {}

impl Message for DeleteTopicOk {
    const KIND: Kind = Kind::DeleteTopic;
}

/// Asks for all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopics {}

impl Message for ListTopics {
    const KIND: Kind = Kind::ListTopics;
}

impl Request for ListTopics {
    type Response = ListTopicsOk;
}

/// All topics, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopicsOk {
    /// The topics.
    pub topics: Vec<TopicSummary>,
}

impl Message for ListTopicsOk {
    const KIND: Kind = Kind::ListTopics;
}

/// Asks for one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopic {
    /// Its name.
    pub name: String,
}

impl Message for DescribeTopic {
    const KIND: Kind = Kind::DescribeTopic;
}

impl Request for DescribeTopic {
    type Response = TopicOk;
}

/// Asks to be told on this connection whenever what topics there are changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchTopics {}

impl Message for WatchTopics {
    const KIND: Kind = Kind::WatchTopics;
}

impl Request for WatchTopics {
    type Response = WatchTopicsOk;
}

/// Changes from here on are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchTopicsOk {}

impl Message for WatchTopicsOk {
    const KIND: Kind = Kind::WatchTopics;
}

/// Pushed: a topic was created or deleted, or has more partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicsChanged {}

impl Message for TopicsChanged {
    const KIND: Kind = Kind::TopicsChanged;
}

/// Asks which topics meet patterns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchTopics {
    /// Names, or names with wildcards.
    pub patterns: Vec<String>,
}

impl Message for MatchTopics {
    const KIND: Kind = Kind::MatchTopics;
}

impl Request for MatchTopics {
    type Response = MatchTopicsOk;
}

/// The topics that meet one of them at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchTopicsOk {
    /// By name.
    pub topics: Vec<TopicSummary>,
}

impl Message for MatchTopicsOk {
    const KIND: Kind = Kind::MatchTopics;
}
