//! A request on its way.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::base::ErrorKind;
use crate::client::ClientError;
use crate::client::connection::{Answer, Connection, Push, answer_of};
use crate::client::link::Link;
use crate::protocol::Ask;
use crate::record::Headers;

use super::{DurableRequestBuilder, Outcome, Reply, Step, headers_of, named_of};

/// What the server may need beyond the request's own time to say that it is over.
const GRACE: Duration = Duration::from_secs(2);

/// A request to be sent: await it for the outcome.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited"]
pub struct RequestBuilder {
    pub(super) link: Arc<Link>,
    pub(super) topic: String,
    pub(super) body: Bytes,
    pub(super) timeout: Duration,
    headers: Headers,
    itinerary: Vec<String>,
}

/// A reply that comes in parts.
#[derive(Debug)]
pub struct ReplyStream {
    topic: String,
    until: tokio::time::Instant,
    answer: Option<Answer>,
    parts: mpsc::UnboundedReceiver<Push>,
    outcome: Option<Outcome>,
    over: bool,
}

/// What comes of a request that is replied to in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyEvent {
    /// A part.
    Part(Reply),
    /// The end: of a reply that came in parts, what the responder said last, perhaps nothing.
    End(Outcome),
}

impl RequestBuilder {
    pub(crate) fn new(link: Arc<Link>, topic: String, body: Bytes, timeout: Duration) -> Self {
        Self { link, topic, body, timeout, headers: Headers::new(), itinerary: Vec::new() }
    }

    /// Says something beside the body.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(name.into(), Some(&value.into()));
        self
    }

    /// Has the reply answered further: it becomes the request of this topic's responder, whose reply is the outcome, or goes
    /// to the next topic named like this.
    pub fn then(mut self, topic: impl Into<String>) -> Self {
        self.itinerary.push(topic.into());
        self
    }

    /// Keeps it on the server's disk: it survives restarts of server and responder, and has exactly one outcome, which can be
    /// asked for later.
    pub fn durable(self) -> DurableRequestBuilder {
        DurableRequestBuilder::new(self)
    }

    /// Has the outcome delivered to this topic, as one record, or POSTed to this URL; the request is durable then.
    pub fn callback(self, address: impl Into<String>) -> DurableRequestBuilder {
        self.durable().callback(address)
    }

    /// Sends it and waits for the outcome. A reply that comes in parts is joined.
    ///
    /// # Errors
    /// The server refuses it or cannot be reached, or the connection broke meanwhile: whether a responder has seen the
    /// request is unknown then.
    pub async fn send(self) -> Result<Outcome, ClientError> {
        let connection = self.link.connection().await?;
        let until = tokio::time::Instant::now() + self.timeout + GRACE;
        let asked = async {
            let frame = connection.send(&self.ask(), self.body.clone(), None).await?.await?;
            let answer = answer_of::<Ask>(&frame)?;
            Outcome::of(answer.outcome, answer.headers, frame.payload).ok_or_else(undecided)
        };
        match tokio::time::timeout_at(until, asked).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(Outcome::TimedOut(Step { number: 0, topic: self.topic })),
        }
    }

    /// Sends it, for a reply that comes in parts.
    ///
    /// # Errors
    /// As [`RequestBuilder::send`].
    pub async fn stream(self) -> Result<ReplyStream, ClientError> {
        let connection: Arc<Connection> = self.link.connection().await?;
        let until = tokio::time::Instant::now() + self.timeout + GRACE;
        let (feed, parts) = mpsc::unbounded_channel();
        let answer = connection.send(&self.ask(), self.body.clone(), Some(feed)).await?;
        Ok(ReplyStream { topic: self.topic, until, answer: Some(answer), parts, outcome: None, over: false })
    }

    pub(super) fn ask(&self) -> Ask {
        Ask {
            topic: self.topic.clone(),
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            headers: named_of(&self.headers),
            itinerary: self.itinerary.clone(),
            durable: None,
        }
    }
}

impl IntoFuture for RequestBuilder {
    type Output = Result<Outcome, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl ReplyStream {
    /// The next part, or the end; `None` behind the end. May be dropped while it waits.
    ///
    /// # Errors
    /// The connection broke, or the server could not pass the reply on.
    pub async fn next(&mut self) -> Option<Result<ReplyEvent, ClientError>> {
        if self.over {
            return None;
        }
        // Parts are pushed before the end is answered.
        if let Some(answer) = &mut self.answer {
            let answered = tokio::select! {
                biased;
                Some(part) = self.parts.recv() => return Some(Ok(event(part))),
                answered = tokio::time::timeout_at(self.until, answer) => answered,
            };
            self.answer = None;
            let outcome = match answered {
                Ok(Ok(frame)) => match answer_of::<Ask>(&frame) {
                    Ok(answer) => match Outcome::of(answer.outcome, answer.headers, frame.payload) {
                        Some(outcome) => outcome,
                        None => return self.fail(undecided()),
                    },
                    Err(error) => return self.fail(error),
                },
                Ok(Err(error)) => return self.fail(error),
                Err(_) => Outcome::TimedOut(Step { number: 0, topic: self.topic.clone() }),
            };
            self.outcome = Some(outcome);
        }
        if let Ok(part) = self.parts.try_recv() {
            return Some(Ok(event(part)));
        }
        self.over = true;
        self.outcome.take().map(|outcome| Ok(ReplyEvent::End(outcome)))
    }

    fn fail(&mut self, error: ClientError) -> Option<Result<ReplyEvent, ClientError>> {
        self.over = true;
        Some(Err(error))
    }
}

fn undecided() -> ClientError {
    ClientError::new(ErrorKind::Internal, "the server answered a request without its outcome")
}

fn event(push: Push) -> ReplyEvent {
    match push {
        Push::Part(headers, body) => ReplyEvent::Part(Reply { headers: headers_of(headers), body }),
        // Nothing else is pushed for a request.
        _ => ReplyEvent::Part(Reply::default()),
    }
}

/// What a request without a responder's word is worth to whoever only wants the reply.
impl From<Outcome> for Result<Reply, ClientError> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Reply(reply) => Ok(reply),
            Outcome::Error(error) => {
                let message = format!("{} replied: {} ({})", error.step.topic, error.text, error.code);
                Err(ClientError::new(ErrorKind::InvalidRequest, message))
            }
            Outcome::NoResponder(step) => {
                Err(ClientError::new(ErrorKind::NotFound, format!("nobody responds on topic '{}'", step.topic)))
            }
            Outcome::Cancelled => Err(ClientError::new(ErrorKind::NotFound, "the request was cancelled")),
            Outcome::TimedOut(step) => {
                Err(ClientError::new(ErrorKind::TimedOut, format!("no reply from topic '{}' in time", step.topic)))
            }
        }
    }
}
