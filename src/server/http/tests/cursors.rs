//! Cursors and streams outlive what happens to their topic.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Bench, PATIENCE, place, values};
use crate::base::{Millis, TopicName};

/// A stream of events that is read piece by piece.
struct Events {
    stream: TcpStream,
    text: String,
}

/// One event: its kind, id and data.
#[derive(Debug, PartialEq)]
struct Event {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Events {
    async fn open(bench: &Bench, path: &str, last: Option<&str>) -> Self {
        let mut stream = bench.open().await;
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut events = Self { stream, text: String::new() };
        events.more().await;
        assert!(events.text.starts_with("HTTP/1.1 200"), "{}", events.text);
        events
    }

    async fn more(&mut self) {
        let mut block = vec![0; 64 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut block)).await.unwrap().unwrap();
        assert!(read > 0, "{}", self.text);
        self.text.push_str(std::str::from_utf8(&block[..read]).unwrap());
    }

    /// The next block, be it an event or a sign of life.
    async fn block(&mut self) -> String {
        loop {
            // Chunks of HTTP begin with their length and end with a line end of their own.
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let lines = block.lines().filter(|line| line.contains(": ") && !line.starts_with("HTTP"));
                let lines: Vec<_> = lines.filter(|line| !line.ends_with("chunked")).collect();
                return lines.join("\n");
            }
            self.more().await;
        }
    }

    /// The next event.
    async fn next(&mut self) -> Event {
        loop {
            let block = self.block().await;
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                line.map(str::to_owned)
            };
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                return Event { kind, id: field("id"), data: serde_json::from_str(&data).unwrap() };
            }
        }
    }

    async fn value(&mut self) -> String {
        let event = self.next().await;
        assert_eq!(event.kind, "record", "{event:?}");
        event.data["value"].as_str().unwrap().to_owned()
    }
}

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

