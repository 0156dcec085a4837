//! Topics by a regular expression.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::TopicName;

/// Characters of an expression.
const CHARS: usize = 1000;
/// Bytes that a compiled one may take, and again for what it remembers while it matches.
const BYTES: usize = 256 * 1024;
/// Smaller bounds that a compiled one is tried with, to know what it takes.
const SMALLER: [usize; 3] = [4 * 1024, 16 * 1024, 64 * 1024];
/// What an expression takes with what it remembers while it matches, as a multiple of its compiled form.
const TIMES: usize = 4;

/// A regular expression that stands for the topics whose whole name it matches: RE2's syntax, by bytes, in time linear in
/// the name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicRegex {
    text: Arc<str>,
    regex: Regex,
    weight: usize,
}

/// Why an expression is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicRegexError {
    /// It is too long.
    #[error("a regular expression of {length} characters; the limit is {CHARS}")]
    Long {
        /// Its length.
        length: usize,
    },
    /// It cannot be compiled, or takes too much.
    #[error("'{text}' is no regular expression: {what}")]
    Syntax {
        /// The expression.
        text: String,
        /// What is wrong.
        what: String,
    },
}

impl TopicRegex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, TopicRegexError> {
        let length = text.chars().count();
        if length > CHARS {
            return Err(TopicRegexError::Long { length });
        }
        let plain = unquoted(text);
        let build = |text: &str, size: usize| {
            RegexBuilder::new(text).unicode(false).size_limit(size).dfa_size_limit(BYTES).build().map_err(|error| {
                // The last line says it; the others show where.
                let what = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                TopicRegexError::Syntax { text: plain.clone(), what }
            })
        };
        // For itself first: what is put around it must not make an expression of something that is none.
        build(&plain, BYTES)?;
        let whole = format!(r"\A(?:{plain})\z");
        let small = SMALLER.into_iter().find_map(|size| Some((build(&whole, size).ok()?, size)));
        let (regex, size) = small.map_or_else(|| Ok((build(&whole, BYTES)?, BYTES)), Ok)?;
        Ok(Self { text: text.into(), regex, weight: size * TIMES })
    }

    /// Bytes that it takes in memory, at most, in round numbers: most expressions take 16 KiB.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for this topic.
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.regex.is_match(topic.as_str().as_bytes())
    }
}

/// RE2's quoting, which the crate does not know, written out.
fn unquoted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, quoted)) = rest.split_once(r"\Q") {
        let (quoted, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
        out.push_str(before);
        out.push_str(&regex::escape(quoted));
        rest = after;
    }
    out + rest
}

impl TryFrom<String> for TopicRegex {
    type Error = TopicRegexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<TopicRegex> for String {
    fn from(regex: TopicRegex) -> Self {
        regex.text.as_ref().to_owned()
    }
}

impl PartialEq for TopicRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TopicRegex {}

impl PartialOrd for TopicRegex {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TopicRegex {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for TopicRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
