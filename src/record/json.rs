//! Records as JSON, written and read: the one place that says how bytes look in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Header, Headers};

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
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let all: Vec<Header<'_>> = self.iter().collect();
        // By name, each with its places in order, so that thousands of headers take no time that grows with their square.
        let mut places: Vec<usize> = (0..all.len()).collect();
        places.sort_by_key(|at| all[*at].name);
        let mut runs: Vec<&[usize]> = places.chunk_by(|one, other| all[*one].name == all[*other].name).collect();
        runs.sort_unstable_by_key(|run| run.first().copied());
        for run in runs {
            let Some(first) = run.first() else { continue };
            // A name is UTF-8 by the format; one of a foreign producer that is not is shown as well as it can be.
            let name = String::from_utf8_lossy(all[*first].name);
            match run {
                [one] => map.serialize_entry(&name, &all[*one].value.map(Text))?,
                many => {
                    let values: Vec<_> = many.iter().map(|at| all[*at].value.map(Text)).collect();
                    map.serialize_entry(&name, &values)?;
                }
            }
        }
        map.end()
    }
}

/// How a value is shown in a line.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Shown<'a> {
    /// As text, or as base64.
    Text(Text<'a>),
    /// As the JSON document that it is, in one line.
    Json(Box<RawValue>),
}

impl<'a> Shown<'a> {
    /// A value as it is asked for: a JSON document as one if `as_json`, everything else as text.
    pub fn of(value: &'a [u8], as_json: bool) -> Self {
        let document = || {
            let text = std::str::from_utf8(value).ok()?;
            // Line ends are blanks in a document, and never in its strings.
            RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
        };
        match as_json.then(document).flatten() {
            Some(document) => Self::Json(document),
            None => Self::Text(Text(value)),
        }
    }
}

/// A record that was read, one line of `consume --json`.
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
    pub headers: &'a Headers,
    /// Its value.
    pub value: Option<Shown<'a>>,
    /// Of a group's record, which delivery of it this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// A record that is to be written. `topic` and `offset` may be there, so that what was read can be written again; they say
/// nothing here.
#[derive(Debug, Default)]
pub struct NewRecord {
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Headers,
    /// The partition that it is to go to, if that is said.
    pub partition: Option<u32>,
    /// Milliseconds since the Unix epoch, if that is said.
    pub timestamp: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    /// Whether it is said at all, and what.
    #[serde(borrow, default, deserialize_with = "said")]
    value: Option<Option<&'a RawValue>>,
    #[serde(default)]
    headers: Named,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default, rename = "topic")]
    _topic: de::IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: de::IgnoredAny,
}

fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<&'de RawValue>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for NewRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let bytes = |name: &str, raw: Option<&RawValue>| match raw {
            None => Ok(None),
            Some(raw) => bytes_of(raw).map_err(|error| de::Error::custom(format!("{name}: {error}"))),
        };
        let key = bytes("key", fields.key)?;
        if key.is_none() && fields.value.is_none() {
            let what =
                "a record has a key, a value or both; one without a value and without a key says \"value\": null";
            return Err(de::Error::custom(what));
        }
        Ok(Self {
            key,
            value: bytes("value", fields.value.flatten())?,
            headers: fields.headers.0,
            partition: fields.partition,
            timestamp: fields.timestamp,
        })
    }
}

/// Text stands for itself, `{"base64": "..."}` for the bytes, null for nothing, and anything else for its JSON.
fn bytes_of(raw: &RawValue) -> Result<Option<Bytes>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Encoded {
        base64: String,
    }
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str::<String>(text).map(|text| Some(text.into())).map_err(|e| e.to_string()),
        Some(b'{') => match serde_json::from_str::<Encoded>(text) {
            Ok(Encoded { base64 }) => {
                let bytes = STANDARD.decode(base64).map_err(|error| format!("base64: {error}"))?;
                Ok(Some(bytes.into()))
            }
            Err(_) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        },
        _ => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
    }
}

/// Headers as [`Headers`] writes them.
#[derive(Default)]
struct Named(Headers);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Named;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of header names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut headers = Headers::new();
                while let Some(name) = map.next_key::<String>()? {
                    let raw = map.next_value::<&RawValue>()?;
                    let fail = |error: String| de::Error::custom(format!("header {name}: {error}"));
                    let values: Vec<&RawValue> = match raw.get().as_bytes().first() {
                        Some(b'[') => serde_json::from_str(raw.get()).map_err(|error| fail(error.to_string()))?,
                        _ => vec![raw],
                    };
                    for value in values {
                        headers.push(&name, bytes_of(value).map_err(fail)?.as_deref());
                    }
                }
                Ok(Named(headers))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
