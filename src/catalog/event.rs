//! Changes to what exists, and their form in the journal. The one `bincode` codec of this floor.
//!
//! An event becomes one batch of one or two records, so it is in the journal as a whole or not at all. Each record has
//! the key of the thing that changed, and as value what that thing now is, or nothing when it is gone: the newest
//! record of each key is all that a reader of the journal needs.
//!
//! | event | records |
//! |---|---|
//! | topic created, topic altered | `topic/NAME` = the event |
//! | topic deleted | `topic/NAME` = nothing, `deleted/ID` = the event |
//! | topic purged | `deleted/ID` = nothing |
//! | producer ids reserved | `producer-ids` = the event |
//! | group declared | `group/NAME` = the event |
//! | group deleted | `group/NAME` = nothing, after nothing for all its progress |
//! | position set, removed | `position/TOPIC/PARTITION/GROUP` = the event, or nothing |
//! | member set, removed | `member/MEMBER/GROUP` = the event, or nothing |
//! | round of a classic group set, over | `classic/GROUP` = the event, or nothing |
//! | route set | `route/NAME` = the event |
//! | route deleted | `route/NAME` = nothing, after nothing for all its progress |
//! | route moved | `route-position/TOPIC/PARTITION/ROUTE` = the event, or nothing |
//! | request set, forgotten | `request/ID` = the event, or nothing |
//! | transactional id set, forgotten | `transaction/ID` = the event, or nothing |
//! | push set | `push/NAME` = the event |
//! | push deleted | `push/NAME` = nothing |
//! | receipt set, over | `receipt/TOPIC/PARTITION/OFFSET/GROUP` = the event, or nothing |
//! | group paused, resumed | `paused/NAME` = the event, or nothing |
//! | chunk set, removed | `chunk/TOPIC/PARTITION/NUMBER/GROUP` = the event, or nothing |
//!
//! A value is one byte, the version of the codec (1), and the `bincode` (standard configuration) of [`Stored`], whose
//! variants are numbered in order: new ones go to the end, existing ones never change. `data/frozen/events` holds bytes
//! that every later version must read.

use std::collections::BTreeMap;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::base::{ErrorKind, GroupName, RequestId, TimestampMs, TopicId, TopicName};
use crate::record::{BatchBuilder, BatchOptions};

use super::progress::{Chunk, ClassicEntry, ConsumerEntry, GroupEntry, MemberEntry, Place, Position};
use super::pushes::{PushEndpoint, PushEntry};
use super::receipts::{ReceiptEntry, ReceiptPlace};
use super::requests::RequestEntry;
use super::routing::{RouteEntry, RoutePlace, RouteProgress};
use super::transactions::{TransactionClient, TransactionEntry};

const CODEC_VERSION: u8 = 1;

/// No value comes near this; a length that says otherwise is damage, and allocates nothing.
const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// A topic, as it was created or last altered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEntry {
    /// Its name.
    pub name: TopicName,
    /// This incarnation of it.
    pub id: TopicId,
    /// How many partitions it has, from 0 on.
    pub partitions: u32,
    /// The settings that were set for it, by name; the server's defaults hold for the others.
    pub settings: BTreeMap<String, String>,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: TimestampMs,
}

/// A topic that was deleted and whose files may still be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The name it had.
    pub name: TopicName,
    /// The incarnation that was deleted.
    pub id: TopicId,
    /// How many partitions it had.
    pub partitions: u32,
}

