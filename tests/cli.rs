//! The command line as a user meets it: the real program, a real server on a free port.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and looks at files from outside"
)]

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{Outcome, Server, tidelog, tidelog_with_input};
use serde_json::Value;

fn json_lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn produce(server: &Server, args: &[&str], input: &[u8]) -> Outcome {
    let mut all = vec!["produce", "--server", server.address()];
    all.extend_from_slice(args);
    tidelog_with_input(&all, input)
}

fn run(server: &Server, args: &[&str]) -> Outcome {
    let mut all = args.to_vec();
    all.extend_from_slice(&["--server", server.address()]);
    tidelog(&all)
}

#[test]
fn what_is_produced_is_consumed() {
    let server = Server::start();
    produce(&server, &["orders"], b"one\ntwo\n\nlast without a line end").ok();
    let read = run(&server, &["consume", "orders"]).ok();
    assert_eq!(read.stdout, b"one\ntwo\n\nlast without a line end\n");

    run(&server, &["produce", "orders", "from", "the command line"]).ok();
    let read = run(&server, &["consume", "orders", "--from", "last:2"]).ok();
    assert_eq!(read.stdout, b"from\nthe command line\n");
    let read = run(&server, &["consume", "orders", "--from", "offset:1", "--max", "1"]).ok();
    assert_eq!(read.stdout, b"two\n");
}

#[test]
fn keys_headers_and_bytes_come_back_in_json() {
    let server = Server::start();
    let args = ["docs", "--key-separator", ":", "--header", "source=crm", "-H", "n=1", "--json", "--quiet"];
    let sent = produce(&server, &args, b"k1:{\"a\":1}\nk2:\xff\xfe\nk3:x:y\n").ok();
    let receipts = json_lines(&sent.stdout);
    assert_eq!(receipts.len(), 3);
    for receipt in &receipts {
        assert_eq!(receipt["topic"], "docs");
        assert!(receipt["offset"].is_u64() && receipt["partition"].is_u64() && receipt["timestamp"].is_i64());
    }
    let read = run(&server, &["consume", "docs", "--json"]).ok();
    let mut records = json_lines(&read.stdout);
    records.sort_by_key(|record| record["key"].as_str().unwrap().to_owned());
    let place =
        |line: &serde_json::Value| ["partition", "offset", "timestamp"].map(|field| line[field].as_u64().unwrap());
    let (mut sent, mut stored): (Vec<_>, Vec<_>) =
        (receipts.iter().map(place).collect(), records.iter().map(place).collect());
    sent.sort();
    stored.sort();
    assert_eq!(sent, stored, "the time that is told is the record's");
    let names: Vec<_> = records[0].as_object().unwrap().keys().cloned().collect();
    let mut expected = ["topic", "partition", "offset", "timestamp", "key", "headers", "value"].map(str::to_owned);
    expected.sort();
    assert_eq!(names.len(), expected.len());
    assert!(expected.iter().all(|name| names.contains(name)));
    assert_eq!(records[0]["value"], "{\"a\":1}");
    assert_eq!(records[0]["headers"], serde_json::json!({ "source": "crm", "n": "1" }));
    assert_eq!(records[1]["value"], serde_json::json!({ "base64": "//4=" }));
    assert_eq!(records[2]["value"], "x:y");

    let read = run(&server, &["consume", "docs", "--format", "%k>%v;", "--quiet"]).ok();
    assert!(read.stdout.windows(7).any(|window| window == b"k3>x:y;"));
}

#[test]
fn a_request_that_is_asked_again_is_shown_in_the_state_that_it_has() {
    let server = Server::start();
    let ask = ["request", "ask", "x", "--timeout", "60s", "--callback", "answers", "--id", "r-1", "--json"];
    let state = || json_lines(&run(&server, &ask).ok().stdout)[0]["state"].clone();
    assert_eq!(state(), "open");
    run(&server, &["requests", "cancel", "r-1"]).ok();
    assert_eq!(state(), "cancelled");
}

#[test]
fn a_partition_can_be_chosen() {
    let server = Server::start();
    run(&server, &["topic", "create", "parted", "--partitions", "3"]).ok();
    run(&server, &["produce", "parted", "a", "b", "--partition", "2"]).ok();
    assert_eq!(run(&server, &["consume", "parted", "--partition", "2"]).ok().stdout, b"a\nb\n");
    assert_eq!(run(&server, &["consume", "parted", "--partition", "0"]).ok().stdout, b"");
    run(&server, &["produce", "parted", "x", "--partition", "3"]).fails(1);
}

