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
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["parts"][0]["rules"][2]["verdict"], "matched");
    assert_eq!(lines[0]["outputs"][0]["topic"], "crm.apac");
    assert_eq!(lines[0]["outputs"][0]["key"], "c1");
    assert_eq!(lines[1]["outputs"][0]["topic"], "crm.banking");
    assert_eq!(lines[1]["outputs"][0]["headers"]["tidelog-part"], "1/2");
    assert_eq!(lines[1]["unwanted"], 1);
    assert_eq!(lines[2]["outputs"][0]["rule"], "dead_letter");
    assert_eq!(lines[3]["failure"]["rule"], "split");
    let text = String::from_utf8(tidelog_with_input(&args, documents.as_bytes()).ok().stdout).unwrap();
    for expected in ["document 1", "-> crm.banking  (industry)", "nobody wanted 1 part", "dead letter: rule 'split'"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
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
    assert!(text.contains("-> big at 0/0  (big)") && text.contains("nobody wanted 1 record"), "{text}");
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
    assert!(at(&server, &["route", "describe", "r"]).fails(1).reason().contains("there is no route 'r'"));
}
