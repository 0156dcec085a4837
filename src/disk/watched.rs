//! A disk that is watched, over any other: which operations are running and since when, which were refused, and a reserve
//! of room for what has to be written on a full disk.
//!
//! *The reserve* is a file that takes up room for nothing. When an operation fails for want of room the file is removed, and
//! what the server cannot do without is tried again at once: entries of folders, and writes to all files but segments and
//! their indexes, which are the bulk. So the journal, checkpoints and small files still have room when appends have not, and
//! topics can be deleted. Whoever holds the [`Watch`] makes the reserve again when there is room ([`Watch::make_reserve`]).
//!
//! A sync is never tried again: what a failed sync covered is lost, whatever a later one says.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode};

/// The name of the reserve in the root folder.
pub const RESERVE_FILE: &str = "reserve";

/// Files that get nothing from the reserve: segments and their indexes, finished or not.
const BULK: [&str; 6] = [".log", ".index", ".timeindex", ".log.tmp", ".index.tmp", ".timeindex.tmp"];

/// The watched disk.
pub struct WatchedDisk {
    inner: Arc<dyn Disk>,
    watch: Arc<Watch>,
}

/// What is known of a watched disk.
pub struct Watch {
    inner: Arc<dyn Disk>,
    root: PathBuf,
    running: Mutex<Running>,
    refused: Mutex<Refused>,
    reserve_bytes: u64,
    /// The reserve is there.
    reserved: AtomicBool,
    /// Held while the reserve is made or removed.
    reserving: Mutex<()>,
    /// Operations that failed for want of room.
    full: AtomicU64,
}

#[derive(Default)]
struct Running {
    next: u64,
    /// By number, so the oldest comes first.
    operations: BTreeMap<u64, (&'static str, PathBuf, Instant)>,
}

#[derive(Default)]
struct Refused {
    count: u64,
    last: Option<(Instant, String)>,
}

/// An operation that has not returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningOperation {
    /// What is being done, as in "a sync".
    pub what: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// For how long.
    pub age: Duration,
    /// How many others run as well.
    pub others: usize,
}

impl WatchedDisk {
    /// Watches a disk. Errors count if they are of something below `root`. The reserve is to have `reserve_bytes` bytes; there
    /// is none before it has been looked for or made.
    pub fn new(inner: Arc<dyn Disk>, root: &Path, reserve_bytes: u64) -> (Arc<Self>, Arc<Watch>) {
        let watch = Arc::new(Watch {
            inner: Arc::clone(&inner),
            root: root.to_owned(),
            running: Mutex::default(),
            refused: Mutex::default(),
            reserve_bytes,
            reserved: AtomicBool::new(false),
            reserving: Mutex::default(),
            full: AtomicU64::new(0),
        });
        (Arc::new(Self { inner, watch: Arc::clone(&watch) }), watch)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Errors that are an answer, not trouble.
fn is_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::UnexpectedEof
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// The operation that has run longest.
    pub fn oldest(&self) -> Option<RunningOperation> {
        let running = lock(&self.running);
        let (_, (what, path, began)) = running.operations.first_key_value()?;
        let (path, others) = (path.clone(), running.operations.len() - 1);
        Some(RunningOperation { what, path, age: began.elapsed(), others })
    }

    /// How many operations were refused for another reason than room, and the last one if it was within `within`.
    pub fn refused(&self, within: Duration) -> (u64, Option<String>) {
        let refused = lock(&self.refused);
        let last = refused.last.as_ref().filter(|(at, _)| at.elapsed() < within);
        (refused.count, last.map(|(_, line)| line.clone()))
    }

    /// Operations that failed for want of room so far.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Acquire)
    }

