//! Requests that never touch the disk: who asks, who responds, and what waits for whom. Pure: events and `now` in,
//! effects out.
//!
//! A request is *queued* at its topic while every responder there has as much as it takes, *out* while a responder has it,
//! and *over* once its requester was told the outcome, has gone, or has been told that its time is over. A responder
//! whose request is over still has it as far as its capacity goes, until it says its last word about it: it cannot know.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::base::TopicName;

/// Requests that may wait at a topic for a responder to have room.
pub(crate) const QUEUED: usize = 10_000;
/// Bytes of them.
pub(crate) const QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of requests that a responder may have out; a request alone may be larger.
pub(crate) const OUT_BYTES: usize = 8 * 1024 * 1024;

/// Names a requester: everything of its connection goes with it.
pub(crate) type AskerId = u64;
/// Names a responder.
pub(crate) type ResponderId = u64;
/// Names a request; never used twice.
pub(crate) type RequestNo = u64;

/// What ends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End<P> {
    Reply(P),
    /// The responder's word that it could not be done.
    Error {
        code: String,
        text: String,
        step: u32,
        topic: TopicName,
    },
    NoResponder {
        step: u32,
        topic: TopicName,
    },
    TimedOut {
        step: u32,
        topic: TopicName,
    },
    /// Too much waits at the topic.
    Overloaded(String),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect<A, R, P> {
    /// Hand a request to a responder.
    Deliver { to: R, responder: ResponderId, request: RequestNo, step: u32, deadline: u64, payload: P },
    /// Pass a part of a reply on.
    Part { to: A, payload: P },
    /// Tell a requester what became of it.
    Finish { to: A, end: End<P> },
}

/// A request to be.
pub(crate) struct NewRequest<A, P> {
    pub(crate) asker_id: AskerId,
    pub(crate) asker: A,
    pub(crate) topic: TopicName,
    pub(crate) itinerary: VecDeque<TopicName>,
    /// When its time is over, on the clock of `now`.
    pub(crate) deadline: u64,
    pub(crate) payload: P,
    pub(crate) bytes: usize,
}

struct Request<A, P> {
    asker_id: AskerId,
    asker: A,
    topic: TopicName,
    itinerary: VecDeque<TopicName>,
    step: u32,
    deadline: u64,
    bytes: usize,
    /// What is to be delivered, while it is queued.
    queued: Option<P>,
}

#[derive(Default)]
struct Desk {
    responders: Vec<ResponderId>,
    /// Where looking for the next responder begins.
    turn: usize,
    queue: VecDeque<RequestNo>,
    /// Requests in the queue that are not over, and their bytes.
    waiting: usize,
    waiting_bytes: usize,
}

struct Responder<R> {
    handle: R,
    topic: TopicName,
    capacity: usize,
    out: HashMap<RequestNo, usize>,
    out_bytes: usize,
}

/// What responders say about a request.
pub(crate) enum Word<P> {
    Part(P),
    Reply(P, usize),
    Error { code: String, text: String },
}

/// All requests and responders.
pub(crate) struct Exchange<A, R, P> {
    desks: HashMap<TopicName, Desk>,
    responders: HashMap<ResponderId, Responder<R>>,
    requests: HashMap<RequestNo, Request<A, P>>,
    by_asker: HashMap<AskerId, HashSet<RequestNo>>,
    deadlines: BTreeSet<(u64, RequestNo)>,
    next: RequestNo,
}

