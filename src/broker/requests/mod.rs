//! Request and response, in two classes. *Ephemeral* requests live in memory only, in the [`exchange`]; [`live`] connects it
//! with connections and the clock. *Durable* ones are records, and a table in the journal: [`machine`] is that table,
//! [`durable`] what is asked of it, [`watcher`] reads the replies that decide it and writes what follows.

mod durable;
mod exchange;
mod live;
mod machine;
mod posts;
mod records;
#[cfg(test)]
mod tests;
mod watcher;

use std::any::Any;

use bytes::Bytes;

use crate::base::TopicName;
use crate::catalog::{Callback, OutcomeKind, RequestEntry};
use crate::record::Headers;

pub(crate) use durable::{Durable, RESPONDERS};
pub use durable::{DurableRequest, ReplyAddress, RequestFilter};
pub(crate) use live::Live;
pub use live::{Asker, LiveRequest, LiveResponder, Port};
pub use posts::{DEAD_CALLBACKS, Post};
pub use records::{
    CALLBACK_ERROR, CALLBACK_URL, CORRELATION_ID, DEADLINE, ERROR, ERROR_CODE, ITINERARY, OUTCOME, REPLIES, REPLY_TO,
    STEP, STEP_TOPIC,
};

/// A body, and what is said beside it.
#[derive(Default)]
pub struct Content {
    /// Named values.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// What counts the bytes as somebody's as long as they wait here.
    pub hold: Option<Box<dyn Any + Send + Sync>>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Ending {
    /// A reply.
    Reply(Content),
    /// The responder could not do it.
    Error {
        /// What a program looks at.
        code: String,
        /// What a person reads.
        text: String,
        /// The step at which it failed, from 0.
        step: u32,
        /// The topic of that step.
        topic: TopicName,
    },
    /// Nobody responds on the topic.
    NoResponder {
        /// The step, from 0.
        step: u32,
        /// The topic of that step.
        topic: TopicName,
    },
    /// Its time was over.
    TimedOut {
        /// The step that was waited for, from 0.
        step: u32,
        /// The topic of that step.
        topic: TopicName,
    },
    /// The server had no room for it.
    Overloaded(String),
}

/// The last word of a responder.
pub enum LastWord {
    /// A reply.
    Reply(Content),
    /// It could not be done.
    Error {
        /// What a program looks at.
        code: String,
        /// What a person reads.
        text: String,
    },
}

/// The names of the states of durable requests.
pub const REQUEST_STATES: [&str; 5] = ["open", "replied", "failed", "timed_out", "cancelled"];

/// The name of a durable request's state: `open`, `replied`, `failed`, `timed_out` or `cancelled`.
pub fn state_name(entry: &RequestEntry) -> &'static str {
    match entry.outcome.as_ref().map(|outcome| &outcome.kind) {
        None => "open",
        Some(OutcomeKind::Replied) => "replied",
        Some(OutcomeKind::Failed { .. }) => "failed",
        Some(OutcomeKind::TimedOut) => "timed_out",
        Some(OutcomeKind::Cancelled) => "cancelled",
    }
}

/// The name of a callback's state: `none`, `waiting` (for the outcome), `sending`, `delivered` or `dead_letter`.
pub fn callback_state(entry: &RequestEntry) -> &'static str {
    match (&entry.callback, &entry.outcome, &entry.writing) {
        (None, ..) => "none",
        (Some(Callback::DeadLetter { .. }), _, None) => "dead_letter",
        (Some(_), None, _) => "waiting",
        (Some(_), Some(_), Some(_)) => "sending",
        (Some(_), Some(_), None) => "delivered",
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("headers", &self.headers).field("body", &self.body.len()).finish()
    }
}

impl Content {
    /// What it weighs in limits.
    pub fn weight(&self) -> usize {
        self.body.len() + self.headers.weight()
    }
}
