//! Topics, offsets and facts about the server.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{ErrorKind, Isolation, Offset, PartitionId, StartAt, TimestampMs};
use crate::protocol::{
    AcknowledgeDamage, AlterGroup, AlterTopic, CancelReceipts, CancelRequest, ClockDoubt, CloseConnection,
    CommitPosition, CommitPositions, ConfirmClock, ConnectionInfo, CreateGroup, CreateTopic, DamageInfo,
    DeadLetterTopic, DeleteGroup, DeleteRecords, DeleteTopic, Dependent, DescribeClock, DescribeClockOk, DescribeGroup,
    DescribeTopic, GroupDescription, GroupPosition, GroupSummary, ListConnections, ListDamage, ListDeadLetters,
    ListDependents, ListGroupPage, ListGroupPageOk, ListGroups, ListOffsets, ListReceipts, ListRequests, ListTopicPage,
    ListTopicPageOk, ListTopics, Metrics, OffsetAt, Positions, QueueRules, ReceiptAt, ReceiptInfo, Redrive, RedriveOk,
    RequestInfo, ResetGroup, ResetPartition, ResetTo, ServerInfo, ServerInfoOk, Setting, SettleDeadLetters,
    SettleDeadLettersOk, TopicDescription, TopicSummary,
};

use super::ClientError;
use super::consumer::start_of_group;
use super::link::{Again, Link};

/// Administration; got from [`Client::admin`](super::Client::admin). Every method's error is the server's refusal, or that
/// it could not be reached within the client's request time-out.
#[derive(Debug, Clone)]
pub struct Admin {
    pub(super) link: Arc<Link>,
}

/// A topic to be created.
#[derive(Debug, Clone)]
pub struct NewTopic(CreateTopic);

/// A change to a topic.
#[derive(Debug, Clone)]
pub struct TopicChange(AlterTopic);

/// A group to be made.
#[derive(Debug, Clone)]
pub struct NewGroup {
    request: CreateGroup,
    start: StartAt,
}

/// A change of what a group is defined as. What is not said stays.
#[derive(Debug, Clone)]
pub struct GroupChange {
    request: AlterGroup,
    start: StartAt,
}

/// A wish that a group goes on elsewhere in the log.
#[derive(Debug, Clone)]
pub struct GroupReset(ResetGroup);

impl NewTopic {
    /// A topic with the server's default number of partitions and default settings.
    pub fn new(name: impl Into<String>) -> Self {
        Self(CreateTopic { name: name.into(), partitions: None, settings: Vec::new(), if_not_exists: false })
    }

    /// How many partitions.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.0.partitions = Some(partitions);
        self
    }

    /// A setting, as people write it: `("retention", "7d")`.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.settings.push(Setting { name: name.into(), value: value.into() });
        self
    }

    /// A topic that exists is fine, whatever its settings.
    pub fn if_not_exists(mut self) -> Self {
        self.0.if_not_exists = true;
        self
    }
}

impl TopicChange {
    /// No change yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self(AlterTopic { name: name.into(), partitions: None, set: Vec::new(), unset: Vec::new() })
    }

    /// A larger number of partitions.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.0.partitions = Some(partitions);
        self
    }

    /// A setting's new value.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.set.push(Setting { name: name.into(), value: value.into() });
        self
    }

    /// A setting goes back to its default.
    pub fn unset(mut self, name: impl Into<String>) -> Self {
        self.0.unset.push(name.into());
        self
    }
}

impl NewGroup {
    /// A queue group with the usual rules that reads nothing yet.
    pub fn queue(name: impl Into<String>) -> Self {
        Self::new(name.into(), Some(QueueRules::default()))
    }

    /// A stream group that reads nothing yet.
    pub fn stream(name: impl Into<String>) -> Self {
        Self::new(name.into(), None)
    }

    fn new(name: String, rules: Option<QueueRules>) -> Self {
        let request = CreateGroup { name, rules, topics: Vec::new(), filter: None, start: OffsetAt::Beginning };
        Self { request, start: StartAt::Beginning }
    }

    /// A topic that it reads, or a pattern (`crm.*.accounts`, `crm.>`); may be said for several.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.request.topics.push(topic.into());
        self
    }

    /// Only records for which this CEL expression is true are the group's.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.request.filter = Some(expression.into());
        self
    }

    /// The rules of a queue group; a stream group becomes one with this.
    pub fn rules(mut self, rules: QueueRules) -> Self {
        self.request.rules = Some(rules);
        self
    }

    /// Where it begins in the partitions that there are: beginning, end, or a time. Default [`StartAt::Beginning`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }
}

