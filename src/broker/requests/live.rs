//! The exchange at work: one lock, held for the table only; requesters and responders are called outside it, by the
//! thread that brought the news.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::{TopicName, TrustedClock};

use super::super::Broker;
use super::super::broker::lock;
use super::super::metrics::Metrics;
use super::super::task;
use super::exchange::{Effect, End, Exchange, NewRequest, ResponderId, Word};
use super::{Content, Ending, LastWord};

/// The longest sleep of the task that ends what is too late.
const SLEEP: Duration = Duration::from_secs(60);

/// Who asked. Called by any thread; must not block.
pub trait Asker: Send + Sync {
    /// A part of the reply. Whether it could be passed on.
    fn part(&self, content: Content);
    /// What became of the request; said once.
    fn finish(&self, ending: Ending);
}

/// Who responds. Called by any thread; must not block.
pub trait Port: Send + Sync {
    /// Takes a request, or says why not.
    ///
    /// # Errors
    /// One line for the requester.
    fn deliver(&self, request: u64, step: u32, timeout: Duration, content: Content) -> Result<(), String>;
}

/// A request to be.
pub struct LiveRequest {
    /// The topic.
    pub topic: TopicName,
    /// Topics whose responders get the reply of the one before.
    pub itinerary: VecDeque<TopicName>,
    /// How long an answer is of use.
    pub timeout: Duration,
    /// The body.
    pub content: Content,
}

type Handles = Exchange<Arc<dyn Asker>, Arc<dyn Port>, Content>;
type Effects = Vec<Effect<Arc<dyn Asker>, Arc<dyn Port>, Content>>;

/// All ephemeral requests.
pub(crate) struct Live {
    exchange: Mutex<Handles>,
    /// Until when the task that ends what is too late sleeps; changed only under the lock of the exchange.
    armed: AtomicU64,
    clock: Arc<TrustedClock>,
    metrics: Arc<Metrics>,
    ids: AtomicU64,
    /// There is an earlier deadline than the one that is slept for.
    earlier: Arc<Notify>,
    timer: OnceLock<()>,
}

/// A responder on a topic; when it is dropped, what it had has failed.
pub struct LiveResponder {
    live: Arc<Live>,
    id: ResponderId,
}

impl Live {
    pub(crate) fn new(clock: Arc<TrustedClock>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            exchange: Mutex::default(),
            armed: AtomicU64::new(u64::MAX),
            clock,
            metrics,
            ids: AtomicU64::new(0),
            earlier: Arc::default(),
            timer: OnceLock::new(),
        })
    }

    fn ask(self: &Arc<Self>, asker_id: u64, asker: Arc<dyn Asker>, request: LiveRequest) {
        let LiveRequest { topic, itinerary, timeout, content } = request;
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let deadline = self.clock.monotonic_ms().saturating_add(timeout);
        let bytes = content.weight();
        let (effects, earlier) = {
            let mut exchange = lock(&self.exchange);
            let new = NewRequest { asker_id, asker, topic, itinerary, deadline, payload: content, bytes };
            let effects = exchange.ask(new);
            let armed = self.armed.load(Ordering::Relaxed);
            (effects, exchange.next_deadline().is_some_and(|next| next < armed))
        };
        // Seldom: as a rule, a request that comes later may stay later.
        if earlier {
            self.earlier.notify_one();
            self.timer.get_or_init(|| {
                task::spawn("requests in memory", end_in_time(Arc::downgrade(self), Arc::clone(&self.earlier)));
            });
        }
        self.perform(effects);
    }

    /// Does what is to be done; what follows from that too.
    fn perform(&self, mut effects: Effects) {
        while !effects.is_empty() {
            let mut more = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Deliver { to, responder, request, step, deadline, payload } => {
                        let left = deadline.saturating_sub(self.clock.monotonic_ms());
                        if let Err(why) = to.deliver(request, step, Duration::from_millis(left), payload) {
                            more.extend(lock(&self.exchange).undelivered(responder, request, why));
                        }
                    }
                    Effect::Part { to, payload } => to.part(payload),
                    Effect::Finish { to, end } => {
                        let ending = ending(end);
                        self.metrics.live_request(&ending);
                        to.finish(ending);
                    }
                }
            }
            effects = more;
        }
    }
}

