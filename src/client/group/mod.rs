//! Being a member of a stream group: this member owns some of the partitions and gets their records in order; how far it
//! has come is committed.
//!
//! [`member`] joins, sends heartbeats and commits, in tasks of its own; [`consumer`] has the partitions and gives their
//! records to the application.

mod consumer;
mod member;

use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorKind, Offset};
use crate::protocol::{JoinStream, TopicPartition};

use super::consumer::start_of_group;
use super::link::Link;
use super::{ClientError, ConsumedRecord, StartAt};
use member::Member;

pub use consumer::GroupConsumer;

/// What a group consumer has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// A record of a partition that this member owns.
    Record(ConsumedRecord),
    /// Partitions that this member owns from now on.
    Assigned(Vec<TopicPartition>),
    /// Partitions that are to be another's. They are this member's until it asks for the next event: what it is done with
    /// can be committed until then. No more records come of them.
    Revoked(Vec<TopicPartition>),
    /// Partitions that are another's by now: the session had ended, or the group was reset. What was not committed comes
    /// again, there or here.
    Lost(Vec<TopicPartition>),
    /// Records that retention has deleted before they were done.
    Missed {
        /// Where.
        place: TopicPartition,
        /// The position of the group.
        from: Offset,
        /// Where it goes on.
        to: Offset,
    },
}

/// What to do where retention has deleted records that were not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenMissed {
    /// Go on with the first record that there is.
    #[default]
    Earliest,
    /// Go on at the end.
    Latest,
    /// Say so, and let the partition rest until the group is reset.
    Fail,
}

/// Builds a [`GroupConsumer`].
#[derive(Debug, Clone)]
pub struct GroupConsumerBuilder {
    link: Arc<Link>,
    group: String,
    topics: Vec<String>,
    filter: Option<String>,
    start: StartAt,
    instance: Option<String>,
    session: Duration,
    handover: Duration,
    commit_every: Option<Duration>,
    when_missed: WhenMissed,
    prefetch: (u64, u64),
    retry_timeout: Duration,
}

impl GroupConsumerBuilder {
    pub(crate) fn new(link: Arc<Link>, group: String) -> Self {
        Self {
            link,
            group,
            topics: Vec::new(),
            filter: None,
            start: StartAt::Beginning,
            instance: None,
            session: Duration::from_secs(10),
            handover: Duration::from_secs(60),
            commit_every: Some(Duration::from_secs(1)),
            when_missed: WhenMissed::default(),
            prefetch: (16 * 1024 * 1024, 1_000_000),
            retry_timeout: Duration::from_secs(60),
        }
    }

    /// A topic that the group reads, or a pattern (`crm.*.accounts`, `crm.>`); may be said for several. The first member defines the
    /// group; one that says otherwise is refused. If nothing is said, the member joins the group as it is. See
    /// [`Admin::alter_group`](crate::client::Admin::alter_group).
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Several topics or patterns.
    pub fn topics(mut self, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Only records for which this CEL expression is true are the group's. It belongs to the group as its topics do: topics without a
    /// filter say that the group has none.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.filter = Some(expression.into());
        self
    }

    /// Where a group begins in partitions in which it has no position yet: beginning, end, or a time. Default
    /// [`StartAt::Beginning`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// The name of the place that this member fills. When it closes, what it had is kept for the next member of that name
    /// until the session ends, and nothing moves.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// How long this is a member without a sign of life; heartbeats are sent by themselves. Default 10 s.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session = timeout;
        self
    }

    /// How long the application may take from one record to the next when a partition is to be given up; beyond it, the
    /// member is sent away. Default 60 s.
    pub fn handover_timeout(mut self, timeout: Duration) -> Self {
        self.handover = timeout;
        self
    }

    /// How often what the application is done with is committed by itself. It is done with a record when it asks for the
    /// next. Default 1 s.
    pub fn commit_every(mut self, interval: Duration) -> Self {
        self.commit_every = Some(interval);
        self
    }

    /// Nothing is committed but by [`GroupConsumer::commit`].
    pub fn commit_by_hand(mut self) -> Self {
        self.commit_every = None;
        self
    }

    /// What to do where retention has deleted records that were not done. Default [`WhenMissed::Earliest`].
    pub fn when_missed(mut self, what: WhenMissed) -> Self {
        self.when_missed = what;
        self
    }

    /// How much the server may send ahead: bytes and records, shared by the partitions, though each may have 64 KiB and
    /// one batch. Default 16 MiB and a million records.
    pub fn prefetch(mut self, bytes: u64, records: u64) -> Self {
        self.prefetch = (bytes, records);
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
    /// The server refuses (a name, a filter, a bound) or cannot be reached, the group is defined otherwise (`AlreadyExists`), or
    /// somebody fills the instance's place.
    pub async fn join(self) -> Result<GroupConsumer, ClientError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request = JoinStream {
            group: self.group,
            member: Some(uuid::Uuid::new_v4().simple().to_string()),
            instance: self.instance,
            topics: self.topics,
            filter: self.filter,
            start: start_of_group(self.start, self.link.now_ms())?,
            session_ms: millis(self.session),
            handover_ms: millis(self.handover),
        };
        if self.commit_every.is_some_and(|every| every.is_zero()) {
            return Err(ClientError::new(ErrorKind::InvalidRequest, "commits every 0 ms; the least is 1 ms"));
        }
        let (member, notices) = Member::new(self.link.clone(), request, self.retry_timeout);
        let joined = member.join().await?;
        let mut tasks = vec![tokio::spawn(Arc::clone(&member).run(joined)).abort_handle()];
        if let Some(every) = self.commit_every {
            tasks.push(tokio::spawn(Arc::clone(&member).commit_every(every)).abort_handle());
        }
        let by_hand = self.commit_every.is_none();
        Ok(GroupConsumer::new(member, notices, tasks, by_hand, self.when_missed, self.prefetch))
    }
}
