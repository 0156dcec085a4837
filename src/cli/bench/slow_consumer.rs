//! `bench slow-consumer`: what consumers that take nothing cost the server, and those that read beside them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidelog::client::StartAt;
use tidelog::protocol::{Hello, Kind, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Subscribe, encode_frame};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Options;
use super::connections::{descriptors, enough_descriptors};
use super::outcome::Outcome;
use super::process::resident_mib;
use super::producing::{Load, fill};
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Slow consumers, if not said.
const SLOW: u32 = 16;
/// What each of them lets the server send: far more than a connection may hold.
const CREDIT: u64 = 1 << 40;
/// How long the server is given to run into them.
const SETTLE: Duration = Duration::from_secs(1);
/// Reads without and with them, in turn.
const ROUNDS: u32 = 3;

/// Runs it: a reader reads the topic again and again, alone and beside slow consumers that never read their sockets.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let count = options.connections.unwrap_or(SLOW);
    enough_descriptors(u64::from(count), descriptors())?;
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, 1, options.ack).await?.into();
    let messages = options.messages_or(200_000_000);
    fill(&session, &Load::filling(options, topic.clone(), 1, messages)).await?;
    read(&session, &topic, messages).await?;
    let meters = session.meters();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (mut memory_before, mut memory, mut held) = (None, None, 0.0_f64);
    for _ in 0..ROUNDS {
        alone.push(read(&session, &topic, messages).await?);
        memory_before = memory_before.or_else(|| session.pid().and_then(resident_mib));
        let mut slow = Vec::new();
        for _ in 0..count {
            slow.push(take_nothing(&session.address, &topic).await?);
        }
        tokio::time::sleep(SETTLE).await;
        beside.push(read(&session, &topic, messages).await?);
        memory = session.pid().and_then(resident_mib).map(|now| memory.map_or(now, |most: f64| most.max(now)));
        held = held.max(session.gauge(&client, "tidelog_outbound_bytes").await?);
        drop(slow);
    }
    let (alone, beside) = (median(alone), median(beside));
    let rate = |seconds: f64| messages as f64 / seconds;
    let megabytes = |seconds: f64| rate(seconds) * f64::from(options.size) / 1e6;
    let mut notes = vec![
        format!("alone   {:>9} messages/s, {:.0} MB/s", grouped(rate(alone) as u64), megabytes(alone)),
        format!(
            "beside  {:>9} messages/s, {:.0} MB/s: {:.2} of that alone",
            grouped(rate(beside) as u64),
            megabytes(beside),
            alone / beside
        ),
        format!("the server holds {:.2} MiB for them, {:.0} KiB each", mib(held), held / 1024.0 / f64::from(count)),
    ];
    let mut growth = None;
    if let (Some(before), Some(after)) = (memory_before, memory) {
        growth = Some((after - before) * 1024.0 / f64::from(count));
        notes.push(format!(
            "server memory {before:.1} MiB before, {after:.1} MiB with them: {:.0} KiB each",
            growth.unwrap_or_default()
        ));
    }
    Ok(Outcome {
        work: "slow-consumer",
        title: format!("a reader beside {count} consumers that take nothing, {} byte messages", options.size),
        messages: Some(messages),
        seconds: beside,
        messages_per_s: Some(rate(beside)),
        bytes: Some(messages * u64::from(options.size)),
        limit_bytes_per_second: Some(megabytes(alone) * 1e6),
        usage: session.usage(&meters),
        notes,
        cases: vec![json!({
            "alone_messages_per_s": rate(alone).round(),
            "beside_messages_per_s": rate(beside).round(),
            "slow_consumers": count,
            "held_bytes": held,
            "server_kib_each": growth.map(f64::round),
        })],
        ..Outcome::default()
    })
}

/// Seconds to read it from its beginning to its end.
async fn read(session: &Session, topic: &str, messages: u64) -> Result<f64, Failure> {
    let client = session.client().await?;
    let started = Instant::now();
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).max_records(messages).build().await?;
    let mut got = 0;
    while let Some(record) = consumer.next().await {
        record?;
        got += 1;
    }
    match got == messages {
        true => Ok(started.elapsed().as_secs_f64()),
        false => Err(Failure::Failed(format!("the reader got {got} of {messages} messages"))),
    }
}

/// A subscription with all the credit in the world on a socket that is never read.
async fn take_nothing(address: &str, topic: &str) -> Result<TcpStream, Failure> {
    let hello = Hello {
        min_version: PROTOCOL_VERSION_MIN,
        max_version: PROTOCOL_VERSION_MAX,
        client_name: "tidelog-bench".to_owned(),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        credentials: None,
    };
    let subscribe = Subscribe {
        topic: topic.to_owned(),
        partition: 0,
        offset: 0,
        credit_records: CREDIT,
        credit_bytes: CREDIT,
        skip_damaged: false,
        filter: None,
        isolation: tidelog::base::Isolation::Committed,
    };
    let mut bytes = encode_frame(Kind::Hello.code(), 0, 1, &hello, 0).map_err(Failure::failed)?;
    bytes.extend_from_slice(&encode_frame(Kind::Subscribe.code(), 0, 2, &subscribe, 0).map_err(Failure::failed)?);
    let mut socket = TcpStream::connect(address).await.map_err(Failure::failed)?;
    socket.write_all(&bytes).await.map_err(Failure::failed)?;
    Ok(socket)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or_default().max(1e-9)
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}
