//! Records as JSON: the one place that says how bytes look in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tidelog::record::Header;

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
pub struct Headers<'a>(pub &'a [Header]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, header) in self.0.iter().enumerate() {
            let same = |other: &&Header| other.name == header.name;
            if self.0[..at].iter().any(|earlier| same(&earlier)) {
                continue;
            }
            // A name is UTF-8 by the format; one of a foreign producer that is not is shown as well as it can be.
            let name = String::from_utf8_lossy(&header.name);
            let values: Vec<_> = self.0[at..].iter().filter(same).map(|one| one.value.as_deref().map(Text)).collect();
            match values.as_slice() {
                [value] => map.serialize_entry(&name, value)?,
                values => map.serialize_entry(&name, values)?,
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
    /// Of a group's record, which delivery of it this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
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
