//! Queue groups against a real server: killed under load, members and all; poison records; resets; the command line.
//! `TIDELOG_KILLS=n` kills that many times (5 if not set), `TIDELOG_SEED=n` runs one seed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Server, tidelog};
use tidelog::base::ErrorKind;
use tidelog::client::{Client, Delivery, GroupChange, GroupReset, Message, NewTopic, QueueRules, ResetTo};

const PATIENCE: Duration = Duration::from_secs(120);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn value(delivery: &Delivery) -> String {
    String::from_utf8(delivery.record().value.as_ref().unwrap().to_vec()).unwrap()
}

fn quick() -> QueueRules {
    QueueRules { backoff_ms: 5, backoff_max_ms: 20, max_deliveries: 1_000, ..QueueRules::default() }
}

async fn produce(client: &Client, topic: &str, values: impl IntoIterator<Item = u64>) {
    let producer = client.producer().build().await.unwrap();
    for value in values {
        let message = Message::to(topic).key(format!("{}", value % 7)).value(value.to_string());
        producer.send(message).await.unwrap();
    }
    producer.flush().await.unwrap();
}

async fn lag(client: &Client, group: &str) -> u64 {
    client.admin().describe_group(group).await.unwrap().partitions.iter().map(|partition| partition.lag).sum()
}

