//! `bench subscribers`: what idle subscribers cost, and how soon all of them have a record that is published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use tidelog::client::{Client, Consumer, Message, StartAt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connections::{descriptors, enough_descriptors};
use super::latencies::Latencies;
use super::outcome::Outcome;
use super::process::resident_mib;
use super::session::Session;
use super::{Options, ack_name};
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Subscribers, if not said.
const SUBSCRIBERS: u32 = 10_000;
/// Records published one after the other, if not said.
const RECORDS: u64 = 10;
/// Connections made at a time.
const CONNECTING: usize = 64;
/// How long all of them may take to get a record, or to be subscribed.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether all are subscribed.
const LOOK: Duration = Duration::from_millis(20);

/// Runs it: each subscriber has a connection of its own. Records are published one at a time, the next when all have the
/// one before.
pub async fn run(options: &Options) -> Result<Outcome, Failure> {
    let count = options.connections.unwrap_or(SUBSCRIBERS);
    enough_descriptors(u64::from(count), descriptors())?;
    let bound = (count + 16).max(10_000);
    let session = Session::open(options, &["--max-connections".to_owned(), bound.to_string()]).await?;
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, options.partitions.unwrap_or(1), options.ack).await?.into();
    let subscribed_before = session.gauge(&client, "tidelog_subscriptions").await?;
    let memory_before = session.pid().and_then(resident_mib);
    let began = Instant::now();
    let subscribers = futures_util::stream::iter((0..count).map(|_| subscriber(&session, &topic)));
    let subscribers: Vec<Consumer> = subscribers.buffer_unordered(CONNECTING).try_collect().await?;
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for subscriber in subscribers {
        tasks.spawn(receive(subscriber, arrivals.clone()));
    }
    drop(arrivals);
    let wanted = subscribed_before + f64::from(count) * f64::from(options.partitions.unwrap_or(1));
    while session.gauge(&client, "tidelog_subscriptions").await? < wanted {
        if began.elapsed() > PATIENCE {
            return Err(Failure::Failed(format!("{count} subscribers are not subscribed after {PATIENCE:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    let subscribing = began.elapsed();
    let memory = session.pid().and_then(resident_mib);
    let producer = client.producer().ack(options.ack).linger(Duration::ZERO).build().await?;
    let records = options.messages.unwrap_or(RECORDS).max(1);
    let (mut latencies, mut all) = (Latencies::default(), Latencies::default());
    let meters = session.meters();
    let started = Instant::now();
    for _ in 0..records {
        let published = Instant::now();
        producer.send(Message::to(Arc::clone(&topic)).value(vec![7; options.size as usize])).await?;
        for number in 0..count {
            let Ok(Some(at)) = tokio::time::timeout(PATIENCE, arrived.recv()).await else {
                return Err(Failure::Failed(format!(
                    "{number} of {count} subscribers had a record after {PATIENCE:?}"
                )));
            };
            latencies.record(Instant::saturating_duration_since(&at?, published));
        }
        all.since(published);
    }
    let seconds = started.elapsed().as_secs_f64();
    let usage = session.usage(&meters);
    tasks.shutdown().await;
    let mut notes = vec![
        format!("{} subscribed in {:.2} s", grouped(u64::from(count)), subscribing.as_secs_f64()),
        format!(
            "until all have a record: p50 {} us, max {} us, of {records} records",
            grouped(all.at(0.5)),
            grouped(all.max())
        ),
    ];
    if let (Some(before), Some(after)) = (memory_before, memory) {
        let each = (after - before) * 1024.0 / f64::from(count);
        notes.push(format!("server memory {before:.1} MiB before, {after:.1} MiB with them: {each:.1} KiB each"));
    }
    let got = records * u64::from(count);
    Ok(Outcome {
        work: "subscribers",
        title: format!(
            "a record to {} idle subscribers, ack={}, {} byte messages; from sending to each of them",
            grouped(u64::from(count)),
            ack_name(options.ack),
            options.size
        ),
        messages: Some(got),
        seconds,
        messages_per_s: Some(got as f64 / seconds),
        latency: Some(latencies),
        usage,
        notes,
        ..Outcome::default()
    })
}

async fn subscriber(session: &Session, topic: &str) -> Result<Consumer, Failure> {
    let client: Client = session.client().await?;
    Ok(client.consumer().topic(topic).from(StartAt::End).build().await?)
}

/// Says when each record came, until nobody listens.
async fn receive(mut subscriber: Consumer, arrivals: mpsc::UnboundedSender<Result<Instant, Failure>>) {
    while let Some(record) = subscriber.next().await {
        let at = record.map(|_| Instant::now()).map_err(Failure::from);
        let failed = at.is_err();
        if arrivals.send(at).is_err() || failed {
            return;
        }
    }
}
