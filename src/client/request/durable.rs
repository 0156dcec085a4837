//! Requests that are kept: sent until they are on the server's disk, awaited over restarts.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::base::{ErrorKind, RequestId};
use crate::client::ClientError;
use crate::client::connection::answer_of;
use crate::client::link::{Link, pause};
use crate::protocol::{Ask, AwaitReply, AwaitReplyOk, DurableAsk, RequestInfo};

use super::{Outcome, RequestBuilder, Step};

/// What one question about a request may wait at the server.
const POLL: Duration = Duration::from_secs(20);
/// What the server may need beyond the request's own time to say that it is over.
const GRACE: Duration = Duration::from_secs(10);

/// A durable request to be sent. Await it for the outcome, or [`submit`](Self::submit) it and go on.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited or submitted"]
pub struct DurableRequestBuilder {
    request: RequestBuilder,
    id: String,
    callback: Option<String>,
}

impl DurableRequestBuilder {
    pub(super) fn new(request: RequestBuilder) -> Self {
        Self { request, id: RequestId::random().to_string(), callback: None }
    }

    /// Its correlation id; a random one, if not said. The same id again is the same request.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Has the outcome delivered to this topic, as one record, or POSTed to this URL.
    pub fn callback(mut self, address: impl Into<String>) -> Self {
        self.callback = Some(address.into());
        self
    }

    /// As [`RequestBuilder::header`].
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// As [`RequestBuilder::then`].
    pub fn then(mut self, topic: impl Into<String>) -> Self {
        self.request = self.request.then(topic);
        self
    }

    /// Sends it; when this returns its id, it is on the server's disk. A connection that breaks is made again meanwhile.
    ///
    /// # Errors
    /// The server refuses it, or could not be reached within the request's time: whether it is there is unknown then.
    pub async fn submit(self) -> Result<String, ClientError> {
        let mut ask = self.request.ask();
        ask.durable = Some(DurableAsk { id: self.id.clone(), callback: self.callback });
        let (link, body) = (&self.request.link, &self.request.body);
        let until = Instant::now() + self.request.timeout.max(link.config().request_timeout);
        insist(until, || async {
            let frame = link.connection().await?.send(&ask, body.clone(), None).await?.await?;
            answer_of::<Ask>(&frame).map(drop)
        })
        .await?;
        Ok(self.id)
    }

    /// Sends it and waits for its outcome.
    ///
    /// # Errors
    /// As [`DurableRequestBuilder::submit`]; or the server could not be reached afterwards, and the outcome can still be
    /// asked for by its id.
    pub async fn send(self) -> Result<Outcome, ClientError> {
        let (link, topic, timeout) = (self.request.link.clone(), self.request.topic.clone(), self.request.timeout);
        let id = self.submit().await?;
        let outcome = await_reply(&link, &id, timeout + GRACE).await?;
        Ok(outcome.unwrap_or(Outcome::TimedOut(Step { number: 0, topic })))
    }
}

impl IntoFuture for DurableRequestBuilder {
    type Output = Result<Outcome, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Tries until it works, is refused for good, or the time is over.
async fn insist<T, F: Future<Output = Result<T, ClientError>>>(
    until: Instant,
    mut work: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let mut failures = 0;
    loop {
        let error = match tokio::time::timeout_at(until, work()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => return Err(ClientError::new(ErrorKind::TimedOut, "the server did not answer in time")),
        };
        failures += 1;
        let pause = error.retry_after().unwrap_or_default().max(pause(failures));
        if !error.is_retriable() || Instant::now() + pause >= until {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Waits for the outcome of a request, over restarts of the server; `None` if it is still open after that time.
pub(crate) async fn await_reply(link: &Arc<Link>, id: &str, wait: Duration) -> Result<Option<Outcome>, ClientError> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let patience = until.max(Instant::now() + link.config().request_timeout);
        let (_, outcome) = insist(patience, || ask(link, id, left.min(POLL))).await?;
        if outcome.is_some() || Instant::now() >= until {
            return Ok(outcome);
        }
    }
}

/// A request, and its outcome if it has one.
pub(crate) async fn status(link: &Arc<Link>, id: &str) -> Result<(RequestInfo, Option<Outcome>), ClientError> {
    let patience = Instant::now() + link.config().request_timeout;
    insist(patience, || ask(link, id, Duration::ZERO)).await
}

async fn ask(link: &Arc<Link>, id: &str, wait: Duration) -> Result<(RequestInfo, Option<Outcome>), ClientError> {
    let request = AwaitReply { id: id.to_owned(), wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) };
    let frame = link.connection().await?.send(&request, Bytes::new(), None).await?.await?;
    let AwaitReplyOk { request, outcome, headers } = answer_of::<AwaitReply>(&frame)?;
    Ok((request, Outcome::of(outcome, headers, frame.payload)))
}
