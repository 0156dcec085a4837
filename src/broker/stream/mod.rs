//! Stream groups: partitions are shared out among the members, each has one owner at a time, and how far the group has
//! come is a committed position.
//!
//! [`machine`] knows who has what; [`group`] keeps what it says; here is what doors call. Members, and what they own, are
//! in the journal before they are told of it, so a restarted server goes on with them: they need not join anew.

mod consumer;
mod group;
mod look;
mod machine;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicId, TopicName, TopicPattern};
use crate::catalog::{GroupEntry, GroupKind, MemberEntry, Place, Position};
use crate::expr::Filter;

use super::broker::{blocking, lock};
use super::groups::GroupProtocol;
use super::partition::Topic;
use super::{Broker, BrokerError, OffsetAt};

pub use consumer::{ConsumerBeat, ConsumerJoin, ConsumerLook, ConsumerMember, ConsumerShare};
pub(crate) use group::StreamGroup;
pub use machine::{Epoch, MemberError};
use machine::{Id, Joining, Machine, Ms, Share, Topics};

/// Bounds of a session and of the time to give a partition up, in milliseconds.
const SESSION_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
const HANDOVER_MS: std::ops::RangeInclusive<u64> = 100..=24 * 3_600_000;
/// Patterns of a group.
const PATTERNS: usize = 100;
/// Characters of a member's id, its instance's name and its client's.
const NAME_CHARS: usize = 249;

/// The stream groups that have members.
#[derive(Default)]
pub(crate) struct Streams {
    groups: Mutex<BTreeMap<GroupName, Arc<StreamGroup>>>,
}

/// A wish to be a member.
#[derive(Debug, Clone)]
pub struct JoinStream {
    /// The group; it is made if it is not there.
    pub group: GroupName,
    /// The member's id, which nobody else has and nobody had before; made up if none. A member that is there by this id
    /// begins anew.
    pub member: Option<String>,
    /// The name of the place that it fills: when a member leaves for a while, the next of this name goes on with what it
    /// had.
    pub instance: Option<String>,
    /// The topics that the group reads, with the filter; whatever they are, if empty. The first member defines the group, and one
    /// that says otherwise is refused.
    pub topics: Vec<TopicPattern>,
    /// A CEL expression: other records are none of the group's. With topics, none says that there is none.
    pub filter: Option<String>,
    /// Where the group begins in partitions of which it has no position yet; that is left open if none.
    pub start: Option<OffsetAt>,
    /// How long the member is one without a heartbeat, in milliseconds.
    pub session_ms: u64,
    /// How long it may take to give up a partition, in milliseconds.
    pub handover_ms: u64,
    /// Who it is, for people.
    pub client: String,
}

/// A sign of life.
#[derive(Debug, Clone)]
pub struct StreamBeat {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: String,
    /// The epoch that it was told last.
    pub epoch: Epoch,
    /// All that it has, if that has changed or the answer before may be lost.
    pub owned: Option<Vec<(TopicId, PartitionId)>>,
    /// The topics that it wants from now on, if that changes.
    pub topics: Option<Vec<TopicPattern>>,
    /// How long the answer may wait for news.
    pub wait: Duration,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamShare {
    /// The member.
    pub member: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// The partitions that it owns beyond those that it says it has. There may be more: it should ask again when it has
    /// taken these over.
    pub granted: Vec<StreamPartition>,
    /// Those that it says it has and that it is to give up. They are its own until it says that it does not have them.
    pub taken: Vec<(TopicId, PartitionId)>,
}

/// What a new member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamJoined {
    /// The group's filter.
    pub filter: Option<String>,
    /// What it owns.
    pub share: StreamShare,
}

/// A partition that a member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPartition {
    /// The topic.
    pub topic: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// The group's position, if it has one.
    pub position: Option<Offset>,
    /// The first offset that there is. A position below it means that retention has deleted what was not done.
    pub log_start: Offset,
    /// The end that readers see.
    pub end: Offset,
}

