//! `tidelog bench` with tiny numbers: every work runs, and prints the one object that is promised.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and looks at files from outside"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Server, spawn, tidelog};
use serde_json::Value;

const MEMBERS: [&str; 13] = [
    "work",
    "messages",
    "seconds",
    "messages_per_s",
    "mb_per_s",
    "limit_mb_per_s",
    "ratio",
    "latency_us",
    "limit_us",
    "server_rss_mib",
    "server_cpu",
    "client_cpu",
    "cases",
];
const PERCENTILES: [&str; 5] = ["p50", "p99", "p999", "p9999", "max"];

/// Runs `bench ARGS --json`, checks the shape, and that exactly these members are numbers.
#[track_caller]
fn bench(args: &[&str], numbers: &[&str]) -> Value {
    let mut all = vec!["bench"];
    all.extend_from_slice(args);
    all.push("--json");
    let run = tidelog(&all).ok();
    let text = String::from_utf8(run.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sorted(result.as_object().unwrap().keys()), sorted(MEMBERS.iter()), "{text}");
    assert_eq!(result["work"], args[0]);
    let latency = result["latency_us"].as_object().unwrap();
    assert_eq!(sorted(latency.keys()), sorted(PERCENTILES.iter()), "{text}");
    for percentile in latency.values() {
        assert_eq!(percentile.is_u64(), numbers.contains(&"latency_us"), "{text}");
    }
    for name in MEMBERS.iter().filter(|name| !["work", "latency_us", "cases"].contains(name)) {
        // What /proc tells is not to be had everywhere.
        let known = cfg!(target_os = "linux") || !["server_rss_mib", "server_cpu", "client_cpu"].contains(name);
        let wanted = numbers.contains(name) && known;
        assert_eq!(result[name].is_number(), wanted, "{name} in {text}");
        assert_eq!(result[name].is_null(), !wanted, "{name} in {text}");
    }
    if let (Some(rate), Some(limit)) = (result["mb_per_s"].as_f64(), result["limit_mb_per_s"].as_f64()) {
        assert!((result["ratio"].as_f64().unwrap() - rate / limit).abs() < 0.01, "{text}");
    }
    if latency["p50"].is_u64() {
        let ordered: Vec<_> = PERCENTILES.iter().map(|name| latency[*name].as_u64().unwrap()).collect();
        assert!(ordered.is_sorted(), "{text}");
    }
    result
}

fn sorted(names: impl Iterator<Item = impl ToString>) -> Vec<String> {
    let mut names: Vec<_> = names.map(|name| name.to_string()).collect();
    names.sort();
    names
}

const THROUGHPUT: [&str; 9] = [
    "messages",
    "seconds",
    "messages_per_s",
    "mb_per_s",
    "limit_mb_per_s",
    "ratio",
    "server_rss_mib",
    "server_cpu",
    "client_cpu",
];
const LATENCY: [&str; 9] = [
    "messages",
    "seconds",
    "messages_per_s",
    "ratio",
    "latency_us",
    "limit_us",
    "server_rss_mib",
    "server_cpu",
    "client_cpu",
];

#[test]
fn produce_is_measured_at_every_level() {
    let with_latency: Vec<_> = THROUGHPUT.into_iter().chain(["latency_us"]).collect();
    let run = bench(&["produce", "--messages", "1001", "--connections", "3", "--in-flight", "50"], &with_latency);
    assert_eq!(run["messages"], 1001);
    bench(&["produce", "--messages", "200", "--ack", "written", "--size", "100"], &with_latency);
    let unanswered = bench(&["produce", "--messages", "200", "--ack", "none"], &THROUGHPUT);
    assert_eq!(unanswered["messages"], 200);
    let timed = bench(&["produce", "--seconds", "0.1", "--in-flight", "10"], &with_latency);
    assert!(timed["messages"].as_u64().unwrap() > 0 && timed["seconds"].as_f64().unwrap() < 5.0);
}

