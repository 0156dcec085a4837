//! How many groups there are, and when one goes by itself.
//!
//! Everybody who names a group makes one, so groups without use must end. A group expires when nobody has used it for
//! `group_retention`: it had no members, and no position was committed. Some never expire by themselves:
//!
//! - a queue group with rules or a filter of its own, or with records that it has not done: that is an operator's, or work to be
//!   done. One of the usual rules that has nothing to do expires like any other.
//! - the group of a push subscription, and groups for whose records receipts are waited for;
//! - the groups in which the server keeps how far dead letters were sent back, and that of replies to requests;
//! - a group of which it is still to be found out what was written as dead letters, and one that is part of a transaction.
//!
//! Above the limits (`max_groups`, `max_group_positions`, `max_group_metadata`) the same groups go before anybody is refused:
//! those without positions first, since nothing is lost with them, then the one that is idle longest. One client may make half of
//! all groups; above that, groups of that client go, so that no client pushes out the groups of others. What groups and their
//! members declare has a limit, too (`max_group_declarations`); it is that of groups that stay, so nobody goes for it.
//!
//! When a group was in use last is in memory, beside the times of its positions. So for a day after a start nothing expires
//! ([`GRACE_MS`]): members have to come back first.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use crate::base::{ErrorKind, GroupName, PartitionId, TimestampMs, TopicId, limits};
use crate::catalog::{
    Catalog, Event, GroupCounts, GroupEntry, GroupKind, MemberEntry, QueueSettings, TransactionPhase,
};

use super::super::broker::lock;
use super::super::clients::{Client, Shares, share_of};
use super::super::queue::QueueGroup;
use super::super::{Broker, BrokerError};

/// Time after a start in which no group expires, in milliseconds.
pub(crate) const GRACE_MS: u64 = 24 * 3_600_000;

/// Groups that are found in one look to have expired.
const FOUND: usize = 10_000;

/// Of these, groups that go at a time: each is a commit, and others have work for the same thread.
const AT_A_TIME: usize = 20;

/// Candidates that are looked up at once when there is no room for a new group.
const CANDIDATES: usize = 1_000;

/// After nothing could go, how long it takes before somebody looks again, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1_000;

/// Milliseconds between two lines of the log about refused groups.
const TELL_AGAIN_MS: u64 = 1_000;

/// What is known of all groups beside the catalog.
#[derive(Default)]
pub(crate) struct Table(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    made: Shares<GroupName>,
    /// When a group had members last, or was declared.
    seen_ms: HashMap<GroupName, TimestampMs>,
    /// Expired groups that are to go.
    expired: VecDeque<Idle>,
    candidates: HashMap<Option<Client>, Candidates>,
    /// What groups hold by who has made them, as of the last count; what came since then, by who it came from.
    used: HashMap<Client, GroupCounts>,
    counted_ms: Option<u64>,
    told_ms: Option<u64>,
}

#[derive(Default)]
struct Candidates {
    groups: VecDeque<Idle>,
    looked_ms: Option<u64>,
}

/// A group that could go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Idle {
    has_positions: bool,
    used_ms: TimestampMs,
    name: GroupName,
}

impl Table {
    /// Somebody uses a group.
    pub(crate) fn touch(&self, name: &GroupName, now: TimestampMs) {
        lock(&self.0).seen_ms.insert(name.clone(), now);
    }

    /// A group was made.
    pub(crate) fn made(&self, name: &GroupName, now: TimestampMs) {
        let mut inside = lock(&self.0);
        inside.made.add(name.clone(), Client::current());
        inside.seen_ms.insert(name.clone(), now);
    }

    /// The clients that have made most groups.
    pub(crate) fn top_clients(&self, clients: usize) -> Vec<(Client, usize)> {
        lock(&self.0).made.top(clients)
    }

