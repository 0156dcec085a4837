//! `tidelog route test`: the routes of a file on documents, without a server.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tidelog::base::{Clock, SystemClock, TopicName, limits};
use tidelog::expr::Input;
use tidelog::record::{Headers, Record};
use tidelog::route::{Aggregate, Effect, Explanation, Route, RouteSpec};

use super::super::failure::Failure;
use super::super::input::{FileReader, Line, LineReader};
use super::super::output::{self, Out};
use super::super::position::parse_pair;
use super::file;
use super::show::{Shown, ShownFailure, one_line};

const EXAMPLES: &str = "\
Examples:
  tidelog route test routes.toml --input invoices.jsonl              one document a line
  head -1 invoices.jsonl | tidelog route test routes.toml --input -
  tidelog route test routes.toml --input invoices.jsonl --totals     only what went where in the end
  tidelog route test routes.toml --input docs.jsonl --topic billing.invoices --header kind=urgent --json

It says for each document which condition holds, which doesn't, and what would go where. What a route writes goes on to the
routes of the file that read it, as on a server. At the end it counts what went where, what became a dead letter and why, and
which wholes still wait for parts.";

/// Options of `route test`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TestArgs {
    /// File of routes
    file: PathBuf,
    /// Documents, one a line; '-' for standard input
    #[arg(long, short, value_name = "DOCS")]
    input: PathBuf,
    /// Topic that they come from; without it, each route that reads no other's topics is asked as if they came from the first
    /// topic that it reads
    #[arg(long, short)]
    topic: Option<TopicName>,
    /// Key of every document
    #[arg(long, short)]
    key: Option<String>,
    /// Header of every document (repeatable)
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = parse_pair)]
    header: Vec<(String, String)>,
    /// Only this route
    #[arg(long, value_name = "NAME")]
    route: Option<TopicName>,
    /// Print only the totals
    #[arg(long)]
    totals: bool,
}

/// A route of the file, and what it holds of wholes that are not complete.
struct Asked {
    route: Route,
    /// The topic from which the documents come to it; `None` if only what other routes write does.
    topic: Option<String>,
    aggregate: Option<Aggregate>,
}

/// A record in a topic, on its way through the routes.
struct Going {
    topic: String,
    record: Record,
    /// Routes behind it.
    depth: usize,
    /// The route to be asked; `None` for all that read the topic.
    only: Option<usize>,
}

/// A line of `--json`.
#[derive(Serialize)]
struct TestLine<'a> {
    document: u64,
    topic: &'a str,
    #[serde(flatten)]
    shown: Shown<'a>,
}

/// What became of all documents: records by topic, dead letters by route and reason.
#[derive(Default, Serialize)]
struct Totals {
    documents: u64,
    /// Records that each topic got.
    topics: BTreeMap<String, u64>,
    /// Records that became dead letters, by route and reason.
    dead_letters: BTreeMap<String, BTreeMap<String, u64>>,
    /// Records, or parts of one, that nobody wanted, by route.
    unwanted: BTreeMap<String, u64>,
    /// Parts that still wait for others of their whole, by route.
    waiting: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct TotalsLine<'a> {
    totals: &'a Totals,
}

/// Runs `route test`.
pub fn run(args: TestArgs, json: bool) -> Result<(), Failure> {
    let mut test = Test::new(&args, json)?;
    let source: Box<dyn Read> = if args.input.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(FileReader::open(&args.input).map_err(Failure::Failed)?.0)
    };
    let headers: Headers = args.header.iter().map(|(name, value)| (name, Some(value))).collect();
    let mut reader = LineReader::new(source, limits::MAX_BATCH_BYTES);
    let mut out = output::stdout();
    let read = |error: io::Error| Failure::Failed(format!("cannot read '{}': {error}", args.input.display()));
    while let Some(lines) = reader.next_block().map_err(read)? {
        for line in lines {
            let value = match line {
                Line::Whole(value) => value,
                Line::TooLong(length) => {
                    let (limit, document) = (limits::MAX_BATCH_BYTES, test.totals.documents + 1);
                    return Err(Failure::Failed(format!(
                        "document {document} has {length} bytes; the limit is {limit}"
                    )));
                }
            };
            let record = Record {
                offset: test.totals.documents,
                timestamp: SystemClock::new().wall_ms(),
                key: args.key.clone().map(Bytes::from),
                value: Some(value),
                headers: headers.clone(),
            };
            test.document(record, &mut out)?;
        }
        out.flush()?;
    }
    test.finish(&mut out)?;
    Ok(out.flush()?)
}

struct Test {
    routes: Vec<Asked>,
    json: bool,
    /// Each document is shown, not only the totals.
    shows: bool,
    totals: Totals,
}

impl Test {
    fn new(args: &TestArgs, json: bool) -> Result<Self, Failure> {
        let specs = file::read(&args.file)?;
        let mut routes = Vec::new();
        for spec in &specs {
            let named = args.route.as_ref().is_none_or(|name| *name == spec.name);
            if !named {
                continue;
            }
            let fed = specs.iter().any(|other| other.name != spec.name && writes_to(other, spec));
            let topic = match &args.topic {
                Some(topic) => spec.reads(topic).then(|| topic.to_string()),
                // A wildcard stands for any one level, so a word does as well.
                None => {
                    let first = spec.from.first().map_or("", |pattern| pattern.as_str());
                    (!fed || args.route.is_some()).then(|| first.replace(['*', '>'], "any"))
                }
            };
            let aggregate = spec.aggregate.as_ref().map(|aggregate| Aggregate::new(aggregate.timeout));
            routes.push(Asked { route: Route::compile(spec).map_err(Failure::Failed)?, topic, aggregate });
        }
        if routes.iter().all(|asked| asked.topic.is_none()) {
            let what = match (&args.route, &args.topic) {
                (Some(name), Some(_)) => format!("it has no route '{name}' that reads that topic"),
                (Some(name), None) => format!("it has no route '{name}'"),
                (None, Some(_)) => "none of its routes reads that topic".to_owned(),
                (None, None) => "each of its routes reads what another one writes; say --topic or --route".to_owned(),
            };
            return Err(Failure::Failed(format!("'{}': {what}", args.file.display())));
        }
        Ok(Self { routes, json, shows: !args.totals, totals: Totals::default() })
    }

