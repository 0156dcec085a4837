//! `tidelog transaction`: list, describe, abort, forget.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog::base::{ErrorKind, Millis};
use tidelog::client::{Admin, ClientError, HeldPartition, ListTransactions, TransactionSummary};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, grouped, rfc3339, table};

const EXAMPLES: &str = "\
Examples:
  tidelog transaction list --state open               what holds up readers, and since when
  tidelog transaction describe orders-writer-1        its partitions, and where it begins in each
  tidelog transaction abort orders-writer-1           ends it; its producer is superseded
  tidelog transaction forget orders-writer-1          removes the id, if it has no open transaction

Transactions are made by Kafka producers with a transactional.id. Readers of what is committed see a partition up to where
the first open transaction begins. A producer may ask for at most transaction_max_timeout (15m), after which the server
aborts its transaction.";

/// Options of `transaction`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TransactionArgs {
    #[command(subcommand)]
    command: TransactionCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum TransactionCommand {
    /// Lists transactional ids
    List {
        /// Only those in this state: open, empty, ongoing, prepare_commit, prepare_abort, committed or aborted
        #[arg(long)]
        state: Option<String>,
        /// Only those with a transaction that has been open for so long (30s, 5m)
        #[arg(long, value_name = "DURATION")]
        open_for: Option<Millis>,
        /// So many at the most
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Shows a transactional id, and where its open transaction begins in each partition
    Describe {
        /// The transactional id
        id: String,
    },
    /// Aborts the open transaction of an id and supersedes its producer
    Abort {
        /// The transactional id
        id: String,
    },
    /// Removes a transactional id that has no open transaction
    Forget {
        /// The transactional id
        id: String,
    },
}

/// Runs `transaction`.
pub async fn run(args: TransactionArgs) -> Result<(), Failure> {
    let admin = args.server.connect().await?.admin();
    match args.command {
        TransactionCommand::List { state, open_for, limit } => {
            let open_for_ms = open_for.map(|span| span.0);
            list(&admin, ListTransactions { state, open_for_ms, after: None }, limit as usize, args.json).await
        }
        TransactionCommand::Describe { id } => describe(&admin, &id, args.json).await,
        TransactionCommand::Abort { id } => abort(&admin, &id, args.json).await,
        TransactionCommand::Forget { id } => {
            admin.forget_transaction(&id).await?;
            if args.json {
                return output::json_line(&mut io::stdout(), &json!({ "transaction": id, "forgotten": true }));
            }
            output::complain(&format!("transactional id '{id}' is forgotten"));
            Ok(())
        }
    }
}

async fn list(admin: &Admin, wanted: ListTransactions, limit: usize, json: bool) -> Result<(), Failure> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = admin.list_transactions(ListTransactions { after: after.take(), ..wanted.clone() }).await?;
        found.extend(page);
        after = next;
        if after.is_none() || found.len() > limit {
            break;
        }
    }
    let more = found.len() > limit || after.is_some();
    found.truncate(limit);
    let mut out = output::stdout();
    if json {
        for transaction in &found {
            output::json_line(&mut out, &as_json(transaction))?;
        }
    } else if found.is_empty() {
        output::complain("there is no such transactional id");
    } else {
        let row = |of: &TransactionSummary| {
            vec![
                of.id.clone(),
                of.producer_id.to_string(),
                of.epoch.to_string(),
                of.state.clone(),
                grouped(of.partitions),
                span(of.age_ms),
                span(of.left_ms),
                rfc3339(of.updated_ms),
                client(of),
            ]
        };
        let header =
            ["id", "producer", "epoch", "state", "partitions", "open for", "time left", "last change", "client"];
        writeln!(out, "{}", table(&header, &[1, 2, 4, 5, 6], found.iter().map(row).collect()))?;
    }
    out.flush()?;
    if more {
        output::complain(&format!("there are more than {limit}; see --limit"));
    }
    Ok(())
}

