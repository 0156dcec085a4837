//! The real disk: the one place that uses `std::fs`.
#![allow(clippy::disallowed_methods, reason = "this is the file system's home")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::base::TimestampMs;

use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode};

/// Modes of what is made: records and URLs are for the server's own user.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The operating system's files.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).mode(FILE_MODE);
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => {}
            OpenMode::Create => _ = options.create(true),
            OpenMode::CreateNew => _ = options.create_new(true),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // Known from the listing itself on the usual file systems; a length would cost a call for each entry.
            let is_dir = entry.file_type()?.is_dir();
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(DirEntry { name, is_dir });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // For people only: the lock is the kernel's, and goes with the process.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Box::new(RealLock(file)))
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        Ok(Some(fs::metadata(path)?.mode() & 0o7777))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, pos) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn read_at_once(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        read_at_once(&self.0, buf, pos)
    }

    fn write_at(&self, data: &[u8], pos: u64) -> io::Result<()> {
        self.0.write_all_at(data, pos)
    }

    fn write_vectored_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()> {
        /// Parts handed to the kernel at a time; every system takes 1024 (IOV_MAX).
        const PARTS: usize = 1024;
        let mut pos = pos;
        for group in parts.chunks(PARTS) {
            let slices: Vec<io::IoSlice<'_>> = group.iter().map(|part| io::IoSlice::new(part)).collect();
            let total: usize = group.iter().map(|part| part.len()).sum();
            let mut written = match rustix::io::pwritev(&self.0, &slices, pos) {
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
            // The kernel may take less than all; the rest goes part by part.
            let mut before = 0;
            for part in group {
                if written < before + part.len() && written < total {
                    let from = written - before;
                    self.0.write_all_at(&part[from..], pos + written as u64)?;
                    written = before + part.len();
                }
                before += part.len();
            }
            pos += total as u64;
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        allocate(&self.0, len)
    }

    fn occupy(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        if reserve_blocks(&self.0, len)? {
            return Ok(());
        }
        // Bytes that no file system makes smaller, where blocks cannot be reserved.
        let (mut random, mut noise, mut at) = (fastrand::Rng::with_seed(len), vec![0; 256 * 1024], 0);
        while at < len {
            let part = usize::try_from(len - at).unwrap_or(usize::MAX).min(noise.len());
            random.fill(&mut noise[..part]);
            self.0.write_all_at(&noise[..part], at)?;
            at += part as u64;
        }
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn written_ms(&self) -> io::Result<Option<TimestampMs>> {
        let since = self.0.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH);
        Ok(since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A read that comes from the page cache or not at all (`RWF_NOWAIT`, Linux 4.14).
#[cfg(target_os = "linux")]
fn read_at_once(file: &File, buf: &mut [u8], pos: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let want = buf.len();
    match preadv2(file, &mut [io::IoSliceMut::new(buf)], pos, ReadWriteFlags::NOWAIT) {
        Ok(read) if read == want => Ok(read),
        // Short: either the end of the file, or the rest is not in memory. Who can wait finds out.
        Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn read_at_once(_file: &File, _buf: &mut [u8], _pos: u64) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

fn allocate(file: &File, len: u64) -> io::Result<()> {
    reserve_blocks(file, len).map(drop)
}

/// Reserves blocks; `false` where the file system cannot.
#[cfg(target_os = "linux")]
fn reserve_blocks(file: &File, len: u64) -> io::Result<bool> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve_blocks(_file: &File, _len: u64) -> io::Result<bool> {
    Ok(false)
}

struct RealLock(#[expect(dead_code, reason = "held for its lock")] File);

impl DirLock for RealLock {}
