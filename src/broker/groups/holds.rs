//! Who has a group at present. A group with members belongs to the protocol that they speak; only an empty one may go
//! over to another. Whoever looks after members of a group holds it as long as there are any.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::base::{ErrorKind, GroupName, limits};
use crate::catalog::{Event, GroupEntry, GroupKind};

use super::super::broker::{blocking, lock};
use super::super::{Broker, BrokerError};

/// How often it is looked whether members have come back.
const RETURN_CHECK: Duration = Duration::from_millis(20);

/// How the members of a group that shares out partitions come to an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The server assigns: the native protocol, and Kafka's newer one (KIP-848).
    Stream,
    /// The members assign among themselves: Kafka's older one.
    Classic,
    /// Nobody: positions of an empty group are being changed. Whoever comes waits until it is done.
    Admin,
}

impl GroupProtocol {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Classic => "classic",
            Self::Admin => "admin",
        }
    }
}

#[derive(Default)]
pub(super) struct Holds {
    groups: Mutex<BTreeMap<GroupName, Held>>,
    released: Condvar,
}

struct Held {
    protocol: GroupProtocol,
    holds: usize,
    ended: Arc<AtomicBool>,
}

/// A group in the hands of a protocol, until it is dropped.
pub struct GroupHold {
    holds: Arc<Holds>,
    name: GroupName,
    protocol: GroupProtocol,
    ended: Arc<AtomicBool>,
}

impl GroupHold {
    /// The group.
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// Whether the group was taken away (deleted by force): its members are to be sent away, and it accepts nothing of
    /// them any more.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Clone for GroupHold {
    fn clone(&self) -> Self {
        let mut groups = lock(&self.holds.groups);
        if let Some(held) = groups.get_mut(&self.name).filter(|held| Arc::ptr_eq(&held.ended, &self.ended)) {
            held.holds += 1;
        }
        let Self { holds, name, protocol, ended } = self;
        Self { holds: Arc::clone(holds), name: name.clone(), protocol: *protocol, ended: Arc::clone(ended) }
    }
}

impl std::fmt::Debug for GroupHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupHold").field("name", &self.name).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Drop for GroupHold {
    fn drop(&mut self) {
        let mut groups = lock(&self.holds.groups);
        // One that was ended is no longer the one that is listed.
        if let Some(held) = groups.get_mut(&self.name).filter(|held| Arc::ptr_eq(&held.ended, &self.ended)) {
            held.holds -= 1;
            if held.holds == 0 {
                groups.remove(&self.name);
            }
        }
        drop(groups);
        self.holds.released.notify_all();
    }
}

impl Holds {
    /// Takes a group for a protocol. Waits for an administrator to be done with it, which is soon.
    fn take(self: &Arc<Self>, name: &GroupName, protocol: GroupProtocol) -> Result<GroupHold, BrokerError> {
        let mut groups = lock(&self.groups);
        loop {
            match groups.get_mut(name) {
                Some(held) if held.protocol == protocol => {
                    held.holds += 1;
                    let ended = Arc::clone(&held.ended);
                    return Ok(GroupHold { holds: Arc::clone(self), name: name.clone(), protocol, ended });
                }
                Some(held) if held.protocol == GroupProtocol::Admin => {
                    groups = self.released.wait(groups).unwrap_or_else(PoisonError::into_inner);
                }
                Some(_) if protocol == GroupProtocol::Admin => {
                    return Err(BrokerError::new(
                        ErrorKind::Busy,
                        format!("group '{name}' has active members; stop them, or force it"),
                    ));
                }
                Some(held) => {
                    let message = format!(
                        "group '{name}' has members of the {} protocol; the {} protocol may have it when it is empty",
                        held.protocol.name(),
                        protocol.name()
                    );
                    return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
                }
                None => {
                    let ended = Arc::new(AtomicBool::new(false));
                    groups.insert(name.clone(), Held { protocol, holds: 1, ended: Arc::clone(&ended) });
                    return Ok(GroupHold { holds: Arc::clone(self), name: name.clone(), protocol, ended });
                }
            }
        }
    }

    /// Takes a group that nobody has at this moment, not even an administrator; `None` if somebody has.
    fn take_unheld(self: &Arc<Self>, name: &GroupName) -> Option<GroupHold> {
        let mut groups = lock(&self.groups);
        if groups.contains_key(name) {
            return None;
        }
        let (protocol, ended) = (GroupProtocol::Admin, Arc::new(AtomicBool::new(false)));
        groups.insert(name.clone(), Held { protocol, holds: 1, ended: Arc::clone(&ended) });
        Some(GroupHold { holds: Arc::clone(self), name: name.clone(), protocol, ended })
    }

