//! JSON straight into values of expressions, which borrow what they can from the text; and values into JSON.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cel::Value;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::Val;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::base::limits;

use super::EvalError;
use super::exact::{self, Exact};

/// A value that may borrow from the text that it was read from.
pub(super) type Node<'v> = Box<dyn Val + 'v>;

/// Parses a document. With it comes the number of elements of its longest list or object.
pub(super) fn parse(text: &[u8]) -> Result<(Node<'_>, usize), EvalError> {
    let widest = Cell::new(0);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let parsed = Seed { widest: &widest }.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    let value = match parsed {
        Ok(value) => value,
        Err(error) => {
            let Some(copy) = exact::readable(text) else { return Err(not_json(&error)) };
            widest.set(0);
            // A reader lends nothing out, so what is read owns its strings.
            let mut parser = serde_json::Deserializer::from_reader(&copy[..]);
            let parsed = Seed { widest: &widest }.deserialize(&mut parser);
            parsed.and_then(|value| parser.end().map(|()| value)).map_err(|error| not_json(&error))?
        }
    };
    Ok((value, widest.get()))
}

/// What is wrong with a text that is to be JSON. `serde_json` bounds the depth.
pub fn not_json(error: &serde_json::Error) -> EvalError {
    let text = error.to_string();
    if text.starts_with("recursion limit") {
        let limit = limits::DOCUMENT_DEPTH;
        return EvalError::new(format!("the value nests deeper than the limit of {limit} levels"));
    }
    EvalError::new(format!("the value is no JSON: {text}"))
}

#[derive(Clone, Copy)]
struct Seed<'w> {
    widest: &'w Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Box::new(CelString::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Box::new(CelString::from(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(self)? {
            list.push(element);
        }
        self.widest.set(self.widest.get().max(list.len()));
        Ok(Box::new(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut map = HashMap::new();
        while let Some(name) = entries.next_key_seed(Name)? {
            map.insert(name, entries.next_value_seed(self)?);
        }
        self.widest.set(self.widest.get().max(map.len()));
        Ok(Box::new(CelMap::from(map)))
    }
}

/// The name of an object's field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = CelMapKey<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CelMapKey<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = CelMapKey<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<CelMapKey<'de>, E> {
        Ok(CelMapKey::from(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<CelMapKey<'de>, E> {
        Ok(CelMapKey::String(CelString::from(name.to_owned())))
    }
}

/// A value as the text of JSON, the fields of objects in the order of their names: the same value always gives the same text.
/// Numbers and strings that were copied from a document are what stands there: `exact` is asked for it where it may matter.
pub(super) fn write<'e>(
    value: &Value,
    out: &mut Vec<u8>,
    exact: &mut dyn FnMut() -> &'e Exact,
) -> Result<(), EvalError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::UInt(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Float(value) => match (exact().literal(*value)?, serde_json::Number::from_f64(*value)) {
            (Some(literal), _) => out.extend_from_slice(literal.as_bytes()),
            (None, Some(number)) => out.extend_from_slice(number.to_string().as_bytes()),
            (None, None) => return Err(EvalError::new(format!("{value} cannot be written as JSON"))),
        },
        Value::String(text) => {
            if text.contains('\u{fffd}') {
                exact().check_text(text)?;
            }
            quoted(text, out);
        }
        Value::Bytes(bytes) => quoted(&STANDARD.encode(bytes.as_slice()), out),
        Value::Timestamp(time) => quoted(&time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true), out),
        Value::Duration(span) => quoted(&format!("{}s", span.num_milliseconds() as f64 / 1000.0), out),
        Value::List(list) => {
            out.push(b'[');
            for (at, element) in list.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(element, out, exact)?;
            }
            out.push(b']');
        }
        Value::Map(map) => {
            let sorted: BTreeMap<String, &Value> =
                map.map.iter().map(|(name, value)| (name.to_string(), value)).collect();
            out.push(b'{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                if name.contains('\u{fffd}') {
                    exact().check_text(&name)?;
                }
                quoted(&name, out);
                out.push(b':');
                write(value, out, exact)?;
            }
            out.push(b'}');
        }
        other => return Err(EvalError::new(format!("a {} cannot be written as JSON", other.type_of()))),
    }
    Ok(())
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    // A string can always be written, and to memory.
    let _ = serde_json::to_writer(out, text);
}
