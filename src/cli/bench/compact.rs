//! `bench compact`: compaction by key of a topic in which each key has been updated ten times, alone and while others produce to
//! it and read it; and what those others notice of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tidelog::client::{Client, Message, NewTopic, StartAt, TopicChange};
use tokio::task::JoinSet;

use super::Options;
use super::outcome::Outcome;
use super::process::resident_mib;
use super::producing::value;
use super::session::{Session, value_of};
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Keys, if it is not said otherwise by the number of messages.
const KEYS: u64 = 1_000_000;
/// How often each is written.
const UPDATES: u64 = 10;
/// How long the others are measured without compaction, if not said.
const BESIDE_NOTHING: f64 = 5.0;
/// How often it is looked whether a run has ended, and how much memory there is.
const LOOK: Duration = Duration::from_millis(20);
/// How often in a row nothing must be left to compact.
const CALM: usize = 10;

/// A topic after compaction.
struct Compacted {
    seconds: f64,
    memory_mib: Option<f64>,
    removed: u64,
    /// What the server says that the run took by itself.
    own_seconds: f64,
}

/// What a topic holds.
struct Held {
    records: u64,
    keys: u64,
}

/// Runs it.
pub async fn run(options: &Options) -> Result<Outcome, Failure> {
    let session = Session::open(options, &["--compaction-check".to_owned(), "20ms".to_owned()]).await?;
    let client = session.client().await?;
    let keys = options.messages.map_or(KEYS, |messages| (messages / UPDATES).max(1));
    let messages = keys * UPDATES;
    let meters = session.meters();

    let quiet = topic(&client).await?;
    let before = fill(&session, options, &quiet, keys).await?;
    let idle_mib = session.pid().and_then(resident_mib);
    let alone = compact(&session, &client, &quiet, true).await?;
    let after = held(&client, &quiet).await?;

    let busy = topic(&client).await?;
    fill(&session, options, &busy, keys).await?;
    let load = Load::start(&session, options, &busy, keys).await?;
    let measured = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(options.seconds.unwrap_or(BESIDE_NOTHING))).await;
    let without = load.rates(measured.elapsed());
    let measured = Instant::now();
    let beside = compact(&session, &client, &busy, false).await?;
    let with = load.rates(measured.elapsed());
    load.stop().await?;
    let left = held(&client, &busy).await?;
    calm(&client, &busy).await?;
    let settled = held(&client, &busy).await?;
    for (name, held) in [("alone", &after), ("beside others", &left), ("beside others and since", &settled)] {
        if held.keys != keys {
            let why = format!("{} of {keys} keys are left in the topic that was compacted {name}", held.keys);
            return Err(Failure::Failed(why));
        }
    }
    let memory = |compacted: &Compacted| match (compacted.memory_mib, idle_mib) {
        (Some(most), Some(idle)) => format!(", {most:.0} MiB at the most ({idle:.0} before)"),
        _ => String::new(),
    };
    let shown = |compacted: &Compacted| {
        format!(
            "{:.2} s from the wish, {:.2} s at work, {} records removed{}",
            compacted.seconds,
            compacted.own_seconds,
            grouped(compacted.removed),
            memory(compacted)
        )
    };
    let rates = |(produced, read): (f64, f64)| {
        format!("{:>9} messages/s produced, {:>9} messages/s read", grouped(produced as u64), grouped(read as u64))
    };
    Ok(Outcome {
        work: "compact",
        title: format!("compact {} keys with {UPDATES} updates each, {} byte values", grouped(keys), options.size),
        messages: Some(messages),
        seconds: alone.own_seconds,
        messages_per_s: Some(before as f64 / alone.own_seconds.max(1e-9)),
        bytes: Some(messages * u64::from(options.size)),
        usage: session.usage(&meters),
        notes: vec![
            format!("alone           {}", shown(&alone)),
            format!(
                "                {} records before, {} after: {} more than keys, since the active segment is never compacted",
                grouped(before),
                grouped(after.records),
                grouped(after.records - after.keys)
            ),
            format!("beside others   {}", shown(&beside)),
            format!(
                "                {} records in it when the others stopped, {} keys; {} once compaction had caught up",
                grouped(left.records),
                grouped(left.keys),
                grouped(settled.records)
            ),
            format!("others without  {}", rates(without)),
            format!("others with     {}", rates(with)),
        ],
        cases: vec![
            case("alone", &alone, before, &after, None),
            case("beside", &beside, before, &left, Some(with)),
            json!({ "case": "caught up", "records_after": settled.records, "keys": settled.keys }),
            json!({ "case": "without", "produced_per_s": without.0.round(), "read_per_s": without.1.round() }),
        ],
        ..Outcome::default()
    })
}

/// Waits until nothing is left to compact in a topic that nobody writes to.
async fn calm(client: &Client, topic: &str) -> Result<(), Failure> {
    let mut same = 0;
    while same < CALM {
        tokio::time::sleep(LOOK * 10).await;
        let described = client.admin().describe_topic(topic).await?;
        same = if described.partitions.iter().all(|partition| partition.dirty_bytes == 0) { same + 1 } else { 0 };
    }
    Ok(())
}

