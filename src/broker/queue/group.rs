//! Queue groups with their members: who has how much out, and what a member says about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use crate::base::{ErrorKind, GroupName, Offset, PartitionId, TimestampMs, TopicId, TopicName, limits};
use crate::catalog::{GroupEntry, GroupKind, Place, QueueSettings};
use crate::expr::Filter;

use super::super::broker::lock;
use super::super::hold::Hold;
use super::super::partition::Topic;
use super::super::task;
use super::super::work::WorkKey;
use super::super::{Broker, BrokerError};
use super::GroupMember;
use super::bury::Intent;
use super::dispatch;
use super::graves::{Graves, dead_letters};
use super::machine::{Machine, MemberId, Settled};
use super::tally::Tally;

/// Bytes that wait to be sent to a member, beyond which it gets nothing more.
pub(super) const QUEUED_BYTES: usize = 4 * 1024 * 1024;
/// Reasons of failures that are remembered for a partition, for its dead letters.
const REMEMBERED: usize = 10_000;

/// Records handed to a member, all of them for the same time.
#[derive(Debug)]
pub struct Handed {
    /// The topic.
    pub topic: TopicName,
    /// This incarnation of it.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// How many records.
    pub records: u32,
    /// Offset of the first of them.
    pub base_offset: Offset,
    /// Which delivery of these records this is, from 1.
    pub attempt: u32,
    /// Offset behind the last of them.
    pub next_offset: Offset,
    /// The records, as one batch.
    pub batch: Bytes,
}

/// What a member says about records that it was handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are done.
    Ack,
    /// They failed; they come again after this time, or as the group's rules say.
    Nack {
        /// The wait in milliseconds.
        delay_ms: Option<u64>,
        /// Why, for the dead letter.
        reason: Option<String>,
    },
    /// They were not looked at: somebody else may have them at once.
    Release,
    /// The lease begins anew.
    Extend,
}

/// A range of offsets of a partition, and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub from: Offset,
    /// Behind the last.
    pub to: Offset,
    /// What is said.
    pub verdict: Verdict,
}

pub(crate) struct QueuePartition {
    pub(crate) place: Place,
    pub(crate) topic: TopicName,
    pub(crate) machine: Mutex<Machine>,
    /// Its dispatcher has something to look at.
    pub(crate) wake: Notify,
    /// It is with the keeper.
    pub(crate) noted: AtomicBool,
    closed: AtomicBool,
    dispatching: AtomicBool,
    reasons: Mutex<HashMap<Offset, Arc<str>>>,
    /// Where dead letters may be that are not known to be done with; kept with the floor.
    pub(crate) intent: Mutex<String>,
    /// Held while dead letters are written or looked for; what is held of the logs that they go to.
    pub(crate) burying: tokio::sync::Mutex<Vec<Hold>>,
}

pub(crate) struct Member {
    pub(crate) id: MemberId,
    client: String,
    joined_ms: TimestampMs,
    prefetch: i64,
    /// Bytes on their way to it, beyond which it gets nothing more.
    queued_most: usize,
    /// Records leased to it or promised.
    out: AtomicI64,
    /// Bytes on their way to it.
    queued: AtomicUsize,
    /// Bytes on their way to all members of all groups.
    queued_all: Arc<AtomicUsize>,
    sender: mpsc::UnboundedSender<Handed>,
}

#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) filter: Option<Arc<Filter>>,
    pub(crate) partitions: BTreeMap<(TopicId, PartitionId), Arc<QueuePartition>>,
    pub(crate) members: BTreeMap<MemberId, Arc<Member>>,
    /// Whose turn it is among members with the same room.
    turn: MemberId,
}

