//! Bodies that are none, to every kind of request that is offered, over TCP to the real program. It may take 4 GiB of
//! addresses, and no more: a count that is believed would take more than that at once, and end it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, DescribeClusterRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, PATIENCE};

/// Kilobytes of addresses that the server may have.
const ADDRESSES: &str = "4194304";
/// Random bodies for each version of each kind.
const RANDOM: usize = 4;

/// The server, and what it has logged. It is killed when it is dropped.
struct Limited {
    child: Child,
    address: SocketAddr,
    log: Option<JoinHandle<String>>,
}

impl Limited {
    fn start(data: &std::path::Path) -> Self {
        let script = format!("ulimit -v {ADDRESSES} && exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_tidelog"), "serve", "--listen", "127.0.0.1:0"])
            .args(["--kafka-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = Vec::new();
            log.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("Kafka listener")).expect("the server did not start");
        let address = line.split_whitespace().last().unwrap().parse().unwrap();
        Self { child, address, log: Some(log) }
    }

    /// Ends it; what it has logged.
    fn end(mut self) -> String {
        assert!(self.child.try_wait().unwrap().is_none(), "the server has ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing, counts of none and of thousands of millions, lengths that are negative, and noise.
fn bodies(rng: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut bodies = vec![
        Vec::new(),
        vec![0],
        vec![0; 64],
        vec![0xff; 64],
        vec![0x80; 64],
        [0x7f, 0xff, 0xff, 0xff].repeat(16),
        [0xff, 0xff, 0xff, 0xff, 0x0f].repeat(12),
        // A text of one letter, then arrays of all lengths.
        [&[0, 1, b't'][..], &[0x7f, 0xff, 0xff, 0xff].repeat(8)].concat(),
        [&[2, b't'][..], &[0xff, 0xff, 0xff, 0xff, 0x0f].repeat(8)].concat(),
    ];
    bodies.extend((0..RANDOM).map(|_| (0..rng.usize(1..300)).map(|_| rng.u8(..)).collect()));
    bodies
}

/// Sends bytes and no more, and reads until the server has ended the connection too, as it must.
async fn until_the_end(address: SocketAddr, bytes: &[u8]) {
    let mut client = Client::connect(address).await;
    // Both fail where the server has ended the connection first: that is an answer, too.
    let _ = client.stream.write_all(bytes).await;
    let _ = client.stream.shutdown().await;
    let mut answer = Vec::new();
    let read = client.stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("left open after {bytes:02x?}"));
}

fn frame(key: i16, version: i16, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(1);
    out.put_u8(b'c');
    if ApiKey::try_from(key).unwrap().request_header_version(version) >= 2 {
        out.put_u8(0);
    }
    out.put_slice(body);
    let length = i32::try_from(out.len() - 4).unwrap();
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Beside the traps: one malformed request has ended other servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_of_any_request_makes_the_server_panic_or_take_much_memory() {
    let seed = std::env::var("TIDELOG_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(17);
    println!("TIDELOG_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let server = Limited::start(&dir.path().join("data"));
    let offered = Client::connect(server.address).await.call(0, &ApiVersionsRequest::default()).await;
    assert!(offered.api_keys.len() > 20);
    for api in &offered.api_keys {
        for version in api.min_version..=api.max_version {
            for body in bodies(&mut rng) {
                let whole = frame(api.api_key, version, &body);
                until_the_end(server.address, &whole).await;
            }
            // Cut off within the frame, and a length that is negative or larger than any.
            let mut whole = frame(api.api_key, version, &[0; 16]);
            until_the_end(server.address, &whole[..rng.usize(1..whole.len())]).await;
            for length in [-1, i32::MIN, i32::MAX] {
                whole[..4].copy_from_slice(&length.to_be_bytes());
                until_the_end(server.address, &whole).await;
            }
        }
    }
    let cluster = Client::connect(server.address).await.call(1, &DescribeClusterRequest::default()).await;
    assert_eq!(cluster.error_code, 0);
    let log = server.end();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("cannot be encoded"), "an answer that its version has no words for: {log}");
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// An unsigned varint.
fn varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A JoinGroup (version 0) of a new member that says so much of itself.
fn join(group: &str, bytes: usize) -> BytesMut {
    let mut body =
        [&text(group)[..], &1_800_000i32.to_be_bytes(), &text(""), &text("consumer"), &[0, 0, 0, 1]].concat();
    body.extend_from_slice(&text("range"));
    body.extend_from_slice(&(bytes as i32).to_be_bytes());
    body.resize(body.len() + bytes, b'x');
    frame(11, 0, &body)
}

/// What peers announce, say of themselves, and send ahead of an answer is no memory of the server's beyond its budgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_peers_make_the_server_keep_stays_within_its_budgets() {
    const MIB: u64 = 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let server = Limited::start(&dir.path().join("data"));
    let process = server.child.id().to_string();
    let resident = || tidelog::server::process::resident_bytes(&process);
    let Some(before) = resident() else { return };
    let mut open = Vec::new();
    // 60 frames of 64 MiB, announced.
    for _ in 0..60 {
        let mut client = Client::connect(server.address).await;
        client.bytes(&[0x04, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 1, b'x']).await;
        client.bytes(&[0; 4096]).await;
        open.push(client);
    }
    // 120 members that vanish: half of them say more than a member may.
    for number in 0..120 {
        let mut client = Client::connect(server.address).await;
        client.bytes(&join("g", if number % 2 == 0 { 4_000_000 } else { 1_000_000 })).await;
        let _ = client.stream.shutdown().await;
        drop(client);
    }
    // A fetch that waits, and requests of 90,000 tagged fields behind it.
    let mut client = Client::connect(server.address).await;
    client.bytes(&frame(3, 4, &[&[0, 0, 0, 1][..], &text("t"), &[1]].concat())).await;
    client.next().await.unwrap();
    let numbers = [-1i32, 120_000, 1, 1 << 20].map(i32::to_be_bytes).concat();
    let topic = [&[0, 0, 0, 0, 1][..], &text("t"), &[0, 0, 0, 1], &[0; 4], &[0; 8], &[0, 16, 0, 0]].concat();
    client.bytes(&frame(1, 4, &[numbers, topic].concat())).await;
    let mut tags = vec![0];
    varint(90_000, &mut tags);
    for tag in 0..90_000 {
        varint(tag, &mut tags);
        tags.push(0);
    }
    for _ in 0..40 {
        client.bytes(&frame(60, 0, &tags)).await;
    }
    open.push(client);
    // Served all the while.
    let cluster = Client::connect(server.address).await.call(1, &DescribeClusterRequest::default()).await;
    assert_eq!(cluster.error_code, 0);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let after = resident().unwrap();
    println!("resident: {} MiB before, {} MiB after", before / MIB, after / MIB);
    assert!(after < before + 160 * MIB, "{} MiB before, {} MiB after", before / MIB, after / MIB);
    drop(open);
    server.end();
}
