//! Coming back from a failed sync.
//!
//! After a failed fsync the kernel may hold pages that are marked clean and are not on the disk (Rebello et al., "Can
//! Applications Recover from fsync Failures?", USENIX ATC 2020). So the same sync is never tried again. What was not
//! synced is read back, verified, and written to a *new* file, which is synced; only then is the old tail cut off:
//!
//! 1. the verified batches above the synced end go to `<synced end>.log.tmp`, and batches without records in the place of those
//!    that cannot be read any more; synced;
//! 2. it is renamed to `<synced end>.log`, replacing what was there, the folder synced;
//! 3. the old segment is cut at the synced end and synced; later segments are removed, the folder synced;
//! 4. the log is opened anew, with all that recovery checks.
//!
//! A crash after 1 leaves the old state. After 2 both hold the tail: recovery follows the older segment as far as it is
//! whole and removes what overlaps. After 3 it is done.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::TimestampMs;
use crate::disk::OpenMode;
use crate::record::gap_batches;

use super::partition::PartitionLog;
use super::scan::{Check, Found, Scanner};
use super::segment::Segment;
use super::{LogError, Recovery};

impl PartitionLog {
    /// Reopens a poisoned log as the module describes.
    ///
    /// # Errors
    /// Those of the disk; the log stays poisoned and this can be tried again.
    pub fn reopen(&mut self, now_ms: TimestampMs) -> Result<Recovery, LogError> {
        if self.checkpoint_running {
            // It would land on top of what opening finds.
            return Err(LogError::Poisoned { reason: "a checkpoint is being written".to_owned() });
        }
        // Nothing from before is to be written or synced through the old handles.
        self.files.forget(&self.dir);
        self.move_tail()?;
        let files = Arc::clone(&self.files);
        let (log, recovery) = Self::open_with(files, self.dir.clone(), self.config.clone(), now_ms)?;
        let (held, forgotten) = (std::mem::take(&mut self.held), self.forgotten + 1);
        *self = Self { held, forgotten, ..log };
        Ok(recovery)
    }

    fn move_tail(&mut self) -> Result<(), LogError> {
        let disk = Arc::clone(self.files.disk());
        let target = Segment::new(&self.dir, self.synced.offset);
        let temporary = PathBuf::from(format!("{}.tmp", target.log.display()));
        let copy = disk.open(&temporary, OpenMode::Create).map_err(LogError::io("cannot make", &temporary))?;
        copy.set_len(0).map_err(LogError::io("cannot cut", &temporary))?;
        let tail: Vec<(Arc<Segment>, u64, u64)> = self
            .sealed
            .iter()
            .map(|sealed| (Arc::clone(&sealed.segment), sealed.info.bytes))
            .chain([(Arc::clone(&self.active.segment), self.active.index.covered)])
            .filter(|(segment, _)| segment.base_offset >= self.synced.segment)
            .map(|(segment, end)| {
                let from = if segment.base_offset == self.synced.segment { self.synced.position } else { 0 };
                (segment, from, end)
            })
            .collect();
        let mut expected = self.synced.offset;
        let mut copied = 0;
        'segments: for (segment, from, end) in &tail {
            let Ok(file) = self.files.get(&segment.log) else { break };
            let mut scanner = Scanner::new(file.as_ref(), &segment.log, *from, *end, Check::Whole);
            loop {
                let position = scanner.position;
                match scanner.next(Some(expected)) {
                    Ok(Found::Batch(header)) => {
                        let mut batch = vec![0; header.total_bytes()];
                        crate::disk::read_exact_at(file.as_ref(), &mut batch, position)
                            .map_err(LogError::io("cannot read", &segment.log))?;
                        copy.write_at(&batch, copied).map_err(LogError::io("cannot write", &temporary))?;
                        copied += batch.len() as u64;
                        expected = header.next_offset();
                    }
                    Ok(Found::End) => break,
                    // The rest of the tail is not to be had; it was not acknowledged as durable.
                    Ok(Found::Broken(_)) | Err(_) => break 'segments,
                }
            }
        }
        // Readers may have seen what is lost, and groups have come past it: its offsets are never those of other records.
        for gap in gap_batches(expected, self.written_end()) {
            copy.write_at(&gap, copied).map_err(LogError::io("cannot write", &temporary))?;
            copied += gap.len() as u64;
        }
        copy.sync_data().map_err(LogError::io("cannot sync", &temporary))?;
        disk.rename(&temporary, &target.log).map_err(LogError::io("cannot rename", &temporary))?;
        disk.sync_dir(&self.dir).map_err(LogError::io("cannot sync", &self.dir))?;
        self.files.forget(&self.dir);
        for (segment, from, _) in &tail {
            if segment.base_offset == self.synced.segment && segment.base_offset != target.base_offset {
                let file = self.files.get(&segment.log).map_err(|error| segment.open_error(error))?;
                file.set_len(*from).map_err(LogError::io("cannot cut", &segment.log))?;
                file.sync_data().map_err(LogError::io("cannot sync", &segment.log))?;
            } else if segment.base_offset > self.synced.offset {
                segment.remove(&self.files)?;
            }
        }
        disk.sync_dir(&self.dir).map_err(LogError::io("cannot sync", &self.dir))
    }
}