#[test]
fn every_compression_and_ack_level_works() {
    let server = Server::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("packed.{codec}");
        produce(&server, &[&topic, "--compression", codec], b"aaaaaaaaaa\nbbbbbbbbbb\n").ok();
        assert_eq!(run(&server, &["consume", &topic]).ok().stdout, b"aaaaaaaaaa\nbbbbbbbbbb\n", "{codec}");
    }
    for ack in ["written", "durable"] {
        produce(&server, &["acks", "--ack", ack], b"x\n").ok();
    }
    assert_eq!(run(&server, &["consume", "acks"]).ok().stdout, b"x\nx\n");
    produce(&server, &["no-acks", "--ack", "none"], b"x\n").ok();
    // Nobody told when it arrived.
    let deadline = Instant::now() + Duration::from_secs(10);
    while run(&server, &["consume", "no-acks"]).stdout != b"x\n" {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_hundred_thousand_lines_go_through() {
    let server = Server::start();
    let input: String = (0..100_000).map(|number| format!("line number {number}\n")).collect();
    produce(&server, &["many", "--partition", "0"], input.as_bytes()).ok();
    let read = run(&server, &["consume", "many"]).ok();
    assert!(read.stdout == input.as_bytes(), "{} bytes of {}", read.stdout.len(), input.len());
}

#[test]
fn a_file_is_read_to_its_end() {
    let server = Server::start();
    let file = server.path().join("input.txt");
    std::fs::write(&file, b"a\nb\nc").unwrap();
    run(&server, &["produce", "filed", "--file", file.to_str().unwrap()]).ok();
    assert_eq!(run(&server, &["consume", "filed"]).ok().stdout, b"a\nb\nc\n");
    let missing = run(&server, &["produce", "filed", "--file", "/nowhere/at/all"]).fails(1);
    assert!(missing.reason().contains("/nowhere/at/all"), "{}", missing.reason());
}

#[test]
fn a_line_too_long_is_refused_by_its_number() {
    let server = Server::start();
    let input = [b"short\n".as_slice(), &[b'x'; 5000], b"\nafter\n"].concat();
    let stopped = produce(&server, &["sized", "--max-message-bytes", "1000B"], &input).fails(1);
    let reason = stopped.reason();
    for part in ["line 2", "5,000", "1,000", "1 record acknowledged"] {
        assert!(reason.contains(part), "{part} in {reason}");
    }
    assert_eq!(run(&server, &["consume", "sized"]).ok().stdout, b"short\n");

    let went_on = produce(&server, &["going", "--max-message-bytes", "1000B", "--on-error", "continue"], &input);
    let went_on = went_on.fails(1);
    assert!(went_on.stderr().contains("line 2"), "{}", went_on.stderr());
    assert!(went_on.reason().contains("1 of 3 lines failed, 2 acknowledged"), "{}", went_on.reason());
    assert_eq!(run(&server, &["consume", "going"]).ok().stdout, b"short\nafter\n");
}

#[test]
fn a_line_beyond_the_topics_limit_is_refused_by_its_number() {
    let server = Server::start();
    run(&server, &["topic", "create", "small", "--set", "max_message_bytes=64KiB"]).ok();
    let input = [b"short\n".as_slice(), &[b'x'; 200_000], b"\nafter\n"].concat();
    let went_on = produce(&server, &["small", "--on-error", "continue"], &input).fails(1);
    assert!(went_on.stderr().contains("line 2: "), "{}", went_on.stderr());
    assert_eq!(run(&server, &["consume", "small"]).ok().stdout, b"short\nafter\n");
}

#[test]
fn errors_are_one_line_and_have_their_status() {
    // A port that was free a moment ago, and where nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [&["consume", "a"][..], &["produce", "a", "x"], &["topic", "list"], &["info"], &["metrics"]] {
        let mut args = args.to_vec();
        args.extend_from_slice(&["--server", &nobody]);
        let failed = tidelog(&args).fails(6);
        assert!(failed.reason().contains(&nobody), "{}", failed.reason());
        assert_eq!(failed.stderr().lines().count(), 1, "{}", failed.stderr());
    }
    for args in [
        &["consume"][..],
        &["consume", "bad name"],
        &["produce", "..", "x"],
        &["consume", "a", "--from", "nowhere"],
        &["consume", "a", "--follow", "--until-end"],
        &["consume", "a", "--ack-mode", "none"],
        &["consume", "a", "--format", "%y"],
        &["produce", "a", "x", "--header", "novalue"],
        &["topic", "delete", "a"],
        &["topic", "alter", "a"],
        &["replay", "a"],
        &["nonsense"],
        &[],
    ] {
        tidelog(args).fails(2);
    }
    let server = Server::start();
    let missing = run(&server, &["consume", "never.made"]).fails(3);
    assert!(missing.reason().contains("never.made"), "{}", missing.reason());
    run(&server, &["produce", "short", "x"]).ok();
    let beyond = run(&server, &["consume", "short", "--partition", "0", "--from", "offset:99"]);
    assert_eq!(beyond.fails(1).stderr().lines().count(), 1);
}

