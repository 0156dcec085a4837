//! What a group is defined as: its kind, its topics, its filter and, of a queue group, its rules. The first member defines a group, or
//! [`Broker::create_group`] does. From then on only [`Broker::alter_group`] changes it: a member says the same or nothing at all, and one
//! that says otherwise is refused. So no member takes records away from the others, or gives them records that they never asked for.
//!
//! Members of Kafka's protocols have subscriptions of their own. They define nothing, and join no group that has a filter.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TopicId, TopicName, TopicPattern};
use crate::catalog::{Event, GroupEntry, GroupKind, QueueSettings};
use crate::expr::Filter;

use super::super::broker::{blocking, lock};
use super::super::queue::{JoinQueue, no_group};
use super::super::stream::check_topics;
use super::super::{Broker, BrokerError, OffsetAt};

/// Topics that a message names of those that are said.
const SHOWN: usize = 10;

/// Where a group begins, by topic and partition.
type Starts = HashMap<(TopicId, PartitionId), Offset>;

/// A group to be made.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// Its name.
    pub name: GroupName,
    /// Its kind, of a queue group with its rules.
    pub kind: GroupKind,
    /// The topics that it reads, as names or patterns.
    pub topics: Vec<TopicPattern>,
    /// A CEL expression: other records are none of the group's.
    pub filter: Option<String>,
    /// Where it begins in the partitions that there are.
    pub start: OffsetAt,
}

/// A change of a group's definition. What is not said stays.
#[derive(Debug, Clone)]
pub struct AlterGroup {
    /// The group.
    pub name: GroupName,
    /// The topics that it reads from now on; as they are, if empty.
    pub topics: Vec<TopicPattern>,
    /// The filter from now on, or `Some(None)` for none.
    pub filter: Option<Option<String>>,
    /// The rules from now on, of a queue group.
    pub rules: RulesChange,
    /// Where it begins in partitions of which it has done nothing yet.
    pub start: OffsetAt,
}

/// A change of a queue group's rules. What is not said stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesChange {
    /// How long a record is its member's, in milliseconds.
    pub lease_ms: Option<u64>,
    /// Deliveries of a record after which it is a dead letter.
    pub max_deliveries: Option<u32>,
    /// The wait before the second delivery, in milliseconds.
    pub backoff_ms: Option<u64>,
    /// The longest wait between two deliveries, in milliseconds. A longer `backoff_ms` raises it.
    pub backoff_max_ms: Option<u64>,
    /// The topic for dead letters, or `Some(None)` for `dead-letter.GROUP`.
    pub dead_letter: Option<Option<TopicName>>,
    /// Whether the next record of a key is delivered only when the one before is done.
    pub ordered_by_key: Option<bool>,
}

impl RulesChange {
    fn apply(&self, rules: &QueueSettings) -> QueueSettings {
        let backoff_ms = self.backoff_ms.unwrap_or(rules.backoff_ms);
        let longest =
            || if self.backoff_ms.is_some() { rules.backoff_max_ms.max(backoff_ms) } else { rules.backoff_max_ms };
        QueueSettings {
            lease_ms: self.lease_ms.unwrap_or(rules.lease_ms),
            max_deliveries: self.max_deliveries.unwrap_or(rules.max_deliveries),
            backoff_ms,
            backoff_max_ms: self.backoff_max_ms.unwrap_or_else(longest),
            dead_letter: self.dead_letter.clone().unwrap_or_else(|| rules.dead_letter.clone()),
            ordered_by_key: self.ordered_by_key.unwrap_or(rules.ordered_by_key),
        }
    }
}

/// What somebody who joins says of a group. No topics and no filter say nothing of what it reads; topics without a filter say that
/// there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) topics: &'a [TopicPattern],
    pub(crate) filter: Option<&'a str>,
    pub(crate) rules: Option<&'a QueueSettings>,
}

/// Refuses what is said of a group if the group is defined otherwise.
///
/// # Errors
/// `AlreadyExists`, with each difference: what the group has, and what was said.
pub(crate) fn refuse_other(held: &GroupEntry, said: Said<'_>) -> Result<(), BrokerError> {
    let differences = differences(held, said);
    if differences.is_empty() {
        return Ok(());
    }
    let (name, differences) = (&held.name, differences.join("; "));
    let message = format!(
        "group '{name}' is defined otherwise: {differences}. Say nothing of these to join it as it is, or change it: tidelog group \
         alter {name}, or consume --redefine"
    );
    Err(BrokerError::new(ErrorKind::AlreadyExists, message))
}

