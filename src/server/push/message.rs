//! What an endpoint gets: one record in the binary mode of CloudEvents (its value is the body), or several in their JSON
//! batch format. Pure.
//!
//! Each record has an id that is the same whenever and by whomever it is sent: that of its topic's incarnation, its
//! partition and its offset. A batch's is a hash of its records' ids.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::base::{GroupName, PartitionId, TimestampMs, TopicId, TopicName};
use crate::broker::WebhookSecrets;
use crate::record::{Header, Headers, Record};
use crate::server::webhooks::{self, Webhook, set_attribute, set_record_headers};

/// What kind of event a record is, unless it says so itself.
const KIND: &str = "tidelog.record";
/// What the attributes of an event are called among a record's headers, in Kafka's binding of CloudEvents.
const EVENT: &str = "ce_";
/// The content type of a batch.
const BATCH: &str = "application/cloudevents-batch+json";

/// A record, where it is from, and which delivery this is.
#[derive(Debug, Clone)]
pub struct Item {
    /// The topic.
    pub topic: TopicName,
    /// This incarnation of it.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// Which delivery, from 1.
    pub attempt: u32,
    /// The record.
    pub record: Record,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// The push subscription.
    pub push: &'a GroupName,
    /// What signs.
    pub secrets: &'a WebhookSecrets,
    /// What goes with each call beside what is said of records. No name is one of those.
    pub headers: &'a HeaderMap,
    /// The time.
    pub now_ms: TimestampMs,
}

impl Item {
    /// Its id.
    pub fn id(&self) -> String {
        format!("{}-{}-{}", self.topic_id, self.partition, self.record.offset)
    }

    fn source(&self) -> String {
        format!("/topics/{}/partitions/{}", self.topic, self.partition)
    }

    /// The attributes of the event that the record is already, if it is one.
    fn event(&self) -> impl Iterator<Item = (String, &[u8])> {
        let is_event = self.record.headers.contains(format!("{EVENT}specversion"));
        self.record.headers.iter().filter(move |_| is_event).filter_map(|header| {
            let name = std::str::from_utf8(header.name).ok()?.strip_prefix(EVENT)?;
            let fits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            fits.then(|| Some((name.to_owned(), header.value?)))?
        })
    }

    /// The headers that are not such attributes.
    fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        let is_event = self.event().next().is_some();
        self.record.headers.iter().filter(move |header| !is_event || !header.name.starts_with(EVENT.as_bytes()))
    }

    fn content_type(&self) -> Option<&str> {
        let named = |header: &Header<'_>| header.name.eq_ignore_ascii_case(b"content-type");
        std::str::from_utf8(self.record.headers.iter().filter(named).last()?.value?).ok()
    }
}

/// One record: headers and body.
pub fn single(sender: Sender<'_>, item: &Item) -> (HeaderMap, Bytes) {
    let body = item.record.value.clone().unwrap_or_default();
    let webhook = Webhook {
        id: &item.id(),
        source: &item.source(),
        kind: KIND,
        time_ms: item.record.timestamp,
        content_type: webhooks::content_type(&body),
    };
    let mut headers = webhook.headers(&body, sender.now_ms, sender.secrets);
    set_record_headers(&mut headers, item.headers());
    for (name, value) in item.event() {
        set_attribute(&mut headers, &name, value);
    }
    let mut set = |name: &'static str, value: String| webhooks::set(&mut headers, name, &value);
    set("tidelog-push", sender.push.to_string());
    set("tidelog-topic", item.topic.to_string());
    set("tidelog-partition", item.partition.to_string());
    set("tidelog-offset", item.record.offset.to_string());
    set("tidelog-delivery", item.attempt.to_string());
    if item.record.value.is_none() {
        set("tidelog-tombstone", "true".to_owned());
    }
    if let Some(key) = &item.record.key {
        let is_plain = key.iter().all(|byte| matches!(byte, b' '..=b'~')) && key.trim_ascii().len() == key.len();
        match std::str::from_utf8(key) {
            Ok(key) if is_plain => webhooks::set(&mut headers, "tidelog-key", key),
            // A header cannot hold every byte, so a key that has others comes whole in a form that can.
            _ => webhooks::set(&mut headers, "tidelog-key-base64", &STANDARD.encode(key)),
        }
        if std::str::from_utf8(key).is_ok() {
            set_attribute(&mut headers, "partitionkey", key);
        }
    }
    headers.extend(sender.headers.clone());
    (headers, body)
}

/// Several records: headers and body.
pub fn batch(sender: Sender<'_>, items: &[Item]) -> (HeaderMap, Bytes) {
    let events: Vec<Event<'_>> = items.iter().map(event).collect();
    // All keys are text.
    let body = Bytes::from(serde_json::to_vec(&events).unwrap_or_default());
    let mut hash = Sha256::new();
    for item in items {
        hash.update(item.id().as_bytes());
        hash.update(b"\n");
    }
    let id: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let (source, kind) = ("", KIND);
    let webhook = Webhook { id: &format!("batch-{id}"), source, kind, time_ms: sender.now_ms, content_type: BATCH };
    let mut headers = webhook.envelope(&body, sender.now_ms, sender.secrets);
    webhooks::set(&mut headers, "tidelog-push", &sender.push.to_string());
    webhooks::set(&mut headers, "tidelog-records", &items.len().to_string());
    headers.extend(sender.headers.clone());
    (headers, body)
}

/// An event as JSON.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    attributes: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

fn event(item: &Item) -> Event<'_> {
    let value = item.record.value.as_deref();
    let said = item.content_type();
    let is_json = said.is_none_or(|said| {
        let kind = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    });
    let json = value.filter(|_| is_json).and_then(|value| serde_json::from_slice::<&RawValue>(value).ok());
    let text = value.filter(|value| value.is_empty() || webhooks::is_text(value));
    let text = text.and_then(|value| std::str::from_utf8(value).ok());
    let (data, usual) = match (json, text) {
        (Some(json), _) => (Some(Data::Json(json)), "application/json"),
        (None, Some(text)) => (Some(Data::Text(text)), "text/plain; charset=utf-8"),
        (None, None) => (None, "application/octet-stream"),
    };
    let data_base64 = value.filter(|_| data.is_none()).map(|value| STANDARD.encode(value));
    let mut attributes = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(attributes.insert(name.to_owned(), Value::String(value)));
    set("specversion", "1.0".to_owned());
    set("id", item.id());
    set("source", item.source());
    set("type", KIND.to_owned());
    if let Some(time) = webhooks::time(item.record.timestamp) {
        set("time", time);
    }
    if value.is_some() {
        set("datacontenttype", said.unwrap_or(usual).to_owned());
    }
    for (name, value) in item.event() {
        set(&name, String::from_utf8_lossy(value).into_owned());
    }
    match item.record.key.as_deref().map(std::str::from_utf8) {
        Some(Ok(key)) => set("partitionkey", key.to_owned()),
        Some(Err(_)) => set("tidelogkey", STANDARD.encode(item.record.key.as_deref().unwrap_or_default())),
        None => {}
    }
    // What this is, whatever the record says it is.
    set("tidelogid", item.id());
    set("tidelogtopic", item.topic.to_string());
    set("tidelogpartition", item.partition.to_string());
    set("tidelogoffset", item.record.offset.to_string());
    set("tidelogdelivery", item.attempt.to_string());
    // As `consume --json` has it: a name that comes more than once has an array.
    let headers: Headers = item.headers().collect();
    if !headers.is_empty() {
        set("tidelogheaders", serde_json::to_string(&headers).unwrap_or_default());
    }
    Event { attributes, data, data_base64 }
}
