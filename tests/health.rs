//! A server that is ill says so within seconds, at `/ready`, in its metrics and in its log, and is well again by itself. The
//! faults are those of a simulated disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::base::{Millis, SystemClock};
use tidelog::client::{Client, Message, NewTopic, TopicChange};
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

/// Fills a topic until appends are refused; how many were taken.
async fn fill(bench: &Bench, topic: &str) -> usize {
    let value = "x".repeat(20_000);
    for taken in 0.. {
        let (status, body) = bench.post(&format!("/topics/{topic}"), &value).await;
        if status != 200 {
            assert_eq!(status, 507, "{body}");
            assert!(body.contains("no space for appends") && body.contains("storage_low_water"), "{body}");
            return taken;
        }
        assert!(taken < 2_000, "never full");
    }
    0
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_appends_are_refused_and_everything_that_makes_room_works() {
    let capacity = 12 << 20;
    let bench = Bench::start(sim(Some(capacity)), |_| {}).await;
    let client = bench.client().await;
    let small =
        |name: &str| NewTopic::new(name).partitions(1).set("segment_bytes", "64KiB").set("max_message_bytes", "64KiB");
    for topic in ["old", "cut", "aged", "kept"] {
        client.admin().create_topic(small(topic)).await.unwrap();
        for _ in 0..20 {
            assert_eq!(bench.post(&format!("/topics/{topic}"), &"x".repeat(20_000)).await.0, 200);
        }
    }
    assert!(fill(&bench, "old").await > 50);
    bench.ready(503, "\"condition\":\"storage_full\"").await;
    assert!(bench.condition("storage_full").await);
    let refused = client.producer().delivery_timeout(Duration::from_millis(100)).build().await.unwrap();
    let refused = refused.send_and_wait(Message::to("kept").value("x")).await.unwrap_err();
    assert!(refused.to_string().contains("no space for appends"), "{refused}");
    assert_eq!(bench.get("/topics/kept?from=beginning&max=1").await.0, 200);
    client.admin().create_topic(small("new")).await.unwrap_err();
    // To the last byte, as somebody else's files do: a setting, and retention that is due by it.
    bench.disk.set_capacity(Some(bench.disk.used()));
    client.admin().alter_topic(TopicChange::new("aged").set("retention_bytes", "64KiB")).await.unwrap();
    let began = Instant::now();
    while client.admin().describe_topic("aged").await.unwrap().partitions[0].segments > 3 {
        assert!(began.elapsed() < LONG, "retention deletes nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.admin().delete_topic("old").await.unwrap();
    // The reserve is made again, and serves again.
    bench.ready(200, "ready").await;
    bench.disk.set_capacity(Some(bench.disk.used()));
    client.admin().delete_topic("cut").await.unwrap();
    // With room again it goes on by itself.
    bench.disk.set_capacity(Some(64 << 20));
    bench.ready(200, "ready").await;
    assert_eq!(bench.post("/topics/kept", "x").await.0, 200);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_reads_and_deletes() {
    let bench = Bench::start(sim(Some(12 << 20)), |_| {}).await;
    let client = bench.client().await;
    client.admin().create_topic(NewTopic::new("old").partitions(1)).await.unwrap();
    client.admin().create_topic(NewTopic::new("kept").partitions(1)).await.unwrap();
    assert_eq!(bench.post("/topics/kept", "x").await.0, 200);
    fill(&bench, "old").await;
    let disk = bench.disk.clone();
    bench.server.stop().await;
    disk.set_capacity(Some(disk.used()));
    let bench = Bench::start(disk.restart(), |_| {}).await;
    bench.ready(503, "\"condition\":\"storage_full\"").await;
    assert_eq!(bench.get("/topics/kept?from=beginning&max=1").await.0, 200);
    assert_eq!(bench.post("/topics/kept", "y").await.0, 507);
    let client = bench.client().await;
    client.admin().delete_topic("old").await.unwrap();
    bench.ready(200, "ready").await;
    assert_eq!(bench.post("/topics/kept", "y").await.0, 200);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_told_and_stops_only_what_waits_for_it() {
    let bench = Bench::start(sim(None), |config| {
        config.disk_patience = Millis(100);
        config.commit_threads = 2;
    })
    .await;
    let client = bench.client().await;
    for number in 0..6 {
        client.admin().create_topic(NewTopic::new(format!("t{number}")).partitions(1)).await.unwrap();
        assert_eq!(bench.post(&format!("/topics/t{number}"), "before").await.0, 200);
    }
    bench.disk.inject(OpKind::Sync, "/data/topics/", Fault::Hang, 1_000);
    // More of them than there are commit threads.
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let producer = client.producer().build().await.unwrap();
                producer.send_and_wait(Message::to(format!("t{number}")).value("hung")).await
            })
        })
        .collect();
    let said = bench.ready(503, "\"condition\":\"disk_hung\"").await;
    assert!(said.contains("a sync of /data/topics/"), "{said}");
    assert!(bench.condition("disk_hung").await);
    let written = bench.post("/topics/t5?ack=written", "goes on");
    assert_eq!(tokio::time::timeout(LONG, written).await.unwrap().0, 200);
    assert_eq!(bench.get("/topics/t0?from=beginning&max=1").await.0, 200);
    // The journal, too: what waits for it holds the lock of all that exists.
    bench.disk.inject(OpKind::Sync, "/data/journal/", Fault::Hang, 1_000);
    let creating = {
        let client = client.clone();
        tokio::spawn(async move { client.admin().create_topic(NewTopic::new("late").partitions(1)).await })
    };
    bench.ready(503, "operations under way").await;
    for path in ["/health", "/metrics"] {
        let answer = tokio::time::timeout(LONG, bench.get(path)).await.unwrap();
        assert_eq!(answer.0, 200, "{path}");
    }
    assert_eq!(bench.get("/topics/t0?from=beginning&max=1").await.0, 200);
    bench.disk.heal();
    for hung in waiting {
        hung.await.unwrap().unwrap();
    }
    creating.await.unwrap().unwrap();
    bench.ready(200, "ready").await;
    bench.server.stop().await;
}
