//! A JSON document laid out flat, in one allocation: for those who only look up a few fields of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::exact;

/// A part of a document. Behind a list lie its elements, behind a map its names and values in turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item<'v> {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above the largest signed one.
    UInt(u64),
    /// Another number.
    Double(f64),
    /// A string, or a name in a map.
    Text(Cow<'v, str>),
    /// A list, with the place behind its last element.
    List(usize),
    /// A map, with the place behind its last value.
    Map(usize),
}

/// A document. Places in it are numbers of items; it begins at 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document<'v> {
    items: Vec<Item<'v>>,
}

impl<'v> Document<'v> {
    /// `null`, as which a record without a value is seen.
    pub(super) fn null() -> Self {
        Self { items: vec![Item::Null] }
    }

    /// Reads exactly what [`super::json::parse`] reads: strings and numbers that nobody asks for are checked as well.
    pub(super) fn parse(text: &'v [u8]) -> Option<Self> {
        let mut items = Vec::with_capacity(text.len() / 12 + 4);
        let mut parser = serde_json::Deserializer::from_slice(text);
        let parsed = Lay { items: &mut items }.deserialize(&mut parser).and_then(|()| parser.end());
        if parsed.is_err() {
            let copy = exact::readable(text)?;
            items.clear();
            // A reader lends nothing out, so what is read owns its strings.
            let mut parser = serde_json::Deserializer::from_reader(&copy[..]);
            Lay { items: &mut items }.deserialize(&mut parser).ok()?;
            parser.end().ok()?;
        }
        Some(Self { items })
    }

    /// What lies at a place.
    pub(super) fn item(&self, at: usize) -> Option<&Item<'v>> {
        self.items.get(at)
    }

    fn behind(&self, at: usize) -> usize {
        match self.items.get(at) {
            Some(Item::List(end) | Item::Map(end)) => *end,
            _ => at + 1,
        }
    }

    /// The place of a map's field; of those with the same name, the last.
    pub(super) fn field(&self, map: usize, name: &str) -> Option<usize> {
        let end = self.behind(map);
        let (mut at, mut found) = (map + 1, None);
        while at < end {
            if matches!(self.items.get(at), Some(Item::Text(text)) if text == name) {
                found = Some(at + 1);
            }
            at = self.behind(at + 1);
        }
        found
    }

    /// The place of a list's element.
    pub(super) fn element(&self, list: usize, index: usize) -> Option<usize> {
        let end = self.behind(list);
        let mut at = list + 1;
        for _ in 0..index {
            if at >= end {
                return None;
            }
            at = self.behind(at);
        }
        (at < end).then_some(at)
    }
}

/// Appends what it reads.
struct Lay<'a, 'v> {
    items: &'a mut Vec<Item<'v>>,
}

impl<'de> DeserializeSeed<'de> for Lay<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Lay<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.items.push(Item::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.items.push(Item::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.items.push(i64::try_from(value).map_or(Item::UInt(value), Item::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.items.push(Item::Double(value));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        self.items.push(Item::Text(Cow::Borrowed(value)));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.items.push(Item::Text(Cow::Owned(value.to_owned())));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.items.push(Item::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let at = self.items.len();
        self.items.push(Item::List(0));
        while seq.next_element_seed(Lay { items: &mut *self.items })?.is_some() {}
        self.items[at] = Item::List(self.items.len());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let at = self.items.len();
        self.items.push(Item::Map(0));
        while entries.next_key_seed(Name { items: &mut *self.items })?.is_some() {
            entries.next_value_seed(Lay { items: &mut *self.items })?;
        }
        self.items[at] = Item::Map(self.items.len());
        Ok(())
    }
}

/// Appends the name of a map's field.
struct Name<'a, 'v> {
    items: &'a mut Vec<Item<'v>>,
}

impl<'de> DeserializeSeed<'de> for Name<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<(), E> {
        self.items.push(Item::Text(Cow::Borrowed(name)));
        Ok(())
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        self.items.push(Item::Text(Cow::Owned(name.to_owned())));
        Ok(())
    }
}
