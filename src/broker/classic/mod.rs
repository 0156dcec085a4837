//! Classic groups: the members agree among themselves who reads what, in rounds; the server counts them, and passes on what
//! they say. Which rounds there are, [`machine`] knows; here are the waiting requests, the clock, and the group's name.
//!
//! What a completed round has come to is kept in the journal before anybody is told of it, in one event, so the members go on
//! after a restart as if nothing had been: with their ids, places, generation and assignments, and with a session's time to be heard of. A
//! round that is under way is forgotten then, and the one before holds.

mod accounts;
mod generations;
mod machine;
mod member;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::base::{ErrorKind, GroupName, PartitionId, TimestampMs, TopicName, limits};
use crate::catalog::{Event, GroupEntry};

use super::broker::{blocking, lock};
use super::clients::Client;
use super::queue::GroupMember;
use super::task;
use super::{Broker, BrokerError, Commit, Committer, GroupHold, GroupProtocol, Terms};
use accounts::{Accounts, NoRoom};
pub(crate) use generations::Generations;
use machine::Machine;
use types::{Answer, Ticket};
pub use types::{ClassicError, ClassicJoin, ClassicJoined, ClassicShare, ClassicVoice};

/// The kind of group whose assignments can be read: consumers of topics.
const CONSUMER: &str = "consumer";

/// The classic groups that have members.
#[derive(Default)]
pub(crate) struct Classics(
    Mutex<BTreeMap<GroupName, Arc<ClassicGroup>>>,
    /// Bytes of what all members say and were assigned.
    Mutex<Accounts>,
    /// Bytes of the rounds that are kept.
    AtomicUsize,
);

struct ClassicGroup {
    inside: Mutex<Inside>,
    /// There may be another deadline.
    changed: Notify,
}

struct Inside {
    machine: Machine,
    /// `None` once it is over.
    hold: Option<GroupHold>,
    /// What is counted of the members' bytes, and as of which [`Machine::weighed`].
    counted: (u64, HashMap<Client, usize>),
    tickets: Ticket,
    waiting: HashMap<Ticket, oneshot::Sender<Answer>>,
    /// Bytes of its round that is kept, 0 if none is.
    kept: usize,
}

/// What is not done for a member.
#[derive(Debug)]
pub enum ClassicRefusal {
    /// By the rules of the group; with the id that the member has or is to have.
    Group(ClassicError, String),
    /// For another reason.
    Broker(BrokerError),
}

/// A classic group, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicLook {
    /// Kafka's word for its state.
    pub state: &'static str,
    /// What kind of group its members take it for.
    pub protocol_type: String,
    /// The protocol they speak.
    pub protocol: String,
    /// Its members.
    pub members: Vec<ClassicMember>,
}

/// A member of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMember {
    /// Its id.
    pub id: String,
    /// The name of the place that it fills.
    pub instance: Option<String>,
    /// Who it says it is.
    pub client: String,
    /// Where it is.
    pub host: String,
    /// What it says of itself.
    pub said: Bytes,
    /// What was assigned to it.
    pub assignment: Bytes,
    /// When it joined.
    pub joined_ms: TimestampMs,
    /// When it was heard of last.
    pub heard_ms: TimestampMs,
}

/// A request that waits; when it is dropped, nobody does any more.
struct Waiting {
    broker: Arc<Broker>,
    group: Arc<ClassicGroup>,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = self.broker.clock.monotonic_ms();
        self.group.with(&self.broker, |inside| {
            if inside.waiting.remove(&self.ticket).is_some() {
                inside.machine.abandon(self.ticket, now);
            }
        });
    }
}

