//! What can go wrong with a simulated disk.

use std::path::Path;

/// The sorts of operations, for faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Changing its length, or reserving room.
    SetLen,
    /// Syncing a file.
    Sync,
    /// Syncing a folder.
    SyncDir,
    /// Opening, making, renaming, removing.
    Entry,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power goes before the operation; everything fails until [`SimDisk::reboot`].
    PowerCut,
    /// EIO. A failed sync also gives up what was pending: it stays readable, and is never durable.
    Error,
    /// ENOSPC, for a write after some of it was written.
    Full,
    /// The operation does not return until [`SimDisk::heal`](super::SimDisk::heal).
    Hang,
    /// The calling thread panics.
    Panic,
}

/// A fault that is to happen.
pub(super) struct Injected {
    pub(super) kind: OpKind,
    pub(super) path: String,
    pub(super) fault: Fault,
    /// Operations that are let pass before it.
    pub(super) skip: u32,
    pub(super) times: u32,
}

impl Injected {
    pub(super) fn hits(&self, kind: OpKind, path: &Path) -> bool {
        self.kind == kind && path.to_string_lossy().contains(self.path.as_str())
    }
}
