//! Files: write and fdatasync in a loop, and plain buffered writes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidelog::disk::{Disk, DiskFile, OpenMode, RealDisk};

use super::{BLOCK, LEAST, MEASURE, Volume};
use crate::cli::bench::latencies::Latencies;
use crate::cli::failure::Failure;

/// How the file of a sync loop was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Empty: every sync also commits the new length.
    Growing,
    /// Its blocks had been written before.
    Prepared,
}

/// What syncing came to.
pub struct SyncLimit {
    /// Bytes a second, over all files.
    pub bytes_per_second: f64,
    /// What one fdatasync took, the write before it not counted.
    pub sync: Latencies,
}

fn failed(error: io::Error) -> Failure {
    Failure::Failed(format!("cannot measure the disk: {error}"))
}

/// A loop of one write of `bytes` and one fdatasync, in `files` files at once.
///
/// # Errors
/// Those of the disk.
pub fn sync_loop(
    folder: &Path,
    bytes: usize,
    files: u32,
    layout: Layout,
    volume: Volume,
) -> Result<SyncLimit, Failure> {
    let each = (volume.file() / u64::from(files)).max(bytes as u64 * 4) / bytes as u64 * bytes as u64;
    let mut open: Vec<Arc<dyn DiskFile>> = Vec::new();
    for at in 0..files {
        open.push(prepare(folder, at, each, layout).map_err(failed)?);
    }
    let least = (volume.bytes / u64::from(files) / bytes as u64).clamp(LEAST, 1 << 20);
    let started = Instant::now();
    let loops: Vec<io::Result<(u64, Latencies)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = open
            .iter()
            .map(|file| {
                scope.spawn(move || {
                    let block: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect();
                    let (mut done, mut sync) = (0u64, Latencies::default());
                    while sync.count() < least && started.elapsed() < MEASURE {
                        let position = if layout == Layout::Prepared { done % each } else { done };
                        file.write_at(&block, position)?;
                        let began = Instant::now();
                        file.sync_data()?;
                        sync.since(began);
                        done += bytes as u64;
                    }
                    Ok((done, sync))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let (mut all, mut done) = (Latencies::default(), 0);
    for one in loops {
        let (bytes, sync) = one.map_err(failed)?;
        done += bytes;
        all.add(&sync);
    }
    Ok(SyncLimit { bytes_per_second: done as f64 / elapsed, sync: all })
}

/// A file without a name, empty or with `bytes` bytes that are on disk.
fn prepare(folder: &Path, number: u32, bytes: u64, layout: Layout) -> io::Result<Arc<dyn DiskFile>> {
    let path = folder.join(format!("limit-{number}"));
    let file = RealDisk.open(&path, OpenMode::CreateNew)?;
    // The name is not needed any more; the room is free once the file is closed, however this ends.
    RealDisk.remove_file(&path)?;
    if layout == Layout::Prepared {
        let zeros = vec![0; 1 << 20];
        for at in 0..bytes.div_ceil(zeros.len() as u64) {
            file.write_at(&zeros, at * zeros.len() as u64)?;
        }
        file.sync_data()?;
    }
    Ok(file)
}

/// Buffered writes to a new file, bytes a second; no sync.
///
/// # Errors
/// Those of the disk.
pub fn write_loop(folder: &Path, volume: Volume) -> Result<f64, Failure> {
    let file = prepare(folder, 0, 0, Layout::Growing).map_err(failed)?;
    let block = vec![7; BLOCK];
    let (started, mut done) = (Instant::now(), 0u64);
    while started.elapsed() < MEASURE && done < volume.bytes {
        file.write_at(&block, done).map_err(failed)?;
        done += BLOCK as u64;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}
