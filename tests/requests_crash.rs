//! Server, responders and requesters are killed at random: every durable request has exactly one outcome, and its callback
//! topic exactly one record. `TIDELOG_KILLS=n` kills the server that many times (5 if not set); the seed is printed, and
//! taken from `TIDELOG_SEED`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and waits for a child")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Server, spawn, tidelog};
use tidelog::client::{Client, ClientBuilder, ListRequests, StartAt};

/// Longer than anything takes, on a machine that does other things too.
const LONG: Duration = Duration::from_secs(90);
/// What one requester asks at most: three of them stay below what one list of requests holds.
const ASKED: usize = 300;
/// What a request that nobody answers in time is given.
const SHORT: Duration = Duration::from_millis(300);

fn builder(address: &str) -> ClientBuilder {
    Client::builder().server(address).request_timeout(Duration::from_secs(5))
}

/// Outcomes by correlation id, as the callback topic has them.
async fn callbacks(client: &Client) -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let consumer = client.consumer().topic("answers").from(StartAt::Beginning).until_end(true).build().await;
    let Ok(mut consumer) = consumer else { return found };
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        let header = record.headers.iter().find(|header| header.name == "tidelog-outcome".as_bytes()).unwrap();
        let outcome = String::from_utf8(header.value.unwrap().to_vec()).unwrap();
        let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
        let id = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        found.entry(id).or_default().push((outcome, value));
    }
    found
}

/// Asks on and on, this long between two, and goes away; what it knows to be taken in is noted.
async fn requester(address: String, number: u64, pause: Duration, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) && count < ASKED {
        let Ok(client) = builder(&address).build().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A connection is used for some requests, then dropped with whatever is under way on it.
        for _ in 0..5 {
            count += 1;
            let id = format!("{number}-{count}");
            let timeout = if count % 7 == 0 { SHORT } else { LONG };
            let request = client.request("load", id.clone(), timeout).then("analyse").callback("answers").id(&id);
            if tokio::time::timeout(Duration::from_secs(4), request.submit()).await.is_ok_and(|sent| sent.is_ok()) {
                taken.insert(id);
            }
            tokio::time::sleep(pause).await;
        }
    }
    taken
}

