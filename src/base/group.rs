//! Names of groups.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits;

/// A valid group name: 1 to 249 characters, none of them a control character (Kafka lets a group have any name; what it
/// is shown on must stay one line).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(Arc<str>);

/// Why a group's name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupNameError {
    /// No character at all.
    #[error("a group name is empty")]
    Empty,
    /// Longer than the limit.
    #[error("group name is {len} characters long; the limit is {limit}")]
    TooLong {
        /// Characters it has.
        len: usize,
        /// Characters it may have.
        limit: usize,
    },
    /// A control character.
    #[error("group name {name:?} has the control character {character:?}")]
    Character {
        /// The name.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
}

impl GroupName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`GroupNameError`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self, GroupNameError> {
        if name.is_empty() {
            return Err(GroupNameError::Empty);
        }
        let len = name.chars().count();
        if len > limits::GROUP_NAME_CHARS {
            return Err(GroupNameError::TooLong { len, limit: limits::GROUP_NAME_CHARS });
        }
        if let Some(character) = name.chars().find(|c| c.is_control()) {
            return Err(GroupNameError::Character { name: name.to_owned(), character });
        }
        Ok(Self(name.into()))
    }

    /// Whether it is the server's own, by its first letters: not shown in lists, and not to be joined.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with("tidelog.")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for GroupName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;
    fn try_from(name: String) -> Result<Self, GroupNameError> {
        Self::new(&name)
    }
}

impl std::str::FromStr for GroupName {
    type Err = GroupNameError;
    fn from_str(name: &str) -> Result<Self, GroupNameError> {
        Self::new(name)
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