#[test]
fn topics_are_administered() {
    let server = Server::start();
    run(&server, &["topic", "create", "a", "--partitions", "2", "--set", "retention_time=7d"]).ok();
    run(&server, &["topic", "create", "a"]).fails(4);
    run(&server, &["topic", "create", "a", "--if-not-exists"]).ok();
    run(&server, &["topic", "create", "b", "--set", "nonsense=1"]).fails(1);
    let listed = json_lines(&run(&server, &["topic", "list", "--json"]).ok().stdout);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["topic"], &listed[0]["partitions"]), (&Value::from("a"), &Value::from(2)));
    let setting = |name: &str| {
        let described = json_lines(&run(&server, &["topic", "describe", "a", "--json"]).ok().stdout);
        assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 2);
        described[0]["settings"][name].clone()
    };
    assert_eq!(setting("retention_time"), "7d");
    run(&server, &["topic", "alter", "a", "--set", "retention_time=1d"]).ok();
    assert_eq!(setting("retention_time"), "1d");
    run(&server, &["topic", "alter", "a", "--unset", "retention_time"]).ok();
    assert_ne!(setting("retention_time"), "1d");
    let text = run(&server, &["topic", "describe", "a"]).ok();
    assert!(String::from_utf8(text.stdout).unwrap().contains("retention_time"));
    assert!(String::from_utf8(run(&server, &["topic", "list"]).ok().stdout).unwrap().contains("PARTITIONS"));
    run(&server, &["topic", "delete", "a", "--yes"]).ok();
    run(&server, &["topic", "describe", "a"]).fails(3);
    assert!(run(&server, &["topic", "list", "--json"]).ok().stdout.is_empty());
}

#[test]
fn topics_are_listed_with_what_is_in_them_and_trimmed() {
    let server = Server::start();
    run(&server, &["topic", "create", "a", "--partitions", "2"]).ok();
    let line = |server| json_lines(&run(server, &["topic", "list", "--json"]).ok().stdout).remove(0);
    assert_eq!((&line(&server)["records"], &line(&server)["newest_timestamp"]), (&Value::from(0), &Value::from(-1)));
    for partition in ["0", "1"] {
        run(&server, &["produce", "a", "--partition", partition, "1", "2", "3"]).ok();
    }
    let listed = line(&server);
    assert_eq!((&listed["records"], &listed["troubled_partitions"]), (&Value::from(6), &Value::from(0)));
    assert!(listed["bytes"].as_u64().unwrap() > 0 && listed["newest_timestamp"].as_i64().unwrap() > 0, "{listed}");

    let trim = |more: &[&str]| run(&server, &[&["topic", "trim", "a"][..], more].concat());
    // The order of the partitions is not told.
    let values = || {
        let all = String::from_utf8(run(&server, &["consume", "a"]).ok().stdout).unwrap();
        let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
        lines.sort();
        lines.concat()
    };
    assert!(trim(&["--before", "offset:1"]).fails(2).reason().contains("2 records"));
    let dry = json_lines(&trim(&["--before", "offset:1", "--dry-run", "--json"]).ok().stdout);
    assert_eq!((dry.len(), &dry[0]["records"], &dry[0]["done"]), (2, &Value::from(1), &Value::from(false)));
    // In the future there is nothing newer.
    let all = json_lines(&trim(&["--before", "time:2099-01-01T00:00:00Z", "--dry-run", "--json"]).ok().stdout);
    assert_eq!(all[1]["records"], 3);
    assert_eq!(json_lines(&trim(&["--before", "ago:1h", "--dry-run", "--json"]).ok().stdout)[0]["records"], 0);
    assert_eq!(values(), "112233");
    trim(&["--before", "offset:2", "--partition", "1", "--yes"]).ok();
    assert_eq!(values(), "1233");
    trim(&["--before", "end", "--yes"]).ok();
    assert_eq!((values(), line(&server)["records"].clone()), (String::new(), Value::from(0)));
    run(&server, &["produce", "a", "--partition", "0", "4", "--json"]).ok();
    assert_eq!(json_lines(&run(&server, &["consume", "a", "--json"]).ok().stdout)[0]["offset"], 3);
    assert!(trim(&["--before", "end", "--partition", "7"]).fails(1).reason().contains("no partition 7"));

    run(&server, &["topic", "create", "state", "--set", "cleanup=compact"]).ok();
    run(&server, &["produce", "state", "--key", "k", "v"]).ok();
    run(&server, &["produce", "state", "--tombstone", "k"]).ok();
    let records = json_lines(&run(&server, &["consume", "state", "--json"]).ok().stdout);
    assert_eq!((&records[1]["key"], &records[1]["value"]), (&Value::from("k"), &Value::Null));
    let refused = run(&server, &["topic", "trim", "state", "--before", "end", "--yes"]).fails(1);
    assert!(refused.reason().contains("compacted"), "{}", refused.reason());
}

