//! `bench latency`: how long it takes until a message is acknowledged, and until somebody else has it.
//!
//! At a steady rate, a message counts from the moment at which it was to be sent, not from when it was: a sender that is held
//! up does not hide the time for which it was (coordinated omission).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use hdrhistogram::Histogram;
use tidelog::client::{Ack, Client, Consumer, Message, Receipt, StartAt};
use tokio::sync::mpsc;

use super::Options;
use super::limits::{self, Layout, micros};
use super::outcome::Outcome;
use super::produce::{Share, ack_name, produce, value};
use super::session::Session;
use crate::cli::failure::Failure;

/// A sleep ends this much later than asked for, at worst, where the machine is not busy; the rest is waited for awake.
const SLACK: Duration = Duration::from_micros(120);
/// Messages before measuring begins.
const WARM_UP: u64 = 200;

/// What the bare machine takes for one message.
struct Bare {
    trip: Histogram<u64>,
    /// `None` where no sync is waited for.
    sync: Option<Histogram<u64>>,
}

impl Bare {
    async fn measure(session: &Session, options: &Options) -> Result<Self, Failure> {
        let folder = session.workspace.path().to_owned();
        let (size, durable) = (options.size as usize, options.ack == Ack::Durable);
        let measured = tokio::task::spawn_blocking(move || {
            let sync = match durable {
                true => Some(limits::sync_loop(&folder, size + 70, 1, Layout::Prepared)?.sync),
                false => None,
            };
            Ok(Self { trip: limits::ping_pong(size)?, sync })
        });
        measured.await.map_err(Failure::failed)?
    }

    fn at(&self, quantile: f64) -> u64 {
        self.trip.value_at_quantile(quantile) + self.sync.as_ref().map_or(0, |sync| sync.value_at_quantile(quantile))
    }

    fn note(&self) -> String {
        let shown = |histogram: &Histogram<u64>| {
            format!("{} / {} us", histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99))
        };
        let sync = self.sync.as_ref().map_or(String::new(), |sync| format!(", fdatasync {}", shown(sync)));
        format!("bare p50 / p99: ping-pong {}{sync}", shown(&self.trip))
    }
}

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, 1, options.ack).await?.into();
    match options.in_flight {
        Some(in_flight) => closed(session, options, client, topic, in_flight).await,
        None => open(session, options, client, topic).await,
    }
}

/// So many at a time, the next one when one is acknowledged.
async fn closed(
    session: Session,
    options: &Options,
    client: Client,
    topic: Arc<str>,
    in_flight: u32,
) -> Result<Outcome, Failure> {
    let share = |messages| Share {
        topic: topic.clone(),
        partition: 0,
        messages,
        size: options.size as usize,
        in_flight: Some(in_flight),
        ack: options.ack,
        batch_bytes: options.batch_bytes,
    };
    let warm = Instant::now();
    produce(client.clone(), share(WARM_UP)).await?;
    let each = warm.elapsed().as_secs_f64() / WARM_UP as f64;
    let messages = options.messages.unwrap_or((options.seconds / each) as u64).max(1);
    let meters = session.meters();
    let started = Instant::now();
    let latency = produce(client, share(messages)).await?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let bare = Bare::measure(&session, options).await?;
    Ok(Outcome {
        work: format!(
            "acknowledgement, ack={}, {} byte messages, {in_flight} at a time",
            ack_name(options.ack),
            options.size
        ),
        messages: Some(messages),
        seconds,
        limit_us: Some(bare.at(0.5) as f64),
        latency: Some(latency),
        usage,
        notes: vec![bare.note()],
        ..Outcome::default()
    })
}

/// At a steady rate.
async fn open(session: Session, options: &Options, client: Client, topic: Arc<str>) -> Result<Outcome, Failure> {
    let messages = options.messages.unwrap_or((options.rate as f64 * options.seconds) as u64).max(1);
    let reader = session.client().await?;
    let consumer = reader.consumer().topic(topic.as_ref()).from(StartAt::End).build().await?;
    let producer = client.producer().ack(options.ack).linger(Duration::ZERO).build().await?;
    for _ in 0..WARM_UP {
        producer.send_and_wait(Message::to(topic.clone()).value(value(options.size as usize))).await?;
    }
    let interval = Duration::from_secs_f64(1.0 / options.rate as f64);
    let start = Instant::now() + Duration::from_millis(20);
    let due = move |number: u64| start + interval.mul_f64(number as f64);
    let meters = session.meters();
    let received = tokio::spawn(receive(consumer, messages, due));
    let (sender, receipts) = mpsc::unbounded_channel();
    let acknowledged = tokio::spawn(collect(receipts));
    let (runtime, size, sent) = (tokio::runtime::Handle::current(), options.size as usize, producer.clone());
    let pace = std::thread::spawn(move || -> Result<(), Failure> {
        let filler = value(size);
        for number in 0..messages {
            wait_until(due(number));
            let message = Message::to(topic.clone()).value(numbered(number, &filler));
            let receipt = runtime.block_on(sent.send(message))?;
            let _ = sender.send((due(number), receipt));
        }
        Ok(())
    });
    let latency = received.await.map_err(Failure::failed)??;
    let seconds = start.elapsed().as_secs_f64();
    let acknowledged = acknowledged.await.map_err(Failure::failed)??;
    pace.join().map_err(|_| Failure::Failed("the sender has failed".to_owned()))??;
    producer.close().await?;
    let usage = session.usage(&meters);
    let bare = Bare::measure(&session, options).await?;
    let ack = |quantile| acknowledged.value_at_quantile(quantile);
    let told = match options.ack {
        Ack::None => Vec::new(),
        _ => vec![format!("acknowledged after: p50 {} us, p99 {} us, p99.9 {} us", ack(0.5), ack(0.99), ack(0.999))],
    };
    Ok(Outcome {
        work: format!(
            "end to end at {} messages/s, ack={}, {} byte messages",
            options.rate,
            ack_name(options.ack),
            options.size
        ),
        messages: Some(messages),
        seconds,
        limit_us: Some(bare.at(0.5) as f64),
        latency: Some(latency),
        usage,
        notes: [told, vec![bare.note()]].concat(),
        ..Outcome::default()
    })
}

/// A value that begins with a number.
fn numbered(number: u64, filler: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(filler.len());
    value.put_u64(number);
    value.put_slice(&filler[8..]);
    value.freeze()
}

/// Sleeps for most of the time, and is awake for the rest.
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SLACK {
        std::thread::park_timeout(left.saturating_sub(SLACK));
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

async fn receive(
    mut consumer: Consumer,
    messages: u64,
    due: impl Fn(u64) -> Instant,
) -> Result<Histogram<u64>, Failure> {
    let mut latency: Histogram<u64> = Histogram::new(3).map_err(Failure::failed)?;
    let mut warm_up = WARM_UP;
    while let Some(record) = consumer.next().await {
        let value = record?.value.unwrap_or_default();
        if warm_up > 0 {
            warm_up -= 1;
            continue;
        }
        let number = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let _ = latency.record(micros(due(number)));
        if number + 1 == messages {
            return Ok(latency);
        }
    }
    Err(Failure::Failed("the consumer came to an end before the last message".to_owned()))
}

async fn collect(mut receipts: mpsc::UnboundedReceiver<(Instant, Receipt)>) -> Result<Histogram<u64>, Failure> {
    let mut latency: Histogram<u64> = Histogram::new(3).map_err(Failure::failed)?;
    while let Some((due, receipt)) = receipts.recv().await {
        receipt.await?;
        let _ = latency.record(micros(due));
    }
    Ok(latency)
}
