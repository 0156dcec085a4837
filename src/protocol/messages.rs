//! The messages. A message is never changed; a new field goes to its end, a new meaning gets a new kind.

use serde::{Deserialize, Serialize};

use super::{Kind, Message, Request};
use crate::base::Isolation;

/// When a produce request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ack {
    /// Never. An error ends the connection.
    None,
    /// When it is written (survives a killed server, not a power cut).
    Written,
    /// When it is on disk.
    #[default]
    Durable,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffsetAt {
    /// The first one there is.
    Beginning,
    /// The end that readers see.
    End,
    /// That of the first record with this timestamp or a later one; the end if there is none.
    Timestamp(i64),
}

/// Reserved for authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Which way.
    pub mechanism: String,
    /// What it needs.
    pub data: Vec<u8>,
}

/// What a server takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerLimits {
    /// Bytes of a frame.
    pub max_frame_bytes: u32,
    /// Bytes of a batch, whatever a topic allows.
    pub max_batch_bytes: u32,
    /// Requests under way on one connection.
    pub max_requests_in_flight: u32,
    /// Bytes of requests under way on one connection.
    pub max_bytes_in_flight: u64,
    /// Subscriptions of one connection.
    pub max_subscriptions: u32,
    /// After how long a silent connection is closed.
    pub idle_timeout_ms: u64,
}

/// A damaged range that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// First offset of it.
    pub from: u64,
    /// The offset behind it.
    pub to: u64,
    /// What was found.
    pub reason: String,
}

/// The offsets that a partition has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The first.
    pub log_start: u64,
    /// The one behind the last.
    pub log_end: u64,
}

/// The body of every frame with the ERROR flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// [`ErrorKind`](crate::base::ErrorKind) as a number.
    pub code: u16,
    /// One line with the value and the limit.
    pub message: String,
    /// When to try again, if the server knows.
    pub retry_after_ms: Option<u32>,
    /// What there is, when an offset was out of range.
    pub range: Option<OffsetRange>,
}

/// Opens a connection: the first frame, at most 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version the client speaks.
    pub min_version: u16,
    /// Newest version the client speaks.
    pub max_version: u16,
    /// Who it is, for logs.
    pub client_name: String,
    /// Its own version, for logs.
    pub client_version: String,
    /// Reserved for authentication.
    pub credentials: Option<Credentials>,
}

impl Message for Hello {
    const KIND: Kind = Kind::Hello;
}

impl Request for Hello {
    type Response = HelloOk;
}

/// The server's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloOk {
    /// The version spoken from here on.
    pub version: u16,
    /// The data directory's id: 32 hexadecimal digits.
    pub server_id: String,
    /// The server's own version.
    pub server_version: String,
    /// What it takes.
    pub limits: ServerLimits,
}

impl Message for HelloOk {
    const KIND: Kind = Kind::Hello;
}

/// Keeps a connection from being idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

impl Message for Ping {
    const KIND: Kind = Kind::Ping;
}

impl Request for Ping {
    type Response = Pong;
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

impl Message for Pong {
    const KIND: Kind = Kind::Ping;
}

/// Asks for facts about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {}

impl Message for ServerInfo {
    const KIND: Kind = Kind::ServerInfo;
}

impl Request for ServerInfo {
    type Response = ServerInfoOk;
}

/// Facts about the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfoOk {
    /// The data directory's id.
    pub server_id: String,
    /// Its version.
    pub server_version: String,
    /// When it started.
    pub started_at_ms: i64,
    /// For how long it has been up.
    pub uptime_ms: u64,
    /// Topics.
    pub topics: u64,
    /// Partitions of all topics.
    pub partitions: u64,
    /// Open connections.
    pub connections: u64,
    /// How long recovery took at the start.
    pub recovery_ms: u64,
    /// Version of the data directory's format.
    pub data_format: u32,
    /// Room on the disk, if known.
    pub disk_free_bytes: Option<u64>,
}

impl Message for ServerInfoOk {
    const KIND: Kind = Kind::ServerInfo;
}

/// Asks for the server's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {}

impl Message for Metrics {
    const KIND: Kind = Kind::Metrics;
}

impl Request for Metrics {
    type Response = MetricsOk;
}

/// Metrics in the Prometheus text format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsOk {
    /// The text.
    pub text: String,
}

impl Message for MetricsOk {
    const KIND: Kind = Kind::Metrics;
}

/// What a producer or consumer asks before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The topic's name.
    pub topic: String,
    /// Create it if it does not exist and the server allows that.
    pub create: bool,
}

impl Message for Metadata {
    const KIND: Kind = Kind::Metadata;
}

impl Request for Metadata {
    type Response = MetadataOk;
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOk {
    /// The topic's id.
    pub id: String,
    /// Its partitions.
    pub partitions: u32,
    /// The largest batch it takes.
    pub max_batch_bytes: u32,
    /// Whether it was created just now.
    pub created: bool,
}

impl Message for MetadataOk {
    const KIND: Kind = Kind::Metadata;
}

/// Asks for an idempotent producer identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitProducer {
    /// An identity to go on with: the epoch goes up, and the old one is fenced.
    pub resume: Option<(i64, i16)>,
}