fn differences(held: &GroupEntry, said: Said<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let set = |topics: &[TopicPattern]| topics.iter().map(|topic| topic.as_str().to_owned()).collect::<BTreeSet<_>>();
    if !said.topics.is_empty() && set(said.topics) != set(&held.topics) {
        found.push(format!("its topics are {}, not {}", shown(&held.topics), shown(said.topics)));
    }
    let of_interest = !said.topics.is_empty() || said.filter.is_some();
    if of_interest && said.filter.map(str::trim) != held.filter.as_deref().map(str::trim) {
        let filter = |filter: Option<&str>| filter.map_or_else(|| "none".to_owned(), |filter| format!("'{filter}'"));
        found.push(format!("its filter is {}, not {}", filter(held.filter.as_deref()), filter(said.filter)));
    }
    if let (GroupKind::Queue(has), Some(rules)) = (&held.kind, said.rules) {
        let dead_letter = |rules: &QueueSettings| {
            rules.dead_letter.as_ref().map_or_else(|| format!("dead-letter.{}", held.name), ToString::to_string)
        };
        let ms = |ms: u64| format!("{ms} ms");
        let rules = [
            ("lease", ms(has.lease_ms), ms(rules.lease_ms)),
            ("number of deliveries", has.max_deliveries.to_string(), rules.max_deliveries.to_string()),
            ("backoff", ms(has.backoff_ms), ms(rules.backoff_ms)),
            ("longest backoff", ms(has.backoff_max_ms), ms(rules.backoff_max_ms)),
            ("dead-letter topic", dead_letter(has), dead_letter(rules)),
            ("order by key", has.ordered_by_key.to_string(), rules.ordered_by_key.to_string()),
        ];
        let differs = rules.into_iter().filter(|(_, has, said)| has != said);
        found.extend(differs.map(|(what, has, said)| format!("its {what} is {has}, not {said}")));
    }
    found
}

fn shown(topics: &[TopicPattern]) -> String {
    if topics.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = topics.iter().take(SHOWN).map(TopicPattern::as_str).collect();
    let more = topics.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names.join(" "))
}

impl Broker {
    /// Makes a group without a member. One that is there and defined the same is fine; whether it is new.
    ///
    /// # Errors
    /// It is defined otherwise; a part of it is refused; the journal's.
    pub async fn create_group(self: &Arc<Self>, new: NewGroup) -> Result<bool, BrokerError> {
        if new.topics.is_empty() {
            return Err(refused(format!("group '{}' reads no topic", new.name)));
        }
        let (broker, name) = (Arc::clone(self), new.name.clone());
        let is_new = blocking(move || lock(&broker.catalog).group(&name).is_none()).await;
        if let GroupKind::Queue(rules) = new.kind {
            let join = JoinQueue {
                group: new.name,
                settings: Some(rules),
                topics: new.topics,
                filter: new.filter,
                start: new.start,
                prefetch: 1,
                client: String::new(),
            };
            self.declare_queue(join).await?;
        } else {
            self.create_stream(new).await?;
        }
        self.queues.keeper.kept().await?;
        Ok(is_new)
    }

    async fn create_stream(self: &Arc<Self>, new: NewGroup) -> Result<(), BrokerError> {
        check_filter(new.filter.as_deref())?;
        check_topics(&new.topics)?;
        let starts = self.starts_of(&new.topics, new.start).await?;
        let broker = Arc::clone(self);
        blocking(move || {
            broker.declare_stream(&new.name)?;
            let _declaring = lock(&broker.queues.declaring);
            broker.define_stream(&new.name, &new.topics, new.filter.as_deref())?;
            broker.begin_group(&new.name, &starts);
            Ok(())
        })
        .await
    }