    /// The groups that have members.
    fn held(&self) -> Vec<GroupName> {
        let groups = lock(&self.groups);
        groups.iter().filter(|(_, held)| held.protocol != GroupProtocol::Admin).map(|(name, _)| name.clone()).collect()
    }

    fn protocol(&self, name: &GroupName) -> Option<GroupProtocol> {
        lock(&self.groups).get(name).map(|held| held.protocol).filter(|protocol| *protocol != GroupProtocol::Admin)
    }

    /// Takes a group away from whoever has it, an administrator excepted.
    fn end(&self, name: &GroupName) {
        let mut groups = lock(&self.groups);
        if groups.get(name).is_some_and(|held| held.protocol != GroupProtocol::Admin)
            && let Some(held) = groups.remove(name)
        {
            held.ended.store(true, Ordering::Release);
        }
    }
}

impl super::Groups {
    pub(crate) fn held(&self) -> Vec<GroupName> {
        self.holds.held()
    }

    pub(crate) fn protocol(&self, name: &GroupName) -> Option<GroupProtocol> {
        self.holds.protocol(name)
    }

    /// Takes a group for a protocol, as [`Broker::hold_group`] does; it has to be there.
    pub(crate) fn take(&self, name: &GroupName, protocol: GroupProtocol) -> Result<GroupHold, BrokerError> {
        self.holds.take(name, protocol)
    }

    /// Takes a group that nobody has at this moment, not even who commits a position of an empty one.
    pub(crate) fn take_unheld(&self, name: &GroupName) -> Option<GroupHold> {
        self.holds.take_unheld(name)
    }

    /// Takes an empty group; one with members only by force, which sends them away.
    pub(crate) fn take_empty(&self, name: &GroupName, force: bool) -> Result<GroupHold, BrokerError> {
        if force {
            self.holds.end(name);
        }
        self.holds.take(name, GroupProtocol::Admin)
    }
}

impl Broker {
    /// Before something is done that a group with members refuses: right after a start it is not known yet whether members of a group
    /// of before will come back. Returns when some are there, or when they have had [`limits::MEMBERS_RETURN_MS`].
    pub(crate) async fn members_may_return(&self, name: &GroupName) {
        let (monotonic, wall) = self.opened;
        let until = monotonic.saturating_add(limits::MEMBERS_RETURN_MS);
        loop {
            let created = lock(&self.catalog).group(name).map(|entry| entry.created_ms);
            let was_there = created.is_some_and(|created_ms| created_ms <= wall);
            let has_members = self.groups.protocol(name).is_some() || self.queues.member_count(name) > 0;
            if !was_there || has_members || self.clock.monotonic_ms() >= until {
                return;
            }
            tokio::time::sleep(RETURN_CHECK).await;
        }
    }

    /// Takes a group that shares out partitions for a protocol; it is made if it is not there.
    ///
    /// # Errors
    /// It is a queue group, or has members of another protocol; the journal's.
    pub async fn hold_group(
        self: &Arc<Self>,
        name: &GroupName,
        protocol: GroupProtocol,
    ) -> Result<GroupHold, BrokerError> {
        let (broker, name) = (Arc::clone(self), name.clone());
        blocking(move || {
            let hold = broker.groups.holds.take(&name, protocol)?;
            broker.declare_stream(&name)?;
            Ok(hold)
        })
        .await
    }

    /// The protocol that a group's members speak, if it has any. Of queue groups it knows nothing.
    pub fn group_protocol(&self, name: &GroupName) -> Option<GroupProtocol> {
        self.groups.protocol(name)
    }

    /// The group, made if it is not there.
    pub(crate) fn declare_stream(&self, name: &GroupName) -> Result<GroupEntry, BrokerError> {
        self.admit_group(name)?;
        let _declaring = lock(&self.queues.declaring);
        let mut catalog = lock(&self.catalog);
        let now = self.clock.now_ms();
        match catalog.group(name) {
            Some(held) if held.kind == GroupKind::Stream => {
                // The catalog's name is there anyway.
                self.groups.table.touch(&held.name, now);
                return Ok(held.clone());
            }
            Some(_) => {
                let message = format!("group '{name}' is a queue group");
                return Err(BrokerError::new(ErrorKind::InvalidRequest, message));
            }
            None => {}
        }
        let (kind, topics) = (GroupKind::Stream, Vec::new());
        let entry = GroupEntry { name: name.clone(), kind, topics, filter: None, created_ms: now };
        catalog.commit(Event::GroupDeclared(entry.clone()), now)?;
        self.groups.table.made(name, now);
        tracing::info!(group = %name, "group declared");
        Ok(entry)
    }
}
