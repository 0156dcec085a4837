//! What is stuck in a queue group and what an operator does about it, against a real server that is killed: the list of records,
//! pause and resume, a record that is skipped, one partition that is reset.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Outcome, Server, tidelog};
use serde_json::{Value, json};
use tidelog::client::{Client, Delivery, Message, NewTopic, QueueConsumer, QueueRules, RecordAt};

const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing comes within it that is not to come.
const SILENCE: Duration = Duration::from_millis(400);

fn lines(output: &Outcome) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn produce(client: &Client, topic: &str, records: &[(&str, &str)]) {
    let producer = client.producer().build().await.unwrap();
    for (key, value) in records {
        producer.send(Message::to(topic).key((*key).to_owned()).value((*value).to_owned())).await.unwrap();
    }
    producer.flush().await.unwrap();
}

async fn next(consumer: &mut QueueConsumer) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("nothing comes").unwrap().unwrap()
}

async fn nothing_comes(consumer: &mut QueueConsumer) {
    let came = tokio::time::timeout(SILENCE, consumer.next()).await;
    assert!(came.is_err(), "{:?}", came.map(|came| came.map(|came| came.map(|delivery| delivery.attempt()))));
}

fn value(delivery: &Delivery) -> String {
    String::from_utf8(delivery.record().value.as_ref().unwrap().to_vec()).unwrap()
}

/// State, attempt and error of each record, by offset.
fn records(address: &str, group: &str) -> BTreeMap<u64, (String, u64, Value)> {
    let found = tidelog(&["group", "describe", group, "--records", "--json", "--server", address]).ok();
    let line = |line: &Value| {
        let state = line["state"].as_str().unwrap().to_owned();
        (line["offset"].as_u64().unwrap(), (state, line["attempt"].as_u64().unwrap(), line["error"].clone()))
    };
    lines(&found).iter().map(line).collect()
}