fn case(name: &str, compacted: &Compacted, before: u64, after: &Held, rates: Option<(f64, f64)>) -> serde_json::Value {
    json!({
        "case": name,
        "seconds": compacted.seconds,
        "seconds_at_work": compacted.own_seconds,
        "records_removed": compacted.removed,
        "records_before": before,
        "records_after": after.records,
        "keys": after.keys,
        "server_rss_mib_at_most": compacted.memory_mib,
        "produced_per_s": rates.map(|rates| rates.0.round()),
        "read_per_s": rates.map(|rates| rates.1.round()),
    })
}

/// A topic that is to be compacted, and is not yet.
async fn topic(client: &Client) -> Result<Arc<str>, Failure> {
    let name = format!("bench.{:08x}", fastrand::u32(..));
    let topic = NewTopic::new(&name).partitions(1).set("segment_bytes", "16MiB");
    client.admin().create_topic(topic.set("min_dirty_ratio", "0")).await?;
    Ok(name.into())
}

fn message(topic: &Arc<str>, key: u64, value: &Bytes) -> Message {
    Message::to(Arc::clone(topic)).key(format!("key-{key:08}")).value(value.clone())
}

/// Writes every key so many times, all of them in turn; how many records that are.
async fn fill(session: &Session, options: &Options, topic: &Arc<str>, keys: u64) -> Result<u64, Failure> {
    let producer = session.client().await?.producer().build().await?;
    let value = value(options.size as usize);
    for number in 0..keys * UPDATES {
        producer.send(message(topic, number % keys, &value)).await?;
    }
    producer.flush().await?;
    producer.close().await?;
    Ok(keys * UPDATES)
}

/// Lets the topic be compacted: once, or until only the active segment is left, where nobody makes new ones meanwhile.
async fn compact(session: &Session, client: &Client, topic: &str, all: bool) -> Result<Compacted, Failure> {
    let counters = async || {
        let metrics = client.admin().metrics().await?;
        let value = |name: &str| value_of(&metrics, name);
        Ok::<_, Failure>((
            value("tidelog_compaction_records_removed_total"),
            value("tidelog_compaction_seconds_sum"),
            value("tidelog_compaction_failures_total"),
        ))
    };
    let before = counters().await?;
    let began = Instant::now();
    client.admin().alter_topic(TopicChange::new(topic).set("cleanup", "compact")).await?;
    let mut most: Option<f64> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let memory = session.pid().and_then(resident_mib);
        most = most.max_by(memory);
        let now = counters().await?;
        if now.2 > before.2 {
            return Err(Failure::Failed("the topic cannot be compacted: see the server's log".to_owned()));
        }
        let removed = (now.0 - before.0) as u64;
        let partition = client.admin().describe_topic(topic).await?.partitions.into_iter().next();
        let Some(partition) = partition else { return Err(Failure::Failed("the topic is gone".to_owned())) };
        let done = removed > 0 && partition.clean_bytes > 0 && (!all || partition.dirty_bytes == 0);
        if done || partition.segments < 2 {
            return Ok(Compacted {
                seconds: began.elapsed().as_secs_f64(),
                memory_mib: most,
                removed,
                own_seconds: now.1 - before.1,
            });
        }
    }
}

/// The larger of two figures of which either may be unknown.
trait Larger {
    fn max_by(self, other: Self) -> Self;
}

impl Larger for Option<f64> {
    fn max_by(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (one, two) => one.or(two),
        }
    }
}

/// Reads all there is.
async fn held(client: &Client, topic: &str) -> Result<Held, Failure> {
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await?;
    let (mut records, mut keys) = (0, HashSet::new());
    while let Some(record) = consumer.next().await {
        records += 1;
        keys.insert(record?.key.unwrap_or_default());
    }
    Ok(Held { records, keys: keys.len() as u64 })
}

/// One that produces to the topic, and one that reads it from its beginning again and again.
struct Load {
    stop: Arc<AtomicBool>,
    produced: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Load {
    async fn start(session: &Session, options: &Options, topic: &Arc<str>, keys: u64) -> Result<Self, Failure> {
        let mut load =
            Self { stop: Arc::default(), produced: Arc::default(), read: Arc::default(), tasks: JoinSet::new() };
        let producer = session.client().await?.producer().build().await?;
        let (topic_of, value) = (Arc::clone(topic), value(options.size as usize));
        let (stop, produced) = (Arc::clone(&load.stop), Arc::clone(&load.produced));
        load.tasks.spawn(async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                producer.send(message(&topic_of, number % keys, &value)).await?;
                produced.fetch_add(1, Ordering::Relaxed);
                tokio::task::consume_budget().await;
            }
            producer.flush().await?;
            Ok(producer.close().await?)
        });
        let client = session.client().await?;
        let (topic, stop, read) = (Arc::clone(topic), Arc::clone(&load.stop), Arc::clone(&load.read));
        load.tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let consumer = client.consumer().topic(topic.as_ref()).from(StartAt::Beginning).until_end(true);
                let mut consumer = consumer.build().await?;
                while let Some(record) = consumer.next().await {
                    record?;
                    read.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            Ok(())
        });
        Ok(load)
    }

    /// Messages a second produced and read since this was asked last.
    fn rates(&self, since: Duration) -> (f64, f64) {
        let rate = |count: &AtomicU64| count.swap(0, Ordering::Relaxed) as f64 / since.as_secs_f64().max(1e-9);
        (rate(&self.produced), rate(&self.read))
    }

    async fn stop(mut self) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(Failure::failed)??;
        }
        Ok(())
    }
}