pub(crate) struct QueueGroup {
    pub(crate) name: GroupName,
    pub(crate) entry: Mutex<GroupEntry>,
    pub(crate) inside: Mutex<Inside>,
    /// Bumped when a member comes, goes or has room again.
    pub(crate) changed: watch::Sender<u64>,
    /// A dispatcher has found no room: it is to be told when some comes back.
    wanting: AtomicBool,
    /// It has all its partitions; before that it is only being taken into use.
    ready: AtomicBool,
    /// It hands out nothing; looked at under the lock of a partition's machine.
    pub(super) paused: AtomicBool,
    runtime: Handle,
    /// For asking its filter.
    pub(crate) work: WorkKey,
    /// What its filter said.
    pub(super) tally: Tally,
    /// Why its members were sent away.
    ended: Mutex<Option<(ErrorKind, String)>>,
    /// Its dead letters, once somebody had to know them.
    pub(crate) graves: tokio::sync::Mutex<Option<Graves>>,
}

/// Room that is promised to a dispatcher; what it does not lease is given back.
pub(crate) struct Promise {
    group: Arc<QueueGroup>,
    pub(crate) member: Arc<Member>,
    pub(crate) records: usize,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.member.out.fetch_sub(self.records as i64, Ordering::SeqCst);
        // Others may have found nothing because all was promised.
        if self.group.wanting.swap(false, Ordering::SeqCst) {
            self.group.bump();
        }
    }
}

impl Member {
    fn room(&self) -> i64 {
        let queued = self.queued.load(Ordering::Acquire);
        // When much is on its way to others, each member gets one delivery at a time.
        let crowded = queued > 0 && self.queued_all.load(Ordering::Acquire) >= limits::QUEUED_BYTES;
        let full = queued >= self.queued_most || crowded;
        if full { 0 } else { self.prefetch - self.out.load(Ordering::SeqCst) }
    }

    pub(crate) fn describe(&self) -> GroupMember {
        GroupMember {
            id: self.id.to_string(),
            client: self.client.clone(),
            in_flight: u64::try_from(self.out.load(Ordering::Acquire)).unwrap_or(0),
            owns: Vec::new(),
            joined_ms: self.joined_ms,
            heard_ms: None,
        }
    }

    /// Hands over; `false` if the member is gone.
    pub(crate) fn hand(&self, handed: Handed) -> bool {
        self.queued.fetch_add(handed.batch.len(), Ordering::AcqRel);
        self.queued_all.fetch_add(handed.batch.len(), Ordering::AcqRel);
        self.sender.send(handed).is_ok()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.queued_all.fetch_sub(*self.queued.get_mut(), Ordering::AcqRel);
    }
}

impl QueuePartition {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Forgets why a record failed.
    pub(crate) fn forget_reason(&self, offset: Offset) {
        lock(&self.reasons).remove(&offset);
    }

    /// The reason that was last given for a failure of a record, as far as it is remembered.
    pub(crate) fn last_reason(&self, offset: Offset) -> Option<Arc<str>> {
        lock(&self.reasons).get(&offset).cloned()
    }

    pub(crate) fn reason(&self, offset: Offset) -> Option<String> {
        lock(&self.reasons).remove(&offset).map(|reason| reason.to_string())
    }
}

