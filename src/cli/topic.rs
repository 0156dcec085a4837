//! `tidelog topic`: create, list, describe, alter, trim, delete.

use std::io::{self, IsTerminal, Write};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tidelog::base::TopicName;
use tidelog::client::{Dependent, HeldPartition, NewTopic, TopicChange, TopicDescription};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::list::{self, ListArgs};
use super::output::{self, grouped, rfc3339, table};
use super::position::parse_pair;
use super::topic_trim::{self, TrimArgs};
use super::transaction;

/// Dependents that are named before a topic is deleted.
const MISSED: usize = 10;

const EXAMPLES: &str = "\
Examples:
  tidelog topic create orders --partitions 3 --set retention_time=7d
  tidelog topic list
  tidelog topic describe orders
  tidelog topic alter orders --partitions 6 --unset retention_time
  tidelog topic trim orders --before ago:30d --dry-run
  tidelog topic delete orders --yes";

/// Options of `topic`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Creates a topic
    #[command(after_help = "\
Examples:
  tidelog topic create orders --partitions 3
  tidelog topic create audit --set retention_time=365d --if-not-exists")]
    Create {
        /// Its name: letters, digits, '.', '_' and '-'
        topic: TopicName,
        /// Number of partitions; the server's default if not given
        #[arg(long, short)]
        partitions: Option<u32>,
        /// Setting (repeatable); 'tidelog topic describe' shows all with their meaning
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
        set: Vec<(String, String)>,
        /// An existing topic is fine, whatever its settings
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Lists all topics
    #[command(after_help = "\
Examples:
  tidelog topic list
  tidelog topic list --prefix crm. --limit 100
  tidelog topic list --summary                        how many there are, with how many partitions
  tidelog topic list --json")]
    List(ListArgs),
    /// Shows a topic's settings and partitions
    #[command(after_help = "\
Examples:
  tidelog topic describe orders
  tidelog topic describe orders --json")]
    Describe {
        /// Its name
        topic: TopicName,
    },
    /// Changes a topic's settings, or gives it more partitions
    #[command(after_help = "\
Examples:
  tidelog topic alter orders --set retention_time=30d
  tidelog topic alter orders --unset retention_time
  tidelog topic alter orders --partitions 6           keys may go to another partition from then on")]
    Alter {
        /// Its name
        topic: TopicName,
        /// New, larger number of partitions
        #[arg(long, short)]
        partitions: Option<u32>,
        /// Setting to change (repeatable)
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
        set: Vec<(String, String)>,
        /// Setting to put back to its default (repeatable)
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// Deletes the oldest records of a topic, up to a point of its log
    #[command(after_help = "\
Examples:
  tidelog topic trim orders --before ago:30d --dry-run    how many records that would be
  tidelog topic trim orders --before ago:30d --yes
  tidelog topic trim orders --partition 2 --before offset:1500 --yes
  tidelog topic trim orders --before end --yes            all there is; the topic stays

Offsets go on where they were. Groups that had not come so far go on at the new start. A topic that is only compacted has
no oldest records: it is refused.")]
    Trim(TrimArgs),
    /// Deletes a topic and all its data
    #[command(after_help = "\
Examples:
  tidelog topic delete orders                         says who reads it or writes to it, and asks
  tidelog topic delete orders --yes                   says it, and does not ask")]
    Delete {
        /// Its name
        topic: TopicName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs `topic`.
pub async fn run(args: TopicArgs) -> Result<(), Failure> {
    if let TopicCommand::Alter { partitions: None, set, unset, .. } = &args.command
        && set.is_empty()
        && unset.is_empty()
    {
        return Err(Failure::Usage("nothing to change: use --set, --unset or --partitions".to_owned()));
    }
    if let TopicCommand::Delete { topic, yes: false } = &args.command
        && !io::stdin().is_terminal()
    {
        return Err(Failure::Usage(format!("deleting '{topic}' deletes its data; say --yes")));
    }
    let admin = args.server.connect().await?.admin();
    match args.command {
        TopicCommand::Create { topic, partitions, set, if_not_exists } => {
            let mut new = NewTopic::new(topic.as_str());
            if let Some(partitions) = partitions {
                new = new.partitions(partitions);
            }
            for (name, value) in set {
                new = new.set(name, value);
            }
            if if_not_exists {
                new = new.if_not_exists();
            }
            let topic = admin.create_topic(new).await?;
            done(args.json, if if_not_exists { "is there" } else { "is created" }, &topic)
        }
        TopicCommand::List(list) => list::topics(&admin, &list, args.json).await,
        TopicCommand::Describe { topic } => {
            let topic = admin.describe_topic(topic.as_str()).await?;
            let held = transaction::held(&admin, vec![topic.name.clone()]).await?;
            if args.json { print_json(&topic, &held) } else { print_description(&topic, &held) }
        }
        TopicCommand::Alter { topic, partitions, set, unset } => {
            let mut change = TopicChange::new(topic.as_str());
            if let Some(partitions) = partitions {
                change = change.partitions(partitions);
            }
            for (name, value) in set {
                change = change.set(name, value);
            }
            for name in unset {
                change = change.unset(name);
            }
            let before = admin.describe_topic(topic.as_str()).await?;
            let topic = admin.alter_topic(change).await?;
            let same = before.settings == topic.settings && before.partitions.len() == topic.partitions.len();
            done(args.json, if same { "is as it was" } else { "is changed" }, &topic)
        }
        TopicCommand::Trim(trim) => topic_trim::run(&admin, trim, args.json).await,
        TopicCommand::Delete { topic, yes } => {
            let (dependents, more) = admin.dependents(topic.as_str()).await?;
            if !dependents.is_empty() {
                output::complain(&missed(&topic, &dependents, more));
            }
            if !yes {
                confirm(&topic)?;
            }
            admin.delete_topic(topic.as_str()).await?;
            if args.json {
                output::json_line(&mut io::stdout(), &json!({ "topic": topic.as_str(), "deleted": true }))?;
            } else {
                output::complain(&format!("topic '{topic}' is deleted"));
            }
            Ok(())
        }
    }
}

/// Who would miss a topic, in one line.
fn missed(topic: &TopicName, dependents: &[Dependent], more: bool) -> String {
    let named = dependents.iter().take(MISSED).map(|one| {
        let how = match one.how.as_str() {
            "writes" => "writes to it",
            "dead letters" => "has its dead letters in it",
            _ => "reads it",
        };
        format!("{} '{}' {how}", one.kind, one.name)
    });
    let named: Vec<String> = named.collect();
    let rest = dependents.len().saturating_sub(MISSED);
    let rest = match (rest, more) {
        (0, false) => String::new(),
        (rest, false) => format!(", and {rest} more"),
        (rest, true) => format!(", and more than {rest} others"),
    };
    format!("topic '{topic}' is in use: {}{rest}", named.join(", "))
}

/// Asks on the terminal; where nobody can be asked, `--yes` has to say it.
fn confirm(topic: &TopicName) -> Result<(), Failure> {
    output::confirm(
        &format!("Delete topic '{topic}' and all its data?"),
        &format!("deleting '{topic}' deletes its data; say --yes"),
        &format!("topic '{topic}' is not deleted"),
    )
}

fn done(json: bool, what: &str, topic: &TopicDescription) -> Result<(), Failure> {
    if json {
        return print_json(topic, &[]);
    }
    let partitions = output::count(topic.partitions.len() as u64, "partition");
    output::complain(&format!("topic '{}' {what}, {partitions}", topic.name));
    Ok(())
}

fn print_json(topic: &TopicDescription, held: &[HeldPartition]) -> Result<(), Failure> {
    let settings: Map<String, Value> =
        topic.settings.iter().map(|setting| (setting.name.clone(), Value::from(setting.value.clone()))).collect();
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "partition": partition.partition,
                "log_start": partition.log_start,
                "stable_end": partition.stable_end,
                "log_end": partition.log_end,
                "bytes": partition.bytes,
                "segments": partition.segments,
                "newest_timestamp": partition.newest_timestamp,
                "clean_bytes": partition.clean_bytes,
                "dirty_bytes": partition.dirty_bytes,
                "state": partition.state,
                "held": held.iter().find(|at| at.partition == partition.partition).map(transaction::held_json),
            })
        })
        .collect();
    let line = json!({ "topic": topic.name, "id": topic.id, "settings": settings, "partitions": partitions });
    output::json_line(&mut io::stdout(), &line)
}

