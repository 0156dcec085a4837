//! What the tasks of one connection share, and how each of them answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::exchange::Exchange;
use super::mapping::Refusal;
use super::members::Members;
use super::outbox::{Outbox, Outgoing};
use super::subscriptions::Subscriptions;
use crate::base::ErrorKind;
use crate::broker::{Broker, WorkKey};
use crate::protocol::{Kind, encode_frame, flags};
use crate::server::budget::{Account, Grant};
use crate::server::shared::Shared;

/// Frames in a row that came alone, from which on a peer is believed to wait for each answer.
const ALONE: u32 = 8;
/// Answers whose size the server does not choose (lists, descriptions, metrics) that one connection may have at once.
const LONG_ANSWERS: usize = 4;
/// Bytes of an error message that are sent; names in it can be as long as a frame.
const MESSAGE_BYTES: usize = 2048;

/// One connection after its handshake.
#[derive(Debug)]
pub struct Session {
    /// The server.
    pub shared: Arc<Shared>,
    /// Bytes of answers that this connection holds.
    pub outgoing: Arc<Account>,
    /// Who the client says it is.
    pub client: String,
    /// Its subscriptions.
    pub subscriptions: Subscriptions,
    /// Its memberships of groups.
    pub members: Members,
    /// What it asks and responds on.
    pub exchange: Exchange,
    /// Whether changes of what topics there are are told.
    pub watches_topics: AtomicBool,
    /// For work that its requests make.
    pub work: WorkKey,
    /// Permits for long answers.
    pub long_answers: Arc<Semaphore>,
    outbox: Outbox,
    /// Frames in a row that came alone.
    alone: AtomicU32,
    slots: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    fatal: watch::Sender<Option<Refusal>>,
}

/// What a request holds while it is in flight: one of the connection's slots, until its answer is sent, and the bytes
/// it came in, until they are not needed.
#[derive(Debug)]
pub struct Ticket {
    /// The slot.
    pub slot: OwnedSemaphorePermit,
    /// The bytes.
    pub bytes: Grant,
}

/// An answer: a message, batches behind it, and the bytes these hold of the budget.
#[derive(Debug)]
pub struct Answer<M> {
    /// The message.
    pub message: M,
    /// The batches.
    pub payload: Bytes,
    /// Their share of the budget.
    pub grant: Option<Grant>,
}

impl<M> From<M> for Answer<M> {
    fn from(message: M) -> Self {
        Self { message, payload: Bytes::new(), grant: None }
    }
}

impl Session {
    /// A session that answers into `outbox`.
    pub fn new(shared: Arc<Shared>, outbox: Outbox, outgoing: Arc<Account>, client: String) -> Arc<Self> {
        Arc::new(Self {
            outgoing,
            slots: Arc::new(Semaphore::new(shared.config.max_requests_in_flight)),
            shared,
            client,
            subscriptions: Subscriptions::default(),
            members: Members::default(),
            exchange: Exchange::default(),
            watches_topics: AtomicBool::new(false),
            work: WorkKey::new(),
            long_answers: Arc::new(Semaphore::new(LONG_ANSWERS)),
            outbox,
            alone: AtomicU32::new(0),
            closing: watch::Sender::new(false),
            fatal: watch::Sender::new(None),
        })
    }

