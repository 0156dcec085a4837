//! The HTTP listener of the real program: what it has answered holds through SIGKILL.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and waits for a child")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Server, spawn};
use serde_json::{Value, json};

/// Whatever must come comes within this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Times that the server is killed.
const KILLS: usize = 3;

fn start(data: &Path) -> Server {
    Server::start_on(data, &["--http-listen", "127.0.0.1:0"])
}

/// Status and body, or nothing if the server is gone.
fn ask(address: &str, head: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{head}host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
    Some((head.split(' ').nth(1)?.parse().unwrap(), body))
}

fn append(address: &str, number: usize) -> Option<Value> {
    let head = format!("POST /topics/orders HTTP/1.1\r\nidempotency-key: order-{number}\r\n");
    let (status, body) = ask(address, &head, &format!("order {number}"))?;
    assert_eq!(status, 200, "{body}");
    Some(body["records"][0].clone())
}

#[test]
fn an_append_with_an_idempotency_key_is_there_once_however_often_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut offsets: Vec<Value> = Vec::new();
    for _ in 0..KILLS {
        let mut server = start(&data);
        let (address, first) = (server.http_address(), offsets.len());
        let answered = Arc::new(AtomicUsize::new(0));
        let sender = {
            let (address, answered) = (address.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut offsets = Vec::new();
                while let Some(record) = append(&address, first + offsets.len()) {
                    offsets.push(record["offset"].clone());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                offsets
            })
        };
        let began = Instant::now();
        while answered.load(Ordering::Relaxed) < 5 {
            assert!(began.elapsed() < PATIENCE, "nothing is answered: {}", server.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        offsets.extend(sender.join().unwrap());
        let server = start(&data);
        let address = server.http_address();
        for (number, offset) in offsets.iter().enumerate() {
            let record = append(&address, number).unwrap();
            assert_eq!((&record["offset"], &record["duplicate"]), (offset, &json!(true)), "order {number}");
        }
        // Of this one it is not known whether it was appended.
        offsets.push(append(&address, offsets.len()).unwrap()["offset"].clone());
    }
    let server = start(&data);
    let (_, read) =
        ask(&server.http_address(), "GET /topics/orders?from=beginning&max=10000 HTTP/1.1\r\n", "").unwrap();
    let values: Vec<_> = read["records"].as_array().unwrap().iter().map(|record| record["value"].clone()).collect();
    let expected: Vec<_> = (0..offsets.len()).map(|number| json!(format!("order {number}"))).collect();
    assert_eq!(values, expected);
}

#[test]
fn a_request_is_answered_by_whoever_responds() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("data"));
    let address = server.http_address();
    let phone = |account: &str| ask(&address, "POST /requests/crm.phone HTTP/1.1\r\n", account).unwrap();
    let (status, nobody) = phone("acc-1");
    assert_eq!((status, &nobody["outcome"]), (503, &json!("no_responder")), "{nobody}");
    let script = "read id; [ $id = acc-1 ] && echo 555 || exit 3";
    let _responder = spawn(&["reply", "crm.phone", "--exec", script, "--server", server.address()]);
    let began = Instant::now();
    let answer = loop {
        let answer = phone("acc-1\n");
        if answer.0 != 503 {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "nobody responds");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(answer, (200, json!(555)));
    let (status, failed) = phone("acc-2\n");
    assert_eq!((status, &failed["code"], &failed["step"]), (422, &json!("exit-3"), &json!(0)), "{failed}");
}

#[test]
fn a_durable_request_is_answered_once_whoever_asks_how_often_and_through_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = start(&data);
    let ask_at = |server: &Server, line: &str, body: &str| {
        ask(&server.http_address(), &format!("{line} HTTP/1.1\r\n"), body).unwrap()
    };
    let one = "POST /requests/crm?durable=true&id=one&timeout=1h&wait=0s";
    let (status, body) = ask_at(&server, one, "acc-1");
    assert_eq!((status, &body["state"], &body["id"]), (202, &json!("open"), &json!("one")), "{body}");
    server.kill();
    let server = start(&data);
    assert_eq!(ask_at(&server, "GET /requests/one", "").0, 202);
    let respond =
        |topic: &str, command: &str| spawn(&["reply", topic, "--exec", command, "--server", server.address()]);
    let _responders = (respond("crm", "tr a-z A-Z"), respond("bad", "echo no such account >&2; exit 3"));
    assert_eq!(ask_at(&server, "GET /requests/one?wait=60s", ""), (200, json!("ACC-1")));
    assert_eq!(ask_at(&server, one, "acc-1"), (200, json!("ACC-1")), "asked again it is the same");
    let other = ask_at(&server, "POST /requests/bad?durable=true&id=one", "acc-1");
    assert_eq!((other.0, &other.1["kind"]), (422, &json!("already_exists")));
    assert_eq!(ask_at(&server, "POST /requests/crm?durable=true&timeout=1h", "acc-2"), (200, json!("ACC-2")));
    let (status, failed) = ask_at(&server, "POST /requests/bad?durable=true&timeout=1h&id=two", "acc-3");
    assert_eq!((status, &failed["outcome"], &failed["id"]), (422, &json!("failed"), &json!("two")), "{failed}");

    let called = ask_at(&server, "POST /requests/crm?durable=true&timeout=1h&callback=answers", "acc-4");
    assert_eq!((called.0, &called.1["callback"]), (202, &json!("answers")), "{}", called.1);
    // The topic is made when there is something to write to it.
    let began = Instant::now();
    let records = loop {
        let (status, found) = ask_at(&server, "GET /topics/answers?from=beginning&wait=5s", "");
        match found["records"].as_array().filter(|records| status == 200 && !records.is_empty()) {
            Some(records) => break records.clone(),
            None => assert!(began.elapsed() < PATIENCE, "{found}"),
        }
    };
    assert_eq!((&records[0]["value"], &records[0]["key"]), (&json!("ACC-4"), &called.1["id"]));

    assert_eq!(ask_at(&server, "POST /requests/nobody?durable=true&id=three&timeout=1h&wait=0s", "").0, 202);
    let late = ask_at(&server, "POST /requests/nobody?durable=true&id=four&timeout=1ms&wait=60s", "");
    assert_eq!((late.0, &late.1["outcome"]), (504, &json!("timed_out")), "{}", late.1);
    let cancelled = ask_at(&server, "DELETE /requests/three", "");
    assert_eq!((cancelled.0, &cancelled.1["state"]), (200, &json!("cancelled")));
    assert_eq!(ask_at(&server, "GET /requests/three", "").0, 410);
    let (_, first) = ask_at(&server, "GET /requests?max=2", "");
    let next = first["next"].as_str().unwrap();
    let (_, rest) = ask_at(&server, &format!("GET /requests?before={next}"), "");
    assert_eq!((first["requests"].as_array().unwrap().len(), rest["requests"].as_array().unwrap().len()), (2, 4));
    assert_eq!(ask_at(&server, "GET /requests?state=failed", "").1["requests"][0]["id"], "two");
}