impl<A, R, P> Default for Exchange<A, R, P> {
    fn default() -> Self {
        Self {
            desks: HashMap::new(),
            responders: HashMap::new(),
            requests: HashMap::new(),
            by_asker: HashMap::new(),
            deadlines: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<A: Clone, R: Clone, P> Exchange<A, R, P> {
    /// A responder begins to listen.
    pub(crate) fn listen(
        &mut self,
        id: ResponderId,
        handle: R,
        topic: TopicName,
        capacity: usize,
    ) -> Vec<Effect<A, R, P>> {
        let responder = Responder { handle, topic: topic.clone(), capacity, out: HashMap::new(), out_bytes: 0 };
        self.responders.insert(id, responder);
        self.desks.entry(topic.clone()).or_default().responders.push(id);
        let mut effects = Vec::new();
        self.dispatch(&topic, &mut effects);
        effects
    }

    /// A responder is gone: what it had has failed, and if it was the last one, what waits for one has too.
    pub(crate) fn leave(&mut self, id: ResponderId) -> Vec<Effect<A, R, P>> {
        let mut effects = Vec::new();
        let Some(gone) = self.responders.remove(&id) else { return effects };
        let mut out: Vec<_> = gone.out.into_keys().collect();
        out.sort_unstable();
        for number in out {
            let text = "the responder went away before it replied".to_owned();
            self.finish(number, |request| request.failed("responder_gone".to_owned(), text), &mut effects);
        }
        if let Some(desk) = self.desks.get_mut(&gone.topic) {
            desk.responders.retain(|other| *other != id);
            if desk.responders.is_empty() {
                for number in std::mem::take(&mut desk.queue) {
                    self.finish(number, |request| request.unheard(), &mut effects);
                }
                self.desks.remove(&gone.topic);
            }
        }
        effects
    }

    /// A request comes in; they are numbered from 1.
    pub(crate) fn ask(&mut self, new: NewRequest<A, P>) -> Vec<Effect<A, R, P>> {
        self.next += 1;
        let number = self.next;
        let NewRequest { asker_id, asker, topic, itinerary, deadline, payload, bytes } = new;
        let request = Request { asker_id, asker, topic, itinerary, step: 0, deadline, bytes, queued: None };
        self.requests.insert(number, request);
        self.by_asker.entry(asker_id).or_default().insert(number);
        self.deadlines.insert((deadline, number));
        let mut effects = Vec::new();
        self.place(number, payload, &mut effects);
        effects
    }

    /// What a responder says about a request that it has; whether somebody still waits for it.
    pub(crate) fn say(
        &mut self,
        responder: ResponderId,
        number: RequestNo,
        word: Word<P>,
    ) -> (bool, Vec<Effect<A, R, P>>) {
        let mut effects = Vec::new();
        let Some(from) = self.responders.get_mut(&responder) else { return (false, effects) };
        if !from.out.contains_key(&number) {
            return (false, effects);
        }
        let wanted = self.requests.contains_key(&number);
        if let Word::Part(payload) = word {
            match self.requests.get(&number) {
                Some(request) if request.itinerary.is_empty() => {
                    effects.push(Effect::Part { to: request.asker.clone(), payload });
                }
                Some(_) => {
                    let text = "only the last step of an itinerary can reply in parts".to_owned();
                    self.finish(number, |request| request.failed("parts".to_owned(), text), &mut effects);
                    return (false, effects);
                }
                None => {}
            }
            return (wanted, effects);
        }
        let topic = from.topic.clone();
        let bytes = from.out.remove(&number).unwrap_or(0);
        from.out_bytes = from.out_bytes.saturating_sub(bytes);
        match word {
            Word::Reply(payload, bytes) => self.replied(number, payload, bytes, &mut effects),
            Word::Error { code, text } => self.finish(number, |request| request.failed(code, text), &mut effects),
            Word::Part(_) => {}
        }
        self.dispatch(&topic, &mut effects);
        (wanted, effects)
    }

    /// Whether a request that a responder has is not over.
    pub(crate) fn is_wanted(&self, responder: ResponderId, number: RequestNo) -> bool {
        let has = self.responders.get(&responder).is_some_and(|responder| responder.out.contains_key(&number));
        has && self.requests.contains_key(&number)
    }

    /// A request could not be handed to its responder after all.
    pub(crate) fn undelivered(
        &mut self,
        responder: ResponderId,
        number: RequestNo,
        why: String,
    ) -> Vec<Effect<A, R, P>> {
        let mut effects = Vec::new();
        let Some(to) = self.responders.get_mut(&responder) else { return effects };
        let bytes = to.out.remove(&number).unwrap_or(0);
        to.out_bytes = to.out_bytes.saturating_sub(bytes);
        self.finish(number, |_| End::Overloaded(why), &mut effects);
        effects
    }

    /// A requester is gone: nothing of it is delivered any more, and no reply goes anywhere.
    pub(crate) fn abandon(&mut self, asker: AskerId) {
        for number in self.by_asker.remove(&asker).unwrap_or_default() {
            self.forget(number);
        }
    }

    /// Ends what should have ended by now.
    pub(crate) fn expire(&mut self, now: u64) -> Vec<Effect<A, R, P>> {
        let mut effects = Vec::new();
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= now
        {
            self.finish(number, |request| request.late(), &mut effects);
        }
        effects
    }

    /// When there is something to expire next.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Requests that are not over, and responders.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.requests.len(), self.responders.len())
    }

    /// The reply of a step: the next one's request, or the outcome.
    fn replied(&mut self, number: RequestNo, payload: P, bytes: usize, effects: &mut Vec<Effect<A, R, P>>) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        match request.itinerary.pop_front() {
            Some(next) => {
                request.topic = next;
                request.step += 1;
                request.bytes = bytes;
                self.place(number, payload, effects);
            }
            None => self.finish(number, |_| End::Reply(payload), effects),
        }
    }

    /// To a responder that has room, into the queue, or back with a refusal.
    fn place(&mut self, number: RequestNo, payload: P, effects: &mut Vec<Effect<A, R, P>>) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        let Some(desk) = self.desks.get_mut(&request.topic) else {
            return self.finish(number, |request| request.unheard(), effects);
        };
        // Who came first is served first.
        if desk.waiting == 0
            && let Some((id, responder)) = choose(desk, &mut self.responders, request.bytes)
        {
            responder.take(number, request.bytes);
            let (to, step, deadline) = (responder.handle.clone(), request.step, request.deadline);
            return effects.push(Effect::Deliver { to, responder: id, request: number, step, deadline, payload });
        }
        if desk.waiting >= QUEUED || desk.waiting > 0 && desk.waiting_bytes + request.bytes > QUEUED_BYTES {
            let what = format!(
                "{} requests of {} bytes wait at topic '{}' already; at most {QUEUED} of {QUEUED_BYTES} bytes may",
                desk.waiting, desk.waiting_bytes, request.topic
            );
            return self.finish(number, |_| End::Overloaded(what), effects);
        }
        desk.queue.push_back(number);
        desk.waiting += 1;
        desk.waiting_bytes += request.bytes;
        request.queued = Some(payload);
    }

