//! Settings of Kafka's own storage that a topic may carry. They change nothing here: what they ask for does not exist, or is done
//! anyway. What clients set is kept with the topic and shown again, so that tools that compare find what they have set.

use super::settings::Setting;

/// What the value of a hint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintKind {
    /// `true` or `false`.
    Switch,
    /// A number of 32 bits, from a least one on.
    Int(i32),
    /// A number of 64 bits, from a least one on.
    Long(i64),
    /// A word of up to 64 bytes.
    Word,
}

/// A line of the table of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Its name: `kafka.`, and Kafka's name for it.
    pub setting: Setting,
    /// What its value is.
    pub kind: HintKind,
    /// Kafka's default; `None` for those that Kafka itself has no more, which are shown only where they are set.
    pub default: Option<&'static str>,
}

const FOREVER: &str = "9223372036854775807";

const fn hint(name: &'static str, meaning: &'static str, kind: HintKind, default: Option<&'static str>) -> Hint {
    let (unit, bounds) = match kind {
        HintKind::Switch => ("word", "true or false"),
        HintKind::Int(_) => ("number", "a number that Kafka takes"),
        HintKind::Long(_) => ("number", "a number that Kafka takes"),
        HintKind::Word => ("word", "up to 64 bytes"),
    };
    Hint { setting: Setting { name, meaning, unit, bounds }, kind, default }
}

/// What is in front of Kafka's names for them.
pub const HINT_PREFIX: &str = "kafka.";

/// Every hint.
pub const HINTS: [Hint; 9] = [
    hint(
        "kafka.file.delete.delay.ms",
        "kept, without effect: files are removed when nobody reads them any more",
        HintKind::Long(0),
        Some("60000"),
    ),
    hint(
        "kafka.flush.messages",
        "kept, without effect: acknowledged records are synced before (durability)",
        HintKind::Long(1),
        Some(FOREVER),
    ),
    hint(
        "kafka.flush.ms",
        "kept, without effect: acknowledged records are synced before (durability)",
        HintKind::Long(0),
        Some(FOREVER),
    ),
    hint("kafka.index.interval.bytes", "kept, without effect", HintKind::Int(0), Some("4096")),
    hint("kafka.preallocate", "kept, without effect", HintKind::Switch, Some("false")),
    hint("kafka.segment.index.bytes", "kept, without effect", HintKind::Int(4), Some("10485760")),
    hint("kafka.segment.jitter.ms", "kept, without effect", HintKind::Long(0), Some("0")),
    hint(
        "kafka.message.downconversion.enable",
        "kept, without effect: record formats are not converted",
        HintKind::Switch,
        None,
    ),
    hint("kafka.message.format.version", "kept, without effect: records have format 2", HintKind::Word, None),
];

impl Hint {
    /// The hint of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        HINTS.iter().find(|hint| hint.setting.name == name)
    }

    /// Kafka's name for it.
    pub fn kafka_name(&self) -> &'static str {
        self.setting.name.strip_prefix(HINT_PREFIX).unwrap_or(self.setting.name)
    }

    /// What is wrong with a value.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let number = |least: i64, most: i64| match value.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            Ok(_) => Err(format!("not within {least} and {most}")),
            Err(error) => Err(error.to_string()),
        };
        match self.kind {
            HintKind::Switch if matches!(value, "true" | "false") => Ok(()),
            HintKind::Switch => Err("neither true nor false".to_owned()),
            HintKind::Int(least) => number(least.into(), i32::MAX.into()),
            HintKind::Long(least) => number(least, i64::MAX),
            HintKind::Word if (1..=64).contains(&value.len()) => Ok(()),
            HintKind::Word => Err(format!("{} bytes", value.len())),
        }
    }
}
