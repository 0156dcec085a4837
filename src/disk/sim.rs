//! A simulated disk, deterministic from its seed: it remembers what was synced, and a power cut takes back some, all or
//! none of the rest, sector by sector.
//!
//! Pristine bytes and faults are kept apart: `current` is what reads see, `durable` is what is surely on the platter, and
//! between them lies the ordered list of what is pending. Bit rot is an overlay on reads.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode};
use fault::Injected;
pub use fault::{Fault, OpKind};
use inode::{Inode, Pending};

mod fault;
mod inode;

/// How often a hung operation looks whether it may go on.
const HANG_LOOK: std::time::Duration = std::time::Duration::from_millis(5);

/// How a simulated disk behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimOptions {
    /// Decides what a power cut takes back.
    pub seed: u64,
    /// Bytes that fit, all files together.
    pub capacity: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Dir,
    File(u64),
}

#[derive(Default)]
struct State {
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    current: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Paths set to an entry or removed together, in order, since the folder's last sync.
    pending: Vec<Vec<(PathBuf, Option<Entry>)>>,
    locks: Vec<PathBuf>,
    operations: u64,
    cut_at: Option<u64>,
    faults: Vec<Injected>,
    off: bool,
    /// It is the process that ends at `cut_at`, not the power.
    killed: bool,
    capacity: Option<u64>,
    generation: u64,
    rng: Option<fastrand::Rng>,
    log: Vec<String>,
}

/// The simulated disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    generation: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(options: SimOptions) -> Self {
        let state = State {
            capacity: options.capacity,
            rng: Some(fastrand::Rng::with_seed(options.seed)),
            current: BTreeMap::from([(PathBuf::from("/"), Entry::Dir)]),
            durable: BTreeMap::from([(PathBuf::from("/"), Entry::Dir)]),
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(state)), generation: 0 }
    }

    /// Cuts the power before the `nth` operation from now (0 is the next).
    pub fn cut_power_at(&self, nth: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.operations + nth);
    }

    /// Makes the next `times` operations of a kind on paths that contain `path` fail.
    pub fn inject(&self, kind: OpKind, path: &str, fault: Fault, times: u32) {
        self.inject_after(kind, path, fault, 0, times);
    }

    /// The same, after `skip` of these operations.
    pub fn inject_after(&self, kind: OpKind, path: &str, fault: Fault, skip: u32, times: u32) {
        self.lock().faults.push(Injected { kind, path: path.to_owned(), fault, skip, times });
    }

    /// Ends the process before the `nth` operation from now: everything fails until [`SimDisk::restart`], and all that was
    /// written is there.
    pub fn kill_at(&self, nth: u64) {
        self.cut_power_at(nth);
        self.lock().killed = true;
    }

    /// Forgets every injected fault.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Changes how much fits.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The last operations, for a failed test's message.
    pub fn op_log(&self) -> String {
        let state = self.lock();
        state.log[state.log.len().saturating_sub(60)..].join("\n")
    }

    /// Flips a bit at rest; reads see it until the byte is written again.
    pub fn flip_bit(&self, path: &Path, position: usize, bit: u8) {
        let mut state = self.lock();
        if let Some(Entry::File(inode)) = state.current.get(path).copied()
            && let Some(inode) = state.inodes.get_mut(&inode)
        {
            *inode.rot.entry(position).or_default() ^= 1 << (bit % 8);
        }
    }

    /// A file's bytes, as reads see them.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        match state.current.get(path) {
            Some(Entry::File(inode)) => state.inodes.get(inode).map(|inode| inode.current.clone()),
            _ => None,
        }
    }

    /// Plants a file, durable at once.
    pub fn plant(&self, path: &Path, content: &[u8]) {
        let mut state = self.lock();
        let number = state.next_inode;
        state.next_inode += 1;
        let inode = Inode { durable: content.to_vec(), current: content.to_vec(), ..Inode::default() };
        state.inodes.insert(number, inode);
        state.current.insert(path.to_owned(), Entry::File(number));
        state.durable.insert(path.to_owned(), Entry::File(number));
    }

    /// The process ends (SIGKILL) and starts again: what was written stays, open handles and locks are gone.
    pub fn restart(&self) -> SimDisk {
        let mut state = self.lock();
        state.generation += 1;
        state.locks.clear();
        state.cut_at = None;
        if std::mem::take(&mut state.killed) {
            state.off = false;
        }
        SimDisk { state: Arc::clone(&self.state), generation: state.generation }
    }

    /// The power goes (if it has not) and comes back: what was not synced is there, torn or gone.
    pub fn reboot(&self) -> SimDisk {
        let mut state = self.lock();
        state.crash();
        state.off = false;
        state.generation += 1;
        state.locks.clear();
        state.cut_at = None;
        state.faults.clear();
        SimDisk { state: Arc::clone(&self.state), generation: state.generation }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operate(&self, kind: OpKind, path: &Path) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.lock();
        let fault = state.begin(self.generation, kind, path)?;
        match fault {
            Some(Fault::Panic) => {
                drop(state);
                panic!("simulated panic in {kind:?} of {}", path.display());
            }
            Some(Fault::Hang) => {
                while state.faults.iter().any(|fault| fault.hits(kind, path) && fault.fault == Fault::Hang) {
                    drop(state);
                    std::thread::park_timeout(HANG_LOOK);
                    state = self.lock();
                }
                Ok((state, None))
            }
            fault => Ok((state, fault)),
        }
    }
}

