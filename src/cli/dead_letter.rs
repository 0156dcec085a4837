//! `tidelog dead-letter`: list, show, redrive, edit, discard.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::base::TopicName;
use tidelog::client::{
    Admin, Client, ConsumedRecord, DeadLetterAt, DeadLetterWay, SettleDeadLetters, SettleDeadLettersOk, StartAt,
};
use tidelog::disk::{self, RealDisk};
use tokio::time::Instant;

use super::connection::ServerArgs;
use super::failure::{Failure, Status};
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
  tidelog dead-letter redrive dead-letter.erp --to-group   to the group that gave them up, and to no other
  tidelog dead-letter edit dead-letter.erp 0/17       corrects its value, and sends it back
  tidelog dead-letter discard dead-letter.erp --filter 'key == \"acc-17\"'

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
    /// Shows the dead letters of a topic that nobody has dealt with
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
dead-letter topic, marked as dealt with. Interrupted, the command goes on where it was when it is run again.

--to-group: nothing is appended. The record that a dead letter was comes again, with its offset, to the group that gave it up, and
to nobody else; it must still be there. Exit status 1 if some cannot go back.")]
    Redrive {
        /// The dead-letter topic
        topic: TopicName,
        /// Only those for which this CEL expression is true
        #[arg(long, value_name = "CEL")]
        filter: Option<String>,
        /// At most this many a second
        #[arg(long, value_name = "N/s", value_parser = parse_rate)]
        rate: Option<f64>,
        /// Only to the group that gave them up: no other group and no reader gets them again
        #[arg(long)]
        to_group: bool,
        /// Only this one
        #[arg(long, value_name = "PARTITION/OFFSET", value_parser = parse_at, conflicts_with_all = ["filter", "max"])]
        at: Option<DeadLetterAt>,
        /// So many at most
        #[arg(long, short = 'n', value_name = "N")]
        max: Option<u64>,
        /// Only count them
        #[arg(long)]
        dry_run: bool,
    },
    /// Gives a dead letter another value, and sends it back to the topic that it came from
    #[command(after_help = "\
Examples:
  tidelog dead-letter edit dead-letter.erp 0/17                      in $VISUAL, $EDITOR or vi; unchanged, nothing happens
  tidelog dead-letter edit dead-letter.erp 0/17 --value '{\"id\":17}'
  tidelog dead-letter edit dead-letter.erp 0/17 --file corrected.json

Key and headers stay as they are. It goes to the end of its topic, for every group that reads that, and is marked as dealt with, once,
also when the server dies meanwhile.")]
    Edit {
        /// The dead-letter topic
        topic: TopicName,
        /// Which one, as 'dead-letter show' says it
        #[arg(value_name = "PARTITION/OFFSET", value_parser = parse_at)]
        at: DeadLetterAt,
        /// Its new value
        #[arg(long, value_name = "TEXT")]
        value: Option<String>,
        /// A file with its new value; '-' is stdin
        #[arg(long, value_name = "FILE", conflicts_with = "value")]
        file: Option<String>,
    },
    /// Is done with dead letters, without sending them anywhere
    #[command(after_help = "\
Examples:
  tidelog dead-letter discard dead-letter.erp --dry-run
  tidelog dead-letter discard dead-letter.erp --at 0/17
  tidelog dead-letter discard dead-letter.erp --filter 'headers[\"tidelog-error\"].contains(\"no such account\")' --yes

