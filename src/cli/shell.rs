//! A command that works on a record or a request: a shell in a process group of its own.
//!
//! It is over when the shell ends. What it has left behind in the background may hold the pipes open for as long as it likes: only
//! what is in them by then is the command's. Its output always goes through a pipe, also where it is passed on as it comes, so that
//! nothing that is left behind holds the output of this process. A command that is to end takes its whole group along: SIGTERM first, SIGKILL for what
//! is there after [`GRACE`], and at once if nobody waits for it any more.

use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::spout::{Spout, Written};

/// How long a command that was told to end may take.
pub const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether the rest of a group has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes read at a time.
const BLOCK: usize = 8 * 1024;

/// What a command came to.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output, as far as it was asked for.
    pub stdout: Vec<u8>,
    /// The same of standard error.
    pub stderr: Vec<u8>,
}

/// A pipe that the command writes to: what is kept of it, and how much at most. The rest is read and thrown away, so that the
/// command is not held up.
struct Outlet<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
    most: usize,
}

impl<R: AsyncRead + AsFd + Unpin> Outlet<R> {
    /// Reads once.
    ///
    /// # Errors
    /// Those of the pipe.
    async fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        let mut block = [0; BLOCK];
        let read = pipe.read(&mut block).await?;
        if read == 0 {
            self.pipe = None;
        }
        self.keep(&block[..read]);
        Ok(())
    }

    /// Reads what is in the pipe, though its writers may never close it.
    async fn drain(&mut self) -> io::Result<()> {
        let mut left = match &self.pipe {
            Some(pipe) => rustix::io::ioctl_fionread(pipe)?,
            None => 0,
        };
        while let Some(pipe) = self.pipe.as_mut().filter(|_| left > 0) {
            let mut block = vec![0; BLOCK.min(usize::try_from(left).unwrap_or(BLOCK))];
            let read = pipe.read(&mut block).await?;
            if read == 0 {
                break;
            }
            left -= read as u64;
            self.keep(&block[..read]);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.most.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Where a command's output goes.
pub enum Output<'a> {
    /// It is kept: so many bytes at most.
    Kept(usize),
    /// It is passed on as it comes.
    To(&'a mut Spout),
}

/// A command at work. Dropping it kills its whole group.
pub struct Shell<'a> {
    child: Child,
    group: Option<Pid>,
    stdin: Option<ChildStdin>,
    input: Bytes,
    stdout: Outlet<ChildStdout>,
    stderr: Outlet<ChildStderr>,
    /// Where its output is passed on to.
    spout: Option<&'a mut Spout>,
    /// When it is killed, once it was told to end.
    kill_at: Option<Instant>,
}

impl<'a> Shell<'a> {
    /// Starts a command in a shell, with what it gets as its input. Of its error output at most `stderr` bytes are kept.
    ///
    /// # Errors
    /// The system's.
    pub fn start(
        command: &str,
        prepare: impl FnOnce(&mut Command),
        input: Bytes,
        output: Output<'a>,
        stderr: usize,
    ) -> io::Result<Self> {
        let (most, spout) = match output {
            Output::Kept(most) => (most, None),
            Output::To(spout) => (BLOCK, Some(spout)),
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut shell);
        let mut child = shell.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            stdin: child.stdin.take(),
            input,
            stdout: Outlet { pipe: child.stdout.take(), kept: Vec::new(), most },
            stderr: Outlet { pipe: child.stderr.take(), kept: Vec::new(), most: stderr },
            spout,
            child,
            group,
            kill_at: None,
        })
    }

    /// Waits for its end. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// The system's.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        let status = loop {
            let Self { child, stdin, input, stdout, stderr, spout, kill_at, group } = self;
            let (kill_at, is_held_up) = (*kill_at, spout.as_ref().is_some_and(|spout| spout.is_busy()));
            tokio::select! {
                status = child.wait() => break status?,
                () = feed(stdin, input) => {}
                read = stdout.read(), if !is_held_up => {
                    read?;
                    self.pass_on();
                }
                written = written(spout), if is_held_up => self.passed_on(&written),
                read = stderr.read() => read?,
                () = tokio::time::sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    signal(*group, Signal::KILL);
                    self.kill_at = None;
                }
            }
        };
        self.stderr.drain().await?;
        match self.spout {
            None => self.stdout.drain().await?,
            Some(_) => self.drain_on().await?,
        }
        self.end_rest().await;
        self.group = None;
        let (stdout, stderr) = (std::mem::take(&mut self.stdout.kept), std::mem::take(&mut self.stderr.kept));
        Ok(Ended { status, stdout, stderr })
    }

    /// Begins to pass on what was read, if that is what is to become of it.
    fn pass_on(&mut self) {
        if let Some(spout) = &mut self.spout
            && !self.stdout.kept.is_empty()
        {
            spout.begin(std::mem::take(&mut self.stdout.kept));
        }
    }

    /// What was passed on is out. If it cannot be written, the command hears that as it would from a closed pipe.
    fn passed_on(&mut self, written: &Written) {
        if written.failed.is_some() {
            self.stdout.pipe = None;
        }
    }

    /// Passes on what is left in the pipe.
    async fn drain_on(&mut self) -> io::Result<()> {
        loop {
            if self.spout.as_ref().is_some_and(|spout| spout.is_busy()) {
                let written = written(&mut self.spout).await;
                self.passed_on(&written);
            }
            let left = self.stdout.pipe.as_ref().map_or(Ok(0), rustix::io::ioctl_fionread)?;
            if left == 0 {
                return Ok(());
            }
            self.stdout.read().await?;
            self.pass_on();
        }
    }

    /// Tells it and all that it has started to end; [`Shell::wait`] sees to it that they do.
    pub fn end(&mut self) {
        if self.kill_at.is_none() {
            signal(self.group, Signal::TERM);
            self.kill_at = Some(Instant::now() + GRACE);
        }
    }

    /// The shell has ended because it was told to: nothing that it has started goes on.
    async fn end_rest(&self) {
        let (Some(kill_at), Some(group)) = (self.kill_at, self.group) else { return };
        while test_kill_process_group(group).is_ok() {
            if Instant::now() >= kill_at {
                signal(Some(group), Signal::KILL);
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

async fn written(spout: &mut Option<&mut Spout>) -> Written {
    match spout {
        Some(spout) => spout.written().await,
        None => std::future::pending().await,
    }
}

/// Gives a command its input; waits for ever when there is nothing left.
async fn feed(stdin: &mut Option<ChildStdin>, input: &mut Bytes) {
    let Some(pipe) = stdin else { return std::future::pending().await };
    match pipe.write(input).await {
        Ok(written) if written < input.len() => drop(input.split_to(written)),
        // A command that reads no input closes it early, and may succeed all the same.
        _ => *stdin = None,
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // A group that has ended by itself is what was wanted.
        let _ = kill_process_group(group, signal);
    }
}