/// Responds until it is dropped; what it answers follows from what it is asked.
async fn responder(address: String, topic: &'static str, answered: Arc<AtomicU64>) {
    loop {
        let Ok(client) = builder(&address).build().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let handler = |request: tidelog::client::IncomingRequest| {
            answered.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8(request.body.to_vec()).unwrap();
            async move { Ok(format!("{topic}({text})")) }
        };
        let _ = client.responder(topic).capacity(8).retry_timeout(Duration::from_secs(2)).handle(handler).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_durable_request_has_one_outcome_and_one_callback_whoever_is_killed() {
    let seed =
        std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let kills: usize = std::env::var("TIDELOG_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let address = server.address().to_owned();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // A kill every 700 ms or so: the requests last about as long as the kills, however fast the machine is.
    let pause = Duration::from_millis(700) * kills as u32 / ASKED as u32;
    let asking: Vec<_> =
        (0..3).map(|number| tokio::spawn(requester(address.clone(), number, pause, stop.clone()))).collect();
    let start = |topic| tokio::spawn(responder(address.clone(), topic, answered.clone()));
    let mut responders = [start("load"), start("load"), start("analyse"), start("analyse")];
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.u64(200..700))).await;
        // One responder dies with what it has, and another comes for it.
        let gone = random.usize(..responders.len());
        responders[gone].abort();
        responders[gone] = start(if gone < 2 { "load" } else { "analyse" });
        tokio::time::sleep(Duration::from_millis(random.u64(..200))).await;
        server.kill();
        server = Server::start_on(dir.path(), &["--listen", &address]);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let mut taken = BTreeSet::new();
    for requester in asking {
        taken.append(&mut requester.await.unwrap());
    }
    assert!(!taken.is_empty());
    let client = builder(&address).build().await.unwrap();
    for id in &taken {
        let outcome = client.await_reply(id, LONG).await.unwrap();
        assert!(outcome.is_some(), "{id} has no outcome");
    }
    // Those too of which the requester does not know whether they were taken in.
    let until = std::time::Instant::now() + LONG;
    let listed = loop {
        let (listed, more) = client.admin().list_requests(ListRequests::default()).await.unwrap();
        assert!(!more, "more than a list holds; make the test shorter");
        if listed.iter().all(|request| request.state != "open" && request.callback_state == "delivered") {
            break listed;
        }
        assert!(std::time::Instant::now() < until, "some requests do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let found = callbacks(&client).await;
    let known: BTreeSet<String> = listed.iter().map(|request| request.id.clone()).collect();
    assert!(taken.is_subset(&known), "what was taken in is known");
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), known, "a callback for each request, and no other");
    let mut replied = 0;
    for request in &listed {
        let [(outcome, value)] = &found[&request.id][..] else {
            panic!("{} was called back more than once: {:?}", request.id, found[&request.id]);
        };
        match request.state.as_str() {
            "replied" => {
                replied += 1;
                let expected = format!("analyse(load({}))", request.id);
                assert_eq!((outcome.as_str(), value), ("replied", &expected));
            }
            "timed_out" => assert_eq!(outcome, "timed_out"),
            other => panic!("{} is {other}: {:?}", request.id, request.error),
        }
    }
    println!("{} requests, {replied} replied, {} answers", listed.len(), answered.load(Ordering::Relaxed));
    assert!(replied > 0);
    server.kill();
    tidelog(&["verify", dir.path().to_str().unwrap(), "--quiet"]).ok();
}

#[test]
fn the_commands_ask_answer_and_show() {
    let server = Server::start();
    let run = |args: &[&str]| tidelog(&[args, &["--server", server.address()]].concat());
    let text = |outcome: common::Outcome| String::from_utf8(outcome.stdout).unwrap();
    let nobody = run(&["request", "upper", "abc"]).fails(3);
    assert!(nobody.reason().contains("topic 'upper': nobody responds"), "{}", nobody.reason());
    let command =
        "read word; if [ \"$word\" = bad ]; then echo no such word >&2; exit 3; fi; echo \"$word\" | tr a-z A-Z";
    let reply = spawn(&["reply", "upper", "--exec", command, "--max", "4", "--server", server.address()]);
    // It is there when a request finds it.
    let until = std::time::Instant::now() + LONG;
    let first = loop {
        let tried = run(&["request", "upper", "abc", "--timeout", "60s"]);
        if tried.status == Some(0) {
            break text(tried);
        }
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(first, "ABC\n");
    let failed = run(&["request", "upper", "bad", "--timeout", "60s"]).fails(7);
    assert!(failed.reason().contains("error reply 'exit-3': no such word"), "{}", failed.reason());
    assert_eq!(text(run(&["request", "upper", "def", "--durable", "--timeout", "60s"]).ok()), "DEF\n");
    let id = text(run(&["request", "upper", "ghi", "--callback", "answers", "--timeout", "60s"]).ok());
    let id = id.trim();
    let status = text(run(&["request", "status", id, "--wait", "60s", "--json"]).ok());
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((status["state"].as_str(), status["value"].as_str()), (Some("replied"), Some("GHI\n")));
    reply.finish(LONG).ok();
    let id = text(run(&["request", "upper", "x", "--callback", "answers", "--timeout", "1h"]).ok());
    let id = id.trim();
    assert!(text(run(&["requests", "show", id]).ok()).contains("open"));
    assert!(text(run(&["requests", "cancel", id]).ok()).contains("cancelled"));
    assert!(text(run(&["requests", "list", "--state", "cancelled"]).ok()).contains(id));
    let unknown = run(&["requests", "show", "nobody"]).fails(3);
    assert!(unknown.reason().contains("there is no request nobody"), "{}", unknown.reason());
    run(&["request", "upper"]).fails(2);
}