They stay in the topic until retention deletes them, marked as dealt with: 'show' and 'redrive' pass them over.")]
    Discard {
        /// The dead-letter topic
        topic: TopicName,
        /// Only those for which this CEL expression is true
        #[arg(long, value_name = "CEL")]
        filter: Option<String>,
        /// Only this one
        #[arg(long, value_name = "PARTITION/OFFSET", value_parser = parse_at, conflicts_with_all = ["filter", "max"])]
        at: Option<DeadLetterAt>,
        /// So many at most
        #[arg(long, short = 'n', value_name = "N")]
        max: Option<u64>,
        /// Only count them
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Reads PARTITION/OFFSET.
fn parse_at(text: &str) -> Result<DeadLetterAt, String> {
    let read = |(partition, offset): (&str, &str)| Some((partition.parse().ok()?, offset.parse().ok()?));
    let at = text.split_once('/').and_then(read);
    let (partition, offset) = at.ok_or("not PARTITION/OFFSET, as in 0/17")?;
    Ok(DeadLetterAt { partition, offset })
}

/// Runs `dead-letter`.
pub async fn run(args: DeadLetterArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    match args.command {
        DeadLetterCommand::List => list(&client.admin(), args.json).await,
        DeadLetterCommand::Show { topic, filter, max } => show(&client, &topic, filter, max, args.json).await,
        DeadLetterCommand::Redrive { topic, filter, rate, max, dry_run, to_group, at } => {
            let way = if to_group { DeadLetterWay::Group } else { DeadLetterWay::Topic };
            let dealing = Dealing { topic, way, at, value: None, filter, dry_run };
            deal(&client.admin(), dealing, rate, max.unwrap_or(u64::MAX), args.json).await
        }
        DeadLetterCommand::Edit { topic, at, value, file } => {
            let value = match (value, file) {
                (Some(value), _) => Some(value.into_bytes()),
                (None, Some(file)) => Some(read_value(&file)?),
                (None, None) => edited(&client, &topic, at).await?,
            };
            let Some(value) = value else {
                output::complain("the value is as it was; nothing is done");
                return Ok(());
            };
            let way = DeadLetterWay::Topic;
            let dealing = Dealing { topic, way, at: Some(at), value: Some(value), filter: None, dry_run: false };
            deal(&client.admin(), dealing, None, 1, args.json).await
        }
        DeadLetterCommand::Discard { topic, filter, at, max, dry_run, yes } => {
            let max = max.unwrap_or(u64::MAX);
            if !dry_run && !yes {
                let which = match (&filter, at) {
                    (_, Some(at)) => format!("dead letter {}/{} of '{topic}'", at.partition, at.offset),
                    (Some(_), _) => format!("the dead letters of '{topic}' that meet the filter"),
                    (None, _) => format!("all dead letters of '{topic}'"),
                };
                output::confirm(
                    &format!("Discard {which}?"),
                    &format!("that discards {which}; say --yes, or see --dry-run"),
                    "nothing is discarded",
                )?;
            }
            let way = DeadLetterWay::Discard;
            let dealing = Dealing { topic, way, at, value: None, filter, dry_run };
            deal(&client.admin(), dealing, None, max, args.json).await
        }
    }
}

/// What is done with which dead letters.
struct Dealing {
    topic: TopicName,
    way: DeadLetterWay,
    at: Option<DeadLetterAt>,
    value: Option<Vec<u8>>,
    filter: Option<String>,
    dry_run: bool,
}

fn read_value(file: &str) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let read = match file {
        "-" => io::stdin().lock().read_to_end(&mut value).map(|_| value),
        file => disk::read_file(&RealDisk, Path::new(file)),
    };
    read.map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))
}

/// The value of a dead letter after somebody has had it in an editor; nothing if it is as it was.
async fn edited(client: &Client, topic: &TopicName, at: DeadLetterAt) -> Result<Option<Vec<u8>>, Failure> {
    let start = StartAt::Offset(at.offset);
    let consumer = client.consumer().topic_partition(topic.as_str(), at.partition).from(start);
    let mut consumer = consumer.until_end(true).build().await?;
    let gone = || {
        Failure::As(Status::NotThere, format!("there is no dead letter {}/{} in '{topic}'", at.partition, at.offset))
    };
    let record = consumer.next().await.ok_or_else(gone)??;
    if record.offset != at.offset {
        return Err(gone());
    }
    let before = record.value.as_deref().unwrap_or_default().to_vec();
    drop(consumer);
    let mut file = tempfile::Builder::new().prefix("tidelog-dead-letter-").suffix(".json").tempfile()?;
    file.write_all(&before)?;
    file.flush()?;
    let named = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // The variable may have options in it, as shells and git read it.
    let script = format!("{editor} \"$1\"");
    let status = std::process::Command::new("sh").args(["-c", &script, "sh"]).arg(file.path()).status()?;
    if !status.success() {
        return Err(Failure::failed(format!("{editor} ended with {status}; nothing is done")));
    }
    // An editor may have put another file in its place.
    let after = disk::read_file(&RealDisk, file.path())?;
    Ok((after != before).then_some(after))
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
        writeln!(out, "{}", table(&["topic", "groups", "dead letters", "dealt with"], &[2, 3], rows.collect()))?;
    }
    Ok(out.flush()?)
}

