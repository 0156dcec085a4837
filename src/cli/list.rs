//! `tidelog group list` and `tidelog topic list`: page by page, so that a hundred thousand lines begin at once, and what all
//! of them take of the server's limits.

use std::collections::HashMap;
use std::io::Write;

use clap::Args;
use serde_json::json;
use tidelog::client::{Admin, GroupLine, GroupTotals, TopicLine, TopicTotals};

use super::failure::Failure;
use super::output::{self, grouped, rfc3339, table};

/// Lines that are asked for at a time.
const PAGE: u32 = 1_000;

/// Options of lists.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only names that begin with it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// At most so many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Only how many there are, and what they take of the server's limits
    #[arg(long, conflicts_with_all = ["prefix", "limit"])]
    summary: bool,
}

impl ListArgs {
    /// How many lines the next page may have, when there are so many; `None` if there are enough.
    fn next(&self, there: usize) -> Option<u32> {
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        let left = self.limit.map_or(PAGE, |limit| limit.saturating_sub(there));
        (left > 0).then_some(left.min(PAGE))
    }
}

/// Lists the groups.
pub async fn groups(admin: &Admin, args: &ListArgs, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if args.summary {
        let totals = admin.group_page("", "", 1).await?.totals.unwrap_or_default();
        if json {
            output::json_line(&mut out, &group_totals_json(&totals))?;
        } else {
            writeln!(out, "{}", group_totals(&totals))?;
        }
        return Ok(out.flush()?);
    }
    let paused = if json { admin.paused_groups(&args.prefix).await? } else { Vec::new() };
    let paused: HashMap<String, i64> = paused.into_iter().map(|of| (of.name, of.since_ms)).collect();
    let (mut count, mut after, mut totals, mut rows) = (0, String::new(), None, Vec::new());
    while let Some(limit) = args.next(count) {
        let page = admin.group_page(&args.prefix, &after, limit).await?;
        totals = totals.or(page.totals);
        count += page.groups.len();
        if let Some(last) = page.groups.last() {
            after.clone_from(&last.summary.name);
        }
        for group in page.groups {
            if json {
                let paused = paused.get(&group.summary.name).copied();
                output::json_line(&mut out, &group_json(&group, paused))?;
            } else {
                rows.push(group_row(group));
            }
        }
        if !page.more {
            break;
        }
    }
    if json {
        return Ok(out.flush()?);
    }
    if totals.is_none_or(|totals| totals.groups == 0) {
        output::complain("there is no group yet; its first member makes one: tidelog consume TOPIC --group NAME");
        return Ok(());
    }
    let header = ["group", "kind", "state", "members", "lag", "used", "topics", "filter", "positions", "made by"];
    writeln!(out, "{}", table(&header, &[3, 4, 8], rows))?;
    out.flush()?;
    if let Some(totals) = totals {
        output::complain(&format!("{} shown; {}", grouped(count as u64), group_totals(&totals)));
    }
    Ok(())
}

fn group_row(group: GroupLine) -> Vec<String> {
    let dash = || "-".to_owned();
    let topics = group.summary.topics.join(" ");
    vec![
        group.summary.name,
        group.summary.kind,
        group.state,
        group.members.to_string(),
        grouped(group.lag),
        rfc3339(group.used_ms),
        if topics.is_empty() { dash() } else { topics },
        group.summary.filter.unwrap_or_else(dash),
        group.positions.to_string(),
        group.made_by.unwrap_or_else(dash),
    ]
}

fn group_json(group: &GroupLine, paused: Option<i64>) -> serde_json::Value {
    json!({
        "group": group.summary.name, "kind": group.summary.kind, "topics": group.summary.topics,
        "filter": group.summary.filter, "created": group.summary.created_ms, "members": group.members,
        "positions": group.positions, "metadata_bytes": group.metadata_bytes, "used": group.used_ms,
        "made_by": group.made_by, "paused": paused, "lag": group.lag, "state": group.state,
    })
}

fn group_totals(of: &GroupTotals) -> String {
    format!(
        "{} of at most {} groups: {} queue and {} stream groups, {} with members; {} of at most {} positions, {} of {} \
         metadata, {} of {} declarations",
        grouped(of.groups),
        grouped(of.max_groups),
        grouped(of.queue),
        grouped(of.groups.saturating_sub(of.queue)),
        grouped(of.with_members),
        grouped(of.positions),
        grouped(of.max_positions),
        output::size(of.metadata_bytes),
        output::size(of.max_metadata_bytes),
        output::size(of.declared_bytes),
        output::size(of.max_declared_bytes),
    )
}

fn group_totals_json(of: &GroupTotals) -> serde_json::Value {
    json!({
        "groups": of.groups, "max_groups": of.max_groups, "queue": of.queue, "with_members": of.with_members,
        "positions": of.positions, "max_positions": of.max_positions, "metadata_bytes": of.metadata_bytes,
        "max_metadata_bytes": of.max_metadata_bytes, "declared_bytes": of.declared_bytes,
        "max_declared_bytes": of.max_declared_bytes,
    })
}

/// Lists the topics.
pub async fn topics(admin: &Admin, args: &ListArgs, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if args.summary {
        let totals = admin.topic_page("", "", 1).await?.totals.unwrap_or_default();
        let TopicTotals { topics, partitions, max_partitions } = totals;
        if json {
            let line = json!({ "topics": topics, "partitions": partitions, "max_partitions": max_partitions });
            output::json_line(&mut out, &line)?;
        } else {
            writeln!(out, "{}", topic_totals(&totals))?;
        }
        return Ok(out.flush()?);
    }
    let (mut count, mut after, mut totals, mut rows) = (0, String::new(), None, Vec::new());
    while let Some(limit) = args.next(count) {
        let page = admin.topic_page(&args.prefix, &after, limit).await?;
        totals = totals.or(page.totals);
        count += page.topics.len();
        if let Some(last) = page.topics.last() {
            after.clone_from(&last.summary.name);
        }
        for topic in page.topics {
            let TopicLine { summary, records, bytes, newest_timestamp, troubled } = topic;
            if json {
                let line = json!({
                    "topic": summary.name, "id": summary.id, "partitions": summary.partitions, "records": records,
                    "bytes": bytes, "newest_timestamp": newest_timestamp, "troubled_partitions": troubled,
                });
                output::json_line(&mut out, &line)?;
            } else {
                rows.push(vec![
                    summary.name,
                    summary.partitions.to_string(),
                    grouped(records),
                    output::size(bytes),
                    rfc3339(newest_timestamp),
                    if troubled == 0 { "ok".to_owned() } else { format!("trouble in {troubled}") },
                ]);
            }
        }
        if !page.more {
            break;
        }
    }
    if json {
        return Ok(out.flush()?);
    }
    if totals.is_none_or(|totals| totals.topics == 0) {
        output::complain("there is no topic yet; 'tidelog topic create' or the first produce makes one");
        return Ok(());
    }
    writeln!(out, "{}", table(&["topic", "partitions", "records", "size", "newest", "state"], &[1, 2, 3], rows))?;
    out.flush()?;
    if let Some(totals) = totals {
        output::complain(&format!("{} shown; {}", grouped(count as u64), topic_totals(&totals)));
    }
    Ok(())
}

fn topic_totals(of: &TopicTotals) -> String {
    format!(
        "{} topics with {} of at most {} partitions",
        grouped(of.topics),
        grouped(of.partitions),
        grouped(of.max_partitions)
    )
}