fn slow(lease_ms: u64) -> QueueRules {
    QueueRules {
        lease_ms,
        backoff_ms: 600_000,
        backoff_max_ms: 600_000,
        max_deliveries: 10,
        ordered_by_key: true,
        ..QueueRules::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_is_listed_record_by_record_also_without_members_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let address = server.address().to_owned();
    let client = Client::connect(&address).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    produce(&client, "orders", &[("a", "0"), ("b", "1"), ("a", "2"), ("c", "3")]).await;
    tidelog(&["produce", "orders", "4", "--key", "d", "--delay", "1h", "--server", &address]).ok();
    let mut consumer = client.queue("erp").topic("orders").rules(slow(300_000)).join().await.unwrap();
    let (held, failed, done) = (next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await);
    failed.nack("no such\naccount");
    done.ack_durable().await.unwrap();
    let expected: BTreeMap<u64, (String, u64, Value)> = [
        (0, ("in_hand".to_owned(), 1, Value::Null)),
        (1, ("backing_off".to_owned(), 1, json!("no such\naccount"))),
        (2, ("blocked".to_owned(), 0, Value::Null)),
        (4, ("delayed".to_owned(), 0, Value::Null)),
    ]
    .into();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while records(&address, "erp") != expected && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(records(&address, "erp"), expected);
    let run = |args: &[&str]| tidelog(&[args, &["--server", address.as_str()]].concat());
    let listed = lines(&run(&["group", "describe", "erp", "--records", "--json"]).ok());
    assert_eq!(
        (&listed[0]["key"], &listed[0]["topic"], &listed[0]["partition"]),
        (&json!("a"), &json!("orders"), &json!(0))
    );
    assert!(listed[0]["member"].is_string() && listed[0]["client"].is_string(), "{}", listed[0]);
    assert!(listed.iter().all(|line| line["next"].is_i64() || line["state"] == "blocked"), "{listed:?}");
    let shown = run(&["group", "describe", "erp", "--records", "--limit", "2"]).ok();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("lease ends in") && text.contains("backing off") && text.contains("no such account"),
        "{text}"
    );
    assert!(shown.stderr().contains("the first 2 records are shown; --limit shows more"), "{}", shown.stderr());

    // Page by page it is the same, each record once.
    let (mut from, mut pages) = (None, Vec::new());
    loop {
        let (page, next) = client.admin().group_records("erp", from, 1).await.unwrap();
        pages.extend(page.iter().map(|record| record.record.offset));
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(pages, [0, 1, 2, 4]);
    let refused = client.admin().group_records("erp", None, 1_001).await.unwrap_err().to_string();
    assert!(refused.contains("a page of 1001 records; allowed are 1 to 1000"), "{refused}");

    drop(held);
    consumer.close().await.unwrap();
    server.kill();
    server = Server::start_on(dir.path(), &["--listen", &address]);
    // Nobody has joined: what has failed is known, its reason is not.
    let after = records(&address, "erp");
    assert_eq!(after.get(&1), Some(&("backing_off".to_owned(), 1, Value::Null)), "{after:?}");
    run(&["group", "create", "audit", "--topic", "orders", "--group-kind", "stream"]).ok();
    let reason = run(&["group", "describe", "audit", "--records"]).fails(1).reason();
    assert!(reason.contains("group 'audit' is a stream group"), "{reason}");
    run(&["group", "describe", "nobody", "--records"]).fails(3);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_paused_hands_out_nothing_also_after_a_kill_and_what_is_in_hand_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &["--outgoing-allow", "127.0.0.0/8"]);
    let address = server.address().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let run = |args: &[&str]| tidelog(&[args, &["--server", address.as_str()]].concat());
    produce(&client, "orders", &[("a", "0"), ("b", "1")]).await;
    let rules = QueueRules { backoff_ms: 1, backoff_max_ms: 1, ..QueueRules::default() };
    let mut consumer = client.queue("erp").topic("orders").rules(rules).prefetch(2).join().await.unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let paused = lines(&run(&["group", "pause", "erp", "--json"]).ok());
    assert_eq!(paused, [json!({ "group": "erp", "paused": true, "changed": true })]);
    assert!(run(&["group", "pause", "erp"]).ok().stderr().contains("was paused already"));
    produce(&client, "orders", &[("c", "2")]).await;
    first.ack_durable().await.unwrap();
    second.nack("later");
    nothing_comes(&mut consumer).await;
    assert_eq!(records(&address, "erp").into_values().map(|(state, ..)| state).collect::<Vec<_>>(), ["due"]);

    server.kill();
    server = Server::start_on(dir.path(), &["--listen", &address, "--outgoing-allow", "127.0.0.0/8"]);
    nothing_comes(&mut consumer).await;
    let described = lines(&run(&["group", "describe", "erp", "--json"]).ok());
    assert!(described[0]["paused"].is_i64(), "{}", described[0]);
    assert!(String::from_utf8_lossy(&run(&["group", "describe", "erp"]).ok().stdout).contains("paused since"));
    let listed = run(&["group", "list"]).ok();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("paused"), "{listed:?}");
    assert!(lines(&run(&["group", "list", "--json"]).ok())[0]["paused"].is_i64());
    // What is defined anew stays paused.
    run(&["group", "alter", "erp", "--max-deliveries", "7"]).ok();
    nothing_comes(&mut consumer).await;
    assert!(run(&["group", "resume", "erp"]).ok().stderr().contains("group 'erp' goes on"));
    let mut again = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut consumer).await;
        again.push((value(&delivery), delivery.attempt()));
        delivery.ack();
    }
    again.sort();
    assert_eq!(again, [("1".to_owned(), 2), ("2".to_owned(), 1)]);
    assert!(run(&["group", "resume", "erp"]).ok().stderr().contains("was not paused"));

    // One that is deleted and made anew is not paused.
    run(&["group", "pause", "erp"]).ok();
    consumer.close().await.unwrap();
    run(&["group", "delete", "erp"]).ok();
    run(&["group", "create", "erp", "--topic", "orders"]).ok();
    assert_eq!(lines(&run(&["group", "describe", "erp", "--json"]).ok())[0]["paused"], Value::Null);
    run(&["group", "create", "audit", "--topic", "orders", "--group-kind", "stream"]).ok();
    let reason = run(&["group", "pause", "audit"]).fails(1).reason();
    assert!(reason.contains("group 'audit' is a stream group, which cannot be paused"), "{reason}");
    run(&["push", "create", "hook", "--topic", "orders", "--url", "http://127.0.0.1:9/x"]).ok();
    assert!(run(&["group", "pause", "hook"]).fails(4).reason().contains("tidelog push pause hook"));
    run(&["group", "pause", "erp"]).ok();
    let reason =
        run(&["push", "create", "erp", "--topic", "orders", "--url", "http://127.0.0.1:9/x"]).fails(4).reason();
    assert!(reason.contains("tidelog group resume erp"), "{reason}");
    run(&["group", "pause", "nobody"]).fails(3);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_skipped_never_comes_again_and_its_members_ack_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let address = server.address().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let run = |args: &[&str]| tidelog(&[args, &["--server", address.as_str()]].concat());
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    produce(&client, "orders", &[("a", "0"), ("a", "1"), ("a", "2"), ("b", "3")]).await;
    let mut consumer = client.queue("erp").topic("orders").rules(slow(300_000)).join().await.unwrap();
    let (held, other) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!((value(&held), value(&other)), ("0".to_owned(), "3".to_owned()));
    // One that waits behind another of its key; then the one that holds it up.
    let was = lines(&run(&["group", "skip", "erp", "orders", "0", "1", "--json"]).ok());
    assert_eq!((&was[0]["state"], &was[0]["key"]), (&json!("blocked"), &json!("a")));
    let said = run(&["group", "skip", "erp", "orders", "0", "0"]).ok().stderr();
    assert!(said.contains("has skipped orders/0 offset 0, key a: it was in hand of member"), "{said}");
    held.ack_durable().await.unwrap();
    let behind = next(&mut consumer).await;
    assert_eq!(value(&behind), "2", "the next of the key has its turn, and the skipped one none");
    behind.ack_durable().await.unwrap();
    other.ack_durable().await.unwrap();
    run(&["group", "pause", "erp"]).ok();
    produce(&client, "orders", &[("c", "4"), ("c", "5")]).await;
    let was = lines(&run(&["group", "skip", "erp", "orders", "0", "4", "--json"]).ok());
    assert_eq!(was[0]["state"], "not_reached");
    let reason = run(&["group", "skip", "erp", "orders", "0", "4"]).fails(1).reason();
    assert!(reason.contains("is done with orders/0 offset 4 already"), "{reason}");
    let reason = run(&["group", "skip", "erp", "orders", "0", "99"]).fails(1).reason();
    assert!(reason.contains("orders/0 has no offset 99: it has 0 to 6 (end not included)"), "{reason}");

    server.kill();
    server = Server::start_on(dir.path(), &["--listen", &address]);
    run(&["group", "resume", "erp"]).ok();
    let last = next(&mut consumer).await;
    assert_eq!((value(&last), last.attempt()), ("5".to_owned(), 1));
    last.ack_durable().await.unwrap();
    nothing_comes(&mut consumer).await;
    let described = lines(&run(&["group", "describe", "erp", "--json"]).ok());
    assert_eq!((&described[0]["lag"], &described[0]["partitions"][0]["floor"]), (&json!(0), &json!(6)));
    assert!(client.admin().describe_topic("dead-letter.erp").await.is_err(), "it is no dead letter");
    produce(&client, "other", &[("a", "0")]).await;
    let not_read = client.admin().skip_record("erp", RecordAt { topic: "other".into(), partition: 0, offset: 0 }).await;
    assert!(not_read.unwrap_err().to_string().contains("group 'erp' does not read topic 'other'"));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partition_is_reset_and_what_is_done_in_the_others_stays_done() {
    let server = Server::start();
    let address = server.address();
    let client = Client::connect(address).await.unwrap();
    let run = |args: &[&str]| tidelog(&[args, &["--server", address]].concat());
    client.admin().create_topic(NewTopic::new("orders").partitions(3)).await.unwrap();
    for partition in 0..3 {
        let values: Vec<String> = (0..10).map(|at| format!("{partition}-{at}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let partition = partition.to_string();
        run(&[&["produce", "orders", "--partition", &partition], &values[..]].concat()).ok();
    }
    let mut consumer = client.queue("erp").topic("orders").join().await.unwrap();
    for _ in 0..30 {
        next(&mut consumer).await.ack_durable().await.unwrap();
    }
    let reset = ["group", "reset", "erp", "--topic", "orders", "--partition", "1", "--to", "offset:7"];
    let plan = run(&[&reset[..], &["--dry-run", "--json"]].concat()).ok();
    assert_eq!(lines(&plan).len(), 1);
    assert!(run(&reset).fails(4).reason().contains("1 active member"));
    let changed = lines(&run(&[&reset[..], &["--force", "--json"]].concat()).ok());
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!((&changed[0]["partition"], &changed[0]["to"], &changed[0]["end"]), (&json!(1), &json!(7), &json!(10)));
    let mut again = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut consumer).await;
        again.push(value(&delivery));
        delivery.ack_durable().await.unwrap();
    }
    again.sort();
    assert_eq!(again, ["1-7", "1-8", "1-9"]);
    nothing_comes(&mut consumer).await;
    consumer.close().await.unwrap();
    let both = ["group", "reset", "erp", "--topic", "orders", "--partition", "0", "--partition", "2", "--to", "last:1"];
    assert_eq!(lines(&run(&[&both[..], &["--json"]].concat()).ok()).len(), 2);
    let described = lines(&run(&["group", "describe", "erp", "--json"]).ok());
    let floors: Vec<_> = described[0]["partitions"].as_array().unwrap().iter().map(|at| at["floor"].clone()).collect();
    assert_eq!(floors, [json!(9), json!(10), json!(9)]);
    let far = ["group", "reset", "erp", "--topic", "orders", "--partition", "7", "--to", "end"];
    assert!(run(&far).fails(3).reason().contains("group 'erp' reads no partition orders/7"));
    run(&["group", "reset", "erp", "--topic", "*", "--partition", "1", "--to", "end"]).fails(2);
    run(&["group", "reset", "erp", "--partition", "1", "--to", "end"]).fails(2);

    run(&["group", "create", "audit", "--topic", "orders", "--group-kind", "stream"]).ok();
    run(&["group", "reset", "audit", "--to", "end"]).ok();
    run(&["group", "reset", "audit", "--topic", "orders", "--partition", "2", "--to", "beginning"]).ok();
    let positions = client.admin().positions("audit").await.unwrap();
    let mut positions: Vec<_> = positions.iter().map(|at| (at.partition, at.offset)).collect();
    positions.sort_unstable();
    assert_eq!(positions, [(0, 10), (1, 10), (2, 0)]);
}