impl GroupChange {
    /// No change yet.
    pub fn new(name: impl Into<String>) -> Self {
        let request = AlterGroup {
            name: name.into(),
            topics: Vec::new(),
            filter: None,
            no_filter: false,
            lease_ms: None,
            max_deliveries: None,
            backoff_ms: None,
            backoff_max_ms: None,
            dead_letter: None,
            ordered_by_key: None,
            start: OffsetAt::Beginning,
        };
        Self { request, start: StartAt::Beginning }
    }

    /// A topic that it reads from now on, or a pattern; may be said for several, and takes the place of those it had.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.request.topics.push(topic.into());
        self
    }

    /// Its filter from now on.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.request.filter = Some(expression.into());
        self
    }

    /// It has no filter from now on.
    pub fn no_filter(mut self) -> Self {
        self.request.no_filter = true;
        self
    }

    /// How long a record is its member's; of a queue group, as all that follow.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.request.lease_ms = Some(millis(lease));
        self
    }

    /// Deliveries of a record after which it is a dead letter.
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.request.max_deliveries = Some(deliveries);
        self
    }

    /// The wait before a second delivery; it doubles each time.
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.request.backoff_ms = Some(millis(backoff));
        self
    }

    /// The longest wait between two deliveries.
    pub fn backoff_max(mut self, longest: Duration) -> Self {
        self.request.backoff_max_ms = Some(millis(longest));
        self
    }

    /// The topic for dead letters.
    pub fn dead_letter(mut self, topic: impl Into<String>) -> Self {
        self.request.dead_letter = Some(topic.into());
        self
    }

    /// Whether the next record of a key comes only when the one before is done.
    pub fn ordered_by_key(mut self, ordered: bool) -> Self {
        self.request.ordered_by_key = Some(ordered);
        self
    }

    /// Where the group begins in partitions of which it has done nothing yet: beginning, end, or a time. Default
    /// [`StartAt::Beginning`].
    pub fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl GroupReset {
    /// All partitions of the group go on there.
    pub fn new(group: impl Into<String>, to: ResetTo) -> Self {
        Self(ResetGroup { name: group.into(), topics: Vec::new(), to, dry_run: false, force: false })
    }

    /// Only those of this topic, or pattern; may be said for several.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.0.topics.push(topic.into());
        self
    }

    /// Only say what would change.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.0.dry_run = dry_run;
        self
    }

    /// Also while it has members, which are sent away.
    pub fn force(mut self, force: bool) -> Self {
        self.0.force = force;
        self
    }
}

impl Admin {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Durable requests, newest first: those in this state (`open`, `replied`, `failed`, `timed_out`, `cancelled`) and with a
    /// step of this topic, if said; and whether there are more than `limit` (at most 1000). With the id of the last one as
    /// `before` it goes on there.
    pub async fn list_requests(&self, wanted: ListRequests) -> Result<(Vec<RequestInfo>, bool), ClientError> {
        let listed = self.link.ask(&wanted, Again::Yes).await?;
        Ok((listed.requests, listed.more))
    }

    /// Receipts that are to be POSTed, by topic, partition, offset and group, and where to go on if there are more.
    pub async fn list_receipts(
        &self,
        wanted: ListReceipts,
    ) -> Result<(Vec<ReceiptInfo>, Option<ReceiptAt>), ClientError> {
        let listed = self.link.ask(&wanted, Again::Yes).await?;
        Ok((listed.receipts, listed.next))
    }

    /// Damage that is known, of one topic or of everything: at most `limit` places (at most 1000), and how many there are.
    pub async fn list_damage(&self, topic: Option<String>, limit: u32) -> Result<(Vec<DamageInfo>, u64), ClientError> {
        let listed = self.link.ask(&ListDamage { topic, limit }, Again::Yes).await?;
        Ok((listed.damage, listed.total))
    }

    /// Acknowledges damage, of one topic or all of it; how many places were not acknowledged before.
    pub async fn acknowledge_damage(&self, topic: Option<String>) -> Result<u64, ClientError> {
        Ok(self.link.ask(&AcknowledgeDamage { topic }, Again::Yes).await?.acknowledged)
    }

    /// Nobody wants the receipts of a group any more, or those of it that go to a URL; how many those were.
    pub async fn cancel_receipts(&self, group: impl Into<String>, url: Option<String>) -> Result<u64, ClientError> {
        Ok(self.link.ask(&CancelReceipts { group: group.into(), url }, Again::Yes).await?.cancelled)
    }

    /// What the server believes of its wall clock.
    pub async fn describe_clock(&self) -> Result<DescribeClockOk, ClientError> {
        self.link.ask(&DescribeClock {}, Again::Yes).await
    }