/// What all members know together.
#[derive(Default)]
struct Book {
    /// Acked, and the server has said that it is on its disk.
    done: Mutex<HashSet<String>>,
    again: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// A member that acks most, fails some, lets go of some, and now and then is gone without a word.
async fn member(listen: String, seed: u64, book: Arc<Book>) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let Ok(client) = Client::connect(&listen).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let joined = client.queue("erp").topic("load").rules(quick()).prefetch(random.u32(1..40)).join().await;
        let Ok(mut consumer) = joined else { continue };
        let mut left = random.u32(20..400);
        while let Some(Ok(delivery)) = consumer.next().await {
            let value = value(&delivery);
            if delivery.attempt() > 1 {
                book.again.fetch_add(1, Ordering::Relaxed);
            }
            if book.done.lock().unwrap().contains(&value) {
                book.wrong.lock().unwrap().push(format!("{value} came again after its ack was on the disk"));
            }
            match random.u8(0..20) {
                0 => delivery.nack("not today"),
                1 => drop(delivery),
                2 => delivery.ack(),
                _ => {
                    if delivery.ack_durable().await.is_ok() {
                        book.done.lock().unwrap().insert(value);
                    }
                }
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_every_record_is_acked_and_what_was_acked_does_not_come_again() {
    let (kills, seed) = (variable("TIDELOG_KILLS", 5), variable("TIDELOG_SEED", fastrand::u64(..1_000_000)));
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), &[]);
    let listen = server.address().to_owned();
    let client = Client::connect(&listen).await.unwrap();
    client.admin().create_topic(tidelog::client::NewTopic::new("load").partitions(3)).await.unwrap();
    let book = Arc::new(Book::default());
    let mut members: Vec<_> =
        (0..8).map(|at| tokio::spawn(member(listen.clone(), seed ^ at, Arc::clone(&book)))).collect();
    let total = 1_000 * kills;
    for round in 0..kills {
        produce(&client, "load", round * 1_000..(round + 1) * 1_000).await;
        let goal = usize::try_from(round * 1_000 + random.u64(100..700)).unwrap();
        while book.done.lock().unwrap().len() < goal * 8 / 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A member dies, and sometimes the server.
        let at = random.usize(..members.len());
        members[at].abort();
        members[at] = tokio::spawn(member(listen.clone(), random.u64(..), Arc::clone(&book)));
        if round % 2 == 0 {
            server.kill();
            server = Server::start_on(dir.path(), &["--listen", &listen]);
        }
    }
    let ended = tokio::time::timeout(PATIENCE, async {
        while lag(&client, "erp").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.unwrap_or_else(|_| panic!("records are left: {}", server.log()));
    members.iter().for_each(tokio::task::JoinHandle::abort);
    let wrong = std::mem::take(&mut *book.wrong.lock().unwrap());
    assert!(wrong.is_empty(), "{} such: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    // Some acks were not waited for; the group says that they are done.
    let done = book.done.lock().unwrap().len() as u64;
    assert!(done > total / 2, "{done} of {total} were acked and confirmed");
    assert!(book.again.load(Ordering::Relaxed) > 0, "nothing failed, so nothing was shown");
    let described = client.admin().describe_group("erp").await.unwrap();
    assert_eq!(described.partitions.iter().map(|partition| partition.floor).sum::<u64>(), total);
    // None of this was a dead letter.
    assert!(client.admin().describe_topic("dead-letter.erp").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_holds_nobody_up_and_is_a_dead_letter_after_exactly_so_many_deliveries() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    produce(&client, "orders", 0..500).await;
    let rules = QueueRules { max_deliveries: 4, ..quick() };
    let mut consumer = client.queue("erp").topic("orders").rules(rules).join().await.unwrap();
    let mut deliveries: HashMap<String, u32> = HashMap::new();
    while lag(&client, "erp").await > 0 {
        while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await {
            let delivery = delivery.unwrap();
            let value = value(&delivery);
            *deliveries.entry(value.clone()).or_default() += 1;
            assert_eq!(delivery.attempt(), deliveries[&value]);
            if value == "17" { delivery.nack("no such account") } else { delivery.ack() }
        }
    }
    assert_eq!(deliveries.len(), 500);
    assert!(deliveries.iter().all(|(value, times)| *times == if value == "17" { 4 } else { 1 }));
    let dead = tidelog(&["consume", "dead-letter.erp", "--json", "--server", server.address()]).ok();
    let dead: serde_json::Value = serde_json::from_slice(&dead.stdout).unwrap();
    assert_eq!((&dead["value"], &dead["headers"]["tidelog-attempts"]), (&"17".into(), &"4".into()));
    assert_eq!(dead["headers"]["tidelog-error"], "no such account");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_gives_the_record_to_another_and_a_late_ack_is_told_so() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    produce(&client, "orders", 0..1).await;
    let rules = QueueRules { lease_ms: 300, ..quick() };
    let mut slow = client.queue("erp").topic("orders").rules(rules).join().await.unwrap();
    let held = slow.next().await.unwrap().unwrap();
    let other = Client::connect(server.address()).await.unwrap();
    let mut quick = other.queue("erp").join().await.unwrap();
    // Extended, it stays.
    for _ in 0..4 {
        assert!(tokio::time::timeout(Duration::from_millis(150), quick.next()).await.is_err());
        held.extend();
    }
    let again = tokio::time::timeout(PATIENCE, quick.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((value(&again), again.attempt()), ("0".to_owned(), 2));
    assert!(held.ack_durable().await.unwrap_err().to_string().contains("lease has ended"));
    again.ack_durable().await.unwrap();
    assert_eq!(lag(&client, "erp").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_key_keep_their_order_among_members_when_the_group_says_so() {
    let server = Server::start();
    let client = Client::connect(server.address()).await.unwrap();
    produce(&client, "orders", 0..700).await;
    let rules = QueueRules { ordered_by_key: true, ..quick() };
    let seen = Arc::new(Mutex::new(Vec::<u64>::new()));
    let mut members = Vec::new();
    for at in 0..4 {
        let mut consumer = client.queue("erp").topic("orders").rules(rules.clone()).prefetch(5).join().await.unwrap();
        let seen = Arc::clone(&seen);
        members.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(at);
            while let Some(Ok(delivery)) = consumer.next().await {
                if random.u8(0..10) == 0 {
                    delivery.nack("later");
                    continue;
                }
                tokio::time::sleep(Duration::from_micros(random.u64(..500))).await;
                seen.lock().unwrap().push(value(&delivery).parse().unwrap());
                delivery.ack_durable().await.unwrap();
            }
        }));
    }
    let all = tokio::time::timeout(PATIENCE, async {
        while lag(&client, "erp").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    all.await.unwrap();
    members.iter().for_each(tokio::task::JoinHandle::abort);
    let seen = seen.lock().unwrap();
    for key in 0..7 {
        let of_key: Vec<u64> = seen.iter().copied().filter(|value| value % 7 == key).collect();
        assert!(of_key.is_sorted() && of_key.len() == 100, "key {key}: {of_key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_moves_a_group_says_what_changes_and_refuses_while_there_are_members() {
    let server = Server::start();
    let address = server.address();
    let client = Client::connect(address).await.unwrap();
    produce(&client, "orders", 0..100).await;
    let all = ["consume", "orders", "--group", "erp", "--server", address];
    assert_eq!(tidelog(&all).ok().stdout.iter().filter(|byte| **byte == b'\n').count(), 100);
    assert!(tidelog(&all).ok().stdout.is_empty(), "all of it is done");
    let plan = tidelog(&["group", "reset", "erp", "--to", "offset:90", "--dry-run", "--server", address]).ok();
    assert!(String::from_utf8_lossy(&plan.stdout).contains("10 records come again"), "{plan:?}");
    assert_eq!(lag(&client, "erp").await, 0);

    let mut consumer = client.queue("erp").join().await.unwrap();
    let refused = tidelog(&["group", "reset", "erp", "--to", "offset:90", "--server", address]).fails(4);
    assert!(refused.reason().contains("1 active member"), "{}", refused.reason());
    let forced = GroupReset::new("erp", ResetTo::Last(10)).force(true);
    let changes = client.admin().reset_group(forced).await.unwrap();
    assert_eq!((changes[0].from, changes[0].to, changes[0].end), (100, 90, 100));
    // The member was sent away, and has come again by itself.
    for expected in 90..100 {
        let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((value(&delivery), delivery.attempt()), (expected.to_string(), 1));
        delivery.ack();
    }
    consumer.close().await.unwrap();
    let described = tidelog(&["group", "describe", "erp", "--json", "--server", address]).ok();
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).unwrap();
    assert_eq!((&described["lag"], &described["members"]), (&0.into(), &serde_json::json!([])));
    tidelog(&["group", "reset", "nobody", "--to", "end", "--server", address]).fails(3);
    tidelog(&["group", "delete", "erp", "--server", address]).ok();
    assert!(tidelog(&["group", "list", "--json", "--server", address]).ok().stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_run_for_each_record_and_decides_whether_it_is_done() {
    let server = Server::start();
    let address = server.address();
    let client = Client::connect(address).await.unwrap();
    produce(&client, "orders", 0..4).await;
    let command = "read value; [ \"$value\" != 2 ] || { echo bad number >&2; exit 3; }";
    let rules = ["--max-deliveries", "2", "--backoff", "1ms", "--max", "5", "--follow"];
    let args = [&["consume", "orders", "--group", "erp", "--exec", command, "--server", address], &rules[..]].concat();
    let outcome = tidelog(&args).ok();
    assert!(outcome.stderr().contains("bad number (exit status 3)"), "{}", outcome.stderr());
    let ended = tokio::time::timeout(PATIENCE, async {
        while lag(&client, "erp").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // Dead letters are written while there are members.
            tidelog(&["consume", "--group", "erp", "--server", address]).ok();
        }
    });
    ended.await.unwrap();
    let dead = tidelog(&["consume", "dead-letter.erp", "--server", address]).ok();
    assert_eq!(String::from_utf8_lossy(&dead.stdout), "2\n");
}

/// Two systems with one group name: neither gets what the other asked for, and nothing flips with a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_stays_what_it_is_whoever_joins_and_whoever_comes_back_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    let address = server.address().to_owned();
    let client = Client::connect(&address).await.unwrap();
    for topic in ["flip.a", "flip.b", "flip.c"] {
        client.admin().create_topic(NewTopic::new(topic).partitions(1)).await.unwrap();
    }
    let mut queue = client.queue("flip").topic("flip.a").rules(quick()).join().await.unwrap();
    let mut stream = client.group_consumer("bi").topic("flip.a").join().await.unwrap();
    let refused = |group: &str, more: &[&str]| {
        let args = [&["consume", "flip.b", "--group", group, "--server", address.as_str()][..], more].concat();
        let reason = tidelog(&args).fails(4).reason();
        let said = format!("group '{group}' is defined otherwise: its topics are flip.a, not flip.b");
        assert!(reason.contains(&said) && reason.contains("--redefine"), "{reason}");
    };
    refused("flip", &[]);
    refused("bi", &["--max", "1"]);
    let other = client.queue("flip").topic("flip.b").join().await.err().unwrap();
    assert_eq!(other.kind(), ErrorKind::AlreadyExists);

    // Only who changes it on purpose does; and members that come back do not take that back.
    for group in ["flip", "bi"] {
        let change = GroupChange::new(group).topic("flip.a").topic("flip.b");
        client.admin().alter_group(change).await.unwrap();
    }
    for _ in 0..2 {
        server.kill();
        server = Server::start_on(&data, &["--listen", &address]);
        let producer = client.producer().build().await.unwrap();
        for topic in ["flip.c", "flip.b"] {
            producer.send_and_wait(Message::to(topic).value(topic)).await.unwrap();
        }
        let delivery = tokio::time::timeout(PATIENCE, queue.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(value(&delivery), "flip.b");
        delivery.ack();
        let record = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(&*record.topic, "flip.b");
        for group in ["flip", "bi"] {
            let described = client.admin().describe_group(group).await.unwrap();
            assert_eq!(
                (described.summary.topics, described.members.len()),
                (vec!["flip.a".into(), "flip.b".into()], 1)
            );
        }
    }
    queue.close().await.unwrap();
    stream.close().await.unwrap();
}

#[test]
fn groups_are_made_shown_and_changed_from_the_command_line() {
    let server = Server::start();
    let run = |args: &[&str]| tidelog(&[args, &["--server", server.address()]].concat());
    let described = |group: &str| {
        let out = run(&["group", "describe", group, "--json"]).ok().stdout;
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()
    };
    for topic in ["a", "b"] {
        run(&["produce", topic, topic]).ok();
    }
    assert!(run(&["consume", "--group", "erp"]).fails(3).reason().contains("there is no group 'erp'"));
    let create = ["group", "create", "erp", "--topic", "a", "--filter", "key != 'x'", "--max-deliveries", "3"];
    assert!(run(&create).ok().stderr().contains("group 'erp' is created"));
    assert!(run(&create).ok().stderr().contains("was there already, and is the same"));
    assert!(
        run(&[&create[..], &["--lease", "5s"]].concat())
            .fails(4)
            .reason()
            .contains("its lease is 30000 ms, not 5000 ms")
    );
    let shown = String::from_utf8(run(&["group", "describe", "erp"]).ok().stdout).unwrap();
    assert!(shown.contains("key != 'x'") && shown.contains("at most 3"), "{shown}");

    for (says, difference) in [
        (&["a"][..], "its filter is 'key != 'x'', not none"),
        (&["a", "--filter", "key != 'x'", "--max-deliveries", "5"], "its number of deliveries is 3, not 5"),
        (&["b", "--max-deliveries", "3"], "its topics are a, not b"),
    ] {
        let reason = run(&[&["consume", "--group", "erp"][..], says].concat()).fails(4).reason();
        assert!(reason.contains(difference), "{reason}");
    }
    assert_eq!(run(&["consume", "--group", "erp"]).ok().stdout, b"a\n");
    run(&["consume", "--group", "erp", "--redefine"]).fails(2);
    assert_eq!(run(&["consume", "b", "--group", "erp", "--redefine", "--max-deliveries", "5"]).ok().stdout, b"b\n");
    let now = described("erp");
    assert_eq!((&now["topics"], &now["filter"]), (&serde_json::json!(["b"]), &serde_json::Value::Null));
    assert_eq!(now["rules"]["max_deliveries"], 5);
    run(&["group", "alter", "erp"]).fails(2);
    run(&["group", "alter", "erp", "--topic", "a", "--filter", "key == 'y'", "--ordered-by-key"]).ok();
    let altered = run(&["group", "alter", "erp", "--no-filter", "--json"]).ok().stdout;
    let altered: serde_json::Value = serde_json::from_slice(&altered).unwrap();
    assert_eq!((&altered["topics"], &altered["filter"]), (&serde_json::json!(["a"]), &serde_json::Value::Null));
    assert_eq!(altered["rules"]["ordered_by_key"], true);
    run(&["group", "alter", "nobody", "--topic", "a"]).fails(3);

    run(&["group", "create", "audit", "--topic", "a", "--group-kind", "stream", "--from", "end"]).ok();
    run(&["group", "create", "other", "--topic", "a", "--group-kind", "stream", "--lease", "5s"]).fails(2);
    assert!(run(&["consume", "--group", "audit", "--exec", "true"]).fails(2).reason().contains("is a stream group"));
    assert!(run(&["consume", "--group", "audit"]).ok().stdout.is_empty(), "it begins at the end");
    assert!(run(&["consume", "a", "--lease", "5s"]).fails(2).reason().contains("needs --group"));
}