    /// Hands out what is queued as far as there is room.
    fn dispatch(&mut self, topic: &TopicName, effects: &mut Vec<Effect<A, R, P>>) {
        let Some(desk) = self.desks.get_mut(topic) else { return };
        while let Some(&number) = desk.queue.front() {
            let Some(request) = self.requests.get_mut(&number).filter(|request| request.queued.is_some()) else {
                desk.queue.pop_front();
                continue;
            };
            let Some((id, responder)) = choose(desk, &mut self.responders, request.bytes) else { return };
            desk.queue.pop_front();
            desk.waiting -= 1;
            desk.waiting_bytes -= request.bytes;
            responder.take(number, request.bytes);
            if let Some(payload) = request.queued.take() {
                let (to, step, deadline) = (responder.handle.clone(), request.step, request.deadline);
                effects.push(Effect::Deliver { to, responder: id, request: number, step, deadline, payload });
            }
        }
    }

    fn finish(
        &mut self,
        number: RequestNo,
        end: impl FnOnce(&Request<A, P>) -> End<P>,
        effects: &mut Vec<Effect<A, R, P>>,
    ) {
        if let Some(request) = self.forget(number) {
            effects.push(Effect::Finish { end: end(&request), to: request.asker });
        }
    }

    fn forget(&mut self, number: RequestNo) -> Option<Request<A, P>> {
        let request = self.requests.remove(&number)?;
        self.deadlines.remove(&(request.deadline, number));
        if let Some(of_asker) = self.by_asker.get_mut(&request.asker_id) {
            of_asker.remove(&number);
            if of_asker.is_empty() {
                self.by_asker.remove(&request.asker_id);
            }
        }
        if request.queued.is_some()
            && let Some(desk) = self.desks.get_mut(&request.topic)
        {
            desk.waiting -= 1;
            desk.waiting_bytes -= request.bytes;
            // What is over stays in the queue as a number, never more of it than of what waits.
            if desk.queue.len() > 64 + 2 * desk.waiting {
                let requests = &self.requests;
                desk.queue.retain(|number| requests.contains_key(number));
            }
        }
        Some(request)
    }

