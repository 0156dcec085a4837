//! The bare machine: what a loop without any message queue around it reaches, on the same disk and the same loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidelog::disk::{Disk, DiskFile, OpenMode, RealDisk};

use crate::cli::failure::Failure;

/// How long each limit is measured.
const MEASURE: Duration = Duration::from_millis(1_500);
/// Bytes copied at a time on loopback.
const BLOCK: usize = 256 * 1024;

/// How the file of a sync loop was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Empty: every sync also commits the new length.
    Growing,
    /// Its blocks had been written before.
    Prepared,
}

/// Bytes a second, and what one sync took.
pub struct SyncLimit {
    pub bytes_per_second: f64,
    /// Microseconds.
    pub sync: Histogram<u64>,
}

fn histogram() -> Histogram<u64> {
    // Three digits, growing as it needs: the bounds are constants, so this cannot fail.
    Histogram::new(3).unwrap_or_else(|_| Histogram::new(1).unwrap_or_else(|_| unreachable!()))
}

/// Microseconds since then.
pub fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A loop of one write and one fdatasync, in as many files at once as are given.
pub fn sync_loop(folder: &Path, bytes: usize, files: u32, layout: Layout) -> Result<SyncLimit, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot measure the disk: {error}"));
    // As much as is written in the time on a fast disk, so that the prepared file does not have to begin again.
    let total = (256usize << 20).max(bytes * 4) / files as usize;
    let total = total.max(bytes * 4) / bytes * bytes;
    let mut open: Vec<Arc<dyn DiskFile>> = Vec::new();
    for at in 0..files {
        let path = folder.join(format!("limit-{at}"));
        let file = RealDisk.open(&path, OpenMode::Create).map_err(failed)?;
        if layout == Layout::Prepared {
            let zeros = vec![0; 4 << 20];
            for at in 0..total.div_ceil(zeros.len()) {
                file.write_at(&zeros, (at * zeros.len()) as u64).map_err(failed)?;
            }
            file.sync_data().map_err(failed)?;
        }
        // The name is not needed any more; the room is free once the file is closed.
        RealDisk.remove_file(&path).map_err(failed)?;
        open.push(file);
    }
    let started = Instant::now();
    let loops: Vec<std::io::Result<(u64, Histogram<u64>)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = open
            .iter()
            .map(|file| {
                scope.spawn(move || {
                    let block: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect();
                    let (mut done, mut sync) = (0u64, histogram());
                    while started.elapsed() < MEASURE && (layout == Layout::Prepared || done < 4 << 30) {
                        let position = match layout {
                            Layout::Growing => done,
                            Layout::Prepared => done % total as u64,
                        };
                        file.write_at(&block, position)?;
                        let began = Instant::now();
                        file.sync_data()?;
                        let _ = sync.record(micros(began));
                        done += bytes as u64;
                    }
                    Ok((done, sync))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok((0, histogram())))).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let (mut all, mut done) = (histogram(), 0);
    for one in loops {
        let (bytes, sync) = one.map_err(failed)?;
        done += bytes;
        let _ = all.add(sync);
    }
    Ok(SyncLimit { bytes_per_second: done as f64 / elapsed, sync: all })
}

/// Plain buffered writes to a new file, bytes a second; no sync.
pub fn write_loop(folder: &Path) -> Result<f64, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot measure the disk: {error}"));
    let path = folder.join("limit-write");
    let file = RealDisk.open(&path, OpenMode::Create).map_err(failed)?;
    RealDisk.remove_file(&path).map_err(failed)?;
    let block = vec![7; BLOCK];
    let (started, mut done) = (Instant::now(), 0u64);
    while started.elapsed() < MEASURE && done < 2 << 30 {
        file.write_at(&block, done).map_err(failed)?;
        done += BLOCK as u64;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Loopback TCP, one side writing, the other reading and throwing away; bytes a second over all streams.
pub fn loopback(streams: u32) -> Result<f64, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot measure loopback: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let started = Instant::now();
    let received: Vec<std::io::Result<u64>> = std::thread::scope(|scope| {
        let pairs: Vec<_> = (0..streams)
            .map(|_| {
                let sender = scope.spawn(move || {
                    let mut socket = TcpStream::connect(address)?;
                    let block = vec![7; BLOCK];
                    while started.elapsed() < MEASURE {
                        socket.write_all(&block)?;
                    }
                    Ok(0)
                });
                let accepted = listener.accept();
                let receiver = scope.spawn(move || {
                    let (mut socket, _) = accepted?;
                    let mut block = vec![0; BLOCK];
                    let mut done = 0;
                    loop {
                        match socket.read(&mut block)? {
                            0 => return Ok(done),
                            read => done += read as u64,
                        }
                    }
                });
                [sender, receiver]
            })
            .collect();
        pairs.into_iter().flatten().map(|thread| thread.join().unwrap_or(Ok(0))).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let mut total = 0;
    for bytes in received {
        total += bytes.map_err(failed)?;
    }
    Ok(total as f64 / elapsed)
}

/// Round trips of one message over loopback between two threads, in microseconds.
pub fn ping_pong(size: usize) -> Result<Histogram<u64>, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot measure loopback: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut message = vec![0; size];
        while socket.read_exact(&mut message).is_ok() {
            socket.write_all(&message)?;
        }
        Ok(())
    });
    let mut socket = TcpStream::connect(address).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let mut message = vec![1; size];
    let mut trips = histogram();
    let started = Instant::now();
    while started.elapsed() < MEASURE {
        let began = Instant::now();
        socket.write_all(&message).and_then(|()| socket.read_exact(&mut message)).map_err(failed)?;
        let _ = trips.record(micros(began));
    }
    drop(socket);
    let _ = echo.join();
    Ok(trips)
}