impl QueueGroup {
    pub(crate) fn new(entry: GroupEntry, filter: Option<Arc<Filter>>, runtime: Handle) -> Self {
        Self {
            name: entry.name.clone(),
            entry: Mutex::new(entry),
            inside: Mutex::new(Inside { filter, ..Inside::default() }),
            changed: watch::Sender::new(0),
            wanting: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            runtime,
            work: WorkKey::new(),
            tally: Tally::default(),
            ended: Mutex::default(),
            graves: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it has all its partitions.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// It has all its partitions.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(crate) fn rules(&self) -> QueueSettings {
        match &lock(&self.entry).kind {
            GroupKind::Queue(rules) => rules.clone(),
            GroupKind::Stream => QueueSettings::default(),
        }
    }

    /// Where its dead letters go.
    pub(crate) fn dead_letters(&self) -> Result<TopicName, BrokerError> {
        dead_letters(&self.name, &self.rules())
    }

    /// Whether it reads the topic. Its own dead letters it never reads.
    pub(crate) fn wants(&self, topic: &TopicName) -> bool {
        lock(&self.entry).topics.iter().any(|pattern| pattern.matches(topic))
            && self.dead_letters().is_ok_and(|dead| dead != *topic)
    }

    /// Adds the partitions of a topic that are not there yet, each from what was kept, else from where `start` says.
    pub(crate) fn add(self: &Arc<Self>, broker: &Arc<Broker>, topic: &Topic, start: impl Fn(PartitionId) -> Offset) {
        let rules = self.rules();
        for number in 0..topic.entry.partitions {
            let at = (topic.entry.id, number);
            if lock(&self.inside).partitions.contains_key(&at) {
                continue;
            }
            let (machine, intent) = {
                let catalog = lock(&broker.catalog);
                let progress = catalog.progress(&self.name, at);
                let position = progress.as_ref().and_then(|progress| progress.position.as_ref());
                let intent = position.map(|position| position.metadata.clone()).unwrap_or_default();
                (Machine::new(rules.clone(), progress.as_ref(), start(number)), intent)
            };
            let dirty = machine.is_dirty();
            // What cannot be held is offline, and nothing is deleted from it.
            let intended = Intent::read(&intent, &topic.entry.name, number).ok().flatten();
            let holds = intended.and_then(|intent| intent.hold(broker).ok()).unwrap_or_default();
            let partition = Arc::new(QueuePartition {
                place: Place { group: self.name.clone(), topic: at.0, partition: number },
                topic: topic.entry.name.clone(),
                machine: Mutex::new(machine),
                wake: Notify::new(),
                noted: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                dispatching: AtomicBool::new(false),
                reasons: Mutex::default(),
                intent: Mutex::new(intent),
                burying: tokio::sync::Mutex::new(holds),
            });
            // Whoever was here in between had the same to begin with.
            let added = {
                let mut inside = lock(&self.inside);
                let free = !inside.partitions.contains_key(&at);
                if free {
                    inside.partitions.insert(at, Arc::clone(&partition));
                }
                free
            };
            if added && dirty {
                broker.queues.keeper.note(&partition);
            }
        }
    }

    /// Every partition has a dispatcher as long as there are members, or something to find out.
    pub(crate) fn dispatch(self: &Arc<Self>, broker: &Arc<Broker>) {
        let inside = lock(&self.inside);
        let members = !inside.members.is_empty();
        for partition in inside.partitions.values() {
            if !members && lock(&partition.intent).is_empty() {
                continue;
            }
            if !partition.is_closed() && !partition.dispatching.swap(true, Ordering::AcqRel) {
                let (broker, group, partition) = (Arc::clone(broker), Arc::clone(self), Arc::clone(partition));
                task::spawn_on(&self.runtime, "dispatcher", async move {
                    let (again, whose) = (Arc::clone(&group), Arc::clone(&broker));
                    dispatch::run(broker, group, Arc::clone(&partition)).await;
                    partition.dispatching.store(false, Ordering::Release);
                    // A member may have come just when the last had gone.
                    if !partition.is_closed() {
                        again.dispatch(&whose);
                    }
                });
            }
        }
    }

    pub(crate) fn has_members(&self) -> bool {
        !lock(&self.inside).members.is_empty()
    }

    pub(crate) fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// The member with the most room, and as much of it as it makes sense to use at once.
    pub(crate) fn promise(self: &Arc<Self>, most: usize) -> Option<Promise> {
        self.promise_now(most).or_else(|| {
            self.wanting.store(true, Ordering::SeqCst);
            // What came back before that is known is seen now; who gives back later sees that it is wanted.
            self.promise_now(most)
        })
    }

    fn promise_now(self: &Arc<Self>, most: usize) -> Option<Promise> {
        let mut inside = lock(&self.inside);
        let turn = inside.turn;
        let later = inside.members.range(turn + 1..);
        let order = later.chain(inside.members.range(..=turn)).map(|(_, member)| member);
        let mut best: Option<(&Arc<Member>, i64)> = None;
        for (member, room) in order.map(|member| (member, member.room())).filter(|(_, room)| *room > 0) {
            if best.is_none_or(|(_, most)| room > most) {
                best = Some((member, room));
            }
        }
        let (member, room) = best?;
        let member = Arc::clone(member);
        let records = usize::try_from(room).unwrap_or(0).min(most);
        member.out.fetch_add(records as i64, Ordering::SeqCst);
        inside.turn = member.id;
        Some(Promise { group: Arc::clone(self), member, records })
    }

    /// Does something with a partition's machine, and what follows from it: room for members, something to keep.
    pub(crate) fn with<R>(
        &self,
        broker: &Broker,
        partition: &Arc<QueuePartition>,
        act: impl FnOnce(&mut Machine, TimestampMs) -> R,
    ) -> R {
        let (result, out, dirty) = {
            let mut machine = lock(&partition.machine);
            let (now, steps) = broker.clock.now_and_steps();
            machine.follow(now, steps);
            let result = act(&mut machine, now);
            (result, machine.take_out(), machine.is_dirty())
        };
        let mut room = false;
        if !out.is_empty() {
            let inside = lock(&self.inside);
            for (id, change) in out {
                if let Some(member) = inside.members.get(&id) {
                    member.out.fetch_add(change, Ordering::AcqRel);
                    room |= change < 0;
                }
            }
        }
        if room {
            self.bump();
        }
        if dirty {
            broker.queues.keeper.note(partition);
        }
        result
    }

    pub(crate) fn join(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        id: MemberId,
        (prefetch, queued_most): (u32, usize),
        client: String,
    ) -> mpsc::UnboundedReceiver<Handed> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let member = Arc::new(Member {
            id,
            client,
            joined_ms: broker.clock.now_ms(),
            prefetch: i64::from(prefetch.max(1)),
            queued_most,
            out: AtomicI64::new(0),
            queued: AtomicUsize::new(0),
            queued_all: Arc::clone(&broker.queues.queued),
            sender,
        });
        lock(&self.inside).members.insert(id, member);
        self.bump();
        self.dispatch(broker);
        receiver
    }