    /// What must hold between any two events, for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut by_desk: std::collections::BTreeMap<&TopicName, (usize, usize)> = std::collections::BTreeMap::new();
        for (number, request) in &self.requests {
            assert!(self.deadlines.contains(&(request.deadline, *number)));
            assert!(self.by_asker[&request.asker_id].contains(number));
            let out = self.responders.values().filter(|responder| responder.out.contains_key(number)).count();
            let queued = usize::from(request.queued.is_some());
            assert_eq!(out + queued, 1, "a request is queued or with one responder");
            if queued == 1 {
                let of = by_desk.entry(&request.topic).or_default();
                (of.0, of.1) = (of.0 + 1, of.1 + request.bytes);
                assert!(self.desks[&request.topic].queue.contains(number));
            }
        }
        assert_eq!(self.deadlines.len(), self.requests.len());
        assert_eq!(self.by_asker.values().map(HashSet::len).sum::<usize>(), self.requests.len());
        for (topic, desk) in &self.desks {
            assert!(!desk.responders.is_empty(), "a desk without responders");
            assert_eq!((desk.waiting, desk.waiting_bytes), by_desk.remove(topic).unwrap_or_default());
            if desk.waiting > 0 {
                let full = |id: &ResponderId| {
                    let responder = &self.responders[id];
                    responder.out.len() >= responder.capacity || responder.out_bytes > 0
                };
                assert!(desk.responders.iter().all(full), "something waits while a responder is idle");
            }
        }
        assert!(by_desk.is_empty());
        for responder in self.responders.values() {
            assert!(responder.out.len() <= responder.capacity);
            assert_eq!(responder.out.values().sum::<usize>(), responder.out_bytes);
        }
    }
}

impl<R> Responder<R> {
    fn has_room(&self, bytes: usize) -> bool {
        self.out.is_empty() || self.out.len() < self.capacity && self.out_bytes + bytes <= OUT_BYTES
    }

    fn take(&mut self, number: RequestNo, bytes: usize) {
        self.out.insert(number, bytes);
        self.out_bytes += bytes;
    }
}

impl<A, P> Request<A, P> {
    fn failed(&self, code: String, text: String) -> End<P> {
        End::Error { code, text, step: self.step, topic: self.topic.clone() }
    }

    fn unheard(&self) -> End<P> {
        End::NoResponder { step: self.step, topic: self.topic.clone() }
    }

    fn late(&self) -> End<P> {
        End::TimedOut { step: self.step, topic: self.topic.clone() }
    }
}

/// The responder with the least to do that has room; those with equally much take turns.
fn choose<'a, R>(
    desk: &mut Desk,
    responders: &'a mut HashMap<ResponderId, Responder<R>>,
    bytes: usize,
) -> Option<(ResponderId, &'a mut Responder<R>)> {
    let count = desk.responders.len();
    let mut best: Option<(usize, usize)> = None;
    for step in 0..count {
        let at = (desk.turn + step) % count;
        let Some(responder) = responders.get(&desk.responders[at]) else { continue };
        let busy = responder.out.len();
        if responder.has_room(bytes) && best.is_none_or(|(least, _)| busy < least) {
            best = Some((busy, at));
            if busy == 0 {
                break;
            }
        }
    }
    let (_, at) = best?;
    desk.turn = (at + 1) % count;
    let id = desk.responders[at];
    responders.get_mut(&id).map(|responder| (id, responder))
}