impl Inside {
    /// Says what is to be kept of the group, if that has changed; whether it did.
    fn keep(&mut self, broker: &Broker) -> bool {
        let (changed, over) = (self.machine.take_changed(), self.machine.is_over());
        let Some(name) = self.hold.as_ref().map(GroupHold::name).filter(|_| changed || over && self.kept > 0) else {
            return false;
        };
        let all = &broker.classics.2;
        let bytes = if over { 0 } else { self.machine.kept_bytes() };
        let others = all.load(Ordering::Relaxed).saturating_sub(self.kept);
        let fits = bytes <= limits::CLASSIC_KEPT_GROUP_BYTES && others + bytes <= limits::CLASSIC_KEPT_BYTES;
        if !fits {
            let limit = limits::CLASSIC_KEPT_GROUP_BYTES;
            tracing::info!(group = %name, bytes, limit, "not kept: after a restart its members join anew");
        }
        let kept = if fits { bytes } else { 0 };
        if kept == 0 && self.kept == 0 {
            return false;
        }
        all.fetch_add(kept, Ordering::Relaxed);
        all.fetch_sub(std::mem::replace(&mut self.kept, kept), Ordering::Relaxed);
        let (now, wall) = (broker.clock.monotonic_ms(), broker.clock.now_ms());
        let entry = (kept > 0).then(|| self.machine.entry(now, wall));
        broker.groups.pending.put([Event::ClassicSet { group: name.clone(), entry }]);
        true
    }
}

impl Classics {
    /// The clients whose members say and are assigned most bytes.
    pub(crate) fn top_clients(&self, clients: usize) -> Vec<(Client, usize)> {
        lock(&self.1).top(clients)
    }

    /// Goes on with the rounds that were kept.
    pub(crate) fn load(broker: &Arc<Broker>) -> Result<(), BrokerError> {
        let (now, wall) = (broker.clock.monotonic_ms(), broker.clock.now_ms());
        let kept: Vec<_> = {
            let catalog = lock(&broker.catalog);
            let round = |group: &GroupEntry| Some((group.name.clone(), catalog.classic(&group.name)?.clone()));
            catalog.groups().filter_map(round).collect()
        };
        for (name, entry) in kept {
            // Members of another protocol are there only if these had gone, and that was not kept any more.
            let Ok(hold) = broker.groups.take(&name, GroupProtocol::Classic) else {
                broker.groups.pending.put([Event::ClassicSet { group: name, entry: None }]);
                broker.queues.keeper.note_pending();
                continue;
            };
            let machine = Machine::load(entry, now, wall);
            let counted = machine.bytes_of();
            lock(&broker.classics.1).change(&HashMap::new(), &counted);
            let bytes = machine.kept_bytes();
            broker.classics.2.fetch_add(bytes, Ordering::Relaxed);
            let group = ClassicGroup::new(machine, hold, bytes);
            lock(&broker.classics.0).insert(name, Arc::clone(&group));
            if Handle::try_current().is_ok() {
                task::spawn("classic group", group.run(Arc::downgrade(broker)));
            }
        }
        Ok(())
    }
}

impl ClassicGroup {
    fn new(machine: Machine, hold: GroupHold, kept: usize) -> Arc<Self> {
        let counted = (machine.weighed(), machine.bytes_of());
        let inside = Inside { machine, hold: Some(hold), counted, tickets: 0, waiting: HashMap::new(), kept };
        Arc::new(Self { inside: Mutex::new(inside), changed: Notify::new() })
    }

    /// Does something, and sends the answers that follow from it. `None` if the group is over.
    fn with<R>(self: &Arc<Self>, broker: &Broker, act: impl FnOnce(&mut Inside) -> R) -> Option<R> {
        let mut inside = lock(&self.inside);
        let ended = inside.hold.as_ref()?.is_ended();
        if ended {
            inside.machine.end();
        }
        let result = (!ended).then(|| act(&mut inside));
        // Before the answers: who has heard one finds that it waits to be kept.
        let said = inside.keep(broker);
        for (ticket, answer) in inside.machine.take_answers() {
            if let Some(waiting) = inside.waiting.remove(&ticket) {
                // Who has stopped waiting has said so, or is about to.
                let _ = waiting.send(answer);
            }
        }
        if inside.machine.weighed() != inside.counted.0 {
            let now = inside.machine.bytes_of();
            lock(&broker.classics.1).change(&inside.counted.1, &now);
            inside.counted = (inside.machine.weighed(), now);
        }
        let over = inside.machine.is_over().then(|| inside.hold.take()).flatten();
        if let Some(hold) = over.as_ref().filter(|hold| !hold.is_ended()) {
            broker.generations.keep(hold.name(), inside.machine.generation);
        }
        drop(inside);
        if said {
            broker.queues.keeper.note_pending();
        }
        if let Some(hold) = over {
            let mut groups = lock(&broker.classics.0);
            if groups.get(hold.name()).is_some_and(|group| Arc::ptr_eq(group, self)) {
                groups.remove(hold.name());
            }
        }
        self.changed.notify_one();
        result
    }

