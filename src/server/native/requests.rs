//! Requests: decode, call the broker, encode.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::mapping::{self, Refusal, topic_name};
use super::session::{Answer, Session, Ticket};
use super::{
    clock, connections, damage, durable, exchange, groups, lists, members, pushes, queue, reading, receipts, routes,
    streams, subscriptions, transactions, trimming, watching,
};
use crate::base::{ErrorKind, limits};
use crate::broker::{Place, SETTLE};
use crate::protocol as wire;
use crate::protocol::{Ack, Frame, Kind, Message, Request};
use crate::server::budget::Grant;
use crate::server::tasks;

/// Version of the data directory's format.
const DATA_FORMAT: u32 = 1;
/// Bytes of metrics in an answer; the text has a length before it.
const METRICS_BYTES: usize = limits::FRAME_BODY_BYTES - 8;

/// Takes a request in. Returns once its place is taken: a batch to produce is in the broker's queue, anything else has
/// a task of its own. Answers come in the order in which they are ready.
///
/// # Errors
/// What ends the connection.
pub async fn take_in(session: &Arc<Session>, frame: Frame, bytes: Grant) -> Result<(), Refusal> {
    let Some(kind) = known(frame.kind) else {
        session.shared.metrics.request("unknown");
        return refuse(session, &frame, ErrorKind::Unsupported, unknown(frame.kind)).await;
    };
    session.shared.metrics.request(kind.name());
    match kind {
        Kind::Credit => return credit(session, &frame),
        Kind::Reply => return exchange::reply(session, frame, bytes),
        _ => {}
    }
    if frame.flags != 0 {
        let what = format!("a request has no flags, this {} has {:#x}", kind.name(), frame.flags);
        return refuse(session, &frame, ErrorKind::InvalidRequest, what).await;
    }
    if !frame.payload.is_empty() && !matches!(kind, Kind::Produce | Kind::Ask | Kind::Progress) {
        let what = format!("a {} request has no payload, this one has {} bytes", kind.name(), frame.payload.len());
        return refuse(session, &frame, ErrorKind::InvalidRequest, what).await;
    }
    let Some(slot) = session.slot().await else { return Ok(()) };
    let ticket = Ticket { slot, bytes };
    match kind {
        Kind::Produce => produce(session, frame, ticket).await,
        Kind::Ask => exchange::ask(session, frame, ticket),
        Kind::Progress => progress(session, frame, ticket),
        _ => dispatch(session, kind, frame, ticket).await,
    }
    Ok(())
}

/// A kind that a client may send after the handshake.
fn known(code: u16) -> Option<Kind> {
    Kind::from_code(code).filter(|kind| !is_push(*kind))
}

fn is_push(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Goodbye
            | Kind::Delivery
            | Kind::TopicsChanged
            | Kind::SubscriptionEnded
            | Kind::Handed
            | Kind::MemberEnded
            | Kind::Asked
            | Kind::ResponderEnded
    )
}

fn unknown(code: u16) -> String {
    format!("message kind {code} is not one that this server ({}) answers", env!("CARGO_PKG_VERSION"))
}

/// Answers with a refusal; the connection stays.
async fn refuse(session: &Session, frame: &Frame, kind: ErrorKind, what: String) -> Result<(), Refusal> {
    tracing::debug!(kind = frame.kind, refusal = what, "request refused");
    // It takes its turn like any other, so that a flood of wrong requests is slowed as well.
    let slot = session.slot().await;
    session.answer::<wire::Pong>(frame.kind, frame.correlation, slot, Err(Refusal::new(kind, what)));
    Ok(())
}

/// A part of a reply goes on at once, so that parts stay in order.
fn progress(session: &Arc<Session>, frame: Frame, ticket: Ticket) {
    let (kind, correlation) = (frame.kind, frame.correlation);
    let outcome = decode::<wire::Progress>(&frame).and_then(|word| exchange::progress(session, word, frame.payload));
    session.answer(kind, correlation, Some(ticket.slot), outcome);
}

