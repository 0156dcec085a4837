//! Request and callback, as a chain: invoices are loaded, then analysed in two steps. The requester asks, restarts in
//! between, and finds every outcome in its callback topic, once. `cargo run --example callback_chain` brings a server of its
//! own; `-- ADDR` asks a server that is there.
#![allow(clippy::disallowed_methods, reason = "reads the project's own sample files")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidelog::client::{Client, ErrorReply, IncomingRequest, StartAt};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

/// The steps: the output of each is the input of the next.
const LOAD: &str = "invoice.load";
const SUM: &str = "invoice.sum";
const JUDGE: &str = "invoice.judge";
/// Where the outcomes come.
const ANSWERS: &str = "support.answers";
/// The time each request has, and for which the story waits.
const PATIENCE: Duration = Duration::from_secs(60);

fn invoices() -> Result<BTreeMap<String, Value>, Box<dyn Error>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/billing_invoices.jsonl");
    let mut invoices = BTreeMap::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let invoice: Value = serde_json::from_str(line)?;
        invoices.insert(invoice["id"].as_str().unwrap_or_default().to_owned(), invoice);
    }
    Ok(invoices)
}

fn parsed(request: &IncomingRequest) -> Result<Value, ErrorReply> {
    serde_json::from_slice(&request.body).map_err(|error| ErrorReply::new("not_json", error.to_string()))
}

/// What the lines of an invoice add up to, in cents.
fn sum(invoice: &Value) -> i64 {
    let lines = invoice["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines
        .iter()
        .map(|line| line["quantity"].as_i64().unwrap_or(0) * line["unit_price_cents"].as_i64().unwrap_or(0))
        .sum()
}

/// The three services, each a responder of its own.
async fn services(address: String, invoices: Arc<BTreeMap<String, Value>>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = Client::builder().server(address).name("billing").build().await?;
    let load = client.responder(LOAD).handle(|request| {
        let id = String::from_utf8_lossy(&request.body).into_owned();
        let found = invoices.get(&id).map(ToString::to_string);
        async move { found.ok_or_else(|| ErrorReply::new("unknown_invoice", format!("there is no invoice {id}"))) }
    });
    let add = client.responder(SUM).handle(|request| async move {
        let invoice = parsed(&request)?;
        Ok(json!({ "id": invoice["id"], "sum": sum(&invoice), "total": invoice["total_cents"] }).to_string())
    });
    let judge = client.responder(JUDGE).handle(|request| async move {
        let summed = parsed(&request)?;
        let verdict = if summed["sum"] == summed["total"] { "adds up" } else { "does not add up" };
        Ok(format!("{} {verdict}: {} cents", summed["id"].as_str().unwrap_or("?"), summed["sum"]))
    });
    tokio::try_join!(load, add, judge)?;
    Ok(())
}

/// Outcomes in the callback topic, by correlation id: each is there once, or this is an error.
async fn answers(client: &Client) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let mut answers = BTreeMap::new();
    let consumer = client.consumer().topic(ANSWERS).from(StartAt::Beginning).until_end(true).build().await;
    // Before the first callback there is no such topic.
    let Ok(mut consumer) = consumer else { return Ok(answers) };
    while let Some(record) = consumer.next().await {
        let record = record?;
        let header = |name: &str| {
            let value = record.headers.get(name).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let id = header("tidelog-correlation-id");
        let text = match header("tidelog-outcome").as_str() {
            "replied" => String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned(),
            outcome => format!(
                "{outcome} at step {} ({}): {}",
                header("tidelog-step"),
                header("tidelog-step-topic"),
                header("tidelog-error")
            ),
        };
        if answers.insert(id.clone(), text).is_some() {
            return Err(format!("{id} was called back twice").into());
        }
    }
    Ok(answers)
}

/// Runs the story, and says what happens.
pub async fn story(address: &str, mut say: impl FnMut(String)) -> Result<(), Box<dyn Error>> {
    let wanted = ["inv-000001", "inv-000002", "inv-999999"];
    say(format!("The requester asks for {} invoices: {LOAD}, then {SUM}, then {JUDGE}.", wanted.len()));
    {
        let requester = Client::builder().server(address).name("requester").build().await?;
        for invoice in wanted {
            let request = requester.request(LOAD, invoice, PATIENCE).then(SUM).then(JUDGE);
            let id = request.callback(ANSWERS).id(format!("ask-{invoice}")).submit().await?;
            let (info, _) = requester.request_status(&id).await?;
            say(format!("  {id}: on the server's disk, {}", info.state));
        }
        let soon = Duration::from_millis(500);
        let id = requester.request("invoice.archive", "inv-000001", soon).callback(ANSWERS).id("ask-archive").submit();
        say(format!("  {}: a topic on which nobody responds", id.await?));
        say("It goes away: its process could end here. No service has started yet.".to_owned());
    }
    let invoices = Arc::new(invoices()?);
    say(format!("The services start, with {} invoices, and find what waits for them.", invoices.len()));
    let running = tokio::spawn(services(address.to_owned(), invoices));
    let requester = Client::builder().server(address).name("requester, again").build().await?;
    say("The requester is back, and asks for one outcome by its id:".to_owned());
    let outcome = requester.await_reply("ask-inv-000001", PATIENCE).await?;
    let reply = outcome.and_then(tidelog::client::Outcome::reply).ok_or("no reply")?;
    say(format!("  {}", String::from_utf8_lossy(&reply.body)));
    say(format!("All outcomes have come to '{ANSWERS}', once each:"));
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let found = answers(&requester).await?;
        if found.len() > wanted.len() {
            for (id, text) in found {
                say(format!("  {id}: {text}"));
            }
            break;
        }
        if std::time::Instant::now() > until {
            return Err(format!("only these came back: {found:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.abort();
    Ok(())
}

#[allow(dead_code, reason = "the test that includes this file has a main of its own")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(address) = std::env::args().nth(1) {
        return story(&address, |line| println!("{line}")).await;
    }
    let folder = std::env::temp_dir().join(format!("tidelog-callback-chain-{}", std::process::id()));
    let config = ServerConfig { data_dir: folder.clone(), listen: "127.0.0.1:0".to_owned(), ..ServerConfig::default() };
    let server = Server::start(config).await?;
    let address = server.addresses().first().map(ToString::to_string).unwrap_or_default();
    let told = story(&address, |line| println!("{line}")).await;
    server.stop().await;
    std::fs::remove_dir_all(folder)?;
    told
}
