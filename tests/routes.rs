//! Routes from the outside: the command line and a real server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and makes files")]

mod common;

use common::{tidelog, tidelog_with_input};
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
