//! A whole server on a simulated disk whose power is cut at any operation, again and again, also while it starts; producers,
//! a queue group and a stream group, requests and their responders go on over TCP meanwhile. What was acknowledged is there
//! once, what was acked does not come again, positions never go back, every request has one outcome. Right after each start requests
//! are cancelled, topics that a route writes to get more partitions, its rules change, and it is paused; groups are made, altered and
//! deleted, and the working one is paused.
//! `TIDELOG_ROUNDS=n` cuts it that many times (8 if not set); the seed is printed, and taken from `TIDELOG_SEED`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and removes a folder")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidelog::base::{ErrorKind, Millis, SystemClock};
use tidelog::client::{
    Client, ClientBuilder, ConsumedRecord, GroupChange, ListRequests, Message, NewGroup, NewTopic, QueueRules, StartAt,
    TopicChange,
};
use tidelog::disk::{SimDisk, SimOptions};
use tidelog::server::config::ServerConfig;
use tidelog::server::{Server, ServerError};

/// Longer than anything takes, on a machine that does other things too.
const LONG: Duration = Duration::from_secs(90);
/// Jobs that are a multiple of it are never done.
const POISON: u64 = 11;
/// Deliveries after which a job is a dead letter: more than power cuts cost.
const DELIVERIES: u32 = 60;
/// What is asked at most: what one list of requests holds.
const ASKED: u64 = 900;

fn builder(address: SocketAddr) -> ClientBuilder {
    Client::builder().server(address.to_string()).request_timeout(Duration::from_secs(5))
}

