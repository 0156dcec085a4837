//! `tidelog consume`: records from any point of the log, once or for as long as they come.

use std::cell::Cell;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use tidelog::base::{Clock, Isolation, SystemClock, TopicPattern};
use tidelog::client::{ConsumedRecord, Consumer, StartAt};
use tokio::time::Instant;

use super::connection::ServerArgs;
use super::ending::Ending;
use super::failure::Failure;
use super::group_consume;
use super::group_options::GroupOptions;
use super::json::{RecordLine, Shown, Text};
use super::output::{self, Out};
use super::position::{Until, parse_from, parse_rate, parse_to};
use super::progress::Progress;
use super::progress::Unit;
use super::template::{self, Parts, Template};

const EXAMPLES: &str = "\
Examples:
  tidelog consume orders                              everything there is, oldest first in each partition
  tidelog consume orders --from end --follow          what comes from now on, until Ctrl-C
  tidelog consume orders --from ago:15m --json        the last quarter of an hour, one JSON object a line
  tidelog consume orders --filter 'value.total > 100 && headers.region == \"eu\"'
  tidelog consume 'crm.>' --follow                    all topics below crm, those created later too
  tidelog consume orders --from ago:2h --to ago:1h --rate 100/s
  tidelog consume orders --from last:10 --format '%d %p/%o %k: %v\\n'
  tidelog consume orders --group erp                  share the work: each record goes to one member, and is acked
  tidelog consume orders --group audit --group-kind stream    share partitions: in order, and it goes on where it was
  tidelog consume 'crm.>' --group erp --follow --exec ./import.sh --max-deliveries 5

Where to start:
  beginning | end | offset:N | last:N | time:2026-01-31T08:00:00Z | ago:DURATION (90s, 15m, 7d)
  offset and last count offsets, in each partition. --to takes end, offset:N, time:... and ago:...; itself not included.

What a filter sees:
  key, value (the JSON document), headers.NAME, topic, partition, offset, timestamp; the language is CEL.
  A record for which it has no answer (no such field, not JSON) does not match.
";

/// Options of `consume`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n{}", template::HELP))]
pub struct ConsumeArgs {
    /// Topics to read, or patterns of their names: crm.*.accounts, crm.>
    #[arg(value_name = "TOPIC", required_unless_present = "group")]
    pub topics: Vec<TopicPattern>,
    /// Where to start [default: beginning]; a group that is there goes on where it was
    #[arg(long, value_name = "POSITION", value_parser = parse_from, allow_hyphen_values = true)]
    from: Option<StartAt>,
    /// Wait for more at the end, until Ctrl-C
    #[arg(long, short, conflicts_with = "until_end")]
    pub follow: bool,
    /// Stop at the end that there is when the command starts (the default)
    #[arg(long)]
    until_end: bool,
    /// Stop there, itself not included: end, offset:N, time:RFC3339 or ago:DURATION
    #[arg(long, value_name = "POSITION", value_parser = parse_to, conflicts_with_all = ["until_end", "follow", "group"])]
    to: Option<Until>,
    /// Print at most this many records a second
    #[arg(long, value_name = "N/s", value_parser = parse_rate, conflicts_with = "group")]
    rate: Option<f64>,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N")]
    pub max: Option<u64>,
    /// Read this partition only
    #[arg(long, short, conflicts_with = "group")]
    partition: Option<u32>,
    /// Print each record as a JSON object
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// With --json: print a value that is a JSON document as one, not as a text
    #[arg(long, requires = "json")]
    parse: bool,
    /// Print each record like this; by default '%v\n'
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<Template>,
    /// Pass over damaged batches, telling on stderr what was passed over
    #[arg(long)]
    skip_damaged: bool,
    /// What to see of transactions: read_committed, or read_uncommitted for open and aborted ones as well
    #[arg(long, value_name = "LEVEL", default_value_t, conflicts_with = "group")]
    isolation: Isolation,
    /// Print no summary
    #[arg(long, short)]
    quiet: bool,
    /// Print only records for which this CEL expression is true; the server evaluates it
    #[arg(long, value_name = "CEL")]
    pub filter: Option<String>,
    #[command(flatten)]
    pub group: GroupOptions,
    #[command(flatten)]
    pub server: ServerArgs,
}

impl ConsumeArgs {
    /// Where to start.
    pub fn start(&self) -> StartAt {
        self.from.unwrap_or(StartAt::Beginning)
    }

    /// Says that `--from` counts for nothing, if it was said.
    pub fn warn_of_from(&self, group: &str) {
        if self.from.is_some() && !self.quiet {
            output::complain(&format!(
                "group '{group}' is there already: --from counts only for partitions that are new to it ('tidelog group reset' \
                 moves it)"
            ));
        }
    }
}

/// Runs `consume`.
pub async fn run(args: ConsumeArgs) -> Result<(), Failure> {
    if args.max == Some(0) {
        return Ok(());
    }
    if let Some(option) = args.group.needs_group() {
        return Err(Failure::Usage(format!("{option} needs --group")));
    }
    // From here on an interrupt ends it in order, also while it connects.
    let ending = Ending::listen()?;
    let mut printer = Printer::new(&args);
    let worked = match &args.group.group {
        Some(group) => group_consume::run(&args, group, &mut printer, &ending).await,
        None => read(&args, &mut printer, &ending).await,
    };
    // What was read before a failure is the user's all the same.
    let flushed = printer.flush();
    printer.progress.finish();
    worked?;
    flushed?;
    if !args.quiet && output::is_watched() {
        let read = output::rate(printer.records, printer.bytes, printer.progress.elapsed());
        output::complain(&format!("read {read}"));
    }
    Ok(())
}

