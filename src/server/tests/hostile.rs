//! Peers that announce, hold and do not move; each beside honest ones.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::base::Bytes;

/// Longer than any honest request here may take.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

async fn start(dir: &tempfile::TempDir, change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = config(dir);
    change(&mut config);
    Server::start(config).await.unwrap()
}

async fn kafka(server: &Server) -> TcpStream {
    TcpStream::connect(server.kafka_addresses()[0]).await.unwrap()
}

/// The head of a Produce request (version 7) whose frame announces so many bytes.
fn announced(bytes: u32) -> Vec<u8> {
    let mut frame = bytes.to_be_bytes().to_vec();
    frame.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 1, 0, 1, b'x']);
    frame
}

/// Status and content of the answer to one HTTP request.
async fn http(server: &Server, request: String, body: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(server.http_addresses()[0]).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

async fn post(server: &Server, body: &[u8]) -> (u16, String) {
    let head = "POST /topics/t?key=a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    http(server, format!("{head}content-length: {}\r\n\r\n", body.len()), body).await
}

/// Waits until something holds that follows from what was sent.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_and_not_sent_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut socket = kafka(&server).await;
        socket.write_all(&announced(64 << 20)).await.unwrap();
        socket.write_all(&[0; 4096]).await.unwrap();
        silent.push(socket);
    }
    for _ in 0..6 {
        let mut socket = TcpStream::connect(server.http_addresses()[0]).await.unwrap();
        let head = "POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8388608\r\n\r\nx";
        socket.write_all(head.as_bytes()).await.unwrap();
        silent.push(socket);
    }
    until("ten first steps", || server.shared.incoming.used() == 10 * 64 * 1024).await;
    assert_eq!(post(&server, b"honest").await.0, 200);
    assert_eq!(post(&server, &vec![b'x'; 7 << 20]).await.0, 200, "a large one as well");
    assert_eq!(server.shared.incoming.evictions(), 0, "nobody had to go");
    drop(silent);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_memory_and_does_not_move_goes_once_others_wait() {
    let dir = tempfile::tempdir().unwrap();
    // 16 MiB come in, 4 of them kept.
    let server = start(&dir, |config| {
        config.max_total_bytes = Bytes(32 << 20);
        config.max_connection_bytes = Bytes(32 << 20);
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut socket = kafka(&server).await;
        socket.write_all(&announced(6 << 20)).await.unwrap();
        socket.write_all(&vec![0; 3 << 20]).await.unwrap();
        silent.push(socket);
    }
    until("8 MiB held", || server.shared.incoming.used() == 8 << 20).await;
    assert_eq!(post(&server, b"small").await.0, 200, "small ones have the kept part");
    assert_eq!(server.shared.incoming.evictions(), 0);
    let (status, answer) = post(&server, &vec![b'x'; 3 << 20]).await;
    assert_eq!(status, 200, "{answer}");
    assert!((1..=2).contains(&server.shared.incoming.evictions()), "{}", server.shared.incoming.evictions());
    let mut closed = 0;
    for mut socket in silent {
        closed += u64::from(timeout(std::time::Duration::from_millis(200), socket.read(&mut [0])).await.is_ok());
    }
    assert_eq!(closed, server.shared.incoming.evictions());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_shut_nobody_out_and_each_door_has_places_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir, |config| {
        config.max_connections = 4;
        config.kafka_max_connections = 4;
        config.http_max_connections = 4;
        config.admin_listen = "127.0.0.1:0".to_owned();
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(kafka(&server).await);
        silent.push(TcpStream::connect(server.http_addresses()[0]).await.unwrap());
        silent.push(TcpStream::connect(server.addresses()[0]).await.unwrap());
    }
    for path in ["/health", "/ready", "/metrics", "/requests"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        assert_eq!(http(&server, request, b"").await.0, 200, "{path}");
    }
    let mut late = kafka(&server).await;
    // ApiVersions, version 0.
    late.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 0]).await.unwrap();
    timeout(SOON, late.read_exact(&mut [0; 4])).await.expect("an answer").unwrap();
    // Those that came first have given way: their connections end.
    for mut socket in silent.drain(..3) {
        let mut rest = Vec::new();
        timeout(SOON, socket.read_to_end(&mut rest)).await.expect("the end").unwrap();
    }
    let stop = timeout(std::time::Duration::from_secs(15), server.stop());
    stop.await.expect("silent peers do not hold up a stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_does_not_hold_up_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir, |_| {}).await;
    let mut half = Vec::new();
    for text in ["", "GET /hea", "POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf"] {
        let mut socket = TcpStream::connect(server.http_addresses()[0]).await.unwrap();
        socket.write_all(text.as_bytes()).await.unwrap();
        half.push(socket);
    }
    let mut frame = kafka(&server).await;
    frame.write_all(&announced(1 << 20)).await.unwrap();
    let metrics = server.shared.metrics.clone();
    until("four connections", || metrics.all_connections() == 4).await;
    let began = std::time::Instant::now();
    server.stop().await;
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(15), "{took:?}, and the timeout is 20 s");
    let mut answer = String::new();
    half[2].read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}
