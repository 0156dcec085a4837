//! Requests and replies of one connection: what it asks, and what it responds on.
//!
//! An ephemeral request goes from the thread that read it to the responder's socket, and its reply the same way back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::durable::{self, DurableResponder};
use super::mapping::{Refusal, topic_name};
use super::session::{Answer, Session, Ticket};
use crate::base::{ErrorKind, TopicName, limits};
use crate::broker::{Asker, Content, DurableRequest, Ending, LastWord, LiveRequest, LiveResponder, Port};
use crate::protocol as wire;
use crate::protocol::{Frame, Kind};
use crate::record::{Header, Headers};
use crate::server::budget::Grant;

/// What a message weighs in the budget beside its body.
const OVERHEAD: usize = 256;
/// Requests that a responder may have at a time.
const CAPACITY: u32 = 100_000;
/// Topics of an itinerary.
const STEPS: usize = 100;
/// The longest time that a request may take.
const LONGEST_MS: u64 = 365 * 24 * 3_600_000;

/// What one connection asks and responds on.
#[derive(Default)]
pub struct Exchange(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// Its number as a requester, from its first request on.
    asker: Option<u64>,
    responders: HashMap<u64, Arc<Responder>>,
    closed: bool,
}

struct Responder {
    live: LiveResponder,
    /// What it needs for durable requests, if it takes them.
    durable: Option<Arc<DurableResponder>>,
}

impl Responder {
    /// It goes with its connection. That the server stops says nothing of any request.
    fn dismiss(&self, session: &Session) {
        if let Some(durable) = self.durable.as_ref().filter(|_| session.shared.is_stopping()) {
            durable.retire();
        }
        self.leave();
    }

    fn leave(&self) {
        self.live.leave();
        if let Some(durable) = &self.durable {
            durable.leave();
        }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Exchange").field(&self.lock().responders.len()).finish()
    }
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn responder(&self, id: u64) -> Option<Arc<Responder>> {
        self.lock().responders.get(&id).cloned()
    }

    /// Ends everything: nobody waits for replies here any more, and what was to be replied to goes elsewhere.
    pub fn end_all(&self, session: &Session) {
        let (asker, responders) = {
            let mut inside = self.lock();
            inside.closed = true;
            (inside.asker.take(), std::mem::take(&mut inside.responders))
        };
        if let Some(asker) = asker {
            session.shared.broker.abandon_live(asker);
        }
        for responder in responders.into_values() {
            responder.dismiss(session);
        }
    }

    /// Takes a responder away that has ended by itself.
    pub fn remove(&self, session: &Session, id: u64) {
        let removed = self.lock().responders.remove(&id);
        if let Some(responder) = removed {
            responder.dismiss(session);
        }
    }
}

/// A requester that waits.
struct Waiting {
    session: Arc<Session>,
    correlation: u64,
    /// The place of the request among those in flight, until it is answered.
    slot: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Waiting {
    /// Bytes of the requester's share for what is passed on to it; a requester that does not read gets no more.
    fn grant(&self, bytes: usize) -> Result<Grant, Refusal> {
        let bytes = bytes + OVERHEAD;
        self.session.outgoing.try_take(bytes, bytes).ok_or_else(|| {
            let message = format!("a reply of {bytes} bytes came while this connection leaves too much unread");
            Refusal::new(ErrorKind::Overloaded, message)
        })
    }
}

impl Asker for Waiting {
    fn part(&self, content: Content) {
        let passed = self.grant(content.weight()).and_then(|grant| {
            let message = wire::ReplyPart { headers: named(&content.headers) };
            let answer = Answer { message, payload: content.body, grant: Some(grant) };
            self.session.push_now(Kind::Progress, self.correlation, answer)
        });
        if let Err(refusal) = passed {
            let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if slot.is_some() {
                self.session.answer::<wire::AskOk>(Kind::Ask.code(), self.correlation, slot, Err(refusal));
            }
        }
    }

