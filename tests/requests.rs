//! Request and response through a real server: the outcomes, sharing, parts, itineraries.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tidelog::base::ErrorKind;
use tidelog::client::{Client, ErrorReply, ListRequests, Message, Outcome, ReplyEvent, StartAt, Step};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

/// Longer than anything takes, on a machine that does other things too.
const LONG: Duration = Duration::from_secs(60);

struct Fixture {
    _dir: tempfile::TempDir,
    server: Server,
}

impl Fixture {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config =
            ServerConfig { data_dir: dir.path().join("data"), listen: "127.0.0.1:0".to_owned(), ..Default::default() };
        Self { server: Server::start(config).await.unwrap(), _dir: dir }
    }

    async fn client(&self) -> Client {
        Client::connect(self.server.addresses()[0].to_string()).await.unwrap()
    }
}

fn step(number: u32, topic: &str) -> Step {
    Step { number, topic: topic.to_owned() }
}

fn body(outcome: Outcome) -> String {
    match outcome {
        Outcome::Reply(reply) => String::from_utf8(reply.body.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A responder in a task of its own, which ends with the test.
async fn respond<H, F>(client: &Client, topic: &str, handler: H)
where
    H: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Result<String, ErrorReply>> + Send + 'static,
{
    let mut responder = client.responder(topic).listen().await.unwrap();
    tokio::spawn(async move {
        responder.handle(|request| handler(String::from_utf8_lossy(&request.body).into_owned())).await
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_error_nobody_and_time_out_are_different() {
    let fixture = Fixture::start().await;
    let (crm, support) = (fixture.client().await, fixture.client().await);
    let nobody = support.request("crm.phone", "4711", LONG).await.unwrap();
    assert_eq!(nobody, Outcome::NoResponder(step(0, "crm.phone")));
    respond(&crm, "crm.phone", |number| async move {
        match number.as_str() {
            "slow" => std::future::pending().await,
            "4711" => Ok("+49 30 1234".to_owned()),
            _ => Err(ErrorReply::new("unknown_customer", format!("there is no customer {number}"))),
        }
    })
    .await;
    assert_eq!(body(support.request("crm.phone", "4711", LONG).await.unwrap()), "+49 30 1234");
    let Outcome::Error(error) = support.request("crm.phone", "12", LONG).await.unwrap() else { panic!() };
    assert_eq!((error.code.as_str(), error.text.as_str()), ("unknown_customer", "there is no customer 12"));
    let late = support.request("crm.phone", "slow", Duration::from_millis(50)).await.unwrap();
    assert_eq!(late, Outcome::TimedOut(step(0, "crm.phone")));
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responders_share_the_work_and_one_that_goes_is_told_of() {
    let fixture = Fixture::start().await;
    let asking = fixture.client().await;
    let mut others = Vec::new();
    for name in ["a", "b"] {
        let client = fixture.client().await;
        respond(&client, "work", move |_| async move { Ok(name.to_owned()) }).await;
        others.push(client);
    }
    let mut replies = Vec::new();
    for _ in 0..20 {
        replies.push(body(asking.request("work", "", LONG).await.unwrap()));
    }
    assert_eq!(replies.iter().filter(|name| *name == "a").count(), 10);
    let gone = fixture.client().await;
    let mut responder = gone.responder("once").listen().await.unwrap();
    let (outcome, ()) = tokio::join!(asking.request("once", "", LONG).send(), async {
        drop(responder.next().await.unwrap());
    });
    assert!(matches!(outcome.unwrap(), Outcome::Error(error) if error.code == "dropped"));
    let (outcome, ()) = tokio::join!(asking.request("once", "", LONG).send(), async {
        std::mem::forget(responder.next().await.unwrap());
        drop(responder);
    });
    assert!(matches!(outcome.unwrap(), Outcome::Error(error) if error.code == "responder_gone"));
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_in_parts_comes_in_order_and_is_joined_for_who_does_not_care() {
    let fixture = Fixture::start().await;
    let (client, asking) = (fixture.client().await, fixture.client().await);
    let mut responder = client.responder("list").listen().await.unwrap();
    tokio::spawn(async move {
        loop {
            let mut incoming = responder.next().await.unwrap();
            for number in 0..100 {
                incoming.part(format!("{number} ")).await.unwrap();
            }
            incoming.reply("end").await.unwrap();
        }
    });
    let mut expected: Vec<String> = (0..100).map(|number| format!("{number} ")).collect();
    expected.push("end".to_owned());
    assert_eq!(body(asking.request("list", "", LONG).await.unwrap()), expected.concat());
    let mut stream = asking.request("list", "", LONG).stream().await.unwrap();
    let mut parts = Vec::new();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ReplyEvent::Part(part) => parts.push(String::from_utf8(part.body.to_vec()).unwrap()),
            ReplyEvent::End(outcome) => parts.push(body(outcome)),
        }
    }
    assert_eq!(parts, expected);
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hands_each_reply_on_and_names_the_step_that_failed() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    respond(&client, "double", |text| async move { Ok(format!("{text}{text}")) }).await;
    respond(&client, "count", |text| async move {
        if text.len() > 4 { Err(ErrorReply::new("long", text)) } else { Ok(text.len().to_string()) }
    })
    .await;
    assert_eq!(body(client.request("double", "ab", LONG).then("count").await.unwrap()), "4");
    let Outcome::Error(error) = client.request("double", "abc", LONG).then("count").await.unwrap() else { panic!() };
    assert_eq!((error.code.as_str(), error.text.as_str(), error.step), ("long", "abcabc", step(1, "count")));
    let nobody = client.request("double", "a", LONG).then("count").then("nobody").await.unwrap();
    assert_eq!(nobody, Outcome::NoResponder(step(2, "nobody")));
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_that_goes_leaves_nothing_behind() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let mut responder = client.responder("slow").capacity(1).listen().await.unwrap();
    {
        let gone = fixture.client().await;
        let asking = tokio::spawn(async move { gone.request("slow", "first", LONG).await });
        let first = responder.next().await.unwrap();
        asking.abort();
        let _ = asking.await;
        while first.is_wanted().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        first.reply("nobody hears it").await.unwrap();
    }
    let (outcome, ()) = tokio::join!(client.request("slow", "second", LONG).send(), async {
        let next = responder.next().await.unwrap();
        assert_eq!(&next.request().body[..], b"second");
        next.reply("done").await.unwrap();
    });
    assert_eq!(body(outcome.unwrap()), "done");
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_words() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    for (refused, says) in [
        (client.request("a b", "", LONG).await, "topic name 'a b'"),
        (client.request("a", "", Duration::ZERO).await, "a time-out of 0 ms"),
        (client.request("a", "", LONG).then("").await, "a topic name is empty"),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(client.responder("a").capacity(0).listen().await.unwrap_err().to_string().contains("capacity of 0"));
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requesters_and_responders_lose_nothing() {
    let fixture = Fixture::start().await;
    for _ in 0..3 {
        let client = fixture.client().await;
        respond(&client, "echo", |text| async move { Ok(text) }).await;
        tokio::spawn(async move {
            let _client = client;
            std::future::pending::<()>().await;
        });
    }
    let mut tasks = Vec::new();
    for asker in 0..16 {
        let client = fixture.client().await;
        tasks.push(tokio::spawn(async move {
            for number in 0..50 {
                let text = format!("{asker}/{number}");
                assert_eq!(body(client.request("echo", text.clone(), LONG).await.unwrap()), text);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    fixture.server.stop().await;
}

/// All records of a topic with one partition: what the outcome header says, the step's topic, and the value.
async fn callbacks(client: &Client, topic: &str) -> Vec<(String, String, String)> {
    let consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await;
    let mut found = Vec::new();
    let Ok(mut consumer) = consumer else { return found };
    while let Some(record) = consumer.next().await {
        let record = record.unwrap();
        let header = |name: &str| {
            let header = record.headers.iter().find(|header| header.name == name.as_bytes());
            header.map(|header| String::from_utf8(header.value.unwrap().to_vec()).unwrap()).unwrap_or_default()
        };
        let value = String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap();
        found.push((header("tidelog-outcome"), header("tidelog-step-topic"), value));
    }
    found
}

/// Waits until a topic has so many records.
async fn callbacks_of(client: &Client, topic: &str, count: usize) -> Vec<(String, String, String)> {
    let until = std::time::Instant::now() + LONG;
    loop {
        let found = callbacks(client, topic).await;
        if found.len() >= count {
            return found;
        }
        assert!(std::time::Instant::now() < until, "{topic} has {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_request_waits_for_its_responder_and_is_answered_once() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let request = client.request("crm.load", "4711", LONG).durable().id("one");
    let id = request.clone().submit().await.unwrap();
    assert_eq!(request.submit().await.unwrap(), id, "the same id is the same request");
    let other = client.request("crm.other", "4711", LONG).durable().id("one").submit().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::AlreadyExists);
    let (info, outcome) = client.request_status(&id).await.unwrap();
    assert_eq!((info.state.as_str(), outcome), ("open", None));
    respond(&client, "crm.load", |text| async move {
        if text == "bad" { Err(ErrorReply::new("no", "not this one")) } else { Ok(format!("loaded {text}")) }
    })
    .await;
    assert_eq!(body(client.await_reply(&id, LONG).await.unwrap().unwrap()), "loaded 4711");
    assert_eq!(body(client.request("crm.load", "12", LONG).durable().await.unwrap()), "loaded 12");
    let Outcome::Error(error) = client.request("crm.load", "bad", LONG).durable().await.unwrap() else { panic!() };
    assert_eq!((error.code.as_str(), error.step), ("no", step(0, "crm.load")));
    let admin = client.admin();
    let list = |wanted| admin.list_requests(wanted);
    let (mut all, more) = list(ListRequests { limit: 2, ..ListRequests::default() }).await.unwrap();
    assert_eq!((all.len(), more), (2, true));
    let (rest, more) = list(ListRequests { before: Some(all[1].id.clone()), ..ListRequests::default() }).await.unwrap();
    assert_eq!((rest.len(), more), (1, false));
    all.extend(rest);
    assert_eq!(list(ListRequests::default()).await.unwrap().0, all);
    let lost = list(ListRequests { before: Some("lost".into()), ..ListRequests::default() }).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::NotFound);
    let failed = ListRequests { state: Some("failed".into()), topic: Some("crm.load".into()), ..Default::default() };
    assert_eq!(list(failed).await.unwrap().0.len(), 1);
    let unknown = client.await_reply("nobody", LONG).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_tells_of_replies_errors_time_outs_and_cancellation_once_each() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let ask = |topic: &str, text: &str| client.request(topic, text.to_owned(), LONG).callback("answers");
    let short = Duration::from_millis(200);
    client.request("nobody", "", short).callback("answers").submit().await.unwrap();
    callbacks_of(&client, "answers", 1).await;
    let cancelled = ask("nobody", "").submit().await.unwrap();
    assert_eq!(client.admin().cancel_request(&cancelled).await.unwrap().state, "cancelled");
    assert_eq!(client.admin().cancel_request(&cancelled).await.unwrap().state, "cancelled");
    callbacks_of(&client, "answers", 2).await;
    ask("double", "ab").then("count").submit().await.unwrap();
    respond(&client, "double", |text| async move { Ok(format!("{text}{text}")) }).await;
    respond(&client, "count", |text| async move {
        if text.len() > 4 { Err(ErrorReply::new("long", text)) } else { Ok(text.len().to_string()) }
    })
    .await;
    callbacks_of(&client, "answers", 3).await;
    ask("double", "abc").then("count").submit().await.unwrap();
    let found = callbacks_of(&client, "answers", 4).await;
    let expected =
        [("timed_out", "nobody", ""), ("cancelled", "nobody", ""), ("replied", "count", "4"), ("failed", "count", "")];
    let expected = expected.map(|(outcome, topic, value)| (outcome.to_owned(), topic.to_owned(), value.to_owned()));
    assert_eq!(found, expected);
    // A request whose time is over is delivered to nobody any more.
    let mut late = client.responder("nobody").listen().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), late.next()).await.is_err());
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_dies_hands_its_request_on() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let dying = fixture.client().await;
    let mut responder = dying.responder("work").listen().await.unwrap();
    let id = client.request("work", "x", LONG).durable().submit().await.unwrap();
    let held = responder.next().await.unwrap();
    assert_eq!((held.request().id.as_deref(), held.request().attempt), (Some(id.as_str()), 1));
    std::mem::forget(held);
    drop((responder, dying));
    respond(&client, "work", |text| async move { Ok(format!("{text}!")) }).await;
    assert_eq!(body(client.await_reply(&id, LONG).await.unwrap().unwrap()), "x!");
    fixture.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_only_records_takes_part() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    // As a responder: it copies the correlation id, and sends to where the request says.
    let id = client.request("plain", "4711", LONG).durable().submit().await.unwrap();
    let mut consumer = client.consumer().topic("plain").until_end(true).build().await.unwrap();
    let record = consumer.next().await.unwrap().unwrap();
    let header = |name: &str| {
        let header = record.headers.iter().find(|header| header.name == name.as_bytes()).unwrap();
        String::from_utf8(header.value.unwrap().to_vec()).unwrap()
    };
    let producer = client.producer().build().await.unwrap();
    let reply = Message::to(header("tidelog-reply-to")).value("by hand");
    let reply = reply.header("tidelog-correlation-id", header("tidelog-correlation-id"));
    producer.send_and_wait(reply).await.unwrap();
    assert_eq!(body(client.await_reply(&id, LONG).await.unwrap().unwrap()), "by hand");
    // As a requester: it names a topic of its own for the reply.
    respond(&client, "plain", |text| async move { Ok(format!("{text} answered")) }).await;
    let request = Message::to("plain").value("asked").header("tidelog-correlation-id", "mine");
    producer.send_and_wait(request.header("tidelog-reply-to", "my.answers")).await.unwrap();
    let found = callbacks_of(&client, "my.answers", 1).await;
    assert_eq!(found, [("replied".to_owned(), String::new(), "asked answered".to_owned())]);
    fixture.server.stop().await;
}
