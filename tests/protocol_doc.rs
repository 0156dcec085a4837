//! docs/protocol.md says what the code does: its examples are encoded and decoded here and played against a real server,
//! and its tables are held against the source.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
#![allow(clippy::disallowed_methods, reason = "this test reads the project's own page and source")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::BytesMut;
use serde::Serialize;
use tidelog::base::{ErrorKind, Isolation, limits};
use tidelog::catalog::SETTINGS;
use tidelog::protocol::*;
use tidelog::record::{BatchBuilder, BatchHeader, BatchOptions, Bounds, check_produced, patch_assigned, read_records};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn page() -> String {
    read("docs/protocol.md")
}

/// The fenced blocks marked `hex NAME`; behind a `#` is annotation.
fn examples() -> BTreeMap<String, Vec<u8>> {
    let page = page();
    let mut examples = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let digits: String = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .flat_map(|line| line.split('#').next().unwrap().split_whitespace())
            .collect();
        let bytes = digits.as_bytes().chunks(2).map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap_or_else(|_| panic!("{name}: {pair:?}"))
        });
        assert!(examples.insert(name.to_owned(), bytes.collect()).is_none(), "two examples are called {name}");
    }
    examples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().enumerate().fold(String::new(), |mut out, (at, byte)| {
        let _ = write!(out, "{}{byte:02x}", if at % 16 == 0 { "\n" } else { " " });
        out
    })
}

/// What the crate makes of every example, by name.
#[derive(Default)]
struct Made(BTreeMap<&'static str, Vec<u8>>);

impl Made {
    fn frame<M: Message + PartialEq + std::fmt::Debug>(
        &mut self,
        name: &'static str,
        flags: u16,
        id: u64,
        message: &M,
        payload: &[u8],
    ) {
        self.any(name, M::KIND, flags, id, message, payload);
        let frame = decoded(&self.0[name]);
        assert_eq!((frame.kind, frame.flags, frame.correlation), (M::KIND.code(), flags, id), "{name}");
        assert_eq!((&frame.decode::<M>().unwrap(), &frame.payload[..]), (message, payload), "{name}");
    }

    fn error(&mut self, name: &'static str, kind: Kind, flags: u16, id: u64, body: &ErrorBody) {
        self.any(name, kind, flags, id, body, &[]);
        let frame = decoded(&self.0[name]);
        assert_eq!(&decode_body::<ErrorBody>(frame.kind, &frame.body).unwrap(), body, "{name}");
    }

    fn any(&mut self, name: &'static str, kind: Kind, flags: u16, id: u64, message: &impl Serialize, payload: &[u8]) {
        let mut bytes = encode_frame(kind.code(), flags, id, message, payload.len()).unwrap();
        bytes.extend_from_slice(payload);
        self.0.insert(name, bytes.to_vec());
    }
}

fn decoded(bytes: &[u8]) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    let frame = FrameDecoder::new(limits::FRAME_BYTES).decode(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty(), "{} bytes behind the frame", buffer.len());
    frame
}

const SERVER_ID: &str = "00112233445566778899aabbccddeeff";
const TOPIC_ID: &str = "0123456789abcdef0123456789abcdef";
const APPENDED_MS: i64 = 1_700_000_000_250;

