//! A bounded number of open files and loaded indexes for any number of segments.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, OpenMode};

use super::index::SparseIndex;
use super::keys::KeyPlaces;

/// Indexes of sealed segments kept in memory, over all logs. One is 256 KiB for a segment of 256 MiB.
const LOADED_INDEXES: usize = 32;

/// What the logs of a server share. Open files by path, the least recently used closed first. A file in use elsewhere stays open until that user drops
/// it, so the bound is on what is kept without need.
pub struct FileCache {
    disk: Arc<dyn Disk>,
    open: Mutex<Recent<Arc<dyn DiskFile>>>,
    indexes: Mutex<Recent<Arc<SparseIndex>>>,
    keys: Arc<KeyPlaces>,
    /// Milliseconds.
    producer_forgotten: AtomicU64,
}

impl FileCache {
    /// A cache that keeps at most `capacity` files open (at least one).
    pub fn new(disk: Arc<dyn Disk>, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            disk,
            open: Mutex::new(Recent::new(capacity)),
            indexes: Mutex::new(Recent::new(LOADED_INDEXES)),
            keys: Arc::default(),
            producer_forgotten: AtomicU64::new(u64::MAX),
        })
    }

    /// The places for idempotency keys that the logs with this cache share.
    pub fn keys(&self) -> Arc<KeyPlaces> {
        Arc::clone(&self.keys)
    }

    /// The shortest time in milliseconds for which a producer had been idle that a log has forgotten for a new one.
    pub fn youngest_producer_forgotten(&self) -> Option<u64> {
        Some(self.producer_forgotten.load(Ordering::Relaxed)).filter(|idle| *idle < u64::MAX)
    }

    pub(crate) fn producer_forgotten(&self, idle_ms: u64) {
        self.producer_forgotten.fetch_min(idle_ms, Ordering::Relaxed);
    }

    /// The disk underneath.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The open file of an existing path, opened for reading and writing, or for reading only where that is refused.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn get(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = lock(&self.open).get(path) {
            return Ok(file);
        }
        let file = match self.disk.open(path, OpenMode::ReadWrite) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                self.disk.open(path, OpenMode::Read)?
            }
            other => other?,
        };
        lock(&self.open).put(path, Arc::clone(&file));
        Ok(file)
    }

    /// Opens the file, making it if it does not exist.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, OpenMode::Create)?;
        lock(&self.open).put(path, Arc::clone(&file));
        Ok(file)
    }

    /// Forgets every file at or below a path, so that the next use opens it anew.
    pub fn forget(&self, path: &Path) {
        lock(&self.open).entries.retain(|known, _| !known.starts_with(path));
        lock(&self.indexes).entries.retain(|known, _| !known.starts_with(path));
    }

    /// How many files are kept open.
    pub fn len(&self) -> usize {
        lock(&self.open).entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn index(&self, path: &Path) -> Option<Arc<SparseIndex>> {
        lock(&self.indexes).get(path)
    }

    pub(crate) fn keep_index(&self, path: &Path, index: Arc<SparseIndex>) {
        lock(&self.indexes).put(path, index);
    }
}

/// A map that forgets what was used longest ago. Forgetting looks at every entry, so it forgets an eighth of them at a time.
struct Recent<V> {
    entries: HashMap<PathBuf, (V, u64)>,
    capacity: usize,
    tick: u64,
}

impl<V: Clone> Recent<V> {
    fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1), tick: 0 }
    }

    fn get(&mut self, path: &Path) -> Option<V> {
        self.tick += 1;
        let (value, used) = self.entries.get_mut(path)?;
        *used = self.tick;
        Some(value.clone())
    }

    fn put(&mut self, path: &Path, value: V) {
        self.tick += 1;
        self.entries.insert(path.to_owned(), (value, self.tick));
        if self.entries.len() > self.capacity {
            let mut used: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
            let excess = used.len() - self.capacity + self.capacity / 8;
            let (_, youngest, _) = used.select_nth_unstable(excess - 1);
            let youngest = *youngest;
            self.entries.retain(|_, (_, used)| *used > youngest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