async fn partitions(bench: &Bench, count: u32) {
    bench.server.shared.broker.alter_topic(&name("t"), Some(count), &[], &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let bench = Bench::start().await;
    bench.post("/topics/t", "", "a").await.ok();
    let read = bench.get("/topics/t").await.ok();
    let (whole, one) = (read["next"].as_str().unwrap().to_owned(), bench.get("/topics/t?partition=0").await.ok());
    assert_eq!((place(&whole), place(one["next"].as_str().unwrap())), ("0:1,*", "0:1"));
    let mut events = Events::open(&bench, "/topics/t?from=beginning", None).await;
    assert_eq!(events.value().await, "a");
    let mut apart = Events::open(&bench, "/topics/t?partition=0&from=beginning", None).await;
    assert_eq!(apart.value().await, "a");
    partitions(&bench, 3).await;
    for (partition, value) in [(2, "b"), (1, "c"), (0, "d")] {
        bench.post(&format!("/topics/t?partition={partition}"), "", value).await.ok();
    }
    let mut seen = [events.value().await, events.value().await, events.value().await];
    seen.sort();
    assert_eq!(seen, ["b", "c", "d"]);
    assert_eq!(apart.value().await, "d", "of its partition alone");
    let read = bench.get(&format!("/topics/t?cursor={whole}")).await.ok();
    assert_eq!(values(&read), ["d", "c", "b"]);
    assert_eq!(place(read["next"].as_str().unwrap()), "0:2,1:1,2:1,*");
    let read = bench.get(&format!("/topics/t?cursor={}", one["next"].as_str().unwrap())).await.ok();
    assert_eq!((values(&read), place(read["next"].as_str().unwrap())), (vec![&json!("d")], "0:2"));
    drop((events, apart));
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_before_it_was_read_is_said_and_reading_goes_on() {
    let bench = Bench::start().await;
    for value in ["a", "b", "c"] {
        bench.post("/topics/t", "", value).await.ok();
    }
    let first = bench.get("/topics/t?max=1").await.ok();
    let cursor = first["next"].as_str().unwrap();
    let mut events = Events::open(&bench, "/topics/t?from=beginning", None).await;
    assert_eq!(events.value().await, "a");
    bench.server.shared.broker.delete_records("t", 0, Some(2), PATIENCE).await.unwrap();
    let missed = json!([{ "reason": "deleted", "partition": 0, "from": 1, "to": 2 }]);
    let read = bench.get(&format!("/topics/t?cursor={cursor}")).await;
    assert!(read.head.contains("tidelog-missed: 0:1-2"), "{read:?}");
    let read = read.ok();
    assert_eq!((values(&read), &read["missed"]), (vec![&json!("c")], &missed));
    let mut again = Events::open(&bench, "/topics/t", Some(cursor)).await;
    let event = again.next().await;
    assert_eq!((event.kind.as_str(), event.id), ("missed", None));
    assert_eq!(event.data, json!({ "reason": "deleted", "partition": 0, "from": 1, "to": 2, "topic": "t" }));
    assert_eq!(again.value().await, "c");
    // Whoever names an offset is told that it is not there.
    bench.get("/topics/t?from=offset:1").await.problem(416, "offset_out_of_range", "the log has 2 to 3");
    drop((events, again));
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_of_one_topic_and_not_of_the_next_one_of_its_name() {
    let bench = Bench::start().await;
    for value in ["a", "b"] {
        bench.post("/topics/t", "", value).await.ok();
    }
    let read = bench.get("/topics/t?max=1").await.ok();
    let cursor = read["next"].as_str().unwrap();
    bench.server.shared.broker.delete_topic(&name("t")).await.unwrap();
    for value in ["x", "y"] {
        bench.post("/topics/t", "", value).await.ok();
    }
    let gone = bench.get(&format!("/topics/t?cursor={cursor}")).await;
    gone.problem(410, "not_found", "was deleted and created again");
    let mut events = Events::open(&bench, "/topics/t", Some(cursor)).await;
    let event = events.next().await;
    assert_eq!((event.kind.as_str(), event.data), ("missed", json!({ "reason": "recreated", "topic": "t" })));
    assert_eq!([events.value().await, events.value().await], ["x", "y"]);
    // Without the id it is what its writer says.
    assert_eq!(values(&bench.get("/topics/t?cursor=0:1").await.ok()), ["y"]);
    drop(events);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_carries_how_far_a_filter_has_come() {
    let bench = Bench::start().await;
    for value in ["1", "2", "3"] {
        bench.post("/topics/t", "", value).await.ok();
    }
    let mut events = Events::open(&bench, "/topics/t?from=beginning&filter=value%20%3E%209", None).await;
    let block = events.block().await;
    let id = block.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_else(|| panic!("{block}"));
    assert_eq!(place(id), "0:3,*");
    drop(events);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_bytes_and_everything_else_is_text() {
    let bench = Bench::start_with(|config| config.http_body_timeout = Millis(60_000)).await;
    for key in ["%FE", "%FF", "a+b", "a%2Bb", "k%00"] {
        bench.post(&format!("/topics/t?key={key}"), "", "x").await.ok();
    }
    let read = bench.get("/topics/t").await.ok();
    let keys: Vec<_> = read["records"].as_array().unwrap().iter().map(|record| record["key"].clone()).collect();
    let base64 = |text: &str| json!({ "base64": text });
    assert_eq!(keys, [base64("/g=="), base64("/w=="), json!("a b"), json!("a+b"), json!("k\0")]);
    bench.post("/topics/t?ack=%FF", "", "x").await.problem(400, "invalid_request", "not UTF-8");
    bench.get("/topics/t%FF").await.problem(400, "invalid_request", "not UTF-8");
    bench.get("/topics/t?filter=%FF").await.problem(400, "invalid_request", "not UTF-8");
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_request_is_known_again_by_what_it_asks() {
    let bench = Bench::start().await;
    let path = "/requests/q?durable=true&wait=0s";
    let first = bench.post(path, "idempotency-key: r-1\r\n", "how much?").await;
    assert_eq!(first.status, 202, "{first:?}");
    assert_eq!(bench.post(path, "idempotency-key: r-1\r\n", "how much?").await.status, 202);
    for (headers, body) in [("", "how many?"), ("tidelog-header-x: 1\r\n", "how much?")] {
        let refused = bench.post(path, &format!("idempotency-key: r-1\r\n{headers}"), body).await;
        refused.problem(422, "already_exists", "asks something else");
    }
    let other = bench.post("/requests/other?durable=true&wait=0s", "idempotency-key: r-1\r\n", "how much?").await;
    other.problem(422, "already_exists", "asks something else");
    let live = bench.post("/requests/q?timeout=1ms", "idempotency-key: r-2\r\n", "x").await;
    live.problem(400, "invalid_request", "durable=true");
    assert_eq!(values(&bench.get("/topics/q").await.ok()), ["how much?"]);
    bench.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_refused_for_other_records_in_whatever_partition() {
    let bench = Bench::start_with(|config| config.default_partitions = 8).await;
    let key = "idempotency-key: k-1\r\n";
    bench.post("/topics/t?partition=3", key, "a").await.ok();
    let again = bench.post("/topics/t?partition=3", key, "a").await.ok();
    assert_eq!(again["records"][0]["duplicate"], true);
    for query in ["partition=4", "partition=0", "key=a", "key=b", "key=c"] {
        let refused = bench.post(&format!("/topics/t?{query}"), key, "a").await;
        refused.problem(422, "invalid_request", "'k-1' was used for other records");
    }
    assert_eq!(values(&bench.get("/topics/t").await.ok()), ["a"]);
    bench.server.stop().await;
}
