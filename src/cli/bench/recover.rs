//! `bench recover`: killed under load, how soon is it ready again?

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidelog::client::{Ack, Message};

use super::Options;
use super::outcome::Outcome;
use super::process::resident_mib;
use super::produce::{Share, produce, value};
use super::session::{Session, Usage};
use crate::cli::failure::Failure;
use crate::cli::output::{seconds, size};
use crate::cli::own_server::ServerProcess;

/// Starts after the first one.
const AGAIN: u32 = 4;

/// Runs it.
pub async fn run(options: &Options) -> Result<Outcome, Failure> {
    if options.server.is_some() {
        return Err(Failure::Usage("bench recover kills the server: it works on its own one only".to_owned()));
    }
    let mut session = Session::open(options).await?;
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, 1, options.ack).await?.into();
    let messages = options.messages_or(1_000_000_000);
    let share = Share {
        topic: topic.clone(),
        partition: 0,
        messages,
        size: options.size as usize,
        in_flight: None,
        ack: Ack::Durable,
        batch_bytes: options.batch_bytes,
    };
    produce(client.clone(), share).await?;
    // More is on its way when it is killed.
    let producer = client.producer().delivery_timeout(Duration::from_millis(200)).build().await?;
    let filler = value(options.size as usize);
    let load = tokio::spawn(async move {
        while producer.send(Message::to(topic.clone()).value(filler.clone())).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.kill();
    load.abort();
    let data_dir = session.workspace.data_dir();
    let mut ready: Histogram<u64> = Histogram::new(3).map_err(Failure::failed)?;
    let mut notes = Vec::new();
    let mut first = Duration::ZERO;
    let mut usage = Usage::default();
    for start in 0..=AGAIN {
        let server = ServerProcess::start(&data_dir, "127.0.0.1:0").await?;
        let _ = ready.record(u64::try_from(server.ready_after.as_micros()).unwrap_or(u64::MAX));
        usage.server_rss_mib = resident_mib(server.pid());
        if start == 0 {
            first = server.ready_after;
        } else {
            notes.push(format!("killed again at once: ready after {}", seconds(server.ready_after)));
        }
        server.kill();
    }
    let bytes = messages * u64::from(options.size);
    Ok(Outcome {
        work: format!("ready after kill -9 under load with {} in the log", size(bytes)),
        messages: Some(messages),
        seconds: first.as_secs_f64(),
        latency: Some(ready),
        limit_us: Some(bare_start()?.as_micros() as f64),
        usage,
        notes,
        ..Outcome::default()
    })
}

/// How long the bare process takes to start and end.
fn bare_start() -> Result<Duration, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot start this program again: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let command = std::process::Command::new(&program).arg("--version").output();
        command.map_err(failed)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
