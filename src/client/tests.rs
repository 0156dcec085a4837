//! The client against a server in memory that misbehaves as told.

mod consuming;
mod fake;
mod producing;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::base::ErrorKind;
use fake::Fake;

async fn client(fake: &Fake) -> Client {
    Client::builder().server(&fake.address).request_timeout(Duration::from_secs(2)).build().await.unwrap()
}

#[tokio::test]
async fn no_server_is_said_in_one_helpful_line() {
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    let line = "cannot reach a Tidelog server at 127.0.0.1:1: connection refused; is `tidelog serve` running?";
    assert_eq!(error.to_string(), line);
}

#[tokio::test]
async fn another_kind_of_server_is_recognized() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let error = Client::connect(&address).await.unwrap_err();
    assert!(error.to_string().contains("speaks HTTP"), "{error}");
}

#[tokio::test]
async fn requests_go_on_over_a_new_connection_when_the_old_one_broke() {
    let fake = Fake::start().await;
    fake.topic("a", 3);
    let client = client(&fake).await;
    assert_eq!(client.admin().list_topics().await.unwrap()[0].partitions, 3);
    fake.cut();
    assert_eq!(client.admin().list_topics().await.unwrap().len(), 1);
    assert_eq!(fake.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_servers_refusal_arrives_as_it_is() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let error = client.admin().metrics().await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unsupported, "metrics"));
}

#[tokio::test]
async fn an_idle_connection_is_kept_and_a_silent_one_given_up() {
    let fake = Fake::start_with(1000, 90).await;
    let client =
        Client::builder().server(&fake.address).request_timeout(Duration::from_millis(200)).build().await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(fake.pings.load(Ordering::SeqCst) >= 2);
    fake.deaf.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let error = client.admin().list_topics().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Disconnected), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    fake.deaf.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.admin().list_topics().await.unwrap();
    assert_eq!(fake.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn many_tasks_share_one_connection() {
    let fake = Fake::start().await;
    fake.topic("a", 1);
    let client = client(&fake).await;
    let asked = (0..200).map(|_| {
        let admin = client.admin();
        tokio::spawn(async move { admin.list_topics().await.unwrap().len() })
    });
    for answer in asked.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), 1);
    }
    assert_eq!(fake.connections.load(Ordering::SeqCst), 1);
}