    /// Bytes that can still be written, if the file system tells. The reserve is not among them.
    ///
    /// # Errors
    /// The disk's.
    pub fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.run("a look at the free space", &self.root.clone(), || self.inner.free_bytes(&self.root))
    }

    /// Whether the reserve is there, or there is to be none.
    pub fn is_reserved(&self) -> bool {
        self.reserve_bytes == 0 || self.reserved.load(Ordering::Acquire)
    }

    /// The size of the reserve.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    fn reserve_path(&self) -> PathBuf {
        self.root.join(RESERVE_FILE)
    }

    /// Takes a reserve of an earlier run into use. Whether there was one of the right size.
    ///
    /// # Errors
    /// The disk's.
    pub fn find_reserve(&self) -> io::Result<bool> {
        let _reserving = lock(&self.reserving);
        let path = self.reserve_path();
        if !self.inner.exists(&path)? {
            return Ok(false);
        }
        let whole = self.reserve_bytes > 0 && super::length_of(self.inner.as_ref(), &path) == self.reserve_bytes;
        if !whole {
            self.inner.remove_file(&path)?;
        }
        self.reserved.store(whole, Ordering::Release);
        Ok(whole)
    }

    /// Makes the reserve, if it is not there.
    ///
    /// # Errors
    /// The disk's; then there is none.
    pub fn make_reserve(&self) -> io::Result<()> {
        let _reserving = lock(&self.reserving);
        if self.is_reserved() {
            return Ok(());
        }
        let path = self.reserve_path();
        let made = self.run("making the reserve", &path, || {
            let file = self.inner.open(&path, OpenMode::Create)?;
            file.occupy(self.reserve_bytes)
        });
        match made {
            Ok(()) => self.reserved.store(true, Ordering::Release),
            Err(_) => _ = self.inner.remove_file(&path),
        }
        made
    }

    /// Gives the reserve up. Whether it was there.
    ///
    /// # Errors
    /// The disk's.
    pub fn spend_reserve(&self) -> io::Result<bool> {
        let _reserving = lock(&self.reserving);
        if !self.reserved.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        let path = self.reserve_path();
        self.run("giving up the reserve", &path, || self.inner.remove_file(&path)).map(|()| true)
    }

    /// Runs an operation, which is seen meanwhile.
    fn run<T>(&self, what: &'static str, path: &Path, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = {
            let mut running = lock(&self.running);
            running.next += 1;
            let number = running.next;
            running.operations.insert(number, (what, path.to_owned(), Instant::now()));
            number
        };
        let _seen = Seen { watch: self, number };
        operation()
    }

    /// Runs an operation, and notes how it ends. One that may use the reserve is tried twice if there is no room.
    fn operate<T>(
        &self,
        what: &'static str,
        path: &Path,
        may_use_reserve: bool,
        operation: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut result = self.run(what, path, &operation);
        if let Err(error) = &result
            && is_full(error)
        {
            self.full.fetch_add(1, Ordering::AcqRel);
            // If this fails there is one reason more for what comes next.
            let _spent = self.spend_reserve();
            if may_use_reserve {
                result = self.run(what, path, &operation);
            }
        }
        self.note(what, path, &result);
        result
    }

    /// Notes an operation that was refused.
    fn note<T>(&self, what: &'static str, path: &Path, result: &io::Result<T>) {
        if let Err(error) = result
            && !is_full(error)
            && !is_answer(error)
            && path.starts_with(&self.root)
        {
            let mut refused = lock(&self.refused);
            refused.count += 1;
            refused.last = Some((Instant::now(), format!("{what} of {} failed: {error}", path.display())));
        }
    }
}

/// Ends an operation in the list, also if it panics.
struct Seen<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        lock(&self.watch.running).operations.remove(&self.number);
    }
}

impl Disk for WatchedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.watch.operate("opening", path, true, || self.inner.open(path, mode))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let in_journal = path.parent().is_some_and(|parent| parent == self.watch.root.join("journal"));
        let may_use_reserve = in_journal || !BULK.iter().any(|end| name.ends_with(end));
        Ok(Arc::new(WatchedFile { inner, path: path.to_owned(), watch: Arc::clone(&self.watch), may_use_reserve }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.watch.operate("making", path, true, || self.inner.create_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.watch.operate("a sync", path, false, || self.inner.sync_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.watch.operate("renaming", from, true, || self.inner.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.watch.operate("removing", path, true, || self.inner.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.watch.operate("removing", path, true, || self.inner.remove_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.watch.operate("listing", path, false, || self.inner.list(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.watch.operate("looking for", path, false, || self.inner.exists(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.watch.operate("locking", path, true, || self.inner.lock(path))
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        self.watch.operate("looking at", path, false, || self.inner.mode(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.watch.operate("a look at the free space", path, false, || self.inner.free_bytes(path))
    }
}

struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    watch: Arc<Watch>,
    may_use_reserve: bool,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let read = self.watch.run("a read", &self.path, || self.inner.read_at(buf, pos));
        self.watch.note("a read", &self.path, &read);
        read
    }

    fn read_at_once(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.inner.read_at_once(buf, pos)
    }

    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()> {
        self.watch.operate("a write", &self.path, self.may_use_reserve, || self.inner.write_at(data, pos))
    }

    fn write_vectored_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()> {
        self.watch.operate("a write", &self.path, self.may_use_reserve, || self.inner.write_vectored_at(parts, pos))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.watch.operate("reserving room", &self.path, self.may_use_reserve, || self.inner.allocate(len))
    }

    fn occupy(&self, len: u64) -> io::Result<()> {
        self.watch.operate("taking up room", &self.path, self.may_use_reserve, || self.inner.occupy(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.operate("cutting", &self.path, self.may_use_reserve, || self.inner.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.watch.operate("looking at", &self.path, false, || self.inner.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch.operate("a sync", &self.path, false, || self.inner.sync_data())
    }
}
