//! Replies in parts, passed on as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Bench, PATIENCE, Reply};
use crate::base::{Bytes, TopicName};
use crate::broker::{Content, LastWord, LiveResponder, Port};

/// Gives the requests that it gets to the test.
struct Responding(mpsc::UnboundedSender<(u64, Content)>);

impl Port for Responding {
    fn deliver(&self, request: u64, _: u32, _: Duration, content: Content) -> Result<(), String> {
        self.0.send((request, content)).map_err(|_| "gone".to_owned())
    }
}

/// A responder on `crm` whose requests the test gets.
fn responder(bench: &Bench) -> (LiveResponder, mpsc::UnboundedReceiver<(u64, Content)>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let topic = TopicName::new("crm").unwrap();
    let responder = bench.server.shared.broker.respond_live(topic, 10, |_| Arc::new(Responding(sender)));
    (responder, requests)
}

fn said(headers: &[(&'static str, &'static str)], body: impl Into<bytes::Bytes>) -> Content {
    let headers = headers.iter().map(|(name, value)| (name, Some(value)));
    Content { headers: headers.collect(), body: body.into(), hold: None }
}

const EVENTS: &str = "accept: text/event-stream\r\n";
const LINES: &str = "accept: application/x-ndjson\r\n";

/// Reads on until something is there.
async fn until(stream: &mut TcpStream, all: &mut String, says: &str) {
    let read = async {
        while !all.contains(says) {
            let mut block = vec![0; 64 * 1024];
            let read = stream.read(&mut block).await.unwrap();
            assert!(read > 0, "{says:?} is not in {all}");
            all.push_str(&String::from_utf8_lossy(&block[..read]));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("{says:?} has not come"));
}

async fn nothing_is_asked(bench: &Bench) {
    let ended = async {
        while bench.server.shared.broker.live_counts().0 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("no request is left");
}

/// The body of an answer in chunks.
fn unchunked(body: &str) -> String {
    let (mut rest, mut out) = (body, String::new());
    while let Some((length, behind)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        out.push_str(&behind[..length]);
        rest = &behind[length + 2..];
    }
    out
}

fn ask(accept: &str, query: &str) -> String {
    format!(
        "POST /requests/crm?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{accept}content-length: 1\r\n\r\nx"
    )
}

#[tokio::test]
async fn each_part_of_a_reply_comes_when_it_is_there_and_then_the_end() {
    let bench = Bench::start().await;
    // Nobody is there to respond: that has its status, as without parts.
    bench.post("/requests/crm", EVENTS, "x").await.problem(503, "not_found", "nobody responds");
    let (responder, mut requests) = responder(&bench);
    let mut stream = bench.open().await;
    stream.write_all(ask(EVENTS, "timeout=300s").as_bytes()).await.unwrap();
    let (id, _) = requests.recv().await.unwrap();
    let mut all = String::new();
    assert!(responder.part(id, said(&[("row", "1")], "one")));
    until(&mut stream, &mut all, "event: part\ndata: {\"part\":0,\"headers\":{\"row\":\"1\"},\"value\":\"one\"}\n\n")
        .await;
    assert!(all.starts_with("HTTP/1.1 200") && all.contains("content-type: text/event-stream"), "{all}");
    assert!(responder.part(id, said(&[], vec![0xff, 0])));
    until(&mut stream, &mut all, "data: {\"part\":1,\"headers\":{},\"value\":{\"base64\":\"/wA=\"}}\n\n").await;
    responder.reply(id, LastWord::Reply(said(&[("n", "2")], "all\nof it")));
    until(
        &mut stream,
        &mut all,
        "event: end\ndata: {\"parts\":2,\"headers\":{\"n\":\"2\"},\"value\":\"all\\nof it\"}\n\n",
    )
    .await;
    until(&mut stream, &mut all, "\r\n0\r\n\r\n").await;

    // The same as lines, and without parts.
    let answer = async {
        let (id, _) = requests.recv().await.unwrap();
        responder.part(id, said(&[], "one"));
        responder.reply(id, LastWord::Reply(said(&[], "")));
        let (id, _) = requests.recv().await.unwrap();
        responder.reply(id, LastWord::Reply(said(&[], "whole")));
    };
    let asked = async {
        let lines = bench.raw(ask(LINES, "")).await;
        assert!(lines.head.contains("content-type: application/x-ndjson"), "{lines:?}");
        let expected = "{\"event\":\"part\",\"part\":0,\"headers\":{},\"value\":\"one\"}\n\
                        {\"event\":\"end\",\"parts\":1,\"headers\":{},\"value\":\"\"}\n";
        assert_eq!(unchunked(&lines.body), expected);
        let whole = bench.raw(ask(LINES, "")).await;
        let expected = "{\"event\":\"end\",\"parts\":0,\"headers\":{},\"value\":\"whole\"}\n";
        assert_eq!(unchunked(&whole.body), expected);
    };
    tokio::join!(answer, asked);
    drop(responder);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_reply_in_parts_that_fails_says_so_in_its_last_event() {
    let bench = Bench::start().await;
    let (responder, mut requests) = responder(&bench);
    let left = AtomicU64::new(0);
    let failed = || LastWord::Error { code: "gone".to_owned(), text: "the file is gone".to_owned() };
    let answer = async {
        // Before the first part it has its status.
        let (id, _) = requests.recv().await.unwrap();
        responder.reply(id, failed());
        for _ in 0..2 {
            let (id, _) = requests.recv().await.unwrap();
            responder.part(id, said(&[], "one"));
            responder.reply(id, failed());
        }
        // These are left alone behind their first part, until their time is over.
        while let Some((id, _)) = requests.recv().await {
            responder.part(id, said(&[], "one"));
            left.store(id, Ordering::Relaxed);
        }
    };
    let asked = async {
        bench.raw(ask(EVENTS, "")).await.problem(422, "invalid_request", "the file is gone");
        let last = |reply: Reply, prefix: &str| -> Value {
            let body = unchunked(&reply.body);
            assert!(reply.status == 200 && body.contains("\"value\":\"one\""), "{reply:?}");
            let last = body.trim_end().lines().last().unwrap().strip_prefix(prefix).unwrap().to_owned();
            assert!(prefix.is_empty() || body.contains("event: error\n"), "{body}");
            serde_json::from_str(&last).unwrap()
        };
        let event = last(bench.raw(ask(EVENTS, "")).await, "data: ");
        assert_eq!((&event["code"], &event["outcome"], &event["parts"]), (&json!("gone"), &json!("failed"), &json!(1)));
        assert_eq!((&event["detail"], &event["status"]), (&json!("the file is gone"), &json!(422)));
        let line = last(bench.raw(ask(LINES, "")).await, "");
        assert_eq!((&line["event"], &line["code"]), (&json!("error"), &json!("gone")));
        // Longer for a machine that is busy with something else.
        let mut patience = 500;
        let late = loop {
            let reply = bench.raw(ask(LINES, &format!("timeout={patience}ms"))).await;
            match reply.status {
                504 => patience *= 2,
                _ => break last(reply, ""),
            }
        };
        let says = (&late["event"], &late["outcome"], &late["kind"]);
        assert_eq!(says, (&json!("error"), &json!("timed_out"), &json!("timed_out")));
    };
    tokio::select! {
        () = answer => unreachable!("the responder goes on"),
        () = asked => {}
    }
    assert!(!responder.part(left.load(Ordering::Relaxed), said(&[], "too late")));
    drop(responder);
    bench.server.stop().await;
}

#[tokio::test]
async fn whoever_goes_away_or_does_not_read_costs_nothing_later() {
    const MOST: u64 = 9 * 1024 * 1024;
    let bench = Bench::start_with(|config| {
        config.max_connection_bytes = Bytes(MOST);
        config.http_max_body_bytes = Bytes(1024 * 1024);
    })
    .await;
    let (responder, mut requests) = responder(&bench);
    // Goes away behind the first part.
    let mut gone = bench.open().await;
    gone.write_all(ask(EVENTS, "timeout=300s").as_bytes()).await.unwrap();
    let (id, _) = requests.recv().await.unwrap();
    assert!(responder.part(id, said(&[], "one")));
    until(&mut gone, &mut String::new(), "\"value\":\"one\"").await;
    drop(gone);
    nothing_is_asked(&bench).await;
    assert!(!responder.part(id, said(&[], "two")));
    // Reads nothing. What waits for it is bounded, and when that is full the request is over.
    let mut slow = bench.open().await;
    slow.write_all(ask(LINES, "timeout=300s").as_bytes()).await.unwrap();
    let (id, _) = requests.recv().await.unwrap();
    let outgoing = &bench.server.shared.outgoing;
    let mut passed = 0;
    let flooded = async {
        while responder.part(id, said(&[], vec![b'x'; 64 * 1024])) {
            passed += 1;
            assert!(outgoing.used() as u64 <= MOST, "{} bytes wait for one connection", outgoing.used());
            // The sockets' own buffers take some first.
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, flooded).await.expect("a part finds no room in the end");
    nothing_is_asked(&bench).await;
    // It is told, behind all that it was sent.
    let reply = Reply::read(&mut slow).await;
    let body = unchunked(&reply.body);
    let last: Value = serde_json::from_str(body.trim_end().lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["event"], &last["outcome"], &last["kind"]),
        (&json!("error"), &json!("overloaded"), &json!("overloaded"))
    );
    // The responder heard only with the next one that the last one was lost.
    assert_eq!((body.lines().count(), &last["parts"]), (passed, &json!(passed - 1)), "parts are missing");
    drop((slow, responder));
    bench.server.stop().await;
}