fn batch() -> Vec<u8> {
    let options = BatchOptions { producer_id: 0, producer_epoch: 0, base_sequence: 0, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    builder.push(1_700_000_000_000, Some(b"k1"), Some(b"hello"), &[("h", Some(b"1")), ("e", None)]);
    builder.build().to_vec()
}

fn made() -> Made {
    let mut made = Made::default();
    let topic = || "orders".to_owned();
    let (client_name, client_version) = ("example".to_owned(), "1.0".to_owned());
    made.frame(
        "hello",
        0,
        1,
        &Hello { min_version: 1, max_version: 1, client_name, client_version, credentials: None },
        &[],
    );
    let config = ServerConfig::default();
    let limits = ServerLimits {
        max_frame_bytes: config.max_frame_bytes() as u32,
        max_batch_bytes: config.max_batch_bytes() as u32,
        max_requests_in_flight: config.max_requests_in_flight as u32,
        max_bytes_in_flight: config.max_connection_bytes.0,
        max_subscriptions: config.max_subscriptions as u32,
        idle_timeout_ms: config.idle_timeout.0,
    };
    let (server_id, server_version) = (SERVER_ID.to_owned(), "0.1.0".to_owned());
    made.frame("hello-ok", flags::RESPONSE, 1, &HelloOk { version: 1, server_id, server_version, limits }, &[]);
    made.frame("metadata", 0, 2, &Metadata { topic: topic(), create: true }, &[]);
    let (id, partitions, max_batch_bytes) = (TOPIC_ID.to_owned(), 1, limits::DEFAULT_BATCH_BYTES as u32);
    let metadata = MetadataOk { id, partitions, max_batch_bytes, created: true };
    made.frame("metadata-ok", flags::RESPONSE, 2, &metadata, &[]);
    made.frame("init-producer", 0, 3, &InitProducer { resume: None }, &[]);
    made.frame("init-producer-ok", flags::RESPONSE, 3, &InitProducerOk { producer_id: 0, epoch: 0 }, &[]);
    made.frame("produce", 0, 4, &Produce { topic: topic(), partition: 0, ack: Ack::Durable }, &batch());
    let produced = ProduceOk { base_offset: 0, last_offset: 0, timestamp: APPENDED_MS, duplicate: false };
    made.frame("produce-ok", flags::RESPONSE, 4, &produced, &[]);
    let (max_bytes, min_bytes, max_wait_ms, skip_damaged) = (1 << 20, 1, 500, false);
    let fetch = |offset| Fetch {
        topic: topic(),
        partition: 0,
        offset,
        max_bytes,
        min_bytes,
        max_wait_ms,
        skip_damaged,
        filter: None,
        isolation: Isolation::Committed,
    };
    made.frame("fetch", 0, 5, &fetch(0), &[]);
    let fetched = FetchOk { log_start: 0, stable_end: 1, next_offset: 1, skipped: Vec::new() };
    made.frame("fetch-ok", flags::RESPONSE, 5, &fetched, &batch());
    let subscribe = Subscribe {
        topic: topic(),
        partition: 0,
        offset: 0,
        credit_records: 1000,
        credit_bytes: 1 << 20,
        skip_damaged: false,
        filter: None,
        isolation: Isolation::Committed,
    };
    made.frame("subscribe", 0, 6, &subscribe, &[]);
    let subscribed = SubscribeOk { subscription: 1, log_start: 0, stable_end: 1 };
    made.frame("subscribe-ok", flags::RESPONSE, 6, &subscribed, &[]);
    let delivery =
        Delivery { subscription: 1, next_offset: 1, stable_end: 1, skipped: Vec::new(), unanswered: 0, reason: None };
    made.frame("delivery", flags::PUSH, 1, &delivery, &batch());
    made.frame("credit", 0, 0, &Credit { subscription: 1, records: 1, bytes: batch().len() as u64 }, &[]);
    made.frame("fetch-beyond", 0, 7, &fetch(9), &[]);
    let refused = ErrorBody {
        code: ErrorKind::OffsetOutOfRange.code(),
        message: "topic 'orders' partition 0: offset 9 is out of range: the log has 0 to 1 (end not included)"
            .to_owned(),
        retry_after_ms: None,
        range: Some(OffsetRange { log_start: 0, log_end: 1 }),
    };
    made.error("error", Kind::Fetch, flags::RESPONSE | flags::ERROR, 7, &refused);
    let stopping = ErrorBody {
        code: ErrorKind::ShuttingDown.code(),
        message: "the server is stopping".to_owned(),
        retry_after_ms: Some(1000),
        range: None,
    };
    made.error("subscription-ended", Kind::SubscriptionEnded, flags::PUSH | flags::ERROR, 1, &stopping);
    made.error("goodbye", Kind::Goodbye, flags::PUSH | flags::ERROR, 0, &stopping);
    made.0.insert("batch", batch());
    let at = |at| {
        encode_body(&ListOffsets { topic: "t".to_owned(), partition: 2, at, isolation: Isolation::Committed }).unwrap()
    };
    made.0.insert("body-end", at(OffsetAt::End));
    made.0.insert("body-timestamp", at(OffsetAt::Timestamp(-2)));
    let settings = vec![Setting { name: "cleanup".to_owned(), value: "delete".to_owned() }];
    let create = CreateTopic { name: "t".to_owned(), partitions: Some(3), settings, if_not_exists: true };
    made.0.insert("body-create", encode_body(&create).unwrap());
    made.0.insert("body-resume", encode_body(&InitProducer { resume: Some((7, 1)) }).unwrap());
    made
}

#[test]
fn every_example_is_what_the_crate_encodes_and_decodes() {
    let (examples, made) = (examples(), made().0);
    let mut wrong = String::new();
    for (name, bytes) in &made {
        if examples.get(*name) != Some(bytes) {
            let _ = writeln!(wrong, "{name}{}", hex(bytes));
        }
    }
    assert!(wrong.is_empty(), "examples that are missing or not these bytes:\n{wrong}");
    for name in examples.keys() {
        assert!(made.contains_key(name.as_str()), "the example {name} is checked by nobody");
    }
}

#[test]
fn the_example_batch_is_a_batch() {
    let bytes = examples().remove("batch").unwrap();
    let header = check_produced(&bytes, Bounds::accepting(limits::DEFAULT_BATCH_BYTES)).unwrap().header;
    assert_eq!((header.record_count, header.base_sequence, header.producer_id), (1, 0, 0));
    let records: Vec<_> = read_records(&bytes.clone().into(), 1 << 20).unwrap().map(Result::unwrap).collect();
    assert_eq!((records[0].value.as_deref(), records[0].headers.len()), (Some(&b"hello"[..]), 2));
    let mut moved = bytes;
    patch_assigned(&mut moved, 77, 0);
    assert_eq!(
        check_produced(&moved, Bounds::accepting(1 << 20)).unwrap().header.base_offset,
        77,
        "the checksum holds wherever it is stored"
    );
}

/// A cell without its markup.
fn plain(cell: &str) -> String {
    cell.replace('`', "").replace("&lt;", "<").replace("&gt;", ">")
}

/// The rows of the tables below a heading, as their cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "the page has no heading '{heading}'");
    lines
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| plain(cell.trim())).collect())
        .collect()
}

