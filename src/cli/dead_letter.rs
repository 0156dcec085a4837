//! `tidelog dead-letter`: list, show, redrive.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::base::TopicName;
use tidelog::client::{Admin, Client, ConsumedRecord, DeadLetterAt, Redrive};
use tokio::time::Instant;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::json::Text;
use super::output::{self, count, grouped, rfc3339, table};
use super::position::parse_rate;
use super::progress::{Progress, Unit};

/// Dead letters asked for at a time.
const AT_ONCE: u32 = 1_000;
/// Characters of a value that are shown to people.
const SHOWN: usize = 200;

const EXAMPLES: &str = "\
Examples:
  tidelog dead-letter list
  tidelog dead-letter show dead-letter.erp            what they are, where they came from, and why they failed
  tidelog dead-letter redrive dead-letter.erp --rate 100/s

A record goes to its group's dead-letter topic when it has failed as often as the group's rules allow.";

/// Options of `dead-letter`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// Lists the topics with dead letters
    #[command(after_help = "\
Examples:
  tidelog dead-letter list
  tidelog dead-letter list --json")]
    List,
    /// Shows the dead letters of a topic that have not been sent back
    #[command(after_help = "\
Examples:
  tidelog dead-letter show dead-letter.erp
  tidelog dead-letter show dead-letter.erp --max 10 --json
  tidelog dead-letter show dead-letter.erp --filter 'headers[\"tidelog-error\"].contains(\"no such account\")'")]
    Show {
        /// The dead-letter topic
        topic: TopicName,
        /// Only those for which this CEL expression is true
        #[arg(long, value_name = "CEL")]
        filter: Option<String>,
        /// So many at most
        #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
        max: u64,
    },
    /// Sends dead letters back to the topics that they came from, once each
    #[command(after_help = "\
Examples:
  tidelog dead-letter redrive dead-letter.erp         all that have not been sent back yet
  tidelog dead-letter redrive dead-letter.erp --rate 100/s
  tidelog dead-letter redrive dead-letter.erp --filter 'key == \"acc-17\"' --dry-run

