//! Publish and subscribe: `cargo run --example erp_fan_out`.
//!
//! An ERP publishes everything that happens (data/erp_events.jsonl) and knows of nobody who reads it. A CRM, billing and two
//! analytics systems each say what they are interested in; one of them joins late and has it all replayed.
#![allow(clippy::disallowed_methods, reason = "an example reads its files in the plainest way")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use tidelog::client::{Client, Message, StartAt};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

/// What came of it, for the test that runs it: events that each system has got.
pub type Outcome = BTreeMap<&'static str, usize>;

/// How long a system waits for more before it believes that it has everything.
const QUIET: Duration = Duration::from_secs(4);

/// Two workers of a system share what it is interested in: each event goes to one of them.
async fn share(client: &Client, group: &str, filter: &str) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let mut workers = Vec::new();
    for _ in 0..2 {
        let mut worker = client.queue(group).topic("erp.>").filter(filter).join().await?;
        workers.push(tokio::spawn(async move {
            let mut events = 0;
            while let Ok(Some(delivery)) = tokio::time::timeout(QUIET, worker.next()).await {
                delivery?.ack();
                events += 1;
            }
            worker.close().await?;
            Ok::<usize, tidelog::client::ClientError>(events)
        }));
    }
    let mut events = 0;
    for worker in workers {
        events += worker.await??;
    }
    Ok(events)
}

/// Reads everything from the beginning, in order, without a group: nobody else is concerned.
async fn replay(client: &Client) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let mut events = client.consumer().topic("erp.>").from(StartAt::Beginning).until_end(true).build().await?;
    let mut count = 0;
    while let Some(event) = events.next().await {
        event?;
        count += 1;
    }
    Ok(count)
}

/// Follows everything as it comes, in the order of each partition, with a position that is kept.
async fn follow(client: &Client) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let mut events = client.group_consumer("analytics-live").topic("erp.>").join().await?;
    let mut count = 0;
    while let Ok(Some(event)) = tokio::time::timeout(QUIET, events.next()).await {
        event?;
        count += 1;
    }
    events.close().await?;
    Ok(count)
}

/// Runs it on a server of its own.
pub async fn run() -> Result<Outcome, Box<dyn Error + Send + Sync>> {
    let folder = tempfile::tempdir()?;
    let config = ServerConfig {
        data_dir: folder.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        kafka_listen: "off".to_owned(),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await?;
    let client = Client::connect(server.addresses()[0].to_string()).await?;

    // They are there before there is anything to read: topics join by themselves.
    let crm = tokio::spawn({
        let client = client.clone();
        async move { share(&client, "crm", "value.type == \"shipment.sent\" || value.type == \"order.created\"").await }
    });
    let billing = tokio::spawn({
        let client = client.clone();
        async move { share(&client, "billing", "value.type == \"payment.received\"").await }
    });
    let live = tokio::spawn({
        let client = client.clone();
        async move { follow(&client).await }
    });

    let producer = client.producer().build().await?;
    let events = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/erp_events.jsonl"))?;
    let mut published = 0;
    for event in events.lines() {
        let document: serde_json::Value = serde_json::from_str(event)?;
        let kind = document["type"].as_str().unwrap_or_default().split('.').next().unwrap_or_default().to_owned();
        let invoice = document["invoice"].as_str().unwrap_or_default().to_owned();
        producer.send(Message::to(format!("erp.{kind}")).key(invoice).value(event.to_owned())).await?;
        published += 1;
    }
    producer.flush().await?;
    println!("The ERP has published {published} events, and knows of nobody who reads them.\n");

    let mut outcome = Outcome::new();
    outcome.insert("published", published);
    outcome.insert("crm", crm.await??);
    outcome.insert("billing", billing.await??);
    outcome.insert("analytics-live", live.await??);
    println!("The CRM wanted orders and shipments: {} events, shared by its two workers.", outcome["crm"]);
    println!("Billing wanted payments: {} events. The server left out the rest.", outcome["billing"]);
    println!("The first analytics system has followed everything as it came: {} events.", outcome["analytics-live"]);
    outcome.insert("analytics-late", replay(&client).await?);
    println!(
        "The second joins only now, and replays it all: {} events, as if it had been there.",
        outcome["analytics-late"]
    );
    server.stop().await;
    Ok(outcome)
}

#[tokio::main]
#[allow(dead_code, reason = "the test that runs the example doesn't come this way")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    run().await.map(|_| ())
}
