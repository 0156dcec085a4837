//! The task that routes one partition: read, evaluate, write, and only then move on.
//!
//! While one portion is written the next is evaluated. What is durable is handed to the keeper, which saves it soon; until then a
//! crash makes the same records be routed again, and what the logs of the destinations show to be there is left out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::base::{ErrorKind, Offset, TimestampMs, TopicName, limits};
use crate::catalog::{Event, RouteProgress};
use crate::record::Record;
use crate::route::{Aggregate, Effect, Failure};

use super::super::broker::{blocking, lock};
use super::super::hold::Hold;
use super::super::task;
use super::super::{Broker, BrokerError, FetchRequest};
use super::active::{ActiveRoute, Found, Reading};
use super::evaluator::{Evaluator, Portion};
use super::mark::{self, Mark, ROUND};
use super::writer::Writer;

/// Bytes read at a time, unless one batch is larger.
const READ_BYTES: usize = 1024 * 1024;
/// The longest wait for records.
const WAIT: Duration = Duration::from_secs(60);
/// The first and the longest wait after an error.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Wholes that are given up at a time.
const LATE: usize = 100;

/// Why a runner ends.
enum End {
    /// It was told to, or the topic is gone.
    Stopped,
    /// To begin anew from what is durable.
    Again,
    /// The route is paused, and nothing is half written.
    Paused,
}

struct Runner {
    broker: Arc<Broker>,
    active: Arc<ActiveRoute>,
    reading: Arc<Reading>,
    writer: Writer,
    stop: watch::Receiver<bool>,
    /// `None` while it is at work.
    evaluator: Option<Evaluator>,
    /// Where reading goes on.
    cursor: Offset,
    pause: Duration,
}