    /// Lets time pass for the group, until it is over.
    async fn run(self: Arc<Self>, broker: Weak<Broker>) {
        loop {
            let deadline = {
                let inside = lock(&self.inside);
                if inside.hold.is_none() {
                    return;
                }
                inside.machine.next_deadline()
            };
            let Some(now) = broker.upgrade().map(|broker| broker.clock.monotonic_ms()) else { return };
            // A group that was taken away has no event that says so.
            let wait = deadline.map_or(1000, |deadline| deadline.saturating_sub(now)).min(1000);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                () = self.changed.notified() => continue,
            }
            let Some(broker) = broker.upgrade() else { return };
            let now = broker.clock.monotonic_ms();
            let gone = self.with(&broker, |inside| inside.machine.tick(now));
            for member in gone.iter().flatten() {
                tracing::info!(member, "a member's session has ended");
            }
        }
    }
}

/// Kafka's answer has no words; the log has.
fn refused(group: &GroupName, what: &str, bytes: usize, NoRoom { who, held, limit }: NoRoom) {
    tracing::warn!(
        %group, client = %Client::current(), bytes, held, limit,
        "{what} refused: what {who} may say of themselves and be assigned is limited in bytes"
    );
}

impl Broker {
    fn classic(&self, name: &GroupName) -> Option<Arc<ClassicGroup>> {
        lock(&self.classics.0).get(name).cloned()
    }

    /// The group, taken into use if it is not.
    async fn classic_in_use(self: &Arc<Self>, name: &GroupName) -> Result<Arc<ClassicGroup>, BrokerError> {
        if let Some(group) = self.classic(name) {
            return Ok(group);
        }
        let hold = self.hold_group(name, GroupProtocol::Classic).await?;
        let (broker, of) = (Arc::clone(self), name.clone());
        let allowed = blocking(move || broker.refuse_filter_of(&of)).await;
        // Kafka's answer has no words; the log has.
        allowed.inspect_err(|error| tracing::warn!(group = %name, %error, "join refused"))?;
        let mut groups = lock(&self.classics.0);
        if let Some(group) = groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let machine = Machine::from_generation(self.generations.take(name));
        let group = ClassicGroup::new(machine, hold, 0);
        groups.insert(name.clone(), Arc::clone(&group));
        task::spawn("classic group", Arc::clone(&group).run(Arc::downgrade(self)));
        Ok(group)
    }

    fn wait_in(self: &Arc<Self>, group: &Arc<ClassicGroup>, act: impl FnOnce(&mut Machine, Ticket)) -> Option<Waiting> {
        let (sender, answer) = oneshot::channel();
        let ticket = group.with(self, |inside| {
            inside.tickets += 1;
            let ticket = inside.tickets;
            inside.waiting.insert(ticket, sender);
            act(&mut inside.machine, ticket);
            ticket
        })?;
        Some(Waiting { broker: Arc::clone(self), group: Arc::clone(group), ticket, answer })
    }

    /// Returns when what members hear of a group's round is on the disk, so that no crash makes it another.
    async fn round_kept(&self, name: &GroupName) -> Result<(), ClassicError> {
        let key = Event::ClassicSet { group: name.clone(), entry: None }.key();
        if !self.groups.pending.has(&key) {
            return Ok(());
        }
        self.queues.keeper.kept().await.map_err(|error| {
            tracing::warn!(group = %name, %error, "a round could not be kept");
            ClassicError::NotKept
        })
    }

