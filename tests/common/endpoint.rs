//! Somebody else's HTTP endpoint, which does what the path that it is called by says, and notes what it gets.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything takes, on a machine that does other things too.
pub const LONG: Duration = Duration::from_secs(90);

/// A call as an endpoint gets it.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

/// Somebody else's endpoint, which does what its path says.
pub struct Endpoint {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    pub async fn start(address: SocketAddr) -> Self {
        Self::start_with(address, Arc::default()).await
    }

    /// One that notes what it gets where another did, which may still be answering.
    pub async fn start_with(address: SocketAddr, got: Arc<Mutex<Vec<Got>>>) -> Self {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        let seen = got.clone();
        let task = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                calls.spawn(answer(stream, seen.clone()));
            }
        });
        Self { address, got, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn got(&self, path: &str) -> Vec<Got> {
        self.got.lock().unwrap().iter().filter(|got| got.path == path).cloned().collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, seen: Arc<Mutex<Vec<Got>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let bad = body.starts_with(b"bad") || body.starts_with(b"[") && body.windows(4).any(|part| part == b"\"bad");
        let before = {
            let mut seen = seen.lock().unwrap();
            seen.push(Got { path: path.clone(), headers, body, at: Instant::now() });
            seen.iter().filter(|got| got.path == path).count() - 1
        };
        let redirect;
        let says = match path.as_str() {
            "/later" if before < 2 => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nno!",
            "/gone" => "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
            "/never" => "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nwhat",
            "/elsewhere" => {
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n"
            }
            // To another endpoint, which the rest of the path names.
            to if to.starts_with("/to/") => {
                let to = &to["/to/".len()..];
                redirect =
                    format!("HTTP/1.1 308 Permanent Redirect\r\nlocation: http://{to}\r\ncontent-length: 0\r\n\r\n");
                &redirect
            }
            "/picky" if bad => "HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\n\r\nnot for me!",
            "/busy" if before == 0 => "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n",
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                "HTTP/1.1 204 No Content\r\n\r\n"
            }
            "/hang" => std::future::pending().await,
            "/drip" => {
                for byte in b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                }
                return;
            }
            "/flood" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
                let mut written = stream.write_all(head.as_bytes()).await;
                while written.is_ok() {
                    written = stream.write_all(&[b'z'; 65536]).await;
                }
                return;
            }
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        };
        if stream.write_all(says.as_bytes()).await.is_err() {
            return;
        }
    }
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
