//! Parts of a JSON document by JSONPath (RFC 9535), byte for byte as they stand in it.
//!
//! A path of names and numbers, with `[*]` at its end if need be, is walked in the text itself and reads no further than it has
//! to. Any other path is evaluated by `serde_json_path` on a parsed document of at most [`GENERAL_BYTES`], and what it finds is
//! cut from the text by its place. Paths whose results could be many times the document are refused.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json_path::{JsonPath, PathElement};

use crate::base::limits;
use crate::expr::{not_json, readable};

/// Bytes of a document that a path beyond names and numbers may look into.
pub const GENERAL_BYTES: usize = 1024 * 1024;
/// Bytes of a path.
const PATH_BYTES: usize = 1000;

/// A compiled path.
#[derive(Debug)]
pub struct Cut {
    source: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Steps from the root, and whether all elements are meant of what is there.
    Plain(Vec<Step>, bool),
    General(Box<JsonPath>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Name(String),
    At(usize),
}

/// A path that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError {
    /// Bytes of the path before the fault.
    pub at: usize,
    /// What is wrong: a phrase that follows the path's name.
    pub message: String,
}

impl Cut {
    /// Compiles a path; one that may not find many must name a single place.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(source: &str, many: bool) -> Result<Self, PathError> {
        let wrong = |at, message: String| Err(PathError { at, message });
        if source.len() > PATH_BYTES {
            return wrong(0, format!("has {} bytes; the limit is {PATH_BYTES}", source.len()));
        }
        let path = match JsonPath::parse(source) {
            Ok(path) => path,
            Err(error) => return wrong(error.position(), format!("is no JSONPath: {}", error.message())),
        };
        if let Some((steps, all)) = plain(source) {
            if all && !many {
                return wrong(0, format!("'{source}' may find many; it must name one place"));
            }
            return Ok(Self { source: source.to_owned(), way: Way::Plain(steps, all) });
        }
        if let Some(message) = grows(source) {
            return wrong(0, message);
        }
        Ok(Self { source: source.to_owned(), way: Way::General(Box::new(path)) })
    }

    /// The path as text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it finds in the text of a document, in its order.
    ///
    /// # Errors
    /// One line: no JSON, or more than the limit of [`limits::ROUTE_PARTS`].
    pub fn find<'t>(&self, text: &'t [u8]) -> Result<Vec<&'t str>, String> {
        if text.len() > limits::DOCUMENT_BYTES {
            return Err(format!("the value has {} bytes; the limit is {}", text.len(), limits::DOCUMENT_BYTES));
        }
        let whole: &RawValue = serde_json::from_slice(text).map_err(|error| not_json(&error).message)?;
        match &self.way {
            Way::Plain(steps, all) => {
                let mut at = whole;
                for step in steps {
                    match child(at, step)? {
                        Some(found) => at = found,
                        None => return Ok(Vec::new()),
                    }
                }
                let found = if *all { children(at)?.into_values() } else { vec![at] };
                Ok(found.into_iter().map(RawValue::get).collect())
            }
            Way::General(path) => self.general(path, whole),
        }
    }

    fn general<'t>(&self, path: &JsonPath, whole: &'t RawValue) -> Result<Vec<&'t str>, String> {
        let length = whole.get().len();
        if length > GENERAL_BYTES {
            let source = &self.source;
            return Err(format!(
                "path '{source}' looks into documents of up to {GENERAL_BYTES} bytes, not of {length}"
            ));
        }
        let document = general_document(whole.get()).map_err(|error| not_json(&error).message)?;
        let nodes = path.query_located(&document);
        if nodes.len() > limits::ROUTE_PARTS {
            return Err(too_many(nodes.len().to_string()));
        }
        // What was opened on the way to one node is on the way to its neighbours too.
        let mut opened: HashMap<Vec<Step>, Children<'t>> = HashMap::new();
        let mut found = Vec::with_capacity(nodes.len());
        for node in nodes.iter() {
            let steps: Vec<Step> = node
                .location()
                .iter()
                .map(|element| match element {
                    PathElement::Name(name) => Step::Name((*name).to_owned()),
                    PathElement::Index(index) => Step::At(*index),
                })
                .collect();
            let mut at = whole;
            for (depth, step) in steps.iter().enumerate() {
                let inside = match opened.entry(steps[..depth].to_vec()) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(new) => new.insert(all_children(at)?),
                };
                let next = inside.get(step);
                at = next.ok_or_else(|| format!("path '{}' found what is not there", self.source))?;
            }
            found.push(at.get());
        }
        Ok(found)
    }
}

/// A document as the crate sees it. It only says where what is found stands: numbers and strings that it cannot hold are the
/// nearest ones.
fn general_document(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match readable(text.as_bytes()) {
        Some(copy) => serde_json::from_slice(&copy),
        None => Err(error),
    })
}

fn too_many(found: String) -> String {
    format!("the split makes {found} parts; the limit is {}", limits::ROUTE_PARTS)
}

