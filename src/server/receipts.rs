//! Receipts as news that are POSTed: what became of a record in a group. One that is given up stays in the list of receipts
//! for a while.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::webhooks::courier::News;
use super::webhooks::{self, Webhook};
use crate::base::TimestampMs;
use crate::broker::{Broker, BrokerError, Processed, WebhookSecrets};
use crate::catalog::{ReceiptEntry, ReceiptPlace};

/// What a receipt says: `acked`, `dead_lettered`, `not_wanted`, `expired`, `deleted`, `skipped`, or, when nothing became of the record
/// until its time was over, `timed_out`.
pub fn outcome_name(processed: Option<Processed>) -> &'static str {
    match processed {
        Some(Processed::Acked) => "acked",
        Some(Processed::DeadLettered) => "dead_lettered",
        Some(Processed::NotWanted) => "not_wanted",
        Some(Processed::Expired) => "expired",
        Some(Processed::Deleted) => "deleted",
        Some(Processed::Skipped) => "skipped",
        None => "timed_out",
    }
}

/// The same for the same news of a record and group, whenever it is sent. Names of groups may hold what a header cannot.
fn id(entry: &ReceiptEntry) -> String {
    let place = &entry.place;
    let hash = Sha256::digest(place.group.as_str().as_bytes());
    let group: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("receipt-{}-{}-{}-{group}-{}", place.topic, place.partition, place.offset, outcome(entry))
}

fn outcome(entry: &ReceiptEntry) -> &'static str {
    outcome_name(entry.news.as_ref().and_then(|news| news.processed))
}

impl News for ReceiptEntry {
    const WHAT: &'static str = "receipt";
    const GONE: &'static str = "it was cancelled";

    type Content = ();

    fn take(broker: &Broker) -> Vec<Self> {
        broker.take_receipts()
    }

    async fn come(broker: &Broker) {
        broker.receipts_come().await;
    }

    fn name(&self) -> String {
        let ReceiptPlace { partition, offset, group, .. } = &self.place;
        format!("topic '{}' partition {partition} offset {offset} in group '{group}'", self.topic)
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn since_ms(&self) -> TimestampMs {
        self.news.as_ref().map_or(self.asked_ms, |news| news.at_ms)
    }

    async fn content(&self, broker: &Broker) -> Result<Option<()>, BrokerError> {
        Ok(broker.is_receipt_wanted(&self.place).then_some(()))
    }

    fn body(&self, (): &()) -> Bytes {
        let ReceiptPlace { partition, offset, group, .. } = &self.place;
        let body = json!({
            "topic": self.topic,
            "partition": partition,
            "offset": offset,
            "group": group.as_str(),
            "outcome": outcome(self),
            "asked_at": webhooks::time(self.asked_ms),
            "decided_at": webhooks::time(self.since_ms()),
        });
        Bytes::from(body.to_string())
    }

    fn headers(&self, (): &(), body: &Bytes, now_ms: TimestampMs, secrets: &WebhookSecrets) -> HeaderMap {
        let ReceiptPlace { partition, .. } = &self.place;
        let webhook = Webhook {
            id: &id(self),
            source: &format!("/topics/{}/partitions/{partition}", self.topic),
            kind: &format!("tidelog.receipt.{}", outcome(self)),
            time_ms: self.since_ms(),
            content_type: "application/json",
        };
        webhook.headers(body, now_ms, secrets)
    }

    fn not_yet(&self, broker: &Broker, reason: &str) {
        broker.receipt_not_yet(&self.place, reason);
    }

    fn delivered(&self, broker: &Broker) -> Result<(), BrokerError> {
        broker.receipt_delivered(&self.place);
        Ok(())
    }

    async fn give_up(&self, broker: &Arc<Broker>, reason: String) -> Result<(), BrokerError> {
        broker.give_up_receipt(&self.place, reason);
        Ok(())
    }
}
