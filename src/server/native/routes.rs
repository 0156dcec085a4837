//! Requests about routes, between the wire's types and the broker's.

use std::sync::Arc;
use std::time::Duration;

use super::mapping::{Refusal, topic_name};
use super::session::{Answer, Session};
use crate::broker::{self, Applied, ApplyOptions, ChangeKind, OffsetAt};
use crate::protocol as wire;
use crate::route::{self, Verdict};

/// Lines of a difference that are sent, and outputs and parts of an explanation: an answer must fit a frame.
const LINES: usize = 100;

fn outcome<T>(answer: T) -> Result<Answer<T>, Refusal>
where
    Answer<T>: From<T>,
{
    Ok(answer.into())
}

/// Applies a file.
pub async fn apply(session: Arc<Session>, request: wire::ApplyRoutes) -> Result<Answer<wire::ApplyRoutesOk>, Refusal> {
    let wire::ApplyRoutes { text, dry_run, prune } = request;
    let options = ApplyOptions { text, dry_run, prune };
    let applied = session.shared.broker.apply_routes(options).await?;
    outcome(match applied {
        Applied::Mistakes(mistakes) => {
            let mistake =
                |of: route::Mistake| wire::RouteMistake { line: of.line, column: of.column, message: of.message };
            let mistakes = mistakes.into_iter().take(LINES * 10).map(mistake).collect();
            wire::ApplyRoutesOk { mistakes, changes: Vec::new() }
        }
        Applied::Changes(changes) => {
            wire::ApplyRoutesOk { mistakes: Vec::new(), changes: changes.into_iter().map(change).collect() }
        }
    })
}

fn change(of: broker::Change) -> wire::RouteChange {
    let kind = match of.kind {
        ChangeKind::New => wire::RouteChangeKind::New,
        ChangeKind::Changed => wire::RouteChangeKind::Changed,
        ChangeKind::Unchanged => wire::RouteChangeKind::Unchanged,
        ChangeKind::Removed => wire::RouteChangeKind::Removed,
    };
    let difference = match (&of.before, &of.after) {
        (Some(before), Some(after)) => difference(before, after),
        _ => Vec::new(),
    };
    let from = of.from.into_iter().take(LINES * 10).map(point).collect();
    wire::RouteChange { name: of.name.to_string(), kind, version: of.version, difference, from }
}

fn point(of: broker::StartPoint) -> wire::RoutePoint {
    wire::RoutePoint { topic: of.topic.to_string(), partition: of.partition, offset: of.offset }
}

/// The lines between the first and the last that differ.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (mut old, mut new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    old.drain(..same);
    new.drain(..same);
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    old.truncate(old.len() - behind);
    new.truncate(new.len() - behind);
    let gone = old.into_iter().map(|line| format!("- {line}"));
    gone.chain(new.into_iter().map(|line| format!("+ {line}"))).take(LINES).collect()
}

/// All routes.
pub async fn list(session: Arc<Session>, _: wire::ListRoutes) -> Result<Answer<wire::ListRoutesOk>, Refusal> {
    let routes = session.shared.broker.list_routes();
    outcome(wire::ListRoutesOk { routes: routes.into_iter().map(summary).collect() })
}

fn summary(of: broker::RouteSummary) -> wire::RouteSummary {
    wire::RouteSummary {
        name: of.name.to_string(),
        version: of.version,
        state: of.state.to_owned(),
        from: of.from,
        lag: of.lag,
        failed: of.failed,
    }
}

/// One route.
pub async fn describe(
    session: Arc<Session>,
    request: wire::DescribeRoute,
) -> Result<Answer<wire::DescribeRouteOk>, Refusal> {
    let found = session.shared.broker.describe_route(&topic_name(&request.name)?)?;
    let partition = |of: broker::RoutePartition| wire::RoutePartition {
        topic: of.topic.to_string(),
        partition: of.partition,
        offset: of.offset,
        end: of.end,
        waiting: of.waiting,
        stuck: of.stuck,
        last_error_ms: of.trouble.as_ref().map(|trouble| trouble.at_ms),
        last_error: of.trouble.map(|trouble| trouble.message),
    };
    let destination = |(name, topic, records)| wire::RouteDestination { name, topic, records };
    let route = wire::RouteDescription {
        summary: summary(found.summary),
        definition: found.definition,
        created_ms: found.created_ms,
        changed_ms: found.changed_ms,
        read: found.read,
        unwanted: found.unwanted,
        destinations: found.destinations.into_iter().map(destination).collect(),
        dead_letter: found.dead_letter.to_string(),
        made: found.made.iter().map(ToString::to_string).collect(),
        partitions: found.partitions.into_iter().map(partition).collect(),
    };
    outcome(wire::DescribeRouteOk { route })
}

