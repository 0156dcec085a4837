//! A record as an expression sees it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cel::objects::{Key, Map};
use cel::{Context, Value};

use crate::base::{Offset, PartitionId};
use crate::record::Record;

use super::compile::Mentions;
use super::{EvalError, MAX_VALUE_BYTES, json};

/// One record and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Key, headers, value and timestamp.
    pub record: &'a Record,
}

impl Input<'_> {
    pub(super) fn bind(
        &self,
        context: &mut Context<'_, '_>,
        mentions: &Mentions,
        longest: usize,
    ) -> Result<(), EvalError> {
        let record = self.record;
        if mentions.key {
            context.add_variable_from_value("key", text(record.key.as_ref()));
        }
        if mentions.headers {
            let pairs = record.headers.iter().map(|header| {
                let name = String::from_utf8_lossy(&header.name).into_owned();
                (Key::String(Arc::new(name)), text(header.value.as_ref()))
            });
            let map = Map { map: Arc::new(pairs.collect::<HashMap<_, _>>()) };
            context.add_variable_from_value("headers", Value::Map(map));
        }
        if mentions.value {
            let value = match &record.value {
                None => Value::Null,
                Some(value) if value.len() > MAX_VALUE_BYTES => {
                    let length = value.len();
                    return Err(EvalError::new(format!(
                        "the value has {length} bytes; the limit is {MAX_VALUE_BYTES}"
                    )));
                }
                Some(value) => json::parse(value, longest)?,
            };
            context.add_variable_from_value("value", value);
        }
        if mentions.topic {
            context.add_variable_from_value("topic", Value::from(self.topic));
        }
        if mentions.partition {
            context.add_variable_from_value("partition", Value::Int(i64::from(self.partition)));
        }
        if mentions.offset {
            context.add_variable_from_value("offset", Value::Int(i64::try_from(self.offset).unwrap_or(i64::MAX)));
        }
        if mentions.timestamp {
            let time = chrono::DateTime::from_timestamp_millis(record.timestamp)
                .ok_or_else(|| EvalError::new(format!("timestamp {} ms is out of range", record.timestamp)))?;
            context.add_variable_from_value("timestamp", Value::Timestamp(time.fixed_offset()));
        }
        Ok(())
    }
}

fn text(bytes: Option<&Bytes>) -> Value {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => Value::Null,
        Some((Ok(text), _)) => Value::from(text),
        Some((Err(_), bytes)) => Value::from(bytes.to_vec()),
    }
}
