//! The view: the newest value of every key of the journal, in `sled`. The one home of `sled`, which does its own file
//! access and is known to refuse to open, or to panic, after hard stops. So the view is never the only copy of
//! anything and never believed without proof: whatever is wrong with it, the caller removes it and builds it anew from
//! the journal.
//!
//! Beside the keys and values of the journal (see [`super::event`]) it has one of its own, written in the same atomic
//! batch as every change (the last batch, of many changes), big-endian:
//!
//! ```text
//! "\0view" = u8 version (1) | u128 server id | u64 journal offset up to which everything is in here
//!          | u32 checksum of the journal's batch that ends there (0 at offset 0)
//!          | u64 number of entries | u64 sum of the entries' CRC-32 | u32 CRC-32 of all before it
//! ```

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::base::Offset;

use super::event::KeyChange;
use super::state::State;

const MARK_KEY: &[u8] = b"\0view";
const MARK_VERSION: u8 = 1;
const MARK_BYTES: usize = 1 + 16 + 8 + 4 + 8 + 8 + 4;

/// All of it is in memory as [`State`] anyway; sled's cache only has to hold what is being written.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Entries from which on no view is kept. sled takes 250 bytes of memory for each whatever its cache is to be (its smallest cache
/// is of 16,384 pages of up to 16 entries), five times what the state takes, and reading as many from the journal is as fast.
pub(super) const MOST_ENTRIES: usize = 50_000;

/// sled allocates buffers of its segment size. Events are small.
const SLED_SEGMENT_BYTES: usize = 64 * 1024;

/// Changes after which the view is flushed. What a crash takes is replayed from the journal.
const FLUSH_AFTER: u32 = 1000;

/// Changes in one batch: sled keeps a whole batch in memory several times over.
const BATCH_CHANGES: usize = 500;

/// sled's threads may hold a view for a moment after it was closed.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A damaged view can also make sled loop for ever.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How far in the journal a view is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// Everything below is in it.
    pub(super) offset: Offset,
    /// Checksum of the batch that ends there, 0 at the beginning.
    pub(super) checksum: u32,
}

/// Why a view cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none yet.
    Missing,
    /// To be removed and built anew.
    Broken(String),
    /// As broken, but something may still be at work in it: to be removed, and not used in this run.
    Hung,
}

/// A view in use.
pub(super) struct View {
    db: sled::Db,
    server_id: u128,
    entries: u64,
    sum: u64,
    unflushed: u32,
}

impl View {
    /// Opens the view in this folder and reads all of it.
    pub(super) fn open(path: &Path, server_id: u128) -> Result<(Self, State, Position), Unusable> {
        if !path.join("db").exists() {
            return Err(Unusable::Missing);
        }
        let path = path.to_owned();
        in_thread(move || {
            let db = open_db(&path)?;
            let mut view = Self { db, server_id, entries: 0, sum: 0, unflushed: 0 };
            let (state, position) = view.load()?;
            Ok((view, state, position))
        })
    }

    /// Makes a new view in a folder that is not there. It is of use once it was filled, and changes were applied after that.
    pub(super) fn create(path: &Path, server_id: u128) -> Result<Self, Unusable> {
        let path = path.to_owned();
        in_thread(move || {
            let db = open_db(&path)?;
            // What is applied next is flushed.
            Ok(Self { db, server_id, entries: 0, sum: 0, unflushed: FLUSH_AFTER })
        })
    }

