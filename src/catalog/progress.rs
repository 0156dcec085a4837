//! What is durable of a group: what it is, and how far it has come in each partition.
//!
//! A queue group's progress in a partition is a floor (its [`Position`]: everything below it is done) and, above it, what
//! is done out of order, in [`Chunk`]s of [`CHUNK_OFFSETS`] offsets each.

use serde::{Deserialize, Serialize};

use crate::base::{GroupName, Offset, PartitionId, TimestampMs, TopicId, TopicName, TopicPattern, TopicRegex, limits};

/// Offsets in a chunk; chunk number n begins at n times this.
pub const CHUNK_OFFSETS: u64 = 4096;

/// A group, as it was declared last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Its name.
    pub name: GroupName,
    /// How its members share the work.
    pub kind: GroupKind,
    /// The topics that it reads; topics created later join by themselves.
    pub topics: Vec<TopicPattern>,
    /// A CEL expression: records that it does not select count as done.
    pub filter: Option<String>,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: TimestampMs,
}

/// Bytes of a pattern in memory beside its text.
const PATTERN_BYTES: usize = 48;
/// What a filter takes once it is compiled, as a multiple of its text.
const FILTER_TIMES: usize = 32;
/// Bytes of a queue group's rules, and of a member beside what it says, in the catalog and in use.
const RULES_BYTES: usize = 128;
const MEMBER_BYTES: usize = 512;
/// Bytes of a partition that a member owns, in the same places.
const OWNED_BYTES: usize = 96;

fn weight_of(topics: &[TopicPattern]) -> usize {
    topics.iter().map(|pattern| pattern.as_str().len() + PATTERN_BYTES).sum()
}

impl GroupEntry {
    /// Bytes of what the group declares (rules, topics, a filter), as far as that takes memory while it is in use, in round
    /// numbers. 0 for a group that declares nothing.
    pub fn weight(&self) -> usize {
        let rules = match &self.kind {
            GroupKind::Stream => 0,
            GroupKind::Queue(rules) => RULES_BYTES + rules.dead_letter.as_ref().map_or(0, |topic| topic.as_str().len()),
        };
        rules + weight_of(&self.topics) + self.filter.as_ref().map_or(0, |filter| filter.len() * FILTER_TIMES)
    }
}

impl MemberEntry {
    /// Bytes of what the member says of itself and owns, in the catalog and in use, in round numbers.
    pub fn weight(&self) -> usize {
        self.said() + OWNED_BYTES * self.owns.len()
    }

    /// The same without what it owns.
    pub fn said(&self) -> usize {
        Self::said_weight(&self.client, self.instance.as_deref(), &self.topics, self.consumer.as_ref())
    }

    /// [`MemberEntry::said`] of one that says this.
    pub fn said_weight(
        client: &str,
        instance: Option<&str>,
        topics: &[TopicPattern],
        consumer: Option<&ConsumerEntry>,
    ) -> usize {
        let consumer = consumer.map_or(0, |consumer| {
            let rack = consumer.rack.as_ref().map_or(0, String::len);
            2 * (consumer.host.len() + rack) + consumer.regex.as_ref().map_or(0, TopicRegex::weight)
        });
        MEMBER_BYTES + 2 * (client.len() + instance.map_or(0, str::len)) + weight_of(topics) + consumer
    }
}

/// What groups hold that has limits of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Positions.
    pub positions: usize,
    /// Bytes of their metadata.
    pub metadata: usize,
    /// Bytes of what the groups and their members declare: [`GroupEntry::weight`], [`MemberEntry::weight`].
    pub declared: usize,
}

impl std::ops::AddAssign for GroupCounts {
    fn add_assign(&mut self, more: Self) {
        self.positions += more.positions;
        self.metadata += more.metadata;
        self.declared += more.declared;
    }
}

impl std::ops::SubAssign for GroupCounts {
    /// Never below zero.
    fn sub_assign(&mut self, less: Self) {
        self.positions = self.positions.saturating_sub(less.positions);
        self.metadata = self.metadata.saturating_sub(less.metadata);
        self.declared = self.declared.saturating_sub(less.declared);
    }
}

/// How the members of a group share the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupKind {
    /// Each partition belongs to one member; the position is a committed offset.
    Stream,
    /// Each record is leased to one member.
    Queue(QueueSettings),
}

/// The rules of a queue group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// How long a record belongs to the member that it was delivered to, in milliseconds.
    pub lease_ms: u64,
    /// Deliveries of a record after which it is a dead letter.
    pub max_deliveries: u32,
    /// The wait before the second delivery, in milliseconds; it doubles with each further one.
    pub backoff_ms: u64,
    /// The longest wait between two deliveries, in milliseconds.
    pub backoff_max_ms: u64,
    /// Where dead letters go; `dead-letter.GROUP` if it is not said.
    pub dead_letter: Option<TopicName>,
    /// The next record of a key is delivered only when the one before is done.
    pub ordered_by_key: bool,
}

