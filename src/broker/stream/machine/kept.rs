//! What is to be kept of a group on the disk: its members, each in one piece.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::TimestampMs;
use crate::catalog::{MemberEntry, Owned};

use super::{At, Epoch, Id, Joining, Machine, Member, Ms, Topics};

impl Machine {
    /// Goes on with the members that were kept; their sessions begin anew.
    pub(crate) fn load(kept: impl IntoIterator<Item = (Id, MemberEntry)>, topics: &Topics, now: Ms) -> Self {
        let mut machine = Self::default();
        let mut claims: BTreeMap<At, (Epoch, Id)> = BTreeMap::new();
        for (id, entry) in kept {
            machine.epoch = machine.epoch.max(entry.epoch);
            for owned in &entry.owns {
                // Of two, which a crash in the midst of keeping can leave, the later is right: the other had given it up.
                let claim = claims.entry((owned.topic, owned.partition)).or_insert((owned.epoch, Arc::clone(&id)));
                if owned.epoch > claim.0 {
                    *claim = (owned.epoch, Arc::clone(&id));
                }
            }
            machine.members.insert(id, Member::of(entry, now));
        }
        let mut target = BTreeMap::new();
        for (id, member) in &mut machine.members {
            let own = |at: &At| claims.get(at).is_some_and(|(_, owner)| owner == id);
            member.owns.retain(|at, _| own(at));
            member.gives_up.retain(|at, _| own(at));
            // What it is told to give up is to be somebody else's.
            target.extend(member.owns.keys().map(|at| (*at, Arc::clone(id))));
        }
        machine.owners = claims.into_iter().map(|(at, (_, owner))| (at, owner)).collect();
        machine.aim(target);
        machine.set_topics(topics);
        machine
    }

    /// The members that have changed since this was asked for last, as they are now; `None` is gone.
    pub(crate) fn take_changes(&mut self) -> Vec<(Id, Option<MemberEntry>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let entry = |id: Id| {
            let entry = self.members.get(&id).map(Member::entry);
            (id, entry)
        };
        dirty.into_iter().map(entry).collect()
    }
}

impl Member {
    pub(super) fn new(joining: Joining, now: Ms) -> Self {
        let Joining { id: _, instance, client, topics, session_ms, handover_ms, joined_ms, consumer } = joining;
        Self {
            instance,
            client,
            joined_ms,
            topics,
            session_ms,
            handover_ms,
            epoch: 0,
            before: 0,
            owns: BTreeMap::new(),
            gives_up: BTreeMap::new(),
            away: false,
            deadline: now.saturating_add(session_ms),
            hurry: None,
            says: Some(std::collections::BTreeSet::new()),
            told: false,
            beats: 0,
            heard: now,
            consumer,
        }
    }

    fn of(entry: MemberEntry, now: Ms) -> Self {
        let owned = |gives_up| {
            let of = entry.owns.iter().filter(move |owned| owned.gives_up == gives_up);
            of.map(|owned| ((owned.topic, owned.partition), owned.epoch)).collect::<BTreeMap<At, Epoch>>()
        };
        let (owns, gives_up) = (owned(false), owned(true));
        Self {
            owns,
            hurry: (!gives_up.is_empty()).then(|| now.saturating_add(entry.handover_ms)),
            gives_up,
            instance: entry.instance,
            client: entry.client,
            joined_ms: entry.joined_ms,
            topics: entry.topics,
            session_ms: entry.session_ms,
            handover_ms: entry.handover_ms,
            epoch: entry.epoch,
            before: entry.before,
            away: entry.away,
            deadline: now.saturating_add(entry.session_ms),
            says: None,
            told: false,
            beats: 0,
            heard: now,
            consumer: entry.consumer,
        }
    }

    fn entry(&self) -> MemberEntry {
        let owned =
            |gives_up| move |(&(topic, partition), &epoch): (&At, &Epoch)| Owned { topic, partition, epoch, gives_up };
        let joined_ms: TimestampMs = self.joined_ms;
        MemberEntry {
            instance: self.instance.clone(),
            client: self.client.clone(),
            topics: self.topics.clone(),
            session_ms: self.session_ms,
            handover_ms: self.handover_ms,
            epoch: self.epoch,
            before: self.before,
            owns: self.owns.iter().map(owned(false)).chain(self.gives_up.iter().map(owned(true))).collect(),
            away: self.away,
            joined_ms,
            consumer: self.consumer.clone(),
        }
    }
}