    /// Puts a part of the state into a new view, each key once. Until [`View::apply`] it has no mark, and is not believed.
    ///
    /// # Errors
    /// What sled said. The view is not to be used any more.
    pub(super) fn fill(&mut self, changes: Vec<KeyChange>) -> Result<(), String> {
        guarded(|| {
            for part in changes.chunks(BATCH_CHANGES) {
                let mut batch = sled::Batch::default();
                for (key, value) in part {
                    let Some(value) = value else { continue };
                    self.entries += 1;
                    self.sum = self.sum.wrapping_add(checksum(key.as_bytes(), value));
                    batch.insert(key.as_bytes(), value.as_slice());
                }
                self.db.apply_batch(batch).map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    /// Whether it has become larger than is worth its memory.
    pub(super) fn is_too_large(&self) -> bool {
        self.entries > MOST_ENTRIES as u64
    }

    fn load(&mut self) -> Result<(State, Position), String> {
        let mut state = State::default();
        let mut mark = None;
        for pair in self.db.iter() {
            let (key, value) = pair.map_err(|error| error.to_string())?;
            if key == MARK_KEY {
                mark = Some(value);
                continue;
            }
            self.entries += 1;
            self.sum = self.sum.wrapping_add(checksum(&key, &value));
            state.apply_change(&key, Some(&value)).map_err(|error| error.to_string())?;
        }
        let mark = mark.ok_or("it does not say how far it goes")?;
        let position = self.check_mark(&mark)?;
        Ok((state, position))
    }

    fn encode_mark(&self, position: Position) -> Vec<u8> {
        let mut mark = Vec::with_capacity(MARK_BYTES);
        mark.push(MARK_VERSION);
        mark.extend_from_slice(&self.server_id.to_be_bytes());
        mark.extend_from_slice(&position.offset.to_be_bytes());
        mark.extend_from_slice(&position.checksum.to_be_bytes());
        mark.extend_from_slice(&self.entries.to_be_bytes());
        mark.extend_from_slice(&self.sum.to_be_bytes());
        let checksum = crc32fast::hash(&mark);
        mark.extend_from_slice(&checksum.to_be_bytes());
        mark
    }

    /// Whether the mark is one of this server and of exactly these entries.
    fn check_mark(&self, mark: &[u8]) -> Result<Position, String> {
        let field = |at: usize| mark.get(at..at + 8).and_then(|field| <[u8; 8]>::try_from(field).ok());
        let (Some(offset), Some(checksum), MARK_BYTES) = (field(17), mark.get(25..29), mark.len()) else {
            return Err(format!("its mark has {} bytes instead of {MARK_BYTES}", mark.len()));
        };
        let checksum = checksum.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let position = Position { offset: u64::from_be_bytes(offset), checksum };
        // One comparison covers every field and the mark's own checksum; the rest only finds words for it.
        if mark == self.encode_mark(position) {
            return Ok(position);
        }
        if mark[0] != MARK_VERSION {
            return Err(format!("it has version {}; this version of Tidelog writes {MARK_VERSION}", mark[0]));
        }
        if mark[1..17] != self.server_id.to_be_bytes() {
            return Err("it belongs to another server".to_owned());
        }
        Err("its entries are not those that were written".to_owned())
    }

    /// Takes changes in; a crash half way leaves a view that the next open refuses.
    ///
    /// # Errors
    /// What sled said. The view is not to be used any more.
    pub(super) fn apply(&mut self, changes: Vec<KeyChange>, position: Position) -> Result<(), String> {
        guarded(|| self.write(changes, position))
    }

    fn write(&mut self, changes: Vec<KeyChange>, position: Position) -> Result<(), String> {
        // Of several changes of a key only the last counts.
        let changes: BTreeMap<String, Option<Vec<u8>>> = changes.into_iter().collect();
        let mut batch = sled::Batch::default();
        self.unflushed = self.unflushed.saturating_add(1);
        for (count, (key, value)) in changes.into_iter().enumerate() {
            if count > 0 && count % BATCH_CHANGES == 0 {
                // A crash before the mark follows leaves entries that do not fit the old mark, which is found out.
                self.db.apply_batch(std::mem::take(&mut batch)).map_err(|error| error.to_string())?;
            }
            if let Some(old) = self.db.get(&key).map_err(|error| error.to_string())? {
                self.entries = self.entries.wrapping_sub(1);
                self.sum = self.sum.wrapping_sub(checksum(key.as_bytes(), &old));
            }
            match value {
                Some(value) => {
                    self.entries += 1;
                    self.sum = self.sum.wrapping_add(checksum(key.as_bytes(), &value));
                    batch.insert(key.into_bytes(), value);
                }
                None => batch.remove(key.into_bytes()),
            }
        }
        batch.insert(MARK_KEY, self.encode_mark(position));
        self.db.apply_batch(batch).map_err(|error| error.to_string())?;
        if self.unflushed >= FLUSH_AFTER {
            self.db.flush().map_err(|error| error.to_string())?;
            self.unflushed = 0;
        }
        Ok(())
    }

    /// Flushes and closes it.
    ///
    /// # Errors
    /// What sled said. The view may lag behind then, or be broken.
    pub(super) fn close(self) -> Result<(), String> {
        guarded(move || {
            let flushed = self.db.flush().map(drop).map_err(|error| error.to_string());
            drop(self);
            flushed
        })
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    u64::from(hasher.finalize())
}

fn open_db(path: &Path) -> Result<sled::Db, String> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SLED_SEGMENT_BYTES)
        .mode(sled::Mode::LowSpace)
        // No thread that wakes up to flush what is not worth it.
        .flush_every_ms(None);
    for _ in 1..LOCK_ATTEMPTS {
        match config.open() {
            // The data directory is ours alone, so this can only be what we had open before.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::park_timeout(LOCK_PAUSE);
            }
            other => return other.map_err(|error| error.to_string()),
        }
    }
    config.open().map_err(|error| error.to_string())
}

/// sled panics where others return an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("sled panicked: {}", text.unwrap_or("for no stated reason")))
    })
}

/// Runs on a thread of its own, which is left to itself when it takes too long.
fn in_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Unusable> {
    let (done, result) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("view-open".to_owned())
        .spawn(move || drop(done.send(guarded(work))))
        .map_err(|error| Unusable::Broken(format!("cannot start a thread: {error}")))?;
    match result.recv_timeout(OPEN_TIMEOUT) {
        Ok(result) => {
            let _ended = thread.join();
            result.map_err(Unusable::Broken)
        }
        Err(RecvTimeoutError::Timeout) => Err(Unusable::Hung),
        Err(RecvTimeoutError::Disconnected) => Err(Unusable::Broken("sled ended its thread".to_owned())),
    }
}
