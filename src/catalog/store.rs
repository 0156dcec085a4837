//! What exists, durably: journal first, then memory, then the view.

mod opening;

use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;

use crate::base::{Condition, GroupName, Health, Offset, PartitionId, ProducerId, TimestampMs, TopicId, TopicName};
use crate::disk::Disk;
use crate::log::{CleanLimits, Cleaned, Damage, KnownDamage, LogError, PartitionLog, ScrubPlan, SharedLog, clean};

use super::event::{self, Event, KeyChange, Tombstone, TopicEntry};
use super::journal::{Journal, Replayed};
use super::places::{Kept, KeptPosition, Progress};
use super::progress::{ClassicEntry, GroupCounts, GroupEntry, MemberEntry};
use super::pushes::PushEntry;
use super::receipts::ReceiptEntry;
use super::requests::RequestEntry;
use super::routing::{RouteEntry, RouteProgress};
use super::state::State;
use super::transactions::TransactionEntry;
use super::view::{Position, View};
use super::{CatalogError, DataDir};

/// Producer ids reserved with one event.
const PRODUCER_ID_BLOCK: u32 = 1000;

/// Bytes of a batch of several changes; a single change may be larger.
const BATCH_BYTES: usize = 1024 * 1024;

/// What a change needs in a batch beside its key and value, at most.
const CHANGE_BYTES: usize = 32;

/// The most producer ids handed out at once.
const PRODUCER_IDS_AT_ONCE: u32 = 1_000_000;

/// Whether there is a view beside the journal. What the catalog answers is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewMode {
    /// In `view/`. Only on the real disk: sled does its own file access.
    Sled,
    /// Everything is read from the journal at every start.
    Off,
}

/// What opening the catalog found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogStartup {
    /// One line for each thing worth telling an operator.
    pub notes: Vec<String>,
    /// The view was missing or of no use, and was built anew from the journal.
    pub view_rebuilt: bool,
}

/// What exists. One change at a time.
pub struct Catalog {
    disk: Arc<dyn Disk>,
    view_dir: PathBuf,
    journal: Journal,
    /// Always that of the journal up to `applied`.
    state: State,
    applied: Offset,
    view: Option<View>,
    /// The next producer id that was not handed out; those up to `State::producer_ids` may be.
    next_producer_id: ProducerId,
    closed: bool,
    /// Where it is told that the journal fails.
    health: Option<Arc<Health>>,
    failing: bool,
}