    /// Changes what a group is defined as; what it is then. Members of a queue group have the new definition from their next delivery on.
    /// Members of a stream group are told which partitions they have now; if the filter changes, they are sent away and join
    /// again.
    ///
    /// # Errors
    /// There is none of that name; it is a push subscription's; a part of it is refused; the journal's.
    pub async fn alter_group(self: &Arc<Self>, change: AlterGroup) -> Result<GroupEntry, BrokerError> {
        let _pushes = self.pushes.changing.lock().await;
        let (broker, name) = (Arc::clone(self), change.name.clone());
        let (held, is_push) = blocking(move || {
            let catalog = lock(&broker.catalog);
            (catalog.group(&name).cloned(), catalog.push(&name).is_some())
        })
        .await;
        let held = held.ok_or_else(|| no_group(&change.name))?;
        if is_push {
            let name = &change.name;
            let message =
                format!("group '{name}' is that of the push subscription of this name: change that, with push alter");
            return Err(BrokerError::new(ErrorKind::Busy, message));
        }
        let filter = change.filter.as_ref().and_then(Option::as_deref);
        check_filter(filter)?;
        let starts = self.starts_of(&change.topics, change.start).await?;
        let altered = match held.kind {
            GroupKind::Queue(_) => self.redefine_queue(change, starts).await?,
            GroupKind::Stream => self.redefine_stream(change, starts).await?,
        };
        self.queues.keeper.kept().await?;
        Ok(altered)
    }

    /// The same of the group of a push subscription, for whoever holds what changes those.
    ///
    /// # Errors
    /// There is none of that name; a part of it is refused; the journal's.
    pub(crate) async fn alter_group_of_push(self: &Arc<Self>, change: AlterGroup) -> Result<(), BrokerError> {
        check_filter(change.filter.as_ref().and_then(Option::as_deref))?;
        let starts = self.starts_of(&change.topics, change.start).await?;
        self.redefine_queue(change, starts).await?;
        self.queues.keeper.kept().await
    }

    async fn redefine_queue(self: &Arc<Self>, change: AlterGroup, starts: Starts) -> Result<GroupEntry, BrokerError> {
        let (broker, runtime) = (Arc::clone(self), tokio::runtime::Handle::current());
        blocking(move || {
            let define = |held: Option<&GroupEntry>, _| {
                let held = held.ok_or_else(|| no_group(&change.name))?;
                let mut entry = altered(held, &change);
                if let GroupKind::Queue(rules) = &mut entry.kind {
                    *rules = change.rules.apply(rules);
                }
                Ok(entry)
            };
            let group = broker.declare(&change.name, define, &starts, runtime)?;
            Ok(lock(&group.entry).clone())
        })
        .await
    }

    async fn redefine_stream(self: &Arc<Self>, change: AlterGroup, starts: Starts) -> Result<GroupEntry, BrokerError> {
        if change.rules != RulesChange::default() {
            return Err(refused(format!("group '{}' is a stream group, which has no rules", change.name)));
        }
        check_topics(&change.topics)?;
        let broker = Arc::clone(self);
        blocking(move || broker.alter_stream(&change, &starts)).await
    }

    fn alter_stream(&self, change: &AlterGroup, starts: &Starts) -> Result<GroupEntry, BrokerError> {
        let name = &change.name;
        let _declaring = lock(&self.queues.declaring);
        let kafka_members = self.has_kafka_members(name);
        let mut catalog = lock(&self.catalog);
        let held = catalog.group(name).cloned().ok_or_else(|| no_group(name))?;
        let entry = altered(&held, change);
        if entry.filter.is_some() && kafka_members {
            return Err(refused(format!(
                "group '{name}' has members of Kafka's protocols, which cannot apply a filter"
            )));
        }
        if entry.topics.is_empty() && entry.filter.is_some() {
            return Err(refused(format!("group '{name}' has no topics of its own that a filter could be for")));
        }
        if entry == held {
            return Ok(entry);
        }
        catalog.commit(Event::GroupDeclared(entry.clone()), self.clock.now_ms())?;
        drop(catalog);
        self.begin_group(name, starts);
        self.redefine_members(&entry, entry.filter != held.filter);
        tracing::info!(group = %name, "group altered");
        Ok(entry)
    }

    fn begin_group(&self, name: &GroupName, starts: &Starts) {
        for (at, offset) in starts {
            self.begin_at(name, *at, *offset);
        }
        self.queues.keeper.note_pending();
    }

