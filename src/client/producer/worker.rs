//! Sends the batches of one partition: several on their way, in order, the same again after a break.
//!
//! What keeps doubles and gaps out, with an idempotent producer:
//! - A batch keeps its sequence number until it is certain that it was not stored, so that the server recognizes it when
//!   it comes again. The only such certainty is `OutOfOrderSequence`: the server knows what it has, and a number behind a
//!   gap was not appended.
//! - Then, and only then, the epoch goes up (which also shuts out whatever is still wandering about on a dead connection)
//!   and numbers begin at 0 again.
//! - Each partition has an identity of its own, so that this concerns nobody else.
//! - Until the first batch of an identity is acknowledged, only one is on its way: a server that knows nothing of a
//!   producer takes any number, so a second batch could get in before a first one that was refused.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::ErrorKind;
use crate::client::ClientError;
use crate::client::connection::{Answer, answer_of};
use crate::client::link::{Again, Link, pause};
use crate::protocol::{Ack, Frame, InitProducer, Produce, ProduceOk};

use super::Inner;
use super::batch::{Batch, Fate};
use super::queue::{Queue, Taken};
use super::receipt::Stored;
use super::sequence::{Stamp, advance};

/// How often a batch may get a new sequence number before the server's refusal is believed to be for good.
const RESTAMPS: u32 = 3;

/// How a worker works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerConfig {
    pub(crate) ack: Ack,
    pub(crate) idempotent: bool,
    pub(crate) max_in_flight: usize,
}

/// A partition's worker.
pub(crate) struct Worker {
    queue: Arc<Queue>,
    link: Arc<Link>,
    config: WorkerConfig,
    memory: Arc<Semaphore>,
    producer: Weak<Inner>,
    /// The stamp of the next new batch.
    next: Option<Stamp>,
    /// A batch with this identity has been acknowledged.
    established: bool,
    in_flight: VecDeque<InFlight>,
    /// To be sent before anything new, in this order.
    again: VecDeque<Batch>,
    failures: u32,
    /// Why sending does not go on, for those who wait behind what failed.
    trouble: Option<ClientError>,
}

struct InFlight {
    batch: Batch,
    answer: Answer,
}

/// What filling the window came to.
enum Filled {
    /// Nothing more fits or is there; something lingers until that time.
    Wait(Option<Instant>),
    /// Nothing can be sent now.
    Pause(Duration),
    /// All is done.
    End,
}

impl Worker {
    pub(crate) fn new(
        queue: Arc<Queue>,
        link: Arc<Link>,
        config: WorkerConfig,
        memory: Arc<Semaphore>,
        producer: Weak<Inner>,
    ) -> Self {
        Self {
            queue,
            link,
            config,
            memory,
            producer,
            next: None,
            established: false,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            failures: 0,
            trouble: None,
        }
    }

    /// Works until the queue is retired and empty.
    pub(crate) async fn run(mut self) {
        loop {
            match self.fill().await {
                Filled::Wait(lingers) => self.wait(lingers).await,
                Filled::Pause(time) => self.pause(time).await,
                Filled::End => return,
            }
        }
    }

    fn window(&self) -> usize {
        match (self.config.ack, self.config.idempotent) {
            // Nothing is ever in flight.
            (Ack::None, _) => usize::MAX,
            // Without sequence numbers, two on their way could change places when the first one has to be sent again.
            (_, false) => 1,
            (_, true) if !self.established => 1,
            (_, true) => self.config.max_in_flight,
        }
    }

    /// Sends as much as the window allows.
    async fn fill(&mut self) -> Filled {
        while self.in_flight.len() < self.window() {
            let batch = match self.again.pop_front() {
                Some(batch) => batch,
                None => match self.queue.take(Instant::now(), self.in_flight.len()) {
                    Taken::Batch(open) => Batch::build(*open),
                    Taken::Wait(lingers) => return Filled::Wait(lingers),
                    Taken::End if self.in_flight.is_empty() => return Filled::End,
                    Taken::End => return Filled::Wait(None),
                },
            };
            if batch.deadline <= Instant::now() {
                let error = batch.timed_out(&self.queue.topic, self.queue.partition, self.trouble.as_ref());
                self.fail(&batch, error);
            } else if let Err((batch, error)) = self.send(batch).await {
                return self.recover(None, Some((batch, error))).await;
            }
        }
        Filled::Wait(None)
    }

