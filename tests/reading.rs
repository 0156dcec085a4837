//! Reading without a group: patterns, bounds, rates, and by pull, against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Server, tidelog};
use tidelog::client::{Client, Message, NewTopic};

const PATIENCE: Duration = Duration::from_secs(60);

async fn produce(client: &Client, topic: &str, values: std::ops::Range<u64>) {
    let producer = client.producer().build().await.unwrap();
    for value in values {
        producer.send(Message::to(topic).value(format!("{{\"n\":{value}}}"))).await.unwrap();
    }
    producer.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_meet_a_pattern_join_a_follower_when_they_are_created_and_leave_it_when_they_are_deleted() {
    let mut server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    produce(&client, "crm.eu.accounts", 0..3).await;
    produce(&client, "crm.eu.contacts", 0..3).await;
    let mut consumer = client.consumer().topic("crm.*.accounts").build().await.unwrap();
    let mut next = async || {
        let record = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("nothing comes").unwrap().unwrap();
        (record.topic.to_string(), record.partition)
    };
    for _ in 0..3 {
        assert_eq!(next().await.0, "crm.eu.accounts");
    }
    produce(&client, "crm.us.accounts", 0..2).await;
    produce(&client, "erp.us.accounts", 0..2).await;
    assert_eq!([next().await.0, next().await.0], ["crm.us.accounts", "crm.us.accounts"]);
    // More partitions join as well, from their beginning.
    let change = tidelog::client::TopicChange::new("crm.us.accounts").partitions(3);
    client.admin().alter_topic(change).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    producer.send_and_wait(Message::to("crm.us.accounts").partition(2).value("x")).await.unwrap();
    assert_eq!(next().await, ("crm.us.accounts".to_owned(), 2));
    // A deleted topic ends its own part only, and comes back as a new one.
    client.admin().delete_topic("crm.eu.accounts").await.unwrap();
    produce(&client, "crm.us.accounts", 0..1).await;
    assert_eq!(next().await.0, "crm.us.accounts");
    produce(&client, "crm.eu.accounts", 0..1).await;
    assert_eq!(next().await.0, "crm.eu.accounts");
    // All of this also over a restart of the server.
    let (listen, data) = (server.address().to_owned(), server.data_dir());
    server.kill();
    let _again = Server::start_on(&data, &["--listen", &listen]);
    produce(&client, "crm.asia.accounts", 0..1).await;
    assert_eq!(next().await.0, "crm.asia.accounts");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_gives_so_much_at_most_waits_so_long_at_most_and_passes_what_the_filter_leaves_out() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders")).await.unwrap();
    produce(&client, "orders", 0..1_000).await;
    let mut pull = client.pull("orders", 0).from(100).filter("value.n >= 900");
    let mut got = 0;
    while got < 100 {
        let pulled = pull.pull().await.unwrap();
        assert!(pulled.records.iter().all(|record| record.offset >= 900));
        got += pulled.records.len();
    }
    assert_eq!((got, pull.position()), (100, 1_000), "the position is past what does not match");
    let error = client.pull("orders", 0).filter("value.n >=").pull().await.unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn the_command_line_reads_patterns_ranges_and_at_a_rate() {
    let server = Server::start();
    let run = |args: &[&str]| tidelog(&[args, &["--server", server.address()]].concat());
    run(&["produce", "crm.accounts", "a", "b", "c", "d"]).ok();
    run(&["produce", "crm.contacts", "e"]).ok();
    run(&["produce", "erp.orders", "f"]).ok();
    let text = |args: &[&str]| {
        let mut words: Vec<String> =
            String::from_utf8_lossy(&run(args).ok().stdout).lines().map(str::to_owned).collect();
        words.sort();
        words.concat()
    };
    assert_eq!(text(&["consume", "crm.>"]), "abcde");
    assert_eq!(text(&["consume", "crm.>", "erp.orders"]), "abcdef");
    assert_eq!(text(&["consume", "crm.accounts", "--from", "offset:1", "--to", "offset:3"]), "bc");
    assert_eq!(text(&["consume", "crm.accounts", "--from", "last:2"]), "cd");
    assert_eq!(text(&["consume", "crm.accounts", "--to", "ago:1h"]), "");
    assert_eq!(text(&["consume", "crm.accounts", "--rate", "200/s"]), "abcd");
    run(&["consume", "crm.accounts", "--to", "nowhere"]).fails(2);
    let refused = run(&["consume", "crm.accounts", "--filter", "value."]).fails(1);
    assert!(refused.reason().contains("line 1"), "{}", refused.reason());
}