/// Deals with the next dead letters.
async fn ask(
    admin: &Admin,
    of: &Dealing,
    max: u64,
    from: Option<DeadLetterAt>,
) -> Result<SettleDeadLettersOk, Failure> {
    let max = u32::try_from(max).unwrap_or(AT_ONCE).clamp(1, AT_ONCE);
    let (topic, filter, value) = (of.topic.to_string(), of.filter.clone(), of.value.clone());
    let (way, at, dry_run) = (of.way, of.at, of.dry_run);
    Ok(admin.settle_dead_letters(&SettleDeadLetters { topic, way, at, value, filter, max, dry_run, from }).await?)
}

/// Where a group's dead letters are, if somebody has named the group and not the topic.
async fn hint(admin: &Admin, name: &TopicName, failure: Failure) -> Failure {
    let Failure::As(Status::NotThere, message) = &failure else { return failure };
    let Ok(described) = admin.describe_group(name.as_str()).await else { return failure };
    match described.dead_letter {
        Some(topic) if topic != name.as_str() => {
            let message = format!("{message}; dead letters of group '{name}' go to '{topic}'");
            Failure::As(Status::NotThere, message)
        }
        _ => failure,
    }
}

async fn show(client: &Client, topic: &TopicName, filter: Option<String>, max: u64, json: bool) -> Result<(), Failure> {
    let mut wanted = HashSet::new();
    let mut from = None;
    // Those that nobody has dealt with, whether they can go back or not.
    let way = DeadLetterWay::Discard;
    let all = Dealing { topic: topic.clone(), way, at: None, value: None, filter, dry_run: true };
    loop {
        let left = max - wanted.len() as u64;
        let answer = match ask(&client.admin(), &all, left, from).await {
            Err(failure) => return Err(hint(&client.admin(), topic, failure).await),
            Ok(answer) => answer,
        };
        wanted.extend(answer.records);
        from = answer.next;
        if from.is_none() || wanted.len() as u64 >= max {
            break;
        }
    }
    let mut out = output::stdout();
    if wanted.is_empty() && !json {
        output::complain(&format!("there are no dead letters in '{topic}' that nobody has dealt with"));
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

async fn deal(admin: &Admin, of: Dealing, rate: Option<f64>, max: u64, json: bool) -> Result<(), Failure> {
    let what = if of.way == DeadLetterWay::Discard { "discarding" } else { "sending back" };
    let mut progress = Progress::new(Unit::Records, None, what);
    let began = Instant::now();
    let (mut done, mut stranded, mut why, mut from) = (0u64, 0u64, None, None);
    while done < max {
        // A tenth of a second's worth at a time.
        let step = rate.map_or(u64::from(AT_ONCE), |rate| (rate / 10.0).ceil() as u64);
        let answer = match ask(admin, &of, step.min(max - done), from).await {
            Err(failure) => return Err(hint(admin, &of.topic, failure).await),
            Ok(answer) => answer,
        };
        done += answer.records.len() as u64;
        stranded += answer.stranded;
        why = why.or(answer.why);
        progress.advance(answer.records.len() as u64);
        from = answer.next;
        if from.is_none() {
            break;
        }
        if let (Some(rate), false) = (rate, of.dry_run) {
            tokio::time::sleep_until(began + Duration::from_secs_f64(done as f64 / rate)).await;
        }
    }
    progress.finish();
    let Dealing { topic, way, dry_run, .. } = of;
    if json {
        let name = if way == DeadLetterWay::Discard { "discarded" } else { "redriven" };
        let line = json!({ "topic": topic, name: done, "stranded": stranded, "done": !dry_run });
        output::json_line(&mut io::stdout(), &line)?;
    } else {
        let count = count(done, "dead letter");
        output::complain(&match (way, dry_run) {
            (DeadLetterWay::Discard, true) => format!("{count} would be discarded from '{topic}'"),
            (DeadLetterWay::Discard, false) => format!("{count} discarded from '{topic}'"),
            (DeadLetterWay::Group, true) => {
                format!("{count} would go back from '{topic}' to the group that gave them up")
            }
            (DeadLetterWay::Group, false) => format!("{count} went back from '{topic}' to the group that gave them up"),
            (DeadLetterWay::Topic, true) => format!("{count} would go back from '{topic}'"),
            (DeadLetterWay::Topic, false) => format!("{count} went back from '{topic}'"),
        });
    }
    if stranded > 0 {
        let why = why.unwrap_or_else(|| "what they came from is gone".to_owned());
        return Err(Failure::failed(format!("{} cannot go back: {why}", output::count(stranded, "dead letter"))));
    }
    Ok(())
}
