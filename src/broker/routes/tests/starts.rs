//! A change right after a start: records that were half written when the server was killed are finished first, under the rules and
//! with the topics of before. A kill before positions are saved is made by setting the saved position back.

use super::*;
use crate::broker::broker::lock;
use crate::catalog::{Event, RoutePlace, RouteProgress};
use crate::disk::Disk;

const OUT: &str = r#"
[[route]]
name = "r"
from = "in"
start = "beginning"
otherwise = "out"
"#;

const OTHER: &str = r#"
[[route]]
name = "r"
from = "in"
start = "beginning"
otherwise = "other"
"#;

const TWO: &str = r#"
[[route]]
name = "r"
from = "in"
start = "beginning"
match = "all"
[[route.to]]
topic = "out"
[[route.to]]
topic = "copy"
"#;

async fn make(broker: &Arc<Broker>, topic: &str) {
    let new = NewTopic { name: name(topic), partitions: Some(1), settings: Vec::new(), if_not_exists: false };
    broker.create_topic(new).await.unwrap();
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("{number:04}")).collect()
}

async fn produce_all(broker: &Arc<Broker>, values: &[String]) {
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    produce(broker, "in", &values).await;
}

/// What a topic has in all its partitions, sorted.
pub(super) async fn all(broker: &Arc<Broker>, topic: &str) -> Vec<String> {
    let Ok(open) = broker.topic(topic) else { return Vec::new() };
    let mut values = Vec::new();
    for partition in 0..open.entry.partitions {
        let request = FetchRequest {
            topic,
            partition,
            offset: 0,
            max_bytes: 100 << 20,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            skip_damaged: false,
        };
        for batch in Batches::new(broker.fetch(request).await.unwrap().bytes) {
            for record in read_records(&batch.unwrap().1, limits::MAX_DECOMPRESSED_BYTES).unwrap() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
    }
    values.sort();
    values
}

/// Starts again as if the server had been killed before this position of the route `r` was saved.
async fn killed(dir: &Path, broker: Arc<Broker>, change: impl FnOnce(&mut RouteProgress)) -> Arc<Broker> {
    broker.shutdown().await;
    drop(broker);
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    let topic = broker.topic("in").unwrap().entry.id;
    {
        let mut catalog = lock(&broker.catalog);
        let found = catalog.route_progress(&name("r")).find(|(at, _)| **at == (topic, 0));
        let mut progress = found.unwrap().1.clone();
        change(&mut progress);
        let place = RoutePlace { route: name("r"), topic, partition: 0 };
        catalog.commit(Event::RouteMoved { place, progress: Some(progress) }, 5).unwrap();
    }
    broker.shutdown().await;
    drop(broker);
    open(dir)
}

/// A broker with 100 records that a route has routed, started again as if that had not been saved.
async fn half_written(dir: &Path, file: &str, topics: &[&str]) -> Arc<Broker> {
    let broker = open(dir);
    for topic in topics {
        make(&broker, topic).await;
    }
    produce_all(&broker, &numbers(0..100)).await;
    apply(&broker, file).await;
    described(&broker, "r", |route| route.summary.lag == 0).await;
    killed(dir, broker, |progress| progress.offset = 0).await
}

async fn routed(broker: &Arc<Broker>) {
    described(broker, "r", |route| route.summary.lag == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_partitions_wait_for_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), OUT, &["in", "out"]).await;
    broker.alter_topic(&name("out"), Some(5), &[], &[]).await.unwrap();
    produce_all(&broker, &numbers(100..120)).await;
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..120));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_wait_for_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), OUT, &["in", "out", "other"]).await;
    let changes = apply(&broker, OTHER).await;
    assert_eq!(changes[0].from[0].offset, 100, "the new rules begin behind what was routed");
    produce_all(&broker, &numbers(100..120)).await;
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..100));
    assert_eq!(all(&broker, "other").await, numbers(100..120));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_finishes_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), OUT, &["in", "out"]).await;
    broker.pause_route(&name("r"), true).await.unwrap();
    let described = broker.describe_route(&name("r")).unwrap();
    assert_eq!((described.partitions[0].offset, described.summary.state), (100, "paused"));
    broker.alter_topic(&name("out"), Some(5), &[], &[]).await.unwrap();
    produce_all(&broker, &numbers(100..120)).await;
    assert_eq!(all(&broker, "out").await, numbers(0..100));
    broker.pause_route(&name("r"), false).await.unwrap();
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..120));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_was_paused_with_half_written_records_finishes_these_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), OUT, &["in", "out"]).await;
    broker.pause_route(&name("r"), true).await.unwrap();
    produce_all(&broker, &numbers(100..150)).await;
    let broker = killed(dir.path(), broker, |progress| progress.offset = 0).await;
    broker.alter_topic(&name("out"), Some(5), &[], &[]).await.unwrap();
    let described = broker.describe_route(&name("r")).unwrap();
    assert_eq!((described.partitions[0].offset, described.summary.state), (100, "paused"));
    assert_eq!(all(&broker, "out").await, numbers(0..100));
    broker.pause_route(&name("r"), false).await.unwrap();
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..150));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_goes_on_while_it_finishes_routes_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), OUT, &["in", "out"]).await;
    broker.pause_route(&name("r"), true).await.unwrap();
    produce_all(&broker, &numbers(100..150)).await;
    let broker = killed(dir.path(), broker, |progress| progress.offset = 0).await;
    broker.pause_route(&name("r"), false).await.unwrap();
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..150));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_finishes_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), TWO, &["in", "out"]).await;
    // As if nothing of it had come to be in this destination.
    broker.delete_topic(&name("copy")).await.unwrap();
    let broker = killed(dir.path(), broker, |progress| progress.offset = 0).await;
    broker.reset_route(&name("r"), OffsetAt::End, false).await.unwrap();
    produce_all(&broker, &numbers(100..120)).await;
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..120));
    assert_eq!(all(&broker, "copy").await, numbers(0..120));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_of_the_route_finishes_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), TWO, &["in", "out"]).await;
    broker.delete_topic(&name("copy")).await.unwrap();
    let broker = killed(dir.path(), broker, |progress| progress.offset = 0).await;
    broker.delete_route(&name("r")).await.unwrap();
    assert_eq!(all(&broker, "out").await, numbers(0..100));
    assert_eq!(all(&broker, "copy").await, numbers(0..100));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_comes_to_be_changes_nothing_of_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = r#"
        [[route]]
        name = "r"
        from = "in"
        start = "beginning"
        create_topics = false
        [[route.to]]
        topic = '"made." + "here"'
    "#;
    let broker = half_written(dir.path(), file, &["in", "dead-letter.r"]).await;
    make(&broker, "made.here").await;
    produce_all(&broker, &numbers(100..120)).await;
    routed(&broker).await;
    assert_eq!(all(&broker, "dead-letter.r").await, numbers(0..100));
    assert_eq!(all(&broker, "made.here").await, numbers(100..120));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_makes_no_dead_letters_of_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = r#"
        [[route]]
        name = "r"
        from = "in"
        start = "beginning"
        create_topics = false
        match = "all"
        [[route.to]]
        topic = "out"
        [[route.to]]
        topic = '"made." + "here"'
    "#;
    let broker = half_written(dir.path(), file, &["in", "out", "made.here", "dead-letter.r"]).await;
    broker.delete_topic(&name("made.here")).await.unwrap();
    produce_all(&broker, &numbers(100..120)).await;
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, numbers(0..100));
    assert_eq!(all(&broker, "dead-letter.r").await, numbers(100..120));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_smaller_records_makes_no_dead_letters_of_what_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    for topic in ["in", "out"] {
        make(&broker, topic).await;
    }
    let values: Vec<String> = numbers(0..20).into_iter().map(|number| number + &"x".repeat(2000)).collect();
    produce_all(&broker, &values).await;
    apply(&broker, OUT).await;
    routed(&broker).await;
    let broker = killed(dir.path(), broker, |progress| progress.offset = 0).await;
    let small = [("max_message_bytes".to_owned(), "1KiB".to_owned())];
    broker.alter_topic(&name("out"), None, &small, &[]).await.unwrap();
    routed(&broker).await;
    assert_eq!(all(&broker, "out").await, values);
    assert_eq!(all(&broker, "dead-letter.r").await, Vec::<String>::new());
    broker.shutdown().await;
}