    /// The server's wall clock is right, so that it is doubted no more; what the doubt was.
    pub async fn confirm_clock(&self) -> Result<Option<ClockDoubt>, ClientError> {
        Ok(self.link.ask(&ConfirmClock {}, Again::Yes).await?.doubt)
    }

    /// Ends a durable request without a reply, unless it has ended already; what it is then.
    pub async fn cancel_request(&self, id: impl Into<String>) -> Result<RequestInfo, ClientError> {
        Ok(self.link.ask(&CancelRequest { id: id.into() }, Again::Yes).await?.request)
    }

    /// Creates a topic; returns it as it is now.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicDescription, ClientError> {
        let again = if topic.0.if_not_exists { Again::Yes } else { Again::No };
        Ok(self.link.ask(&topic.0, again).await?.topic)
    }

    /// Changes a topic; returns it as it is now.
    pub async fn alter_topic(&self, change: TopicChange) -> Result<TopicDescription, ClientError> {
        Ok(self.link.ask(&change.0, Again::Yes).await?.topic)
    }

    /// Deletes a topic and its data.
    pub async fn delete_topic(&self, name: impl Into<String>) -> Result<(), ClientError> {
        self.link.ask(&DeleteTopic { name: name.into() }, Again::No).await.map(|_| ())
    }

    /// Deletes the records of a partition below an offset, durably (all that are written now, if none is named); where the log
    /// begins then.
    pub async fn delete_records(
        &self,
        topic: impl Into<String>,
        partition: PartitionId,
        below: Option<Offset>,
    ) -> Result<Offset, ClientError> {
        let request = DeleteRecords { topic: topic.into(), partition, below };
        Ok(self.link.ask(&request, Again::Yes).await?.log_start)
    }

    /// The groups, pushes and routes that read a topic or write to it, and whether there are more of them.
    pub async fn dependents(&self, topic: impl Into<String>) -> Result<(Vec<Dependent>, bool), ClientError> {
        let found = self.link.ask(&ListDependents { topic: topic.into() }, Again::Yes).await?;
        Ok((found.dependents, found.more))
    }

    /// A page of the connections that are open, of one door (`native`, `admin`, `kafka`, `http`) or of all: those behind a number, from
    /// the first if it is 0. The server gives no more than 1,000 at a time.
    pub async fn connection_page(
        &self,
        door: Option<&str>,
        after: u64,
        limit: u32,
    ) -> Result<(Vec<ConnectionInfo>, bool), ClientError> {
        let request = ListConnections { door: door.map(str::to_owned), after, limit };
        let page = self.link.ask(&request, Again::Yes).await?;
        Ok((page.connections, page.more))
    }

    /// Ends a connection, as if its client were gone. A client that connects again gets a new one.
    pub async fn close_connection(&self, id: u64) -> Result<(), ClientError> {
        self.link.ask(&CloseConnection { id }, Again::No).await.map(|_| ())
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, ClientError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = match self.topic_page("", &after, u32::MAX).await {
                // A server that knows no pages has few topics.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    return Ok(self.link.ask(&ListTopics {}, Again::Yes).await?.topics);
                }
                page => page?,
            };
            all.extend(page.topics.into_iter().map(|line| line.summary));
            match all.last() {
                Some(last) if page.more => after.clone_from(&last.name),
                _ => return Ok(all),
            }
        }
    }

    /// A page of the topics whose names begin with a prefix, by name: those behind a name, from the first if it is empty. The
    /// server gives no more than 1,000 at a time, and what all topics take of their limit with the first page.
    pub async fn topic_page(&self, prefix: &str, after: &str, limit: u32) -> Result<ListTopicPageOk, ClientError> {
        let page = ListTopicPage { prefix: prefix.to_owned(), after: after.to_owned(), limit };
        self.link.ask(&page, Again::Yes).await
    }

    /// One topic, its settings and partitions.
    pub async fn describe_topic(&self, name: impl Into<String>) -> Result<TopicDescription, ClientError> {
        Ok(self.link.ask(&DescribeTopic { name: name.into() }, Again::Yes).await?.topic)
    }

    /// An offset and the timestamp of its record, −1 if there is none there.
    pub async fn list_offsets(
        &self,
        topic: impl Into<String>,
        partition: PartitionId,
        at: OffsetAt,
    ) -> Result<(Offset, TimestampMs), ClientError> {
        let request = ListOffsets { topic: topic.into(), partition, at, isolation: Isolation::Committed };
        let found = self.link.ask(&request, Again::Yes).await?;
        Ok((found.offset, found.timestamp))
    }

    /// All groups, by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupSummary>, ClientError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = match self.group_page("", &after, u32::MAX).await {
                // A server that knows no pages has few groups.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    return Ok(self.link.ask(&ListGroups {}, Again::Yes).await?.groups);
                }
                page => page?,
            };
            all.extend(page.groups.into_iter().map(|line| line.summary));
            match all.last() {
                Some(last) if page.more => after.clone_from(&last.name),
                _ => return Ok(all),
            }
        }
    }

    /// A page of the groups whose names begin with a prefix, by name: those behind a name, from the first if it is empty. The
    /// server gives no more than 1,000 at a time, and what all groups take of their limits with the first page.
    pub async fn group_page(&self, prefix: &str, after: &str, limit: u32) -> Result<ListGroupPageOk, ClientError> {
        let page = ListGroupPage { prefix: prefix.to_owned(), after: after.to_owned(), limit };
        self.link.ask(&page, Again::Yes).await
    }

    /// One group: its rules, members, and how far it is in each partition.
    pub async fn describe_group(&self, name: impl Into<String>) -> Result<GroupDescription, ClientError> {
        Ok(self.link.ask(&DescribeGroup { name: name.into() }, Again::Yes).await?.group)
    }

    /// Makes a group without a member; one that is there and defined the same is fine. Whether it is new.
    pub async fn create_group(&self, mut group: NewGroup) -> Result<bool, ClientError> {
        group.request.start = start_of_group(group.start, self.link.now_ms())?;
        Ok(self.link.ask(&group.request, Again::Yes).await?.created)
    }

    /// Changes what a group is defined as, also while it has members; what it is then, and of a queue group its rules.
    pub async fn alter_group(
        &self,
        mut change: GroupChange,
    ) -> Result<(GroupSummary, Option<QueueRules>), ClientError> {
        change.request.start = start_of_group(change.start, self.link.now_ms())?;
        let altered = self.link.ask(&change.request, Again::Yes).await?;
        Ok((altered.summary, altered.rules))
    }

    /// Deletes a group and its progress; with `force` also while it has members.
    pub async fn delete_group(&self, name: impl Into<String>, force: bool) -> Result<(), ClientError> {
        self.link.ask(&DeleteGroup { name: name.into(), force }, Again::No).await.map(|_| ())
    }

    /// Lets a group go on elsewhere in the log; says what changes in which partition.
    pub async fn reset_group(&self, reset: GroupReset) -> Result<Vec<ResetPartition>, ClientError> {
        Ok(self.link.ask(&reset.0, Again::Yes).await?.partitions)
    }

    /// The positions that a stream group has committed; none if there is no such group.
    pub async fn positions(&self, group: impl Into<String>) -> Result<Vec<GroupPosition>, ClientError> {
        Ok(self.link.ask(&Positions { group: group.into(), partitions: Vec::new() }, Again::Yes).await?.positions)
    }

    /// Commits positions of a stream group that has no members, durably; the group is made if it is not there. The error is
    /// the first refusal, if there is one.
    pub async fn commit_positions(
        &self,
        group: impl Into<String>,
        positions: Vec<CommitPosition>,
    ) -> Result<(), ClientError> {
        let request = CommitPositions { group: group.into(), member: None, positions, durable: true };
        let outcomes = self.link.ask(&request, Again::Yes).await?.outcomes;
        outcomes.into_iter().find_map(|outcome| outcome.error).map_or(Ok(()), |error| Err(error.into()))
    }

    /// The topics with dead letters.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetterTopic>, ClientError> {
        Ok(self.link.ask(&ListDeadLetters {}, Again::Yes).await?.topics)
    }

    /// Sends dead letters back to where they came from, once each: asked again after a broken connection, it sends none
    /// twice.
    pub async fn redrive(&self, redrive: &Redrive) -> Result<RedriveOk, ClientError> {
        self.link.ask(redrive, Again::No).await
    }

    /// Sends dead letters back to their topics or to the groups that gave them up, or discards them: each once. How far it came; one that
    /// is named and is not there, or was dealt with, is [`ErrorKind::NotFound`](crate::base::ErrorKind::NotFound).
    pub async fn settle_dead_letters(&self, request: &SettleDeadLetters) -> Result<SettleDeadLettersOk, ClientError> {
        self.link.ask(request, Again::No).await
    }

    /// Facts about the server.
    pub async fn server_info(&self) -> Result<ServerInfoOk, ClientError> {
        self.link.ask(&ServerInfo {}, Again::Yes).await
    }

    /// The server's metrics in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.link.ask(&Metrics {}, Again::Yes).await?.text)
    }
}