fn has(rows: &[Vec<String>], cells: &[&str]) -> bool {
    rows.iter().any(|row| row.len() >= cells.len() && row.iter().zip(cells).all(|(is, should)| is == should))
}

#[test]
fn every_kind_is_listed_and_described() {
    let page = page();
    let kinds = rows(&page, "## Kinds");
    for &kind in Kind::ALL {
        let (code, name) = (kind.code().to_string(), kind.name());
        assert!(has(&kinds, &[&code, name]), "kind {code} {name} is not in the table of kinds");
        rows(&page, &format!("### {code} {name}"));
    }
    assert_eq!(kinds.len(), Kind::ALL.len() + 1, "the table of kinds has rows that are no kinds");
}

#[test]
fn every_error_code_is_listed() {
    let errors = rows(&page(), "### Error codes");
    for kind in ErrorKind::ALL {
        let retriable = if kind.is_retriable() { "yes" } else { "no" };
        let row = [&kind.code().to_string(), kind.name(), retriable];
        assert!(has(&errors, &row), "error {row:?} is not in the table");
    }
    assert_eq!(errors.len(), ErrorKind::ALL.len() + 1);
}

/// A field's type as the page writes it.
fn wire_type(rust: &str) -> String {
    rust.replace("String", "string").replace("Vec<", "list<").replace("Option<", "option<")
}

/// The structs of the wire in a source file: name, and fields with types in order.
fn structs(source: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("pub struct ") else { continue };
        let name = rest.split(' ').next().unwrap().to_owned();
        let fields = if rest.ends_with("{}") {
            Vec::new()
        } else {
            let body = lines.by_ref().take_while(|line| *line != "}");
            let fields =
                body.filter_map(|line| line.trim().strip_prefix("pub ")?.trim_end_matches(',').split_once(": "));
            fields.map(|(name, of)| (name.to_owned(), wire_type(of))).collect()
        };
        found.push((name, fields));
    }
    found
}

#[test]
fn every_message_is_described_field_by_field() {
    let page = page();
    let mut count = 0;
    let folder = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol")).unwrap();
    let files = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // These hold no messages.
    let others = ["codec.rs", "error.rs", "frame.rs", "kind.rs", "mod.rs", "tests.rs"];
    for file in files.filter(|file| !others.contains(&file.as_str())) {
        for (name, fields) in structs(&read(&format!("src/protocol/{file}"))) {
            let described: Vec<(String, String)> = rows(&page, &format!("#### {name}"))
                .into_iter()
                .skip(1)
                .map(|row| (row[0].clone(), row[1].clone()))
                .collect();
            assert_eq!(described, fields, "{name}");
            count += 1;
        }
    }
    assert!(count >= 35, "{count} messages found");
}

