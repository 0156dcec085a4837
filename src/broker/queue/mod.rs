//! Queue groups: members share the records of a partition, each record is leased to one of them.
//!
//! [`machine`] knows what a group has done of a partition; [`dispatch`] reads and hands out, a task for each partition as
//! long as there are members; [`group`] has the members and takes what they say; [`keeper`] makes it durable.

mod admin;
mod bury;
mod dispatch;
mod graves;
mod group;
mod keeper;
mod machine;
mod pause;
mod receipts;
mod redrive;
mod reopen;
mod settle;
mod skip;
mod stuck;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TimestampMs, TopicId, TopicName, TopicPattern};
use crate::catalog::{Event, GroupEntry, GroupKind, QueueSettings};
use crate::expr::Filter;

use super::broker::{blocking, lock};
use super::groups::{Said, distinct, refuse_other};
use super::hold::Hold;
use super::partition::Topic;
use super::{Broker, BrokerError, OffsetAt};

pub use admin::{ResetPartition, ResetQueue, ResetTo};
pub use dispatch::{DELIVER_AT, EXPIRES_AT};
pub(crate) use graves::dead_letters;
pub(crate) use group::QueueGroup;
pub use group::{Handed, Settlement, Verdict};
pub(crate) use keeper::Keeper;
pub(crate) use machine::{Keep, Machine};
pub use machine::{MemberId, Settled};
pub use pause::Paused;
pub use receipts::{MAX_ASKED, RecordAt};
pub use redrive::{DeadLetterTopic, DeadLetterWay, Redrive, Redriven};
pub use stuck::{GroupRecord, GroupRecords, MAX_LISTED};
pub use tally::FilterCounts;

/// Longest lease and longest wait between deliveries, in milliseconds: a week.
const LONGEST_MS: u64 = 7 * 24 * 3_600_000;
/// Patterns of a group's interest.
const PATTERNS: usize = 100;
/// Records that a member may have out.
const PREFETCH: u32 = 1_000_000;

/// The queue groups that are in use.
#[derive(Default)]
pub(crate) struct Queues {
    groups: Mutex<BTreeMap<GroupName, Arc<QueueGroup>>>,
    members: AtomicU64,
    /// Bytes on their way to members.
    queued: Arc<AtomicUsize>,
    pub(crate) keeper: Keeper,
    /// Held while dead letters are sent back; by topic, what is held of the logs that they go to.
    redriving: tokio::sync::Mutex<HashMap<TopicId, Vec<Hold>>>,
    unsettled: settle::Unsettled,
    /// Held while a group is declared or deleted.
    pub(crate) declaring: Mutex<()>,
}

/// A wish to be a member. The first member of a group defines it; a later one that says otherwise is refused.
#[derive(Debug, Clone)]
pub struct JoinQueue {
    /// The group; it is made if it is not there.
    pub group: GroupName,
    /// The group's rules; whatever they are, if it is not said.
    pub settings: Option<QueueSettings>,
    /// The topics that the group reads, with the filter; whatever they are, if empty.
    pub topics: Vec<TopicPattern>,
    /// A CEL expression: records that it does not select are none of the group's. With topics, none says that there is none.
    pub filter: Option<String>,
    /// Where a partition begins of which the group has done nothing yet.
    pub start: OffsetAt,
    /// Records that the member may have out at a time.
    pub prefetch: u32,
    /// Who it is, for people.
    pub client: String,
}

/// A member of a queue group; when it is dropped, what it had goes to others.
pub struct QueueMember {
    id: MemberId,
    broker: Arc<Broker>,
    group: Arc<QueueGroup>,
    receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<Handed>>,
}

