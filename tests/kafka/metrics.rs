//! What `/metrics` says of a server with one of everything, and that it is Prometheus' text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, JoinGroupRequest, OffsetCommitRequest, SyncGroupRequest};
use tidelog::client::{Client as Native, Message, NewPush, NewTopic, Outcome, QueueRules, StartAt};
use tidelog::server::config::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Running, text};
use super::endpoint::{Endpoint, LONG};
use super::topics::name;
use super::transacting::Writer;

/// Metrics as they are read: the samples by name and labels, and the type of each family.
struct Scrape {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

/// What a family's samples may be called, by its type.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("a family of type {other}"),
    }
}

impl Scrape {
    /// Reads OpenMetrics text strictly: each family has HELP and TYPE before its samples, names and labels are what they
    /// may be, no sample comes twice, buckets are cumulative and end with all, and nothing follows the end.
    fn read(text: &str) -> Self {
        let mut scrape = Self { samples: BTreeMap::new(), types: BTreeMap::new() };
        let body = text.strip_suffix("# EOF\n").expect("no end");
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        let mut buckets: BTreeMap<String, f64> = BTreeMap::new();
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(helped.contains(name), "no HELP before {line}");
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                family = name.to_owned();
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is not of {family}"));
            assert!(suffixes(&scrape.types[&family]).contains(&suffix), "{line} of {}", scrape.types[&family]);
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{line}"
            );
            if !labels.is_empty() {
                let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
                for label in labels.split("\",") {
                    let (label, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                    assert!(!value.trim_end_matches('"').contains(['"', '\\', '\n']), "{line}");
                }
            }
            if suffix == "_bucket" {
                let of = family.clone();
                let last = buckets.insert(of, value).unwrap_or(0.0);
                assert!(value >= last, "less than in a smaller bucket: {line}");
            }
            if suffix == "_count" {
                // Sum and count come before the buckets.
                buckets.remove(&family);
            }
            let unknown = family.ends_with("disk_free_bytes") || family.ends_with("_forgotten_seconds");
            assert!(value >= 0.0 || unknown && value == -1.0, "{line}");
            assert!(scrape.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
        for (family, kind) in &scrape.types {
            let own = family.strip_prefix("tidelog_").or(family.strip_prefix("process_"));
            assert!(own.is_some(), "{family} has no prefix");
            assert!(!family.ends_with("_total") && !family.ends_with("_count"), "{family}, a {kind}");
            for unit in ["_ms", "_millis", "_micros", "_kib", "_mb"] {
                assert!(!family.ends_with(unit), "{family} is in no base unit");
            }
        }
        scrape
    }

    fn of(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("there is no {series} in {:#?}", self.samples))
    }
}

/// The status line, and the body.
async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Scrapes until something is so; what is asserted of must be still by then.
async fn scrape(running: &Running, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let (status, text) = get(running.server.http_addresses()[0], "/metrics").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        let scrape = Scrape::read(&text);
        if is_so(&scrape) {
            return scrape;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {:#?}", scrape.samples);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn produce(client: &Native, topic: &str, values: impl IntoIterator<Item = &'static str>) {
    let producer = client.producer().build().await.unwrap();
    for value in values {
        producer.send(Message::to(topic).value(value)).await.unwrap().await.unwrap();
    }
}

/// A consumer of Kafka's classic protocol, in the group `kafka`, that has committed `offset` in partition 0 of `orders`.
async fn kafka_group(client: &mut super::client::Client, offset: i64) {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text("kafka")))
        .with_session_timeout_ms(300_000)
        .with_rebalance_timeout_ms(300_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let joined = client.call(3, &join).await;
    assert_eq!(joined.error_code, 0);
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text("kafka")))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    assert_eq!(client.call(3, &sync).await.error_code, 0);
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(name("orders")).with_partitions(vec![partition]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("kafka")))
        .with_generation_id_or_member_epoch(joined.generation_id)
        .with_member_id(joined.member_id)
        .with_retention_time_ms(-1)
        .with_topics(vec![topic]);
    assert_eq!(client.call(2, &commit).await.topics[0].partitions[0].error_code, 0);
}

const ROUTES: &str = r#"
[[route]]
name = "eu"
from = "orders"
start = "beginning"

[[route.to]]
topic = "orders.eu"
when = "value.region == 'eu'"
"#;