fn eio() -> io::Error {
    io::Error::other("simulated I/O error")
}

impl State {
    fn begin(&mut self, generation: u64, kind: OpKind, path: &Path) -> io::Result<Option<Fault>> {
        if self.off || generation != self.generation {
            return Err(io::Error::other("the power is off"));
        }
        if self.cut_at == Some(self.operations) {
            self.off = true;
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        self.log.push(format!("{} {kind:?} {}", self.operations, path.display()));
        if self.log.len() > 1000 {
            self.log.drain(..500);
        }
        let Some(hit) = self.faults.iter_mut().find(|fault| fault.times > 0 && fault.hits(kind, path)) else {
            return Ok(None);
        };
        if hit.skip > 0 {
            hit.skip -= 1;
            return Ok(None);
        }
        hit.times -= 1;
        let fault = hit.fault;
        match fault {
            Fault::PowerCut => {
                self.off = true;
                Err(io::Error::other("the power is off"))
            }
            Fault::Error if kind != OpKind::Sync => Err(eio()),
            other => Ok(Some(other)),
        }
    }

    fn used(&self) -> u64 {
        let live = self.current.values().filter_map(|entry| match entry {
            Entry::File(inode) => self.inodes.get(inode),
            Entry::Dir => None,
        });
        live.map(|inode| inode.current.len() as u64).sum()
    }

    /// How far a file may grow now.
    fn room(&self, inode: u64) -> u64 {
        let own = self.inodes.get(&inode).map_or(0, |inode| inode.current.len() as u64);
        self.capacity.map_or(u64::MAX, |capacity| own.saturating_add(capacity.saturating_sub(self.used())))
    }

    fn change(&mut self, changes: Vec<(PathBuf, Option<Entry>)>) {
        for (path, entry) in &changes {
            match entry {
                Some(entry) => self.current.insert(path.clone(), *entry),
                None => self.current.remove(path),
            };
        }
        self.pending.push(changes);
    }

    fn crash(&mut self) {
        let mut rng = self.rng.take().unwrap_or_default();
        // Each crash has its own mood, the extremes included.
        let mood = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
        let keep = |rng: &mut fastrand::Rng| rng.f64() < mood;
        let mut lost: Vec<PathBuf> = Vec::new();
        for changes in std::mem::take(&mut self.pending) {
            // Changes of one name keep their order: after one is lost, later ones of that name are too.
            let dependent = changes.iter().any(|(path, _)| lost.contains(path));
            if dependent || !keep(&mut rng) {
                lost.extend(changes.into_iter().map(|(path, _)| path));
                continue;
            }
            for (path, entry) in changes {
                match entry {
                    Some(entry) => self.durable.insert(path, entry),
                    None => self.durable.remove(&path),
                };
            }
        }
        // What lies in a folder that never became durable is gone with it.
        let all = std::mem::take(&mut self.durable);
        for (path, entry) in all {
            if path.parent().is_none_or(|parent| self.durable.contains_key(parent)) {
                self.durable.insert(path, entry);
            }
        }
        self.current = self.durable.clone();
        let mut numbers: Vec<_> = self.inodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(inode) = self.inodes.get_mut(&number) {
                inode.crash(&mut rng, mood);
            }
        }
        self.rng = Some(rng);
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: u64,
    writable: bool,
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.generation == self.disk.generation {
            state.locks.retain(|path| *path != self.path);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let (mut state, _) = self.operate(OpKind::Entry, path)?;
        let inode = match (state.current.get(path).copied(), mode) {
            (Some(Entry::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(_)), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::File(inode)), _) => inode,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                if path.parent().and_then(|parent| state.current.get(parent)) != Some(&Entry::Dir) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.change(vec![(path.to_owned(), Some(Entry::File(inode)))]);
                inode
            }
        };
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), inode, writable }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let (mut state, _) = self.operate(OpKind::Entry, path)?;
        let mut above: Vec<_> = path.ancestors().map(Path::to_owned).collect();
        above.reverse();
        for folder in above {
            match state.current.get(&folder) {
                Some(Entry::Dir) => {}
                Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => state.change(vec![(folder, Some(Entry::Dir))]),
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, _) = self.operate(OpKind::SyncDir, path)?;
        let (done, rest) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|changes| changes.iter().any(|(changed, _)| changed.parent() == Some(path)));
        state.pending = rest;
        let done: Vec<Vec<(PathBuf, Option<Entry>)>> = done;
        for (changed, entry) in done.into_iter().flatten() {
            match entry {
                Some(entry) => state.durable.insert(changed, entry),
                None => state.durable.remove(&changed),
            };
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, _) = self.operate(OpKind::Entry, from)?;
        if !state.current.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let moved: Vec<_> = state
            .current
            .iter()
            .filter(|(path, _)| path.starts_with(from))
            .map(|(path, entry)| (path.clone(), *entry))
            .collect();
        let mut changes = Vec::new();
        for (path, entry) in moved {
            let Ok(rest) = path.strip_prefix(from) else { continue };
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            changes.push((target, Some(entry)));
            changes.push((path, None));
        }
        state.change(changes);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (mut state, _) = self.operate(OpKind::Entry, path)?;
        match state.current.get(path) {
            Some(Entry::File(_)) => state.change(vec![(path.to_owned(), None)]),
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let inside: Vec<_> = {
            let (state, _) = self.operate(OpKind::Entry, path)?;
            if state.current.get(path) != Some(&Entry::Dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.current.keys().filter(|known| known.starts_with(path)).rev().cloned().collect()
        };
        // One operation an entry, so that a power cut can stop it half way.
        for entry in inside {
            let (mut state, _) = self.operate(OpKind::Entry, &entry)?;
            state.change(vec![(entry, None)]);
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let (state, _) = self.operate(OpKind::Read, path)?;
        if state.current.get(path) != Some(&Entry::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.current.iter().filter(|(known, _)| known.parent() == Some(path));
        Ok(inside
            .map(|(known, entry)| DirEntry {
                name: known.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                is_dir: *entry == Entry::Dir,
            })
            .collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.operate(OpKind::Read, path)?.0.current.contains_key(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        drop(self.open(path, OpenMode::Create)?);
        let (mut state, _) = self.operate(OpKind::Entry, path)?;
        if state.locks.iter().any(|held| held == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locks.push(path.to_owned());
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        let state = self.lock();
        Ok(state.capacity.map(|capacity| capacity.saturating_sub(state.used())))
    }
}

impl SimFile {
    fn operate(&self, kind: OpKind) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let (state, fault) = self.disk.operate(kind, &self.path)?;
        if !self.writable && matches!(kind, OpKind::Write | OpKind::SetLen) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok((state, fault))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let (state, _) = self.operate(OpKind::Read)?;
        let inode = state.inodes.get(&self.inode).ok_or_else(eio)?;
        let from = usize::try_from(pos).unwrap_or(usize::MAX).min(inode.current.len());
        let length = buf.len().min(inode.current.len() - from);
        buf[..length].copy_from_slice(&inode.current[from..from + length]);
        for (at, mask) in inode.rot.range(from..from + length) {
            buf[at - from] ^= mask;
        }
        Ok(length)
    }

    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()> {
        let (mut state, fault) = self.operate(OpKind::Write)?;
        let at = usize::try_from(pos).map_err(io::Error::other)?;
        let room = usize::try_from(state.room(self.inode)).unwrap_or(usize::MAX);
        let mut fits = data.len().min(room.saturating_sub(at));
        if fault == Some(Fault::Full) {
            let mut rng = state.rng.take().unwrap_or_default();
            fits = rng.usize(..=data.len().saturating_sub(1));
            state.rng = Some(rng);
        }
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
        Inode::apply(&mut inode.current, at, &data[..fits]);
        for position in at..at + fits {
            if inode.rot.is_empty() {
                break;
            }
            inode.rot.remove(&position);
        }
        inode.pending.push(Pending::Write(at, data[..fits].to_vec()));
        if fits < data.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn write_vectored_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()> {
        self.write_at(&parts.concat(), pos)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let (state, _) = self.operate(OpKind::SetLen)?;
        if len > state.room(self.inode) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn occupy(&self, len: u64) -> io::Result<()> {
        // Room is counted by lengths here.
        self.set_len(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, _) = self.operate(OpKind::SetLen)?;
        if len > state.room(self.inode) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = usize::try_from(len).map_err(io::Error::other)?;
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
        if inode.current.len() != length {
            inode.current.resize(length, 0);
            inode.pending.push(Pending::SetLen(length));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let (state, _) = self.operate(OpKind::Read)?;
        Ok(state.inodes.get(&self.inode).ok_or_else(eio)?.current.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, fault) = self.operate(OpKind::Sync)?;
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(eio)?;
        if fault.is_some() {
            // As Linux does: the pages are clean now, and the data is nowhere but in memory.
            inode.pending.clear();
            return Err(eio());
        }
        for pending in std::mem::take(&mut inode.pending) {
            match pending {
                Pending::Write(at, data) => Inode::apply(&mut inode.durable, at, &data),
                Pending::SetLen(length) => inode.durable.resize(length, 0),
            }
        }
        Ok(())
    }
}