#[test]
fn latency_is_measured_at_a_rate_and_one_at_a_time_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("latency.svg");
    let args =
        ["latency", "--rate", "500", "--seconds", "0.2", "--partitions", "2", "--plot", picture.to_str().unwrap()];
    let run = bench(&args, &LATENCY);
    assert_eq!(run["messages"], 100);
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
    let run = bench(&["latency", "--in-flight", "1", "--messages", "20"], &LATENCY);
    assert_eq!(run["messages"], 20);
    bench(&["latency", "--rate", "500", "--seconds", "0.1", "--ack", "none"], &LATENCY);
}

#[test]
fn requests_are_measured_in_memory_and_durable() {
    let run = bench(&["request", "--messages", "40", "--connections", "2"], &LATENCY);
    assert_eq!(run["messages"], 40);
    bench(&["request", "--messages", "10", "--durable"], &LATENCY);
}

#[test]
fn reading_is_measured_cold_and_as_it_comes() {
    let run = bench(&["replay", "--messages", "300", "--partitions", "2"], &THROUGHPUT);
    assert_eq!(run["messages"], 300);
    let run = bench(&["consume", "--messages", "300", "--connections", "2"], &THROUGHPUT);
    assert_eq!(run["messages"], 600);
}

#[test]
fn recovery_is_measured() {
    let numbers = ["messages", "seconds", "ratio", "latency_us", "limit_us", "server_rss_mib", "client_cpu"];
    bench(&["recover", "--messages", "500"], &numbers);
}

#[test]
fn rules_and_the_lag_of_routing_are_measured() {
    let numbers = [
        "messages",
        "seconds",
        "messages_per_s",
        "mb_per_s",
        "latency_us",
        "server_rss_mib",
        "server_cpu",
        "client_cpu",
    ];
    let run = bench(&["route", "--messages", "200", "--seconds", "0.2", "--rate", "100"], &numbers);
    assert_eq!(run["messages"], 200);
}

#[test]
fn each_filter_is_measured_beside_the_same_read_without_one() {
    let run = bench(
        &["filter", "--messages", "300"],
        &["messages", "seconds", "messages_per_s", "mb_per_s", "server_rss_mib", "server_cpu", "client_cpu"],
    );
    assert_eq!(run["messages"], 300);
    let cases = run["cases"].as_array().unwrap();
    assert!(cases[0]["filter"].is_null() && cases.len() > 5, "{run}");
    for case in cases {
        assert!(case["messages_per_s"].as_f64().unwrap() > 0.0, "{case}");
    }
}

#[test]
fn many_subscribers_and_slow_ones_are_measured() {
    let numbers = ["messages", "seconds", "messages_per_s", "latency_us", "server_rss_mib", "server_cpu", "client_cpu"];
    let run = bench(&["subscribers", "--connections", "20", "--messages", "3", "--partitions", "2"], &numbers);
    assert_eq!(run["messages"], 60);
    let run = bench(&["slow-consumer", "--connections", "3", "--messages", "2000"], &THROUGHPUT);
    assert_eq!(run["cases"][0]["slow_consumers"], 3);
}

#[test]
fn memory_of_groups_is_measured() {
    let numbers = ["messages", "seconds", "server_rss_mib", "server_cpu", "client_cpu"];
    let run = bench(&["groups", "--connections", "12", "--messages", "500"], &numbers);
    assert_eq!(run["cases"].as_array().unwrap().len(), 4, "{run}");
}

#[test]
fn compaction_is_measured_alone_and_beside_others() {
    let numbers = ["messages", "seconds", "messages_per_s", "mb_per_s", "server_rss_mib", "server_cpu", "client_cpu"];
    // More than one segment of 16 MiB.
    let run = bench(&["compact", "--messages", "10000", "--size", "4000", "--seconds", "0.1"], &numbers);
    let cases = run["cases"].as_array().unwrap();
    for case in &cases[..2] {
        assert_eq!((&case["keys"], &case["records_before"]), (&1000.into(), &10_000.into()), "{run}");
        assert!(case["records_removed"].as_u64().unwrap() > 0, "{run}");
    }
    assert!(cases[0]["records_after"].as_u64().unwrap() < 10_000, "{run}");
}

