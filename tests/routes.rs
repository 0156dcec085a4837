//! Routes from the outside: the command line and a real server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and makes files")]

mod common;

use std::time::{Duration, Instant};

use common::{Server, tidelog, tidelog_with_input};
use serde_json::Value;

const FILE: &str = "examples/billing_to_crms.toml";

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn a_file_is_tried_out_on_documents_without_a_server() {
    let documents = r#"{"id":"i1","customer":{"id":"c1","name":"A","region":"apac"},"currency":"JPY","lines":[{"industry":"banking","line":1,"text":"t","quantity":2,"unit_price_cents":5},{"industry":"retail"}]}
{"id":
"#;
    let args = ["route", "test", FILE, "--input", "-", "--key", "k"];
    let lines = json_lines(&tidelog_with_input(&[&args[..], &["--json"]].concat(), documents.as_bytes()).ok().stdout);
    assert_eq!(lines.len(), 5);
    let totals = &lines[4]["totals"];
    assert_eq!((&totals["documents"], &totals["topics"]["crm.banking"]), (&2.into(), &1.into()));
    assert_eq!(lines[0]["parts"][0]["rules"][2]["verdict"], "matched");
    assert_eq!(lines[0]["outputs"][0]["topic"], "crm.apac");
    assert_eq!(lines[0]["outputs"][0]["key"], "c1");
    assert_eq!(lines[1]["outputs"][0]["topic"], "crm.banking");
    assert_eq!(lines[1]["outputs"][0]["headers"]["tidelog-part"], "1/2");
    assert_eq!(lines[1]["unwanted"], 1);
    assert_eq!(lines[2]["outputs"][0]["rule"], "dead_letter");
    assert_eq!(lines[3]["failure"]["rule"], "split");
    let text = String::from_utf8(tidelog_with_input(&args, documents.as_bytes()).ok().stdout).unwrap();
    for expected in [
        "document 1",
        "-> crm.banking  (industry)",
        "no rule matched 1 part",
        "dead letter: rule 'split'",
        "2 documents",
        "crm.banking: 1 record",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn what_a_route_writes_goes_on_to_those_that_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let routes = r#"
        [[route]]
        name = "cut"
        from = "orders"
        split = "$.lines[*]"
        [[route.to]]
        when = 'part.n > 0'
        topic = "lines"
        [[route]]
        name = "whole"
        from = "lines"
        aggregate = { timeout = "1m" }
        [[route.to]]
        topic = "wholes.all"
        [[route]]
        name = "last"
        from = "wholes.*"
        [[route.to]]
        when = 'value[0].n == 1'
        topic = "ones"
    "#;
    std::fs::write(&file, routes).unwrap();
    let documents =
        "{\"lines\":[{\"n\":1},{\"n\":2}]}\n{\"lines\":[{\"n\":7}]}\n{\"lines\":[{\"n\":3},{\"n\":0}]}\n{\n";
    let args = ["route", "test", file.to_str().unwrap(), "--input", "-", "--totals", "--json"];
    let lines = json_lines(&tidelog_with_input(&args, documents.as_bytes()).ok().stdout);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let totals = &lines[0]["totals"];
    assert_eq!(totals["documents"], 4);
    let topics = serde_json::json!({ "lines": 4, "wholes.all": 2, "ones": 1, "dead-letter.cut": 1 });
    assert_eq!(totals["topics"], topics);
    assert_eq!(totals["unwanted"], serde_json::json!({ "cut": 1, "last": 1 }));
    assert_eq!(totals["waiting"], serde_json::json!({ "whole": 1 }));
    assert_eq!(totals["dead_letters"]["cut"].as_object().unwrap().values().next(), Some(&1.into()));
}

#[test]
fn every_mistake_of_a_file_is_told_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    std::fs::write(&file, "[[route]]\nname = 'x'\nfrom = 'a..b'\n[[route.to]]\nwhen = 'keyy == 1'\ntopic = 'a'\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let refused = tidelog(&["route", "test", file, "--input", "/dev/null"]).fails(1);
    assert!(refused.stderr().contains(&format!("{file}:3:8: route 'x': from:")), "{}", refused.stderr());
    assert!(refused.stderr().contains(&format!("{file}:5:9: route 'x': 'when': there is no variable 'keyy'")));
    assert!(refused.reason().ends_with("has 2 mistakes; nothing is applied"), "{}", refused.reason());
    let other = tidelog(&["route", "test", FILE, "--input", "/dev/null", "--topic", "unknown"]).fails(1);
    assert!(other.reason().contains("none of its routes reads that topic"));
}

fn at(server: &Server, args: &[&str]) -> common::Outcome {
    tidelog(&[args, &["--server", server.address()]].concat())
}

#[test]
fn routes_are_applied_described_paused_reset_and_deleted() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let write = |topic: &str| {
        let text =
            format!("[[route]]\nname = 'r'\nfrom = 'in'\n[[route.to]]\nwhen = 'value.n > 1'\ntopic = '{topic}'\n");
        std::fs::write(&file, text).unwrap();
    };
    write("big");
    let name = file.to_str().unwrap();
    at(&server, &["topic", "create", "in"]).ok();
    at(&server, &["produce", "in", "{\"n\":1}", "{\"n\":2}"]).ok();
    let dry = json_lines(&at(&server, &["route", "apply", name, "--dry-run", "--json"]).ok().stdout);
    assert_eq!((&dry[0]["change"], &dry[0]["applied"]), (&Value::from("new"), &Value::from(false)));
    assert!(json_lines(&at(&server, &["route", "list", "--json"]).ok().stdout).is_empty());
    let applied = json_lines(&at(&server, &["route", "apply", name, "--json"]).ok().stdout);
    assert_eq!(applied[0]["from"][0]["offset"], 2, "a new route begins with what comes next");
    let again = at(&server, &["route", "apply", name]).ok();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "route r: unchanged (version 1)\n");
    let explained = at(&server, &["produce", "in", "{\"n\":3}", "{\"n\":0}", "--explain", "--quiet"]).ok();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("-> big at 0/0  (big)") && text.contains("no rule matched 1 record"), "{text}");
    write("bigger");
    let changed = String::from_utf8(at(&server, &["route", "apply", name]).ok().stdout).unwrap();
    for line in
        ["route r: changed (version 2)", "- topic = \"big\"", "+ topic = \"bigger\"", "from offset 4 of in partition 0"]
    {
        assert!(changed.contains(line), "{line}\n{changed}");
    }
    at(&server, &["route", "pause", "r"]).ok();
    at(&server, &["produce", "in", "{\"n\":4}", "nonsense"]).ok();
    let paused = &json_lines(&at(&server, &["route", "describe", "r", "--json"]).ok().stdout)[0];
    assert_eq!((&paused["state"], &paused["lag"]), (&Value::from("paused"), &Value::from(2)));
    let waited = at(&server, &["route", "describe", "r", "--wait", "10s"]).fails(4);
    assert!(waited.reason().contains("2 of 2 records still to route: it is paused"), "{}", waited.reason());
    let dry = at(&server, &["route", "reset", "r", "--to", "beginning", "--dry-run"]).ok();
    assert!(dry.stderr().contains("4 records would be routed again: "), "{}", dry.stderr());
    assert!(dry.stderr().contains("nothing was changed"), "{}", dry.stderr());
    let told =
        &json_lines(&at(&server, &["route", "reset", "r", "--to", "beginning", "--dry-run", "--json"]).ok().stdout)[0];
    assert_eq!((&told["routed_again"], &told["done"]), (&Value::from(4), &Value::from(false)));
    let same = &json_lines(&at(&server, &["route", "describe", "r", "--json"]).ok().stdout)[0];
    assert_eq!(same["lag"], 2, "a dry run changes nothing");
    at(&server, &["route", "reset", "r", "--to", "beginning"]).ok();
    at(&server, &["route", "resume", "r"]).ok();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let route = json_lines(&at(&server, &["route", "describe", "r", "--json"]).ok().stdout).remove(0);
        if route["lag"] == 0 {
            assert_eq!(
                (&route["failed"], &route["destinations"][0]["records"]),
                (&Value::from(1), &Value::from(3)),
                "{route}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "{route}");
    }
    assert!(String::from_utf8(at(&server, &["route", "describe", "r"]).ok().stdout).unwrap().contains("dead letter"));
    let dead = json_lines(&at(&server, &["consume", "dead-letter.r", "--json"]).ok().stdout);
    assert_eq!(
        (&dead[0]["value"], &dead[0]["headers"]["tidelog-rule"]),
        (&Value::from("nonsense"), &Value::from("bigger"))
    );
    at(&server, &["route", "delete", "r"]).ok();
    assert!(at(&server, &["route", "describe", "r"]).fails(3).reason().contains("there is no route 'r'"));
}

