//! One push subscription at work.
//!
//! It is a member of its group only as long as its endpoint is believed to take something: while that rests, the group has
//! no member, and its records wait as they do for anybody. A delivery is a call that the endpoint was reached with; what
//! could not be sent counts as not looked at. A runner that ends hands back what is not under way and waits for the rest.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::message::{self, Item, Sender};
use crate::base::{ErrorKind, limits};
use crate::broker::{
    BrokerError, Handed, JoinQueue, OffsetAt, PushStats, QueueMember, Settlement, Verdict, signing_secrets,
};
use crate::catalog::{PushEndpoint, PushEntry, PushHeader, QueueSettings};
use crate::record::read_records;
use crate::server::budget::{Account, Grant, Holder};
use crate::server::outgoing::Url;
use crate::server::shared::Shared;
use crate::server::webhooks::patience::{Patience, pause};
use crate::server::webhooks::{self, OVERHEAD, Said};

/// Bytes that wait to be taken into hand, beyond which the group hands out nothing more.
const QUEUED_BYTES: usize = 128 * 1024;
/// Bytes of records that are sent together, unless one is larger.
const BATCH_BYTES: usize = 1024 * 1024;
/// What a record in hand takes in memory, as a multiple of its bytes: as it came, and as a part of a batch.
const TIMES: usize = 3;
/// And beside that.
const ENVELOPE: usize = 1024;
/// The wait after something of ours did not work.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two extensions of leases.
const EXTEND: Duration = Duration::from_millis(20);

/// What a runner has and knows.
pub struct Runner {
    shared: Arc<Shared>,
    entry: PushEntry,
    /// What goes with each call, and its bytes.
    headers: Arc<HeaderMap>,
    header_bytes: usize,
    stats: Arc<PushStats>,
    account: Arc<Account>,
    patience: Patience,
    /// When the endpoint last gave an answer.
    answered_at: Option<Instant>,
}

/// Why a membership ends.
#[derive(Debug)]
enum End {
    /// The runner is to end.
    Stopped,
    /// The endpoint rests, or has rested long enough to be tried with more.
    Rejoin,
    /// It wants no more of them.
    Gone(String),
    /// There is nothing to be a member of.
    Failed(BrokerError),
}

/// A record in hand, and its share of the budget.
struct Held {
    item: Item,
    grant: Arc<Grant>,
}

/// A call that has come to its end.
struct Sent {
    number: u64,
    began: Instant,
    said: Said,
}

type Taking = Pin<Box<dyn Future<Output = Grant> + Send>>;

/// A membership.
struct Session<'a> {
    runner: &'a mut Runner,
    member: QueueMember,
    /// Calls at a time.
    calls: usize,
    /// It was joined to see whether the endpoint is back.
    probing: bool,
    /// Records that are not under way.
    hand: VecDeque<Held>,
    /// What is in each call.
    under_way: BTreeMap<u64, Vec<Held>>,
    flying: JoinSet<Sent>,
    count: u64,
    /// What was handed over and waits for its share of the budget.
    arriving: Option<(Handed, Taking)>,
    end: Option<End>,
}