/// Six records: two for the EU, two not, two that no rule can be asked about.
const ORDERS: [&str; 6] =
    [r#"{"region":"eu"}"#, r#"{"region":"us"}"#, "no JSON", r#"{"region":"eu"}"#, "5", r#"{"region":"us"}"#];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_one_of_everything_tells_of_each() {
    let hook = Endpoint::start("127.0.0.1:0".parse().unwrap()).await;
    let allow = |config: &mut ServerConfig| config.outgoing_allow = "127.0.0.0/8".to_owned();
    let running = Running::start_in(tempfile::tempdir().unwrap(), allow).await;
    let client = Native::connect(running.server.addresses()[0].to_string()).await.unwrap();
    let mut kafka = running.client().await;
    client.admin().create_topic(NewTopic::new("orders").partitions(1)).await.unwrap();
    client.admin().apply_routes(ROUTES, false, false).await.unwrap();
    produce(&client, "orders", ORDERS).await;

    // A queue group that may have two out: of its records one is acked, one failed for good, one put off; then two are out,
    // and the last one waits for them.
    let rules = QueueRules { max_deliveries: 2, backoff_ms: 1, backoff_max_ms: 1, ..QueueRules::default() };
    let mut queue =
        client.queue("erp").topic("orders").from(StartAt::Beginning).rules(rules).prefetch(2).join().await.unwrap();
    let (mut held, mut failed, mut put_off) = (None, 0, false);
    while failed < 2 || !put_off {
        let delivery = tokio::time::timeout(LONG, queue.next()).await.unwrap().unwrap().unwrap();
        match delivery.record().offset {
            0 => delivery.ack_durable().await.unwrap(),
            1 => {
                delivery.extend();
                held = Some(delivery);
            }
            2 => {
                failed += 1;
                delivery.nack("never");
            }
            3 => {
                put_off = true;
                delivery.nack_after(LONG * 20, "later");
            }
            // While the third waits for its second chance.
            _ => delivery.release(),
        }
    }

    // A stream group that has committed some, and a classic group that has committed one.
    let stream = client.group_consumer("audit").topic("orders").from(StartAt::Beginning).commit_by_hand();
    let mut stream = stream.join().await.unwrap();
    for _ in 0..2 {
        tokio::time::timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
    }
    stream.commit().await.unwrap();
    kafka_group(&mut kafka, 1).await;

    // A push whose endpoint takes all, and one that is paused.
    let push = |name: &str, topic: &str| NewPush::new(name, hook.url("/ok")).topic(topic).from(StartAt::Beginning);
    client.admin().create_push(push("hook", "orders")).await.unwrap();
    client.admin().create_push(push("still", "nothing")).await.unwrap();
    client.admin().pause_push("still").await.unwrap();

    // A durable request that nobody takes, one in memory that is being worked on, and one to nobody.
    client.request("work", "w", LONG * 20).durable().submit().await.unwrap();
    let nobody = client.request("nobody", "x", LONG).send().await.unwrap();
    assert!(matches!(nobody, Outcome::NoResponder(_)));
    let responder = client.responder("calls").ephemeral_only().listen().await.unwrap();
    let asked = client.request("calls", "c", LONG * 20).stream().await.unwrap();

    // A transaction that is open, and one that was committed.
    client.admin().create_topic(NewTopic::new("other").partitions(1)).await.unwrap();
    let open = Writer::new(&mut kafka, "open").await;
    assert_eq!(open.add(&mut kafka, "other", &[0]).await, [0]);
    let done = Writer::new(&mut kafka, "done").await;
    assert_eq!(done.add(&mut kafka, "other", &[0]).await, [0]);
    assert_eq!(done.end(&mut kafka, true).await, 0);

    // One that is refused, so that there is an error to be counted.
    assert_eq!(get(running.server.http_addresses()[0], "/nothing").await.0, "HTTP/1.1 404 Not Found");

    let settled = |scrape: &Scrape| {
        scrape.of("tidelog_push_delivered_total{push=\"hook\"}") == 6.0
            && scrape.of("tidelog_route_read_total{route=\"eu\"}") == 6.0
            && scrape.of("tidelog_group_dead_letters{group=\"erp\"}") == 1.0
            && scrape.of("tidelog_group_in_flight{group=\"erp\",topic=\"orders\",partition=\"0\"}") == 2.0
            && scrape.of("tidelog_transactions_total{outcome=\"committed\"}") == 1.0
            && scrape.of("tidelog_push_in_flight{push=\"hook\"}") == 0.0
            && scrape.of("tidelog_group_lag{group=\"hook\",topic=\"orders\",partition=\"0\"}") == 0.0
            && scrape.of("tidelog_live_requests") == 1.0
            && scrape.of("tidelog_append_queue") == 0.0
    };
    let scrape = scrape(&running, "all that is under way ends", settled).await;
    let at = |metric: &str, group: &str| {
        scrape.of(&format!("tidelog_{metric}{{group=\"{group}\",topic=\"orders\",partition=\"0\"}}"))
    };
    assert_eq!(at("group_lag", "erp"), 4.0);
    assert_eq!((at("group_delayed", "erp"), at("group_ready", "erp")), (1.0, 1.0));
    // The one that is ready may have been out before.
    assert!((1.0..=2.0).contains(&at("group_waiting", "erp")));
    assert_eq!(at("group_lag", "kafka"), 5.0);
    let audit = client.admin().describe_group("audit").await.unwrap().partitions[0].lag;
    assert!((4..=5).contains(&audit) && at("group_lag", "audit") == audit as f64, "{audit}");
    for (series, value) in [
        ("group_members{group=\"erp\"}", 1.0),
        ("group_members{group=\"audit\"}", 1.0),
        ("group_members{group=\"kafka\"}", 1.0),
        ("topic_records{topic=\"orders\"}", 6.0),
        ("topic_records{topic=\"orders.eu\"}", 2.0),
        ("dead_letters_total", 1.0),
        ("routes{state=\"running\"}", 1.0),
        ("routes{state=\"stuck\"}", 0.0),
        ("route_lag{route=\"eu\"}", 0.0),
        ("route_written_total{route=\"eu\"}", 2.0),
        ("route_failed_total{route=\"eu\"}", 2.0),
        ("pushes{state=\"running\"}", 1.0),
        ("pushes{state=\"paused\"}", 1.0),
        ("outgoing_calls_total{outcome=\"2xx\"}", 6.0),
        ("outgoing_calls_total{outcome=\"5xx\"}", 0.0),
        ("outgoing_call_seconds_count", 6.0),
        ("outgoing_calls_in_flight", 0.0),
        ("requests_open", 1.0),
        ("requests_opened_total", 1.0),
        ("callbacks_waiting", 0.0),
        ("receipts{state=\"waiting\"}", 0.0),
        ("live_responders", 1.0),
        ("live_requests_ended_total{outcome=\"no_responder\"}", 1.0),
        ("transactions_open", 1.0),
        ("transactional_ids", 2.0),
        ("http_answers_total{status=\"404\"}", 1.0),
        ("request_errors_total{kind=\"not_found\"}", 1.0),
        ("partitions_broken", 0.0),
        ("sync_failures_total", 0.0),
        ("retention_segments_total", 0.0),
        ("kafka_connections", 1.0),
        ("http_connections", 1.0),
    ] {
        assert_eq!(scrape.of(&format!("tidelog_{series}")), value, "{series}");
    }
    // Fewer than the default where the system allows fewer open files.
    let places = scrape.of("tidelog_limit{what=\"connections\"}");
    assert!(places >= 1.0 && places <= ServerConfig::default().max_connections as f64, "{places}");
    for series in [
        "tidelog_connections",
        "tidelog_records_in_total",
        "tidelog_appended_bytes_total",
        "tidelog_read_bytes_total",
        "tidelog_sync_seconds_count",
        "tidelog_sync_appends_sum",
        "tidelog_topic_bytes{topic=\"orders\"}",
        "tidelog_segments",
        "tidelog_segment_files_open",
        "tidelog_journal_bytes",
        "tidelog_disk_free_bytes",
        "tidelog_requests_total{kind=\"kafka_join_group\"}",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(scrape.of(series) > 0.0, "{series}");
    }
    // What the native door gives is the same.
    let native = Scrape::read(&client.admin().metrics().await.unwrap());
    assert_eq!(native.types, scrape.types);
    documented(&scrape.types);
    drop((asked, responder, stream, held, queue, client, kafka));
    running.stop().await;
}

/// docs/metrics.md has each family with its type, and no other.
fn documented(types: &BTreeMap<String, String>) {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let row = |(name, rest): (&str, &str)| {
        let kind = rest.split(" | ").next().unwrap().to_owned();
        // Of counters, what is asked for has the ending.
        (name.trim_end_matches("_total").to_owned(), kind)
    };
    let listed: BTreeMap<String, String> = rows.map(row).collect();
    let missing: Vec<_> = types.iter().filter(|(name, kind)| listed.get(*name) != Some(kind)).collect();
    assert!(missing.is_empty(), "not on the page, or of another type: {missing:#?}");
    // Of damage there is a series only where there is damage.
    let of_damage = |name: &str| ["tidelog_damaged_places", "tidelog_damaged_records"].contains(&name);
    let gone: Vec<_> = listed.keys().filter(|name| !types.contains_key(*name) && !of_damage(name)).collect();
    assert!(gone.is_empty(), "only on the page: {gone:?}");
}
