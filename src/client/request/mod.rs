//! Asking, and what comes of it: a reply, an error reply, nobody there, too late are different values.

mod builder;
mod durable;
mod responder;

use bytes::Bytes;

use crate::protocol::{self as wire, NamedValue};
use crate::record::{Header, Headers};

pub use builder::{ReplyEvent, ReplyStream, RequestBuilder};
pub use durable::DurableRequestBuilder;
pub(crate) use durable::{await_reply, status};
pub use responder::{Incoming, IncomingRequest, Responder, ResponderBuilder};

/// What became of a request. A failure of the connection or a refusal by the server is a
/// [`ClientError`](super::ClientError) instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A reply.
    Reply(Reply),
    /// The responder could not do it.
    Error(ErrorReply),
    /// Nobody responds on the topic; known at once.
    NoResponder(Step),
    /// Its time was over before there was a reply.
    TimedOut(Step),
    /// It was cancelled.
    Cancelled,
}

/// A reply, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// What the responder said beside the body.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

/// The word of a responder that it could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// What a program looks at.
    pub code: String,
    /// What a person reads.
    pub text: String,
    /// The step at which it failed; of a request without an itinerary, the only one.
    pub step: Step,
}

/// A step of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Its number, from 0.
    pub number: u32,
    /// Its topic.
    pub topic: String,
}

impl ErrorReply {
    /// What a responder says; the step is known to the server.
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into(), step: Step::default() }
    }
}

impl Outcome {
    /// The reply, if it is one.
    pub fn reply(self) -> Option<Reply> {
        match self {
            Self::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// `None` if it is not decided.
    fn of(outcome: wire::Outcome, headers: Vec<NamedValue>, body: Bytes) -> Option<Self> {
        Some(match outcome {
            wire::Outcome::Open => return None,
            wire::Outcome::Cancelled => Self::Cancelled,
            wire::Outcome::Reply => Self::Reply(Reply { headers: headers_of(headers), body }),
            wire::Outcome::Error { code, text, step, topic } => {
                Self::Error(ErrorReply { code, text, step: Step { number: step, topic } })
            }
            wire::Outcome::NoResponder { step, topic } => Self::NoResponder(Step { number: step, topic }),
            wire::Outcome::TimedOut { step, topic } => Self::TimedOut(Step { number: step, topic }),
        })
    }
}

fn headers_of(named: Vec<NamedValue>) -> Headers {
    named.into_iter().map(|named| (named.name, named.value)).collect()
}

fn named_of(headers: &Headers) -> Vec<NamedValue> {
    let named = |header: Header<'_>| NamedValue {
        name: String::from_utf8_lossy(header.name).into_owned(),
        value: header.value.map(<[u8]>::to_vec),
    };
    headers.iter().map(named).collect()
}