/// A change to what exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A topic now exists.
    TopicCreated(TopicEntry),
    /// A topic of the same name and id now is like this.
    TopicAltered(TopicEntry),
    /// A topic no longer exists; its files go next, and until they are gone there is a tombstone.
    TopicDeleted {
        /// Its name.
        name: TopicName,
        /// Its id.
        id: TopicId,
        /// How many partitions it had.
        partitions: u32,
    },
    /// The files of a deleted topic are gone.
    TopicPurged {
        /// Its id.
        id: TopicId,
    },
    /// Producer ids below this may have been handed out.
    ProducerIdsReserved {
        /// The first id that was not.
        up_to: i64,
    },
    /// A group now is like this.
    GroupDeclared(GroupEntry),
    /// A group no longer exists, and with it its progress.
    GroupDeleted {
        /// Its name.
        name: GroupName,
    },
    /// A group's position in a partition; `None` for none any more.
    PositionSet {
        /// Where.
        place: Place,
        /// Its position there.
        position: Option<Position>,
    },
    /// What a queue group has done above its floor in a chunk; `None` for nothing worth keeping.
    ChunkSet {
        /// Where.
        place: Place,
        /// The chunk's number.
        number: u64,
        /// What it holds.
        chunk: Option<Chunk>,
    },
    /// A member of a stream group now is like this; `None` for gone.
    MemberSet {
        /// The group.
        group: GroupName,
        /// The member's id.
        member: String,
        /// What it is.
        entry: Option<MemberEntry>,
    },
    /// A group whose members share out partitions among themselves has completed a round; `None` for no members any more.
    ClassicSet {
        /// The group.
        group: GroupName,
        /// What the round has come to.
        entry: Option<ClassicEntry>,
    },
    /// A route now is like this.
    RouteSet(RouteEntry),
    /// A route no longer exists, and with it its progress.
    RouteDeleted {
        /// Its name.
        name: TopicName,
    },
    /// How far a route has come in a partition; `None` for nothing worth knowing any more.
    RouteMoved {
        /// Where.
        place: RoutePlace,
        /// How far.
        progress: Option<RouteProgress>,
    },
    /// A durable request now is like this; `None` for forgotten.
    RequestSet {
        /// Its id.
        id: RequestId,
        /// What it is.
        entry: Option<RequestEntry>,
    },
    /// A transactional id and its transaction now are like this; `None` for forgotten.
    TransactionSet {
        /// The id.
        id: String,
        /// What it is.
        entry: Option<TransactionEntry>,
    },
    /// A push subscription now is like this.
    PushSet(PushEntry),
    /// A push subscription no longer exists.
    PushDeleted {
        /// Its name.
        name: GroupName,
    },
    /// A queue group is paused; `None` for not any more.
    GroupPaused {
        /// Its name.
        name: GroupName,
        /// Since when, in milliseconds since the Unix epoch.
        since_ms: Option<TimestampMs>,
    },
    /// A receipt that is to be POSTed now is like this; `None` once it was.
    ReceiptSet {
        /// Of what.
        place: ReceiptPlace,
        /// What it is.
        entry: Option<ReceiptEntry>,
    },
}

/// What a value in the journal and in the view is. Append variants only. `TransactionAt` is `TransactionOf` with the leader epoch of
/// each of its positions.
#[derive(Debug, Serialize, Deserialize)]
enum Stored {
    TopicCreated(TopicEntry),
    TopicAltered(TopicEntry),
    TopicDeleted(Tombstone),
    ProducerIdsReserved { up_to: i64 },
    GroupDeclared(GroupEntry),
    PositionSet { place: Place, position: Position },
    ChunkSet { place: Place, number: u64, chunk: Chunk },
    MemberSet { group: GroupName, member: String, entry: MemberEntry },
    RouteSet(RouteEntry),
    RouteMoved { place: RoutePlace, progress: RouteProgress },
    RequestSet(RequestEntry),
    TransactionSet(TransactionEntry),
    PushSet(PushEntry),
    ConsumerSet { group: GroupName, member: String, entry: MemberEntry, consumer: ConsumerEntry },
    ReceiptSet(ReceiptEntry),
    TransactionOf { entry: TransactionEntry, client: TransactionClient, open_ms: u64 },
    PositionAt { place: Place, position: Position, leader_epoch: u32 },
    TransactionAt { entry: TransactionEntry, client: TransactionClient, open_ms: u64, epochs: Vec<Option<u32>> },
    ClassicSet { group: GroupName, entry: ClassicEntry },
    RequestOf { entry: RequestEntry, content: [u8; 16] },
    PushOf { entry: PushEntry, endpoint: PushEndpoint },
    GroupPaused { name: GroupName, since_ms: TimestampMs },
}