/// A group, with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// What it is.
    pub entry: GroupEntry,
    /// Where its dead letters go, if it is a queue group.
    pub dead_letter: Option<TopicName>,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// Its partitions, by topic and number.
    pub partitions: Vec<GroupPartition>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// Who it says it is.
    pub client: String,
    /// Records that it has out.
    pub in_flight: u64,
    /// The partitions that it owns, in a stream group.
    pub owns: Vec<(TopicName, PartitionId)>,
    /// When it joined.
    pub joined_ms: TimestampMs,
    /// When it was heard of last, in a stream group.
    pub heard_ms: Option<TimestampMs>,
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Everything below is done.
    pub floor: Offset,
    /// Where the partition ends.
    pub end: Offset,
    /// Records that are not done, as far as is known without reading them.
    pub lag: u64,
    /// Records that are out with members.
    pub in_flight: u64,
    /// Records that wait to be delivered again, or until their time has come.
    pub waiting: u64,
    /// Deliveries that were not the first, since the server started.
    pub redeliveries: u64,
    /// The time of the first record that is not done.
    pub oldest_ms: Option<TimestampMs>,
    /// The id of the member that owns it, in a stream group.
    pub owner: Option<String>,
    /// Why the partition cannot be read. Its end and the lag are not known then.
    pub trouble: Option<String>,
}

impl Queues {
    /// Whether a topic is where this group writes its dead letters.
    pub(crate) fn buries_in(&self, group: &str, topic: &TopicName) -> bool {
        let known = GroupName::new(group).ok().and_then(|name| lock(&self.groups).get(&name).cloned());
        match known {
            Some(group) => group.dead_letters().is_ok_and(|dead| dead == *topic),
            None => topic.as_str().strip_prefix("dead-letter.") == Some(group),
        }
    }

    /// A topic was created or has more partitions: groups whose interest it meets begin with it at its beginning.
    pub(crate) fn welcome(&self, broker: &Arc<Broker>, topic: &Topic) {
        let groups: Vec<_> = lock(&self.groups).values().cloned().collect();
        for group in groups.iter().filter(|group| group.wants(&topic.entry.name)) {
            group.add(broker, topic, |_| 0);
            group.dispatch(broker);
        }
    }

    /// A topic is gone.
    pub(crate) fn forget(&self, topic: TopicId) {
        for group in lock(&self.groups).values() {
            group.forget(topic);
        }
    }

    /// The partitions of a group that is in use.
    pub(crate) fn partitions_in_use(&self, name: &GroupName) -> Result<Vec<Arc<group::QueuePartition>>, BrokerError> {
        let group = lock(&self.groups).get(name).cloned().ok_or_else(|| no_group(name))?;
        let inside = lock(&group.inside);
        Ok(inside.partitions.values().cloned().collect())
    }

    /// The time has made a step: what is due by it is due now.
    pub(crate) fn time_stepped(&self) {
        for group in lock(&self.groups).values() {
            group.bump();
        }
    }

    /// Members of a group; none if nobody has taken it into use.
    pub(crate) fn member_count(&self, name: &GroupName) -> usize {
        let group = lock(&self.groups).get(name).cloned();
        group.map_or(0, |group| lock(&group.inside).members.len())
    }

    /// The groups that have members.
    pub(crate) fn with_members(&self) -> Vec<GroupName> {
        let groups: Vec<_> = lock(&self.groups).values().cloned().collect();
        groups.iter().filter(|group| !lock(&group.inside).members.is_empty()).map(|group| group.name.clone()).collect()
    }

    /// A group is no more.
    pub(crate) fn remove(&self, name: &GroupName) -> Option<Arc<QueueGroup>> {
        lock(&self.groups).remove(name)
    }

    pub(crate) fn close(&self) {
        for group in lock(&self.groups).values() {
            group.stop(None);
        }
    }
}

impl Broker {
    /// Makes a member of a queue group, and the group if need be.
    ///
    /// # Errors
    /// The group is of another kind or defined otherwise; its rules, filter or interest are refused; the journal's.
    pub async fn join_queue(self: &Arc<Self>, join: JoinQueue) -> Result<QueueMember, BrokerError> {
        self.join_queue_within(join, group::QUEUED_BYTES).await
    }

