//! Records as JSON: the one place that says how bytes look in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// Bytes as a string where they are UTF-8, as `{"base64": "..."}` where not.
pub struct Text<'a>(pub &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

/// Headers as an object in their order; a name that comes more than once has an array of its values.
pub struct Headers<'a>(pub &'a [(String, Option<Bytes>)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, (name, value)) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|(earlier, _)| earlier == name) {
                continue;
            }
            let more: Vec<_> = self.0[at + 1..].iter().filter(|(later, _)| later == name).collect();
            if more.is_empty() {
                map.serialize_entry(name, &value.as_deref().map(Text))?;
            } else {
                let values = std::iter::once(value).chain(more.into_iter().map(|(_, value)| value));
                map.serialize_entry(name, &values.map(|value| value.as_deref().map(Text)).collect::<Vec<_>>())?;
            }
        }
        map.end()
    }
}

/// A consumed record, one line of `consume --json`.
#[derive(Serialize)]
pub struct RecordLine<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Text<'a>>,
    /// Its headers.
    pub headers: Headers<'a>,
    /// Its value.
    pub value: Option<Text<'a>>,
}

/// An acknowledged record, one line of `produce --json`.
#[derive(Serialize)]
pub struct ReceiptLine<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset; null with `--ack none`, where nobody tells.
    pub offset: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}
