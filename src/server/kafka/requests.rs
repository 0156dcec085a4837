//! From a frame to what becomes of it.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::api::{self, Api};
use super::connection::Pending;
use super::response::{Asked, Response};
use super::session::{Hangup, Session};
use super::told::{self, Told, telling};
use super::wire::{Reader, WireError};
use super::{
    admin, consumers, errors, fetch, forgetting, group_admin, groups, metadata, offsets, old, positions, produce,
    shape, single_node, topics, transactions,
};
use crate::base::limits;
use crate::server::budget::Grant;

/// Bytes of a request that carries no batches.
const CONTROL_BYTES: usize = 4 * 1024 * 1024;
/// Memory of a decoded element beside its words: the crate's structures are 40 to 150 bytes large.
const ELEMENT_BYTES: usize = 128;
/// Key, version and correlation id.
const HEAD_BYTES: usize = 8;
/// An answer from this size on takes its bytes from the budget.
const LARGE_ANSWER: usize = 16 * 1024;

/// Kinds whose answers list what there is: with thousands of topics or groups they take long to write.
const LISTS: [i16; 7] = [
    api::METADATA,
    api::LIST_GROUPS,
    api::DESCRIBE_GROUPS,
    api::DESCRIBE_CONFIGS,
    api::DESCRIBE_LOG_DIRS,
    api::OFFSET_FETCH,
    api::LIST_CONFIG_RESOURCES,
];

/// Begins with a request: batches are in the broker's queue when this returns (those that take long to check have been checked
/// by then), anything else is done when its turn to be answered comes.
///
/// # Errors
/// What ends the connection.
pub async fn begin(session: &Arc<Session>, frame: BytesMut, grant: Grant) -> Result<Pending, Hangup> {
    let (api, asked) = asked(&frame)?;
    session.shared.metrics.request(api.name);
    if asked.key == api::API_VERSIONS {
        let answer = versions(api, asked.version, asked.correlation);
        let told = Told::of(api, asked.version, "");
        return Ok(telling(told, Box::pin(std::future::ready(Ok(Some(answer))))));
    }
    let opened = if frame.len() > limits::INLINE_BYTES && api.shape.is_some() {
        // Up to a hundred thousand elements to walk over.
        let opened = session.broker().work(&session.work, move |_| open(api, asked, frame)).await;
        opened.map_err(|error| Hangup::Fault(error.to_string()))??
    } else {
        open(api, asked, frame)?
    };
    if let Some(line) = session.line.get() {
        line.is_of(&opened.client);
    }
    let told = Told::of(api, asked.version, &opened.client);
    let broken = |error: WireError| malformed(api, asked.version, &error);
    let pending: Pending = match asked.key {
        key if old::knows(key, asked.version) => old::begin(session, asked, opened.body, grant).map_err(broken)?,
        api::PRODUCE => produce::begin(session, asked, opened.body, grant).await.map_err(broken)?,
        api::FETCH => {
            let wanted = fetch::parse(&opened.body, asked).map_err(broken)?;
            drop(grant);
            Box::pin(fetch::answer(session.clone(), asked, wanted))
        }
        _ => control(opened, Answering { session: session.clone(), grant })?,
    };
    Ok(telling(told, pending))
}

/// A request whose head has been read. What is not walked by hand has been walked by its shape.
struct Opened {
    api: &'static Api,
    asked: Asked,
    /// Who the client says it is.
    client: String,
    body: BytesMut,
    /// Elements of its arrays, and tagged fields.
    elements: usize,
}

/// The beginning of a request's head, which is the same in all versions.
fn asked(frame: &[u8]) -> Result<(&'static Api, Asked), Hangup> {
    let mut reader = Reader::new(frame, false);
    let (key, version, correlation) = (reader.i16()?, reader.i16()?, reader.i32()?);
    let api = Api::of(key).ok_or(Hangup::Unknown { key, version })?;
    let (flexible, told) = (api.is_flexible(version), told::is_wanted());
    Ok((api, Asked { key, version, flexible, correlation, told }))
}

/// The rest of the head, and the look at what follows that decoding relies on.
fn open(api: &'static Api, asked: Asked, mut frame: BytesMut) -> Result<Opened, Hangup> {
    let Asked { key, version, flexible, .. } = asked;
    let old = old::knows(key, version);
    if !old && !api.has(version) {
        return Err(Hangup::Unknown { key, version });
    }
    let mut reader = Reader::new(&frame, false);
    reader.bytes(HEAD_BYTES)?;
    let client = reader.optional_text()?.unwrap_or_default().to_owned();
    reader.set_flexible(flexible);
    reader.tags()?;
    let at = reader.position();
    let body = frame.split_off(at);
    let mut elements = 0;
    if let Some(fields) = api.shape {
        if body.len() > CONTROL_BYTES {
            return Err(Hangup::Large { name: api.name, bytes: body.len(), limit: CONTROL_BYTES });
        }
        // The others are walked by hand.
        if !old {
            let mut walk = Reader::new(&body, flexible);
            shape::walk(&mut walk, version, fields).map_err(|error| malformed(api, version, &error))?;
            elements = walk.elements();
        }
    }
    Ok(Opened { api, asked, client, body, elements })
}