#[test]
fn who_would_miss_a_topic_is_said_before_it_is_deleted() {
    let server = Server::start();
    for topic in ["crm.eu", "crm.us", "alone"] {
        run(&server, &["produce", topic, "x"]).ok();
    }
    run(&server, &["group", "create", "erp", "--topic", "crm.*"]).ok();
    let routes = server.path().join("routes.toml");
    std::fs::write(&routes, "[[route]]\nname = 'r'\nfrom = 'crm.us'\n[[route.to]]\ntopic = 'crm.eu'\n").unwrap();
    run(&server, &["route", "apply", routes.to_str().unwrap()]).ok();
    let deleted = run(&server, &["topic", "delete", "crm.eu", "--yes"]).ok();
    let expected = "topic 'crm.eu' is in use: group 'erp' reads it, route 'r' writes to it";
    assert!(deleted.stderr().contains(expected), "{}", deleted.stderr());
    let deleted = run(&server, &["topic", "delete", "crm.us", "--yes"]).ok();
    assert!(deleted.stderr().contains("group 'erp' reads it, route 'r' reads it"), "{}", deleted.stderr());
    run(&server, &["produce", "dead-letter.erp", "x"]).ok();
    let deleted = run(&server, &["topic", "delete", "dead-letter.erp", "--yes"]).ok();
    assert!(deleted.stderr().contains("group 'erp' has its dead letters in it"), "{}", deleted.stderr());
    let deleted = run(&server, &["topic", "delete", "alone", "--yes"]).ok();
    assert!(!deleted.stderr().contains("is in use"), "{}", deleted.stderr());
}

#[test]
fn connections_are_listed_and_closed() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--http-listen", "127.0.0.1:0"];
    let server = Server::start_on(&folder.path().join("data"), &flags);
    run(&server, &["topic", "create", "live"]).ok();
    let follow = ["consume", "live", "--follow", "--client-name", "billing", "--server", server.address()];
    let follower = common::spawn(&follow);
    let listed = || json_lines(&run(&server, &["connections", "list", "--json"]).ok().stdout);
    let deadline = Instant::now() + Duration::from_secs(20);
    let of = |client: &str| listed().into_iter().find(|one| one["client"] == client);
    let first = loop {
        if let Some(found) = of("billing") {
            break found;
        }
        assert!(Instant::now() < deadline, "the follower does not connect");
    };
    assert_eq!(first["door"], "native");
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:") && first["since"].as_i64().unwrap() > 0);
    let mut stream = std::net::TcpStream::connect(server.http_address()).unwrap();
    let head = "GET /topics/live HTTP/1.1\r\nhost: localhost\r\nuser-agent: crm/2\r\naccept: text/event-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let http = loop {
        if let Some(found) = of("crm/2") {
            break found;
        }
        assert!(Instant::now() < deadline, "the stream is not there");
    };
    for one in [&first, &http] {
        run(&server, &["connections", "close", &one["id"].to_string()]).ok();
    }
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
    run(&server, &["connections", "close", &http["id"].to_string()]).fails(3);
    // The follower connects again, and misses nothing.
    run(&server, &["produce", "live", "seen"]).ok();
    while of("billing").is_none_or(|found| found["id"] == first["id"]) {
        assert!(Instant::now() < deadline, "the follower does not come back");
    }
    std::thread::sleep(Duration::from_millis(300));
    follower.signal("INT");
    assert_eq!(follower.finish(Duration::from_secs(20)).stdout, b"seen\n");
}

