//! A real server compacts a topic while others write to it and read it, and is killed in the middle of that.
//! `TIDELOG_ROUNDS=n` kills it that many times (6 if not set).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and looks at files from outside"
)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Server, tidelog};
use tidelog::client::{Client, ConsumedRecord, Message, NewTopic, Receipt, StartAt};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

const TOPIC: &str = "state";
/// The key that is written last.
const END: &str = "end";
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts it with compaction looking for work all the time.
fn start(data: &Path, listen: Option<&str>) -> Server {
    let config = data.parent().unwrap().join("tidelog.toml");
    std::fs::write(&config, "compaction_check = \"10ms\"\n").unwrap();
    let mut flags = vec!["--config", config.to_str().unwrap()];
    flags.extend(listen.iter().flat_map(|listen| ["--listen", listen]));
    Server::start_on(data, &flags)
}

/// A topic whose every segment is compacted as soon as it is sealed.
async fn create(client: &Client, ratio: &str) {
    let settings = [
        ("cleanup", "compact"),
        ("segment_bytes", "256KiB"),
        ("max_message_bytes", "64KiB"),
        ("min_compaction_lag", "0s"),
        ("delete_retention", "0s"),
        ("min_dirty_ratio", ratio),
    ];
    let new = NewTopic::new(TOPIC).partitions(1);
    let new = settings.iter().fold(new, |new, (name, value)| new.set(*name, *value));
    client.admin().create_topic(new).await.unwrap();
}

fn key_of(record: &ConsumedRecord) -> String {
    String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap()
}

/// The number that a record was sent with: it is a header, so that a tombstone has one too.
fn number_of(record: &ConsumedRecord) -> u64 {
    let header = record.headers.iter().find(|header| header.name == b"n").unwrap();
    std::str::from_utf8(header.value.unwrap()).unwrap().parse().unwrap()
}

/// What somebody read of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    offset: u64,
    number: u64,
    tombstone: bool,
}

/// Reads from the beginning, to the end or until the last key; nothing may be out of order. What each key was last.
async fn read(client: &Client, until_end: bool) -> (BTreeMap<String, Seen>, Vec<Seen>) {
    let consumer = client.consumer().topic(TOPIC).from(StartAt::Beginning).until_end(until_end).retry_timeout(PATIENCE);
    let mut consumer = consumer.build().await.unwrap();
    let (mut newest, mut all) = (BTreeMap::new(), Vec::<Seen>::new());
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        let seen = Seen { offset: record.offset, number: number_of(&record), tombstone: record.value.is_none() };
        if let Some(last) = all.last() {
            assert!(last.offset < seen.offset && last.number < seen.number, "{seen:?} behind {last:?}");
        }
        all.push(seen);
        let key = key_of(&record);
        let last = !until_end && key == END;
        newest.insert(key, seen);
        if last {
            break;
        }
    }
    (newest, all)
}

/// Where compaction is at work, if it is.
fn unfinished(partition: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(partition).ok()?.flatten();
    files.map(|file| file.path()).find(|path| path.to_str().unwrap().ends_with(".log.tmp"))
}

/// The highest generation of a segment.
fn generation(partition: &Path) -> u64 {
    let names = std::fs::read_dir(partition).unwrap().flatten().map(|file| file.file_name().into_string().unwrap());
    let of = |name: String| name.strip_suffix(".log")?.split_once('-')?.1.parse().ok();
    names.filter_map(of).max().unwrap_or(0)
}

