//! `tidelog group`: create, list, describe, alter, pause, resume, skip, reset, delete.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog::base::{Clock, SystemClock, TopicName, TopicPattern};
use tidelog::client::{
    Admin, DescribeFilterOk, GroupChange, GroupDescription, GroupReset, HeldPartition, NewGroup, QueueRules, RecordAt,
    ResetPartition, ResetTo, StartAt, TopicPartition,
};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::group_options::{GroupKind, RuleOptions};
use super::group_records;
use super::list::{self, ListArgs};
use super::output::{self, grouped, rfc3339, table};
use super::position::parse_from;
use super::transaction;

const EXAMPLES: &str = "\
Examples:
  tidelog group create erp --topic 'crm.>' --filter 'value.region == \"eu\"' --max-deliveries 5
  tidelog group list
  tidelog group describe erp                          what it is, how far it is, who its members are, what waits
  tidelog group describe erp --records                what is stuck in it, record by record
  tidelog group pause erp                             hands out nothing new; 'resume' goes on
  tidelog group skip erp orders 0 4711                is done with this one record, without a delivery
  tidelog group alter erp --topic 'crm.>' --topic orders    also while it has members
  tidelog group reset erp --to ago:1h --dry-run       what would change
  tidelog group reset erp --to beginning              replay everything to it
  tidelog group delete erp

A group is defined once: by 'group create', or by its first member (tidelog consume orders --group erp). Its topics, its filter and
its rules belong to it. A member that says otherwise is refused; one that says nothing of them joins the group as it is.";

/// Options of `group`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Creates a group; it needs no member
    #[command(after_help = "\
Examples:
  tidelog group create erp --topic 'crm.*.accounts' --topic 'erp.>' --filter 'value.region == \"eu\"'
  tidelog group create erp --topic orders --max-deliveries 5 --backoff 2s --ordered-by-key
  tidelog group create audit --topic 'crm.>' --group-kind stream --from end

One that is there and is the same is fine; one that is another is refused.")]
    Create(CreateArgs),
    /// Changes the topics, filter or rules of a group; what is not given stays
    #[command(after_help = "\
Examples:
  tidelog group alter erp --topic 'crm.>' --topic orders    these topics instead of those it had
  tidelog group alter erp --filter 'value.total > 100'
  tidelog group alter erp --no-filter --max-deliveries 3

It holds for members that are there, too: from their next delivery on in a queue group. Records that the group has passed over
stay passed over, and topics that come back go on where the group was.")]
    Alter(AlterArgs),
    /// Lists all groups
    #[command(after_help = "\
Examples:
  tidelog group list
  tidelog group list --prefix console- --limit 100
  tidelog group list --summary                        what groups take of the server's limits
  tidelog group list --json

The members of a group, its positions, and when it was used last say what fills the server's tables; 'made by' is the client
that has made it since the server started.")]
    List(ListArgs),
    /// Shows what a group is (topics, filter, rules), its members, and how far it is in each partition
    #[command(after_help = "\
Examples:
  tidelog group describe erp
  tidelog group describe erp --json
  tidelog group describe erp --records                what is in hand, backing off, delayed, blocked
  tidelog group describe erp --records --limit 1000 --json

Lag counts records that are not done: those that members have (in flight), those that wait to be delivered again or for
their time, and those that were not looked at yet. The age is that of the oldest of them.

--records is for queue groups: each record that a group has begun with and not done, also without members. States:
  in hand      a member has it, until its lease ends
  backing off  it failed, and comes again
  delayed      its time (tidelog-deliver-at) has not come
  blocked      another record of its key is before it
  due          it waits for a member with room
  burying      it is to be written as a dead letter