impl Streams {
    /// Goes on with the members that were kept.
    pub(crate) fn load(broker: &Broker) -> Result<(), BrokerError> {
        let topics = broker.topic_shapes();
        let now = broker.clock.monotonic_ms();
        let kept: Vec<(GroupName, Vec<(Id, MemberEntry)>)> = {
            let catalog = lock(&broker.catalog);
            let members = |entry: &GroupEntry| {
                let members = catalog.members(&entry.name);
                let members = members.map(|(id, member)| (Id::from(id.as_str()), member.clone()));
                (entry.name.clone(), members.collect::<Vec<_>>())
            };
            catalog.groups().map(members).filter(|(_, members)| !members.is_empty()).collect()
        };
        for (name, members) in kept {
            let hold = broker.groups.take(&name, GroupProtocol::Stream)?;
            let group = StreamGroup::new(hold, Machine::load(members, &topics, now));
            lock(&broker.streams.groups).insert(name, Arc::new(group));
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &GroupName) -> Option<Arc<StreamGroup>> {
        lock(&self.groups).get(name).cloned()
    }

    fn all(&self) -> Vec<(GroupName, Arc<StreamGroup>)> {
        lock(&self.groups).iter().map(|(name, group)| (name.clone(), Arc::clone(group))).collect()
    }

    /// Forgets a group that has no members any more.
    fn tidy(&self, name: &GroupName, group: &Arc<StreamGroup>) {
        let mut groups = lock(&self.groups);
        if groups.get(name).is_some_and(|held| Arc::ptr_eq(held, group)) && group.end_if_empty() {
            groups.remove(name);
        }
    }

    /// A group was taken away: its members hear that they are none.
    pub(crate) fn end(&self, name: &GroupName) {
        let group = lock(&self.groups).remove(name);
        if let Some(group) = group {
            group.end();
        }
    }

    /// Sends away whose session has ended; when to look again, at the latest.
    pub(crate) fn tick(broker: &Broker) {
        let now = broker.clock.monotonic_ms();
        for (name, group) in broker.streams.all() {
            let gone = group.with(broker, |machine| match machine.next_deadline() {
                Some(deadline) if deadline > now => Vec::new(),
                _ => machine.tick(now),
            });
            for member in gone.iter().flatten() {
                tracing::info!(group = %name, %member, "a member's session has ended");
            }
            if gone.is_none_or(|gone| !gone.is_empty()) {
                broker.streams.tidy(&name, &group);
            }
        }
    }

    /// A topic was created or has more partitions: groups that want it begin with it at its beginning.
    pub(crate) fn welcome(broker: &Broker, topic: &Topic) {
        let name = &topic.entry.name;
        let wants = |topics: &[TopicPattern]| topics.iter().any(|pattern| pattern.matches(name));
        let entries: Vec<GroupName> = {
            let catalog = lock(&broker.catalog);
            let streams = catalog.groups().filter(|entry| entry.kind == GroupKind::Stream && wants(&entry.topics));
            streams.map(|entry| entry.name.clone()).collect()
        };
        for group in entries {
            for partition in 0..topic.entry.partitions {
                broker.begin_at(&group, (topic.entry.id, partition), 0);
            }
            broker.queues.keeper.note_pending();
        }
        for (_, group) in broker.streams.all() {
            group.with(broker, |machine| {
                if machine.wants(name) {
                    machine.set_topics(&broker.topic_shapes());
                }
            });
        }
    }

    /// A topic is gone.
    pub(crate) fn forget(broker: &Broker, topic: &TopicName) {
        for (_, group) in broker.streams.all() {
            group.with(broker, |machine| {
                if machine.knows(topic) {
                    machine.set_topics(&broker.topic_shapes());
                }
            });
        }
    }
}

impl Broker {
    /// Makes a member of a stream group, and the group if need be. What the member is told is on the disk.
    ///
    /// # Errors
    /// It is a group of another kind or defined otherwise, or has members of another protocol; what it asks for is refused; the
    /// journal's.
    pub async fn join_stream(self: &Arc<Self>, join: JoinStream) -> Result<StreamJoined, BrokerError> {
        check(&join)?;
        self.is_nameable(&join).await?;
        let hold = self.hold_group(&join.group, GroupProtocol::Stream).await?;
        let starts = self.stream_starts(&join).await?;
        let name = join.group.clone();
        let broker = Arc::clone(self);
        let joined = blocking(move || {
            broker.admit_stream(&join)?;
            let _declaring = lock(&broker.queues.declaring);
            let entry = broker.define_stream(&join.group, &join.topics, join.filter.as_deref())?;
            for (at, offset) in starts {
                broker.begin_at(&join.group, at, offset);
            }
            let id: Id = join.member.unwrap_or_else(|| TopicId::random().to_string()).into();
            let joining = Joining {
                id: Arc::clone(&id),
                instance: join.instance,
                client: join.client,
                topics: entry.topics.clone(),
                session_ms: join.session_ms,
                handover_ms: join.handover_ms,
                joined_ms: broker.clock.now_ms(),
                consumer: None,
            };
            let share = broker.join_machine(&join.group, joining, hold)?;
            Ok::<_, BrokerError>((id, share, entry.filter))
        });
        let (id, share, filter) = joined.await?;
        self.queues.keeper.kept().await?;
        tracing::info!(group = %name, member = %id, epoch = share.epoch, "a member joined");
        let share = self.stream_share(&name, id.as_ref().to_owned(), share).await;
        Ok(StreamJoined { filter, share })
    }

