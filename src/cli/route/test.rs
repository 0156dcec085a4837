//! `tidelog route test`: the routes of a file on documents, without a server.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tidelog::base::{Clock, SystemClock, TopicName, limits};
use tidelog::expr::Input;
use tidelog::record::{Headers, Record};
use tidelog::route::{Aggregate, Effect, Explanation, Route};

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
  tidelog route test routes.toml --input docs.jsonl --topic billing.invoices --header kind=urgent --json

It says for each document which condition holds, which doesn't, and what would go where. Routes that read the same topic are
asked one after the other; what they write is not routed again.";

/// Options of `route test`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TestArgs {
    /// File of routes
    file: PathBuf,
    /// Documents, one a line; '-' for standard input
    #[arg(long, short, value_name = "DOCS")]
    input: PathBuf,
    /// Topic that they come from; without it, each route is asked as if they came from the first topic that it reads
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
}

/// A route of the file, and what it holds of wholes that are not complete.
struct Asked {
    route: Route,
    topic: String,
    aggregate: Option<Aggregate>,
}

/// A line of `--json`.
#[derive(Serialize)]
struct TestLine<'a> {
    document: u64,
    topic: &'a str,
    #[serde(flatten)]
    shown: Shown<'a>,
}

/// Runs `route test`.
pub fn run(args: TestArgs, json: bool) -> Result<(), Failure> {
    let mut asked = Vec::new();
    for spec in file::read(&args.file)? {
        let named = args.route.as_ref().is_none_or(|name| *name == spec.name);
        let reads = args.topic.as_ref().is_none_or(|topic| spec.reads(topic));
        if !named || !reads {
            continue;
        }
        // A wildcard stands for any one level, so a word does as well.
        let first = spec.from.first().map_or("", |pattern| pattern.as_str());
        let topic = args.topic.as_ref().map_or(first.replace(['*', '>'], "any"), ToString::to_string);
        let aggregate = spec.aggregate.as_ref().map(|aggregate| Aggregate::new(aggregate.timeout));
        asked.push(Asked { route: Route::compile(&spec).map_err(Failure::Failed)?, topic, aggregate });
    }
    if asked.is_empty() {
        let what = args.route.map_or("none of its routes reads that topic".to_owned(), |name| {
            format!("it has no route '{name}' that reads that topic")
        });
        return Err(Failure::Failed(format!("'{}': {what}", args.file.display())));
    }
    let source: Box<dyn Read> = if args.input.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(FileReader::open(&args.input).map_err(Failure::Failed)?.0)
    };
    let headers: Headers = args.header.iter().map(|(name, value)| (name, Some(value))).collect();
    let mut reader = LineReader::new(source, limits::MAX_BATCH_BYTES);
    let mut out = output::stdout();
    let mut number = 0;
    let read = |error: io::Error| Failure::Failed(format!("cannot read '{}': {error}", args.input.display()));
    while let Some(lines) = reader.next_block().map_err(read)? {
        for line in lines {
            let value = match line {
                Line::Whole(value) => value,
                Line::TooLong(length) => {
                    let limit = limits::MAX_BATCH_BYTES;
                    return Err(Failure::Failed(format!(
                        "document {} has {length} bytes; the limit is {limit}",
                        number + 1
                    )));
                }
            };
            let record = Record {
                offset: number,
                timestamp: SystemClock::new().wall_ms(),
                key: args.key.clone().map(Bytes::from),
                value: Some(value),
                headers: headers.clone(),
            };
            number += 1;
            if !json {
                let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                writeln!(out, "document {number}  {}", one_line(&text))?;
            }
            for asked in &mut asked {
                asked.show(&record, number, json, &mut out)?;
            }
        }
        out.flush()?;
    }
    Ok(out.flush()?)
}

impl Asked {
    fn show(&mut self, record: &Record, number: u64, json: bool, out: &mut Out) -> Result<(), Failure> {
        let mut waits = false;
        let mut refused = None;
        let whole = match &mut self.aggregate {
            None => Some(record.clone()),
            Some(aggregate) => match aggregate.add(record, record.timestamp) {
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
            let input = Input { topic: &self.topic, partition: 0, offset: whole.offset, record: &whole };
            self.route.explain(&input)
        });
        let explanation =
            explanation.unwrap_or_else(|| Explanation { parts: Vec::new(), routed: tidelog::route::Routed::default() });
        let mut shown = Shown::new(self.route.spec(), &explanation);
        shown.waits = waits;
        if let Some(failure) = &refused {
            shown.failure = Some(ShownFailure { rule: &failure.rule, message: &failure.message });
        }
        if json {
            output::json_line(out, &TestLine { document: number, topic: &self.topic, shown })
        } else {
            shown.print(out)
        }
    }
}