/// One key and what it now holds, `None` for nothing any more.
pub(super) type KeyChange = (String, Option<Vec<u8>>);

/// What is wrong with a key or value of the journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A record that no version wrote.
    #[error("{what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// Written by a newer version.
    #[error("the event has version {found}; this version of Tidelog reads up to {supported}: use the newer version")]
    Newer {
        /// The value's version.
        found: u8,
        /// The newest version that is understood here.
        supported: u8,
    },
}

impl EventError {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } => ErrorKind::Damaged,
            Self::Newer { .. } => ErrorKind::Unsupported,
        }
    }
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Topic(TopicName),
    Deleted(TopicId),
    ProducerIds,
    Group(GroupName),
    Position(Place),
    Chunk(Place, u64),
    Member(GroupName, String),
    Classic(GroupName),
    Route(TopicName),
    RoutePosition(RoutePlace),
    Request(RequestId),
    Transaction(String),
    Push(GroupName),
    Receipt(ReceiptPlace),
    Paused(GroupName),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic/{name}"),
            Self::Deleted(id) => write!(f, "deleted/{id}"),
            Self::ProducerIds => f.write_str("producer-ids"),
            Self::Group(name) => write!(f, "group/{name}"),
            Self::Position(Place { group, topic, partition }) => write!(f, "position/{topic}/{partition}/{group}"),
            Self::Chunk(Place { group, topic, partition }, number) => {
                write!(f, "chunk/{topic}/{partition}/{number}/{group}")
            }
            Self::Member(group, member) => write!(f, "member/{}/{group}", escaped(member)),
            Self::Classic(group) => write!(f, "classic/{group}"),
            Self::Route(name) => write!(f, "route/{name}"),
            Self::RoutePosition(RoutePlace { route, topic, partition }) => {
                write!(f, "route-position/{topic}/{partition}/{route}")
            }
            Self::Request(id) => write!(f, "request/{id}"),
            Self::Transaction(id) => write!(f, "transaction/{id}"),
            Self::Push(name) => write!(f, "push/{name}"),
            Self::Paused(name) => write!(f, "paused/{name}"),
            Self::Receipt(ReceiptPlace { topic, partition, offset, group }) => {
                write!(f, "receipt/{topic}/{partition}/{offset}/{group}")
            }
        }
    }
}

impl Key {
    pub(super) fn parse(key: &[u8]) -> Result<Self, EventError> {
        let wrong = || EventError::malformed(format!("unknown key {:?}", String::from_utf8_lossy(key)));
        let text = std::str::from_utf8(key).map_err(|_| wrong())?;
        match text.split_once('/') {
            Some(("topic", name)) => TopicName::new(name).map(Self::Topic).map_err(|_| wrong()),
            Some(("deleted", id)) => TopicId::parse(id).map(Self::Deleted).ok_or_else(wrong),
            Some(("push", name)) => GroupName::new(name).map(Self::Push).map_err(|_| wrong()),
            Some(("paused", name)) => GroupName::new(name).map(Self::Paused).map_err(|_| wrong()),
            Some(("group", name)) => GroupName::new(name).map(Self::Group).map_err(|_| wrong()),
            Some(("classic", name)) => GroupName::new(name).map(Self::Classic).map_err(|_| wrong()),
            Some(("member", rest)) => {
                let (member, group) = rest.split_once('/').ok_or_else(wrong)?;
                let group = GroupName::new(group).map_err(|_| wrong())?;
                Ok(Self::Member(group, unescaped(member)))
            }
            Some(("request", id)) => RequestId::new(id).map(Self::Request).map_err(|_| wrong()),
            Some(("transaction", id)) if !id.is_empty() => Ok(Self::Transaction(id.to_owned())),
            Some(("position", rest)) => place(rest).map(Self::Position).ok_or_else(wrong),
            Some(("chunk", rest)) => numbered(rest).map(|(place, number)| Self::Chunk(place, number)).ok_or_else(wrong),
            Some(("receipt", rest)) => {
                let (Place { group, topic, partition }, offset) = numbered(rest).ok_or_else(wrong)?;
                Ok(Self::Receipt(ReceiptPlace { topic, partition, offset, group }))
            }
            Some(("route", name)) => TopicName::new(name).map(Self::Route).map_err(|_| wrong()),
            Some(("route-position", rest)) => {
                let Place { group, topic, partition } = place(rest).ok_or_else(wrong)?;
                let route = TopicName::new(group.as_str()).map_err(|_| wrong())?;
                Ok(Self::RoutePosition(RoutePlace { route, topic, partition }))
            }
            None if text == "producer-ids" => Ok(Self::ProducerIds),
            _ => Err(wrong()),
        }
    }
}

