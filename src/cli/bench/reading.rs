//! `bench replay`: one cold consumer from the beginning of a topic. `bench consume`: consumers that follow a producer.

use std::sync::Arc;
use std::time::Instant;

use tidelog::client::{Client, StartAt};
use tokio::task::JoinSet;

use super::limits::{self, Source, Volume};
use super::outcome::Outcome;
use super::producing::{Load, fill, produce};
use super::session::{Meters, Session};
use super::{Options, ack_name};
use crate::cli::failure::Failure;

/// Streams of the bare limit at most.
const STREAMS: u32 = 16;

/// What consumers got.
#[derive(Debug, Clone, Copy, Default)]
struct Got {
    records: u64,
    /// Bytes of values.
    bytes: u64,
}

/// Runs `replay`: fills a topic, or takes one that is there, and reads it.
pub async fn replay(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let topic = match &options.topic {
        Some(topic) => Arc::from(topic.as_str()),
        None => filled(&session, &client, options).await?,
    };
    let clients = session.clients(options.connections()).await?;
    let meters = session.meters();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        let topic = topic.clone();
        tasks.spawn(async move { read(client, &topic, u64::MAX).await });
    }
    let got = all(tasks).await?;
    let title = format!("replay from the beginning, {} consumers", options.connections());
    measured(&session, options, "replay", title, got, started, &meters).await
}

/// Runs `consume`: the consumers are there first, and read what is produced as it comes.
pub async fn consume(session: Session, options: &Options) -> Result<Outcome, Failure> {
    if options.topic.is_some() {
        return Err(Failure::Usage(
            "bench consume follows a producer of its own on a new topic; --topic goes with bench replay".to_owned(),
        ));
    }
    let client = session.client().await?;
    let partitions = options.partitions.unwrap_or(1);
    let topic: Arc<str> = session.topic(&client, partitions, options.ack).await?.into();
    let messages = options.messages_or(500_000_000);
    let followers = session.clients(options.connections()).await?;
    let load = Load::new(options, topic.clone(), partitions, messages);
    let producers = session.clients(partitions).await?;
    let meters = session.meters();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in followers {
        let topic = topic.clone();
        tasks.spawn(async move { read(client, &topic, messages).await });
    }
    let (sent, got) = tokio::try_join!(produce(producers, &load, "producing"), all(tasks))?;
    debug_assert_eq!(sent.messages, messages);
    let title = format!(
        "consume as it is produced, ack={}, {} byte messages, {} followers, {partitions} partitions",
        ack_name(options.ack),
        options.size,
        options.connections()
    );
    measured(&session, options, "consume", title, got, started, &meters).await
}

/// A topic with as much as the options say.
async fn filled(session: &Session, client: &Client, options: &Options) -> Result<Arc<str>, Failure> {
    let partitions = options.partitions.unwrap_or(1);
    let topic: Arc<str> = session.topic(client, partitions, options.ack).await?.into();
    let messages = options.messages_or(1_000_000_000);
    fill(session, &Load::filling(options, topic.clone(), partitions, messages)).await?;
    Ok(topic)
}

async fn all(mut tasks: JoinSet<Result<Got, Failure>>) -> Result<Got, Failure> {
    let mut total = Got::default();
    while let Some(done) = tasks.join_next().await {
        let got = done.map_err(Failure::failed)??;
        total.records += got.records;
        total.bytes += got.bytes;
    }
    Ok(total)
}

/// Reads so many records from the beginning; all up to the end as it is, for `u64::MAX`.
async fn read(client: Client, topic: &str, messages: u64) -> Result<Got, Failure> {
    let from_start = client.consumer().topic(topic).from(StartAt::Beginning);
    let mut consumer = match messages {
        u64::MAX => from_start.until_end(true),
        messages => from_start.max_records(messages),
    }
    .build()
    .await?;
    let mut got = Got::default();
    while let Some(record) = consumer.next().await {
        got.records += 1;
        got.bytes += record?.value.map_or(0, |value| value.len() as u64);
    }
    if messages != u64::MAX && got.records != messages {
        return Err(Failure::Failed(format!("a consumer got {} of {messages} records", got.records)));
    }
    Ok(got)
}

/// The figures, and the bare limit beside them: the same bytes over as many streams, out of a file in the page cache.
async fn measured(
    session: &Session,
    options: &Options,
    work: &'static str,
    title: String,
    got: Got,
    started: Instant,
    meters: &Meters,
) -> Result<Outcome, Failure> {
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(meters);
    let (folder, streams) = (session.workspace.path().to_owned(), options.connections().min(STREAMS));
    let limits = tokio::task::spawn_blocking(move || {
        let by = |source| limits::loopback(&folder, streams, source, Volume::of(got.bytes));
        Ok::<_, Failure>((by(Source::File)?, by(Source::SendFile)?))
    });
    let (by_read, by_sendfile) = limits.await.map_err(Failure::failed)??;
    Ok(Outcome {
        work,
        title,
        messages: Some(got.records),
        seconds,
        messages_per_s: Some(got.records as f64 / seconds),
        bytes: Some(got.bytes),
        limit_bytes_per_second: Some(by_read.max(by_sendfile)),
        usage,
        notes: vec![format!(
            "bare loopback from a cached file, {streams} streams: read and write {:.0} MB/s, sendfile {:.0} MB/s",
            by_read / 1e6,
            by_sendfile / 1e6
        )],
        ..Outcome::default()
    })
}
