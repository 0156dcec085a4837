//! Names and numbers that identify things, valid by construction.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits;

/// A record's number in its partition, from 0, without gaps on append. At most `i64::MAX` (the format's field is signed).
pub type Offset = u64;

/// A partition's number in its topic, from 0.
pub type PartitionId = u32;

/// Identifies an idempotent producer; −1 in a batch header stands for none. Handed out by the server.
pub type ProducerId = i64;

/// The incarnation of a producer id; the higher one fences the lower.
pub type ProducerEpoch = i16;

/// One incarnation of a topic: random, so that a topic recreated under its old name shares nothing with the old one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicId(pub u128);

impl TopicId {
    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }

    /// Reads the 32 hexadecimal digits that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A valid topic name: 1 to 249 characters of `a-z A-Z 0-9 . _ -`, in levels separated by dots, no level empty
/// (Kafka's rule, and levels because wildcards and routes address them).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("a topic name is empty")]
    Empty,
    /// Longer than the limit.
    #[error("topic name is {len} characters long; the limit is {limit}")]
    TooLong {
        /// Characters it has.
        len: usize,
        /// Characters it may have.
        limit: usize,
    },
    /// A character outside the set.
    #[error(
        "topic name '{}' has the character {character:?}; allowed are letters, digits, '.', '_' and '-'",
        name.escape_debug()
    )]
    Character {
        /// The name.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// Two dots in a row, or one at an end.
    #[error("topic name '{}' has an empty level; levels are separated by single dots", name.escape_debug())]
    EmptyLevel {
        /// The name.
        name: String,
    },
}

impl TopicName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.chars().count() > limits::TOPIC_NAME_CHARS {
            return Err(NameError::TooLong { len: name.chars().count(), limit: limits::TOPIC_NAME_CHARS });
        }
        if let Some(character) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            return Err(NameError::Character { name: name.to_owned(), character });
        }
        if name.split('.').any(str::is_empty) {
            return Err(NameError::EmptyLevel { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels between the dots, at least one.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl TryFrom<String> for TopicName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl std::str::FromStr for TopicName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
