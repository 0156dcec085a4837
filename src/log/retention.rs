//! Deleting what is too old or too much: whole segments, from the front only, and by the time that is final
//! ([`TrustedClock::final_ms`](crate::base::TrustedClock::final_ms)).

use std::sync::Arc;

use crate::base::{ErrorKind, Offset, TimestampMs};
use crate::disk::{self, OpenMode};

use super::LogError;
use super::checkpoint::{Checkpoint, SyncMark};
use super::partition::PartitionLog;
use super::segment::Segment;

impl PartitionLog {
    /// Deletes segments as the settings say: moves the log start in a durable checkpoint first, then removes files. A
    /// crash between the two leaves files that the next opening removes. `now_ms` is `None` when the time is not to
    /// be trusted: then only size counts. Returns how many segments went.
    ///
    /// # Errors
    /// Those of the disk; what could not be removed is removed at the next opening.
    pub fn retain(&mut self, now_ms: Option<TimestampMs>) -> Result<usize, LogError> {
        let count = self.begin_retain(now_ms)?;
        for segment in self.take_unused() {
            segment.remove(&self.files)?;
        }
        Ok(count)
    }

    /// The first half of [`PartitionLog::retain`]: so many segments belong to the log no more. Their files are for
    /// [`PartitionLog::take_unused`].
    ///
    /// # Errors
    /// Those of the disk; nothing is given up then.
    pub(crate) fn begin_retain(&mut self, now_ms: Option<TimestampMs>) -> Result<usize, LogError> {
        if let Some(now_ms) = now_ms {
            self.producers.keys.forget_old(now_ms, self.key_places.places());
            self.key_places.count(&self.producers.keys);
        }
        if self.poisoned.is_some() || self.checkpoint_running || self.sync_running {
            return Ok(0);
        }
        self.seal_expired(now_ms)?;
        let count = self.expired_segments(now_ms);
        if count == 0 {
            return Ok(0);
        }
        let log_start = self.sealed.get(count).map_or(self.active.segment.base_offset, |next| next.segment.base_offset);
        self.give_up_below(log_start)
    }

    /// Gives up all records below `offset`, which is at most the synced end; so many segments belong to the log no more,
    /// and their files are for [`PartitionLog::take_unused`]. `None` if the log is at work or held: try again.
    ///
    /// # Errors
    /// Those of the disk; nothing is given up then.
    pub(crate) fn begin_give_up(&mut self, offset: Offset) -> Result<Option<usize>, LogError> {
        if self.poisoned.is_some() || self.checkpoint_running || self.sync_running {
            return Ok(None);
        }
        if offset <= self.log_start {
            return Ok(Some(0));
        }
        if offset > self.held_from() {
            return Ok(None);
        }
        if offset > self.active.segment.base_offset {
            // The log start lies in a closed segment, or where the active one begins.
            self.sync()?;
            self.roll()?;
            self.sync()?;
        }
        let gone = self.give_up_below(offset)?;
        Ok((self.log_start >= offset).then_some(gone))
    }

    /// Retired segments that nobody reads any more; whoever takes them removes their files. What is left over is removed
    /// at the next opening.
    pub(crate) fn take_unused(&mut self) -> Vec<Arc<Segment>> {
        // Nobody can get hold of one anew, so a count of one stays one.
        self.retired.extract_if(.., |segment| Arc::strong_count(segment) == 1).collect()
    }

    /// Moves the log start to `log_start`, at most the synced end, and gives up the segments wholly below it.
    fn give_up_below(&mut self, log_start: Offset) -> Result<usize, LogError> {
        // The positions in the checkpoint must lie in segments that stay.
        if self.last_checkpoint.active_base < log_start {
            self.checkpoint_due = true;
            self.checkpoint_pause = 0;
            self.sync()?;
        }
        // Where no newer checkpoint could be written, the last one says how far it may go.
        let log_start = log_start.min(self.last_checkpoint.active_base);
        if log_start <= self.log_start {
            return Ok(0);
        }
        let mut checkpoint = self.last_checkpoint.clone();
        checkpoint.log_start = log_start;
        checkpoint.sealed.retain(|sealed| sealed.next_offset > log_start);
        checkpoint.producers.transactions.forget_below(log_start);
        self.store_start(&checkpoint)?;
        self.last_checkpoint = checkpoint;
        self.log_start = log_start;
        self.producers.transactions.forget_below(log_start);
        self.forgotten += 1;
        let stay = self.sealed.partition_point(|sealed| sealed.info.next_offset <= log_start);
        self.retired.extend(self.sealed.drain(..stay).map(|sealed| sealed.segment));
        self.unstored.retain(|(segment, _)| segment.base_offset >= log_start);
        Ok(stay)
    }