The last error is the reason that a member gave last. The server keeps reasons in memory: they are gone after a restart.")]
    Describe {
        /// Its name
        group: String,
        /// The records that it has begun with and not done, instead; of a queue group
        #[arg(long)]
        records: bool,
        /// At most so many of them
        #[arg(long, value_name = "N", default_value_t = 100, requires = "records",
            value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Stops the delivery of new records to a queue group, also over restarts
    #[command(after_help = "\
Examples:
  tidelog group pause erp
  tidelog group resume erp

Members stay and wait. What they have in hand goes on: acks, failures, ends of leases. A group of a push subscription is paused
with 'tidelog push pause'; a stream group cannot be paused.")]
    Pause {
        /// Its name
        group: String,
    },
    /// Starts the delivery to a paused queue group again
    #[command(after_help = "\
Examples:
  tidelog group resume erp")]
    Resume {
        /// Its name
        group: String,
    },
    /// Marks a record as done for a queue group, without delivering it
    #[command(after_help = "\
Examples:
  tidelog group skip erp orders 0 4711
  tidelog group skip erp orders 0 4711 --json         what the record was before

It is no dead letter. A member that has the record may still ack it: that changes nothing. Records of the same key behind it go on.")]
    Skip {
        /// The group
        group: String,
        /// The topic
        topic: TopicName,
        /// The partition
        partition: u32,
        /// The offset
        offset: u64,
    },
    /// Moves the positions of a group
    #[command(after_help = "\
Examples:
  tidelog group reset erp --to beginning --dry-run    prints what would change, and changes nothing
  tidelog group reset erp --to time:2026-01-31T08:00:00Z --topic crm.accounts
  tidelog group reset erp --to last:100 --force       also while it has members
  tidelog group reset erp --topic orders --partition 3 --to offset:4711    only this partition

What was done above the new position is done again; what lies below counts as done.
Where to: beginning | end | offset:N | last:N | time:2026-01-31T08:00:00Z | ago:DURATION (90s, 15m, 7d)")]
    Reset {
        /// Its name
        group: String,
        /// Where it is to go on, in each partition
        #[arg(long, value_name = "POSITION", value_parser = parse_from)]
        to: StartAt,
        /// Only in this topic, or pattern (repeatable)
        #[arg(long, value_name = "TOPIC")]
        topic: Vec<TopicPattern>,
        /// Only in this partition of the topic (repeatable); needs one --topic, which is no pattern
        #[arg(long, value_name = "NUMBER", requires = "topic")]
        partition: Vec<u32>,
        /// Print what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Also while it has members: they are sent away, and come again
        #[arg(long)]
        force: bool,
    },
    /// Deletes a group and its positions
    #[command(after_help = "\
Examples:
  tidelog group delete erp
  tidelog group delete erp --force                    also while it has members, which are sent away")]
    Delete {
        /// Its name
        group: String,
        /// Also while it has members
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name
    group: String,
    /// A topic that it reads, or a pattern: crm.*.accounts, crm.> (repeatable)
    #[arg(long, value_name = "TOPIC", required = true)]
    topic: Vec<TopicPattern>,
    /// Only records for which this CEL expression is true are the group's
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// How the members share the work
    #[arg(long, value_name = "KIND", default_value = "queue")]
    group_kind: GroupKind,
    /// Where it begins in the partitions that there are: beginning, end, time:RFC3339 or ago:DURATION
    #[arg(long, value_name = "POSITION", default_value = "beginning", value_parser = parse_from)]
    from: StartAt,
    #[command(flatten)]
    rules: RuleOptions,
}

#[derive(Debug, Args)]
struct AlterArgs {
    /// Its name
    group: String,
    /// A topic that it reads from now on, or a pattern (repeatable): all of them, instead of those it had
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<TopicPattern>,
    /// Its filter from now on
    #[arg(long, value_name = "CEL", conflicts_with = "no_filter")]
    filter: Option<String>,
    /// No filter from now on
    #[arg(long)]
    no_filter: bool,
    /// Where it begins in partitions of which it has done nothing yet: beginning, end, time:RFC3339 or ago:DURATION
    #[arg(long, value_name = "POSITION", default_value = "beginning", value_parser = parse_from)]
    from: StartAt,
    #[command(flatten)]
    rules: RuleOptions,
}

async fn create(admin: &Admin, args: CreateArgs, json: bool) -> Result<(), Failure> {
    let name = args.group;
    let mut group = match args.group_kind {
        GroupKind::Queue => NewGroup::queue(&name).rules(args.rules.rules(QueueRules::default())),
        GroupKind::Stream if args.rules.are_said() => {
            return Err(Failure::Usage(
                "a stream group has no rules: leave them out, or make a queue group".to_owned(),
            ));
        }
        GroupKind::Stream => NewGroup::stream(&name),
    };
    group = group.from(args.from);
    for topic in args.topic {
        group = group.topic(topic.as_str());
    }
    if let Some(filter) = args.filter {
        group = group.filter(filter);
    }
    let created = admin.create_group(group).await?;
    if json {
        return output::json_line(&mut io::stdout(), &json!({ "group": name, "created": created }));
    }
    output::complain(&match created {
        true => format!("group '{name}' is created"),
        false => format!("group '{name}' was there already, and is the same"),
    });
    Ok(())
}

async fn alter(admin: &Admin, args: AlterArgs, json: bool) -> Result<(), Failure> {
    let name = args.group;
    if args.topic.is_empty() && args.filter.is_none() && !args.no_filter && !args.rules.are_said() {
        return Err(Failure::Usage(format!(
            "what is to change of group '{name}'? --topic, --filter, --no-filter or rules"
        )));
    }
    let mut change = args.rules.change(GroupChange::new(&name).from(args.from));
    for topic in args.topic {
        change = change.topic(topic.as_str());
    }
    if let Some(filter) = args.filter {
        change = change.filter(filter);
    }
    if args.no_filter {
        change = change.no_filter();
    }
    let (group, rules) = admin.alter_group(change).await?;
    if json {
        let line = json!({
            "group": group.name, "kind": group.kind, "topics": group.topics, "filter": group.filter,
            "rules": rules.as_ref().map(rules_json),
        });
        return output::json_line(&mut io::stdout(), &line);
    }
    let filter = group.filter.map_or_else(|| "no filter".to_owned(), |filter| format!("the filter {filter}"));
    output::complain(&format!("group '{name}' now has the topics {} and {filter}", group.topics.join(" ")));
    Ok(())
}

fn rules_json(rules: &QueueRules) -> Value {
    json!({
        "lease_ms": rules.lease_ms, "max_deliveries": rules.max_deliveries, "backoff_ms": rules.backoff_ms,
        "backoff_max_ms": rules.backoff_max_ms, "ordered_by_key": rules.ordered_by_key,
    })
}

/// Runs `group`.
pub async fn run(args: GroupArgs) -> Result<(), Failure> {
    let admin = args.server.connect().await?.admin();
    match args.command {
        GroupCommand::Create(create_args) => create(&admin, create_args, args.json).await,
        GroupCommand::Alter(alter_args) => alter(&admin, alter_args, args.json).await,
        GroupCommand::List(list) => list::groups(&admin, &list, args.json).await,
        GroupCommand::Describe { group, records: true, limit } => {
            group_records::print(&admin, &group, limit, args.json).await
        }
        GroupCommand::Pause { group } => pause(&admin, &group, true, args.json).await,
        GroupCommand::Resume { group } => pause(&admin, &group, false, args.json).await,
        GroupCommand::Describe { group, .. } => {
            let paused = admin.paused_since(&group).await?;
            let group = admin.describe_group(group).await?;
            let topics: BTreeSet<String> = group.partitions.iter().map(|at| at.topic.clone()).collect();
            let held = match topics.is_empty() {
                true => Vec::new(),
                false => transaction::held(&admin, topics.into_iter().collect()).await?,
            };
            let read = |at: &HeldPartition| {
                group.partitions.iter().any(|of| of.topic == at.topic && of.partition == at.partition)
            };
            let held: Vec<_> = held.into_iter().filter(read).collect();
            // Of a stream group each member is told itself.
            let counts = match group.summary.kind == "queue" && group.summary.filter.is_some() {
                true => Some(admin.describe_filter(&group.summary.name).await?),
                false => None,
            };
            describe(&group, (paused, counts.as_ref()), &held, args.json)
        }
        GroupCommand::Skip { group, topic, partition, offset } => {
            let record = RecordAt { topic: topic.to_string(), partition, offset };
            group_records::skip(&admin, &group, record, args.json).await
        }
        GroupCommand::Reset { group, to, topic, partition, dry_run, force } if !partition.is_empty() => {
            let [topic] = &topic[..] else {
                let message = format!("--partition is of one topic, and {} are named", topic.len());
                return Err(Failure::Usage(message));
            };
            let topic = TopicName::new(topic.as_str()).map_err(|error| {
                Failure::Usage(format!("--partition is of one topic, which is no pattern: {error}"))
            })?;
            let at = |partition| TopicPartition { topic: topic.to_string(), partition };
            let partitions = partition.into_iter().map(at).collect();
            let changes = admin.reset_partitions(&group, partitions, position(to), (dry_run, force)).await?;
            print_reset(&group, &changes, dry_run, args.json)
        }
        GroupCommand::Reset { group, to, topic, dry_run, force, .. } => {
            let mut reset = GroupReset::new(&group, position(to)).dry_run(dry_run).force(force);
            for topic in topic {
                reset = reset.topic(topic.as_str());
            }
            print_reset(&group, &admin.reset_group(reset).await?, dry_run, args.json)
        }
        GroupCommand::Delete { group, force } => {
            admin.delete_group(&group, force).await?;
            if args.json {
                return output::json_line(&mut io::stdout(), &json!({ "group": group, "deleted": true }));
            }
            output::complain(&format!("group '{group}' is deleted"));
            Ok(())
        }
    }
}

async fn pause(admin: &Admin, group: &str, paused: bool, json: bool) -> Result<(), Failure> {
    let changed = if paused { admin.pause_group(group).await? } else { admin.resume_group(group).await? };
    if json {
        let line = json!({ "group": group, "paused": paused, "changed": changed });
        return output::json_line(&mut io::stdout(), &line);
    }
    output::complain(&match (paused, changed) {
        (true, true) => format!("group '{group}' is paused; 'tidelog group resume {group}' lets it go on"),
        (true, false) => format!("group '{group}' was paused already"),
        (false, true) => format!("group '{group}' goes on"),
        (false, false) => format!("group '{group}' was not paused"),
    });
    Ok(())
}

fn position(to: StartAt) -> ResetTo {
    match to {
        StartAt::Beginning => ResetTo::Beginning,
        StartAt::End => ResetTo::End,
        StartAt::Offset(offset) => ResetTo::Offset(offset),
        StartAt::Last(offsets) => ResetTo::Last(offsets),
        StartAt::Time(time) => ResetTo::Timestamp(time),
        StartAt::Ago(span) => {
            let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            ResetTo::Timestamp(SystemClock::new().wall_ms().saturating_sub(span))
        }
    }
}

/// What a description says beside what the group is: since when it is paused, and what its filter said.
type Beside<'a> = (Option<i64>, Option<&'a DescribeFilterOk>);

