//! One partition's way from a producer to the server: records in, batches out, in order.
//!
//! Batches leave in order and are answered in order; when one is in doubt, it and all behind it are sent again in the
//! same order with the same sequence numbers, and the server drops what it has. When one has failed for good, the ones
//! behind it get a new epoch and new sequence numbers, since the server would see a gap.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, Semaphore, futures::OwnedNotified};
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::{Clock, ErrorKind, Offset, SystemClock, TimestampMs, limits};
use crate::protocol::{Ack, InitProducer, Produce, ProduceOk};
use crate::record::{BatchBuilder, BatchOptions, set_producer};

use super::ClientError;
use super::connection::{Answer, Connection, answer};
use super::producer::{Message, ProducerBuilder, RecordMetadata};

/// The waits between tries.
const BACKOFF: [u64; 6] = [20, 50, 100, 250, 500, 1000];

/// How long one try may take before the connection is given up.
const TRY_FOR: Duration = Duration::from_secs(30);

/// What became of a batch; shared by the receipts of its records.
struct Outcome {
    topic: Arc<str>,
    partition: u32,
    result: OnceLock<Result<Option<Offset>, ClientError>>,
    done: Arc<Notify>,
}

/// Resolves when the record is stored as the ack level says, or has failed.
pub struct Receipt {
    outcome: Arc<Outcome>,
    index: u32,
    timestamp: TimestampMs,
    waiting: Option<Pin<Box<OwnedNotified>>>,
}

impl Future for Receipt {
    type Output = Result<RecordMetadata, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(result) = self.outcome.result.get() {
                return Poll::Ready(result.clone().map(|base| RecordMetadata {
                    topic: Arc::clone(&self.outcome.topic),
                    partition: self.outcome.partition,
                    offset: base.map(|base| base + u64::from(self.index)),
                    timestamp: self.timestamp,
                }));
            }
            match &mut self.waiting {
                Some(waiting) => match waiting.as_mut().poll(context) {
                    Poll::Ready(()) => self.waiting = None,
                    Poll::Pending => return Poll::Pending,
                },
                None => {
                    let mut waiting = Box::pin(Arc::clone(&self.outcome.done).notified_owned());
                    waiting.as_mut().enable();
                    // Looked at once more with the wait in place, so that no news is missed.
                    self.waiting = Some(waiting);
                }
            }
        }
    }
}

/// A batch that still takes records.
struct Open {
    builder: BatchBuilder,
    outcome: Arc<Outcome>,
    since: Instant,
    held: usize,
}

/// A batch on its way.
struct Sealed {
    batch: BytesMut,
    records: u32,
    sequence: i32,
    outcome: Arc<Outcome>,
    held: usize,
    deadline: Instant,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    ready: VecDeque<Open>,
    /// Batches taken by the task and not finished.
    under_way: usize,
    closed: bool,
    failed: Option<ClientError>,
}

/// The records of one partition on their way.
pub(super) struct Lane {
    options: ProducerBuilder,
    topic: Arc<str>,
    partition: u32,
    batch_bytes: usize,
    state: Mutex<State>,
    wake: Notify,
    idle: Notify,
    room: Arc<Semaphore>,
    clock: SystemClock,
}

impl Lane {
    pub(super) fn start(
        options: ProducerBuilder,
        identity: (i64, i16),
        topic: Arc<str>,
        partition: u32,
        max_batch: usize,
        room: Arc<Semaphore>,
    ) -> Arc<Self> {
        let lane = Arc::new(Self {
            batch_bytes: options.batch_bytes.min(max_batch),
            options,
            topic,
            partition,
            state: Mutex::default(),
            wake: Notify::new(),
            idle: Notify::new(),
            room,
            clock: SystemClock::new(),
        });
        let task = Task { lane: Arc::clone(&lane), identity, sequence: 0, flying: VecDeque::new(), connection: None };
        tokio::spawn(task.run());
        lane
    }