/// Credit has no answer, so one that cannot be read ends the connection.
fn credit(session: &Session, frame: &Frame) -> Result<(), Refusal> {
    if frame.flags != 0 || !frame.payload.is_empty() {
        let (flags, bytes) = (frame.flags, frame.payload.len());
        let what = format!("credit has no flags and no payload, this one has {flags:#x} and {bytes} bytes");
        return Err(Refusal::new(ErrorKind::InvalidRequest, what));
    }
    let credit: wire::Credit = decode(frame)?;
    session.subscriptions.add_credit(&credit);
    Ok(())
}

fn decode<M: Message>(frame: &Frame) -> Result<M, Refusal> {
    frame.decode().map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error.to_string()))
}

async fn dispatch(session: &Arc<Session>, kind: Kind, frame: Frame, ticket: Ticket) {
    match kind {
        Kind::Ping => start(session, frame, ticket, |_, _: wire::Ping| async { Ok(wire::Pong {}.into()) }).await,
        Kind::ServerInfo => start(session, frame, ticket, server_info).await,
        Kind::Metrics => start(session, frame, ticket, metrics).await,
        Kind::CreateTopic => start(session, frame, ticket, create_topic).await,
        Kind::AlterTopic => start(session, frame, ticket, alter_topic).await,
        Kind::DeleteTopic => start(session, frame, ticket, delete_topic).await,
        Kind::ListTopics => start(session, frame, ticket, list_topics).await,
        Kind::DescribeTopic => start(session, frame, ticket, describe_topic).await,
        Kind::Metadata => start(session, frame, ticket, metadata).await,
        Kind::InitProducer => start(session, frame, ticket, init_producer).await,
        Kind::Fetch => start(session, frame, ticket, reading::fetch).await,
        Kind::ListOffsets => start(session, frame, ticket, list_offsets).await,
        Kind::WatchTopics => start(session, frame, ticket, watching::watch).await,
        Kind::MatchTopics => start(session, frame, ticket, watching::match_topics).await,
        Kind::Unsubscribe => start(session, frame, ticket, unsubscribe).await,
        Kind::Subscribe => subscribe(session, frame, ticket).await,
        Kind::JoinStream => start(session, frame, ticket, streams::join).await,
        Kind::StreamHeartbeat => start(session, frame, ticket, streams::heartbeat).await,
        Kind::LeaveStream => start(session, frame, ticket, streams::leave).await,
        Kind::CommitPositions => start(session, frame, ticket, streams::commit).await,
        Kind::Positions => start(session, frame, ticket, streams::positions).await,
        Kind::JoinGroup => join_group(session, frame, ticket).await,
        Kind::LeaveGroup => start(session, frame, ticket, members::leave).await,
        Kind::Settle => start(session, frame, ticket, members::settle).await,
        Kind::ListGroups => start(session, frame, ticket, groups::list).await,
        Kind::DescribeGroup => start(session, frame, ticket, groups::describe).await,
        Kind::CreateGroup => start(session, frame, ticket, groups::create).await,
        Kind::AlterGroup => start(session, frame, ticket, groups::alter).await,
        Kind::ListGroupRecords => start(session, frame, ticket, queue::records).await,
        Kind::PauseGroup => start(session, frame, ticket, queue::pause).await,
        Kind::PausedGroups => start(session, frame, ticket, queue::paused).await,
        Kind::SettleDeadLetters => start(session, frame, ticket, receipts::settle).await,
        Kind::DescribeFilter => start(session, frame, ticket, queue::filter).await,
        Kind::SkipRecord => start(session, frame, ticket, queue::skip).await,
        Kind::ResetPartitions => start(session, frame, ticket, queue::reset).await,
        Kind::DeleteGroup => start(session, frame, ticket, groups::delete).await,
        Kind::ResetGroup => start(session, frame, ticket, groups::reset).await,
        Kind::ApplyRoutes => start(session, frame, ticket, routes::apply).await,
        Kind::ListRoutes => start(session, frame, ticket, routes::list).await,
        Kind::DescribeRoute => start(session, frame, ticket, routes::describe).await,
        Kind::PauseRoute => start(session, frame, ticket, routes::pause).await,
        Kind::ResetRoute => start(session, frame, ticket, routes::reset).await,
        Kind::DeleteRoute => start(session, frame, ticket, routes::delete).await,
        Kind::ExplainRecord => start(session, frame, ticket, routes::explain).await,
        Kind::CreatePush => start(session, frame, ticket, pushes::create).await,
        Kind::ListPushes => start(session, frame, ticket, pushes::list).await,
        Kind::DescribePush => start(session, frame, ticket, pushes::describe).await,
        Kind::PausePush => start(session, frame, ticket, pushes::pause).await,
        Kind::DeletePush => start(session, frame, ticket, pushes::delete).await,
        Kind::CreatePushWith => start(session, frame, ticket, pushes::create_with).await,
        Kind::AlterPush => start(session, frame, ticket, pushes::alter).await,
        Kind::DescribeEndpoints => start(session, frame, ticket, pushes::endpoints).await,
        Kind::Respond => start(session, frame, ticket, exchange::respond).await,
        Kind::StopResponding => start(session, frame, ticket, exchange::stop_responding).await,
        Kind::Processed => start(session, frame, ticket, receipts::processed).await,
        Kind::AskReceipts => start(session, frame, ticket, receipts::ask).await,
        Kind::ListReceipts => start(session, frame, ticket, receipts::list).await,
        Kind::CancelReceipts => start(session, frame, ticket, receipts::cancel).await,
        Kind::ListDamage => start(session, frame, ticket, damage::list).await,
        Kind::AcknowledgeDamage => start(session, frame, ticket, damage::acknowledge).await,
        Kind::ListGroupPage => start(session, frame, ticket, lists::groups).await,
        Kind::ListTopicPage => start(session, frame, ticket, lists::topics).await,
        Kind::ListConnections => start(session, frame, ticket, connections::list).await,
        Kind::CloseConnection => start(session, frame, ticket, connections::close).await,
        Kind::DeleteRecords => start(session, frame, ticket, trimming::delete_records).await,
        Kind::ListDependents => start(session, frame, ticket, trimming::dependents).await,
        Kind::DescribeClock => start(session, frame, ticket, clock::describe).await,
        Kind::ConfirmClock => start(session, frame, ticket, clock::confirm).await,
        Kind::Redrive => start(session, frame, ticket, receipts::redrive).await,
        Kind::ListTransactions => start(session, frame, ticket, transactions::list).await,
        Kind::DescribeTransaction => start(session, frame, ticket, transactions::describe).await,
        Kind::AbortTransaction => start(session, frame, ticket, transactions::abort).await,
        Kind::ForgetTransaction => start(session, frame, ticket, transactions::forget).await,
        Kind::ListHeld => start(session, frame, ticket, transactions::held).await,
        Kind::ListDeadLetters => start(session, frame, ticket, receipts::dead_letters).await,
        Kind::AwaitReply => start(session, frame, ticket, durable::await_reply).await,
        Kind::ListRequests => start(session, frame, ticket, durable::list).await,
        Kind::CancelRequest => start(session, frame, ticket, durable::cancel).await,
        Kind::Hello => {
            let refusal = Refusal::new(ErrorKind::InvalidRequest, "this connection has said hello already");
            session.answer::<wire::HelloOk>(frame.kind, frame.correlation, Some(ticket.slot), Err(refusal));
        }
        // Answered before, or not let through by `known`.
        Kind::Produce
        | Kind::Credit
        | Kind::Goodbye
        | Kind::Delivery
        | Kind::TopicsChanged
        | Kind::SubscriptionEnded
        | Kind::Handed
        | Kind::MemberEnded
        | Kind::Ask
        | Kind::Asked
        | Kind::Reply
        | Kind::Progress
        | Kind::ResponderEnded => {}
    }
}

