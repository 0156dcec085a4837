//! The commands of README.md, pasted in their order against a fresh server: what a newcomer does first has to work.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a shell writes to a real file, and is waited for")]

mod common;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Server;

/// How long the commands of a block may take together.
const LONGEST: Duration = Duration::from_secs(300);

/// A line of a block of README.md.
struct Line {
    number: usize,
    text: String,
}

/// The blocks: lines that are indented by four, below a line that is empty.
fn blocks() -> Vec<Vec<Line>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut blocks: Vec<Vec<Line>> = Vec::new();
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        match line.strip_prefix("    ") {
            Some(command) if !line.starts_with("     ") => {
                if !inside {
                    blocks.push(Vec::new());
                }
                inside = true;
                blocks.last_mut().unwrap().push(Line { number: at + 1, text: command.to_owned() });
            }
            // An empty line goes on in a block, if more of it follows.
            _ => inside = line.is_empty() && inside,
        }
    }
    blocks
}

/// A server as README starts it, on addresses of its own.
fn serve(data: &Path, flags: &[&str]) -> (Server, String, String) {
    let mut all = vec!["--kafka-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    all.extend(flags);
    let server = Server::start_on(data, &all);
    let (http, kafka) = (server.http_address(), server.said_address("Kafka"));
    (server, http, kafka)
}

#[test]
fn every_command_works_in_the_order_in_which_they_stand_there() {
    let folder = tempfile::tempdir().unwrap();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["examples", "data"] {
        std::os::unix::fs::symlink(checkout.join(name), folder.path().join(name)).unwrap();
    }
    let data = folder.path().join("tidelog-data");
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let (kcat, curl) = (Command::new("kcat").arg("-V").output().is_ok(), has("curl"));
    let binaries = Path::new(env!("CARGO_BIN_EXE_tidelog")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let (mut server, mut count) = (None, 0);
    for block in blocks() {
        let mut script = "set -m\n".to_owned();
        for Line { number, text } in &block {
            let first = text.split_whitespace().next().unwrap();
            if text.starts_with("tidelog serve") {
                drop(server.take());
                let (command, _) = text.split_once('#').unwrap_or((text, ""));
                server = Some(serve(&data, &command.split_whitespace().skip(2).collect::<Vec<_>>()));
                count += 1;
                continue;
            }
            if text.contains("kcat") && !kcat {
                continue;
            }
            match first {
                "tidelog" | "echo" | "sleep" | "printf" => {}
                "curl" if curl => {}
                "kcat" if kcat => {}
                "curl" | "kcat" => continue,
                // What the project itself is built and shown with, and what a server sends.
                "cargo" | "{\"topic\":" => continue,
                _ => panic!("line {number}: nobody knows how to run {text}"),
            }
            count += 1;
            let (_, http, kafka) = server.as_ref().expect("no server is started before it");
            let text = text.replace("127.0.0.1:9092", kafka).replace("localhost:7180", http);
            let is_job = text.split('#').next().unwrap().trim_end().ends_with('&');
            // A stream of events goes on until somebody ends it.
            let is_stream = text.starts_with("curl -N");
            let text = text.replace("curl -N", "curl -N --max-time 2");
            script.push_str(&format!("echo '== line {number}'\n{text}\n"));
            if !is_job && !is_stream {
                script
                    .push_str(&format!("status=$?; [ $status = 0 ] || echo 'FAILED line {number}: status '$status\n"));
            }
        }
        script.push_str("kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; true\n");
        let Some((server, ..)) = &server else { continue };
        let output = folder.path().join("output");
        let file = File::create(&output).unwrap();
        let mut run = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("TIDELOG_SERVER", server.address())
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .spawn()
            .unwrap();
        let until = Instant::now() + LONGEST;
        let ended = loop {
            if run.try_wait().unwrap().is_some() {
                break true;
            }
            if Instant::now() > until {
                run.kill().unwrap();
                break false;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = String::from_utf8_lossy(&std::fs::read(&output).unwrap()).into_owned();
        println!("{said}");
        assert!(ended, "a block has not ended within {LONGEST:?}");
        assert!(!said.contains("FAILED line"), "a command failed");
        for problem in ["application/problem+json", "\"status\":4", "\"status\":5", "command not found"] {
            assert!(!said.contains(problem), "{problem} in what is printed above");
        }
    }
    assert!(count > 40, "{count} commands");
}
