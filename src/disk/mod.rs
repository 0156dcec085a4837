//! Floor 1: the file-system seam. All file access of the product goes through [`Disk`], so that the same storage code
//! runs on the real disk ([`RealDisk`]) and on a simulated one ([`SimDisk`]) that can lose, tear and reorder what was
//! not synced.
//!
//! Knows nothing of batches, segments or topics.
//!
//! What a caller may rely on after a power cut, and nothing more:
//! - bytes written to a file before a [`DiskFile::sync_data`] that returned `Ok` are there, with the length that makes
//!   them readable;
//! - an entry (a file created, renamed or removed, a folder created) is there or gone once [`Disk::sync_dir`] of the
//!   folder that holds it returned `Ok`; a rename is there as a whole or not at all;
//! - everything else is there, partly there or not there, in any combination of sectors.
//!
//! After a `sync_data` that failed, what was not yet synced must be taken for lost, whatever a later sync says.

mod real;
mod sim;
#[cfg(test)]
mod tests;
mod watched;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::base::TimestampMs;

pub use real::RealDisk;
pub use sim::{Fault, OpKind, SimDisk, SimOptions};
pub use watched::{RESERVE_FILE, RunningOperation, Watch, WatchedDisk};

/// How [`Disk::open`] treats a file that is there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; writes fail.
    Read,
    /// It must exist.
    ReadWrite,
    /// Made if it does not exist; what it holds stays.
    Create,
    /// It must not exist yet (`AlreadyExists` otherwise).
    CreateNew,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within the folder.
    pub name: String,
    /// A folder, not a file.
    pub is_dir: bool,
}

/// A file system, or the part of one that Tidelog needs. Errors are those of the operating system; the caller adds
/// the path.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a folder and those above it that are missing. Durable only after `sync_dir` of each parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of this folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file or folder within one folder, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all that is in it. May stop half way at a crash.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, sorted by name. `NotFound` if there is no such folder.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes an exclusive lock on a file (made if missing), held until the guard is dropped or the process ends.
    /// `WouldBlock` if another process, or another guard of this one, holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
    /// The permission bits of a file or folder, `None` if there are none.
    ///
    /// # Errors
    /// Those of looking.
    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        let _ = path;
        Ok(None)
    }
    /// Bytes that can still be written to the file system of `path`, `None` if it does not tell.
    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>>;
}

/// An open file. Methods take `&self`: positions are given, so readers and a writer share one handle.
#[expect(clippy::len_without_is_empty, reason = "a length to seek by, not a collection")]
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes at `pos`; fewer only at the end of the file, 0 beyond it.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// The same without waiting for the disk: `WouldBlock` if not all of it is in memory, and where the system cannot tell.
    fn read_at_once(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let _ = (buf, pos);
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Writes all of `data` at `pos`. On an error any part of it may have been written.
    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()>;
    /// Writes all of `parts`, one behind the other, at `pos`. On an error any part of them may have been written.
    fn write_vectored_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()>;
    /// Reserves room for the file up to `len` bytes without changing its length, where the file system can; otherwise
    /// does nothing.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes the file `len` bytes long, and takes up that much room for it; what is in it is nobody's business.
    fn occupy(&self, len: u64) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// When it was written to last, in milliseconds since the Unix epoch, if that is known.
    fn written_ms(&self) -> io::Result<Option<TimestampMs>> {
        Ok(None)
    }
    /// Makes all that was written to the file, and its length, durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
}

/// An exclusive lock; dropping it releases it.
pub trait DirLock: Send + Sync {}

/// Reads exactly `buf.len()` bytes at `pos`.
///
/// # Errors
/// `UnexpectedEof` if the file ends before; any error of the read itself.
pub fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], pos: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], pos + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

/// The length of a file, 0 if it cannot be had.
pub fn length_of(disk: &dyn Disk, path: &Path) -> u64 {
    disk.open(path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0)
}

/// Reads a whole small file.
///
/// # Errors
/// Those of opening and reading it.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut content = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    read_exact_at(file.as_ref(), &mut content, 0)?;
    Ok(content)
}

/// Replaces a small file so that after a crash either the old or the new content is there: writes `<path>.tmp`, syncs
/// it, renames it over `path`, syncs the folder. Durable when it returns.
///
/// # Errors
/// Those of the steps; the old content stays then, or the new one if only the folder could not be synced.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = write_new(disk, temporary, content).and_then(|()| disk.rename(temporary, path));
    if written.is_err() {
        // On a full disk, what it takes up is needed.
        let _removed = disk.remove_file(temporary);
    }
    written?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
}

fn write_new(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(content, 0)?;
    file.sync_data()
}
