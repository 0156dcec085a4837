//! The demo's steps, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tidelog::client::{Client, ConsumedRecord, Message, NewTopic, StartAt};
use tidelog::disk::{Disk, RealDisk};

use super::crash;
use super::report::Report;
use super::samples::{self, Sample};
use crate::cli::failure::Failure;
use crate::cli::output::{count, grouped, seconds};
use crate::cli::own_server::{ServerProcess, Workspace};
use crate::cli::verify;

/// Partitions of every topic here.
pub const PARTITIONS: u32 = 3;

/// Tells it all.
///
/// # Errors
/// The first check that does not hold, with what was expected and what was found.
pub async fn tell(report: &mut Report, workspace: &Workspace) -> Result<(), Failure> {
    report.say("Tidelog demo: everything below happens over TCP, on a server of its own.\n")?;
    let server = ServerProcess::start(&workspace.data_dir(), "127.0.0.1:0").await?;
    report.held(
        "start",
        &format!("server ready on {} in {} (process {})", server.address, seconds(server.ready_after), server.pid()),
        json!({ "address": server.address.to_string(), "seconds": server.ready_after.as_secs_f64() }),
    )?;
    let client = Client::builder().server(server.address.to_string()).name("tidelog-demo").build().await?;

    report.say("\nThree systems hand over their documents")?;
    exchange(report, &client).await?;

    report.say("\nThe server is killed in the middle of the work")?;
    let (server, outcome) = crash::survive(report, &client, server, &workspace.data_dir()).await?;

    report.say("\nThe log is read again, from any point")?;
    crash::replay_all(report, &client, &outcome).await?;
    crash::replay_from_time(report, &client, &outcome).await?;

    report.say("\nThe data directory is checked, offline")?;
    server.kill();
    check_offline(report, workspace)?;
    report.done()
}

/// Sends the sample documents and reads them back.
async fn exchange(report: &Report, client: &Client) -> Result<(), Failure> {
    let samples = samples::all();
    let admin = client.admin();
    for sample in &samples {
        admin.create_topic(NewTopic::new(sample.topic).partitions(PARTITIONS)).await?;
    }
    let names: Vec<_> = samples.iter().map(|sample| sample.topic).collect();
    report.held(
        "topics",
        &format!("created {}, {PARTITIONS} partitions each", names.join(", ")),
        json!({ "topics": names, "partitions": PARTITIONS }),
    )?;
    let started = Instant::now();
    let producer = client.producer().build().await?;
    let mut receipts = Vec::new();
    let mut bytes = 0;
    for sample in &samples {
        for (key, document) in &sample.documents {
            bytes += document.len();
            let message = Message::to(sample.topic).key(key.clone()).value(document.clone()).header("source", "demo");
            receipts.push(producer.send(message).await?);
        }
    }
    let total = receipts.len() as u64;
    for receipt in receipts {
        receipt.await?;
    }
    let took = started.elapsed();
    report.held(
        "send",
        &format!("{} sent, each acknowledged once it was on disk: {}", count(total, "document"), seconds(took)),
        json!({ "records": total, "bytes": bytes, "seconds": took.as_secs_f64() }),
    )?;
    let started = Instant::now();
    for sample in &samples {
        compare(sample, &read_all(client, sample.topic, StartAt::Beginning).await?)?;
    }
    let took = started.elapsed();
    report.held(
        "read_back",
        &format!("all {} read back: equal byte for byte, in order for each key, in {}", grouped(total), seconds(took)),
        json!({ "records": total, "seconds": took.as_secs_f64() }),
    )
}

/// Every document came back, those of one key in the order sent.
fn compare(sample: &Sample, records: &[ConsumedRecord]) -> Result<(), Failure> {
    let mut sent: BTreeMap<&[u8], Vec<&Bytes>> = BTreeMap::new();
    for (key, document) in &sample.documents {
        sent.entry(key.as_bytes()).or_default().push(document);
    }
    let mut got: BTreeMap<&[u8], Vec<&Bytes>> = BTreeMap::new();
    for record in records {
        if let (Some(key), Some(value)) = (&record.key, &record.value) {
            got.entry(key).or_default().push(value);
        }
    }
    if sent == got {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "topic {}: {} sent, {} read back, and they are not the same",
        sample.topic,
        count(sample.documents.len() as u64, "document"),
        count(records.len() as u64, "record")
    )))
}

/// A topic's records from a position to the end as it is now.
pub async fn read_all(client: &Client, topic: &str, from: StartAt) -> Result<Vec<ConsumedRecord>, Failure> {
    let mut consumer = client.consumer().topic(topic).from(from).until_end(true).build().await?;
    let mut records = Vec::new();
    while let Some(record) = consumer.next().await {
        records.push(record?);
    }
    Ok(records)
}

/// The same check as `tidelog verify`, on what a killed server left.
fn check_offline(report: &Report, workspace: &Workspace) -> Result<(), Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let started = Instant::now();
    let logs = verify::logs_of(&disk, &workspace.data_dir())?;
    let mut first = None;
    let mut keep_first = |finding: tidelog::log::Finding| {
        if finding.damage {
            first.get_or_insert(format!("{} at {}: {}", finding.file.display(), finding.position, finding.what));
        }
    };
    let verdict = verify::check(&disk, &logs, &mut keep_first, &mut |_| {})?;
    if let Some(first) = first {
        return Err(Failure::Failed(format!("the data directory is damaged: {first}")));
    }
    let took: Duration = started.elapsed();
    report.held(
        "verify",
        &format!(
            "killed once more and verified: {} batches with {} in {}, no damage",
            grouped(verdict.batches),
            count(verdict.records, "record"),
            count(verdict.logs, "log"),
        ),
        json!({
            "logs": verdict.logs,
            "batches": verdict.batches,
            "records": verdict.records,
            "seconds": took.as_secs_f64(),
        }),
    )
}
