//! JSON straight into values of expressions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::EvalError;

/// Parses a document; no list or map of it may have more than `longest` elements. `serde_json` bounds the depth: 128.
pub(super) fn parse(text: &[u8], longest: usize) -> Result<Value, EvalError> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let not_json = |error: serde_json::Error| EvalError::new(format!("the value is no JSON for it: {error}"));
    let value = Node { longest }.deserialize(&mut parser).map_err(not_json)?;
    parser.end().map_err(not_json)?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Node {
    longest: usize,
}

impl Node {
    fn check<E: Error>(self, length: usize) -> Result<(), E> {
        if length < self.longest {
            return Ok(());
        }
        let limit = self.longest;
        Err(E::custom(format!("a list or object has more elements than the {limit} allowed for this expression")))
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(self)? {
            self.check(list.len())?;
            list.push(element);
        }
        Ok(Value::List(Arc::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.check(map.len())?;
            map.insert(Key::String(Arc::new(key)), entries.next_value_seed(self)?);
        }
        Ok(Value::Map(Map { map: Arc::new(map) }))
    }
}
