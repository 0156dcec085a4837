//! Requests about push subscriptions, between the wire's types and the broker's.

use std::sync::Arc;

use super::mapping::{self, Refusal};
use super::members::{group_name, patterns, settings};
use super::session::{Answer, Session};
use crate::base::{ErrorKind, TopicName, limits};
use crate::broker::{self, AlterPush, EndpointChange, NewPush, RulesChange, SecretChange, WebhookSecret};
use crate::catalog::{Hidden, PushEntry};
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
    let push = make(&session, request, EndpointChange::default()).await?;
    Ok(wire::CreatePushOk { push: description(push) }.into())
}

/// Makes one whose endpoint gets more than records.
pub async fn create_with(
    session: Arc<Session>,
    request: wire::CreatePushWith,
) -> Result<Answer<wire::CreatePushWithOk>, Refusal> {
    let endpoint = EndpointChange {
        drop_all: request.headers.is_some(),
        drop: Vec::new(),
        set: request.headers.unwrap_or_default().into_iter().map(header).collect(),
        secret: request.secret.map(secret).transpose()?,
    };
    let push = make(&session, request.push, endpoint).await?;
    let endpoint = endpoint_of(&session, &push.entry);
    Ok(wire::CreatePushWithOk { push: description(push), endpoint }.into())
}

async fn make(
    session: &Arc<Session>,
    request: wire::CreatePush,
    endpoint: EndpointChange,
) -> Result<broker::PushDescription, Refusal> {
    let new = NewPush {
        name: group_name(&request.name)?,
        topics: patterns(&request.topics)?,
        filter: request.filter,
        url: url(session, &request.url)?,
        batch: request.batch,
        concurrency: request.concurrency,
        timeout_ms: request.timeout_ms,
        rules: request.rules.map(settings).transpose()?,
        start: mapping::offset_at(request.start),
        replace: request.replace,
        endpoint,
    };
    Ok(session.shared.broker.create_push(new).await?)
}

/// Changes one.
pub async fn alter(session: Arc<Session>, request: wire::AlterPush) -> Result<Answer<wire::AlterPushOk>, Refusal> {
    if request.filter.is_some() && request.no_filter {
        return Err(Refusal::new(ErrorKind::InvalidRequest, "a filter, and none"));
    }
    let dead_letter = match request.dead_letter.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(topic) => Some(Some(TopicName::new(topic)?)),
    };
    let change = AlterPush {
        name: group_name(&request.name)?,
        topics: patterns(&request.topics)?,
        filter: request.filter.map(Some).or(request.no_filter.then_some(None)),
        url: request.url.map(|text| url(&session, &text)).transpose()?,
        batch: request.batch.map(|most| (most > 0).then_some(most)),
        concurrency: request.concurrency,
        timeout_ms: request.timeout_ms.map(|ms| (ms > 0).then_some(ms)),
        rules: RulesChange {
            lease_ms: request.lease_ms,
            max_deliveries: request.max_deliveries,
            backoff_ms: request.backoff_ms,
            backoff_max_ms: request.backoff_max_ms,
            dead_letter,
            ordered_by_key: request.ordered_by_key,
        },
        start: mapping::offset_at(request.start),
        endpoint: EndpointChange {
            drop_all: request.drop_headers,
            drop: request.drop,
            set: request.headers.into_iter().map(header).collect(),
            secret: request.secret.map(secret).transpose()?,
        },
    };
    let push = session.shared.broker.alter_push(change).await?;
    let endpoint = endpoint_of(&session, &push.entry);
    Ok(wire::AlterPushOk { push: description(push), endpoint }.into())
}

/// What endpoints get.
pub async fn endpoints(
    session: Arc<Session>,
    request: wire::DescribeEndpoints,
) -> Result<Answer<wire::DescribeEndpointsOk>, Refusal> {
    let all = session.shared.broker.pushes();
    let (mut endpoints, mut bytes, mut seen) = (Vec::new(), 0, 0);
    for name in &request.names {
        let found = all.binary_search_by(|push| push.name.as_str().cmp(name)).ok().and_then(|at| all.get(at));
        if let Some(push) = found {
            let endpoint = endpoint_of(&session, push);
            // One fits always.
            bytes += limits::GROUP_NAME_CHARS + 64 + endpoint.headers.iter().map(|name| name.len() + 8).sum::<usize>();
            if bytes > LIST_BYTES {
                break;
            }
            endpoints.push(endpoint);
        }
        seen += 1;
    }
    Ok(wire::DescribeEndpointsOk { endpoints, seen }.into())
}

/// A URL that may be called.
fn url(session: &Session, text: &str) -> Result<String, Refusal> {
    let refused = |error: String| Refusal::new(ErrorKind::InvalidRequest, error);
    let url: Url = text.parse().map_err(refused)?;
    session.shared.calls.judge(&url).map_err(refused)?;
    Ok(url.to_string())
}

fn header(of: wire::PushHeader) -> (String, Hidden) {
    (of.name, Hidden::new(of.value))
}

fn secret(of: wire::PushSecret) -> Result<SecretChange, Refusal> {
    let wrong = |error: broker::SecretError| Refusal::new(ErrorKind::InvalidRequest, error.to_string());
    let own = Some(of.secret.as_str()).filter(|text| !text.is_empty());
    let secret = own.map(WebhookSecret::parse).transpose().map_err(wrong)?;
    Ok(SecretChange { secret, keep_old_ms: of.keep_old_ms })
}

fn endpoint_of(session: &Session, push: &PushEntry) -> wire::PushEndpoint {
    let (clock, endpoint) = (&session.shared.clock, &push.endpoint);
    let old = endpoint.old.as_ref().filter(|old| !broker::secret_is_over(old, clock));
    wire::PushEndpoint {
        push: push.name.to_string(),
        headers: endpoint.headers.iter().map(|header| header.name.clone()).collect(),
        own_secret: endpoint.secret.is_some(),
        signed: !broker::signing_secrets(endpoint, &session.shared.secrets, clock).is_empty(),
        old_secret_until_ms: old.map(|old| old.until_ms),
    }
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
