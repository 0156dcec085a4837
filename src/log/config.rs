//! What a user tunes about one log.

use crate::base::limits;

/// Which end readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StableEnd {
    /// The synced end: nobody reads what a power cut could take back.
    #[default]
    Synced,
    /// The written end: readers are ahead of the sync by up to its interval.
    Written,
}

/// The settings of one log. Sizes in bytes, times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment that would grow over this is closed and a new one begun. Within `limits::SEGMENT_BYTES`.
    pub segment_bytes: u64,
    /// A segment whose first append is older than this is closed at the next append.
    pub segment_ms: Option<u64>,
    /// The oldest segments are deleted while the log without them still has this much.
    pub retention_bytes: Option<u64>,
    /// The oldest segments are deleted when their newest record is older than this.
    pub retention_ms: Option<u64>,
    /// The largest batch taken.
    pub max_batch_bytes: usize,
    /// Bytes after which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Which end readers see.
    pub stable: StableEnd,
    /// Compaction by key, if there is to be any.
    pub compaction: Option<Compaction>,
}

/// How a log is compacted by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// How long a tombstone stays once everything before it of its key is gone.
    pub delete_retention_ms: u64,
    /// Segments with a record younger than this are left alone.
    pub min_lag_ms: u64,
    /// The part of the sealed bytes, in thousandths, that must not have been compacted yet before it is begun.
    pub dirty_permille: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: limits::DEFAULT_SEGMENT_BYTES,
            segment_ms: None,
            retention_bytes: None,
            retention_ms: None,
            max_batch_bytes: limits::DEFAULT_BATCH_BYTES,
            checkpoint_bytes: limits::CHECKPOINT_INTERVAL_BYTES,
            stable: StableEnd::Synced,
            compaction: None,
        }
    }
}