impl Opened {
    /// Decodes the body; what is left of it is what no version has a field for.
    fn decode<Q: Decodable>(&self, body: &mut Bytes) -> Result<Q, Hangup> {
        Q::decode(body, self.asked.version).map_err(|error| malformed(self.api, self.asked.version, &error))
    }
}

fn malformed(api: &Api, version: i16, error: &dyn std::fmt::Display) -> Hangup {
    Hangup::Malformed { name: api.name, version, what: error.to_string() }
}

/// The one answer whose head has no tagged fields in any version, and the one request that is answered in every version:
/// in one that is not known, with the oldest form of the answer and the versions that are.
fn versions(api: &Api, version: i16, correlation: i32) -> Response {
    let body = if api.has(version) {
        api::versions_body(version, errors::NONE)
    } else {
        api::versions_body(0, errors::UNSUPPORTED_VERSION)
    };
    let mut head = BytesMut::with_capacity(8);
    head.put_i32(0);
    head.put_i32(correlation);
    Asked::finish(head, [body], None)
}

/// What is to be done with a request of the crate's structs.
trait Taker {
    /// What comes of it.
    type Taken;

    /// Takes a request of type `Q`, which `handle` answers.
    fn take<Q, A, H, F>(self, opened: Opened, handle: H) -> Result<Self::Taken, Hangup>
    where
        Q: Decodable + Send + 'static,
        A: Encodable + Debug + Send + 'static,
        H: FnOnce(Arc<Session>, i16, Q) -> F + Send + 'static,
        F: Future<Output = A> + Send + 'static;
}

/// Which struct a kind has, and who answers it.
fn control<T: Taker>(opened: Opened, taker: T) -> Result<T::Taken, Hangup> {
    match opened.asked.key {
        api::LIST_OFFSETS => taker.take(opened, offsets::list),
        api::METADATA => taker.take(opened, metadata::metadata),
        api::CREATE_TOPICS => taker.take(opened, topics::create),
        api::DELETE_TOPICS => taker.take(opened, topics::delete),
        api::INIT_PRODUCER_ID => {
            let client = opened.client.clone();
            taker.take(opened, move |session, version, request| {
                produce::init_producer_id(session, version, request, client)
            })
        }
        api::DESCRIBE_CLUSTER => taker.take(opened, metadata::describe_cluster),
        api::FIND_COORDINATOR => taker.take(opened, groups::find_coordinator),
        api::JOIN_GROUP => {
            let client = opened.client.clone();
            taker.take(opened, move |session, version, request| groups::join(session, version, request, client))
        }
        api::CONSUMER_GROUP_HEARTBEAT => {
            let client = opened.client.clone();
            taker.take(opened, move |session, version, request| consumers::heartbeat(session, version, request, client))
        }
        api::CONSUMER_GROUP_DESCRIBE => taker.take(opened, consumers::describe),
        api::SYNC_GROUP => taker.take(opened, groups::sync),
        api::HEARTBEAT => taker.take(opened, groups::heartbeat),
        api::LEAVE_GROUP => taker.take(opened, groups::leave),
        api::OFFSET_COMMIT => taker.take(opened, positions::commit),
        api::OFFSET_FETCH => taker.take(opened, positions::fetch),
        api::OFFSET_DELETE => taker.take(opened, forgetting::delete),
        api::LIST_GROUPS => taker.take(opened, group_admin::list),
        api::DESCRIBE_GROUPS => taker.take(opened, group_admin::describe),
        api::DELETE_GROUPS => taker.take(opened, group_admin::delete),
        api::ADD_PARTITIONS_TO_TXN => taker.take(opened, transactions::add_partitions),
        api::ADD_OFFSETS_TO_TXN => taker.take(opened, transactions::add_offsets),
        api::END_TXN => taker.take(opened, transactions::end),
        api::TXN_OFFSET_COMMIT => taker.take(opened, transactions::commit_offsets),
        api::WRITE_TXN_MARKERS => taker.take(opened, transactions::write_markers),
        api::DESCRIBE_PRODUCERS => taker.take(opened, transactions::describe_producers),
        api::DESCRIBE_TRANSACTIONS => taker.take(opened, transactions::describe),
        api::LIST_TRANSACTIONS => taker.take(opened, transactions::list),
        api::DESCRIBE_CONFIGS => taker.take(opened, admin::describe_configs),
        api::ALTER_CONFIGS => taker.take(opened, admin::alter_configs),
        api::INCREMENTAL_ALTER_CONFIGS => taker.take(opened, admin::incremental_alter_configs),
        api::CREATE_PARTITIONS => taker.take(opened, admin::create_partitions),
        api::DELETE_RECORDS => taker.take(opened, admin::delete_records),
        api::OFFSET_FOR_LEADER_EPOCH => taker.take(opened, offsets::for_leader_epoch),
        api::DESCRIBE_LOG_DIRS => taker.take(opened, admin::describe_log_dirs),
        api::DESCRIBE_TOPIC_PARTITIONS => taker.take(opened, metadata::describe_topic_partitions),
        api::ELECT_LEADERS => taker.take(opened, single_node::elect_leaders),
        api::ALTER_REPLICA_LOG_DIRS => taker.take(opened, single_node::alter_replica_log_dirs),
        api::ALTER_PARTITION_REASSIGNMENTS => taker.take(opened, single_node::alter_reassignments),
        api::LIST_PARTITION_REASSIGNMENTS => taker.take(opened, single_node::list_reassignments),
        api::DESCRIBE_QUORUM => taker.take(opened, single_node::describe_quorum),
        api::LIST_CONFIG_RESOURCES => taker.take(opened, single_node::list_config_resources),
        key => Err(Hangup::Unknown { key, version: opened.asked.version }),
    }
}

