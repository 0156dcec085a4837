//! Groups from outside: what there is, what they are defined as, how far they are.

use std::sync::Arc;

use super::mapping::{self, Refusal};
use super::members::{group_name, joinable, patterns, settings};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicName};
use crate::broker::{self, AlterGroup, NewGroup, OffsetAt, ResetQueue, ResetTo, RulesChange};
use crate::catalog::{GroupEntry, GroupKind};
use crate::protocol as wire;

/// All groups.
pub async fn list(session: Arc<Session>, _: wire::ListGroups) -> Result<Answer<wire::ListGroupsOk>, Refusal> {
    // It waits for the journal's lock, which is held during a sync.
    let broker = session.shared.broker.clone();
    let groups = tokio::task::spawn_blocking(move || broker.list_groups().iter().map(summary).collect());
    let failed = |error| Refusal::new(ErrorKind::Internal, format!("the groups cannot be listed: {error}"));
    Ok(wire::ListGroupsOk { groups: groups.await.map_err(failed)? }.into())
}

/// One group.
pub async fn describe(session: Arc<Session>, request: wire::DescribeGroup) -> Result<Answer<wire::GroupOk>, Refusal> {
    let group = session.shared.broker.describe_group(&group_name(&request.name)?).await?;
    let partition = |of: broker::GroupPartition| wire::GroupPartition {
        topic: of.topic.to_string(),
        partition: of.partition,
        floor: of.floor,
        end: of.end,
        lag: of.lag,
        in_flight: of.in_flight,
        waiting: of.waiting,
        redeliveries: of.redeliveries,
        oldest_ms: of.oldest_ms,
        owner: of.owner,
        trouble: of.trouble,
    };
    let member = |of: broker::GroupMember| wire::GroupMember {
        id: of.id,
        client: of.client,
        in_flight: of.in_flight,
        owns: of.owns.into_iter().map(|(topic, partition)| owned(&topic, partition)).collect(),
        joined_ms: of.joined_ms,
        heard_ms: of.heard_ms,
    };
    let group = wire::GroupDescription {
        summary: summary(&group.entry),
        rules: rules_of(&group.entry),
        dead_letter: group.dead_letter.map(|topic| topic.to_string()),
        members: group.members.into_iter().map(member).collect(),
        partitions: group.partitions.into_iter().map(partition).collect(),
    };
    Ok(wire::GroupOk { group }.into())
}

/// Makes a group without a member.
pub async fn create(session: Arc<Session>, request: wire::CreateGroup) -> Result<Answer<wire::CreateGroupOk>, Refusal> {
    let name = group_name(&request.name)?;
    joinable(&name)?;
    let kind = request.rules.map(settings).transpose()?.map_or(GroupKind::Stream, GroupKind::Queue);
    let (topics, start) = (patterns(&request.topics)?, mapping::offset_at(request.start));
    let new = NewGroup { name, kind, topics, filter: request.filter, start };
    let created = session.shared.broker.create_group(new).await?;
    Ok(wire::CreateGroupOk { created }.into())
}

/// Changes what a group is defined as.
pub async fn alter(session: Arc<Session>, request: wire::AlterGroup) -> Result<Answer<wire::AlterGroupOk>, Refusal> {
    let name = group_name(&request.name)?;
    joinable(&name)?;
    if request.filter.is_some() && request.no_filter {
        return Err(Refusal::new(ErrorKind::InvalidRequest, "a filter, and none"));
    }
    let dead_letter = match request.dead_letter.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(topic) => Some(Some(TopicName::new(topic)?)),
    };
    let rules = RulesChange {
        lease_ms: request.lease_ms,
        max_deliveries: request.max_deliveries,
        backoff_ms: request.backoff_ms,
        backoff_max_ms: request.backoff_max_ms,
        dead_letter,
        ordered_by_key: request.ordered_by_key,
    };
    let (topics, start) = (patterns(&request.topics)?, mapping::offset_at(request.start));
    let filter = request.filter.map(Some).or(request.no_filter.then_some(None));
    let entry = session.shared.broker.alter_group(AlterGroup { name, topics, filter, rules, start }).await?;
    Ok(wire::AlterGroupOk { summary: summary(&entry), rules: rules_of(&entry) }.into())
}

/// Deletes a group.
pub async fn delete(session: Arc<Session>, request: wire::DeleteGroup) -> Result<Answer<wire::DeleteGroupOk>, Refusal> {
    session.shared.broker.delete_group(&group_name(&request.name)?, request.force).await?;
    Ok(wire::DeleteGroupOk {}.into())
}

/// Lets a group go on elsewhere.
pub async fn reset(session: Arc<Session>, request: wire::ResetGroup) -> Result<Answer<wire::ResetGroupOk>, Refusal> {
    let reset = ResetQueue {
        group: group_name(&request.name)?,
        topics: patterns(&request.topics)?,
        partitions: Vec::new(),
        to: reset_to(request.to),
        dry_run: request.dry_run,
        force: request.force,
    };
    let partitions = session.shared.broker.reset_queue(reset).await?;
    Ok(wire::ResetGroupOk { partitions: partitions.into_iter().map(reset_partition).collect() }.into())
}

/// Where a group is to go on.
pub fn reset_to(to: wire::ResetTo) -> ResetTo {
    match to {
        wire::ResetTo::Beginning => ResetTo::At(OffsetAt::Beginning),
        wire::ResetTo::End => ResetTo::At(OffsetAt::End),
        wire::ResetTo::Timestamp(time) => ResetTo::At(OffsetAt::Timestamp(time)),
        wire::ResetTo::Offset(offset) => ResetTo::Offset(offset),
        wire::ResetTo::Last(offsets) => ResetTo::Last(offsets),
    }
}

/// What a reset does in a partition.
pub fn reset_partition(of: broker::ResetPartition) -> wire::ResetPartition {
    wire::ResetPartition { topic: of.topic.to_string(), partition: of.partition, from: of.from, to: of.to, end: of.end }
}

fn owned(topic: &TopicName, partition: u32) -> wire::TopicPartition {
    wire::TopicPartition { topic: topic.to_string(), partition }
}

/// A group in a list.
pub fn summary(of: &GroupEntry) -> wire::GroupSummary {
    wire::GroupSummary {
        name: of.name.to_string(),
        kind: if matches!(of.kind, GroupKind::Stream) { "stream" } else { "queue" }.to_owned(),
        topics: of.topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
        filter: of.filter.clone(),
        created_ms: of.created_ms,
    }
}

fn rules_of(entry: &GroupEntry) -> Option<wire::QueueRules> {
    let GroupKind::Queue(rules) = &entry.kind else { return None };
    Some(wire::QueueRules {
        lease_ms: rules.lease_ms,
        max_deliveries: rules.max_deliveries,
        backoff_ms: rules.backoff_ms,
        backoff_max_ms: rules.backoff_max_ms,
        dead_letter: rules.dead_letter.as_ref().map(ToString::to_string),
        ordered_by_key: rules.ordered_by_key,
    })
}
