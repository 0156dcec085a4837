//! Callbacks to URLs: what whoever makes the calls asks the broker for, and tells it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{ErrorKind, Offset, TopicName};
use crate::catalog::{Callback, RequestEntry};
use crate::record::Record;

use super::super::broker::lock;
use super::super::{Broker, BrokerError};
use super::records::{self, REPLIES};
use super::watcher;

/// The topic of callbacks that could not be delivered.
pub const DEAD_CALLBACKS: &str = "dead-letter.callbacks";

/// A callback that is to be POSTed.
#[derive(Debug, Clone)]
pub struct Post {
    /// The request, whose outcome is told.
    pub entry: RequestEntry,
    /// Where to.
    pub url: String,
    /// What decided it, by which the callback is known.
    pub source: Offset,
}

impl Broker {
    /// Callbacks that are to be POSTed from now on, each until it is said what became of it. Each is named once, and all
    /// that were not delivered once more after a restart.
    pub fn take_posts(&self) -> Vec<Post> {
        let mut machine = lock(&self.requests.machine);
        let ids = machine.take_posts();
        ids.iter().filter_map(|id| post(machine.entry(id)?)).collect()
    }

    /// Returns when there may be more of them.
    pub async fn posts_come(&self) {
        self.requests.posts.notified().await;
    }

    /// The callback as a record; `None` if the reply that it is made from is gone.
    ///
    /// # Errors
    /// The disk's.
    pub async fn record_to_post(&self, post: &Post) -> Result<Option<Record>, BrokerError> {
        match self.reply_at(post.source).await {
            Ok(reply) => Ok(Some(records::callback(&post.entry, &reply, self.clock.stamp_ms()))),
            Err(error) if matches!(error.kind(), ErrorKind::OffsetOutOfRange | ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The endpoint has taken it.
    ///
    /// # Errors
    /// The topic of replies is gone.
    pub fn posted(&self, post: &Post) -> Result<(), BrokerError> {
        if lock(&self.requests.machine).written(&post.entry.id, post.source) {
            self.requests.keep(self, std::slice::from_ref(&post.entry.id), self.topic(REPLIES)?.entry.id);
        }
        Ok(())
    }

    /// It is given up: exactly one record in [`DEAD_CALLBACKS`] says so.
    ///
    /// # Errors
    /// The topic of those can be neither found nor made.
    pub async fn give_up_post(self: &Arc<Self>, post: &Post, reason: String) -> Result<(), BrokerError> {
        let id = &post.entry.id;
        let (to, end) = watcher::place(self, &TopicName::new(DEAD_CALLBACKS)?, id).await?;
        {
            let mut machine = lock(&self.requests.machine);
            if !machine.give_up(id, post.source, reason) {
                return Ok(());
            }
            machine.announce(id, Some(to), end, post.source);
        }
        self.requests.keep(self, std::slice::from_ref(id), self.topic(REPLIES)?.entry.id);
        self.requests.look.store(true, Ordering::Release);
        self.requests.wake.notify_one();
        Ok(())
    }
}

fn post(entry: &RequestEntry) -> Option<Post> {
    let writing = entry.writing.as_ref().filter(|writing| writing.to.is_none())?;
    let Some(Callback::Url(url)) = &entry.callback else { return None };
    Some(Post { url: url.clone(), source: writing.source, entry: entry.clone() })
}
