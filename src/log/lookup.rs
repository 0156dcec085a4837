//! Finding an offset by time.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{Offset, TimestampMs, limits};
use crate::disk;
use crate::record::read_records;

use super::LogError;
use super::checkpoint::SealedSegment;
use super::files::FileCache;
use super::partition::PartitionLog;
use super::scan::{Check, Found, Scanner};
use super::segment::Segment;

/// What one look-up has to do; runs without the log.
pub struct TimePlan {
    files: Arc<FileCache>,
    /// Segments that may hold the record, in order, each with where to begin (if known) and where it ends.
    candidates: Vec<(Arc<Segment>, Option<SealedSegment>, u64, u64)>,
    time: TimestampMs,
    from: Offset,
    limit: Offset,
}

impl PartitionLog {
    /// Plans to find the first record below `limit` whose timestamp is at least `time`.
    pub fn plan_time(&self, time: TimestampMs, limit: Offset) -> TimePlan {
        let mut candidates: Vec<_> = self
            .sealed
            .iter()
            .filter(|sealed| sealed.info.newest_timestamp >= time)
            .map(|sealed| (Arc::clone(&sealed.segment), Some(sealed.info), 0, sealed.info.bytes))
            .collect();
        if self.active.index.newest >= time {
            let start = self.active.index.position_of_time(time);
            candidates.push((Arc::clone(&self.active.segment), None, start, self.active.index.covered));
        }
        TimePlan { files: Arc::clone(&self.files), candidates, time, from: self.log_start, limit }
    }

    /// The first record below `limit` whose timestamp is at least `time`: its offset and timestamp.
    ///
    /// # Errors
    /// Those of reading.
    pub fn offset_for_time(&self, time: TimestampMs, limit: Offset) -> Result<Option<(Offset, TimestampMs)>, LogError> {
        self.plan_time(time, limit).run()
    }
}

impl TimePlan {
    /// Looks.
    ///
    /// # Errors
    /// Those of reading, damage included.
    pub fn run(&self) -> Result<Option<(Offset, TimestampMs)>, LogError> {
        for (segment, sealed, start, end) in &self.candidates {
            let start = match sealed {
                Some(info) => segment.sealed_index(&self.files, info)?.position_of_time(self.time),
                None => *start,
            };
            let file = self.files.get(&segment.log).map_err(|error| segment.open_error(error))?;
            let mut scanner = Scanner::new(file.as_ref(), &segment.log, start, *end, Check::Header);
            loop {
                let position = scanner.position;
                let Found::Batch(header) = scanner.next(None)? else { break };
                if header.base_offset >= self.limit {
                    return Ok(None);
                }
                if header.max_timestamp < self.time || header.next_offset() <= self.from {
                    continue;
                }
                let mut batch = vec![0; header.total_bytes()];
                disk::read_exact_at(file.as_ref(), &mut batch, position)
                    .map_err(LogError::io("cannot read", &segment.log))?;
                let records = read_records(&Bytes::from(batch), limits::MAX_DECOMPRESSED_BYTES);
                // What cannot be read has no time to be found by; whoever reads there is told.
                for record in records.into_iter().flatten().map_while(Result::ok) {
                    if record.timestamp >= self.time && record.offset >= self.from && record.offset < self.limit {
                        return Ok(Some((record.offset, record.timestamp)));
                    }
                }
            }
        }
        Ok(None)
    }
}
