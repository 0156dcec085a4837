//! Durable requests of one connection: taken in, handed to responders, replied to, asked about.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::AbortHandle;

use super::exchange::{named, named_weight};
use super::mapping::{Refusal, topic_name};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, RequestId, TimestampMs, limits};
use crate::broker::{self, Broker, DurableRequest, Handed, LastWord, QueueMember, ReplyAddress, RequestFilter};
use crate::catalog::{Callback, OutcomeKind, RequestEntry};
use crate::protocol as wire;
use crate::protocol::Kind;
use crate::record::{Batches, Headers, read_records};
use crate::server::budget::Grant;
use crate::server::tasks;

/// Deliveries of durable requests have this bit in their number; those of others never come so far.
const DURABLE: u64 = 1 << 63;
/// What a push weighs in the budget beside its body.
const OVERHEAD: usize = 512;
/// Requests in one list.
const LISTED: u32 = 1_000;
/// The code with which a client gives a request back: it was not answered, and is somebody else's.
const DROPPED: &str = "dropped";

/// Whether a delivery is one of a durable request.
pub fn is_durable(delivery: u64) -> bool {
    delivery & DURABLE != 0
}

/// A responder's part in durable requests: it is a member of the queue group of the topic's responders.
pub struct DurableResponder {
    responder: u64,
    member: Arc<QueueMember>,
    next: AtomicU64,
    deliveries: Mutex<HashMap<u64, Delivered>>,
    /// Replies on their way to the disk.
    storing: watch::Sender<usize>,
    task: Mutex<Option<AbortHandle>>,
}

/// A request that a responder has.
#[derive(Clone)]
struct Delivered {
    place: broker::Settlement,
    address: ReplyAddress,
}