#[test]
fn the_exit_status_says_what_kind_of_failure_it_was() {
    let server = Server::start();
    run(&server, &["group", "create", "g", "--topic", "a"]).ok();
    run(&server, &["group", "create", "g", "--topic", "b"]).fails(4);
    run(&server, &["group", "describe", "none"]).fails(3);
    run(&server, &["request", "nobody", "x", "--timeout", "1s"]).fails(3);
    run(&server, &["produce", "a", "x", "--wait-for", "g", "--wait-timeout", "100ms"]).fails(5);
    let responder = common::spawn(&["reply", "bad", "--exec", "exit 3", "--server", server.address()]);
    let asked = |_| run(&server, &["request", "bad", "x", "--durable", "--timeout", "60s"]);
    asked(()).fails(7);
    drop(responder);
    let address = server.address().to_owned();
    drop(server);
    tidelog(&["topic", "list", "--server", &address]).fails(6);
    let help = String::from_utf8(tidelog(&["help", "topic", "trim"]).ok().stdout).unwrap();
    assert!(help.contains("tidelog topic trim orders"), "{help}");
    assert!(String::from_utf8(tidelog(&["help"]).ok().stdout).unwrap().contains("Exit status:"));
}

#[test]
fn lists_are_cut_by_prefix_and_number_and_say_what_fills_the_server() {
    let server = Server::start();
    for topic in ["a.x", "a.y", "b"] {
        run(&server, &["topic", "create", topic, "--partitions", "2"]).ok();
        run(&server, &["consume", topic, "--group", &format!("g-{topic}")]).ok();
    }
    let names = |what: &str, more: &[&str]| -> Vec<String> {
        let args = [&[what, "list", "--json"], more].concat();
        let lines = json_lines(&run(&server, &args).ok().stdout);
        lines.iter().map(|line| line[what].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("topic", &[]), ["a.x", "a.y", "b"]);
    assert_eq!(names("topic", &["--prefix", "a."]), ["a.x", "a.y"]);
    assert_eq!(names("topic", &["--limit", "1"]), ["a.x"]);
    assert_eq!(names("group", &[]), ["g-a.x", "g-a.y", "g-b"]);
    assert_eq!(names("group", &["--prefix", "g-a.", "--limit", "1"]), ["g-a.x"]);
    let summary = |what: &str| json_lines(&run(&server, &[what, "list", "--summary", "--json"]).ok().stdout).remove(0);
    assert_eq!((&summary("topic")["topics"], &summary("topic")["partitions"]), (&3.into(), &6.into()));
    assert_eq!((&summary("group")["groups"], &summary("group")["max_groups"]), (&3.into(), &100_000.into()));
    run(&server, &["produce", "a.x", "1", "2"]).ok();
    let lines = json_lines(&run(&server, &["group", "list", "--json"]).ok().stdout);
    let told: Vec<_> =
        lines.iter().map(|line| (line["lag"].as_u64().unwrap(), line["state"].as_str().unwrap())).collect();
    assert_eq!(told, [(2, "idle"), (0, "idle"), (0, "idle")]);
    let shown = run(&server, &["group", "list", "--prefix", "g-a."]).ok();
    let note = shown.stderr();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("MADE_BY"));
    assert!(note.contains("2 shown; 3 of at most 100,000 groups: 3 queue and 0 stream groups"), "{note}");
    run(&server, &["group", "list", "--limit", "0"]).fails(2);
}

