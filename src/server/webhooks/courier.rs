//! POSTs news until the endpoint takes them, refuses them for good, or their time is over and they are given up.
//!
//! An endpoint may get the same news twice (the answer, or the note of it, was lost), always with the same `webhook-id`.
//! What is tried when is in memory only: after a restart it begins anew.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lanes::{Became, Lanes, Turn};
use super::{OVERHEAD, Said};
use crate::base::TimestampMs;
use crate::broker::{Broker, BrokerError, WebhookSecrets};
use crate::server::budget::Account;
use crate::server::budget::Holder;
use crate::server::outgoing::Url;
use crate::server::shared::Shared;

/// Something of which the broker says that it is to be POSTed.
pub trait News: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// What it is, for people.
    const WHAT: &'static str;

    /// Why it is given up when there is no content.
    const GONE: &'static str;

    /// What of it is not in memory all the time.
    type Content: Send + Sync;

    /// What is to be sent from now on; each is named once.
    fn take(broker: &Broker) -> Vec<Self>;

    /// Returns when there may be more.
    fn come(broker: &Broker) -> impl Future<Output = ()> + Send;

    /// Which it is, for people.
    fn name(&self) -> String;

    /// Where to.
    fn url(&self) -> &str;

    /// When it became news.
    fn since_ms(&self) -> TimestampMs;

    /// Reads the rest of it; `None` if that is gone.
    fn content(&self, broker: &Broker) -> impl Future<Output = Result<Option<Self::Content>, BrokerError>> + Send;

    /// The body of the call.
    fn body(&self, content: &Self::Content) -> Bytes;

    /// The headers of the call.
    fn headers(
        &self,
        content: &Self::Content,
        body: &Bytes,
        now_ms: TimestampMs,
        secrets: &WebhookSecrets,
    ) -> HeaderMap;

    /// It could not be delivered, and is tried again.
    fn not_yet(&self, _broker: &Broker, _reason: &str) {}

    /// Its endpoint has it.
    ///
    /// # Errors
    /// That cannot be noted: it is sent again.
    fn delivered(&self, broker: &Broker) -> Result<(), BrokerError>;

    /// It is not sent any more.
    ///
    /// # Errors
    /// That cannot be noted: it is tried again.
    fn give_up(&self, broker: &Arc<Broker>, reason: String) -> impl Future<Output = Result<(), BrokerError>> + Send;
}

/// News on their way.
struct Sent<N> {
    endpoint: String,
    turn: Turn<N>,
    became: Became,
}

/// Runs until the server stops.
pub async fn run<N: News>(shared: Arc<Shared>) {
    let config = &shared.config;
    let account = shared.outgoing.account(config.max_connection_bytes.as_usize(), Holder::calls());
    let mut lanes =
        Lanes::new(config.outgoing_calls, config.outgoing_calls_per_endpoint, config.outgoing_pause.as_duration());
    let mut under_way: JoinSet<Sent<N>> = JoinSet::new();
    loop {
        let now = Instant::now();
        for news in N::take(&shared.broker) {
            // One whose URL is none any more is given up like one that nobody takes.
            let address = news.url().parse().map_or_else(|_| String::new(), |url: Url| url.address());
            lanes.put(&address, news, now);
        }
        while let Some((endpoint, turn)) = lanes.next(now) {
            let (shared, account) = (shared.clone(), account.clone());
            under_way.spawn(async move {
                let became = send(&shared, &account, &turn).await;
                Sent { endpoint, turn, became }
            });
        }
        let next = lanes.next_at();
        tokio::select! {
            () = shared.stopped() => return,
            () = N::come(&shared.broker) => {}
            Some(sent) = under_way.join_next(), if !under_way.is_empty() => match sent {
                Ok(Sent { endpoint, turn, became }) => {
                    lanes.became(&endpoint, turn, &became, fastrand::f64(), Instant::now());
                }
                Err(error) => tracing::error!(%error, "a {} ended without a result; it is sent after a restart", N::WHAT),
            },
            () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// Sends one, and notes what is final.
async fn send<N: News>(shared: &Arc<Shared>, account: &Arc<Account>, turn: &Turn<N>) -> Became {
    let news = &turn.what;
    let (of, url) = (news.name(), news.url());
    match attempt(shared, account, news).await {
        Ok(Attempt::Taken) => noted::<N>(news.delivered(&shared.broker), Became::Over),
        Ok(Attempt::GiveUp(reason)) => give_up(shared, news, reason, Became::Over).await,
        Ok(Attempt::NoTurn) => Became::NoTurn,
        Ok(Attempt::Again { reason, became }) => {
            let limit = shared.config.callback_give_up_after;
            if shared.clock.is_over(news.since_ms(), news.since_ms().saturating_add_unsigned(limit.0)) {
                // An endpoint that is away has said nothing by that.
                let over = if became == Became::Silent { Became::GivenUp } else { Became::Over };
                return give_up(shared, news, format!("{reason}; tried for {limit}"), over).await;
            }
            news.not_yet(&shared.broker, &reason);
            tracing::info!(of, url, tries = turn.tries + 1, reason, "{} not delivered yet", N::WHAT);
            became
        }
        Err(error) => {
            tracing::warn!(of, %error, "a {} cannot be read; it is tried again", N::WHAT);
            Became::NoTurn
        }
    }
}

async fn give_up<N: News>(shared: &Arc<Shared>, news: &N, reason: String, over: Became) -> Became {
    tracing::warn!(of = news.name(), url = news.url(), reason, "{} given up", N::WHAT);
    noted::<N>(news.give_up(&shared.broker, reason).await, over)
}

/// What could not be noted is done again.
fn noted<N: News>(result: Result<(), BrokerError>, over: Became) -> Became {
    match result {
        Ok(()) => over,
        Err(error) => {
            tracing::warn!(%error, "what became of a {} cannot be noted; trying again", N::WHAT);
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

async fn attempt<N: News>(shared: &Shared, account: &Arc<Account>, news: &N) -> Result<Attempt, BrokerError> {
    let url: Url = match news.url().parse() {
        Ok(url) => url,
        Err(reason) => return Ok(Attempt::GiveUp(reason)),
    };
    let Some(content) = news.content(&shared.broker).await? else {
        return Ok(Attempt::GiveUp(N::GONE.to_owned()));
    };
    let body = news.body(&content);
    let _grant = account.take(body.len() + OVERHEAD).await;
    let headers = news.headers(&content, &body, shared.clock.now_ms(), &shared.secrets);
    Ok(match super::post(&shared.calls, url, headers, body, shared.calls.timeout(), || shared.clock.now_ms()).await {
        Said::Taken => Attempt::Taken,
        Said::Gone(reason) => Attempt::GiveUp(reason),
        Said::Refused(reason, retry_after) => Attempt::Again { reason, became: Became::Refused(retry_after) },
        Said::Silent(reason) | Said::Unreachable(reason) => Attempt::Again { reason, became: Became::Silent },
        Said::NoTurn => Attempt::NoTurn,
    })
}