    /// What a group held is free again for the client that had made it.
    fn freed(&self, name: &GroupName, held: GroupCounts) {
        let mut inside = lock(&self.0);
        let maker = inside.made.maker(name);
        if let Some(maker) = maker
            && let Some(used) = inside.used.get_mut(&maker)
        {
            *used -= held;
        }
    }

    /// A group is gone.
    pub(crate) fn gone(&self, name: &GroupName) {
        let mut inside = lock(&self.0);
        inside.made.remove(name);
        inside.seen_ms.remove(name);
    }

    /// When a group was used last, and who has made it.
    pub(crate) fn seen(&self, catalog: &Catalog, entry: &GroupEntry) -> (TimestampMs, Option<Client>) {
        (self.used_ms(catalog, entry).1, lock(&self.0).made.maker(&entry.name))
    }

    /// Whether a group has progress anywhere, and when it was used last.
    fn used_ms(&self, catalog: &Catalog, entry: &GroupEntry) -> (bool, TimestampMs) {
        let seen = lock(&self.0).seen_ms.get(&entry.name).copied().unwrap_or(TimestampMs::MIN);
        let positions = catalog.positions(&entry.name).map(|(_, position)| position.time_ms);
        (catalog.has_progress(&entry.name), positions.fold(entry.created_ms.max(seen), TimestampMs::max))
    }
}

/// A limit of what groups hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Positions,
    Metadata,
    Declared,
}

/// The first limit that these and `more` exceed. What does not grow is not looked at.
fn beyond(held: &[GroupCounts], more: GroupCounts, most: GroupCounts) -> Option<Limit> {
    let mut sum = more;
    held.iter().for_each(|held| sum += *held);
    let limits = [
        (Limit::Positions, more.positions, sum.positions, most.positions),
        (Limit::Metadata, more.metadata, sum.metadata, most.metadata),
        (Limit::Declared, more.declared, sum.declared, most.declared),
    ];
    limits.into_iter().find(|(_, more, sum, most)| *more > 0 && sum > most).map(|(limit, ..)| limit)
}

impl Limit {
    fn refusal(self, who: &str, held: GroupCounts, most: GroupCounts, of: &str) -> String {
        match self {
            Self::Positions => format!(
                "{who} hold {} positions; the limit is {of}{} (max_group_positions)",
                held.positions, most.positions
            ),
            Self::Metadata => format!(
                "{who} hold {} bytes of metadata with positions; the limit is {of}{} (max_group_metadata)",
                held.metadata, most.metadata
            ),
            Self::Declared => format!(
                "{who} and their members declare {} bytes of rules, topics, expressions, filters and owned partitions; the limit \
                 is {of}{} (max_group_declarations)",
                held.declared, most.declared
            ),
        }
    }
}

/// Whether what is kept of a group says that it stays.
fn stays(catalog: &Catalog, entry: &GroupEntry) -> bool {
    let intent = |entry: &GroupEntry| catalog.positions(&entry.name).any(|(_, position)| !position.metadata.is_empty());
    let of_its_own = match &entry.kind {
        GroupKind::Stream => false,
        GroupKind::Queue(rules) => *rules != QueueSettings::default() || entry.filter.is_some() || intent(entry),
    };
    of_its_own
        || entry.name.is_internal()
        || catalog.push(&entry.name).is_some()
        || catalog.members(&entry.name).next().is_some()
}

