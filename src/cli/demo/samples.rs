//! The documents that the demo sends: what a CRM, a billing system and an ERP would exchange.

use std::path::Path;

use bytes::Bytes;
use tidelog::disk::{self, RealDisk};

/// A topic and the documents for it.
pub struct Sample {
    /// The topic.
    pub topic: &'static str,
    /// Key and document, in order.
    pub documents: Vec<(String, Bytes)>,
}

/// Topic, file, the member of a document that is its key, and the built-in copy of the file.
const SOURCES: [(&str, &str, &str, &str); 3] = [
    ("crm.accounts", "data/crm_accounts.jsonl", "id", include_str!("../../../data/crm_accounts.jsonl")),
    ("billing.invoices", "data/billing_invoices.jsonl", "id", include_str!("../../../data/billing_invoices.jsonl")),
    ("erp.events", "data/erp_events.jsonl", "id", include_str!("../../../data/erp_events.jsonl")),
];

/// All samples: from `./data` where it is there, built in where not.
pub fn all() -> Vec<Sample> {
    SOURCES
        .into_iter()
        .map(|(topic, file, key, built_in)| {
            let content = disk::read_file(&RealDisk, Path::new(file)).unwrap_or_else(|_| built_in.as_bytes().to_vec());
            let lines = content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            let documents = lines.enumerate().map(|(at, line)| (key_of(line, key, at), Bytes::copy_from_slice(line)));
            Sample { topic, documents: documents.collect() }
        })
        .collect()
}

/// The key of a document, its line number if it has none.
fn key_of(document: &[u8], member: &str, line: usize) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(document).ok();
    match parsed.as_ref().and_then(|document| document.get(member)) {
        Some(serde_json::Value::String(key)) => key.clone(),
        Some(other) => other.to_string(),
        None => format!("line-{}", line + 1),
    }
}