/// Answers a request when its turn comes.
struct Answering {
    session: Arc<Session>,
    grant: Grant,
}

impl Taker for Answering {
    type Taken = Pending;

    fn take<Q, A, H, F>(self, mut opened: Opened, handle: H) -> Result<Pending, Hangup>
    where
        Q: Decodable + Send + 'static,
        A: Encodable + Debug + Send + 'static,
        H: FnOnce(Arc<Session>, i16, Q) -> F + Send + 'static,
        F: Future<Output = A> + Send + 'static,
    {
        let Self { session, grant } = self;
        let asked = opened.asked;
        Ok(Box::pin(async move {
            // Decoded when its turn comes: what waits behind another request weighs what came, and no more.
            let (elements, large) = (opened.elements, opened.body.len() > limits::INLINE_BYTES);
            let mut decode = move || {
                let mut body = std::mem::take(&mut opened.body).freeze();
                opened.decode::<Q>(&mut body)
            };
            let request = match large {
                true => session.broker().work(&session.work, move |_| decode()).await,
                false => Ok(decode()),
            };
            let request = request.map_err(|error| Hangup::Fault(error.to_string()))??;
            // Decoded, each element is a structure. A request that waits for other members has its words counted there.
            let mut grant = Some(grant);
            match asked.key {
                api::JOIN_GROUP | api::SYNC_GROUP => grant = None,
                _ if elements > 0 => {
                    let grant = grant.as_mut();
                    grant.map(|grant| grant.settle(grant.bytes() + elements * ELEMENT_BYTES)).unwrap_or_default();
                }
                _ => {}
            }
            let answer = handle(session.clone(), asked.version, request).await;
            drop(grant);
            let encoded = match LISTS.contains(&asked.key) {
                true => session.broker().work(&session.work, move |_| asked.answer(&answer)).await,
                false => Ok(asked.answer(&answer)),
            };
            let mut response = encoded.map_err(|error| Hangup::Fault(error.to_string()))??;
            let bytes = response.pieces.iter().map(Bytes::len).sum::<usize>();
            if bytes > LARGE_ANSWER {
                response.grant = Some(session.outgoing.take(bytes).await);
            }
            Ok(Some(response))
        }))
    }
}

/// Decodes a request as [`begin`] does, and does nothing with it: for fuzz targets, and tests of many requests.
///
/// # Errors
/// What would end the connection.
///
/// # Panics
/// Decoding has read on where the walk by the shape had ended, or has ended before: a count may be believed then.
#[cfg(any(fuzzing, test))]
pub fn decode(frame: BytesMut) -> Result<(), Hangup> {
    let (api, asked) = asked(&frame)?;
    if asked.key == api::API_VERSIONS {
        versions(api, asked.version, asked.correlation);
        return Ok(());
    }
    let opened = open(api, asked, frame)?;
    match asked.key {
        key if old::knows(key, asked.version) => {
            old::decode(key, asked.version, &opened.body).map_err(|error| malformed(api, asked.version, &error))
        }
        api::PRODUCE => {
            produce::parse(&opened.body, asked).map(drop).map_err(|error| malformed(api, asked.version, &error))
        }
        api::FETCH => {
            fetch::parse(&opened.body, asked).map(drop).map_err(|error| malformed(api, asked.version, &error))
        }
        _ => control(opened, Decoding),
    }
}

/// Decodes a request, and no more.
#[cfg(any(fuzzing, test))]
struct Decoding;

#[cfg(any(fuzzing, test))]
impl Taker for Decoding {
    type Taken = ();

    fn take<Q, A, H, F>(self, mut opened: Opened, _: H) -> Result<(), Hangup>
    where
        Q: Decodable + Send + 'static,
        A: Encodable + Debug + Send + 'static,
        H: FnOnce(Arc<Session>, i16, Q) -> F + Send + 'static,
        F: Future<Output = A> + Send + 'static,
    {
        let mut body = std::mem::take(&mut opened.body).freeze();
        let mut walk = Reader::new(&body, opened.asked.flexible);
        let walked = shape::walk(&mut walk, opened.asked.version, opened.api.shape.unwrap_or_default());
        let (walked, whole) = (walked.map(|()| walk.position()), body.len());
        opened.decode::<Q>(&mut body)?;
        assert_eq!(walked, Ok(whole - body.len()), "{} version {}", opened.api.name, opened.asked.version);
        Ok(())
    }
}