#[test]
fn a_file_with_mistakes_changes_nothing_on_the_server() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let good = "[[route]]\nname = 'kept'\nfrom = 'in'\n[[route.to]]\ntopic = 'out'\n";
    std::fs::write(&file, good).unwrap();
    let name = file.to_str().unwrap();
    at(&server, &["route", "apply", name]).ok();
    let listed = |server: &Server| json_lines(&at(server, &["route", "describe", "kept", "--json"]).ok().stdout);
    let before = listed(&server);
    // The first route of the file is fine, and other than before; a later one is wrong.
    let wrong = good.replace("'out'", "'elsewhere'")
        + "[[route]]\nname = 'wrong'\nfrom = 'in'\n[[route.to]]\nwhen = 'value.'\n";
    std::fs::write(&file, wrong).unwrap();
    let refused = at(&server, &["route", "apply", name]).fails(1);
    assert!(refused.stderr().contains(&format!("{name}:10:15: route 'wrong': ")), "{}", refused.stderr());
    assert!(refused.stderr().contains(&format!("{name}:9:1: route 'wrong': ")), "{}", refused.stderr());
    assert!(refused.reason().ends_with("has 2 mistakes; nothing is applied"), "{}", refused.reason());
    assert_eq!(listed(&server), before);
    assert_eq!(json_lines(&at(&server, &["route", "list", "--json"]).ok().stdout).len(), 1);
    at(&server, &["produce", "in", "1"]).ok();
    assert_eq!(consumed(&server, "out", 1)[0]["value"], "1");
    assert!(at(&server, &["topic", "describe", "elsewhere"]).fails(3).reason().contains("no topic"));
}

