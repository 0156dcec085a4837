//! Where values come from: flags before environment before file before defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{ConfigError, FIELDS, Field, ServerConfig};
use crate::disk::{self, Disk};

/// The variable that names the file when no flag does.
pub const CONFIG_VARIABLE: &str = "TIDELOG_CONFIG";

const TOPIC_DEFAULTS: &str = "topic_defaults";

/// What the caller was given, not yet read.
#[derive(Debug, Default)]
pub struct Inputs {
    /// `--config`, or the variable.
    pub file: Option<PathBuf>,
    /// Environment variables, by name; those that are not Tidelog's are ignored.
    pub environment: BTreeMap<String, String>,
    /// Flags, by field name.
    pub flags: BTreeMap<&'static str, String>,
    /// Topic defaults given as flags, in order.
    pub topic_flags: Vec<(String, String)>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A configuration and where each of its values came from.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The values; not yet checked against each other.
    pub config: ServerConfig,
    pub(super) origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Reads all sources. Does not [`ServerConfig::check`].
    ///
    /// # Errors
    /// [`ConfigError`] names the source and the value: a file that cannot be read or is not TOML, an unknown key, a
    /// value out of its bounds.
    pub fn from(inputs: &Inputs, disk: &dyn Disk) -> Result<Self, ConfigError> {
        let mut loaded = Self::default();
        if let Some(path) = &inputs.file {
            loaded.read_file(path, disk)?;
        }
        for field in FIELDS {
            if let Some(text) = inputs.environment.get(&field.variable()) {
                loaded.set(field, text, Origin::Environment(field.variable()))?;
            }
        }
        for (name, text) in &inputs.flags {
            let field = Field::find(name).ok_or_else(|| ConfigError(format!("there is no setting '{name}'")))?;
            loaded.set(field, text, Origin::Flag)?;
        }
        for (name, text) in &inputs.topic_flags {
            loaded.set_topic_default(name, text, Origin::Flag)?;
        }
        Ok(loaded)
    }

    /// Where the value of a field, or of `topic_defaults.NAME`, came from.
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    fn set(&mut self, field: &Field, text: &str, origin: Origin) -> Result<(), ConfigError> {
        field.set(&mut self.config, text).map_err(|error| ConfigError(format!("{origin}: {error}")))?;
        self.origins.insert(field.name.to_owned(), origin);
        Ok(())
    }

    fn set_topic_default(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let full = format!("{TOPIC_DEFAULTS}.{name}");
        self.config
            .topic_defaults
            .set(name, text)
            .map_err(|error| ConfigError(format!("{origin}: {TOPIC_DEFAULTS}: {error}")))?;
        self.origins.insert(full, origin);
        Ok(())
    }

    fn read_file(&mut self, path: &Path, disk: &dyn Disk) -> Result<(), ConfigError> {
        let refuse = |what: String| ConfigError(format!("config file {}: {what}", path.display()));
        let content = disk::read_file(disk, path).map_err(|error| refuse(error.to_string()))?;
        let content = String::from_utf8(content).map_err(|error| refuse(error.to_string()))?;
        let table: toml::Table = content.parse().map_err(|error: toml::de::Error| refuse(first_lines(&error)))?;
        let origin = Origin::File(path.to_owned());
        for (key, value) in &table {
            if key == TOPIC_DEFAULTS {
                let toml::Value::Table(settings) = value else {
                    return Err(refuse(format!("{TOPIC_DEFAULTS} is not a table")));
                };
                for (name, value) in settings {
                    let text = scalar(value).ok_or_else(|| refuse(format!("{TOPIC_DEFAULTS}.{name} is no value")))?;
                    self.set_topic_default(name, &text, origin.clone())?;
                }
                continue;
            }
            let field = Field::find(key).ok_or_else(|| {
                let known: Vec<&str> = FIELDS.iter().map(|field| field.name).chain([TOPIC_DEFAULTS]).collect();
                refuse(format!("unknown key '{key}'; known are {}", known.join(", ")))
            })?;
            let text = scalar(value)
                .ok_or_else(|| refuse(format!("{key} is {}; it must be {}", value.type_str(), field.unit)))?;
            self.set(field, &text, origin.clone())?;
        }
        Ok(())
    }
}

/// A single value as text; lists, tables, times and fractions are none of ours.
fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

/// TOML errors draw the line with an arrow below; in one line that reads badly.
fn first_lines(error: &toml::de::Error) -> String {
    match error.span() {
        Some(span) => format!("{} (at byte {})", error.message(), span.start),
        None => error.message().to_owned(),
    }
}
