//! Runs the real program, and a real server as a child that never outlives its test.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
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
    let output = command(args).output().unwrap();
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

/// A server on a free port, with its data in a temporary folder.
pub struct Server {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut child = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        let address = line.split_whitespace().find(|word| word.parse::<std::net::SocketAddr>().is_ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Self { child, address, folder }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The first segment of a topic's first partition.
    pub fn segment_of(&self, topic: &str) -> PathBuf {
        let topics = std::fs::read_dir(self.data_dir().join("topics")).unwrap();
        let prefix = format!("{topic}~");
        let folder = topics.flatten().find(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix));
        folder.unwrap().path().join("0").join("00000000000000000000.log")
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