#[test]
fn parts_say_what_they_are_of_and_what_nobody_wants_is_counted() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let rules = "[[route]]\nname = 'r'\nfrom = 'in'\nsplit = '$.lines[*]'\nkey = 'value.customer'\n\
                 headers = { currency = 'value.currency' }\n[[route.to]]\nwhen = 'part.n > 1'\ntopic = 'out'\n\
                 headers = { n = 'string(part.n)', seen = '\"yes\"' }\n";
    std::fs::write(&file, rules).unwrap();
    at(&server, &["route", "apply", file.to_str().unwrap()]).ok();
    let document = r#"{"customer":"c1","currency":"JPY","lines":[{"n":1},{"n":2},{"n":3}]}"#;
    at(&server, &["produce", "in", document, "--header", "trace=t1", "--header", "tidelog-correlation-id=whole-7"])
        .ok();
    at(&server, &["produce", "in", &document.replace("JPY", "EUR")]).ok();
    let parts = consumed(&server, "out", 4);
    let header = |at: usize, name: &str| parts[at]["headers"][name].as_str().unwrap_or_default().to_owned();
    for (at, (part, n, currency)) in
        [("2/3", "2", "JPY"), ("3/3", "3", "JPY"), ("2/3", "2", "EUR"), ("3/3", "3", "EUR")].into_iter().enumerate()
    {
        assert_eq!(parts[at]["key"], "c1");
        assert_eq!((header(at, "tidelog-part").as_str(), header(at, "n").as_str()), (part, n));
        assert_eq!((header(at, "currency").as_str(), header(at, "seen").as_str()), (currency, "yes"));
    }
    assert_eq!((header(0, "trace").as_str(), header(2, "trace").as_str()), ("t1", ""));
    // Of the whole, where it has one; else one that its parts share and no other's.
    assert_eq!(
        (header(0, "tidelog-correlation-id"), header(1, "tidelog-correlation-id")),
        ("whole-7".into(), "whole-7".into())
    );
    assert_eq!(header(2, "tidelog-correlation-id"), header(3, "tidelog-correlation-id"));
    assert!(!header(2, "tidelog-correlation-id").is_empty());
    let deadline = Instant::now() + Duration::from_secs(60);
    let described = loop {
        let route = json_lines(&at(&server, &["route", "describe", "r", "--json"]).ok().stdout).remove(0);
        if route["lag"] == 0 {
            break route;
        }
        assert!(Instant::now() < deadline, "{route}");
    };
    assert_eq!(described["unwanted"], 2, "{described}");
    let shown = String::from_utf8(at(&server, &["route", "describe", "r"]).ok().stdout).unwrap();
    assert!(shown.contains("no rule matched"), "{shown}");
}