/// Routes a partition until it is told to stop or the topic is gone. Of a route that is paused it finishes what is half written,
/// and ends.
pub(super) async fn run(
    broker: Arc<Broker>,
    active: Arc<ActiveRoute>,
    reading: Arc<Reading>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = PAUSE.0;
    loop {
        if *stop.borrow() || reading.is_closed() {
            break;
        }
        match Runner::begin(&broker, &active, &reading, stop.clone()).await {
            Ok(mut runner) => match runner.work().await {
                End::Again => continue,
                End::Stopped => break,
                End::Paused => {
                    // Under the lock: whoever lets the route go on either is seen here or finds no runner.
                    let mut held = lock(&reading.runner);
                    if lock(&active.entry).paused {
                        if !*stop.borrow() {
                            *held = None;
                        }
                        break;
                    }
                    continue;
                }
            },
            Err(error) => {
                reading.note_trouble(broker.clock.now_ms(), error.to_string(), true);
                tracing::warn!(route = %reading.place.route, topic = %reading.topic, %error, "cannot begin to route");
            }
        }
        let stopped = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
        if stopped.is_ok() {
            break;
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

impl Runner {
    /// Looks up what is there, and builds anew what waits.
    async fn begin(
        broker: &Arc<Broker>,
        active: &Arc<ActiveRoute>,
        reading: &Arc<Reading>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, BrokerError> {
        if lock(&reading.inside).progress.producer == 0 {
            let (broker, reading) = (Arc::clone(broker), Arc::clone(reading));
            blocking(move || name_producer(&broker, &reading)).await?;
        }
        let progress = lock(&reading.inside).progress.clone();
        survey(broker, active, reading).await?;
        let marks = lock(&reading.marks).clone();
        let route = active.route();
        let (topic, partition) = (reading.topic.clone(), reading.place.partition);
        let mut counts = progress.counts.clone();
        let version = lock(&active.entry).version;
        if counts.version != version {
            (counts.version, counts.by_rule) = (version, Vec::new());
        }
        let aggregate = match &route.spec().aggregate {
            Some(aggregate) => {
                let mut waiting = Aggregate::new(aggregate.timeout);
                for (offset, since_ms) in &progress.open {
                    // One that retention has deleted is missing from its whole, which is found out in time.
                    if let Some(record) = record_at(broker, reading, *offset).await? {
                        waiting.add(&record, *since_ms);
                    }
                }
                Some(waiting)
            }
            None => None,
        };
        let evaluator = Evaluator {
            broker: Arc::clone(broker),
            active: Arc::clone(active),
            route,
            topic,
            partition,
            aggregate,
            counts,
        };
        let mut runner = Self {
            broker: Arc::clone(broker),
            active: Arc::clone(active),
            reading: Arc::clone(reading),
            writer: Writer::new(Arc::clone(broker), Arc::clone(reading), progress.producer, marks),
            stop,
            evaluator: Some(evaluator),
            cursor: progress.offset,
            pause: PAUSE.0,
        };
        if !progress.expired.is_empty() && runner.bury(&progress).await.is_err() {
            return Err(BrokerError::new(ErrorKind::ShuttingDown, "stopped"));
        }
        Ok(runner)
    }

    async fn work(&mut self) -> End {
        // What was evaluated and not written yet.
        let mut ahead: Option<Portion> = None;
        loop {
            if self.stopped() {
                return End::Stopped;
            }
            if ahead.is_none() && lock(&self.active.entry).paused && !lock(&self.reading.inside).is_half_written() {
                return End::Paused;
            }
            let outcome = match ahead.take() {
                None => self.read_on().await,
                Some(portion) => self.write_and_read_on(portion).await,
            };
            match outcome {
                Ok(next) => ahead = next,
                Err(end) => return end,
            }
        }
    }

    /// When the next parts have waited too long, in milliseconds from now. Not before what was written before a kill is passed: of
    /// parts that wait by the position a log may hold the whole already.
    fn time_left(&self) -> Option<i64> {
        if lock(&self.reading.inside).has_left_over() {
            return None;
        }
        let deadline = self.evaluator.as_ref()?.aggregate.as_ref()?.deadline()?;
        Some(deadline.saturating_sub(self.broker.clock.certain_ms()))
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow() || self.reading.is_closed()
    }

    /// Writes a portion, and evaluates the next meanwhile.
    async fn write_and_read_on(&mut self, portion: Portion) -> Result<Option<Portion>, End> {
        let late = self.time_left().is_some_and(|left| left <= 0);
        let next = if portion.stopped.is_none() && !late { self.start_next().await } else { None };
        self.write(&portion).await?;
        self.moved(&portion, portion.next);
        if let Some(error) = &portion.stopped {
            drop(next);
            self.wait_after(&error.to_string()).await?;
            return Ok(None);
        }
        let Some(next) = next else { return Ok(None) };
        self.finish_next(next).await
    }

    /// Reads what is there and starts to evaluate it.
    async fn start_next(&mut self) -> Option<tokio::task::JoinHandle<(Evaluator, Result<Portion, BrokerError>)>> {
        let (bytes, end) = self.fetch(Duration::ZERO).await.ok()?;
        if bytes.is_empty() && end <= self.cursor {
            return None;
        }
        self.evaluate(bytes, end)
    }

    fn evaluate(
        &mut self,
        bytes: Bytes,
        end: Offset,
    ) -> Option<tokio::task::JoinHandle<(Evaluator, Result<Portion, BrokerError>)>> {
        let (mut evaluator, from) = (self.evaluator.take()?, self.cursor);
        // A route that is paused finishes what is half written, and nothing else.
        let paused = lock(&self.active.entry).paused;
        let until = if paused { lock(&self.reading.inside).left_over_end() } else { Offset::MAX };
        let turns = Arc::clone(&self.broker.routes.evaluating);
        Some(task::spawn("evaluation of a route", async move {
            // As many at a time as there are processors: the pool has other work too.
            let _turn = turns.acquire_owned().await;
            blocking(move || {
                let portion = evaluator.portion(bytes, from..until, end);
                (evaluator, portion)
            })
            .await
        }))
    }

    async fn finish_next(
        &mut self,
        task: tokio::task::JoinHandle<(Evaluator, Result<Portion, BrokerError>)>,
    ) -> Result<Option<Portion>, End> {
        // The task ends only with the runtime.
        let Ok((evaluator, portion)) = task.await else { return Err(End::Stopped) };
        self.evaluator = Some(evaluator);
        match portion {
            Ok(portion) => {
                self.cursor = portion.next;
                for unreadable in &portion.unreadable {
                    let place = &self.reading.place;
                    let route = format!("route {}", place.route);
                    self.broker.pass_over(&route, self.reading.topic.as_str(), place.partition, unreadable).await;
                }
                Ok(Some(portion))
            }
            Err(error) => {
                self.wait_after(&error.to_string()).await?;
                Ok(None)
            }
        }
    }

    /// Nothing is in flight: sees to parts that have waited too long, and waits for records.
    async fn read_on(&mut self) -> Result<Option<Portion>, End> {
        let left = self.time_left();
        if left.is_some_and(|left| left <= 0) {
            self.give_up().await?;
            return Ok(None);
        }
        let left = left.and_then(|left| u64::try_from(left).ok()).map_or(WAIT, Duration::from_millis);
        let mut stop = self.stop.clone();
        let fetched = tokio::select! {
            fetched = self.fetch(left.min(WAIT)) => fetched,
            _ = stop.wait_for(|stop| *stop) => return Err(End::Stopped),
        };
        let (bytes, end) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                self.cannot_read(error).await?;
                return Ok(None);
            }
        };
        if bytes.is_empty() && end <= self.cursor {
            return Ok(None);
        }
        let Some(task) = self.evaluate(bytes, end) else { return Err(End::Stopped) };
        self.finish_next(task).await
    }

    /// Batches from the cursor on, and the offset behind them.
    async fn fetch(&self, max_wait: Duration) -> Result<(Bytes, Offset), BrokerError> {
        let request = FetchRequest {
            topic: self.reading.topic.as_str(),
            partition: self.reading.place.partition,
            offset: self.cursor,
            max_bytes: READ_BYTES,
            min_bytes: 1,
            max_wait,
            skip_damaged: false,
        };
        self.broker.fetch(request).await.map(|fetched| (fetched.bytes, fetched.next_offset))
    }

    async fn cannot_read(&mut self, error: BrokerError) -> Result<(), End> {
        let known = self.broker.topic(self.reading.topic.as_str());
        if !known.is_ok_and(|topic| topic.entry.id == self.reading.place.topic) {
            return Err(End::Stopped);
        }
        match error.range() {
            Some((start, _)) if error.kind() == ErrorKind::OffsetOutOfRange && start > self.cursor => {
                let message = format!(
                    "retention has deleted offsets {} to {} before they were routed; going on at {start}",
                    self.cursor,
                    start - 1
                );
                tracing::warn!(route = %self.reading.place.route, topic = %self.reading.topic, message);
                self.cursor = start;
                let mut inside = lock(&self.reading.inside);
                inside.progress.offset = start;
                drop(inside);
                self.reading.note_trouble(self.broker.clock.now_ms(), message, false);
                self.broker.routes.keeper.note(&self.reading);
                Ok(())
            }
            _ => self.wait_after(&error.to_string()).await,
        }
    }

    /// Writes a portion, however often it takes.
    async fn write(&mut self, portion: &Portion) -> Result<(), End> {
        self.source_is_durable(portion.next).await?;
        if portion.made.is_empty() {
            return Ok(());
        }
        let broker = Arc::clone(&self.broker);
        loop {
            // Who makes a topic larger waits for what is being written: keys must not change places in between.
            let gate = broker.routes.gate.read().await;
            if portion.epoch != broker.routes.epoch() {
                return Err(End::Again);
            }
            lock(&self.reading.inside).begun = true;
            match self.writer.write(&portion.made).await {
                Ok(()) => {
                    self.moved(portion, portion.next);
                    drop(gate);
                    self.broker.metrics.routed.inc_by(portion.made.len() as u64);
                    return Ok(());
                }
                Err(error) => {
                    drop(gate);
                    self.wait_after(&error.to_string()).await?;
                    if error.kind() == ErrorKind::NotFound {
                        // A topic was deleted after it was evaluated: evaluated anew, it is made again.
                        return Err(End::Again);
                    }
                }
            }
        }
    }

    /// A topic with `durability=interval` shows records that a power cut may take away, and others would come in their place:
    /// nothing is made of one, and no position moves past it, before it is there to stay.
    async fn source_is_durable(&mut self, end: Offset) -> Result<(), End> {
        loop {
            let synced = async {
                let topic = self.broker.topic(self.reading.topic.as_str())?;
                if topic.entry.id != self.reading.place.topic {
                    return Ok(());
                }
                topic.partition(self.reading.place.partition)?.synced(end).await
            };
            match synced.await {
                Ok(()) => return Ok(()),
                Err(_) if self.stopped() => return Err(End::Stopped),
                Err(error) => self.wait_after(&error.to_string()).await?,
            }
        }
    }

    /// What was made of everything below `next` is durable where it belongs.
    fn moved(&mut self, portion: &Portion, next: Offset) {
        let mut inside = lock(&self.reading.inside);
        inside.progress.offset = next;
        inside.progress.open.clone_from(&portion.open);
        inside.progress.counts = portion.counts.clone();
        inside.progress.expired.clear();
        inside.wrote();
        if portion.stopped.is_none() {
            inside.stuck = false;
            self.pause = PAUSE.0;
        }
        drop(inside);
        self.broker.routes.keeper.note(&self.reading);
    }

    /// Waits after an error, longer each time.
    async fn wait_after(&mut self, message: &str) -> Result<(), End> {
        let now = self.broker.clock.now_ms();
        self.reading.note_trouble(now, message.to_owned(), true);
        tracing::warn!(route = %self.reading.place.route, topic = %self.reading.topic, partition = self.reading.place.partition,
            error = message, "cannot route; trying again");
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        let mut stop = self.stop.clone();
        match tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await {
            Ok(_) => Err(End::Stopped),
            Err(_) if self.reading.is_closed() => Err(End::Stopped),
            Err(_) => Ok(()),
        }
    }

    /// Gives up wholes that have waited too long. That it does is durable before anything of it is written: after a crash it is
    /// done again, whatever the time is then and whatever has come since.
    async fn give_up(&mut self) -> Result<(), End> {
        // What has waited since an earlier run is not given up by the word of a clock that is doubted.
        let (now, (_, steps)) = (self.broker.clock.certain_ms(), self.broker.clock.now_and_steps());
        let Some(aggregate) = self.evaluator.as_mut().and_then(|evaluator| evaluator.aggregate.as_mut()) else {
            return Ok(());
        };
        aggregate.follow(steps);
        let late = aggregate.expire(now, LATE);
        let open = aggregate.open().iter().map(|open| (open.offset, open.since_ms)).collect();
        let mut expired: Vec<Offset> =
            late.iter().flat_map(|whole| whole.there.iter().map(|record| record.offset)).collect();
        expired.sort_unstable();
        let progress = {
            let mut inside = lock(&self.reading.inside);
            let progress = &mut inside.progress;
            (progress.open, progress.expired, progress.rounds) = (open, expired, progress.rounds + 1);
            progress.clone()
        };
        loop {
            let (broker, place, kept) = (Arc::clone(&self.broker), self.reading.place.clone(), progress.clone());
            let committed = blocking(move || {
                let event = Event::RouteMoved { place, progress: Some(kept) };
                lock(&broker.catalog).commit(event, broker.clock.now_ms())
            });
            match committed.await {
                Ok(()) => break,
                Err(error) => self.wait_after(&error.to_string()).await?,
            }
        }
        self.bury(&progress).await
    }

    /// Sends parts that have waited too long to the dead letters.
    async fn bury(&mut self, progress: &RouteProgress) -> Result<(), End> {
        let Some(timeout) = self.evaluator.as_ref().and_then(|evaluator| evaluator.route.spec().aggregate.clone())
        else {
            return Ok(());
        };
        let mut waiting = Aggregate::new(timeout.timeout);
        for offset in &progress.expired {
            loop {
                match record_at(&self.broker, &self.reading, *offset).await {
                    Ok(Some(record)) => {
                        let effect = waiting.add(&record, 0);
                        debug_assert_eq!(effect, Effect::Waiting);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.wait_after(&error.to_string()).await?;
                        continue;
                    }
                }
                break;
            }
        }
        let late = waiting.expire(TimestampMs::MAX, usize::MAX);
        let of_whole = late.into_iter().flat_map(|whole| {
            let failure = whole.failure;
            whole.there.into_iter().map(move |record| (record, failure.clone()))
        });
        let mut parts: Vec<(Record, Failure)> = of_whole.collect();
        parts.sort_by_key(|(record, _)| record.offset);
        let Some(mut evaluator) = self.evaluator.take() else { return Err(End::Stopped) };
        let (at, first) = (progress.offset, u64::from(progress.rounds) * ROUND);
        let (evaluator, portion) = blocking(move || {
            let portion = evaluator.late(&parts, at, first);
            (evaluator, portion)
        })
        .await;
        self.evaluator = Some(evaluator);
        match portion {
            Ok(portion) => {
                self.write(&portion).await?;
                self.moved(&portion, at);
                Ok(())
            }
            Err(error) => self.wait_after(&error.to_string()).await,
        }
    }
}

/// Gives a reading its identity as a producer.
fn name_producer(broker: &Broker, reading: &Reading) -> Result<(), BrokerError> {
    let now = broker.clock.now_ms();
    let mut catalog = lock(&broker.catalog);
    let id = catalog.next_producer_ids(1, now)?.start;
    let mut progress = lock(&reading.inside).progress.clone();
    progress.producer = limits::OWN_PRODUCER_IDS + id;
    let event = Event::RouteMoved { place: reading.place.clone(), progress: Some(progress.clone()) };
    catalog.commit(event, now)?;
    lock(&reading.inside).progress = progress;
    Ok(())
}

/// Looks up what the logs have of a reading's outputs beyond its kept position.
async fn survey(broker: &Arc<Broker>, active: &ActiveRoute, reading: &Reading) -> Result<(), BrokerError> {
    let progress = lock(&reading.inside).progress.clone();
    // A route is paused only when nothing is half written.
    let (route, paused) = (active.route(), lock(&active.entry).paused);
    let may_write = |name: &TopicName| !paused && route.spec().may_write(name);
    let (mut marks, mut found) = (Vec::new(), Vec::new());
    for topic in broker.all_topics() {
        for partition in topic.partitions.iter().filter(|_| progress.producer != 0) {
            let Ok(log) = partition.log() else {
                // One that is offline takes nothing, but may have something of whatever the source had.
                if let Some(mark) = highest(broker, reading, &progress)
                    && may_write(&topic.entry.name)
                {
                    found.push(Found { topic: topic.entry.id, mark, _hold: None });
                }
                continue;
            };
            if mark::next_sequence(log, progress.producer).is_none() {
                continue;
            }
            let written = mark::written(partition, progress.producer).await?;
            let last = log.with(|log| log.last_of(progress.producer));
            // One below the kept position says nothing that isn't known.
            if let Some(mark) = written.mark.filter(|mark| mark.offset.saturating_add(1) >= progress.offset) {
                marks.push(((topic.entry.id, partition.number), mark));
                if let Some(last) = last {
                    let hold = Some(Hold::from(partition, last.base_offset)?);
                    found.push(Found { topic: topic.entry.id, mark, _hold: hold });
                }
            }
        }
    }
    let mut known = lock(&reading.marks);
    known.retain(|_, mark| mark.offset.saturating_add(1) >= progress.offset);
    for (at, mark) in marks {
        let entry = known.entry(at).or_insert(mark);
        *entry = mark.max(*entry);
    }
    drop(known);
    // Another crash before the position is kept must find them, too.
    let before = std::mem::replace(&mut lock(&reading.inside).found, found);
    drop(before);
    reading.surveyed.store(true, Ordering::Release);
    Ok(())
}

/// The last output that may have been written of a reading, by what its source has; `None` if everything was routed.
fn highest(broker: &Broker, reading: &Reading, progress: &RouteProgress) -> Option<Mark> {
    let source = broker.topic(reading.topic.as_str()).ok();
    let log = source.as_ref().and_then(|topic| topic.partition(reading.place.partition).ok()?.log().ok());
    let offset = match log {
        Some(log) => log.with(|log| log.committed_end()).checked_sub(1)?,
        None => Offset::MAX,
    };
    let mark = Mark { offset, output: u64::MAX };
    (offset >= progress.offset || !progress.expired.is_empty()).then_some(mark)
}

/// The record at an offset, if it is there.
async fn record_at(broker: &Broker, reading: &Reading, offset: Offset) -> Result<Option<Record>, BrokerError> {
    let request = FetchRequest {
        topic: reading.topic.as_str(),
        partition: reading.place.partition,
        offset,
        max_bytes: 1,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    let fetched = match broker.fetch(request).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind() == ErrorKind::OffsetOutOfRange => return Ok(None),
        Err(error) => return Err(error),
    };
    let place = (reading.topic.as_str(), reading.place.partition);
    match broker.open_first(place, fetched.bytes, offset).await? {
        Some(Err(unreadable)) => {
            let route = format!("route {}", reading.place.route);
            broker.pass_over(&route, reading.topic.as_str(), reading.place.partition, &unreadable).await;
            Ok(None)
        }
        Some(Ok(record)) => Ok((record.offset == offset).then_some(record)),
        None => Ok(None),
    }
}
