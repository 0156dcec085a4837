//! A stream group in use: the machine, who waits for news of it, and the group's name held.

use std::sync::Mutex;

use tokio::sync::watch;

use crate::base::GroupName;
use crate::catalog::Event;

use super::super::broker::lock;
use super::super::groups::{GroupHold, Pending};
use super::super::{Broker, BrokerError};
use super::machine::{Machine, MemberError};

pub(crate) struct StreamGroup {
    name: GroupName,
    inside: Mutex<Inside>,
    /// The machine's version.
    changed: watch::Sender<u64>,
}

struct Inside {
    machine: Machine,
    /// `None` once it is over: the last member has gone, or the group was taken away.
    hold: Option<GroupHold>,
}

impl StreamGroup {
    pub(super) fn new(hold: GroupHold, machine: Machine) -> Self {
        let changed = watch::Sender::new(machine.version());
        let name = hold.name().clone();
        Self { name, inside: Mutex::new(Inside { machine, hold: Some(hold) }), changed }
    }

    /// Bumped when a member may have to be told something.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Does something with the machine, and what follows from it: what has changed is to be kept, and those who wait look
    /// again. `None` if the group is over.
    pub(super) fn with<R>(&self, broker: &Broker, act: impl FnOnce(&mut Machine) -> R) -> Option<R> {
        let mut inside = lock(&self.inside);
        inside.hold.as_ref().filter(|hold| !hold.is_ended())?;
        let before = inside.machine.version();
        let result = act(&mut inside.machine);
        // Within the lock, so that what is said later of a member is kept later.
        let said = self.say(&mut inside.machine, &broker.groups.pending);
        let version = inside.machine.version();
        drop(inside);
        if said {
            broker.queues.keeper.note_pending();
        }
        if version != before {
            self.changed.send_replace(version);
        }
        Some(result)
    }

    fn say(&self, machine: &mut Machine, pending: &Pending) -> bool {
        let changes = machine.take_changes();
        let said = !changes.is_empty();
        pending.put(changes.into_iter().map(|(id, entry)| {
            let (group, member) = (self.name.clone(), id.as_ref().to_owned());
            Event::MemberSet { group, member, entry }
        }));
        said
    }

    /// Does something while a member may, by the machine; nothing of it changes meanwhile.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn while_it<R>(
        &self,
        id: &str,
        may: impl FnOnce(&Machine) -> Result<(), MemberError>,
        act: impl FnOnce() -> R,
    ) -> Result<R, BrokerError> {
        let inside = lock(&self.inside);
        match &inside.hold {
            Some(hold) if !hold.is_ended() => {}
            _ => return Err(MemberError::Unknown { id: id.to_owned() }.into()),
        }
        may(&inside.machine)?;
        Ok(act())
    }

    /// Whether there are no members, or the group was taken away; it is over then.
    pub(super) fn end_if_empty(&self) -> bool {
        let mut inside = lock(&self.inside);
        if inside.machine.is_empty() || inside.hold.as_ref().is_none_or(GroupHold::is_ended) {
            inside.hold = None;
        }
        inside.hold.is_none()
    }

    /// The group was taken away: whoever waits hears it.
    pub(super) fn end(&self) {
        lock(&self.inside).hold = None;
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl From<MemberError> for BrokerError {
    fn from(error: MemberError) -> Self {
        use crate::base::ErrorKind;
        let kind = match error {
            MemberError::Unknown { .. }
            | MemberError::Epoch { .. }
            | MemberError::NotOwner { .. }
            | MemberError::InstanceTaken { .. } => ErrorKind::FencedMember,
            MemberError::InstanceInUse { .. } => ErrorKind::Busy,
            MemberError::Full => ErrorKind::Overloaded,
        };
        Self::caused(kind, error.to_string(), error)
    }
}