    /// The same, for a member that gets nothing more as long as so many bytes are on their way to it.
    ///
    /// # Errors
    /// As [`Broker::join_queue`].
    pub async fn join_queue_within(
        self: &Arc<Self>,
        join: JoinQueue,
        queued_most: usize,
    ) -> Result<QueueMember, BrokerError> {
        if !(1..=PREFETCH).contains(&join.prefetch) {
            return Err(refused(format!("a prefetch of {}; allowed are 1 to {PREFETCH}", join.prefetch)));
        }
        let (prefetch, client) = (join.prefetch, join.client.clone());
        let group = self.declare_queue(join).await?;
        let id = self.queues.members.fetch_add(1, Ordering::Relaxed) + 1;
        let receiver = tokio::sync::Mutex::new(group.join(self, id, (prefetch, queued_most), client));
        let member = QueueMember { id, broker: Arc::clone(self), group, receiver };
        // Groups that are there by then are stopped; one that comes later would never be.
        match self.queues.keeper.is_stopping() {
            true => Err(BrokerError::new(ErrorKind::ShuttingDown, "the server is stopping")),
            false => Ok(member),
        }
    }

    /// The group of a wish, made if it is not there.
    ///
    /// # Errors
    /// As of [`Broker::join_queue`].
    pub(crate) async fn declare_queue(self: &Arc<Self>, join: JoinQueue) -> Result<Arc<QueueGroup>, BrokerError> {
        let broker = Arc::clone(self);
        let runtime = tokio::runtime::Handle::current();
        let starts = self.starts_of(&join.topics, join.start).await?;
        blocking(move || broker.declare(&join.group, |held, now| declared(&join, held, now), &starts, runtime)).await
    }

    /// The same, whatever the group was defined as before: the push subscription that it is of is replaced.
    ///
    /// # Errors
    /// As of [`Broker::join_queue`].
    pub(crate) async fn replace_queue(self: &Arc<Self>, join: JoinQueue) -> Result<Arc<QueueGroup>, BrokerError> {
        let broker = Arc::clone(self);
        let runtime = tokio::runtime::Handle::current();
        let starts = self.starts_of(&join.topics, join.start).await?;
        blocking(move || broker.declare(&join.group, |held, now| replaced(&join, held, now), &starts, runtime)).await
    }

    /// Where each partition of these topics begins by what is asked for; at its beginning, if it is not named.
    pub(crate) async fn starts_of(
        &self,
        topics: &[TopicPattern],
        start: OffsetAt,
    ) -> Result<HashMap<(TopicId, PartitionId), Offset>, BrokerError> {
        let mut starts = HashMap::new();
        if start == OffsetAt::Beginning {
            return Ok(starts);
        }
        for topic in self.list_topics() {
            if topics.iter().any(|pattern| pattern.matches(&topic.name)) {
                for number in 0..topic.partitions {
                    let (offset, _) = self.list_offset(topic.name.as_str(), number, start).await?;
                    starts.insert((topic.id, number), offset);
                }
            }
        }
        Ok(starts)
    }

