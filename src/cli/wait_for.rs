//! `--wait-for` of `tidelog produce`: what becomes of records in a group.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt;
use tidelog::base::{ErrorKind, Millis, TopicName, TopicPattern};
use tidelog::client::{Client, ReceiptOutcome, RecordAt};

use super::failure::{Failure, Status};
use super::output::{self, count, grouped};
use super::progress::{Progress, Unit};

/// Records waited for at a time.
const WAITED_FOR: usize = 10_000;

/// How long nothing is said.
const SILENCE: Duration = Duration::from_secs(2);

/// Looks, before anything is sent, whether a group can ever process records of a topic. That there is no such group yet is said.
///
/// # Errors
/// It does not read the topic; the server's.
pub async fn check(client: &Client, group: &str, topic: &TopicName) -> Result<(), Failure> {
    let described = match client.admin().describe_group(group).await {
        Ok(described) => described,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            output::complain(&format!(
                "there is no group '{group}' yet; its first member or 'tidelog group create' makes it"
            ));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let topics = &described.summary.topics;
    let is_wanted = topics.iter().filter_map(|of| TopicPattern::new(of).ok()).any(|pattern| pattern.matches(topic));
    let is_own = described.dead_letter.as_deref() == Some(topic.as_str());
    let is_read = described.partitions.iter().any(|at| at.topic == topic.as_str());
    // The topics of a group that only Kafka's clients have used are its members' affair.
    let may_be = described.summary.kind == "stream" && topics.is_empty();
    if is_wanted && !is_own || is_read || may_be {
        return Ok(());
    }
    let topics = topics.join(" ");
    Err(Failure::Failed(format!("group '{group}' does not read topic '{topic}', but {topics}; nothing was sent")))
}

/// Waits for what becomes of the records in a group.
pub async fn run(
    client: &Client,
    group: &str,
    records: Vec<RecordAt>,
    timeout: Option<Millis>,
    json: bool,
    quiet: bool,
) -> Result<(), Failure> {
    let total = records.len() as u64;
    let mut progress = Progress::new(Unit::Records, Some(total), "waiting for the group");
    let topics: BTreeSet<String> = records.iter().map(|record| record.topic.to_string()).collect();
    let mut out = output::stdout();
    let (mut done, mut others) = (0, BTreeMap::new());
    let mut outcomes = futures_util::stream::iter(records)
        .map(async |record| (client.processed(group, record.clone()).await, record))
        .buffer_unordered(WAITED_FOR);
    let wait = async {
        while let Some((outcome, record)) = outcomes.next().await {
            let name = match outcome? {
                ReceiptOutcome::Acked => "acked",
                ReceiptOutcome::DeadLettered => "dead_lettered",
                ReceiptOutcome::NotWanted => "not_wanted",
                ReceiptOutcome::Expired => "expired",
                ReceiptOutcome::Deleted => "deleted",
                ReceiptOutcome::Skipped => "skipped",
            };
            if json {
                let (topic, partition, offset) = (record.topic, record.partition, record.offset);
                let line = serde_json::json!({
                    "topic": topic, "partition": partition, "offset": offset, "group": group, "outcome": name,
                });
                output::json_line(&mut out, &line)?;
            }
            progress.advance(1);
            done += 1;
            if name != "acked" {
                *others.entry(name).or_insert(0u64) += 1;
            }
        }
        Ok::<(), Failure>(())
    };
    // Who has to wait is told for what.
    let wait = async {
        tokio::pin!(wait);
        tokio::select! {
            waited = &mut wait => return waited,
            () = tokio::time::sleep(SILENCE) => {}
        }
        if !quiet {
            let why = why_it_waits(client, group, &topics).await;
            output::complain(&format!("waiting until group '{group}' has done {}{why}", count(total, "record")));
        }
        wait.await
    };
    let waited = match timeout {
        Some(limit) => tokio::time::timeout(limit.as_duration(), wait).await,
        None => Ok(wait.await),
    };
    drop(outcomes);
    progress.finish();
    out.flush()?;
    match waited {
        Err(_) => {
            let left = count(total - done, "record");
            let timeout = timeout.unwrap_or(Millis(0));
            let message = format!("group '{group}' has not done {left} of {} within {timeout}", grouped(total));
            return Err(Failure::As(Status::TimedOut, message));
        }
        Ok(outcome) => outcome?,
    }
    if others.is_empty() {
        if !quiet {
            output::complain(&format!("group '{group}' has acked {}", count(total, "record")));
        }
        return Ok(());
    }
    let others: Vec<String> = others.iter().map(|(name, times)| format!("{} {name}", grouped(*times))).collect();
    let message = format!("group '{group}' has not acked all of {}: {}", count(total, "record"), others.join(", "));
    Err(Failure::As(Status::Refused, message))
}

/// What keeps a group from doing records of these topics, if that is plain.
async fn why_it_waits(client: &Client, group: &str, topics: &BTreeSet<String>) -> String {
    match client.admin().describe_group(group).await {
        Ok(described) => {
            let mut others = topics.iter().filter(|topic| described.partitions.iter().all(|at| at.topic != **topic));
            match others.next() {
                Some(topic) => format!("; it does not read topic '{topic}'"),
                None if described.members.is_empty() => "; it has no members now".to_owned(),
                None => String::new(),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => "; there is no such group yet".to_owned(),
        Err(_) => String::new(),
    }
}
