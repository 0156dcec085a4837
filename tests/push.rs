//! Push subscriptions: what endpoints get, what becomes of it when they do not take it, and that nothing is lost whoever is
//! killed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and waits for a child")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::endpoint::{Endpoint, Got, LONG};
use common::{Server, tidelog};
use tidelog::broker::WebhookSecret;
use tidelog::client::{Client, ListPushes, Message, NewPush, NewTopic, PushDescription, QueueRules, StartAt};

const LOOPBACK: [&str; 2] = ["--outgoing-allow", "127.0.0.0/8"];

async fn endpoint() -> Endpoint {
    Endpoint::start("127.0.0.1:0".parse().unwrap()).await
}

fn server(dir: &Path, more: &[&str]) -> Server {
    Server::start_on(&dir.join("data"), &[&LOOPBACK[..], more].concat())
}

/// Rules with short waits.
fn rules(max_deliveries: u32) -> QueueRules {
    QueueRules { max_deliveries, backoff_ms: 5, backoff_max_ms: 20, ..QueueRules::default() }
}

async fn produce(client: &Client, topic: &str, values: impl IntoIterator<Item = String>) {
    let producer = client.producer().build().await.unwrap();
    let mut receipts = Vec::new();
    for value in values {
        receipts.push(producer.send(Message::to(topic).key(value.clone()).value(value)).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
}

/// Waits for a push to be as it should be.
async fn pushed(client: &Client, name: &str, what: &str, is_so: impl Fn(&PushDescription) -> bool) -> PushDescription {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let push = client.admin().describe_push(name).await.unwrap();
        if is_so(&push) {
            return push;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name}: {what}: {push:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The dead letters of a push: value, attempts, reason.
async fn dead(client: &Client, name: &str) -> Vec<(String, String, String)> {
    let topic = format!("dead-letter.{name}");
    let consumer = client.consumer().topic(&topic).from(StartAt::Beginning).until_end(true).build().await;
    let Ok(mut consumer) = consumer else { return Vec::new() };
    let mut dead = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        let header = |name: &str| {
            let header = record.headers.iter().find(|header| header.name == name.as_bytes()).unwrap();
            String::from_utf8(header.value.unwrap().to_vec()).unwrap()
        };
        let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        dead.push((value, header("tidelog-attempts"), header("tidelog-error")));
    }
    dead
}

fn texts(got: &[Got]) -> BTreeSet<String> {
    got.iter().map(|got| String::from_utf8(got.body.clone()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_endpoint_gets_every_record_that_is_wanted_signed_and_the_group_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let secret = WebhookSecret::random();
    let file = dir.path().join("secret");
    std::fs::write(&file, secret.text()).unwrap();
    let server = server(dir.path(), &["--outgoing-secret-file", file.to_str().unwrap()]);
    let hook = endpoint().await;
    let client = Client::connect(server.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("crm").partitions(3)).await.unwrap();
    let values = || (0..60).map(|number| format!("{{\"number\":{number}}}"));
    produce(&client, "crm", values()).await;
    let push = NewPush::new("one", hook.url("/one")).topic("crm").from(StartAt::Beginning).filter("value.number >= 20");
    client.admin().create_push(push).await.unwrap();
    let push = NewPush::new("all", hook.url("/all")).topic("cr>").batch(7).concurrency(2);
    assert!(client.admin().create_push(push).await.is_err(), "the pattern is none");
    let push = NewPush::new("all", hook.url("/all")).topic("*").from(StartAt::Beginning).batch(7).concurrency(2);
    client.admin().create_push(push.clone()).await.unwrap();
    let again = client.admin().create_push(push.clone()).await.unwrap_err();
    assert!(again.to_string().contains("already exists"), "{again}");
    client.admin().create_push(push.replace(true)).await.unwrap();
    let one = pushed(&client, "one", "all are done", |push| push.lag == 0).await;
    assert_eq!((one.delivered, one.retried, one.dead_letters), (40, 0, 0));
    assert_eq!((one.state.as_str(), one.in_flight, one.last_error), ("running", 0, None));
    let got = hook.got("/one");
    assert_eq!(texts(&got), values().skip(20).collect());
    let mut ids = BTreeSet::new();
    for Got { headers, body, .. } in &got {
        let id = &headers["webhook-id"];
        assert!(ids.insert(id.clone()), "each once");
        assert!(id.ends_with(&format!("-{}-{}", headers["tidelog-partition"], headers["tidelog-offset"])));
        assert_eq!((&headers["ce-id"], headers["tidelog-topic"].as_str()), (id, "crm"));
        assert_eq!(headers["tidelog-key"].as_bytes(), body);
        let stamp = headers["webhook-timestamp"].parse().unwrap();
        assert!(secret.verifies(id, stamp, body, &headers["webhook-signature"]));
    }
    pushed(&client, "all", "all are done", |push| push.lag == 0 && push.delivered == 60).await;
    let mut numbers = BTreeSet::new();
    for Got { headers, body, .. } in hook.got("/all") {
        let stamp = headers["webhook-timestamp"].parse().unwrap();
        assert!(secret.verifies(&headers["webhook-id"], stamp, &body, &headers["webhook-signature"]));
        let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        assert!(events.len() <= 7 && headers["tidelog-records"] == events.len().to_string());
        for event in events {
            assert!(numbers.insert(event["data"]["number"].as_u64().unwrap()), "each once");
        }
    }
    assert_eq!(numbers.len(), 60);
    let group = client.admin().describe_group("one").await.unwrap();
    assert_eq!(group.partitions.iter().map(|at| at.lag + at.in_flight).sum::<u64>(), 0);
    assert!(group.members[0].client.starts_with("push http://"), "{group:?}");
    let metrics = client.admin().metrics().await.unwrap();
    for line in [
        "tidelog_push_delivered_total{push=\"one\"} 40",
        "tidelog_push_retried_total{push=\"one\"} 0",
        "tidelog_push_dead_letters_total{push=\"all\"} 0",
        "tidelog_push_in_flight{push=\"all\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let refused = client.admin().delete_group("one", true).await.unwrap_err();
    assert!(refused.to_string().contains("push subscription"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_behaves_badly_gets_dead_letters_and_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The metadata service, which was allowed once.
    let metadata = || NewPush::new("metadata", "http://169.254.169.254/latest").topic("bad").rules(rules(1));
    let once = Server::start_on(&dir.path().join("data"), &["--outgoing-allow", "169.254.0.0/16"]);
    let client = Client::connect(once.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("bad")).await.unwrap();
    client.admin().create_push(metadata()).await.unwrap();
    once.terminate();
    let server = server(dir.path(), &["--outgoing-pause", "20ms"]);
    let client = Client::connect(server.address()).await.unwrap();
    let (good, bad) = (endpoint().await, endpoint().await);
    client.admin().create_topic(NewTopic::new("good")).await.unwrap();
    let before = server.resident_kib();
    let paths = ["never", "hang", "drip", "elsewhere", "flood"];
    for path in paths {
        let push = NewPush::new(path, bad.url(&format!("/{path}"))).topic("bad").rules(rules(2));
        // These two never answer; how long they are waited for is all the same.
        let silent = path == "hang" || path == "drip";
        let push = if silent { push.timeout(Duration::from_millis(400)) } else { push };
        client.admin().create_push(push).await.unwrap();
    }
    // It is not called; that is no delivery. Nor is it taken as an endpoint.
    let refused = client.admin().create_push(metadata().replace(true)).await.unwrap_err();
    assert!(refused.to_string().contains("a link-local address"), "{refused}");
    let push = NewPush::new("good", good.url("/ok")).topic("good").rules(rules(1));
    client.admin().create_push(push).await.unwrap();
    produce(&client, "bad", (0..3).map(|number| number.to_string())).await;
    produce(&client, "good", (0..100).map(|number| number.to_string())).await;
    pushed(&client, "good", "all are done", |push| push.lag == 0 && push.delivered == 100).await;
    for (path, says) in [
        ("never", "the endpoint answers 404 what"),
        ("hang", "no answer within 400 ms"),
        ("drip", "no answer within 400 ms"),
        ("elsewhere", "the endpoint answers 307"),
    ] {
        pushed(&client, path, "all are done", |push| push.lag == 0).await;
        let dead = dead(&client, path).await;
        let values: Vec<&str> = dead.iter().map(|(value, ..)| value.as_str()).collect();
        assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), 3, "{path}: {values:?}");
        assert_eq!(values.len(), 3, "{path}: each once");
        assert!(dead.iter().all(|(_, attempts, why)| attempts == "2" && why.contains(says)), "{dead:?}");
    }
    // Its status says that it has them; what else it says is not waited for.
    pushed(&client, "flood", "all are done", |push| push.lag == 0 && push.delivered == 3).await;
    let metadata = pushed(&client, "metadata", "it rests", |push| push.last_error.is_some()).await;
    assert!(metadata.last_error.unwrap().contains("a link-local address"));
    assert_eq!((metadata.lag, metadata.retried, metadata.dead_letters), (3, 0, 0));
    if let (Some(before), Some(after)) = (before, server.resident_kib()) {
        assert!(after < before + 64 * 1024, "{before} KiB, then {after} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_for_an_endpoint_that_is_away_and_for_one_that_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &["--outgoing-pause", "100ms"]);
    let client = Client::connect(server.address()).await.unwrap();
    let hook = endpoint().await;
    let (address, url, busy) = (hook.address, hook.url("/ok"), hook.url("/busy"));
    drop(hook);
    client.admin().create_topic(NewTopic::new("crm").partitions(2)).await.unwrap();
    client.admin().create_push(NewPush::new("away", url).topic("crm").rules(rules(1))).await.unwrap();
    produce(&client, "crm", (0..50).map(|number| number.to_string())).await;
    let away = pushed(&client, "away", "it has failed", |push| push.state == "resting").await;
    assert_eq!((away.lag, away.in_flight, away.retried), (50, 0, 0));
    let hook = Endpoint::start(address).await;
    let back = pushed(&client, "away", "all are done", |push| push.lag == 0).await;
    assert_eq!((back.delivered, back.dead_letters), (50, 0), "to be away is no delivery");
    assert_eq!(hook.got("/ok").len(), 50);
    let push = NewPush::new("busy", busy).topic("crm").from(StartAt::Beginning).rules(rules(5)).concurrency(1);
    client.admin().create_push(push).await.unwrap();
    let busy = pushed(&client, "busy", "all are done", |push| push.lag == 0).await;
    assert_eq!((busy.delivered, busy.retried, busy.dead_letters), (50, 1, 0));
    let got = hook.got("/busy");
    let apart = got[1].at - got[0].at;
    assert!(apart >= Duration::from_secs(2), "it was called again after {apart:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lasts_as_long_as_a_slow_endpoint_is_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    let hook = endpoint().await;
    client.admin().create_topic(NewTopic::new("crm")).await.unwrap();
    let short = QueueRules { lease_ms: 1_000, ..rules(100) };
    client.admin().create_push(NewPush::new("slow", hook.url("/slow")).topic("crm").rules(short)).await.unwrap();
    produce(&client, "crm", ["one".to_owned()]).await;
    pushed(&client, "slow", "it is done", |push| push.lag == 0 && push.delivered > 0).await;
    // Without it there would be five; a machine that stands still for a while may lose one.
    assert!(hook.got("/slow").len() < 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_cannot_cope_with_makes_no_dead_letters_of_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    let hook = endpoint().await;
    client.admin().create_topic(NewTopic::new("crm")).await.unwrap();
    let value = |number| if number % 25 == 7 { format!("bad-{number}") } else { format!("n-{number}") };
    produce(&client, "crm", (0..100).map(value)).await;
    let push =
        NewPush::new("batch", hook.url("/picky")).topic("crm").from(StartAt::Beginning).batch(50).rules(rules(8));
    client.admin().create_push(push).await.unwrap();
    let done = pushed(&client, "batch", "all are done", |push| push.lag == 0).await;
    assert_eq!((done.delivered, done.dead_letters), (96, 4));
    let dead: Vec<(String, String, String)> = dead(&client, "batch").await;
    let mut values: Vec<&str> = dead.iter().map(|(value, ..)| value.as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["bad-32", "bad-57", "bad-7", "bad-82"]);
    assert!(dead.iter().all(|(_, attempts, why)| attempts == "8" && why.contains("400 not for me!")), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_pushes_goes_on_behind_what_one_answer_holds() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    let admin = client.admin();
    // Together more than an answer holds.
    let filter = format!("key == '{}'", "x".repeat(15_000));
    let names: Vec<String> = (0..40).map(|number| format!("push-{number:02}")).collect();
    for name in &names {
        let push = NewPush::new(name, "https://example.com/hook").topic("nothing").filter(&filter);
        admin.create_push(push).await.unwrap();
    }
    let mut listed: Vec<String> = Vec::new();
    let mut pages = 0;
    loop {
        let wanted = ListPushes { after: listed.last().cloned(), ..ListPushes::default() };
        let (page, more) = admin.list_pushes(wanted).await.unwrap();
        listed.extend(page.into_iter().map(|push| push.name));
        pages += 1;
        if !more {
            break;
        }
    }
    assert_eq!((&listed, pages), (&names, 2));
    let page = async |after: &str, limit| {
        let (page, more) = admin.list_pushes(ListPushes { after: Some(after.to_owned()), limit }).await.unwrap();
        (page.into_iter().map(|push| push.name).collect::<Vec<_>>(), more)
    };
    assert_eq!(page("push-02", 2).await, (vec!["push-03".to_owned(), "push-04".to_owned()], true));
    // Where one was that is gone; and at the end.
    admin.delete_push("push-02").await.unwrap();
    assert_eq!(page("push-02", 1).await, (vec!["push-03".to_owned()], true));
    assert_eq!(page("push-38", 1).await, (vec!["push-39".to_owned()], false));
    assert_eq!(page("push-39", 1).await, (Vec::new(), false));
    let out = tidelog(&["push", "list", "--json", "--server", server.address()]).ok();
    assert_eq!(String::from_utf8(out.stdout).unwrap().lines().count(), 39);
}

/// What a command prints as JSON.
fn said(server: &Server, args: &[&str]) -> serde_json::Value {
    let out = tidelog(&[args, &["--json", "--server", server.address()]].concat()).ok();
    serde_json::from_slice(&out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_paused_over_a_restart_goes_on_where_it_was_and_is_deleted_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = server(dir.path(), &[]);
    let hook = endpoint().await;
    let client = Client::connect(one.address()).await.unwrap();
    produce(&client, "crm", (0..10).map(|number| number.to_string())).await;
    let url = hook.url("/ok");
    let made = said(&one, &["push", "create", "erp", "--topic", "crm", "--url", &url, "--from", "beginning"]);
    assert_eq!(
        (&made["push"], &made["url"], &made["dead_letter"]),
        (&"erp".into(), &url.into(), &"dead-letter.erp".into())
    );
    pushed(&client, "erp", "all are done", |push| push.lag == 0).await;
    assert_eq!(said(&one, &["push", "pause", "erp"])["state"], "paused");
    pushed(&client, "erp", "nothing is under way", |push| push.in_flight == 0).await;
    produce(&client, "crm", (10..20).map(|number| number.to_string())).await;
    drop(client);
    one.kill();
    drop(one);
    let two = server(dir.path(), &[]);
    let client = Client::connect(two.address()).await.unwrap();
    let push = said(&two, &["push", "describe", "erp"]);
    assert_eq!((&push["state"], &push["paused"], &push["lag"]), (&"paused".into(), &"by request".into(), &10.into()));
    assert_eq!(said(&two, &["push", "list"])["push"], "erp");
    assert_eq!(said(&two, &["push", "resume", "erp"])["paused"], serde_json::Value::Null);
    pushed(&client, "erp", "all are done", |push| push.lag == 0).await;
    assert_eq!(hook.got("/ok").len(), 20, "each once");
    // One that wants no more of them is left alone until somebody says otherwise.
    let gone = NewPush::new("gone", hook.url("/gone")).topic("crm").from(StartAt::Beginning);
    client.admin().create_push(gone).await.unwrap();
    let gone = pushed(&client, "gone", "it is paused", |push| push.state == "paused").await;
    assert!(gone.paused.unwrap().contains("410"));
    assert_eq!((gone.lag, gone.dead_letters), (20, 0));
    assert_eq!(said(&two, &["push", "delete", "erp"])["deleted"], true);
    let error = client.admin().describe_push("erp").await.unwrap_err();
    assert!(error.to_string().contains("there is no push 'erp'"), "{error}");
    assert!(client.admin().describe_group("erp").await.is_err(), "its group is gone too");
    assert!(!client.admin().metrics().await.unwrap().contains("push=\"erp\""));
    produce(&client, "crm", ["later".to_owned()]).await;
    let again = hook.url("/again");
    said(&two, &["push", "create", "erp", "--topic", "crm", "--url", &again, "--from", "end"]);
    produce(&client, "crm", ["new".to_owned()]).await;
    pushed(&client, "erp", "it is done", |push| push.delivered == 1).await;
    assert_eq!(texts(&hook.got("/again")), BTreeSet::from(["new".to_owned()]));
    assert_eq!(hook.got("/ok").len(), 20);
    let wrong = tidelog(&["push", "create", "x", "--topic", "crm", "--url", "ftp://x/y", "--server", two.address()]);
    assert!(wrong.fails(1).reason().contains("not a URL that begins with https://"));
    assert_eq!(two.terminate(), Some(0));
}

/// What a command prints, stdout and stderr.
fn printed(server: &Server, args: &[&str]) -> (String, String) {
    let out = tidelog(&[args, &["--server", server.address()]].concat()).ok();
    (String::from_utf8(out.stdout.clone()).unwrap(), out.stderr())
}

/// Why a command fails, whatever its status.
fn refused(server: &Server, args: &[&str]) -> String {
    let outcome = tidelog(&[args, &["--server", server.address()]].concat());
    assert_ne!(outcome.status, Some(0), "{}", outcome.stderr());
    outcome.reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gets_headers_of_its_own_that_nobody_is_shown_and_that_go_to_no_other_host() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = server(dir.path(), &["--log-level", "debug"]);
    let (hook, other) = (endpoint().await, endpoint().await);
    let client = Client::connect(one.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("crm")).await.unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token, basic) = (file("token", "hush-token\n"), file("basic", "user:hush-word\n"));
    let more = file("more", "# the ERP wants\nX-Api-Key: hush-key\n");
    let url = hook.url("/ok");
    let create = ["push", "create", "erp", "--topic", "crm", "--url", &url];
    let made = said(&one, &[&create[..], &["--header", "X-Tenant: eu", "--bearer-file", &token]].concat());
    assert_eq!(made["headers"], serde_json::json!(["authorization", "x-tenant"]));
    produce(&client, "crm", ["one".to_owned()]).await;
    pushed(&client, "erp", "it is done", |push| push.delivered == 1).await;
    let headers = hook.got("/ok")[0].headers.clone();
    assert_eq!((headers["authorization"].as_str(), headers["x-tenant"].as_str()), ("Bearer hush-token", "eu"));
    // They are there after a crash, and change one by one.
    drop(client);
    one.kill();
    let two = server(dir.path(), &["--log-level", "debug"]);
    let client = Client::connect(two.address()).await.unwrap();
    let alter = ["push", "alter", "erp", "--header-file", &more, "--basic-file", &basic, "--drop-header", "X-Tenant"];
    let altered = said(&two, &alter);
    assert_eq!(altered["headers"], serde_json::json!(["authorization", "x-api-key"]));
    produce(&client, "crm", ["two".to_owned()]).await;
    pushed(&client, "erp", "it is done", |push| push.delivered == 1).await;
    let headers = hook.got("/ok")[1].headers.clone();
    assert_eq!(headers["authorization"], "Basic dXNlcjpodXNoLXdvcmQ=");
    assert_eq!((headers["x-api-key"].as_str(), headers.get("x-tenant")), ("hush-key", None));
    // To another host they go when somebody says so, and never by its word.
    let elsewhere = other.url("/ok");
    let to_other = ["push", "alter", "erp", "--url", &elsewhere];
    let why = refused(&two, &to_other);
    assert!(why.contains("given for") && why.contains("authorization, x-api-key"), "{why}");
    let why = refused(&two, &[&create[..6], &[&elsewhere, "--replace"]].concat());
    assert!(why.contains("given for"), "{why}");
    let redirecting = hook.url(&format!("/to/{}/stolen", other.address));
    said(&two, &["push", "alter", "erp", "--url", &redirecting, "--max-deliveries", "1"]);
    produce(&client, "crm", ["three".to_owned()]).await;
    pushed(&client, "erp", "it is given up", |push| push.dead_letters == 1).await;
    assert_eq!(hook.got(&format!("/to/{}/stolen", other.address))[0].headers["x-api-key"], "hush-key");
    assert!(other.got("/stolen").is_empty());
    assert_eq!(said(&two, &[&to_other[..], &["--drop-headers"]].concat())["headers"], serde_json::json!([]));
    produce(&client, "crm", ["four".to_owned()]).await;
    pushed(&client, "erp", "it is done", |push| push.delivered == 2).await;
    assert_eq!(other.got("/ok")[0].headers.get("authorization"), None);
    said(&two, &[&to_other[..], &["--bearer-file", &token]].concat());
    for (args, says) in [
        (["--header", "Host: hush"], "header 'host' cannot be set: it is the connection's"),
        (["--header", "webhook-id: hush"], "names that begin with 'webhook-' are the server's"),
        (["--drop-header", "x-none"], "push 'erp' has no header 'x-none'"),
    ] {
        let why = refused(&two, &[&["push", "alter", "erp"], &args[..]].concat());
        assert!(why.contains(says) && !why.contains("hush"), "{why}");
    }
    // Nobody sees a value.
    let journal = two.data_dir().join("journal/00000000000000000000.log");
    let dumped = tidelog(&["dump", journal.to_str().unwrap(), "--records"]).ok();
    let (list, _) = printed(&two, &["push", "list", "--json"]);
    let (described, _) = printed(&two, &["push", "describe", "erp"]);
    assert!(list.contains("authorization") && described.contains("authorization (values are not shown)"));
    let dumped = String::from_utf8(dumped.stdout).unwrap();
    assert!(dumped.contains("key push/erp"));
    for shown in [&list, &described, &dumped, &one.log(), &two.log(), &client.admin().metrics().await.unwrap()] {
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rotated_with_two_signatures_for_a_while_and_one_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let secrets: Vec<WebhookSecret> = (0..4).map(|_| WebhookSecret::random()).collect();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // The server's own is being rotated as well.
    let for_all = file("for-all", format!("{}\n{}\n", secrets[0].text(), secrets[1].text()));
    let flags = ["--outgoing-secret-file", &for_all];
    let mut one = server(dir.path(), &flags);
    let hook = endpoint().await;
    let client = Client::connect(one.address()).await.unwrap();
    client.admin().create_topic(NewTopic::new("crm")).await.unwrap();
    let url = hook.url("/ok");
    let made = said(&one, &["push", "create", "erp", "--topic", "crm", "--url", &url]);
    assert_eq!((&made["secret"], &made["signed"]), (&"server".into(), &true.into()));
    let mut calls = 0;
    // Sends a record, and says which of the secrets have signed it.
    let mut signed = async |client: &Client, more: &[&WebhookSecret]| {
        produce(client, "crm", [calls.to_string()]).await;
        common::endpoint::until("it is there", || hook.got("/ok").len() > calls).await;
        let got = hook.got("/ok").remove(calls);
        calls += 1;
        let (id, stamp) = (&got.headers["webhook-id"], got.headers["webhook-timestamp"].parse().unwrap());
        let words: Vec<&str> = got.headers["webhook-signature"].split(' ').collect();
        let all: Vec<&WebhookSecret> = secrets.iter().chain(more.iter().copied()).collect();
        let by = |word: &&str| all.iter().position(|secret| secret.verifies(id, stamp, &got.body, word)).unwrap();
        words.iter().map(by).collect::<Vec<usize>>()
    };
    assert_eq!(signed(&client, &[]).await, [0, 1]);
    let (second, third) = (file("second", secrets[2].text()), file("third", secrets[3].text()));
    let rotate = ["push", "rotate", "erp", "--secret-file"];
    let rotated = said(&one, &[&rotate[..], &[&second, "--keep-old", "0s"]].concat());
    assert_eq!((&rotated["secret"], &rotated["old_secret_until"]), (&"own".into(), &serde_json::Value::Null));
    assert_eq!(signed(&client, &[]).await, [2]);
    let (_, says) = printed(&one, &[&rotate[..], &[&third, "--keep-old", "1h"]].concat());
    assert!(says.contains("signs with its new secret, and with the one before until "), "{says}");
    assert_eq!(signed(&client, &[]).await, [3, 2]);
    drop(client);
    one.kill();
    let two = server(dir.path(), &flags);
    let client = Client::connect(two.address()).await.unwrap();
    assert_eq!(signed(&client, &[]).await, [3, 2], "also after a crash");
    let (new, says) = printed(&two, &["push", "rotate", "erp", "--keep-old", "1s"]);
    let new = WebhookSecret::parse(&new).unwrap();
    assert!(says.contains("the secret above is not shown again"), "{says}");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(signed(&client, &[&new]).await, [4], "the time of the one before is over");
    assert_eq!(said(&two, &["push", "describe", "erp"])["old_secret_until"], serde_json::Value::Null);
    let back = said(&two, &["push", "alter", "erp", "--server-secret"]);
    assert_eq!((&back["secret"], back.get("new_secret")), (&"server".into(), None));
    assert_eq!(signed(&client, &[]).await, [0, 1]);
    let why = refused(&two, &["push", "rotate", "erp", "--keep-old", "31d"]);
    assert!(why.contains("allowed are 0 to 2592000000 (30 days)"), "{why}");
    let why = refused(&two, &["push", "rotate", "other"]);
    assert!(why.contains("there is no push 'other'"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_push_begins_at_the_end_and_says_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &[]);
    let hook = endpoint().await;
    let client = Client::connect(server.address()).await.unwrap();
    produce(&client, "crm", (0..12).map(|number| number.to_string())).await;
    let (new, all) = (hook.url("/new"), hook.url("/all"));
    let (_, says) = printed(&server, &["push", "create", "new", "--topic", "crm", "--url", &new]);
    assert!(says.contains("starts at the end; --from beginning sends the 12 records there are"), "{says}");
    let (_, says) = printed(&server, &["push", "create", "none", "--topic", "other", "--url", &new]);
    assert!(says.contains("starts at the end; there is no record yet"), "{says}");
    printed(&server, &["push", "create", "all", "--topic", "crm", "--url", &all, "--from", "beginning"]);
    pushed(&client, "all", "all are done", |push| push.delivered == 12).await;
    produce(&client, "crm", ["later".to_owned()]).await;
    pushed(&client, "new", "it is done", |push| push.lag == 0 && push.delivered == 1).await;
    assert_eq!(texts(&hook.got("/new")), BTreeSet::from(["later".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_and_an_endpoint_that_is_away_lose_no_record_and_give_up_only_what_is_refused() {
    let seed =
        std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let kills: usize = std::env::var("TIDELOG_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let pause = ["--outgoing-pause", "50ms"];
    let mut running = server(dir.path(), &pause);
    let address = running.address().to_owned();
    let notes: Arc<Mutex<Vec<Got>>> = Arc::default();
    let mut hook = Some(Endpoint::start_with("127.0.0.1:0".parse().unwrap(), notes.clone()).await);
    let at = hook.as_ref().unwrap().address;
    let url = hook.as_ref().unwrap().url("/picky");
    let connect = || Client::builder().server(&address).request_timeout(LONG).build();
    let client = connect().await.unwrap();
    client.admin().create_topic(NewTopic::new("crm").partitions(3)).await.unwrap();
    // More than an endpoint can be taken away in the middle of a call, with the connections that it leaves behind.
    let deliveries = 10 * (u32::try_from(kills).unwrap() + 1);
    let short = QueueRules { backoff_ms: 1, backoff_max_ms: 4, ..rules(deliveries) };
    let push = NewPush::new("erp", &url).topic("crm").rules(short).concurrency(8);
    client.admin().create_push(push).await.unwrap();
    drop(client);
    let mut sent = BTreeSet::new();
    for round in 0..=kills {
        let client = connect().await.unwrap();
        let name = |number: usize| format!("{}-{round}-{number}", if number % 20 == 3 { "bad" } else { "good" });
        sent.extend((0..100).map(name));
        produce(&client, "crm", (0..100).map(name)).await;
        if hook.is_some() && random.bool() {
            hook = None;
        } else if hook.is_none() {
            hook = Some(Endpoint::start_with(at, notes.clone()).await);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
        drop(client);
        if round < kills {
            running.kill();
            running = server(dir.path(), &[&pause[..], &["--listen", &address]].concat());
        }
    }
    let _hook = match hook {
        Some(hook) => hook,
        None => Endpoint::start_with(at, notes.clone()).await,
    };
    let client = connect().await.unwrap();
    pushed(&client, "erp", "all are done", |push| push.lag == 0).await;
    let mut by_id: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut calls = 0;
    for got in notes.lock().unwrap().iter() {
        by_id.entry(got.headers["webhook-id"].clone()).or_default().insert(got.body.clone());
        calls += 1;
    }
    assert!(by_id.values().all(|bodies| bodies.len() == 1), "an id is of one record");
    let got: BTreeSet<String> = by_id.values().flatten().map(|body| String::from_utf8(body.clone()).unwrap()).collect();
    assert_eq!(got, sent, "every record was sent");
    assert_eq!(by_id.len(), sent.len(), "a record has one id");
    let mut dead: Vec<String> = dead(&client, "erp").await.into_iter().map(|(value, ..)| value).collect();
    dead.sort_unstable();
    let refused: Vec<String> = sent.iter().filter(|value| value.starts_with("bad")).cloned().collect();
    assert_eq!(dead, refused, "each of these once, and no other");
    println!("{} records in {calls} calls, {} of them dead letters", sent.len(), dead.len());
}
