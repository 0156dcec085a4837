//! Outcomes of requests whose callback is a URL, as news that are POSTed. One that is given up becomes a dead letter.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::webhooks::courier::News;
use super::webhooks::{self, Webhook, set_record_headers};
use crate::base::TimestampMs;
use crate::broker::{Broker, BrokerError, Post, WebhookSecrets, state_name};
use crate::record::Record;

impl News for Post {
    const WHAT: &'static str = "callback";
    const GONE: &'static str = "the reply is gone: its retention is over";

    /// The callback as a record.
    type Content = Record;

    fn take(broker: &Broker) -> Vec<Self> {
        broker.take_posts()
    }

    async fn come(broker: &Broker) {
        broker.posts_come().await;
    }

    fn name(&self) -> String {
        format!("request {}", self.entry.id)
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn since_ms(&self) -> TimestampMs {
        self.entry.outcome.as_ref().map_or(0, |outcome| outcome.finished_ms)
    }

    async fn content(&self, broker: &Broker) -> Result<Option<Record>, BrokerError> {
        broker.record_to_post(self).await
    }

    fn body(&self, record: &Record) -> Bytes {
        record.value.clone().unwrap_or_default()
    }

    /// Those of every webhook, and the record's own.
    fn headers(&self, record: &Record, body: &Bytes, now_ms: TimestampMs, secrets: &WebhookSecrets) -> HeaderMap {
        let entry = &self.entry;
        let topic = entry.steps.get(entry.step as usize).map_or_else(String::new, ToString::to_string);
        let webhook = Webhook {
            id: entry.id.as_str(),
            source: &format!("/topics/{topic}"),
            kind: &format!("tidelog.request.{}", state_name(entry)),
            time_ms: entry.outcome.as_ref().map_or(now_ms, |outcome| outcome.finished_ms),
            content_type: webhooks::content_type(body),
        };
        let mut headers = webhook.headers(body, now_ms, secrets);
        set_record_headers(&mut headers, &record.headers);
        headers
    }

    fn delivered(&self, broker: &Broker) -> Result<(), BrokerError> {
        broker.posted(self)
    }

    async fn give_up(&self, broker: &Arc<Broker>, reason: String) -> Result<(), BrokerError> {
        broker.give_up_post(self, reason).await
    }
}
