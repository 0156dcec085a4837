//! What a route is to do, as it was declared.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{Millis, TopicName, TopicPattern, limits};

/// A route, as a file of routes declares it. Expressions are CEL, parts of documents JSONPath; both are checked when a file
/// is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Its name: what a level of a topic's name may be, or several.
    pub name: TopicName,
    /// Topics that it reads.
    pub from: Vec<TopicPattern>,
    /// Where it begins in topics that are there when it is new.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: Start,
    /// Which of the conditions that hold count.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matching: Matching,
    /// The parts of the value that become records of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What to put together before it is routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<AggregateSpec>,
    /// The key of what goes on; the record's own if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A copy of every record that is read goes here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TopicName>,
    /// Where a record goes that cannot be routed; `dead-letter.NAME` if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<TopicName>,
    /// Whether topics that are not there are made.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub create_topics: bool,
    /// How many topics computed destinations may make.
    #[serde(default = "topics", skip_serializing_if = "is_usual")]
    pub max_topics: usize,
    /// Headers of what goes on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Where records go, in the order in which conditions are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<DestinationSpec>,
    /// Where goes what no condition wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<DestinationSpec>,
}

/// Where records go, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationSpec {
    /// What it is called in explanations and dead letters.
    pub name: String,
    /// The condition; always if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The topic.
    pub topic: Target,
    /// Only this part of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<String>,
    /// A document made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Its key, instead of the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Headers beside those of the route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// How parts are put back together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateSpec {
    /// How long to wait for the parts that are missing.
    pub timeout: Millis,
}

/// Where a route begins in topics that are there already. In those that are created later it begins at their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With what they hold.
    Beginning,
    /// With what comes next.
    #[default]
    End,
}

/// Which of the conditions that hold count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matching {
    /// The first.
    #[default]
    First,
    /// All of them.
    All,
}

/// A destination's topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// This one.
    Fixed(TopicName),
    /// What the expression says.
    Computed(String),
}

impl Target {
    /// The words that a name may not begin with, because it could be meant as an expression.
    const VARIABLES: [&'static str; 3] = ["headers", "value", "part"];

    /// Reads a topic's name, or else an expression.
    ///
    /// # Errors
    /// It could be either.
    pub fn new(text: &str) -> Result<Self, String> {
        let Ok(name) = TopicName::new(text) else { return Ok(Self::Computed(text.to_owned())) };
        if name.levels().next().is_some_and(|first| Self::VARIABLES.contains(&first)) {
            let message =
                format!("topic '{name}' could be a name or an expression; for the expression write 'string({name})'");
            return Err(message);
        }
        Ok(Self::Fixed(name))
    }
}

impl TryFrom<String> for Target {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(name) => write!(f, "{name}"),
            Self::Computed(expression) => f.write_str(expression),
        }
    }
}

impl RouteSpec {
    /// Where its dead letters go.
    pub fn dead_letters(&self) -> TopicName {
        // The name was checked to leave room for it.
        let usual = || TopicName::new(&format!("dead-letter.{}", self.name)).unwrap_or_else(|_| self.name.clone());
        self.dead_letter.clone().unwrap_or_else(usual)
    }

    /// All destinations, `otherwise` the last.
    pub fn destinations(&self) -> impl Iterator<Item = &DestinationSpec> {
        self.to.iter().chain(&self.otherwise)
    }

    /// Topics that it writes to whatever the records say: destinations, tap and dead letters.
    pub fn writes(&self) -> Vec<TopicName> {
        let fixed = self.destinations().filter_map(|destination| match &destination.topic {
            Target::Fixed(topic) => Some(topic.clone()),
            Target::Computed(_) => None,
        });
        let mut topics: Vec<_> = fixed.chain(self.tap.clone()).chain([self.dead_letters()]).collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// Whether it depends on the records to which topics they go.
    pub fn computes_topics(&self) -> bool {
        self.destinations().any(|destination| matches!(destination.topic, Target::Computed(_)))
    }

    /// Whether a record may go to this topic.
    pub fn may_write(&self, topic: &TopicName) -> bool {
        self.computes_topics() || self.writes().contains(topic)
    }

    /// Whether it reads the topic.
    pub fn reads(&self, topic: &TopicName) -> bool {
        self.from.iter().any(|pattern| pattern.matches(topic))
    }

    /// The declaration as a file with this one route.
    pub fn to_toml(&self) -> String {
        #[derive(Serialize)]
        struct File<'a> {
            route: [&'a RouteSpec; 1],
        }
        toml::to_string(&File { route: [self] }).unwrap_or_default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_yes(value: &bool) -> bool {
    *value
}

fn topics() -> usize {
    limits::ROUTE_TOPICS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_usual(value: &usize) -> bool {
    *value == topics()
}
