//! One billing system, many CRMs: `cargo run --example billing_to_crms`.
//!
//! The invoices of data/billing_invoices.jsonl go to the CRM of the customer's region, and line by line to the CRMs of the
//! industries, by the rules in examples/billing_to_crms.toml. No program stands in between: the server does it.
#![allow(clippy::disallowed_methods, reason = "an example reads its files in the plainest way")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use tidelog::client::{Client, Message, StartAt};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

/// What came of it, for the test that runs it.
pub struct Outcome {
    /// Records in each topic.
    pub records: BTreeMap<String, usize>,
}

/// The file of this name.
fn file(name: &str) -> Result<String, Box<dyn Error>> {
    Ok(std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR")))?)
}

/// The records of a topic.
async fn values(client: &Client, topic: &str) -> Result<Vec<(String, BTreeMap<String, String>)>, Box<dyn Error>> {
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await?;
    let mut values = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = record.headers.iter().map(|of| (text(of.name), text(of.value.unwrap_or_default())));
        values.push((text(record.value.as_deref().unwrap_or_default()), headers.collect()));
    }
    Ok(values)
}

/// Runs it on a server of its own.
pub async fn run() -> Result<Outcome, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = ServerConfig {
        data_dir: folder.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        kafka_listen: "off".to_owned(),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await?;
    let client = Client::connect(server.addresses()[0].to_string()).await?;
    let admin = client.admin();

    let applied = admin.apply_routes(file("examples/billing_to_crms.toml")?, false, false).await?;
    for route in &applied.changes {
        println!("Route '{}' is applied.", route.name);
    }

    let invoices = file("data/billing_invoices.jsonl")?;
    let odd = file("data/unroutable.jsonl")?;
    let producer = client.producer().build().await?;
    let mut sent = 0;
    for invoice in invoices.lines().chain(odd.lines()) {
        producer.send(Message::to("billing.invoices").value(invoice.to_owned())).await?;
        sent += 1;
    }
    producer.flush().await?;
    println!("The billing system has sent {sent} invoices and got its answer. Its part is done.\n");

    // What follows is done by the server, in its own time; here we wait for it.
    while admin.list_routes().await?.iter().any(|route| route.lag > 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut records = BTreeMap::new();
    for topic in admin.list_topics().await? {
        records.insert(topic.name.clone(), values(&client, &topic.name).await?.len());
    }
    for (topic, count) in &records {
        println!("{count:>6}  {topic}");
    }

    let (line, headers) = values(&client, "crm.banking").await?.swap_remove(0);
    println!("\nThe banking CRM gets lines like this one, and nothing of the rest of the invoice:\n  {line}");
    println!("It is part {} of {}.", headers["tidelog-part"], headers["tidelog-source"]);
    let (unrouted, _) = values(&client, "billing.unrouted").await?.swap_remove(0);
    println!("\nOne invoice is for a region that nobody has:\n  {unrouted}");
    let (broken, headers) = values(&client, "dead-letter.invoices-by-region").await?.swap_remove(0);
    println!("One document was no JSON, and lies with the dead letters:\n  {broken}\n  {}", headers["tidelog-error"]);
    server.stop().await;
    Ok(Outcome { records })
}

#[tokio::main]
#[allow(dead_code, reason = "the test that runs the example doesn't come this way")]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await.map(|_| ())
}
