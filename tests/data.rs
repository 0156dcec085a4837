//! The sample documents are what their generator makes, and hold together.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/make_data.rs"]
mod make_data;

use std::collections::HashSet;

use serde_json::Value;

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn documents(name: &str) -> Vec<Value> {
    file(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id(document: &Value) -> String {
    document["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_committed_files_are_what_the_generator_makes() {
    for (name, content) in make_data::make() {
        assert!(file(name) == content, "{name} differs: run `cargo run --example make_data`");
    }
}

#[test]
fn references_between_the_files_resolve() {
    let accounts: HashSet<String> = documents("crm_accounts.jsonl").iter().map(id).collect();
    let invoices = documents("billing_invoices.jsonl");
    assert!(invoices.iter().all(|invoice| accounts.contains(invoice["customer"]["id"].as_str().unwrap())));
    let invoices: HashSet<String> = invoices.iter().map(id).collect();
    let events = documents("erp_events.jsonl");
    assert!(events.iter().all(|event| invoices.contains(event["invoice"].as_str().unwrap())));
    assert_eq!((accounts.len(), invoices.len(), events.len()), (1500, 2000, 2000));
}

#[test]
fn there_are_large_documents_sections_and_names_beyond_ascii() {
    let text = file("billing_invoices.jsonl");
    assert!(text.lines().filter(|line| line.len() > 20_000).count() >= 4);
    assert!(text.lines().any(|line| !line.is_ascii()));
    let spanning = documents("billing_invoices.jsonl");
    assert!(spanning.iter().any(|invoice| invoice["automotive"].is_object() && invoice["banking"].is_object()));
    let unroutable = file("unroutable.jsonl");
    assert!(unroutable.lines().any(|line| serde_json::from_str::<Value>(line).is_err()));
}
