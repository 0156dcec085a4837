//! Durable requests at work: what is asked of them, kept in the [`machine`](super::machine) and in the journal.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::base::{
    ErrorKind, GroupName, Offset, PartitionId, RequestId, TimestampMs, TopicId, TopicName, TopicPattern,
};
use crate::catalog::{Callback, Catalog, Event, GroupEntry, GroupKind, Place, Position, RequestEntry, Writing};
use crate::record::{Headers, Record, partition_for_key};

use super::super::broker::{blocking, lock};
use super::super::clients::Client;
use super::super::hold::Hold;
use super::super::partition::Partition;
use super::super::task;
use super::super::{AckLevel, Broker, BrokerError, FetchRequest, JoinQueue, NewTopic, OffsetAt, QueueMember};
use super::machine::{Machine, NotOpened, Word};
use super::records::{self, REPLIES};
use super::{Content, LastWord, watcher};

/// The group whose position is how far the topic of replies has been read.
const READER: &str = "tidelog.requests";
/// What the names of the groups of responders begin with; the topic follows.
pub(crate) const RESPONDERS: &str = "responders.";
/// How long replies are kept, beyond the time for which a request that ended is remembered.
const REPLIES_KEPT: &str = "7d";

/// A durable request to be.
pub struct DurableRequest {
    /// Its correlation id.
    pub id: RequestId,
    /// The topics whose responders are asked, in order; at least one.
    pub steps: Vec<TopicName>,
    /// How long a reply is of use.
    pub timeout: Duration,
    /// Where the outcome is delivered.
    pub callback: Option<Callback>,
    /// Who asks, for people.
    pub requester: String,
    /// The body.
    pub content: Content,
}

/// Which requests are asked for.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    /// Only those in this state: `open`, `replied`, `failed`, `timed_out` or `cancelled`.
    pub state: Option<String>,
    /// Only those with a step of this topic.
    pub topic: Option<TopicName>,
    /// Only those behind this one in the list.
    pub before: Option<RequestId>,
    /// So many at the most.
    pub limit: usize,
}

/// A request's record as a responder got it: what a reply needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    /// The correlation id.
    pub id: Option<RequestId>,
    /// The step of a chain.
    pub step: u32,
    /// When its time is over.
    pub deadline_ms: Option<TimestampMs>,
    reply_to: Option<TopicName>,
}

/// All durable requests.
#[derive(Default)]
pub(crate) struct Durable {
    pub(crate) machine: Mutex<Machine>,
    waiters: Mutex<HashMap<RequestId, Vec<oneshot::Sender<()>>>>,
    /// The watcher has something to look at.
    pub(crate) wake: Notify,
    /// Something is to be written that the watcher did not announce itself.
    pub(crate) look: AtomicBool,
    /// There are callbacks to be POSTed.
    pub(crate) posts: Notify,
    /// Held while the topic of replies is made and the watcher started.
    starting: tokio::sync::Mutex<()>,
    running: AtomicBool,
    stopped: AtomicBool,
    /// How far the topic of replies has been read.
    pub(crate) read: AtomicU64,
    /// Steps whose topic could not be written to, with the reason; their requests are still to be told. A crash forgets them,
    /// and their requests end with their time.
    pub(super) undeliverable: Mutex<Vec<(RequestId, u32, String)>>,
    /// What is held of the logs that something is written to, by the request and the reply that it is made from.
    holds: Mutex<HashMap<(RequestId, Offset), Hold>>,
}

impl Durable {
    /// Takes over what was kept, before anything else happens.
    pub(crate) fn restore(catalog: &Catalog) -> Self {
        let replies = TopicName::new(REPLIES).ok().and_then(|name| catalog.topic(&name));
        let position = replies.and_then(|topic| catalog.position_of(&reader()?, (topic.id, 0)));
        let read = position.map_or(0, |position| position.offset);
        Self {
            machine: Mutex::new(Machine::restore(catalog.requests().cloned())),
            read: AtomicU64::new(read),
            ..Self::default()
        }
    }

    /// Takes hold of all that may have been written before the start, before anything can be deleted or compacted.
    pub(crate) fn hold(&self, broker: &Broker) {
        for entry in lock(&self.machine).writings() {
            let Some(Writing { to: Some((topic, number)), from, source }) = entry.writing else { continue };
            // Nothing is deleted from one that is offline, and there is nothing in one that is gone.
            let Ok(open) = broker.topic(topic.as_str()) else { continue };
            if let Ok(hold) = open.partition(number).and_then(|partition| Hold::from(partition, from)) {
                lock(&self.holds).insert((entry.id, source), hold);
            }
        }
    }