    /// A group that is not there is made only for a member that says what it is to read.
    async fn is_nameable(self: &Arc<Self>, join: &JoinStream) -> Result<(), BrokerError> {
        if !join.topics.is_empty() {
            return Ok(());
        }
        let (broker, name) = (Arc::clone(self), join.group.clone());
        if blocking(move || lock(&broker.catalog).group(&name).is_some()).await {
            return Ok(());
        }
        let message = format!("there is no group '{}': its first member names its topics", join.group);
        Err(BrokerError::new(ErrorKind::NotFound, message))
    }

    /// Lets the group declare what the member wants beside what it declares, and the member say it.
    fn admit_stream(&self, join: &JoinStream) -> Result<(), BrokerError> {
        let held = lock(&self.catalog).group(&join.group).cloned();
        let Some(mut entry) = held else { return Ok(()) };
        let more: Vec<_> = join.topics.iter().filter(|topic| !entry.topics.contains(topic)).cloned().collect();
        entry.topics.extend(more);
        entry.filter = join.filter.clone().or(entry.filter);
        let topics = if join.topics.is_empty() { &entry.topics } else { &join.topics };
        let said = MemberEntry::said_weight(&join.client, join.instance.as_deref(), topics, None);
        let member = (join.member.as_deref().unwrap_or_default(), said);
        self.admit_declaration(&join.group, Some(entry.weight()), Some(member))
    }

    fn join_machine(&self, name: &GroupName, joining: Joining, hold: super::GroupHold) -> Result<Share, BrokerError> {
        loop {
            let group = {
                let mut groups = lock(&self.streams.groups);
                let new = || Arc::new(StreamGroup::new(hold.clone(), Machine::default()));
                Arc::clone(groups.entry(name.clone()).or_insert_with(new))
            };
            let now = self.clock.monotonic_ms();
            let joined = group.with(self, |machine| {
                machine.join(joining.clone(), &self.topic_shapes(), now)?;
                machine.first_share(&joining.id, now)
            });
            match joined {
                Some(joined) => return Ok(joined?),
                None if hold.is_ended() => {
                    let message = format!("group '{name}' was deleted or reset just now");
                    return Err(BrokerError::new(ErrorKind::Busy, message));
                }
                // Its last member went just now.
                None => self.streams.tidy(name, &group),
            }
        }
    }

    /// Whether a group has members of Kafka's protocols, which have subscriptions of their own and no filter.
    pub(crate) fn has_kafka_members(&self, name: &GroupName) -> bool {
        let now = self.clock.monotonic_ms();
        let group = self.streams.get(name);
        let looks = group.and_then(|group| group.with(self, |machine| machine.look(now))).unwrap_or_default();
        looks.iter().any(|look| look.consumer.is_some())
            || self.classic_look(name).is_some_and(|look| !look.members.is_empty())
    }