#[test]
fn every_enum_value_is_described() {
    let page = page();
    let number = |value: Vec<u8>| u32::from_be_bytes(*value.first_chunk().unwrap()).to_string();
    for (ack, name) in [(Ack::None, "None"), (Ack::Written, "Written"), (Ack::Durable, "Durable")] {
        assert!(has(&rows(&page, "#### Ack"), &[&number(body(&ack)), name]), "{name}");
    }
    let values = [(OffsetAt::Beginning, "Beginning"), (OffsetAt::End, "End"), (OffsetAt::Timestamp(0), "Timestamp")];
    for (at, name) in values {
        assert!(has(&rows(&page, "#### OffsetAt"), &[&number(body(&at)), name]), "{name}");
    }
}

fn body(value: &impl Serialize) -> Vec<u8> {
    encode_body(value).unwrap()
}

#[test]
fn values_are_encoded_as_described() {
    assert_eq!((crc32fast::hash(b"123456789"), crc32c::crc32c(b"123456789")), (0xcbf4_3926, 0xe306_9283));
    assert_eq!(body(&0x0102u16), [1, 2]);
    assert_eq!(body(&-2i64), [255, 255, 255, 255, 255, 255, 255, 254]);
    assert_eq!(body(&true), [1]);
    assert_eq!(body(&"é"), [0, 0, 0, 0, 0, 0, 0, 2, 0xc3, 0xa9]);
    assert_eq!(body(&vec![7u8, 8]), [0, 0, 0, 0, 0, 0, 0, 2, 7, 8]);
    assert_eq!(body(&None::<u32>), [0]);
    assert_eq!(body(&Some(5u32)), [1, 0, 0, 0, 5]);
    assert_eq!(body(&(1i64, 2i16)), [0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
    assert_eq!(body(&Ping {}), [] as [u8; 0]);
    for bad in [&[2][..], &[1, 0, 0, 0], &[]] {
        assert!(decode_body::<InitProducer>(20, bad).is_err(), "{bad:?}");
    }
    let longer = [&encode_body(&Unsubscribe { subscription: 3 }).unwrap()[..], &[1, 2, 3]].concat();
    assert_eq!(decode_body::<Unsubscribe>(42, &longer).unwrap().subscription, 3, "bytes behind it are ignored");
}

/// Offsets and sizes follow each other and end where the header does.
fn check_layout(heading: &str, size: usize) {
    let mut at = 0;
    for row in rows(&page(), heading).iter().skip(1) {
        assert_eq!(row[0], at.to_string(), "{heading}: {row:?}");
        let Ok(bytes) = row[1].parse::<usize>() else { break };
        at += bytes;
    }
    assert_eq!(at, size, "{heading}");
}

#[test]
fn links_lead_somewhere() {
    let page = page();
    let headings: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|line| line.replace(' ', "-").replace(|c: char| !(c.is_alphanumeric() || "-_".contains(c)), ""))
        .collect();
    for link in page.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert_eq!(headings.iter().filter(|heading| *heading == link).count(), 1, "link to #{link}");
    }
}

#[test]
fn headers_are_described_without_gaps() {
    check_layout("### Frame header", limits::FRAME_HEADER_BYTES);
    check_layout("### Batch header", limits::BATCH_HEADER_BYTES);
    let header = BatchHeader::parse(&batch()).unwrap();
    assert_eq!((header.total_bytes(), header.batch_length as usize), (batch().len(), batch().len() - 12));
}

