//! `bench latency`: how long it takes until a message is acknowledged, and until somebody else has it.
//!
//! At a steady rate, a message counts from the moment at which it was to be sent, not from when it was: a sender that is held
//! up does not hide the time for which it was (coordinated omission).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tidelog::client::{Ack, Client, Consumer, Message, Producer, Receipt, StartAt};
use tokio::sync::mpsc;

use super::latencies::Latencies;
use super::limits::{self, Layout, Volume};
use super::outcome::Outcome;
use super::pace::{Pacer, Schedule};
use super::producing::{Load, produce, value};
use super::session::Session;
use super::{Options, ack_name};
use crate::cli::failure::Failure;

/// Messages before measuring begins.
pub const WARM_UP: u64 = 200;
/// The number of a message that does not count.
pub const UNCOUNTED: u64 = u64::MAX;
/// From building everything to the first message.
pub const LEAD: Duration = Duration::from_millis(20);
/// Bytes of a batch around one value: header of the batch and of the record.
const ENVELOPE: usize = 70;

/// What the bare machine takes for one message.
pub struct Bare {
    trip: Latencies,
    /// `None` where no sync is waited for.
    sync: Option<Latencies>,
}

impl Bare {
    /// A ping-pong, and with `ack=durable` a write and fdatasync, of one message's size.
    ///
    /// # Errors
    /// Those of the sockets and the disk.
    pub async fn measure(session: &Session, size: u32, ack: Ack, messages: u64) -> Result<Self, Failure> {
        let folder = session.workspace.path().to_owned();
        let (size, durable) = (size as usize, ack == Ack::Durable);
        let measured = tokio::task::spawn_blocking(move || {
            let bytes = size + ENVELOPE;
            let volume = Volume::of(messages.saturating_mul(bytes as u64));
            let sync = match durable {
                true => Some(limits::sync_loop(&folder, bytes, 1, Layout::Prepared, volume)?.sync),
                false => None,
            };
            Ok(Self { trip: limits::ping_pong(size, messages)?, sync })
        });
        measured.await.map_err(Failure::failed)?
    }

    /// The medians added, in microseconds.
    pub fn median_us(&self) -> f64 {
        (self.trip.at(0.5) + self.sync.as_ref().map_or(0, |sync| sync.at(0.5))) as f64
    }

    /// Each of them, for people.
    pub fn note(&self) -> String {
        let sync = self.sync.as_ref().map_or(String::new(), |sync| format!(", fdatasync {}", sync.shown()));
        format!("bare p50 / p99: ping-pong {}{sync}", self.trip.shown())
    }
}

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, options.partitions(), options.ack).await?.into();
    match options.in_flight {
        Some(in_flight) => closed(session, options, topic, in_flight).await,
        None if options.connections() > 1 => Err(Failure::Usage(
            "bench latency at a rate sends over one connection; --connections goes with --in-flight".to_owned(),
        )),
        None => open(session, options, topic).await,
    }
}

/// So many at a time, the next one when one is acknowledged.
async fn closed(session: Session, options: &Options, topic: Arc<str>, in_flight: u32) -> Result<Outcome, Failure> {
    let connections = options.connections();
    let mut load = Load::new(options, topic, options.partitions(), WARM_UP * u64::from(connections));
    let clients = session.clients(connections).await?;
    produce(clients.clone(), &load, "warming up").await?;
    load.messages = options.messages.unwrap_or(u64::MAX);
    let meters = session.meters();
    let started = Instant::now();
    load.until = options.messages.is_none().then(|| started + Duration::from_secs_f64(options.seconds()));
    let sent = produce(clients, &load, "measuring").await?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let bare = Bare::measure(&session, options.size, options.ack, sent.messages).await?;
    Ok(Outcome {
        work: "latency",
        title: format!(
            "acknowledgement, ack={}, {} byte messages, {connections} connections, {in_flight} at a time",
            ack_name(options.ack),
            options.size
        ),
        messages: Some(sent.messages),
        seconds,
        messages_per_s: Some(sent.messages as f64 / seconds),
        limit_us: Some(bare.median_us()),
        latency: (sent.latencies.count() > 0).then_some(sent.latencies),
        usage,
        notes: vec![bare.note()],
        ..Outcome::default()
    })
}

/// At a steady rate, to a consumer that is there.
async fn open(session: Session, options: &Options, topic: Arc<str>) -> Result<Outcome, Failure> {
    let messages = options.messages.unwrap_or((options.rate as f64 * options.seconds()) as u64).max(1);
    let work = Work { topic, partitions: options.partitions(), messages, size: options.size, ack: options.ack };
    let (sender, consumer) = work.prepare(session.client().await?, session.client().await?).await?;
    let meters = session.meters();
    let start = Instant::now() + LEAD;
    let EndToEnd { late, acknowledged, latency } = sender.run_to(consumer, Schedule::new(start, options.rate)).await?;
    let seconds = start.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let bare = Bare::measure(&session, options.size, options.ack, messages).await?;
    let mut notes = Vec::new();
    if options.ack != Ack::None {
        let at = |quantile| acknowledged.at(quantile);
        notes.push(format!("acknowledged after: p50 {} us, p99 {} us, p99.9 {} us", at(0.5), at(0.99), at(0.999)));
    }
    notes.push(bare.note());
    notes.push(format!("of which the sender itself was late, p50 / p99: {}", late.shown()));
    Ok(Outcome {
        work: "latency",
        title: format!(
            "end to end at {} messages/s, ack={}, {} byte messages",
            options.rate,
            ack_name(options.ack),
            options.size
        ),
        messages: Some(messages),
        seconds,
        messages_per_s: Some(messages as f64 / seconds),
        limit_us: Some(bare.median_us()),
        latency: Some(latency),
        usage,
        notes,
        ..Outcome::default()
    })
}