    /// The group as `define` says, which is told what it is now. Blocks.
    ///
    /// # Errors
    /// Those of `define`; the definition is refused; the journal's.
    pub(crate) fn declare(
        self: &Arc<Self>,
        name: &GroupName,
        define: impl Fn(Option<&GroupEntry>, TimestampMs) -> Result<GroupEntry, BrokerError>,
        starts: &HashMap<(TopicId, PartitionId), Offset>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Arc<QueueGroup>, BrokerError> {
        let declare = || {
            let held = lock(&self.catalog).group(name).cloned();
            define(held.as_ref(), self.clock.now_ms()).map(|entry| (held, entry))
        };
        self.admit_group(name)?;
        self.admit_declaration(name, Some(declare()?.1.weight()), None)?;
        let _declaring = lock(&self.queues.declaring);
        let (held, entry) = declare()?;
        let filter = self.check_definition(&entry, held.as_ref())?;
        if held.as_ref() != Some(&entry) {
            lock(&self.catalog).commit(Event::GroupDeclared(entry.clone()), self.clock.now_ms())?;
            tracing::info!(group = %entry.name, new = held.is_none(), "group declared");
        }
        match held {
            None => self.groups.table.made(&entry.name, self.clock.now_ms()),
            Some(_) => self.groups.table.touch(&entry.name, self.clock.now_ms()),
        }
        let group = Arc::clone(
            lock(&self.queues.groups)
                .entry(entry.name.clone())
                .or_insert_with(|| Arc::new(QueueGroup::new(entry.clone(), filter.clone(), runtime))),
        );
        group.set_paused(lock(&self.catalog).paused(name).is_some());
        if *lock(&group.entry) != entry {
            group.redeclare(self, entry, filter);
        }
        for topic in self.open_topics_of(&group) {
            group.add(self, &topic, |number| starts.get(&(topic.entry.id, number)).copied().unwrap_or(0));
        }
        group.set_ready();
        // Also without members: it may not be known what was written.
        group.dispatch(self);
        Ok(group)
    }

    /// What a queue group is defined as may be that; its filter.
    fn check_definition(
        &self,
        entry: &GroupEntry,
        held: Option<&GroupEntry>,
    ) -> Result<Option<Arc<Filter>>, BrokerError> {
        let GroupKind::Queue(rules) = &entry.kind else {
            return Err(refused(format!("group '{}' is a stream group", entry.name)));
        };
        check_rules(rules)?;
        dead_letters(&entry.name, rules)?;
        if entry.topics.is_empty() || entry.topics.len() > PATTERNS {
            let count = entry.topics.len();
            return Err(refused(format!("group '{}' with {count} topics; allowed are 1 to {PATTERNS}", entry.name)));
        }
        let same = held.is_some_and(|held| held.kind == entry.kind);
        if let Some(topic) = rules.dead_letter.as_ref().filter(|_| !same) {
            refuse_compacted(self, topic)?;
        }
        let filter = entry.filter.as_deref().map(Filter::compile).transpose();
        Ok(filter.map_err(|error| refused(error.to_string()))?.map(Arc::new))
    }

    fn open_topics_of(&self, group: &QueueGroup) -> Vec<Arc<Topic>> {
        let topics = self.topics.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        topics.values().filter(|topic| group.wants(&topic.entry.name)).cloned().collect()
    }

    /// A queue group that is in use, or is taken into use from what was kept.
    fn queue_group(self: &Arc<Self>, name: &GroupName) -> Result<Arc<QueueGroup>, BrokerError> {
        // One that somebody else is taking into use has not all its partitions yet: who asked for its lag would be told of none.
        if let Some(group) = lock(&self.queues.groups).get(name).filter(|group| group.is_ready()) {
            return Ok(Arc::clone(group));
        }
        let entry = lock(&self.catalog).group(name).cloned();
        let entry = entry.ok_or_else(|| no_group(name))?;
        let as_it_is = |held: Option<&GroupEntry>, _| held.cloned().ok_or_else(|| no_group(name));
        self.declare(&entry.name, as_it_is, &HashMap::new(), tokio::runtime::Handle::current())
    }
}

impl QueueMember {
    /// Its number, unique as long as the server runs.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// How long a record that it was handed is its own, in milliseconds.
    pub fn lease_ms(&self) -> u64 {
        self.group.rules().lease_ms
    }

    /// The group's rules.
    pub fn rules(&self) -> QueueSettings {
        self.group.rules()
    }

    /// Why there will be nothing more, once [`QueueMember::next`] has said so.
    pub fn ended(&self) -> BrokerError {
        self.group.ended()
    }

    /// The next records; `None` when the group is gone or the server stops.
    pub async fn next(&self) -> Option<Handed> {
        self.receiver.lock().await.recv().await
    }

    /// What [`QueueMember::next`] gave has been sent on and its bytes no longer count as waiting.
    pub fn sent(&self, bytes: usize) {
        self.group.sent(self.id, bytes);
    }

    /// Takes what the member says about records; it is on the disk some milliseconds later.
    pub fn settle_now(&self, settlements: &[Settlement]) -> Settled {
        let mut all = Settled::default();
        for settlement in settlements {
            let one = self.group.settle(&self.broker, self.id, settlement);
            all.settled += one.settled;
            all.lost += one.lost;
        }
        all
    }