/// Kills the server while compaction is writing a file. Whether it left one behind that is not finished.
async fn kill_while_it_compacts(mut server: Server, round: u64) -> bool {
    let partition = server.segment_of(TOPIC).parent().unwrap().to_owned();
    let work = move || {
        let deadline = Instant::now() + PATIENCE;
        let wait = |what: &dyn Fn() -> bool| {
            while !what() {
                assert!(Instant::now() < deadline, "compaction does nothing: {}", server.log());
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        wait(&|| unfinished(&partition).is_some());
        match round % 3 {
            // As it has begun a file, a little later, and about when the file gets its name.
            0 => {}
            1 => std::thread::sleep(Duration::from_millis(round % 7)),
            _ => {
                let before = generation(&partition);
                wait(&|| generation(&partition) != before || unfinished(&partition).is_none());
            }
        }
        server.kill();
        unfinished(&partition).is_some()
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Writes on and on until it is told to stop, and then the last key. Every seventh record deletes its key.
async fn write(
    client: Client,
    keys: u64,
    sent: UnboundedSender<(String, u64, Receipt)>,
    mut stop: watch::Receiver<bool>,
) {
    let producer = client.producer().delivery_timeout(PATIENCE).memory(2_000_000).build().await.unwrap();
    let value = "x".repeat(400);
    for number in 0.. {
        let last = *stop.borrow_and_update();
        // A stride that meets every key.
        let key = if last { END.to_owned() } else { format!("k{:05}", number * 7919 % keys) };
        let message = Message::to(TOPIC).key(key.clone()).header("n", number.to_string());
        let message = if number % 7 == 3 && !last { message } else { message.value(value.clone()) };
        let receipt = producer.send(message).await.unwrap();
        sent.send((key, number, receipt)).unwrap();
        if last {
            break;
        }
    }
    producer.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_moved_when_the_server_is_killed_while_it_compacts() {
    let rounds: u64 = std::env::var("TIDELOG_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = start(&data, None);
    let listen = server.address().to_owned();
    create(&Client::connect(&listen).await.unwrap(), "0").await;
    let reader = Client::connect(&listen).await.unwrap();
    let reader = tokio::spawn(async move { read(&reader, false).await });
    let (stop, stopped) = watch::channel(false);
    let (sent, mut receipts) = unbounded_channel();
    let writer = tokio::spawn(write(Client::connect(&listen).await.unwrap(), 1_000, sent, stopped));

    // What was acknowledged: where each number is, and the newest of each key.
    let (mut places, mut newest) = (HashMap::new(), BTreeMap::<String, u64>::new());
    let mut note = |key: String, number: u64, offset: u64| {
        assert_eq!(places.insert(offset, number), None, "{offset} was given twice");
        newest.insert(key, number);
        places.len()
    };
    let (mut cut_off, mut total) = (0, 0);
    for round in 0..rounds {
        let enough = total + 500;
        while total < enough {
            let (key, number, receipt) = receipts.recv().await.unwrap();
            total = note(key, number, receipt.await.unwrap().offset.unwrap());
        }
        cut_off += u64::from(kill_while_it_compacts(server, round).await);
        server = start(&data, Some(&listen));
        if round % 3 == 0 {
            read(&Client::connect(&listen).await.unwrap(), true).await;
        }
    }
    stop.send(true).unwrap();
    while let Some((key, number, receipt)) = receipts.recv().await {
        note(key, number, receipt.await.unwrap().offset.unwrap());
    }
    writer.await.unwrap();
    println!("{cut_off} of {rounds} kills left a file that was not finished; {} records", places.len());
    assert!(cut_off > 0, "no kill fell into compaction");

    let (followed, all) = tokio::time::timeout(PATIENCE, reader).await.unwrap().unwrap();
    let (left, rest) = read(&Client::connect(&listen).await.unwrap(), true).await;
    assert!(generation(server.segment_of(TOPIC).parent().unwrap()) > 0, "nothing was compacted");
    for seen in all.iter().chain(&rest) {
        assert_eq!(places.get(&seen.offset), Some(&seen.number), "{seen:?} is not what was acknowledged there");
    }
    for (key, number) in &newest {
        // A tombstone may be gone already, and everything before it must be.
        let deleted = number % 7 == 3 && key != END;
        for (who, read) in [("the follower", followed.get(key)), ("who reads now", left.get(key))] {
            match read {
                Some(seen) if who == "the follower" && deleted => assert!(seen.number <= *number, "{key}: {seen:?}"),
                Some(seen) => assert_eq!((seen.number, seen.tombstone), (*number, deleted), "{key}: {who}"),
                None => assert!(deleted, "{key} is missing for {who}; it was {number}"),
            }
        }
    }
    assert_eq!(server.terminate(), Some(0));
    tidelog(&["verify", data.to_str().unwrap()]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_updated_ten_times_come_down_to_one_record_each_while_others_write_and_read() {
    const KEYS: u64 = 2_000;
    const UPDATES: u64 = 10;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = start(&data, None);
    let client = Client::connect(server.address()).await.unwrap();
    create(&client, "0.5").await;
    let producer = client.producer().memory(2_000_000).build().await.unwrap();
    let value = "x".repeat(100);
    let message =
        |key: String, number: u64| Message::to(TOPIC).key(key).header("n", number.to_string()).value(value.clone());
    for number in 0..KEYS * UPDATES {
        producer.send(message(format!("k{:05}", number % KEYS), number)).await.unwrap();
    }
    producer.flush().await.unwrap();
    let follower = Client::connect(server.address()).await.unwrap();
    let follower = tokio::spawn(async move { read(&follower, false).await });
    // Others write on, to keys of their own: what was written before is sealed at some time, and then compacted.
    let (deadline, mut number) = (Instant::now() + PATIENCE, KEYS * UPDATES);
    loop {
        for _ in 0..500 {
            producer.send(message(format!("live{}", number % 50), number)).await.unwrap();
            number += 1;
        }
        producer.flush().await.unwrap();
        let (newest, all) = read(&client, true).await;
        let ours: Vec<_> = newest.iter().filter(|(key, _)| key.starts_with('k')).collect();
        assert_eq!(ours.len() as u64, KEYS, "no key is missing at any time");
        for (_, seen) in ours {
            assert!(seen.number >= KEYS * (UPDATES - 1), "{seen:?} is not the newest");
        }
        let left = all.iter().filter(|seen| seen.number < KEYS * UPDATES).count() as u64;
        if left == KEYS {
            break;
        }
        assert!(Instant::now() < deadline, "{left} records are left: {}", server.log());
    }
    producer.send_and_wait(message(END.to_owned(), number)).await.unwrap();
    let (newest, all) = tokio::time::timeout(PATIENCE, follower).await.unwrap().unwrap();
    assert!(all.iter().all(|seen| seen.offset == seen.number), "offsets stay what they were");
    assert_eq!(newest.keys().filter(|key| key.starts_with('k')).count() as u64, KEYS);
    assert_eq!(server.terminate(), Some(0));
    tidelog(&["verify", data.to_str().unwrap()]).ok();
}
