//! `tidelog push`: queue groups whose consumer is an HTTP endpoint.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog::base::{Millis, TopicName, TopicPattern};
use tidelog::client::{ListPushes, NewPush, PushDescription, QueueRules, StartAt};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, grouped, rfc3339, table};
use super::position::parse_from;

const EXAMPLES: &str = "\
Examples:
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook
  tidelog push create big --topic 'billing.>' --filter 'value.total > 1000' --url https://erp.example.com/big
  tidelog push list
  tidelog push describe erp                           how far it is, what went wrong last
  tidelog push pause erp                              its records wait, also over restarts
  tidelog push resume erp
  tidelog push delete erp

A push is a queue group of the same name: 'tidelog group describe erp' shows it, 'tidelog group reset erp --to ago:1h --force'
sends an hour again, and what is given up lies in dead-letter.erp ('tidelog dead-letter list').";

const CREATE: &str = "\
Examples:
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook --from end --concurrency 1 --ordered-by-key
  tidelog push create lake --topic 'crm.>' --url https://lake.example.com/in --batch 500
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/new --replace      goes on where it was

What the endpoint gets: a POST for each record. Its value is the body; headers say the rest: webhook-id (the same each time:
drop what you have had), webhook-timestamp and webhook-signature (if the server has outgoing_secret_file; standardwebhooks.com),
ce-id, ce-source, ce-type, ce-time, ce-partitionkey (cloudevents.io), tidelog-topic, -partition, -offset, -delivery, -key, and
tidelog-header-NAME for each header of the record. With --batch: a JSON array of CloudEvents
(application/cloudevents-batch+json), each with its id, source, data or data_base64, tidelogtopic, tidelogpartition and
tidelogoffset.

What its answer does: 2xx acks. Anything else, or none, and the record comes again after a wait that doubles (--backoff to
--backoff-max), not before retry-after; after --max-deliveries it is a dead letter with the reason. 410 pauses the push. A
redirect is not followed. While the endpoint cannot be reached at all, records wait and none is given up. A batch is taken or
not as a whole; what fails comes again with fewer others, at last alone.

Calls go only where the server's outgoing_allow says: to public addresses by https, unless more is configured
(tidelog serve --outgoing-allow 127.0.0.0/8).";

/// Options of `push`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PushArgs {
    #[command(subcommand)]
    command: PushCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum PushCommand {
    /// Makes a push subscription: from now on records of the topics are POSTed to the URL
    #[command(after_help = CREATE)]
    Create(Box<CreateArgs>),
    /// Lists all push subscriptions
    List,
    /// Shows one: where it sends what, how far it is, what went wrong last
    Describe {
        /// Its name
        name: String,
    },
    /// Lets one stand still, also over restarts; calls under way come to their end
    Pause {
        /// Its name
        name: String,
    },
    /// Lets one go on
    Resume {
        /// Its name
        name: String,
    },
    /// Deletes one, with its group and what that knows of what is done
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name, and that of its group
    name: String,
    /// A topic that it reads, or a pattern: crm.*.accounts, crm.> (repeatable)
    #[arg(long, required = true, value_name = "TOPIC")]
    topic: Vec<TopicPattern>,
    /// Where to
    #[arg(long)]
    url: String,
    /// Only records for which this CEL expression is true
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// Where it begins: beginning, end, time:RFC3339 or ago:DURATION. A group that is there goes on where it is
    #[arg(long, value_name = "POSITION", default_value = "beginning", value_parser = parse_from)]
    from: StartAt,
    /// Send up to so many records together, as a JSON array of CloudEvents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: Option<u32>,
    /// Calls at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,
    /// Time for a call, if the server does not allow less
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Millis>,
    /// Deliveries after which a record is a dead letter
    #[arg(long, value_name = "N")]
    max_deliveries: Option<u32>,
    /// The wait before a second delivery; it doubles each time
    #[arg(long, value_name = "DURATION")]
    backoff: Option<Millis>,
    /// The longest wait between two deliveries
    #[arg(long, value_name = "DURATION")]
    backoff_max: Option<Millis>,
    /// The topic for dead letters, instead of dead-letter.NAME
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<TopicName>,
    /// The next record of a key is sent only when the one before is done
    #[arg(long)]
    ordered_by_key: bool,
    /// Take the place of the push of that name, and go on where it was
    #[arg(long)]
    replace: bool,
}

impl CreateArgs {
    fn rules(&self) -> QueueRules {
        let mut rules = QueueRules { ordered_by_key: self.ordered_by_key, ..QueueRules::default() };
        if let Some(deliveries) = self.max_deliveries {
            rules.max_deliveries = deliveries;
        }
        if let Some(backoff) = self.backoff {
            rules.backoff_ms = backoff.0;
            rules.backoff_max_ms = rules.backoff_max_ms.max(backoff.0);
        }
        if let Some(longest) = self.backoff_max {
            rules.backoff_max_ms = longest.0;
        }
        rules.dead_letter = self.dead_letter.as_ref().map(ToString::to_string);
        rules
    }

    fn push(&self) -> NewPush {
        let mut push = NewPush::new(&self.name, &self.url)
            .from(self.from)
            .concurrency(self.concurrency)
            .rules(self.rules())
            .replace(self.replace);
        for topic in &self.topic {
            push = push.topic(topic.as_str());
        }
        if let Some(filter) = &self.filter {
            push = push.filter(filter);
        }
        if let Some(batch) = self.batch {
            push = push.batch(batch);
        }
        if let Some(timeout) = self.timeout {
            push = push.timeout(timeout.as_duration());
        }
        push
    }
}

