//! Floor 3: what exists. Every change is an [`Event`], appended to an internal log, the *journal*, and durable before
//! it counts. What the events add up to is held in memory; a view in `sled` beside the journal saves reading all of it
//! at every start, and may lag, be missing or be broken: the journal alone decides.
//!
//! ```text
//! commit: check against the state -> journal, synced -> state -> view (a failure here is only a warning)
//! open:   view, if it can be believed -> what the journal has beyond it -> state
//! ```
//!
//! Also the data directory: its layout, its lock, its format version.
//!
//! Knows nothing of open partitions, producers at work, groups or sockets.

mod data_dir;
mod error;
mod event;
mod hints;
mod journal;
mod places;
mod progress;
mod pushes;
mod receipts;
mod repair;
mod requests;
mod routing;
mod settings;
mod state;
mod store;
mod transactions;
mod view;

pub use data_dir::DataDir;
pub use error::CatalogError;
pub use event::{Event, EventError, Tombstone, TopicEntry};
pub use hints::{HINT_PREFIX, HINTS, Hint, HintKind};
pub use places::{KeptPosition, Progress};
pub use progress::{
    Assignor, CHUNK_OFFSETS, Chunk, ClassicEntry, ClassicMemberEntry, ConsumerEntry, Failed, GroupCounts, GroupEntry,
    GroupKind, MemberEntry, Owned, Place, Position, QueueSettings,
};
pub use pushes::{Hidden, OldSecret, PushEndpoint, PushEntry, PushHeader};
pub use receipts::{GivenUp, Processed, ReceiptEntry, ReceiptNews, ReceiptPlace};
pub use repair::{JournalRepair, repair_journal};
pub use requests::{Callback, OutcomeKind, RequestEntry, RequestOutcome, Writing};
pub use routing::{RouteCounts, RouteEntry, RoutePlace, RouteProgress};
pub use settings::{
    Cleanup, Durability, Expired, Ratio, SETTINGS, Setting, SettingError, TimestampType, TopicSettings,
};
pub use store::{Catalog, CatalogStartup, ViewMode, compact_journal};
pub use transactions::{TransactionClient, TransactionEntry, TransactionPhase};

/// The partition folders that must exist by what the journal says, as far as it can be read. Changes nothing, so it may be
/// asked beside a running server.
pub fn expected_partitions(disk: &dyn crate::disk::Disk, dir: &DataDir) -> Vec<std::path::PathBuf> {
    let state = journal::read_state(disk, dir);
    let folders = |topic: &TopicEntry| {
        let (name, id) = (topic.name.clone(), topic.id);
        (0..topic.partitions).map(move |number| dir.partition_dir(&name, id, number))
    };
    state.topics().flat_map(folders).collect()
}

#[cfg(test)]
mod tests;
