//! The values that go in and out of the broker.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::base::{Bytes as ByteCount, Isolation, Millis, Offset, TimestampMs, TopicId, TopicName, limits};
use crate::catalog::TopicSettings;
use crate::log::Aborted;

/// What an operator sets about the broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Whether a produce to an unknown topic creates it.
    pub auto_create_topics: bool,
    /// Partitions of a topic for which nobody says how many.
    pub default_partitions: u32,
    /// Settings of topics for which nobody says otherwise.
    pub topic_defaults: TopicSettings,
    /// How often topics with `durability=interval` are synced.
    pub sync_interval: Millis,
    /// How often retention looks for what may go.
    pub retention_check: Millis,
    /// How long a wall clock that has leapt is doubted while it keeps steady; zero believes it at once.
    pub clock_quarantine: Millis,
    /// How long a durable request that has ended is remembered.
    pub request_retention: Millis,
    /// How long a group that nobody uses is remembered.
    pub group_retention: Millis,
    /// Partitions of all topics.
    pub max_partitions: usize,
    /// Durable requests that may be open.
    pub max_open_requests: usize,
    /// Receipts that may be waited for or being sent.
    pub max_receipts: usize,
    /// Groups.
    pub max_groups: usize,
    /// Positions of all groups: one for each group and partition.
    pub max_group_positions: usize,
    /// Bytes of the metadata of all positions.
    pub max_group_metadata: crate::base::Bytes,
    /// Bytes of what all groups and their members declare.
    pub max_group_declarations: crate::base::Bytes,
    /// How often compaction looks for what may be compacted.
    pub compaction_check: Millis,
    /// Bytes of sealed segments that are read again in a second, to find damage; 0 for none.
    pub scrub_rate: crate::base::Bytes,
    /// How long after the begin of one round over all segments the next one begins.
    pub scrub_interval: Millis,
    /// Threads that write and sync.
    pub commit_threads: usize,
    /// Files kept open without need.
    pub max_open_files: usize,
    /// Free bytes below which appends are refused.
    pub storage_low_water: ByteCount,
    /// Bytes kept for what makes room.
    pub storage_reserve: ByteCount,
    /// How long an operation of the disk may take before it counts as hung.
    pub disk_patience: Millis,
    /// The longest time-out that a transactional producer may ask for.
    pub transaction_max_timeout: Millis,
    /// How long a transactional id without use is remembered.
    pub transactional_id_expiration: Millis,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("tidelog-data"),
            auto_create_topics: true,
            default_partitions: 1,
            topic_defaults: TopicSettings::default(),
            sync_interval: Millis(200),
            retention_check: Millis(30_000),
            clock_quarantine: Millis(limits::CLOCK_QUARANTINE_MS),
            request_retention: Millis(24 * 3_600_000),
            group_retention: Millis(limits::GROUP_RETENTION_MS),
            max_partitions: limits::PARTITIONS,
            max_open_requests: limits::OPEN_REQUESTS,
            max_receipts: limits::RECEIPTS,
            max_groups: limits::GROUPS,
            max_group_positions: limits::GROUP_POSITIONS,
            max_group_metadata: crate::base::Bytes(limits::GROUP_METADATA_BYTES),
            max_group_declarations: crate::base::Bytes(limits::GROUP_DECLARED_BYTES),
            compaction_check: Millis(15_000),
            scrub_rate: crate::base::Bytes(8 * 1024 * 1024),
            scrub_interval: Millis(7 * 24 * 3_600_000),
            commit_threads: 8,
            max_open_files: 4_096,
            storage_low_water: ByteCount(4 * 1024 * 1024),
            storage_reserve: ByteCount(2 * 1024 * 1024),
            disk_patience: Millis(5_000),
            transaction_max_timeout: Millis(limits::TRANSACTION_TIMEOUT_MS),
            transactional_id_expiration: Millis(limits::TRANSACTIONAL_ID_EXPIRATION_MS),
        }
    }
}

/// What starting found.
#[derive(Debug, Clone, Default)]
pub struct Startup {
    /// How long it took.
    pub took: Duration,
    /// Topics.
    pub topics: usize,
    /// Partitions.
    pub partitions: usize,
    /// One line for each thing found or recovered.
    pub notes: Vec<String>,
    /// The view was rebuilt from the journal.
    pub view_rebuilt: bool,
}