impl Runner {
    /// One for this subscription.
    pub fn new(shared: Arc<Shared>, entry: PushEntry) -> Self {
        let account = shared.outgoing.account(shared.config.max_connection_bytes.as_usize(), Holder::calls());
        let stats = shared.broker.push_stats(&entry.name);
        let patience = Patience::new(shared.config.outgoing_pause.as_duration());
        let headers = Arc::new(headers_of(&entry.endpoint));
        let header_bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        Self { shared, entry, headers, header_bytes, stats, account, patience, answered_at: None }
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let url: Url = match self.entry.url.parse() {
            Ok(url) => url,
            // Written by another version, which had it checked.
            Err(reason) => {
                self.stats.trouble(&reason, self.shared.clock.now_ms());
                let _ = stop.wait_for(|stop| *stop).await;
                return;
            }
        };
        loop {
            let now = Instant::now();
            let rest = self.patience.rests_until().filter(|until| *until > now);
            let ms = rest.map(|until| i64::try_from((until - now).as_millis()).unwrap_or(i64::MAX));
            self.stats.rests(ms.map(|ms| self.shared.clock.now_ms().saturating_add(ms)));
            if wait(&mut stop, rest.unwrap_or(now)).await {
                return;
            }
            match self.session(&url, &mut stop).await {
                End::Stopped => return,
                End::Rejoin => {}
                End::Failed(error) => {
                    // A group that was reset is to be joined again; one that was deleted has nothing more.
                    if !matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound | ErrorKind::ShuttingDown) {
                        tracing::warn!(push = %self.entry.name, %error, "cannot take records");
                        self.stats.trouble(&error.to_string(), self.shared.clock.now_ms());
                    }
                    if wait(&mut stop, Instant::now() + PAUSE).await {
                        return;
                    }
                }
                End::Gone(reason) => {
                    let paused = self.shared.broker.pause_push(&self.entry.name, Some(reason)).await;
                    if let Err(error) = paused {
                        tracing::warn!(push = %self.entry.name, %error, "cannot be paused; trying again");
                    }
                    if wait(&mut stop, Instant::now() + PAUSE).await {
                        return;
                    }
                }
            }
        }
    }

    /// Is a member once.
    async fn session(&mut self, url: &Url, stop: &mut watch::Receiver<bool>) -> End {
        let probing = self.patience.is_doubtful();
        let calls = if probing { 1 } else { self.entry.concurrency as usize };
        let join = JoinQueue {
            group: self.entry.name.clone(),
            settings: None,
            topics: Vec::new(),
            filter: None,
            start: OffsetAt::Beginning,
            prefetch: u32::try_from(calls).unwrap_or(u32::MAX).saturating_mul(self.entry.batch.unwrap_or(1)),
            client: format!("push {}", self.entry.url),
        };
        let member = match self.shared.broker.join_queue_within(join, QUEUED_BYTES).await {
            Ok(member) => member,
            Err(error) => return End::Failed(error),
        };
        let session = Session {
            runner: self,
            member,
            calls,
            probing,
            hand: VecDeque::new(),
            under_way: BTreeMap::new(),
            flying: JoinSet::new(),
            count: 0,
            arriving: None,
            end: None,
        };
        session.run(url, stop).await
    }
}

/// The headers of an endpoint, as they go with each call. No log shows their values.
fn headers_of(endpoint: &PushEndpoint) -> HeaderMap {
    let of = |header: &PushHeader| {
        let mut value = HeaderValue::from_str(header.value.reveal()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(&header.name).ok()?, value))
    };
    // They were looked at when they were set.
    endpoint.headers.iter().filter_map(of).collect()
}

/// Waits until then; `true` if it is to stop.
async fn wait(stop: &mut watch::Receiver<bool>, until: Instant) -> bool {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => true,
        () = tokio::time::sleep_until(until) => false,
    }
}

/// The share of the budget that is waited for.
async fn granted(arriving: &mut Option<(Handed, Taking)>) -> Option<Grant> {
    match arriving {
        Some((_, taking)) => Some(taking.await),
        None => None,
    }
}

