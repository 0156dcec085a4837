//! Bodies as records.
//!
//! | content type, or `?format=` | what it holds |
//! |---|---|
//! | `application/vnd.tidelog.records+json`, `records` | `{"records": [..]}`, each as `consume --json` prints it |
//! | `application/x-ndjson`, `ndjson` | one such record a line |
//! | any other, `raw` | the value of one record |
//!
//! `?partition=`, `?key=` (or `Tidelog-Key`) and `Tidelog-Header-NAME` hold for every record that does not say it itself.
//!
//! The headers of a request become those of a record that is a whole body: `Tidelog-Header-NAME` is `name`; `ce-NAME` is
//! `ce_NAME`, which is how CloudEvents name their attributes in HTTP and in Kafka; `Content-Type` is `content-type`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::problem::Problem;
use super::query::Query;
use crate::base::{ErrorKind, limits};
use crate::record::Headers;
use crate::record::json::NewRecord;
use crate::server::webhooks::attribute;

/// The content type of a list of records.
pub const RECORDS: &str = "application/vnd.tidelog.records+json";
/// The content type of a record a line.
pub const NDJSON: &str = "application/x-ndjson";
/// What command-line tools say of a body when nobody has said anything.
const FORM: &str = "application/x-www-form-urlencoded";
/// The headers that name a record's headers.
pub const HEADER: &str = "tidelog-header-";
/// The header that names a record's key.
const KEY: &str = "tidelog-key";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Raw,
    Records,
    Lines,
}

/// The records of a body.
///
/// # Errors
/// The format is none, the body is not in it, or there are too many records or none.
pub fn read(headers: &HeaderMap, query: &Query, body: Bytes) -> Result<Vec<NewRecord>, Problem> {
    let usual = Usual::read(headers, query)?;
    let mut records = match format(headers, query)? {
        Format::Raw => {
            vec![NewRecord { value: Some(body), headers: headers_of(headers), ..NewRecord::default() }]
        }
        Format::Records => {
            let list: List = serde_json::from_slice(&body)
                .map_err(|error| Problem::wrong(format!("the body is not {{\"records\": [..]}}: {error}")))?;
            list.records
        }
        Format::Lines => lines(&body)?,
    };
    if records.is_empty() {
        return Err(Problem::wrong("there is no record in the body"));
    }
    if records.len() > limits::HTTP_RECORDS {
        let detail = format!("{} records in the body; the limit is {}", records.len(), limits::HTTP_RECORDS);
        return Err(Problem::new(ErrorKind::TooLarge, detail));
    }
    for record in &mut records {
        usual.fill(record);
    }
    Ok(records)
}

/// What the request says of all records of its body, whatever the body's format: it holds for each that says nothing itself. A
/// `null` in a record says nothing.
struct Usual {
    key: Option<Bytes>,
    partition: Option<u32>,
    headers: Headers,
}

impl Usual {
    fn read(headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
        let key = headers.get(KEY).map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let key = query.bytes("key").map(Bytes::copy_from_slice).or(key);
        let named = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix(HEADER).filter(|name| !name.is_empty())?;
            Some((name, Some(value.as_bytes())))
        });
        Ok(Self { key, partition: query.parse("partition")?, headers: named.collect() })
    }

    fn fill(&self, record: &mut NewRecord) {
        record.key = record.key.take().or_else(|| self.key.clone());
        record.partition = record.partition.or(self.partition);
        if !self.headers.is_empty() {
            let own = record.headers.clone();
            record.headers.extend(self.headers.iter().filter(|header| !own.contains(header.name)));
        }
    }
}

fn format(headers: &HeaderMap, query: &Query) -> Result<Format, Problem> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let detail = format!("a body with content-encoding {encoding:?} is not read here; send it as it is");
        return Err(Problem::wrong(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    match query.get("format") {
        Some("raw") => return Ok(Format::Raw),
        Some("records") => return Ok(Format::Records),
        Some("ndjson") => return Ok(Format::Lines),
        Some(other) => return Err(Problem::wrong(format!("format={other}: use raw, records or ndjson"))),
        None => {}
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(match kind.as_str() {
        RECORDS => Format::Records,
        NDJSON | "application/ndjson" | "application/jsonl" => Format::Lines,
        _ => Format::Raw,
    })
}

/// The headers of a request that are those of a record.
pub fn headers_of(headers: &HeaderMap) -> Headers {
    let mut found = Headers::new();
    for (name, value) in headers {
        let name = name.as_str();
        let named = match (name.strip_prefix(HEADER), name.strip_prefix("ce-")) {
            (Some(rest), _) if !rest.is_empty() => rest.to_owned(),
            (_, Some(rest)) if !rest.is_empty() => format!("ce_{rest}"),
            _ if name == "content-type" && !value.as_bytes().starts_with(FORM.as_bytes()) => name.to_owned(),
            _ => continue,
        };
        match named.starts_with("ce_") && name.starts_with("ce-") {
            // CloudEvents writes attributes percent-encoded in HTTP, and as they are in records.
            true => found.push(named, Some(&attribute(value.as_bytes()))),
            false => found.push(named, Some(value.as_bytes())),
        }
    }
    found
}

fn lines(body: &[u8]) -> Result<Vec<NewRecord>, Problem> {
    let mut records = Vec::new();
    for (at, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let record = serde_json::from_slice(line);
        records.push(record.map_err(|error| Problem::wrong(format!("line {}: {error}", at + 1)).with("line", at + 1))?);
        if records.len() > limits::HTTP_RECORDS {
            break;
        }
    }
    Ok(records)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(deserialize_with = "bounded")]
    records: Vec<NewRecord>,
}

/// A list that ends behind the limit, so that a body of empty records takes no memory that nobody has counted.
fn bounded<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<NewRecord>, D::Error> {
    struct Bounded;
    impl<'de> serde::de::Visitor<'de> for Bounded {
        type Value = Vec<NewRecord>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of records")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut records = Vec::new();
            while let Some(record) = list.next_element()? {
                if records.len() == limits::HTTP_RECORDS {
                    let message = format!("there are more than {} records, which is the limit", limits::HTTP_RECORDS);
                    return Err(serde::de::Error::custom(message));
                }
                records.push(record);
            }
            Ok(records)
        }
    }
    deserializer.deserialize_seq(Bounded)
}