/// The position is saved with a part that waits; then comes the part that makes the whole, which is written, and the kill. After a
/// start that takes longer than parts may wait, the part is no dead letter: it is in the whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_whole_that_was_written_before_a_kill_is_not_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = r#"
        [[route]]
        name = "r"
        from = "in"
        start = "beginning"
        aggregate = { timeout = "1h" }
        otherwise = "wholes"
        [[route]]
        name = "apart"
        from = "bodies"
        start = "beginning"
        split = "$[*]"
        otherwise = "in"
    "#;
    let broker = open(dir.path());
    for topic in ["bodies", "in", "wholes"] {
        make(&broker, topic).await;
    }
    produce(&broker, "bodies", &["[1,2]"]).await;
    apply(&broker, file).await;
    assert_eq!(values(&broker, "wholes", 1).await, ["[1,2]"]);
    routed(&broker).await;
    let broker = killed(dir.path(), broker, |progress| {
        progress.offset = 1;
        progress.open = vec![(0, 5)];
    })
    .await;
    described(&broker, "r", |route| route.partitions.iter().all(|partition| partition.offset == 2)).await;
    produce(&broker, "bodies", &["[3,4]"]).await;
    assert_eq!(values(&broker, "wholes", 2).await, ["[1,2]", "[3,4]"]);
    assert_eq!(all(&broker, "dead-letter.r").await, Vec::<String>::new());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_cannot_finish_is_named_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = half_written(dir.path(), TWO, &["in", "out"]).await;
    broker.shutdown().await;
    drop(broker);
    // The partition cannot be opened, and nobody knows what it has.
    let folder = std::fs::read_dir(dir.path().join("topics")).unwrap().map(Result::unwrap);
    let copy = folder.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("copy~")).unwrap();
    RealDisk.remove_dir_all(&copy.join("0")).unwrap();
    let broker = killed_of(dir.path()).await;
    let error = broker.alter_topic(&name("copy"), Some(3), &[], &[]).await.unwrap_err();
    assert_eq!(error.kind(), crate::base::ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("route 'r'"), "{error}");
    assert!(error.to_string().contains("delete the route"), "{error}");
    broker.delete_route(&name("r")).await.unwrap();
    broker.shutdown().await;
}

/// Opens the broker with the position of route `r` set back.
async fn killed_of(dir: &Path) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), ..BrokerConfig::default() };
    let broker = Broker::open(config, Arc::new(RealDisk), Arc::new(SystemClock::new())).unwrap();
    killed(dir, broker, |progress| progress.offset = 0).await
}
