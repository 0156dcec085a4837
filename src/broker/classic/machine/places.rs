//! Places that have a name (Kafka's static members): whoever comes back to one goes on in it.

use super::super::member::said;
use super::super::types::{Answer, ClassicError, ClassicJoin, Ms, Ticket};
use super::{Machine, State};

impl Machine {
    /// Another one takes the place of a member, under a new id. The group goes on as it is if nothing else changes.
    pub(super) fn replace(&mut self, ticket: Ticket, old: &str, new_id: String, join: ClassicJoin, now: Ms) {
        let Some(mut member) = self.members.remove(old) else { return };
        let may_skip = join.may_skip;
        let same = member.said(&self.protocol) == said(&join.protocols, &self.protocol)
            && join.protocols.iter().any(|(name, _)| *name == self.protocol);
        if let Some(joining) = member.joining.take() {
            self.answers.push((joining, Answer::Joined(Err((ClassicError::Fenced, old.to_owned())))));
        }
        if let Some(syncing) = member.syncing.take() {
            self.answers.push((syncing, Answer::Synced(Err(ClassicError::Fenced))));
        }
        member.update(ticket, join, now);
        self.weighed += 1;
        self.members.insert(new_id.clone(), member);
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(new_id.clone());
        }
        if self.state != State::Stable || !same {
            return self.prepare(now);
        }
        self.changed = true;
        self.tell(&new_id, may_skip, now);
        if led
            && !may_skip
            && let Some((_, Answer::Joined(Ok(joined)))) = self.answers.last_mut()
        {
            // It would assign, for nobody: it must not know that it leads.
            joined.leader = old.to_owned();
            joined.members.clear();
        }
    }
}
