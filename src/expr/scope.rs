//! A record as expressions see it, with what several expressions need made once.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use cel::common::types::{CelBytes, CelMap, CelMapKey, CelNull, CelString};
use cel::{Context, Value};

use crate::base::{Offset, PartitionId, limits};
use crate::record::Record;

use super::compile::Mentions;
use super::cost::{self, Extent};
use super::direct::{Answer, Facts, Found, Test};
use super::document::Document;
use super::exact::Exact;
use super::json::{self, Node};
use super::{ENV, EvalError, Expression};

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

/// A scalar that an expression gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Anything else.
    Other,
}

/// A record, and a part of it if it was split: evaluates expressions on them. What no expression mentions is never made;
/// the value is parsed once for all of them, or twice if some are of a usual shape and others need the interpreter.
pub struct Scope<'v> {
    input: Input<'v>,
    /// What the interpreter sees; made for the first expression that needs it.
    context: Option<Context<'v, 'v>>,
    bound: Mentions,
    /// What expressions of the usual shapes look into. `None` within: it cannot be had, the interpreter says why.
    value_document: Option<Option<Document<'v>>>,
    part_document: Option<Option<Document<'v>>>,
    parsed: u64,
    /// Elements of the longest list or map of the value, or why there is none.
    value: Option<Result<usize, EvalError>>,
    part: Option<&'v [u8]>,
    part_elements: Option<Result<usize, EvalError>>,
    /// What of the value is not what expressions see.
    exact: OnceCell<Exact>,
}

impl<'v> Scope<'v> {
    /// A record as a whole.
    pub fn new(input: Input<'v>) -> Self {
        Self {
            input,
            context: None,
            bound: Mentions::default(),
            value_document: None,
            part_document: None,
            parsed: 0,
            value: None,
            part: None,
            part_elements: None,
            exact: OnceCell::new(),
        }
    }

    /// How often a value or a part of one was parsed for what was asked so far.
    pub fn parsed(&self) -> u64 {
        self.parsed
    }

    /// From here on expressions see this text, which is JSON, as `part`.
    pub fn set_part(&mut self, part: &'v [u8]) {
        (self.part, self.part_elements, self.part_document) = (Some(part), None, None);
    }

    /// Whether a condition holds.
    ///
    /// # Errors
    /// It cannot be said: no such field, not JSON, no boolean, over a limit.
    pub fn says(&mut self, condition: &Expression) -> Result<bool, EvalError> {
        if let Some((test, facts)) = self.direct(condition) {
            match test.ask(&facts) {
                Answer::Yes => return Ok(true),
                Answer::No => return Ok(false),
                Answer::Missing(name) => return Err(missing(name)),
                Answer::Unknown => {}
            }
        }
        match self.evaluate(condition)? {
            Value::Bool(says) => Ok(says),
            other => Err(EvalError::new(format!("it is a {} and no boolean", other.type_of()))),
        }
    }

    /// The text that an expression gives: a string, bytes, a number or a boolean as text; `None` for null.
    ///
    /// # Errors
    /// It cannot be said, or is anything else.
    pub fn text(&mut self, expression: &Expression) -> Result<Option<Vec<u8>>, EvalError> {
        if let Some((operand, facts)) = self.direct(expression).and_then(|(test, facts)| Some((test.operand()?, facts)))
        {
            match operand.find(&facts) {
                Found::Null => return Ok(None),
                Found::Text(text) if !text.contains('\u{fffd}') => return Ok(Some(text.as_bytes().to_vec())),
                Found::Int(number) => return Ok(Some(number.to_string().into_bytes())),
                Found::Missing(name) => return Err(missing(name)),
                Found::Text(_) | Found::Bool(_) | Found::UInt(_) | Found::Double(_) | Found::Unknown => {}
            }
        }
        Ok(Some(match self.evaluate(expression)? {
            Value::Null => return Ok(None),
            Value::String(text) => {
                if text.contains('\u{fffd}') {
                    self.exact().check_text(&text)?;
                }
                Arc::unwrap_or_clone(text).into_bytes()
            }
            Value::Bytes(bytes) => Arc::unwrap_or_clone(bytes),
            Value::Int(number) => number.to_string().into_bytes(),
            Value::UInt(number) => number.to_string().into_bytes(),
            Value::Float(number) => match self.exact().literal(number)? {
                Some(literal) => literal.as_bytes().to_vec(),
                None => number.to_string().into_bytes(),
            },
            Value::Bool(value) => value.to_string().into_bytes(),
            other => return Err(EvalError::new(format!("it is a {} and no text", other.type_of()))),
        }))
    }

