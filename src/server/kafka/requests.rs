//! From a frame to what becomes of it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::api::{self, Api};
use super::connection::Pending;
use super::response::{Asked, Response};
use super::session::{Hangup, Session};
use super::wire::Reader;
use super::{errors, fetch, metadata, offsets, produce, shape, topics};
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
    // The client's name for itself.
    reader.optional_text()?;
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
            control(Control { session, api, asked, body, grant })
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