    /// What a member had goes to others at once.
    pub(crate) fn leave(&self, broker: &Broker, id: MemberId) {
        self.dismiss(broker, id, Machine::leave);
    }

    /// The same, and none of it counts as delivered.
    pub(crate) fn retire(&self, broker: &Broker, id: MemberId) {
        self.dismiss(broker, id, |machine, id, _| machine.give_back(id));
    }

    fn dismiss(&self, broker: &Broker, id: MemberId, act: impl Fn(&mut Machine, MemberId, TimestampMs)) {
        let partitions: Vec<_> = {
            let mut inside = lock(&self.inside);
            if inside.members.remove(&id).is_none() {
                return;
            }
            inside.partitions.values().cloned().collect()
        };
        for partition in partitions {
            self.with(broker, &partition, |machine, now| act(machine, id, now));
        }
        self.bump();
    }

    /// A member's delivery was sent, and its bytes no longer wait.
    pub(crate) fn sent(&self, id: MemberId, bytes: usize) {
        let member = lock(&self.inside).members.get(&id).cloned();
        if let Some(member) = member {
            let before = member.queued.fetch_sub(bytes, Ordering::AcqRel);
            member.queued_all.fetch_sub(bytes, Ordering::AcqRel);
            // A dispatcher that found no room may have found it because of what others have on their way.
            if before >= member.queued_most || before == bytes && self.wanting.swap(false, Ordering::SeqCst) {
                self.bump();
            }
        }
    }

