//! What breaks from outside, against a real server: its files, its disk, and whoever connects to it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and breaks files from outside"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use common::{Server, tidelog};
use tidelog::base::ErrorKind;
use tidelog::client::{Client, ClientError, Message, NewTopic, StartAt};

async fn produce(client: &Client, topic: &str, values: std::ops::Range<u64>) -> Result<(), ClientError> {
    let producer = client.producer().build().await?;
    for value in values {
        producer.send(Message::to(topic).value(format!("{value:06} {}", "x".repeat(1_000)))).await?;
    }
    producer.close().await
}

async fn numbers(client: &Client, topic: &str) -> Vec<u64> {
    let mut consumer = client.consumer().topic(topic).until_end(true).build().await.unwrap();
    let mut numbers = Vec::new();
    while let Some(record) = consumer.next().await {
        numbers.push(String::from_utf8_lossy(&record.unwrap().value.unwrap()[..6]).parse().unwrap());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_is_small() {
    let server = Server::start();
    Client::connect(server.address()).await.unwrap().admin().list_topics().await.unwrap();
    if let Some(kib) = server.resident_kib() {
        // What is promised holds for the release build.
        let bound = if cfg!(debug_assertions) { 40 } else { 20 };
        assert!(kib < bound * 1024, "{kib} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_gone_or_garbage_is_rebuilt_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(2)).await.unwrap();
    produce(&client, "orders", 0..50).await.unwrap();
    server.kill();
    let view = dir.path().join("view");
    type Damage = fn(&Path);
    let damages: [Damage; 3] = [
        |view| std::fs::remove_dir_all(view).unwrap(),
        |view| each_file(view, |file| std::fs::write(file, [0x5a; 4_096]).unwrap()),
        |view| each_file(view, |file| std::fs::File::options().write(true).open(file).unwrap().set_len(7).unwrap()),
    ];
    for damage in damages {
        damage(&view);
        let mut server = Server::start_on(dir.path(), &[]);
        let client = Client::connect(server.address()).await.unwrap();
        let mut all = numbers(&client, "orders").await;
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert_eq!(client.admin().describe_topic("orders").await.unwrap().partitions.len(), 2);
        assert!(server.log().contains("view_rebuilt=true"), "{}", server.log());
        server.kill();
    }
}

fn each_file(dir: &Path, act: impl Fn(&Path)) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() { dirs.push(entry.path()) } else { act(&entry.path()) }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_sealed_segment_is_found_by_verify_and_by_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    for topic in ["hurt", "well"] {
        let small = NewTopic::new(topic).partitions(1).set("segment_bytes", "65536").set("max_message_bytes", "65536");
        client.admin().create_topic(small).await.unwrap();
        for batch in 0..30 {
            produce(&client, topic, batch * 10..batch * 10 + 10).await.unwrap();
        }
    }
    let segment = server.segment_of("hurt");
    assert!(std::fs::read_dir(segment.parent().unwrap()).unwrap().count() > 6, "several segments");
    assert_eq!(server.terminate(), Some(0));
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|window| window == b"000034").unwrap();
    bytes[at] ^= 0x04;
    std::fs::write(&segment, bytes).unwrap();

    let verified = tidelog(&["verify", dir.path().to_str().unwrap()]).fails(1);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(said.contains(segment.file_name().unwrap().to_str().unwrap()), "file: {said}");
    assert!(said.contains("hurt") && said.contains("offset"), "{said}");

    server = Server::start_on(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    assert_eq!(numbers(&client, "well").await, (0..300).collect::<Vec<_>>());
    let mut consumer = client.consumer().topic("hurt").until_end(true).build().await.unwrap();
    let mut read = 0;
    let error = loop {
        match consumer.next().await.unwrap() {
            Ok(record) => assert_eq!(record.offset, read),
            Err(error) => break error,
        }
        read += 1;
    };
    assert_eq!(read, 30, "all before the damaged batch");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let said = error.to_string();
    assert!(said.contains(".log") && said.contains("position") && said.contains("30"), "{said}");
    let mut consumer = client.consumer().topic("hurt").until_end(true).skip_damaged(true).build().await.unwrap();
    let mut offsets = Vec::new();
    while let Some(record) = consumer.next().await {
        offsets.push(record.unwrap().offset);
    }
    assert_eq!(offsets, (0..30).chain(40..300).collect::<Vec<_>>());
    assert_eq!(consumer.skipped().len(), 1);
    produce(&client, "hurt", 300..310).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_with_words_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Server::start_on_small_disk(dir.path(), 24) else {
        eprintln!("skipped: this system lets no ordinary user mount a file system");
        return;
    };
    // The file system is visible through the server's process only.
    let inside =
        Path::new("/proc").join(server.pid().to_string()).join("root").join(dir.path().strip_prefix("/").unwrap());
    std::fs::write(inside.join("filler"), vec![1; 8 << 20]).unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    let producer =
        client.producer().delivery_timeout(Duration::from_millis(400)).batch_bytes(20_000).build().await.unwrap();
    let mut sent = 0;
    let mut acknowledged = Vec::new();
    loop {
        let mut receipts = Vec::new();
        for number in sent..sent + 100 {
            let message = Message::to("orders").value(format!("{number:06} {}", "x".repeat(1_000)));
            receipts.push((number, producer.send(message).await.unwrap()));
        }
        sent += 100;
        let mut refused = false;
        for (number, receipt) in receipts {
            match receipt.await.map_err(|error| error.to_string().to_lowercase()) {
                Ok(_) => acknowledged.push(number),
                Err(error) if error.contains("no space") => refused = true,
                // On a busy machine there may be no answer in so short a time.
                Err(error) => assert!(error.contains("whether they are stored is unknown"), "{error}"),
            }
        }
        if refused {
            break;
        }
        assert!(sent < 40_000, "24 MiB were never full");
    }
    let there = numbers(&client, "orders").await;
    assert!(acknowledged.len() > 5_000, "{}", acknowledged.len());
    let lost: Vec<_> = acknowledged.iter().filter(|number| there.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?} of {} acknowledged, {} there", acknowledged.len(), there.len());
    let refused = produce_briefly(&client, "orders").await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("no space"), "{refused}");

    std::fs::remove_file(inside.join("filler")).unwrap();
    produce(&client, "orders", 900_000..900_100).await.unwrap();
    let after = numbers(&client, "orders").await;
    assert_eq!(after[..there.len()], there);
    assert_eq!(after[after.len() - 100..], (900_000..900_100).collect::<Vec<_>>());
    assert_eq!(server.terminate(), Some(0));
}

async fn produce_briefly(client: &Client, topic: &str) -> Result<(), ClientError> {
    let producer = client.producer().delivery_timeout(Duration::from_millis(300)).build().await?;
    producer.send_and_wait(Message::to(topic).value("y".repeat(500_000))).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_peers_cost_nobody_else_anything_and_little_memory() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    produce(&client, "orders", 0..10).await.unwrap();
    let before = server.resident_kib();
    let address = server.address().to_owned();
    let garbage = std::thread::spawn({
        let address = address.clone();
        move || {
            let mut random = fastrand::Rng::with_seed(7171);
            let mut sent = 0;
            while sent < 10_000_000 {
                let block: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100_000).collect();
                sent += block.len();
                let mut socket = TcpStream::connect(&address).unwrap();
                // The server hangs up within.
                let _ = socket.write_all(&block);
            }
        }
    });
    let mut huge = TcpStream::connect(&address).unwrap();
    huge.write_all(&[0xff; 64]).unwrap();
    let silent: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut socket = TcpStream::connect(&address).unwrap();
            let _ = socket.write_all(&[0]);
            socket
        })
        .collect();
    produce(&client, "orders", 10..2_000).await.unwrap();
    assert_eq!(numbers(&client, "orders").await, (0..2_000).collect::<Vec<_>>());
    garbage.join().unwrap();
    huge.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = Vec::new();
    let _ = huge.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "told what was wrong before the end");
    if let (Some(before), Some(after)) = (before, server.resident_kib()) {
        assert!(
            after < before + 64 * 1024,
            "{before} KiB before, {after} KiB with {} silent connections",
            silent.len()
        );
    }
    let mut late = client.consumer().topic("orders").from(StartAt::Last(1)).until_end(true).build().await.unwrap();
    assert!(late.next().await.unwrap().is_ok());
    drop(silent);
    assert_eq!(server.terminate(), Some(0));
}
