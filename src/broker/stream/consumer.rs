//! Stream groups for members that speak Kafka's protocol of groups that the server shares out (KIP-848). They are members
//! like the others, also beside others; each hears all that it is to have at a time, and no heartbeat waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::{GroupName, PartitionId, TopicId, TopicName, TopicPattern, TopicRegex};
use crate::catalog::{Assignor, ConsumerEntry, MemberEntry};

use super::super::broker::{blocking, lock};
use super::super::groups::GroupProtocol;
use super::super::{Broker, BrokerError, Commit};
use super::machine::{Change, Epoch, Id, Joining, Look, Machine, MemberError, Share};
use super::{HANDOVER_MS, NAME_CHARS, SESSION_MS, refused};

/// Topics that a member may name.
const NAMES: usize = 1000;

/// A wish to be a member.
#[derive(Debug, Clone)]
pub struct ConsumerJoin {
    /// The group; it is made if it is not there.
    pub group: GroupName,
    /// The member's id. A member that is there by this id begins anew.
    pub member: String,
    /// The name of the place that it fills, if it has one.
    pub instance: Option<String>,
    /// The topics that it wants, by name.
    pub topics: Vec<TopicName>,
    /// Further ones, by an expression.
    pub regex: Option<TopicRegex>,
    /// How it wants partitions to be shared out.
    pub assignor: Option<Assignor>,
    /// The rack it says it is in.
    pub rack: Option<String>,
    /// Who it is, for people.
    pub client: String,
    /// Where it is, for people.
    pub host: String,
    /// How long it is a member without a heartbeat, in milliseconds.
    pub session_ms: u64,
    /// How long it may take to give up a partition, in milliseconds; as near to it as is allowed.
    pub handover_ms: u64,
}

/// A sign of life, with what has changed.
#[derive(Debug, Clone)]
pub struct ConsumerBeat {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: String,
    /// The name of the place that it fills, if it says so.
    pub instance: Option<String>,
    /// The epoch that it was told last.
    pub epoch: Epoch,
    /// All that it has, if that has changed or the answer before may be lost.
    pub owned: Option<Vec<(TopicId, PartitionId)>>,
    /// The topics that it names from now on, if that changes.
    pub topics: Option<Vec<TopicName>>,
    /// The expression from now on, if that changes; `Some(None)` for none.
    pub regex: Option<Option<TopicRegex>>,
    /// How it wants partitions to be shared out, if that changes.
    pub assignor: Option<Assignor>,
    /// Its rack, if that changes.
    pub rack: Option<String>,
    /// How long it may take to give up a partition, in milliseconds, if that changes.
    pub handover_ms: Option<u64>,
}

/// What a member is told. It is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerShare {
    /// Its epoch.
    pub epoch: Epoch,
    /// All that it is to have now, if there is news of that. What it has beyond, it is to give up.
    pub assignment: Option<Vec<(TopicId, PartitionId)>>,
    /// Everybody in the group has what it is to have.
    pub settled: bool,
}

/// A group whose members are told their shares, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerLook {
    /// Everybody has what it is to have.
    pub settled: bool,
    /// The group's epoch.
    pub epoch: Epoch,
    /// How partitions are shared out.
    pub assignor: &'static str,
    /// The members.
    pub members: Vec<ConsumerMember>,
}

/// A member of such a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerMember {
    /// Its id.
    pub id: String,
    /// The name of the place that it fills.
    pub instance: Option<String>,
    /// The rack it says it is in.
    pub rack: Option<String>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Who it says it is.
    pub client: String,
    /// Where it is, if it speaks Kafka's protocol.
    pub host: String,
    /// The topics and patterns that it names.
    pub topics: Vec<TopicPattern>,
    /// The expression for further ones.
    pub regex: Option<String>,
    /// What it owns.
    pub owns: Vec<(TopicName, TopicId, PartitionId)>,
    /// What it is to have.
    pub target: Vec<(TopicName, TopicId, PartitionId)>,
}

fn patterns(names: &[TopicName]) -> Result<Vec<TopicPattern>, BrokerError> {
    if names.len() > NAMES {
        return Err(refused(format!("a member with {} topics; the limit is {NAMES}", names.len())));
    }
    let mut patterns: Vec<_> = names.iter().map(|name| TopicPattern::new(name.as_str())).collect::<Result<_, _>>()?;
    patterns.sort();
    patterns.dedup();
    Ok(patterns)
}

