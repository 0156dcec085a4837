//! librdkafka's part, on threads of its own and on one that waits for it. What is not set here is as librdkafka has it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::super::latencies::Latencies;
use super::super::latency::{EndToEnd, LEAD, UNCOUNTED, WARM_UP, numbered};
use super::super::pace::{Pacer, Schedule};
use super::super::producing::value;
use super::measured::{Asked, Fetched};
use crate::cli::failure::Failure;

/// How long nothing may come before it is taken for lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the native producer holds at the most, in KiB: the same here.
const MEMORY_KIB: &str = "65536";

/// Where the Kafka listener is, and what else librdkafka is told.
#[derive(Debug, Clone)]
pub struct Door {
    /// `host:port`.
    pub address: String,
    /// Over what is set here.
    pub settings: Vec<(String, String)>,
}

/// Its version.
pub fn version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

fn failed(error: KafkaError) -> Failure {
    Failure::Failed(format!("librdkafka: {error}"))
}

/// Counts the messages that were delivered, and keeps the first error. librdkafka's word comes on a thread of the producer's.
#[derive(Default)]
struct Told {
    state: Mutex<Delivered>,
    more: Condvar,
}

#[derive(Default)]
struct Delivered {
    count: u64,
    error: Option<KafkaError>,
    /// Whoever waits is woken at this count: not for each message.
    awaited: u64,
}

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match delivered {
            Ok(_) => state.count += 1,
            Err((error, _)) => state.error = state.error.take().or(Some(error.clone())),
        }
        if state.count >= state.awaited || state.error.is_some() {
            self.more.notify_one();
        }
    }
}

impl Told {
    /// Waits until so many are delivered; how many are. One thread at a time may ask.
    fn reach(&self, count: u64) -> Result<u64, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.awaited = count;
        let short = |state: &mut Delivered| state.count < count && state.error.is_none();
        let waited = self.more.wait_timeout_while(state, PATIENCE, short);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.error.take() {
            Some(error) => Err(failed(error)),
            None if state.count >= count => Ok(state.count),
            None => {
                let message = format!("librdkafka was told of {} of {count} messages in {PATIENCE:?}", state.count);
                Err(Failure::Failed(message))
            }
        }
    }
}

