//! Reading sealed segments again, one at a time, to find what has changed on the disk since it was written.
//!
//! A plan holds one segment, so retention and compaction never wait for more than one file.

use std::sync::Arc;

use crate::base::Offset;

use super::files::FileCache;
use super::partition::{PartitionLog, Sealed};
use super::scan::{Depth, damage_in};
use super::{Damage, LogError};

/// One sealed segment to be read again; runs without the log.
pub struct ScrubPlan {
    files: Arc<FileCache>,
    sealed: Sealed,
}

impl PartitionLog {
    /// The first sealed segment that ends behind `after`; `None` if there is none.
    pub fn plan_scrub(&self, after: Offset) -> Option<ScrubPlan> {
        let sealed = self.sealed.iter().find(|sealed| sealed.info.next_offset > after)?;
        Some(ScrubPlan { files: Arc::clone(&self.files), sealed: sealed.clone() })
    }

    /// Bytes of the sealed segments.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.info.bytes).sum()
    }
}

impl ScrubPlan {
    /// The offset behind the segment, for the next plan.
    pub fn end(&self) -> Offset {
        self.sealed.info.next_offset
    }

    /// Bytes of the segment.
    pub fn bytes(&self) -> u64 {
        self.sealed.info.bytes
    }

    /// Reads the segment and checks every batch. `pace` is called with the bytes read since the last call, about once a
    /// mebibyte; it waits as long as it likes, and ends the work by `false`.
    ///
    /// # Errors
    /// Those of the disk. [`LogError::Closed`] if `pace` ended it.
    pub fn run(&self, pace: &mut dyn FnMut(u64) -> bool) -> Result<Vec<Damage>, LogError> {
        let Sealed { segment, info } = &self.sealed;
        match self.files.get(&segment.log) {
            Ok(file) => {
                let whole = (0, info.base_offset)..(info.bytes, info.next_offset);
                damage_in(file.as_ref(), &segment.log, whole, Depth::Batches, pace)
            }
            Err(error) => match segment.open_error(error) {
                LogError::Damaged(damage) => Ok(vec![Damage { to: Some(info.next_offset), ..*damage }]),
                other => Err(other),
            },
        }
    }
}