/// Reads `TOPIC/PARTITION/GROUP`; the group comes last because its name may hold slashes.
fn place(text: &str) -> Option<Place> {
    let mut parts = text.splitn(3, '/');
    let topic = TopicId::parse(parts.next()?)?;
    let partition = parts.next()?.parse().ok()?;
    Some(Place { group: GroupName::new(parts.next()?).ok()?, topic, partition })
}

/// Reads `TOPIC/PARTITION/NUMBER/GROUP`.
fn numbered(text: &str) -> Option<(Place, u64)> {
    let mut parts = text.splitn(4, '/');
    let (topic, partition, number) = (parts.next()?, parts.next()?, parts.next()?);
    let place = place(&format!("{topic}/{partition}/{}", parts.next()?))?;
    Some((place, number.parse().ok()?))
}

impl Event {
    /// The key of the thing that it is about.
    pub fn key(&self) -> String {
        let key = match self {
            Self::TopicCreated(entry) | Self::TopicAltered(entry) => Key::Topic(entry.name.clone()),
            Self::TopicDeleted { id, .. } | Self::TopicPurged { id } => Key::Deleted(*id),
            Self::ProducerIdsReserved { .. } => Key::ProducerIds,
            Self::GroupDeclared(entry) => Key::Group(entry.name.clone()),
            Self::GroupDeleted { name } => Key::Group(name.clone()),
            Self::PositionSet { place, .. } => Key::Position(place.clone()),
            Self::ChunkSet { place, number, .. } => Key::Chunk(place.clone(), *number),
            Self::MemberSet { group, member, .. } => Key::Member(group.clone(), member.clone()),
            Self::ClassicSet { group, .. } => Key::Classic(group.clone()),
            Self::RouteSet(entry) => Key::Route(entry.name.clone()),
            Self::RouteDeleted { name } => Key::Route(name.clone()),
            Self::RouteMoved { place, .. } => Key::RoutePosition(place.clone()),
            Self::RequestSet { id, .. } => Key::Request(id.clone()),
            Self::TransactionSet { id, .. } => Key::Transaction(id.clone()),
            Self::PushSet(entry) => Key::Push(entry.name.clone()),
            Self::PushDeleted { name } => Key::Push(name.clone()),
            Self::GroupPaused { name, .. } => Key::Paused(name.clone()),
            Self::ReceiptSet { place, .. } => Key::Receipt(place.clone()),
        };
        key.to_string()
    }