#[test]
fn every_limit_is_stated() {
    let stated = rows(&page(), "## Limits");
    let config = ServerConfig::default();
    let values = [
        limits::FRAME_HEADER_BYTES,
        limits::FRAME_BODY_BYTES,
        limits::FRAME_BYTES,
        limits::HELLO_FRAME_BYTES,
        limits::MAX_BATCH_BYTES,
        limits::DEFAULT_BATCH_BYTES,
        limits::RECORDS_PER_BATCH as usize,
        limits::MAX_DECOMPRESSED_BYTES,
        limits::OPENED_BYTES,
        limits::RECORD_BYTES,
        limits::RECORD_HEADERS,
        limits::RECORD_HEADER_BYTES,
        limits::TOPIC_NAME_CHARS,
        limits::PARTITIONS_PER_TOPIC as usize,
        limits::PRODUCER_BATCHES,
        limits::PRODUCERS_PER_PARTITION,
        config.max_connections,
        config.max_connections_per_address,
        config.max_requests_in_flight,
        config.max_connection_bytes.as_usize(),
        config.max_total_bytes.as_usize(),
        config.max_subscriptions,
        config.handshake_timeout.0 as usize,
        config.idle_timeout.0 as usize,
        config.write_timeout.0 as usize,
        config.shutdown_timeout.0 as usize,
    ];
    for value in values {
        let value = value.to_string();
        let found = stated.iter().any(|row| row.get(1).is_some_and(|cell| cell.split(' ').next() == Some(&value)));
        assert!(found, "the limit {value} is not in the table");
    }
    let page = page();
    for setting in SETTINGS {
        assert!(page.contains(&format!("`{}`", setting.name)), "the setting {} is not named", setting.name);
    }
    assert!(page.contains(&format!("version {PROTOCOL_VERSION_MAX}")));
}

/// A socket that knows nothing but the page's bytes.
struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next whole frame, as bytes.
    async fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let whole = u32::from_be_bytes(*length) as usize + 4;
                if self.buffer.len() >= whole {
                    return self.buffer.split_to(whole).to_vec();
                }
            }
            let read = self.stream.read_buf(&mut self.buffer);
            let read = tokio::time::timeout(std::time::Duration::from_secs(60), read).await.expect("no answer");
            assert!(read.unwrap() > 0, "the connection ended");
        }
    }
}

/// The message in a frame with what differs from run to run put to what the page shows.
fn settled<M: Message>(bytes: &[u8], settle: impl FnOnce(&mut M)) -> Vec<u8> {
    let frame = decoded(bytes);
    let mut message: M = frame.decode().unwrap();
    settle(&mut message);
    let mut bytes = encode_frame(frame.kind, frame.flags, frame.correlation, &message, frame.payload.len()).unwrap();
    bytes.extend_from_slice(&frame.payload);
    bytes.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_session_is_what_a_new_server_answers() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        ServerConfig { data_dir: dir.path().join("data"), listen: "127.0.0.1:0".to_owned(), ..Default::default() };
    let server = Server::start(config).await.unwrap();
    let stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    let mut peer = Peer { stream, buffer: BytesMut::new() };
    let shown = examples();
    let same = |name: &str, got: &[u8]| {
        assert!(got == shown[name], "{name}: the server sent{}\nshown is{}", hex(got), hex(&shown[name]));
    };

    peer.send(&shown["hello"]).await;
    same(
        "hello-ok",
        &settled(&peer.next().await, |ok: &mut HelloOk| {
            ok.server_id = SERVER_ID.to_owned();
            ok.server_version = "0.1.0".to_owned();
        }),
    );
    peer.send(&shown["metadata"]).await;
    same("metadata-ok", &settled(&peer.next().await, |ok: &mut MetadataOk| ok.id = TOPIC_ID.to_owned()));
    peer.send(&shown["init-producer"]).await;
    same("init-producer-ok", &peer.next().await);
    peer.send(&shown["produce"]).await;
    same("produce-ok", &settled(&peer.next().await, |ok: &mut ProduceOk| ok.timestamp = APPENDED_MS));
    peer.send(&shown["fetch"]).await;
    same("fetch-ok", &peer.next().await);
    peer.send(&shown["subscribe"]).await;
    same("subscribe-ok", &peer.next().await);
    same("delivery", &peer.next().await);
    peer.send(&shown["credit"]).await;
    peer.send(&shown["fetch-beyond"]).await;
    same("error", &peer.next().await);
    // The same batch once more is a duplicate.
    peer.send(&shown["produce"]).await;
    let again: ProduceOk = decoded(&peer.next().await).decode().unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));

    let last = async {
        same("subscription-ended", &peer.next().await);
        same("goodbye", &peer.next().await);
        assert_eq!(peer.stream.read_buf(&mut peer.buffer).await.unwrap(), 0, "nothing comes behind the goodbye");
    };
    tokio::join!(last, server.stop());
}