fn short(what: &str, text: &str) -> Result<(), BrokerError> {
    let length = text.chars().count();
    match length > NAME_CHARS {
        true => Err(refused(format!("{what} of {length} characters; the limit is {NAME_CHARS}"))),
        false => Ok(()),
    }
}

fn handover(wanted: u64) -> u64 {
    wanted.clamp(*HANDOVER_MS.start(), *HANDOVER_MS.end())
}

impl Broker {
    /// Makes a member of a group, and the group if need be. What the member is told is on the disk.
    ///
    /// # Errors
    /// It is a group of another kind, has members of another protocol, or has a filter; what it asks for is refused;
    /// the journal's.
    pub async fn join_consumer(self: &Arc<Self>, join: ConsumerJoin) -> Result<ConsumerShare, BrokerError> {
        short("a member's id", &join.member)?;
        for (what, text) in [("an instance's name", &join.instance), ("a rack's name", &join.rack)] {
            text.as_deref().map_or(Ok(()), |text| short(what, text))?;
        }
        if join.member.is_empty() {
            return Err(refused("a member without an id".to_owned()));
        }
        let topics = patterns(&join.topics)?;
        let hold = self.hold_group(&join.group, GroupProtocol::Stream).await?;
        let (broker, name) = (Arc::clone(self), join.group.clone());
        let joined = blocking(move || {
            let consumer =
                ConsumerEntry { host: join.host, rack: join.rack, assignor: join.assignor, regex: join.regex };
            let said = MemberEntry::said_weight(&join.client, join.instance.as_deref(), &topics, Some(&consumer));
            broker.admit_declaration(&join.group, None, Some((&join.member, said)))?;
            let _declaring = lock(&broker.queues.declaring);
            broker.refuse_filter_of(&join.group)?;
            let id: Id = join.member.into();
            let joining = Joining {
                id: Arc::clone(&id),
                instance: join.instance,
                client: join.client.chars().take(NAME_CHARS).collect(),
                topics,
                session_ms: join.session_ms.clamp(*SESSION_MS.start(), *SESSION_MS.end()),
                handover_ms: handover(join.handover_ms),
                joined_ms: broker.clock.now_ms(),
                consumer: Some(consumer),
            };
            let share = broker.join_machine(&join.group, joining, hold)?;
            Ok::<_, BrokerError>((id, share))
        });
        let (id, share) = joined.await?;
        let told = self.told(&name, &id, &share, true)?;
        self.queues.keeper.kept().await?;
        tracing::info!(group = %name, member = %id, epoch = share.epoch, "a member joined");
        Ok(told)
    }

    /// What is to be told of a share. There is no await between the share and this, so nothing newer is told than what was
    /// said to be kept.
    fn told(&self, group: &GroupName, member: &str, share: &Share, all: bool) -> Result<ConsumerShare, BrokerError> {
        let unknown = || BrokerError::from(MemberError::Unknown { id: member.to_owned() });
        let stream = self.streams.get(group).ok_or_else(unknown)?;
        let look = |machine: &mut Machine| (machine.owned(member), machine.is_settled());
        let (owned, settled) = stream.with(self, look).ok_or_else(unknown)?;
        Ok(ConsumerShare { epoch: share.epoch, assignment: (all || share.news).then_some(owned), settled })
    }

    /// Takes a member's sign of life. What it is told is on the disk.
    ///
    /// # Errors
    /// It is no member (any more), or speaks of another time; the journal's.
    pub async fn beat_consumer(self: &Arc<Self>, beat: ConsumerBeat) -> Result<ConsumerShare, BrokerError> {
        let ConsumerBeat { group: name, member, instance, epoch, owned, .. } = beat;
        let unknown = || BrokerError::from(MemberError::Unknown { id: member.clone() });
        let group = self.streams.get(&name).ok_or_else(unknown)?;
        let change = Change {
            topics: beat.topics.as_deref().map(patterns).transpose()?,
            regex: beat.regex,
            assignor: beat.assignor,
            rack: beat.rack,
            handover_ms: beat.handover_ms.map(handover),
        };
        if let Some(rack) = &change.rack {
            short("a rack's name", rack)?;
        }
        if change.topics.is_some() || change.regex.is_some() {
            let consumer = ConsumerEntry { regex: change.regex.clone().flatten(), ..ConsumerEntry::default() };
            let topics = change.topics.as_deref().unwrap_or_default();
            let said = MemberEntry::said_weight("", None, topics, Some(&consumer));
            let (broker, group, member) = (Arc::clone(self), name.clone(), member.clone());
            blocking(move || broker.admit_declaration(&group, None, Some((&member, said)))).await?;
        }
        let said = owned.is_some();
        let (owned, now, all) = (owned.map(BTreeSet::from_iter), self.clock.monotonic_ms(), self.topic_shapes());
        let beaten = group.with(self, |machine| {
            if let Some(instance) = &instance {
                machine.check_instance(&member, instance)?;
            }
            machine.may_speak(&member, epoch)?;
            let changed = machine.change(&member, change, &all)?;
            let share = machine.beat(&member, epoch, owned, now)?;
            let assignment = share.news.then(|| machine.owned(&member));
            let told = ConsumerShare { epoch: share.epoch, assignment, settled: machine.is_settled() };
            Ok::<_, MemberError>((told, share.news || said || changed))
        });
        let (told, keep) = beaten.ok_or_else(unknown)??;
        if keep {
            self.queues.keeper.kept().await?;
        }
        Ok(told)
    }

