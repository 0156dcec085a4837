//! `bench groups`: what queue groups cost in memory: many of them, and one with records that are not acked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use tidelog::client::{Client, Delivery, Message, QueueConsumer, QueueRules};

use super::Options;
use super::outcome::Outcome;
use super::process::resident_mib;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Groups, if not said.
const GROUPS: u32 = 2_000;
/// Records that one group is given, if not said.
const RECORDS: u64 = 1_000_000;
/// Groups that join on one connection.
const SHARING: u32 = 100;
/// Joins at a time.
const JOINING: usize = 16;
/// Nothing is to come back while it is measured.
const LEASE: Duration = Duration::from_secs(3600);
/// What is done shows in memory a moment later.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs it.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let Some(pid) = session.pid() else {
        return Err(Failure::Usage(
            "bench groups looks at the memory of a server of its own: go without --server".to_owned(),
        ));
    };
    let memory = || resident_mib(pid).unwrap_or_default() * 1024.0 * 1024.0;
    let client = session.client().await?;
    let meters = session.meters();
    let count = options.connections.unwrap_or(GROUPS);
    let started = std::time::Instant::now();
    let (joined, left) = many(&session, &client, options, count, &memory).await?;
    let records = options.messages.unwrap_or(RECORDS).max(2);
    let (out, scattered) = one(&session, &client, options, records, &memory).await?;
    let each = |bytes: f64, number: u64| bytes / number as f64;
    let (groups, odd) = (u64::from(count), records / 2);
    let notes = vec![
        format!(
            "{} groups of one member each: {:.1} KiB each; when the members have left {:.1} KiB",
            grouped(groups),
            each(joined, groups) / 1024.0,
            each(left, groups) / 1024.0
        ),
        format!(
            "one group, {} records with a member: {:.1} MiB, {:.0} bytes each",
            grouped(records),
            out / 1024.0 / 1024.0,
            each(out, records)
        ),
        format!(
            "every other one acked, {} ahead of the floor are not: {:.1} MiB, {:.0} bytes each",
            grouped(odd),
            scattered / 1024.0 / 1024.0,
            each(scattered, odd)
        ),
    ];
    Ok(Outcome {
        work: "groups",
        title: "memory of queue groups, as the server's resident memory grows".to_owned(),
        messages: Some(records),
        seconds: started.elapsed().as_secs_f64(),
        usage: session.usage(&meters),
        notes,
        cases: vec![
            json!({"name": "groups with a member", "count": groups, "bytes_each": each(joined, groups).round()}),
            json!({"name": "groups without", "count": groups, "bytes_each": each(left, groups).round()}),
            json!({"name": "records with a member", "count": records, "bytes_each": each(out, records).round()}),
            json!({"name": "records not acked, one by one", "count": odd, "bytes_each": each(scattered, odd).round()}),
        ],
        ..Outcome::default()
    })
}

/// Bytes by which the server grows with so many groups, while each has a member and when all have left.
async fn many(
    session: &Session,
    client: &Client,
    options: &Options,
    count: u32,
    memory: &impl Fn() -> f64,
) -> Result<(f64, f64), Failure> {
    let topic = session.topic(client, options.partitions.unwrap_or(1), options.ack).await?;
    let before = memory();
    let clients = session.clients(count.div_ceil(SHARING)).await?;
    let joining = futures_util::stream::iter((0..count).map(|number| {
        let client = &clients[(number / SHARING) as usize];
        client.queue(format!("bench.{number}")).topic(&topic).join()
    }));
    let members: Vec<QueueConsumer> = joining.buffer_unordered(JOINING).try_collect().await?;
    tokio::time::sleep(SETTLE).await;
    let joined = memory() - before;
    for member in members {
        member.close().await?;
    }
    drop(clients);
    tokio::time::sleep(SETTLE).await;
    Ok((joined, memory() - before))
}

/// Bytes by which the server grows while a member has so many records, and once it has acked every other one.
async fn one(
    session: &Session,
    client: &Client,
    options: &Options,
    records: u64,
    memory: &impl Fn() -> f64,
) -> Result<(f64, f64), Failure> {
    let topic: Arc<str> = session.topic(client, 1, options.ack).await?.into();
    let producer = client.producer().build().await?;
    for _ in 0..records {
        producer.send(Message::to(Arc::clone(&topic)).value(vec![7; options.size as usize])).await?;
    }
    producer.close().await?;
    let before = memory();
    let rules = QueueRules { lease_ms: LEASE.as_millis() as u64, ..QueueRules::default() };
    let prefetch = u32::try_from(records).unwrap_or(u32::MAX);
    let group = session.client().await?.queue("bench.one").topic(&*topic).rules(rules).prefetch(prefetch);
    let mut member = group.join().await?;
    let mut has: Vec<Delivery> = Vec::new();
    while (has.len() as u64) < records {
        match member.next().await {
            Some(delivery) => has.push(delivery?),
            None => return Err(Failure::Failed(format!("the member got {} of {records} records", has.len()))),
        }
    }
    tokio::time::sleep(SETTLE).await;
    let out = memory() - before;
    let mut kept = Vec::with_capacity(has.len() / 2);
    for (number, delivery) in has.into_iter().enumerate() {
        match number % 2 {
            1 => delivery.ack(),
            _ => kept.push(delivery),
        }
    }
    member.flush().await?;
    tokio::time::sleep(SETTLE).await;
    let scattered = memory() - before;
    kept.into_iter().for_each(Delivery::ack);
    Ok((out, scattered))
}