#[test]
#[cfg(feature = "librdkafka")]
fn librdkafka_is_measured_beside_the_native_client() {
    let numbers = ["messages", "seconds", "ratio", "server_rss_mib", "server_cpu", "client_cpu"];
    let tiny = ["--messages", "500", "--rounds", "2", "--seconds", "0.1", "--rate", "100"];
    let run = bench(&[&["kafka", "--size", "300,8"][..], &tiny].concat(), &numbers);
    assert_eq!(run["messages"], 4_000);
    let works = ["produce", "fetch", "acknowledge", "acknowledge_paced", "end_to_end"];
    let cases = run["cases"].as_array().unwrap();
    for (case, (size, work)) in cases.iter().zip([300, 8].iter().flat_map(|size| works.map(|work| (size, work)))) {
        assert_eq!((&case["size"], &case["work"]), (&(*size).into(), &work.into()), "{run}");
        let figure = if ["produce", "fetch"].contains(&work) { "messages_per_s" } else { "p99_us" };
        for of in ["native", "librdkafka", "ratio"] {
            assert!(case[of][figure].as_f64().unwrap() > 0.0, "{case}");
        }
    }
    assert_eq!(cases.len(), 10);
    // A server that runs is told both of its doors; settings go to librdkafka.
    let refused = tidelog(&["bench", "kafka", "--server", "127.0.0.1:1"]).fails(2);
    assert!(refused.stderr().contains("--kafka-server"), "{}", refused.stderr());
    let refused = tidelog(&["bench", "kafka", "--setting", "linger.ms=soon", "--messages", "1"]).fails(1);
    assert!(refused.reason().contains("linger.ms"), "{}", refused.reason());
}

#[test]
#[cfg(not(feature = "librdkafka"))]
fn without_librdkafka_it_says_how_to_get_it() {
    let refused = tidelog(&["bench", "kafka"]).fails(2);
    assert!(refused.reason().contains("--features librdkafka"), "{}", refused.reason());
}

#[test]
fn topics_and_connections_are_measured() {
    bench(&["topics", "--topics", "3", "--messages", "60"], &THROUGHPUT);
    bench(&["connections", "--connections", "20", "--messages", "20"], &LATENCY);
}

#[test]
fn a_server_that_runs_is_measured_and_left_running() {
    let server = Server::start();
    let without_process: Vec<_> =
        THROUGHPUT.into_iter().filter(|name| !["server_rss_mib", "server_cpu"].contains(name)).collect();
    tidelog(&["produce", "orders", "one", "two", "--server", server.address()]).ok();
    let run = bench(&["replay", "--server", server.address(), "--topic", "orders"], &without_process);
    assert_eq!(run["messages"], 2);
    tidelog(&["bench", "recover", "--server", server.address()]).fails(2);
    tidelog(&["info", "--server", server.address()]).ok();
}

#[test]
fn people_see_the_limit_and_the_ratio() {
    let text = String::from_utf8(tidelog(&["bench", "produce", "--messages", "200"]).ok().stdout).unwrap();
    for part in ["messages/s", "bare limit", "ratio", "prepared", "growing", "p99.99", "cores"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_begun() {
    for args in [
        &["bench", "replay", "--plot", "x.svg"][..],
        &["bench", "produce", "--ack", "none", "--plot", "x.svg"],
        &["bench", "latency", "--ack", "none", "--in-flight", "1"],
        &["bench", "connections", "--ack", "none"],
        &["bench", "latency", "--connections", "2"],
        &["bench", "consume", "--topic", "orders"],
        &["bench", "produce", "--size", "1"],
        &["bench"],
    ] {
        tidelog(args).fails(2);
    }
}

#[test]
fn an_interrupted_bench_takes_its_server_and_folder_with_it() {
    for signal in ["INT", "TERM"] {
        let run = spawn(&["bench", "latency", "--seconds", "60"]);
        let id = run.id();
        let deadline = Instant::now() + Duration::from_secs(20);
        while leftovers(id) == 0 {
            assert!(Instant::now() < deadline, "the bench made no folder");
            std::thread::yield_now();
        }
        run.signal(signal);
        let ended = run.finish(Duration::from_secs(20)).fails(1);
        assert_eq!(ended.reason(), "tidelog: interrupted");
        assert_eq!(leftovers(id), 0);
    }
}

/// Folders of the bench with this process id.
fn leftovers(id: u32) -> usize {
    let prefix = format!("tidelog-bench-{id}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
}
