//! Receipts by POST: what became of a record in a group, told to an endpoint, whoever is killed meanwhile.
//! `TIDELOG_KILLS=n` kills that many times (4 if not set).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and waits for a child")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::endpoint::{Endpoint, Got, LONG, until};
use common::{Server, tidelog, tidelog_with_input};
use serde_json::Value;
use tidelog::broker::WebhookSecret;
use tidelog::client::{Client, Message, NewTopic, QueueRules, RecordAt, StartAt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LOOPBACK: [&str; 2] = ["--outgoing-allow", "127.0.0.0/8"];

/// Sends a value; where it is.
async fn send(client: &Client, topic: &str, message: Message) -> RecordAt {
    let stored = client.producer().build().await.unwrap().send_and_wait(message).await.unwrap();
    RecordAt { topic: topic.to_owned(), partition: stored.partition, offset: stored.offset.unwrap() }
}

fn said(got: &Got) -> Value {
    serde_json::from_slice(&got.body).unwrap()
}

fn listed(server: &Server, more: &[&str]) -> Vec<Value> {
    let args = [&["receipts", "list", "--server", server.address(), "--json"], more].concat();
    let output = tidelog(&args).ok().stdout;
    String::from_utf8_lossy(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_says_what_became_of_the_record_signed_and_again_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let secret = WebhookSecret::random();
    let file = dir.path().join("secret");
    std::fs::write(&file, secret.text()).unwrap();
    let flags = [&LOOPBACK[..], &["--outgoing-secret-file", file.to_str().unwrap()]].concat();
    let server = Server::start_on(&dir.path().join("data"), &flags);
    let hook = Endpoint::start("127.0.0.1:0".parse().unwrap()).await;
    let client = Client::connect(server.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders")).await.unwrap();
    let ask = async |at: &RecordAt, path: &str, group: &str, timeout| {
        client.ask_receipts(group, hook.url(path), [at.clone()], timeout).await.unwrap();
    };
    let message = |text: &str| Message::to("orders").key(text.to_owned()).value(text.to_owned());
    let good = send(&client, "orders", message("good")).await;
    let bad = send(&client, "orders", message("bad")).await;
    let other = send(&client, "orders", message("other")).await;
    let late = send(&client, "orders", message("late").expires_at(1)).await;
    let (acked, gone) = (send(&client, "orders", message("a")).await, send(&client, "orders", message("b")).await);
    // The group does not exist yet.
    ask(&good, "/good", "erp", LONG).await;
    ask(&bad, "/bad", "erp", LONG).await;
    ask(&other, "/other", "erp", LONG).await;
    ask(&late, "/late", "erp", LONG).await;
    ask(&acked, "/later", "erp", LONG).await;
    ask(&gone, "/gone", "erp", LONG).await;
    ask(&good, "/read", "reader", LONG).await;
    ask(&good, "/nobody", "nobody", Duration::from_millis(300)).await;
    assert_eq!(listed(&server, &["--state", "waiting", "--group", "erp"]).len(), 6);
    let twice = client.ask_receipts("erp", hook.url("/else"), [good.clone()], LONG).await.unwrap_err();
    assert!(twice.to_string().contains("/good already"), "{twice}");
    let wrong = client.ask_receipts("erp", "ftp://example.com/", [good.clone()], LONG).await.unwrap_err();
    assert!(wrong.to_string().contains("not a URL that begins with https://"), "{wrong}");

    let rules = QueueRules { max_deliveries: 2, backoff_ms: 1, backoff_max_ms: 1, ..QueueRules::default() };
    let queue = client.queue("erp").topic("orders").rules(rules).filter("key != 'other'");
    let mut consumer = queue.join().await.unwrap();
    let member = tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            match delivery.record().value.as_deref() {
                Some(b"bad") => delivery.nack("cannot read it"),
                _ => delivery.ack(),
            }
        }
    });
    let mut reader = client.group_consumer("reader").topic("orders").from(StartAt::Beginning).join().await.unwrap();
    reader.next().await.unwrap().unwrap();
    reader.commit().await.unwrap();
    let expected = [
        ("/good", "acked", &good, "erp"),
        ("/bad", "dead_lettered", &bad, "erp"),
        ("/other", "not_wanted", &other, "erp"),
        ("/late", "expired", &late, "erp"),
        ("/later", "acked", &acked, "erp"),
        ("/read", "acked", &good, "reader"),
        ("/nobody", "timed_out", &good, "nobody"),
    ];
    let mut ids = BTreeSet::new();
    for (path, outcome, at, group) in expected {
        let times = if path == "/later" { 3 } else { 1 };
        until(path, || hook.got(path).len() == times).await;
        let got = hook.got(path);
        for call in &got {
            let body = said(call);
            assert_eq!(body["outcome"], outcome, "{path}: {body}");
            assert_eq!(
                (&body["topic"], &body["offset"], &body["group"]),
                (&"orders".into(), &at.offset.into(), &group.into())
            );
            assert_eq!(call.headers["ce-type"], format!("tidelog.receipt.{outcome}"));
            assert_eq!(call.headers["webhook-id"], got[0].headers["webhook-id"], "the same each time");
            let stamp = call.headers["webhook-timestamp"].parse().unwrap();
            let (id, signature) = (&call.headers["webhook-id"], &call.headers["webhook-signature"]);
            assert!(secret.verifies(id, stamp, &call.body, signature));
        }
        assert!(ids.insert(got[0].headers["webhook-id"].clone()));
    }
    // One that wants no more of them is not asked again, and the list says why.
    until("it is given up", || listed(&server, &[]).len() == 1).await;
    let given_up = &listed(&server, &["--state", "given_up"])[0];
    assert_eq!((&given_up["outcome"], &given_up["offset"]), (&"acked".into(), &gone.offset.into()));
    assert!(given_up["trouble"].as_str().unwrap().contains("410"), "{given_up}");
    let table = tidelog(&["receipts", "list", "--server", server.address()]).ok();
    assert!(String::from_utf8_lossy(&table.stdout).contains("given_up"));
    assert!(
        tidelog(&["receipts", "list", "--state", "x", "--server", server.address()])
            .fails(1)
            .reason()
            .contains("given_up")
    );
    // What was processed long ago is told at once.
    ask(&good, "/good", "erp", LONG).await;
    until("it is told again", || hook.got("/good").len() == 2).await;
    assert_eq!(hook.got("/good")[0].headers["webhook-id"], hook.got("/good")[1].headers["webhook-id"]);
    member.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn produce_and_http_ask_for_receipts_of_what_they_append() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [&LOOPBACK[..], &["--http-listen", "127.0.0.1:0"]].concat();
    let server = Server::start_on(&dir.path().join("data"), &flags);
    let hook = Endpoint::start("127.0.0.1:0".parse().unwrap()).await;
    let (address, http) = (server.address(), server.http_address());
    let client = Client::connect(address).await.unwrap();
    let lines: Vec<String> = (0..2_500).map(|number| number.to_string()).collect();
    let url = hook.url("/cli");
    let args = ["produce", "orders", "--receipt-of", "erp", "--receipt-to", &url, "--server", address];
    tidelog_with_input(&args, lines.join("\n").as_bytes()).ok();
    let url = hook.url("/http");
    let path = format!("/topics/orders?receipt_of=erp&receipt_to={url}");
    let answer = post(&http, &path, "{\"value\":1}\n{\"value\":2}\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for (query, why) in [
        ("?receipt_of=erp", "a receipt needs both receipt_of=GROUP and receipt_to=URL"),
        ("?receipt_of=erp&receipt_to=ftp://x", "not a URL that begins with https://"),
        (&format!("?receipt_of=erp&receipt_to={url}&ack=none"), "nobody knows where a record is"),
        (&format!("?receipt_of=erp&receipt_to={url}&receipt_timeout=9999d"), "allowed are 1ms to"),
    ] {
        let answer = post(&http, &format!("/topics/orders{query}"), "{\"value\":3}\n").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(why), "{answer}");
    }
    let none = tidelog(&["produce", "orders", "x", "--ack", "none", "--receipt-of", "g", "--receipt-to", "http://a/"]);
    assert!(none.fails(2).reason().contains("there are no receipts"));
    let mut consumer = client.queue("erp").topic("orders").join().await.unwrap();
    let member = tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            delivery.ack()
        }
    });
    until("all are told", || hook.got("/cli").len() >= 2_500 && hook.got("/http").len() >= 2).await;
    let told: BTreeSet<String> = hook.got("/cli").iter().map(|got| got.headers["webhook-id"].clone()).collect();
    assert_eq!(told.len(), 2_500);
    until("none is left", || listed(&server, &[]).is_empty()).await;
    member.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_and_an_endpoint_that_is_away_lose_no_receipt_and_none_says_two_things() {
    let seed =
        std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let kills: usize = std::env::var("TIDELOG_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &LOOPBACK);
    let address = server.address().to_owned();
    let flags = [&LOOPBACK[..], &["--listen", &address]].concat();
    let notes: Arc<Mutex<Vec<Got>>> = Arc::default();
    let mut endpoint = Some(Endpoint::start_with("127.0.0.1:0".parse().unwrap(), notes.clone()).await);
    let at = endpoint.as_ref().unwrap().address;
    let url = endpoint.as_ref().unwrap().url("/ok");
    // What each receipt has said, by group, partition and offset.
    let mut got: BTreeMap<(String, u64, u64), BTreeSet<(String, String)>> = BTreeMap::new();
    let mut take = || {
        for one in notes.lock().unwrap().drain(..) {
            let body = said(&one);
            let at = (
                body["group"].as_str().unwrap().to_owned(),
                body["partition"].as_u64().unwrap(),
                body["offset"].as_u64().unwrap(),
            );
            let says = (body["outcome"].as_str().unwrap().to_owned(), one.headers["webhook-id"].clone());
            got.entry(at).or_default().insert(says);
        }
        got.clone()
    };
    let patient =
        async || Client::builder().server(&address).request_timeout(Duration::from_secs(60)).build().await.unwrap();
    let client = patient().await;
    client.admin().create_topic(NewTopic::new("orders").partitions(2)).await.unwrap();
    let queue = patient().await;
    // Dying takes deliveries.
    let rules = QueueRules { max_deliveries: 50, backoff_ms: 1, backoff_max_ms: 1, ..QueueRules::default() };
    let workers = tokio::spawn(async move {
        let mut consumer = queue.queue("erp").topic("orders").rules(rules).join().await.unwrap();
        while let Some(delivery) = consumer.next().await {
            let Ok(delivery) = delivery else { continue };
            let bad = delivery.record().value.as_deref().is_some_and(|value| value.ends_with(b"7"));
            if bad { delivery.nack("no") } else { delivery.ack() }
        }
    });
    let reader = patient().await;
    let readers = tokio::spawn(async move {
        let mut consumer =
            reader.group_consumer("reader").topic("orders").from(StartAt::Beginning).join().await.unwrap();
        while let Some(record) = consumer.next().await {
            if record.is_ok() {
                let _ = consumer.commit().await;
            }
        }
    });
    let mut asked: BTreeMap<(String, u64, u64), &str> = BTreeMap::new();
    for round in 0..=kills {
        let producer = client.producer().build().await.unwrap();
        for number in 0..40 {
            let message = Message::to("orders").key(number.to_string()).value(format!("{round}-{number}"));
            let stored = producer.send_and_wait(message).await.unwrap();
            let record =
                RecordAt { topic: "orders".to_owned(), partition: stored.partition, offset: stored.offset.unwrap() };
            for group in ["erp", "reader"] {
                client.ask_receipts(group, &url, [record.clone()], LONG * 10).await.unwrap();
                let dead = group == "erp" && number % 10 == 7;
                let outcome = if dead { "dead_lettered" } else { "acked" };
                asked.insert((group.to_owned(), record.partition.into(), record.offset), outcome);
            }
        }
        if random.bool() && endpoint.is_some() {
            endpoint = None;
        } else if endpoint.is_none() {
            endpoint = Some(Endpoint::start_with(at, notes.clone()).await);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..200))).await;
        if round < kills {
            server.kill();
            server = Server::start_on(dir.path(), &flags);
        }
    }
    let _endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => Endpoint::start_with(at, notes.clone()).await,
    };
    until("all are told", || take().len() == asked.len()).await;
    let got = take();
    for (at, outcome) in &asked {
        assert_eq!(got[at].len(), 1, "{at:?}: {:?}", got[at]);
        assert_eq!(got[at].first().unwrap().0, *outcome, "{at:?}");
    }
    until("none is left", || listed(&server, &[]).is_empty()).await;
    workers.abort();
    readers.abort();
}
