//! Lists page by page.

use std::sync::Arc;

use super::groups::summary;
use super::mapping::{self, Refusal};
use super::session::{Answer, Session};
use crate::base::ErrorKind;
use crate::broker::{self, Broker, PageOf};
use crate::protocol as wire;

pub(super) async fn look<R: Send + 'static>(
    session: &Session,
    look: impl FnOnce(&Arc<Broker>) -> R + Send + 'static,
) -> Result<R, Refusal> {
    // It waits for the journal's lock, which is held during a sync.
    let broker = session.shared.broker.clone();
    let looked = tokio::task::spawn_blocking(move || look(&broker)).await;
    looked.map_err(|error| Refusal::new(ErrorKind::Internal, format!("there is no list: {error}")))
}

pub(super) fn page(prefix: String, after: String, limit: u32) -> PageOf {
    PageOf { prefix, after, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
}

fn count(of: usize) -> u64 {
    of as u64
}

/// A page of the groups; the first one with what all of them take of their limits.
pub async fn groups(
    session: Arc<Session>,
    request: wire::ListGroupPage,
) -> Result<Answer<wire::ListGroupPageOk>, Refusal> {
    let first = request.after.is_empty();
    let of = page(request.prefix, request.after, request.limit);
    let looked = look(&session, move |broker| (broker.group_page(&of), first.then(|| totals(broker)))).await?;
    let line = |line: broker::GroupLine| wire::GroupLine {
        summary: summary(&line.entry),
        members: count(line.members),
        positions: count(line.counts.positions),
        metadata_bytes: count(line.counts.metadata),
        used_ms: line.used_ms,
        made_by: line.made_by.map(|client| client.to_string()),
        lag: line.lag,
        state: line.state.to_owned(),
    };
    let (page, totals) = looked;
    Ok(wire::ListGroupPageOk { groups: page.lines.into_iter().map(line).collect(), more: page.more, totals }.into())
}

fn totals(broker: &Arc<Broker>) -> wire::GroupTotals {
    let (all, (max_groups, most)) = (broker.group_totals(), broker.group_limits());
    wire::GroupTotals {
        groups: count(all.groups),
        max_groups: count(max_groups),
        queue: count(all.queue),
        with_members: count(all.with_members),
        positions: count(all.counts.positions),
        max_positions: count(most.positions),
        metadata_bytes: count(all.counts.metadata),
        max_metadata_bytes: count(most.metadata),
        declared_bytes: count(all.counts.declared),
        max_declared_bytes: count(most.declared),
    }
}

/// A page of the topics; the first one with what all of them take of their limit.
pub async fn topics(
    session: Arc<Session>,
    request: wire::ListTopicPage,
) -> Result<Answer<wire::ListTopicPageOk>, Refusal> {
    let first = request.after.is_empty();
    let of = page(request.prefix, request.after, request.limit);
    let (page, totals) = session
        .computed(move |broker| {
            let totals = first.then(|| {
                let all = broker.topic_totals();
                wire::TopicTotals {
                    topics: count(all.topics),
                    partitions: count(all.partitions),
                    max_partitions: count(broker.partition_limit()),
                }
            });
            (broker.topic_page(&of), totals)
        })
        .await?;
    let line = |line: broker::TopicLine| wire::TopicLine {
        summary: mapping::summary(line.summary),
        records: line.records,
        bytes: line.bytes,
        newest_timestamp: line.newest_timestamp,
        troubled: line.troubled,
    };
    Ok(wire::ListTopicPageOk { topics: page.lines.into_iter().map(line).collect(), more: page.more, totals }.into())
}
