//! Topic names with wildcards.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{NameError, TopicName};

/// A topic name, or one with wildcards: `*` stands for any one level (`crm.*.accounts`), `>` at the end for one level or
/// more (`crm.>`). NATS's rule.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(Arc<str>);

impl TopicPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// What makes it no name, wildcards taken for names of levels.
    pub fn new(pattern: &str) -> Result<Self, NameError> {
        let levels: Vec<&str> = pattern.split('.').collect();
        let last = levels.len() - 1;
        let plain = levels.iter().enumerate().map(|(at, level)| match *level {
            "*" => "x",
            ">" if at == last => "x",
            level => level,
        });
        TopicName::new(&plain.collect::<Vec<_>>().join("."))?;
        Ok(Self(pattern.into()))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one topic that it names, if it has no wildcard.
    pub fn exact(&self) -> Option<TopicName> {
        let wild = self.0.split('.').any(|level| matches!(level, "*" | ">"));
        if wild { None } else { TopicName::new(&self.0).ok() }
    }

    /// Whether it stands for this topic too.
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut levels = topic.levels();
        for wanted in self.0.split('.') {
            match (wanted, levels.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl TryFrom<String> for TopicPattern {
    type Error = NameError;
    fn try_from(pattern: String) -> Result<Self, NameError> {
        Self::new(&pattern)
    }
}

impl std::str::FromStr for TopicPattern {
    type Err = NameError;
    fn from_str(pattern: &str) -> Result<Self, NameError> {
        Self::new(pattern)
    }
}

impl From<TopicPattern> for String {
    fn from(pattern: TopicPattern) -> String {
        pattern.0.as_ref().to_owned()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