They go to the end of those topics, for every group that reads them, with the header tidelog-redriven, and stay in the
dead-letter topic, marked as sent back. Interrupted, the command goes on where it was when it is run again.")]
    Redrive {
        /// The dead-letter topic
        topic: TopicName,
        /// Only those for which this CEL expression is true
        #[arg(long, value_name = "CEL")]
        filter: Option<String>,
        /// At most this many a second
        #[arg(long, value_name = "N/s", value_parser = parse_rate)]
        rate: Option<f64>,
        /// So many at most
        #[arg(long, short = 'n', value_name = "N")]
        max: Option<u64>,
        /// Only count them
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `dead-letter`.
pub async fn run(args: DeadLetterArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    match args.command {
        DeadLetterCommand::List => list(&client.admin(), args.json).await,
        DeadLetterCommand::Show { topic, filter, max } => show(&client, &topic, filter, max, args.json).await,
        DeadLetterCommand::Redrive { topic, filter, rate, max, dry_run } => {
            let limit = max.unwrap_or(u64::MAX);
            redrive(&client.admin(), &topic, filter, rate, limit, dry_run, args.json).await
        }
    }
}

async fn list(admin: &Admin, json: bool) -> Result<(), Failure> {
    let topics = admin.dead_letters().await?;
    let mut out = output::stdout();
    if json {
        for topic in &topics {
            let line = json!({
                "topic": topic.topic, "groups": topic.groups, "dead_letters": topic.records - topic.redriven,
                "redriven": topic.redriven,
            });
            output::json_line(&mut out, &line)?;
        }
    } else if topics.is_empty() {
        output::complain("there are no dead letters");
    } else {
        let rows = topics.into_iter().map(|topic| {
            let left = topic.records - topic.redriven;
            vec![topic.topic, topic.groups.join(" "), grouped(left), grouped(topic.redriven)]
        });
        writeln!(out, "{}", table(&["topic", "groups", "dead letters", "sent back"], &[2, 3], rows.collect()))?;
    }
    Ok(out.flush()?)
}

/// The next dead letters to be dealt with.
async fn ask(
    admin: &Admin,
    topic: &TopicName,
    filter: Option<&str>,
    max: u64,
    dry_run: bool,
    from: Option<DeadLetterAt>,
) -> Result<tidelog::client::RedriveOk, Failure> {
    let max = u32::try_from(max).unwrap_or(AT_ONCE).clamp(1, AT_ONCE);
    let redrive = Redrive { topic: topic.to_string(), filter: filter.map(str::to_owned), max, dry_run, from };
    Ok(admin.redrive(&redrive).await?)
}

async fn show(client: &Client, topic: &TopicName, filter: Option<String>, max: u64, json: bool) -> Result<(), Failure> {
    let mut wanted = HashSet::new();
    let mut from = None;
    loop {
        let left = max - wanted.len() as u64;
        let answer = ask(&client.admin(), topic, filter.as_deref(), left, true, from).await?;
        wanted.extend(answer.records);
        from = answer.next;
        if from.is_none() || wanted.len() as u64 >= max {
            break;
        }
    }
    let mut out = output::stdout();
    if wanted.is_empty() && !json {
        output::complain(&format!("there are no dead letters in '{topic}' that were not sent back"));
        return Ok(());
    }
    let mut consumer = client.consumer().topic(topic.as_str()).until_end(true).build().await?;
    while !wanted.is_empty()
        && let Some(record) = consumer.next().await
    {
        let record = record?;
        if wanted.remove(&DeadLetterAt { partition: record.partition, offset: record.offset }) {
            print(&mut out, &record, json)?;
        }
    }
    Ok(out.flush()?)
}

fn print(out: &mut impl Write, record: &ConsumedRecord, json: bool) -> Result<(), Failure> {
    let header = |name: &str| record.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let said = |name: &str| header(name).unwrap_or_else(|| "-".to_owned());
    if json {
        let line = json!({
            "topic": record.topic.as_ref(), "partition": record.partition, "offset": record.offset,
            "timestamp": record.timestamp, "source": header("tidelog-source"), "group": header("tidelog-group"),
            "attempts": header("tidelog-attempts").and_then(|attempts| attempts.parse::<u32>().ok()),
            "error": header("tidelog-error"), "key": record.key.as_deref().map(Text), "headers": &record.headers,
            "value": record.value.as_deref().map(Text),
        });
        return output::json_line(out, &line);
    }
    writeln!(out, "{}/{}  from {}", record.partition, record.offset, said("tidelog-source"))?;
    let key = record.key.as_deref().map_or_else(|| "-".to_owned(), |key| String::from_utf8_lossy(key).into_owned());
    let time = rfc3339(record.timestamp);
    writeln!(out, "    {}  group {}  after {} deliveries", time, said("tidelog-group"), said("tidelog-attempts"))?;
    writeln!(out, "    {}", said("tidelog-error"))?;
    let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    let shown: String = value.chars().take(SHOWN).collect();
    let more = if shown.len() < value.len() { "..." } else { "" };
    Ok(writeln!(out, "    {key}: {shown}{more}")?)
}

async fn redrive(
    admin: &Admin,
    topic: &TopicName,
    filter: Option<String>,
    rate: Option<f64>,
    max: u64,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut progress = Progress::new(Unit::Records, None, "sending back");
    let began = Instant::now();
    let (mut back, mut stranded, mut from) = (0u64, 0u64, None);
    while back < max {
        // A tenth of a second's worth at a time.
        let step = rate.map_or(u64::from(AT_ONCE), |rate| (rate / 10.0).ceil() as u64);
        let answer = ask(admin, topic, filter.as_deref(), step.min(max - back), dry_run, from).await?;
        back += answer.records.len() as u64;
        stranded += answer.stranded;
        progress.advance(answer.records.len() as u64);
        from = answer.next;
        if from.is_none() {
            break;
        }
        if let (Some(rate), false) = (rate, dry_run) {
            tokio::time::sleep_until(began + Duration::from_secs_f64(back as f64 / rate)).await;
        }
    }
    progress.finish();
    if json {
        let line = json!({ "topic": topic, "redriven": back, "stranded": stranded, "done": !dry_run });
        return output::json_line(&mut io::stdout(), &line);
    }
    let verb = if dry_run { "would go" } else { "went" };
    output::complain(&format!("{} {verb} back from '{topic}'", count(back, "dead letter")));
    if stranded > 0 {
        output::complain(&format!(
            "{} cannot go back: the topic they came from is gone, or they do not name it",
            count(stranded, "dead letter")
        ));
    }
    Ok(())
}
