//! What members that speak Kafka's protocol of groups that the server shares out (KIP-848) have beyond the others: a way of
//! sharing out, a regular expression, and looser rules for commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{TopicPattern, TopicRegex};
use crate::catalog::Assignor;

use super::{At, Epoch, Machine, Member, MemberError, Ms, Topics, find};

/// What a member says of itself anew; `None` for what stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) topics: Option<Vec<TopicPattern>>,
    /// `Some(None)` for no expression any more.
    pub(crate) regex: Option<Option<TopicRegex>>,
    pub(crate) assignor: Option<Assignor>,
    pub(crate) rack: Option<String>,
    pub(crate) handover_ms: Option<Ms>,
}

impl Machine {
    /// The way of sharing out that most members want of those that say so; evenly if none does.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for consumer in self.members.values().filter_map(|member| member.consumer.as_ref()) {
            if let Some(assignor) = consumer.assignor {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        let most = votes.values().max().copied().unwrap_or(0);
        votes.into_iter().find(|(_, count)| *count == most).map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }

    /// Where each member comes in an order that stays: those with an instance's name by that, then the others.
    pub(super) fn places(&self) -> Vec<usize> {
        let mut order: Vec<_> = self
            .members
            .iter()
            .map(|(id, member)| (member.instance.is_none(), &member.instance, id))
            .enumerate()
            .collect();
        order.sort_by_key(|(_, one)| *one);
        let mut places = vec![0; order.len()];
        for (place, (number, _)) in order.into_iter().enumerate() {
            places[number] = place;
        }
        places
    }

    /// Whether a member is the one that has an instance's name.
    ///
    /// # Errors
    /// Another one has it, or nobody.
    pub(crate) fn check_instance(&self, id: &str, instance: &str) -> Result<(), MemberError> {
        match self.instance(instance) {
            Some(other) if *other == *id => Ok(()),
            Some(other) => Err(MemberError::InstanceTaken { instance: instance.to_owned(), id: other.to_string() }),
            None => Err(MemberError::Unknown { id: id.to_owned() }),
        }
    }

    /// A member says something anew; whether anything is new of it.
    ///
    /// # Errors
    /// It is unknown.
    pub(crate) fn change(&mut self, id: &str, change: Change, all: &Topics) -> Result<bool, MemberError> {
        let (id, member) = find(&mut self.members, id)?;
        let before = (member.topics.clone(), member.consumer.clone(), member.handover_ms);
        let Change { topics, regex, assignor, rack, handover_ms } = change;
        let consumer = member.consumer.get_or_insert_default();
        if let Some(regex) = regex {
            consumer.regex = regex;
        }
        consumer.assignor = assignor.or(consumer.assignor);
        if rack.is_some() {
            consumer.rack = rack;
        }
        if let Some(topics) = topics {
            member.topics = topics;
        }
        member.handover_ms = handover_ms.unwrap_or(member.handover_ms);
        if before == (member.topics.clone(), member.consumer.clone(), member.handover_ms) {
            return Ok(false);
        }
        self.dirty.insert(id);
        self.set_topics(all);
        Ok(true)
    }

    /// The group's epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The way of sharing out, for people.
    pub(crate) fn assignor_name(&self) -> &'static str {
        match self.assignor() {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// Whether everybody has what it is to have.
    pub(crate) fn is_settled(&self) -> bool {
        let settled = |(id, member): (&Arc<str>, &Member)| {
            let target = self.to_have.get(id).into_iter().flatten();
            member.epoch == self.epoch && member.gives_up.is_empty() && member.owns.keys().eq(target)
        };
        self.members.iter().all(settled)
    }

    /// Whether a member may commit a position anywhere, as Kafka's protocol has it: at its present epoch where nobody else
    /// owns the partition, at an older one as others may.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn may_commit_as_consumer(&self, id: &str, epoch: Epoch, at: At) -> Result<(), MemberError> {
        self.may_speak(id, epoch)?;
        let free = self.owners.get(&at).is_none_or(|owner| **owner == *id);
        if free && self.members.get(id).is_some_and(|member| member.epoch == epoch) {
            return Ok(());
        }
        self.may_commit(id, epoch, at)
    }

    /// Whether a member is one, and its epoch is its present one or the one before.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn may_speak(&self, id: &str, epoch: Epoch) -> Result<(), MemberError> {
        let member = self.members.get(id).ok_or_else(|| MemberError::Unknown { id: id.to_owned() })?;
        if epoch != member.epoch && (epoch != member.before || epoch == 0) {
            return Err(MemberError::Epoch { id: id.to_owned(), epoch, current: member.epoch });
        }
        Ok(())
    }
}