    /// The keys that it changes, in order.
    pub(super) fn changes(&self) -> Result<Vec<KeyChange>, EventError> {
        let stored = match self.clone() {
            Self::TopicCreated(entry) => Stored::TopicCreated(entry),
            Self::TopicAltered(entry) => Stored::TopicAltered(entry),
            Self::TopicDeleted { name, id, partitions } => {
                let gone = (Key::Topic(name.clone()).to_string(), None);
                let value = encode(&Stored::TopicDeleted(Tombstone { name, id, partitions }))?;
                return Ok(vec![gone, (self.key(), Some(value))]);
            }
            Self::TopicPurged { .. } => return Ok(vec![(self.key(), None)]),
            Self::ProducerIdsReserved { up_to } => Stored::ProducerIdsReserved { up_to },
            Self::GroupDeclared(entry) => Stored::GroupDeclared(entry),
            Self::PositionSet { place, position: Some(position) } => match position.leader_epoch {
                None => Stored::PositionSet { place, position },
                Some(leader_epoch) => Stored::PositionAt { place, position, leader_epoch },
            },
            Self::ChunkSet { place, number, chunk: Some(chunk) } => Stored::ChunkSet { place, number, chunk },
            Self::MemberSet { group, member, entry: Some(mut entry) } => match entry.consumer.take() {
                None => Stored::MemberSet { group, member, entry },
                Some(consumer) => Stored::ConsumerSet { group, member, entry, consumer },
            },
            Self::ClassicSet { group, entry: Some(entry) } => Stored::ClassicSet { group, entry },
            Self::RouteSet(entry) => Stored::RouteSet(entry),
            Self::RouteMoved { place, progress: Some(progress) } => Stored::RouteMoved { place, progress },
            Self::RequestSet { entry: Some(entry), .. } => match entry.content {
                None => Stored::RequestSet(entry),
                Some(content) => Stored::RequestOf { entry, content },
            },
            Self::TransactionSet { entry: Some(mut entry), .. } => {
                let epochs: Vec<_> = entry.positions.iter().map(|(_, position)| position.leader_epoch).collect();
                match (std::mem::take(&mut entry.client), std::mem::take(&mut entry.open_ms)) {
                    (client, open_ms) if epochs.iter().any(Option::is_some) => {
                        Stored::TransactionAt { entry, client, open_ms, epochs }
                    }
                    (client, 0) if client == TransactionClient::default() => Stored::TransactionSet(entry),
                    (client, open_ms) => Stored::TransactionOf { entry, client, open_ms },
                }
            }
            Self::PushSet(mut entry) => match std::mem::take(&mut entry.endpoint) {
                endpoint if endpoint == PushEndpoint::default() => Stored::PushSet(entry),
                endpoint => Stored::PushOf { entry, endpoint },
            },
            Self::ReceiptSet { entry: Some(entry), .. } => Stored::ReceiptSet(entry),
            Self::GroupPaused { name, since_ms: Some(since_ms) } => Stored::GroupPaused { name, since_ms },
            Self::GroupDeleted { .. }
            | Self::PushDeleted { .. }
            | Self::RouteDeleted { .. }
            | Self::RouteMoved { progress: None, .. }
            | Self::MemberSet { entry: None, .. }
            | Self::ClassicSet { entry: None, .. }
            | Self::RequestSet { entry: None, .. }
            | Self::TransactionSet { entry: None, .. }
            | Self::ReceiptSet { entry: None, .. }
            | Self::GroupPaused { since_ms: None, .. }
            | Self::PositionSet { position: None, .. }
            | Self::ChunkSet { chunk: None, .. } => return Ok(vec![(self.key(), None)]),
        };
        Ok(vec![(self.key(), Some(encode(&stored)?))])
    }