impl Message for InitProducer {
    const KIND: Kind = Kind::InitProducer;
}

impl Request for InitProducer {
    type Response = InitProducerOk;
}

/// The identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitProducerOk {
    /// The id.
    pub producer_id: i64,
    /// The epoch.
    pub epoch: i16,
}

impl Message for InitProducerOk {
    const KIND: Kind = Kind::InitProducer;
}

/// Appends one batch, the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produce {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// When to answer.
    pub ack: Ack,
}

impl Message for Produce {
    const KIND: Kind = Kind::Produce;
}

impl Request for Produce {
    type Response = ProduceOk;
}

/// It is in the log, as the ack level promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProduceOk {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Offset of its last record.
    pub last_offset: u64,
    /// When it was appended, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// It had been appended before, at these offsets.
    pub duplicate: bool,
}

impl Message for ProduceOk {
    const KIND: Kind = Kind::Produce;
}

/// Reads batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where to begin.
    pub offset: u64,
    /// How much at most; at least one batch is sent whole.
    pub max_bytes: u32,
    /// Wait for this much.
    pub min_bytes: u32,
    /// Wait at most so long.
    pub max_wait_ms: u32,
    /// Go on behind damaged data instead of failing.
    pub skip_damaged: bool,
    /// Only records for which this CEL expression is true.
    pub filter: Option<String>,
    /// What to see of transactions.
    pub isolation: Isolation,
}

impl Message for Fetch {
    const KIND: Kind = Kind::Fetch;
}

impl Request for Fetch {
    type Response = FetchOk;
}

/// Whole batches, the payload; the first may begin before the offset asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchOk {
    /// First offset of the partition.
    pub log_start: u64,
    /// The end that readers see.
    pub stable_end: u64,
    /// Where to go on.
    pub next_offset: u64,
    /// Damaged ranges that were passed over.
    pub skipped: Vec<Skipped>,
}

impl Message for FetchOk {
    const KIND: Kind = Kind::Fetch;
}

/// Asks for an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsets {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Which one.
    pub at: OffsetAt,
    /// For which readers.
    pub isolation: Isolation,
}

impl Message for ListOffsets {
    const KIND: Kind = Kind::ListOffsets;
}

impl Request for ListOffsets {
    type Response = ListOffsetsOk;
}

/// The offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsetsOk {
    /// The offset.
    pub offset: u64,
    /// That record's timestamp, −1 if there is none.
    pub timestamp: i64,
}

impl Message for ListOffsetsOk {
    const KIND: Kind = Kind::ListOffsets;
}

/// Asks to be sent records as they come, against credit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where to begin.
    pub offset: u64,
    /// How many records may be sent.
    pub credit_records: u64,
    /// How many bytes may be sent.
    pub credit_bytes: u64,
    /// Go on behind damaged data instead of ending.
    pub skip_damaged: bool,
    /// Send only records for which this CEL expression is true.
    pub filter: Option<String>,
    /// What to see of transactions.
    pub isolation: Isolation,
}

impl Message for Subscribe {
    const KIND: Kind = Kind::Subscribe;
}

impl Request for Subscribe {
    type Response = SubscribeOk;
}

/// The subscription runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeOk {
    /// Its id on this connection.
    pub subscription: u64,
    /// First offset of the partition.
    pub log_start: u64,
    /// The end that readers see.
    pub stable_end: u64,
}

impl Message for SubscribeOk {
    const KIND: Kind = Kind::Subscribe;
}

/// Grants more credit; not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The subscription.
    pub subscription: u64,
    /// Records more.
    pub records: u64,
    /// Bytes more.
    pub bytes: u64,
}

impl Message for Credit {
    const KIND: Kind = Kind::Credit;
}

/// Ends a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The subscription.
    pub subscription: u64,
}

impl Message for Unsubscribe {
    const KIND: Kind = Kind::Unsubscribe;
}

impl Request for Unsubscribe {
    type Response = UnsubscribeOk;
}

/// It has ended; nothing more is sent for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsubscribeOk {}

impl Message for UnsubscribeOk {
    const KIND: Kind = Kind::Unsubscribe;
}

/// Pushed: batches of a subscription, the payload. Without a payload it says that the end is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The subscription.
    pub subscription: u64,
    /// The offset behind what is sent.
    pub next_offset: u64,
    /// The end that readers see.
    pub stable_end: u64,
    /// Damaged ranges that were passed over.
    pub skipped: Vec<Skipped>,
    /// Records that the filter had no answer for, and so passed over.
    pub unanswered: u64,
    /// Why, of the first of them.
    pub reason: Option<String>,
}

impl Message for Delivery {
    const KIND: Kind = Kind::Delivery;
}
