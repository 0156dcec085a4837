//! Kafka's names for settings, and what becomes of them here: a setting of ours under another name and in other units, a
//! fact that cannot be changed, or a hint to a storage that this is not. What is granted is kept and described, or refused.

use super::errors;
use super::topics::Refused;
use crate::base::{Bytes, Millis};
use crate::broker::TopicDescription;
use crate::catalog::{HINTS, Hint, HintKind, TopicSettings};

/// Where a value comes from: it was set for this topic.
pub const FROM_TOPIC: i8 = 1;
/// Where a value comes from: from the server's configuration.
pub const FROM_SERVER: i8 = 4;
/// Where a value comes from: nobody said otherwise.
pub const FROM_DEFAULT: i8 = 5;

/// A value as Kafka's tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Kafka's name.
    pub name: &'static str,
    /// The value, in Kafka's units.
    pub value: String,
    /// Where it comes from.
    pub source: i8,
    /// Its type.
    pub kind: i8,
    /// It cannot be changed.
    pub read_only: bool,
    /// What it is.
    pub meaning: &'static str,
}

pub const BOOLEAN: i8 = 1;
pub const STRING: i8 = 2;
pub const INT: i8 = 3;
pub const LONG: i8 = 5;
pub const DOUBLE: i8 = 6;
pub const LIST: i8 = 7;

/// How a value is written there and here.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// The same on both sides.
    Same,
    /// Milliseconds there, a duration here.
    Millis,
    /// Bytes there, a size here.
    Bytes,
    /// Other words there than here, in pairs.
    Words(&'static [(&'static str, &'static str)]),
}

/// A setting that both sides have.
struct Shared {
    kafka: &'static str,
    ours: &'static str,
    unit: Unit,
    /// What "no limit" is called there.
    unlimited: &'static str,
    kind: i8,
    /// What holds where there is no such setting.
    fact: &'static str,
}

const fn shared(
    kafka: &'static str,
    ours: &'static str,
    unit: Unit,
    unlimited: &'static str,
    kind: i8,
    fact: &'static str,
) -> Shared {
    Shared { kafka, ours, unit, unlimited, kind, fact }
}

/// No limit of a time.
const FOREVER: &str = "9223372036854775807";
/// Longer times than this are none here, and no limit either.
const LONGEST_MS: u64 = 36_500 * 86_400_000;
/// The times that have an end here.
const BOUNDED: [&str; 2] = ["delete_retention", "min_compaction_lag"];

static TIMES: [(&str, &str); 2] = [("CreateTime", "create"), ("LogAppendTime", "append")];

static SHARED: &[Shared] = &[
    shared("cleanup.policy", "cleanup", Unit::Same, "", LIST, "delete"),
    shared("retention.ms", "retention_time", Unit::Millis, "-1", LONG, "-1"),
    shared("retention.bytes", "retention_bytes", Unit::Bytes, "-1", LONG, "-1"),
    shared("segment.bytes", "segment_bytes", Unit::Bytes, "", INT, ""),
    shared("segment.ms", "segment_time", Unit::Millis, "9223372036854775807", LONG, ""),
    shared("max.message.bytes", "max_message_bytes", Unit::Bytes, "", INT, ""),
    shared("compression.type", "compression", Unit::Same, "", STRING, "producer"),
    shared("message.timestamp.type", "timestamp_type", Unit::Words(&TIMES), "", STRING, "CreateTime"),
    shared("message.timestamp.before.max.ms", "timestamp_before_max", Unit::Millis, FOREVER, LONG, FOREVER),
    shared("message.timestamp.after.max.ms", "timestamp_after_max", Unit::Millis, FOREVER, LONG, "3600000"),
    shared("delete.retention.ms", "delete_retention", Unit::Millis, "9223372036854775807", LONG, "86400000"),
    shared("min.compaction.lag.ms", "min_compaction_lag", Unit::Millis, "9223372036854775807", LONG, "0"),
    shared("min.cleanable.dirty.ratio", "min_dirty_ratio", Unit::Same, "", DOUBLE, "0.5"),
    shared("tidelog.durability", "durability", Unit::Same, "", STRING, "sync"),
];