    /// A group was defined anew: its native members have these topics, or are sent away to join again.
    pub(crate) fn redefine_members(&self, entry: &GroupEntry, send_away: bool) {
        let Some(group) = self.streams.get(&entry.name) else { return };
        let now = self.clock.monotonic_ms();
        let topics = self.topic_shapes();
        group.with(self, |machine| machine.redefine(&entry.topics, send_away, &topics, now));
        self.streams.tidy(&entry.name, &group);
    }

    /// Where the group begins in the partitions of which it has no position yet.
    async fn stream_starts(
        self: &Arc<Self>,
        join: &JoinStream,
    ) -> Result<Vec<((TopicId, PartitionId), Offset)>, BrokerError> {
        let Some(start) = join.start else { return Ok(Vec::new()) };
        let has: BTreeSet<(TopicName, PartitionId)> = {
            let positions = self.positions(&join.group, None).await;
            positions.into_iter().map(|position| (position.topic, position.partition)).collect()
        };
        let mut starts = Vec::new();
        for topic in self.list_topics() {
            if !join.topics.iter().any(|pattern| pattern.matches(&topic.name)) {
                continue;
            }
            for partition in 0..topic.partitions {
                if !has.contains(&(topic.name.clone(), partition)) {
                    let at = match self.list_offset(topic.name.as_str(), partition, start).await {
                        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(error),
                        // One that is offline begins, should it come back, at its beginning.
                        found => found.map_or(0, |(offset, _)| offset),
                    };
                    starts.push(((topic.id, partition), at));
                }
            }
        }
        Ok(starts)
    }

    /// The group begins here in a partition, unless it has a position there.
    pub(crate) fn begin_at(&self, group: &GroupName, at: (TopicId, PartitionId), offset: Offset) {
        let place = Place { group: group.clone(), topic: at.0, partition: at.1 };
        let position = Position { offset, metadata: String::new(), time_ms: self.clock.now_ms(), leader_epoch: None };
        let begin = |now: Option<Offset>| (now.is_none().then(|| position.clone()), ());
        self.change_position(&place, |change| Ok::<_, BrokerError>(change(&begin))).ok();
    }

    /// Takes a member's sign of life; answers when there is something to tell it, or the wait is over. What it is told
    /// is on the disk.
    ///
    /// # Errors
    /// It is no member (any more), or speaks of another time; the journal's.
    pub async fn beat_stream(self: &Arc<Self>, beat: StreamBeat) -> Result<StreamShare, BrokerError> {
        let StreamBeat { group: name, member, epoch, owned, topics, wait } = beat;
        let unknown = || BrokerError::from(MemberError::Unknown { id: member.clone() });
        let group = self.streams.get(&name).ok_or_else(unknown)?;
        let mut changed = group.watch();
        if let Some(topics) = topics {
            check_topics(&topics)?;
            let said = MemberEntry::said_weight("", None, &topics, None);
            let (broker, of, id) = (Arc::clone(self), name.clone(), member.clone());
            blocking(move || broker.admit_declaration(&of, None, Some((&id, said)))).await?;
            let set = |machine: &mut Machine| machine.set_interest(&member, topics, &self.topic_shapes());
            group.with(self, set).ok_or_else(unknown)??;
        }
        let until = tokio::time::Instant::now() + wait;
        let owned = owned.map(BTreeSet::from_iter);
        let now = || self.clock.monotonic_ms();
        let mut share =
            group.with(self, |machine| machine.beat(&member, epoch, owned, now())).ok_or_else(unknown)??;
        while !share.news {
            let waited = tokio::time::timeout_at(until, changed.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                break;
            }
            let again = |machine: &mut Machine| machine.look_again(&member, epoch, share.beat, now());
            match group.with(self, again).ok_or_else(unknown)?? {
                Some(looked) => share = looked,
                // The member has sent another one, which gets the answer.
                None => break,
            }
        }
        if share.news {
            self.queues.keeper.kept().await?;
        }
        Ok(self.stream_share(&name, member, share).await)
    }