fn ending(end: End<Content>) -> Ending {
    match end {
        End::Reply(content) => Ending::Reply(content),
        End::Error { code, text, step, topic } => Ending::Error { code, text, step, topic },
        End::NoResponder { step, topic } => Ending::NoResponder { step, topic },
        End::TimedOut { step, topic } => Ending::TimedOut { step, topic },
        End::Overloaded(why) => Ending::Overloaded(why),
    }
}

/// Ends requests whose time is over, as long as the exchange is there.
async fn end_in_time(live: Weak<Live>, earlier: Arc<Notify>) {
    loop {
        let wait = {
            let Some(live) = live.upgrade() else { return };
            let now = live.clock.monotonic_ms();
            let (effects, next) = {
                let mut exchange = lock(&live.exchange);
                let effects = exchange.expire(now);
                let next = exchange.next_deadline();
                live.armed.store(next.unwrap_or(u64::MAX), Ordering::Relaxed);
                (effects, next)
            };
            live.perform(effects);
            next.map_or(SLEEP, |next| Duration::from_millis(next.saturating_sub(now).max(1)).min(SLEEP))
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = earlier.notified() => {}
        }
    }
}

impl Broker {
    /// A number for a requester, of whose requests all are given up together.
    pub fn new_asker(&self) -> u64 {
        self.live.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Asks whoever responds on a topic. `asker` is told what became of it, perhaps before this returns.
    pub fn ask_live(&self, asker_id: u64, asker: Arc<dyn Asker>, request: LiveRequest) {
        self.live.ask(asker_id, asker, request);
    }

    /// A requester is gone, and nothing of it is done any more.
    pub fn abandon_live(&self, asker_id: u64) {
        lock(&self.live.exchange).abandon(asker_id);
    }

    /// Listens on a topic; `port` gets up to `capacity` requests at a time, the first perhaps before this returns.
    pub fn respond_live(
        &self,
        topic: TopicName,
        capacity: usize,
        port: impl FnOnce(u64) -> Arc<dyn Port>,
    ) -> LiveResponder {
        let live = Arc::clone(&self.live);
        let id = live.ids.fetch_add(1, Ordering::Relaxed) + 1;
        let port = port(id);
        let effects = lock(&live.exchange).listen(id, port, topic, capacity.max(1));
        live.perform(effects);
        LiveResponder { live, id }
    }

    /// Requests under way that are not on the disk, and responders.
    pub fn live_counts(&self) -> (usize, usize) {
        lock(&self.live.exchange).counts()
    }
}

impl LiveResponder {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The last word about a request.
    pub fn reply(&self, request: u64, word: LastWord) {
        let word = match word {
            LastWord::Reply(content) => {
                let bytes = content.weight();
                Word::Reply(content, bytes)
            }
            LastWord::Error { code, text } => Word::Error { code, text },
        };
        let (_, effects) = lock(&self.live.exchange).say(self.id, request, word);
        self.live.perform(effects);
    }

    /// A part of a reply; whether somebody still waits for the rest.
    pub fn part(&self, request: u64, content: Content) -> bool {
        let (wanted, effects) = lock(&self.live.exchange).say(self.id, request, Word::Part(content));
        self.live.perform(effects);
        wanted
    }

    /// Whether somebody still waits for the reply to a request that it has.
    pub fn is_wanted(&self, request: u64) -> bool {
        lock(&self.live.exchange).is_wanted(self.id, request)
    }

    /// Stops listening: what it had has failed.
    pub fn leave(&self) {
        let effects = lock(&self.live.exchange).leave(self.id);
        self.live.perform(effects);
    }
}

impl Drop for LiveResponder {
    fn drop(&mut self) {
        self.leave();
    }
}