/// Decodes a request, and answers it from a task of its own with what `handle` makes of it.
async fn start<R, H, F>(session: &Arc<Session>, frame: Frame, ticket: Ticket, handle: H)
where
    R: Request + Send + 'static,
    R::Response: Send + 'static,
    H: FnOnce(Arc<Session>, R) -> F + Send + 'static,
    F: Future<Output = Result<Answer<R::Response>, Refusal>> + Send + 'static,
{
    let (kind, correlation) = (frame.kind, frame.correlation);
    let request = match decode::<R>(&frame) {
        Ok(request) => request,
        Err(refusal) => {
            return session.answer::<R::Response>(kind, correlation, Some(ticket.slot), Err(refusal));
        }
    };
    drop(frame);
    let session = session.clone();
    tasks::spawn("request", async move {
        let outcome = AssertUnwindSafe(handle(session.clone(), request)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|panic| Err(panicked(kind, panic.as_ref())));
        if let Err(refusal) = &outcome {
            log_refusal(kind, "", refusal);
        }
        drop(ticket.bytes);
        match Kind::from_code(kind).is_some_and(is_long) {
            true => session.answer_long(kind, correlation, Some(ticket.slot), outcome).await,
            false => session.answer(kind, correlation, Some(ticket.slot), outcome),
        }
        Ok::<(), Refusal>(())
    });
}

