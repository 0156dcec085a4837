//! Responding: requests come in, each gets one last word.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::client::ClientError;
use crate::client::connection::{Connection, Feed, Push, answer_of};
use crate::client::link::{Link, pause};
use crate::protocol::{Asked, Progress, Reply as WireReply, ReplyError, Respond};
use crate::record::Headers;

use super::{ErrorReply, headers_of, named_of};

/// Builds a [`Responder`].
#[derive(Debug, Clone)]
pub struct ResponderBuilder {
    link: Arc<Link>,
    topic: String,
    capacity: u32,
    durable: bool,
    retry_timeout: Duration,
}

/// A responder on a topic. Responders of one topic share its requests; who has least to do gets the next one. After a
/// broken connection it listens again by itself.
///
/// Dropping it ends it: requests in memory that it had and has not replied to have failed; durable ones go back, and come again.
#[derive(Debug)]
pub struct Responder {
    link: Arc<Link>,
    request: Respond,
    retry_timeout: Duration,
    open: Option<(Arc<Connection>, Feed)>,
    /// How long a durable request is its own without a word of it.
    lease: Option<Duration>,
}

/// A request, as a responder sees it.
#[derive(Debug, Clone)]
pub struct IncomingRequest {
    /// The topic.
    pub topic: Arc<str>,
    /// What is said beside the body.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// The step of an itinerary that it is, from 0.
    pub step: u32,
    /// The correlation id, of a durable request.
    pub id: Option<String>,
    /// Which delivery of it this is, from 1.
    pub attempt: u32,
    /// When nobody will wait for a reply any more, if that is limited.
    pub until: Option<Instant>,
}

/// A request that waits for a word. One that is dropped without has failed; a durable one comes again.
#[derive(Debug)]
pub struct Incoming {
    request: IncomingRequest,
    responder: u64,
    delivery: u64,
    connection: Arc<Connection>,
    lease: Option<Duration>,
    done: bool,
}

impl ResponderBuilder {
    pub(crate) fn new(link: Arc<Link>, topic: String) -> Self {
        Self { link, topic, capacity: 64, durable: true, retry_timeout: Duration::from_secs(60) }
    }

    /// Requests that it may have at a time. Default 64.
    pub fn capacity(mut self, requests: u32) -> Self {
        self.capacity = requests;
        self
    }

    /// Takes only requests that never touch the disk.
    pub fn ephemeral_only(mut self) -> Self {
        self.durable = false;
        self
    }

    /// For how long to try to reach the server again before it fails. Default 60 s.
    pub fn retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// Begins to listen. When this returns, requests to the topic find a responder.
    ///
    /// # Errors
    /// The server refuses it or cannot be reached.
    pub async fn listen(self) -> Result<Responder, ClientError> {
        let request = Respond { topic: self.topic, capacity: self.capacity, durable: self.durable };
        let (link, retry_timeout) = (self.link, self.retry_timeout);
        let mut responder = Responder { link, request, retry_timeout, open: None, lease: None };
        responder.open().await?;
        Ok(responder)
    }

    /// Listens and answers each request with what the handler makes of it, as many at a time as its capacity, until it
    /// fails for good.
    ///
    /// # Errors
    /// The server refuses it, or could not be reached for too long.
    pub async fn handle<H, F, B>(self, handler: H) -> Result<(), ClientError>
    where
        H: Fn(IncomingRequest) -> F,
        F: Future<Output = Result<B, ErrorReply>>,
        B: Into<Bytes>,
    {
        self.listen().await?.handle(handler).await
    }
}

impl Responder {
    async fn open(&mut self) -> Result<(), ClientError> {
        let connection = self.link.connection().await?;
        let (opened, feed) = connection.respond(&self.request, self.link.config().request_timeout).await?;
        self.lease = (opened.lease_ms > 0).then(|| Duration::from_millis(opened.lease_ms));
        self.open = Some((connection, feed));
        Ok(())
    }