    fn finish(&self, ending: Ending) {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Without a slot it was answered before.
        if slot.is_some() {
            let outcome = self.outcome(ending);
            self.session.answer(Kind::Ask.code(), self.correlation, slot, outcome);
        }
    }
}

impl Waiting {
    fn outcome(&self, ending: Ending) -> Result<Answer<wire::AskOk>, Refusal> {
        let bare = |outcome| Ok(wire::AskOk { outcome, headers: Vec::new() }.into());
        match ending {
            Ending::Reply(content) => {
                let grant = Some(self.grant(content.weight())?);
                let message = wire::AskOk { outcome: wire::Outcome::Reply, headers: named(&content.headers) };
                Ok(Answer { message, payload: content.body, grant })
            }
            Ending::Error { code, text, step, topic } => {
                bare(wire::Outcome::Error { code, text, step, topic: topic.to_string() })
            }
            Ending::NoResponder { step, topic } => bare(wire::Outcome::NoResponder { step, topic: topic.to_string() }),
            Ending::TimedOut { step, topic } => bare(wire::Outcome::TimedOut { step, topic: topic.to_string() }),
            Ending::Overloaded(why) => Err(Refusal::new(ErrorKind::Overloaded, why)),
        }
    }
}

/// The way of requests to a responder of this connection.
struct ToResponder {
    /// Not kept alive by the exchange: what is left of a connection must not hold it open.
    session: Weak<Session>,
    responder: u64,
}

impl Port for ToResponder {
    fn deliver(&self, request: u64, step: u32, timeout: Duration, content: Content) -> Result<(), String> {
        let session = self.session.upgrade().ok_or("the responder is gone")?;
        let bytes = content.weight() + OVERHEAD;
        let grant = session.outgoing.try_take(bytes, bytes);
        let grant = grant.ok_or_else(|| format!("no room for {bytes} bytes: the responder leaves too much unread"))?;
        let message = wire::Asked {
            responder: self.responder,
            delivery: request,
            id: None,
            step,
            attempt: 1,
            timeout_ms: Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            headers: named(&content.headers),
        };
        let answer = Answer { message, payload: content.body, grant: Some(grant) };
        session.push_now(Kind::Asked, self.responder, answer).map_err(|refusal| refusal.to_string())
    }
}

/// Takes a request in.
pub fn ask(session: &Arc<Session>, frame: Frame, ticket: Ticket) {
    let correlation = frame.correlation;
    let Ticket { slot, bytes } = ticket;
    let asked = frame
        .decode::<wire::Ask>()
        .map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error.to_string()))
        .and_then(|ask| checked(session, ask, frame.payload, bytes));
    let (asker, request) = match asked {
        Ok(Checked::Live(asker, request)) => (asker, request),
        Ok(Checked::Durable(request)) => return durable::ask(session, correlation, slot, request),
        Err(refusal) => {
            return session.answer::<wire::AskOk>(Kind::Ask.code(), correlation, Some(slot), Err(refusal));
        }
    };
    let waiting = Arc::new(Waiting { session: Arc::clone(session), correlation, slot: Mutex::new(Some(slot)) });
    session.shared.broker.ask_live(asker, waiting, request);
}

enum Checked {
    Live(u64, LiveRequest),
    Durable(DurableRequest),
}