/// Answers whose size follows from what is stored: up to a frame's body, which takes milliseconds to encode.
fn is_long(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ListTopics
            | Kind::DescribeTopic
            | Kind::ListGroups
            | Kind::DescribeGroup
            | Kind::ListGroupRecords
            | Kind::ListRoutes
            | Kind::ListPushes
            | Kind::DescribeEndpoints
            | Kind::ListReceipts
            | Kind::ListDamage
            | Kind::ListTransactions
            | Kind::ListHeld
            | Kind::ListDeadLetters
            | Kind::ListRequests
            | Kind::Redrive
            | Kind::SettleDeadLetters
            | Kind::Metrics
    )
}

fn panicked(kind: u16, panic: &(dyn std::any::Any + Send)) -> Refusal {
    let text = tasks::panic_text(panic);
    tracing::error!(kind, panic = text, "a request panicked");
    Refusal::new(ErrorKind::Internal, format!("the server failed on this request: {text}"))
}

/// Clients' mistakes are theirs to see; the server's own troubles are the operator's.
fn log_refusal(kind: u16, topic: &str, refusal: &Refusal) {
    let name = Kind::from_code(kind).map_or("unknown", Kind::name);
    match refusal.kind {
        ErrorKind::Io | ErrorKind::Internal | ErrorKind::Damaged | ErrorKind::Poisoned | ErrorKind::StorageFull => {
            tracing::warn!(kind = name, topic, error = %refusal, "request failed")
        }
        _ => tracing::debug!(kind = name, topic, error = %refusal, "request refused"),
    }
}

