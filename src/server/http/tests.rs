//! Byte-level tests against a real server on a free port.

mod cursors;
mod parts;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::guest::{Names, check};
use super::problem::Problem;
use crate::base::{Bytes, ErrorKind, Millis, limits};
use crate::server::Server;
use crate::server::config::ServerConfig;

/// Whatever must come comes within this.
const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    server: Server,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(config(&dir, change)).await.unwrap();
        Self { server, dir }
    }

    fn at(&self) -> SocketAddr {
        self.server.http_addresses()[0]
    }

    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.at()).await.unwrap()
    }

    /// Sends something and reads what comes until the connection ends.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.open().await;
        // A server that has refused may have stopped reading.
        let _ = stream.write_all(request.as_ref()).await;
        Reply::read(&mut stream).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.raw([head.as_bytes(), body].concat()).await
    }
}

fn config(dir: &tempfile::TempDir, change: impl FnOnce(&mut ServerConfig)) -> ServerConfig {
    let mut config =
        ServerConfig { data_dir: dir.path().join("data"), listen: "127.0.0.1:0".to_owned(), ..Default::default() };
    change(&mut config);
    config
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut all = Vec::new();
        let read = async {
            let mut block = vec![0; 64 * 1024];
            // A reset ends it as well.
            while let Ok(read @ 1..) = stream.read(&mut block).await {
                all.extend_from_slice(&block[..read]);
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
        Self::parse(&all)
    }

    fn parse(all: &[u8]) -> Self {
        let text = String::from_utf8_lossy(all);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    #[track_caller]
    fn problem(&self, status: u16, kind: &str, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        assert_eq!((&body["kind"], &body["status"]), (&json!(kind), &json!(status)), "{self:?}");
        assert_eq!(body["type"], json!(format!("urn:tidelog:error:{kind}")));
        assert!(body["detail"].as_str().unwrap().contains(says), "{says:?} is not in {body}");
    }
}

/// A cursor without the topic's id.
fn place(cursor: &str) -> &str {
    cursor.split_once('.').map_or(cursor, |(_, place)| place)
}

fn values(answer: &Value) -> Vec<&Value> {
    answer["records"].as_array().unwrap().iter().map(|record| &record["value"]).collect()
}

#[tokio::test]
async fn health_readiness_and_metrics_are_served() {
    let bench = Bench::start().await;
    let health = bench.get("/health").await.ok();
    assert_eq!(health["status"], "ok");
    bench.post("/topics/orders", "", "one").await.ok();
    assert_eq!(bench.get("/ready").await.ok(), json!({ "status": "ready", "topics": 1 }));
    let metrics = bench.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    for name in [
        "tidelog_records_in_total 1",
        "tidelog_sync_seconds_bucket",
        "tidelog_append_queue 0",
        "tidelog_partitions_broken 0",
        "tidelog_http_connections 1",
        "tidelog_http_requests_total{path=\"/topics\"} 1",
        "tidelog_http_answers_total{status=\"200\"}",
        "# EOF",
    ] {
        assert!(metrics.body.contains(name), "{name} is not in {}", metrics.body);
    }
    let head = bench.raw("HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    bench.server.stop().await;
}

#[tokio::test]
async fn metrics_tell_how_far_groups_are_behind() {
    use crate::broker::{JoinQueue, OffsetAt, Settlement, Verdict};
    let bench = Bench::start().await;
    bench.post("/topics/orders?format=ndjson", "", "{\"value\":1}\n{\"value\":2}\n{\"value\":3}\n").await.ok();
    let broker = bench.server.shared.broker.clone();
    let member = broker
        .join_queue(JoinQueue {
            group: "billing".parse().unwrap(),
            settings: None,
            topics: vec!["orders".parse().unwrap()],
            filter: None,
            start: OffsetAt::Beginning,
            prefetch: 2,
            client: "test".to_owned(),
        })
        .await
        .unwrap();
    let handed = member.next().await.unwrap();
    assert_eq!(handed.next_offset, 2);
    let topic = handed.topic.clone();
    let ack = Settlement { topic, partition: 0, from: 0, to: 1, verdict: Verdict::Ack };
    member.settle(&[ack], true).await.unwrap();
    let has = |text: &str, line: &str| assert!(text.contains(line), "{line} is not in {text}");
    has(&bench.get("/metrics").await.body, "tidelog_group_lag{group=\"billing\",topic=\"orders\",partition=\"0\"} 2");
    drop(member);
    // Whoever holds the broker holds the directory.
    drop(broker);
    bench.server.stop().await;
    // Of a group that nobody has taken into use since, what was kept is shown.
    let server = Server::start(config(&bench.dir, |_| {})).await.unwrap();
    let bench = Bench { server, dir: bench.dir };
    has(&bench.get("/metrics").await.body, "tidelog_group_lag{group=\"billing\",topic=\"orders\",partition=\"0\"} 2");
    bench.server.stop().await;
}

#[tokio::test]
async fn a_body_is_a_record_with_key_and_headers_and_is_read_back() {
    let bench = Bench::start().await;
    let headers = "content-type: application/json\r\ntidelog-header-Tenant: eu\r\nce-type: order.created\r\n";
    let answer = bench.post("/topics/orders?key=o-1", headers, r#"{"total":12}"#).await.ok();
    assert_eq!(answer["topic"], "orders");
    assert_eq!((&answer["records"][0]["partition"], &answer["records"][0]["offset"]), (&json!(0), &json!(0)));
    assert!(answer["records"][0]["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
    bench.post("/topics/orders?ack=written", "tidelog-key: o-2\r\n", b"\xff\x00").await.ok();
    // What is only written is read as soon as it is synced.
    bench.get("/topics/orders?from=offset:1&wait=60s").await.ok();
    let read = bench.get("/topics/orders?from=beginning").await.ok();
    let records = read["records"].as_array().unwrap();
    assert_eq!((&records[0]["key"], &records[0]["value"]), (&json!("o-1"), &json!("{\"total\":12}")));
    assert_eq!(
        records[0]["headers"],
        json!({ "content-type": "application/json", "tenant": "eu", "ce_type": "order.created" })
    );
    assert_eq!((&records[1]["key"], &records[1]["value"]), (&json!("o-2"), &json!({ "base64": "/wA=" })));
    assert_eq!(place(read["next"].as_str().unwrap()), "0:2,*");
    bench.server.stop().await;
}

#[tokio::test]
async fn ack_none_is_answered_before_it_is_done() {
    let bench = Bench::start().await;
    let answer = bench.post("/topics/orders?ack=none", "", "x").await;
    assert_eq!((answer.status, answer.json()), (202, json!({ "topic": "orders", "accepted": true })));
    let read = bench.get("/topics/orders?from=offset:0&wait=30s").await.ok();
    assert_eq!(values(&read), [&json!("x")]);
    bench.server.stop().await;
}

#[tokio::test]
async fn lists_and_lines_of_records_are_appended_in_order() {
    let bench = Bench::start().await;
    let list = json!({ "records": [
        { "key": "a", "value": "text" },
        { "key": { "base64": "AQI=" }, "value": { "json": [1, 2] }, "headers": { "h": ["1", "2"], "n": null } },
        { "value": null, "timestamp": 1234 },
        { "value": { "base64": "/wA=" } },
        { "value": 12 },
    ] });
    let kind = "content-type: application/vnd.tidelog.records+json\r\n";
    let answer = bench.post("/topics/orders", kind, list.to_string()).await.ok();
    let offsets: Vec<_> = answer["records"].as_array().unwrap().iter().map(|record| &record["offset"]).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    assert_eq!(answer["records"][2]["timestamp"], 1234);
    let lines = bench.raw(
        "GET /topics/orders HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\nconnection: close\r\n\r\n",
    );
    let lines = lines.await;
    assert!(lines.head.contains(":5,*"), "{lines:?}");
    // What was read can be written again, as it is.
    bench.post("/topics/copy", "content-type: application/x-ndjson; charset=utf-8\r\n", &lines.body).await.ok();
    let (one, two) = (bench.get("/topics/orders").await.ok(), bench.get("/topics/copy").await.ok());
    for (one, two) in one["records"].as_array().unwrap().iter().zip(two["records"].as_array().unwrap()) {
        for field in ["key", "value", "headers", "timestamp", "offset"] {
            assert_eq!(one[field], two[field]);
        }
    }
    assert_eq!(one["records"][1]["value"], "{\"json\":[1,2]}");
    assert_eq!(one["records"][1]["headers"], json!({ "h": ["1", "2"], "n": null }));
    bench.server.stop().await;
}

#[tokio::test]
async fn what_the_request_says_holds_for_records_of_a_list_that_do_not_say_it() {
    let bench = Bench::start().await;
    let new = crate::broker::NewTopic {
        name: "parts".parse().unwrap(),
        partitions: Some(4),
        settings: Vec::new(),
        if_not_exists: false,
    };
    bench.server.shared.broker.create_topic(new).await.unwrap();
    let lines = [r#"{"value":"a"}"#, r#"{"value":"b","partition":1,"key":"own","headers":{"tenant":"us"}}"#].join("\n");
    let each: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let list = json!({ "records": each });
    let bodies = [("application/x-ndjson", lines), ("application/vnd.tidelog.records+json", list.to_string())];
    for (round, (kind, body)) in bodies.into_iter().enumerate() {
        let headers = format!("content-type: {kind}\r\ntidelog-header-Tenant: eu\r\n");
        let answer = bench.post("/topics/parts?partition=3&key=k", &headers, body).await.ok();
        let at = |record: usize| answer["records"][record]["partition"].clone();
        assert_eq!((at(0), at(1)), (json!(3), json!(1)));
        for (partition, key, tenant) in [(3, "k", "eu"), (1, "own", "us")] {
            let read = bench.get(&format!("/topics/parts?partition={partition}&from=beginning")).await.ok();
            let record = &read["records"][round];
            assert_eq!((&record["key"], &record["headers"]), (&json!(key), &json!({ "tenant": tenant })));
        }
    }
    let refused = bench.post("/topics/parts?partition=4", "content-type: application/x-ndjson\r\n", r#"{"value":"a"}"#);
    assert_eq!(refused.await.status, 400);
    let refused = bench.post("/topics/parts?partition=x", "content-type: application/x-ndjson\r\n", r#"{"value":"a"}"#);
    assert_eq!(refused.await.status, 400);
    bench.server.stop().await;
}

#[tokio::test]
async fn records_go_to_the_partitions_of_their_keys() {
    let bench = Bench::start_with(|config| config.default_partitions = 4).await;
    let lines: String = (0..40).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect();
    let answer = bench.post("/topics/orders?format=ndjson", "", lines).await.ok();
    let read = bench.get("/topics/orders?max=1000").await.ok();
    assert_eq!(read["records"].as_array().unwrap().len(), 40);
    for record in read["records"].as_array().unwrap() {
        let at: usize = record["value"].as_str().unwrap().parse().unwrap();
        let told = &answer["records"][at];
        assert_eq!((&told["partition"], &told["offset"]), (&record["partition"], &record["offset"]));
        let partition = crate::record::partition_for_key(format!("k{at}").as_bytes(), 4);
        assert_eq!(record["partition"], partition);
    }
    let one = bench.post("/topics/orders?partition=3", "", "x").await.ok();
    assert_eq!(one["records"][0]["partition"], 3);
    bench.post("/topics/orders?partition=4", "", "x").await.problem(400, "invalid_request", "there is no partition 4");
    bench.server.stop().await;
}

#[tokio::test]
async fn a_cursor_reads_everything_once() {
    let bench = Bench::start_with(|config| config.default_partitions = 3).await;
    let lines: String = (0..50).map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n")).collect();
    bench.post("/topics/orders?format=ndjson", "", lines).await.ok();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let place = if cursor.is_empty() { "from=beginning".to_owned() } else { format!("cursor={cursor}") };
        let read = bench.get(&format!("/topics/orders?max=7&{place}")).await.ok();
        let values: Vec<u32> = values(&read).iter().map(|value| value.as_str().unwrap().parse().unwrap()).collect();
        assert!(values.len() <= 7);
        cursor = read["next"].as_str().unwrap().to_owned();
        if values.is_empty() {
            break;
        }
        seen.extend(values);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..50).collect::<Vec<u32>>());
    bench.server.stop().await;
}

#[tokio::test]
async fn reading_begins_where_it_is_told_to() {
    let bench = Bench::start().await;
    let lines: String = (0..10).map(|n| format!("{{\"value\":{n},\"timestamp\":{}}}\n", 1000 * (n + 1))).collect();
    bench.post("/topics/t?format=ndjson", "", lines).await.ok();
    for (from, first) in [
        ("beginning", Some("0")),
        ("offset:4", Some("4")),
        ("last:3", Some("7")),
        ("last:300", Some("0")),
        ("time:1970-01-01T00:00:03Z", Some("2")),
        ("ago:1h", None),
        ("end", None),
    ] {
        let read = bench.get(&format!("/topics/t?from={from}")).await.ok();
        assert_eq!(values(&read).first().map(|value| value.as_str().unwrap()), first, "{from}");
    }
    let filtered = bench.get("/topics/t?filter=offset%20%3E%3D%208").await.ok();
    assert_eq!(values(&filtered), ["8", "9"]);
    assert_eq!(place(filtered["next"].as_str().unwrap()), "0:10,*");
    for (query, says) in [
        ("from=nowhere", "use beginning"),
        ("wait=2h", "longest wait is 1m"),
        ("wait=5", "write it like"),
        ("max=0", "allowed are 1 to 10000"),
        ("max=10001", "allowed are 1 to 10000"),
        ("filter=%28", "filter"),
        ("cursor=x", "PARTITION:OFFSET"),
        ("fron=end", "no parameter 'fron'"),
        ("from=end&from=end", "comes twice"),
    ] {
        bench.get(&format!("/topics/t?{query}")).await.problem(400, "invalid_request", says);
    }
    let beyond = bench.get("/topics/t?from=offset:11").await;
    beyond.problem(416, "offset_out_of_range", "11");
    assert_eq!((&beyond.json()["log_start"], &beyond.json()["log_end"]), (&json!(0), &json!(10)));
    bench.get("/topics/none").await.problem(404, "not_found", "no topic 'none'");
    bench.get("/topics/t?partition=1").await.problem(404, "not_found", "no partition 1");
    bench.get("/topics/a%20b").await.problem(400, "invalid_request", "topic name");
    bench.server.stop().await;
}

#[tokio::test]
async fn a_long_poll_is_answered_when_something_comes_that_meets_the_filter() {
    let bench = Bench::start().await;
    bench.post("/topics/t", "", r#""wanted""#).await.ok();
    // At an offset and not at the end, which may be behind what is written meanwhile.
    let waiting = bench.get("/topics/t?from=offset:1&wait=60s&filter=value%20%3D%3D%20%22wanted%22");
    let writing = async {
        for value in ["no JSON", r#""this""#, r#""wanted""#, r#""later""#] {
            bench.post("/topics/t", "", value).await.ok();
        }
    };
    let (read, ()) = tokio::join!(waiting, writing);
    let read = read.ok();
    assert_eq!((values(&read), &read["records"][0]["offset"]), (vec![&json!("\"wanted\"")], &json!(3)));
    let nothing = bench.get("/topics/t?from=end&wait=10ms").await.ok();
    assert_eq!((values(&nothing).len(), place(nothing["next"].as_str().unwrap())), (0, "0:5,*"));
    bench.server.stop().await;
}

async fn events(bench: &Bench, path: &str, last: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let mut stream = bench.open().await;
    let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{last}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    while text.matches("event: record").count() < count || !text.ends_with("\n\n\r\n") {
        let mut block = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut block)).await.unwrap().unwrap();
        assert!(read > 0, "{text}");
        text.push_str(std::str::from_utf8(&block[..read]).unwrap());
    }
    assert!(text.to_lowercase().contains("content-type: text/event-stream"), "{text}");
    let mut events = Vec::new();
    for part in text.split("id: ").skip(1) {
        let (id, rest) = part.split_once('\n').unwrap();
        let data = rest.split_once("data: ").unwrap().1.split_once('\n').unwrap().0;
        events.push((id.to_owned(), serde_json::from_str(data).unwrap()));
    }
    events
}

#[tokio::test]
async fn a_stream_of_events_goes_on_behind_the_last_one() {
    let bench = Bench::start().await;
    for value in ["a", "b", "c"] {
        bench.post("/topics/t", "", value).await.ok();
    }
    let first = events(&bench, "/topics/t?from=beginning", None, 2).await;
    assert_eq!((&first[1].1["value"], place(&first[1].0)), (&json!("b"), "0:2,*"));
    let more = async { events(&bench, "/topics/t?from=beginning", Some("0:2"), 2).await };
    let (more, _) = tokio::join!(more, bench.post("/topics/t", "", "d"));
    let values: Vec<_> = more.iter().map(|(_, record)| record["value"].clone()).collect();
    assert_eq!(values, ["c", "d"]);
    let wrong = "GET /topics/t HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nlast-event-id: x\r\nconnection: close\r\n\r\n";
    bench.raw(wrong.replace("host: x", "host: localhost")).await.problem(400, "invalid_request", "cursor");
    // A stream that nobody ends does not keep the server from stopping.
    let mut open = bench.open().await;
    open.write_all(b"GET /topics/t HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n").await.unwrap();
    let _ = open.read(&mut [0; 64]).await.unwrap();
    tokio::time::timeout(PATIENCE, bench.server.stop()).await.expect("a stop in time");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_right_status() {
    let bench = Bench::start_with(|config| config.http_max_body_bytes = Bytes(1024)).await;
    bench.get("/").await.problem(404, "not_found", "nothing at /");
    bench.get("/topics/a/b").await.problem(404, "not_found", "nothing at");
    let put = bench.raw("PUT /topics/t HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    put.problem(405, "invalid_request", "knows no PUT");
    assert!(put.head.contains("allow: get, post"), "{put:?}");
    bench.post("/metrics", "", "").await.problem(405, "invalid_request", "knows no POST");
    bench.post("/topics/t?ack=maybe", "", "x").await.problem(400, "invalid_request", "ack=maybe");
    bench.post("/topics/t?format=xml", "", "x").await.problem(400, "invalid_request", "raw, records or ndjson");
    let encoded = bench.post("/topics/t", "content-encoding: gzip\r\n", "x").await;
    encoded.problem(415, "invalid_request", "content-encoding");
    bench.post("/topics/t?format=records", "", "{}").await.problem(400, "invalid_request", "missing field `records`");
    bench.post("/topics/t?format=records", "", r#"{"records":[]}"#).await.problem(400, "invalid_request", "no record");
    let typo = bench.post("/topics/t?format=records", "", r#"{"records":[{"vlaue":1}]}"#).await;
    typo.problem(400, "invalid_request", "vlaue");
    let base64 = bench.post("/topics/t?format=ndjson", "", "{\"value\":{\"base64\":\"?\"}}").await;
    base64.problem(400, "invalid_request", "line 1: value: base64");
    let line = bench.post("/topics/t?format=ndjson", "", "{\"value\":1}\n\n{\"value\":").await;
    line.problem(400, "invalid_request", "line 3");
    bench.post("/topics/t", "", vec![b'x'; 1025]).await.problem(413, "too_large", "limit is 1024");
    let chunked =
        "POST /topics/t HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let body = format!("{chunked}800\r\n{}\r\n0\r\n\r\n", "x".repeat(2048));
    bench.raw(body).await.problem(413, "too_large", "limit is 1024");
    let fits = bench.raw(format!("{chunked}3\r\nabc\r\n0\r\n\r\n")).await.ok();
    assert_eq!(fits["records"][0]["offset"], 0, "nothing that was refused was appended");
    bench.server.stop().await;
    let bench = Bench::start_with(|config| config.auto_create_topics = false).await;
    bench.post("/topics/t", "", "x").await.problem(404, "not_found", "no topic 't'");
    bench.server.stop().await;
}

#[test]
fn only_what_is_the_servers_fault_is_an_internal_error() {
    let kinds = ErrorKind::ALL.into_iter().filter(|kind| Problem::new(*kind, "").answer().status() == 500);
    assert_eq!(kinds.collect::<Vec<_>>(), [ErrorKind::Damaged, ErrorKind::Io, ErrorKind::Internal]);
    for kind in ErrorKind::ALL {
        let answer = Problem::new(kind, "").answer();
        assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{kind:?}");
        // What the server says to come again for is worth it.
        assert!(!answer.headers().contains_key(http::header::RETRY_AFTER) || kind.is_retriable(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_record_that_its_topic_does_not_take_is_the_fault_of_who_sent_it() {
    let compact = ("cleanup".to_owned(), "compact".to_owned());
    let bench = Bench::start().await;
    let topic = crate::broker::NewTopic {
        name: "state".parse().unwrap(),
        partitions: None,
        settings: vec![compact],
        if_not_exists: false,
    };
    bench.server.shared.broker.create_topic(topic).await.unwrap();
    bench.post("/topics/state", "", "x").await.problem(400, "invalid_record", "has no key");
    bench.post("/topics/state?key=k", "", "x").await.ok();
    bench.server.stop().await;
}

#[tokio::test]
async fn an_append_that_is_sent_again_with_its_key_is_not_appended_again() {
    let bench = Bench::start().await;
    let key = "idempotency-key: \"o-1\"\r\n";
    let first = bench.post("/topics/t", key, "a").await.ok();
    assert_eq!((&first["records"][0]["offset"], first["records"][0].get("duplicate")), (&json!(0), None));
    bench.post("/topics/t", "", "between").await.ok();
    let again = bench.post("/topics/t", "idempotency-key: o-1\r\n", "a").await.ok();
    assert_eq!(again["records"], json!([{ "partition": 0, "offset": 0, "duplicate": true }]));
    for (other, headers) in [("b", ""), ("a", "tidelog-header-x: 1\r\n"), ("", "tidelog-key: a\r\n")] {
        let refused = bench.post("/topics/t", &format!("{key}{headers}"), other).await;
        refused.problem(422, "invalid_request", "'o-1' was used for other records");
    }
    let list = "{\"value\":1}\n{\"value\":2}\n";
    let lines = bench.post("/topics/t?format=ndjson", "idempotency-key: o-2\r\n", list).await.ok();
    let offsets = |answer: &Value| -> Vec<Value> {
        answer["records"].as_array().unwrap().iter().map(|record| record["offset"].clone()).collect()
    };
    assert_eq!(offsets(&lines), [json!(2), json!(3)]);
    // It is another append in another topic.
    assert_eq!(bench.post("/topics/u", key, "b").await.ok()["records"][0]["offset"], 0);
    for (wrong, says) in [
        ("idempotency-key: \r\n".to_owned(), "of 0 bytes"),
        (format!("idempotency-key: {}\r\n", "x".repeat(256)), "of 256 bytes; allowed are 1 to 255"),
        ("idempotency-key: a\r\nidempotency-key: b\r\n".to_owned(), "several"),
    ] {
        bench.post("/topics/t", &wrong, "x").await.problem(400, "invalid_request", says);
    }
    bench.server.stop().await;
    let server = Server::start(config(&bench.dir, |_| {})).await.unwrap();
    let bench = Bench { server, dir: bench.dir };
    let again = bench.post("/topics/t?format=ndjson", "idempotency-key: o-2\r\n", list).await.ok();
    assert_eq!((offsets(&again), &again["records"][1]["duplicate"]), (offsets(&lines), &json!(true)));
    assert_eq!(values(&bench.get("/topics/t?from=beginning").await.ok()), ["a", "between", "1", "2"]);
    bench.server.stop().await;
}

/// Gives the requests that it gets to the test.
struct Pipe(tokio::sync::mpsc::UnboundedSender<(u64, crate::broker::Content)>);

impl crate::broker::Port for Pipe {
    fn deliver(&self, request: u64, _: u32, _: Duration, content: crate::broker::Content) -> Result<(), String> {
        self.0.send((request, content)).map_err(|_| "gone".to_owned())
    }
}

#[tokio::test]
async fn a_request_is_answered_with_the_reply_or_with_what_became_of_it() {
    use crate::broker::{Content, LastWord};
    let bench = Bench::start().await;
    let broker = bench.server.shared.broker.clone();
    let nobody = bench.post("/requests/crm", "", "acc-1").await;
    nobody.problem(503, "not_found", "nobody responds on topic 'crm'");
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let responder = broker.respond_live("crm".parse().unwrap(), 10, |_| std::sync::Arc::new(Pipe(sender)));
    let content = |name: &str, value: &str, body: &'static str| Content {
        headers: [(name, Some(value))].into_iter().collect(),
        body: body.into(),
        hold: None,
    };
    let answer = async {
        let (id, request) = requests.recv().await.unwrap();
        assert_eq!((&request.body[..], request.headers.iter().next().unwrap().name), (&b"acc-1"[..], &b"x"[..]));
        assert!(responder.part(id, content("a", "b", "one ")));
        responder.reply(id, LastWord::Reply(content("Content-Type", "text/plain", "two")));
        let (id, _) = requests.recv().await.unwrap();
        responder.reply(id, LastWord::Reply(content("no \n header", "at all", "")));
        let (id, _) = requests.recv().await.unwrap();
        responder.reply(id, LastWord::Error { code: "unknown".to_owned(), text: "no such account".to_owned() });
    };
    let ask = async {
        let reply = bench.post("/requests/crm?timeout=120s", "tidelog-header-x: 1\r\n", "acc-1").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "one two"), "{reply:?}");
        assert!(reply.head.contains("content-type: text/plain"), "{reply:?}");
        let odd = bench.post("/requests/crm?timeout=120s", "", "").await;
        assert_eq!((odd.status, odd.body.as_str()), (200, ""), "{odd:?}");
        let failed = bench.post("/requests/crm?timeout=120s", "", "acc-2").await;
        failed.problem(422, "invalid_request", "no such account");
        assert_eq!((&failed.json()["code"], &failed.json()["outcome"]), (&json!("unknown"), &json!("failed")));
    };
    tokio::join!(answer, ask);
    bench.post("/requests/crm?timeout=20ms", "", "x").await.problem(504, "timed_out", "no reply from topic 'crm'");
    bench.post("/requests/crm?timeout=0ms", "", "x").await.problem(400, "invalid_request", "allowed are 1ms");
    bench.post("/requests/crm?then=a%20b", "", "x").await.problem(400, "invalid_request", "topic name");
    bench.get("/requests/crm").await.problem(404, "not_found", "there is no request crm");
    bench.post("/requests/crm?id=x", "", "x").await.problem(400, "invalid_request", "'id' goes with durable=true");
    bench.get("/requests?state=lost").await.problem(400, "invalid_request", "use one of open, replied");
    bench.get("/requests?before=lost").await.problem(404, "not_found", "there is no request lost");
    assert_eq!(bench.get("/requests").await.ok(), json!({ "requests": [], "next": null }));
    // A requester that goes away costs nothing later.
    let mut gone = bench.open().await;
    gone.write_all(b"POST /requests/crm HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx").await.unwrap();
    while broker.live_counts().0 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(gone);
    let given_up = async {
        while broker.live_counts().0 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.expect("the request is given up");
    drop(responder);
    bench.server.stop().await;
}

#[tokio::test]
async fn more_records_than_the_limit_are_refused() {
    let bench = Bench::start().await;
    let list = format!("{{\"records\":[{}{{\"key\":\"k\"}}]}}", "{\"value\":null},".repeat(limits::HTTP_RECORDS));
    bench.post("/topics/t?format=records", "", list).await.problem(400, "invalid_request", "more than 10000 records");
    let lines = "{\"value\":null}\n".repeat(limits::HTTP_RECORDS + 1);
    bench.post("/topics/t?format=ndjson", "", lines).await.problem(413, "too_large", "the limit is 10000");
    let most = bench.post("/topics/t?format=ndjson", "", "{\"value\":null}\n".repeat(limits::HTTP_RECORDS)).await.ok();
    assert_eq!(most["records"].as_array().unwrap().len(), limits::HTTP_RECORDS);
    bench.server.stop().await;
}

#[tokio::test]
async fn hostile_bytes_end_their_own_connection_and_nothing_else() {
    let bench = Bench::start().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200 * 1024));
    let header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200 * 1024));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let smuggled = "POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n";
    for bytes in [
        "\0\0\0\0\r\n\r\n".as_bytes(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /topics/t HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n",
        b"GET /topics/%ff%00 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"GET /topics/..%2f..%2fetc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        long.as_bytes(),
        header.as_bytes(),
        many.as_bytes(),
    ] {
        let mut stream = bench.open().await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let reply = Reply::read(&mut stream).await;
        assert!(reply.status == 0 || (400..600).contains(&reply.status), "{reply:?}");
    }
    let smuggled = bench.raw(smuggled).await;
    assert_ne!(smuggled.status, 500, "{smuggled:?}");
    // Seeded noise in place of a request.
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let noise: Vec<u8> = (0..random.usize(1..400)).map(|_| random.u8(..)).collect();
        let mut stream = bench.open().await;
        let _ = stream.write_all(&noise).await;
        let _ = stream.shutdown().await;
        let _ = Reply::read(&mut stream).await;
    }
    assert_eq!(bench.get("/health").await.status, 200);
    bench.server.stop().await;
}

#[tokio::test]
async fn slow_heads_and_bodies_are_ended() {
    let bench = Bench::start_with(|config| {
        config.http_header_timeout = Millis(300);
        config.http_body_timeout = Millis(300);
    })
    .await;
    let mut silent = bench.open().await;
    let mut head = bench.open().await;
    head.write_all(b"GET /health HTTP/1.1\r\nx: ").await.unwrap();
    for stream in [&mut silent, &mut head] {
        let reply = Reply::read(stream).await;
        assert!(reply.status == 0 || reply.status == 408, "{reply:?}");
    }
    let mut body = bench.open().await;
    body.write_all(b"POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nab").await.unwrap();
    let reply = Reply::read(&mut body).await;
    assert_eq!(reply.status, 408, "{reply:?}");
    let mut drop_by_drop = bench.open().await;
    let chunked = b"POST /topics/t HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    drop_by_drop.write_all(chunked).await.unwrap();
    let (mut read, mut write) = drop_by_drop.split();
    let dripping = async {
        while write.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut first = [0; 12];
    tokio::select! {
        read = tokio::time::timeout(PATIENCE, read.read_exact(&mut first)) => drop(read.unwrap().unwrap()),
        () = dripping => panic!("the connection ended without an answer"),
    }
    assert_eq!(&first, b"HTTP/1.1 408");
    bench.get("/topics/t").await.problem(404, "not_found", "no topic");
    bench.server.stop().await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_a_long_answer_is_ended_and_gives_its_memory_back() {
    let bench = Bench::start_with(|config| config.write_timeout = Millis(300)).await;
    for _ in 0..3 {
        bench.post("/topics/t", "", vec![b'x'; 4 << 20]).await.ok();
    }
    let mut slow = bench.open().await;
    for _ in 0..4 {
        slow.write_all(b"GET /topics/t HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    }
    let freed = async {
        let shared = &bench.server.shared;
        while shared.metrics.http_connections.get() > 0 || shared.outgoing.used() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the connection ends and its memory is free");
    drop(slow);
    bench.server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_hear_that_there_is_no_room() {
    let bench = Bench::start_with(|config| config.http_max_connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = bench.open().await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 512]).await.unwrap();
        held.push(stream);
    }
    let refused = bench.raw("GET /requests HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    for path in ["/health", "/ready", "/metrics"] {
        let answered = bench.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert_eq!(answered.status, 200, "{path} is answered at all times: {answered:?}");
    }
    drop(held);
    let again = async {
        while bench.get("/requests").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("room again");
    bench.server.stop().await;
}

#[tokio::test]
async fn browsers_from_elsewhere_are_refused() {
    let bench = Bench::start_with(|config| config.http_names = "queue.example, proxy.example".to_owned()).await;
    for (headers, allowed) in [
        ("host: localhost:7180\r\n", true),
        ("host: 127.0.0.1\r\n", true),
        ("host: [::1]:80\r\n", true),
        ("host: queue.example\r\n", true),
        ("host: evil.example\r\n", false),
        ("host: localhost.evil.example\r\n", false),
        ("host: localhost\r\norigin: http://evil.example\r\n", false),
        ("host: localhost\r\norigin: null\r\n", false),
        ("host: localhost\r\norigin: https://queue.example:8443\r\n", true),
        ("host: localhost\r\norigin: https://queue.example\r\norigin: http://evil.example\r\n", false),
        ("host: localhost\r\nsec-fetch-site: cross-site\r\n", false),
        ("host: 127.0.0.1\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n", false),
        ("host: localhost\r\nsec-fetch-site: same-site\r\nsec-fetch-mode: no-cors\r\n", false),
        (
            "host: localhost\r\nsec-fetch-site: same-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: iframe\r\n",
            false,
        ),
        (
            "host: localhost\r\nsec-fetch-site: same-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n",
            true,
        ),
        ("host: localhost\r\nsec-fetch-site: same-origin\r\n", true),
        ("host: localhost\r\nsec-fetch-site: none\r\n", true),
        ("host: localhost\r\norigin: https://queue.example\r\nsec-fetch-site: cross-site\r\n", true),
    ] {
        let status = if allowed { 200 } else { 403 };
        let request = format!("POST /topics/t HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: 1\r\n\r\nx");
        let reply = bench.raw(request).await;
        assert_eq!(reply.status, status, "{headers}: {reply:?}");
        // A request without a body, as an image on a page makes it.
        let reply = bench.raw(format!("GET /health HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{headers}: {reply:?}");
    }
    bench.server.stop().await;
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::HOST, "queue.example".parse().unwrap());
    assert!(check(&headers, true, &Names("none")).is_err());
    assert!(check(&headers, false, &Names("none")).is_ok(), "on an open address the name is the operator's affair");
}

#[tokio::test]
async fn the_listener_can_be_turned_off_and_is_closed_to_others_by_default() {
    let bench = Bench::start_with(|config| config.http_listen = "off".to_owned()).await;
    assert!(bench.server.http_addresses().is_empty());
    bench.server.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let open = config(&dir, |config| config.http_listen = "0.0.0.0:0".to_owned());
    let error = Server::start(open.clone()).await.unwrap_err().to_string();
    assert!(error.contains("http_listen") && error.contains("--allow-unauthenticated"), "{error}");
    let server = Server::start(ServerConfig { allow_unauthenticated: true, ..open }).await.unwrap();
    server.stop().await;
    let usual = ServerConfig { listen: "127.0.0.1:7171".to_owned(), ..ServerConfig::default() };
    assert_eq!(usual.http_addresses().unwrap(), ["127.0.0.1:7180".parse().unwrap()]);
}

/// What hyper refuses itself is a problem document, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_cannot_be_read_is_refused_with_a_document() {
    let bench = Bench::start().await;
    let many = "x: y\r\n".repeat(limits::HTTP_HEADERS + 1);
    let large = format!("x: {}\r\n", "y".repeat(limits::HTTP_HEAD_BYTES));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{large}\r\n"), 431),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(3 * limits::HTTP_HEAD_BYTES)), 431),
        ("POST /topics/t HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: odd\r\n\r\n".to_owned(), 400),
        ("POST /topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n".to_owned(), 400),
    ] {
        bench.raw(&request).await.problem(status, "invalid_request", "the head of the request");
    }
    // What is allowed to the byte is taken.
    let fixed = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: \r\n\r\n".len();
    for (more, status) in [(0, 200), (1, 431)] {
        let value = "y".repeat(limits::HTTP_HEAD_BYTES - fixed + more);
        let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {value}\r\n\r\n");
        assert_eq!(bench.raw(&request).await.status, status);
    }
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_told_as_a_document_if_that_is_asked_for_and_a_record_of_nothing_is_refused() {
    let bench = Bench::start().await;
    let lines = "{\"value\":{\"n\":18446744073709551616,\n \"s\":\"a\\nb\"}}".replace('\n', " ");
    bench.post("/topics/t?format=ndjson", "", format!("{lines}\n{{\"value\":\"no document\"}}\n")).await.ok();
    bench.post("/topics/t", "", "{\"pretty\":\n  true}").await.ok();
    bench.post("/topics/t", "", [0xff, 0]).await.ok();
    let told = bench.get("/topics/t?values=json").await;
    assert!(told.body.contains("\"value\":{\"n\":18446744073709551616,"), "{}", told.body);
    assert!(
        told.body.contains("\"value\":{\"pretty\":   true}") && !told.body.trim_end().contains('\n'),
        "{}",
        told.body
    );
    assert!(told.body.contains("\"value\":\"no document\"") && told.body.contains("{\"base64\":\"/wA=\"}"));
    assert_eq!(values(&bench.get("/topics/t").await.ok())[2], "{\"pretty\":\n  true}");
    bench.get("/topics/t?values=yaml").await.problem(400, "invalid_request", "there are text and json");
    for nothing in ["{}", "{\"headers\":{\"a\":\"b\"}}", "{\"key\":null}"] {
        bench.post("/topics/t?format=ndjson", "", nothing).await.problem(
            400,
            "invalid_request",
            "has a key, a value or both",
        );
    }
    bench.post("/topics/t?format=ndjson", "", "{\"key\":\"k\"}\n{\"value\":null}").await.ok();
    bench.server.stop().await;
}
