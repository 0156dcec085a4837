//! What readers of batches that open to the maximum take of the server's memory, all together: below a ceiling, however many
//! they are. The server is the real program with its default limits.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and looks at a process")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::Server;
use tidelog::base::{SystemClock, TopicName};
use tidelog::broker::{AckLevel, Broker, BrokerConfig, Place, WorkKey};
use tidelog::client::{Client, StartAt};
use tidelog::disk::RealDisk;
use tidelog::record::{BatchBuilder, BatchOptions, Compression};

const MIB: usize = 1 << 20;
/// Readers of each kind at a time.
const READERS: usize = 12;
/// The server's memory with them, in MiB: its budgets (128 for answers, 256 for queue groups), one record of 60 MiB beyond them as
/// a record, as JSON and as a body, a delivery on its way to each of twelve members (some of 60 MiB), and what it and the
/// allocator need beside. Measured: 810 to 950. Batches that are opened whole take more than 4 GiB.
const CEILING: u64 = 1280;

/// Topics whose batches have some KiB each and open to some 60 MiB.
async fn write(data: &Path) {
    let config = BrokerConfig { data_dir: data.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    for (topic, batches, records, bytes) in
        [("large", 2, 1, 60 * MIB), ("middle", 8, 60, MIB), ("small", 8, 900_000, 55)]
    {
        broker.metadata(&TopicName::new(topic).unwrap(), true).await.unwrap();
        let options = BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        let value = vec![b'x'; bytes];
        (0..records).for_each(|_| builder.push(5, None, Some(&value), &[]));
        let batch = builder.build();
        for _ in 0..batches {
            let offer = broker.look_into(&WorkKey::new(), topic, batch.clone()).await;
            broker.produce_at(topic, 0, offer, AckLevel::Durable, Place::CommitThread).await.unwrap();
        }
    }
    broker.shutdown().await;
}

/// The most memory that the process has had, in MiB.
fn most_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Bytes of the answer's body.
fn get(address: &str, path: &str) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let (mut head, mut all, mut piece) = (Vec::new(), 0, vec![0; 256 * 1024]);
    loop {
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        head.extend_from_slice(&piece[..read.min(200_usize.saturating_sub(head.len()))]);
        all += read;
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_batches_that_open_to_the_maximum_stay_below_the_ceiling() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write(&data).await;
    let server = Server::start_on(&data, &["--http-listen", "127.0.0.1:0"]);
    let http = server.http_address();
    let mut before = most_mib(server.pid());
    println!("at the start {before} MiB");
    let mut stage = |name: &str| {
        let now = most_mib(server.pid());
        println!("{name}: {before} -> {now} MiB");
        before = now;
    };
    // A record at the limit gets through, one time as any other.
    assert!(get(&http, "/topics/large?max=1") > 60 * MIB);
    stage("one large record by HTTP");
    let paths =
        ["/topics/small?from=offset:400000&max=10000", "/topics/middle?from=offset:100&max=100", "/topics/large?max=2"];
    let filtered = "/topics/small?max=10&filter=offset%20%25%201000%20%3D%3D%201";
    std::thread::scope(|scope| {
        for path in paths.iter().chain([&filtered]) {
            (0..READERS).for_each(|_| drop(scope.spawn(|| assert!(get(&http, path) > 1000))));
        }
    });
    stage("readers by HTTP");
    let mut tasks = Vec::new();
    for topic in ["small", "middle", "large"] {
        for at in 0..READERS {
            let address = server.address().to_owned();
            tasks.push(tokio::spawn(async move {
                let client = Client::connect(&address).await.unwrap();
                let mut queue = client.queue(format!("{topic}-{at}")).topic(topic).prefetch(5).join().await.unwrap();
                for _ in 0..2 {
                    queue.next().await.unwrap().unwrap().ack();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    stage("queue groups");
    let client = Client::connect(server.address()).await.unwrap();
    let consumer = client.consumer().topic("small").filter("offset % 10000 == 1").from(StartAt::Offset(7_150_000));
    let mut consumer = consumer.until_end(true).build().await.unwrap();
    let mut count = 0;
    while let Some(record) = consumer.next().await {
        record.unwrap();
        count += 1;
    }
    assert_eq!(count, 5);
    stage("a filter by the native door");
    assert!(before < CEILING, "{before} MiB; the ceiling is {CEILING}");
}
