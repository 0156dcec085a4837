//! One task for each partition of a group with members: reads on, hands out, hands out again, buries.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::base::{ErrorKind, Offset, TimestampMs, limits};
use crate::catalog::{Expired, Processed};
use crate::expr::Filter;
use crate::record::{BatchBuilder, BatchOptions, Headers, Record};

use super::super::broker::lock;
use super::super::partition::Stable;
use super::super::records::{Read, Reading};
use super::super::{Broker, BrokerError, Isolation};
use super::group::{Handed, Promise, QueueGroup, QueuePartition};
use super::machine::{Due, Seen};

/// Bytes read at a time, unless one batch is larger.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// Records of one delivery.
const HANDED_RECORDS: usize = 4096;
/// Bytes of records after which a delivery is full.
const HANDED_BYTES: usize = 512 * 1024;
/// Bytes of records that are delivered together at most; one that is larger is delivered alone.
const TOGETHER_BYTES: usize = 8 * 1024 * 1024;
/// Records that nobody can be given, beyond which those that are done are forgotten.
const MOST_UNFIT: usize = 10_000;
/// The longest sleep, and the wait after an error.
const SLEEP: Duration = Duration::from_secs(60);
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// After so long, it is looked again at a record that may have expired, by a wall clock that is doubted.
const DOUBT_MS: TimestampMs = 10_000;

/// The header that says when a record may be delivered, in milliseconds since the Unix epoch.
pub const DELIVER_AT: &str = "tidelog-deliver-at";
/// The header that says from when on a record is of no use, in milliseconds since the Unix epoch.
pub const EXPIRES_AT: &str = "tidelog-expires-at";

/// Records that were read and not yet handed out.
#[derive(Default)]
struct Ahead {
    records: VecDeque<Record>,
    /// Of the records in front, whether the filter wants them; it is asked ahead of the machine's lock.
    wanted: VecDeque<bool>,
    /// The filter that was asked.
    filter: Option<Arc<Filter>>,
    /// Where reading goes on.
    next: Offset,
}

impl Ahead {
    /// The next record, if it is one that `fits`, and whether the filter wants it.
    fn pop_if(&mut self, fits: impl FnOnce(&mut Record) -> bool) -> Option<(Record, bool)> {
        Some((self.records.pop_front_if(fits)?, self.wanted.pop_front().unwrap_or(true)))
    }

    /// Takes note of the filter as it is now. What another one has said counts no more.
    fn set_filter(&mut self, filter: Option<Arc<Filter>>) {
        let same = match (&self.filter, &filter) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.wanted.clear();
            self.filter = filter;
        }
    }
}

pub(super) struct Dispatcher {
    pub(super) broker: Arc<Broker>,
    pub(super) group: Arc<QueueGroup>,
    pub(super) partition: Arc<QueuePartition>,
    ahead: Ahead,
    reading: Reading,
    /// What was read last to be handed out again: records that failed are often neighbours.
    window: (Offset, Vec<Record>, Offset),
    /// Records read that nobody can be given, and why: they are dead at once. As many as can be in what was read.
    pub(super) unfit: BTreeMap<Offset, String>,
    /// Dead letters may have been written that are not known to be done with.
    pub(super) to_recover: bool,
    /// When that is tried to be found out again.
    recover_at: Instant,
}

/// Whether a record is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    No,
    /// By a wall clock that is doubted: nobody is given it, and it is no dead letter.
    Doubted,
    Past,
}

impl Expiry {
    pub(super) fn of(record: &Record, now: TimestampMs, finally: TimestampMs) -> Self {
        match time_of(record, EXPIRES_AT) {
            Some(at) if at <= finally => Self::Past,
            Some(at) if at <= now => Self::Doubted,
            _ => Self::No,
        }
    }
}

enum Next {
    Again,
    /// Nothing to do until something changes.
    Wait(Option<TimestampMs>),
    End,
}