    /// Reads a value; the key it belongs under is that of the event.
    pub(super) fn decode(value: &[u8]) -> Result<Self, EventError> {
        let (&version, body) = value.split_first().ok_or_else(|| EventError::malformed("the event is empty"))?;
        if version > CODEC_VERSION {
            return Err(EventError::Newer { found: version, supported: CODEC_VERSION });
        }
        if version != CODEC_VERSION {
            return Err(EventError::malformed(format!("there is no event version {version}")));
        }
        let config = bincode::config::standard().with_limit::<MAX_VALUE_BYTES>();
        let (stored, read) = bincode::serde::decode_from_slice(body, config)
            .map_err(|error| EventError::malformed(format!("the event cannot be decoded: {error}")))?;
        if read != body.len() {
            return Err(EventError::malformed(format!("the event has {} bytes too many", body.len() - read)));
        }
        Ok(match stored {
            Stored::TopicCreated(entry) => Self::TopicCreated(entry),
            Stored::TopicAltered(entry) => Self::TopicAltered(entry),
            Stored::TopicDeleted(Tombstone { name, id, partitions }) => Self::TopicDeleted { name, id, partitions },
            Stored::ProducerIdsReserved { up_to } => Self::ProducerIdsReserved { up_to },
            Stored::GroupDeclared(entry) => Self::GroupDeclared(entry),
            Stored::PositionSet { place, position } => Self::PositionSet { place, position: Some(position) },
            Stored::ChunkSet { place, number, chunk } => Self::ChunkSet { place, number, chunk: Some(chunk) },
            Stored::MemberSet { group, member, entry } => Self::MemberSet { group, member, entry: Some(entry) },
            Stored::RouteSet(entry) => Self::RouteSet(entry),
            Stored::RouteMoved { place, progress } => Self::RouteMoved { place, progress: Some(progress) },
            Stored::RequestSet(entry) => Self::RequestSet { id: entry.id.clone(), entry: Some(entry) },
            Stored::RequestOf { entry, content } => {
                let entry = RequestEntry { content: Some(content), ..entry };
                Self::RequestSet { id: entry.id.clone(), entry: Some(entry) }
            }
            Stored::TransactionSet(entry) => Self::TransactionSet { id: entry.id.clone(), entry: Some(entry) },
            Stored::PushSet(entry) => Self::PushSet(entry),
            Stored::PushOf { entry, endpoint } => Self::PushSet(PushEntry { endpoint, ..entry }),
            Stored::GroupPaused { name, since_ms } => Self::GroupPaused { name, since_ms: Some(since_ms) },
            Stored::ReceiptSet(entry) => Self::ReceiptSet { place: entry.place.clone(), entry: Some(entry) },
            Stored::TransactionOf { entry, client, open_ms } => {
                let entry = TransactionEntry { client, open_ms, ..entry };
                Self::TransactionSet { id: entry.id.clone(), entry: Some(entry) }
            }
            Stored::ClassicSet { group, entry } => Self::ClassicSet { group, entry: Some(entry) },
            Stored::PositionAt { place, position, leader_epoch } => {
                let leader_epoch = Some(leader_epoch);
                Self::PositionSet { place, position: Some(Position { leader_epoch, ..position }) }
            }
            Stored::TransactionAt { mut entry, client, open_ms, epochs } => {
                for ((_, position), epoch) in entry.positions.iter_mut().zip(epochs) {
                    position.leader_epoch = epoch;
                }
                let entry = TransactionEntry { client, open_ms, ..entry };
                Self::TransactionSet { id: entry.id.clone(), entry: Some(entry) }
            }
            Stored::ConsumerSet { group, member, entry, consumer } => {
                let entry = Some(MemberEntry { consumer: Some(consumer), ..entry });
                Self::MemberSet { group, member, entry }
            }
        })
    }
}

/// A member's id as a part of a key. Kafka's clients make ids in base 64, which has slashes.
fn escaped(member: &str) -> String {
    member.replace('%', "%25").replace('/', "%2F")
}

fn unescaped(part: &str) -> String {
    part.replace("%2F", "/").replace("%25", "%")
}

fn encode(stored: &Stored) -> Result<Vec<u8>, EventError> {
    let config = bincode::config::standard().with_limit::<MAX_VALUE_BYTES>();
    let body = bincode::serde::encode_to_vec(stored, config)
        .map_err(|error| EventError::malformed(format!("the event cannot be encoded: {error}")))?;
    if body.len() >= MAX_VALUE_BYTES {
        return Err(EventError::malformed(format!(
            "the event has {} bytes; the limit is {MAX_VALUE_BYTES} bytes",
            body.len()
        )));
    }
    let mut value = vec![CODEC_VERSION];
    value.extend_from_slice(&body);
    Ok(value)
}

/// The batch of these changes, for the journal to append.
pub(super) fn batch_of(changes: &[KeyChange], now_ms: TimestampMs) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (key, value) in changes {
        builder.push(now_ms, Some(key.as_bytes()), value.as_deref(), &[]);
    }
    builder.build()
}