    /// Makes a checkpoint with a new log start durable. Where there is no room for it beside the one that is there, that one is
    /// overwritten: what is about to be deleted is what makes room. A crash meanwhile leaves either of them, or neither that can
    /// be read; then every segment file is read that is there, and the log starts with the first.
    fn store_start(&mut self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let disk = Arc::clone(self.files.disk());
        let (path, content) = (self.dir.join(Checkpoint::FILE), checkpoint.encode());
        match disk::replace_file(disk.as_ref(), &path, &content) {
            Ok(()) => return Ok(()),
            Err(error) if ErrorKind::of_io(&error) == ErrorKind::StorageFull => {}
            Err(error) => return Err(LogError::Io { doing: "cannot write", path, source: error }),
        }
        // Without a checkpoint this is what tells damage from a write that was not finished.
        let (mark, encoded) = (self.dir.join(SyncMark::FILE), self.synced.encode());
        let noted = self.files.create(&mark).and_then(|file| {
            file.write_at(&encoded, 0)?;
            file.sync_data()
        });
        noted.map_err(LogError::io("cannot write", &mark))?;
        let overwritten = disk.open(&path, OpenMode::ReadWrite).and_then(|file| {
            file.write_at(&content, 0)?;
            file.set_len(content.len() as u64)?;
            file.sync_data()
        });
        if overwritten.is_err() {
            // It may be neither the old one nor the new one.
            self.checkpoint_due = true;
        }
        overwritten.map_err(LogError::io("cannot write", &path))
    }

    /// Closes the active segment if its newest record is too old, so that it can go as the others do.
    fn seal_expired(&mut self, now_ms: Option<TimestampMs>) -> Result<(), LogError> {
        let (Some(now_ms), Some(limit)) = (now_ms, self.config.retention_ms) else { return Ok(()) };
        let newest = self.newest_of(&self.active.segment, self.active.index.newest);
        if self.active.index.covered > 0 && is_older(newest, now_ms, limit) {
            self.sync()?;
            self.roll()?;
            self.sync()?;
        }
        Ok(())
    }

    /// What a segment's age counts from: its newest record, or, if none has a timestamp, when it was written to last, as in
    /// Kafka. One of which neither is known is of now.
    fn newest_of(&self, segment: &Segment, newest: TimestampMs) -> TimestampMs {
        if newest >= 0 {
            return newest;
        }
        let written = self.files.get(&segment.log).and_then(|file| file.written_ms());
        written.ok().flatten().unwrap_or(TimestampMs::MAX)
    }

    /// How many segments from the front may go. Each is judged only after all before it may go: a segment is never
    /// deleted from between its neighbours, whatever timestamps its producers gave it.
    fn expired_segments(&self, now_ms: Option<TimestampMs>) -> usize {
        let mut bytes = self.stats().bytes;
        let mut count = 0;
        for sealed in &self.sealed {
            // What an open transaction has written is not for anybody to miss yet.
            if sealed.info.next_offset > self.synced.offset.min(self.committed_end()).min(self.held_from()) {
                break;
            }
            let too_much = self.config.retention_bytes.is_some_and(|limit| bytes - sealed.info.bytes >= limit);
            let too_old = match (now_ms, self.config.retention_ms) {
                (Some(now_ms), Some(limit)) => {
                    is_older(self.newest_of(&sealed.segment, sealed.info.newest_timestamp), now_ms, limit)
                }
                _ => false,
            };
            if !too_much && !too_old {
                break;
            }
            bytes -= sealed.info.bytes;
            count += 1;
        }
        count
    }
}

fn is_older(newest: TimestampMs, now_ms: TimestampMs, limit_ms: u64) -> bool {
    now_ms.saturating_sub(newest) > i64::try_from(limit_ms).unwrap_or(i64::MAX)
}
