//! `tidelog group describe --records`: what is stuck in a queue group, record by record; and `tidelog group skip`.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;
use tidelog::base::{Clock, SystemClock};
use tidelog::client::{Admin, GroupRecord, RecordAt};

use super::failure::Failure;
use super::json::Text;
use super::output::{self, count, grouped, table};

/// Records asked for at a time.
const PAGE: u64 = 1_000;
/// Characters that are shown to people of a key and of a reason.
const KEY_SHOWN: usize = 40;
const ERROR_SHOWN: usize = 80;

/// Prints the records that a queue group has begun with and not done, the first `limit` of them.
pub async fn print(admin: &Admin, group: &str, limit: u64, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    let (mut shown, mut from, mut rows) = (0, None::<RecordAt>, Vec::new());
    while shown < limit {
        let most = u32::try_from(PAGE.min(limit - shown)).unwrap_or(1);
        let (records, next) = admin.group_records(group, from, most).await?;
        shown += records.len() as u64;
        let now = SystemClock::new().wall_ms();
        for record in &records {
            if json {
                output::json_line(&mut out, &as_json(group, record))?;
            } else {
                rows.push(row(record, now));
            }
        }
        from = next;
        if from.is_none() {
            break;
        }
    }
    if json {
        return Ok(out.flush()?);
    }
    if shown == 0 {
        output::complain(&format!("group '{group}' has nothing in hand and nothing that waits"));
        return Ok(());
    }
    let header = ["topic", "partition", "offset", "key", "state", "attempt", "next", "member", "last error"];
    writeln!(out, "{}", table(&header, &[1, 2, 5], rows))?;
    out.flush()?;
    if from.is_some() {
        output::complain(&format!("the first {} are shown; --limit shows more", count(shown, "record")));
    }
    Ok(())
}

/// Says that a queue group is done with a record, and prints what it was.
pub async fn skip(admin: &Admin, group: &str, record: RecordAt, json: bool) -> Result<(), Failure> {
    let was = admin.skip_record(group, record).await?;
    if json {
        return output::json_line(&mut io::stdout(), &as_json(group, &was));
    }
    let RecordAt { topic, partition, offset } = &was.record;
    let key = was.key.as_ref().map(|key| format!(", key {}", short(&String::from_utf8_lossy(key), KEY_SHOWN)));
    let member = was.member.as_ref().map(|member| format!(" of member {member}"));
    let error = was.error.as_deref().map(|error| format!(", last error: {}", short(error, ERROR_SHOWN)));
    output::complain(&format!(
        "group '{group}' has skipped {topic}/{partition} offset {offset}{}: it was {}{}, attempt {}{}",
        key.unwrap_or_default(),
        was.state.replace('_', " "),
        member.unwrap_or_default(),
        was.attempt,
        error.unwrap_or_default(),
    ));
    Ok(())
}

fn as_json(group: &str, of: &GroupRecord) -> serde_json::Value {
    json!({
        "group": group, "topic": of.record.topic, "partition": of.record.partition, "offset": of.record.offset,
        "key": of.key.as_deref().map(Text), "state": of.state, "member": of.member, "client": of.client,
        "attempt": of.attempt, "next": of.next_ms, "error": of.error,
    })
}

fn row(of: &GroupRecord, now: i64) -> Vec<String> {
    let dash = || "-".to_owned();
    let key = of.key.as_ref().map(|key| short(&String::from_utf8_lossy(key), KEY_SHOWN));
    let next = of.next_ms.map(|next| {
        let span = output::seconds(Duration::from_millis(next.saturating_sub(now).max(0).unsigned_abs()));
        match of.state.as_str() {
            "in_hand" => format!("lease ends in {span}"),
            _ => format!("in {span}"),
        }
    });
    let member = of.member.as_ref().map(|id| match &of.client {
        Some(client) => format!("{id} {client}"),
        None => id.clone(),
    });
    vec![
        of.record.topic.clone(),
        of.record.partition.to_string(),
        grouped(of.record.offset),
        key.unwrap_or_else(dash),
        of.state.replace('_', " "),
        of.attempt.to_string(),
        next.unwrap_or_else(dash),
        member.unwrap_or_else(dash),
        of.error.as_deref().map_or_else(dash, |error| short(error, ERROR_SHOWN)),
    ]
}

/// The beginning of a text, in one line.
fn short(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if text.chars().nth(most).is_some() {
        shown.push_str("...");
    }
    shown
}
