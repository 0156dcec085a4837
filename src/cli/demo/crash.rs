//! The heart of the demo: a producer and a subscriber at work while their server is killed and comes back.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tidelog::base::{Clock, SystemClock, TimestampMs};
use tidelog::client::{Ack, Client, ConsumedRecord, Message, NewTopic, Producer, Receipt, RecordMetadata, StartAt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, sleep, timeout};

use super::report::Report;
use super::story::{PARTITIONS, read_all};
use crate::cli::failure::Failure;
use crate::cli::output::{count, grouped, seconds};
use crate::cli::own_server::ServerProcess;

const TOPIC: &str = "shop.orders";
/// Orders a millisecond: enough to have some in flight at any moment, few enough to watch.
const ORDERS_A_TICK: u64 = 10;
const WORK_BEFORE: Duration = Duration::from_millis(1500);
const DOWN: Duration = Duration::from_millis(300);
const WORK_AFTER: Duration = Duration::from_millis(1000);
/// How long anything may take that follows by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the producer was told, and what the subscriber saw.
pub struct Outcome {
    /// Order number to the partition and offset it was acknowledged with.
    acknowledged: BTreeMap<u64, (u32, u64)>,
    /// Orders without an acknowledgement; they may be there or not.
    unknown: u64,
    /// (partition, offset) in the order received.
    seen_live: Arc<std::sync::Mutex<Vec<(u32, u64)>>>,
    subscriber: JoinHandle<Result<(), Failure>>,
    killed_at: TimestampMs,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.subscriber.abort();
    }
}

/// Produces with `ack=durable` and subscribes, kills the server in the middle, and starts it again on the same port.
pub async fn survive(
    report: &Report,
    client: &Client,
    server: ServerProcess,
    data_dir: &Path,
) -> Result<(ServerProcess, Outcome), Failure> {
    client.admin().create_topic(NewTopic::new(TOPIC).partitions(PARTITIONS)).await?;
    let seen_live = Arc::new(std::sync::Mutex::new(Vec::new()));
    let subscriber = tokio::spawn(subscribe(client.clone(), Arc::clone(&seen_live)));
    let producer = client.producer().ack(Ack::Durable).delivery_timeout(PATIENCE).build().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (sender, receipts) = mpsc::channel(64 * 1024);
    let sent = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn(send_orders(producer, sender, Arc::clone(&sent), Arc::clone(&stop)));
    let collector = tokio::spawn(collect(receipts, Arc::clone(&acknowledged)));

    sleep(WORK_BEFORE).await;
    let before = acknowledged.load(Ordering::SeqCst);
    let under_way = sent.load(Ordering::SeqCst).saturating_sub(before);
    let (address, pid) = (server.address, server.pid());
    let killed_at = SystemClock::new().wall_ms();
    server.kill();
    report.held(
        "kill",
        &format!("kill -9 of process {pid} after {} acknowledged orders, {under_way} on their way", grouped(before)),
        json!({ "acknowledged_before": before, "under_way": under_way }),
    )?;
    sleep(DOWN).await;
    let server = ServerProcess::start(data_dir, &address.to_string()).await?;
    let recovery = Duration::from_millis(client.admin().server_info().await?.recovery_ms);
    report.held(
        "restart",
        &format!(
            "started again on the same data: ready after {}, of which recovery took {}",
            seconds(server.ready_after),
            seconds(recovery)
        ),
        json!({ "seconds": server.ready_after.as_secs_f64(), "recovery_seconds": recovery.as_secs_f64() }),
    )?;

    sleep(WORK_AFTER).await;
    stop.store(true, Ordering::SeqCst);
    let ended = || Failure::Failed("the producer did not come to an end after the restart".to_owned());
    timeout(PATIENCE * 2, writer).await.map_err(|_| ended())?.map_err(|_| ended())??;
    let (acknowledged, unknown) = timeout(PATIENCE, collector).await.map_err(|_| ended())?.map_err(|_| ended())?;
    let after = acknowledged.len() as u64 - before;
    if after == 0 {
        return Err(Failure::Failed("no order was acknowledged after the restart".to_owned()));
    }
    report.held(
        "go_on",
        &format!("the same producer went on by itself: {} more acknowledged, {unknown} given up", grouped(after)),
        json!({ "acknowledged_after": after, "unknown": unknown }),
    )?;
    Ok((server, Outcome { acknowledged, unknown, seen_live, subscriber, killed_at }))
}

/// Numbered orders of a hundred customers, a few each millisecond.
async fn send_orders(
    producer: Producer,
    receipts: mpsc::Sender<(u64, Receipt)>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        tick.tick().await;
        for _ in 0..ORDERS_A_TICK {
            let value = json!({ "order": number, "total": number % 1000, "currency": "EUR" }).to_string();
            let message = Message::to(TOPIC).key(format!("customer-{}", number % 100)).value(value);
            let receipt = producer.send(message).await?;
            sent.fetch_add(1, Ordering::SeqCst);
            // The collector is gone only when the demo ends.
            let _ = receipts.send((number, receipt)).await;
            number += 1;
        }
    }
    // Outcomes are the receipts' to tell.
    let _ = producer.flush().await;
    Ok(())
}

/// Where each order is, as the producer was told; and how many it was told nothing of.
async fn collect(
    mut receipts: mpsc::Receiver<(u64, Receipt)>,
    count: Arc<AtomicU64>,
) -> (BTreeMap<u64, (u32, u64)>, u64) {
    let mut acknowledged = BTreeMap::new();
    let mut unknown = 0;
    while let Some((number, receipt)) = receipts.recv().await {
        match receipt.await {
            Ok(RecordMetadata { partition, offset: Some(offset), .. }) => {
                acknowledged.insert(number, (partition, offset));
                count.fetch_add(1, Ordering::SeqCst);
            }
            _ => unknown += 1,
        }
    }
    (acknowledged, unknown)
}

