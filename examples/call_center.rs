//! Request and response: the support tool asks the CRM for a telephone number, and meets the three unhappy cases too.
//! `cargo run --example call_center` brings a server of its own; `-- ADDR` asks a server that is there.
#![allow(clippy::disallowed_methods, reason = "reads the project's own sample files")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidelog::client::{Client, ErrorReply, Outcome};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

const TOPIC: &str = "crm.phone";

/// Numbers by account; an account without one has none.
type Directory = HashMap<String, Option<String>>;

fn directory() -> Result<Directory, Box<dyn Error>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/crm_accounts.jsonl");
    let mut directory = Directory::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let account: Value = serde_json::from_str(line)?;
        let phone = account["contact"]["phone"].as_str().map(str::to_owned);
        directory.insert(account["id"].as_str().unwrap_or_default().to_owned(), phone);
    }
    Ok(directory)
}

/// The CRM's answer to one question.
fn look_up(directory: &Directory, account: &str) -> Result<String, ErrorReply> {
    match directory.get(account) {
        Some(Some(phone)) => Ok(phone.clone()),
        Some(None) => Err(ErrorReply::new("no_phone", format!("{account} has left us no number"))),
        None => Err(ErrorReply::new("unknown_account", format!("there is no account {account}"))),
    }
}

/// The CRM: answers until it is dropped. One account makes it think for a very long time.
async fn crm(client: Client, directory: Arc<Directory>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut responder = client.responder(TOPIC).ephemeral_only().listen().await?;
    let answer = |request: tidelog::client::IncomingRequest| {
        let directory = Arc::clone(&directory);
        async move {
            let account = String::from_utf8_lossy(&request.body).into_owned();
            if account == "acc-00007" {
                std::future::pending::<()>().await;
            }
            look_up(&directory, &account)
        }
    };
    Ok(responder.handle(answer).await?)
}

/// What the support tool shows for what came.
fn show(account: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply(reply) => format!("{account}: call {}", String::from_utf8_lossy(&reply.body)),
        Outcome::Error(error) => format!("{account}: the CRM says no: {} ({})", error.text, error.code),
        Outcome::NoResponder(_) => format!("{account}: the CRM is not there; known at once, nobody waits"),
        Outcome::TimedOut(_) => format!("{account}: the CRM is there, but did not answer in time"),
        Outcome::Cancelled => format!("{account}: cancelled"),
    }
}

/// Runs the story, and says what happens.
pub async fn story(address: &str, mut say: impl FnMut(String)) -> Result<(), Box<dyn Error>> {
    let support = Client::builder().server(address).name("support tool").build().await?;
    let ask = async |account: &str, timeout| -> Result<String, Box<dyn Error>> {
        Ok(show(account, &support.request(TOPIC, account.to_owned(), timeout).await?))
    };
    let patience = Duration::from_secs(30);
    say("The support tool asks before the CRM has started:".to_owned());
    say(format!("  {}", ask("acc-00000", patience).await?));

    let directory = Arc::new(directory()?);
    say(format!("The CRM starts, with {} accounts, and listens on '{TOPIC}'.", directory.len()));
    let client = Client::builder().server(address).name("crm").build().await?;
    let running = tokio::spawn(crm(client, directory));
    // Until it listens, nobody does.
    while matches!(support.request(TOPIC, "acc-00000", patience).await?, Outcome::NoResponder(_)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    say("Three questions with an answer:".to_owned());
    for account in ["acc-00000", "acc-00001", "acc-00005"] {
        say(format!("  {}", ask(account, patience).await?));
    }
    say("One to which the CRM has no answer, and one that makes no sense to it:".to_owned());
    for account in ["acc-00002", "acc-99999"] {
        say(format!("  {}", ask(account, patience).await?));
    }
    say("One over which it thinks for too long:".to_owned());
    say(format!("  {}", ask("acc-00007", Duration::from_millis(300)).await?));
    running.abort();
    Ok(())
}

#[allow(dead_code, reason = "the test that includes this file has a main of its own")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(address) = std::env::args().nth(1) {
        return story(&address, |line| println!("{line}")).await;
    }
    let folder = std::env::temp_dir().join(format!("tidelog-call-center-{}", std::process::id()));
    let config = ServerConfig { data_dir: folder.clone(), listen: "127.0.0.1:0".to_owned(), ..ServerConfig::default() };
    let server = Server::start(config).await?;
    let address = server.addresses().first().map(ToString::to_string).unwrap_or_default();
    let told = story(&address, |line| println!("{line}")).await;
    server.stop().await;
    std::fs::remove_dir_all(folder)?;
    told
}
