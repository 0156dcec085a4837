//! What stands behind a member: joins, takes in what is handed over, sends what is said, joins again after a break.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::base::{ErrorKind, Offset, PartitionId, limits};
use crate::client::connection::{Connection, Feed, Push};
use crate::client::link::{Link, pause};
use crate::client::{ClientError, ConsumedRecord};
use crate::protocol::{Handed, JoinGroup, Settle, SettleOk, Settlement, Verdict};
use crate::record::{Batches, read_records};

use super::delivery::Delivery;

/// Settlements of one request; more wait for the next.
const SETTLEMENTS: usize = 4096;
/// Bytes of reasons in one request, which has to fit a frame's body.
const REASON_BYTES: usize = 256 * 1024;
/// Characters of a reason that are sent.
const REASON_CHARS: usize = 1024;

type Told = oneshot::Sender<Result<SettleOk, ClientError>>;

/// A membership on a connection.
pub(super) struct Opened {
    connection: Arc<Connection>,
    feed: Feed,
}

/// A record that waits for the application.
#[derive(Debug)]
struct Buffered {
    record: ConsumedRecord,
    attempt: u32,
    received: Instant,
}

#[derive(Debug, Default)]
struct Inside {
    buffer: VecDeque<Buffered>,
    /// What is said and not answered yet, in order.
    said: VecDeque<Settlement>,
    /// How many of these, from the front, are on their way.
    sending: usize,
    /// What is to be on the disk before its sender hears of it, and not answered yet, by when it was said.
    durable: BTreeMap<u64, (Vec<Settlement>, Told)>,
    next_durable: u64,
    /// What was acked in a membership that broke before the answer came. It may be handed over again before the ack is
    /// said again.
    acked: HashSet<(String, PartitionId, Offset)>,
    failed: Option<ClientError>,
    over: bool,
    /// The member leaves as soon as what it said is answered.
    leaving: bool,
}

/// How a membership has ended.
enum Ended {
    /// It broke, or the server ended it.
    Broke(ClientError),
    /// The member has left.
    Left,
}

#[derive(Debug)]
pub(super) struct Session {
    link: Arc<Link>,
    request: JoinGroup,
    retry_timeout: Duration,
    lease_ms: AtomicU64,
    inside: Mutex<Inside>,
    /// There is something to send.
    more: Notify,
    /// There is something to send whose sender waits for the disk.
    more_durable: Notify,
    /// There is something to take, or nothing more to come.
    came: Notify,
    /// What was under way has been answered, or the member is to leave.
    answered: Notify,
    /// The group has been joined once: a member that joins again says nothing of what the group is.
    joined: AtomicBool,
}

impl Session {
    pub(super) fn new(link: Arc<Link>, request: JoinGroup, retry_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            link,
            request,
            retry_timeout,
            lease_ms: AtomicU64::new(0),
            inside: Mutex::default(),
            more: Notify::new(),
            more_durable: Notify::new(),
            came: Notify::new(),
            answered: Notify::new(),
            joined: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a record is the member's.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed))
    }

    /// Joins. Whoever joins again takes the group as it is by now: somebody may have changed it, and that is not taken back.
    pub(super) async fn open(&self) -> Result<Opened, ClientError> {
        if self.joined.load(Ordering::Relaxed) {
            let as_it_is = JoinGroup { topics: Vec::new(), filter: None, rules: None, ..self.request.clone() };
            match self.join(&as_it_is).await {
                // A server whose data are new has no group of that name yet.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                joined => return joined,
            }
        }
        self.join(&self.request).await
    }

    async fn join(&self, request: &JoinGroup) -> Result<Opened, ClientError> {
        let connection = self.link.connection().await?;
        let timeout = self.link.config().request_timeout;
        let (answer, feed) = connection.join_group(request, timeout).await?;
        self.lease_ms.store(answer.lease_ms, Ordering::Relaxed);
        self.joined.store(true, Ordering::Relaxed);
        Ok(Opened { connection, feed })
    }