    pub(crate) fn settle(&self, broker: &Broker, id: MemberId, settlement: &Settlement) -> Settled {
        let Settlement { topic, partition, from, to, verdict } = settlement;
        let found = broker
            .topic(topic.as_str())
            .ok()
            .and_then(|topic| lock(&self.inside).partitions.get(&(topic.entry.id, *partition)).cloned());
        let Some(partition) = found else {
            return Settled { settled: 0, lost: to.saturating_sub(*from) };
        };
        if let Verdict::Nack { reason: Some(reason), .. } = verdict
            && to.saturating_sub(*from) <= 64
        {
            // One copy of its beginning for all records that it is given for.
            let reason: Arc<str> = reason[..reason.floor_char_boundary(limits::NACK_REASON_BYTES)].into();
            let mut reasons = lock(&partition.reasons);
            if reasons.len() < REMEMBERED {
                reasons.extend((*from..*to).map(|offset| (offset, reason.clone())));
            }
        }
        let settled = self.with(broker, &partition, |machine, now| match verdict {
            Verdict::Ack => machine.ack(id, *from, *to, now),
            Verdict::Nack { delay_ms, .. } => machine.nack(id, (*from, *to), *delay_ms, now),
            Verdict::Release => machine.release(id, *from, *to),
            Verdict::Extend => machine.extend(id, *from, *to, now),
        });
        if *verdict == Verdict::Ack {
            let mut reasons = lock(&partition.reasons);
            if !reasons.is_empty() {
                reasons.retain(|offset, _| !(*from..*to).contains(offset));
            }
        }
        partition.wake.notify_one();
        settled
    }

    /// Takes over what was declared anew: rules hold from the next delivery on, topics that are no longer wanted go. Blocks.
    pub(crate) fn redeclare(&self, broker: &Broker, entry: GroupEntry, filter: Option<Arc<Filter>>) {
        let before = std::mem::replace(&mut *lock(&self.entry), entry);
        if before.filter != lock(&self.entry).filter {
            self.tally.clear();
        }
        let rules = self.rules();
        let held: Vec<_> = lock(&self.inside).partitions.values().cloned().collect();
        for partition in held.iter().filter(|partition| !self.wants(&partition.topic)) {
            // What is being buried is buried first.
            let mut holds = partition.burying.blocking_lock();
            partition.closed.store(true, Ordering::Release);
            partition.wake.notify_one();
            if !holds.is_empty() {
                broker.settle_later(&partition.place, &rules, std::mem::take(&mut *holds));
            }
        }
        let mut inside = lock(&self.inside);
        inside.filter = filter;
        inside.let_go(|partition| partition.is_closed());
        for partition in inside.partitions.values() {
            lock(&partition.machine).set_rules(rules.clone());
        }
    }

    /// Why its members were sent away.
    pub(crate) fn ended(&self) -> BrokerError {
        let why = lock(&self.ended).clone();
        let (kind, message) = why.unwrap_or_else(|| (ErrorKind::ShuttingDown, "the server is stopping".to_owned()));
        BrokerError::new(kind, message)
    }

    /// Refuses to call something kept once the group is stopped other than by the server: then it may not be.
    ///
    /// # Errors
    /// Why its members were sent away.
    pub(crate) fn check_kept(&self) -> Result<(), BrokerError> {
        let is_ended = lock(&self.ended).is_some();
        if is_ended { Err(self.ended()) } else { Ok(()) }
    }

    /// Ends everything: the group is gone or begins anew elsewhere in the log, as `why` says, or the server stops.
    pub(crate) fn stop(&self, why: Option<(ErrorKind, String)>) {
        *lock(&self.ended) = why;
        let mut inside = lock(&self.inside);
        inside.members.clear();
        for partition in inside.partitions.values() {
            partition.closed.store(true, Ordering::Release);
            partition.wake.notify_one();
        }
        drop(inside);
        self.bump();
    }

    /// Lets go of a topic that is gone.
    pub(crate) fn forget(&self, topic: TopicId) {
        lock(&self.inside).let_go(|partition| partition.place.topic == topic);
        self.bump();
    }
}

impl Inside {
    /// Partitions are none of the group's any more. What members have out of them does not count for their prefetch.
    fn let_go(&mut self, which: impl Fn(&QueuePartition) -> bool) {
        let Self { partitions, members, .. } = self;
        partitions.retain(|_, partition| {
            if !which(partition) {
                return true;
            }
            partition.closed.store(true, Ordering::Release);
            partition.wake.notify_one();
            for (id, change) in lock(&partition.machine).abandon() {
                if let Some(member) = members.get(&id) {
                    member.out.fetch_add(change, Ordering::AcqRel);
                }
            }
            false
        });
    }
}