async fn read(args: &ConsumeArgs, printer: &mut Printer, ending: &Ending) -> Result<(), Failure> {
    let mut consumer = tokio::select! {
        consumer = open(args) => consumer?,
        () = ending.asked() => return Ok(()),
    };
    if consumer.positions().next().is_none() && !args.quiet {
        printer.progress.complain(if args.follow { "no topic matches yet" } else { "no topic matches" });
    }
    let started = Instant::now();
    loop {
        // Flushed when there is nothing to go on with, not for every record.
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                printer.flush()?;
                tokio::select! {
                    next = consumer.next() => next,
                    () = ending.asked() => return Ok(()),
                }
            }
        };
        printer.tell_skipped(&mut consumer);
        let Some(record) = next else { return Ok(()) };
        let record = record?;
        if let Some(rate) = args.rate {
            let due = started + Duration::from_secs_f64(printer.records as f64 / rate);
            if Instant::now() < due {
                printer.flush()?;
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = ending.asked() => return Ok(()),
                }
            }
        }
        printer.print(&record, None)?;
        if args.max.is_some_and(|max| printer.records >= max) {
            return Ok(());
        }
        if printer.records.is_multiple_of(1024) && ending.is_asked() {
            return Ok(());
        }
    }
}

async fn open(args: &ConsumeArgs) -> Result<Consumer, Failure> {
    let client = args.server.connect().await?;
    let mut builder = client.consumer();
    for topic in &args.topics {
        builder = match args.partition {
            Some(partition) => builder.topic_partition(topic.as_str(), partition),
            None => builder.topic(topic.as_str()),
        };
    }
    if let Some(max) = args.max {
        builder = builder.max_records(max);
    }
    if let Some(filter) = &args.filter {
        builder = builder.filter(filter);
    }
    builder = match args.to {
        None | Some(Until::End) => builder,
        Some(Until::Offset(offset)) => builder.until_offset(offset),
        Some(Until::Time(time)) => builder.until_time(time),
        Some(Until::Ago(span)) => builder.until_time(SystemClock::new().wall_ms() - span.as_i64()),
    };
    Ok(builder
        .from(args.start())
        .until_end(!args.follow)
        .skip_damaged(args.skip_damaged)
        .isolation(args.isolation)
        .build()
        .await?)
}

/// Where records are printed.
enum Sink {
    /// At once, as far as the buffer does not hold it.
    Out(Out),
    /// Not before somebody takes it: who has to know what is out writes it.
    Held(Vec<u8>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Out(out) => out.write(bytes),
            Self::Held(held) => held.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Out(out) => out.flush(),
            Self::Held(_) => Ok(()),
        }
    }
}

/// Prints records as the options say, and counts them.
pub struct Printer {
    out: Sink,
    template: Template,
    json: bool,
    parse: bool,
    records: u64,
    bytes: u64,
    progress: Progress,
    /// It was told that a filter had no answer.
    told: Cell<bool>,
}

impl Printer {
    fn new(args: &ConsumeArgs) -> Self {
        Self {
            out: match args.group.group {
                Some(_) => Sink::Held(Vec::new()),
                None => Sink::Out(output::stdout()),
            },
            template: args.format.clone().unwrap_or_else(Template::value_lines),
            json: args.json,
            parse: args.parse,
            records: 0,
            bytes: 0,
            progress: Progress::new(Unit::Records, args.max, "reading"),
            told: Cell::new(false),
        }
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// What was printed and not taken, of a member of a group.
    pub fn take(&mut self) -> Vec<u8> {
        match &mut self.out {
            Sink::Held(held) => std::mem::take(held),
            Sink::Out(_) => Vec::new(),
        }
    }

    /// Bytes that wait to be taken.
    pub fn held(&self) -> usize {
        match &self.out {
            Sink::Held(held) => held.len(),
            Sink::Out(_) => 0,
        }
    }

    /// Nothing that was printed waits any more, unless it is to be taken.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Counts a record without printing it.
    pub fn count(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
        self.progress.advance(1);
    }

    /// Prints a record; of a group's, which delivery of it this is.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn print(&mut self, record: &ConsumedRecord, attempt: Option<u32>) -> Result<(), Failure> {
        self.count(record.value.as_ref().map_or(0, |value| value.len() as u64));
        if self.json {
            let line = RecordLine {
                topic: &record.topic,
                partition: record.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref().map(Text),
                headers: &record.headers,
                value: record.value.as_deref().map(|value| Shown::of(value, self.parse)),
                attempt,
            };
            return output::json_line(&mut self.out, &line);
        }
        let parts = Parts {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        Ok(self.template.write(&mut self.out, &parts)?)
    }

    fn tell_skipped(&self, consumer: &mut Consumer) {
        if let (records @ 1.., reason) = consumer.unanswered()
            && !self.told.replace(true)
        {
            let records = output::count(records, "record");
            let reason = reason.unwrap_or("no reason is known");
            self.progress
                .complain(&format!("the filter had no answer for {records} so far, which are left out: {reason}"));
        }
        for gap in consumer.skipped() {
            self.progress.complain(&format!(
                "{}/{}: passed over offsets {} to {}: {}",
                gap.topic,
                gap.partition,
                gap.from,
                gap.to.saturating_sub(1),
                gap.reason
            ));
        }
    }
}
