//! A classic group as a state machine: events and the time in, answers and the next deadline out. What members say of
//! themselves and assign to each other is opaque. The rules are those of Kafka's group coordinator.

mod weight;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::limits;

use super::member::Member;
use super::types::{Answer, ClassicError, ClassicJoin, ClassicJoined, ClassicShare, ClassicVoice, Ms, Ticket};

mod kept;
mod places;

/// How long a group that was empty waits for further members before the first round ends.
pub(crate) const INITIAL_DELAY_MS: Ms = 250;
/// Members of a group, and ids that are given out and not used yet.
pub(crate) const MEMBERS: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody is there.
    Empty,
    /// Members join.
    Preparing {
        /// Who has not joined by then is out.
        until: Ms,
        /// In a group that was empty: not before.
        not_before: Option<Ms>,
    },
    /// The leader assigns.
    Completing {
        /// Who has not asked for its share by then is out.
        until: Ms,
    },
    Stable,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids that are given out and not used yet, and until when they can be.
    pending: BTreeMap<String, Ms>,
    /// A member was added since the wait for further ones was last prolonged.
    fresh: bool,
    orders: u64,
    /// What is to be kept of it has changed since that was last asked.
    changed: bool,
    /// Counts the changes of what members say and are assigned.
    weighed: u64,
    answers: Vec<(Ticket, Answer)>,
}

impl Machine {
    /// A group that was empty since a generation, 0 for a new one.
    pub(crate) fn from_generation(generation: i32) -> Self {
        Self {
            state: State::Empty,
            generation,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            fresh: false,
            orders: 0,
            changed: false,
            weighed: 0,
            answers: Vec::new(),
        }
    }

    /// What is to be answered since this was last asked.
    pub(crate) fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Nobody is there, and nobody is expected.
    pub(crate) fn is_over(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Kafka's word for the state.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::Preparing { .. } => "PreparingRebalance",
            State::Completing { .. } => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    /// The members, in the order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    /// What a member says of itself in the group's protocol.
    pub(crate) fn said(&self, member: &Member) -> Bytes {
        member.said(&self.protocol)
    }

    /// Takes a wish to join; `new_id` is used if the member has none.
    pub(crate) fn join(&mut self, ticket: Ticket, join: ClassicJoin, new_id: String, now: Ms) {
        if let Err((error, id)) = self.try_join(ticket, join, new_id, now) {
            self.answers.push((ticket, Answer::Joined(Err((error, id)))));
        }
        self.try_complete(now);
    }

    fn try_join(
        &mut self,
        ticket: Ticket,
        join: ClassicJoin,
        new_id: String,
        now: Ms,
    ) -> Result<(), (ClassicError, String)> {
        let refuse = |error| (error, join.member.clone());
        if !self.can_speak(&join) {
            return Err(refuse(ClassicError::InconsistentProtocol));
        }
        let others = self.members.iter().filter(|(id, _)| **id != join.member);
        let others: usize = others.map(|(_, member)| member.weight).sum();
        if join.weight() > limits::CLASSIC_MEMBER_BYTES {
            return Err(refuse(ClassicError::TooLarge));
        }
        if others + join.weight() > limits::CLASSIC_GROUP_BYTES {
            return Err(refuse(ClassicError::Full));
        }
        let holder = join.instance.as_ref().and_then(|instance| self.holder(instance));
        match (join.member.is_empty(), holder) {
            (true, Some(old)) => self.replace(ticket, &old, new_id, join, now),
            (true, None) if join.instance.is_none() && join.takes_id_first => {
                if self.members.len() + self.pending.len() >= MEMBERS {
                    return Err(refuse(ClassicError::Full));
                }
                self.pending.insert(new_id.clone(), now + join.session_ms);
                return Err((ClassicError::IdRequired, new_id));
            }
            (true, None) => self.add(ticket, new_id, join, now)?,
            (false, Some(id)) if id != join.member => return Err(refuse(ClassicError::Fenced)),
            (false, None) if join.instance.is_some() => return Err(refuse(ClassicError::UnknownMember)),
            (false, _) if self.pending.remove(&join.member).is_some() => {
                let id = join.member.clone();
                self.add(ticket, id, join, now)?;
            }
            (false, _) if !self.members.contains_key(&join.member) => {
                return Err(refuse(ClassicError::UnknownMember));
            }
            (false, _) => self.rejoin(ticket, join, now),
        }
        Ok(())
    }

    fn holder(&self, instance: &str) -> Option<String> {
        let held = self.members.iter().find(|(_, member)| member.instance.as_deref() == Some(instance));
        held.map(|(id, _)| id.clone())
    }

    /// Whether it speaks a protocol of this group that all others can speak too.
    fn can_speak(&self, join: &ClassicJoin) -> bool {
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return false;
        }
        let mut others = self.members.iter().filter(|(id, _)| **id != join.member).peekable();
        if others.peek().is_none() {
            return true;
        }
        self.protocol_type == join.protocol_type
            && join.protocols.iter().any(|(name, _)| others.clone().all(|(_, other)| other.speaks(name)))
    }

