//! Other people's clients against the real program. They run where `TIDELOG_FOREIGN` is set, after `tests/kafka/install.sh`;
//! elsewhere a line says that they did not.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidelog::client::Client;
use tidelog::record::Batches;
use tokio::task::block_in_place;

use super::client::Running;

mod apache;
mod crossing;
mod kcat;

fn wanted(what: &str) -> bool {
    let wanted = std::env::var_os("TIDELOG_FOREIGN").is_some();
    if !wanted {
        println!("skipped: {what} (install with tests/kafka/install.sh and set TIDELOG_FOREIGN=1)");
    }
    wanted
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn python(script: &str) -> Command {
    let mut command = Command::new(root().join("target/foreign/py/bin/python"));
    command.arg(root().join("tests/kafka/foreign").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", root().join("target/foreign/js/node_modules"));
    command.arg(root().join("tests/kafka/foreign").join(script));
    command
}

/// Runs a client to its end, which must come in time.
#[track_caller]
fn run(command: Command) -> String {
    String::from_utf8(run_with(command, Vec::new())).unwrap()
}

/// The same, with something on stdin, and bytes as they come.
#[track_caller]
fn run_with(mut command: Command, input: Vec<u8>) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let mut stdin = child.stdin.take().unwrap();
    // A client that fails does not read all of it.
    std::thread::spawn(move || stdin.write_all(&input));
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(Duration::from_secs(240)).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("{command:?} does not end")
    });
    let output = output.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