#[test]
fn a_replay_copies_a_range_and_says_where_from() {
    let server = Server::start();
    run(&server, &["topic", "create", "source", "--partitions", "1"]).ok();
    produce(&server, &["source", "--key", "k", "--header", "h=1"], b"0\n1\n2\n3\n4\n").ok();
    run(&server, &["replay", "source", "--from", "offset:1", "--to", "offset:4", "--into", "copy", "--name", "n"]).ok();
    let copies = json_lines(&run(&server, &["consume", "copy", "--json"]).ok().stdout);
    let values: Vec<_> = copies.iter().map(|copy| copy["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["1", "2", "3"]);
    let sources = json_lines(&run(&server, &["consume", "source", "--json"]).ok().stdout);
    assert_eq!(copies[0]["timestamp"], sources[1]["timestamp"]);
    assert_eq!(copies[0]["key"], "k");
    assert_eq!(
        copies[0]["headers"],
        serde_json::json!({ "h": "1", "tidelog-replay": "n", "tidelog-source": "source/0/1" })
    );

    let paced = run(&server, &["replay", "source", "--into", "paced", "--rate", "10/s", "--json"]).ok();
    let summary = &json_lines(&paced.stdout)[0];
    assert_eq!(summary["records"], 5);
    assert!(summary["seconds"].as_f64().unwrap() >= 0.4, "{summary}");
}

#[test]
fn a_filter_lets_through_what_matches() {
    let server = Server::start();
    let line = |n: usize| format!("{{\"n\": {n}, \"region\": \"{}\"}}\n", ["eu", "us"][n % 2]);
    produce(&server, &["orders"], (0..1000).map(line).collect::<String>().as_bytes()).ok();
    let read = run(&server, &["consume", "orders", "--filter", "value.region == 'eu' && value.n >= 990"]).ok();
    assert_eq!(String::from_utf8_lossy(&read.stdout), (990..1000).step_by(2).map(line).collect::<String>());
    let read = run(&server, &["consume", "orders", "--filter", "value.n < 500", "--max", "3", "--json"]).ok();
    let offsets: Vec<_> = json_lines(&read.stdout).iter().map(|line| line["offset"].as_u64()).collect();
    assert_eq!(offsets, [Some(0), Some(1), Some(2)]);
    run(&server, &["replay", "orders", "--filter", "value.n == 17", "--into", "found"]).ok();
    assert_eq!(run(&server, &["consume", "found"]).ok().stdout, line(17).as_bytes());
    let wrong = run(&server, &["consume", "orders", "--filter", "value.n >"]).fails(1);
    assert!(wrong.reason().contains("filter: line 1, column"), "{}", wrong.reason());
}

#[test]
fn a_follower_gets_what_comes_and_stops_at_its_number() {
    let server = Server::start();
    run(&server, &["topic", "create", "live"]).ok();
    let follower = common::spawn(&["consume", "live", "--follow", "--max", "2", "--server", server.address()]);
    run(&server, &["produce", "live", "first", "--quiet"]).ok();
    run(&server, &["produce", "live", "second", "--quiet"]).ok();
    let read = follower.finish(Duration::from_secs(20)).ok();
    let mut lines: Vec<_> = read.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort();
    assert_eq!(lines, [b"first".as_slice(), b"second"]);
}

#[test]
fn an_interrupted_follower_has_printed_what_there_was_and_succeeds() {
    let server = Server::start();
    run(&server, &["produce", "live", "seen"]).ok();
    let follower = common::spawn(&["consume", "live", "--follow", "--server", server.address()]);
    // It has subscribed once the server counts a second connection beside that of `info`.
    let deadline = Instant::now() + Duration::from_secs(20);
    while json_lines(&run(&server, &["info", "--json"]).ok().stdout)[0]["connections"] != 2 {
        assert!(Instant::now() < deadline, "the follower does not connect");
    }
    run(&server, &["consume", "live"]).ok();
    follower.signal("INT");
    let read = follower.finish(Duration::from_secs(20)).ok();
    assert!(read.stdout.is_empty() || read.stdout == b"seen\n");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let server = Server::start();
    let input: String = (0..50_000).map(|number| format!("line number {number}\n")).collect();
    produce(&server, &["piped"], input.as_bytes()).ok();
    let left = common::close_stdout_early(&["consume", "piped", "--server", server.address()]);
    assert_eq!((left.status, left.stderr().as_str()), (Some(0), ""));
}

#[test]
fn the_server_tells_of_itself() {
    let server = Server::start();
    run(&server, &["produce", "seen", "x"]).ok();
    let info = &json_lines(&run(&server, &["info", "--json"]).ok().stdout)[0];
    assert_eq!(info["topics"], 1);
    assert!(String::from_utf8(run(&server, &["info"]).ok().stdout).unwrap().contains("version"));
    assert!(!run(&server, &["metrics"]).ok().stdout.is_empty());
}

#[test]
fn verify_and_dump_tell_the_truth_of_what_is_on_disk() {
    let mut server = Server::start();
    run(&server, &["topic", "create", "kept", "--partitions", "1"]).ok();
    produce(&server, &["kept", "--key", "k"], b"needle one\nneedle two\n").ok();
    run(&server, &["produce", "kept", "another batch"]).ok();
    server.kill();
    let data = server.data_dir();
    let checked = tidelog(&["verify", data.to_str().unwrap(), "--json"]).ok();
    let lines = json_lines(&checked.stdout);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["damaged"], &summary["summary"]), (&Value::from(0), &Value::from(true)));
    assert!(summary["records"].as_u64().unwrap() >= 3);

    let segment = server.segment_of("kept");
    let segment_name = segment.to_str().unwrap();
    let batches = json_lines(&tidelog(&["dump", segment_name, "--json"]).ok().stdout);
    assert_eq!(batches.iter().map(|batch| batch["records"].as_u64().unwrap()).sum::<u64>(), 3);
    assert!(batches.iter().all(|batch| batch["crc_ok"] == true));
    let text = String::from_utf8(tidelog(&["dump", segment_name, "--records"]).ok().stdout).unwrap();
    assert!(text.contains("needle two") && text.contains("another batch"), "{text}");

    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|window| window == b"needle").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = tidelog(&["verify", data.to_str().unwrap()]).fails(1);
    assert!(String::from_utf8(damaged.stdout.clone()).unwrap().contains("DAMAGE"));
    tidelog(&["dump", segment_name]).fails(1);
    std::fs::remove_dir_all(segment.parent().unwrap()).unwrap();
    let missing = tidelog(&["verify", data.to_str().unwrap()]).fails(1);
    assert!(String::from_utf8(missing.stdout.clone()).unwrap().contains("folder is missing"));
    tidelog(&["verify", "/nowhere/at/all"]).fails(1);
    tidelog(&["dump", "/nowhere/at/all"]).fails(1);
}

