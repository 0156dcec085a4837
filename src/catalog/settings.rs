//! What can be set for a topic: name, meaning, unit, bounds, default, in one table and one place that reads and writes
//! values.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hints::Hint;
use crate::base::{Bytes, ErrorKind, Millis, limits};
use crate::record::Compression;

/// The word for "no limit".
const UNLIMITED: &str = "unlimited";

/// A hundred years: what is longer is a slip, `unlimited` is meant.
const LONGEST: Millis = Millis(100 * 365 * 86_400_000);
/// Characters of a name or value: those that can be have some ten, and an error shows them.
const CHARS: usize = 80;

const SHORTEST: Millis = Millis(1);
const LARGEST: Bytes = Bytes(1 << 60);

/// When a record counts as stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once a sync covers it.
    #[default]
    Sync,
    /// Once it is written; syncs follow at an interval. A power cut can take back what was read.
    Interval,
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleanup {
    /// Whole segments are deleted by age or size.
    #[default]
    Delete,
    /// Of the records of a key the newest stays.
    Compact,
    /// Both.
    Both,
}

impl Cleanup {
    /// Whether segments are deleted by age or size.
    pub fn deletes(self) -> bool {
        self != Self::Compact
    }

    /// Whether records are compacted by key, so that each must have one.
    pub fn compacts(self) -> bool {
        self != Self::Delete
    }
}

/// A part of something in thousandths. Reads and writes `0` to `1` with up to three digits behind the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(pub u32);

