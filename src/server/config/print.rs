//! `--print-config`: the values in force as a file that `--config` reads again.

use std::fmt::Write;

use super::{FIELDS, Loaded};
use crate::catalog::SETTINGS;

impl Loaded {
    /// Valid TOML: every value with its meaning, bounds, default and origin as comments.
    pub fn print(&self) -> String {
        let defaults = super::ServerConfig::default();
        let mut out = String::from(
            "# Configuration of `tidelog serve`.\n# Flags go before environment, environment before file.\n",
        );
        for field in FIELDS {
            let bounds = match (field.is_number(), field.minimum, field.maximum) {
                (false, ..) => String::new(),
                (true, least, u64::MAX) => format!(", at least {}", field.bound(least)),
                (true, least, most) => format!(", {} to {}", field.bound(least), field.bound(most)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "\n# {}\n# {}{bounds}; default {}; environment {}",
                field.meaning,
                field.unit,
                field.toml(&defaults),
                field.variable()
            );
            let _ = writeln!(out, "{} = {} # from {}", field.name, field.toml(&self.config), self.origin(field.name));
        }
        out.push_str("\n# Settings of topics that do not set them.\n[topic_defaults]\n");
        for setting in SETTINGS {
            let value = self.config.topic_defaults.get(setting.name).unwrap_or_default();
            let _ = writeln!(out, "\n# {}\n# {}: {}", setting.meaning, setting.unit, setting.bounds);
            let origin = self.origin(&format!("topic_defaults.{}", setting.name));
            let _ = writeln!(out, "{} = {} # from {origin}", setting.name, toml::Value::String(value));
        }
        out
    }
}
