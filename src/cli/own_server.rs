//! A server of a command's own, as a child process, and the folder that it works in. Both are gone when they are dropped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidelog::disk::{Disk, RealDisk};
use tokio::sync::oneshot;

use crate::cli::failure::Failure;

/// How long a server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Lines of the server's log that are remembered, for the case that it does not start.
const LOG_LINES: usize = 5;

/// A temporary folder.
pub struct Workspace {
    path: PathBuf,
    keep: bool,
}

impl Workspace {
    /// Makes one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(purpose: &str, keep: bool) -> Result<Self, Failure> {
        let name = format!("tidelog-{purpose}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        RealDisk
            .create_dir_all(&path)
            .map_err(|error| Failure::Failed(format!("cannot make the folder '{}': {error}", path.display())))?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data directory in it.
    pub fn data_dir(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = RealDisk.remove_dir_all(&self.path)
        {
            crate::cli::output::complain(&format!("cannot remove '{}': {error}", self.path.display()));
        }
    }
}

/// A running `tidelog serve`. Dropping it kills it and waits until it is gone.
pub struct ServerProcess {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From the start of the process until it said that it was ready.
    pub ready_after: Duration,
}

/// Kills the process unless it is disarmed, so that a start that fails half way leaves nothing behind.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

impl ServerProcess {
    /// Starts this program as a server and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready in time; with the last lines of its log.
    pub async fn start(data_dir: &Path, listen: &str) -> Result<Self, Failure> {
        Self::start_with(data_dir, listen, &[]).await
    }

    /// The same with further flags of `serve`.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub async fn start_with(data_dir: &Path, listen: &str, flags: &[String]) -> Result<Self, Failure> {
        Ok(Self::start_doors(data_dir, listen, "off", flags).await?.0)
    }

    /// The same with a Kafka listener, unless that is `off`; and where it is.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub async fn start_doors(
        data_dir: &Path,
        listen: &str,
        kafka_listen: &str,
        flags: &[String],
    ) -> Result<(Self, Option<SocketAddr>), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("cannot find this program's own file: {error}")))?;
        let started = Instant::now();
        let child = Command::new(program)
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen", listen, "--kafka-listen", kafka_listen, "--http-listen", "off"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Failed(format!("cannot start the server: {error}")))?;
        let mut guard = Guard(Some(child));
        let Some(child) = &mut guard.0 else { return Err(Failure::Failed("the server is gone".to_owned())) };
        let log = child.stderr.take().map(remember_lines).unwrap_or_default();
        let doors = if kafka_listen == "off" { 1 } else { 2 };
        let ready = child.stdout.take().map(|output| find_addresses(output, doors));
        let Some(ready) = ready else { return Err(Failure::Failed("the server has no standard output".to_owned())) };
        let addresses = match tokio::time::timeout(READY_WITHIN, ready).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(_)) => return Err(not_started("ended before it was ready", &log)),
            Err(_) => return Err(not_started(&format!("was not ready within {READY_WITHIN:?}"), &log)),
        };
        let child = guard.0.take().ok_or_else(|| Failure::Failed("the server is gone".to_owned()))?;
        // The native listener says where it is before the Kafka listener does.
        let address = addresses.first().copied();
        let address = address.ok_or_else(|| Failure::Failed("the server has no address".to_owned()))?;
        Ok((Self { child, address, ready_after: started.elapsed() }, addresses.get(1).copied()))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, now; returns when the process is gone.
    pub fn kill(mut self) {
        end(&mut self.child);
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Both fail only if the process is gone already.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn not_started(what: &str, log: &Mutex<VecDeque<String>>) -> Failure {
    let lines = log.lock().unwrap_or_else(PoisonError::into_inner);
    let last = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; ");
    Failure::Failed(if last.is_empty() { format!("the server {what}") } else { format!("the server {what}: {last}") })
}

/// Keeps the last lines of what is read. The thread ends with the process.
fn remember_lines(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<VecDeque<String>>> {
    let lines = Arc::new(Mutex::new(VecDeque::new()));
    let kept = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LOG_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    });
    lines
}

/// The first so many addresses in the lines read. The rest is read and dropped, so that the server never meets a closed pipe.
fn find_addresses(from: impl std::io::Read + Send + 'static, count: usize) -> oneshot::Receiver<Vec<SocketAddr>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let (mut sender, mut found) = (Some(sender), Vec::new());
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let address = line.split_whitespace().find_map(|word| word.parse().ok());
            if let Some(address) = address
                && found.len() < count
            {
                found.push(address);
            }
            if found.len() == count
                && let Some(sender) = sender.take()
            {
                // Nobody waits any more when the start has timed out.
                let _ = sender.send(found.clone());
            }
        }
    });
    receiver
}