async fn connected(address: SocketAddr) -> Client {
    loop {
        match builder(address).build().await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn start(sim: &SimDisk, dir: &Path, address: &str) -> Result<Server, ServerError> {
    let config = ServerConfig {
        data_dir: dir.to_owned(),
        listen: address.to_owned(),
        kafka_listen: "off".to_owned(),
        http_listen: "off".to_owned(),
        shutdown_timeout: Millis(100),
        ..ServerConfig::default()
    };
    Server::start_on(config, Arc::new(sim.clone()), Arc::new(SystemClock::new())).await
}

/// What the clients know together.
#[derive(Default)]
struct Book {
    stop: AtomicBool,
    /// Jobs of which the server has said that they are on its disk.
    acknowledged: Mutex<BTreeSet<u64>>,
    /// Jobs whose ack the server has said to be on its disk.
    done: Mutex<BTreeSet<u64>>,
    /// Jobs that members of the stream group have seen.
    seen: Mutex<BTreeSet<u64>>,
    /// The position of each partition of which the server has said that it is on its disk.
    committed: Mutex<BTreeMap<u32, u64>>,
    /// What each group that is made and altered may be, by what was answered: its filter, or nothing if it is not there.
    groups: Mutex<BTreeMap<String, BTreeSet<Option<String>>>>,
    /// Requests that were taken in.
    taken: Mutex<BTreeSet<String>>,
    wrong: Mutex<Vec<String>>,
}

impl Book {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn text(record: &ConsumedRecord) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
}

async fn producer(address: SocketAddr, book: Arc<Book>) {
    let mut number = 0;
    while !book.stopped() {
        let client = connected(address).await;
        let Ok(producer) = client.producer().delivery_timeout(LONG).build().await else { continue };
        while !book.stopped() {
            number += 1;
            let message = Message::to("jobs").key(format!("{}", number % 5)).value(number.to_string());
            match producer.send_and_wait(message).await {
                Ok(_) => _ = book.acknowledged.lock().unwrap().insert(number),
                // Whether it is there is not known; another producer goes on with the next.
                Err(_) => break,
            }
        }
    }
}

async fn member(address: SocketAddr, book: Arc<Book>) {
    loop {
        let client = connected(address).await;
        let rules =
            QueueRules { backoff_ms: 1, backoff_max_ms: 2, max_deliveries: DELIVERIES, ..QueueRules::default() };
        let joined = client.queue("work").topic("jobs").rules(rules).prefetch(20).join().await;
        let Ok(mut consumer) = joined else { continue };
        while let Some(Ok(delivery)) = consumer.next().await {
            let job: u64 = text(delivery.record()).parse().unwrap();
            if book.done.lock().unwrap().contains(&job) {
                book.wrong.lock().unwrap().push(format!("job {job} came again after its ack was on the disk"));
            }
            if job.is_multiple_of(POISON) {
                delivery.nack("never");
            } else if delivery.ack_durable().await.is_ok() {
                book.done.lock().unwrap().insert(job);
            }
        }
    }
}

async fn reader(address: SocketAddr, book: Arc<Book>) {
    loop {
        let client = connected(address).await;
        let joined = client.group_consumer("readers").topic("jobs").commit_by_hand().join().await;
        let Ok(mut consumer) = joined else { continue };
        let mut count = 0;
        while let Some(Ok(record)) = consumer.next().await {
            book.seen.lock().unwrap().insert(text(&record).parse().unwrap());
            count += 1;
            if count % 5 == 0 {
                let positions: Vec<_> = consumer.positions().collect();
                if consumer.commit().await.is_ok() {
                    let mut committed = book.committed.lock().unwrap();
                    for (place, offset) in positions {
                        let known = committed.entry(place.partition).or_default();
                        *known = offset.max(*known);
                    }
                }
            }
        }
    }
}

/// Positions of the stream group never go back.
async fn look_at_positions(client: &Client, book: &Book) {
    let committed = book.committed.lock().unwrap().clone();
    let Ok(group) = client.admin().describe_group("readers").await else {
        return assert!(committed.is_empty(), "there is no group any more");
    };
    for (partition, offset) in committed {
        let floor = group.partitions.iter().find(|at| at.partition == partition).map_or(0, |at| at.floor);
        assert!(floor >= offset, "partition {partition}: position {floor}, and {offset} was committed: {group:?}");
    }
}

async fn requester(address: SocketAddr, pause: Duration, book: Arc<Book>) {
    let mut number = 0;
    while !book.stopped() && number < ASKED {
        let client = connected(address).await;
        for _ in 0..20 {
            number += 1;
            let id = format!("r{number}");
            let request = client.request("load", id.clone(), LONG * 10).then("analyse").callback("answers").id(&id);
            if tokio::time::timeout(Duration::from_secs(4), request.submit()).await.is_ok_and(|sent| sent.is_ok()) {
                book.taken.lock().unwrap().insert(id);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

async fn responder(address: SocketAddr, topic: &'static str) {
    loop {
        let client = connected(address).await;
        let handler = |request: tidelog::client::IncomingRequest| {
            let text = String::from_utf8(request.body.to_vec()).unwrap();
            async move { Ok(format!("{topic}({text})")) }
        };
        let _ = client.responder(topic).capacity(8).retry_timeout(Duration::from_secs(2)).handle(handler).await;
    }
}

/// Where the route of this test sends all jobs.
fn rules(destination: &str) -> String {
    format!("[[route]]\nname = \"copy\"\nfrom = \"jobs\"\nstart = \"beginning\"\notherwise = \"{destination}\"\n")
}

/// What somebody does right after a start. Whether it works says nothing: the power may be gone.
async fn change_at_once(address: SocketAddr, mut random: fastrand::Rng, book: Arc<Book>) {
    let client = connected(address).await;
    let admin = client.admin();
    let _ = admin.pause_group("work").await;
    for _ in 0..random.u32(..4) {
        change_a_group(&client, &mut random, &book).await;
    }
    let destination = random.choice(["copies.a", "copies.b"]).unwrap();
    match random.u32(..4) {
        0 => _ = admin.apply_routes(rules(destination), false, false).await,
        1 => _ = admin.pause_route("copy").await,
        _ => {
            if let Ok(topic) = admin.describe_topic(destination).await {
                let more = (topic.partitions.len() as u32 + 1).min(12);
                let _ = admin.alter_topic(TopicChange::new(destination).partitions(more)).await;
            }
        }
    }
    let _ = admin.resume_route("copy").await;
    let _ = admin.resume_group("work").await;
    let newest: Vec<String> = {
        let taken = book.taken.lock().unwrap();
        let mut numbers: Vec<u64> = taken.iter().map(|id| id[1..].parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers.iter().rev().take(10).map(|number| format!("r{number}")).collect()
    };
    for id in newest.into_iter().filter(|_| random.bool()) {
        let _ = admin.cancel_request(id).await;
    }
}

/// Makes a group, alters or deletes it, as it may be now. What was answered holds; what was not may hold or not.
async fn change_a_group(client: &Client, random: &mut fastrand::Rng, book: &Book) {
    let name = format!("defined-{}", random.u32(..4));
    let filter = random.bool().then(|| format!("offset >= {}", random.u32(..1_000)));
    let may_be = book.groups.lock().unwrap().entry(name.clone()).or_insert_with(|| BTreeSet::from([None])).clone();
    let admin = client.admin();
    // Whether it is there must be known, or an error could be about that.
    let is_there = match admin.describe_group(&name).await {
        Ok(group) => {
            let filter = group.summary.filter;
            assert!(may_be.contains(&filter), "group '{name}' has the filter {filter:?}, and may have {may_be:?}");
            true
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(may_be.contains(&None), "group '{name}' is gone, and may have {may_be:?}");
            false
        }
        Err(_) => return,
    };
    book.groups.lock().unwrap().get_mut(&name).unwrap().insert(filter.clone());
    let changed = match (is_there, &filter) {
        (false, Some(filter)) => {
            let group = NewGroup::queue(&name).topic("jobs").filter(filter).from(StartAt::End);
            admin.create_group(group).await.map(drop)
        }
        (true, Some(filter)) => admin.alter_group(GroupChange::new(&name).filter(filter)).await.map(drop),
        (true, None) => admin.delete_group(&name, true).await,
        (false, None) => return,
    };
    if changed.is_ok() {
        book.groups.lock().unwrap().insert(name, BTreeSet::from([filter]));
    }
}

async fn read(client: &Client, topic: &str) -> Vec<ConsumedRecord> {
    let consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true).build().await;
    let (mut found, Ok(mut consumer)) = (Vec::new(), consumer) else { return Vec::new() };
    while let Some(record) = consumer.next().await {
        found.push(record.unwrap());
    }
    found
}

fn counted(values: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_has_promised_holds_however_often_the_power_is_cut() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = variable("TIDELOG_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let rounds = variable("TIDELOG_ROUNDS").unwrap_or(8);
    println!("TIDELOG_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut sim = SimDisk::new(SimOptions { seed, capacity: None });
    let mut server = Some(start(&sim, dir.path(), "127.0.0.1:0").await.unwrap());
    let address = server.as_ref().unwrap().addresses()[0];
    let book = Arc::new(Book::default());
    {
        let client = connected(address).await;
        for topic in ["jobs", "copies.a", "copies.b"] {
            client.admin().create_topic(NewTopic::new(topic)).await.unwrap();
        }
        client.admin().apply_routes(rules("copies.a"), false, false).await.unwrap();
    }
    let pause = Duration::from_millis(500) * rounds as u32 / ASKED as u32;
    let sending =
        [tokio::spawn(producer(address, book.clone())), tokio::spawn(requester(address, pause, book.clone()))];
    let mut working: Vec<_> = (0..3).map(|_| tokio::spawn(member(address, book.clone()))).collect();
    working.extend((0..2).map(|_| tokio::spawn(reader(address, book.clone()))));
    working.extend(["load", "load", "analyse"].map(|topic| tokio::spawn(responder(address, topic))));
    let mut starts_cut = 0;
    for _ in 0..rounds {
        sim.cut_power_at(if random.bool() { random.u64(1..300) } else { random.u64(1..4_000) });
        if server.is_none() {
            server = start(&sim, dir.path(), &address.to_string()).await.ok();
            starts_cut += u64::from(server.is_none());
        }
        if let Some(server) = server.take() {
            let looking = async { look_at_positions(&connected(address).await, &book).await };
            let changes = change_at_once(address, random.fork(), book.clone());
            // The power may be gone already.
            let _ = tokio::time::timeout(Duration::from_secs(5), changes).await;
            let _ = tokio::time::timeout(Duration::from_secs(5), looking).await;
            tokio::time::sleep(Duration::from_millis(random.u64(100..600))).await;
            sim.cut_power_at(random.u64(..5));
            server.stop().await;
        }
        sim = sim.reboot();
        if random.bool() {
            // The view is no part of what must survive.
            let _ = std::fs::remove_dir_all(dir.path().join("view"));
        }
    }
    let server = start(&sim, dir.path(), &address.to_string()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    book.stop.store(true, Ordering::Relaxed);
    for task in sending {
        task.await.unwrap();
    }
    let client = connected(address).await;
    look_at_positions(&client, &book).await;
    if client.admin().describe_group("work").await.is_ok() {
        client.admin().resume_group("work").await.unwrap();
    }
    let mut kept = 0;
    let groups = book.groups.lock().unwrap().clone();
    for (name, may_be) in groups {
        let is = client.admin().describe_group(&name).await.ok().map(|group| group.summary.filter.unwrap());
        assert!(may_be.contains(&is), "group '{name}' is {is:?}, and may be {may_be:?}");
        kept += usize::from(is.is_some());
    }

    // All requests end, those too of which the requester does not know whether they were taken in.
    let until = Instant::now() + LONG;
    let requests = loop {
        let (requests, more) = client.admin().list_requests(ListRequests::default()).await.unwrap();
        assert!(!more);
        let lag: u64 = client.admin().describe_group("work").await.unwrap().partitions.iter().map(|at| at.lag).sum();
        let ended =
            |request: &tidelog::client::RequestInfo| request.state != "open" && request.callback_state == "delivered";
        let read = book.seen.lock().unwrap().is_superset(&book.acknowledged.lock().unwrap());
        if lag == 0 && read && requests.iter().all(ended) {
            break requests;
        }
        assert!(Instant::now() < until, "lag {lag}, {} requests, all jobs read: {read}", requests.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for task in working {
        task.abort();
    }
    assert_eq!(*book.wrong.lock().unwrap(), Vec::<String>::new());

    let jobs = counted(read(&client, "jobs").await.iter().map(text));
    let acknowledged = book.acknowledged.lock().unwrap().clone();
    for job in &acknowledged {
        assert_eq!(jobs.get(&job.to_string()), Some(&1), "job {job} was acknowledged");
    }
    assert_eq!(jobs.iter().find(|(_, count)| **count > 1), None, "a job twice");
    let poison = jobs.keys().filter(|job| job.parse::<u64>().unwrap() % POISON == 0).map(|job| (job.clone(), 1));
    let dead = counted(read(&client, "dead-letter.work").await.iter().map(text));
    assert_eq!(dead, poison.collect::<BTreeMap<_, _>>(), "dead letters");

    client.admin().resume_route("copy").await.unwrap();
    while client.admin().describe_route("copy").await.unwrap().summary.lag > 0 {
        assert!(Instant::now() < until, "the route does not catch up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut copies = read(&client, "copies.a").await;
    copies.extend(read(&client, "copies.b").await);
    assert_eq!(counted(copies.iter().map(text)), jobs, "each job is routed once");

    let answers = read(&client, "answers").await;
    let called = counted(answers.iter().map(|answer| String::from_utf8(answer.key.clone().unwrap().to_vec()).unwrap()));
    let taken = book.taken.lock().unwrap().clone();
    assert!(taken.iter().all(|id| called.contains_key(id)), "a request that was taken in has no outcome");
    assert_eq!(called.iter().find(|(_, count)| **count > 1), None, "a request has two outcomes");
    assert_eq!(called.len(), requests.len());
    for answer in &answers {
        let id = String::from_utf8(answer.key.clone().unwrap().to_vec()).unwrap();
        match requests.iter().find(|request| request.id == id).unwrap().state.as_str() {
            "cancelled" => assert_eq!(text(answer), ""),
            _ => assert_eq!(text(answer), format!("analyse(load({id}))")),
        }
    }
    println!(
        "{rounds} cuts, {starts_cut} of them before it was ready; {} of {} jobs acknowledged, {} dead, {} acks kept, {} of {} requests taken in, {kept} groups kept",
        acknowledged.len(),
        jobs.len(),
        dead.len(),
        book.done.lock().unwrap().len(),
        taken.len(),
        requests.len()
    );
    server.stop().await;
}
