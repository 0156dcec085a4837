//! `bench produce`: as fast as it is acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tidelog::client::{Ack, Client, ClientError, Message, Receipt};
use tokio::task::JoinSet;

use super::Options;
use super::limits::{self, Layout, micros};
use super::outcome::Outcome;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::{grouped, size};

/// From so many bytes a write on, Tidelog lets its files grow instead of preparing them (`log/room.rs`).
const GROWING_FROM: f64 = 128.0 * 1024.0;

/// One connection's part of the work.
#[derive(Clone)]
pub struct Share {
    pub topic: Arc<str>,
    pub partition: u32,
    pub messages: u64,
    pub size: usize,
    pub in_flight: Option<u32>,
    pub ack: Ack,
    pub batch_bytes: Option<u32>,
}

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let partitions = options.partitions();
    let topic: Arc<str> = session.topic(&client, partitions, options.ack).await?.into();
    let connections = options.connections();
    let messages = options.messages_or(1_000_000_000);
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(session.client().await?);
    }
    let before = session.counters(&client).await?;
    let meters = session.meters();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, client) in (0..connections).zip(clients) {
        let share = Share {
            topic: topic.clone(),
            partition: number % partitions,
            messages: messages / u64::from(connections)
                + u64::from(u64::from(number) < messages % u64::from(connections)),
            size: options.size as usize,
            in_flight: options.in_flight,
            ack: options.ack,
            batch_bytes: options.batch_bytes,
        };
        tasks.spawn(async move { produce(client, share).await });
    }
    let mut latency: Histogram<u64> = Histogram::new(3).map_err(Failure::failed)?;
    while let Some(done) = tasks.join_next().await {
        latency.add(done.map_err(Failure::failed)??).map_err(Failure::failed)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let after = session.counters(&client).await?;
    let syncs = (after.syncs - before.syncs).max(1.0);
    let bytes_per_sync = (after.bytes_in - before.bytes_in) / syncs;
    let used = partitions.min(connections).min(16);
    let (limit, mut notes) = limit(&session, options, bytes_per_sync, used).await?;
    if options.ack == Ack::Durable {
        notes.insert(0, format!("{} syncs of {} each", grouped(syncs as u64), size(bytes_per_sync as u64)));
    }
    let window = options.in_flight.map_or("as many as fit".to_owned(), |window| window.to_string());
    Ok(Outcome {
        work: format!(
            "produce, ack={}, {} byte messages, {connections} connections, {window} in flight each",
            ack_name(options.ack),
            options.size
        ),
        messages: Some(messages),
        seconds,
        bytes: Some(messages * u64::from(options.size)),
        limit_bytes_per_second: Some(limit),
        latency: (!latency.is_empty()).then_some(latency),
        usage,
        notes,
        ..Outcome::default()
    })
}

/// The bare limit for the same work, and what else was measured for it.
async fn limit(
    session: &Session,
    options: &Options,
    bytes_per_sync: f64,
    files: u32,
) -> Result<(f64, Vec<String>), Failure> {
    let folder = session.workspace.path().to_owned();
    let durable = options.ack == Ack::Durable;
    let measured = tokio::task::spawn_blocking(move || -> Result<(f64, Vec<String>), Failure> {
        if !durable {
            let (loopback, write) = (limits::loopback(files)?, limits::write_loop(&folder)?);
            let note = format!("bare: loopback {:.0} MB/s, buffered write {:.0} MB/s", loopback / 1e6, write / 1e6);
            return Ok((loopback.min(write), vec![note]));
        }
        let bytes = (bytes_per_sync as usize).max(64);
        let growing = limits::sync_loop(&folder, bytes, files, Layout::Growing)?;
        let prepared = limits::sync_loop(&folder, bytes, files, Layout::Prepared)?;
        let note = format!(
            "bare write and fdatasync of as much, {files} files: growing {:.1} MB/s ({} us), prepared {:.1} MB/s ({} us)",
            growing.bytes_per_second / 1e6,
            growing.sync.value_at_quantile(0.5),
            prepared.bytes_per_second / 1e6,
            prepared.sync.value_at_quantile(0.5),
        );
        let same = if bytes_per_sync >= GROWING_FROM { &growing } else { &prepared };
        Ok((same.bytes_per_second, vec![note]))
    });
    measured.await.map_err(Failure::failed)?
}

/// The level's name, as on the command line.
pub fn ack_name(ack: Ack) -> &'static str {
    match ack {
        Ack::Durable => "durable",
        Ack::Written => "written",
        Ack::None => "none",
    }
}

/// A value of letters.
pub fn value(size: usize) -> Bytes {
    std::iter::repeat_with(fastrand::lowercase).take(size).map(|letter| letter as u8).collect::<Vec<_>>().into()
}

/// Sends a share; the time from each send to its acknowledgement, in microseconds.
pub async fn produce(client: Client, share: Share) -> Result<Histogram<u64>, Failure> {
    let mut producer = client.producer().ack(share.ack);
    if share.in_flight.is_some() {
        // Nothing more comes while the window is full.
        producer = producer.linger(Duration::ZERO);
    }
    if let Some(bytes) = share.batch_bytes {
        producer = producer.batch_bytes(bytes as usize);
    }
    let producer = producer.build().await?;
    let value = value(share.size);
    let window = share.in_flight.map_or(usize::MAX, |window| window as usize);
    let mut latency: Histogram<u64> = Histogram::new(3).map_err(Failure::failed)?;
    let mut waiting: VecDeque<(Instant, Receipt)> = VecDeque::new();
    for number in 0..share.messages {
        if waiting.len() >= window
            && let Some((began, receipt)) = waiting.pop_front()
        {
            acknowledged(&mut latency, began, receipt.await)?;
        }
        let message = Message::to(share.topic.clone()).partition(share.partition).value(value.clone());
        let began = Instant::now();
        waiting.push_back((began, producer.send(message).await?));
        // What has come meanwhile is counted soon, though not for every single message: looking costs, too.
        if number % 8 == 0 {
            while let Some(outcome) = waiting.front().and_then(|(_, receipt)| receipt.try_get()) {
                if let Some((began, _)) = waiting.pop_front() {
                    acknowledged(&mut latency, began, outcome)?;
                }
            }
        }
    }
    for (began, receipt) in waiting {
        acknowledged(&mut latency, began, receipt.await)?;
    }
    producer.close().await?;
    Ok(latency)
}

fn acknowledged<T>(
    latency: &mut Histogram<u64>,
    began: Instant,
    outcome: Result<T, ClientError>,
) -> Result<(), Failure> {
    outcome?;
    let _ = latency.record(micros(began));
    Ok(())
}
