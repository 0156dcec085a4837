//! `tidelog receipts`: receipts that the server is to POST.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::client::{ListReceipts, ReceiptInfo};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, rfc3339, table};

const EXAMPLES: &str = "\
Examples:
  tidelog produce orders 'hello' --receipt-of erp --receipt-to https://crm.example/receipts
  tidelog receipts list
  tidelog receipts list --state given_up --json
  tidelog receipts list --summary                     what they are: how many by state, group and URL
  tidelog receipts cancel --group erp --url https://crm.example/receipts

A receipt waits for the group, is sent, or was given up. It is gone from the list once its
endpoint has answered 2xx; one that was given up stays for a day (request_retention).";

/// Options of `receipts`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReceiptsArgs {
    #[command(subcommand)]
    command: ReceiptsCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum ReceiptsCommand {
    /// Lists receipts that are to be POSTed
    List {
        /// Only those in this state: waiting, sending or given_up
        #[arg(long)]
        state: Option<String>,
        /// Only those of this group
        #[arg(long)]
        group: Option<String>,
        /// So many at the most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// How many there are by state, group and URL, of all of them; the most first
        #[arg(long, conflicts_with = "limit")]
        summary: bool,
    },
    /// Cancels the pending receipts of a group
    Cancel {
        /// The group
        #[arg(long)]
        group: String,
        /// Only those that go to this URL
        #[arg(long)]
        url: Option<String>,
    },
}

/// Runs `receipts`.
pub async fn run(args: ReceiptsArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    let (state, group, limit, summary) = match args.command {
        ReceiptsCommand::List { state, group, limit, summary } => {
            (state, group, if summary { u32::MAX } else { limit }, summary)
        }
        ReceiptsCommand::Cancel { group, url } => {
            let cancelled = client.admin().cancel_receipts(&group, url).await?;
            if args.json {
                let mut out = output::stdout();
                output::json_line(&mut out, &json!({ "group": group, "cancelled": cancelled }))?;
                out.flush()?;
            } else {
                output::complain(&format!("{} of group '{group}' cancelled", output::count(cancelled, "receipt")));
            }
            return Ok(());
        }
    };
    let mut out = output::stdout();
    let (mut receipts, mut after) = (Vec::<ReceiptInfo>::new(), None);
    loop {
        let wanted = ListReceipts { state: state.clone(), group: group.clone(), after: after.take() };
        let (page, next) = client.admin().list_receipts(wanted).await?;
        receipts.extend(page);
        after = next;
        if after.is_none() || receipts.len() > limit as usize {
            break;
        }
    }
    let more = receipts.len() > limit as usize || after.is_some();
    receipts.truncate(limit as usize);
    if summary {
        let mut sums: BTreeMap<[String; 3], u64> = BTreeMap::new();
        for receipt in receipts {
            *sums.entry([receipt.state, receipt.group, receipt.url]).or_default() += 1;
        }
        output::summary(&mut out, ["state", "group", "url"], sums, args.json)?;
        return Ok(out.flush()?);
    }
    if args.json {
        for receipt in &receipts {
            let object = json!({
                "topic": receipt.record.topic,
                "partition": receipt.record.partition,
                "offset": receipt.record.offset,
                "group": receipt.group,
                "state": receipt.state,
                "url": receipt.url,
                "asked": receipt.asked_ms,
                "until": receipt.until_ms,
                "outcome": receipt.outcome,
                "trouble": receipt.trouble,
            });
            output::json_line(&mut out, &object)?;
        }
    } else if receipts.is_empty() {
        output::complain(
            "there is no such receipt to be sent; 'tidelog produce --receipt-of GROUP --receipt-to URL' asks for one",
        );
    } else {
        let row = |receipt: &ReceiptInfo| {
            vec![
                receipt.record.topic.clone(),
                receipt.record.partition.to_string(),
                receipt.record.offset.to_string(),
                receipt.group.clone(),
                receipt.state.clone(),
                receipt.outcome.clone().unwrap_or_default(),
                rfc3339(receipt.until_ms),
                receipt.url.clone(),
                receipt.trouble.clone().unwrap_or_default(),
            ]
        };
        let header = ["topic", "partition", "offset", "group", "state", "outcome", "until", "url", "trouble"];
        writeln!(out, "{}", table(&header, &[1, 2], receipts.iter().map(row).collect()))?;
    }
    if more {
        output::complain(&format!("there are more than {limit}; see --limit"));
    }
    Ok(out.flush()?)
}
