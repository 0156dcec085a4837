//! `bench connections`: what idle connections cost, and whether others notice them.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use tidelog::client::Client;

use super::latency::Bare;
use super::outcome::Outcome;
use super::process::resident_mib;
use super::producing::{Load, Sent, produce};
use super::session::Session;
use super::{Options, ack_name};
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Connections made at a time.
const CONNECTING: usize = 64;
/// Descriptors that a process needs beside its connections: files, pipes, the runtime's own.
const BESIDE: u64 = 128;

/// Runs it.
pub async fn run(options: &Options) -> Result<Outcome, Failure> {
    let count = options.connections.unwrap_or(1_000);
    enough_descriptors(u64::from(count), descriptors())?;
    // Its own server would refuse those above its default bound; one that was named has the bound it has.
    let bound = (count + 16).max(10_000);
    let session = Session::open(options, &["--max-connections".to_owned(), bound.to_string()]).await?;
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, 1, options.ack).await?.into();
    let mut load = Load::new(options, topic, 1, options.messages.unwrap_or(5_000));
    load.in_flight = Some(options.in_flight.unwrap_or(1));
    let measure = async |client: &Client| produce(vec![client.clone()], &load, "producing").await;
    let alone: Sent = measure(&client).await?;
    let before = session.pid().and_then(resident_mib);
    let began = Instant::now();
    let connecting = futures_util::stream::iter((0..count).map(|_| session.client())).buffer_unordered(CONNECTING);
    let idle: Vec<Client> = connecting.try_collect().await.map_err(|failure| match failure {
        Failure::Failed(why) => Failure::Failed(format!("not all of {count} connections could be made: {why}")),
        other => other,
    })?;
    let connected = began.elapsed();
    let meters = session.meters();
    let started = Instant::now();
    let sent = measure(&client).await?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let bare = Bare::measure(&session, options.size, options.ack, sent.messages).await?;
    let mut notes =
        vec![format!("{} connections made in {:.2} s", grouped(idle.len() as u64), connected.as_secs_f64())];
    if let (Some(before), Some(after)) = (before, usage.server_rss_mib) {
        let each = (after - before) * 1024.0 / f64::from(count);
        notes.push(format!("server memory {before:.1} MiB before, {after:.1} MiB with them: {each:.1} KiB each"));
    }
    if bound > 10_000 && options.server.is_none() {
        notes.push(format!("the server was started with --max-connections {bound}"));
    }
    notes.push(format!("without them p50 / p99 {}", alone.latencies.shown()));
    notes.push(bare.note());
    Ok(Outcome {
        work: "connections",
        title: format!(
            "acknowledgement beside {} idle connections, ack={}, {} byte messages",
            grouped(u64::from(count)),
            ack_name(options.ack),
            options.size
        ),
        messages: Some(sent.messages),
        seconds,
        messages_per_s: Some(sent.messages as f64 / seconds),
        limit_us: Some(bare.median_us()),
        latency: (sent.latencies.count() > 0).then_some(sent.latencies),
        usage,
        notes,
        ..Outcome::default()
    })
}

/// File descriptors that this process may have open; its own server inherits the same bound.
pub(super) fn descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Nothing is raised in silence: what is short is said.
pub(super) fn enough_descriptors(connections: u64, have: Option<u64>) -> Result<(), Failure> {
    let need = connections + BESIDE;
    match have {
        Some(have) if have < need => Err(Failure::Failed(format!(
            "{connections} connections need {need} file descriptors in this process and in the server, and the limit \
             is {have}: raise it (ulimit -n {need}) or ask for at most --connections {}",
            have.saturating_sub(BESIDE)
        ))),
        _ => Ok(()),
    }
}