/// A subscriber that is there from the start and knows nothing of the crash.
async fn subscribe(client: Client, seen: Arc<std::sync::Mutex<Vec<(u32, u64)>>>) -> Result<(), Failure> {
    let mut consumer = client.consumer().topic(TOPIC).from(StartAt::Beginning).build().await?;
    while let Some(record) = consumer.next().await {
        let record = record?;
        seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((record.partition, record.offset));
    }
    Ok(())
}

/// Reads everything from the beginning: each acknowledged order is where the producer was told, once and in order.
pub async fn replay_all(report: &Report, client: &Client, outcome: &Outcome) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let records = read_all(client, TOPIC, StartAt::Beginning).await?;
    let took = started.elapsed();
    let failed = |what: String| Err(Failure::Failed(what));
    let mut next_offset: HashMap<u32, u64> = HashMap::new();
    let mut last_order: HashMap<u32, u64> = HashMap::new();
    let mut found: HashMap<u64, (u32, u64)> = HashMap::new();
    for record in &records {
        let (partition, offset) = (record.partition, record.offset);
        let expected = next_offset.insert(partition, offset + 1).unwrap_or(0);
        if offset != expected {
            return failed(format!("partition {partition} goes on with offset {offset} where {expected} follows"));
        }
        let order = order_number(record)?;
        if let Some(last) = last_order.insert(partition, order)
            && last >= order
        {
            return failed(format!("partition {partition} has order {order} after order {last}, at offset {offset}"));
        }
        if found.insert(order, (partition, offset)).is_some() {
            return failed(format!("order {order} is there twice"));
        }
    }
    for (order, place) in &outcome.acknowledged {
        match found.get(order) {
            Some(found) if found == place => {}
            Some((partition, offset)) => {
                let (told, at) = place;
                return failed(format!("order {order} is at {partition}/{offset}, acknowledged was {told}/{at}"));
            }
            None => return failed(format!("order {order} was acknowledged and is not there")),
        }
    }
    if records.len() as u64 > outcome.acknowledged.len() as u64 + outcome.unknown {
        return failed(format!("{} records of {} orders", records.len(), outcome.acknowledged.len()));
    }
    let total = outcome.acknowledged.len() as u64;
    report.held(
        "replay",
        &format!("all {} acknowledged orders are there, once, in order: read in {}", grouped(total), seconds(took)),
        json!({ "acknowledged": total, "records": records.len(), "lost": 0, "repeated": 0, "seconds": took.as_secs_f64() }),
    )?;
    saw_everything(report, outcome, &next_offset).await
}

/// The subscriber that was there all the time saw the same: every offset once, in order, across the crash.
async fn saw_everything(report: &Report, outcome: &Outcome, ends: &HashMap<u32, u64>) -> Result<(), Failure> {
    let total: u64 = ends.values().sum();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let seen = loop {
        let seen = outcome.seen_live.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if seen.len() as u64 >= total || outcome.subscriber.is_finished() || tokio::time::Instant::now() >= deadline {
            break seen;
        }
        sleep(Duration::from_millis(10)).await;
    };
    let mut next: HashMap<u32, u64> = HashMap::new();
    for (partition, offset) in &seen {
        let expected = next.insert(*partition, offset + 1).unwrap_or(0);
        if *offset != expected {
            return Err(Failure::Failed(format!(
                "the subscriber got offset {offset} of partition {partition} where {expected} follows"
            )));
        }
    }
    if next != *ends {
        let seen = count(seen.len() as u64, "record");
        return Err(Failure::Failed(format!("the subscriber got {seen} of {total} across the crash")));
    }
    report.held(
        "subscriber",
        &format!("a subscriber that was connected all along saw the same {}, without a gap", count(total, "record")),
        json!({ "records": total }),
    )
}

/// A second subscriber comes late and starts at the moment of the crash.
pub async fn replay_from_time(report: &Report, client: &Client, outcome: &Outcome) -> Result<(), Failure> {
    let all = read_all(client, TOPIC, StartAt::Beginning).await?;
    let mut expected: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for record in &all {
        let list = expected.entry(record.partition).or_default();
        if !list.is_empty() || record.timestamp >= outcome.killed_at {
            list.push(record.offset);
        }
    }
    let mut got: BTreeMap<u32, Vec<u64>> = all.iter().map(|record| (record.partition, Vec::new())).collect();
    for record in read_all(client, TOPIC, StartAt::Time(outcome.killed_at)).await? {
        got.entry(record.partition).or_default().push(record.offset);
    }
    let records = got.values().map(|list| list.len() as u64).sum();
    if got != expected {
        let wanted: usize = expected.values().map(Vec::len).sum();
        return Err(Failure::Failed(format!(
            "a replay from a time gave {records} records, {wanted} are as new as that"
        )));
    }
    report.held(
        "replay_time",
        &format!(
            "a second one came late and asked for all since the crash: {} of {}",
            count(records, "record"),
            grouped(all.len() as u64)
        ),
        json!({ "records": records, "from_ms": outcome.killed_at }),
    )
}

fn order_number(record: &ConsumedRecord) -> Result<u64, Failure> {
    let value: Option<serde_json::Value> = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
    value.as_ref().and_then(|value| value.get("order")).and_then(serde_json::Value::as_u64).ok_or_else(|| {
        Failure::Failed(format!("the record at {}/{} is not one that was sent", record.partition, record.offset))
    })
}