fn describe(group: &GroupDescription, beside: Beside<'_>, held: &[HeldPartition], json: bool) -> Result<(), Failure> {
    match json {
        true => output::json_line(&mut io::stdout(), &as_json(group, beside, held)),
        false => print(group, beside, held),
    }
}

fn as_json(group: &GroupDescription, (paused, counts): Beside<'_>, held: &[HeldPartition]) -> Value {
    let now = SystemClock::new().wall_ms();
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            let owns: Vec<Value> =
                member.owns.iter().map(|own| json!({ "topic": own.topic, "partition": own.partition })).collect();
            json!({
                "member": member.id, "client": member.client, "in_flight": member.in_flight, "owns": owns,
                "joined": member.joined_ms, "heard": member.heard_ms,
            })
        })
        .collect();
    let partitions: Vec<Value> = group
        .partitions
        .iter()
        .map(|at| {
            json!({
                "topic": at.topic, "partition": at.partition, "floor": at.floor, "end": at.end, "lag": at.lag,
                "in_flight": at.in_flight, "waiting": at.waiting, "redeliveries": at.redeliveries,
                "oldest_age_ms": at.oldest_ms.map(|oldest| now.saturating_sub(oldest).max(0)), "owner": at.owner,
                "trouble": at.trouble,
                "held": held.iter().find(|of| of.topic == at.topic && of.partition == at.partition)
                    .map(transaction::held_json),
            })
        })
        .collect();
    let rules = group.rules.as_ref().map(rules_json);
    let summary = &group.summary;
    let lag: u64 = group.partitions.iter().map(|at| at.lag).sum();
    json!({
        "group": summary.name, "kind": summary.kind, "topics": summary.topics, "filter": summary.filter, "lag": lag,
        "paused": paused, "filter_counts": counts, "rules": rules, "dead_letter": group.dead_letter, "members": members, "partitions": partitions,
    })
}