impl Default for QueueSettings {
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

/// A partition of a topic as a group has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The group.
    pub group: GroupName,
    /// The topic's incarnation.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
}

/// A committed position: everything below the offset is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next offset that is not done.
    pub offset: Offset,
    /// What the member that committed it wants to remember.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub time_ms: TimestampMs,
    /// The leader epoch of the last record before it, if whoever committed it said one: Kafka's clients do, and want it back.
    /// Kept in events of their own.
    #[serde(skip)]
    pub leader_epoch: Option<u32>,
}

/// A member of a stream group, and what it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// The name of the place that it fills, if it has one.
    pub instance: Option<String>,
    /// Who it is, for people.
    pub client: String,
    /// The topics that it wants.
    pub topics: Vec<TopicPattern>,
    /// How long it is a member without a heartbeat, in milliseconds.
    pub session_ms: u64,
    /// How long it may take to give up a partition, in milliseconds.
    pub handover_ms: u64,
    /// The epoch that it has reached.
    pub epoch: u32,
    /// The one before.
    pub before: u32,
    /// What it owns.
    pub owns: Vec<Owned>,
    /// It left for a while.
    pub away: bool,
    /// When it joined, in milliseconds since the Unix epoch.
    pub joined_ms: TimestampMs,
    /// What there is to know of it if it speaks Kafka's protocol. Kept beside the rest, in an event of its own.
    #[serde(skip)]
    pub consumer: Option<ConsumerEntry>,
}

/// What Kafka's protocol of groups that the server shares out (KIP-848) knows of a member beyond the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerEntry {
    /// Where it is.
    pub host: String,
    /// The rack it says it is in.
    pub rack: Option<String>,
    /// How it wants partitions to be shared out.
    pub assignor: Option<Assignor>,
    /// Further topics that it wants.
    pub regex: Option<TopicRegex>,
}

/// A group whose members share out partitions among themselves (Kafka's older protocol), as its last completed round left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicEntry {
    /// The number of the round.
    pub generation: i32,
    /// What kind of group its members take it for.
    pub protocol_type: String,
    /// The protocol that was elected.
    pub protocol: String,
    /// The member that assigns.
    pub leader: Option<String>,
    /// Its members, in the order in which they joined.
    pub members: Vec<ClassicMemberEntry>,
}

/// A member of such a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicMemberEntry {
    /// Its id.
    pub id: String,
    /// The name of the place that it fills, if it has one.
    pub instance: Option<String>,
    /// Who it is, for people.
    pub client: String,
    /// Where it is, for people.
    pub host: String,
    /// How long it is a member without a heartbeat, in milliseconds.
    pub session_ms: u64,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_ms: u64,
    /// The protocols that it speaks, best first, with what it says in each.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// What was assigned to it.
    pub assignment: Vec<u8>,
    /// When it joined, in milliseconds since the Unix epoch.
    pub joined_ms: TimestampMs,
}

/// How partitions are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Assignor {
    /// As evenly as can be over all topics, by few moves.
    Uniform,
    /// Of each topic a stretch to each member, the same for topics with the same members: what has one number in two topics
    /// is read by the same member.
    Range,
}

/// A partition that a member owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// The epoch at which it was given it.
    pub epoch: u32,
    /// It is told to give it up.
    pub gives_up: bool,
}

/// What is done above the floor, in one stretch of [`CHUNK_OFFSETS`] offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Ranges that are done, in order: the first offset's distance from the chunk's begin, and their number.
    pub done: Vec<(u16, u16)>,
    /// Records that are not done and have failed before, in order of their offsets.
    pub failed: Vec<Failed>,
}

/// A record whose delivery has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its offset's distance from the chunk's begin.
    pub at: u16,
    /// Deliveries that failed.
    pub deliveries: u32,
    /// When it is due again, in milliseconds since the Unix epoch.
    pub due_ms: TimestampMs,
}

impl Chunk {
    /// Whether there is nothing worth keeping in it.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed.is_empty()
    }

    /// What is left of it when the log ends so many offsets behind the chunk's begin, and how many records were done behind
    /// that; `None` if nothing lies there.
    pub fn cut(&self, end: u64) -> Option<(Self, u64)> {
        let (mut left, mut lost) = (Self::default(), 0);
        for &(from, len) in &self.done {
            let stays = end.saturating_sub(from.into()).min(len.into());
            lost += u64::from(len) - stays;
            // No more than `len`.
            if stays > 0 {
                left.done.push((from, stays as u16));
            }
        }
        left.failed.extend(self.failed.iter().filter(|failed| u64::from(failed.at) < end).cloned());
        (left != *self).then_some((left, lost))
    }
}
