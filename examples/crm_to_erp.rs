//! Fire and forget, with receipts: `cargo run --example crm_to_erp`.
//!
//! A CRM changes accounts (data/crm_accounts.jsonl) and sends them on. The ERP that wants them is down for a while, comes
//! back and catches up; one account it cannot take. The CRM learns what became of each, though it never waited.
#![allow(clippy::disallowed_methods, reason = "an example reads its files in the plainest way")]

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use tidelog::client::{Client, Message, QueueConsumer, QueueRules, ReceiptOutcome, Redrive};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

/// Accounts that the CRM changes.
const ACCOUNTS: usize = 300;
/// The account that the ERP cannot take until somebody has mended it.
const BROKEN: &str = "acc-00042";

/// What came of it, for the test that runs it.
pub struct Outcome {
    /// Accounts that the ERP has in the end.
    pub in_erp: BTreeSet<String>,
    /// Receipts that said the ERP has taken the account.
    pub taken: usize,
    /// Receipts that said it gave up.
    pub given_up: usize,
}

/// The ERP: takes accounts in until nothing comes for a while, or it has had so many.
async fn erp_works(
    erp: &mut QueueConsumer,
    in_erp: &mut BTreeSet<String>,
    most: usize,
    mended: bool,
) -> Result<(), Box<dyn Error>> {
    let mut taken = 0;
    while taken < most
        && let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(3), erp.next()).await
    {
        let delivery = delivery?;
        let id = String::from_utf8_lossy(delivery.record().key.as_deref().unwrap_or_default()).into_owned();
        if id == BROKEN && !mended {
            delivery.nack("no such cost centre");
            continue;
        }
        in_erp.insert(id);
        taken += 1;
        // Done, and that is on the server's disk: it does not come again.
        delivery.ack_durable().await?;
    }
    Ok(())
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
    let address = server.addresses()[0].to_string();
    let accounts = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/crm_accounts.jsonl"))?;

    let erp_client = Client::connect(address.as_str()).await?;
    let rules = QueueRules { max_deliveries: 3, backoff_ms: 10, backoff_max_ms: 10, ..QueueRules::default() };
    let join = || erp_client.queue("erp").topic("crm.accounts").rules(rules.clone()).prefetch(20).join();
    let mut erp = join().await?;
    let mut in_erp = BTreeSet::new();

    let crm = Client::connect(address.as_str()).await?;
    let producer = crm.producer().build().await?;
    let mut receipts = Vec::new();
    for account in accounts.lines().take(ACCOUNTS) {
        let id = serde_json::from_str::<serde_json::Value>(account)?["id"].as_str().unwrap_or_default().to_owned();
        let sent = producer.send(Message::to("crm.accounts").key(id).value(account.to_owned())).await?;
        receipts.push(tokio::spawn(sent.processed_by("erp")));
    }
    producer.flush().await?;
    println!(
        "The CRM has changed {ACCOUNTS} accounts. Each is on the server's disk, and the CRM goes on with its own work."
    );

    erp_works(&mut erp, &mut in_erp, 100, false).await?;
    drop(erp);
    println!("The ERP has taken {} of them, and is down now. Nobody has to know.", in_erp.len());
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut erp = join().await?;
    erp_works(&mut erp, &mut in_erp, ACCOUNTS, false).await?;
    println!("The ERP is back and has caught up: {} accounts. Nothing of what it had done came again.", in_erp.len());

    let (mut taken, mut given_up) = (0, 0);
    for receipt in receipts {
        match receipt.await?? {
            ReceiptOutcome::Acked => taken += 1,
            _ => given_up += 1,
        }
    }
    println!("The CRM reads its receipts: {taken} accounts are in the ERP, {given_up} could not be taken.");

    let admin = crm.admin();
    let letters = admin.dead_letters().await?;
    println!(
        "That one lies in '{}', with the reason. The ERP's people mend what was wrong and send it back.",
        letters[0].topic
    );
    let again = Redrive { topic: letters[0].topic.clone(), filter: None, max: 100, dry_run: false, from: None };
    admin.redrive(&again).await?;
    erp_works(&mut erp, &mut in_erp, 1, true).await?;
    println!("Now the ERP has {} accounts: all of them.", in_erp.len());
    drop(erp);
    server.stop().await;
    Ok(Outcome { in_erp, taken, given_up })
}

#[tokio::main]
#[allow(dead_code, reason = "the test that runs the example doesn't come this way")]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await.map(|_| ())
}