    /// Something made from the reply at `source` is about to be written: what is written from now on is held, unless it is already.
    ///
    /// # Errors
    /// The partition is offline.
    pub(crate) fn hold_one(
        &self,
        id: &RequestId,
        source: Offset,
        partition: &Arc<Partition>,
    ) -> Result<(), BrokerError> {
        let mut holds = lock(&self.holds);
        if let Entry::Vacant(vacant) = holds.entry((id.clone(), source)) {
            vacant.insert(Hold::of(partition)?);
        }
        Ok(())
    }

    /// It is looked for from `from` on only, as is kept by now.
    ///
    /// # Errors
    /// The partition is offline.
    pub(crate) fn hold_from(
        &self,
        id: &RequestId,
        source: Offset,
        (partition, from): (&Arc<Partition>, Offset),
    ) -> Result<(), BrokerError> {
        lock(&self.holds).insert((id.clone(), source), Hold::from(partition, from)?);
        Ok(())
    }

    /// Returns when everything that was noted so far is on the disk, and lets go of what needs no more be held by then.
    ///
    /// # Errors
    /// The journal's; then nothing is let go of.
    pub(crate) async fn kept(&self, broker: &Broker) -> Result<(), BrokerError> {
        let done: Vec<_> = {
            let (machine, mut holds) = (lock(&self.machine), lock(&self.holds));
            holds.extract_if(|(id, source), _| !machine.is_writing(id, *source)).collect()
        };
        let outcome = broker.queues.keeper.kept().await;
        if outcome.is_err() {
            lock(&self.holds).extend(done);
        }
        outcome
    }

    /// Whether something is held that need not be any more once that is kept.
    pub(crate) fn holds_in_vain(&self) -> bool {
        let (machine, holds) = (lock(&self.machine), lock(&self.holds));
        holds.keys().any(|(id, source)| !machine.is_writing(id, *source))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
        self.posts.notify_one();
        lock(&self.waiters).clear();
    }

    /// Hands the present state of requests to the keeper, and behind it how far the replies have been read: never later
    /// ones without those before.
    pub(crate) fn keep(&self, broker: &Broker, ids: &[RequestId], replies: TopicId) {
        // Under the lock, so that a newer state is never overtaken by an older one.
        self.keep_of(&lock(&self.machine), broker, ids, replies);
    }

    /// The replies below `next` have been taken in, and have changed these requests. Decisions and position are handed over
    /// together: a position that is kept without them would leave the decisions out after a crash.
    pub(super) fn took_in(&self, broker: &Broker, ids: &[RequestId], replies: TopicId, next: Offset) {
        let machine = lock(&self.machine);
        self.read.store(next, Ordering::Release);
        if !ids.is_empty() {
            self.keep_of(&machine, broker, ids, replies);
        }
    }

    fn keep_of(&self, machine: &Machine, broker: &Broker, ids: &[RequestId], replies: TopicId) {
        let mut events: Vec<_> =
            ids.iter().map(|id| Event::RequestSet { id: id.clone(), entry: machine.entry(id).cloned() }).collect();
        if let Some(group) = reader() {
            let place = Place { group, topic: replies, partition: 0 };
            let offset = self.read.load(Ordering::Acquire);
            let position =
                Position { offset, metadata: String::new(), time_ms: broker.clock.now_ms(), leader_epoch: None };
            events.push(Event::PositionSet { place, position: Some(position) });
        }
        broker.groups.pending.put(events);
        broker.queues.keeper.note_pending();
    }

    /// Wakes who waits for a request.
    pub(crate) fn tell(&self, id: &RequestId) {
        for waiter in lock(&self.waiters).remove(id).unwrap_or_default() {
            let _ = waiter.send(());
        }
    }

    fn waiter(&self, id: &RequestId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = lock(&self.waiters);
        let of_request = waiters.entry(id.clone()).or_default();
        of_request.retain(|waiter| !waiter.is_closed());
        of_request.push(sender);
        receiver
    }
}

pub(crate) fn reader() -> Option<GroupName> {
    GroupName::new(READER).ok()
}

fn unknown(id: &RequestId) -> BrokerError {
    BrokerError::new(
        ErrorKind::NotFound,
        format!("there is no request {id}, or it ended longer ago than request_retention"),
    )
}

