//! A stream group: its members, and who has which partition. Pure: events and `now` in, changes to keep out; no clock, no
//! files, no tasks.
//!
//! What each member *is to have* (the target) follows from who is there and what they want. What it *has* follows in
//! steps of its own heartbeats, so that a partition has one owner at a time:
//!
//! ```text
//! has, and is not to have  -> told to give up; still its own until it says that it has done so, or its session ends
//! is to have, and is free  -> its own, and told so once that is durable
//! ```
//!
//! A member goes over to the group's epoch only when it has given up what it is not to have, as in Kafka's KIP-848. The
//! epoch grows with each change of the target, so of two claims to a partition the one of the higher epoch is the later.

mod consumer;
mod hand_over;
mod kept;
mod range;
mod share_out;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::{PartitionId, TimestampMs, TopicId, TopicName, TopicPattern, TopicRegex};
use crate::catalog::{Assignor, ConsumerEntry};

pub(crate) use consumer::Change;
pub(crate) use hand_over::Share;
use range::range_out;
pub(crate) use share_out::At;
use share_out::{Wanted, share_out};

/// A member's id, unique for ever.
pub(crate) type Id = Arc<str>;
/// Counts the changes of who is to have what, from 1.
pub type Epoch = u32;
/// Milliseconds of a clock that does not jump.
pub(crate) type Ms = u64;

/// Members of one group.
pub(crate) const MEMBERS: usize = 1000;
/// Partitions of one member; it bounds what is kept of it in one piece.
pub(crate) const MEMBER_PARTITIONS: usize = 20_000;
/// Partitions that a member is told of at once; it bounds the answer. The next heartbeat brings more.
pub(crate) const TOLD_AT_ONCE: usize = 1000;

/// The topics that there are: of each its incarnation and the number of its partitions.
pub(crate) type Topics = BTreeMap<TopicName, (TopicId, PartitionId)>;

/// A wish to be a member.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    pub(crate) id: Id,
    /// The name of the place that the member fills: the next one of this name goes on with what it had.
    pub(crate) instance: Option<String>,
    /// Who it is, for people.
    pub(crate) client: String,
    pub(crate) topics: Vec<TopicPattern>,
    /// How long it is a member without a heartbeat.
    pub(crate) session_ms: Ms,
    /// How long it may take to give up what it is not to have.
    pub(crate) handover_ms: Ms,
    pub(crate) joined_ms: TimestampMs,
    /// What there is of it in Kafka's protocol, if it speaks that.
    pub(crate) consumer: Option<ConsumerEntry>,
}

/// Why a member is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// It is not in the group, or not any more: what it had may be others' by now. It has to join anew.
    #[error("the group has no member {id}: its session has ended, or it never joined")]
    Unknown {
        /// The id it gave.
        id: String,
    },
    /// It speaks of another time: what it had may be others' by now. It has to join anew.
    #[error("member {id} is at epoch {current}, not {epoch}")]
    Epoch {
        /// Its id.
        id: String,
        /// The epoch it gave.
        epoch: Epoch,
        /// The one it has.
        current: Epoch,
    },
    /// It does not own the partition, or has been given it only after that epoch.
    #[error("partition {partition} of topic {topic} is not member {id}'s at epoch {epoch}")]
    NotOwner {
        /// Its id.
        id: String,
        /// The epoch it gave.
        epoch: Epoch,
        /// The topic's id.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
    },
    /// Another member has the instance's name, and its session has not ended.
    #[error("instance '{instance}' is in the group already, as member {id}")]
    InstanceInUse {
        /// The name.
        instance: String,
        /// Who has it.
        id: String,
    },
    /// Another member has the instance's name, and the one that speaks had it before, if at all.
    #[error("instance '{instance}' is member {id} by now")]
    InstanceTaken {
        /// The name.
        instance: String,
        /// Who has it.
        id: String,
    },
    /// There are too many.
    #[error("the group has {MEMBERS} members, which is the most")]
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    instance: Option<String>,
    client: String,
    joined_ms: TimestampMs,
    topics: Vec<TopicPattern>,
    session_ms: Ms,
    handover_ms: Ms,
    epoch: Epoch,
    /// The one before, in case the answer that told of the change was lost.
    before: Epoch,
    /// What it owns and may work on, and at which epoch it was given.
    owns: BTreeMap<At, Epoch>,
    /// What it is told to give up, and still owns.
    gives_up: BTreeMap<At, Epoch>,
    /// It left for a while, and what it had is kept for its instance until its session ends.
    away: bool,
    /// When its session ends.
    deadline: Ms,
    /// By when it has to have given up.
    hurry: Option<Ms>,
    /// What it said last that it has; `None` if it has not said since the server started.
    says: Option<BTreeSet<At>>,
    /// It has been told what to give up.
    told: bool,
    /// Counts its heartbeats: only the newest may wait.
    beats: u64,
    heard: Ms,
    consumer: Option<ConsumerEntry>,
}

