//! Producers at work: what `bench produce` measures, and what fills topics for the others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidelog::client::{Ack, Client, ClientError, Message, Receipt};
use tokio::task::JoinSet;

use super::Options;
use super::latencies::Latencies;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::progress::{Progress, Unit};

/// How often what has been acknowledged is looked at, in messages: looking costs, too.
const LOOK_EVERY: u64 = 8;
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

/// What is to be sent.
#[derive(Clone)]
pub struct Load {
    /// Where to.
    pub topic: Arc<str>,
    /// Its partitions; connection `n` writes to partition `n` modulo this.
    pub partitions: u32,
    /// Over all connections.
    pub messages: u64,
    /// No message is sent after this.
    pub until: Option<Instant>,
    /// Bytes of a value.
    pub size: usize,
    /// Messages of one connection that may be unacknowledged; `None` for as many as the producer's memory takes.
    pub in_flight: Option<u32>,
    /// What counts as acknowledged.
    pub ack: Ack,
    /// Bytes at which a batch is full.
    pub batch_bytes: Option<u32>,
    /// How long a batch that is not full waits; not at all where messages in flight are bounded.
    pub linger: Option<Duration>,
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Messages acknowledged.
    pub messages: u64,
    /// From each send to its acknowledgement. Nothing with `ack=none`.
    pub latencies: Latencies,
}

impl Load {
    /// As the options say, to a topic.
    pub fn new(options: &Options, topic: Arc<str>, partitions: u32, messages: u64) -> Self {
        Self {
            topic,
            partitions,
            messages,
            until: None,
            size: options.size as usize,
            in_flight: options.in_flight,
            ack: options.ack,
            batch_bytes: options.batch_bytes,
            linger: None,
        }
    }

    /// As fast as can be and on disk when it returns, to be read afterwards.
    pub fn filling(options: &Options, topic: Arc<str>, partitions: u32, messages: u64) -> Self {
        Self { in_flight: None, ack: Ack::Durable, ..Self::new(options, topic, partitions, messages) }
    }

    /// The part of connection `number` of `connections`, and the partition that it goes to.
    fn part(&self, number: u32, connections: u32) -> (u64, u32) {
        let (number, connections) = (u64::from(number), u64::from(connections));
        let messages = self.messages / connections + u64::from(number < self.messages % connections);
        (messages, u32::try_from(number % u64::from(self.partitions)).unwrap_or(0))
    }
}

/// Sends it over these connections, each with a producer and a task of its own.
///
/// # Errors
/// The first that one of them meets.
pub async fn produce(clients: Vec<Client>, load: &Load, what: &'static str) -> Result<Sent, Failure> {
    let count = Arc::new(AtomicU64::new(0));
    let connections = u32::try_from(clients.len()).unwrap_or(u32::MAX);
    let mut tasks = JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        let (load, count) = (load.clone(), Arc::clone(&count));
        let (messages, partition) = load.part(number, connections);
        tasks.spawn(async move { one_connection(client, &load, messages, partition, &count).await });
    }
    let mut progress = Progress::new(Unit::Records, load.until.is_none().then_some(load.messages), what);
    let mut tick = tokio::time::interval(TICK);
    let (mut sent, mut shown) = (Sent::default(), 0);
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(done) => {
                    let one = done.map_err(Failure::failed)??;
                    sent.messages += one.messages;
                    sent.latencies.add(&one.latencies);
                }
                None => break,
            },
            _ = tick.tick() => {
                let now = count.load(Ordering::Relaxed);
                progress.advance(now - shown);
                shown = now;
            }
        }
    }
    progress.finish();
    Ok(sent)
}

/// Fills a topic: as many connections as partitions, 16 at most.
///
/// # Errors
/// Those of producing.
pub async fn fill(session: &Session, load: &Load) -> Result<Sent, Failure> {
    // Each connection writes to one partition, so none may be left out.
    let clients = session.clients(load.partitions).await?;
    produce(clients, load, "filling").await
}

/// A value of letters.
pub fn value(size: usize) -> Bytes {
    std::iter::repeat_with(fastrand::lowercase).take(size).map(|letter| letter as u8).collect::<Vec<_>>().into()
}

async fn one_connection(
    client: Client,
    load: &Load,
    messages: u64,
    partition: u32,
    count: &AtomicU64,
) -> Result<Sent, Failure> {
    let mut producer = client.producer().ack(load.ack);
    if load.in_flight.is_some() {
        // Nothing more comes while the window is full.
        producer = producer.linger(Duration::ZERO);
    } else if let Some(linger) = load.linger {
        producer = producer.linger(linger);
    }
    if let Some(bytes) = load.batch_bytes {
        producer = producer.batch_bytes(bytes as usize);
    }
    let producer = producer.build().await?;
    let value = value(load.size);
    let window = load.in_flight.map_or(usize::MAX, |window| window as usize);
    let mut waiting = Waiting { receipts: VecDeque::new(), sent: Sent::default(), measured: load.ack != Ack::None };
    for number in 0..messages {
        if waiting.receipts.len() >= window {
            waiting.wait().await?;
        }
        if load.until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let message = Message::to(load.topic.clone()).partition(partition).value(value.clone());
        let began = Instant::now();
        let receipt = producer.send(message).await?;
        waiting.receipts.push_back((began, receipt));
        if number % LOOK_EVERY == 0 {
            waiting.look()?;
            count.fetch_add(LOOK_EVERY.min(messages - number), Ordering::Relaxed);
            // A producer with room never waits: on one thread, nothing else would run.
            tokio::task::consume_budget().await;
        }
    }
    producer.flush().await?;
    while !waiting.receipts.is_empty() {
        waiting.wait().await?;
    }
    producer.close().await?;
    Ok(waiting.sent)
}

/// Receipts in the order sent, which is the order of their answers: all go to one partition. The producer's memory
/// bounds how many there are.
struct Waiting {
    receipts: VecDeque<(Instant, Receipt)>,
    sent: Sent,
    measured: bool,
}

impl Waiting {
    /// Waits for the oldest, if there is one.
    async fn wait(&mut self) -> Result<(), Failure> {
        match self.receipts.pop_front() {
            Some((began, receipt)) => self.take(began, receipt.await),
            None => Ok(()),
        }
    }

    /// Takes those that have come.
    fn look(&mut self) -> Result<(), Failure> {
        while let Some(outcome) = self.receipts.front().and_then(|(_, receipt)| receipt.try_get()) {
            if let Some((began, _)) = self.receipts.pop_front() {
                self.take(began, outcome)?;
            }
        }
        Ok(())
    }

    fn take<T>(&mut self, began: Instant, outcome: Result<T, ClientError>) -> Result<(), Failure> {
        outcome?;
        self.sent.messages += 1;
        if self.measured {
            self.sent.latencies.since(began);
        }
        Ok(())
    }
}
