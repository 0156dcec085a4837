//! `tidelog push`: queue groups whose consumer is an HTTP endpoint.

mod alter;
mod endpoint;
mod show;

use std::io;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::base::{ErrorKind, Millis, TopicName, TopicPattern};
use tidelog::broker::WebhookSecret;
use tidelog::client::{Admin, ClientError, ListPushes, NewPush, PushDescription, PushEndpoint, QueueRules, StartAt};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;
use super::position::parse_from;
use alter::{AlterArgs, RotateArgs};
use endpoint::{HeaderArgs, secret_in};

const EXAMPLES: &str = "\
Examples:
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook
  tidelog push create big --topic 'billing.>' --filter 'value.total > 1000' --url https://erp.example.com/big
  tidelog push list
  tidelog push describe erp                           how far it is, what went wrong last
  tidelog push alter erp --url https://erp.example.com/v2 --header 'X-Tenant: eu'
  tidelog push rotate erp                             another secret; the one before signs for a day as well
  tidelog push pause erp                              its records wait, also over restarts
  tidelog push resume erp
  tidelog push delete erp

A push is a queue group of the same name: 'tidelog group describe erp' shows it, 'tidelog group reset erp --to ago:1h --force'
sends an hour again, and what is given up lies in dead-letter.erp ('tidelog dead-letter list').";

const CREATE: &str = "\
Examples:
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook --from beginning --concurrency 1
  tidelog push create lake --topic 'crm.>' --url https://lake.example.com/in --batch 500 --ordered-by-key
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook --bearer-file token --new-secret
  pass show erp | tidelog push create erp --topic crm.accounts --url https://erp.example.com/hook --header-file -
  tidelog push create erp --topic crm.accounts --url https://erp.example.com/new --replace      goes on where it was

It begins at the end: what comes from now on is sent. --from beginning sends the records that there are as well.

What the endpoint gets: a POST for each record. Its value is the body; headers say the rest: webhook-id (the same each time:
drop what you have had), webhook-timestamp and webhook-signature (standardwebhooks.com; by the secret of --secret-file or --new-secret, or else by the
server's outgoing_secret_file, if it has one),
ce-id, ce-source, ce-type, ce-time, ce-partitionkey (cloudevents.io), tidelog-topic, -partition, -offset, -delivery, -key, and
tidelog-header-NAME for each header of the record. With --batch: a JSON array of CloudEvents
(application/cloudevents-batch+json), each with its id, source, data or data_base64, tidelogtopic, tidelogpartition and
tidelogoffset.

Headers of your own (--header, --header-file, --bearer-file, --basic-file) go with each call: 16 at most, 4096 bytes a value, 16384
bytes together. The server keeps them in its data directory and shows nobody their values. They go to the host of the URL and to no
other: no redirect is followed, and with another host in the URL they are to be given anew. With --replace those that are given take
the place of all before; if none is given, they stay.

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
    /// Makes a push subscription: from now on, records of the topics are POSTed to the URL
    #[command(after_help = CREATE)]
    Create(Box<CreateArgs>),
    /// Changes a subscription; what is not given stays, its position too
    #[command(after_help = alter::EXAMPLES)]
    Alter(Box<AlterArgs>),
    /// Replaces the secret of a subscription; the old one signs as well for a while
    #[command(after_help = alter::ROTATE)]
    Rotate(RotateArgs),
    /// Lists all push subscriptions
    List,
    /// Shows a subscription: its endpoint, its lag, its last error
    Describe {
        /// Its name
        name: String,
    },
    /// Pauses a subscription, also over restarts; calls under way are finished
    Pause {
        /// Its name
        name: String,
    },
    /// Resumes a subscription
    Resume {
        /// Its name
        name: String,
    },
    /// Deletes a subscription with its group and positions
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
    /// Where it begins: end (the default), beginning, time:RFC3339 or ago:DURATION. A group that is there goes on where it is
    #[arg(long, value_name = "POSITION", value_parser = parse_from)]
    from: Option<StartAt>,
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
    #[command(flatten)]
    headers: HeaderArgs,
    /// Sign with the secret in this file ('whsec_' and base64), or '-' for stdin, instead of the server's for all
    #[arg(long, value_name = "FILE", conflicts_with = "new_secret")]
    secret_file: Option<String>,
    /// Sign with a new secret, which is printed this once
    #[arg(long)]
    new_secret: bool,
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

    fn push(&self, secret: Option<&WebhookSecret>) -> Result<NewPush, Failure> {
        let mut push = NewPush::new(&self.name, &self.url)
            .from(self.from.unwrap_or(StartAt::End))
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
        for (name, value) in self.headers.headers()? {
            push = push.header(name, value);
        }
        if let Some(secret) = secret {
            push = push.secret(secret.text());
        }
        Ok(push)
    }
}