/// Hands a batch to the broker before it returns, so that batches are appended in the order they came in.
async fn produce(session: &Arc<Session>, frame: Frame, ticket: Ticket) {
    let (kind, correlation) = (frame.kind, frame.correlation);
    let request = match decode::<wire::Produce>(&frame) {
        Ok(request) => request,
        // Whether an answer is expected is not known; one that is not does no harm.
        Err(refusal) => {
            return session.answer::<wire::ProduceOk>(kind, correlation, Some(ticket.slot), Err(refusal));
        }
    };
    let Frame { payload, body, .. } = frame;
    // The payload is the last owner of its memory then, and becomes the batch without a copy.
    drop(body);
    let batch = payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let Ticket { slot, bytes } = ticket;
    let (session, ack, topic) = (session.clone(), request.ack, request.topic.clone());
    let broker = session.shared.broker.clone();
    // Who waits for each answer is served fastest by the thread that has just read the request.
    let place = if session.one_at_a_time() { Place::Here } else { Place::CommitThread };
    let batch = broker.look_into(&session.work, &request.topic, batch).await;
    broker.produce_then(&request.topic, request.partition, batch, mapping::ack_level(ack), place, move |outcome| {
        let outcome = outcome.map(|produced| mapping::produce_ok(&produced)).map_err(Refusal::from);
        if let Err(refusal) = &outcome {
            log_refusal(kind, &topic, refusal);
        }
        drop(bytes);
        match (ack, outcome) {
            (Ack::None, Ok(_)) => {}
            (Ack::None, Err(refusal)) => session.fail(refusal),
            (_, outcome) => session.answer(kind, correlation, Some(slot), outcome.map(Answer::from)),
        }
    });
}

async fn subscribe(session: &Arc<Session>, frame: Frame, ticket: Ticket) {
    let correlation = frame.correlation;
    match decode::<wire::Subscribe>(&frame) {
        Ok(request) => {
            let session = session.clone();
            tasks::spawn("subscribe", async move {
                drop(ticket.bytes);
                subscriptions::subscribe(&session, correlation, ticket.slot, request).await;
                Ok::<(), Refusal>(())
            });
        }
        Err(refusal) => {
            session.answer::<wire::SubscribeOk>(frame.kind, correlation, Some(ticket.slot), Err(refusal));
        }
    }
}

async fn join_group(session: &Arc<Session>, frame: Frame, ticket: Ticket) {
    let correlation = frame.correlation;
    match decode::<wire::JoinGroup>(&frame) {
        Ok(request) => {
            let session = session.clone();
            tasks::spawn("join group", async move {
                drop(ticket.bytes);
                members::join(&session, correlation, ticket.slot, request).await;
                Ok::<(), Refusal>(())
            });
        }
        Err(refusal) => session.answer::<wire::JoinGroupOk>(frame.kind, correlation, Some(ticket.slot), Err(refusal)),
    }
}

async fn unsubscribe(
    session: Arc<Session>,
    request: wire::Unsubscribe,
) -> Result<Answer<wire::UnsubscribeOk>, Refusal> {
    session.subscriptions.end(request.subscription).await?;
    Ok(wire::UnsubscribeOk {}.into())
}

async fn list_offsets(
    session: Arc<Session>,
    request: wire::ListOffsets,
) -> Result<Answer<wire::ListOffsetsOk>, Refusal> {
    let at = mapping::offset_at(request.at);
    let (place, until) = ((request.topic.as_str(), request.partition), Instant::now() + SETTLE);
    let broker = &session.shared.broker;
    let (offset, timestamp) = broker.list_offset_as(place.0, place.1, at, request.isolation, until).await?;
    Ok(wire::ListOffsetsOk { offset, timestamp }.into())
}

async fn create_topic(session: Arc<Session>, request: wire::CreateTopic) -> Result<Answer<wire::TopicOk>, Refusal> {
    let topic = session.shared.broker.create_topic(mapping::new_topic(request)?).await?;
    long(&session, mapping::topic_ok(topic)).await
}

async fn alter_topic(session: Arc<Session>, request: wire::AlterTopic) -> Result<Answer<wire::TopicOk>, Refusal> {
    let name = topic_name(&request.name)?;
    let set = mapping::settings(request.set);
    let topic = session.shared.broker.alter_topic(&name, request.partitions, &set, &request.unset).await?;
    tracing::info!(topic = %topic.name, "topic altered");
    long(&session, mapping::topic_ok(topic)).await
}