    fn document(&mut self, record: Record, out: &mut Out) -> Result<(), Failure> {
        self.totals.documents += 1;
        if self.shows && !self.json {
            let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            writeln!(out, "document {}  {}", self.totals.documents, one_line(&text))?;
        }
        let begin = |(at, asked): (usize, &Asked)| {
            let topic = asked.topic.clone()?;
            Some(Going { topic, record: record.clone(), depth: 0, only: Some(at) })
        };
        let mut going: VecDeque<Going> = self.routes.iter().enumerate().filter_map(begin).collect();
        while let Some(next) = going.pop_front() {
            for at in 0..self.routes.len() {
                let reads = match next.only {
                    Some(only) => only == at,
                    None => TopicName::new(&next.topic).is_ok_and(|topic| self.routes[at].route.spec().reads(&topic)),
                };
                if reads {
                    going.extend(self.ask(at, &next, out)?);
                }
            }
        }
        Ok(())
    }

    /// Asks a route; what it writes.
    fn ask(&mut self, at: usize, going: &Going, out: &mut Out) -> Result<Vec<Going>, Failure> {
        let Asked { route, aggregate, .. } = &mut self.routes[at];
        let (mut waits, mut refused) = (false, None);
        let whole = match aggregate {
            None => Some(going.record.clone()),
            Some(aggregate) => match aggregate.add(&going.record, going.record.timestamp) {
                Effect::Complete(whole) => Some(*whole),
                Effect::Waiting => {
                    waits = true;
                    None
                }
                Effect::Refused(failure) => {
                    refused = Some(failure);
                    None
                }
            },
        };
        let explanation = whole.map(|whole| {
            route.explain(&Input { topic: &going.topic, partition: 0, offset: whole.offset, record: &whole })
        });
        let explanation =
            explanation.unwrap_or_else(|| Explanation { parts: Vec::new(), routed: tidelog::route::Routed::default() });
        let name = route.spec().name.to_string();
        if let Some(failure) = refused.as_ref().or(explanation.routed.failure.as_ref()) {
            let reasons = self.totals.dead_letters.entry(name.clone()).or_default();
            *reasons.entry(failure.message.clone()).or_default() += 1;
        }
        if explanation.routed.unwanted > 0 {
            *self.totals.unwanted.entry(name).or_default() += explanation.routed.unwanted as u64;
        }
        if self.shows {
            let mut shown = Shown::new(route.spec(), &explanation);
            shown.waits = waits;
            if let Some(failure) = &refused {
                shown.failure = Some(ShownFailure { rule: &failure.rule, message: &failure.message });
            }
            if self.json {
                let document = self.totals.documents;
                output::json_line(out, &TestLine { document, topic: &going.topic, shown })?;
            } else {
                shown.print(out)?;
            }
        }
        let mut written = Vec::new();
        for output in explanation.routed.outputs {
            let got = self.totals.topics.entry(output.topic.to_string()).or_default();
            let record = Record {
                offset: *got,
                timestamp: output.timestamp,
                key: output.key,
                value: output.value,
                headers: output.headers,
            };
            *got += 1;
            // As on a server, a record that goes round is stopped by the routes themselves; this is for what is in memory.
            if going.depth < limits::ROUTE_HOPS as usize {
                let topic = output.topic.to_string();
                written.push(Going { topic, record, depth: going.depth + 1, only: None });
            }
        }
        Ok(written)
    }

    fn finish(&mut self, out: &mut Out) -> Result<(), Failure> {
        for asked in &self.routes {
            let waiting = asked.aggregate.as_ref().map_or(0, Aggregate::parts);
            if waiting > 0 {
                self.totals.waiting.insert(asked.route.spec().name.to_string(), waiting as u64);
            }
        }
        let totals = &self.totals;
        if self.json {
            return output::json_line(out, &TotalsLine { totals });
        }
        writeln!(out, "{}", output::count(totals.documents, "document"))?;
        for (topic, records) in &totals.topics {
            writeln!(out, "  {topic}: {}", output::count(*records, "record"))?;
        }
        for (route, reasons) in &totals.dead_letters {
            for (reason, records) in reasons {
                writeln!(out, "  dead letters of {route}: {records}: {}", one_line(reason))?;
            }
        }
        for (route, records) in &totals.unwanted {
            writeln!(out, "  {route}: no rule matched {}", output::count(*records, "record or part"))?;
        }
        for (route, parts) in &totals.waiting {
            writeln!(
                out,
                "  {route}: {} of incomplete wholes, which become dead letters in time",
                output::count(*parts, "part")
            )?;
        }
        Ok(())
    }
}

/// Whether one route writes what another one reads. Topics that are computed are not known before there are records.
fn writes_to(writer: &RouteSpec, reader: &RouteSpec) -> bool {
    writer.writes().iter().any(|topic| reader.reads(topic))
}
