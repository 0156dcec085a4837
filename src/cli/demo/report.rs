//! What the demo prints: a line a check, for people or as JSON.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::output::{self, seconds};

/// Prints to stdout, each line at once.
pub struct Report {
    json: bool,
    started: Instant,
}

impl Report {
    /// A report for people, or in JSON.
    pub fn new(json: bool) -> Self {
        Self { json, started: Instant::now() }
    }

    /// A line between checks, for people only.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.line(text) }
    }

    /// A check that held. `figures` is an object; its members go into the JSON line.
    pub fn held(&self, step: &str, text: &str, figures: Value) -> Result<(), Failure> {
        if !self.json {
            return self.line(&format!("  ✓ {text}"));
        }
        let mut line = json!({ "step": step, "ok": true, "text": text });
        if let (Some(line), Value::Object(figures)) = (line.as_object_mut(), figures) {
            line.extend(figures);
        }
        self.line(&line.to_string())
    }

    /// The last line.
    pub fn done(&self) -> Result<(), Failure> {
        let took = self.started.elapsed();
        if self.json {
            return self.line(&json!({ "step": "done", "ok": true, "seconds": took.as_secs_f64() }).to_string());
        }
        self.line(&format!("\nEverything held, in {}. Now your own: tidelog serve --data-dir ./data", seconds(took)))
    }

    /// Where the data stays.
    pub fn kept(&self, path: &Path) -> Result<(), Failure> {
        if self.json {
            return self.line(&json!({ "step": "kept", "ok": true, "path": path.display().to_string() }).to_string());
        }
        self.line(&format!("The data is in {}: tidelog verify {0}", path.display()))
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = output::stdout();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }
}
