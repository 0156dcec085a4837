//! `tidelog bench`, with numbers so small that they mean nothing: each work ends, and says what the help promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::tidelog;
use serde_json::Value;

const FIELDS: [&str; 12] = [
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
];

fn bench(args: &[&str]) -> Value {
    let args = [&["bench"], args, &["--json"]].concat();
    let outcome = tidelog(&args).ok();
    let line: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    for field in FIELDS {
        assert!(line.get(field).is_some(), "no {field} in {line}");
    }
    for quantile in ["p50", "p99", "p999", "p9999", "max"] {
        assert!(line["latency_us"].get(quantile).is_some(), "no {quantile} in {line}");
    }
    assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["ratio"].as_f64().unwrap() > 0.0, "{line}");
    line
}

#[test]
fn throughput_is_measured_beside_its_limit() {
    let line = bench(&["produce", "--messages", "2000", "--connections", "2", "--in-flight", "50"]);
    assert_eq!(line["messages"], 2_000);
    assert!(line["limit_mb_per_s"].as_f64().unwrap() > 0.0 && line["latency_us"]["p50"].as_u64().unwrap() > 0);
    bench(&["produce", "--messages", "2000", "--ack", "written", "--size", "100"]);
    assert_eq!(bench(&["replay", "--messages", "3000"])["messages"], 3_000);
    assert_eq!(bench(&["consume", "--messages", "1000", "--connections", "2", "--partitions", "2"])["messages"], 2_000);
}

#[test]
fn latency_is_measured_beside_its_limit_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("latency.svg");
    let line = bench(&["latency", "--seconds", "0.3", "--rate", "500", "--plot", plot.to_str().unwrap()]);
    assert!(line["limit_us"].as_f64().unwrap() > 0.0 && line["latency_us"]["max"].as_u64().unwrap() > 0);
    #[expect(clippy::disallowed_methods, reason = "looks at the file from outside")]
    let svg = String::from_utf8(std::fs::read(plot).unwrap()).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("percentile"), "{svg:.100}");
    bench(&["latency", "--messages", "50", "--in-flight", "1"]);
}

#[test]
fn recovery_topics_and_connections_are_measured() {
    let line = bench(&["recover", "--messages", "2000"]);
    assert_eq!(line["mb_per_s"], Value::Null);
    bench(&["topics", "--topics", "20", "--messages", "1000"]);
    bench(&["connections", "--connections", "30", "--messages", "50"]);
    tidelog(&["bench", "recover", "--server", "127.0.0.1:1"]).fails(2);
    tidelog(&["bench", "produce", "--server", "127.0.0.1:1"]).fails(1);
    tidelog(&["bench", "produce", "--ack", "maybe"]).fails(2);
}