async fn delete_topic(
    session: Arc<Session>,
    request: wire::DeleteTopic,
) -> Result<Answer<wire::DeleteTopicOk>, Refusal> {
    let name = topic_name(&request.name)?;
    session.shared.broker.delete_topic(&name).await?;
    tracing::info!(topic = %name, "topic deleted");
    Ok(wire::DeleteTopicOk {}.into())
}

async fn list_topics(session: Arc<Session>, _: wire::ListTopics) -> Result<Answer<wire::ListTopicsOk>, Refusal> {
    let _turn = session.long_answers.acquire().await;
    let topics = session.computed(|broker| mapping::list_topics_ok(broker.list_topics())).await?;
    long(&session, topics).await
}

async fn describe_topic(session: Arc<Session>, request: wire::DescribeTopic) -> Result<Answer<wire::TopicOk>, Refusal> {
    let name = topic_name(&request.name)?;
    let _turn = session.long_answers.acquire().await;
    let topic = session.shared.broker.describe_topic(&name).await?;
    long(&session, mapping::topic_ok(topic)).await
}

async fn metrics(session: Arc<Session>, _: wire::Metrics) -> Result<Answer<wire::MetricsOk>, Refusal> {
    let _turn = session.long_answers.acquire().await;
    let text = session.shared.metrics_text().await;
    let text = if text.len() > METRICS_BYTES { without_topics(&text) } else { String::from(&*text) };
    long(&session, wire::MetricsOk { text }).await
}

/// Metrics without what there is of each topic: with thousands of them it is more than a frame may hold. HTTP has it all.
fn without_topics(text: &str) -> String {
    let of_topic = |line: &&str| !line.contains("{topic=\"") && !line.contains(",topic=\"");
    let lines = text.lines().filter(of_topic);
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// An answer whose size follows from what is stored: it takes the most that it can be from the budget.
pub(super) async fn long<M>(session: &Session, message: M) -> Result<Answer<M>, Refusal> {
    let grant =
        session.outgoing.take(limits::FRAME_BODY_BYTES.min(session.shared.config.max_connection_bytes.as_usize()));
    Ok(Answer { grant: Some(grant.await), ..Answer::from(message) })
}

async fn metadata(session: Arc<Session>, request: wire::Metadata) -> Result<Answer<wire::MetadataOk>, Refusal> {
    let name = topic_name(&request.topic)?;
    let metadata = session.shared.broker.metadata(&name, request.create).await?;
    if metadata.created {
        tracing::info!(topic = %name, partitions = metadata.partitions, "topic created by its first producer");
    }
    Ok(mapping::metadata_ok(&metadata, session.shared.config.max_batch_bytes()).into())
}

async fn init_producer(
    session: Arc<Session>,
    request: wire::InitProducer,
) -> Result<Answer<wire::InitProducerOk>, Refusal> {
    let (producer_id, epoch) = session.shared.broker.init_producer(request.resume).await?;
    Ok(wire::InitProducerOk { producer_id, epoch }.into())
}

async fn server_info(session: Arc<Session>, _: wire::ServerInfo) -> Result<Answer<wire::ServerInfoOk>, Refusal> {
    let shared = session.shared.clone();
    let topics = shared.broker.list_topics();
    Ok(wire::ServerInfoOk {
        server_id: shared.broker.server_id(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: shared.started_at_ms,
        uptime_ms: shared.clock.monotonic_ms().saturating_sub(shared.started_monotonic_ms),
        topics: topics.len() as u64,
        partitions: topics.iter().map(|topic| u64::from(topic.partitions)).sum(),
        connections: u64::try_from(shared.metrics.all_connections()).unwrap_or(0),
        recovery_ms: u64::try_from(shared.broker.startup().took.as_millis()).unwrap_or(u64::MAX),
        data_format: DATA_FORMAT,
        disk_free_bytes: shared.broker.disk_free_bytes(),
    }
    .into())
}