impl Member {
    fn regex(&self) -> Option<&TopicRegex> {
        self.consumer.as_ref().and_then(|consumer| consumer.regex.as_ref())
    }
}

/// What a member wants, by names, patterns and an expression.
type Interest<'a> = (&'a [TopicPattern], Option<&'a TopicRegex>);

fn wants((topics, regex): Interest<'_>, name: &TopicName) -> bool {
    topics.iter().any(|pattern| pattern.matches(name)) || regex.is_some_and(|regex| regex.matches(name))
}

/// A member, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) id: Id,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) joined_ms: TimestampMs,
    /// For how long it has not been heard of.
    pub(crate) silent_ms: Ms,
    pub(crate) owns: Vec<At>,
    /// What it is to have.
    pub(crate) target: Vec<At>,
    pub(crate) epoch: Epoch,
    pub(crate) topics: Vec<TopicPattern>,
    pub(crate) consumer: Option<ConsumerEntry>,
}

#[derive(Debug, Default)]
pub(crate) struct Machine {
    members: BTreeMap<Id, Member>,
    /// Those that somebody wants, or wanted lately.
    topics: Topics,
    epoch: Epoch,
    target: BTreeMap<At, Id>,
    /// The same by member.
    to_have: HashMap<Id, BTreeSet<At>>,
    /// Who owns what, to be given up or not.
    owners: HashMap<At, Id>,
    dirty: BTreeSet<Id>,
    version: u64,
}