impl std::str::FromStr for Ratio {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a ratio; write it like 0.5");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let thousandths: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
        Ok(Self(whole.saturating_mul(1000).saturating_add(thousandths)))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What happens to records that no queue group was given before the time in their header `tidelog-expires-at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expired {
    /// They count as done.
    #[default]
    Skip,
    /// They go to the group's dead-letter topic.
    DeadLetter,
}

/// Whose time the records have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// What their producer says.
    #[default]
    Create,
    /// The server's, when it takes them.
    Append,
}

/// The settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Records older than this may be deleted; `None` keeps them.
    pub retention_time: Option<Millis>,
    /// What a partition may grow to before its oldest records are deleted; `None` for no limit.
    pub retention_bytes: Option<Bytes>,
    /// A segment that would grow over this is closed.
    pub segment_bytes: Bytes,
    /// A segment older than this is closed; `None` closes by size only.
    pub segment_time: Option<Millis>,
    /// When a record counts as stable.
    pub durability: Durability,
    /// The largest batch taken.
    pub max_message_bytes: Bytes,
    /// Whose time the records have.
    pub timestamp_type: TimestampType,
    /// The codec that batches of clients are stored in; `None` for the one that they come in.
    pub compression: Option<Compression>,
    /// How far in the past a record's timestamp may be when it is taken; `None` for any.
    pub timestamp_before_max: Option<Millis>,
    /// How far in the future a record's timestamp may be when it is taken; `None` for any. Clocks of honest producers are
    /// seconds off; Kafka has the same default.
    pub timestamp_after_max: Option<Millis>,
    /// What happens to old records.
    pub cleanup: Cleanup,
    /// What happens to records that no queue group was given in time.
    pub expired: Expired,
    /// With compaction: how long a tombstone stays once everything before it of its key is gone.
    pub delete_retention: Millis,
    /// With compaction: segments with a record younger than this are left alone.
    pub min_compaction_lag: Millis,
    /// With compaction: the part of the data that must be new before it is begun.
    pub min_dirty_ratio: Ratio,
    /// What was set of [`super::HINTS`].
    pub hints: BTreeMap<&'static str, String>,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            retention_time: None,
            retention_bytes: None,
            segment_bytes: Bytes(limits::DEFAULT_SEGMENT_BYTES),
            segment_time: Some(Millis(7 * 86_400_000)),
            durability: Durability::Sync,
            max_message_bytes: Bytes(limits::DEFAULT_BATCH_BYTES as u64),
            timestamp_type: TimestampType::Create,
            compression: None,
            timestamp_before_max: None,
            timestamp_after_max: Some(Millis(3_600_000)),
            cleanup: Cleanup::Delete,
            expired: Expired::Skip,
            delete_retention: Millis(86_400_000),
            min_compaction_lag: Millis(0),
            min_dirty_ratio: Ratio(500),
            hints: BTreeMap::new(),
        }
    }
}

/// A line of the table of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name, in snake case.
    pub name: &'static str,
    /// What it does, in one line.
    pub meaning: &'static str,
    /// What its values are.
    pub unit: &'static str,
    /// What is allowed.
    pub bounds: &'static str,
}

/// Every setting of a topic.
pub const SETTINGS: [Setting; 15] = [
    Setting {
        name: "retention_time",
        meaning: "records older than this may be deleted",
        unit: "duration",
        bounds: "1ms to 36500d, or unlimited",
    },
    Setting {
        name: "retention_bytes",
        meaning: "size of a partition beyond which its oldest records are deleted",
        unit: "size",
        bounds: "64KiB to 1048576TiB, or unlimited",
    },
    Setting {
        name: "segment_bytes",
        meaning: "size at which a segment file is closed; records are deleted a whole segment at a time",
        unit: "size",
        bounds: "64KiB to 2GiB, and at least max_message_bytes",
    },
    Setting {
        name: "segment_time",
        meaning: "age at which a segment file is closed; of less than 1s, 1s holds",
        unit: "duration",
        bounds: "1ms to 36500d, or unlimited",
    },
    Setting {
        name: "expired",
        meaning: "what happens to records that expire (tidelog-expires-at) before a queue group has had them",
        unit: "word",
        bounds: "skip or dead-letter",
    },
    Setting {
        name: "durability",
        meaning: "when records become readable: once they are synced, or once they are written and synced at an interval",
        unit: "word",
        bounds: "sync or interval",
    },
    Setting {
        name: "max_message_bytes",
        meaning: "largest batch of records that is accepted",
        unit: "size",
        bounds: "1KiB to 64MiB, and at most segment_bytes",
    },
    Setting {
        name: "timestamp_type",
        meaning: "whose time records have: what their producer says, or the server's when it takes them",
        unit: "word",
        bounds: "create or append",
    },
    Setting {
        name: "compression",
        meaning: "codec that batches of clients are stored in: the producer's own, or this one",
        unit: "word",
        bounds: "producer, uncompressed, gzip, snappy, lz4 or zstd",
    },
    Setting {
        name: "timestamp_before_max",
        meaning: "how far in the past a record's timestamp may be when it is accepted",
        unit: "duration",
        bounds: "0s to 36500d, or unlimited",
    },
    Setting {
        name: "timestamp_after_max",
        meaning: "how far in the future a record's timestamp may be when it is accepted",
        unit: "duration",
        bounds: "0s to 36500d, or unlimited",
    },
    Setting {
        name: "cleanup",
        meaning: "what happens to old records: deleted by age and size, compacted to the newest of each key, or both",
        unit: "word",
        bounds: "delete, compact, or delete,compact",
    },
    Setting {
        name: "delete_retention",
        meaning: "with compaction, how long a deletion (a record without a value) can still be read",
        unit: "duration",
        bounds: "0s to 36500d",
    },
    Setting {
        name: "min_compaction_lag",
        meaning: "with compaction, age that records reach before others of their key can take their place",
        unit: "duration",
        bounds: "0s to 36500d",
    },
    Setting {
        name: "min_dirty_ratio",
        meaning: "with compaction, part of a partition's data that must be new before it is compacted again",
        unit: "ratio",
        bounds: "0 to 1",
    },
];

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("unknown setting '{name}'; known are {}", known_names())]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value is not one, or out of bounds.
    #[error("{name} = '{value}': {what}; allowed: {}", bounds_of(name))]
    Value {
        /// The setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is wrong with it.
        what: String,
    },
    /// Two settings contradict each other.
    #[error("max_message_bytes = {max_message} is larger than segment_bytes = {segment}: a batch must fit a segment")]
    MessageOverSegment {
        /// `max_message_bytes`.
        max_message: Bytes,
        /// `segment_bytes`.
        segment: Bytes,
    },
}

impl SettingError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidRequest
    }
}

fn known_names() -> String {
    SETTINGS.map(|setting| setting.name).join(", ")
}

fn bounds_of(name: &str) -> &'static str {
    let hint = || Hint::find(name).map(|hint| &hint.setting);
    SETTINGS.iter().find(|setting| setting.name == name).or_else(hint).map_or("", |setting| setting.bounds)
}

impl TopicSettings {
    /// Sets one setting from text. Contradictions between settings are found by [`TopicSettings::check`], so that the
    /// order of setting does not matter.
    ///
    /// # Errors
    /// [`SettingError`] names the setting, the value and what is allowed; nothing has changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let value = value.trim();
        if let Some(hint) = Hint::find(name) {
            let (name, text) = (hint.setting.name, value.to_owned());
            hint.check(value).map_err(|what| SettingError::Value { name, value: text.clone(), what })?;
            self.hints.insert(name, text);
            return Ok(());
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(SettingError::Unknown { name: name.chars().take(CHARS).collect() });
        };
        let shown = || value.chars().take(CHARS).collect();
        let wrong = |what: String| SettingError::Value { name: setting.name, value: shown(), what };
        let length = value.chars().count();
        if length > CHARS {
            return Err(wrong(format!("a value of {length} characters; the limit is {CHARS}")));
        }
        match name {
            "retention_time" => self.retention_time = optional(value, SHORTEST..=LONGEST).map_err(wrong)?,
            "retention_bytes" => {
                let least = Bytes(*limits::SEGMENT_BYTES.start());
                self.retention_bytes = optional(value, least..=LARGEST).map_err(wrong)?;
            }
            "segment_bytes" => {
                let (least, most) = limits::SEGMENT_BYTES.into_inner();
                self.segment_bytes = bounded(value, Bytes(least)..=Bytes(most)).map_err(wrong)?;
            }
            "segment_time" => self.segment_time = optional(value, SHORTEST..=LONGEST).map_err(wrong)?,
            "durability" => {
                self.durability = match value {
                    "sync" => Durability::Sync,
                    "interval" => Durability::Interval,
                    _ => return Err(wrong("there is no such durability".to_owned())),
                }
            }
            "expired" => {
                self.expired = match value {
                    "skip" => Expired::Skip,
                    "dead-letter" => Expired::DeadLetter,
                    _ => return Err(wrong("there is no such thing to do".to_owned())),
                }
            }
            "max_message_bytes" => {
                let most = Bytes(limits::MAX_BATCH_BYTES as u64);
                self.max_message_bytes = bounded(value, Bytes(1024)..=most).map_err(wrong)?;
            }
            "timestamp_type" => {
                self.timestamp_type = match value {
                    "create" => TimestampType::Create,
                    "append" => TimestampType::Append,
                    _ => return Err(wrong("there is no such time".to_owned())),
                }
            }
            "compression" => {
                self.compression = match value {
                    "producer" => None,
                    "uncompressed" => Some(Compression::None),
                    // Of the codecs, the one that is none has another name here.
                    "none" => return Err(wrong("there is no such compression".to_owned())),
                    name => Some(name.parse().map_err(|_| wrong("there is no such compression".to_owned()))?),
                }
            }
            "timestamp_before_max" => {
                self.timestamp_before_max = optional(value, Millis(0)..=LONGEST).map_err(wrong)?;
            }
            "timestamp_after_max" => {
                self.timestamp_after_max = optional(value, Millis(0)..=LONGEST).map_err(wrong)?;
            }
            "cleanup" => {
                // As in Kafka, the policies are joined by commas, in any order.
                let mut policies: Vec<_> = value.split(',').map(str::trim).collect();
                policies.sort_unstable();
                self.cleanup = match policies[..] {
                    ["delete"] => Cleanup::Delete,
                    ["compact"] => Cleanup::Compact,
                    ["compact", "delete"] => Cleanup::Both,
                    _ => return Err(wrong("there is no such cleanup".to_owned())),
                }
            }
            "delete_retention" => self.delete_retention = bounded(value, Millis(0)..=LONGEST).map_err(wrong)?,
            "min_compaction_lag" => self.min_compaction_lag = bounded(value, Millis(0)..=LONGEST).map_err(wrong)?,
            _ => self.min_dirty_ratio = bounded(value, Ratio(0)..=Ratio(1000)).map_err(wrong)?,
        }
        Ok(())
    }

    /// The value of a setting as text that [`TopicSettings::set`] reads, `unlimited` for no limit.
    ///
    /// # Errors
    /// [`SettingError::Unknown`].
    pub fn get(&self, name: &str) -> Result<String, SettingError> {
        fn or_unlimited(value: Option<impl fmt::Display>) -> String {
            value.map_or_else(|| UNLIMITED.to_owned(), |value| value.to_string())
        }
        Ok(match name {
            "retention_time" => or_unlimited(self.retention_time),
            "retention_bytes" => or_unlimited(self.retention_bytes),
            "segment_bytes" => self.segment_bytes.to_string(),
            "segment_time" => or_unlimited(self.segment_time),
            "durability" => match self.durability {
                Durability::Sync => "sync".to_owned(),
                Durability::Interval => "interval".to_owned(),
            },
            "expired" => match self.expired {
                Expired::Skip => "skip".to_owned(),
                Expired::DeadLetter => "dead-letter".to_owned(),
            },
            "max_message_bytes" => self.max_message_bytes.to_string(),
            "timestamp_type" => match self.timestamp_type {
                TimestampType::Create => "create".to_owned(),
                TimestampType::Append => "append".to_owned(),
            },
            "compression" => match self.compression {
                None => "producer".to_owned(),
                Some(Compression::None) => "uncompressed".to_owned(),
                Some(codec) => codec.name().to_owned(),
            },
            "timestamp_before_max" => or_unlimited(self.timestamp_before_max),
            "timestamp_after_max" => or_unlimited(self.timestamp_after_max),
            "cleanup" => match self.cleanup {
                Cleanup::Delete => "delete".to_owned(),
                Cleanup::Compact => "compact".to_owned(),
                Cleanup::Both => "delete,compact".to_owned(),
            },
            "delete_retention" => self.delete_retention.to_string(),
            "min_compaction_lag" => self.min_compaction_lag.to_string(),
            "min_dirty_ratio" => self.min_dirty_ratio.to_string(),
            _ => {
                let hint = Hint::find(name).ok_or_else(|| SettingError::Unknown { name: name.to_owned() })?;
                let set = self.hints.get(name).map(String::as_str);
                set.or(hint.default).unwrap_or_default().to_owned()
            }
        })
    }

    /// These values of settings as [`TopicSettings::get`] writes them, which is short whatever was said.
    ///
    /// # Errors
    /// The first [`SettingError`].
    pub fn canonical(values: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, SettingError> {
        let mut settings = Self::default();
        let canonical = |(name, value): (&String, &String)| {
            settings.set(name, value)?;
            Ok((name.clone(), settings.get(name)?))
        };
        values.iter().map(canonical).collect()
    }

    /// Whether the settings agree with each other.
    ///
    /// # Errors
    /// [`SettingError::MessageOverSegment`].
    pub fn check(&self) -> Result<(), SettingError> {
        if self.max_message_bytes > self.segment_bytes {
            return Err(SettingError::MessageOverSegment {
                max_message: self.max_message_bytes,
                segment: self.segment_bytes,
            });
        }
        Ok(())
    }

    /// These settings with those of a topic in place of theirs, checked. Where only one of `segment_bytes` and `max_message_bytes` is a
    /// topic's own, the other gives way: who asks for small segments need not know how large a batch may be by default.
    ///
    /// # Errors
    /// The first [`SettingError`].
    pub fn with(&self, overrides: &BTreeMap<String, String>) -> Result<Self, SettingError> {
        let mut settings = self.clone();
        for (name, value) in overrides {
            settings.set(name, value)?;
        }
        let own = |name: &str| overrides.contains_key(name);
        match (own("segment_bytes"), own("max_message_bytes")) {
            (true, false) => settings.max_message_bytes = settings.max_message_bytes.min(settings.segment_bytes),
            (false, true) => settings.segment_bytes = settings.segment_bytes.max(settings.max_message_bytes),
            _ => {}
        }
        settings.check()?;
        Ok(settings)
    }
}

fn bounded<T>(text: &str, bounds: RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr<Err: fmt::Display> + PartialOrd + fmt::Display,
{
    let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
    if value < *bounds.start() {
        return Err(format!("less than {}", bounds.start()));
    }
    if value > *bounds.end() {
        return Err(format!("more than {}", bounds.end()));
    }
    Ok(value)
}

fn optional<T>(text: &str, bounds: RangeInclusive<T>) -> Result<Option<T>, String>
where
    T: std::str::FromStr<Err: fmt::Display> + PartialOrd + fmt::Display,
{
    if text == UNLIMITED { Ok(None) } else { bounded(text, bounds).map(Some) }
}

impl Serialize for TopicSettings {
    /// A map of every setting's name to its text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = SETTINGS.iter().filter_map(|setting| Some((setting.name, self.get(setting.name).ok()?)));
        serializer.collect_map(pairs.chain(self.hints.iter().map(|(name, value)| (*name, value.clone()))))
    }
}

/// A value in a configuration file: `"64KiB"`, or a bare number of bytes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Word(String),
    Number(u64),
}

impl<'de> Deserialize<'de> for TopicSettings {
    /// Reads a map of names to values; what is not named keeps its default. For formats that describe themselves.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let overrides: BTreeMap<String, Text> = BTreeMap::deserialize(deserializer)?;
        let overrides = overrides.into_iter().map(|(name, value)| match value {
            Text::Word(word) => (name, word),
            Text::Number(number) => (name, number.to_string()),
        });
        Self::default().with(&overrides.collect()).map_err(serde::de::Error::custom)
    }
}
