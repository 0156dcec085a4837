//! One value that an operator may set: how it is read, shown and bounded. Which there are is in `fields.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use super::fields::FIELDS;
use super::{LogFormat, ServerConfig};
use crate::base::{Bytes, Millis};

/// One value an operator may set. Its key in the file is `name`, its flag `--name` with dashes.
#[derive(Debug)]
pub struct Field {
    /// Key in the file.
    pub name: &'static str,
    /// What it does, in one line.
    pub meaning: &'static str,
    /// Its unit or form, as a person writes it.
    pub unit: &'static str,
    /// Smallest value, for numbers.
    pub minimum: u64,
    /// Largest value, for numbers.
    pub maximum: u64,
    slot: for<'a> fn(&'a mut ServerConfig) -> Slot<'a>,
}

/// The place of a value and with it its type.
pub(super) enum Slot<'a> {
    Text(&'a mut String),
    Path(&'a mut PathBuf),
    Switch(&'a mut bool),
    Format(&'a mut LogFormat),
    Number(&'a mut u32),
    Count(&'a mut usize),
    Bytes(&'a mut Bytes),
    Millis(&'a mut Millis),
}

pub(super) const fn field(
    name: &'static str,
    meaning: &'static str,
    unit: &'static str,
    minimum: u64,
    maximum: u64,
    slot: for<'a> fn(&'a mut ServerConfig) -> Slot<'a>,
) -> Field {
    Field { name, meaning, unit, minimum, maximum, slot }
}

impl Field {
    /// The field of a key.
    pub fn find(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// The flag, without its dashes in front.
    pub fn flag(&self) -> &'static str {
        static FLAGS: LazyLock<BTreeMap<&'static str, String>> =
            LazyLock::new(|| FIELDS.iter().map(|field| (field.name, field.name.replace('_', "-"))).collect());
        FLAGS.get(self.name).map_or(self.name, String::as_str)
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        match self.name {
            "log_level" => "TIDELOG_LOG".to_owned(),
            name => format!("TIDELOG_{}", name.to_ascii_uppercase()),
        }
    }

    /// Whether it is on or off.
    pub fn is_switch(&self) -> bool {
        matches!((self.slot)(&mut ServerConfig::default()), Slot::Switch(_))
    }

    /// Reads `text` into its place.
    ///
    /// # Errors
    /// What is wrong with the value, with the bounds.
    pub fn set(&self, config: &mut ServerConfig, text: &str) -> Result<(), String> {
        match (self.slot)(config) {
            Slot::Text(slot) if text.is_empty() => Err(format!("{} is empty; it was {slot}", self.name)),
            Slot::Text(slot) => {
                text.clone_into(slot);
                Ok(())
            }
            Slot::Path(_) if text.is_empty() => Err(format!("{} is empty", self.name)),
            Slot::Path(slot) => {
                *slot = PathBuf::from(text);
                Ok(())
            }
            Slot::Switch(slot) => {
                *slot = match text {
                    "true" | "1" | "yes" | "on" => true,
                    "false" | "0" | "no" | "off" => false,
                    other => return Err(format!("{} is '{other}'; it is true or false", self.name)),
                };
                Ok(())
            }
            Slot::Format(slot) => {
                *slot = text.parse().map_err(|error| format!("{}: {error}", self.name))?;
                Ok(())
            }
            Slot::Number(slot) => self.number(text, |n: &u32| u64::from(*n)).map(|value| *slot = value),
            Slot::Count(slot) => self.number(text, |n: &usize| *n as u64).map(|value| *slot = value),
            Slot::Bytes(slot) => self.number(text, |n: &Bytes| n.0).map(|value| *slot = value),
            Slot::Millis(slot) => self.number(text, |n: &Millis| n.0).map(|value| *slot = value),
        }
    }

    fn number<T: FromStr>(&self, text: &str, size: fn(&T) -> u64) -> Result<T, String>
    where
        T::Err: std::fmt::Display,
    {
        let value: T = text.parse().map_err(|error| format!("{} = {text}: {error}", self.name))?;
        if size(&value) < self.minimum {
            return Err(format!("{} is {text}; the least is {}", self.name, self.bound(self.minimum)));
        }
        if size(&value) > self.maximum {
            return Err(format!("{} is {text}; the most is {}", self.name, self.bound(self.maximum)));
        }
        Ok(value)
    }

    /// A bound in the field's own unit.
    pub(super) fn bound(&self, bound: u64) -> String {
        match (self.slot)(&mut ServerConfig::default()) {
            Slot::Bytes(_) => Bytes(bound).to_string(),
            Slot::Millis(_) => Millis(bound).to_string(),
            _ => bound.to_string(),
        }
    }

    /// Whether the bounds mean anything.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            (self.slot)(&mut ServerConfig::default()),
            Slot::Number(_) | Slot::Count(_) | Slot::Bytes(_) | Slot::Millis(_)
        )
    }

    /// The value as [`Field::set`] reads it.
    pub fn show(&self, config: &ServerConfig) -> String {
        match (self.slot)(&mut config.clone()) {
            Slot::Text(slot) => slot.clone(),
            Slot::Path(slot) => slot.display().to_string(),
            Slot::Switch(slot) => slot.to_string(),
            Slot::Format(slot) => slot.name().to_owned(),
            Slot::Number(slot) => slot.to_string(),
            Slot::Count(slot) => slot.to_string(),
            Slot::Bytes(slot) => slot.to_string(),
            Slot::Millis(slot) => slot.to_string(),
        }
    }

    /// The value as TOML.
    pub(super) fn toml(&self, config: &ServerConfig) -> String {
        let text = self.show(config);
        match (self.slot)(&mut config.clone()) {
            Slot::Switch(_) | Slot::Number(_) | Slot::Count(_) => text,
            _ => toml::Value::String(text).to_string(),
        }
    }
}
