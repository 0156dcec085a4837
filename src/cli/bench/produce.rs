//! `bench produce`: as fast as it is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::client::{Ack, Client};

use super::limits::{self, Layout, Source, Volume};
use super::outcome::Outcome;
use super::producing::{Load, produce};
use super::session::{LogCounters, Session};
use super::{Options, ack_name};
use crate::cli::failure::Failure;
use crate::cli::output::{grouped, size};

/// Streams and files of the bare limits at most.
const PARALLEL: u32 = 16;
/// How long the server may take to store what nobody acknowledges.
const PATIENCE: Duration = Duration::from_secs(30);

/// From so many bytes a write on, the log lets its files grow instead of writing over room made before (`log/room.rs`): the
/// limit of the same layout is the one that counts.
const GROWING_FROM: f64 = 128.0 * 1024.0;

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let (partitions, connections) = (options.partitions(), options.connections());
    let topic: Arc<str> = session.topic(&client, partitions, options.ack).await?.into();
    let clients = session.clients(connections).await?;
    let mut load = Load::new(options, topic, partitions, options.messages_or_time(1_000_000_000));
    let before = session.counters(&client).await?;
    let meters = session.meters();
    let started = Instant::now();
    load.until = options.seconds.map(|seconds| started + Duration::from_secs_f64(seconds));
    let sent = produce(clients, &load, "producing").await?;
    if load.ack == Ack::None {
        stored(&session, &client, before.records_in + sent.messages as f64).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let log = session.counters(&client).await?.since(before);
    let bytes = sent.messages * u64::from(options.size);
    let (limit, notes) = limit(&session, load.ack, log, partitions.min(connections).min(PARALLEL), bytes).await?;
    let window = options.in_flight.map_or("as many as fit".to_owned(), |window| window.to_string());
    Ok(Outcome {
        work: "produce",
        title: format!(
            "produce, ack={}, {} byte messages, {connections} connections, {partitions} partitions, {window} in flight",
            ack_name(options.ack),
            options.size
        ),
        messages: Some(sent.messages),
        seconds,
        messages_per_s: Some(sent.messages as f64 / seconds),
        bytes: Some(bytes),
        limit_bytes_per_second: Some(limit),
        latency: (sent.latencies.count() > 0).then_some(sent.latencies),
        usage,
        notes,
        ..Outcome::default()
    })
}

/// Waits until the server has so many records: with `ack=none`, sent is not yet stored.
async fn stored(session: &Session, client: &Client, records: f64) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = records - session.counters(client).await?.records_in;
        if missing <= 0.0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::Failed(format!("{missing} messages have not arrived after {PATIENCE:?}")));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The bare limit for the same work in bytes a second, and what else was measured for it.
async fn limit(
    session: &Session,
    ack: Ack,
    log: LogCounters,
    files: u32,
    bytes: u64,
) -> Result<(f64, Vec<String>), Failure> {
    let (folder, volume) = (session.workspace.path().to_owned(), Volume::of(bytes));
    let measured = tokio::task::spawn_blocking(move || -> Result<(f64, Vec<String>), Failure> {
        if ack != Ack::Durable {
            let loopback = limits::loopback(&folder, files, Source::Memory, volume)?;
            let write = limits::write_loop(&folder, volume)?;
            let note = format!("bare: loopback {:.0} MB/s, buffered write {:.0} MB/s", loopback / 1e6, write / 1e6);
            return Ok((loopback.min(write), vec![note]));
        }
        let per_sync = log.bytes_in / log.syncs.max(1.0);
        let bytes = (per_sync as usize).max(64);
        let measure = |layout| limits::sync_loop(&folder, bytes, files, layout, volume);
        let (growing, prepared) = (measure(Layout::Growing)?, measure(Layout::Prepared)?);
        let syncs = format!("{} syncs of {} each", grouped(log.syncs as u64), size(per_sync as u64));
        let shown = |name: &str, limit: &limits::SyncLimit| {
            format!("{name} {:.1} MB/s (fdatasync p50 / p99 {})", limit.bytes_per_second / 1e6, limit.sync.shown())
        };
        let bare = format!(
            "bare write and fdatasync of as much, {files} files: {}, {}",
            shown("prepared", &prepared),
            shown("growing", &growing)
        );
        let same = if per_sync >= GROWING_FROM { &growing } else { &prepared };
        Ok((same.bytes_per_second, vec![syncs, bare]))
    });
    measured.await.map_err(Failure::failed)?
}