impl Machine {
    /// Whether there are no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A number that changes whenever a member may have to be told something.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What its members want, each once.
    fn interests(&self) -> Vec<(Interest<'_>, BTreeSet<usize>)> {
        let members = self.members.values().enumerate();
        let mut all: Vec<(Interest<'_>, usize)> =
            members.map(|(number, member)| ((member.topics.as_slice(), member.regex()), number)).collect();
        all.sort_unstable();
        let of = |same: &[(Interest<'_>, usize)]| same.iter().map(|(_, number)| *number).collect();
        all.chunk_by(|(one, _), (other, _)| one == other).map(|same| (same[0].0, of(same))).collect()
    }

    /// Whether a member wants this topic.
    pub(crate) fn wants(&self, topic: &TopicName) -> bool {
        self.interests().into_iter().any(|(interest, _)| wants(interest, topic))
    }

    /// Whether somebody wants this topic, or wanted it lately.
    pub(crate) fn knows(&self, topic: &TopicName) -> bool {
        self.topics.contains_key(topic)
    }

    /// All that a member owns and is not to give up.
    pub(crate) fn owned(&self, id: &str) -> Vec<At> {
        self.members.get(id).into_iter().flat_map(|member| member.owns.keys().copied()).collect()
    }

    /// Its members, for people.
    pub(crate) fn look(&self, now: Ms) -> Vec<Look> {
        let look = |(id, member): (&Id, &Member)| Look {
            id: Arc::clone(id),
            instance: member.instance.clone(),
            client: member.client.clone(),
            joined_ms: member.joined_ms,
            silent_ms: now.saturating_sub(member.heard),
            owns: member.owns.keys().chain(member.gives_up.keys()).copied().collect(),
            target: self.to_have.get(id).into_iter().flatten().copied().collect(),
            epoch: member.epoch,
            topics: member.topics.clone(),
            consumer: member.consumer.clone(),
        };
        self.members.iter().map(look).collect()
    }

    /// Topics came, went or have more partitions.
    pub(crate) fn set_topics(&mut self, all: &Topics) {
        self.take_topics(all);
        self.retarget(false);
    }

    fn take_topics(&mut self, all: &Topics) {
        let interests = self.interests();
        let wanted = |name: &TopicName| interests.iter().any(|(interest, _)| wants(*interest, name));
        let topics = all.iter().filter(|(name, _)| wanted(name)).map(|(name, of)| (name.clone(), *of)).collect();
        self.topics = topics;
        // What is no more is nobody's. What only is not wanted any more is given up in order.
        let there: HashMap<TopicId, PartitionId> = all.values().copied().collect();
        let is_there = |at: &At| there.get(&at.0).is_some_and(|partitions| at.1 < *partitions);
        for (id, member) in &mut self.members {
            let had = member.owns.len() + member.gives_up.len();
            member.owns.retain(|at, _| is_there(at));
            member.gives_up.retain(|at, _| is_there(at));
            if had != member.owns.len() + member.gives_up.len() {
                self.dirty.insert(Arc::clone(id));
                self.version += 1;
                member.told = false;
            }
        }
        self.owners.retain(|at, _| is_there(at));
    }

    /// A member comes, with nothing in its hands. One that is there by this id begins anew; one whose instance is away
    /// goes on with what that had.
    ///
    /// # Errors
    /// Its instance is there; there are too many members.
    pub(crate) fn join(&mut self, joining: Joining, all: &Topics, now: Ms) -> Result<(), MemberError> {
        let id = Arc::clone(&joining.id);
        let other = joining.instance.as_ref().and_then(|instance| self.instance(instance)).filter(|other| *other != id);
        if let Some(other) = &other
            && !self.members[other].away
        {
            let instance = joining.instance.unwrap_or_default();
            return Err(MemberError::InstanceInUse { instance, id: other.to_string() });
        }
        if other.is_none() && !self.members.contains_key(&id) && self.members.len() >= MEMBERS {
            return Err(MemberError::Full);
        }
        self.remove(&id);
        let mut member = Member::new(joining, now);
        if let Some(other) = other {
            self.succeed(&other, &id, &mut member);
        }
        let new = member.epoch == 0;
        self.members.insert(Arc::clone(&id), member);
        self.dirty.insert(id);
        self.take_topics(all);
        self.retarget(new);
        Ok(())
    }

    fn instance(&self, instance: &str) -> Option<Id> {
        let found = self.members.iter().find(|(_, member)| member.instance.as_deref() == Some(instance));
        found.map(|(id, _)| Arc::clone(id))
    }

    /// `id` goes on with what `other`, which is away, had.
    fn succeed(&mut self, other: &Id, id: &Id, member: &mut Member) {
        let Some(old) = self.members.remove(other) else { return };
        self.dirty.insert(Arc::clone(other));
        (member.epoch, member.before) = (old.epoch, old.epoch);
        for at in old.gives_up.keys() {
            self.owners.remove(at);
        }
        for at in old.owns.keys() {
            self.owners.insert(*at, Arc::clone(id));
        }
        member.owns = old.owns;
        let mut target = std::mem::take(&mut self.target);
        for owner in target.values_mut().filter(|owner| *owner == other) {
            *owner = Arc::clone(id);
        }
        self.aim(target);
        self.version += 1;
    }

    /// A member wants other topics from now on.
    ///
    /// # Errors
    /// It is unknown.
    pub(crate) fn set_interest(
        &mut self,
        id: &str,
        topics: Vec<TopicPattern>,
        all: &Topics,
    ) -> Result<(), MemberError> {
        let (id, member) = find(&mut self.members, id)?;
        if member.topics != topics {
            member.topics = topics;
            self.dirty.insert(id);
            self.set_topics(all);
        }
        Ok(())
    }

    /// The group was defined anew. Members without subscriptions of their own have these topics from now on, or are sent away.
    pub(crate) fn redefine(&mut self, topics: &[TopicPattern], send_away: bool, all: &Topics, now: Ms) {
        let native = self.members.iter().filter(|(_, member)| member.consumer.is_none());
        let native: Vec<Id> = native.map(|(id, _)| Arc::clone(id)).collect();
        for id in native {
            // Each of them is there.
            let _ = match send_away {
                true => self.leave(&id, false, now),
                false => self.set_interest(&id, topics.to_vec(), all),
            };
        }
    }

    /// A member goes, with nothing left in its hands. With `keep`, what its instance had is kept for the next of that
    /// name until the session ends.
    ///
    /// # Errors
    /// It is unknown.
    pub(crate) fn leave(&mut self, id: &str, keep: bool, now: Ms) -> Result<(), MemberError> {
        let (id, member) = find(&mut self.members, id)?;
        if keep && member.instance.is_some() {
            member.away = true;
            member.deadline = now.saturating_add(member.session_ms);
            self.dirty.insert(id);
        } else {
            self.remove(&id);
            self.retarget(false);
        }
        Ok(())
    }

    /// Sends away whose session has ended, and who has not given up in time; names them.
    pub(crate) fn tick(&mut self, now: Ms) -> Vec<Id> {
        let late = |member: &Member| member.deadline <= now || member.hurry.is_some_and(|hurry| hurry <= now);
        let gone: Vec<Id> =
            self.members.iter().filter(|(_, member)| late(member)).map(|(id, _)| Arc::clone(id)).collect();
        for id in &gone {
            self.remove(id);
        }
        if !gone.is_empty() {
            self.retarget(false);
        }
        gone
    }

    /// When the next session ends, or the next time to give up.
    pub(crate) fn next_deadline(&self) -> Option<Ms> {
        self.members.values().map(|member| member.deadline.min(member.hurry.unwrap_or(Ms::MAX))).min()
    }

    /// A member is no more; what it had is free.
    fn remove(&mut self, id: &Id) {
        let Some(member) = self.members.remove(id) else { return };
        for at in member.owns.keys().chain(member.gives_up.keys()) {
            self.owners.remove(at);
        }
        self.dirty.insert(Arc::clone(id));
        self.version += 1;
    }

    /// Works out anew who is to have what. If that is no change, nothing follows, but for a member that is new.
    fn retarget(&mut self, new: bool) {
        let ids: Vec<&Id> = self.members.keys().collect();
        let number: HashMap<&Id, usize> = ids.iter().enumerate().map(|(number, id)| (*id, number)).collect();
        let wanted = self.wanted();
        let before = |at| self.target.get(&at).and_then(|id| number.get(id).copied());
        let held = |at| self.owners.get(&at).and_then(|id| number.get(id).copied());
        let shared = match self.assignor() {
            Assignor::Uniform => share_out(ids.len(), MEMBER_PARTITIONS, &wanted, before, held),
            Assignor::Range => range_out(&self.places(), MEMBER_PARTITIONS, &wanted),
        };
        let target: BTreeMap<At, Id> = shared.into_iter().map(|(at, member)| (at, Arc::clone(ids[member]))).collect();
        if new || target != self.target {
            self.epoch += 1;
            self.version += 1;
        }
        self.aim(target);
    }

    /// The topics with who wants them. Members mostly want the same, so that is looked at once for all who do.
    fn wanted(&self) -> Vec<Wanted> {
        let interests = self.interests();
        let mut together: HashMap<Vec<bool>, Rc<BTreeSet<usize>>> = HashMap::new();
        let wanted = self.topics.iter().map(|(name, (id, partitions))| {
            let which: Vec<bool> = interests.iter().map(|(interest, _)| wants(*interest, name)).collect();
            let members =
                || interests.iter().zip(&which).filter(|(_, wants)| **wants).flat_map(|((_, members), _)| members);
            let by = match together.get(&which) {
                Some(by) => Rc::clone(by),
                None => Rc::new(members().copied().collect()),
            };
            together.entry(which).or_insert_with(|| Rc::clone(&by));
            Wanted { id: *id, partitions: *partitions, by }
        });
        wanted.collect()
    }

    fn aim(&mut self, target: BTreeMap<At, Id>) {
        self.to_have = HashMap::new();
        for (at, id) in &target {
            self.to_have.entry(Arc::clone(id)).or_default().insert(*at);
        }
        self.target = target;
    }
}

fn find<'a>(members: &'a mut BTreeMap<Id, Member>, id: &str) -> Result<(Id, &'a mut Member), MemberError> {
    let unknown = || MemberError::Unknown { id: id.to_owned() };
    let known = members.get_key_value(id).map(|(id, _)| Arc::clone(id)).ok_or_else(unknown)?;
    members.get_mut(id).map(|member| (known, member)).ok_or_else(unknown)
}
