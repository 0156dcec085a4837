use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::message::{Item, Sender, batch, single};
use super::runner::{backoff, together};
use crate::base::{GroupName, TopicId, TopicName};
use crate::broker::{WebhookSecret, WebhookSecrets};
use crate::catalog::QueueSettings;
use crate::record::Record;

const NOW: i64 = 1_700_000_000_123;
static UNSIGNED: LazyLock<(WebhookSecrets, HeaderMap)> = LazyLock::new(Default::default);

/// One that signs nothing and sends no headers of its own.
fn sender(push: &GroupName) -> Sender<'_> {
    Sender { push, secrets: &UNSIGNED.0, headers: &UNSIGNED.1, now_ms: NOW }
}

fn item(offset: u64, value: Option<&'static [u8]>, headers: &[(&'static str, &'static str)]) -> Item {
    let record = Record {
        offset,
        timestamp: NOW,
        key: Some(Bytes::from_static(b"4711")),
        value: value.map(Bytes::from_static),
        headers: headers.iter().map(|(name, value)| (name, Some(value))).collect(),
    };
    Item { topic: TopicName::new("crm.accounts").unwrap(), topic_id: TopicId(7), partition: 2, attempt: 3, record }
}

fn events(items: &[Item]) -> Vec<Value> {
    let push = GroupName::new("hook").unwrap();
    let (headers, body) = batch(sender(&push), items);
    assert_eq!(headers["content-type"], "application/cloudevents-batch+json");
    assert_eq!(headers["tidelog-records"], items.len().to_string());
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn one_record_is_its_value_with_headers_and_signed() {
    let push = GroupName::new("hook").unwrap();
    let secret = WebhookSecret::random();
    let (secrets, mut own) = (WebhookSecrets::from(secret.clone()), HeaderMap::new());
    own.insert("x-api-key", "7f3a".parse().unwrap());
    let sender = Sender { push: &push, secrets: &secrets, headers: &own, now_ms: NOW };
    let (headers, body) = single(sender, &item(41, Some(b"{}"), &[("Source", "erp"), ("Content-Type", "text/plain")]));
    assert_eq!(body, "{}");
    for (name, value) in [
        ("webhook-id", "00000000000000000000000000000007-2-41"),
        ("webhook-timestamp", "1700000000"),
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "00000000000000000000000000000007-2-41"),
        ("ce-source", "/topics/crm.accounts/partitions/2"),
        ("ce-type", "tidelog.record"),
        ("ce-time", "2023-11-14T22:13:20.123Z"),
        ("ce-partitionkey", "4711"),
        ("tidelog-push", "hook"),
        ("tidelog-topic", "crm.accounts"),
        ("tidelog-partition", "2"),
        ("tidelog-offset", "41"),
        ("tidelog-delivery", "3"),
        ("tidelog-key", "4711"),
        ("tidelog-header-source", "erp"),
        ("x-api-key", "7f3a"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let signature = headers["webhook-signature"].to_str().unwrap();
    assert!(secret.verifies("00000000000000000000000000000007-2-41", 1_700_000_000, b"{}", signature));
    let forged = [
        ("tidelog-push", "other"),
        ("webhook-id", "mine"),
        ("tidelog-key", "x"),
        ("tidelog-header-a", "b"),
        ("a", "c"),
    ];
    let (headers, body) = single(sender, &item(42, None, &forged));
    assert_eq!(
        (&headers["tidelog-key"], &headers["tidelog-header-tidelog-key"]),
        (&"4711".parse().unwrap(), &"x".parse().unwrap())
    );
    assert_eq!(
        (&headers["tidelog-header-tidelog-header-a"], &headers["tidelog-header-a"]),
        (&"b".parse().unwrap(), &"c".parse().unwrap())
    );
    assert_eq!((body.len(), headers["tidelog-tombstone"].to_str().unwrap()), (0, "true"));
    assert_eq!(
        (&headers["tidelog-push"], &headers["tidelog-header-webhook-id"]),
        (&"hook".parse().unwrap(), &"mine".parse().unwrap())
    );
    assert_eq!(
        headers["webhook-id"], "00000000000000000000000000000007-2-42",
        "a record cannot say that it is another"
    );
}

#[test]
fn a_record_that_is_an_event_stays_that_event() {
    let push = GroupName::new("hook").unwrap();
    let said = [("ce_specversion", "1.0"), ("ce_id", "A-1"), ("ce_type", "crm.changed"), ("ce_Bad", "x"), ("of", "y")];
    let event = item(41, Some(b"1"), &said);
    let (headers, _) = single(sender(&push), &event);
    assert_eq!((&headers["ce-id"], &headers["ce-type"]), (&"A-1".parse().unwrap(), &"crm.changed".parse().unwrap()));
    assert_eq!(headers["ce-source"], "/topics/crm.accounts/partitions/2");
    assert_eq!(headers["tidelog-header-of"], "y");
    let of = &events(&[event])[0];
    assert_eq!((&of["id"], &of["type"], &of["specversion"]), (&json!("A-1"), &json!("crm.changed"), &json!("1.0")));
    assert_eq!(of["tidelogid"], "00000000000000000000000000000007-2-41");
    assert_eq!((&of["tidelogtopic"], &of["tidelogpartition"]), (&json!("crm.accounts"), &json!("2")));
    // Without its version it is none.
    let of = &events(&[item(41, Some(b"1"), &[("ce_id", "A-1")])])[0];
    assert_eq!(of["id"], "00000000000000000000000000000007-2-41");
    assert_eq!(of["tidelogheaders"], r#"{"ce_id":"A-1"}"#);
}

#[test]
fn a_batch_has_documents_as_they_are_text_as_text_and_bytes_as_base64() {
    let all = [
        item(1, Some(br#"{"a": 1.10, "a":2}"#), &[("h", "1")]),
        item(2, Some(b"hello\n"), &[]),
        item(3, Some(b"\xff\x00"), &[]),
        item(4, None, &[]),
        item(5, Some(b"{}"), &[("content-type", "application/vnd.crm+json; charset=utf-8")]),
        item(6, Some(b"12"), &[("content-type", "text/csv")]),
        item(7, Some(b"a\x01b"), &[]),
    ];
    let of = events(&all);
    assert_eq!(of[0]["datacontenttype"], "application/json");
    assert_eq!(of[0]["tidelogheaders"], r#"{"h":"1"}"#);
    assert_eq!((&of[1]["data"], &of[1]["datacontenttype"]), (&json!("hello\n"), &json!("text/plain; charset=utf-8")));
    assert_eq!((&of[2]["data_base64"], of[2].get("data")), (&json!("/wA="), None));
    assert_eq!((of[3].get("data"), of[3].get("data_base64"), of[3].get("datacontenttype")), (None, None, None));
    assert_eq!(
        (&of[4]["data"], &of[4]["datacontenttype"]),
        (&json!({}), &json!("application/vnd.crm+json; charset=utf-8"))
    );
    assert_eq!((&of[5]["data"], &of[5]["datacontenttype"]), (&json!("12"), &json!("text/csv")));
    assert_eq!(of[6]["data_base64"], "YQFi");
    assert_eq!((&of[6]["tidelogoffset"], &of[6]["partitionkey"]), (&json!("7"), &json!("4711")));
    let push = GroupName::new("hook").unwrap();
    let sender = sender(&push);
    let (headers, body) = batch(sender, &all);
    assert!(String::from_utf8(body.to_vec()).unwrap().contains(r#""data":{"a": 1.10, "a":2}"#), "byte for byte");
    assert_eq!(batch(sender, &all).0["webhook-id"], headers["webhook-id"], "the same batch, the same id");
    assert_ne!(batch(sender, &all[1..]).0["webhook-id"], headers["webhook-id"]);
}

#[test]
fn a_record_that_fails_goes_with_fewer_others_each_time_and_alone_at_last() {
    let rules = |max_deliveries| QueueSettings { max_deliveries, ..QueueSettings::default() };
    let sizes = |most, max| (1..=max).map(|attempt| together(most, attempt, &rules(max))).collect::<Vec<_>>();
    assert_eq!(sizes(100, 10), [100, 50, 25, 12, 6, 3, 1, 1, 1, 1]);
    assert_eq!(sizes(100, 3), [100, 50, 1]);
    assert_eq!(sizes(100, 1), [100]);
    assert_eq!(sizes(1, 4), [1, 1, 1, 1]);
}

#[test]
fn waits_double_up_to_the_longest_and_are_never_all_alike() {
    let rules = QueueSettings { backoff_ms: 100, backoff_max_ms: 1_000, ..QueueSettings::default() };
    let waits = |jitter| (1..=6).map(|attempt| backoff(&rules, attempt, jitter).as_millis()).collect::<Vec<_>>();
    assert_eq!(waits(1.0), [100, 200, 400, 800, 1000, 1000]);
    assert_eq!(waits(0.0), [50, 100, 200, 400, 500, 500]);
    assert_eq!(backoff(&rules, u32::MAX, 1.0), Duration::from_secs(1));
}

#[test]
fn a_call_says_no_more_than_the_record_has_and_all_of_it() {
    let push = GroupName::new("hook").unwrap();
    let sender = sender(&push);
    // Without key and with a value, whatever its headers say.
    let mut bare =
        item(1, Some(b"x"), &[("Tidelog-Key", "k"), ("tidelog-tombstone", "true"), ("tidelog-key-base64", "eA==")]);
    bare.record.key = None;
    let (headers, _) = single(sender, &bare);
    for name in ["tidelog-key", "tidelog-key-base64", "tidelog-tombstone", "ce-partitionkey"] {
        assert!(!headers.contains_key(name), "{name}: {headers:?}");
    }
    assert_eq!(headers["tidelog-header-tidelog-tombstone"], "true");
    // A header that comes twice comes twice; those of the system keep their names.
    let twice = [("h", "1"), ("h", "2"), ("tidelog-correlation-id", "7")];
    let (headers, _) = single(sender, &item(1, Some(b"x"), &twice));
    let values: Vec<_> = headers.get_all("tidelog-header-h").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(headers["tidelog-correlation-id"], "7");
    assert_eq!(
        events(&[item(1, Some(b"x"), &twice)])[0]["tidelogheaders"],
        r#"{"h":["1","2"],"tidelog-correlation-id":"7"}"#
    );
    // Keys whole, attributes as CloudEvents writes them.
    let mut key =
        item(1, Some(b"x"), &[("ce_specversion", "1.0"), ("ce_id", "i"), ("ce_subject", "Z\u{fc}rich 100% \"ok\"")]);
    key.record.key = Some(Bytes::from_static("m\u{fc}ller".as_bytes()));
    let (headers, _) = single(sender, &key);
    assert_eq!(headers["ce-subject"], "Z%C3%BCrich%20100%25%20%22ok%22");
    assert_eq!(
        (&headers["ce-partitionkey"], &headers["tidelog-key-base64"]),
        (&"m%C3%BCller".parse().unwrap(), &"bcO8bGxlcg==".parse().unwrap())
    );
    assert!(!headers.contains_key("tidelog-key"));
    assert_eq!(crate::server::webhooks::attribute(b"Z%C3%BCrich%20100%25"), "Z\u{fc}rich 100%");
    assert_eq!(crate::server::webhooks::attribute(b"100%"), "100%");
}

#[test]
fn a_body_says_what_it_is() {
    let push = GroupName::new("hook").unwrap();
    let sender = sender(&push);
    for (value, kind) in [
        (&b"{\"a\": 1}"[..], "application/json"),
        (b"[1]", "application/json"),
        (b"hello", "text/plain; charset=utf-8"),
        (b"{half", "text/plain; charset=utf-8"),
        (b"\xff\xfe", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ] {
        let (headers, _) = single(sender, &item(1, Some(value), &[]));
        assert_eq!(headers["content-type"], kind, "{value:?}");
        let (headers, _) = single(sender, &item(1, Some(value), &[("content-type", "a/b")]));
        assert_eq!(headers["content-type"], "a/b");
    }
    let large = format!("{{\"a\": \"{}\"}}\n", "x".repeat(1 << 20)).into_bytes();
    assert_eq!(crate::server::webhooks::content_type(&large), "application/json");
}
