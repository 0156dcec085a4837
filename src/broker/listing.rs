//! Topics and groups page by page, and what all of them take of their limits: what an operator looks at when a table fills.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use crate::base::{GroupName, TimestampMs};
use crate::catalog::{GroupCounts, GroupEntry, GroupKind};

use super::admin::summary;
use super::broker::lock;
use super::partition::Topic;
use super::{Broker, Client, TopicSummary};

/// Lines of a page at most.
pub const PAGE_LINES: usize = 1_000;
/// Bytes of names, topics and filters in a page, about. One line may have more.
const PAGE_BYTES: usize = 256 * 1024;

/// Topics and partitions that are looked at for the lags of a page, about.
const PAGE_LOOKS: usize = 1_000_000;

/// Where a page begins and what it is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageOf {
    /// Only names that begin with it.
    pub prefix: String,
    /// Only names behind this one; empty for the first page.
    pub after: String,
    /// Lines at most; [`PAGE_LINES`] if it is more, and one at least.
    pub limit: usize,
}

impl PageOf {
    pub(super) fn start(&self) -> Bound<&str> {
        match self.after.as_str() {
            after if after.is_empty() || after < self.prefix.as_str() => Bound::Included(&self.prefix),
            after => Bound::Excluded(after),
        }
    }

    pub(super) fn lines(&self) -> usize {
        self.limit.clamp(1, PAGE_LINES)
    }
}

/// A part of a list, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The lines.
    pub lines: Vec<T>,
    /// There are more behind the last one.
    pub more: bool,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLine {
    /// What it is.
    pub entry: GroupEntry,
    /// Its members.
    pub members: usize,
    /// What it holds.
    pub counts: GroupCounts,
    /// When it was used last.
    pub used_ms: TimestampMs,
    /// Who has made it, if that was since the start.
    pub made_by: Option<Client>,
    /// Records that it has not done, of all partitions that it reads.
    pub lag: u64,
    /// `paused`, `active` (it has members) or `idle`.
    pub state: &'static str,
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLine {
    /// What it is.
    pub summary: TopicSummary,
    /// Offsets between the start and the end of its partitions.
    pub records: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// The newest timestamp of a record; −1 if there is none.
    pub newest_timestamp: TimestampMs,
    /// Partitions that are offline, take no writes or are damaged.
    pub troubled: u32,
}

impl TopicLine {
    fn of(topic: &Topic) -> Self {
        let mut line = Self { summary: summary(topic), records: 0, bytes: 0, newest_timestamp: -1, troubled: 0 };
        for partition in &topic.partitions {
            let Ok(log) = partition.log() else {
                line.troubled += 1;
                continue;
            };
            log.with(|log| {
                let stats = log.stats();
                line.records += log.committed_end().saturating_sub(log.start_offset());
                line.bytes += stats.bytes;
                line.newest_timestamp = line.newest_timestamp.max(stats.newest_timestamp);
                line.troubled += u32::from(log.poisoned().is_some() || log.damage().next().is_some());
            });
        }
        line
    }
}

/// What all groups take of their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupTotals {
    /// Groups that are listed.
    pub groups: usize,
    /// Of these, queue groups.
    pub queue: usize,
    /// Of these, those with members.
    pub with_members: usize,
    /// What they hold.
    pub counts: GroupCounts,
}

/// What all topics take of their limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicTotals {
    /// Topics.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
}

impl Broker {
    /// A page of the groups. Blocks.
    pub fn group_page(&self, of: &PageOf) -> Page<GroupLine> {
        let (mut lines, mut more, mut bytes) = (Vec::new(), false, 0);
        {
            let catalog = lock(&self.catalog);
            let groups =
                catalog.groups_from(of.start()).take_while(|entry| entry.name.as_str().starts_with(&of.prefix));
            for entry in groups.filter(|entry| !entry.name.is_internal()) {
                if lines.len() == of.lines() || bytes >= PAGE_BYTES {
                    more = true;
                    break;
                }
                let topics: usize = entry.topics.iter().map(|topic| topic.as_str().len() + 8).sum();
                bytes += entry.name.as_str().len() + topics + entry.filter.as_ref().map_or(0, String::len) + 64;
                let (used_ms, made_by) = self.groups.table.seen(&catalog, entry);
                let counts = catalog.counts_of(&entry.name);
                let state = if catalog.paused(&entry.name).is_some() { "paused" } else { "idle" };
                let entry = entry.clone();
                lines.push(GroupLine { entry, members: 0, counts, used_ms, made_by, lag: 0, state });
            }
        }
        let topics = self.all_topics();
        let mut looks = 0;
        for nth in 0..lines.len() {
            if looks >= PAGE_LOOKS {
                lines.truncate(nth);
                more = true;
                break;
            }
            let line = &mut lines[nth];
            let distances = self.distances(&line.entry, &topics);
            looks += topics.len() + distances.len();
            line.lag = distances.iter().map(|at| at.lag).sum();
            line.members = match line.entry.kind {
                GroupKind::Stream => self.stream_member_count(&line.entry.name),
                GroupKind::Queue(_) => self.queues.member_count(&line.entry.name),
            };
            if line.members > 0 && line.state == "idle" {
                line.state = "active";
            }
        }
        Page { lines, more }
    }

    /// What all groups take of their limits. Blocks.
    pub fn group_totals(&self) -> GroupTotals {
        let in_use: HashSet<GroupName> = self.groups.held().into_iter().chain(self.queues.with_members()).collect();
        let catalog = lock(&self.catalog);
        let mut totals = GroupTotals { counts: catalog.group_counts(), ..GroupTotals::default() };
        for entry in catalog.groups().filter(|entry| !entry.name.is_internal()) {
            totals.groups += 1;
            totals.queue += usize::from(matches!(entry.kind, GroupKind::Queue(_)));
            totals.with_members += usize::from(in_use.contains(&entry.name));
        }
        totals
    }

    /// A page of the topics.
    pub fn topic_page(&self, of: &PageOf) -> Page<TopicLine> {
        let (found, more): (Vec<Arc<Topic>>, bool) = {
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            let rest = topics.range::<str, _>((of.start(), Bound::Unbounded));
            let mut rest =
                rest.map(|(_, topic)| topic).take_while(|topic| topic.entry.name.as_str().starts_with(&of.prefix));
            (rest.by_ref().take(of.lines()).cloned().collect(), rest.next().is_some())
        };
        Page { lines: found.iter().map(|topic| TopicLine::of(topic)).collect(), more }
    }

    /// What all topics take of their limits.
    pub fn topic_totals(&self) -> TopicTotals {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        TopicTotals { topics: topics.len(), partitions: topics.values().map(|topic| topic.partitions.len()).sum() }
    }

    /// The limits that groups are held to, in the order of [`GroupTotals`].
    pub fn group_limits(&self) -> (usize, GroupCounts) {
        let counts = GroupCounts {
            positions: self.config.max_group_positions,
            metadata: self.config.max_group_metadata.as_usize(),
            declared: self.config.max_group_declarations.as_usize(),
        };
        (self.config.max_groups, counts)
    }

    /// The most partitions of all topics.
    pub fn partition_limit(&self) -> usize {
        self.config.max_partitions
    }
}