/// Messages that are sent on time to a consumer.
pub struct Work {
    /// Where to.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: u32,
    /// How many.
    pub messages: u64,
    /// Bytes of a value, 8 at least.
    pub size: u32,
    /// What counts as acknowledged.
    pub ack: Ack,
}

/// Latencies of a message, each from when it was due.
pub struct EndToEnd {
    /// Until it was sent.
    pub late: Latencies,
    /// Until it was acknowledged.
    pub acknowledged: Latencies,
    /// Until a consumer had it.
    pub latency: Latencies,
}

impl Work {
    /// A consumer that waits, and a producer that has sent before.
    ///
    /// # Errors
    /// Those of the clients.
    pub async fn prepare(self, writer: Client, reader: Client) -> Result<(Sender, Consumer), Failure> {
        let consumer = reader.consumer().topic(self.topic.as_ref()).from(StartAt::End).build().await?;
        let producer = writer.producer().ack(self.ack).linger(Duration::ZERO).build().await?;
        let filler = value(self.size as usize);
        for number in 0..WARM_UP {
            let message = Message::to(self.topic.clone()).value(numbered(UNCOUNTED, &filler));
            producer.send_and_wait(message.partition((number % u64::from(self.partitions)) as u32)).await?;
        }
        Ok((Sender { producer, work: self, filler }, consumer))
    }
}

/// A value that begins with a number.
pub fn numbered(number: u64, filler: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(filler.len());
    value.put_u64(number);
    value.put_slice(&filler[8..]);
    value.freeze()
}

/// Sends on time, to the partitions in turn.
pub struct Sender {
    producer: Producer,
    work: Work,
    filler: Bytes,
}

impl Sender {
    /// Sends all of it, until the consumer has it.
    ///
    /// # Errors
    /// The first error of either ends both.
    pub async fn run_to(self, consumer: Consumer, schedule: Schedule) -> Result<EndToEnd, Failure> {
        let received = receive(consumer, self.work.messages, schedule);
        let ((late, acknowledged), latency) = tokio::try_join!(self.run(schedule), received)?;
        Ok(EndToEnd { late, acknowledged, latency })
    }

    /// How late each was sent, and when it was acknowledged, both from when it was due.
    async fn run(self, schedule: Schedule) -> Result<(Latencies, Latencies), Failure> {
        let producer = self.producer.clone();
        let (mut receipts, mut collectors) = (Vec::new(), tokio::task::JoinSet::new());
        for _ in 0..self.work.partitions {
            // Answers of one partition come in order. The producer's memory bounds how many are waited for.
            let (sender, receiver) = mpsc::unbounded_channel();
            receipts.push(sender);
            collectors.spawn(collect(receiver, schedule));
        }
        let runtime = tokio::runtime::Handle::current();
        let late = tokio::task::spawn_blocking(move || self.send_all(schedule, &runtime, &receipts));
        let late = late.await.map_err(Failure::failed)??;
        let mut acknowledged = Latencies::default();
        while let Some(one) = collectors.join_next().await {
            acknowledged.add(&one.map_err(Failure::failed)??);
        }
        producer.close().await?;
        Ok((late, acknowledged))
    }

    fn send_all(
        self,
        schedule: Schedule,
        runtime: &tokio::runtime::Handle,
        receipts: &[mpsc::UnboundedSender<(u64, Receipt)>],
    ) -> Result<Latencies, Failure> {
        let (pacer, mut late) = (Pacer::new(), Latencies::default());
        for number in 0..self.work.messages {
            pacer.wait(schedule.due(number));
            let partition = (number % u64::from(self.work.partitions)) as u32;
            let message = Message::to(self.work.topic.clone()).value(numbered(number, &self.filler));
            late.since(schedule.due(number));
            let receipt = runtime.block_on(self.producer.send(message.partition(partition)))?;
            if receipts[partition as usize].send((number, receipt)).is_err() {
                // Its collector has met an error, and tells.
                break;
            }
        }
        Ok(late)
    }
}

async fn collect(
    mut receipts: mpsc::UnboundedReceiver<(u64, Receipt)>,
    schedule: Schedule,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::default();
    while let Some((number, receipt)) = receipts.recv().await {
        receipt.await?;
        latencies.since(schedule.due(number));
    }
    Ok(latencies)
}

/// Until all have come.
async fn receive(mut consumer: Consumer, messages: u64, schedule: Schedule) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::default();
    while latencies.count() < messages {
        let Some(record) = consumer.next().await else {
            return Err(Failure::Failed("the consumer came to an end before the last message".to_owned()));
        };
        let value = record?.value.unwrap_or_default();
        let number = value.first_chunk().map_or(UNCOUNTED, |bytes| u64::from_be_bytes(*bytes));
        if number != UNCOUNTED {
            latencies.since(schedule.due(number));
        }
    }
    Ok(latencies)
}
