//! A server that is ill says so within seconds, at `/ready`, in its metrics and in its log, and is well again by itself. The
//! faults are those of a simulated disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::base::{Millis, SystemClock};
use tidelog::client::{Client, Message, NewTopic};
use tidelog::disk::{Fault, OpKind, SimDisk, SimOptions};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whatever must come comes within this, also on a busy machine.
const LONG: Duration = Duration::from_secs(60);

struct Bench {
    server: Server,
    disk: SimDisk,
}

impl Bench {
    async fn start(disk: SimDisk, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig {
            data_dir: "/data".into(),
            listen: "127.0.0.1:0".to_owned(),
            kafka_listen: "off".to_owned(),
            http_listen: "127.0.0.1:0".to_owned(),
            shutdown_timeout: Millis(100),
            retention_check: Millis(50),
            ..ServerConfig::default()
        };
        change(&mut config);
        let server = Server::start_on(config, Arc::new(disk.clone()), Arc::new(SystemClock::new())).await.unwrap();
        Self { server, disk }
    }

    async fn client(&self) -> Client {
        let address = self.server.addresses()[0].to_string();
        Client::builder().server(address).request_timeout(Duration::from_secs(20)).build().await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        self.send(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await
    }

    async fn send(&self, request: &str) -> (u16, String) {
        let at: SocketAddr = self.server.http_addresses()[0];
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until `/ready` has this status, and words.
    async fn ready(&self, status: u16, words: &str) -> String {
        let began = Instant::now();
        loop {
            let (now, body) = self.get("/ready").await;
            if now == status && body.contains(words) {
                return body;
            }
            assert!(began.elapsed() < LONG, "{now} {body}, not {status} {words}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn condition(&self, name: &str) -> bool {
        let (_, text) = self.get("/metrics").await;
        let series = format!("tidelog_condition{{condition=\"{name}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{text}"));
        line == "1"
    }
}

fn sim(capacity: Option<u64>) -> SimDisk {
    SimDisk::new(SimOptions { seed: 7, capacity })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_synced_makes_the_server_not_ready_until_it_can() {
    let bench = Bench::start(sim(None), |_| {}).await;
    let client = bench.client().await;
    client.admin().create_topic(NewTopic::new("before").partitions(1)).await.unwrap();
    bench.ready(200, "ready").await;
    assert!(!bench.condition("journal").await);
    // An event that was written and not synced may turn out to be in force, so each try has a name of its own.
    for (kind, topic) in [(OpKind::Sync, "unsynced"), (OpKind::Write, "unwritten")] {
        bench.disk.inject(kind, "/data/journal/", Fault::Error, u32::MAX);
        client.admin().create_topic(NewTopic::new(topic).partitions(1)).await.unwrap_err();
        let said = bench.ready(503, "\"condition\":\"journal\"").await;
        assert!(said.contains("the journal cannot be written"), "{said}");
        assert!(bench.condition("journal").await);
        assert_eq!(bench.get("/health").await.0, 200);
        bench.disk.heal();
        // Nobody commits anything: the server finds out by itself.
        bench.ready(200, "ready").await;
        assert!(!bench.condition("journal").await);
    }
    client.admin().create_topic(NewTopic::new("after").partitions(1)).await.unwrap();
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_partition_and_refused_writes_are_told_and_end_without_a_producer() {
    let bench = Bench::start(sim(None), |_| {}).await;
    let client = bench.client().await;
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    let producer = client.producer().delivery_timeout(Duration::from_millis(200)).build().await.unwrap();
    producer.send_and_wait(Message::to("orders").value("first")).await.unwrap();
    bench.disk.inject(OpKind::Sync, "/data/topics/", Fault::Error, u32::MAX);
    producer.send_and_wait(Message::to("orders").value("lost")).await.unwrap_err();
    bench.ready(503, "\"condition\":\"partitions\"").await;
    assert!(bench.condition("partitions").await);
    bench.disk.heal();
    bench.ready(200, "ready").await;
    bench.disk.inject(OpKind::Write, "/data/topics/", Fault::Error, u32::MAX);
    let producer = client.producer().delivery_timeout(Duration::from_millis(200)).build().await.unwrap();
    producer.send_and_wait(Message::to("orders").value("refused")).await.unwrap_err();
    let said = bench.ready(503, "\"condition\":\"disk_errors\"").await;
    assert!(said.contains("a write of /data/topics/"), "{said}");
    bench.disk.heal();
    bench.ready(200, "ready").await;
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_part_of_the_server_can_tell_what_is_wrong_with_it() {
    use tidelog::base::Condition;
    let bench = Bench::start(sim(None), |_| {}).await;
    let (status, text) = bench.get("/metrics").await;
    assert_eq!(status, 200);
    for condition in Condition::ALL {
        assert!(text.contains(&format!("tidelog_condition{{condition=\"{}\"}} 0", condition.name())), "{text}");
    }
    assert_eq!(bench.post("/topics/t", "hello").await.0, 200);
    assert!(Path::new("/data").is_absolute() && bench.disk.content(Path::new("/data/format")).is_some());
    bench.server.stop().await;
}