/// What holds for every topic. A request for the same is granted, one for anything else refused.
static FACTS: &[(&str, &str, i8)] = &[
    ("min.insync.replicas", "1", INT),
    ("unclean.leader.election.enable", "false", BOOLEAN),
    ("remote.storage.enable", "false", BOOLEAN),
    ("max.compaction.lag.ms", FOREVER, LONG),
    ("leader.replication.throttled.replicas", "", LIST),
    ("follower.replication.throttled.replicas", "", LIST),
];

/// What was taken of Kafka up to 3, and what says the same.
static GONE: &[(&str, &str)] = &[(
    "message.timestamp.difference.max.ms",
    "Kafka 4 has none such; message.timestamp.before.max.ms and message.timestamp.after.max.ms say it",
)];

/// The hint of Kafka's name.
fn hint(name: &str) -> Option<&'static Hint> {
    HINTS.iter().find(|hint| hint.kafka_name() == name)
}

/// Whether there is such a setting here.
fn is_ours(name: &str) -> bool {
    crate::catalog::SETTINGS.iter().any(|setting| setting.name == name)
}

/// All values of a topic.
pub fn of_topic(topic: &TopicDescription) -> Vec<Config> {
    let shared = SHARED.iter().map(|shared| {
        let found = topic.settings.iter().find(|setting| setting.name == shared.ours);
        Config {
            name: shared.kafka,
            value: found.map_or_else(|| shared.fact.to_owned(), |setting| shared.outward(&setting.value)),
            source: if found.is_some_and(|setting| !setting.is_default) { FROM_TOPIC } else { FROM_DEFAULT },
            kind: shared.kind,
            read_only: found.is_none(),
            meaning: found.map_or("", |setting| setting.meaning),
        }
    });
    let facts = FACTS.iter().map(|(name, value, kind)| fact(name, value, *kind));
    let hints = HINTS.iter().filter_map(|hint| {
        let found = topic.settings.iter().find(|setting| setting.name == hint.setting.name);
        let kind = match hint.kind {
            HintKind::Switch => BOOLEAN,
            HintKind::Int(_) => INT,
            HintKind::Long(_) => LONG,
            HintKind::Word => STRING,
        };
        Some(Config {
            name: hint.kafka_name(),
            value: found.map(|setting| setting.value.clone()).or_else(|| hint.default.map(str::to_owned))?,
            source: if found.is_some() { FROM_TOPIC } else { FROM_DEFAULT },
            kind,
            read_only: false,
            meaning: hint.setting.meaning,
        })
    });
    shared.chain(facts).chain(hints).collect()
}

/// What settings of ours say of one of Kafka's.
pub fn outward(kafka: &str, settings: &TopicSettings) -> String {
    let shared = SHARED.iter().find(|shared| shared.kafka == kafka);
    shared.map(|shared| shared.outward(&settings.get(shared.ours).unwrap_or_default())).unwrap_or_default()
}

/// A value that is as it is.
pub fn fact(name: &'static str, value: &str, kind: i8) -> Config {
    let meaning = "cannot be changed here";
    Config { name, value: value.to_owned(), source: FROM_DEFAULT, kind, read_only: true, meaning }
}

/// A setting of ours for one of Kafka's; `None` for what is granted without one.
///
/// # Errors
/// There is no such setting, or it cannot have this value.
pub fn to_setting(name: &str, value: &str) -> Result<Option<(String, String)>, Refused> {
    if let Some(shared) = SHARED.iter().find(|shared| shared.kafka == name) {
        if is_ours(shared.ours) {
            return Ok(Some((shared.ours.to_owned(), shared.inward(value)?)));
        }
        return granted(name, value, shared.fact);
    }
    if let Some((_, fact, _)) = FACTS.iter().find(|(known, ..)| *known == name) {
        return granted(name, value, fact);
    }
    if let Some(hint) = hint(name) {
        return Ok(Some((hint.setting.name.to_owned(), value.trim().to_owned())));
    }
    Err(none(name))
}

