//! Putting holes in the place of what is damaged, so that a log is whole again without what was lost.
//!
//! Works on a log that nobody else uses. Each segment with damage gives way to a new file: its whole batches as they are, and
//! batches without records for the offsets that are lost, as compaction makes them. The checkpoint changes the log over, one
//! segment at a time, so a crash leaves a log that is repaired in part and can be repaired again. Files that were replaced are
//! moved away for the operator, not removed.

use std::path::Path;
use std::sync::Arc;

use crate::base::Offset;
use crate::record::{BatchHeader, check_stored};

use super::super::index::SparseIndex;
use super::super::partition::{PartitionLog, Sealed};
use super::super::scan::{Check, Depth, Found, Scanner, damage_in};
use super::super::{Damage, DamageList, LogError};
use super::output::Output;
use super::swap::Begun;

/// What a repair came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was given up: each place with its offsets.
    pub given_up: Vec<Damage>,
    /// Segment files that were replaced.
    pub replaced_segments: u32,
}

impl PartitionLog {
    /// Gives up what is damaged. Files that are replaced are moved into the folder `keep`, which is made if there are any.
    ///
    /// # Errors
    /// Those of the disk. The log is whole, or damaged as before, in each of its segments.
    pub fn repair(&mut self, keep: &Path) -> Result<Repaired, LogError> {
        let mut repaired = Repaired::default();
        self.seal_all()?;
        self.repair_start(&mut repaired)?;
        let mut at = 0;
        while let Some(sealed) = self.sealed.get(at).cloned() {
            let following =
                self.sealed.get(at + 1).map_or(self.active.segment.base_offset, |next| next.info.base_offset);
            let damage = self.damage_of(&sealed, following)?;
            if !damage.is_empty() {
                self.replace(&sealed, following)?;
                repaired.replaced_segments += 1;
                repaired.given_up.extend(damage);
            }
            at += 1;
        }
        self.keep_replaced(keep)?;
        self.damage = DamageList::default();
        self.store_damage()?;
        Ok(repaired)
    }

    /// Everything of the log that cannot be read, found by reading all of it.
    ///
    /// # Errors
    /// Those of reading; damage is none.
    pub fn find_damage(&self) -> Result<Vec<Damage>, LogError> {
        let mut damage = Vec::new();
        for (at, sealed) in self.sealed.iter().enumerate() {
            let next = self.sealed.get(at + 1).map_or(self.active.segment.base_offset, |next| next.info.base_offset);
            damage.extend(self.damage_of(sealed, next)?);
        }
        let active = &self.active;
        let whole = (0, active.segment.base_offset)..(active.index.covered, active.index.next_offset);
        let file = self.files.get(&active.segment.log).map_err(|error| active.segment.open_error(error))?;
        damage.extend(damage_in(file.as_ref(), &active.segment.log, whole, Depth::Records, &mut |_| true)?);
        Ok(damage)
    }

    /// Seals the active segment, and names every segment in a checkpoint.
    fn seal_all(&mut self) -> Result<(), LogError> {
        if self.active.index.covered > 0 {
            self.roll()?;
        }
        self.checkpoint_due = true;
        self.sync()
    }

    /// Moves the log start over the offsets that lie before the first segment.
    fn repair_start(&mut self, repaired: &mut Repaired) -> Result<(), LogError> {
        let first = self.sealed.first().map_or(&self.active.segment, |first| &first.segment);
        let (base, file) = (first.base_offset, first.log.clone());
        if base > self.log_start {
            let what = "the log has no data for these offsets before this segment".to_owned();
            let damage = Damage { file, position: 0, from: self.log_start, to: Some(base), what };
            self.begin_give_up(base)?;
            repaired.given_up.push(damage);
        }
        Ok(())
    }

    /// What is lost of a segment, and between it and the next one.
    fn damage_of(&self, sealed: &Sealed, following: Offset) -> Result<Vec<Damage>, LogError> {
        let Sealed { segment, info } = sealed;
        let mut damage = match self.files.get(&segment.log) {
            Ok(file) => damage_in(
                file.as_ref(),
                &segment.log,
                (0, info.base_offset)..(info.bytes, info.next_offset),
                Depth::Records,
                &mut |_| true,
            )?,
            Err(error) => match segment.open_error(error) {
                LogError::Damaged(damage) => vec![Damage { to: Some(info.next_offset), ..*damage }],
                other => return Err(other),
            },
        };
        if info.next_offset < following {
            damage.push(Damage {
                file: segment.log.clone(),
                position: info.bytes,
                from: info.next_offset,
                to: Some(following),
                what: "the log has no data for these offsets behind this segment".to_owned(),
            });
        }
        Ok(damage)
    }

    /// Puts a file with what is whole of a segment in its place, and holes up to `following`.
    fn replace(&mut self, sealed: &Sealed, following: Offset) -> Result<(), LogError> {
        let Sealed { segment, info } = sealed;
        let made = self.new_generation(info.base_offset);
        let mut out = Output::create(self.files.disk(), made, SparseIndex::new(info.base_offset))?;
        if let Ok(file) = self.files.get(&segment.log) {
            let length = file.len().map_err(LogError::io("cannot look at", &segment.log))?;
            let mut scanner = Scanner::new(file.as_ref(), &segment.log, 0, info.bytes.min(length), Check::Whole);
            let mut expected = info.base_offset;
            loop {
                match scanner.next(Some(expected))? {
                    Found::Batch(header) => {
                        // Otherwise the next batch leaves a hole here.
                        if check_stored(scanner.previous(&header)).is_ok() {
                            out.push(&header, scanner.previous(&header))?;
                        }
                        expected = header.next_offset();
                    }
                    Found::End => break,
                    Found::Broken(_) => match scanner.resume(expected + 1)? {
                        Some(BatchHeader { base_offset, .. }) if base_offset < info.next_offset => {
                            expected = base_offset;
                        }
                        _ => break,
                    },
                }
            }
        }
        let (made, sealed_made) = out.finish(following)?;
        match self.begin_swap(std::slice::from_ref(sealed), Some((made, sealed_made)), None, &[]) {
            Begun::Job(job) => {
                let result = job.run();
                self.finish_swap(job, result)
            }
            Begun::Later | Begun::Outdated => Err(LogError::Closed),
        }
    }

    /// Moves the files that were replaced into the folder `keep`; their indexes go.
    fn keep_replaced(&mut self, keep: &Path) -> Result<(), LogError> {
        let disk = Arc::clone(self.files.disk());
        for segment in self.retired.drain(..) {
            self.files.forget(&segment.log);
            let Some(name) = segment.log.file_name() else { continue };
            if disk.exists(&segment.log).map_err(LogError::io("cannot look at", &segment.log))? {
                disk.create_dir_all(keep).map_err(LogError::io("cannot make", keep))?;
                disk.rename(&segment.log, &keep.join(name)).map_err(LogError::io("cannot move", &segment.log))?;
                disk.sync_dir(keep).map_err(LogError::io("cannot sync", keep))?;
            }
            segment.remove(&self.files)?;
        }
        disk.sync_dir(&self.dir).map_err(LogError::io("cannot sync", &self.dir))
    }
}