/// Waits until a topic has so many records, and gives them.
fn consumed(server: &Server, topic: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let read = at(server, &["consume", topic, "--from", "beginning", "--json"]);
        let lines = json_lines(&read.stdout);
        if lines.len() >= count {
            return lines;
        }
        let routes = at(server, &["route", "list"]);
        assert!(
            Instant::now() < deadline,
            "{topic}: {} records; {}",
            lines.len(),
            String::from_utf8_lossy(&routes.stdout)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn hostile_documents_meet_stated_limits_and_disturb_nobody() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let rules = "[[route]]\nname = 'cut'\nfrom = 'in'\nsplit = '$.lines[*]'\n[[route.to]]\nwhen = 'part != 0'\ntopic = 'lines'\n\
                 [[route]]\nname = 'slow'\nfrom = 'in'\n[[route.to]]\n\
                 when = 'value.lines.all(a, value.lines.all(b, a != 0 && b != 0))'\ntopic = 'fine'\n";
    std::fs::write(&file, rules).unwrap();
    at(&server, &["route", "apply", file.to_str().unwrap()]).ok();
    let nested = format!("{{\"lines\":[{}{}]}}", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("{{\"lines\":[{}1]}}", "1,".repeat(999_999));
    let wide = format!("{{\"lines\":[{}1]}}", "1,".repeat(9_000));
    let normal = "{\"lines\":[1,2]}";
    let documents = [&nested, normal, &many, normal, &wide, normal].join("\n");
    let sent = tidelog_with_input(&["produce", "in", "--quiet", "--server", server.address()], documents.as_bytes());
    sent.ok();
    let error = |record: &Value| record["headers"]["tidelog-error"].as_str().unwrap().to_owned();
    let cut: Vec<String> = consumed(&server, "dead-letter.cut", 2).iter().map(error).collect();
    assert_eq!(cut[0], "the value nests deeper than the limit of 127 levels");
    assert_eq!(cut[1], "the split makes more than 10000 parts; the limit is 10000");
    let slow: Vec<String> = consumed(&server, "dead-letter.slow", 3).iter().map(error).collect();
    assert_eq!(slow[0], "the value nests deeper than the limit of 127 levels");
    assert!(slow[1..].iter().all(|error| error.contains("the limit is 100000000 steps")), "{slow:?}");
    assert_eq!(consumed(&server, "fine", 3).len(), 3);
    assert_eq!(consumed(&server, "lines", 6 + 9_001).len(), 6 + 9_001);
}

#[test]
fn what_a_route_cannot_do_is_said_and_holds_up_nobody_else() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let rules = "[[route]]\nname = 'strict'\nfrom = 'in'\ncreate_topics = false\n[[route.to]]\ntopic = 'there'\n\
                 [[route]]\nname = 'other'\nfrom = 'in'\n[[route.to]]\ntopic = 'copy'\n";
    std::fs::write(&file, rules).unwrap();
    at(&server, &["route", "apply", file.to_str().unwrap()]).ok();
    at(&server, &["topic", "create", "there"]).ok();
    at(&server, &["produce", "in", "1"]).ok();
    consumed(&server, "there", 1);
    at(&server, &["topic", "delete", "there", "--yes"]).ok();
    at(&server, &["produce", "in", "2", "3"]).ok();
    assert_eq!(consumed(&server, "copy", 3).len(), 3);
    let deadline = Instant::now() + Duration::from_secs(30);
    let stuck = loop {
        let route = json_lines(&at(&server, &["route", "describe", "strict", "--json"]).ok().stdout).remove(0);
        if route["state"] == "stuck" {
            break route;
        }
        assert!(Instant::now() < deadline, "{route}");
    };
    let error = stuck["partitions"][0]["last_error"].as_str().unwrap();
    assert_eq!(error, "there is no topic 'there', and route 'strict' makes none");
    assert_eq!((&stuck["partitions"][0]["offset"], &stuck["lag"]), (&Value::from(1), &Value::from(2)));
    // When the topic is there again it goes on, with nothing lost or twice.
    at(&server, &["topic", "create", "there"]).ok();
    let values: Vec<_> = consumed(&server, "there", 2).iter().map(|record| record["value"].clone()).collect();
    assert_eq!(values, ["2", "3"]);
    // A source that is deleted and made again is another one, which is read from its beginning.
    at(&server, &["topic", "delete", "in", "--yes"]).ok();
    at(&server, &["produce", "in", "4"]).ok();
    assert_eq!(consumed(&server, "there", 3)[2]["value"], "4");
}

#[test]
fn a_full_disk_holds_routes_up_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::start_on_small_disk(&folder.path().join("data"), 24) else { return };
    let file = folder.path().join("routes.toml");
    std::fs::write(&file, "[[route]]\nname = 'r'\nfrom = 'in'\n[[route.to]]\ntopic = 'out'\n").unwrap();
    at(&server, &["topic", "create", "ballast"]).ok();
    at(&server, &["route", "apply", file.to_str().unwrap()]).ok();
    at(&server, &["produce", "in", "first"]).ok();
    consumed(&server, "out", 1);
    at(&server, &["route", "pause", "r"]).ok();
    let lines = |count: usize| vec!["x".repeat(500_000); count].join("\n");
    // There is no room for all of it a second time, once the rest is full.
    let sent = 1 + 16;
    let args = ["produce", "in", "--quiet", "--server", server.address()];
    tidelog_with_input(&args, lines(16).as_bytes()).ok();
    let ballast = folder.path().join("ballast");
    std::fs::write(&ballast, lines(60)).unwrap();
    // It goes on trying when the disk is full.
    let filler =
        common::spawn(&["produce", "ballast", "--file", ballast.to_str().unwrap(), "--server", server.address()]);
    let (mut bytes, mut same) = (0, 0);
    while same < 5 {
        let topic = json_lines(&at(&server, &["topic", "describe", "ballast", "--json"]).ok().stdout).remove(0);
        let now = topic["partitions"][0]["bytes"].as_u64().unwrap();
        same = if now == bytes && now > 0 { same + 1 } else { 0 };
        bytes = now;
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(filler);
    at(&server, &["route", "resume", "r"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = at(&server, &["route", "describe", "r", "--json"]);
        let route = json_lines(&shown.ok().stdout).remove(0);
        let error = route["partitions"][0]["last_error"].as_str().unwrap_or_default().to_owned();
        if error.contains("no space for appends") {
            break;
        }
        assert!(Instant::now() < deadline, "{route}");
        std::thread::sleep(Duration::from_millis(50));
    }
    at(&server, &["topic", "delete", "ballast", "--yes"]).ok();
    assert_eq!(consumed(&server, "out", sent).len(), sent);
}
