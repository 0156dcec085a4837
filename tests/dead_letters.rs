//! Dead letters, their way back, and receipts, against a real server that is killed.
//! `TIDELOG_KILLS=n` kills that many times (4 if not set).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Server, tidelog};
use serde_json::Value;
use tidelog::client::{
    Client, Delivery, Message, NewTopic, QueueConsumer, QueueRules, ReceiptOutcome, Redrive, StartAt,
};

const PATIENCE: Duration = Duration::from_secs(120);

fn kills() -> u64 {
    std::env::var("TIDELOG_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

fn rules(max_deliveries: u32) -> QueueRules {
    QueueRules { backoff_ms: 1, backoff_max_ms: 1, max_deliveries, ..QueueRules::default() }
}

async fn produce(client: &Client, topic: &str, values: impl IntoIterator<Item = u64>) {
    let producer = client.producer().build().await.unwrap();
    for value in values {
        producer.send(Message::to(topic).key(value.to_string()).value(value.to_string())).await.unwrap();
    }
    producer.flush().await.unwrap();
}

/// How often each value is in a topic.
async fn tally(client: &Client, topic: &str) -> HashMap<u64, u32> {
    let mut consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await.unwrap();
    let mut tally = HashMap::new();
    while let Some(record) = consumer.next().await {
        let value = String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap();
        *tally.entry(value.parse().unwrap()).or_default() += 1;
    }
    tally
}

fn lines(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn lag(client: &Client, group: &str) -> u64 {
    client.admin().describe_group(group).await.unwrap().partitions.iter().map(|partition| partition.lag).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_a_dead_letter_once_and_goes_back_once_however_often_the_server_dies() {
    let total = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let listen = server.address().to_owned();
    let client = Client::connect(&listen).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(2)).await.unwrap();
    produce(&client, "orders", 0..total).await;
    let member = tokio::spawn({
        let client = client.clone();
        async move {
            let mut consumer = client.queue("erp").topic("orders").rules(rules(2)).prefetch(2000).join().await.unwrap();
            while let Some(Ok(delivery)) = consumer.next().await {
                delivery.nack("never");
            }
        }
    });
    let dead_letters = async |client: &Client| {
        let topics = client.admin().dead_letters().await.unwrap();
        topics.first().map_or((0, 0), |topic| (topic.records, topic.redriven))
    };
    for round in 1..=kills() {
        let goal = total * round / (kills() + 1);
        while dead_letters(&client).await.0 < goal {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.kill();
        server = Server::start_on(dir.path(), &["--listen", &listen]);
    }
    let ended = tokio::time::timeout(PATIENCE, async {
        while lag(&client, "erp").await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await.unwrap();
    member.abort();
    let buried = tally(&client, "dead-letter.erp").await;
    assert_eq!(buried.len() as u64, total);
    assert!(buried.values().all(|times| *times == 1), "{:?}", buried.iter().find(|(_, times)| **times > 1));

    // And back again.
    let mut random = fastrand::Rng::with_seed(11);
    let mut redrives = 0;
    let mut from = None;
    loop {
        let max = random.u32(50..400);
        let redrive = Redrive { topic: "dead-letter.erp".into(), filter: None, max, dry_run: false, from };
        let asked = tokio::spawn({
            let (client, redrive) = (client.clone(), redrive.clone());
            async move { client.admin().redrive(&redrive).await }
        });
        redrives += 1;
        if redrives % 2 == 1 && redrives < kills() * 2 {
            tokio::time::sleep(Duration::from_micros(random.u64(100..6_000))).await;
            server.kill();
            server = Server::start_on(dir.path(), &["--listen", &listen]);
            let _ = asked.await.unwrap();
            from = None;
            continue;
        }
        let answer = asked.await.unwrap().unwrap();
        from = answer.next;
        if from.is_none() {
            break;
        }
    }
    let again = tally(&client, "orders").await;
    assert_eq!(again.len() as u64, total);
    let wrong: Vec<_> = again.iter().filter(|(_, times)| **times != 2).take(5).collect();
    assert!(wrong.is_empty(), "written once, sent back once: {wrong:?}");
    assert_eq!(dead_letters(&client).await, (total, total));
    assert_eq!(server.terminate(), Some(0));
    tidelog(&["verify", dir.path().to_str().unwrap()]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_tells_what_became_of_a_record_also_after_a_restart_and_before_there_is_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let listen = server.address().to_owned();
    let client = Client::connect(&listen).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let mut outcomes = Vec::new();
    for value in 0..300u64 {
        let message = Message::to("orders").value(format!("{{\"n\":{value}}}"));
        let receipt = producer.send(message).await.unwrap();
        outcomes.push(tokio::spawn(receipt.processed_by("erp")));
    }
    producer.flush().await.unwrap();
    let expected = |value: u64| match value {
        _ if value >= 200 => ReceiptOutcome::NotWanted,
        _ if value % 10 == 3 => ReceiptOutcome::DeadLettered,
        _ => ReceiptOutcome::Acked,
    };
    let mut consumer =
        client.queue("erp").topic("orders").filter("value.n < 200").rules(rules(2)).join().await.unwrap();
    let mut left = 200 + 20;
    while left > 0 {
        // What was nacked last may be on its way to the dead letters: then nothing comes any more, and the lag ends by itself.
        let Ok(delivery) = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await else {
            if left > 1_000 && lag(&client, "erp").await == 0 {
                break;
            }
            continue;
        };
        let delivery = delivery.unwrap().unwrap();
        left -= 1;
        if left == 100 {
            // Asked before the restart, answered after it.
            server.kill();
            server = Server::start_on(dir.path(), &["--listen", &listen]);
            left = 1_000_000;
        }
        let value: Value = serde_json::from_slice(delivery.record().value.as_ref().unwrap()).unwrap();
        match expected(value["n"].as_u64().unwrap()) {
            ReceiptOutcome::DeadLettered => delivery.nack("a three"),
            _ => delivery.ack(),
        }
        if left > 1_000 && lag(&client, "erp").await == 0 {
            break;
        }
        if left > 1_000 {
            while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await {
                let delivery = delivery.unwrap();
                let value: Value = serde_json::from_slice(delivery.record().value.as_ref().unwrap()).unwrap();
                match expected(value["n"].as_u64().unwrap()) {
                    ReceiptOutcome::DeadLettered => delivery.nack("a three"),
                    _ => delivery.ack(),
                }
            }
            if lag(&client, "erp").await == 0 {
                break;
            }
        }
    }
    for (value, outcome) in outcomes.into_iter().enumerate() {
        let outcome = tokio::time::timeout(PATIENCE, outcome).await.unwrap().unwrap().unwrap();
        assert_eq!(outcome, expected(value as u64), "{value}");
    }
    // Whoever asks later hears the same: nothing of it was in memory only.
    drop(consumer);
    assert_eq!(server.terminate(), Some(0));
    let server = Server::start_on(dir.path(), &[]);
    let client = Client::connect(server.address()).await.unwrap();
    for value in [0, 3, 199, 200] {
        let record = tidelog::client::RecordAt { topic: "orders".into(), partition: 0, offset: value };
        assert_eq!(client.processed("erp", record).await.unwrap(), expected(value), "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_records_are_passed_over_or_dead_letters_as_the_topic_says() {
    let server = Server::start();
    let address = server.address();
    let client = Client::connect(address).await.unwrap();
    let run = |args: &[&str]| tidelog(&[args, &["--server", address]].concat());
    run(&["topic", "create", "strict", "--set", "expired=dead-letter"]).ok();
    run(&["produce", "strict", "a", "b", "--expires-in", "1ms"]).ok();
    run(&["produce", "strict", "c"]).ok();
    run(&["produce", "lenient", "d", "--expires-in", "1ms"]).ok();
    run(&["produce", "lenient", "e", "--expires-in", "1h"]).ok();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut consumer = client.queue("erp").topic("strict").topic("lenient").rules(rules(3)).join().await.unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
        got.push(delivery.record().value.clone().unwrap());
        delivery.ack();
    }
    got.sort();
    assert_eq!(got, ["c", "e"]);
    while lag(&client, "erp").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let record = |topic: &str| tidelog::client::RecordAt { topic: topic.into(), partition: 0, offset: 0 };
    assert_eq!(client.processed("erp", record("strict")).await.unwrap(), ReceiptOutcome::DeadLettered);
    assert_eq!(client.processed("erp", record("lenient")).await.unwrap(), ReceiptOutcome::Expired);
    let shown = lines(&run(&["dead-letter", "show", "dead-letter.erp", "--json"]).ok().stdout);
    assert_eq!(shown.len(), 2);
    assert_eq!((&shown[0]["value"], &shown[0]["source"]), (&"a".into(), &"strict/0/0".into()));
    assert!(shown[0]["error"].as_str().unwrap().contains("expired"));
}

/// The next delivery of a consumer as value, offset and attempt; nothing if none comes within the time.
async fn given(consumer: &mut QueueConsumer, wait: Duration) -> Option<(String, u64, Delivery)> {
    let delivery = tokio::time::timeout(wait, consumer.next()).await.ok()?.unwrap().unwrap();
    let value = String::from_utf8(delivery.record().value.clone().unwrap().to_vec()).unwrap();
    Some((value, delivery.record().offset, delivery))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_goes_back_to_the_group_that_gave_it_up_and_to_no_other_and_is_edited_or_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let listen = server.address().to_owned();
    let run = |args: &[&str]| tidelog(&[args, &["--server", &listen]].concat());
    let client = Client::connect(&listen).await.unwrap();
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    produce(&client, "orders", 0..6).await;
    let (second, silence) = (Duration::from_secs(30), Duration::from_millis(300));
    let mut bi = client.queue("bi").topic("orders").rules(rules(1)).join().await.unwrap();
    let mut erp = client.queue("erp").topic("orders").rules(rules(1)).join().await.unwrap();
    for _ in 0..6 {
        given(&mut bi, second).await.unwrap().2.ack();
        let (value, _, delivery) = given(&mut erp, second).await.unwrap();
        match value.as_str() {
            "5" => delivery.ack(),
            _ => delivery.nack(format!("no room for {value}")),
        }
    }
    while lag(&client, "erp").await + lag(&client, "bi").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let redrive = ["dead-letter", "redrive", "dead-letter.erp", "--to-group"];
    let dry = run(&[&redrive[..], &["--dry-run", "--json"]].concat()).ok();
    assert_eq!((&lines(&dry.stdout)[0]["redriven"], &lines(&dry.stdout)[0]["done"]), (&5.into(), &false.into()));
    let one = run(&[&redrive[..], &["--at", "0/1"]].concat()).ok();
    assert!(one.reason().contains("1 dead letter went back from 'dead-letter.erp' to the group"), "{}", one.reason());
    let (value, offset, delivery) = given(&mut erp, second).await.unwrap();
    assert_eq!((value.as_str(), offset, delivery.attempt()), ("1", 1, 1), "as for the first time, where it was");
    // A kill before it is acked: it comes again, and the dead letter went back all the same.
    server.kill();
    drop((delivery, erp, bi));
    server = Server::start_on(dir.path(), &["--listen", &listen]);
    let client = Client::connect(&listen).await.unwrap();
    let mut bi = client.queue("bi").join().await.unwrap();
    let mut erp = client.queue("erp").join().await.unwrap();
    given(&mut erp, second).await.unwrap().2.ack();
    assert!(given(&mut erp, silence).await.is_none());
    let why = run(&[&redrive[..], &["--at", "0/1"]].concat()).fails(3).reason();
    assert!(why.contains("went back, was discarded or is deleted already"), "{why}");
    let rest = run(&[&redrive[..], &["--filter", "offset == 0"]].concat()).ok();
    assert!(rest.reason().contains("1 dead letter went back"), "{}", rest.reason());
    let (value, offset, delivery) = given(&mut erp, second).await.unwrap();
    assert_eq!((value.as_str(), offset), ("0", 0));
    // It fails again, and is another dead letter.
    delivery.nack("still no room");
    while lag(&client, "erp").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shown = lines(&run(&["dead-letter", "show", "dead-letter.erp", "--json"]).ok().stdout);
    let shown: Vec<_> =
        shown.iter().map(|one| (one["offset"].as_u64().unwrap(), one["value"].as_str().unwrap())).collect();
    assert_eq!(shown, [(2, "2"), (3, "3"), (4, "4"), (5, "0")]);
    assert_eq!(tally(&client, "orders").await.values().copied().max(), Some(1), "nothing is appended");
    assert!(given(&mut bi, silence).await.is_none(), "no other group gets it");

    // One is corrected, in an editor as well, and goes back to everybody.
    run(&["dead-letter", "edit", "dead-letter.erp", "0/2", "--value", "22"]).ok();
    let edit = |script: &str| {
        let edit = ["dead-letter", "edit", "dead-letter.erp", "0/3", "--server", listen.as_str()];
        common::tidelog_with(&edit, &[("EDITOR", script), ("VISUAL", "")])
    };
    assert!(edit("true").ok().reason().contains("the value is as it was"));
    assert!(edit("false #").fails(1).reason().contains("nothing is done"));
    edit("sed -i s/3/33/").ok();
    for value in ["22", "33"] {
        let (got, _, delivery) = given(&mut erp, second).await.unwrap();
        let (others, _, other) = given(&mut bi, second).await.unwrap();
        assert_eq!((got.as_str(), others.as_str()), (value, value));
        delivery.ack();
        other.ack();
    }
    run(&["dead-letter", "edit", "dead-letter.erp", "0/2", "--value", "222"]).fails(3);
    run(&["dead-letter", "edit", "dead-letter.erp", "0/99", "--value", "222"]).fails(3);

    // Others are discarded: they are in nobody's way.
    let discard = ["dead-letter", "discard", "dead-letter.erp"];
    assert!(run(&discard).fails(2).reason().contains("say --yes"));
    run(&[&discard[..], &["--at", "0/4", "--yes"]].concat()).ok();
    let all = lines(&run(&[&discard[..], &["--yes", "--json"]].concat()).ok().stdout);
    assert_eq!(all[0]["discarded"], 1);
    let listed = lines(&run(&["dead-letter", "list", "--json"]).ok().stdout);
    assert_eq!((&listed[0]["dead_letters"], &listed[0]["redriven"]), (&0.into(), &6.into()));
    // What is not there any more cannot come again: that is said, and it stays a dead letter.
    run(&["produce", "dead-letter.erp", "by hand"]).ok();
    let why = run(&redrive).fails(1).reason();
    assert!(why.contains("1 dead letter cannot go back: it does not say where it came from"), "{why}");
    let why = run(&["dead-letter", "redrive", "dead-letter.erp"]).fails(1).reason();
    assert!(why.contains("1 dead letter cannot go back"), "{why}");
    assert_eq!(server.terminate(), Some(0));
    tidelog(&["verify", dir.path().to_str().unwrap()]).ok();
}

#[test]
fn the_command_line_lists_shows_and_sends_back_dead_letters_and_waits_for_a_group() {
    let server = Server::start();
    let run = |args: &[&str]| tidelog(&[args, &["--server", server.address()]].concat());
    run(&["produce", "orders", "a", "b", "c", "--key", "k"]).ok();
    let nacked = ["consume", "orders", "--group", "erp", "--ack-mode", "nack", "--max-deliveries", "1", "--max", "3"];
    run(&nacked).ok();
    run(&["consume", "--group", "erp", "--follow", "--max", "0"]).ok();
    // A member has to be there for the last of them to be given up.
    for _ in 0..100 {
        run(&["consume", "--group", "erp"]).ok();
        let listed = lines(&run(&["dead-letter", "list", "--json"]).ok().stdout);
        if listed.first().is_some_and(|topic| topic["dead_letters"] == 3) {
            break;
        }
    }
    let shown = run(&["dead-letter", "show", "dead-letter.erp"]).ok();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("from orders/0/1") && shown.contains("--ack-mode nack") && shown.contains("k: c"),
        "{shown}"
    );
    let one = ["dead-letter", "redrive", "dead-letter.erp", "--filter", "offset == 1", "--json"];
    assert_eq!(lines(&run(&one).ok().stdout)[0]["redriven"], 1);
    assert_eq!(lines(&run(&one).ok().stdout)[0]["redriven"], 0, "once");
    let rest = run(&["dead-letter", "redrive", "dead-letter.erp", "--rate", "50/s"]).ok();
    assert!(rest.stderr().contains("2 dead letters went back"), "{}", rest.stderr());
    let listed = lines(&run(&["dead-letter", "list", "--json"]).ok().stdout);
    assert_eq!((&listed[0]["dead_letters"], &listed[0]["redriven"]), (&0.into(), &3.into()));
    let all = run(&["consume", "orders", "--format", "%v"]).ok();
    assert_eq!(String::from_utf8_lossy(&all.stdout), "abcbac");
    let back = lines(&run(&["consume", "orders", "--from", "offset:3", "--json"]).ok().stdout);
    let headers = &back[0]["headers"];
    assert_eq!(headers, &serde_json::json!({ "tidelog-redriven": "dead-letter.erp/0/1" }));

    // The group is not there: what waits for it says so in time.
    let late = ["produce", "orders", "x", "--wait-for", "nobody", "--wait-timeout", "300ms"];
    assert!(run(&late).fails(5).reason().contains("has not done 1 record of 1"));
    let consumer = common::spawn(&["consume", "orders", "--group", "erp", "--follow", "--server", server.address()]);
    let waited = run(&["produce", "orders", "y", "z", "--wait-for", "erp", "--json"]).ok();
    assert_eq!(lines(&waited.stdout).iter().filter(|line| line["outcome"] == "acked").count(), 2);
    drop(consumer);
    run(&["dead-letter", "show", "nowhere"]).fails(3);
    run(&["dead-letter", "redrive", "dead-letter.erp", "--filter", "value >"]).fails(1);
}
