//! Callbacks by POST: what endpoints get, what becomes of it when they do not take it, and that a killed server forgets none.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and waits for a child")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::endpoint::{Endpoint, Got, LONG, until};
use common::{Server, tidelog};
use tidelog::broker::WebhookSecret;
use tidelog::client::{Client, ErrorReply, IncomingRequest, StartAt};

/// What a command says of a request.
fn shown(server: &Server, id: &str) -> serde_json::Value {
    let shown = tidelog(&["requests", "show", id, "--server", server.address(), "--json"]).ok();
    serde_json::from_slice(&shown.stdout).unwrap()
}

async fn respond(client: Client) {
    let handler = |request: IncomingRequest| async move {
        match &request.body[..] {
            b"fail" => Err(ErrorReply::new("no_such_thing", "there is none")),
            body => Ok([b"re: ", body].concat()),
        }
    };
    let _ = client.responder("load").handle(handler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_posted_signed_and_again_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let secret = WebhookSecret::random();
    let file = dir.path().join("secret");
    std::fs::write(&file, format!("{}\n", secret.text())).unwrap();
    let flags = ["--outgoing-allow", "127.0.0.0/8", "--outgoing-secret-file", file.to_str().unwrap()];
    let server = Server::start_on(&dir.path().join("data"), &flags);
    let endpoint = Endpoint::start("127.0.0.1:0".parse().unwrap()).await;
    let client = Client::connect(server.address()).await.unwrap();
    let responder = tokio::spawn(respond(Client::connect(server.address()).await.unwrap()));
    let ask = async |body: &str, path: &str, id: &str, timeout: Duration| {
        client.request("load", body.to_owned(), timeout).callback(endpoint.url(path)).id(id).submit().await.unwrap();
    };
    ask("4711", "/ok", "one", LONG).await;
    ask("fail", "/failed", "two", LONG).await;
    ask("late", "/later", "three", LONG).await;
    client
        .request("nobody", "x", Duration::from_millis(200))
        .callback(endpoint.url("/timed-out"))
        .id("four")
        .submit()
        .await
        .unwrap();
    ask("x", "/gone", "five", LONG).await;
    until("all are called", || {
        ["/ok", "/failed", "/timed-out", "/gone"].iter().all(|path| !endpoint.got(path).is_empty())
            && endpoint.got("/later").len() == 3
    })
    .await;
    for (path, id, body, outcome) in [
        ("/ok", "one", "re: 4711", "replied"),
        ("/failed", "two", "", "failed"),
        ("/later", "three", "re: late", "replied"),
        ("/timed-out", "four", "", "timed_out"),
    ] {
        let all = endpoint.got(path);
        let Got { headers, body: got, .. } = all.last().unwrap();
        assert_eq!(String::from_utf8_lossy(got), body, "{path}");
        assert!(all.iter().all(|got| got.headers["webhook-id"] == id), "the same each time");
        assert_eq!(headers["tidelog-outcome"], outcome, "{path}");
        assert_eq!((headers["ce-id"].as_str(), headers["ce-specversion"].as_str()), (id, "1.0"));
        let stamp = headers["webhook-timestamp"].parse().unwrap();
        assert!(secret.verifies(id, stamp, got, &headers["webhook-signature"]));
        until("it is delivered", || shown(&server, id)["callback_state"] == "delivered").await;
    }
    assert_eq!(endpoint.got("/failed")[0].headers["tidelog-error"], "there is none");
    assert_eq!(endpoint.got("/ok")[0].headers["ce-type"], "tidelog.request.replied");
    assert_eq!(endpoint.got("/ok")[0].headers["ce-source"], "/topics/load");
    // One that wants no more of them is not asked again.
    until("it is given up", || shown(&server, "five")["callback_state"] == "dead_letter").await;
    assert_eq!(endpoint.got("/gone").len(), 1);
    assert_eq!(shown(&server, "five")["callback"], endpoint.url("/gone"));
    let from = StartAt::Beginning;
    let mut dead = client.consumer().topic("dead-letter.callbacks").from(from).until_end(true).build().await.unwrap();
    let dead = dead.next().await.unwrap().unwrap();
    let header = |name: &str| {
        let header = dead.headers.iter().find(|header| header.name == name.as_bytes()).unwrap();
        String::from_utf8(header.value.unwrap().to_vec()).unwrap()
    };
    assert_eq!(dead.value.as_deref(), Some(&b"re: x"[..]));
    assert_eq!(header("tidelog-callback-url"), endpoint.url("/gone"));
    assert!(header("tidelog-callback-error").contains("410"));
    assert_eq!(header("tidelog-correlation-id"), "five");
    let refused = client.request("load", "x", LONG).callback("ftp://example.com/x").submit().await.unwrap_err();
    assert!(refused.to_string().contains("not a URL that begins with https://"), "{refused}");
    responder.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_behaves_badly_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--outgoing-allow", "127.0.0.0/8", "--outgoing-timeout", "2s", "--outgoing-connect-timeout", "1s"];
    let flags = [&flags[..], &["--callback-give-up-after", "1s"]].concat();
    // The metadata service, which was allowed once.
    let metadata = "http://169.254.169.254/latest";
    let once = Server::start_on(&dir.path().join("data"), &["--outgoing-allow", "169.254.0.0/16"]);
    let client = Client::connect(once.address()).await.unwrap();
    client.request("load", "x", LONG).callback(metadata).id("metadata").submit().await.unwrap();
    once.terminate();
    let server = Server::start_on(&dir.path().join("data"), &flags);
    let client = Client::connect(server.address()).await.unwrap();
    let responder = tokio::spawn(respond(Client::connect(server.address()).await.unwrap()));
    let any = "127.0.0.1:0".parse().unwrap();
    let (good, bad, away) = (Endpoint::start(any).await, Endpoint::start(any).await, Endpoint::start(any).await);
    let nobody = away.url("/ok");
    drop(away);
    let before = server.resident_kib();
    let paths = ["/hang", "/drip", "/flood", "/elsewhere", "/never"];
    for (number, path) in (0..100).flat_map(|number| paths.map(|path| (number, path))) {
        let id = format!("{}-{number}", &path[1..]);
        client.request("load", "x", LONG).callback(bad.url(path)).id(&id).submit().await.unwrap();
    }
    client.request("load", "x", LONG).callback(&nobody).id("nobody").submit().await.unwrap();
    // It is not called, and refused from now on.
    let refused = client.request("load", "x", LONG).callback(metadata).submit().await.unwrap_err();
    assert!(refused.to_string().contains("a link-local address"), "{refused}");
    for number in 0..50 {
        client
            .request("load", "y", LONG)
            .callback(good.url("/ok"))
            .id(format!("good-{number}"))
            .submit()
            .await
            .unwrap();
    }
    until("the good ones are there", || good.got("/ok").len() == 50).await;
    for id in ["nobody", "metadata"] {
        until("it is given up", || shown(&server, id)["callback_state"] == "dead_letter").await;
    }
    if let (Some(before), Some(after)) = (before, server.resident_kib()) {
        assert!(after < before + 64 * 1024, "{before} KiB, then {after} KiB");
    }
    responder.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_and_an_endpoint_that_is_away_lose_no_callback() {
    let seed =
        std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let kills: usize = std::env::var("TIDELOG_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--outgoing-allow", "127.0.0.0/8"];
    let mut server = Server::start_on(dir.path(), &flags);
    let address = server.address().to_owned();
    let flags = [&flags[..], &["--listen", &address]].concat();
    let notes: Arc<Mutex<Vec<Got>>> = Arc::default();
    let mut endpoint = Some(Endpoint::start_with("127.0.0.1:0".parse().unwrap(), notes.clone()).await);
    let at = endpoint.as_ref().unwrap().address;
    let url = endpoint.as_ref().unwrap().url("/ok");
    let mut asked = Vec::new();
    let mut got: BTreeMap<String, Vec<Got>> = BTreeMap::new();
    let mut take = || {
        for one in notes.lock().unwrap().drain(..) {
            got.entry(one.headers["webhook-id"].clone()).or_default().push(one);
        }
        got.len()
    };
    for round in 0..=kills {
        let client = Client::builder().server(&address).request_timeout(Duration::from_secs(60)).build().await.unwrap();
        let responder = tokio::spawn(respond(Client::connect(&address).await.unwrap()));
        for number in 0..40 {
            let id = format!("{round}-{number}");
            client.request("load", id.clone(), LONG).callback(&url).id(&id).submit().await.unwrap();
            asked.push(id);
        }
        if random.bool() && endpoint.is_some() {
            endpoint = None;
        } else if endpoint.is_none() {
            endpoint = Some(Endpoint::start_with(at, notes.clone()).await);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..200))).await;
        responder.abort();
        if round < kills {
            server.kill();
            server = Server::start_on(dir.path(), &flags);
        }
    }
    let _endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => Endpoint::start_with(at, notes.clone()).await,
    };
    let responder = tokio::spawn(respond(Client::connect(&address).await.unwrap()));
    until("all are delivered", || take() == asked.len()).await;
    for id in &asked {
        let body = format!("re: {id}");
        assert!(
            got[id].iter().all(|got| got.body == body.as_bytes() && got.headers["tidelog-outcome"] == "replied"),
            "{id}"
        );
        until("it is delivered", || shown(&server, id)["callback_state"] == "delivered").await;
    }
    let again = got.values().filter(|all| all.len() > 1).count();
    println!("{} callbacks, {again} of them more than once", asked.len());
    responder.abort();
}
