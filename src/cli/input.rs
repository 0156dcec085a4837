//! Records from a file or stdin, one a line, in constant memory: a line over the limit is counted, not held.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidelog::disk::{Disk, DiskFile, OpenMode, RealDisk};
use tokio::sync::mpsc;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Blocks of lines read ahead.
const BLOCKS_AHEAD: usize = 4;

/// One line of input, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Its bytes.
    Whole(Bytes),
    /// It has this many bytes, more than the limit; they were read and dropped.
    TooLong(u64),
}

/// What the reading thread hands over.
pub type Block = io::Result<Vec<Line>>;

/// Cuts a stream into lines. A last line without a line end counts; a carriage return is part of the line.
pub struct LineReader<R> {
    source: R,
    limit: usize,
    buffer: BytesMut,
    /// How far the buffer is known to hold no line end.
    searched: usize,
    /// Bytes dropped of a line over the limit.
    dropped: Option<u64>,
    ended: bool,
}

impl<R: Read> LineReader<R> {
    /// Lines of at most `limit` bytes.
    pub fn new(source: R, limit: usize) -> Self {
        Self { source, limit, buffer: BytesMut::new(), searched: 0, dropped: None, ended: false }
    }

    /// The lines completed by the next read; `None` at the end.
    ///
    /// # Errors
    /// Those of the source.
    pub fn next_block(&mut self) -> io::Result<Option<Vec<Line>>> {
        if self.ended {
            return Ok(None);
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let read = loop {
            match self.source.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        let mut lines = Vec::new();
        while let Some(at) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(self.searched + at + 1);
            lines.push(self.finish(line.freeze().slice(..self.searched + at)));
            self.searched = 0;
        }
        if self.ended {
            let rest = self.buffer.split().freeze();
            if !rest.is_empty() || self.dropped.is_some() {
                lines.push(self.finish(rest));
            }
        } else if self.dropped.is_some() || self.buffer.len() > self.limit {
            self.dropped = Some(self.dropped.unwrap_or(0) + self.buffer.len() as u64);
            self.buffer.clear();
        }
        self.searched = self.buffer.len();
        Ok(Some(lines))
    }

    fn finish(&mut self, rest: Bytes) -> Line {
        match self.dropped.take() {
            Some(dropped) => Line::TooLong(dropped + rest.len() as u64),
            None if rest.len() > self.limit => Line::TooLong(rest.len() as u64),
            None => Line::Whole(rest),
        }
    }
}

/// Reads on a thread of its own, since reading may block for ever; at most a few blocks ahead.
pub fn read_lines(source: impl Read + Send + 'static, limit: usize) -> mpsc::Receiver<Block> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    std::thread::spawn(move || {
        let mut reader = LineReader::new(source, limit);
        while let Some(block) = reader.next_block().transpose() {
            let failed = block.is_err();
            // The receiver is gone when the command has stopped.
            if sender.blocking_send(block).is_err() || failed {
                break;
            }
        }
    });
    receiver
}

/// A file read from front to back.
pub struct FileReader {
    file: Arc<dyn DiskFile>,
    position: u64,
}

impl FileReader {
    /// Opens it; also its length.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn open(path: &Path) -> Result<(Self, u64), String> {
        let opened = RealDisk.open(path, OpenMode::Read).and_then(|file| file.len().map(|length| (file, length)));
        match opened {
            Ok((file, length)) => Ok((Self { file, position: 0 }, length)),
            Err(error) => Err(format!("cannot read '{}': {error}", path.display())),
        }
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position).map_err(|error| match error.kind() {
            io::ErrorKind::NotSeekable => io::Error::other("it is a pipe; redirect it to standard input instead"),
            _ => error,
        })?;
        self.position += read as u64;
        Ok(read)
    }
}