    /// Adds a record whose `held` bytes of room have been taken.
    pub(super) fn push(
        &self,
        message: &Message,
        headers: &[(&str, Option<&[u8]>)],
        held: usize,
    ) -> Result<Receipt, ClientError> {
        let timestamp = message.timestamp.unwrap_or_else(|| self.clock.now_ms());
        let mut state = self.lock();
        if let Some(error) = state
            .failed
            .clone()
            .or_else(|| state.closed.then(|| ClientError::new(ErrorKind::Disconnected, "the producer is closed")))
        {
            self.room.add_permits(held);
            return Err(error);
        }
        let full = state.open.as_ref().is_some_and(|open| {
            open.builder.bytes_so_far() + held > self.batch_bytes
                || open.builder.record_count() >= limits::RECORDS_PER_BATCH
        });
        if full && let Some(open) = state.open.take() {
            state.ready.push_back(open);
        }
        let open = state.open.get_or_insert_with(|| Open {
            builder: BatchBuilder::new(BatchOptions {
                compression: self.options.compression,
                ..BatchOptions::default()
            }),
            outcome: Arc::new(Outcome {
                topic: Arc::clone(&self.topic),
                partition: self.partition,
                result: OnceLock::new(),
                done: Arc::new(Notify::new()),
            }),
            since: Instant::now(),
            held: 0,
        });
        let index = open.builder.record_count();
        open.builder.push(timestamp, message.key.as_deref(), message.value.as_deref(), headers);
        open.held += held;
        let receipt = Receipt { outcome: Arc::clone(&open.outcome), index, timestamp, waiting: None };
        // The first record of a batch starts the task; a full batch need not linger.
        let wake = index == 0 || full;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(receipt)
    }