fn checked(session: &Session, ask: wire::Ask, body: Bytes, bytes: Grant) -> Result<Checked, Refusal> {
    let topic = topic_name(&ask.topic)?;
    let itinerary = itinerary(&ask.itinerary)?;
    if !(1..=LONGEST_MS).contains(&ask.timeout_ms) {
        let message = format!("a time-out of {} ms; allowed are 1 to {LONGEST_MS}", ask.timeout_ms);
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let asker = {
        let mut inside = session.exchange.lock();
        if inside.closed {
            return Err(Refusal::new(ErrorKind::ShuttingDown, "this connection is ending"));
        }
        *inside.asker.get_or_insert_with(|| session.shared.broker.new_asker())
    };
    let bytes = if ask.durable.is_none() { bytes.asking() } else { bytes };
    let content = Content { headers: headers(ask.headers), body, hold: Some(Box::new(bytes)) };
    let timeout = Duration::from_millis(ask.timeout_ms);
    let Some(durable) = ask.durable else {
        return Ok(Checked::Live(asker, LiveRequest { topic, itinerary, timeout, content }));
    };
    let steps = std::iter::once(topic).chain(itinerary).collect();
    let (id, callback) = (
        durable::id(&durable.id)?,
        durable.callback.as_deref().map(|text| durable::callback(session, text)).transpose()?,
    );
    let requester = session.client.clone();
    Ok(Checked::Durable(DurableRequest { id, steps, timeout, callback, requester, content }))
}

fn itinerary(topics: &[String]) -> Result<std::collections::VecDeque<TopicName>, Refusal> {
    if topics.len() > STEPS {
        let message = format!("an itinerary of {} topics; at most {STEPS} are allowed", topics.len());
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    topics.iter().map(|topic| topic_name(topic)).collect()
}

/// Becomes a responder.
///
/// # Errors
/// A wrong name or capacity, or too many responders on this connection.
pub async fn respond(session: Arc<Session>, request: wire::Respond) -> Result<Answer<wire::RespondOk>, Refusal> {
    let topic = topic_name(&request.topic)?;
    if !(1..=CAPACITY).contains(&request.capacity) {
        let message = format!("a capacity of {}; allowed are 1 to {CAPACITY}", request.capacity);
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let limit = session.shared.config.max_subscriptions;
    if session.exchange.lock().responders.len() >= limit {
        let message = format!("this connection has {limit} responders, which is the most");
        return Err(Refusal::new(ErrorKind::Overloaded, message));
    }
    let member = match request.durable {
        true => {
            let client = session.client.clone();
            Some(session.shared.broker.respond_durable(&topic, request.capacity, client).await?)
        }
        false => None,
    };
    let weak = Arc::downgrade(&session);
    let live = session
        .shared
        .broker
        .respond_live(topic, request.capacity as usize, |responder| Arc::new(ToResponder { session: weak, responder }));
    let id = live.id();
    let lease_ms = member.as_ref().map_or(0, |member| member.lease_ms());
    let durable = member.map(|member| DurableResponder::new(id, member));
    {
        let mut inside = session.exchange.lock();
        if inside.closed {
            return Err(Refusal::new(ErrorKind::ShuttingDown, "this connection is ending"));
        }
        inside.responders.insert(id, Arc::new(Responder { live, durable: durable.clone() }));
    }
    if let Some(durable) = durable {
        durable.start(&session);
    }
    Ok(wire::RespondOk { responder: id, lease_ms }.into())
}

/// Ends a responder.
///
/// # Errors
/// There is none of this id.
pub async fn stop_responding(
    session: Arc<Session>,
    request: wire::StopResponding,
) -> Result<Answer<wire::StopRespondingOk>, Refusal> {
    let removed = session.exchange.lock().responders.remove(&request.responder);
    let responder = removed.ok_or_else(|| none(request.responder))?;
    if let Some(durable) = &responder.durable {
        durable.stored().await;
        // A responder that says that it goes has said what failed. What it still has is nobody's failure.
        durable.retire();
    }
    responder.leave();
    Ok(wire::StopRespondingOk {}.into())
}

fn none(responder: u64) -> Refusal {
    Refusal::new(ErrorKind::NotFound, format!("there is no responder {responder} on this connection"))
}

/// The last word about a request. It has no answer, so one that cannot be read ends the connection.
///
/// # Errors
/// What ends the connection.
pub fn reply(session: &Arc<Session>, frame: Frame, bytes: Grant) -> Result<(), Refusal> {
    if frame.flags != 0 {
        let what = format!("a reply has no flags, this one has {:#x}", frame.flags);
        return Err(Refusal::new(ErrorKind::InvalidRequest, what));
    }
    let reply: wire::Reply =
        frame.decode().map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error.to_string()))?;
    // A responder that has just ended may still have replies under way.
    let Some(responder) = session.exchange.responder(reply.responder) else { return Ok(()) };
    let word = match reply.error {
        Some(wire::ReplyError { code, text }) => LastWord::Error { code, text },
        None => LastWord::Reply(Content { headers: headers(reply.headers), body: frame.payload, hold: None }),
    };
    match &responder.durable {
        Some(durable) if durable::is_durable(reply.delivery) => durable.reply(session, reply.delivery, word, bytes),
        _ => responder.live.reply(reply.delivery, word),
    }
    Ok(())
}

/// A part of a reply, or the news that it is being worked on.
///
/// # Errors
/// There is no such responder.
pub fn progress(
    session: &Arc<Session>,
    progress: wire::Progress,
    body: Bytes,
) -> Result<Answer<wire::ProgressOk>, Refusal> {
    let responder = session.exchange.responder(progress.responder).ok_or_else(|| none(progress.responder))?;
    let durable = responder.durable.as_ref().filter(|_| durable::is_durable(progress.delivery));
    let wanted = if let Some(durable) = durable {
        durable.working(progress.delivery, progress.part)?
    } else if progress.part {
        let content = Content { headers: headers(progress.headers), body, hold: None };
        responder.live.part(progress.delivery, content)
    } else {
        responder.live.is_wanted(progress.delivery)
    };
    Ok(wire::ProgressOk { wanted }.into())
}

/// What headers weigh as a message has them: taken apart, and encoded.
pub(super) fn named_weight(headers: &Headers) -> usize {
    2 * headers.weight() + headers.len() * limits::HEADER_WEIGHT
}

pub(super) fn named(headers: &Headers) -> Vec<wire::NamedValue> {
    let value = |header: Header<'_>| wire::NamedValue {
        name: String::from_utf8_lossy(header.name).into_owned(),
        value: header.value.map(<[u8]>::to_vec),
    };
    headers.iter().map(value).collect()
}

fn headers(named: Vec<wire::NamedValue>) -> Headers {
    named.into_iter().map(|named| (named.name, named.value)).collect()
}