    fn add(&mut self, ticket: Ticket, id: String, join: ClassicJoin, now: Ms) -> Result<(), (ClassicError, String)> {
        if self.members.len() >= MEMBERS {
            return Err((ClassicError::Full, join.member));
        }
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        self.orders += 1;
        let (weight, knows_id) = (join.weight(), !join.member.is_empty() || join.instance.is_some());
        let ClassicJoin { instance, client, host, from, session_ms, rebalance_ms, protocols, .. } = join;
        let member = Member {
            instance,
            client,
            host,
            from,
            session_ms,
            rebalance_ms,
            protocols,
            weight,
            knows_id,
            assignment: Bytes::new(),
            order: self.orders,
            joining: Some(ticket),
            syncing: None,
            synced: false,
            expires: now + session_ms,
            joined: i64::try_from(now).unwrap_or(i64::MAX),
            heard: now,
        };
        self.weighed += 1;
        self.members.insert(id.clone(), member);
        self.leader.get_or_insert(id);
        self.fresh = true;
        self.prepare(now);
        Ok(())
    }

    /// A member that is there joins again.
    fn rejoin(&mut self, ticket: Ticket, join: ClassicJoin, now: Ms) {
        let leads = self.leader.as_ref() == Some(&join.member);
        let Some(member) = self.members.get_mut(&join.member) else { return };
        let same = member.protocols == join.protocols;
        let id = join.member.clone();
        let old = member.update(ticket, join, now);
        self.weighed += 1;
        self.supersede(old, &id);
        match self.state {
            State::Preparing { .. } => {}
            // It did not hear the answer to its last request.
            State::Completing { .. } if same => self.tell(&id, false, now),
            State::Stable if same && !leads => self.tell(&id, false, now),
            _ => self.prepare(now),
        }
    }

    /// A request of the same member waits already: that one is not waited for by anybody any more.
    fn supersede(&mut self, old: Option<Ticket>, id: &str) {
        if let Some(old) = old {
            let refused = Err((ClassicError::Rebalancing, id.to_owned()));
            self.answers.push((old, Answer::Joined(refused)));
        }
    }

    /// Answers a member that joins, with things as they are.
    fn tell(&mut self, id: &str, skip: bool, now: Ms) {
        let leader = self.leader.clone().unwrap_or_default();
        let leads = leader == id;
        let members = if leads { self.everybody() } else { Vec::new() };
        let Some(member) = self.members.get_mut(id) else { return };
        let Some(ticket) = member.joining.take() else { return };
        member.alive(now);
        member.knows_id = true;
        let joined = ClassicJoined {
            member: id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            skip: skip && leads,
            members,
        };
        self.answers.push((ticket, Answer::Joined(Ok(joined))));
    }