impl Catalog {
    /// Opens the catalog of a data directory, with a view if its folder is on the machine's disk.
    ///
    /// # Errors
    /// Those of the journal: it is damaged, of a newer version, missing while there are topics, or cannot be read.
    /// Never for anything that is wrong with the view.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &DataDir,
        now_ms: TimestampMs,
    ) -> Result<(Self, CatalogStartup), CatalogError> {
        // A simulated disk's folders are nowhere to be found by sled.
        let mode = if dir.topics_dir().is_dir() { ViewMode::Sled } else { ViewMode::Off };
        Self::open_with(disk, dir, mode, now_ms)
    }

    /// Opens the catalog of a data directory.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &DataDir,
        mode: ViewMode,
        now_ms: TimestampMs,
    ) -> Result<(Self, CatalogStartup), CatalogError> {
        let (journal, notes) = Journal::open(&disk, dir, now_ms)?;
        let mut startup = CatalogStartup { notes, view_rebuilt: false };
        let mut catalog = Self {
            disk,
            view_dir: dir.view_dir(),
            applied: journal.start(),
            journal,
            state: State::default(),
            view: None,
            next_producer_id: 0,
            closed: false,
            health: None,
            failing: false,
        };
        match mode {
            ViewMode::Sled => catalog.open_view(dir, &mut startup)?,
            ViewMode::Off => catalog.read_journal()?,
        }
        // What was left of the last block may have been handed out.
        catalog.next_producer_id = catalog.state.producer_ids();
        Ok((catalog, startup))
    }

    /// The time of the newest event in the journal, if there is one.
    pub fn newest_event_ms(&self) -> Option<TimestampMs> {
        Some(self.journal.newest_ms()).filter(|at| *at > 0)
    }

    fn position(&self) -> Position {
        let checksum = self.journal.checksum_before(self.applied).unwrap_or(0);
        Position { offset: self.applied, checksum }
    }

    /// Takes in what the journal has beyond what was applied; returns it.
    fn catch_up(&mut self) -> Result<Vec<KeyChange>, CatalogError> {
        // On a copy, so that an error in the middle changes nothing.
        let mut state = self.state.clone();
        let mut applied = self.applied;
        let mut changes = Vec::new();
        self.journal.replay(self.applied, |replayed| {
            match replayed {
                Replayed::Change(key, value) => {
                    state.apply_change(key, value)?;
                    changes.push(change(key, value));
                }
                Replayed::Batch(header) => applied = header.next_offset(),
            }
            Ok(())
        })?;
        (self.state, self.applied) = (state, applied);
        Ok(changes)
    }

    /// The next part of the journal to be read again: see [`PartitionLog::plan_scrub`].
    pub fn plan_scrub(&mut self, after: Offset) -> Option<ScrubPlan> {
        self.journal.log().plan_scrub(after)
    }

    /// Damage of the journal that is known.
    pub fn journal_damage(&mut self) -> Vec<KnownDamage> {
        self.journal.log().damage().cloned().collect()
    }

    /// Remembers damage of the journal, durably; whether that is news.
    ///
    /// # Errors
    /// Those of the disk; it is known in this run all the same.
    pub fn note_journal_damage(&mut self, damage: &Damage, now_ms: TimestampMs) -> Result<bool, LogError> {
        let log = self.journal.log();
        let news = log.note_damage(damage, now_ms);
        if news {
            log.store_damage()?;
        }
        Ok(news)
    }

    /// Marks damage of the journal as seen by an operator; how many places were not.
    ///
    /// # Errors
    /// Those of the disk; nothing is acknowledged then.
    pub fn acknowledge_journal_damage(&mut self) -> Result<usize, LogError> {
        self.journal.log().acknowledge_damage()
    }

    /// Bytes in the journal's segment files.
    pub fn journal_bytes(&self) -> u64 {
        self.journal.bytes()
    }

    /// Every topic, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &TopicEntry> {
        self.state.topics()
    }

    /// The topic of this name.
    pub fn topic(&self, name: &TopicName) -> Option<&TopicEntry> {
        self.state.topic(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicEntry> {
        self.state.topic_by_id(id)
    }

    /// Deleted topics whose files may still be there.
    pub fn tombstones(&self) -> impl ExactSizeIterator<Item = &Tombstone> {
        self.state.tombstones()
    }

    /// Every group, by name.
    pub fn groups(&self) -> impl Iterator<Item = &GroupEntry> {
        self.state.groups()
    }

    /// Groups from a name on.
    pub fn groups_from(&self, start: Bound<&str>) -> impl Iterator<Item = &GroupEntry> {
        self.state.groups_from(start)
    }

    /// Every durable request that is not forgotten, by id.
    pub fn requests(&self) -> impl Iterator<Item = &RequestEntry> {
        self.state.requests()
    }

    /// Every transactional id that is not forgotten.
    pub fn transactions(&self) -> impl Iterator<Item = &TransactionEntry> {
        self.state.transactions()
    }

    /// Every push subscription, by name.
    pub fn pushes(&self) -> impl ExactSizeIterator<Item = &PushEntry> {
        self.state.pushes()
    }

    /// The push subscription of this name.
    pub fn push(&self, name: &GroupName) -> Option<&PushEntry> {
        self.state.push(name)
    }

    /// Since when a queue group is paused.
    pub fn paused(&self, name: &GroupName) -> Option<TimestampMs> {
        self.state.paused(name)
    }

    /// Queue groups that are paused, and since when, from a name on.
    pub fn paused_from(&self, start: Bound<&str>) -> impl Iterator<Item = (&GroupName, TimestampMs)> {
        self.state.paused_from(start)
    }

    /// Every receipt that is to be POSTed.
    pub fn receipts(&self) -> impl ExactSizeIterator<Item = &ReceiptEntry> {
        self.state.receipts()
    }

    /// The group of this name.
    pub fn group(&self, name: &GroupName) -> Option<&GroupEntry> {
        self.state.group(name)
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.state.group_count()
    }

    /// What all groups hold.
    pub fn group_counts(&self) -> GroupCounts {
        self.state.counts()
    }

    /// What a group holds.
    pub fn counts_of(&self, group: &GroupName) -> GroupCounts {
        self.state.counts_of(group)
    }

    /// How far a group has come in a partition, as a copy.
    pub fn progress(&self, group: &GroupName, at: (TopicId, PartitionId)) -> Option<Progress> {
        self.state.progress_at(group, at).map(Kept::progress)
    }

    /// How far a group has come, by topic and partition, as a copy.
    pub fn all_progress(
        &self,
        group: &GroupName,
    ) -> impl Iterator<Item = ((TopicId, PartitionId), Progress)> + use<'_> {
        self.state.progress(group).map(|(at, kept)| (at, kept.progress()))
    }

    /// Whether a group has come anywhere.
    pub fn has_progress(&self, group: &GroupName) -> bool {
        self.state.progress(group).next().is_some()
    }

    /// A group's position in a partition.
    pub fn position_of(&self, group: &GroupName, at: (TopicId, PartitionId)) -> Option<KeptPosition<'_>> {
        self.state.progress_at(group, at)?.position()
    }

    /// A group's positions, by topic and partition.
    pub fn positions(
        &self,
        group: &GroupName,
    ) -> impl Iterator<Item = ((TopicId, PartitionId), KeptPosition<'_>)> + use<'_> {
        self.state.progress(group).filter_map(|(at, kept)| Some((at, kept.position()?)))
    }

    /// The members of a stream group, by id.
    pub fn members(&self, group: &GroupName) -> impl Iterator<Item = (&String, &MemberEntry)> + use<'_> {
        self.state.members(group)
    }

    /// What the last completed round of a classic group has come to, if it has members.
    pub fn classic(&self, group: &GroupName) -> Option<&ClassicEntry> {
        self.state.classic(group)
    }

    /// A member of a stream group.
    pub fn member(&self, group: &GroupName, id: &str) -> Option<&MemberEntry> {
        self.state.member(group, id)
    }

    /// Every route, by name.
    pub fn routes(&self) -> impl Iterator<Item = &RouteEntry> {
        self.state.routing().entries()
    }

    /// The route of this name.
    pub fn route(&self, name: &TopicName) -> Option<&RouteEntry> {
        self.state.routing().entry(name)
    }

    /// How far a route has come, by topic and partition.
    pub fn route_progress(
        &self,
        name: &TopicName,
    ) -> impl Iterator<Item = (&(TopicId, PartitionId), &RouteProgress)> + use<'_> {
        self.state.routing().progress(name)
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Makes a change; it is durable and visible when this returns.
    ///
    /// # Errors
    /// A change that makes no sense now ([`CatalogError::TopicExists`], [`CatalogError::NoTopic`],
    /// [`CatalogError::Invalid`]), or a failure of the journal. Nothing has changed then. After a failed sync it is
    /// unknown whether the event is on the disk: it is read back, and may turn out to be in force, at the next commit
    /// or the next start.
    pub fn commit(&mut self, event: Event, now_ms: TimestampMs) -> Result<(), CatalogError> {
        self.commit_all(vec![event], now_ms)
    }

    /// Makes changes, in order, with one sync; they are durable and visible when this returns. Progress of a group or in
    /// a topic that is gone is left out; each is judged by what was there before all of them. A crash may leave the first of them, never a later one without those before.
    ///
    /// # Errors
    /// As [`Catalog::commit`]; if one makes no sense, none is made.
    pub fn commit_all(&mut self, events: Vec<Event>, now_ms: TimestampMs) -> Result<(), CatalogError> {
        self.make_ready(now_ms)?;
        let mut changes = Vec::new();
        let mut made = Vec::new();
        for event in events {
            self.state.check(&event)?;
            if self.state.is_moot(&event, &made) {
                continue;
            }
            let invalid = |error| CatalogError::Invalid { what: format!("{}: {error}", event.key()) };
            changes.extend(self.state.changes_of(&event).map_err(invalid)?);
            made.push(event);
        }
        if made.is_empty() {
            return Ok(());
        }
        let appended = self.journal.append(batches(&changes, now_ms), now_ms);
        let end = self.noted(appended)?;
        for event in made {
            self.state.apply(event);
        }
        self.applied = end;
        self.update_view(changes);
        Ok(())
    }

    /// Tells whether the journal works there, from now on.
    pub fn tell(&mut self, health: Arc<Health>) {
        self.health = Some(health);
    }

    /// Tells what came of a step of the journal.
    fn noted<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Some(health) = &self.health {
            match &result {
                Ok(_) if self.failing => health.clear(Condition::Journal),
                Ok(_) => {}
                Err(error) => health.set(Condition::Journal, format!("the journal cannot be written: {error}")),
            }
        }
        self.failing = result.is_err();
        result
    }

    /// Finds out whether the journal can be written, without a change: brings it back after a failed sync, writes room for
    /// coming events, and syncs.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn try_journal(&mut self, now_ms: TimestampMs) -> Result<(), CatalogError> {
        self.make_ready(now_ms)?;
        let made = self.journal.make_room();
        Ok(self.noted(made)?)
    }

    /// After a failed sync: brings the journal back, and with it what the failed commits may have left there.
    fn make_ready(&mut self, now_ms: TimestampMs) -> Result<(), CatalogError> {
        if self.closed {
            return Err(CatalogError::Closed);
        }
        if self.journal.is_poisoned() {
            let reopened = self.journal.reopen(now_ms);
            self.noted(reopened)?;
        }
        if self.applied < self.journal.end() {
            let changes = self.catch_up()?;
            self.update_view(changes);
        }
        Ok(())
    }

    fn update_view(&mut self, changes: Vec<KeyChange>) {
        if changes.is_empty() {
            return;
        }
        let position = self.position();
        let Some(view) = &mut self.view else { return };
        if let Err(error) = view.apply(changes, position) {
            self.give_view_up(&error);
        }
        self.fit_view();
    }

    /// Goes on without a view that is larger than is worth its memory.
    fn fit_view(&mut self) {
        if self.view.as_ref().is_some_and(View::is_too_large) {
            tracing::info!(folder = %self.view_dir.display(), "the view is removed: a state as large is read from the journal");
            self.drop_view();
            remove_view(self.disk.as_ref(), &self.view_dir);
        }
    }

    fn give_view_up(&mut self, error: &str) {
        tracing::warn!(
            folder = %self.view_dir.display(), error,
            "cannot write the view; going on without it, it will be built anew at the next start"
        );
        self.drop_view();
        remove_view(self.disk.as_ref(), &self.view_dir);
    }

    fn drop_view(&mut self) {
        if let Some(view) = self.view.take()
            && let Err(error) = view.close()
        {
            tracing::debug!(folder = %self.view_dir.display(), error, "cannot close the view");
        }
    }

    /// Hands out `count` producer ids that nobody was given and nobody will be.
    ///
    /// # Errors
    /// Too many at once, or those of [`Catalog::commit`].
    pub fn next_producer_ids(&mut self, count: u32, now_ms: TimestampMs) -> Result<Range<ProducerId>, CatalogError> {
        // A reservation that failed half way may be in force after all.
        self.make_ready(now_ms)?;
        if !(1..=PRODUCER_IDS_AT_ONCE).contains(&count) {
            return Err(CatalogError::Invalid {
                what: format!("{count} producer ids at once; allowed are 1 to {PRODUCER_IDS_AT_ONCE}"),
            });
        }
        let spent = || CatalogError::Invalid { what: "all producer ids are spent".to_owned() };
        let first = self.next_producer_id;
        let end = first.checked_add(i64::from(count)).ok_or_else(spent)?;
        if end > self.state.producer_ids() {
            let blocks = i64::from(count.div_ceil(PRODUCER_ID_BLOCK));
            let up_to = first.checked_add(blocks * i64::from(PRODUCER_ID_BLOCK)).ok_or_else(spent)?;
            self.commit(Event::ProducerIdsReserved { up_to }, now_ms)?;
        }
        self.next_producer_id = end;
        Ok(first..end)
    }

    /// Closes journal and view. No change is taken after it.
    ///
    /// # Errors
    /// Those of the journal; nothing that was committed is lost by it.
    pub fn close(&mut self, now_ms: TimestampMs) -> Result<(), CatalogError> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        self.drop_view();
        Ok(self.journal.close(now_ms)?)
    }
}