fn none(name: &str) -> Refused {
    let instead = GONE.iter().find(|(gone, _)| *gone == name).map(|(_, instead)| format!(": {instead}"));
    (errors::INVALID_CONFIG, format!("there is no setting '{name}'{}", instead.unwrap_or_default()))
}

/// The name here of one of Kafka's settings, if it can be unset; `None` if that changes nothing.
///
/// # Errors
/// There is no such setting.
pub fn to_unset(name: &str) -> Result<Option<String>, Refused> {
    match SHARED.iter().find(|shared| shared.kafka == name) {
        Some(shared) if is_ours(shared.ours) => Ok(Some(shared.ours.to_owned())),
        Some(_) => Ok(None),
        None if FACTS.iter().any(|(known, ..)| *known == name) => Ok(None),
        None => hint(name).map(|hint| Some(hint.setting.name.to_owned())).ok_or_else(|| none(name)),
    }
}

/// Whether the value is a list, to which can be added.
pub fn is_list(name: &str) -> bool {
    SHARED.iter().any(|shared| shared.kafka == name && shared.kind == LIST)
}

fn granted(name: &str, value: &str, fact: &str) -> Result<Option<(String, String)>, Refused> {
    if value.trim() == fact {
        return Ok(None);
    }
    Err((errors::INVALID_CONFIG, format!("{name} = '{value}'; it is '{fact}' here and cannot be changed")))
}

impl Shared {
    /// Our value in Kafka's units.
    fn outward(&self, ours: &str) -> String {
        let number = match self.unit {
            Unit::Same => return ours.to_owned(),
            Unit::Millis => ours.parse::<Millis>().map(|time| time.0),
            Unit::Bytes => ours.parse::<Bytes>().map(|size| size.0),
            Unit::Words(words) => {
                let found = words.iter().find(|(_, known)| *known == ours);
                return found.map_or(ours, |(word, _)| word).to_owned();
            }
        };
        number.map_or_else(|_| self.unlimited.to_owned(), |number| number.to_string())
    }

    /// Kafka's value in our units.
    fn inward(&self, kafka: &str) -> Result<String, Refused> {
        let value = kafka.trim();
        let unit = match self.unit {
            Unit::Same => {
                // A list may have blanks, and its parts in any order.
                let mut parts: Vec<&str> = value.split(',').map(str::trim).collect();
                parts.sort_unstable_by(|one, other| other.cmp(one));
                return Ok(parts.join(","));
            }
            Unit::Words(words) => {
                let found = words.iter().find(|(word, _)| *word == value);
                return found.map(|(_, known)| (*known).to_owned()).ok_or_else(|| {
                    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                    let what = format!("{} = '{kafka}'; it is {} here", self.kafka, known.join(" or "));
                    (errors::INVALID_CONFIG, what)
                });
            }
            Unit::Millis => "ms",
            Unit::Bytes => "B",
        };
        let endless = || match BOUNDED.contains(&self.ours) {
            true => format!("{LONGEST_MS}ms"),
            false => "unlimited".to_owned(),
        };
        if value == self.unlimited || (value == "-1" && !self.unlimited.is_empty()) {
            return Ok(endless());
        }
        match (self.unit, value.parse::<u64>()) {
            (Unit::Millis, Ok(number)) if number > LONGEST_MS => Ok(endless()),
            // To empty a topic: as soon as it can be.
            (_, Ok(0)) if self.ours == "retention_time" => Ok("1ms".to_owned()),
            (_, Ok(number)) => Ok(format!("{number}{unit}")),
            (_, Err(_)) => Err((errors::INVALID_CONFIG, format!("{} = '{kafka}' is not a number", self.kafka))),
        }
    }
}
