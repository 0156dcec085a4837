//! Repairing a journal of which something cannot be read.
//!
//! What the lost events said may still be known: the view holds what every key was when it was last written. If the view was
//! written behind the damage, everything that the readable part of the journal lacks is written back from it, and nothing is
//! lost. Otherwise the lost events are given up; topics whose creation was among them are taken in again by their folders, with
//! the settings that hold when nobody says otherwise.
//!
//! What was lost is appended before the damage gives way to a hole, so a repair that is cut off can begin again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::base::{Offset, PartitionId, TimestampMs, TopicId, TopicName, limits};
use crate::disk::{self, Disk};
use crate::log::{Damage, LogError};
use crate::record::{Batches, read_records};

use super::event::{Event, EventError, KeyChange, TopicEntry};
use super::journal::Journal;
use super::state::State;
use super::store::{ViewMode, batches};
use super::view::{Position, View};
use super::{CatalogError, DataDir};

/// What repairing the journal came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalRepair {
    /// The places that could not be read.
    pub given_up: Vec<Damage>,
    /// The view knew what was lost, so nothing is.
    pub recovered: bool,
    /// Entries that were written back from the view.
    pub written_back: usize,
    /// Topics that were taken in again by their folders, with default settings.
    pub adopted: Vec<TopicName>,
}

/// Repairs the journal of a data directory that no server uses; without damage it changes nothing. Files that are replaced
/// are moved into the folder `keep`.
///
/// # Errors
/// Those of the disk; an event that is whole and makes no sense.
pub fn repair_journal(
    disk: &Arc<dyn Disk>,
    dir: &DataDir,
    mode: ViewMode,
    keep: &Path,
    now_ms: TimestampMs,
) -> Result<JournalRepair, CatalogError> {
    let (mut journal, _found) = Journal::open(disk, dir, now_ms)?;
    let damage = journal.log().find_damage()?;
    let mut repair = JournalRepair::default();
    if damage.is_empty() && journal.log().damage().next().is_none() {
        journal.close(now_ms)?;
        return Ok(repair);
    }
    let mut state = State::default();
    let start = journal.start();
    read_past_damage(&mut journal, start, &mut state)?;
    let behind = damage.iter().map(|damage| damage.to.unwrap_or(Offset::MAX)).max().unwrap_or(0);
    let known = match mode {
        ViewMode::Sled => known_to_view(&mut journal, dir, behind),
        ViewMode::Off => None,
    };
    let mut changes = Vec::new();
    if let Some(known) = known {
        changes = difference(&state, &known).map_err(|source| CatalogError::Event { offset: behind, source })?;
        (repair.recovered, repair.written_back) = (true, changes.len());
    } else {
        for entry in orphans(disk.as_ref(), dir, &state, now_ms)? {
            repair.adopted.push(entry.name.clone());
            let event = Event::TopicCreated(entry);
            changes.extend(event.changes().map_err(|source| CatalogError::Event { offset: behind, source })?);
        }
    }
    if !changes.is_empty() {
        journal.append(batches(&changes, now_ms), now_ms)?;
    }
    repair.given_up = journal.log().repair(keep)?.given_up;
    journal.close(now_ms)?;
    Ok(repair)
}

/// Takes in everything from `at` on that can be read.
fn read_past_damage(journal: &mut Journal, mut at: Offset, state: &mut State) -> Result<(), CatalogError> {
    let end = journal.end();
    while at < end {
        let chunk = match journal.log().read(at, 1024 * 1024, end) {
            Ok(chunk) => chunk,
            Err(LogError::Damaged(damage)) => {
                at = damage.to.unwrap_or(end).max(at + 1);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for batch in Batches::new(chunk.bytes) {
            let (_, batch) = batch.map_err(LogError::from)?;
            for record in read_records(&batch, limits::DEFAULT_BATCH_BYTES).map_err(LogError::from)? {
                let record = record.map_err(LogError::from)?;
                if record.offset < at {
                    continue;
                }
                state
                    .apply_change(record.key.as_deref().unwrap_or_default(), record.value.as_deref())
                    .map_err(|source| CatalogError::Event { offset: record.offset, source })?;
            }
        }
        at = chunk.next_offset;
    }
    Ok(())
}

/// What the view and the journal behind it say, if the view was written behind the damage and belongs to this journal.
fn known_to_view(journal: &mut Journal, dir: &DataDir, behind: Offset) -> Option<State> {
    let (view, mut state, position) = View::open(&dir.view_dir(), dir.server_id).ok()?;
    if let Err(error) = view.close() {
        tracing::debug!(error, "cannot close the view");
    }
    let Position { offset, checksum } = position;
    let fits = offset >= behind && offset <= journal.end() && offset >= journal.compacted_end();
    if !fits || journal.checksum_before(offset).is_some_and(|there| there != checksum) {
        return None;
    }
    read_past_damage(journal, offset, &mut state).ok()?;
    Some(state)
}

/// The changes that make `from` what `to` is.
fn difference(from: &State, to: &State) -> Result<Vec<KeyChange>, EventError> {
    let from: BTreeMap<_, _> = from.changes()?.into_iter().collect();
    let to: BTreeMap<_, _> = to.changes()?.into_iter().collect();
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), None));
    let set = to.iter().filter(|(key, value)| from.get(*key) != Some(*value));
    Ok(gone.chain(set.map(|(key, value)| (key.clone(), value.clone()))).collect())
}

/// Topics that have data in a folder and are unknown, if their names are free.
fn orphans(
    disk: &dyn Disk,
    dir: &DataDir,
    state: &State,
    now_ms: TimestampMs,
) -> Result<Vec<TopicEntry>, CatalogError> {
    let topics = dir.topics_dir();
    let mut found = Vec::new();
    for folder in disk.list(&topics).map_err(CatalogError::io("cannot list", &topics))? {
        let Some((name, id)) = folder.name.rsplit_once('~') else { continue };
        let (Ok(name), Some(id)) = (TopicName::new(name), TopicId::parse(id)) else { continue };
        let known = state.topic(&name).is_some() || state.topic_by_id(id).is_some();
        // A name that was too long for a folder is not known as a whole.
        if known
            || state.tombstones().any(|gone| gone.id == id)
            || dir.topic_dir(&name, id) != topics.join(&folder.name)
        {
            continue;
        }
        let inside = disk.list(&topics.join(&folder.name)).map_err(CatalogError::io("cannot list", &topics))?;
        let numbers: Vec<PartitionId> = inside.iter().filter_map(|entry| entry.name.parse().ok()).collect();
        let has_data = numbers.iter().any(|number| {
            let partition = dir.partition_dir(&name, id, *number);
            let files = disk.list(&partition).unwrap_or_default();
            files
                .iter()
                .any(|file| file.name.ends_with(".log") && disk::length_of(disk, &partition.join(&file.name)) > 0)
        });
        if let Some(last) = numbers.iter().max().filter(|_| has_data) {
            let (partitions, settings) = ((last + 1).min(limits::PARTITIONS_PER_TOPIC), BTreeMap::new());
            found.push(TopicEntry { name, id, partitions, settings, created_ms: now_ms });
        }
    }
    Ok(found)
}