    /// Whether a member may speak at an epoch, which is its present one or the one before.
    ///
    /// # Errors
    /// It may not.
    pub fn check_consumer(&self, group: &GroupName, member: &str, epoch: Epoch) -> Result<(), BrokerError> {
        let unknown = || BrokerError::from(MemberError::Unknown { id: member.to_owned() });
        let stream = self.streams.get(group).ok_or_else(unknown)?;
        Ok(stream.with(self, |machine| machine.may_speak(member, epoch)).ok_or_else(unknown)??)
    }

    /// A member goes; with `keep`, what its instance had is kept for the next of that name until the session ends.
    ///
    /// # Errors
    /// It is no member, or not the one that has the instance's name.
    pub async fn leave_consumer(
        self: &Arc<Self>,
        name: &GroupName,
        member: &str,
        instance: Option<&str>,
        keep: bool,
    ) -> Result<(), BrokerError> {
        if let Some(instance) = instance {
            let unknown = || BrokerError::from(MemberError::Unknown { id: member.to_owned() });
            let group = self.streams.get(name).ok_or_else(unknown)?;
            group.with(self, |machine| machine.check_instance(member, instance)).ok_or_else(unknown)??;
        }
        self.leave_stream(name, member, keep).await
    }

    /// Commits positions for a member, also back; durable when this returns. For each, in order, what became of it.
    ///
    /// # Errors
    /// It is no member; the journal's.
    pub async fn commit_consumer(
        self: &Arc<Self>,
        name: &GroupName,
        (member, epoch): (&str, Epoch),
        commits: Vec<Commit>,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        self.check_consumer(name, member, epoch)?;
        let by = super::super::Committer::Consumer { id: member, epoch };
        let outcomes = self.commit_positions(name, by, commits, super::super::Terms::AsSaid, true).await?;
        Ok(outcomes.into_iter().map(|outcome| outcome.map(drop)).collect())
    }

    /// A group whose members are told their shares, if it has any.
    pub fn consumer_look(&self, name: &GroupName) -> Option<ConsumerLook> {
        let group = self.streams.get(name)?;
        let now = self.clock.monotonic_ms();
        let (looks, epoch, assignor, settled) = group.with(self, |machine| {
            (machine.look(now), machine.epoch(), machine.assignor_name(), machine.is_settled())
        })?;
        let topics = self.topic_shapes();
        let names: HashMap<_, _> = topics.into_iter().map(|(name, (id, _))| (id, name)).collect();
        let named = |of: Vec<(TopicId, PartitionId)>| {
            let mut named: Vec<_> =
                of.into_iter().filter_map(|(id, partition)| Some((names.get(&id)?.clone(), id, partition))).collect();
            named.sort();
            named
        };
        let member = |look: Look| {
            let consumer = look.consumer.unwrap_or_default();
            ConsumerMember {
                id: look.id.to_string(),
                instance: look.instance,
                rack: consumer.rack,
                epoch: look.epoch,
                client: look.client,
                host: consumer.host,
                topics: look.topics,
                regex: consumer.regex.map(String::from),
                owns: named(look.owns),
                target: named(look.target),
            }
        };
        let members: Vec<_> = looks.into_iter().map(member).collect();
        (!members.is_empty()).then_some(ConsumerLook { settled, epoch, assignor, members })
    }
}