    /// Joins a group; answered at the end of the round.
    ///
    /// # Errors
    /// By the rules of the group; the group is of another kind; the journal's.
    pub async fn join_classic(
        self: &Arc<Self>,
        name: &GroupName,
        join: ClassicJoin,
    ) -> Result<ClassicJoined, ClassicRefusal> {
        // A group that is not in use has no member of this name, and is not made for it.
        if !join.member.is_empty() && self.classic(name).is_none() {
            return Err(ClassicRefusal::Group(ClassicError::UnknownMember, join.member));
        }
        let weight = join.weight();
        if weight > limits::CLASSIC_MEMBER_BYTES {
            let (who, limit) = (format!("one member ('{}')", join.client), limits::CLASSIC_MEMBER_BYTES);
            refused(name, "join", weight, NoRoom { who, held: 0, limit });
            return Err(ClassicRefusal::Group(ClassicError::TooLarge, join.member));
        }
        // A member that is there says it anew.
        let said =
            |group: Arc<ClassicGroup>| lock(&group.inside).machine.said_bytes(&join.member, join.instance.as_deref());
        let more = weight.saturating_sub(self.classic(name).map_or(0, said));
        let admitted = lock(&self.classics.1).admit(join.from, more);
        if let Err(why) = admitted {
            refused(name, "join", more, why);
            return Err(ClassicRefusal::Group(ClassicError::NoRoom, join.member));
        }
        loop {
            let group = self.classic_in_use(name).await.map_err(ClassicRefusal::Broker)?;
            let (now, join) = (self.clock.monotonic_ms(), join.clone());
            let prefix = join.instance.as_ref().unwrap_or(&join.client);
            let prefix: String = prefix.chars().take(128).collect();
            let id = format!("{prefix}-{}", uuid::Uuid::new_v4());
            let waiting = self.wait_in(&group, |machine, ticket| machine.join(ticket, join, id, now));
            // It was over just now: a new one begins.
            let Some(mut waiting) = waiting else {
                tokio::task::yield_now().await;
                continue;
            };
            return match (&mut waiting.answer).await {
                Ok(Answer::Joined(Ok(joined))) => match self.round_kept(name).await {
                    Ok(()) => Ok(joined),
                    Err(error) => Err(ClassicRefusal::Group(error, joined.member)),
                },
                Ok(Answer::Joined(Err((error, id)))) => Err(ClassicRefusal::Group(error, id)),
                _ => Err(ClassicRefusal::Group(ClassicError::UnknownMember, String::new())),
            };
        }
    }

    /// Asks for a member's share, and says everybody's if it is the leader; answered when the leader has spoken.
    ///
    /// # Errors
    /// By the rules of the group.
    pub async fn sync_classic(
        self: &Arc<Self>,
        name: &GroupName,
        voice: ClassicVoice<'_>,
        protocol: (Option<&str>, Option<&str>),
        shares: Vec<(String, Bytes)>,
    ) -> Result<ClassicShare, ClassicError> {
        let group = self.classic(name).ok_or(ClassicError::UnknownMember)?;
        // What was assigned in the round before is gone by now.
        let bytes: usize = shares.iter().map(|(_, share)| share.len()).sum();
        let admitted = lock(&self.classics.1).admit(Client::current(), bytes);
        if let Err(why) = admitted {
            refused(name, "assignment", bytes, why);
            return Err(ClassicError::NoRoom);
        }
        let now = self.clock.monotonic_ms();
        let waiting = self.wait_in(&group, |machine, ticket| machine.sync(ticket, voice, protocol, shares, now));
        let mut waiting = waiting.ok_or(ClassicError::UnknownMember)?;
        match (&mut waiting.answer).await {
            Ok(Answer::Synced(Ok(share))) => self.round_kept(name).await.map(|()| share),
            Ok(Answer::Synced(Err(error))) => Err(error),
            _ => Err(ClassicError::UnknownMember),
        }
    }

    /// Takes a sign of life.
    ///
    /// # Errors
    /// By the rules of the group.
    pub fn beat_classic(&self, name: &GroupName, voice: ClassicVoice<'_>) -> Result<(), ClassicError> {
        let group = self.classic(name).ok_or(ClassicError::UnknownMember)?;
        let now = self.clock.monotonic_ms();
        group.with(self, |inside| inside.machine.beat(voice, now)).unwrap_or(Err(ClassicError::UnknownMember))
    }

    /// Lets a member go.
    ///
    /// # Errors
    /// By the rules of the group.
    pub fn leave_classic(&self, name: &GroupName, member: &str, instance: Option<&str>) -> Result<(), ClassicError> {
        let group = self.classic(name).ok_or(ClassicError::UnknownMember)?;
        let now = self.clock.monotonic_ms();
        let left = group.with(self, |inside| inside.machine.leave(member, instance, now));
        left.unwrap_or(Err(ClassicError::UnknownMember))
    }

