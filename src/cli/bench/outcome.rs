//! What a run came to, for people and for programs.

use std::io::Write;

use serde_json::{Value, json};

use super::latencies::Latencies;
use super::session::Usage;
use crate::cli::failure::Failure;
use crate::cli::output::{Out, grouped, json_line};

/// A measured run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The sub-command.
    pub work: &'static str,
    /// What was done, one line.
    pub title: String,
    /// Messages, where they were counted.
    pub messages: Option<u64>,
    /// How long it took.
    pub seconds: f64,
    /// Messages a second, where the time is that of messages.
    pub messages_per_s: Option<f64>,
    /// Bytes of values in these messages.
    pub bytes: Option<u64>,
    /// What the bare machine reaches, bytes a second.
    pub limit_bytes_per_second: Option<f64>,
    /// Latencies, in microseconds.
    pub latency: Option<Latencies>,
    /// What the bare machine takes for the same, in microseconds.
    pub limit_us: Option<f64>,
    /// Overrides the ratio that follows from the figures above.
    pub ratio: Option<f64>,
    /// CPU and memory.
    pub usage: Usage,
    /// What else was measured, for people.
    pub notes: Vec<String>,
    /// The same for programs: one object for each part of the work that was measured by itself.
    pub cases: Vec<Value>,
}

impl Outcome {
    fn megabytes(&self) -> Option<f64> {
        self.bytes.map(|bytes| bytes as f64 / 1e6 / self.seconds)
    }

    /// Of what the bare machine does: throughput as a part of its, or latency as a multiple of its.
    fn ratio(&self) -> Option<f64> {
        let throughput = || Some(self.megabytes()? * 1e6 / self.limit_bytes_per_second?);
        let latency = || Some(self.latency.as_ref()?.at(0.5) as f64 / self.limit_us?);
        self.ratio.or_else(throughput).or_else(latency)
    }

    /// Prints it.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn print(&self, out: &mut Out, json: bool) -> Result<(), Failure> {
        if json {
            json_line(out, &self.json())?;
        } else {
            self.text(out)?;
        }
        Ok(out.flush()?)
    }

    fn json(&self) -> Value {
        let at = |quantile| self.latency.as_ref().map(|latency| latency.at(quantile));
        let round = |value: Option<f64>| value.map(|value| (value * 1000.0).round() / 1000.0);
        json!({
            "work": self.work,
            "messages": self.messages,
            "seconds": round(Some(self.seconds)),
            "messages_per_s": self.messages_per_s.map(f64::round),
            "mb_per_s": round(self.megabytes()),
            "limit_mb_per_s": round(self.limit_bytes_per_second.map(|limit| limit / 1e6)),
            "ratio": round(self.ratio()),
            "latency_us": {
                "p50": at(0.5),
                "p99": at(0.99),
                "p999": at(0.999),
                "p9999": at(0.9999),
                "max": self.latency.as_ref().map(Latencies::max),
            },
            "limit_us": round(self.limit_us),
            "server_rss_mib": round(self.usage.server_rss_mib),
            "server_cpu": round(self.usage.server_cpu),
            "client_cpu": round(self.usage.client_cpu),
            "cases": self.cases,
        })
    }

    fn text(&self, out: &mut Out) -> Result<(), Failure> {
        writeln!(out, "{}", self.title)?;
        if let (Some(messages), Some(rate)) = (self.messages, self.messages_per_s) {
            let rate = grouped(rate as u64);
            write!(out, "  {} messages in {:.2} s: {rate} messages/s", grouped(messages), self.seconds)?;
            match self.megabytes() {
                Some(megabytes) => writeln!(out, ", {megabytes:.1} MB/s")?,
                None => writeln!(out)?,
            }
        }
        if let Some(limit) = self.limit_bytes_per_second {
            writeln!(out, "  bare limit {:.1} MB/s", limit / 1e6)?;
        }
        if let Some(latency) = &self.latency {
            write!(out, "  latency")?;
            for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)] {
                write!(out, "  {name} {} us", grouped(latency.at(quantile)))?;
            }
            writeln!(out, "  max {} us", grouped(latency.max()))?;
        }
        if let Some(limit) = self.limit_us {
            writeln!(out, "  bare limit {limit:.0} us")?;
        }
        if let Some(ratio) = self.ratio() {
            writeln!(out, "  ratio {ratio:.2}")?;
        }
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        let shown =
            |value: Option<f64>, unit: &str| value.map_or("unknown".to_owned(), |value| format!("{value:.2}{unit}"));
        writeln!(
            out,
            "  server: {} resident, {}; client: {}",
            shown(self.usage.server_rss_mib, " MiB"),
            shown(self.usage.server_cpu, " cores"),
            shown(self.usage.client_cpu, " cores")
        )?;
        Ok(())
    }
}