    /// Sends a batch; it is in flight then, or done if nobody answers.
    async fn send(&mut self, mut batch: Batch) -> Result<(), (Batch, ClientError)> {
        if self.config.idempotent
            && batch.stamp.is_none()
            && let Err(error) = self.stamp(&mut batch).await
        {
            return Err((batch, error));
        }
        let connection = match self.link.connection().await {
            Ok(connection) => connection,
            Err(error) => return Err((batch, error)),
        };
        let request = Produce {
            topic: self.queue.topic.as_ref().to_owned(),
            partition: self.queue.partition,
            ack: self.config.ack,
        };
        if self.config.ack == Ack::None {
            return match connection.tell(&request, batch.bytes.clone()).await {
                Ok(()) => {
                    self.done(&batch, Stored { base_offset: None });
                    Ok(())
                }
                Err(error) => Err((batch, error)),
            };
        }
        match connection.produce(&request, batch.bytes.clone()).await {
            Ok(answer) => {
                self.in_flight.push_back(InFlight { batch, answer });
                Ok(())
            }
            Err(error) => Err((batch, error)),
        }
    }

    /// Gives a batch the next sequence number.
    async fn stamp(&mut self, batch: &mut Batch) -> Result<(), ClientError> {
        let stamp = match self.next {
            Some(stamp) => stamp,
            None => self.identity(None).await?,
        };
        batch.write_stamp(stamp);
        self.next = Some(advance(stamp, batch.count));
        self.queue.expect(advance(stamp, batch.count));
        Ok(())
    }

    /// A new identity, or the old one with the next epoch.
    async fn identity(&self, resume: Option<(i64, i16)>) -> Result<Stamp, ClientError> {
        let identity = self.link.ask(&InitProducer { resume }, Again::Yes).await?;
        Ok(Stamp { id: identity.producer_id, epoch: identity.epoch, sequence: 0 })
    }

    /// Waits for the oldest answer, new work if there is room for it, or a deadline.
    async fn wait(&mut self, lingers: Option<Instant>) {
        let room = self.in_flight.len() < self.window();
        let deadline = self.in_flight.front().map(|oldest| oldest.batch.deadline);
        tokio::select! {
            biased;
            outcome = oldest_answer(&mut self.in_flight) => self.settle(outcome).await,
            () = self.queue.wake.notified(), if room => {}
            () = until(lingers), if room => {}
            () = until(deadline) => {
                if let Some(InFlight { mut batch, .. }) = self.in_flight.pop_front() {
                    let message = "the server has not answered";
                    batch.fate = Fate::Unknown(ClientError::new(ErrorKind::TimedOut, message));
                    let error = batch.timed_out(&self.queue.topic, self.queue.partition, self.trouble.as_ref());
                    self.fail(&batch, error);
                }
            }
        }
    }

    /// Takes the outcome of the oldest batch in flight.
    async fn settle(&mut self, outcome: Result<Frame, ClientError>) {
        let Some(InFlight { batch, .. }) = self.in_flight.pop_front() else { return };
        match outcome.and_then(|frame| answer_of::<Produce>(&frame)) {
            Ok(stored) => self.stored(&batch, &stored),
            Err(error) => {
                if let Filled::Pause(time) = self.recover(Some((batch, error)), None).await {
                    self.pause(time).await;
                }
            }
        }
    }