    /// Runs until it fails for good, or the member leaves.
    pub(super) async fn run(self: Arc<Self>, opened: Opened) {
        let mut opened = Some(opened);
        let (mut failures, mut since) = (0, Instant::now());
        loop {
            let error = match opened.take() {
                Some(opened) => {
                    failures = 0;
                    let Ended::Broke(error) = self.serve(opened).await else { return };
                    since = Instant::now();
                    error
                }
                None => {
                    let again = tokio::select! {
                        again = self.open() => again,
                        () = self.leaving() => return,
                    };
                    match again {
                        Ok(again) => {
                            opened = Some(again);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            failures += 1;
            let pause = error.retry_after().unwrap_or_default().max(pause(failures));
            if !error.is_retriable() || since.elapsed() + pause >= self.retry_timeout {
                return self.fail(error);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.leaving() => return,
            }
        }
    }

    /// The member leaves, as soon as all that it said is answered. What it has said nothing of it gives back.
    pub(super) fn leave(&self) {
        {
            let mut inside = self.lock();
            inside.over = true;
            inside.leaving = true;
            inside.buffer.clear();
        }
        self.came.notify_one();
        self.answered.notify_waiters();
    }

    async fn leaving(&self) {
        self.until(|inside| inside.leaving).await;
    }

    /// Waits until something holds that holds when an answer has come or the member is to leave.
    async fn until(&self, holds: impl Fn(&Inside) -> bool) {
        loop {
            let answered = self.answered.notified();
            if holds(&self.lock()) {
                return;
            }
            answered.await;
        }
    }

    /// One membership, until it breaks.
    async fn serve(self: &Arc<Self>, opened: Opened) -> Ended {
        let Opened { connection, mut feed } = opened;
        self.lock().remember_acked();
        let lease = self.lease();
        let member = feed.id();
        let mut sending = std::pin::pin!(self.send(&connection, member));
        let mut left =
            std::pin::pin!(self.until(|inside| inside.leaving && inside.said.is_empty() && inside.durable.is_empty()));
        let error = loop {
            let stale = self.lock().buffer.front().map(|first| first.received + lease / 2);
            tokio::select! {
                push = feed.next() => match push {
                    Push::Handed(handed, payload) => {
                        if let Err(error) = self.take_in(&handed, payload) {
                            break error;
                        }
                    }
                    Push::Ended(error) => break error,
                    // For others only.
                    Push::Delivery(..) | Push::Asked(..) | Push::Part(..) => {}
                },
                // Why the membership is no more is known better by who ended it.
                error = &mut sending => break told_why(&mut feed).await.unwrap_or(error),
                () = &mut left => {
                    // If it cannot be said, the connection is gone, and the membership with it.
                    if let Err(error) = connection.leave_group(feed, self.link.config().request_timeout).await {
                        tracing::debug!(%error, "the group was left without an answer");
                    }
                    return Ended::Left;
                }
                () = tokio::time::sleep_until(stale.unwrap_or_else(|| Instant::now() + lease)) => self.give_back(lease / 2),
            }
        };
        // What nobody has looked at is somebody else's now.
        self.lock().buffer.clear();
        Ended::Broke(error)
    }

    /// What waits for so long that its lease might end is given back, so that it doesn't count as a delivery.
    fn give_back(&self, after: Duration) {
        let mut inside = self.lock();
        while let Some(first) = inside.buffer.pop_front_if(|first| first.received.elapsed() >= after) {
            inside.say(settlement(&first.record, Verdict::Release));
        }
        drop(inside);
        self.more.notify_one();
    }

    fn take_in(&self, handed: &Handed, payload: Bytes) -> Result<(), ClientError> {
        let topic: Arc<str> = handed.topic.as_str().into();
        let received = Instant::now();
        let mut records = Vec::new();
        for batch in Batches::new(payload) {
            let (_, batch) = batch.map_err(damaged)?;
            for record in read_records(&batch, limits::MAX_DECOMPRESSED_BYTES).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                let record = ConsumedRecord {
                    topic: Arc::clone(&topic),
                    partition: handed.partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                };
                records.push(Buffered { record, attempt: handed.attempt, received });
            }
        }
        let mut inside = self.lock();
        if !inside.leaving {
            inside.buffer.extend(records);
        }
        drop(inside);
        self.came.notify_one();
        Ok(())
    }

    pub(super) async fn next(self: &Arc<Self>) -> Option<Result<Delivery, ClientError>> {
        loop {
            {
                let mut inside = self.lock();
                if let Some(Buffered { record, attempt, .. }) = inside.buffer.pop_front() {
                    if inside.acked.contains(&(record.topic.as_ref().to_owned(), record.partition, record.offset)) {
                        // It was done, and is not the application's again. The first ack may have come too early.
                        inside.say(settlement(&record, Verdict::Ack));
                        self.more.notify_one();
                        continue;
                    }
                    return Some(Ok(Delivery::new(record, attempt, Arc::clone(self))));
                }
                if inside.over {
                    return inside.failed.take().map(Err);
                }
            }
            self.came.notified().await;
        }
    }

    /// Says something about a record; it is sent soon.
    pub(super) fn settle(&self, record: &ConsumedRecord, verdict: Verdict) {
        let mut inside = self.lock();
        if !inside.over {
            inside.say(settlement(record, verdict));
            drop(inside);
            self.more.notify_one();
        }
    }

    /// Says something about a record, and waits until that is on the disk.
    pub(super) async fn settle_durable(&self, record: &ConsumedRecord, verdict: Verdict) -> Result<(), ClientError> {
        let told = self.durable(vec![settlement(record, verdict)]).await?;
        if told.lost == 0 {
            return Ok(());
        }
        let message = format!(
            "{}/{} at offset {}: the lease has ended, and the record is somebody else's or comes again",
            record.topic, record.partition, record.offset
        );
        Err(ClientError::new(ErrorKind::TimedOut, message))
    }

    async fn durable(&self, settlements: Vec<Settlement>) -> Result<SettleOk, ClientError> {
        let (sender, told) = oneshot::channel();
        {
            let mut inside = self.lock();
            if inside.over {
                return Err(inside.failed.clone().unwrap_or_else(closed));
            }
            let number = inside.next_durable;
            inside.next_durable += 1;
            inside.durable.insert(number, (settlements, sender));
        }
        self.more_durable.notify_one();
        told.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits until all that was said is on the disk.
    pub(super) async fn flush(&self) -> Result<(), ClientError> {
        self.until(|inside| inside.over || inside.said.is_empty()).await;
        self.durable(Vec::new()).await.map(drop)
    }

    /// Sends what is said: one request under way for what may wait, and beside it those whose senders wait for the disk.
    async fn send(&self, connection: &Arc<Connection>, member: u64) -> ClientError {
        let loose = async {
            loop {
                let settlements = self.to_send();
                if settlements.is_empty() {
                    self.more.notified().await;
                    continue;
                }
                match self.ask(connection, member, settlements, false).await {
                    Ok(_) => self.sent(),
                    Err(error) => return error,
                }
            }
        };
        let strict = async {
            let mut from = 0;
            loop {
                let waiting: Vec<_> = {
                    let inside = self.lock();
                    inside
                        .durable
                        .range(from..)
                        .map(|(number, (settlements, _))| (*number, settlements.clone()))
                        .collect()
                };
                let Some((last, _)) = waiting.last() else {
                    self.more_durable.notified().await;
                    continue;
                };
                from = last + 1;
                let asked = waiting.into_iter().map(async |(number, settlements)| {
                    let answer = self.ask(connection, member, settlements, true).await?;
                    if let Some((_, told)) = self.lock().durable.remove(&number) {
                        // Who no longer waits need not know.
                        let _ = told.send(Ok(answer));
                    }
                    self.answered.notify_waiters();
                    Ok::<(), ClientError>(())
                });
                let outcomes = futures_util::future::join_all(asked).await;
                if let Some(Err(error)) = outcomes.into_iter().find(Result::is_err) {
                    return error;
                }
            }
        };
        tokio::select! {
            error = loose => error,
            error = strict => error,
        }
    }

    /// What is to be sent next. It stays where it is until it is answered: said twice, after a break, it changes nothing.
    fn to_send(&self) -> Vec<Settlement> {
        let mut inside = self.lock();
        let (mut count, mut bytes) = (0, 0);
        for settlement in inside.said.iter().take(SETTLEMENTS) {
            if let Verdict::Nack { reason: Some(reason), .. } = &settlement.verdict {
                bytes += reason.len();
            }
            if bytes > REASON_BYTES {
                break;
            }
            count += 1;
        }
        inside.sending = count;
        inside.said.iter().take(count).cloned().collect()
    }

    fn sent(&self) {
        let mut inside = self.lock();
        let sent = std::mem::take(&mut inside.sending).min(inside.said.len());
        inside.said.drain(..sent);
        drop(inside);
        self.answered.notify_waiters();
    }

    async fn ask(
        &self,
        connection: &Arc<Connection>,
        member: u64,
        settlements: Vec<Settlement>,
        durable: bool,
    ) -> Result<SettleOk, ClientError> {
        let request = Settle { member, settlements, durable };
        connection.ask(&request, self.link.config().request_timeout).await
    }

    fn fail(&self, error: ClientError) {
        let durable = {
            let mut inside = self.lock();
            inside.over = true;
            inside.failed = Some(error.clone());
            inside.said.clear();
            std::mem::take(&mut inside.durable)
        };
        for (_, told) in durable.into_values() {
            let _ = told.send(Err(error.clone()));
        }
        self.came.notify_one();
        self.answered.notify_waiters();
    }
}

impl Inside {
    fn remember_acked(&mut self) {
        let pending = self.durable.values().flat_map(|(settlements, _)| settlements);
        let acks = self.said.iter().chain(pending).filter(|settlement| settlement.verdict == Verdict::Ack);
        let each = |of: &Settlement| {
            let (topic, partition) = (of.topic.clone(), of.partition);
            (of.from..of.to).map(move |offset| (topic.clone(), partition, offset))
        };
        self.acked = acks.flat_map(each).collect();
    }

    /// Adds to the last settlement what goes on where it ends, unless that is on its way.
    fn say(&mut self, settlement: Settlement) {
        if self.said.len() > self.sending
            && let Some(last) = self.said.back_mut()
            && last.verdict == settlement.verdict
            && (last.partition, last.to) == (settlement.partition, settlement.from)
            && last.topic == settlement.topic
        {
            last.to = settlement.to;
            return;
        }
        self.said.push_back(settlement);
    }
}

fn settlement(record: &ConsumedRecord, mut verdict: Verdict) -> Settlement {
    if let Verdict::Nack { reason: Some(reason), .. } = &mut verdict
        && let Some((end, _)) = reason.char_indices().nth(REASON_CHARS)
    {
        reason.truncate(end);
    }
    Settlement {
        topic: record.topic.as_ref().to_owned(),
        partition: record.partition,
        from: record.offset,
        to: record.offset + 1,
        verdict,
    }
}

/// Why a feed ended, if that is heard soon.
async fn told_why(feed: &mut Feed) -> Option<ClientError> {
    let ended = async {
        loop {
            if let Push::Ended(error) = feed.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1), ended).await.ok()
}

fn closed() -> ClientError {
    ClientError::new(ErrorKind::Disconnected, "the member has left its group")
}

fn damaged(error: crate::record::BatchError) -> ClientError {
    let message = format!("what the server handed over is damaged: {error}");
    ClientError::caused(ErrorKind::CorruptBatch, message, error)
}
