//! What is read at the start: the view, if it can be believed, and what the journal has beyond it. Nothing here holds all changes
//! at once, since a state of a hundred MiB is a gigabyte of them.

use super::super::event::EventError;
use super::super::journal::Replayed;
use super::super::view::{MOST_ENTRIES, Position, Unusable, View};
use super::super::{CatalogError, DataDir};
use super::{Catalog, CatalogStartup, change, remove_view};

/// Changes that are held at once while the view is brought up to date, about; those of one batch stay together.
const VIEW_CHANGES: usize = 4_096;

impl Catalog {
    pub(super) fn open_view(&mut self, dir: &DataDir, startup: &mut CatalogStartup) -> Result<(), CatalogError> {
        let opened =
            View::open(&self.view_dir, dir.server_id).and_then(|(view, state, position)| match self.misfit(position) {
                None => Ok((view, state, position)),
                Some(what) => Err(Unusable::Broken(what)),
            });
        let what = match opened {
            Ok((view, state, position)) => {
                (self.state, self.applied, self.view) = (state, position.offset, Some(view));
                self.read_journal()?;
                self.fit_view();
                return Ok(());
            }
            Err(unusable) => unusable,
        };
        self.read_journal()?;
        remove_view(self.disk.as_ref(), &self.view_dir);
        let (reason, rebuild) = match what {
            Unusable::Missing => ("there was none".to_owned(), true),
            Unusable::Broken(reason) => (reason, true),
            Unusable::Hung => ("opening it did not end".to_owned(), false),
        };
        let entries = self.state.entries();
        if entries > MOST_ENTRIES {
            let what = "entries, all of the journal was read";
            startup.notes.push(format!("view: none is kept beyond {MOST_ENTRIES} entries; of {entries} {what}"));
            return Ok(());
        }
        if rebuild {
            match self.build_view(dir) {
                Ok(view) => self.view = Some(view),
                Err(error) => startup.notes.push(format!("view: running without it: {error}")),
            }
        }
        if self.applied > self.journal.start() || reason != "there was none" {
            startup.view_rebuilt = self.view.is_some();
            startup.notes.push(format!("view: read {} topics from the journal instead: {reason}", self.topics().len()));
        }
        Ok(())
    }

    /// Why a view with this position is not one of this journal.
    fn misfit(&self, position: Position) -> Option<String> {
        let (start, end) = (self.journal.start(), self.journal.end());
        if position.offset > end {
            return Some(format!("it goes up to offset {}, the journal to {end}", position.offset));
        }
        if position.offset < start {
            return Some(format!("it goes up to offset {}, the journal begins at {start}", position.offset));
        }
        let compacted = self.journal.compacted_end();
        if position.offset < compacted {
            // What was deleted since then may be gone from the journal without a trace.
            let what = format!(
                "it goes up to offset {}, and the journal has been compacted up to {compacted}",
                position.offset
            );
            return Some(what);
        }
        // If the journal's batch cannot be read, the view is what there is to go by.
        let journal = self.journal.checksum_before(position.offset);
        journal
            .is_some_and(|checksum| checksum != position.checksum)
            .then(|| format!("it comes from another run: the journal differs before offset {}", position.offset))
    }

    fn build_view(&self, dir: &DataDir) -> Result<View, String> {
        let view = View::create(&self.view_dir, dir.server_id).map_err(|unusable| match unusable {
            Unusable::Broken(reason) => reason,
            Unusable::Missing | Unusable::Hung => "making it did not end".to_owned(),
        });
        let (mut view, mut changes) = (view?, Vec::new());
        self.state.each_change(|more| {
            changes.extend(more);
            if changes.len() < VIEW_CHANGES {
                return Ok(());
            }
            view.fill(std::mem::take(&mut changes)).map_err(ViewError)
        })?;
        view.apply(changes, self.position())?;
        Ok(view)
    }

    /// At the start: takes in what the journal has beyond what was applied, and brings the view up to it. After an error the
    /// catalog is of no use; so there is no copy of the state, which may be large.
    pub(super) fn read_journal(&mut self) -> Result<(), CatalogError> {
        let (state, applied, view) = (&mut self.state, &mut self.applied, &mut self.view);
        let (mut changes, mut failed) = (Vec::new(), None);
        self.journal.replay(*applied, |replayed| {
            match replayed {
                Replayed::Change(key, value) => {
                    state.apply_change(key, value)?;
                    if view.is_some() && failed.is_none() {
                        changes.push(change(key, value));
                    }
                }
                Replayed::Batch(header) => {
                    *applied = header.next_offset();
                    if let Some(view) = view.as_mut().filter(|_| changes.len() >= VIEW_CHANGES) {
                        let position = Position { offset: *applied, checksum: header.crc };
                        failed = view.apply(std::mem::take(&mut changes), position).err();
                    }
                }
            }
            Ok(())
        })?;
        if let Some(error) = failed {
            self.give_view_up(&error);
        }
        self.update_view(changes);
        Ok(())
    }
}

/// Why a view was not made, in words.
struct ViewError(String);

impl From<EventError> for ViewError {
    fn from(error: EventError) -> Self {
        Self(error.to_string())
    }
}

impl From<ViewError> for String {
    fn from(error: ViewError) -> Self {
        error.0
    }
}