    /// The next request; an error is final. May be dropped while it waits.
    ///
    /// # Errors
    /// The server refuses it, or could not be reached for too long.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        let (mut failures, mut since) = (0, Instant::now());
        loop {
            let error = match &mut self.open {
                Some((connection, feed)) => match feed.next().await {
                    Push::Asked(asked, body) => {
                        return Ok(Incoming::new(&self.request.topic, asked, body, Arc::clone(connection), self.lease));
                    }
                    Push::Ended(error) => {
                        self.open = None;
                        (failures, since) = (0, Instant::now());
                        error
                    }
                    // For others only.
                    _ => continue,
                },
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            failures += 1;
            let pause = error.retry_after().unwrap_or_default().max(pause(failures));
            if !error.is_retriable() || since.elapsed() + pause >= self.retry_timeout {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Stops; replies that were sent are with the server when this returns, and those to durable requests on its disk.
    ///
    /// # Errors
    /// The server cannot be reached; a durable request may come again then.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let Some((connection, feed)) = self.open.take() else { return Ok(()) };
        connection.stop_responding(feed, self.link.config().request_timeout).await
    }

    /// Answers each request with what the handler makes of it, as many at a time as its capacity, until it fails for good.
    ///
    /// # Errors
    /// As [`Responder::next`].
    pub async fn handle<H, F, B>(&mut self, handler: H) -> Result<(), ClientError>
    where
        H: Fn(IncomingRequest) -> F,
        F: Future<Output = Result<B, ErrorReply>>,
        B: Into<Bytes>,
    {
        let mut working = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(replied) = working.next(), if !working.is_empty() => {
                    let replied: Result<(), ClientError> = replied;
                    // The connection is gone, and whoever asked over it has been told.
                    if let Err(error) = replied {
                        tracing::debug!(%error, "a reply could not be sent");
                    }
                }
                next = self.next() => {
                    let incoming = next?;
                    let handled = handler(incoming.request.clone());
                    working.push(async move {
                        match incoming.working_on(handled).await {
                            Ok(body) => incoming.reply(body).await,
                            Err(error) => incoming.fail(error).await,
                        }
                    });
                }
            }
        }
    }
}

impl Incoming {
    fn new(topic: &str, asked: Asked, body: Bytes, connection: Arc<Connection>, lease: Option<Duration>) -> Self {
        let request = IncomingRequest {
            topic: topic.into(),
            headers: headers_of(asked.headers),
            body,
            step: asked.step,
            id: asked.id,
            attempt: asked.attempt,
            until: asked.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
        };
        Self { request, responder: asked.responder, delivery: asked.delivery, connection, lease, done: false }
    }

    /// The request.
    pub fn request(&self) -> &IncomingRequest {
        &self.request
    }

    /// Replies.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn reply(self, body: impl Into<Bytes>) -> Result<(), ClientError> {
        self.reply_with(body, &Headers::new()).await
    }

    /// Replies, and says something beside the body.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn reply_with(mut self, body: impl Into<Bytes>, headers: &Headers) -> Result<(), ClientError> {
        self.done = true;
        self.connection.tell(&self.word(None, headers), body.into()).await
    }

    /// Says that it cannot be done.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn fail(mut self, error: ErrorReply) -> Result<(), ClientError> {
        self.done = true;
        let word = self.word(Some(ReplyError { code: error.code, text: error.text }), &Headers::new());
        self.connection.tell(&word, Bytes::new()).await
    }

    /// The responder ends, and has not answered it. A durable request goes back when the responder is closed, comes again at once, and
    /// has not been delivered; another one has failed.
    pub fn release(mut self) {
        self.done = self.is_durable();
    }

    /// Sends a part of the reply; returns once the next one may be sent. The last word is said with [`Incoming::reply`],
    /// whose body may be empty, or [`Incoming::fail`]. Whether somebody still waits for the rest.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn part(&mut self, body: impl Into<Bytes>) -> Result<bool, ClientError> {
        let (responder, delivery) = (self.responder, self.delivery);
        let progress = Progress { responder, delivery, part: true, headers: Vec::new() };
        self.progress(&progress, body.into()).await
    }

    /// Whether somebody still waits for the reply. Of a durable request, the lease begins anew with this.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn is_wanted(&self) -> Result<bool, ClientError> {
        let (responder, delivery) = (self.responder, self.delivery);
        let progress = Progress { responder, delivery, part: false, headers: Vec::new() };
        self.progress(&progress, Bytes::new()).await
    }

    fn is_durable(&self) -> bool {
        self.delivery >> 63 == 1
    }

    /// Waits for `work`; the lease of a durable request is extended meanwhile.
    pub async fn working_on<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(lease) = self.lease.filter(|_| self.is_durable()) else { return work.await };
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(lease / 3) => {
                    // If it cannot be said, the lease ends, and somebody else has it.
                    let _ = self.is_wanted().await;
                }
            }
        }
    }

    async fn progress(&self, progress: &Progress, body: Bytes) -> Result<bool, ClientError> {
        let frame = self.connection.send(progress, body, None).await?.await?;
        Ok(answer_of::<Progress>(&frame)?.wanted)
    }

    fn word(&self, error: Option<ReplyError>, headers: &Headers) -> WireReply {
        WireReply { responder: self.responder, delivery: self.delivery, error, headers: named_of(headers) }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.done {
            let text = "the responder let go of it without a word".to_owned();
            let error = ReplyError { code: "dropped".to_owned(), text };
            self.connection.tell_at_once(&self.word(Some(error), &Headers::new()));
        }
    }
}