impl Session<'_> {
    async fn run(mut self, url: &Url, stop: &mut watch::Receiver<bool>) -> End {
        let every = Duration::from_millis(self.member.lease_ms() / 3).max(EXTEND);
        let mut extend = tokio::time::interval_at(Instant::now() + every, every);
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while self.end.is_none() && self.flying.len() < self.calls && self.send_next(url) {}
            if self.flying.is_empty()
                && let Some(end) = self.end.take()
            {
                self.member.retire();
                return end;
            }
            let ending = self.end.is_some();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop), if !ending => self.end = Some(End::Stopped),
                Some(sent) = self.flying.join_next(), if !self.flying.is_empty() => match sent {
                    Ok(sent) => self.settle(sent),
                    Err(error) => {
                        // Its records are handed out again when their lease is over.
                        tracing::error!(push = %self.runner.entry.name, %error, "a call ended without a result");
                        self.end = Some(End::Rejoin);
                    }
                },
                handed = self.member.next(), if !ending && self.hand.is_empty() && self.arriving.is_none() => match handed {
                    Some(handed) => self.arrive(handed),
                    None => self.end = Some(End::Failed(self.member.ended())),
                },
                Some(grant) = granted(&mut self.arriving), if !ending && self.arriving.is_some() => {
                    if let Some((handed, _)) = self.arriving.take() {
                        self.take_in(handed, grant);
                    }
                },
                _ = extend.tick() => self.extend_all(),
            }
        }
    }

    /// Waits for room for what was handed over.
    fn arrive(&mut self, handed: Handed) {
        let records = usize::try_from(handed.records).unwrap_or(usize::MAX);
        let headers = self.runner.header_bytes.saturating_mul(records.min(self.calls));
        let bytes = handed.batch.len().saturating_mul(TIMES) + records.saturating_mul(ENVELOPE) + OVERHEAD + headers;
        let account = Arc::clone(&self.runner.account);
        self.arriving = Some((handed, Box::pin(async move { account.take(bytes).await })));
    }

    fn take_in(&mut self, handed: Handed, grant: Grant) {
        self.member.sent(handed.batch.len());
        let grant = Arc::new(grant);
        let records = read_records(&handed.batch, limits::MAX_DECOMPRESSED_BYTES);
        // The broker has made this batch.
        for record in records.into_iter().flatten().filter_map(Result::ok) {
            let item = Item {
                topic: handed.topic.clone(),
                topic_id: handed.topic_id,
                partition: handed.partition,
                attempt: handed.attempt,
                record,
            };
            self.hand.push_back(Held { item, grant: Arc::clone(&grant) });
        }
    }

    /// Sends what is next in hand; `false` if there is nothing.
    fn send_next(&mut self, url: &Url) -> bool {
        let rules = self.member.rules();
        let most = self.runner.entry.batch;
        let limit = |held: &Held| together(most.unwrap_or(1), held.item.attempt, &rules);
        let mut unit: Vec<Held> = Vec::new();
        let mut bytes = 0;
        let mut room = usize::MAX;
        while let Some(held) = self.hand.front() {
            room = room.min(limit(held) as usize);
            let weight = held.item.record.weight();
            if unit.len() >= room || !unit.is_empty() && bytes + weight > BATCH_BYTES {
                break;
            }
            let Some(held) = self.hand.pop_front() else { break };
            // One whose lease has ended comes again.
            if self.say(&[&held], &Verdict::Extend) == 1 {
                bytes += weight;
                unit.push(held);
            }
        }
        if unit.is_empty() {
            return false;
        }
        self.count += 1;
        let number = self.count;
        let items: Vec<Item> = unit.iter().map(|held| held.item.clone()).collect();
        self.runner.stats.sent(unit.len());
        self.under_way.insert(number, unit);
        let (shared, own) = (Arc::clone(&self.runner.shared), Arc::clone(&self.runner.headers));
        let secrets = signing_secrets(&self.runner.entry.endpoint, &shared.secrets, &shared.clock);
        let (push, url, timeout) = (self.runner.entry.name.clone(), url.clone(), self.runner.entry.timeout_ms);
        self.flying.spawn(async move {
            let began = Instant::now();
            let sender = Sender { push: &push, secrets: &secrets, headers: &own, now_ms: shared.clock.now_ms() };
            let (headers, body) = match (most, items.as_slice()) {
                (None, [item]) => message::single(sender, item),
                _ => message::batch(sender, &items),
            };
            drop(items);
            let timeout = timeout.map_or(shared.calls.timeout(), Duration::from_millis);
            let said = webhooks::post(&shared.calls, url, headers, body, timeout, || shared.clock.now_ms()).await;
            Sent { number, began, said }
        });
        true
    }

    /// Takes what became of a call.
    fn settle(&mut self, sent: Sent) {
        let Some(unit) = self.under_way.remove(&sent.number) else { return };
        let (now, now_ms) = (Instant::now(), self.runner.shared.clock.now_ms());
        let runner = &mut *self.runner;
        runner.stats.back(unit.len());
        if matches!(sent.said, Said::Taken | Said::Refused(..) | Said::Gone(_)) {
            runner.patience.answered();
            runner.answered_at = Some(now);
        }
        match &sent.said {
            Said::Taken => runner.stats.delivered(unit.len(), now_ms),
            Said::Refused(reason, _) | Said::Silent(reason) => runner.stats.failed(unit.len(), reason, now_ms),
            Said::Unreachable(reason) | Said::Gone(reason) => runner.stats.trouble(reason, now_ms),
            Said::NoTurn => {}
        }
        match &sent.said {
            Said::Refused(_, Some(asked)) => runner.patience.wait(*asked, now),
            // One that speaks meanwhile does not rest for the sake of a record that it cannot cope with.
            Said::Silent(_) if runner.answered_at.is_none_or(|at| at < sent.began) => {
                runner.patience.silent(fastrand::f64(), now);
            }
            Said::Unreachable(_) => runner.patience.silent(fastrand::f64(), now),
            Said::NoTurn => runner.patience.wait(runner.shared.config.outgoing_pause.as_duration(), now),
            _ => {}
        }
        let rests = self.runner.patience.rests_until().is_some_and(|until| until > now);
        if self.end.is_none() {
            if let Said::Gone(reason) = &sent.said {
                self.end = Some(End::Gone(reason.clone()));
            } else if rests || self.probing && !self.runner.patience.is_doubtful() {
                self.end = Some(End::Rejoin);
            }
        }
        self.say_of(&unit, &sent.said);
        drop(unit.into_iter().map(|held| held.grant));
    }

    fn say_of(&self, unit: &[Held], said: &Said) {
        let all: Vec<&Held> = unit.iter().collect();
        let (reason, asked) = match said {
            Said::Taken => {
                self.say(&all, &Verdict::Ack);
                return;
            }
            Said::Gone(_) | Said::Unreachable(_) | Said::NoTurn => {
                self.say(&all, &Verdict::Release);
                return;
            }
            Said::Refused(reason, asked) => (reason, asked.unwrap_or_default()),
            Said::Silent(reason) => (reason, Duration::ZERO),
        };
        let rules = self.member.rules();
        for held in unit {
            let wait = backoff(&rules, held.item.attempt, fastrand::f64()).max(asked);
            let delay_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            self.say(&[held], &Verdict::Nack { delay_ms, reason: Some(reason.clone()) });
        }
    }

    /// What still is in hand stays ours.
    fn extend_all(&self) {
        let under_way = self.under_way.values().flatten();
        let all: Vec<&Held> = self.hand.iter().chain(under_way).collect();
        self.say(&all, &Verdict::Extend);
        if let Some((handed, _)) = &self.arriving {
            let settlement = Settlement {
                topic: handed.topic.clone(),
                partition: handed.partition,
                from: handed.base_offset,
                to: handed.next_offset,
                verdict: Verdict::Extend,
            };
            self.member.settle_now(&[settlement]);
        }
    }

    /// Says something of records; of how many it was good for.
    fn say(&self, of: &[&Held], verdict: &Verdict) -> u64 {
        let mut settlements: Vec<Settlement> = Vec::new();
        for held in of {
            let Item { topic, partition, record, .. } = &held.item;
            match settlements.last_mut() {
                Some(last) if (&last.topic, last.partition, last.to) == (topic, *partition, record.offset) => {
                    last.to += 1;
                }
                _ => settlements.push(Settlement {
                    topic: topic.clone(),
                    partition: *partition,
                    from: record.offset,
                    to: record.offset + 1,
                    verdict: verdict.clone(),
                }),
            }
        }
        self.member.settle_now(&settlements).settled
    }
}

/// How many records go with one that is delivered for this time: fewer each time, and at last it goes alone, so that what
/// an endpoint cannot cope with makes no dead letters of its neighbours.
pub(super) fn together(most: u32, attempt: u32, rules: &QueueSettings) -> u32 {
    if attempt > 1 && attempt >= rules.max_deliveries {
        return 1;
    }
    (most >> attempt.saturating_sub(1).min(31)).max(1)
}

/// The wait after a delivery that failed.
pub(super) fn backoff(rules: &QueueSettings, attempt: u32, jitter: f64) -> Duration {
    let (first, longest) = (Duration::from_millis(rules.backoff_ms), Duration::from_millis(rules.backoff_max_ms));
    pause(attempt.saturating_sub(1), first, longest, jitter)
}
