//! Requests about push subscriptions, between the wire's types and the broker's.

use std::sync::Arc;

use super::mapping::{self, Refusal};
use super::members::{group_name, settings};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicPattern};
use crate::broker::{self, NewPush};
use crate::protocol as wire;
use crate::server::outgoing::Url;

/// What a list may hold: an answer must fit a frame.
const LIST_BYTES: usize = 512 * 1024;
/// Push subscriptions of a list, at most.
const LISTED: u32 = 1000;
/// Characters of an error that are sent.
const ERROR_CHARS: usize = 500;

/// Makes one.
pub async fn create(session: Arc<Session>, request: wire::CreatePush) -> Result<Answer<wire::CreatePushOk>, Refusal> {
    let topics: Result<Vec<_>, _> = request.topics.iter().map(|topic| TopicPattern::new(topic)).collect();
    let url: Url = request.url.parse().map_err(|error: String| Refusal::new(ErrorKind::InvalidRequest, error))?;
    session.shared.calls.judge(&url).map_err(|error| Refusal::new(ErrorKind::InvalidRequest, error))?;
    let new = NewPush {
        name: group_name(&request.name)?,
        topics: topics?,
        filter: request.filter,
        url: url.to_string(),
        batch: request.batch,
        concurrency: request.concurrency,
        timeout_ms: request.timeout_ms,
        rules: request.rules.map(settings).transpose()?,
        start: mapping::offset_at(request.start),
        replace: request.replace,
    };
    let push = session.shared.broker.create_push(new).await?;
    Ok(wire::CreatePushOk { push: description(push) }.into())
}

/// A page of them.
pub async fn list(session: Arc<Session>, request: wire::ListPushes) -> Result<Answer<wire::ListPushesOk>, Refusal> {
    let after = request.after.as_deref().map(group_name).transpose()?;
    let limit = request.limit.clamp(1, LISTED) as usize;
    let (found, more) = session.shared.broker.list_pushes(after, limit).await;
    let (count, mut bytes) = (found.len(), 0);
    // One fits always: what it holds is bounded far below a frame.
    let fits = |push: &wire::PushDescription| {
        let topics: usize = push.topics.iter().map(|topic| topic.len() + 8).sum();
        let filter = push.filter.as_ref().map_or(0, String::len);
        bytes += push.name.len() + push.url.len() + topics + filter + 4 * ERROR_CHARS + 1024;
        bytes <= LIST_BYTES
    };
    let pushes: Vec<_> = found.into_iter().map(description).take_while(fits).collect();
    Ok(wire::ListPushesOk { more: more || pushes.len() < count, pushes }.into())
}

/// One of them.
pub async fn describe(
    session: Arc<Session>,
    request: wire::DescribePush,
) -> Result<Answer<wire::DescribePushOk>, Refusal> {
    let push = session.shared.broker.describe_push(&group_name(&request.name)?).await?;
    Ok(wire::DescribePushOk { push: description(push) }.into())
}

/// Lets one stand still, or go on.
pub async fn pause(session: Arc<Session>, request: wire::PausePush) -> Result<Answer<wire::PausePushOk>, Refusal> {
    let reason = request.paused.then(|| "by request".to_owned());
    let push = session.shared.broker.pause_push(&group_name(&request.name)?, reason).await?;
    Ok(wire::PausePushOk { push: description(push) }.into())
}

/// Deletes one.
pub async fn delete(session: Arc<Session>, request: wire::DeletePush) -> Result<Answer<wire::DeletePushOk>, Refusal> {
    session.shared.broker.delete_push(&group_name(&request.name)?).await?;
    Ok(wire::DeletePushOk {}.into())
}

fn description(of: broker::PushDescription) -> wire::PushDescription {
    let broker::PushDescription { entry, rules, counts, .. } = of;
    let trouble = counts.trouble;
    wire::PushDescription {
        name: entry.name.to_string(),
        topics: of.topics.iter().map(ToString::to_string).collect(),
        filter: of.filter,
        url: entry.url,
        batch: entry.batch,
        concurrency: entry.concurrency,
        timeout_ms: entry.timeout_ms,
        rules: wire::QueueRules {
            lease_ms: rules.lease_ms,
            max_deliveries: rules.max_deliveries,
            backoff_ms: rules.backoff_ms,
            backoff_max_ms: rules.backoff_max_ms,
            dead_letter: rules.dead_letter.map(|topic| topic.to_string()),
            ordered_by_key: rules.ordered_by_key,
        },
        dead_letter: of.dead_letter.map(|topic| topic.to_string()),
        state: of.state.to_owned(),
        paused: entry.paused,
        rests_until_ms: counts.rests_until.filter(|_| of.state == "resting"),
        lag: of.lag,
        in_flight: of.in_flight,
        waiting: of.waiting,
        delivered: counts.delivered,
        retried: counts.retried,
        dead_letters: counts.dead_letters,
        delivered_ms: counts.delivered_ms,
        last_error_ms: trouble.as_ref().map(|trouble| trouble.at_ms),
        last_error: trouble.map(|trouble| trouble.message.chars().take(ERROR_CHARS).collect()),
        created_ms: entry.created_ms,
        changed_ms: entry.changed_ms,
    }
}