    /// Takes what the member says about records; if it is to be durable, it is on the disk when this returns.
    ///
    /// # Errors
    /// The journal's, if it is to be durable; what was said holds all the same.
    pub async fn settle(&self, settlements: &[Settlement], durable: bool) -> Result<Settled, BrokerError> {
        let all = self.settle_now(settlements);
        if durable {
            self.broker.queues.keeper.kept().await?;
            // Nothing is kept any more of a group that is gone, or goes on elsewhere.
            self.group.check_kept()?;
        }
        Ok(all)
    }

    /// Leaves: what it had goes to others at once.
    pub fn leave(&self) {
        self.group.leave(&self.broker, self.id);
    }

    /// Leaves, with nothing under way: what it still had goes to others as if it had not been delivered.
    pub fn retire(&self) {
        self.group.retire(&self.broker, self.id);
    }
}

impl Drop for QueueMember {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What a group is defined as, by the wish of somebody who joins.
///
/// # Errors
/// It is defined otherwise, or of another kind; it is not there, and no topics are named.
fn declared(join: &JoinQueue, held: Option<&GroupEntry>, now: TimestampMs) -> Result<GroupEntry, BrokerError> {
    if let Some(filter) = &join.filter {
        Filter::compile(filter).map_err(|error| refused(error.to_string()))?;
    }
    let Some(held) = held else {
        if join.topics.is_empty() {
            let message = format!("there is no group '{}': its first member names its topics", join.group);
            return Err(BrokerError::new(ErrorKind::NotFound, message));
        }
        return Ok(GroupEntry {
            name: join.group.clone(),
            kind: GroupKind::Queue(join.settings.clone().unwrap_or_default()),
            topics: distinct(&join.topics),
            filter: join.filter.clone(),
            created_ms: now,
        });
    };
    if held.kind == GroupKind::Stream {
        return Err(refused(format!("group '{}' is a stream group", join.group)));
    }
    refuse_other(held, Said { topics: &join.topics, filter: join.filter.as_deref(), rules: join.settings.as_ref() })?;
    Ok(held.clone())
}

/// What the group of a push subscription is defined as, when that is replaced.
fn replaced(join: &JoinQueue, held: Option<&GroupEntry>, now: TimestampMs) -> Result<GroupEntry, BrokerError> {
    let mut entry = match held {
        Some(held) => GroupEntry { topics: distinct(&join.topics), filter: join.filter.clone(), ..held.clone() },
        None => return declared(join, None, now),
    };
    if let (GroupKind::Queue(rules), Some(settings)) = (&mut entry.kind, &join.settings) {
        rules.clone_from(settings);
    }
    Ok(entry)
}

fn check_rules(rules: &QueueSettings) -> Result<(), BrokerError> {
    let within = |what: &str, value: u64, least: u64, most: u64| {
        let fits = (least..=most).contains(&value);
        fits.then_some(()).ok_or_else(|| refused(format!("{what} of {value}; allowed are {least} to {most}")))
    };
    within("a lease (ms)", rules.lease_ms, 100, LONGEST_MS)?;
    within("a number of deliveries", rules.max_deliveries.into(), 1, 1_000_000)?;
    within("a backoff (ms)", rules.backoff_ms, 0, LONGEST_MS)?;
    within("a longest backoff (ms)", rules.backoff_max_ms, rules.backoff_ms, LONGEST_MS)
}

/// Of dead letters with one key a compacted topic would keep the newest only.
fn refuse_compacted(broker: &Broker, topic: &TopicName) -> Result<(), BrokerError> {
    match broker.topic(topic.as_str()) {
        Ok(open) if open.settings.cleanup.compacts() => Err(refused(format!(
            "topic '{topic}' has cleanup={}, which would remove dead letters; they need cleanup=delete",
            open.settings.get("cleanup")?
        ))),
        _ => Ok(()),
    }
}

fn refused(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::InvalidRequest, message)
}

pub(crate) fn no_group(name: &GroupName) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("there is no group '{name}'"))
}
