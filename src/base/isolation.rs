//! What a reader sees of transactions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a reader sees of transactions. The words are Kafka's `isolation.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Isolation {
    /// What was committed, up to where the first open transaction begins.
    #[default]
    Committed,
    /// Everything, also of open and aborted transactions.
    Uncommitted,
}

impl Isolation {
    /// Both, in the order of their numbers on the wire.
    pub const ALL: [Self; 2] = [Self::Committed, Self::Uncommitted];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|isolation| isolation.as_str() == text);
        found.ok_or_else(|| "it is read_committed or read_uncommitted".to_owned())
    }
}