impl DurableResponder {
    /// A responder that has not begun.
    pub fn new(responder: u64, member: QueueMember) -> Arc<Self> {
        Arc::new(Self {
            responder,
            member: Arc::new(member),
            next: AtomicU64::new(DURABLE),
            deliveries: Mutex::default(),
            storing: watch::Sender::new(0),
            task: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Delivered>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to push what is handed out, in a task.
    pub fn start(self: &Arc<Self>, session: &Arc<Session>) {
        let (this, session) = (Arc::clone(self), Arc::clone(session));
        let task = tasks::spawn("responder", async move {
            let ended = tokio::select! {
                refusal = this.push(&session) => Some(refusal),
                () = session.closing() => None,
            };
            if let Some(refusal) = ended {
                session.push_responder_end(this.responder, &refusal).await;
            }
            session.exchange.remove(&session, this.responder);
            Ok::<(), Refusal>(())
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    async fn push(&self, session: &Session) -> Refusal {
        while let Some(handed) = self.member.next().await {
            let bytes = handed.batch.len();
            if let Err(refusal) = self.push_all(session, handed).await {
                return refusal;
            }
            self.member.sent(bytes);
        }
        self.member.ended().into()
    }

    /// Each record of what was handed out, as a request.
    async fn push_all(&self, session: &Session, handed: Handed) -> Result<(), Refusal> {
        let damaged = |error: crate::record::BatchError| Refusal::new(ErrorKind::CorruptBatch, error.to_string());
        for batch in Batches::new(handed.batch) {
            let (_, batch) = batch.map_err(damaged)?;
            for record in read_records(&batch, limits::MAX_DECOMPRESSED_BYTES).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                let address = Broker::reply_address(&record);
                let (from, to) = (record.offset, record.offset + 1);
                let (topic, partition) = (handed.topic.clone(), handed.partition);
                let place = broker::Settlement { topic, partition, from, to, verdict: broker::Verdict::Ack };
                let body = record.value.unwrap_or_default();
                let weight = body.len() + named_weight(&record.headers) + OVERHEAD;
                let grant = Some(session.outgoing.take(weight).await);
                let message = self.asked(session, &record.headers, &address, handed.attempt);
                self.lock().insert(message.delivery, Delivered { place, address });
                session.push(Kind::Asked, self.responder, Answer { message, payload: body, grant }).await?;
            }
        }
        Ok(())
    }

    fn asked(&self, session: &Session, headers: &Headers, address: &ReplyAddress, attempt: u32) -> wire::Asked {
        let now = session.shared.clock.now_ms();
        let left = |deadline: TimestampMs| u64::try_from(deadline.saturating_sub(now)).unwrap_or(0);
        wire::Asked {
            responder: self.responder,
            delivery: self.next.fetch_add(1, Ordering::Relaxed),
            id: address.id.as_ref().map(ToString::to_string),
            step: address.step,
            attempt,
            timeout_ms: address.deadline_ms.map(left),
            headers: named(headers),
        }
    }

    /// The last word about a request. It is settled once that is on the disk; until then, it is leased.
    pub fn reply(self: &Arc<Self>, session: &Arc<Session>, delivery: u64, word: LastWord, bytes: Grant) {
        let Some(Delivered { mut place, address }) = self.lock().remove(&delivery) else { return };
        if let LastWord::Error { code, text } = &word
            && code == DROPPED
        {
            place.verdict = broker::Verdict::Nack { delay_ms: None, reason: Some(text.clone()) };
            return self.settle(place);
        }
        self.storing.send_modify(|storing| *storing += 1);
        let (this, session) = (Arc::clone(self), Arc::clone(session));
        tasks::spawn("reply", async move {
            let stored = session.shared.broker.reply_durable(&address, word).await;
            drop(bytes);
            if let Err(error) = &stored {
                tracing::warn!(topic = %place.topic, %error, "a reply cannot be stored; the request comes again");
                place.verdict = broker::Verdict::Nack { delay_ms: None, reason: Some(error.to_string()) };
            }
            // It is in memory when this returns; nothing is waited for.
            let _ = this.member.settle(&[place], false).await;
            this.storing.send_modify(|storing| *storing -= 1);
            Ok::<(), Refusal>(())
        });
    }

    fn settle(self: &Arc<Self>, place: broker::Settlement) {
        let this = Arc::clone(self);
        tasks::spawn("settle", async move {
            let _ = this.member.settle(&[place], false).await;
            Ok::<(), Refusal>(())
        });
    }

    /// It is being worked on: the lease begins anew. Whether that is of use.
    ///
    /// # Errors
    /// It comes with a part.
    pub fn working(self: &Arc<Self>, delivery: u64, part: bool) -> Result<bool, Refusal> {
        if part {
            let message = "a durable request has one reply: it cannot come in parts";
            return Err(Refusal::new(ErrorKind::InvalidRequest, message));
        }
        let Some(Delivered { mut place, .. }) = self.lock().get(&delivery).cloned() else { return Ok(false) };
        place.verdict = broker::Verdict::Extend;
        self.settle(place);
        Ok(true)
    }

    /// Waits until the replies that are on their way are on the disk.
    pub async fn stored(&self) {
        // The sender is ours: this cannot fail.
        let _ = self.storing.subscribe().wait_for(|storing| *storing == 0).await;
    }

    /// Gives back what it has, as if it had not been delivered.
    pub fn retire(&self) {
        self.member.retire();
    }

    /// Ends it: what it had goes to others at once.
    pub fn leave(&self) {
        self.member.leave();
        self.lock().clear();
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Takes a durable request in: answered once it is on the disk.
pub fn ask(session: &Arc<Session>, correlation: u64, slot: OwnedSemaphorePermit, request: DurableRequest) {
    let session = Arc::clone(session);
    tasks::spawn("durable request", async move {
        let asked = session.shared.broker.ask_durable(request).await;
        let answer = asked.map(|_| wire::AskOk { outcome: wire::Outcome::Open, headers: Vec::new() });
        session.answer(Kind::Ask.code(), correlation, Some(slot), answer.map(Answer::from).map_err(Refusal::from));
        Ok::<(), Refusal>(())
    });
}

/// A checked id.
///
/// # Errors
/// The rule it breaks.
pub fn id(text: &str) -> Result<RequestId, Refusal> {
    RequestId::new(text).map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error.to_string()))
}

/// A checked callback address.
///
/// # Errors
/// It is neither a topic nor a URL that may be called.
pub fn callback(session: &Session, text: &str) -> Result<Callback, Refusal> {
    let callback = session.shared.calls.callback(text);
    callback.map_err(|message| Refusal::new(ErrorKind::InvalidRequest, message))
}

/// What became of a durable request, once it is known or the wait is over.
///
/// # Errors
/// There is none of this id.
pub async fn await_reply(
    session: Arc<Session>,
    request: wire::AwaitReply,
) -> Result<Answer<wire::AwaitReplyOk>, Refusal> {
    let id = id(&request.id)?;
    let wait = Duration::from_millis(request.wait_ms);
    let (entry, record) = tokio::select! {
        found = session.shared.broker.await_request(&id, wait) => found?,
        () = session.closing() => session.shared.broker.await_request(&id, Duration::ZERO).await?,
    };
    let (headers, body) = record.map_or((Headers::new(), None), |record| (record.headers, record.value));
    let payload = body.filter(|_| is_reply(&entry)).unwrap_or_else(Bytes::new);
    let weight = payload.len() + named_weight(&headers) + OVERHEAD;
    let grant = Some(session.outgoing.take(weight).await);
    let message = wire::AwaitReplyOk { outcome: outcome(&entry), headers: named(&headers), request: info(&entry) };
    Ok(Answer { message, payload, grant })
}

/// Durable requests.
///
/// # Errors
/// A state or name that is none.
pub async fn list(session: Arc<Session>, request: wire::ListRequests) -> Result<Answer<wire::ListRequestsOk>, Refusal> {
    if let Some(state) = request.state.as_deref().filter(|state| !broker::REQUEST_STATES.contains(state)) {
        let message = format!("'{state}' is none of {}", broker::REQUEST_STATES.join(", "));
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let _turn = session.long_answers.acquire().await;
    let filter = RequestFilter {
        state: request.state,
        topic: request.topic.as_deref().map(topic_name).transpose()?,
        before: request.before.as_deref().map(id).transpose()?,
        limit: request.limit.clamp(1, LISTED) as usize,
    };
    let list = move |broker: &Arc<Broker>| {
        let (entries, more) = broker.list_requests(&filter)?;
        Ok::<_, Refusal>(wire::ListRequestsOk { requests: entries.iter().map(info).collect(), more })
    };
    Ok(session.computed(list).await??.into())
}

/// Ends a durable request.
///
/// # Errors
/// There is none of this id; the disk's.
pub async fn cancel(
    session: Arc<Session>,
    request: wire::CancelRequest,
) -> Result<Answer<wire::CancelRequestOk>, Refusal> {
    let entry = session.shared.broker.cancel_request(&id(&request.id)?).await?;
    Ok(wire::CancelRequestOk { request: info(&entry) }.into())
}

fn is_reply(entry: &RequestEntry) -> bool {
    entry.outcome.as_ref().is_some_and(|outcome| outcome.kind == OutcomeKind::Replied)
}

fn outcome(entry: &RequestEntry) -> wire::Outcome {
    let step = entry.step;
    let topic = entry.steps.get(step as usize).map_or_else(String::new, ToString::to_string);
    match entry.outcome.as_ref().map(|outcome| outcome.kind.clone()) {
        None => wire::Outcome::Open,
        Some(OutcomeKind::Replied) => wire::Outcome::Reply,
        Some(OutcomeKind::Failed { code, text }) => wire::Outcome::Error { code, text, step, topic },
        Some(OutcomeKind::TimedOut) => wire::Outcome::TimedOut { step, topic },
        Some(OutcomeKind::Cancelled) => wire::Outcome::Cancelled,
    }
}

fn info(entry: &RequestEntry) -> wire::RequestInfo {
    let error = match entry.outcome.as_ref().map(|outcome| &outcome.kind) {
        Some(OutcomeKind::Failed { code, text }) => Some(wire::ReplyError { code: code.clone(), text: text.clone() }),
        _ => None,
    };
    wire::RequestInfo {
        id: entry.id.to_string(),
        state: broker::state_name(entry).to_owned(),
        steps: entry.steps.iter().map(ToString::to_string).collect(),
        step: entry.step,
        requester: entry.requester.clone(),
        created_ms: entry.created_ms,
        deadline_ms: entry.deadline_ms,
        finished_ms: entry.outcome.as_ref().map(|outcome| outcome.finished_ms),
        callback: entry.callback.as_ref().map(|callback| callback.address().to_owned()),
        callback_state: broker::callback_state(entry).to_owned(),
        error,
    }
}
