//! The run: in each round both clients do each work, one after the other, and the next round the other way around.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::client::{Ack, Client};

use super::super::latency::Bare;
use super::super::outcome::Outcome;
use super::super::process::cpu_seconds;
use super::super::session::Session;
use super::foreign::{self, Door};
use super::measured::{Asked, Fetched, Measured, Round, ratio, shown};
use super::{KafkaOptions, native};
use crate::cli::failure::Failure;

/// Bytes of messages of a round, if their number is not given, and the most messages.
const BYTES: u64 = 500_000_000;
const MOST: u64 = 2_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Native,
    Foreign,
}

/// Runs it.
pub async fn run(options: &KafkaOptions) -> Result<Outcome, Failure> {
    let addresses = options.server.as_deref().zip(options.kafka_server.as_deref());
    let (session, kafka) = Session::with_kafka(addresses).await?;
    let bench = Bench {
        client: session.client().await?,
        door: Door { address: kafka, settings: options.setting.clone() },
        session,
    };
    let meters = bench.session.meters();
    let (started, mut messages) = (Instant::now(), 0);
    let (mut all, mut notes, mut cases) = (Vec::new(), Vec::new(), Vec::new());
    for size in &options.size {
        let asked = Asked {
            messages: options.messages.unwrap_or((BYTES / u64::from(*size)).clamp(1, MOST)),
            size: *size,
            batch_bytes: options.batch_bytes,
            linger: Duration::from_millis(options.linger),
            span: Duration::from_secs_f64(options.seconds),
            rate: options.rate,
        };
        let mut measured = Measured { size: *size, ..Measured::default() };
        for round in 0..options.rounds {
            bench.round(round, &asked, &mut measured).await?;
        }
        let bare = Bare::measure(&bench.session, *size, Ack::Durable, 1_000).await?;
        notes.push(format!("{size} bytes, {} messages a round; {}", asked.messages, bare.note()));
        messages += u64::from(options.rounds) * 2 * asked.messages;
        cases.extend(measured.cases());
        all.push(measured);
    }
    let table = shown(&all);
    notes.extend(table.lines().map(str::to_owned));
    Ok(Outcome {
        work: "kafka",
        title: format!(
            "librdkafka {} beside the native client; idempotent, acks=all, durable; 1 partition, {} byte batches, {} ms \
             linger (0 for latencies), {} messages/s end to end, {} rounds in turn",
            foreign::version(),
            options.batch_bytes,
            options.linger,
            options.rate,
            options.rounds
        ),
        messages: Some(messages),
        seconds: started.elapsed().as_secs_f64(),
        ratio: all.first().and_then(|first| ratio(first.produce.native.rate(), first.produce.foreign.rate())),
        usage: bench.session.usage(&meters),
        notes,
        cases,
        ..Outcome::default()
    })
}

struct Bench {
    client: Client,
    door: Door,
    session: Session,
}

/// CPU seconds of server and client, as far as they are known.
type Cpu = (Option<f64>, Option<f64>);

impl Bench {
    fn cpu(&self) -> Cpu {
        (self.session.pid().and_then(cpu_seconds), cpu_seconds(std::process::id()))
    }

    fn counted(&self, before: Cpu, messages: u64, seconds: f64) -> Round {
        let (server, client) = self.cpu();
        let used = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
        let (server_cpu, client_cpu) = (used(before.0, server), used(before.1, client));
        Round { messages, seconds, server_cpu, client_cpu, first: None }
    }

    async fn topic(&self) -> Result<Arc<str>, Failure> {
        Ok(self.session.topic(&self.client, 1, Ack::Durable).await?.into())
    }

    /// Something that librdkafka does, on a thread that may wait.
    async fn foreign<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Door) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let door = self.door.clone();
        tokio::task::spawn_blocking(move || work(&door)).await.map_err(Failure::failed)?
    }

    async fn round(&self, number: u32, asked: &Asked, measured: &mut Measured) -> Result<(), Failure> {
        let sides = match number % 2 {
            0 => [Side::Native, Side::Foreign],
            _ => [Side::Foreign, Side::Native],
        };
        let mut written = Vec::new();
        for side in sides {
            let topic = self.topic().await?;
            let round = self.produce(side, asked, &topic).await?;
            side.of(&mut measured.produce).0.push(round);
            written.push(topic);
        }
        // Each reads what both have written: their batches may differ.
        for side in sides {
            let round = self.fetch(side, asked, &written).await?;
            side.of(&mut measured.fetch).0.push(round);
        }
        for side in sides {
            let topic = self.topic().await?;
            let (of, to) = (asked.clone(), Arc::clone(&topic));
            let latencies = match side {
                Side::Native => native::acknowledged(&self.session.address, asked, &topic).await?,
                Side::Foreign => self.foreign(move |door| foreign::acknowledged(door, &of, &to)).await?,
            };
            side.of(&mut measured.acknowledged).add(&latencies);
            written.push(topic);
        }
        for side in sides {
            let topic = self.topic().await?;
            let (of, to) = (asked.clone(), Arc::clone(&topic));
            let times = match side {
                Side::Native => native::end_to_end(&self.session.address, asked, &topic).await?,
                Side::Foreign => self.foreign(move |door| foreign::end_to_end(door, &of, &to)).await?,
            };
            side.of(&mut measured.end_to_end).add(&times.latency);
            side.of(&mut measured.paced).add(&times.acknowledged);
            written.push(topic);
        }
        for topic in written {
            self.client.admin().delete_topic(topic.as_ref()).await?;
        }
        Ok(())
    }

    async fn produce(&self, side: Side, asked: &Asked, topic: &Arc<str>) -> Result<Round, Failure> {
        let before = self.cpu();
        let (of, to) = (asked.clone(), Arc::clone(topic));
        let seconds = match side {
            Side::Native => native::produce(&self.session.address, asked, topic).await?,
            Side::Foreign => self.foreign(move |door| foreign::produce(door, &of, &to)).await?,
        };
        Ok(self.counted(before, asked.messages, seconds))
    }

    async fn fetch(&self, side: Side, asked: &Asked, topics: &[Arc<str>]) -> Result<Round, Failure> {
        // The warm-up of the producers is there, too.
        let messages = asked.messages + 1;
        let before = self.cpu();
        let (mut seconds, mut first) = (0.0, Duration::ZERO);
        for topic in topics {
            let to = Arc::clone(topic);
            let Fetched { first: until_first, seconds: took } = match side {
                Side::Native => native::fetch(&self.session.address, topic, messages).await?,
                Side::Foreign => self.foreign(move |door| foreign::fetch(door, &to, messages)).await?,
            };
            seconds += took;
            first = first.max(until_first);
        }
        Ok(Round { first: Some(first), ..self.counted(before, messages * topics.len() as u64, seconds) })
    }
}

impl Side {
    fn of<T>(self, pair: &mut super::measured::Pair<T>) -> &mut T {
        match self {
            Self::Native => &mut pair.native,
            Self::Foreign => &mut pair.foreign,
        }
    }
}