fn print(group: &GroupDescription, (paused, counts): Beside<'_>, held: &[HeldPartition]) -> Result<(), Failure> {
    let mut out = output::stdout();
    let summary = &group.summary;
    writeln!(out, "{}  ({} group)\n", summary.name, summary.kind)?;
    let topics = match summary.topics.is_empty() {
        // Only Kafka's clients have used it.
        true => "as each member says".to_owned(),
        false => summary.topics.join(" "),
    };
    let filter = summary.filter.clone().unwrap_or_else(|| "none".to_owned());
    if let Some(since) = paused {
        writeln!(out, "paused since {}; 'tidelog group resume' lets it go on\n", rfc3339(since))?;
    }
    let mut facts = vec![vec!["topics".to_owned(), topics], vec!["filter".to_owned(), filter]];
    if let Some(counts) = counts {
        facts.push(vec!["".to_owned(), filter_counts(counts)]);
    }
    if let Some(rules) = &group.rules {
        let span = |ms: u64| output::seconds(Duration::from_millis(ms));
        facts.push(vec!["lease".to_owned(), span(rules.lease_ms)]);
        facts.push(vec!["deliveries".to_owned(), format!("at most {}", rules.max_deliveries)]);
        facts.push(vec!["backoff".to_owned(), format!("{} to {}", span(rules.backoff_ms), span(rules.backoff_max_ms))]);
        facts.push(vec!["order".to_owned(), if rules.ordered_by_key { "by key" } else { "any" }.to_owned()]);
    }
    if let Some(topic) = &group.dead_letter {
        facts.push(vec!["dead letters".to_owned(), topic.clone()]);
    }
    writeln!(out, "{}\n", table(&[], &[], facts))?;
    let now = SystemClock::new().wall_ms();
    let age = |oldest: Option<i64>| oldest.map_or_else(|| "-".to_owned(), |oldest| output::seconds(since(now, oldest)));
    let rows = group.partitions.iter().map(|at| {
        vec![
            at.topic.clone(),
            at.partition.to_string(),
            grouped(at.floor),
            grouped(at.end),
            grouped(at.lag),
            grouped(at.in_flight),
            grouped(at.waiting),
            grouped(at.redeliveries),
            age(at.oldest_ms),
            at.owner.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let header =
        ["topic", "partition", "done to", "end", "lag", "in flight", "waiting", "redelivered", "oldest", "owner"];
    writeln!(out, "{}\n", table(&header, &[1, 2, 3, 4, 5, 6, 7], rows.collect()))?;
    let mut troubles = group.partitions.iter().filter_map(|at| at.trouble.as_ref()).peekable();
    if troubles.peek().is_some() {
        for trouble in troubles {
            writeln!(out, "{trouble}")?;
        }
        writeln!(out)?;
    }
    if !held.is_empty() {
        for at in held {
            writeln!(out, "{}", transaction::held_line(at))?;
        }
        writeln!(out)?;
    }
    if group.members.is_empty() {
        writeln!(out, "no members")?;
    } else {
        let rows = group.members.iter().map(|member| {
            let owns: Vec<String> = member.owns.iter().map(|own| format!("{}/{}", own.topic, own.partition)).collect();
            let joined = output::seconds(since(now, member.joined_ms));
            let heard = age(member.heard_ms);
            vec![member.id.clone(), member.client.clone(), grouped(member.in_flight), joined, heard, owns.join(" ")]
        });
        let header = ["member", "client", "in flight", "since", "last heard", "owns"];
        writeln!(out, "{}", table(&header, &[2], rows.collect()))?;
    }
    Ok(out.flush()?)
}

fn since(now: i64, then: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
}

/// What a filter said, in words.
fn filter_counts(of: &DescribeFilterOk) -> String {
    let DescribeFilterOk { asked, wanted, unanswered, reason } = of;
    let mut text = format!("since start: {} of {} wanted", grouped(*wanted), output::count(*asked, "record"));
    if *unanswered > 0 {
        let reason = reason.as_deref().unwrap_or("unknown");
        text.push_str(&format!("; {} passed over because it has no answer for them: {reason}", grouped(*unanswered)));
    }
    text
}

fn print_reset(group: &str, changes: &[ResetPartition], dry_run: bool, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        for change in changes {
            let line = json!({
                "group": group, "topic": change.topic, "partition": change.partition, "from": change.from,
                "to": change.to, "end": change.end, "done": !dry_run,
            });
            output::json_line(&mut out, &line)?;
        }
        return Ok(out.flush()?);
    }
    let rows = changes.iter().map(|change| {
        let difference = match change.to.checked_sub(change.from) {
            Some(0) => "stays".to_owned(),
            Some(1) => "1 record is passed over".to_owned(),
            Some(forward) => format!("{} records are passed over", grouped(forward)),
            None if change.from - change.to == 1 => "1 record comes again".to_owned(),
            None => format!("{} records come again", grouped(change.from - change.to)),
        };
        let (topic, partition) = (change.topic.clone(), change.partition.to_string());
        vec![topic, partition, grouped(change.from), grouped(change.to), grouped(change.end), difference]
    });
    writeln!(out, "{}", table(&["topic", "partition", "from", "to", "end", ""], &[1, 2, 3, 4], rows.collect()))?;
    out.flush()?;
    output::complain(&if dry_run {
        format!("nothing is changed; without --dry-run group '{group}' goes on as above")
    } else {
        format!("group '{group}' goes on as above")
    });
    Ok(())
}