    /// What a member is told, with the positions that it goes on from.
    async fn stream_share(self: &Arc<Self>, group: &GroupName, member: String, share: Share) -> StreamShare {
        let Share { epoch, granted, taken, .. } = share;
        if granted.is_empty() {
            return StreamShare { member, epoch, granted: Vec::new(), taken };
        }
        let (broker, group) = (Arc::clone(self), group.clone());
        let granted = blocking(move || {
            let catalog = lock(&broker.catalog);
            let known = granted.into_iter().filter_map(|(id, partition)| {
                let topic = catalog.topic_by_id(id)?.name.clone();
                let position = catalog.position_of(&group, (id, partition)).map(|position| position.offset);
                Some((topic, id, partition, position))
            });
            let known: Vec<_> = known.collect();
            drop(catalog);
            let granted = known.into_iter().filter_map(|(topic, id, partition, position)| {
                // A topic that was deleted just now is taken away again with the next answer.
                let open = broker.topic(topic.as_str()).ok().filter(|open| open.entry.id == id)?;
                let log = open.partition(partition).ok()?.log();
                let (log_start, end) =
                    log.map_or((0, 0), |log| log.with(|log| (log.start_offset(), log.committed_end())));
                Some(StreamPartition { topic, id, partition, position, log_start, end })
            });
            granted.collect()
        });
        StreamShare { member, epoch, granted: granted.await, taken }
    }

    /// All that a member owns and is not to give up, for doors that tell their clients all of it at a time. What of it has
    /// been told is on the disk.
    pub fn stream_owned(&self, name: &GroupName, member: &str) -> Vec<(TopicId, PartitionId)> {
        let group = self.streams.get(name);
        group.and_then(|group| group.with(self, |machine| machine.owned(member))).unwrap_or_default()
    }

    /// A member goes. With `keep`, what its instance had is kept for the next of that name until the session ends.
    ///
    /// # Errors
    /// It is no member.
    pub async fn leave_stream(self: &Arc<Self>, name: &GroupName, member: &str, keep: bool) -> Result<(), BrokerError> {
        let unknown = || BrokerError::from(MemberError::Unknown { id: member.to_owned() });
        let group = self.streams.get(name).ok_or_else(unknown)?;
        let now = self.clock.monotonic_ms();
        group.with(self, |machine| machine.leave(member, keep, now)).ok_or_else(unknown)??;
        self.streams.tidy(name, &group);
        tracing::info!(group = %name, member, keep, "a member left");
        Ok(())
    }

    /// The topics that there are, as the machine knows them.
    fn topic_shapes(&self) -> Topics {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.iter().map(|(name, topic)| (name.clone(), (topic.entry.id, topic.entry.partitions))).collect()
    }
}

fn check(join: &JoinStream) -> Result<(), BrokerError> {
    let names = [("a member's id", join.member.as_deref()), ("an instance's name", join.instance.as_deref())];
    for (what, name) in names.into_iter().chain([("a client's name", Some(join.client.as_str()))]) {
        let Some(name) = name else { continue };
        if name.chars().count() > NAME_CHARS {
            let length = name.chars().count();
            return Err(refused(format!("{what} of {length} characters; the limit is {NAME_CHARS}")));
        }
    }
    if let Some(id) = &join.member
        && (id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return Err(refused(format!("member id {id:?}; allowed are letters, digits, '.', '_' and '-'")));
    }
    let within = |what: &str, value: Ms, bounds: std::ops::RangeInclusive<u64>| {
        let message = || format!("{what} of {value} ms; allowed are {} to {}", bounds.start(), bounds.end());
        bounds.contains(&value).then_some(()).ok_or_else(|| refused(message()))
    };
    within("a session", join.session_ms, SESSION_MS)?;
    within("a time to hand over", join.handover_ms, HANDOVER_MS)?;
    if let Some(filter) = &join.filter {
        Filter::compile(filter).map_err(|error| refused(format!("filter: {error}")))?;
    }
    check_topics(&join.topics)
}

pub(crate) fn check_topics(topics: &[TopicPattern]) -> Result<(), BrokerError> {
    if topics.len() > PATTERNS {
        return Err(refused(format!("a member with {} topics; the limit is {PATTERNS}", topics.len())));
    }
    Ok(())
}

fn refused(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::InvalidRequest, message)
}
