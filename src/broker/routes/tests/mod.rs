mod changes;
mod power;
mod starts;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{SystemClock, TopicName, limits};
use crate::broker::*;
use crate::disk::RealDisk;
use crate::record::{BatchBuilder, BatchOptions, Batches, Record, read_records};

fn open(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    broker.start_routes();
    broker
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

async fn apply(broker: &Arc<Broker>, file: &str) -> Vec<Change> {
    let options = ApplyOptions { text: file.to_owned(), ..ApplyOptions::default() };
    match broker.apply_routes(options).await.unwrap() {
        Applied::Changes(changes) => changes,
        Applied::Mistakes(mistakes) => panic!("{mistakes:?}"),
    }
}

async fn produce(broker: &Arc<Broker>, topic: &str, values: &[&str]) {
    broker.metadata(&name(topic), true).await.unwrap();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in values {
        builder.push(5, Some(value.as_bytes()), Some(value.as_bytes()), &[]);
    }
    broker.produce(topic, 0, builder.build(), AckLevel::Durable).await.unwrap();
}

async fn read(broker: &Arc<Broker>, topic: &str) -> Vec<Record> {
    let request = FetchRequest {
        topic,
        partition: 0,
        offset: 0,
        max_bytes: 100 << 20,
        min_bytes: 0,
        max_wait: Duration::ZERO,
        skip_damaged: false,
    };
    let Ok(fetched) = broker.fetch(request).await else { return Vec::new() };
    let records = |batch: Result<(_, bytes::Bytes), _>| {
        read_records(&batch.unwrap().1, limits::MAX_DECOMPRESSED_BYTES).unwrap().map(Result::unwrap)
    };
    Batches::new(fetched.bytes).flat_map(records).collect()
}

/// The values in a topic, once there are so many.
async fn values(broker: &Arc<Broker>, topic: &str, count: usize) -> Vec<String> {
    for _ in 0..3000 {
        let records = read(broker, topic).await;
        if records.len() >= count {
            let text = |record: Record| String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            return records.into_iter().map(text).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{topic} has {} records: {:?}", read(broker, topic).await.len(), broker.list_routes());
}

/// What a route says of itself once that is so: where it is follows what it has written.
async fn described(broker: &Arc<Broker>, route: &str, is_so: impl Fn(&RouteDescription) -> bool) -> RouteDescription {
    for _ in 0..3000 {
        let described = broker.describe_route(&name(route)).unwrap();
        if is_so(&described) {
            return described;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", broker.describe_route(&name(route)));
}

const SORTING: &str = r#"
[[route]]
name = "sort"
from = "in"
start = "beginning"
otherwise = "rest"
[[route.to]]
when = 'value % 2 == 0'
topic = "even"
[[route.to]]
when = 'value % 3 == 0'
topic = "three"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn records_go_where_the_rules_say_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "in", &["1", "2", "3"]).await;
    let changes = apply(&broker, SORTING).await;
    assert_eq!((changes[0].kind, changes[0].version), (ChangeKind::New, 1));
    assert_eq!(values(&broker, "even", 1).await, ["2"]);
    assert_eq!(values(&broker, "three", 1).await, ["3"]);
    assert_eq!(values(&broker, "rest", 1).await, ["1"]);
    assert_eq!(apply(&broker, SORTING).await[0].kind, ChangeKind::Unchanged);
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    produce(&broker, "in", &["4", "x", "5"]).await;
    assert_eq!(values(&broker, "even", 2).await, ["2", "4"]);
    assert_eq!(values(&broker, "rest", 2).await, ["1", "5"]);
    assert_eq!(values(&broker, "dead-letter.sort", 1).await, ["x"]);
    let described = described(&broker, "sort", |route| route.summary.lag == 0).await;
    assert_eq!((described.read, described.summary.failed, described.summary.lag), (6, 1, 0));
    assert_eq!(described.destinations[0], ("even".to_owned(), "even".to_owned(), 2));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_holds_from_a_stated_position_and_a_reset_replays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "in", &["1", "2"]).await;
    apply(&broker, SORTING).await;
    values(&broker, "even", 1).await;
    values(&broker, "rest", 1).await;
    described(&broker, "sort", |route| route.summary.lag == 0).await;
    let changed = apply(&broker, &SORTING.replace("\"even\"", "\"straight\"")).await;
    assert_eq!((changed[0].kind, changed[0].version, changed[0].from[0].offset), (ChangeKind::Changed, 2, 2));
    produce(&broker, "in", &["4"]).await;
    assert_eq!(values(&broker, "straight", 1).await, ["4"]);
    assert_eq!(read(&broker, "even").await.len(), 1);
    broker.pause_route(&name("sort"), true).await.unwrap();
    produce(&broker, "in", &["6"]).await;
    assert_eq!(broker.list_routes()[0].state, "paused");
    let points = broker.reset_route(&name("sort"), OffsetAt::Beginning, false).await.unwrap();
    assert_eq!(points[0].offset, 0);
    assert_eq!(read(&broker, "straight").await.len(), 1);
    broker.pause_route(&name("sort"), false).await.unwrap();
    assert_eq!(values(&broker, "straight", 4).await, ["4", "2", "4", "6"]);
    broker.delete_route(&name("sort")).await.unwrap();
    assert!(broker.describe_route(&name("sort")).is_err());
    produce(&broker, "in", &["8"]).await;
    assert_eq!(read(&broker, "straight").await.len(), 4);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_back_together_and_those_that_miss_some_are_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let file = |timeout: &str| {
        format!(
            r#"
[[route]]
name = "apart"
from = "in"
split = "$[*]"
[[route.to]]
when = 'part != 13'
topic = "parts"
key = '"one"'
[[route]]
name = "together"
from = "parts"
aggregate = {{ timeout = "{timeout}" }}
otherwise = "wholes"
"#
        )
    };
    apply(&broker, &file("10m")).await;
    produce(&broker, "in", &["[1,2,3]", "[4]", "[5,13]", "[6,7]"]).await;
    assert_eq!(values(&broker, "wholes", 3).await, ["[1,2,3]", "[4]", "[6,7]"]);
    described(&broker, "together", |route| (route.summary.lag, route.partitions[0].waiting) == (1, 1)).await;
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    // The part that waits is still known, and the time began when it came.
    apply(&broker, &file("1ms")).await;
    assert_eq!(values(&broker, "dead-letter.together", 1).await, ["5"]);
    let dead = read(&broker, "dead-letter.together").await.remove(0);
    let header = |name: &str| {
        let found = dead.headers.iter().find(|header| header.name == name.as_bytes()).unwrap();
        String::from_utf8(found.value.unwrap().to_vec()).unwrap()
    };
    assert_eq!(header("tidelog-error"), "1 of 2 parts missing after 1ms: 2");
    assert_eq!(header("tidelog-source"), "parts/0/4");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn computed_topics_are_bounded_and_loops_are_refused_or_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let file =
        "[[route]]\nname = 'spread'\nfrom = 'in'\nmax_topics = 2\n[[route.to]]\ntopic = '\"to.\" + string(value)'";
    apply(&broker, file).await;
    produce(&broker, "in", &["1", "2", "3", "1"]).await;
    assert_eq!(values(&broker, "dead-letter.spread", 1).await, ["3"]);
    assert_eq!(values(&broker, "to.1", 2).await.len(), 2);
    described(&broker, "spread", |route| route.made == [name("to.1"), name("to.2")]).await;
    let back = "[[route]]\nname = 'back'\nfrom = 'dead-letter.spread'\n[[route.to]]\ntopic = 'in'";
    let options = ApplyOptions { text: back.to_owned(), ..ApplyOptions::default() };
    let refused = broker.apply_routes(options).await.unwrap_err();
    assert!(refused.to_string().contains("own records again"), "{refused}");
    // A computed destination that comes back is only found out by the records.
    let round = "[[route]]\nname = 'round'\nfrom = 'ring'\n[[route.to]]\ntopic = '\"ri\" + \"ng\"'";
    broker.metadata(&name("ring"), true).await.unwrap();
    apply(&broker, round).await;
    produce(&broker, "ring", &["1"]).await;
    values(&broker, "dead-letter.round", 1).await;
    assert_eq!(read(&broker, "ring").await.len(), 1 + limits::ROUTE_HOPS as usize);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_deleted_while_a_route_paused_are_left_out_and_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "in", &["2"]).await;
    apply(&broker, SORTING).await;
    values(&broker, "even", 1).await;
    broker.pause_route(&name("sort"), true).await.unwrap();
    for value in ["4", "6", "8", "10"] {
        produce(&broker, "in", &[value]).await;
    }
    broker.delete_records("in", 0, Some(3), SETTLE).await.unwrap();
    broker.pause_route(&name("sort"), false).await.unwrap();
    assert_eq!(values(&broker, "even", 3).await, ["2", "8", "10"]);
    let told = described(&broker, "sort", |route| route.summary.lag == 0).await;
    assert_eq!(
        told.partitions[0].trouble.clone().unwrap().message,
        "retention has deleted offsets 1 to 2 before they were routed; going on at 3"
    );
    assert_eq!(told.summary.state, "running");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_deleted_while_it_is_written_to_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "in", &["1"]).await;
    apply(&broker, SORTING).await;
    for round in 0..60 {
        produce(&broker, "in", &["2"; 3]).await;
        tokio::time::sleep(Duration::from_micros(round * 50)).await;
        let _ = broker.delete_topic(&name("even")).await;
    }
    produce(&broker, "in", &["4"]).await;
    let described =
        described(&broker, "sort", |route| route.summary.lag == 0 && route.summary.state == "running").await;
    assert_eq!(described.summary.failed, 0);
    assert_eq!(values(&broker, "even", 1).await.last().unwrap(), "4");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_routed_and_is_deleted_after_a_crash_is_not_routed_twice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "in", &["1", "2", "3", "4"]).await;
    apply(&broker, SORTING).await;
    values(&broker, "even", 2).await;
    described(&broker, "sort", |route| route.summary.lag == 0).await;
    broker.shutdown().await;
    drop(broker);
    // As if it had been killed before the position was kept.
    let broker = open(dir.path());
    {
        let mut catalog = crate::broker::broker::lock(&broker.catalog);
        let (&(topic, partition), progress) = catalog.route_progress(&name("sort")).next().unwrap();
        let progress = crate::catalog::RouteProgress { offset: 0, ..progress.clone() };
        let place = crate::catalog::RoutePlace { route: name("sort"), topic, partition };
        catalog.commit(crate::catalog::Event::RouteMoved { place, progress: Some(progress) }, 5).unwrap();
    }
    broker.shutdown().await;
    drop(broker);
    let broker = open(dir.path());
    // It waits until it is kept that these were routed.
    while broker.delete_records("even", 0, None, SETTLE).await.is_err() {}
    described(&broker, "sort", |route| route.summary.lag == 0).await;
    produce(&broker, "in", &["6"]).await;
    let read = |offset| FetchRequest {
        topic: "even",
        partition: 0,
        offset,
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait: Duration::from_secs(60),
        skip_damaged: false,
    };
    let fetched = broker.fetch(read(2)).await.unwrap();
    let (_, batch) = Batches::new(fetched.bytes).next().unwrap().unwrap();
    let first = read_records(&batch, limits::MAX_DECOMPRESSED_BYTES).unwrap().next().unwrap().unwrap();
    assert_eq!((first.offset, first.value.as_deref()), (2, Some(b"6".as_slice())));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_makes_a_dead_letter_of_what_cannot_be_read_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.metadata(&name("from"), true).await.unwrap();
    apply(&broker, "[[route]]\nname = \"copy\"\nfrom = [\"from\"]\n\n[[route.to]]\ntopic = \"to\"\n").await;
    produce(&broker, "from", &["a"]).await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| drop(sender.send(result)));
    let request =
        crate::log::AppendRequest { batch: crate::fuzz::past_the_gate(1), wait: crate::log::WaitFor::Durable, done };
    broker.topic("from").unwrap().partition(0).unwrap().log().unwrap().enqueue(request);
    receiver.await.unwrap().unwrap();
    produce(&broker, "from", &["b"]).await;
    assert_eq!(values(&broker, "to", 3).await, ["a", "0", "b"]);
    let dead = loop {
        let dead = read(&broker, "dead-letter.copy").await;
        if !dead.is_empty() {
            break dead;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((dead.len(), dead[0].value.clone()), (1, None));
    let header = |name: &str| dead[0].headers.get(name).unwrap();
    assert_eq!(header("tidelog-source"), b"from/0/2");
    let why = "offset 2 cannot be read: record 1 of the batch has 1048576 headers, more than the limit of 4160";
    assert_eq!(header("tidelog-error"), why.as_bytes());
    broker.shutdown().await;
}
