//! Standard output for who has to know what is out: written by a thread of its own, so that a reader who stands still holds up
//! nothing but the output.

use std::io;

use rustix::io::Errno;
use tokio::sync::mpsc;

/// How far a write has come.
#[derive(Debug)]
pub struct Written {
    /// Bytes that are out.
    pub bytes: usize,
    /// Why the rest is not.
    pub failed: Option<io::Error>,
}

/// Standard output, with one write at a time.
#[derive(Debug)]
pub struct Spout {
    to: std::sync::mpsc::Sender<Vec<u8>>,
    done: mpsc::UnboundedReceiver<Written>,
    under_way: bool,
}

impl Spout {
    /// Starts the thread. It ends with this; one that is held up ends with the process.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> io::Result<Self> {
        let (to, blocks) = std::sync::mpsc::channel::<Vec<u8>>();
        let (sender, done) = mpsc::unbounded_channel();
        let write = move || {
            for block in blocks {
                if sender.send(write_all(&block)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("tidelog-output".to_owned()).spawn(write)?;
        Ok(Self { to, done, under_way: false })
    }

    /// Begins to write. Nothing may be under way.
    pub fn begin(&mut self, block: Vec<u8>) {
        self.under_way = self.to.send(block).is_ok();
    }

    /// Waits for what was begun. May be dropped while it waits, and called again.
    pub async fn written(&mut self) -> Written {
        let written = match self.under_way {
            true => self.done.recv().await,
            false => None,
        };
        self.under_way = false;
        let gone = || Written { bytes: 0, failed: Some(io::Error::other("the thread that writes the output is gone")) };
        written.unwrap_or_else(gone)
    }

    /// Whether a write is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way
    }
}

fn write_all(block: &[u8]) -> Written {
    let stdout = io::stdout();
    let mut bytes = 0;
    while bytes < block.len() {
        match rustix::io::write(&stdout, &block[bytes..]) {
            Ok(0) => return Written { bytes, failed: Some(io::ErrorKind::WriteZero.into()) },
            Ok(written) => bytes += written,
            Err(Errno::INTR) => {}
            Err(error) => return Written { bytes, failed: Some(error.into()) },
        }
    }
    Written { bytes, failed: None }
}