fn invalid(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::InvalidRequest, message)
}

impl Broker {
    /// Goes on with the requests that were kept, if there are any.
    pub(crate) fn resume_requests(self: &Arc<Self>) {
        if self.topic(REPLIES).is_ok() && tokio::runtime::Handle::try_current().is_ok() {
            self.watch_replies();
        }
    }

    fn watch_replies(self: &Arc<Self>) {
        if !self.requests.running.swap(true, Ordering::AcqRel) {
            task::spawn("watcher of replies", watcher::run(Arc::downgrade(self)));
        }
    }

    /// The topic of replies is there and watched; its id.
    pub(crate) async fn replies_topic(self: &Arc<Self>) -> Result<TopicId, BrokerError> {
        if self.requests.running.load(Ordering::Acquire)
            && let Ok(topic) = self.topic(REPLIES)
        {
            return Ok(topic.entry.id);
        }
        let _starting = self.requests.starting.lock().await;
        let name = TopicName::new(REPLIES)?;
        let settings = [("durability", "sync"), ("retention_time", REPLIES_KEPT)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let new = NewTopic { name: name.clone(), partitions: Some(1), settings, if_not_exists: true };
        let topic = self.create_topic(new).await?;
        let broker = Arc::clone(self);
        blocking(move || {
            let (Some(group), now) = (reader(), broker.clock.now_ms()) else { return Ok(()) };
            let mut catalog = lock(&broker.catalog);
            if catalog.group(&group).is_none() {
                let topics = vec![TopicPattern::new(REPLIES)?];
                let (kind, filter) = (GroupKind::Stream, None);
                let entry = GroupEntry { name: group, kind, topics, filter, created_ms: now };
                catalog.commit(Event::GroupDeclared(entry), now)?;
            }
            Ok::<_, BrokerError>(())
        })
        .await?;
        self.watch_replies();
        Ok(topic.id)
    }

    /// Asks durably. When this returns, the request is on the disk and will have exactly one outcome. The same id again is
    /// the same request.
    ///
    /// # Errors
    /// The request makes no sense, its id is in use, too many are open, the disk's. Whether it was asked is unknown after an
    /// error of the disk: ask again with the same id.
    pub async fn ask_durable(self: &Arc<Self>, new: DurableRequest) -> Result<RequestEntry, BrokerError> {
        let Some(topic) = new.steps.first().cloned() else {
            return Err(invalid("a request without a topic".to_owned()));
        };
        if let Some(own) = new.steps.iter().find(|topic| topic.as_str() == REPLIES) {
            return Err(invalid(format!("topic '{own}' is for replies, not for requests")));
        }
        let replies = self.replies_topic().await?;
        let now = self.clock.now_ms();
        let timeout = i64::try_from(new.timeout.as_millis()).unwrap_or(i64::MAX);
        let entry = RequestEntry {
            id: new.id,
            steps: new.steps,
            step: 0,
            requester: new.requester,
            created_ms: now,
            deadline_ms: now.saturating_add(timeout),
            callback: new.callback,
            outcome: None,
            writing: None,
            content: Some(records::fingerprint(&new.content)),
        };
        let id = entry.id.clone();
        let (client, most) = (Client::current(), self.config.max_open_requests);
        match lock(&self.requests.machine).open(entry.clone(), client, most) {
            Ok(()) => {}
            Err(NotOpened::Known(known)) => return Ok(*known),
            Err(NotOpened::Opening) => {
                return Err(BrokerError::new(
                    ErrorKind::Busy,
                    format!("request {id} is being taken in at this moment"),
                ));
            }
            Err(NotOpened::Taken) => {
                let message = format!("request {id} exists, and asks something else");
                return Err(BrokerError::new(ErrorKind::AlreadyExists, message));
            }
            Err(NotOpened::Full(open)) => {
                let message = format!("{open} requests are open, and the limit is {most} (max_open_requests)");
                return Err(BrokerError::new(ErrorKind::Overloaded, message));
            }
            Err(NotOpened::Share(own)) => {
                let message = format!(
                    "{client} has {own} requests open, and may have no more: half of max_open_requests, {most}"
                );
                return Err(BrokerError::new(ErrorKind::Overloaded, message));
            }
        }
        let mut opening = Opening { broker: self, id: &id, written: false };
        let (headers, body) = (new.content.headers, new.content.body);
        let record = records::request(&entry, &headers, Some(body), self.clock.stamp_ms());
        let partition = self.partition_for(&topic, &id).await?;
        self.produce(topic.as_str(), partition, records::batch(&record), AckLevel::Durable).await?;
        opening.written = true;
        drop(opening);
        self.requests.keep(self, std::slice::from_ref(&id), replies);
        self.queues.keeper.kept().await?;
        self.requests.wake.notify_one();
        self.metrics.requests_opened.inc();
        Ok(entry)
    }

    /// The partition of a topic that a request or callback goes to; the topic is made if that is allowed.
    pub(crate) async fn partition_for(
        self: &Arc<Self>,
        topic: &TopicName,
        id: &RequestId,
    ) -> Result<PartitionId, BrokerError> {
        let metadata = self.metadata(topic, true).await?;
        Ok(partition_for_key(id.as_str().as_bytes(), metadata.partitions))
    }

    /// A request, and once it has ended the record that decided it; waits for that if asked to.
    ///
    /// # Errors
    /// There is none of this id; the reply cannot be read.
    pub async fn await_request(
        &self,
        id: &RequestId,
        wait: Duration,
    ) -> Result<(RequestEntry, Option<Record>), BrokerError> {
        let until = Instant::now() + wait;
        loop {
            let find = || lock(&self.requests.machine).get(id).cloned().ok_or_else(|| unknown(id));
            find()?;
            // Registered before looking again, so that nothing is missed in between.
            let told = self.requests.waiter(id);
            let entry = find()?;
            if let Some(outcome) = &entry.outcome {
                let record = self.reply_at(outcome.at).await?;
                return Ok((entry, Some(record)));
            }
            if self.requests.is_stopped() {
                return Err(BrokerError::new(ErrorKind::ShuttingDown, "the server is stopping"));
            }
            if tokio::time::timeout_at(until, told).await.is_err() {
                return Ok((entry, None));
            }
        }
    }

    /// Requests, newest first, and whether there are more.
    ///
    /// # Errors
    /// The one that they are to be behind is not known.
    pub fn list_requests(&self, filter: &RequestFilter) -> Result<(Vec<RequestEntry>, bool), BrokerError> {
        let machine = lock(&self.requests.machine);
        let before = filter.before.as_ref().map(|id| machine.get(id).ok_or_else(|| unknown(id))).transpose()?;
        let place = |entry: &RequestEntry| (entry.created_ms, entry.id.clone());
        let before = before.map(place);
        let wanted = |entry: &&&RequestEntry| {
            before.as_ref().is_none_or(|before| place(entry) < *before)
                && filter.state.as_ref().is_none_or(|state| state == super::state_name(entry))
                && filter.topic.as_ref().is_none_or(|topic| entry.steps.contains(topic))
        };
        let list = machine.list();
        let mut found: Vec<_> =
            list.iter().filter(wanted).take(filter.limit.saturating_add(1)).map(|entry| (*entry).clone()).collect();
        let more = found.len() > filter.limit;
        found.truncate(filter.limit);
        Ok((found, more))
    }

    /// Ends a request; what came first holds. When this returns, that is decided.
    ///
    /// # Errors
    /// There is none of this id; the disk's.
    pub async fn cancel_request(self: &Arc<Self>, id: &RequestId) -> Result<RequestEntry, BrokerError> {
        let (entry, _) = self.await_request(id, Duration::ZERO).await?;
        if entry.outcome.is_some() {
            return Ok(entry);
        }
        self.say(id, entry.step, &Word::Cancelled, &Headers::new(), None).await?;
        let (entry, decided) = self.await_request(id, Duration::from_secs(30)).await?;
        match decided {
            Some(_) => Ok(entry),
            None => {
                let message = format!("request {id} was cancelled, and that was not read within 30 s");
                Err(BrokerError::new(ErrorKind::TimedOut, message))
            }
        }
    }

    /// Writes to the topic of replies.
    pub(crate) async fn say(
        &self,
        id: &RequestId,
        step: u32,
        word: &Word,
        headers: &Headers,
        body: Option<Bytes>,
    ) -> Result<(), BrokerError> {
        let record = records::reply(id, step, word, headers, body, self.clock.stamp_ms());
        self.produce(REPLIES, 0, records::batch(&record), AckLevel::Durable).await.map(drop)
    }

    /// Becomes a responder to durable requests on a topic.
    ///
    /// # Errors
    /// As [`Broker::join_queue`].
    pub async fn respond_durable(
        self: &Arc<Self>,
        topic: &TopicName,
        capacity: u32,
        client: String,
    ) -> Result<QueueMember, BrokerError> {
        let group = GroupName::new(&format!("{RESPONDERS}{topic}")).map_err(|error| invalid(error.to_string()))?;
        let topics = vec![TopicPattern::new(topic.as_str())?];
        let start = OffsetAt::Beginning;
        self.join_queue(JoinQueue { group, settings: None, topics, filter: None, start, prefetch: capacity, client })
            .await
    }

    /// Where the reply to a request's record goes.
    pub fn reply_address(record: &Record) -> ReplyAddress {
        ReplyAddress {
            id: records::id_of(record),
            step: records::step_of(record),
            deadline_ms: records::text_of(record, records::DEADLINE).and_then(|text| text.parse().ok()),
            reply_to: records::text_of(record, records::REPLY_TO).and_then(|name| TopicName::new(name).ok()),
        }
    }

    /// Keeps the last word about a durable request; when this returns, it is on the disk. A request that expects no reply
    /// gets none.
    ///
    /// # Errors
    /// The disk's; the topic of a requester that has its own is not there.
    pub async fn reply_durable(self: &Arc<Self>, address: &ReplyAddress, word: LastWord) -> Result<(), BrokerError> {
        let ReplyAddress { id: Some(id), step, reply_to: Some(topic), .. } = address else { return Ok(()) };
        let (word, content) = match word {
            LastWord::Reply(content) => (Word::Reply, Some(content)),
            LastWord::Error { code, text } => (Word::Error { code, text }, None),
        };
        let (headers, body) = content.map_or((Headers::new(), None), |content| (content.headers, Some(content.body)));
        if topic.as_str() == REPLIES {
            return self.say(id, *step, &word, &headers, body).await;
        }
        let record = records::reply(id, *step, &word, &headers, body, self.clock.stamp_ms());
        let partition = self.partition_for(topic, id).await?;
        self.produce(topic.as_str(), partition, records::batch(&record), AckLevel::Durable).await.map(drop)
    }

    /// Whether a record is a request that is not to be delivered any more: its time is over, or it has its outcome.
    pub(crate) fn is_request_over(&self, record: &Record) -> bool {
        let Some(id) = records::text_of(record, records::CORRELATION_ID) else { return false };
        let deadline = records::text_of(record, records::DEADLINE).and_then(|text| text.parse::<TimestampMs>().ok());
        if deadline.is_some_and(|deadline| self.clock.is_over(record.timestamp, deadline)) {
            return true;
        }
        // Requests that others answer in topics of their own are not in the table.
        if records::text_of(record, records::REPLY_TO) != Some(REPLIES) {
            return false;
        }
        RequestId::new(id).is_ok_and(|id| lock(&self.requests.machine).is_over(&id, records::step_of(record)))
    }

    /// Whether a record is a request that expects a reply.
    pub(crate) fn expects_reply(record: &Record) -> bool {
        let address = Self::reply_address(record);
        address.id.is_some() && address.reply_to.is_some()
    }

    /// A request became a dead letter: that is its outcome.
    pub(crate) async fn request_undeliverable(
        self: &Arc<Self>,
        record: &Record,
        text: String,
    ) -> Result<(), BrokerError> {
        let word = LastWord::Error { code: "undeliverable".to_owned(), text };
        self.reply_durable(&Self::reply_address(record), word).await
    }

    /// A record of the topic of replies.
    pub(crate) async fn reply_at(&self, offset: Offset) -> Result<Record, BrokerError> {
        let request = FetchRequest {
            topic: REPLIES,
            partition: 0,
            offset,
            max_bytes: 1,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            skip_damaged: false,
        };
        let fetched = self.fetch(request).await?;
        if let Some(Ok(record)) = self.open_first((REPLIES, 0), fetched.bytes, offset).await?
            && record.offset == offset
        {
            return Ok(record);
        }
        Err(BrokerError::new(
            ErrorKind::NotFound,
            format!("topic '{REPLIES}' has no record at offset {offset} any more"),
        ))
    }
}

/// A request on its way to the disk, which is forgotten if it does not get there.
struct Opening<'a> {
    broker: &'a Broker,
    id: &'a RequestId,
    written: bool,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut machine = lock(&self.broker.requests.machine);
        if self.written { machine.opened(self.id) } else { machine.not_opened(self.id) }
    }
}