async fn describe(admin: &Admin, id: &str, json: bool) -> Result<(), Failure> {
    let found = admin.describe_transaction(id).await?;
    let mut out = output::stdout();
    if json {
        let partitions = found
            .partitions
            .iter()
            .map(|at| json!({ "topic": at.topic, "partition": at.partition, "first_offset": at.first_offset }));
        let mut object = as_json(&found.transaction);
        object["partitions"] = partitions.collect();
        object["groups"] = found.groups.iter().map(String::as_str).collect();
        output::json_line(&mut out, &object)?;
        return Ok(out.flush()?);
    }
    let of = &found.transaction;
    writeln!(out, "{}\n", of.id)?;
    let fact = |name: &str, value: String| vec![name.to_owned(), value];
    let mut facts = vec![
        fact("state", of.state.clone()),
        fact("producer", format!("{}, epoch {}", of.producer_id, of.epoch)),
        fact("client", client(of)),
        fact("time-out", output::seconds(Duration::from_millis(of.timeout_ms))),
        fact("last change", rfc3339(of.updated_ms)),
    ];
    if of.age_ms.is_some() {
        facts.push(fact("begun", of.started_ms.map_or_else(|| "-".to_owned(), rfc3339)));
        facts.push(fact("open for", span(of.age_ms)));
        facts.push(fact("time left", span(of.left_ms)));
    }
    if !found.groups.is_empty() {
        facts.push(fact("commits positions of", found.groups.join(" ")));
    }
    writeln!(out, "{}", table(&[], &[], facts))?;
    if !found.partitions.is_empty() {
        let rows = found.partitions.iter().map(|at| {
            let first = at.first_offset.map_or_else(|| "nothing written".to_owned(), grouped);
            vec![at.topic.clone(), at.partition.to_string(), first]
        });
        writeln!(out, "\n{}", table(&["topic", "partition", "begins at"], &[1, 2], rows.collect()))?;
    }
    Ok(out.flush()?)
}

async fn abort(admin: &Admin, id: &str, json: bool) -> Result<(), Failure> {
    let (transaction, aborted) = admin.abort_transaction(id).await?;
    if json {
        let mut object = as_json(&transaction);
        object["aborted"] = Value::from(aborted);
        return output::json_line(&mut io::stdout(), &object);
    }
    output::complain(&match (aborted, transaction.state.as_str()) {
        (false, _) => format!("transactional id '{id}' has no open transaction; nothing is changed"),
        (true, "prepare_abort") => {
            format!("the abort of '{id}' is decided and kept, and not yet written to all of its partitions")
        }
        (true, _) => format!("the transaction of '{id}' is aborted, and its producer superseded"),
    });
    Ok(())
}

fn as_json(of: &TransactionSummary) -> Value {
    json!({
        "transaction": of.id, "producer": of.producer_id, "epoch": of.epoch, "state": of.state,
        "partition_count": of.partitions, "started": of.started_ms, "updated": of.updated_ms, "age_ms": of.age_ms,
        "left_ms": of.left_ms, "timeout_ms": of.timeout_ms, "address": of.address, "client": of.client,
    })
}

fn span(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| output::seconds(Duration::from_millis(ms)))
}

fn client(of: &TransactionSummary) -> String {
    match (of.address.as_str(), of.client.as_str()) {
        ("", "") => "-".to_owned(),
        (address, "") => address.to_owned(),
        (address, client) => format!("{client} at {address}"),
    }
}

/// What open transactions hold up in these topics; nothing from a server that cannot say.
pub async fn held(admin: &Admin, topics: Vec<String>) -> Result<Vec<HeldPartition>, ClientError> {
    match admin.held(topics).await {
        Ok((held, _)) => Ok(held),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A line for a partition that is held up.
pub fn held_line(at: &HeldPartition) -> String {
    let who = match &at.transaction {
        Some(id) => format!("transaction '{id}'"),
        None => format!("a transaction of producer {} that only the partition knows of", at.producer_id),
    };
    let since = at.since_ms.map_or_else(String::new, |since| format!(" since {}", rfc3339(since)));
    let age = at.age_ms.map_or_else(String::new, |_| format!(" (open for {})", span(at.age_ms)));
    let (topic, partition, offset) = (&at.topic, at.partition, grouped(at.offset));
    let records = output::count(at.records, "record");
    format!("{topic}/{partition}: {records} from offset {offset} on held by {who}{since}{age}")
}

/// The same as JSON.
pub fn held_json(at: &HeldPartition) -> Value {
    json!({
        "topic": at.topic, "partition": at.partition, "offset": at.offset, "records": at.records,
        "transaction": at.transaction, "producer": at.producer_id, "since": at.since_ms, "age_ms": at.age_ms,
    })
}
