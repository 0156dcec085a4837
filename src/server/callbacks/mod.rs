//! Delivers the outcomes of requests whose callback is a URL: POSTs each until it is taken, refused for good, or its time
//! is over, and then makes a dead letter of it.
//!
//! An endpoint may get a callback twice (the answer, or the note of it, was lost), always with the same `webhook-id`.

mod lanes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::budget::Account;
use super::outgoing::Url;
use super::shared::Shared;
use super::webhooks::{self, OVERHEAD, Said, Webhook, set_record_headers};
use crate::broker::{BrokerError, Post, WebhookSecret, state_name};
use crate::catalog::RequestEntry;
use crate::record::Record;
use lanes::{Became, Lanes, Turn};

/// A callback on its way.
struct Sent {
    endpoint: String,
    turn: Turn<Post>,
    became: Became,
}

/// Runs until the server stops.
pub async fn run(shared: Arc<Shared>, secret: Option<WebhookSecret>) {
    let config = &shared.config;
    let account = shared.outgoing.account(config.max_connection_bytes.as_usize());
    let mut lanes = Lanes::new(config.outgoing_calls, config.outgoing_calls_per_endpoint);
    let mut under_way: JoinSet<Sent> = JoinSet::new();
    let secret = Arc::new(secret);
    loop {
        let now = Instant::now();
        for post in shared.broker.take_posts() {
            // One whose URL is none any more becomes a dead letter like one that nobody takes.
            let endpoint =
                post.url.parse().map_or_else(|_| String::new(), |url: Url| url.endpoint().to_ascii_lowercase());
            lanes.put(&endpoint, post, now);
        }
        while let Some((endpoint, turn)) = lanes.next(now) {
            let (shared, account, secret) = (shared.clone(), account.clone(), secret.clone());
            under_way.spawn(async move {
                let became = send(&shared, &account, secret.as_ref().as_ref(), &turn).await;
                Sent { endpoint, turn, became }
            });
        }
        let next = lanes.next_at();
        tokio::select! {
            () = shared.stopped() => return,
            () = shared.broker.posts_come() => {}
            Some(sent) = under_way.join_next(), if !under_way.is_empty() => match sent {
                Ok(Sent { endpoint, turn, became }) => {
                    lanes.became(&endpoint, turn, &became, fastrand::f64(), Instant::now());
                }
                Err(error) => tracing::error!(%error, "a callback ended without a result; it is sent after a restart"),
            },
            () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// Sends one, and notes what is final.
async fn send(
    shared: &Arc<Shared>,
    account: &Arc<Account>,
    secret: Option<&WebhookSecret>,
    turn: &Turn<Post>,
) -> Became {
    let post = &turn.what;
    match attempt(shared, account, secret, post).await {
        Ok(Attempt::Taken) => noted(shared.broker.posted(post)),
        Ok(Attempt::GiveUp(reason)) => give_up(shared, post, reason).await,
        Ok(Attempt::NoTurn) => Became::NoTurn,
        Ok(Attempt::Again { reason, became }) => {
            let finished = post.entry.outcome.as_ref().map_or(0, |outcome| outcome.finished_ms);
            let age = u64::try_from(shared.clock.now_ms().saturating_sub(finished)).unwrap_or(0);
            let limit = shared.config.callback_give_up_after;
            if age >= limit.0 {
                return give_up(shared, post, format!("{reason}; tried for {limit}, {} times", turn.tries + 1)).await;
            }
            tracing::info!(request = %post.entry.id, url = post.url, tries = turn.tries + 1, reason, "callback not delivered yet");
            became
        }
        Err(error) => {
            tracing::warn!(request = %post.entry.id, %error, "the reply cannot be read; its callback is tried again");
            Became::NoTurn
        }
    }
}

async fn give_up(shared: &Arc<Shared>, post: &Post, reason: String) -> Became {
    tracing::warn!(request = %post.entry.id, url = post.url, reason, "callback given up; it becomes a dead letter");
    noted(shared.broker.give_up_post(post, reason).await)
}

/// What could not be noted is done again.
fn noted(result: Result<(), BrokerError>) -> Became {
    match result {
        Ok(()) => Became::Over,
        Err(error) => {
            tracing::warn!(%error, "what became of a callback cannot be noted; trying again");
            Became::NoTurn
        }
    }
}

enum Attempt {
    Taken,
    GiveUp(String),
    NoTurn,
    Again { reason: String, became: Became },
}

async fn attempt(
    shared: &Shared,
    account: &Arc<Account>,
    secret: Option<&WebhookSecret>,
    post: &Post,
) -> Result<Attempt, BrokerError> {
    let url: Url = match post.url.parse() {
        Ok(url) => url,
        Err(reason) => return Ok(Attempt::GiveUp(reason)),
    };
    let Some(record) = shared.broker.record_to_post(post).await? else {
        return Ok(Attempt::GiveUp("the reply is gone: its retention is over".to_owned()));
    };
    let body = record.value.clone().unwrap_or_default();
    let _grant = account.take(body.len() + OVERHEAD).await;
    let headers = headers(&post.entry, &record, &body, shared.clock.now_ms(), secret);
    Ok(match webhooks::post(&shared.calls, url, headers, body, shared.calls.timeout()).await {
        Said::Taken => Attempt::Taken,
        Said::Gone(reason) => Attempt::GiveUp(reason),
        Said::Refused(reason, retry_after) => Attempt::Again { reason, became: Became::Refused(retry_after) },
        Said::Silent(reason) | Said::Unreachable(reason) => Attempt::Again { reason, became: Became::Silent },
        Said::NoTurn => Attempt::NoTurn,
    })
}

/// The headers of a callback: those of every webhook, and the record's own.
fn headers(
    entry: &RequestEntry,
    record: &Record,
    body: &Bytes,
    now_ms: i64,
    secret: Option<&WebhookSecret>,
) -> HeaderMap {
    let topic = entry.steps.get(entry.step as usize).map_or_else(String::new, ToString::to_string);
    let webhook = Webhook {
        id: entry.id.as_str(),
        source: &format!("/topics/{topic}"),
        kind: &format!("tidelog.request.{}", state_name(entry)),
        time_ms: entry.outcome.as_ref().map_or(now_ms, |outcome| outcome.finished_ms),
        content_type: "application/octet-stream",
    };
    let mut headers = webhook.headers(body, now_ms, secret);
    set_record_headers(&mut headers, &record.headers);
    headers
}