/// The elements of a list or the fields of an object, as text; of fields of one name only the last.
enum Children<'t> {
    List(Vec<&'t RawValue>),
    Object(Vec<&'t RawValue>, HashMap<String, usize>),
    Scalar,
}

impl<'t> Children<'t> {
    fn get(&self, step: &Step) -> Option<&'t RawValue> {
        match (self, step) {
            (Self::List(list), Step::At(at)) => list.get(*at).copied(),
            (Self::Object(values, names), Step::Name(name)) => values.get(*names.get(name)?).copied(),
            _ => None,
        }
    }

    fn into_values(self) -> Vec<&'t RawValue> {
        match self {
            Self::List(values) | Self::Object(values, _) => values,
            Self::Scalar => Vec::new(),
        }
    }
}

fn read<'t, S: DeserializeSeed<'t>>(value: &'t RawValue, seed: S) -> Result<S::Value, String> {
    let mut parser = serde_json::Deserializer::from_str(value.get());
    seed.deserialize(&mut parser).map_err(|error| not_json(&error).message)
}

/// The children of which there may be as many as a split may make parts.
fn children(value: &RawValue) -> Result<Children<'_>, String> {
    match read(value, All { most: limits::ROUTE_PARTS }) {
        // The visitor's own words, without the place that the parser adds.
        Err(error) if error.contains(OVER) => Err(too_many(format!("more than {}", limits::ROUTE_PARTS))),
        other => other,
    }
}

fn all_children(value: &RawValue) -> Result<Children<'_>, String> {
    read(value, All { most: usize::MAX })
}

const OVER: &str = "more parts than allowed";

struct All {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for All {
    type Value = Children<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for All {
    type Value = Children<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() >= self.most {
                return Err(Error::custom(OVER));
            }
            list.push(element);
        }
        Ok(Children::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut names) = (Vec::new(), HashMap::new());
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value()?;
            match names.entry(name) {
                std::collections::hash_map::Entry::Occupied(known) => values[*known.get()] = value,
                std::collections::hash_map::Entry::Vacant(new) => {
                    if values.len() >= self.most {
                        return Err(Error::custom(OVER));
                    }
                    new.insert(values.len());
                    values.push(value);
                }
            }
        }
        Ok(Children::Object(values, names))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Children::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Children::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Children::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Children::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Children::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Children::Scalar)
    }
}

/// One child; nothing of the others is kept.
fn child<'t>(value: &'t RawValue, step: &Step) -> Result<Option<&'t RawValue>, String> {
    match value.get().as_bytes().first() {
        Some(b'{' | b'[') => read(value, One { step }),
        _ => Ok(None),
    }
}

struct One<'s> {
    step: &'s Step,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0;
        while let Some(element) = match self.step {
            Step::At(wanted) if *wanted == at => seq.next_element()?.map(Some),
            _ => seq.next_element::<IgnoredAny>()?.map(|_| None),
        } {
            found = element.or(found);
            at += 1;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.step {
                Step::Name(wanted) if *wanted == name => found = Some(entries.next_value()?),
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// The steps of a path of names and numbers, and whether `[*]` ends it; `None` for any other path. The path is valid.
fn plain(source: &str) -> Option<(Vec<Step>, bool)> {
    let mut rest = source.trim_matches(' ').strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if matches!(rest, "[*]" | ".*") {
            return Some((steps, true));
        }
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, next) = after.split_at(end);
            let word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            steps.push(Step::Name(word.then(|| name.to_owned())?));
            rest = next;
        } else {
            let (inside, next) = rest.strip_prefix('[')?.split_once(']')?;
            let quoted = ['\'', '"'].into_iter().find_map(|quote| inside.strip_prefix(quote)?.strip_suffix(quote));
            steps.push(match quoted {
                Some(name) if !name.contains(['\'', '"', '\\', '[', ',']) => Step::Name(name.to_owned()),
                Some(_) => return None,
                None => Step::At(inside.parse().ok()?),
            });
            rest = next;
        }
    }
    Some((steps, false))
}

/// Why what a path finds could be many times the document.
fn grows(source: &str) -> Option<String> {
    let mut bare = String::new();
    let mut quote = None;
    let mut escaped = false;
    for character in source.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if character == '\\' => escaped = true,
            Some(end) if character == end => quote = None,
            Some(_) => {}
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => bare.push(character),
        }
    }
    let count = |what: &str| bare.matches(what).count();
    if count("..") > 1 {
        return Some("has '..' more than once; allowed is one".to_owned());
    }
    if count("..") == 1 && count("?") > 0 && bare.find("..") > bare.find('?') {
        return Some("has '..' inside a filter, which is not allowed".to_owned());
    }
    if count("$") > 1 {
        return Some("has '$' inside a filter, which is not allowed".to_owned());
    }
    // Those between the arguments of a function choose nothing.
    let (mut depth, mut commas) = (0_usize, 0);
    for character in bare.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => commas += 1,
            _ => {}
        }
    }
    (commas > 1).then(|| "has more than one ','; allowed is one".to_owned())
}
