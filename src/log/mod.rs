//! Floor 2: the storage engine. One [`PartitionLog`] is one ordered log in one folder:
//!
//! ```text
//! <partition folder>/
//!   00000000000000000000.log        segment: RecordBatch v2 batches back to back, nothing else; named by its first offset
//!   00000000000000000000.index      sparse offset index of it      } caches: rebuilt from the segment when missing,
//!   00000000000000000000.timeindex  sparse time index of it        } short, corrupt or at odds with it
//!   checkpoint                      what is known to be synced and verified, log start, producers, transactions
//!   synced                          how far the last sync reached (a lower bound; tells damage from a torn tail)
//!   damage                          only if there is any: what is known to be damaged
//! ```
//!
//! Invariant, asserted after every step: log start ≤ synced end ≤ written end; offsets are contiguous.
//!
//! Knows bytes, offsets and files. Does not know what a topic is for; no sockets, no async. Append and sync are
//! synchronous steps that take the time as an argument, so that a simulator can drive them one by one; [`Committer`]
//! drives them from its own threads.

mod checkpoint;
mod clean;
mod commit;
mod config;
mod crew;
mod damage;
mod error;
mod files;
mod hold;
mod index;
mod keys;
mod listing;
mod lookup;
mod partition;
mod producers;
mod read;
mod recovery;
mod reopen;
mod retention;
mod room;
mod scan;
mod scrub;
mod segment;
mod sync;
mod transactions;
mod verify;

pub use checkpoint::{Checkpoint, SealedSegment, SyncMark};
pub use clean::{CleanState, Cleaned, Limits as CleanLimits, Repaired, SharedLog, clean};
pub use commit::{AppendRequest, Committer, CommitterConfig, LogHandle, LogObserver, WaitFor};
pub use config::{Compaction, LogConfig, StableEnd};
pub use damage::{DAMAGE_ENTRIES, DamageList, KnownDamage};
pub use error::{Damage, LogError};
pub use files::FileCache;
pub use index::{IndexFile, read_index_file};
pub use keys::KeyPlaces;
pub use listing::segment_files;
pub use partition::{Appended, LastBatch, LogStats, PartitionLog};
pub use read::{ReadChunk, ReadPlan};
pub use recovery::Recovery;
pub use room::is_room;
pub use scrub::ScrubPlan;
pub use segment::SegmentName;
pub use sync::SyncTicket;
pub use transactions::{Aborted, OpenTransaction, ProducerInLog};
pub use verify::{Finding, VerifySummary, verify_partition};

#[cfg(test)]
mod frozen;
#[cfg(test)]
mod tests;
