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
mod journal;
mod settings;
mod state;
mod store;
mod view;

pub use data_dir::DataDir;
pub use error::CatalogError;
pub use event::{Event, EventError, Tombstone, TopicEntry};
pub use settings::{Cleanup, Durability, SETTINGS, Setting, SettingError, TopicSettings};
pub use store::{Catalog, CatalogStartup, ViewMode};

#[cfg(test)]
mod tests;