    /// What a stream group is defined as. The first who says topics defines it; who comes later says the same or nothing. The caller
    /// has `declaring`.
    pub(crate) fn define_stream(
        &self,
        name: &GroupName,
        topics: &[TopicPattern],
        filter: Option<&str>,
    ) -> Result<GroupEntry, BrokerError> {
        let kafka_members = self.has_kafka_members(name);
        let mut catalog = lock(&self.catalog);
        let Some(held) = catalog.group(name).cloned() else {
            return Err(BrokerError::new(ErrorKind::Busy, format!("group '{name}' was deleted just now")));
        };
        if held.topics.is_empty() && !topics.is_empty() {
            if filter.is_some() && kafka_members {
                let message = format!("group '{name}' has members of Kafka's protocols, which cannot apply a filter");
                return Err(refused(message));
            }
            let mut entry = held;
            entry.topics = distinct(topics);
            entry.filter = filter.map(str::to_owned);
            catalog.commit(Event::GroupDeclared(entry.clone()), self.clock.now_ms())?;
            return Ok(entry);
        }
        refuse_other(&held, Said { topics, filter, rules: None })?;
        if held.topics.is_empty() {
            return Err(refused(format!("group '{name}' has no topics of its own yet: its first member names them")));
        }
        Ok(held)
    }

    /// Refuses a member of Kafka's protocols in a group with a filter: it would read, and let the group pass, what is none of the
    /// group's.
    ///
    /// # Errors
    /// `InvalidRequest`: the group has a filter.
    pub(crate) fn refuse_filter_of(&self, name: &GroupName) -> Result<(), BrokerError> {
        let Some(filter) = lock(&self.catalog).group(name).and_then(|entry| entry.filter.clone()) else {
            return Ok(());
        };
        Err(refused(format!(
            "group '{name}' has the filter '{filter}', which members of Kafka's protocols cannot apply: use another group, or take \
             the filter away (tidelog group alter {name} --no-filter)"
        )))
    }

    /// Whether there is a group that may read a topic; `false` for a group that does not exist yet. One that only Kafka's clients
    /// have used may read anything.
    ///
    /// # Errors
    /// `InvalidRequest`: it does not read the topic.
    pub(crate) fn check_group_reads(&self, name: &GroupName, topic: &TopicName) -> Result<bool, BrokerError> {
        let entry = lock(&self.catalog).group(name).cloned();
        let Some(entry) = entry else { return Ok(false) };
        let wants = entry.topics.iter().any(|pattern| pattern.matches(topic));
        let reads = match &entry.kind {
            GroupKind::Queue(_) => wants,
            GroupKind::Stream => wants || entry.topics.is_empty() || self.has_position_in(name, topic),
        };
        if reads {
            return Ok(true);
        }
        Err(refused(format!("group '{name}' does not read topic '{topic}': its topics are {}", shown(&entry.topics))))
    }

    /// [`Broker::check_group_reads`], for who cannot block.
    ///
    /// # Errors
    /// As there.
    pub async fn group_reads(self: &Arc<Self>, name: &GroupName, topic: &TopicName) -> Result<bool, BrokerError> {
        let (broker, name, topic) = (Arc::clone(self), name.clone(), topic.clone());
        blocking(move || broker.check_group_reads(&name, &topic)).await
    }

    fn has_position_in(&self, name: &GroupName, topic: &TopicName) -> bool {
        self.positions_now(name, None).iter().any(|position| position.topic == *topic)
    }
}

fn altered(held: &GroupEntry, change: &AlterGroup) -> GroupEntry {
    let mut entry = held.clone();
    if !change.topics.is_empty() {
        entry.topics = distinct(&change.topics);
    }
    if let Some(filter) = &change.filter {
        entry.filter.clone_from(filter);
    }
    entry
}

/// The same topics in the same order, each once.
pub(crate) fn distinct(topics: &[TopicPattern]) -> Vec<TopicPattern> {
    let mut seen = BTreeSet::new();
    topics.iter().filter(|topic| seen.insert(topic.as_str().to_owned())).cloned().collect()
}

fn check_filter(filter: Option<&str>) -> Result<(), BrokerError> {
    filter.map(Filter::compile).transpose().map(drop).map_err(|error| refused(format!("filter: {error}")))
}

fn refused(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::InvalidRequest, message)
}