/// When a produce is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckLevel {
    /// When it has been handed to the log; for doors that do not answer at all.
    None,
    /// When it is written.
    Written,
    /// When it is on disk.
    #[default]
    Durable,
}

/// A topic to be created.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; the default if none.
    pub partitions: Option<u32>,
    /// Settings that differ from the default, by name.
    pub settings: Vec<(String, String)>,
    /// Whether an existing topic is fine.
    pub if_not_exists: bool,
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: u32,
}

/// What a producer or consumer has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its incarnation.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: u32,
    /// The largest batch it takes.
    pub max_batch_bytes: usize,
    /// Created just now.
    pub created: bool,
}

/// A setting as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingValue {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Nobody set it.
    pub is_default: bool,
    /// What it is.
    pub meaning: &'static str,
}

/// A topic in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// All settings.
    pub settings: Vec<SettingValue>,
    /// All partitions, in order.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// First offset.
    pub log_start: Offset,
    /// The end that readers see.
    pub stable_end: Offset,
    /// The end of what is written.
    pub log_end: Offset,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segment files.
    pub segments: u32,
    /// Newest record timestamp, −1 if there is no record.
    pub newest_timestamp: TimestampMs,
    /// Bytes that have been compacted by key; with `cleanup=compact`.
    pub clean_bytes: u64,
    /// Bytes that can be compacted next.
    pub dirty_bytes: u64,
    /// `ok`, or one line on what is wrong.
    pub state: String,
}

impl PartitionDescription {
    /// A partition without records.
    pub fn empty(partition: u32) -> Self {
        Self {
            partition,
            log_start: 0,
            stable_end: 0,
            log_end: 0,
            bytes: 0,
            segments: 0,
            newest_timestamp: -1,
            clean_bytes: 0,
            dirty_bytes: 0,
            state: "ok".to_owned(),
        }
    }
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// When it was appended.
    pub timestamp: TimestampMs,
    /// The time that all its records have, in a topic where that is the server's. Not known here of one that had been appended before:
    /// [`Broker::append_time`](super::Broker::append_time) looks for it.
    pub stamped: Option<TimestampMs>,
    /// It had been appended before.
    pub duplicate: bool,
}

/// A read.
#[derive(Debug, Clone, Copy)]
pub struct FetchRequest<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// Where to begin.
    pub offset: Offset,
    /// How much at most; at least one batch is read.
    pub max_bytes: usize,
    /// Wait for this much.
    pub min_bytes: usize,
    /// Wait at most so long.
    pub max_wait: Duration,
    /// Go on behind damage.
    pub skip_damaged: bool,
}

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionEnds {
    /// Its first offset.
    pub log_start: Offset,
    /// Everything below is as durable as the topic promises.
    pub stable: Offset,
    /// And no transaction is open below this.
    pub committed: Offset,
    /// Everything below is written; from the stable end on readers do not see it yet.
    pub written: Offset,
}

impl PartitionEnds {
    /// The end that readers of this kind see.
    pub fn end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Committed => self.committed,
            Isolation::Uncommitted => self.stable,
        }
    }
}

/// What was read, as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The batches.
    pub fetched: Fetched,
    /// Where the partition begins and ends.
    pub ends: PartitionEnds,
    /// The aborted transactions that have batches among them, sorted by where they begin; for readers of what is committed.
    pub aborted: Vec<Aborted>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches; the first may begin before the offset asked for.
    pub bytes: Bytes,
    /// Where to go on.
    pub next_offset: Offset,
    /// First offset of the partition.
    pub log_start: Offset,
    /// The end that readers see.
    pub stable_end: Offset,
    /// Damage that was passed over.
    pub skipped: Vec<Skipped>,
    /// The first batch has so many bytes, more than the reader has said it may have; it was not read.
    pub needs: Option<usize>,
    /// What the filter had no answer for.
    pub unanswered: Unanswered,
}

/// Records for which a filter had no answer, and so did not want.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unanswered {
    /// How many.
    pub records: u64,
    /// Why it had none for the first of them.
    pub reason: Option<String>,
}

/// A damaged range that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// First offset of it.
    pub from: Offset,
    /// The offset behind it.
    pub to: Offset,
    /// What was found.
    pub reason: String,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first one.
    Beginning,
    /// The end that readers see.
    End,
    /// The first record with this timestamp or a later one; the end if there is none.
    Timestamp(TimestampMs),
    /// The first record with the newest timestamp of all; the end if there is no record.
    Newest,
}
