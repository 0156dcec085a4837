//! What is stuck in queue groups, and what an operator does about it: between the wire and the broker.

use std::sync::Arc;

use super::groups::{reset_partition, reset_to};
use super::lists::{look, page};
use super::mapping::{Refusal, topic_name};
use super::members::{group_name, joinable};
use super::session::{Answer, Session};
use crate::base::ErrorKind;
use crate::broker::{FilterCounts, GroupRecord, RecordAt, ResetQueue};
use crate::protocol as wire;

/// Bytes of a reason that are told.
const REASON_BYTES: usize = 1024;
/// Partitions of one reset.
const RESET: usize = 1_000;

/// Records that a queue group has begun with and not done.
pub async fn records(
    session: Arc<Session>,
    request: wire::ListGroupRecords,
) -> Result<Answer<wire::ListGroupRecordsOk>, Refusal> {
    let _turn = session.long_answers.acquire().await;
    let name = group_name(&request.group)?;
    let from = request.from.map(record_at).transpose()?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let found = session.shared.broker.group_records(&name, from.as_ref(), limit).await?;
    let records = found.records.into_iter().map(group_record).collect();
    Ok(wire::ListGroupRecordsOk { records, next: found.next.as_ref().map(told) }.into())
}

/// A record is done without a delivery.
pub async fn skip(session: Arc<Session>, request: wire::SkipRecord) -> Result<Answer<wire::SkipRecordOk>, Refusal> {
    let name = group_name(&request.group)?;
    joinable(&name)?;
    let was = session.shared.broker.skip_record(&name, &record_at(request.record)?).await?;
    Ok(wire::SkipRecordOk { was: group_record(was) }.into())
}

/// What a group's filter said.
pub async fn filter(
    session: Arc<Session>,
    request: wire::DescribeFilter,
) -> Result<Answer<wire::DescribeFilterOk>, Refusal> {
    let counts = session.shared.broker.filter_counts(&group_name(&request.group)?).await?;
    let FilterCounts { asked, wanted, unanswered, reason } = counts;
    let reason = reason.map(|reason| reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned());
    Ok(wire::DescribeFilterOk { asked, wanted, unanswered, reason }.into())
}

/// Lets a group go on elsewhere in some of its partitions.
pub async fn reset(
    session: Arc<Session>,
    request: wire::ResetPartitions,
) -> Result<Answer<wire::ResetPartitionsOk>, Refusal> {
    let count = request.partitions.len();
    if !(1..=RESET).contains(&count) {
        let message = format!("a reset of {count} partitions; allowed are 1 to {RESET}");
        return Err(Refusal::new(ErrorKind::InvalidRequest, message));
    }
    let partitions: Result<Vec<_>, Refusal> =
        request.partitions.iter().map(|of| Ok((topic_name(&of.topic)?, of.partition))).collect();
    let reset = ResetQueue {
        group: group_name(&request.name)?,
        topics: Vec::new(),
        partitions: partitions?,
        to: reset_to(request.to),
        dry_run: request.dry_run,
        force: request.force,
    };
    let changed = session.shared.broker.reset_queue(reset).await?;
    Ok(wire::ResetPartitionsOk { partitions: changed.into_iter().map(reset_partition).collect() }.into())
}

/// Lets a group stand still or go on.
pub async fn pause(session: Arc<Session>, request: wire::PauseGroup) -> Result<Answer<wire::PauseGroupOk>, Refusal> {
    let name = group_name(&request.name)?;
    joinable(&name)?;
    let paused = session.shared.broker.pause_group(&name, request.paused).await?;
    Ok(wire::PauseGroupOk { since_ms: paused.since_ms, changed: paused.changed }.into())
}

/// The groups that are paused.
pub async fn paused(
    session: Arc<Session>,
    request: wire::PausedGroups,
) -> Result<Answer<wire::PausedGroupsOk>, Refusal> {
    let of = page(request.prefix, request.after, request.limit);
    let found = look(&session, move |broker| broker.paused_groups(&of)).await?;
    let group =
        |(name, since_ms): (crate::base::GroupName, i64)| wire::PausedGroup { name: name.to_string(), since_ms };
    Ok(wire::PausedGroupsOk { groups: found.lines.into_iter().map(group).collect(), more: found.more }.into())
}

fn group_record(of: GroupRecord) -> wire::GroupRecord {
    wire::GroupRecord {
        record: told(&of.record),
        key: of.key.map(|key| key.to_vec()),
        state: of.state.to_owned(),
        member: of.member.map(|member| member.to_string()),
        client: of.client,
        attempt: of.attempt,
        next_ms: of.next_ms,
        error: of.error,
    }
}

fn record_at(of: wire::RecordAt) -> Result<RecordAt, Refusal> {
    Ok(RecordAt { topic: topic_name(&of.topic)?, partition: of.partition, offset: of.offset })
}

fn told(of: &RecordAt) -> wire::RecordAt {
    wire::RecordAt { topic: of.topic.to_string(), partition: of.partition, offset: of.offset }
}