    /// Puts what was in flight in order again: some is stored, some has failed, the rest is to be sent again. `oldest` was
    /// in flight before all the others; `unsent` would have come behind them.
    async fn recover(&mut self, oldest: Option<(Batch, ClientError)>, unsent: Option<(Batch, ClientError)>) -> Filled {
        let mut again = VecDeque::new();
        let mut first_error = None;
        let mut keep = |worker: &mut Self, batch: Batch, error: ClientError, sent: bool| {
            if let Some((batch, error)) = worker.judge(batch, error, sent) {
                first_error.get_or_insert(error);
                again.push_back(batch);
            }
        };
        if let Some((batch, error)) = oldest {
            keep(self, batch, error, true);
        }
        while let Some(InFlight { batch, mut answer }) = self.in_flight.pop_front() {
            let outcome = tokio::time::timeout_at(batch.deadline, &mut answer)
                .await
                .unwrap_or_else(|_| Err(ClientError::new(ErrorKind::TimedOut, "the server has not answered")));
            match outcome.and_then(|frame| answer_of::<Produce>(&frame)) {
                Ok(stored) => self.stored(&batch, &stored),
                Err(error) => keep(self, batch, error, true),
            }
        }
        if let Some((batch, error)) = unsent {
            keep(self, batch, error, false);
        }
        again.append(&mut self.again);
        self.again = again;
        let Some(error) = first_error else { return Filled::Pause(Duration::ZERO) };
        if matches!(error.kind(), ErrorKind::OutOfOrderSequence | ErrorKind::FencedProducer) {
            match self.begin_anew(&error).await {
                Ok(()) => return Filled::Pause(Duration::ZERO),
                Err(error) => tracing::debug!(%error, "no new producer identity"),
            }
        }
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(error.clone());
        self.tell(Some(error.clone()));
        Filled::Pause(error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER).max(pause(self.failures)))
    }

    /// Fails a batch for good, or gives it back to be sent again.
    fn judge(&mut self, mut batch: Batch, error: ClientError, sent: bool) -> Option<(Batch, ClientError)> {
        let kind = error.kind();
        // No answer, or one that leaves open what became of the batch: after a sync that failed, what had been written may
        // be found again when the partition is reopened.
        let unanswered = matches!(kind, ErrorKind::Disconnected | ErrorKind::BadFrame | ErrorKind::TimedOut)
            || matches!(kind, ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::Internal);
        let renumber = kind == ErrorKind::OutOfOrderSequence && batch.restamped < RESTAMPS && self.config.idempotent;
        batch.fate = match batch.fate {
            // Certain: see the top of this file.
            _ if kind == ErrorKind::OutOfOrderSequence => Fate::Refused(error.clone()),
            Fate::Unknown(_) => Fate::Unknown(error.clone()),
            _ if sent && unanswered => Fate::Unknown(error.clone()),
            _ => Fate::Refused(error.clone()),
        };
        if renumber || error.is_retriable() || kind == ErrorKind::BadFrame {
            return Some((batch, error));
        }
        if kind == ErrorKind::FencedProducer {
            // Nobody else has this identity, so it was taken away for a reason; what comes next gets a new one.
            self.next = None;
            self.established = false;
        }
        if kind == ErrorKind::NotFound
            && let Some(producer) = self.producer.upgrade()
        {
            producer.forget(&self.queue.topic);
        }
        let maybe = matches!(batch.fate, Fate::Unknown(_));
        let place = format!("{}/{}", self.queue.topic, self.queue.partition);
        self.fail(&batch, error.context(format!("producing to {place}")).with_maybe_stored(maybe));
        None
    }

    /// Raises the epoch and numbers everything that is to be sent again from 0. Called only when the oldest of it, and so
    /// all behind it, is known not to be stored.
    async fn begin_anew(&mut self, error: &ClientError) -> Result<(), ClientError> {
        let resume =
            self.next.filter(|_| error.kind() == ErrorKind::OutOfOrderSequence).map(|next| (next.id, next.epoch));
        let first = self.identity(resume).await?;
        self.next = Some(first);
        self.established = false;
        for batch in &mut self.again {
            batch.stamp = None;
            batch.restamped += 1;
        }
        Ok(())
    }

    /// Lets time pass; batches whose time is up meanwhile fail.
    async fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let earliest = self.again.iter().map(|batch| batch.deadline).min().unwrap_or(end);
        tokio::time::sleep_until(end.min(earliest)).await;
    }

    fn stored(&mut self, batch: &Batch, stored: &ProduceOk) {
        self.established = true;
        self.failures = 0;
        if self.trouble.take().is_some() {
            self.tell(None);
        }
        self.done(batch, Stored { base_offset: Some(stored.base_offset) });
    }

    /// Lets whoever asks the producer know that something is tried again, or goes on.
    fn tell(&self, trouble: Option<ClientError>) {
        if let Some(producer) = self.producer.upgrade() {
            *producer.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        }
    }

    fn done(&self, batch: &Batch, stored: Stored) {
        self.end(batch, Ok(stored));
    }

    fn fail(&self, batch: &Batch, error: ClientError) {
        if let Some(producer) = self.producer.upgrade() {
            producer.failed(&error);
        }
        self.end(batch, Err(error));
    }

    fn end(&self, batch: &Batch, outcome: Result<Stored, ClientError>) {
        batch.completion.resolve(outcome);
        self.memory.add_permits(batch.memory);
        self.queue.finish_one();
    }
}

/// The longest that a server's wish to be left alone is heeded.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// The answer to the oldest batch in flight; never, if there is none.
async fn oldest_answer(in_flight: &mut VecDeque<InFlight>) -> Result<Frame, ClientError> {
    poll_fn(|context| match in_flight.front_mut() {
        Some(oldest) => Future::poll(Pin::new(&mut oldest.answer), context),
        None => std::task::Poll::Pending,
    })
    .await
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
