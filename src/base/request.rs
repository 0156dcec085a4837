//! Correlation ids of requests.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits;

/// The correlation id of a durable request: 1 to 128 characters of `a-z A-Z 0-9 . _ -`. Who asks chooses it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(Arc<str>);

/// Why an id is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestIdError {
    /// No character, or too many.
    #[error("a request id of {len} characters; it has 1 to {limit}")]
    Length {
        /// Characters it has.
        len: usize,
        /// Characters it may have.
        limit: usize,
    },
    /// A character outside the set.
    #[error("request id {id:?} has the character {character:?}; allowed are letters, digits, '.', '_' and '-'")]
    Character {
        /// The id.
        id: String,
        /// The first character that is not allowed.
        character: char,
    },
}

impl RequestId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`RequestIdError`] says which rule it breaks.
    pub fn new(id: &str) -> Result<Self, RequestIdError> {
        let len = id.chars().count();
        if len == 0 || len > limits::REQUEST_ID_CHARS {
            return Err(RequestIdError::Length { len, limit: limits::REQUEST_ID_CHARS });
        }
        if let Some(character) = id.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            return Err(RequestIdError::Character { id: id.to_owned(), character });
        }
        Ok(Self(id.into()))
    }

    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;
    fn try_from(id: String) -> Result<Self, RequestIdError> {
        Self::new(&id)
    }
}

impl std::str::FromStr for RequestId {
    type Err = RequestIdError;
    fn from_str(id: &str) -> Result<Self, RequestIdError> {
        Self::new(id)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
