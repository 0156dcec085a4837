//! What people do with push subscriptions: create, list, describe, pause, resume, delete.

use std::ops::RangeInclusive;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::base::{ErrorKind, GroupName, limits};
use crate::catalog::{Event, GroupEntry, GroupKind, PushEndpoint, PushEntry};

use super::super::broker::{blocking, lock};
use super::super::queue::{JoinQueue, dead_letters};
use super::super::{Broker, BrokerError};
use super::{NewPush, PushDescription, PushStats, Pushes};

/// Records in a call, at most.
const BATCH: RangeInclusive<u32> = 1..=1_000;
/// Calls at a time.
const CONCURRENCY: RangeInclusive<u32> = 1..=256;
/// Time for a call, in milliseconds.
const TIMEOUT_MS: RangeInclusive<u64> = 10..=24 * 3_600_000;

impl Pushes {
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.families.register(registry);
    }

    pub(crate) fn of(&self, name: &GroupName) -> Arc<PushStats> {
        let mut stats = lock(&self.stats);
        Arc::clone(stats.entry(name.clone()).or_insert_with(|| Arc::new(self.families.of(name))))
    }

    /// Records of a group were given up; that counts if it is one of these.
    pub(crate) fn buried(&self, group: &GroupName, records: u64) {
        let stats = lock(&self.stats).get(group).cloned();
        if let Some(stats) = stats {
            stats.buried(records);
        }
    }

    fn forget(&self, name: &GroupName) {
        lock(&self.stats).remove(name);
        self.families.forget(name);
    }

    fn changed(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

impl Broker {
    /// Makes a push subscription with its group. When this returns, both are durable, and where it begins.
    ///
    /// # Errors
    /// There is one of that name, or a group of that name that is defined otherwise; a part of it is refused; there are too many;
    /// the journal's.
    pub async fn create_push(self: &Arc<Self>, new: NewPush) -> Result<PushDescription, BrokerError> {
        let changing = self.pushes.changing.lock().await;
        let held = lock(&self.catalog).push(&new.name).cloned();
        check(&new.name, new.batch, new.concurrency, new.timeout_ms)?;
        match &held {
            Some(_) if !new.replace => {
                let message = format!("push '{}' already exists; use --replace to change it", new.name);
                return Err(BrokerError::new(ErrorKind::AlreadyExists, message));
            }
            None if lock(&self.catalog).pushes().len() >= limits::PUSHES => {
                let message = format!("there are {} push subscriptions, which is the most", limits::PUSHES);
                return Err(BrokerError::new(ErrorKind::TooLarge, message));
            }
            _ => {}
        }
        if new.topics.is_empty() {
            return Err(refused(format!("push '{}' reads no topic", new.name)));
        }
        if lock(&self.catalog).paused(&new.name).is_some() {
            let name = &new.name;
            let message =
                format!("group '{name}' is paused: a push has a pause of its own; first: tidelog group resume {name}");
            return Err(BrokerError::new(ErrorKind::Busy, message));
        }
        let none = PushEndpoint::default();
        let (url, has) = held.as_ref().map_or((None, &none), |held| (Some(held.url.as_str()), &held.endpoint));
        let endpoint = new.endpoint.apply(&new.name, has, (url, &new.url), &self.clock)?;
        // The group first, and where it begins: a push that is there has all of it. Only the group of a push is replaced with it.
        let join = JoinQueue {
            group: new.name.clone(),
            settings: new.rules,
            topics: new.topics,
            filter: new.filter,
            start: new.start,
            prefetch: 1,
            client: String::new(),
        };
        match &held {
            Some(_) => self.replace_queue(join).await?,
            None => self.declare_queue(join).await?,
        };
        self.queues.keeper.kept().await?;
        let now = self.clock.now_ms();
        let entry = PushEntry {
            name: new.name.clone(),
            url: new.url,
            batch: new.batch,
            concurrency: new.concurrency,
            timeout_ms: new.timeout_ms,
            paused: held.as_ref().and_then(|held| held.paused.clone()),
            created_ms: held.as_ref().map_or(now, |held| held.created_ms),
            changed_ms: now,
            endpoint,
        };
        tracing::info!(push = %entry.name, url = entry.url, new = held.is_none(), "push subscription set");
        self.commit_push(vec![Event::PushSet(entry)]).await?;
        drop(changing);
        self.describe_push(&new.name).await
    }

    pub(super) async fn commit_push(self: &Arc<Self>, events: Vec<Event>) -> Result<(), BrokerError> {
        let broker = Arc::clone(self);
        blocking(move || lock(&broker.catalog).commit_all(events, broker.clock.now_ms())).await?;
        self.pushes.changed();
        Ok(())
    }

    /// Every push subscription, by name.
    pub fn pushes(&self) -> Vec<PushEntry> {
        lock(&self.catalog).pushes().cloned().collect()
    }

    /// Changes when what [`Broker::pushes`] says does.
    pub fn pushes_changed(&self) -> watch::Receiver<u64> {
        self.pushes.changed.subscribe()
    }

    /// Where what one does is noted.
    pub fn push_stats(&self, name: &GroupName) -> Arc<PushStats> {
        self.pushes.of(name)
    }

    /// Push subscriptions behind a name, with how they are doing, by name: so many at the most, and whether there are more.
    pub async fn list_pushes(self: &Arc<Self>, after: Option<GroupName>, limit: usize) -> (Vec<PushDescription>, bool) {
        let broker = Arc::clone(self);
        blocking(move || {
            let (found, more) = {
                let catalog = lock(&broker.catalog);
                let behind = |push: &&PushEntry| after.as_ref().is_none_or(|after| push.name > *after);
                let mut wanted = catalog.pushes().filter(behind);
                let named = |push: &PushEntry| Some((push.clone(), catalog.group(&push.name)?.clone()));
                let found: Vec<(PushEntry, GroupEntry)> = wanted.by_ref().take(limit).filter_map(named).collect();
                (found, wanted.next().is_some())
            };
            (found.into_iter().map(|(push, group)| broker.look_at_push(&group, push)).collect(), more)
        })
        .await
    }

    /// One push subscription.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn describe_push(self: &Arc<Self>, name: &GroupName) -> Result<PushDescription, BrokerError> {
        let (broker, name) = (Arc::clone(self), name.clone());
        blocking(move || {
            let (push, group) = {
                let catalog = lock(&broker.catalog);
                (catalog.push(&name).cloned(), catalog.group(&name).cloned())
            };
            let (push, group) = push.zip(group).ok_or_else(|| no_push(&name))?;
            Ok(broker.look_at_push(&group, push))
        })
        .await
    }

    fn look_at_push(&self, group: &GroupEntry, entry: PushEntry) -> PushDescription {
        let distances = self.distances(group, &self.all_topics());
        let counts = self.pushes.of(&entry.name).counts();
        let rests = counts.rests_until.is_some_and(|until| until > self.clock.now_ms());
        let state = match &entry.paused {
            Some(_) => "paused",
            None if rests => "resting",
            None => "running",
        };
        let rules = match &group.kind {
            GroupKind::Queue(rules) => rules.clone(),
            GroupKind::Stream => Default::default(),
        };
        // Checked when it was declared: there is one.
        let dead_letter = dead_letters(&group.name, &rules).ok();
        PushDescription {
            topics: group.topics.clone(),
            filter: group.filter.clone(),
            rules,
            dead_letter,
            state,
            lag: distances.iter().map(|at| at.lag).sum(),
            in_flight: distances.iter().map(|at| at.in_flight).sum(),
            waiting: distances.iter().map(|at| at.waiting).sum(),
            counts,
            entry,
        }
    }

    /// Lets one stand still, for this reason; calls under way come to their end. `None` lets it go on.
    ///
    /// # Errors
    /// There is none of that name; the journal's.
    pub async fn pause_push(
        self: &Arc<Self>,
        name: &GroupName,
        reason: Option<String>,
    ) -> Result<PushDescription, BrokerError> {
        let changing = self.pushes.changing.lock().await;
        let held = lock(&self.catalog).push(name).cloned();
        let held = held.ok_or_else(|| no_push(name))?;
        if held.paused.is_some() != reason.is_some() {
            tracing::info!(push = %name, reason, "push subscription {}", if reason.is_some() { "paused" } else { "resumed" });
            if reason.is_none() {
                self.pushes.of(name).rests(None);
            }
            let entry = PushEntry { paused: reason, changed_ms: self.clock.now_ms(), ..held };
            self.commit_push(vec![Event::PushSet(entry)]).await?;
        }
        drop(changing);
        self.describe_push(name).await
    }

    /// Deletes one, with its group and what that knows of what is done.
    ///
    /// # Errors
    /// There is none of that name; the journal's.
    pub async fn delete_push(self: &Arc<Self>, name: &GroupName) -> Result<(), BrokerError> {
        let _changing = self.pushes.changing.lock().await;
        if lock(&self.catalog).push(name).is_none() {
            return Err(no_push(name));
        }
        self.remove_group(name, true, vec![Event::PushDeleted { name: name.clone() }]).await?;
        self.pushes.forget(name);
        self.pushes.changed();
        tracing::info!(push = %name, "push subscription deleted");
        Ok(())
    }
}