    fn everybody(&self) -> Vec<(String, Option<String>, Bytes)> {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|(_, member)| member.order);
        let said = |(id, member): (&String, &Member)| (id.clone(), member.instance.clone(), self.said(member));
        members.into_iter().map(said).collect()
    }

    /// Begins a new round, if none has begun.
    fn prepare(&mut self, now: Ms) {
        let longest = self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0);
        let until = now + longest;
        match self.state {
            State::Preparing { .. } => return,
            State::Empty => {
                self.fresh = false;
                let not_before = Some(now + INITIAL_DELAY_MS.min(longest));
                self.state = State::Preparing { until, not_before };
            }
            State::Completing { .. } | State::Stable => self.state = State::Preparing { until, not_before: None },
        }
        for member in self.members.values_mut() {
            member.synced = false;
            if let Some(syncing) = member.syncing.take() {
                member.alive(now);
                self.answers.push((syncing, Answer::Synced(Err(ClassicError::Rebalancing))));
            }
        }
    }

    /// Ends the round if everybody has joined, or the time is over.
    fn try_complete(&mut self, now: Ms) {
        let State::Preparing { until, not_before } = self.state else { return };
        let all = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        match not_before {
            Some(at) if now < at => {}
            Some(_) if self.fresh && now < until => {
                // Further members have come: others may follow.
                self.fresh = false;
                let not_before = Some((now + INITIAL_DELAY_MS).min(until));
                self.state = State::Preparing { until, not_before };
            }
            _ if all || now >= until => self.complete(now),
            _ => self.state = State::Preparing { until, not_before: None },
        }
    }

    fn complete(&mut self, now: Ms) {
        // A place that has a name is kept for whoever comes back to it.
        self.weighed += 1;
        self.members.retain(|_, member| member.joining.is_some() || member.instance.is_some());
        if self.members.is_empty() {
            self.generation = self.generation.wrapping_add(1).max(1);
            self.leader = None;
            self.state = State::Empty;
            return;
        }
        let joined = |member: &Member| member.joining.is_some();
        let leads = self.leader.as_ref().and_then(|leader| self.members.get(leader)).is_some_and(joined);
        if !leads {
            let first = self.members.iter().filter(|(_, member)| joined(member)).min_by_key(|(_, member)| member.order);
            match first {
                Some((id, _)) => self.leader = Some(id.clone()),
                None => {
                    // Nobody has come back: the places are kept for another round.
                    let longest = self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0);
                    self.state = State::Preparing { until: now + longest.max(1), not_before: None };
                    return;
                }
            }
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        self.protocol = self.elect();
        let longest = self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0);
        self.state = State::Completing { until: now + longest };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.synced = false;
                member.assignment = Bytes::new();
            }
            self.tell(&id, false, now);
        }
    }

    /// The protocol that all can speak and most like best.
    fn elect(&self) -> String {
        let common = |name: &String| self.members.values().all(|member| member.speaks(name));
        let mut votes: BTreeMap<&String, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((best, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(best).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(name, count)| (*count, std::cmp::Reverse(*name)));
        most.map(|(name, _)| name.clone()).unwrap_or_default()
    }

    /// Whether it is a member that may speak.
    fn check(&self, voice: ClassicVoice<'_>) -> Result<(), ClassicError> {
        if let Some(instance) = voice.instance {
            match self.holder(instance) {
                Some(id) if id != voice.member => return Err(ClassicError::Fenced),
                Some(_) => {}
                None => return Err(ClassicError::UnknownMember),
            }
        }
        if !self.members.contains_key(voice.member) {
            return Err(ClassicError::UnknownMember);
        }
        if voice.generation != self.generation { Err(ClassicError::IllegalGeneration) } else { Ok(()) }
    }

    /// A member asks for its share; the leader says what everybody's is.
    pub(crate) fn sync(
        &mut self,
        ticket: Ticket,
        voice: ClassicVoice<'_>,
        protocol: (Option<&str>, Option<&str>),
        shares: Vec<(String, Bytes)>,
        now: Ms,
    ) {
        if let Err(error) = self.try_sync(ticket, voice, protocol, shares, now) {
            self.answers.push((ticket, Answer::Synced(Err(error))));
        }
    }

    fn try_sync(
        &mut self,
        ticket: Ticket,
        voice: ClassicVoice<'_>,
        protocol: (Option<&str>, Option<&str>),
        shares: Vec<(String, Bytes)>,
        now: Ms,
    ) -> Result<(), ClassicError> {
        self.check(voice)?;
        let other = |said: Option<&str>, is: &str| said.is_some_and(|said| said != is);
        if other(protocol.0, &self.protocol_type) || other(protocol.1, &self.protocol) {
            return Err(ClassicError::InconsistentProtocol);
        }
        let Some(member) = self.members.get_mut(voice.member) else { return Err(ClassicError::UnknownMember) };
        member.alive(now);
        match self.state {
            State::Empty => return Err(ClassicError::UnknownMember),
            State::Preparing { .. } => return Err(ClassicError::Rebalancing),
            State::Completing { .. } => {
                member.synced = true;
                if let Some(old) = member.syncing.replace(ticket) {
                    self.answers.push((old, Answer::Synced(Err(ClassicError::Rebalancing))));
                }
                if self.leader.as_deref() != Some(voice.member) {
                    return Ok(());
                }
                self.weighed += 1;
                for (id, share) in shares {
                    if let Some(member) = self.members.get_mut(&id) {
                        member.assignment = share;
                    }
                }
                self.state = State::Stable;
                self.changed = true;
            }
            State::Stable => {
                member.synced = true;
                member.syncing = Some(ticket);
            }
        }
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.alive(now);
                let share = ClassicShare {
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                self.answers.push((ticket, Answer::Synced(Ok(share))));
            }
        }
        Ok(())
    }

    /// A sign of life.
    pub(crate) fn beat(&mut self, voice: ClassicVoice<'_>, now: Ms) -> Result<(), ClassicError> {
        self.check(voice)?;
        if let Some(member) = self.members.get_mut(voice.member) {
            member.alive(now);
        }
        match self.state {
            State::Preparing { .. } => Err(ClassicError::Rebalancing),
            _ => Ok(()),
        }
    }

    /// Whether a member may commit positions, which is a sign of life too. Who speaks of no generation may while there are no members.
    pub(crate) fn may_commit(&mut self, voice: ClassicVoice<'_>, now: Ms) -> Result<(), ClassicError> {
        if voice.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.check(voice)?;
        if let Some(member) = self.members.get_mut(voice.member) {
            member.alive(now);
        }
        match self.state {
            // What it had is another's soon: whose, is being said.
            State::Completing { .. } => Err(ClassicError::Rebalancing),
            _ => Ok(()),
        }
    }

    /// A member leaves; one that fills a named place may be named by that.
    pub(crate) fn leave(&mut self, member: &str, instance: Option<&str>, now: Ms) -> Result<(), ClassicError> {
        let id = match instance {
            Some(instance) => match self.holder(instance) {
                Some(id) if member.is_empty() || id == member => id,
                Some(_) => return Err(ClassicError::Fenced),
                None => return Err(ClassicError::UnknownMember),
            },
            None => member.to_owned(),
        };
        if self.pending.remove(&id).is_none() && !self.remove(&id, now) {
            return Err(ClassicError::UnknownMember);
        }
        self.try_complete(now);
        Ok(())
    }

    /// Whether there was such a member.
    fn remove(&mut self, id: &str, now: Ms) -> bool {
        let Some(member) = self.members.remove(id) else { return false };
        self.weighed += 1;
        if let Some(ticket) = member.joining {
            self.answers.push((ticket, Answer::Joined(Err((ClassicError::UnknownMember, id.to_owned())))));
        }
        if let Some(ticket) = member.syncing {
            self.answers.push((ticket, Answer::Synced(Err(ClassicError::UnknownMember))));
        }
        if self.leader.as_deref() == Some(id) {
            let first = self.members.iter().min_by_key(|(_, member)| member.order);
            self.leader = first.map(|(id, _)| id.clone());
        }
        if self.members.is_empty() && !matches!(self.state, State::Preparing { .. }) {
            self.generation = self.generation.wrapping_add(1).max(1);
            self.state = State::Empty;
        } else {
            self.prepare(now);
        }
        true
    }

    /// Nobody waits for the answer of a request any more: its member stays until its session ends. One that has never
    /// heard its id goes at once, since nobody can speak for it.
    pub(crate) fn abandon(&mut self, ticket: Ticket, now: Ms) {
        let unknown = self.members.iter_mut().find(|(_, member)| member.joining == Some(ticket) && !member.knows_id);
        if let Some((id, member)) = unknown {
            member.joining = None;
            let id = id.clone();
            self.remove(&id, now);
            self.try_complete(now);
        }
        for member in self.members.values_mut() {
            if member.joining == Some(ticket) {
                member.joining = None;
                member.alive(now);
            }
            if member.syncing == Some(ticket) {
                member.syncing = None;
                member.alive(now);
            }
        }
    }

    /// Sends away whose time is over, and ends what has waited long enough.
    pub(crate) fn tick(&mut self, now: Ms) -> Vec<String> {
        self.pending.retain(|_, until| *until > now);
        let late = matches!(self.state, State::Completing { until } if until <= now);
        let silent = |member: &Member| member.expires().is_some_and(|expires| expires <= now);
        let gone = self.members.iter().filter(|(_, member)| silent(member) || late && !member.synced);
        let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove(id, now);
        }
        if late && gone.is_empty() {
            // Everybody has asked, and the leader has gone meanwhile: another round.
            self.prepare(now);
        }
        self.try_complete(now);
        gone
    }

    /// When [`Machine::tick`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Ms> {
        let state = match self.state {
            State::Preparing { until, not_before } => Some(not_before.unwrap_or(until).min(until)),
            State::Completing { until } => Some(until),
            State::Empty | State::Stable => None,
        };
        let members = self.members.values().filter_map(Member::expires);
        members.chain(self.pending.values().copied()).chain(state).min()
    }

    /// The group was taken away: everybody is sent away.
    pub(crate) fn end(&mut self) {
        self.pending.clear();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.remove(&id, 0);
        }
        self.state = State::Empty;
    }
}
