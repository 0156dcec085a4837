//! Delivered is what was handed on: members of groups from the command line and from Rust, and whatever ends them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail loudly, and looks at files")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Server, spawn, tidelog, tidelog_with_input};
use tidelog::client::{Client, Message, QueueRules};

/// Longer than anything takes, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(90);

fn run(server: &Server, args: &[&str]) -> common::Outcome {
    tidelog(&[args, &["--server", server.address()]].concat())
}

fn lines(of: &common::Outcome) -> Vec<String> {
    String::from_utf8_lossy(&of.stdout).lines().map(str::to_owned).collect()
}

fn values(of: &common::Outcome) -> Vec<(String, u64)> {
    let line = |line: &String| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        (json["value"].as_str().unwrap().to_owned(), json["attempt"].as_u64().unwrap())
    };
    lines(of).iter().map(line).collect()
}

/// A topic of one partition with numbers for values.
fn fill(server: &Server, topic: &str, numbers: std::ops::Range<u32>) {
    run(server, &["topic", "create", topic, "--partitions", "1"]).ok();
    let input: String = numbers.map(|number| format!("{number}\n")).collect();
    tidelog_with_input(&["produce", topic, "--server", server.address()], input.as_bytes()).ok();
}

fn of_group(server: &Server, group: &str) -> serde_json::Value {
    serde_json::from_slice(&run(server, &["group", "describe", group, "--json"]).ok().stdout).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

fn into_file(server: &Server, args: &[&str], file: &str) -> Option<i32> {
    let out = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    command.args(args).args(["--server", server.address()]).stdout(out).stderr(Stdio::null());
    command.status().unwrap().code()
}

#[test]
fn records_whose_output_could_not_be_written_come_again_as_if_they_had_not_been_delivered() {
    let server = Server::start();
    for (group, mode) in [
        ("auto", &[][..]),
        ("durable", &["--ack-mode", "durable"]),
        ("nack", &["--ack-mode", "nack"]),
        ("stream", &["--group-kind", "stream"]),
    ] {
        fill(&server, group, 0..50);
        let consume = [&["consume", group, "--group", group][..], mode].concat();
        assert_eq!(into_file(&server, &consume, "/dev/full"), Some(1), "{group}");
        let json = ["consume", "--group", group, "--json", "--max", "50", "--follow"];
        let again = lines(&run(&server, &json).ok());
        let expected: Vec<String> = (0..50).map(|number: u32| number.to_string()).collect();
        let value = |line: &String| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(json.get("attempt").is_none_or(|attempt| *attempt == 1), "{group}: {json}");
            json["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(again.iter().map(value).collect::<Vec<_>>(), expected, "{group}");
    }
}

#[test]
fn a_member_that_ends_gives_back_in_order_what_it_had_only_fetched() {
    let server = Server::start();
    fill(&server, "t", 0..20);
    // One delivery is allowed: what counts as one and was not seen would be a dead letter.
    let consume = ["consume", "t", "--group", "g", "--max-deliveries", "1", "--json"];
    for number in 0..10 {
        let seen = values(&run(&server, &[&consume[..], &["--max", "1"]].concat()).ok());
        assert_eq!(seen, [(number.to_string(), 1)]);
    }
    let rest = values(&run(&server, &consume).ok());
    assert_eq!(rest, (10..20).map(|number: u32| (number.to_string(), 1)).collect::<Vec<_>>());
    let topics = String::from_utf8(run(&server, &["topic", "list", "--json"]).ok().stdout).unwrap();
    assert!(!topics.contains("dead-letter"), "{topics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_closed_or_dropped_sends_what_was_said_and_gives_the_rest_back() {
    let server = Server::start();
    fill(&server, "t", 0..20);
    let client = Client::connect(server.address()).await.unwrap();
    let rules = QueueRules { max_deliveries: 1, ..QueueRules::default() };
    let mut expected = 0;
    for close in [true, false, true, false] {
        let mut consumer = client.queue("g").topic("t").rules(rules.clone()).join().await.unwrap();
        let mut held = Vec::new();
        for acked in [true, true, false] {
            let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
            let value = String::from_utf8(delivery.record().value.clone().unwrap().to_vec()).unwrap();
            let number = expected + held.len() as u32;
            assert_eq!((value, delivery.attempt()), (number.to_string(), 1));
            match acked {
                true => {
                    delivery.ack();
                    expected += 1;
                }
                false => held.push(delivery),
            }
        }
        match close {
            true => consumer.close().await.unwrap(),
            false => drop(consumer),
        }
        drop(held);
        until("the member has left", || of_group(&server, "g")["members"].as_array().unwrap().is_empty()).await;
    }
    let described = of_group(&server, "g");
    assert_eq!((&described["lag"], &described["partitions"][0]["floor"]), (&12.into(), &8.into()));
}

/// A process in a group of its own; all of it is killed when it is dropped.
struct Grouped(Child);

impl Grouped {
    fn start(server: &Server, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
        command.args(args).args(["--server", server.address()]);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A restart of the server is nobody's failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_in_order_counts_nothing_as_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start_on(&data, &[]);
    let address = server.address().to_owned();
    fill(&server, "t", 0..20);
    let client = Client::connect(&address).await.unwrap();
    let rules = QueueRules { max_deliveries: 1, ..QueueRules::default() };
    let mut consumer = client.queue("g").topic("t").rules(rules).join().await.unwrap();
    let held = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
    server.terminate();
    let server = Server::start_on(&data, &["--listen", &address]);
    drop(held);
    drop(consumer);
    let again = values(&run(&server, &["consume", "--group", "g", "--json", "--max", "20", "--follow"]).ok());
    assert_eq!(again, (0..20).map(|number: u32| (number.to_string(), 1)).collect::<Vec<_>>());
}

fn is_alive(pid: &str) -> bool {
    // One that has ended and was not waited for by its parent is no more.
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_command_with_all_that_it_has_started_and_its_record_was_not_delivered() {
    if !Path::new("/proc/self/stat").exists() {
        return;
    }
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        fill(&server, signal, 0..2);
        let pids = folder.path().join(signal);
        // The second one does not hear of SIGTERM.
        let script = format!(
            "sleep 1000 & echo $! >> {0}; sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' & echo $$ >> {0}; wait",
            pids.display()
        );
        let member =
            spawn(&["consume", signal, "--group", signal, "--follow", "--exec", &script, "--server", server.address()]);
        let started =
            || std::fs::read_to_string(&pids).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        until("the command runs", || started().len() == 3).await;
        member.signal(signal);
        member.finish(PATIENCE).ok();
        for pid in started() {
            assert!(!is_alive(&pid), "{signal}: {pid} goes on");
        }
        let seen = values(&run(&server, &["consume", "--group", signal, "--json"]).ok());
        assert_eq!(seen, [("0".to_owned(), 1), ("1".to_owned(), 1)], "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_ends_hands_its_request_back_and_ends_its_command() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    let script = format!("echo $$ >> {}; sleep 1000", begun.display());
    let responder = spawn(&["reply", "upper", "--exec", &script, "--server", server.address()]);
    until("it responds", || {
        !of_group_or_null(&server, "responders.upper")["members"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
    let asked = run(&server, &["request", "upper", "hello", "--callback", "answers", "--timeout", "10m"]).ok();
    let id = String::from_utf8(asked.stdout).unwrap().trim().to_owned();
    until("the command runs", || std::fs::read_to_string(&begun).is_ok_and(|pids| !pids.is_empty())).await;
    responder.signal("TERM");
    responder.finish(PATIENCE).ok();
    let pid = std::fs::read_to_string(&begun).unwrap();
    assert!(!is_alive(pid.trim()), "the command goes on");
    // It was not delivered: the next responder has it as the first.
    let described = of_group(&server, "responders.upper");
    assert_eq!((&described["lag"], &described["partitions"][0]["waiting"]), (&1.into(), &1.into()));
    let client = Client::connect(server.address()).await.unwrap();
    let mut next = client.responder("upper").listen().await.unwrap();
    let incoming = tokio::time::timeout(PATIENCE, next.next()).await.unwrap().unwrap();
    assert_eq!((incoming.request().id.as_deref(), incoming.request().attempt), (Some(id.as_str()), 1));
    incoming.reply("HELLO").await.unwrap();
    next.close().await.unwrap();
    let status = run(&server, &["request", "status", &id, "--wait", "1m"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("HELLO"), "{}", status.stderr());
}

fn of_group_or_null(server: &Server, group: &str) -> serde_json::Value {
    serde_json::from_slice(&run(server, &["group", "describe", group, "--json"]).stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_over_when_it_ends_and_its_output_is_whole_whatever_it_has_left_behind() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    fill(&server, "t", 0..3);
    // What it leaves behind has the pipes open until the test is over, however that ends.
    let left = format!("(while [ -d {} ]; do sleep 0.1; done)", folder.path().display());
    let fails = format!("{left} & echo number $(cat) is bad >&2; exit 3");
    let rules = ["--max-deliveries", "1", "--max", "3"];
    let consume = [&["consume", "t", "--group", "g", "--exec", &fails][..], &rules].concat();
    let ended = run(&server, &consume).ok();
    assert!(ended.stderr().contains("number 2 is bad (exit status 3)"), "{}", ended.stderr());
    // More than a pipe holds.
    let script = format!("{left} & head -c 300000 /dev/zero | tr '\\0' x; echo end");
    let responder = spawn(&["reply", "big", "--exec", &script, "--max", "1", "--server", server.address()]);
    until("it responds", || {
        !of_group_or_null(&server, "responders.big")["members"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
    let reply = run(&server, &["request", "big", "x", "--timeout", "80s"]).ok();
    assert_eq!(String::from_utf8_lossy(&reply.stdout).trim_end(), format!("{}end", "x".repeat(300_000)));
    responder.finish(PATIENCE).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_extended_while_the_output_is_held_up_and_a_member_then_ends_in_order() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    run(&server, &["topic", "create", "t", "--partitions", "1"]).ok();
    for number in 0..100 {
        producer.send_and_wait(Message::to("t").value(format!("{number} {}", "x".repeat(4_000)))).await.unwrap();
    }
    let rules = ["--lease", "2s", "--max-deliveries", "1", "--prefetch", "100"];
    let args = [&["consume", "t", "--group", "g", "--follow"][..], &rules].concat();
    // Nobody reads what it prints.
    let member = Grouped::start(&server, &args);
    let in_hand = || of_group_or_null(&server, "g")["partitions"][0]["in_flight"].as_u64().unwrap_or(0);
    until("it prints", || in_hand() > 0).await;
    // For more than two leases, nothing that it has printed goes to another.
    let mut other = client.queue("g").join().await.unwrap();
    let mut seen = Vec::new();
    let others = async {
        loop {
            let delivery = other.next().await.unwrap().unwrap();
            seen.push(delivery.record().offset);
            delivery.ack();
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), others).await;
    assert!(!seen.contains(&0), "the first record is held by who prints it: {seen:?}");
    other.close().await.unwrap();
    let held: u64 = in_hand();
    assert!(held > 0, "what waits for its output is still its own");
    let id = member.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    until("it ends", || of_group(&server, "g")["members"].as_array().unwrap().is_empty()).await;
    // What did not get out comes again, and none of it was delivered.
    let rest = values(&run(&server, &["consume", "--group", "g", "--json"]).ok());
    assert!(rest.iter().all(|(_, attempt)| *attempt == 1), "{:?}", rest.iter().map(|(_, n)| n).collect::<Vec<_>>());
    assert!(rest.first().is_some_and(|(value, _)| value.starts_with("0 ")), "the first was never out");
    assert_eq!(rest.len() + seen.len(), 100);
    assert_eq!(of_group(&server, "g")["lag"], 0);
}
