//! `bench replay` and `bench consume`: reading a topic from its beginning.

use std::sync::Arc;
use std::time::Instant;

use tidelog::client::{Ack, Client, StartAt};
use tokio::task::JoinSet;

use super::Options;
use super::limits;
use super::outcome::Outcome;
use super::produce::{Share, produce};
use super::session::Session;
use crate::cli::failure::Failure;

/// Runs it.
pub async fn run(session: Session, options: &Options, work: &str) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let partitions = options.partitions.unwrap_or(1);
    let topic: Arc<str> = session.topic(&client, partitions, options.ack).await?.into();
    let messages = options.messages_or(1_000_000_000);
    for partition in 0..partitions {
        let share = Share {
            topic: topic.clone(),
            partition,
            messages: messages / u64::from(partitions)
                + u64::from(u64::from(partition) < messages % u64::from(partitions)),
            size: options.size as usize,
            in_flight: None,
            ack: Ack::Durable,
            batch_bytes: options.batch_bytes,
        };
        produce(client.clone(), share).await?;
    }
    let consumers = options.connections();
    let mut clients = Vec::new();
    for _ in 0..consumers {
        clients.push(session.client().await?);
    }
    let meters = session.meters();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        let topic = topic.clone();
        tasks.spawn(async move { read_all(client, &topic).await });
    }
    let (mut records, mut bytes) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let read = done.map_err(Failure::failed)??;
        records += read.0;
        bytes += read.1;
    }
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    if records != messages * u64::from(consumers) {
        return Err(Failure::Failed(format!(
            "{records} records were read of {} written",
            messages * u64::from(consumers)
        )));
    }
    let limit = tokio::task::spawn_blocking(move || limits::loopback(consumers.min(16)));
    Ok(Outcome {
        work: format!("{work}, {} byte messages, {consumers} consumers, {partitions} partitions", options.size),
        messages: Some(records),
        seconds,
        bytes: Some(bytes),
        limit_bytes_per_second: Some(limit.await.map_err(Failure::failed)??),
        usage,
        ..Outcome::default()
    })
}

/// Records and bytes of values from the beginning to the end.
async fn read_all(client: Client, topic: &str) -> Result<(u64, u64), Failure> {
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await?;
    let (mut records, mut bytes) = (0, 0);
    while let Some(record) = consumer.next().await {
        records += 1;
        bytes += record?.value.map_or(0, |value| value.len() as u64);
    }
    Ok((records, bytes))
}
