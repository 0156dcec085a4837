//! From a frame to what becomes of it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::api::{self, Api};
use super::connection::Pending;
use super::response::{Asked, Response};
use super::session::{Hangup, Session};
use super::wire::Reader;
use super::{
    admin, consumers, errors, fetch, group_admin, groups, metadata, offsets, positions, produce, shape, topics,
    transactions,
};
use crate::server::budget::Grant;

/// Bytes of a request that carries no batches.
const CONTROL_BYTES: usize = 4 * 1024 * 1024;
/// An answer from this size on takes its bytes from the budget.
const LARGE_ANSWER: usize = 16 * 1024;

/// Begins with a request: batches are in the broker's queue when this returns, anything else is done when its turn to be
/// answered comes.
///
/// # Errors
/// What ends the connection.
pub fn begin(session: &Arc<Session>, mut frame: BytesMut, grant: Grant) -> Result<Pending, Hangup> {
    let mut reader = Reader::new(&frame, false);
    let (key, version, correlation) = (reader.i16()?, reader.i16()?, reader.i32()?);
    let unknown = Hangup::Unknown { key, version };
    let Some(api) = Api::of(key) else { return Err(unknown) };
    session.shared.metrics.request(api.name);
    if key == api::API_VERSIONS {
        return Ok(Box::pin(std::future::ready(Ok(Some(versions(api, version, correlation))))));
    }
    if !api.has(version) {
        return Err(unknown);
    }
    let flexible = api.is_flexible(version);
    let client = reader.optional_text()?.unwrap_or_default().to_owned();
    reader.set_flexible(flexible);
    reader.tags()?;
    let at = reader.position();
    let body = frame.split_off(at);
    let asked = Asked { key, version, flexible, correlation };
    match api.shape {
        Some(fields) => {
            if body.len() > CONTROL_BYTES {
                return Err(Hangup::Large { name: api.name, bytes: body.len(), limit: CONTROL_BYTES });
            }
            let body = body.freeze();
            shape::walk(&mut Reader::new(&body, flexible), version, fields)
                .map_err(|error| malformed(api, version, &error))?;
            control(Control { session, api, asked, client, body, grant })
        }
        None if key == api::PRODUCE => {
            produce::begin(session, asked, body, grant).map_err(|error| malformed(api, version, &error))
        }
        None => {
            let wanted = fetch::parse(&body, asked).map_err(|error| malformed(api, version, &error))?;
            drop(grant);
            Ok(Box::pin(fetch::answer(session.clone(), asked, wanted)))
        }
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

/// A request that carries no batches, known to be well formed.
struct Control<'a> {
    session: &'a Arc<Session>,
    api: &'static Api,
    asked: Asked,
    /// Who the client says it is.
    client: String,
    body: Bytes,
    grant: Grant,
}

fn control(control: Control<'_>) -> Result<Pending, Hangup> {
    match control.asked.key {
        api::LIST_OFFSETS => control.run(offsets::list),
        api::METADATA => control.run(metadata::metadata),
        api::CREATE_TOPICS => control.run(topics::create),
        api::DELETE_TOPICS => control.run(topics::delete),
        api::INIT_PRODUCER_ID => control.run(produce::init_producer_id),
        api::DESCRIBE_CLUSTER => control.run(metadata::describe_cluster),
        api::FIND_COORDINATOR => control.run(groups::find_coordinator),
        api::JOIN_GROUP => {
            let client = control.client.clone();
            control.run(move |session, version, request| groups::join(session, version, request, client))
        }
        api::CONSUMER_GROUP_HEARTBEAT => {
            let client = control.client.clone();
            control.run(move |session, version, request| consumers::heartbeat(session, version, request, client))
        }
        api::CONSUMER_GROUP_DESCRIBE => control.run(consumers::describe),
        api::SYNC_GROUP => control.run(groups::sync),
        api::HEARTBEAT => control.run(groups::heartbeat),
        api::LEAVE_GROUP => control.run(groups::leave),
        api::OFFSET_COMMIT => control.run(positions::commit),
        api::OFFSET_FETCH => control.run(positions::fetch),
        api::OFFSET_DELETE => control.run(positions::delete),
        api::LIST_GROUPS => control.run(group_admin::list),
        api::DESCRIBE_GROUPS => control.run(group_admin::describe),
        api::DELETE_GROUPS => control.run(group_admin::delete),
        api::ADD_PARTITIONS_TO_TXN => control.run(transactions::add_partitions),
        api::ADD_OFFSETS_TO_TXN => control.run(transactions::add_offsets),
        api::END_TXN => control.run(transactions::end),
        api::TXN_OFFSET_COMMIT => control.run(transactions::commit_offsets),
        api::DESCRIBE_PRODUCERS => control.run(transactions::describe_producers),
        api::DESCRIBE_TRANSACTIONS => control.run(transactions::describe),
        api::LIST_TRANSACTIONS => control.run(transactions::list),
        api::DESCRIBE_CONFIGS => control.run(admin::describe_configs),
        api::ALTER_CONFIGS => control.run(admin::alter_configs),
        api::INCREMENTAL_ALTER_CONFIGS => control.run(admin::incremental_alter_configs),
        api::CREATE_PARTITIONS => control.run(admin::create_partitions),
        api::DELETE_RECORDS => control.run(admin::delete_records),
        api::OFFSET_FOR_LEADER_EPOCH => control.run(offsets::for_leader_epoch),
        api::DESCRIBE_LOG_DIRS => control.run(admin::describe_log_dirs),
        api::DESCRIBE_TOPIC_PARTITIONS => control.run(metadata::describe_topic_partitions),
        key => Err(Hangup::Unknown { key, version: control.asked.version }),
    }
}

impl Control<'_> {
    /// Decodes the request; `handle` is run when its turn comes.
    fn run<Q, A, H, F>(self, handle: H) -> Result<Pending, Hangup>
    where
        Q: Decodable + Send + 'static,
        A: Encodable + Send + 'static,
        H: FnOnce(Arc<Session>, i16, Q) -> F + Send + 'static,
        F: Future<Output = A> + Send + 'static,
    {
        let Self { session, api, asked, mut body, grant, .. } = self;
        let session = session.clone();
        let request = Q::decode(&mut body, asked.version).map_err(|error| malformed(api, asked.version, &error))?;
        Ok(Box::pin(async move {
            let answer = handle(session.clone(), asked.version, request).await;
            drop((body, grant));
            let mut response = asked.answer(&answer)?;
            let bytes = response.pieces.iter().map(Bytes::len).sum::<usize>();
            if bytes > LARGE_ANSWER {
                response.grant = Some(session.outgoing.take(bytes).await);
            }
            Ok(Some(response))
        }))
    }
}
