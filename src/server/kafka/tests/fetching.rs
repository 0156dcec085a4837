//! What a Fetch over many partitions costs, by counters: what has changed, not what is named.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::super::api::{self, Api};
use super::super::response::Response;
use super::super::session::{Hangup, Session};
use super::super::{errors, fuzz, requests};
use crate::broker::{AckLevel, NewTopic};
use crate::record::{BatchBuilder, BatchOptions};
use crate::server::Server;
use crate::server::budget::Holder;
use crate::server::config::ServerConfig;

const PARTITIONS: u32 = 50;
/// The version whose fields are all of fixed length but for the topic's name.
const VERSION: i16 = 4;

struct Bench {
    server: Server,
    session: Arc<Session>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".to_owned();
        let config = ServerConfig { data_dir: dir.path().join("data"), listen, ..ServerConfig::default() };
        let server = Server::start(config).await.unwrap();
        let address = server.kafka_addresses()[0];
        let session = Session::new(Arc::clone(&server.shared), address, address);
        let topic = NewTopic {
            name: "t".parse().unwrap(),
            partitions: Some(PARTITIONS),
            settings: Vec::new(),
            if_not_exists: false,
        };
        server.shared.broker.create_topic(topic).await.unwrap();
        Self { server, session, _dir: dir }
    }

    async fn append(&self, partition: u32) {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(5, None, Some(b"x"), &[]);
        let broker = &self.server.shared.broker;
        broker.produce("t", partition, builder.build(), AckLevel::Durable).await.unwrap();
    }

    fn reads(&self) -> u64 {
        self.server.shared.broker.metrics().reads.get()
    }

    async fn fetch(&self, frame: BytesMut) -> Vec<(i32, i16, usize)> {
        let account = self.server.shared.incoming.account(1 << 20, Holder::calls());
        let pending = requests::begin(&self.session, frame, account.take(1).await).await.unwrap();
        read(pending.await)
    }
}

/// A Fetch of these partitions from their beginnings.
fn frame(partitions: impl ExactSizeIterator<Item = u32>, max_wait: Duration, min_bytes: i32) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i32(-1);
    body.put_i32(i32::try_from(max_wait.as_millis()).unwrap());
    body.put_i32(min_bytes);
    body.put_i32(1 << 20);
    body.put_u8(0);
    body.put_i32(1);
    body.put_slice(b"\0\x01t");
    body.put_i32(i32::try_from(partitions.len()).unwrap());
    for partition in partitions {
        body.put_u32(partition);
        body.put_i64(0);
        body.put_i32(1 << 20);
    }
    fuzz::request(Api::of(api::FETCH).unwrap(), VERSION, &body)
}

/// Number, error and bytes of each partition of an answer.
fn read(outcome: Result<Option<Response>, Hangup>) -> Vec<(i32, i16, usize)> {
    let pieces = outcome.unwrap().unwrap().pieces;
    let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
    let i32_at = |at: usize| i32::from_be_bytes(all[at..at + 4].try_into().unwrap());
    // Length, correlation, throttle, one topic with a name of one letter.
    let mut at = 4 + 4 + 4 + 4 + 3;
    let count = i32_at(at);
    at += 4;
    let mut out = Vec::new();
    for _ in 0..count {
        let (number, error) = (i32_at(at), i16::from_be_bytes(all[at + 4..at + 6].try_into().unwrap()));
        // Both ends, and no aborted transactions.
        at += 4 + 2 + 16 + 4;
        let bytes = usize::try_from(i32_at(at)).unwrap();
        at += 4 + bytes;
        out.push((number, error, bytes));
    }
    assert_eq!(at, all.len());
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_of_many_partitions_reads_those_that_have_something() {
    let bench = Bench::start().await;
    let before = bench.reads();
    let found = bench.fetch(frame(0..PARTITIONS, Duration::ZERO, 1)).await;
    assert_eq!((found.len(), bench.reads() - before), (PARTITIONS as usize, 0));
    let waiting = bench.fetch(frame(0..PARTITIONS, Duration::from_secs(120), 1));
    let (found, ()) = tokio::join!(waiting, bench.append(7));
    assert_eq!(bench.reads() - before, 1);
    let some: Vec<_> = found.iter().filter(|(_, _, bytes)| *bytes > 0).map(|(number, ..)| *number).collect();
    assert_eq!(some, [7]);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_wants_many_bytes_reads_again_what_has_changed() {
    let bench = Bench::start().await;
    for partition in 0..PARTITIONS {
        bench.append(partition).await;
    }
    let one = bench.fetch(frame(0..1, Duration::ZERO, 1)).await[0].2;
    let before = bench.reads();
    // What is there, and three batches more.
    let wanted = i32::try_from(one * (PARTITIONS as usize + 3)).unwrap();
    let waiting = bench.fetch(frame(0..PARTITIONS, Duration::from_secs(120), wanted));
    let appends = async {
        for partition in [3, 9, 4] {
            bench.append(partition).await;
        }
    };
    let (found, ()) = tokio::join!(waiting, appends);
    assert!(found.iter().map(|(_, _, bytes)| *bytes).sum::<usize>() >= wanted as usize);
    // Each once to learn how much there is, once for the answer, and again what has changed.
    let reads = bench.reads() - before;
    assert!(reads <= 2 * u64::from(PARTITIONS) + 3, "{reads} reads");
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_a_fetch_names_twice_is_refused_where_it_is_named_again() {
    let bench = Bench::start().await;
    bench.append(1).await;
    let found = bench.fetch(frame([1, 2, 1].into_iter(), Duration::from_secs(120), 1)).await;
    let errors: Vec<_> = found.iter().map(|(number, error, bytes)| (*number, *error, *bytes > 0)).collect();
    assert_eq!(errors, [(1, errors::NONE, true), (2, errors::NONE, false), (1, errors::INVALID_REQUEST, false)]);
    bench.server.stop().await;
}
