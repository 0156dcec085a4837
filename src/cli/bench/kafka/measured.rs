//! What was measured of both, and how it is shown.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::super::latencies::Latencies;
use crate::cli::output::{grouped, table};

/// What each client is to do.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Messages of a round.
    pub messages: u64,
    /// Bytes of a value.
    pub size: u32,
    /// Bytes at which a batch is full.
    pub batch_bytes: u32,
    /// How long one waits that is not full.
    pub linger: Duration,
    /// For how long a latency is measured.
    pub span: Duration,
    /// Messages a second, end to end.
    pub rate: u64,
}

impl Asked {
    /// Messages that are sent on time.
    pub fn on_time(&self) -> u64 {
        ((self.rate as f64 * self.span.as_secs_f64()) as u64).max(1)
    }
}

/// A topic that was read.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    /// From asking to the first message.
    pub first: Duration,
    /// From the first to the last.
    pub seconds: f64,
}

impl Fetched {
    /// One that has just come to its end.
    pub fn new(asked_at: Instant, first: Instant) -> Self {
        Self { first: first.duration_since(asked_at), seconds: first.elapsed().as_secs_f64().max(1e-9) }
    }
}

/// One round of a throughput.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Messages.
    pub messages: u64,
    /// How long they took.
    pub seconds: f64,
    /// CPU seconds of the server, if it is ours and the system tells.
    pub server_cpu: Option<f64>,
    /// The same of the client.
    pub client_cpu: Option<f64>,
    /// Until the first message, where that is another thing.
    pub first: Option<Duration>,
}

/// The throughput of one client.
#[derive(Debug, Clone, Default)]
pub struct Throughput(pub Vec<Round>);

/// A figure: its name in JSON and for people, and whether it is shown with parts of one.
struct Figure {
    name: &'static str,
    shown: &'static str,
    value: Option<f64>,
    precise: bool,
}

impl Throughput {
    /// The median over the rounds.
    fn median(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.0.iter().filter_map(figure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Messages a second.
    pub fn rate(&self) -> Option<f64> {
        self.median(|round| Some(round.messages as f64 / round.seconds))
    }

    fn figures(&self, size: u32) -> Vec<Figure> {
        let each = |cpu: Option<f64>, round: &Round| Some(cpu? * 1e9 / round.messages as f64);
        let rate = self.rate();
        let figure = |name, shown, value, precise| Figure { name, shown, value, precise };
        let mut figures = vec![
            figure("messages_per_s", "messages/s", rate, false),
            figure("mb_per_s", "MB/s", rate.map(|rate| rate * f64::from(size) / 1e6), true),
            figure("server_ns", "server CPU, ns each", self.median(|round| each(round.server_cpu, round)), false),
            figure("client_ns", "client CPU, ns each", self.median(|round| each(round.client_cpu, round)), false),
        ];
        let first = self.median(|round| Some(round.first?.as_secs_f64() * 1e3));
        if first.is_some() {
            figures.push(figure("first_ms", "first after, ms", first, true));
        }
        figures
    }
}

fn latencies(latencies: &Latencies) -> Vec<Figure> {
    let figure = |name, shown, quantile| {
        let value = Some(latencies.at(quantile) as f64);
        Figure { name, shown, value, precise: false }
    };
    vec![figure("p50_us", "p50, us", 0.5), figure("p99_us", "p99, us", 0.99), figure("p999_us", "p99.9, us", 0.999)]
}

/// Both clients at the same work.
#[derive(Debug, Default)]
pub struct Pair<T> {
    /// The native client.
    pub native: T,
    /// librdkafka.
    pub foreign: T,
}

/// Everything about messages of one size.
#[derive(Debug, Default)]
pub struct Measured {
    /// Bytes of a value.
    pub size: u32,
    /// Produced, acknowledged as durable.
    pub produce: Pair<Throughput>,
    /// Read from the beginning.
    pub fetch: Pair<Throughput>,
    /// One at a time, until it is acknowledged.
    pub acknowledged: Pair<Latencies>,
    /// At a steady rate, until it is acknowledged.
    pub paced: Pair<Latencies>,
    /// At a steady rate, until a consumer has it.
    pub end_to_end: Pair<Latencies>,
}

impl Measured {
    /// Each work with the figures of both.
    fn works(&self) -> Vec<(&'static str, &'static str, Vec<Figure>, Vec<Figure>)> {
        let rates = |pair: &Pair<Throughput>| (pair.native.figures(self.size), pair.foreign.figures(self.size));
        let times = |pair: &Pair<Latencies>| (latencies(&pair.native), latencies(&pair.foreign));
        [
            ("produce", "produce", rates(&self.produce)),
            ("fetch", "fetch", rates(&self.fetch)),
            ("acknowledge", "ack, one at a time", times(&self.acknowledged)),
            ("acknowledge_paced", "ack, at the rate", times(&self.paced)),
            ("end_to_end", "end to end, at the rate", times(&self.end_to_end)),
        ]
        .map(|(name, shown, (native, foreign))| (name, shown, native, foreign))
        .into()
    }

    /// One object for each work.
    pub fn cases(&self) -> Vec<Value> {
        let object = |figures: &[Figure]| {
            let members = figures.iter().map(|figure| (figure.name.to_owned(), json!(figure.value.map(rounded))));
            Value::Object(Map::from_iter(members))
        };
        let case = |(name, _, native, foreign): (&str, &str, Vec<Figure>, Vec<Figure>)| {
            let ratios = native.iter().zip(&foreign).map(|(native, foreign)| {
                (native.name.to_owned(), json!(ratio(native.value, foreign.value).map(rounded)))
            });
            let ratios = Value::Object(Map::from_iter(ratios));
            json!({
                "work": name,
                "size": self.size,
                "native": object(&native),
                "librdkafka": object(&foreign),
                "ratio": ratios,
            })
        };
        self.works().into_iter().map(case).collect()
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// librdkafka's figure as a part of the native client's.
pub fn ratio(native: Option<f64>, foreign: Option<f64>) -> Option<f64> {
    Some(foreign? / native.filter(|native| *native > 0.0)?)
}

/// A table of all sizes, for people.
pub fn shown(all: &[Measured]) -> String {
    let unknown = || "unknown".to_owned();
    let mut rows = Vec::new();
    for measured in all {
        for (_, work, native, foreign) in measured.works() {
            for (number, (native, foreign)) in native.iter().zip(&foreign).enumerate() {
                let figure = |figure: &Figure| match figure.value {
                    Some(value) if figure.precise => format!("{value:.1}"),
                    Some(value) => grouped(value.round() as u64),
                    None => unknown(),
                };
                let first = |text: String| if number == 0 { text } else { String::new() };
                rows.push(vec![
                    first(work.to_owned()),
                    first(grouped(u64::from(measured.size))),
                    native.shown.to_owned(),
                    figure(native),
                    figure(foreign),
                    ratio(native.value, foreign.value).map_or_else(unknown, |ratio| format!("{ratio:.2}")),
                ]);
            }
        }
    }
    table(&["work", "bytes", "figure", "native", "librdkafka", "ratio"], &[1, 3, 4, 5], rows)
}