    /// The JSON text of what an expression gives, at most [`limits::DOCUMENT_BYTES`].
    ///
    /// # Errors
    /// It cannot be said, or has no form in JSON.
    pub fn document(&mut self, expression: &Expression) -> Result<Vec<u8>, EvalError> {
        let value = self.evaluate(expression)?;
        let mut text = Vec::new();
        json::write(&value, &mut text, &mut || self.exact())?;
        check_length("the document made", text.len())?;
        Ok(text)
    }

    fn exact(&self) -> &Exact {
        // A part is of the value.
        self.exact.get_or_init(|| Exact::of(self.input.record.value.as_deref().unwrap_or_default()))
    }

    /// The scalar that an expression gives.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn scalar(&mut self, expression: &Expression) -> Result<Scalar, EvalError> {
        if let Some((operand, facts)) = self.direct(expression).and_then(|(test, facts)| Some((test.operand()?, facts)))
        {
            match operand.find(&facts) {
                Found::Text(text) => return Ok(Scalar::Text(text.to_owned())),
                Found::Int(number) => return Ok(Scalar::Int(number)),
                Found::Null | Found::Bool(_) | Found::UInt(_) | Found::Double(_) => return Ok(Scalar::Other),
                Found::Missing(name) => return Err(missing(name)),
                Found::Unknown => {}
            }
        }
        Ok(match self.evaluate(expression)? {
            Value::String(text) => Scalar::Text(Arc::unwrap_or_clone(text)),
            Value::Int(number) => Scalar::Int(number),
            _ => Scalar::Other,
        })
    }

    /// The expression as a test, and what that looks at; `None` where it is the interpreter's.
    fn direct<'e>(&mut self, expression: &'e Expression) -> Option<(&'e Test, Facts<'_, 'v>)> {
        let test = expression.direct.as_ref()?;
        let mentions = &expression.mentions;
        if self.bytes(mentions) > expression.always_within {
            return None;
        }
        let parsed = &mut self.parsed;
        let mut parse = |text: &'v [u8]| {
            *parsed += 1;
            Document::parse(text)
        };
        if mentions.value {
            // The interpreter is given the value whether or not it comes to need it: one that cannot be had is its to report.
            let document = self.value_document.get_or_insert_with(|| match &self.input.record.value {
                None => Some(Document::null()),
                Some(value) if value.len() > limits::DOCUMENT_BYTES => None,
                Some(value) => parse(value),
            });
            document.as_ref()?;
        }
        if mentions.part {
            let part = self.part?;
            self.part_document.get_or_insert_with(|| parse(part)).as_ref()?;
        }
        let facts = Facts {
            input: self.input,
            value: self.value_document.as_ref().and_then(Option::as_ref),
            part: self.part_document.as_ref().and_then(Option::as_ref),
        };
        Some((test, facts))
    }

    fn evaluate(&mut self, expression: &Expression) -> Result<Value, EvalError> {
        self.bind(&expression.mentions)?;
        self.check(expression)?;
        let context = self.context.get_or_insert_with(|| Context::with_env(Arc::clone(&ENV)));
        let run = AssertUnwindSafe(|| expression.program.execute(context));
        // The interpreter is not ours: a fault of its own is a failed evaluation, not the end of a connection.
        let outcome = catch_unwind(run).map_err(|_| EvalError::new("the evaluation failed for no stated reason"))?;
        outcome.map_err(|error| EvalError::new(error.to_string()))
    }

    /// Bytes of what is mentioned.
    fn bytes(&self, mentions: &Mentions) -> usize {
        let record = self.input.record;
        let length = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        // Room for topic, numbers and time.
        let mut bytes = 300;
        if mentions.key {
            bytes += length(&record.key);
        }
        if mentions.headers {
            bytes += record.headers.weight();
        }
        if mentions.value {
            bytes += length(&record.value);
        }
        if mentions.part {
            bytes += self.part.map_or(0, <[u8]>::len);
        }
        bytes
    }

    /// Whether the expression is sure to end soon on what it sees here.
    fn check(&self, expression: &Expression) -> Result<(), EvalError> {
        let Mentions { headers, value, part, .. } = expression.mentions;
        let bytes = self.bytes(&expression.mentions);
        if bytes <= expression.always_within {
            return Ok(());
        }
        let mut elements = 0;
        if headers {
            elements = self.input.record.headers.len();
        }
        if value {
            elements = elements.max(self.value.as_ref().map_or(0, |found| *found.as_ref().unwrap_or(&0)));
        }
        if part {
            elements = elements.max(self.part_elements.as_ref().map_or(0, |found| *found.as_ref().unwrap_or(&0)));
        }
        let seen = Extent { bytes: bytes as f64, elements: elements as f64 };
        let steps = cost::steps(expression.program.expression(), seen);
        if steps <= limits::EXPRESSION_STEPS as f64 {
            return Ok(());
        }
        Err(EvalError::new(format!(
            "the expression may take {steps:.0} steps on {bytes} bytes with lists of up to {elements} elements; the limit \
             is {} steps",
            limits::EXPRESSION_STEPS
        )))
    }

    fn bind(&mut self, wanted: &Mentions) -> Result<(), EvalError> {
        let record = self.input.record;
        let context = self.context.get_or_insert_with(|| Context::with_env(Arc::clone(&ENV)));
        let parsed = &mut self.parsed;
        let mut add = |name: &str, node: Node<'v>| context.add_variable_as_val(name, node);
        if wanted.key && !self.bound.key {
            add("key", text(record.key.as_deref()));
            self.bound.key = true;
        }
        if wanted.headers && !self.bound.headers {
            let pairs = record.headers.iter().map(|header| {
                let name = String::from_utf8_lossy(header.name).into_owned();
                (CelMapKey::String(CelString::from(name)), text(header.value))
            });
            add("headers", Box::new(CelMap::from(pairs.collect::<HashMap<_, _>>())));
            self.bound.headers = true;
        }
        if wanted.value {
            let found = self.value.get_or_insert_with(|| match &record.value {
                None => {
                    add("value", Box::new(CelNull));
                    Ok(0)
                }
                Some(value) => {
                    check_length("the value", value.len())?;
                    *parsed += 1;
                    let (node, elements) = json::parse(value)?;
                    add("value", node);
                    Ok(elements)
                }
            });
            found.clone()?;
        }
        if wanted.part {
            let part = self.part.ok_or_else(|| EvalError::new("there is no 'part' where nothing is split"))?;
            let found = self.part_elements.get_or_insert_with(|| {
                *parsed += 1;
                let (node, elements) = json::parse(part)?;
                add("part", node);
                Ok(elements)
            });
            found.clone()?;
        }
        if wanted.topic && !self.bound.topic {
            add("topic", Box::new(CelString::from(self.input.topic)));
            self.bound.topic = true;
        }
        if wanted.partition && !self.bound.partition {
            context.add_variable_from_value("partition", Value::Int(i64::from(self.input.partition)));
            self.bound.partition = true;
        }
        if wanted.offset && !self.bound.offset {
            let offset = i64::try_from(self.input.offset).unwrap_or(i64::MAX);
            context.add_variable_from_value("offset", Value::Int(offset));
            self.bound.offset = true;
        }
        if wanted.timestamp && !self.bound.timestamp {
            let time = chrono::DateTime::from_timestamp_millis(record.timestamp)
                .ok_or_else(|| EvalError::new(format!("timestamp {} ms is out of range", record.timestamp)))?;
            context.add_variable_from_value("timestamp", Value::Timestamp(time.fixed_offset()));
            self.bound.timestamp = true;
        }
        Ok(())
    }
}

/// As the interpreter says it.
fn missing(name: &str) -> EvalError {
    EvalError::new(cel::ExecutionError::no_such_key(name).to_string())
}

fn check_length(what: &str, length: usize) -> Result<(), EvalError> {
    if length <= limits::DOCUMENT_BYTES {
        return Ok(());
    }
    Err(EvalError::new(format!("{what} has {length} bytes; the limit is {}", limits::DOCUMENT_BYTES)))
}

fn text<'v>(bytes: Option<&'v [u8]>) -> Node<'v> {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => Box::new(CelNull),
        Some((Ok(text), _)) => Box::new(CelString::from(text)),
        Some((Err(_), bytes)) => Box::new(CelBytes::from(bytes.to_vec())),
    }
}