impl Door {
    fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address.as_str()).set("client.id", "tidelog-bench");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        for (name, value) in &self.settings {
            config.set(name.as_str(), value.as_str());
        }
        config
    }

    fn producer(&self, asked: &Asked, linger: Duration) -> Result<ThreadedProducer<Told>, Failure> {
        let (batch, largest) = (asked.batch_bytes.to_string(), (asked.batch_bytes + 100_000).to_string());
        let linger = linger.as_millis().to_string();
        let config = self.config(&[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("batch.size", &batch),
            ("batch.num.messages", "1000000"),
            ("message.max.bytes", &largest),
            ("linger.ms", &linger),
            ("queue.buffering.max.kbytes", MEMORY_KIB),
            ("queue.buffering.max.messages", "1000000"),
            ("message.timeout.ms", "60000"),
            ("socket.nagle.disable", "true"),
        ]);
        config.create_with_context(Told::default()).map_err(failed)
    }

    /// One that has the topic's first partition from its beginning; by number, which needs no question to the server.
    fn consumer(&self, topic: &str) -> Result<BaseConsumer, Failure> {
        let settings = [("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
        let mut config = self.config(&settings);
        // It joins no group, but librdkafka wants a name.
        let consumer: BaseConsumer = config.set("group.id", "tidelog-bench").create().map_err(failed)?;
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(topic, 0, Offset::Offset(0)).map_err(failed)?;
        consumer.assign(&all).map_err(failed)?;
        Ok(consumer)
    }
}

/// Seconds until all are acknowledged.
pub fn produce(door: &Door, asked: &Asked, topic: &str) -> Result<f64, Failure> {
    let producer = door.producer(asked, asked.linger)?;
    let (told, value) = (producer.context(), value(asked.size as usize));
    send(&producer, topic, &value)?;
    let mut delivered = told.reach(1)?;
    let started = Instant::now();
    for sent in 1..=asked.messages {
        while !send(&producer, topic, &value)? {
            // Room for many, so that the two threads do not take turns message by message.
            delivered = told.reach(delivered + (sent - delivered).div_ceil(4))?;
        }
    }
    told.reach(asked.messages + 1)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Whether there was room for it.
fn send(producer: &ThreadedProducer<Told>, topic: &str, value: &[u8]) -> Result<bool, Failure> {
    let record = BaseRecord::<(), [u8]>::to(topic).payload(value).partition(0);
    match producer.send(record) {
        Ok(()) => Ok(true),
        Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Ok(false),
        Err((error, _)) => Err(failed(error)),
    }
}

/// Reads so many messages from a topic's beginning.
pub fn fetch(door: &Door, topic: &str, messages: u64) -> Result<Fetched, Failure> {
    let asked_at = Instant::now();
    let consumer = door.consumer(topic)?;
    next(&consumer)?;
    let first = Instant::now();
    for _ in 1..messages {
        next(&consumer)?;
    }
    Ok(Fetched::new(asked_at, first))
}

/// The number at the beginning of the next message.
fn next(consumer: &BaseConsumer) -> Result<u64, Failure> {
    let message = consumer.poll(PATIENCE);
    let message = message.ok_or_else(|| Failure::Failed(format!("librdkafka got nothing for {PATIENCE:?}")))?;
    let message = message.map_err(failed)?;
    Ok(message.payload().and_then(|value| value.first_chunk()).map_or(UNCOUNTED, |bytes| u64::from_be_bytes(*bytes)))
}

/// From sending a message to its acknowledgement, one at a time.
pub fn acknowledged(door: &Door, asked: &Asked, topic: &str) -> Result<Latencies, Failure> {
    let producer = door.producer(asked, Duration::ZERO)?;
    let (told, value) = (producer.context(), value(asked.size as usize));
    for number in 0..WARM_UP {
        send(&producer, topic, &value)?;
        told.reach(number + 1)?;
    }
    let (mut latencies, mut delivered) = (Latencies::default(), WARM_UP);
    let until = Instant::now() + asked.span;
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(latencies);
        }
        send(&producer, topic, &value)?;
        delivered = told.reach(delivered + 1)?;
        latencies.since(began);
    }
}

/// From when a message is due until a consumer that waits has it.
pub fn end_to_end(door: &Door, asked: &Asked, topic: &str) -> Result<EndToEnd, Failure> {
    let consumer = door.consumer(topic)?;
    let producer = door.producer(asked, Duration::ZERO)?;
    let (messages, filler) = (asked.on_time(), value(asked.size as usize));
    for number in 0..WARM_UP {
        send(&producer, topic, &numbered(UNCOUNTED, &filler))?;
        producer.context().reach(number + 1)?;
        next(&consumer)?;
    }
    let schedule = Schedule::new(Instant::now() + LEAD, asked.rate);
    let (producer, filler) = (&producer, &filler);
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let (pacer, mut late) = (Pacer::new(), Latencies::default());
            for number in 0..messages {
                pacer.wait(schedule.due(number));
                late.since(schedule.due(number));
                if !send(producer, topic, &numbered(number, filler))? {
                    return Err(Failure::Failed("librdkafka has no room at this rate".to_owned()));
                }
            }
            Ok(late)
        });
        let hearing = scope.spawn(move || {
            let mut acknowledged = Latencies::default();
            while acknowledged.count() < messages {
                let delivered = producer.context().reach(WARM_UP + acknowledged.count() + 1)? - WARM_UP;
                // One partition: they are acknowledged in the order sent.
                for number in acknowledged.count()..delivered {
                    acknowledged.since(schedule.due(number));
                }
            }
            Ok(acknowledged)
        });
        let mut latency = Latencies::default();
        while latency.count() < messages {
            let number = next(&consumer)?;
            if number != UNCOUNTED {
                latency.since(schedule.due(number));
            }
        }
        let joined = |ended: std::thread::Result<Result<Latencies, Failure>>| {
            ended.unwrap_or_else(|_| Err(Failure::Failed("a thread of the bench has failed".to_owned())))
        };
        Ok(EndToEnd { late: joined(sending.join())?, acknowledged: joined(hearing.join())?, latency })
    })
}