    /// Notes that a frame has come, and whether the peer had sent nothing ahead of it.
    pub fn arrived(&self, waited_for: bool) {
        let all_free = self.slots.available_permits() == self.shared.config.max_requests_in_flight;
        let alone = if waited_for && all_free { self.alone.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.alone.store(alone, Ordering::Relaxed);
    }

    /// Whether the peer asks one thing at a time and waits for the answer, so that the connection may be left alone until
    /// its request is done.
    pub fn one_at_a_time(&self) -> bool {
        self.alone.load(Ordering::Relaxed) >= ALONE
    }

    /// Waits for a free slot: this is where a connection with too much in flight stops being read.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so this is always some.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Waits until every request has been answered and its answer sent.
    pub async fn drained(&self) {
        let all = u32::try_from(self.shared.config.max_requests_in_flight).unwrap_or(u32::MAX);
        let _ = self.slots.acquire_many(all).await;
    }

    /// Tells whoever waits (long polls, subscriptions) to finish with what there is.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Returns when the session is about to end.
    pub async fn closing(&self) {
        // The sender is ours: this cannot fail.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Ends the connection because of a request that has no answer to carry the reason.
    pub fn fail(&self, refusal: Refusal) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                *fatal = Some(refusal);
            }
            first
        });
    }

    /// Returns the reason of the first [`Session::fail`].
    pub async fn failed(&self) -> Refusal {
        let reason = self.fatal.subscribe().wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Sends the answer of a request, or queues it. Does not wait, and may be called from any thread: who holds a slot has
    /// its place in the queue.
    pub fn answer<M: Serialize>(
        &self,
        kind: u16,
        correlation: u64,
        slot: Option<OwnedSemaphorePermit>,
        outcome: Result<Answer<M>, Refusal>,
    ) {
        self.send_answer(kind, correlation, slot, outcome.and_then(|answer| encoded(kind, correlation, answer)));
    }

    /// The same for an answer that may be long: workers encode it.
    pub async fn answer_long<M: Serialize + Send + 'static>(
        &self,
        kind: u16,
        correlation: u64,
        slot: Option<OwnedSemaphorePermit>,
        outcome: Result<Answer<M>, Refusal>,
    ) {
        let frame = match outcome {
            Ok(answer) => self.computed(move |_| encoded(kind, correlation, answer)).await.and_then(|frame| frame),
            Err(refusal) => Err(refusal),
        };
        self.send_answer(kind, correlation, slot, frame);
    }

    /// Computes something of what the broker has in memory, where it keeps no thread of the runtime from anything.
    ///
    /// # Errors
    /// The broker stops.
    pub async fn computed<R: Send + 'static>(
        &self,
        compute: impl FnOnce(&Arc<Broker>) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let broker = Arc::clone(&self.shared.broker);
        Ok(self.shared.broker.work(&self.work, move |_| compute(&broker)).await?)
    }

    fn send_answer(
        &self,
        kind: u16,
        correlation: u64,
        slot: Option<OwnedSemaphorePermit>,
        outcome: Result<Outgoing, Refusal>,
    ) {
        let mut frame = outcome.unwrap_or_else(|refusal| {
            self.shared.metrics.error(refusal.kind);
            refused(kind, flags::RESPONSE, correlation, &refusal)
        });
        frame.slot = slot;
        self.outbox.send_now(frame);
    }

    /// Queues a push.
    ///
    /// # Errors
    /// It does not fit a frame.
    pub async fn push<M: Serialize>(&self, kind: Kind, subscription: u64, answer: Answer<M>) -> Result<(), Refusal> {
        let head = head(kind.code(), flags::PUSH, subscription, &answer.message, answer.payload.len())?;
        let frame = Outgoing { head, payload: answer.payload, slot: None, grant: answer.grant, last: false };
        self.outbox.send(frame).await;
        Ok(())
    }

    /// Sends a push, or queues it. Does not wait, and may be called from any thread: for pushes whose number and bytes are
    /// bounded elsewhere.
    ///
    /// # Errors
    /// It does not fit a frame.
    pub fn push_now<M: Serialize>(&self, kind: Kind, feed: u64, answer: Answer<M>) -> Result<(), Refusal> {
        let head = head(kind.code(), flags::PUSH, feed, &answer.message, answer.payload.len())?;
        let frame = Outgoing { head, payload: answer.payload, slot: None, grant: answer.grant, last: false };
        self.outbox.send_now(frame);
        Ok(())
    }

    /// Queues the end of a subscription.
    pub async fn push_end(&self, subscription: u64, refusal: &Refusal) {
        self.shared.metrics.error(refusal.kind);
        self.outbox.send(refused(Kind::SubscriptionEnded.code(), flags::PUSH, subscription, refusal)).await;
    }

    /// Queues the end of a membership.
    pub async fn push_member_end(&self, member: u64, refusal: &Refusal) {
        self.shared.metrics.error(refusal.kind);
        self.outbox.send(refused(Kind::MemberEnded.code(), flags::PUSH, member, refusal)).await;
    }

    /// Queues the end of a responder.
    pub async fn push_responder_end(&self, responder: u64, refusal: &Refusal) {
        self.shared.metrics.error(refusal.kind);
        self.outbox.send(refused(Kind::ResponderEnded.code(), flags::PUSH, responder, refusal)).await;
    }

    /// Queues the last frame without waiting for room.
    pub fn goodbye_now(&self, refusal: &Refusal) {
        self.shared.metrics.error(refusal.kind);
        self.outbox.send_now(goodbye(refusal));
    }

    /// Queues the last frame: behind it, the writer ends the connection.
    pub async fn goodbye(&self, refusal: &Refusal) {
        self.shared.metrics.error(refusal.kind);
        self.outbox.send(goodbye(refusal)).await;
    }
}

/// The frame that says why the server closes a connection.
pub fn goodbye(refusal: &Refusal) -> Outgoing {
    Outgoing { last: true, ..refused(Kind::Goodbye.code(), flags::PUSH, 0, refusal) }
}

fn encoded<M: Serialize>(kind: u16, correlation: u64, answer: Answer<M>) -> Result<Outgoing, Refusal> {
    let head = head(kind, flags::RESPONSE, correlation, &answer.message, answer.payload.len())?;
    Ok(Outgoing { head, payload: answer.payload, slot: None, grant: answer.grant, last: false })
}

/// An error frame.
pub fn refused(kind: u16, flag: u16, correlation: u64, refusal: &Refusal) -> Outgoing {
    let mut body = refusal.body();
    if body.message.len() > MESSAGE_BYTES {
        body.message.truncate(body.message.floor_char_boundary(MESSAGE_BYTES));
        body.message.push_str("...");
    }
    // A short text and three numbers always fit a frame.
    let head = encode_frame(kind, flag | flags::ERROR, correlation, &body, 0).unwrap_or_default().freeze();
    Outgoing { head, payload: Bytes::new(), slot: None, grant: None, last: false }
}

/// Header and body of a frame.
///
/// # Errors
/// The body is larger than a frame's body may be.
pub fn head(
    kind: u16,
    flag: u16,
    correlation: u64,
    message: &impl Serialize,
    payload: usize,
) -> Result<Bytes, Refusal> {
    let head = encode_frame(kind, flag, correlation, message, payload)
        .map_err(|error| Refusal::new(ErrorKind::TooLarge, format!("the answer cannot be sent: {error}")))?;
    Ok(head.freeze())
}
