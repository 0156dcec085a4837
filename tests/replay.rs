//! A replay that is killed, with its server now and then, and resumed: exactly its range, once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Server, spawn, tidelog};
use tidelog::client::{Client, CommitPosition, Message, NewTopic, StartAt};

/// Offsets of each key's records in the order in which the topic has them.
async fn read(client: &Client, topic: &str) -> HashMap<String, Vec<u64>> {
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        found.entry(key).or_default().push(String::from_utf8_lossy(&record.value.unwrap()).trim().parse().unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_and_resumed_copies_each_record_once_and_in_order() {
    let (total, from, to) = (60_000u64, 1_000, 19_000);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let listen = server.address().to_owned();
    let client = Client::connect(&listen).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(3)).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for value in 0..total {
        let message = Message::to("orders").key((value % 50).to_string()).partition((value % 50 % 3) as u32);
        producer.send(message.value(format!("{value:>200}"))).await.unwrap();
    }
    producer.flush().await.unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let (from_arg, to_arg) = (format!("offset:{from}"), format!("offset:{to}"));
    let first = ["--name", "again", "--from", &from_arg, "--to", &to_arg];
    let mut args =
        [&["replay", "orders", "--into", "copy", "--rate", "40000/s", "--server", &listen], &first[..]].concat();
    let mut kills = 0;
    loop {
        let run = spawn(&args);
        tokio::time::sleep(Duration::from_millis(random.u64(150..700))).await;
        kills += 1;
        if kills == 6 {
            run.finish(Duration::from_secs(60)).ok();
            break;
        }
        run.signal("KILL");
        if kills % 3 == 0 {
            server.kill();
            server = Server::start_on(dir.path(), &["--listen", &listen]);
        }
        // A replay that ended before it was killed has nothing to be resumed.
        if client.admin().list_groups().await.unwrap().is_empty() {
            assert!(kills > 1, "it was never interrupted");
            break;
        }
        args.truncate(8);
        args.extend(["--resume", "again"]);
    }
    let copies = read(&client, "copy").await;
    let mut expected: HashMap<String, Vec<u64>> = HashMap::new();
    let mut next = [0u64; 3];
    for value in 0..total {
        let partition = (value % 50 % 3) as usize;
        if (from..to).contains(&next[partition]) {
            expected.entry((value % 50).to_string()).or_default().push(value);
        }
        next[partition] += 1;
    }
    for (key, values) in &expected {
        assert_eq!(copies.get(key).map(Vec::len), Some(values.len()), "copies of key {key}");
        assert_eq!(&copies[key], values, "key {key}");
    }
    assert_eq!(copies.len(), expected.len());
    let unknown = tidelog(&["replay", "orders", "--into", "copy", "--resume", "again", "--server", &listen]).fails(1);
    assert!(unknown.reason().contains("no unfinished replay"), "{}", unknown.reason());
    tidelog(&["replay", "orders", "--into", "orders", "--server", &listen]).fails(2);
}

/// Copies of which it was not noted that they are there, and some of which are not any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_into_a_compacted_topic_does_not_bring_old_values_back_when_it_is_resumed() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    client.admin().create_topic(NewTopic::new("state").partitions(1).set("cleanup", "compact")).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")] {
        producer.send(Message::to("orders").key(key).value(value)).await.unwrap();
    }
    // The first copy was removed by compaction: this is the second.
    let copy = Message::to("state").key("a").value("2");
    producer.send(copy.header("tidelog-source", "orders/0/1").header("tidelog-replay", "cut")).await.unwrap();
    producer.flush().await.unwrap();
    let position = |topic: &str, offset, metadata: &str| CommitPosition {
        topic: topic.to_owned(),
        partition: 0,
        offset,
        metadata: metadata.to_owned(),
    };
    let plan = r#"{"into":"state","until":4,"filter":null}"#;
    for position in [position("orders", 0, plan), position("state", 0, "")] {
        client.admin().commit_positions("replay.cut", vec![position]).await.unwrap();
    }
    tidelog(&["replay", "orders", "--into", "state", "--resume", "cut", "--server", server.address()]).ok();
    let state = read(&client, "state").await;
    assert_eq!(state, HashMap::from([("a".to_owned(), vec![2]), ("b".to_owned(), vec![1, 2])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_copies_were_deleted_says_that_it_cannot_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on(dir.path(), &["--retention-check", "100ms"]);
    let client = Client::connect(server.address()).await.unwrap();
    for topic in ["orders", "copy"] {
        client.admin().create_topic(NewTopic::new(topic).partitions(1)).await.unwrap();
    }
    let address = server.address();
    for topic in ["orders", "copy"] {
        tidelog(&["produce", topic, "1", "2", "--server", address]).ok();
    }
    let plan = r#"{"into":"copy","until":2,"filter":null}"#;
    for (topic, metadata) in [("orders", plan), ("copy", "")] {
        let position =
            CommitPosition { topic: topic.to_owned(), partition: 0, offset: 0, metadata: metadata.to_owned() };
        client.admin().commit_positions("replay.cut", vec![position]).await.unwrap();
    }
    client.admin().alter_topic(tidelog::client::TopicChange::new("copy").set("retention_time", "1s")).await.unwrap();
    let start = async || client.admin().describe_topic("copy").await.unwrap().partitions[0].log_start;
    while start().await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = tidelog(&["replay", "orders", "--into", "copy", "--resume", "cut", "--server", address]).fails(1);
    assert!(refused.reason().contains("copy/0 begins at 2"), "{}", refused.reason());
}