    /// Commits positions for a member, also back; durable when this returns. For each, in order, what became of it. As in Kafka,
    /// who speaks of no generation (a negative one) is no member, whatever id it has made itself, and may commit where no members are.
    ///
    /// # Errors
    /// By the rules of the group; the journal's.
    pub async fn commit_classic(
        self: &Arc<Self>,
        name: &GroupName,
        voice: ClassicVoice<'_>,
        commits: Vec<Commit>,
    ) -> Result<Vec<Result<(), BrokerError>>, ClassicRefusal> {
        let unknown = |error| ClassicRefusal::Group(error, voice.member.to_owned());
        let now = self.clock.monotonic_ms();
        let held = self.classic(name).and_then(|group| {
            group.with(self, |inside| {
                inside.machine.may_commit(voice, now)?;
                inside.hold.clone().ok_or(ClassicError::UnknownMember)
            })
        });
        let hold = match held {
            Some(held) => Some(held.map_err(unknown)?),
            None if voice.generation < 0 => None,
            None => return Err(unknown(ClassicError::UnknownMember)),
        };
        let by = hold.as_ref().map_or(Committer::Admin, Committer::Holder);
        match self.commit_positions(name, by, commits, Terms::AsSaid, true).await {
            Ok(outcomes) => Ok(outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()),
            // It has members, and this is none of them.
            Err(error) if hold.is_none() && error.kind() == ErrorKind::Busy => {
                Err(unknown(ClassicError::UnknownMember))
            }
            Err(error) => Err(ClassicRefusal::Broker(error)),
        }
    }

    /// Whether a member, or who is none, may commit positions now.
    ///
    /// # Errors
    /// By the rules of the group.
    pub fn may_commit_classic(&self, name: &GroupName, voice: ClassicVoice<'_>) -> Result<(), ClassicError> {
        let now = self.clock.monotonic_ms();
        let group = self.classic(name);
        let may = group.and_then(|group| group.with(self, |inside| inside.machine.may_commit(voice, now)));
        may.unwrap_or_else(|| match voice.generation < 0 && self.group_protocol(name).is_none() {
            true => Ok(()),
            false => Err(ClassicError::UnknownMember),
        })
    }

    /// A classic group that has members.
    pub fn classic_look(&self, name: &GroupName) -> Option<ClassicLook> {
        let group = self.classic(name)?;
        let (wall, now) = (self.clock.now_ms(), self.clock.monotonic_ms());
        let inside = lock(&group.inside);
        let machine = &inside.machine;
        let at = |ms: u64| wall.saturating_sub_unsigned(now.saturating_sub(ms));
        let members = machine.members().map(|(id, member)| ClassicMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            host: member.host.clone(),
            said: machine.said(member),
            assignment: member.assignment.clone(),
            joined_ms: member.joined_ms(now, wall),
            heard_ms: at(member.heard),
        });
        Some(ClassicLook {
            state: machine.state_name(),
            protocol_type: machine.protocol_type.clone(),
            protocol: machine.protocol.clone(),
            members: members.collect(),
        })
    }

    /// The members of a classic group as those of other groups are described.
    pub(crate) fn classic_members(&self, name: &GroupName) -> Vec<GroupMember> {
        let Some(look) = self.classic_look(name) else { return Vec::new() };
        let readable = look.protocol_type == CONSUMER;
        let members = look.members.into_iter().map(|member| GroupMember {
            id: member.id,
            client: member.client,
            in_flight: 0,
            owns: readable.then(|| owned(member.assignment)).flatten().unwrap_or_default(),
            joined_ms: member.joined_ms,
            heard_ms: Some(member.heard_ms),
        });
        members.collect()
    }

    /// A group was taken away: its members hear that they are none.
    pub(crate) fn end_classic(&self, name: &GroupName) {
        if let Some(group) = self.classic(name) {
            group.with(self, |_| ());
        }
    }
}

/// What consumers assign to each other: a version, and topics with their partitions. `None` for what is not understood.
fn owned(mut bytes: Bytes) -> Option<Vec<(TopicName, PartitionId)>> {
    let mut owned = Vec::new();
    bytes.try_get_i16().ok()?;
    for _ in 0..bytes.try_get_i32().ok()? {
        let length = usize::from(bytes.try_get_u16().ok()?);
        let name = (bytes.remaining() >= length).then(|| bytes.split_to(length))?;
        let topic = TopicName::new(std::str::from_utf8(&name).ok()?).ok()?;
        for _ in 0..bytes.try_get_i32().ok()? {
            owned.push((topic.clone(), bytes.try_get_u32().ok()?));
        }
    }
    owned.sort();
    Some(owned)
}
