//! Runs the real program, and a real server as a child that never outlives its test.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and looks at files from outside"
)]
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod endpoint;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Outcome {
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The last line on stderr.
    pub fn reason(&self) -> String {
        self.stderr().lines().last().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "{}", self.stderr());
        self
    }

    #[track_caller]
    pub fn fails(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}{}", String::from_utf8_lossy(&self.stdout), self.stderr());
        assert!(!self.stderr.is_empty(), "a failure without a reason");
        self
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    command.args(args).env_remove("TIDELOG_SERVER").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub fn tidelog(args: &[&str]) -> Outcome {
    tidelog_with(args, &[])
}

/// Runs the program to its end, with these variables in its environment.
pub fn tidelog_with(args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let output = command(args).envs(variables.iter().copied()).output().unwrap();
    Outcome { status: output.status.code(), stdout: output.stdout, stderr: output.stderr }
}

/// The same, with something on stdin.
pub fn tidelog_with_input(args: &[&str], input: &[u8]) -> Outcome {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that stops early closes its stdin.
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        Outcome { status: output.status.code(), stdout: output.stdout, stderr: output.stderr }
    })
}

/// Reads one line of the program's output, then closes the pipe.
pub fn close_stdout_early(args: &[&str]) -> Outcome {
    let mut child = command(args).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome { status: output.status.code(), stdout: line.into_bytes(), stderr: output.stderr }
}

/// A program at work; killed when dropped.
pub struct Running(Option<Child>);

pub fn spawn(args: &[&str]) -> Running {
    Running(Some(command(args).spawn().unwrap()))
}

impl Running {
    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap().success());
    }

    /// Waits for its end, which must come in time.
    pub fn finish(mut self, within: Duration) -> Outcome {
        let child = self.0.take().unwrap();
        let id = child.id();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = receiver.recv_timeout(within).unwrap_or_else(|_| {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("not done within {within:?}")
        });
        let output = output.unwrap();
        Outcome { status: output.status.code(), stdout: output.stdout, stderr: output.stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A server on a free port; killed when dropped.
pub struct Server {
    child: Child,
    address: String,
    data: PathBuf,
    folder: Option<tempfile::TempDir>,
    log: Arc<Mutex<String>>,
    said: Arc<Mutex<String>>,
}

impl Server {
    /// A server with its data in a temporary folder of its own.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_on(&folder.path().join("data"), &[]);
        server.folder = Some(folder);
        server
    }

    /// A server on this data directory; `flags` may name another address to listen on.
    pub fn start_on(data: &Path, flags: &[&str]) -> Self {
        Self::run(command(&["serve", "--data-dir", data.to_str().unwrap()]), data, flags)
    }

    /// A server on a file system of `mib` MiB that exists for this process alone; `None` where the system does not let an
    /// ordinary user mount one.
    pub fn start_on_small_disk(data: &Path, mib: u32) -> Option<Self> {
        let probe = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            return None;
        }
        std::fs::create_dir_all(data).unwrap();
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs \"$1\" && shift && exec \"$@\"");
        let data_dir = data.to_str().unwrap();
        command.args(["-rm", "sh", "-c", &script, "sh", data_dir, env!("CARGO_BIN_EXE_tidelog")]);
        command.args(["serve", "--data-dir", data_dir]).stdin(Stdio::null()).stdout(Stdio::piped());
        Some(Self::run(command, data, &[]))
    }

    fn run(mut command: Command, data: &Path, flags: &[&str]) -> Self {
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--kafka-listen") {
            command.args(["--kafka-listen", "off"]);
        }
        if !flags.contains(&"--http-listen") {
            command.args(["--http-listen", "off"]);
        }
        let mut child = command.args(flags).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|read| read > 0) {
                kept.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let more = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                more.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let address = line.split_whitespace().find(|word| word.parse::<std::net::SocketAddr>().is_ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}: {}", log.lock().unwrap())).to_owned();
        Self { child, address, data: data.to_owned(), folder: None, log, said }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens for HTTP, which it says a moment later.
    pub fn http_address(&self) -> String {
        self.said_address("HTTP")
    }

    /// Where a listener is, by a word of the line that says that it is ready.
    pub fn said_address(&self, word: &str) -> String {
        for _ in 0..12_000 {
            let said = self.said.lock().unwrap().clone();
            let line = said.lines().find(|line| line.contains(word) && line.contains("ready on "));
            if let Some((_, address)) = line.and_then(|line| line.split_once("ready on ")) {
                return address.trim().to_owned();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no {word} listener: {}", self.log());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its temporary folder.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data.clone()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its resident memory in KiB, where the system tells, without the program itself: a debug build is a large file.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.split_whitespace().next()?.parse().ok()
    }

    /// The first segment of a topic's first partition.
    pub fn segment_of(&self, topic: &str) -> PathBuf {
        let topics = std::fs::read_dir(self.data.join("topics")).unwrap();
        let prefix = format!("{topic}~");
        let folder = topics.flatten().find(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix));
        folder.unwrap().path().join("0").join("00000000000000000000.log")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
