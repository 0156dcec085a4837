//! What is to be kept of a classic group on the disk: its last completed round, in one piece.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::TimestampMs;
use crate::catalog::{ClassicEntry, ClassicMemberEntry};

use super::super::super::clients::Client;
use super::{Machine, Member, Ms, State};

/// What a member takes beside its words.
const PER_MEMBER: usize = 64;

impl Machine {
    /// Goes on with a round that was kept: everybody is there, and its session begins anew.
    pub(crate) fn load(kept: ClassicEntry, now: Ms, wall: TimestampMs) -> Self {
        let ClassicEntry { generation, protocol_type, protocol, leader, members } = kept;
        let mut machine = Self { generation, protocol_type, protocol, leader, ..Self::from_generation(generation) };
        for entry in members {
            machine.orders += 1;
            machine.members.insert(entry.id.clone(), Member::of(entry, machine.orders, now, wall));
        }
        if !machine.members.is_empty() {
            machine.state = State::Stable;
        }
        machine
    }

    /// Whether what is to be kept has changed since this was last asked, and is what all members hear: a round has been
    /// completed, or a place taken over in one.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed) && self.state == State::Stable
    }

    /// Bytes of what is to be kept, about.
    pub(crate) fn kept_bytes(&self) -> usize {
        let of = |(id, member): (&String, &Member)| id.len() + member.weight + member.assignment.len() + PER_MEMBER;
        self.members.iter().map(of).sum()
    }

    /// What is to be kept.
    pub(crate) fn entry(&self, now: Ms, wall: TimestampMs) -> ClassicEntry {
        let members: BTreeMap<u64, ClassicMemberEntry> =
            self.members.iter().map(|(id, member)| (member.order, member.entry(id, now, wall))).collect();
        ClassicEntry {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.into_values().collect(),
        }
    }
}

impl Member {
    fn of(entry: ClassicMemberEntry, order: u64, now: Ms, wall: TimestampMs) -> Self {
        let ClassicMemberEntry { instance, client, host, session_ms, rebalance_ms, joined_ms, .. } = entry;
        let protocols = entry.protocols.into_iter().map(|(name, said)| (name, Bytes::from(said))).collect();
        let mut member = Self {
            instance,
            client,
            host,
            // Who it was is known when it joins anew.
            from: Client::Server,
            session_ms,
            rebalance_ms,
            protocols,
            weight: 0,
            knows_id: true,
            assignment: Bytes::from(entry.assignment),
            order,
            joining: None,
            syncing: None,
            synced: true,
            expires: now + session_ms,
            joined: i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(wall.saturating_sub(joined_ms)),
            heard: now,
        };
        member.weight = member.weigh();
        member
    }

    fn entry(&self, id: &str, now: Ms, wall: TimestampMs) -> ClassicMemberEntry {
        ClassicMemberEntry {
            id: id.to_owned(),
            instance: self.instance.clone(),
            client: self.client.clone(),
            host: self.host.clone(),
            session_ms: self.session_ms,
            rebalance_ms: self.rebalance_ms,
            protocols: self.protocols.iter().map(|(name, said)| (name.clone(), said.to_vec())).collect(),
            assignment: self.assignment.to_vec(),
            joined_ms: self.joined_ms(now, wall),
        }
    }
}
