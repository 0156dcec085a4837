//! How a partition goes from one member to another: what a heartbeat brings about.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{At, Epoch, Id, Machine, MemberError, Ms, TOLD_AT_ONCE, find};

/// How a heartbeat came.
#[derive(Clone, Copy)]
struct Came {
    /// It says what the member has.
    said: bool,
    /// It has waited for a while.
    waits: bool,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// The member's epoch.
    pub(crate) epoch: Epoch,
    /// What it may work on beyond what it says it has.
    pub(crate) granted: Vec<At>,
    /// What it says it has and is to give up.
    pub(crate) taken: Vec<At>,
    /// There is something that it has not been told.
    pub(crate) news: bool,
    /// Which of its heartbeats this answers.
    pub(crate) beat: u64,
}

impl Machine {
    /// A member is alive, and says what it has if that has changed (or may not be known). What it was told to give up and
    /// does not have any more is free from here on.
    ///
    /// # Errors
    /// It is unknown, or speaks of another time.
    pub(crate) fn beat(
        &mut self,
        id: &str,
        epoch: Epoch,
        says: Option<BTreeSet<At>>,
        now: Ms,
    ) -> Result<Share, MemberError> {
        let (id, member) = find(&mut self.members, id)?;
        // The answer that told it of the newest epoch may be lost or on its way.
        if epoch != member.epoch && (epoch != member.before || epoch == 0) {
            return Err(MemberError::Epoch { id: id.to_string(), epoch, current: member.epoch });
        }
        member.heard = now;
        member.deadline = now.saturating_add(member.session_ms);
        if std::mem::take(&mut member.away) {
            self.dirty.insert(Arc::clone(&id));
        }
        member.beats += 1;
        let said = says.is_some();
        if said {
            // What it gave up may be waited for; and an older heartbeat that waits has been superseded.
            self.version += 1;
        }
        if let Some(says) = says {
            let free: Vec<At> = member.gives_up.keys().filter(|at| !says.contains(at)).copied().collect();
            member.says = Some(says);
            if !free.is_empty() {
                for at in &free {
                    member.gives_up.remove(at);
                    self.owners.remove(at);
                }
                self.dirty.insert(Arc::clone(&id));
            }
        }
        Ok(self.share(&id, epoch, Came { said, waits: false }, now))
    }

    /// What a member that has just joined is told.
    pub(crate) fn first_share(&mut self, id: &str, now: Ms) -> Result<Share, MemberError> {
        let (id, _) = find(&mut self.members, id)?;
        Ok(self.share(&id, 0, Came { said: true, waits: false }, now))
    }

    /// What there is to tell a member whose heartbeat waits; `None` if a newer one has taken its place.
    ///
    /// # Errors
    /// It is no member any more.
    pub(crate) fn look_again(
        &mut self,
        id: &str,
        epoch: Epoch,
        beat: u64,
        now: Ms,
    ) -> Result<Option<Share>, MemberError> {
        let (id, member) = find(&mut self.members, id)?;
        if member.beats != beat {
            return Ok(None);
        }
        Ok(Some(self.share(&id, epoch, Came { said: false, waits: true }, now)))
    }

    /// Takes the member as far as it goes, and sees what it has not been told.
    fn share(&mut self, id: &Id, epoch: Epoch, Came { said, waits }: Came, now: Ms) -> Share {
        self.advance(id, waits, now);
        // The caller has just looked it up.
        let Some(member) = self.members.get_mut(id) else {
            return Share { epoch, granted: Vec::new(), taken: Vec::new(), news: false, beat: 0 };
        };
        let both = || member.owns.keys().chain(member.gives_up.keys()).copied().collect();
        let says = member.says.get_or_insert_with(both);
        let granted: Vec<At> = member.owns.keys().filter(|at| !says.contains(at)).take(TOLD_AT_ONCE).copied().collect();
        let taken: Vec<At> =
            says.iter().filter(|at| !member.owns.contains_key(at)).take(TOLD_AT_ONCE).copied().collect();
        let news = epoch != member.epoch || !granted.is_empty() || !taken.is_empty() && (said || !member.told);
        member.told |= news;
        Share { epoch: member.epoch, granted, taken, news, beat: member.beats }
    }

    /// Towards the target: first it gives up what it is not to have, then it goes over to the group's epoch and gets what
    /// is free of what it is to have. For the epoch alone, a heartbeat that waits is not answered.
    fn advance(&mut self, id: &Id, waits: bool, now: Ms) {
        let nothing = BTreeSet::new();
        let to_have = self.to_have.get(id).unwrap_or(&nothing);
        let Some(member) = self.members.get_mut(id).filter(|member| member.gives_up.is_empty()) else { return };
        member.gives_up.extend(member.owns.extract_if(.., |at, _| !to_have.contains(at)));
        if !member.gives_up.is_empty() {
            member.told = false;
            member.hurry = Some(now.saturating_add(member.handover_ms));
            self.dirty.insert(Arc::clone(id));
            return;
        }
        member.hurry = None;
        if waits && to_have.iter().all(|at| self.owners.contains_key(at)) {
            return;
        }
        if member.epoch != self.epoch {
            member.before = std::mem::replace(&mut member.epoch, self.epoch);
            self.dirty.insert(Arc::clone(id));
        }
        for at in to_have {
            if let Entry::Vacant(free) = self.owners.entry(*at) {
                free.insert(Arc::clone(id));
                member.owns.insert(*at, member.epoch);
                self.dirty.insert(Arc::clone(id));
            }
        }
    }

    /// Whether a member may commit a position: it owns the partition, and did so at the epoch that it speaks of. So a
    /// commit that was long under way does not reach into a later time.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn may_commit(&self, id: &str, epoch: Epoch, at: At) -> Result<(), MemberError> {
        let member = self.members.get(id).ok_or_else(|| MemberError::Unknown { id: id.to_owned() })?;
        if epoch > member.epoch {
            return Err(MemberError::Epoch { id: id.to_owned(), epoch, current: member.epoch });
        }
        match member.owns.get(&at).or_else(|| member.gives_up.get(&at)) {
            Some(since) if *since <= epoch => Ok(()),
            _ => Err(MemberError::NotOwner { id: id.to_owned(), epoch, topic: at.0, partition: at.1 }),
        }
    }
}