#[test]
fn help_teaches_by_example() {
    for command in
        ["serve", "produce", "consume", "replay", "route", "topic", "verify", "dump", "info", "metrics", "demo"]
    {
        let help = String::from_utf8(tidelog(&[command, "--help"]).ok().stdout).unwrap();
        assert!(help.contains("Examples:") && help.contains(&format!("tidelog {command}")), "{command}");
    }
}

#[test]
fn who_waits_for_a_group_that_will_not_come_is_told_so_before_anything_is_sent() {
    let server = Server::start();
    tidelog(&["topic", "create", "other", "--server", server.address()]).ok();
    tidelog(&["consume", "other", "--group", "erp", "--server", server.address()]).ok();
    let produce = |more: &[&str]| tidelog(&[&["produce", "orders", "a", "--server", server.address()], more].concat());
    let refused = "group 'erp' does not read topic 'orders', but other; nothing was sent";
    for more in [&["--wait-for", "erp"][..], &["--receipt-of", "erp", "--receipt-to", "https://example.com/"]] {
        let reason = produce(more).fails(1).reason();
        assert!(reason.contains(refused), "{reason}");
    }
    let topics = tidelog(&["topic", "list", "--json", "--server", server.address()]).ok().stdout;
    assert!(!String::from_utf8(topics).unwrap().contains("orders"), "nothing was sent");
    // A group that is not there yet may come.
    let nobody = produce(&["--wait-for", "nobody", "--wait-timeout", "3s"]).fails(5).stderr();
    assert!(nobody.contains("there is no group 'nobody' yet;"), "{nobody}");
    assert!(nobody.contains("waiting until group 'nobody' has done 1 record; there is no such group yet"), "{nobody}");
    let asked = produce(&["--receipt-of", "nobody", "--receipt-to", "https://example.com/"]).ok().stderr();
    assert!(asked.contains("there is no group 'nobody' yet;"), "{asked}");
}

