//! Loopback TCP: copies and round trips between two threads with a socket between them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidelog::disk::{Disk, DiskFile, OpenMode, RealDisk};

use super::{BLOCK, LEAST, MEASURE, Volume};
use crate::cli::bench::latencies::Latencies;
use crate::cli::failure::Failure;

/// Where the sender has its bytes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Its own memory.
    Memory,
    /// A file in the page cache, read and written.
    File,
    /// The same file, by sendfile: the bytes do not pass through the sender. On Linux; as [`Source::File`] elsewhere.
    SendFile,
}

/// A file that all senders read, over and over.
struct Content {
    file: Arc<dyn DiskFile>,
    bytes: u64,
    #[cfg(target_os = "linux")]
    descriptor: rustix::fd::OwnedFd,
}

fn failed(error: io::Error) -> Failure {
    Failure::Failed(format!("cannot measure loopback: {error}"))
}

/// Bytes a second over so many streams; the receivers read and throw away.
///
/// # Errors
/// Those of the sockets and of the file.
pub fn loopback(folder: &Path, streams: u32, source: Source, volume: Volume) -> Result<f64, Failure> {
    let content = match source {
        Source::Memory => None,
        _ => Some(Content::new(folder, volume.file()).map_err(failed)?),
    };
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let each = (volume.bytes / u64::from(streams)).max(BLOCK as u64);
    let started = Instant::now();
    let received: Vec<io::Result<u64>> = std::thread::scope(|scope| {
        let pairs: Vec<_> = (0..streams)
            .map(|_| {
                let content = content.as_ref();
                let sender = scope.spawn(move || send(address, content, source, each, started).map(|()| 0));
                let accepted = listener.accept();
                let receiver = scope.spawn(move || drain(accepted?.0));
                [sender, receiver]
            })
            .collect();
        let threads = pairs.into_iter().flatten();
        threads.map(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let mut total = 0;
    for bytes in received {
        total += bytes.map_err(failed)?;
    }
    Ok(total as f64 / elapsed)
}

impl Content {
    fn new(folder: &Path, bytes: u64) -> io::Result<Self> {
        let path = folder.join("limit-content");
        let file = RealDisk.open(&path, OpenMode::CreateNew)?;
        let block = vec![7; BLOCK];
        let blocks = bytes.div_ceil(BLOCK as u64);
        for at in 0..blocks {
            file.write_at(&block, at * BLOCK as u64)?;
        }
        // Beneath the disk seam on purpose: this is the limit, and sendfile wants the descriptor itself.
        #[cfg(target_os = "linux")]
        let descriptor = rustix::fs::open(&path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
        RealDisk.remove_file(&path)?;
        Ok(Self {
            file,
            bytes: blocks * BLOCK as u64,
            #[cfg(target_os = "linux")]
            descriptor,
        })
    }

    /// Sends up to a block from `position`; how much it was.
    fn send(&self, socket: &mut TcpStream, position: u64, buffer: &mut [u8], by_sendfile: bool) -> io::Result<u64> {
        #[cfg(target_os = "linux")]
        if by_sendfile {
            let mut at = position;
            return Ok(rustix::fs::sendfile(&*socket, &self.descriptor, Some(&mut at), BLOCK)? as u64);
        }
        let _ = by_sendfile;
        let read = self.file.read_at(buffer, position)?;
        socket.write_all(&buffer[..read])?;
        Ok(read as u64)
    }
}

fn send(
    address: SocketAddr,
    content: Option<&Content>,
    source: Source,
    bytes: u64,
    started: Instant,
) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    let mut block = vec![7; BLOCK];
    let mut done = 0;
    while done < bytes && started.elapsed() < MEASURE {
        done += match content {
            None => socket.write_all(&block).map(|()| BLOCK as u64)?,
            Some(content) => content.send(&mut socket, done % content.bytes, &mut block, source == Source::SendFile)?,
        };
    }
    Ok(())
}

fn drain(mut socket: TcpStream) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut done = 0;
    loop {
        match socket.read(&mut block)? {
            0 => return Ok(done),
            read => done += read as u64,
        }
    }
}

/// Round trips of one message of `size` bytes, one at a time, for 1.5 seconds or `most` of them.
///
/// # Errors
/// Those of the sockets.
pub fn ping_pong(size: usize, most: u64) -> Result<Latencies, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
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
    let mut trips = Latencies::default();
    let started = Instant::now();
    while trips.count() < most.max(LEAST) && started.elapsed() < MEASURE {
        let began = Instant::now();
        socket.write_all(&message).and_then(|()| socket.read_exact(&mut message)).map_err(failed)?;
        trips.since(began);
    }
    drop(socket);
    // It ends with the connection; what it met then says nothing.
    let _ = echo.join();
    Ok(trips)
}

/// So many of these beside each other.
///
/// # Errors
/// Those of the sockets.
pub fn ping_pongs(size: usize, most: u64, count: u32) -> Result<Latencies, Failure> {
    let each = most / u64::from(count.max(1));
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(move || ping_pong(size, each))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut trips = Latencies::default();
    for one in all {
        trips.add(&one.map_err(|_| Failure::Failed("a ping-pong did not end".to_owned()))??);
    }
    Ok(trips)
}