/// Runs `push`.
pub async fn run(args: PushArgs) -> Result<(), Failure> {
    let admin = args.server.connect().await?.admin();
    let json = args.json;
    match args.command {
        PushCommand::Create(create) => print(&admin.create_push(create.push()).await?, json),
        PushCommand::List => {
            let mut all: Vec<PushDescription> = Vec::new();
            loop {
                let after = all.last().map(|push| push.name.clone());
                let (mut page, more) = admin.list_pushes(ListPushes { after, ..ListPushes::default() }).await?;
                if !more || page.is_empty() {
                    all.append(&mut page);
                    return list(&all, json);
                }
                all.append(&mut page);
            }
        }
        PushCommand::Describe { name } => print(&admin.describe_push(name).await?, json),
        PushCommand::Pause { name } => done(&admin.pause_push(name).await?, "paused", json),
        PushCommand::Resume { name } => done(&admin.resume_push(name).await?, "resumed", json),
        PushCommand::Delete { name } => {
            admin.delete_push(&name).await?;
            if json {
                return output::json_line(&mut io::stdout(), &json!({ "push": name, "deleted": true }));
            }
            output::complain(&format!("push '{name}' is deleted, and its group"));
            Ok(())
        }
    }
}

fn done(push: &PushDescription, what: &str, json: bool) -> Result<(), Failure> {
    if json {
        return output::json_line(&mut io::stdout(), &object(push));
    }
    output::complain(&format!("push '{}' is {what}", push.name));
    Ok(())
}

fn list(pushes: &[PushDescription], json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        for push in pushes {
            output::json_line(&mut out, &object(push))?;
        }
    } else if pushes.is_empty() {
        output::complain("there is no push subscription yet: tidelog push create NAME --topic TOPIC --url URL");
    } else {
        let row = |push: &PushDescription| {
            vec![
                push.name.clone(),
                push.state.clone(),
                push.topics.join(" "),
                grouped(push.lag),
                grouped(push.delivered),
                grouped(push.retried),
                grouped(push.dead_letters),
                push.url.clone(),
            ]
        };
        let header = ["push", "state", "topics", "lag", "delivered", "retried", "dead letters", "url"];
        writeln!(out, "{}", table(&header, &[3, 4, 5, 6], pushes.iter().map(row).collect()))?;
    }
    Ok(out.flush()?)
}

fn print(push: &PushDescription, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        output::json_line(&mut out, &object(push))?;
        return Ok(out.flush()?);
    }
    writeln!(out, "{}  ({})\n", push.name, push.state)?;
    let span = |ms: u64| output::seconds(Duration::from_millis(ms));
    let mut facts = vec![vec!["url".to_owned(), push.url.clone()], vec!["topics".to_owned(), push.topics.join(" ")]];
    let mut fact = |name: &str, value: String| facts.push(vec![name.to_owned(), value]);
    if let Some(filter) = &push.filter {
        fact("filter", filter.clone());
    }
    if let Some(reason) = &push.paused {
        fact("paused", reason.clone());
    }
    if let Some(until) = push.rests_until_ms {
        fact("rests until", rfc3339(until));
    }
    fact(
        "sends",
        push.batch.map_or_else(|| "each record by itself".to_owned(), |most| format!("up to {most} together")),
    );
    fact("at a time", output::count(push.concurrency.into(), "call"));
    if let Some(timeout) = push.timeout_ms {
        fact("time for a call", span(timeout));
    }
    let rules = &push.rules;
    fact("deliveries", format!("at most {}", rules.max_deliveries));
    fact("backoff", format!("{} to {}", span(rules.backoff_ms), span(rules.backoff_max_ms)));
    fact("order", if rules.ordered_by_key { "by key" } else { "any" }.to_owned());
    if let Some(topic) = &push.dead_letter {
        fact("dead letters", topic.clone());
    }
    fact(
        "lag",
        format!("{} ({} in flight, {} waiting)", grouped(push.lag), grouped(push.in_flight), grouped(push.waiting)),
    );
    let (delivered, retried, dead) = (grouped(push.delivered), grouped(push.retried), grouped(push.dead_letters));
    fact("since start", format!("{delivered} delivered, {retried} retried, {dead} dead letters"));
    if let Some(time) = push.delivered_ms {
        fact("last taken", rfc3339(time));
    }
    if let (Some(time), Some(error)) = (push.last_error_ms, &push.last_error) {
        fact("last error", format!("{} {error}", rfc3339(time)));
    }
    writeln!(out, "{}", table(&[], &[], facts))?;
    Ok(out.flush()?)
}

fn object(push: &PushDescription) -> Value {
    let rules = &push.rules;
    json!({
        "push": push.name, "group": push.name, "state": push.state, "paused": push.paused,
        "rests_until": push.rests_until_ms, "url": push.url, "topics": push.topics, "filter": push.filter,
        "batch": push.batch, "concurrency": push.concurrency, "timeout_ms": push.timeout_ms,
        "rules": {
            "lease_ms": rules.lease_ms, "max_deliveries": rules.max_deliveries, "backoff_ms": rules.backoff_ms,
            "backoff_max_ms": rules.backoff_max_ms, "ordered_by_key": rules.ordered_by_key,
        },
        "dead_letter": push.dead_letter, "lag": push.lag, "in_flight": push.in_flight, "waiting": push.waiting,
        "delivered": push.delivered, "retried": push.retried, "dead_letters": push.dead_letters,
        "last_delivered": push.delivered_ms, "last_error_at": push.last_error_ms, "last_error": push.last_error,
        "created": push.created_ms, "changed": push.changed_ms,
    })
}