async fn against(what: &str, mut command: Command) {
    if !wanted(what) {
        return;
    }
    let running = Running::start().await;
    command.arg(running.server.kafka_addresses()[0].to_string());
    assert_eq!(block_in_place(|| run(command)).trim(), "ok");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confluent_kafka() {
    against("confluent-kafka", python("confluent.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confluent_kafka_in_transactions() {
    against("transactions of confluent-kafka", python("transactions.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_python() {
    against("kafka-python", python("kafka_python.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiokafka() {
    against("aiokafka", python("aio.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafkajs() {
    against("kafkajs", node("kafkajs.js")).await;
}

const ROUTE: &str = r#"
[[route]]
name = "invoices"
from = "billing.invoices"
otherwise = "billing.unrouted"

[[route.to]]
when = 'value.region == "emea"'
topic = "crm.emea"
headers = { by = '"the route"' }

[[route.to]]
when = 'value.region == "apac"'
topic = "crm.apac"
"#;

/// Kafka clients answer requests of the native door, feed a route, and see what it makes.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_and_routes_are_fed_and_seen_by_kafka_clients() {
    if !wanted("confluent-kafka beside the native door") {
        return;
    }
    let running = Running::start().await;
    let native = running.server.addresses()[0].to_string();
    let admin = Client::connect(native.as_str()).await.unwrap().admin();
    admin.apply_routes(ROUTE.to_owned(), false, false).await.unwrap();
    let mut command = python("patterns.py");
    command.arg(running.server.kafka_addresses()[0].to_string());
    command.arg(native).arg(env!("CARGO_BIN_EXE_tidelog"));
    assert_eq!(block_in_place(|| run(command)).trim(), "ok");
    running.stop().await;
}

/// The codecs of a topic's batches, from the log itself.
pub fn codecs_in(dir: &Path, topic: &str) -> BTreeSet<&'static str> {
    let topics = std::fs::read_dir(dir.join("data/topics")).unwrap().flatten();
    let prefix = format!("{topic}~");
    let folder =
        topics.map(|entry| entry.path()).find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
    let log = std::fs::read(folder.unwrap().join("0/00000000000000000000.log")).unwrap();
    let batches = Batches::new(log.into()).map_while(Result::ok);
    batches.map(|(header, _)| header.compression().unwrap().name()).collect()
}

/// A real server, to be killed.
struct Program(Child, String);

impl Program {
    fn start(data: &Path, kafka: &str) -> Self {
        Self::start_with(data, kafka, &[])
    }

    fn start_with(data: &Path, kafka: &str, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog"))
            .args(["serve", "--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--kafka-listen", kafka])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = lines.filter(|line| line.contains("Kafka listener"));
        let line = said.next().expect("the server did not start");
        let address = line.split_whitespace().last().unwrap().to_owned();
        Self(child, address)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// SIGKILL under load: what an idempotent librdkafka producer was told is there, once.
#[test]
fn after_kills_under_load_nothing_is_lost_and_nothing_is_there_twice() {
    if !wanted("confluent-kafka under kills") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Program::start(&data, "127.0.0.1:0");
    let address = server.1.clone();
    let mut producer = python("idempotent.py");
    let mut producer =
        producer.args([&address, "30000"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let mut kills = 0;
    while producer.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(240), "the producer does not end");
        std::thread::sleep(Duration::from_millis(700));
        if kills < 5 {
            server.kill();
            server = Program::start(&data, &address);
            kills += 1;
        }
    }
    let output = producer.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(kills >= 2, "the load was over after {kills} kills");
    let mut reader = python("count.py");
    reader.args([&server.1, "30000"]);
    assert_eq!(run(reader).trim(), "ok");
    server.kill();
    let verified =
        Command::new(env!("CARGO_BIN_EXE_tidelog")).args(["verify", data.to_str().unwrap()]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Groups whose partitions the server shares out: members come, go and die, and so does the server when the client says so.
#[test]
fn a_group_that_the_server_shares_out_survives_its_members_and_the_server() {
    if !wanted("confluent-kafka with group.protocol=consumer") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Program::start_with(&data, "127.0.0.1:0", &["--kafka-consumer-session", "15s"]);
    let address = server.1.clone();
    let mut command = python("consumers.py");
    command.arg(&address).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut client = Copier(command.spawn().unwrap());
    let lines = BufReader::new(client.0.stdout.take().unwrap()).lines();
    let (sender, lines_of) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut last = String::new();
    let mut kills = 0;
    let until = Instant::now() + Duration::from_secs(400);
    loop {
        match lines_of.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => last = line,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the client does not end"),
        }
        if last == "kill" {
            server.kill();
            server = Program::start_with(&data, &address, &["--kafka-consumer-session", "15s"]);
            kills += 1;
        }
    }
    assert!(client.0.wait().unwrap().success());
    assert_eq!((last.as_str(), kills), ("ok", 1));
}

/// Exactly once: a copier that consumes, produces and commits in one transaction, while the server and the copier itself are
/// killed in turns. `TIDELOG_ROUNDS` says how often.
#[test]
fn a_copy_in_transactions_is_exact_although_server_and_client_are_killed() {
    if !wanted("an exactly-once copy under kills") {
        return;
    }
    let rounds: u32 = std::env::var("TIDELOG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let count = (rounds * 1_500).to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Program::start(&data, "127.0.0.1:0");
    let address = server.1.clone();
    let mut fill = python("copied.py");
    fill.args([&address, &count, "fill"]);
    assert_eq!(run(fill).trim(), "ok");
    let copier = || {
        let mut copier = python("exact_copy.py");
        copier.args([&address, &count]).stdin(Stdio::null()).stdout(Stdio::null());
        Copier(copier.spawn().unwrap())
    };
    let mut copying = copier();
    let began = Instant::now();
    let (mut kills, mut next) = (0, Instant::now() + Duration::from_millis(1200));
    loop {
        assert!(began.elapsed() < Duration::from_secs(400), "the copy does not end");
        match copying.0.try_wait().unwrap() {
            Some(status) if status.success() => break,
            Some(status) => {
                println!("the copier has ended ({status}) and is started again");
                copying = copier();
            }
            None if kills < rounds && Instant::now() >= next => {
                if kills % 2 == 0 {
                    server.kill();
                    server = Program::start(&data, &address);
                } else {
                    copying = copier();
                }
                kills += 1;
                next = Instant::now() + Duration::from_millis(1200);
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    println!("{kills} kills");
    assert!(kills >= 2, "the copy was over after {kills} kills");
    let mut check = python("copied.py");
    check.args([&server.1, &count]);
    assert_eq!(run(check).trim(), "ok");
    server.kill();
    let verified =
        Command::new(env!("CARGO_BIN_EXE_tidelog")).args(["verify", data.to_str().unwrap()]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// A client that is killed when it is dropped or replaced.
struct Copier(Child);

impl Drop for Copier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
