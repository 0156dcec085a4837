//! A real server is killed under load, again and again; what it acknowledged is there, once and in order.
//! `TIDELOG_KILLS=n` kills it that many times (8 if not set).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::Server;
use tidelog::client::{Client, Message, StartAt};

async fn read_all(client: &Client, topic: &str) -> Vec<(u64, String)> {
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let mut out = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        out.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_in_and_come_back_over_tcp_and_a_clean_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let mut receipts = Vec::new();
    for at in 0..5_000 {
        receipts.push(producer.send(Message::to("orders").value(format!("{at}"))).await.unwrap());
    }
    for (at, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt.await.unwrap().offset, Some(at as u64));
    }
    let all = read_all(&client, "orders").await;
    assert_eq!(all.len(), 5_000);
    assert_eq!(server.terminate(), Some(0), "SIGTERM ends it cleanly");
    let server = Server::start_on(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    assert_eq!(read_all(&client, "orders").await, all);
}

/// What a terminal sends when it is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_ends_nothing_and_is_a_line_in_the_log() {
    let server = Server::start();
    for times in 1..=2 {
        let pid = server.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        while server.log().matches("SIGHUP ignored").count() < times {
            assert!(std::path::Path::new(&format!("/proc/{pid}/fd/0")).exists(), "it has ended");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let client = Client::connect(server.address()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    producer.send_and_wait(Message::to("orders").value("a")).await.unwrap();
    assert_eq!(server.terminate(), Some(0), "SIGTERM ends it cleanly all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_under_load() {
    let kills: usize = std::env::var("TIDELOG_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let listen = server.address().to_owned();
    let mut acknowledged: Vec<(u64, String)> = Vec::new();
    let mut number = 0u64;
    for round in 0..kills {
        let client = Client::connect(&listen).await.unwrap();
        let producer = client.producer().delivery_timeout(Duration::from_millis(1500)).build().await.unwrap();
        let (sender, mut receipts) = tokio::sync::mpsc::unbounded_channel();
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let load = tokio::spawn(async move {
            while !*stopped.borrow_and_update() {
                let value = format!("{number:08} {}", "x".repeat((number % 700) as usize));
                number += 1;
                match producer.send(Message::to("load").value(value.clone())).await {
                    Ok(receipt) => sender.send((value, receipt)).unwrap(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            number
        });
        let mut sure = 0;
        while sure < 500 * (round + 1) {
            let (value, receipt) = receipts.recv().await.unwrap();
            // A machine that is very busy may not get to it in the short time that it has.
            if let Ok(stored) = receipt.await {
                acknowledged.push((stored.offset.unwrap(), value));
                sure += 1;
            }
        }
        server.kill();
        stop.send(true).unwrap();
        number = load.await.unwrap();
        // Every other time the server comes back while the producer still tries.
        if round % 2 == 0 {
            server = Server::start_on(dir.path(), &["--listen", &listen]);
        }
        while let Some((value, receipt)) = receipts.recv().await {
            if let Ok(stored) = receipt.await {
                acknowledged.push((stored.offset.unwrap(), value));
            }
        }
        if round % 2 == 1 {
            server = Server::start_on(dir.path(), &["--listen", &listen]);
        }
    }
    let client = Client::connect(&listen).await.unwrap();
    let all = read_all(&client, "load").await;
    assert!(all.iter().enumerate().all(|(at, (offset, _))| *offset == at as u64), "offsets are contiguous");
    for (offset, value) in &acknowledged {
        assert_eq!(&all[*offset as usize].1, value, "acknowledged at {offset}");
    }
    let distinct: HashSet<&str> = all.iter().map(|(_, value)| &value[..8]).collect();
    assert_eq!(distinct.len(), all.len(), "nothing is there twice");
    assert!(all.windows(2).all(|pair| pair[0].1[..8] < pair[1].1[..8]), "in the order sent");
}
