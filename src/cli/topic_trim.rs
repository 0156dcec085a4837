//! `tidelog topic trim`: deletes the oldest records of a topic.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tidelog::base::{Clock, SystemClock, TopicName};
use tidelog::client::{Admin, OffsetAt};

use super::failure::Failure;
use super::output::{self, count, grouped, table};
use super::position::{Until, parse_to};

/// Options of `topic trim`.
#[derive(Debug, Args)]
pub struct TrimArgs {
    /// Its name
    topic: TopicName,
    /// Delete the records before it: offset:N, time:2026-01-31T08:00:00Z, ago:30d, or end for all there are
    #[arg(long, value_name = "POSITION", value_parser = parse_to)]
    before: Until,
    /// Only in this partition; in all, if not given
    #[arg(long, short)]
    partition: Option<u32>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What is to be deleted of a partition: from its first offset to the one that is to be the first.
struct Cut {
    partition: u32,
    from: u64,
    to: u64,
}

/// Runs `topic trim`.
pub async fn run(admin: &Admin, args: TrimArgs, json: bool) -> Result<(), Failure> {
    let topic = args.topic.as_str();
    let described = admin.describe_topic(topic).await?;
    if let Some(wanted) = args.partition
        && described.partitions.iter().all(|partition| partition.partition != wanted)
    {
        let there = count(described.partitions.len() as u64, "partition");
        return Err(Failure::failed(format!("topic '{topic}' has {there} and no partition {wanted}")));
    }
    let now = SystemClock::new().wall_ms();
    let mut cuts = Vec::new();
    for partition in described.partitions {
        let number = partition.partition;
        if args.partition.is_some_and(|wanted| wanted != number) {
            continue;
        }
        let (from, end) = (partition.log_start, partition.stable_end);
        let at = match args.before {
            Until::End => Some(end),
            Until::Offset(offset) => Some(offset),
            Until::Time(time) => first_at(admin, topic, number, time).await?,
            Until::Ago(span) => first_at(admin, topic, number, now.saturating_sub(span.as_i64())).await?,
        };
        // None is so new: all there are.
        let to = at.unwrap_or(end).clamp(from, end);
        cuts.push(Cut { partition: number, from, to });
    }
    let all: u64 = cuts.iter().map(|cut| cut.to - cut.from).sum();
    if !args.dry_run && !args.yes && all > 0 {
        let records = count(all, "record");
        output::confirm(
            &format!("Delete {records} of topic '{topic}'?"),
            &format!("that deletes {records} of '{topic}'; say --yes, or see --dry-run"),
            "nothing is deleted",
        )?;
    }
    let mut out = output::stdout();
    let mut rows = Vec::new();
    for cut in &cuts {
        let mut start = cut.to;
        if !args.dry_run && cut.to > cut.from {
            start = admin.delete_records(topic, cut.partition, Some(cut.to)).await?;
        }
        if json {
            output::json_line(
                &mut out,
                &json!({
                    "topic": topic, "partition": cut.partition, "from": cut.from, "log_start": start,
                    "records": cut.to - cut.from, "done": !args.dry_run,
                }),
            )?;
        } else {
            rows.push(vec![
                cut.partition.to_string(),
                grouped(cut.to - cut.from),
                cut.from.to_string(),
                start.to_string(),
            ]);
        }
    }
    if !json {
        writeln!(out, "{}", table(&["partition", "records", "from", "new_start"], &[0, 1, 2, 3], rows))?;
    }
    out.flush()?;
    let records = count(all, "record");
    output::complain(&match args.dry_run {
        true => format!("{records} would be deleted; nothing was (--dry-run)"),
        false => format!("{records} deleted"),
    });
    Ok(())
}

/// The first offset of a record with this time or a later one, if there is one.
async fn first_at(admin: &Admin, topic: &str, partition: u32, time: i64) -> Result<Option<u64>, Failure> {
    let (offset, timestamp) = admin.list_offsets(topic, partition, OffsetAt::Timestamp(time)).await?;
    Ok((timestamp != -1).then_some(offset))
}