/// Refuses what makes no sense of a push: name, records together, calls at a time, milliseconds for a call.
pub(super) fn check(
    name: &GroupName,
    batch: Option<u32>,
    concurrency: u32,
    timeout_ms: Option<u64>,
) -> Result<(), BrokerError> {
    if name.is_internal() {
        return Err(refused(format!("the name '{name}' is the server's own")));
    }
    if let Some(batch) = batch.filter(|batch| !BATCH.contains(batch)) {
        return Err(refused(format!("a batch of {batch}; allowed are {} to {}", BATCH.start(), BATCH.end())));
    }
    if !CONCURRENCY.contains(&concurrency) {
        let (least, most) = CONCURRENCY.into_inner();
        return Err(refused(format!("{concurrency} calls at a time; allowed are {least} to {most}")));
    }
    if let Some(timeout) = timeout_ms.filter(|timeout| !TIMEOUT_MS.contains(timeout)) {
        let (least, most) = TIMEOUT_MS.into_inner();
        return Err(refused(format!("{timeout} ms for a call; allowed are {least} to {most}")));
    }
    Ok(())
}

fn refused(message: String) -> BrokerError {
    BrokerError::new(ErrorKind::InvalidRequest, message)
}

pub(super) fn no_push(name: &GroupName) -> BrokerError {
    BrokerError::new(ErrorKind::NotFound, format!("there is no push '{name}'"))
}
