//! Being a member of a queue group: records are leased to this member, which acks or nacks each.

mod delivery;
mod session;

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{JoinGroup, QueueRules};

use super::consumer::start_of_group;
use super::link::Link;
use super::{ClientError, StartAt};
use session::Session;

pub use delivery::Delivery;

/// Builds a [`QueueConsumer`].
#[derive(Debug, Clone)]
pub struct QueueConsumerBuilder {
    link: Arc<Link>,
    group: String,
    topics: Vec<String>,
    filter: Option<String>,
    start: StartAt,
    prefetch: u32,
    rules: Option<QueueRules>,
    retry_timeout: Duration,
}

/// A member of a queue group. Records come in any order between partitions; each is this member's until it is acked or
/// nacked or its lease ends. After a broken connection it joins again by itself; what it had then goes to others, or comes
/// again.
///
/// Dropping it leaves the group: what was said of records is still sent, and those of which nothing was said go back. They come again
/// at once, and have not been delivered. [`QueueConsumer::close`] waits for that.
#[derive(Debug)]
pub struct QueueConsumer {
    session: Arc<Session>,
    /// Ends when the group has been left.
    task: Option<tokio::task::JoinHandle<()>>,
}

impl QueueConsumerBuilder {
    pub(crate) fn new(link: Arc<Link>, group: String) -> Self {
        Self {
            link,
            group,
            topics: Vec::new(),
            filter: None,
            start: StartAt::Beginning,
            prefetch: 100,
            rules: None,
            retry_timeout: Duration::from_secs(60),
        }
    }

    /// A topic that the group reads, or a pattern (`crm.*.accounts`, `crm.>`); may be said for several. The first member defines the
    /// group; one that says otherwise is refused. If nothing is said, the member joins the group as it is. See
    /// [`Admin::alter_group`](super::Admin::alter_group).
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Only records for which this CEL expression is true are the group's. It belongs to the group as its topics do: topics without a
    /// filter say that the group has none.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.filter = Some(expression.into());
        self
    }

    /// Where a group begins in partitions of which it has done nothing yet: beginning, end, or a time. Default
    /// [`StartAt::Beginning`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Records that this member may have at a time. Default 100.
    pub fn prefetch(mut self, records: u32) -> Self {
        self.prefetch = records;
        self
    }

    /// The group's rules, which belong to the group as its topics do. If nothing is said, they are what they are.
    pub fn rules(mut self, rules: QueueRules) -> Self {
        self.rules = Some(rules);
        self
    }

    /// For how long to try to reach the server again before the stream fails. Default 60 s.
    pub fn retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// Joins the group, which is made if it is not there.
    ///
    /// # Errors
    /// The server refuses (a rule, a name, a filter), the group is defined otherwise (`AlreadyExists`), or the server cannot be
    /// reached.
    pub async fn join(self) -> Result<QueueConsumer, ClientError> {
        let start = start_of_group(self.start, self.link.now_ms())?;
        let request = JoinGroup {
            group: self.group,
            rules: self.rules,
            topics: self.topics,
            filter: self.filter,
            start,
            prefetch: self.prefetch,
        };
        let session = Session::new(self.link, request, self.retry_timeout);
        let opened = session.open().await?;
        let task = Some(tokio::spawn(Arc::clone(&session).run(opened)));
        Ok(QueueConsumer { session, task })
    }
}

impl QueueConsumer {
    /// The next record; `None` after an error, which is final. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<Delivery, ClientError>> {
        self.session.next().await
    }

    /// Waits until everything that was acked so far is on the server's disk.
    ///
    /// # Errors
    /// The server cannot be reached in time. What was acked may come again then.
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.session.flush().await
    }

    /// Leaves the group once everything that was acked is on the server's disk. What it was handed and has said nothing of goes
    /// back before this returns: it comes again at once, and has not been delivered.
    ///
    /// # Errors
    /// As [`QueueConsumer::flush`].
    pub async fn close(mut self) -> Result<(), ClientError> {
        let flushed = self.flush().await;
        self.session.leave();
        if let Some(task) = self.task.take() {
            // A panic in it has been reported.
            let _ended = task.await;
        }
        flushed
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        if self.task.is_some() {
            self.session.leave();
        }
    }
}
