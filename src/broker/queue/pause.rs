//! Queue groups that stand still: members wait, and what they have in hand goes on. One event of the journal says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{ErrorKind, GroupName, TimestampMs};
use crate::catalog::{Event, GroupKind};

use super::super::broker::{blocking, lock};
use super::super::listing::{Page, PageOf};
use super::super::{Broker, BrokerError};
use super::group::QueueGroup;
use super::{no_group, refused};

/// Whether a group is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused {
    /// Since when.
    pub since_ms: Option<TimestampMs>,
    /// It was not like this before.
    pub changed: bool,
}

impl QueueGroup {
    /// Whether it hands out nothing.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Pauses it or lets it go on. When this returns, nothing more is leased to members of one that is paused.
    pub(crate) fn set_paused(&self, paused: bool) {
        if self.paused.swap(paused, Ordering::AcqRel) == paused {
            return;
        }
        let partitions: Vec<_> = lock(&self.inside).partitions.values().cloned().collect();
        for partition in partitions {
            // Whoever has the lock may have looked before.
            drop(lock(&partition.machine));
        }
        self.bump();
    }
}

impl Broker {
    /// Lets a queue group hand out nothing new, or go on; durably, when this returns. Records that are to be dead letters are
    /// written while it is paused, unless others that are due are before them.
    ///
    /// # Errors
    /// There is no such group; it is a stream group; it is that of a push subscription, and is to be paused; the journal's.
    pub async fn pause_group(self: &Arc<Self>, name: &GroupName, paused: bool) -> Result<Paused, BrokerError> {
        // No push takes the group meanwhile.
        let _pushes = self.pushes.changing.lock().await;
        let (broker, name) = (Arc::clone(self), name.clone());
        blocking(move || broker.pause_now(&name, paused)).await
    }

    fn pause_now(&self, name: &GroupName, paused: bool) -> Result<Paused, BrokerError> {
        let _declaring = lock(&self.queues.declaring);
        let mut catalog = lock(&self.catalog);
        let entry = catalog.group(name).ok_or_else(|| no_group(name))?;
        if entry.kind == GroupKind::Stream {
            return Err(refused(format!(
                "group '{name}' is a stream group, which cannot be paused: its members own their partitions; stop its members"
            )));
        }
        if paused && catalog.push(name).is_some() {
            let message =
                format!("group '{name}' is that of the push subscription of this name: tidelog push pause {name}");
            return Err(BrokerError::new(ErrorKind::Busy, message));
        }
        let before = catalog.paused(name);
        if before.is_some() == paused {
            return Ok(Paused { since_ms: before, changed: false });
        }
        let now = self.clock.now_ms();
        let since_ms = paused.then_some(now);
        catalog.commit(Event::GroupPaused { name: name.clone(), since_ms }, now)?;
        drop(catalog);
        let group = lock(&self.queues.groups).get(name).cloned();
        if let Some(group) = group {
            group.set_paused(paused);
        }
        tracing::info!(group = %name, "group {}", if paused { "paused" } else { "resumed" });
        Ok(Paused { since_ms, changed: true })
    }

    /// A page of the groups that are paused, and since when. Blocks.
    pub fn paused_groups(&self, of: &PageOf) -> Page<(GroupName, TimestampMs)> {
        let catalog = lock(&self.catalog);
        let mut rest = catalog.paused_from(of.start()).take_while(|(name, _)| name.as_str().starts_with(&of.prefix));
        let lines = rest.by_ref().take(of.lines()).map(|(name, since)| (name.clone(), since)).collect();
        Page { lines, more: rest.next().is_some() }
    }
}