fn print_description(topic: &TopicDescription, held: &[HeldPartition]) -> Result<(), Failure> {
    let mut out = output::stdout();
    writeln!(out, "{}  (id {})\n", topic.name, topic.id)?;
    let rows = topic.settings.iter().map(|setting| {
        let origin = if setting.is_default { "default" } else { "set" };
        vec![setting.name.clone(), setting.value.clone(), origin.to_owned(), setting.meaning.clone()]
    });
    writeln!(out, "{}\n", table(&["setting", "value", "", "meaning"], &[], rows.collect()))?;
    let rows = topic.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            grouped(partition.log_start),
            grouped(partition.stable_end),
            grouped(partition.log_end),
            output::size(partition.bytes),
            partition.segments.to_string(),
            rfc3339(partition.newest_timestamp),
            partition.state.clone(),
        ]
    });
    for at in held {
        writeln!(out, "{}", transaction::held_line(at))?;
    }
    let compacted = topic.settings.iter().any(|setting| setting.name == "cleanup" && setting.value.contains("compact"));
    let header = ["partition", "start", "stable end", "log end", "size", "segments", "newest record", "state"];
    writeln!(out, "{}", table(&header, &[0, 1, 2, 3, 4, 5], rows.collect()))?;
    for partition in topic.partitions.iter().filter(|_| compacted) {
        let (clean, dirty) = (partition.clean_bytes, partition.dirty_bytes);
        let share = dirty * 100 / (clean + dirty).max(1);
        let (clean, dirty) = (output::size(clean), output::size(dirty));
        writeln!(out, "partition {}: {clean} compacted, {dirty} to be compacted ({share} %)", partition.partition)?;
    }
    Ok(out.flush()?)
}