#[test]
fn what_a_filter_has_no_answer_for_is_counted_and_shown() {
    let server = Server::start();
    for number in 0..5 {
        run(&server, &["produce", "orders", &format!("{{\"total\":{number}}}")]).ok();
    }
    run(&server, &["consume", "orders", "--group", "erp", "--filter", "value.totl > 2"]).ok();
    let shown = run(&server, &["group", "describe", "erp"]).ok();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let said = "since start: 0 of 5 records wanted; 5 passed over because it has no answer for them: ";
    assert!(shown.contains(said) && shown.contains("totl"), "{shown}");
    // Another filter is asked anew.
    run(&server, &["group", "alter", "erp", "--filter", "value.total > 2"]).ok();
    run(&server, &["group", "reset", "erp", "--to", "beginning"]).ok();
    run(&server, &["consume", "--group", "erp"]).ok();
    let counts = &json_lines(&run(&server, &["group", "describe", "erp", "--json"]).ok().stdout)[0]["filter_counts"];
    assert_eq!((&counts["asked"], &counts["wanted"], &counts["unanswered"]), (&5.into(), &2.into(), &0.into()));
}

#[test]
fn messages_name_what_is_meant() {
    let server = Server::start();
    run(&server, &["produce", "orders", "a"]).ok();
    run(&server, &["group", "create", "erp", "--topic", "orders"]).ok();
    run(&server, &["group", "create", "later", "--topic", "crm.>"]).ok();
    for (args, status, said) in [
        (&["consume", "orders", "--group", "bad group!"][..], 1, "group name 'bad group!' has the character ' '"),
        (&["group", "reset", "later", "--to", "end"], 3, "group 'later' reads no topic yet"),
        (&["group", "reset", "erp", "--to", "end", "--topic", "crm"], 3, "group 'erp' does not read crm"),
        (&["group", "reset", "erp", "--to", "offset:999"], 1, "offset 999 is behind the end: orders/0 ends at 1"),
        (&["dead-letter", "show", "erp"], 3, "dead letters of group 'erp' go to 'dead-letter.erp'"),
        (&["dead-letter", "redrive", "erp"], 3, "dead letters of group 'erp' go to 'dead-letter.erp'"),
        (&["produce", "bad topic", "x"], 2, "see 'tidelog produce --help'"),
        (&["consume", "orders", "--from", "-1h"], 2, "see 'tidelog consume --help'"),
    ] {
        let failed = run(&server, args).fails(status);
        assert!(failed.reason().contains(said), "{args:?}: {}", failed.reason());
    }
    for (args, said) in [
        (&["produce", "orders", "b"][..], "acknowledged 1 record: orders/0 offset 1"),
        (&["topic", "alter", "orders", "--partitions", "1"], "topic 'orders' is as it was"),
        (&["topic", "alter", "orders", "--set", "retention_time=1d"], "topic 'orders' is changed"),
        (&["requests", "list"], "there is no such request"),
        (&["receipts", "list"], "there is no such receipt"),
        (&["group", "reset", "erp", "--to", "offset:2"], "goes on as above"),
    ] {
        let done = run(&server, args).ok();
        assert!(done.stderr().contains(said), "{args:?}: {}", done.stderr());
    }
}

#[test]
fn who_waits_for_a_server_that_is_away_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(&dir.path().join("data"), &[]);
    let address = server.address().to_owned();
    run(&server, &["topic", "create", "orders"]).ok();
    let script = "(echo a; until [ -e go ]; do sleep 0.05; done; echo b) | $TIDELOG produce orders 2> said";
    let mut producer = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(dir.path())
        .env("TIDELOG", env!("CARGO_BIN_EXE_tidelog"))
        .env("TIDELOG_SERVER", &address)
        .spawn()
        .unwrap();
    until("the first is there", || {
        json_lines(&run(&server, &["topic", "list", "--json"]).ok().stdout)[0]["records"] == 1
    });
    server.kill();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let said = || std::fs::read_to_string(dir.path().join("said")).unwrap();
    until("it is told", || said().contains("; trying again"));
    let server = Server::start_on(&dir.path().join("data"), &["--listen", &address]);
    assert!(producer.wait().unwrap().success(), "{}", said());
    assert!(said().contains("acknowledged 2 records"), "{}", said());
    assert_eq!(json_lines(&run(&server, &["topic", "list", "--json"]).ok().stdout)[0]["records"], 2);
}

fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..1_200 {
        if is() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("not {what}");
}