/// The journal while it is compacted.
struct SharedJournal<'a> {
    catalog: &'a Mutex<Catalog>,
    stop: &'a AtomicBool,
}

impl SharedLog for SharedJournal<'_> {
    fn with_log<R>(&self, work: impl FnOnce(&mut PartitionLog) -> R) -> R {
        work(self.catalog.lock().unwrap_or_else(PoisonError::into_inner).journal.log())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn pause(&self) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Compacts the journal of a catalog that is in use, if that is due, until `stop` is set.
///
/// # Errors
/// Those of [`clean`]. The journal is whole then.
pub fn compact_journal(
    catalog: &Mutex<Catalog>,
    stop: &AtomicBool,
    limits: CleanLimits,
    now_ms: TimestampMs,
) -> Result<Option<Cleaned>, LogError> {
    clean(&SharedJournal { catalog, stop }, limits, now_ms)
}

/// A change that the state has understood, so its key is text.
fn change(key: &[u8], value: Option<&[u8]>) -> KeyChange {
    (String::from_utf8_lossy(key).into_owned(), value.map(<[u8]>::to_vec))
}

/// The batches of these changes, each of a bounded size.
pub(super) fn batches(changes: &[KeyChange], now_ms: TimestampMs) -> Vec<BytesMut> {
    let mut batches = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (at, (key, value)) in changes.iter().enumerate() {
        let size = key.len() + value.as_ref().map_or(0, Vec::len) + CHANGE_BYTES;
        if at > first && bytes + size > BATCH_BYTES {
            batches.push(event::batch_of(&changes[first..at], now_ms));
            (first, bytes) = (at, 0);
        }
        bytes += size;
    }
    batches.push(event::batch_of(&changes[first..], now_ms));
    batches
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("state", &self.state).field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// A view that cannot be removed is found out at the next start.
fn remove_view(disk: &dyn Disk, path: &Path) {
    match disk.remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %path.display(), %error, "cannot remove the view");
        }
        _ => {}
    }
}
