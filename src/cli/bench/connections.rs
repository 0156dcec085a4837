//! `bench connections`: what idle connections cost, and whether others notice them.

use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;
use tidelog::client::Client;

use super::Options;
use super::outcome::Outcome;
use super::process::resident_mib;
use super::produce::{Share, ack_name, produce};
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Connections made at a time.
const CONNECTING: usize = 64;

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    use futures_util::{StreamExt, TryStreamExt};
    let count = options.connections.unwrap_or(1_000);
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, 1, options.ack).await?.into();
    let messages = options.messages.unwrap_or(5_000);
    let share = Share {
        topic,
        partition: 0,
        messages,
        size: options.size as usize,
        in_flight: Some(options.in_flight.unwrap_or(1)),
        ack: options.ack,
        batch_bytes: None,
    };
    let alone: Histogram<u64> = produce(client.clone(), share.clone()).await?;
    let before = session.pid().and_then(resident_mib);
    let began = Instant::now();
    let connecting = (0..count).map(|_| session.client());
    let idle: Vec<Client> =
        futures_util::stream::iter(connecting).buffer_unordered(CONNECTING).try_collect().await.map_err(|failure| {
            Failure::Failed(format!("not all of {count} connections could be made: {}", said(failure)))
        })?;
    let connected = began.elapsed();
    let meters = session.meters();
    let started = Instant::now();
    let latency = produce(client, share).await?;
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    let mut notes =
        vec![format!("{} connections made in {:.2} s", grouped(idle.len() as u64), connected.as_secs_f64())];
    if let (Some(before), Some(after)) = (before, usage.server_rss_mib) {
        let each = (after - before) * 1024.0 / f64::from(count);
        notes.push(format!("server memory {before:.1} MiB before, {after:.1} MiB with them: {each:.1} KiB each"));
    }
    notes.push(format!(
        "without them p50 {} us, p99 {} us",
        alone.value_at_quantile(0.5),
        alone.value_at_quantile(0.99)
    ));
    Ok(Outcome {
        work: format!(
            "acknowledgement beside {} idle connections, ack={}, {} byte messages",
            grouped(u64::from(count)),
            ack_name(options.ack),
            options.size
        ),
        messages: Some(messages),
        seconds,
        limit_us: Some(alone.value_at_quantile(0.5) as f64),
        latency: Some(latency),
        usage,
        notes,
        ..Outcome::default()
    })
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Failed(why) | Failure::Usage(why) => why,
        Failure::Closed => "interrupted".to_owned(),
    }
}
