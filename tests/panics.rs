//! A panic in a thread or task of the engine ends the process, with a line that says which and why. Each case runs in a process
//! of its own: this test's program again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tidelog::base::{Millis, SystemClock, guard};
use tidelog::client::{Client, CommitPosition, Message, NewTopic};
use tidelog::disk::{Fault, OpKind, SimDisk, SimOptions};
use tidelog::server::config::ServerConfig;
use tidelog::server::{Server, logging};

const CASE: &str = "TIDELOG_PANIC_CASE";

fn run(case: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "in_a_process_of_its_own", "--nocapture"]).env(CASE, case);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(guard::PANIC_STATUS), "{said}");
    let line = said.lines().find(|line| line.contains("a part of the server panicked"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("simulated panic in"), "{line}");
    line.to_owned()
}

fn position(offset: u64) -> CommitPosition {
    CommitPosition { topic: "orders".to_owned(), partition: 0, offset, metadata: String::new() }
}

#[test]
fn a_panic_in_a_commit_thread_ends_the_process() {
    assert!(run("commit").contains("tidelog-commit-"));
}

#[test]
fn a_panic_in_the_progress_thread_ends_the_process() {
    assert!(run("progress").contains("tidelog-progress"));
}

#[test]
fn a_panic_in_the_upkeep_thread_ends_the_process() {
    assert!(run("upkeep").contains("tidelog-upkeep"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_process_of_its_own() {
    let Ok(case) = std::env::var(CASE) else { return };
    let disk = SimDisk::new(SimOptions::default());
    let config = ServerConfig {
        data_dir: "/data".into(),
        listen: "127.0.0.1:0".to_owned(),
        kafka_listen: "off".to_owned(),
        http_listen: "off".to_owned(),
        retention_check: Millis(20),
        ..ServerConfig::default()
    };
    logging::start(&config).unwrap();
    let server = Server::start_on(config, Arc::new(disk.clone()), Arc::new(SystemClock::new())).await.unwrap();
    let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
    let retained = NewTopic::new("orders")
        .partitions(1)
        .set("retention_bytes", "64KiB")
        .set("segment_bytes", "64KiB")
        .set("max_message_bytes", "64KiB");
    client.admin().create_topic(retained).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    match case.as_str() {
        "commit" => {
            disk.inject(OpKind::Write, "/data/topics/", Fault::Panic, 1);
            let _ = producer.send_and_wait(Message::to("orders").value("x")).await;
        }
        "progress" => {
            producer.send_and_wait(Message::to("orders").value("x")).await.unwrap();
            // The first one also makes the group, which another thread does.
            client.admin().commit_positions("g", vec![position(0)]).await.unwrap();
            disk.inject(OpKind::Sync, "/data/journal/", Fault::Panic, 1);
            let _ = client.admin().commit_positions("g", vec![position(1)]).await;
        }
        _ => {
            // Retention is who removes it.
            disk.inject(OpKind::Entry, "/0/00000000000000000000.log", Fault::Panic, 1);
            for _ in 0..20 {
                let _ = producer.send_and_wait(Message::to("orders").value("x".repeat(20_000))).await;
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    eprintln!("still here");
}