/// Dispatches until there are no members or the partition is closed.
pub(crate) async fn run(broker: Arc<Broker>, group: Arc<QueueGroup>, partition: Arc<QueuePartition>) {
    let watch = broker.topic(partition.topic.as_str()).and_then(|topic| {
        let found = topic.partition(partition.place.partition)?;
        Ok(found.watch())
    });
    let Ok(mut stable) = watch else { return };
    let mut changed = group.changed.subscribe();
    let mut dispatcher = Dispatcher {
        broker,
        group,
        partition,
        ahead: Ahead::default(),
        reading: Reading::with_room(),
        window: (0, Vec::new(), 0),
        unfit: BTreeMap::new(),
        to_recover: true,
        recover_at: Instant::now(),
    };
    loop {
        changed.borrow_and_update();
        let seen = *stable.borrow_and_update();
        // One that always has something to do gives way to others of its thread.
        tokio::task::consume_budget().await;
        let next = match dispatcher.step(seen).await {
            Ok(next) => next,
            Err(error) => {
                let Dispatcher { group, partition, .. } = &dispatcher;
                let number = partition.place.partition;
                tracing::warn!(group = %group.name, topic = %partition.topic, partition = number, %error, "cannot deliver");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let timer = match next {
            Next::Again => continue,
            Next::End => return,
            Next::Wait(timer) => timer,
        };
        // Thousands of groups may wait at a time.
        dispatcher.window = (0, Vec::new(), 0);
        if dispatcher.ahead.records.is_empty() {
            dispatcher.reading.close();
        }
        let (rooms, holds) = (Arc::clone(&dispatcher.broker), dispatcher.reading.is_open());
        let wait = timer.map_or(SLEEP, |at| {
            let ms = u64::try_from(at.saturating_sub(dispatcher.broker.clock.now_ms())).unwrap_or(0);
            Duration::from_millis(ms.max(1)).min(SLEEP)
        });
        let wait = if dispatcher.to_recover { wait.min(PAUSE) } else { wait };
        let closed = tokio::select! {
            result = changed.changed() => result.is_err(),
            result = stable.changed() => result.is_err(),
            () = dispatcher.partition.wake.notified() => false,
            // Others need what this one holds while it waits.
            () = rooms.rooms.wanted(), if holds => {
                dispatcher.ahead = Ahead::default();
                dispatcher.reading.close();
                false
            }
            () = tokio::time::sleep(wait) => false,
        };
        if closed {
            return;
        }
    }
}

impl Dispatcher {
    async fn step(&mut self, stable: Stable) -> Result<Next, BrokerError> {
        if stable.closed || self.partition.is_closed() {
            return Ok(Next::End);
        }
        self.try_to_recover().await?;
        if !self.group.has_members() {
            // What is held because of it must not be held for ever.
            return Ok(if self.to_recover { Next::Wait(None) } else { Next::End });
        }
        let expired = self.with(|machine, now| machine.expire(now));
        self.broker.metrics.leases_expired.inc_by(expired);
        let (due, cursor, room, timer) = {
            let now = self.broker.clock.now_ms();
            let machine = lock(&self.partition.machine);
            (machine.due(now), machine.cursor(), machine.has_room(), machine.next_timer(now))
        };
        if let Some(due) = due {
            if due.dead {
                if self.to_recover {
                    self.with(|machine, now| machine.put_off(due, now + PAUSE.as_millis() as i64));
                } else {
                    self.bury(due).await?;
                }
                return Ok(Next::Again);
            }
            if self.group.is_paused() {
                return Ok(Next::Wait(timer));
            }
            let Some(promise) = self.group.promise(HANDED_RECORDS) else { return Ok(Next::Wait(timer)) };
            self.redeliver(due, promise).await?;
            return Ok(Next::Again);
        }
        if cursor < stable.committed && room && !self.group.is_paused() {
            let Some(promise) = self.group.promise(HANDED_RECORDS) else { return Ok(Next::Wait(timer)) };
            // What is committed may go back for a moment when a log is opened anew after a failed sync.
            let more = self.deliver(cursor, promise).await?;
            return Ok(if more { Next::Again } else { Next::Wait(timer) });
        }
        Ok(Next::Wait(timer))
    }

    /// As long as it is not known what was written as dead letters, none is written; all else goes on.
    async fn try_to_recover(&mut self) -> Result<(), BrokerError> {
        if !self.to_recover || Instant::now() < self.recover_at {
            return Ok(());
        }
        match self.recover().await {
            Err(error) if error.kind() != ErrorKind::ShuttingDown => {
                let (topic, number) = (&self.partition.topic, self.partition.place.partition);
                tracing::warn!(group = %self.group.name, %topic, partition = number, %error, "cannot find out which dead letters were written; trying again");
                self.recover_at = Instant::now() + PAUSE;
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut super::machine::Machine, TimestampMs) -> R) -> R {
        self.group.with(&self.broker, &self.partition, act)
    }

    /// Reads on at the cursor and leases what is read; `false` if there is nothing.
    async fn deliver(&mut self, cursor: Offset, promise: Promise) -> Result<bool, BrokerError> {
        while self.ahead.records.front().is_some_and(|record| record.offset < cursor) {
            self.ahead.pop_if(|_| true);
        }
        if self.ahead.records.is_empty() {
            let Some((records, next)) = self.read(cursor, READ_BYTES).await? else { return Ok(true) };
            if next <= cursor {
                return Ok(false);
            }
            self.ahead = Ahead { records: records.into(), next, ..Ahead::default() };
        }
        let filter = lock(&self.group.inside).filter.clone();
        self.ahead.set_filter(filter);
        self.ask_filter().await?;
        let ordered = self.group.rules().ordered_by_key;
        let dead_letters = self.expired_are_dead_letters()?;
        let mut handed = Vec::new();
        let mut bytes = 0;
        let (ahead, unfit) = (&mut self.ahead, &self.unfit);
        let finally = self.broker.clock.final_ms();
        self.group.with(&self.broker, &self.partition, |machine, now| {
            // So many in one go, whatever becomes of them: the members' acks need the lock, too.
            for _ in 0..HANDED_RECORDS {
                let full = handed.len() >= promise.records || bytes >= HANDED_BYTES || !machine.has_room();
                if full || self.group.is_paused() || (ahead.filter.is_some() && ahead.wanted.is_empty()) {
                    break;
                }
                // Together they make one batch, which is to fit a frame.
                let fits = |record: &mut Record| handed.is_empty() || bytes + record.weight() <= TOGETHER_BYTES;
                let Some((record, wanted)) = ahead.pop_if(fits) else { break };
                let unfit = unfit.contains_key(&record.offset);
                let matches = unfit || wanted;
                // A request that nobody waits for any more is nothing to be told of.
                let over = self.broker.is_request_over(&record);
                let expiry = if matches && !over { Expiry::of(&record, now, finally) } else { Expiry::No };
                let expired = expiry == Expiry::Past;
                let skip = match (matches, over || expired && !dead_letters) {
                    (false, _) => Some(Processed::NotWanted),
                    (true, true) => Some(Processed::Expired),
                    (true, false) => None,
                };
                let seen = Seen {
                    offset: record.offset,
                    key: record.key.as_ref().filter(|_| ordered).map(hash),
                    deliver_at: match expiry {
                        Expiry::Doubted => Some(now.saturating_add(DOUBT_MS)),
                        _ => time_of(&record, DELIVER_AT),
                    },
                    skip,
                    condemned: expired || unfit,
                };
                if machine.admit(seen, promise.member.id, now) {
                    bytes += record.weight();
                    handed.push(record);
                }
            }
            if ahead.records.is_empty() {
                machine.pass(ahead.next);
            }
        });
        self.hand(&promise, 1, &handed);
        Ok(true)
    }

    /// Asks the filter about the next records, if there is one and nothing is known of them.
    async fn ask_filter(&mut self) -> Result<(), BrokerError> {
        let Some(filter) = self.ahead.filter.clone() else { return Ok(()) };
        if !self.ahead.wanted.is_empty() || self.ahead.records.is_empty() {
            return Ok(());
        }
        let at = (self.partition.topic.as_str(), self.partition.place.partition);
        let records = std::mem::take(&mut self.ahead.records);
        let asked = self.broker.ask(&self.group.work, &filter, at, records.into()).await?;
        self.group.tally.add(&asked);
        (self.ahead.records, self.ahead.wanted) = (asked.records.into(), asked.wanted.into());
        Ok(())
    }

    /// Hands out again what is due.
    async fn redeliver(&mut self, due: Due, promise: Promise) -> Result<(), BrokerError> {
        let Some((records, next)) = self.window(due.from).await? else { return Ok(()) };
        let mut due = Due { to: due.to.min(next.max(due.from + 1)), ..due };
        let begin = records.partition_point(|record| record.offset < due.from);
        let end = records.partition_point(|record| record.offset < due.to);
        if let Some(more) = records[begin..end].get(HANDED_RECORDS) {
            due.to = more.offset;
        }
        let records: Vec<Record> = records[begin..end].iter().take(HANDED_RECORDS).cloned().collect();
        let (now, finally) = (self.broker.clock.now_ms(), self.broker.clock.final_ms());
        let dead_letters = self.expired_are_dead_letters()?;
        let (mut handed, mut condemned, mut expired, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut doubted: Vec<Offset> = Vec::new();
        for record in records {
            let together = handed.is_empty() || bytes + record.weight() <= TOGETHER_BYTES;
            if handed.len() >= promise.records || bytes >= HANDED_BYTES || !together {
                due.to = record.offset;
                break;
            }
            if self.unfit.contains_key(&record.offset) {
                condemned.push(record.offset);
                continue;
            }
            let over = self.broker.is_request_over(&record);
            let expiry = Expiry::of(&record, now, finally);
            if !over && expiry == Expiry::Doubted {
                doubted.push(record.offset);
                continue;
            }
            if over || expiry == Expiry::Past {
                if over || !dead_letters { &mut expired } else { &mut condemned }.push(record.offset);
                continue;
            }
            bytes += record.weight();
            handed.push(record);
        }
        let there: Vec<Offset> = handed.iter().map(|record| record.offset).collect();
        let group = Arc::clone(&self.group);
        let leased = self.with(|machine, now| {
            if group.is_paused() {
                return Vec::new();
            }
            condemned.iter().for_each(|offset| machine.condemn(*offset, now));
            for &offset in &doubted {
                machine.put_off(Due { from: offset, to: offset + 1, ..due }, now.saturating_add(DOUBT_MS));
            }
            machine.lease_due(due, (&there, &expired), promise.member.id, now)
        });
        handed.retain(|record| leased.binary_search(&record.offset).is_ok());
        self.broker.metrics.redelivered.inc_by(handed.len() as u64);
        self.hand(&promise, due.failed + 1, &handed);
        Ok(())
    }

    /// What the topic says about records that nobody was given in time.
    fn expired_are_dead_letters(&self) -> Result<bool, BrokerError> {
        Ok(self.broker.topic(self.partition.topic.as_str())?.settings.expired == Expired::DeadLetter)
    }

    fn hand(&self, promise: &Promise, attempt: u32, records: &[Record]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        let mut builder = BatchBuilder::new(BatchOptions { base_offset: first.offset, ..BatchOptions::default() });
        for record in records {
            builder.push_record(record);
        }
        let handed = Handed {
            topic: self.partition.topic.clone(),
            topic_id: self.partition.place.topic,
            partition: self.partition.place.partition,
            // A delivery has far fewer.
            records: u32::try_from(records.len()).unwrap_or(u32::MAX),
            base_offset: first.offset,
            attempt,
            next_offset: last.offset + 1,
            batch: builder.build().freeze(),
        };
        self.broker.metrics.delivered.inc_by(records.len() as u64);
        if !promise.member.hand(handed) {
            self.group.leave(&self.broker, promise.member.id);
        }
        // It may have left between the promise and the lease, when there was nothing of it yet to take back. It has not seen
        // this.
        if !lock(&self.group.inside).members.contains_key(&promise.member.id) {
            self.with(|machine, _| machine.give_back(promise.member.id));
        }
    }

    /// Records around `from` and on, as they were read last if they are among those, and the offset behind them.
    pub(super) async fn window(&mut self, from: Offset) -> Result<Option<(&[Record], Offset)>, BrokerError> {
        let (begin, _, end) = &self.window;
        if !(*begin..*end).contains(&from) {
            if self.reading.is_large() {
                self.ahead = Ahead::default();
            }
            let Some((records, next)) = self.read(from, READ_BYTES).await? else { return Ok(None) };
            self.window = (from, records, next);
        }
        Ok(Some((&self.window.1, self.window.2)))
    }

    /// Records from `from` on, and the offset behind what was read. `None` if something else is to be done first.
    pub(super) async fn read(
        &mut self,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Option<(Vec<Record>, Offset)>, BrokerError> {
        let topic = self.broker.topic(self.partition.topic.as_str())?;
        let number = self.partition.place.partition;
        let start = topic.partition(number)?.log()?.with(|log| log.start_offset());
        if start > from {
            tracing::info!(group = %self.group.name, topic = %self.partition.topic, partition = number, from, start,
                "retention has deleted what the group had not done");
            self.with(|machine, now| machine.forget_below(start, now));
            return Ok(None);
        }
        let topic = self.partition.topic.as_str();
        let Read { mut records, unreadable, next } =
            self.broker.read_on(&mut self.reading, (topic, number), from, max_bytes, Isolation::Committed).await?;
        if self.unfit.len() >= MOST_UNFIT {
            let machine = lock(&self.partition.machine);
            self.unfit.retain(|offset, _| !machine.is_done(*offset));
        }
        for record in &records {
            if let Some(why) = too_large(record) {
                tracing::error!(group = %self.group.name, topic, partition = number, offset = record.offset, why, "a record is dead");
                self.unfit.insert(record.offset, why);
            }
        }
        for one in unreadable {
            self.broker.pass_over(&format!("group {}", self.group.name), topic, number, &one).await;
            self.unfit.insert(one.from, one.to_string());
            // It stands for what cannot be read on its way to the dead letters.
            let timestamp = self.broker.clock.stamp_ms();
            let record = Record { offset: one.from, timestamp, key: None, value: None, headers: Headers::new() };
            let at = records.partition_point(|before| before.offset < one.from);
            records.insert(at, record);
        }
        Ok(Some((records, next)))
    }
}

/// Why a record cannot be handed out: a delivery is a batch that is not compressed. None of that size is accepted; earlier
/// versions took them compressed.
fn too_large(record: &Record) -> Option<String> {
    let (size, limit) = (BatchBuilder::lone_bytes(record), limits::MAX_BATCH_BYTES);
    (size > limit).then(|| format!("a record of {size} bytes cannot be handed out; the limit is {limit}"))
}

pub(super) fn hash(key: &Bytes) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The time in a header; what is no number of milliseconds says nothing.
fn time_of(record: &Record, name: &str) -> Option<TimestampMs> {
    std::str::from_utf8(record.headers.get(name)?).ok()?.trim().parse().ok()
}
