//! `bench recover`: killed under load, how soon is it ready again?

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::client::{Client, Message};

use super::Options;
use super::latencies::Latencies;
use super::outcome::Outcome;
use super::producing::{Load, fill, value};
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::{seconds, size};

/// How often it is killed under load, and once more as soon as it is ready again.
const ROUNDS: u32 = 3;
/// How long it is under load each time.
const LOAD: Duration = Duration::from_millis(100);
/// Starts of a process that does nothing.
const STARTS: usize = 5;

/// Runs it.
pub async fn run(options: &Options) -> Result<Outcome, Failure> {
    if options.server.is_some() {
        return Err(Failure::Usage("bench recover kills the server: it works on its own one only".to_owned()));
    }
    let mut session = Session::open(options, &[]).await?;
    let client = session.client().await?;
    let partitions = options.partitions.unwrap_or(1);
    let topic: Arc<str> = session.topic(&client, partitions, options.ack).await?.into();
    let messages = options.messages_or(1_000_000_000);
    let filled = fill(&session, &Load::filling(options, topic.clone(), partitions, messages)).await?;
    let meters = session.meters();
    let started = Instant::now();
    let (mut under_load, mut at_once) = (Latencies::default(), Latencies::default());
    let mut notes = Vec::new();
    for round in 1..=ROUNDS {
        let load = tokio::spawn(send(session.client().await?, topic.clone(), options.size as usize));
        tokio::time::sleep(LOAD).await;
        let first = session.crash().await?;
        load.abort();
        let again = session.crash().await?;
        under_load.record(first);
        at_once.record(again);
        notes.push(format!(
            "round {round}: ready {} after a kill under load, {} after one at once",
            seconds(first),
            seconds(again)
        ));
    }
    let bytes = filled.messages * u64::from(options.size);
    let (took, usage) = (started.elapsed(), session.usage(&meters));
    notes.push(format!("after a kill at once p50 {} us; the limit is a process that does nothing", at_once.at(0.5)));
    Ok(Outcome {
        work: "recover",
        title: format!("ready after kill -9 under load with {} in the log", size(bytes)),
        messages: Some(filled.messages),
        seconds: took.as_secs_f64(),
        limit_us: Some(bare_start().await?.as_micros() as f64),
        latency: Some(under_load),
        // The server's CPU is that of several processes: nobody has added it up.
        usage: super::session::Usage { server_cpu: None, ..usage },
        notes,
        ..Outcome::default()
    })
}

/// Sends until the server is gone.
async fn send(client: Client, topic: Arc<str>, size: usize) -> Result<(), Failure> {
    let producer = client.producer().delivery_timeout(Duration::from_millis(200)).build().await?;
    let value = value(size);
    loop {
        producer.send(Message::to(topic.clone()).value(value.clone())).await?;
        tokio::task::consume_budget().await;
    }
}

/// How long this program takes to start and end, the median of some.
async fn bare_start() -> Result<Duration, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot start this program again: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        tokio::process::Command::new(&program).arg("--version").output().await.map_err(failed)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[STARTS / 2])
}