/// Lets a route stand still, or go on.
pub async fn pause(session: Arc<Session>, request: wire::PauseRoute) -> Result<Answer<wire::PauseRouteOk>, Refusal> {
    session.shared.broker.pause_route(&topic_name(&request.name)?, request.paused).await?;
    outcome(wire::PauseRouteOk {})
}

/// Lets a route go on elsewhere.
pub async fn reset(session: Arc<Session>, request: wire::ResetRoute) -> Result<Answer<wire::ResetRouteOk>, Refusal> {
    let to = match request.to {
        wire::OffsetAt::Beginning => OffsetAt::Beginning,
        wire::OffsetAt::End => OffsetAt::End,
        wire::OffsetAt::Timestamp(time) => OffsetAt::Timestamp(time),
    };
    let from = session.shared.broker.reset_route(&topic_name(&request.name)?, to, request.dry_run).await?;
    let from = from.into_iter().map(|point| {
        let (topic, partition) = (point.topic.to_string(), point.partition);
        wire::ResetPoint { topic, partition, before: point.before, offset: point.offset }
    });
    outcome(wire::ResetRouteOk { from: from.collect() })
}

/// Deletes a route.
pub async fn delete(session: Arc<Session>, request: wire::DeleteRoute) -> Result<Answer<wire::DeleteRouteOk>, Refusal> {
    session.shared.broker.delete_route(&topic_name(&request.name)?).await?;
    outcome(wire::DeleteRouteOk {})
}

/// Says where a record went.
pub async fn explain(
    session: Arc<Session>,
    request: wire::ExplainRecord,
) -> Result<Answer<wire::ExplainRecordOk>, Refusal> {
    let wire::ExplainRecord { topic, partition, offset, wait_ms } = request;
    let wait = Duration::from_millis(u64::from(wait_ms));
    let traces = session.shared.broker.trace_record(&topic_name(&topic)?, partition, offset, wait).await?;
    outcome(wire::ExplainRecordOk { routes: traces.into_iter().map(explained).collect() })
}

fn explained(of: broker::Trace) -> wire::ExplainedRoute {
    let routed = of.explanation.routed;
    let rule = |of: route::RuleVerdict| {
        let (verdict, error) = match of.verdict {
            Verdict::Matched => (wire::RuleVerdict::Matched, None),
            Verdict::NotMatched => (wire::RuleVerdict::NotMatched, None),
            Verdict::NotAsked => (wire::RuleVerdict::NotAsked, None),
            Verdict::Failed(error) => (wire::RuleVerdict::Failed, Some(error)),
        };
        wire::ExplainedRule { rule: of.rule, when: of.condition, verdict, error }
    };
    // However many parts and rules there are, an answer has room for some thousand conditions.
    let mut room = LINES * 10;
    let parts = of.explanation.parts.into_iter().take(LINES).map_while(|part| {
        room = room.checked_sub(part.rules.len())?;
        let number = part.part.map(|(at, count)| format!("{at}/{count}"));
        Some(wire::ExplainedPart { part: number, rules: part.rules.into_iter().map(rule).collect() })
    });
    let parts = parts.collect();
    let more_outputs = routed.outputs.len().saturating_sub(of.places.len()) as u64;
    let outputs = routed.outputs.into_iter().zip(of.rules).zip(of.places);
    let outputs = outputs.map(|((output, rule), (partition, offset))| {
        let part = output.headers.get(route::PART);
        wire::ExplainedOutput {
            rule,
            topic: output.topic.to_string(),
            partition,
            offset,
            key: output.key.map(|key| key.iter().take(1024).copied().collect()),
            part: part.map(|part| String::from_utf8_lossy(part).into_owned()),
        }
    });
    wire::ExplainedRoute {
        route: of.route.to_string(),
        done: of.done,
        aggregated: of.aggregated,
        parts,
        outputs: outputs.collect(),
        more_outputs,
        unwanted: routed.unwanted as u64,
        failure: routed.failure.map(|failure| wire::ExplainedFailure { rule: failure.rule, message: failure.message }),
    }
}