impl Broker {
    /// Lets a group that is not there yet be made: there is room, or room is made.
    ///
    /// # Errors
    /// There are too many that cannot go.
    pub(crate) fn admit_group(&self, name: &GroupName) -> Result<(), BrokerError> {
        let (client, most) = (Client::current(), self.config.max_groups);
        loop {
            let (known, count) = {
                let catalog = lock(&self.catalog);
                (catalog.group(name).is_some(), catalog.group_count())
            };
            if known {
                return Ok(());
            }
            let (own, largest) = {
                let table = lock(&self.groups.table.0);
                (table.made.count(client), table.made.largest())
            };
            let share = share_of(most);
            if client != Client::Server && own >= share {
                if !self.give_way(Some(client))? {
                    return Err(self.no_room(format!(
                        "{client} has made {own} groups that are in use, and may have {share}: half of max_groups"
                    )));
                }
            } else if count >= most {
                // Whoever has made many gives way before the others.
                let many = largest.filter(|(_, count)| *count >= most.div_ceil(10)).map(|(client, _)| client);
                let gave_way = many.is_some() && self.give_way(many)?;
                if !gave_way && !self.give_way(None)? {
                    return Err(self.no_room(format!(
                        "there are {count} groups that are in use, and the limit is {most} (max_groups)"
                    )));
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Lets a position with metadata of so many bytes be committed where there may be none yet.
    ///
    /// # Errors
    /// There are too many in groups that cannot go.
    pub(crate) fn admit_position(
        &self,
        group: &GroupName,
        at: (TopicId, PartitionId),
        metadata: usize,
    ) -> Result<(), BrokerError> {
        self.admit_held(|catalog| {
            let held = catalog.position_of(group, at);
            let more = metadata.saturating_sub(held.map_or(0, |position| position.metadata.len()));
            GroupCounts { positions: usize::from(held.is_none()), metadata: more, declared: 0 }
        })
    }

    /// Lets a group declare what weighs so much ([`GroupEntry::weight`]), and a member of it say of itself what weighs so much
    /// ([`MemberEntry::said`]), each in place of what is there.
    ///
    /// # Errors
    /// All that groups declare would be too much.
    pub(crate) fn admit_declaration(
        &self,
        group: &GroupName,
        weight: Option<usize>,
        member: Option<(&str, usize)>,
    ) -> Result<(), BrokerError> {
        self.admit_held(|catalog| {
            let of_group =
                weight.map_or(0, |weight| weight.saturating_sub(catalog.group(group).map_or(0, GroupEntry::weight)));
            let of_member = member
                .map_or(0, |(id, said)| said.saturating_sub(catalog.member(group, id).map_or(0, MemberEntry::said)));
            GroupCounts { declared: of_group + of_member, ..GroupCounts::default() }
        })
    }

    /// Lets groups hold more than they do, by what the catalog says.
    fn admit_held(&self, more: impl Fn(&Catalog) -> GroupCounts) -> Result<(), BrokerError> {
        let client = Client::current();
        let most = GroupCounts {
            positions: self.config.max_group_positions,
            metadata: self.config.max_group_metadata.as_usize(),
            declared: self.config.max_group_declarations.as_usize(),
        };
        let of_one = GroupCounts {
            positions: share_of(most.positions),
            metadata: share_of(most.metadata),
            declared: share_of(most.declared),
        };
        loop {
            let (all, more) = {
                let catalog = lock(&self.catalog);
                (catalog.group_counts(), more(&catalog))
            };
            if more == GroupCounts::default() {
                return Ok(());
            }
            // What is pending is not counted yet.
            let waiting = GroupCounts { positions: self.groups.pending.len(), ..GroupCounts::default() };
            let full = beyond(&[all, waiting], more, most);
            let now = self.clock.monotonic_ms();
            let mut table = lock(&self.groups.table.0);
            let used = table.used.entry(client).or_default();
            let own = beyond(&[*used], more, of_one).filter(|_| client != Client::Server);
            if full.is_none() && own.is_none() {
                *used += more;
                return Ok(());
            }
            let held = *used;
            let stale = table.counted_ms.is_none_or(|at| now.saturating_sub(at) >= LOOK_AGAIN_MS);
            drop(table);
            if own == Some(Limit::Declared) && stale {
                // Members that have gone since then are counted still.
                self.count_by_client();
                continue;
            }
            let whose = own.map(|_| client);
            let Some(what) = own.or(full) else { return Ok(()) };
            // Groups that may go declare next to nothing.
            if what == Limit::Declared || !self.give_way(whose)? {
                let (who, held, of) = match whose {
                    Some(client) => (format!("groups in use of {client}"), held, "half of "),
                    None => ("groups in use".to_owned(), all, ""),
                };
                return Err(self.no_room(what.refusal(&who, held, most, of)));
            }
        }
    }

    fn no_room(&self, why: String) -> BrokerError {
        let now = self.clock.monotonic_ms();
        let mut table = lock(&self.groups.table.0);
        // Kafka's protocol has no words for it, so the log says it, too.
        if table.told_ms.is_none_or(|told| now.saturating_sub(told) >= TELL_AGAIN_MS) {
            table.told_ms = Some(now);
            tracing::warn!(client = %Client::current(), "group refused: {why}");
        }
        BrokerError::new(ErrorKind::Overloaded, why)
    }

    /// Removes a group that nobody uses: one that this client has made, if one is named. Whether one could go.
    fn give_way(&self, of: Option<Client>) -> Result<bool, BrokerError> {
        let now = self.clock.monotonic_ms();
        loop {
            let next = {
                let mut table = lock(&self.groups.table.0);
                let candidates = table.candidates.entry(of).or_default();
                match candidates.groups.pop_front() {
                    Some(next) => Some(next),
                    None if candidates.looked_ms.is_some_and(|at| now.saturating_sub(at) < LOOK_AGAIN_MS) => {
                        return Ok(false);
                    }
                    None => None,
                }
            };
            let Some(idle) = next else {
                let found = self.idle_groups(of, TimestampMs::MAX, CANDIDATES);
                let barren = found.is_empty();
                let mut table = lock(&self.groups.table.0);
                let candidates = table.candidates.entry(of).or_default();
                candidates.looked_ms = barren.then_some(now);
                candidates.groups = found.into();
                if barren {
                    return Ok(false);
                }
                continue;
            };
            if self.remove_idle(&idle)? {
                self.metrics.groups_evicted.inc();
                tracing::warn!(
                    group = %idle.name, positions = idle.has_positions, for_client = %Client::current(),
                    "a group that nobody uses was removed to make room for another"
                );
                return Ok(true);
            }
        }
    }

    /// Groups that may go and that nobody has used since: those without positions first, then the one idle longest.
    fn idle_groups(&self, of: Option<Client>, before: TimestampMs, most: usize) -> Vec<Idle> {
        let mut found = BTreeSet::new();
        let mut needed: HashSet<GroupName> = HashSet::new();
        {
            let catalog = lock(&self.catalog);
            needed.extend(catalog.receipts().map(|receipt| receipt.place.group.clone()));
            let open = |phase| {
                !matches!(phase, TransactionPhase::Empty | TransactionPhase::Committed | TransactionPhase::Aborted)
            };
            let transactions = catalog.transactions().filter(|transaction| open(transaction.phase));
            needed.extend(transactions.flat_map(|transaction| transaction.groups.iter().cloned()));
            // Members of groups that were there before the start may be on their way back.
            let (opened, started_ms) = self.opened;
            let returning = self.clock.monotonic_ms().saturating_sub(opened) < limits::MEMBERS_RETURN_MS;
            for entry in catalog.groups() {
                if returning && entry.created_ms <= started_ms {
                    continue;
                }
                let maker = || lock(&self.groups.table.0).made.maker(&entry.name);
                if of.is_some() && maker() != of || needed.contains(&entry.name) {
                    continue;
                }
                let (has_positions, used_ms) = self.groups.table.used_ms(&catalog, entry);
                if used_ms >= before || self.groups.protocol(&entry.name).is_some() || stays(&catalog, entry) {
                    continue;
                }
                found.insert(Idle { has_positions, used_ms, name: entry.name.clone() });
                if found.len() > most {
                    found.pop_last();
                }
            }
        }
        let topics = self.all_topics();
        let mut found: Vec<Idle> = found.into_iter().collect();
        found.retain(|idle| {
            let Some(entry) = lock(&self.catalog).group(&idle.name).cloned() else { return false };
            let is_queue = matches!(entry.kind, GroupKind::Queue(_));
            !is_queue
                || self.queues.member_count(&entry.name) == 0
                    && self.distances(&entry, &topics).iter().all(|distance| distance.lag == 0)
        });
        found
    }

    /// Removes a group if it is still as it was found.
    fn remove_idle(&self, idle: &Idle) -> Result<bool, BrokerError> {
        let name = &idle.name;
        // A group for whose position room is being made is held by who commits it.
        let Some(_held) = self.groups.take_unheld(name) else { return Ok(false) };
        let _declaring = lock(&self.queues.declaring);
        let _keeping = lock(&self.queues.keeper.keeping);
        if self.queues.member_count(name) > 0 || self.groups.pending.is_of(name) {
            return Ok(false);
        }
        {
            let mut catalog = lock(&self.catalog);
            let Some(entry) = catalog.group(name) else { return Ok(false) };
            if stays(&catalog, entry) || self.groups.table.used_ms(&catalog, entry).1 > idle.used_ms {
                return Ok(false);
            }
            let used = catalog.counts_of(name);
            catalog.commit(Event::GroupDeleted { name: name.clone() }, self.clock.now_ms())?;
            // Or whoever makes room for a position would go on removing groups until they are counted anew.
            self.groups.table.freed(name, used);
        }
        if let Some(group) = self.group_is_gone(name) {
            group.stop(Some((ErrorKind::NotFound, format!("group '{name}' was not used and is gone"))));
        }
        Ok(true)
    }

    /// Looks for groups that have expired, and notes which are in use. `now` is a time that can be relied on.
    pub(crate) fn find_expired_groups(&self, now: TimestampMs) {
        let in_use = self.groups.held().into_iter().chain(self.queues.with_members());
        let in_use: Vec<GroupName> = in_use.collect();
        let retention = self.config.group_retention.0;
        lock(&self.groups.table.0).seen_ms.extend(in_use.into_iter().map(|name| (name, now)));
        self.count_by_client();
        if self.clock.monotonic_ms().saturating_sub(self.opened.0) < retention.min(GRACE_MS) {
            return;
        }
        let before = now.saturating_sub(TimestampMs::try_from(retention).unwrap_or(TimestampMs::MAX));
        let found = self.idle_groups(None, before, FOUND);
        lock(&self.groups.table.0).expired = found.into();
    }

    /// Counts anew what the groups that each client has made hold. Commits are counted by who committed until then.
    fn count_by_client(&self) {
        // Locks are taken in this order everywhere.
        let catalog = lock(&self.catalog);
        let mut table = lock(&self.groups.table.0);
        let mut used: HashMap<Client, GroupCounts> = HashMap::new();
        for (name, client) in table.made.iter() {
            *used.entry(client).or_default() += catalog.counts_of(name);
        }
        table.used = used;
        table.counted_ms = Some(self.clock.monotonic_ms());
    }

    /// Removes some of the groups that have expired.
    pub(crate) fn remove_expired_groups(&self) {
        for _ in 0..AT_A_TIME {
            let Some(idle) = lock(&self.groups.table.0).expired.pop_front() else { return };
            match self.remove_idle(&idle) {
                Ok(true) => {
                    self.metrics.groups_expired.inc();
                    tracing::info!(group = %idle.name, "group expired: nobody has used it for group_retention");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(group = %idle.name, %error, "a group that has expired could not be removed");
                    return;
                }
            }
        }
    }

    /// The journal has it that a group is no more: what is in memory of it goes, too. `declaring` is held.
    pub(crate) fn group_is_gone(&self, name: &GroupName) -> Option<Arc<QueueGroup>> {
        self.forget_in_transactions(name);
        self.groups.pending.forget(name);
        self.streams.end(name);
        self.end_classic(name);
        self.generations.forget(name);
        self.groups.table.gone(name);
        self.queues.remove(name)
    }
}