async fn create(admin: &Admin, args: &CreateArgs, json: bool) -> Result<(), Failure> {
    let secret = match &args.secret_file {
        Some(file) => Some(secret_in(file)?),
        None => args.new_secret.then(WebhookSecret::random),
    };
    let push = admin.create_push(args.push(secret.as_ref())?).await?;
    let endpoint = endpoint_of(admin, &push.name).await?;
    show::print(&push, endpoint.as_ref(), secret.filter(|_| args.new_secret).as_ref(), json)?;
    if args.from.is_none() && !args.replace {
        output::complain(&began(admin, &push).await?);
    }
    Ok(())
}

/// Where one that nobody said it of begins.
async fn began(admin: &Admin, push: &PushDescription) -> Result<String, Failure> {
    if push.lag > 0 {
        let lag = output::count(push.lag, "record");
        return Ok(format!("push '{}' has {lag} to send", push.name));
    }
    let mut there = 0;
    let mut topics: Vec<String> = Vec::new();
    for partition in admin.describe_group(&push.name).await?.partitions {
        if !topics.contains(&partition.topic) {
            topics.push(partition.topic);
        }
    }
    for topic in topics {
        let described = admin.describe_topic(topic).await?;
        there += described.partitions.iter().map(|at| at.stable_end.saturating_sub(at.log_start)).sum::<u64>();
    }
    let name = &push.name;
    Ok(match there {
        0 => format!("push '{name}' starts at the end; there is no record yet"),
        1 => format!("push '{name}' starts at the end; --from beginning sends the 1 record there is"),
        _ => format!(
            "push '{name}' starts at the end; --from beginning sends the {} records there are",
            output::grouped(there)
        ),
    })
}

/// What the endpoint of a push gets; `None` from a server that knows nothing of that.
async fn endpoint_of(admin: &Admin, name: &str) -> Result<Option<PushEndpoint>, Failure> {
    Ok(endpoints_of(admin, vec![name.to_owned()]).await?.pop())
}

async fn endpoints_of(admin: &Admin, names: Vec<String>) -> Result<Vec<PushEndpoint>, ClientError> {
    match admin.push_endpoints(names).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
        found => found,
    }
}

/// Runs `push`.
pub async fn run(args: PushArgs) -> Result<(), Failure> {
    let admin = args.server.connect().await?.admin();
    let json = args.json;
    match args.command {
        PushCommand::Create(args) => create(&admin, &args, json).await,
        PushCommand::Alter(args) => alter::alter(&admin, &args, json).await,
        PushCommand::Rotate(args) => alter::rotate(&admin, &args, json).await,
        PushCommand::List => {
            let mut all: Vec<PushDescription> = Vec::new();
            loop {
                let after = all.last().map(|push| push.name.clone());
                let (mut page, more) = admin.list_pushes(ListPushes { after, ..ListPushes::default() }).await?;
                let last = !more || page.is_empty();
                all.append(&mut page);
                if last {
                    // A table has no room for them.
                    let names = if json { all.iter().map(|push| push.name.clone()).collect() } else { Vec::new() };
                    return show::list(&all, &endpoints_of(&admin, names).await?, json);
                }
            }
        }
        PushCommand::Describe { name } => {
            let push = admin.describe_push(&name).await?;
            show::print(&push, endpoint_of(&admin, &name).await?.as_ref(), None, json)
        }
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
        return output::json_line(&mut io::stdout(), &show::object(push, None));
    }
    output::complain(&format!("push '{}' is {what}", push.name));
    Ok(())
}