    pub(super) async fn flush(&self) {
        loop {
            let idle = self.idle.notified();
            {
                let mut state = self.lock();
                if let Some(open) = state.open.take() {
                    state.ready.push_back(open);
                }
                if state.ready.is_empty() && state.under_way == 0 {
                    return;
                }
            }
            self.wake.notify_one();
            idle.await;
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch to send, if there is one and it need not wait longer.
    fn take(&self) -> Option<Open> {
        let mut state = self.lock();
        let due = |open: &Open| open.since.elapsed() >= self.options.linger;
        let taken = state
            .ready
            .pop_front()
            .or_else(|| if state.closed || state.open.as_ref().is_some_and(due) { state.open.take() } else { None });
        state.under_way += usize::from(taken.is_some());
        taken
    }

    fn finish(&self, batch: &Sealed, result: Result<Option<Offset>, ClientError>) {
        // The first word counts.
        let _ = batch.outcome.result.set(result);
        batch.outcome.done.notify_waiters();
        self.room.add_permits(batch.held);
        self.lock().under_way -= 1;
        self.idle.notify_waiters();
    }
}

/// Sends a lane's batches.
struct Task {
    lane: Arc<Lane>,
    identity: (i64, i16),
    sequence: i32,
    /// Batches sent and not answered, oldest first, each with its answer.
    flying: VecDeque<(Sealed, Option<Answer>)>,
    connection: Option<Arc<Connection>>,
}

enum Event {
    Wake,
    Answered(Result<Option<ProduceOk>, ClientError>),
}

impl Task {
    async fn run(mut self) {
        loop {
            while self.flying.len() < self.lane.options.max_in_flight {
                let Some(open) = self.lane.take() else { break };
                let sealed = self.seal(open);
                match self.send(&sealed).await {
                    Ok(answer) => self.flying.push_back((sealed, answer)),
                    Err(error) => {
                        self.flying.push_back((sealed, None));
                        self.recover(error).await;
                    }
                }
            }
            let (linger, done) = {
                let state = self.lane.lock();
                let done = state.closed && state.open.is_none() && state.ready.is_empty() && self.flying.is_empty();
                (state.open.as_ref().map(|open| open.since + self.lane.options.linger), done)
            };
            if done {
                return;
            }
            let full = self.flying.len() >= self.lane.options.max_in_flight;
            let event = {
                let front = self.flying.front_mut();
                tokio::select! {
                    biased;
                    answered = wait(front, self.connection.as_ref()) => Event::Answered(answered),
                    () = self.lane.wake.notified() => Event::Wake,
                    () = sleep_until(linger.unwrap_or_else(Instant::now)), if linger.is_some() && !full => Event::Wake,
                }
            };
            match event {
                Event::Wake => {}
                Event::Answered(Ok(stored)) => {
                    if let Some((batch, _)) = self.flying.pop_front() {
                        self.lane.finish(&batch, Ok(stored.map(|stored| stored.base_offset)));
                    }
                }
                Event::Answered(Err(error)) => self.recover(error).await,
            }
        }
    }

    fn seal(&mut self, open: Open) -> Sealed {
        let records = open.builder.record_count();
        let mut batch = open.builder.build();
        let sequence = self.sequence;
        if self.identity.0 >= 0 {
            set_producer(&mut batch, self.identity.0, self.identity.1, sequence);
            self.advance(records);
        }
        let deadline = open.since + self.lane.options.delivery_timeout;
        Sealed { batch, records, sequence, outcome: open.outcome, held: open.held, deadline }
    }

    fn advance(&mut self, records: u32) {
        let next = (i64::from(self.sequence) + i64::from(records)) % (i64::from(i32::MAX) + 1);
        self.sequence = i32::try_from(next).unwrap_or(0);
    }

    /// Sends a batch; its answer to come, if there will be one.
    async fn send(&mut self, sealed: &Sealed) -> Result<Option<Answer>, ClientError> {
        let connection = self.lane.options.client.connection().await?;
        let request = Produce {
            topic: self.lane.topic.as_ref().to_owned(),
            partition: self.lane.partition,
            ack: self.lane.options.ack,
        };
        let payload = sealed.batch.clone().freeze();
        let sent = if self.lane.options.ack == Ack::None {
            connection.tell(&request, payload).map(|()| None)
        } else {
            connection.start(&request, payload, None).map(Some)
        };
        self.connection = Some(connection);
        sent
    }

    /// Deals with a failure of the oldest batch in flight: sends everything again, or fails that batch and goes on.
    async fn recover(&mut self, error: ClientError) {
        let mut error = error;
        for attempt in 0.. {
            let late = self.flying.front().is_none_or(|(batch, _)| Instant::now() >= batch.deadline);
            let out_of_order = error.kind() == ErrorKind::OutOfOrderSequence && attempt < 3;
            if !error.kind().is_retriable() && !out_of_order || late {
                if let Some((batch, _)) = self.flying.pop_front() {
                    if error.kind() == ErrorKind::FencedProducer {
                        self.lane.lock().failed = Some(error.clone());
                    }
                    let error = if late && error.kind().is_retriable() {
                        let text = format!("not acknowledged in time, and it may or may not be stored; last: {error}");
                        ClientError::new(ErrorKind::TimedOut, text)
                    } else {
                        error.clone()
                    };
                    self.lane.finish(&batch, Err(error));
                }
                if self.flying.is_empty() {
                    // The next batch must not leave a gap either.
                    let _ = self.renew().await;
                    return;
                }
            }
            if error.kind().is_retriable() {
                sleep(Duration::from_millis(BACKOFF[attempt.min(BACKOFF.len() - 1)])).await;
            }
            let renewed = if error.kind().is_retriable() { Ok(()) } else { self.renew().await };
            match renewed {
                Ok(()) => match self.send_again().await {
                    Ok(()) => return,
                    Err(again) => error = again,
                },
                Err(again) => error = again,
            }
        }
    }

    /// A new epoch, and new sequence numbers for what is in flight.
    async fn renew(&mut self) -> Result<(), ClientError> {
        if self.identity.0 < 0 {
            return Ok(());
        }
        let given = self.lane.options.client.request(&InitProducer { resume: Some(self.identity) }).await?;
        self.identity = (given.producer_id, given.epoch);
        self.sequence = 0;
        for at in 0..self.flying.len() {
            let sequence = self.sequence;
            let (batch, _) = &mut self.flying[at];
            batch.sequence = sequence;
            let (bytes, records) = (&mut batch.batch, batch.records);
            set_producer(bytes, self.identity.0, self.identity.1, sequence);
            self.advance(records);
        }
        Ok(())
    }

    async fn send_again(&mut self) -> Result<(), ClientError> {
        let mut flying = std::mem::take(&mut self.flying);
        let mut result = Ok(());
        for (batch, answer) in &mut flying {
            match self.send(batch).await {
                Ok(sent) => *answer = sent,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.flying = flying;
        result
    }
}

/// The answer to the oldest batch; never, if there is none.
async fn wait(
    front: Option<&mut (Sealed, Option<Answer>)>,
    connection: Option<&Arc<Connection>>,
) -> Result<Option<ProduceOk>, ClientError> {
    let (Some((_, pending)), Some(connection)) = (front, connection) else { return std::future::pending().await };
    let Some(receiver) = pending else { return Ok(None) };
    match tokio::time::timeout(TRY_FOR, receiver).await {
        Ok(frame) => Ok(Some(answer::<ProduceOk>(connection.received(frame)?)?.0)),
        Err(_) => Err(ClientError::new(ErrorKind::TimedOut, "no answer to a produce request")),
    }
}
