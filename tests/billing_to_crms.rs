//! The example runs, and every document of the sample data ends where it belongs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails by panicking, and reads files")]

#[path = "../examples/billing_to_crms.rs"]
mod billing_to_crms;

use std::collections::BTreeMap;

use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn every_invoice_reaches_its_crms_once() {
    let outcome = billing_to_crms::run().await.unwrap();
    let read = |name: &str| std::fs::read_to_string(format!("{}/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |topic: String| *expected.entry(topic).or_default() += 1;
    let documents = read("billing_invoices.jsonl") + &read("unroutable.jsonl");
    for document in documents.lines() {
        count("billing.invoices".to_owned());
        count("audit.invoices".to_owned());
        let Ok(invoice) = serde_json::from_str::<Value>(document) else {
            count("dead-letter.invoices-by-region".to_owned());
            count("dead-letter.lines-by-industry".to_owned());
            continue;
        };
        match invoice["customer"]["region"].as_str().unwrap() {
            "antarctica" => count("billing.unrouted".to_owned()),
            region => count(format!("crm.{region}")),
        }
        for line in invoice["lines"].as_array().unwrap() {
            match line["industry"].as_str().unwrap() {
                "retail" => {}
                industry => count(format!("crm.{industry}")),
            }
        }
    }
    assert_eq!(outcome.records, expected);
}
