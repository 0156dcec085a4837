//! Request and response, in two classes. *Ephemeral* requests live in memory only, in the [`exchange`]; [`live`] connects it
//! with connections and the clock.

mod exchange;
mod live;
#[cfg(test)]
mod tests;

use std::any::Any;

use bytes::Bytes;

use crate::base::TopicName;
use crate::record::Header;

pub(crate) use live::Live;
pub use live::{Asker, LiveRequest, LiveResponder, Port};

/// A body, and what is said beside it.
#[derive(Default)]
pub struct Content {
    /// Named values.
    pub headers: Vec<Header>,
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

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("headers", &self.headers).field("body", &self.body.len()).finish()
    }
}

impl Content {
    /// What it weighs in limits.
    pub fn weight(&self) -> usize {
        let headers = self.headers.iter().map(|header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len));
        self.body.len() + headers.sum::<usize>()
    }
}
