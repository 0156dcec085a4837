//! `tidelog produce`: records from the command line, a file or stdin, one a line, streamed in constant memory.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tidelog::base::{self, Clock, ErrorKind, Millis, SystemClock, TopicName, limits};
use tidelog::client::{Ack, Admin, Client, ClientError, Message, Producer, Receipt, RecordAt, RecordMetadata};
use tidelog::record::Compression;
use tokio::sync::mpsc;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::input::{self, Block, FileReader, Line};
use super::json::ReceiptLine;
use super::output::{self, Out, count, grouped};
use super::position::parse_pair;
use super::progress::{Progress, Unit};
use super::route::{ShownTrace, print_trace};
use super::wait_for;

/// Records whose acknowledgement is awaited; the client bounds their bytes, this bounds their number.
const RECORDS_IN_FLIGHT: usize = 64 * 1024;

const RECEIPT_TIMEOUT_HELP: &str = "After this time, POST that nothing has become of it [default: 7d]";
/// That time, if it is not said.
const RECEIPT_TIMEOUT: Millis = Millis(7 * 86_400_000);

/// Records whose receipts are asked for at once.
const RECEIPTS: usize = 1000;

/// How long a record that is to be explained may take to be routed.
const EXPLAIN_WAIT: Duration = Duration::from_secs(10);

/// How often it is looked whether something goes on; what lasts longer is told.
const PATIENCE: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  tidelog produce orders 'hello' 'world'              two records
  tidelog produce orders --file orders.jsonl          one record a line; on disk when the command returns
  tail -f app.log | tidelog produce logs              sends each line as it comes
  tidelog produce orders 'hello' --wait-for erp       returns when the group has acked it
  tidelog produce orders 'hello' --receipt-of erp --receipt-to https://crm.example/receipts
  tidelog produce orders 'later' --delay 1h --expires-in 2h
  printf 'k1:a\\nk2:b\\n' | tidelog produce users --key-separator : --header source=crm --json
  tidelog produce crm.state --tombstone acc-1         a record of this key without a value: forgotten when compacted
  tidelog produce orders --explain 'hello'             where the routes send it, and why

A topic that does not exist is created. Every byte of a line but its '\\n' is part of the record.";

/// When a record counts as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AckArg {
    /// Sent; nobody answers
    None,
    /// Written; survives a killed server, not a power cut
    Written,
    /// On disk
    Durable,
}

/// What a record that is refused does to the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// Stop there
    Stop,
    /// Tell, and go on with the next line
    Continue,
}

/// Options of `produce`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ProduceArgs {
    /// Topic to send to
    topic: TopicName,
    /// Records to send; without any, each line of --file or of standard input is one
    #[arg(value_name = "MESSAGE", conflicts_with = "file")]
    messages: Vec<String>,
    /// Read records from this file
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Key of every record
    #[arg(long, short, conflicts_with = "key_separator")]
    key: Option<String>,
    /// Each MESSAGE or line is a key; its record has no value, so that a compacted topic forgets the key
    #[arg(long, conflicts_with_all = ["key", "key_separator"])]
    tombstone: bool,
    /// What stands between the key and the value in each line
    #[arg(long, value_name = "SEP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Header of every record (repeatable)
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = parse_pair)]
    header: Vec<(String, String)>,
    /// When a record counts as sent
    #[arg(long, value_enum, default_value = "durable")]
    ack: AckArg,
    /// Partition to send to; without it, by key
    #[arg(long, short)]
    partition: Option<u32>,
    /// Compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// What a record that is refused does to the rest
    #[arg(long, value_enum, default_value = "stop")]
    on_error: OnError,
    /// Refuse a line longer than this
    #[arg(long, value_name = "SIZE", default_value_t = base::Bytes(limits::DEFAULT_BATCH_BYTES as u64))]
    max_message_bytes: base::Bytes,
    /// Let queue groups have the records only after this time
    #[arg(long, value_name = "DURATION")]
    delay: Option<Millis>,
    /// The records are of no use to queue groups after this time
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<Millis>,
    /// Wait until this group has acked every record; status 7 if it gives one up or passes it over
    #[arg(long, value_name = "GROUP")]
    wait_for: Option<String>,
    /// Wait at most so long for the group
    #[arg(long, value_name = "DURATION", requires = "wait_for")]
    wait_timeout: Option<Millis>,
    /// Have the server POST what becomes of each record in this group
    #[arg(long, value_name = "GROUP", requires = "receipt_to")]
    receipt_of: Option<String>,
    /// Where to POST it
    #[arg(long, value_name = "URL", requires = "receipt_of")]
    receipt_to: Option<String>,
    #[arg(long, value_name = "DURATION", requires = "receipt_of", help = RECEIPT_TIMEOUT_HELP)]
    receipt_timeout: Option<Millis>,
    /// Print {"topic","partition","offset","timestamp"} for each record; the timestamp is the record's own
    #[arg(long)]
    json: bool,
    /// Say where the routes send each record, and why; waits until they have
    #[arg(long, conflicts_with = "ack")]
    explain: bool,
    /// Print no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl ProduceArgs {
    fn receipt_timeout(&self) -> Duration {
        self.receipt_timeout.unwrap_or(RECEIPT_TIMEOUT).as_duration()
    }
}

/// Runs `produce`.
pub async fn run(args: ProduceArgs) -> Result<(), Failure> {
    if args.ack == AckArg::None && args.wait_for.is_some() {
        return Err(Failure::Usage(
            "with --ack none nobody knows where a record is, so --wait-for cannot wait".to_owned(),
        ));
    }
    if args.ack == AckArg::None && args.receipt_of.is_some() {
        return Err(Failure::Usage(
            "with --ack none nobody knows where a record is, so there are no receipts".to_owned(),
        ));
    }
    let (mut lines, length) = open_input(&args)?;
    let client = args.server.connect().await?;
    let ack = match args.ack {
        AckArg::None => Ack::None,
        AckArg::Written => Ack::Written,
        AckArg::Durable => Ack::Durable,
    };
    // What makes no sense is said before anything is sent.
    let groups: BTreeSet<&String> = args.wait_for.iter().chain(&args.receipt_of).collect();
    for group in groups {
        wait_for::check(&client, group, &args.topic).await?;
    }
    if let (Some(group), Some(url)) = (&args.receipt_of, &args.receipt_to) {
        client.ask_receipts(group, url, [], args.receipt_timeout()).await?;
    }
    let producer = client.producer().ack(ack).compression(args.compression).build().await?;
    let unit = if length.is_some() { Unit::Bytes } else { Unit::Records };
    let admin = args.explain.then(|| client.admin());
    let mut sending = Sending {
        admin,
        to_explain: Vec::new(),
        topic: args.topic.as_str().into(),
        producer,
        out: output::stdout(),
        in_flight: VecDeque::new(),
        progress: Progress::new(unit, length, "sending"),
        unit,
        line: 0,
        acknowledged: 0,
        bytes: 0,
        failed: 0,
        stopped: None,
        only: None,
        stored: Vec::new(),
        to_ask: Vec::new(),
        client: client.clone(),
        args,
    };
    let told = (!sending.args.quiet).then(|| tokio::spawn(tell_of_trouble(sending.producer.clone())));
    let worked = sending.run(&mut lines).await;
    if let Some(told) = told {
        told.abort();
    }
    sending.progress.finish();
    worked?;
    let (stored, group) = (std::mem::take(&mut sending.stored), sending.args.wait_for.clone());
    let (json, quiet, timeout) = (sending.args.json, sending.args.quiet, sending.args.wait_timeout);
    sending.finish()?;
    match group {
        Some(group) => wait_for::run(&client, &group, stored, timeout, json, quiet).await,
        None => Ok(()),
    }
}

/// Says why nothing goes on, once it has not for a moment, and that it goes on.
async fn tell_of_trouble(producer: Producer) {
    let (mut said, mut before) = (None, None);
    loop {
        tokio::time::sleep(PATIENCE).await;
        let now = producer.trouble().map(|error| (error.kind(), error.to_string()));
        match &now {
            Some((kind, why)) if before.is_some() && said != Some(*kind) => {
                output::complain(&format!("{why}; trying again"));
                said = Some(*kind);
            }
            None if said.take().is_some() => output::complain("records are stored again"),
            _ => {}
        }
        before = now;
    }
}

/// The lines to send, and how many bytes they are if that is known.
fn open_input(args: &ProduceArgs) -> Result<(mpsc::Receiver<Block>, Option<u64>), Failure> {
    let limit = args.max_message_bytes.as_usize();
    if !args.messages.is_empty() {
        let (sender, receiver) = mpsc::channel(1);
        let lines = args.messages.iter().map(|text| match text.len() {
            length if length > limit => Line::TooLong(length as u64),
            _ => Line::Whole(Bytes::copy_from_slice(text.as_bytes())),
        });
        // There is room for one, and this is the one.
        let _ = sender.try_send(Ok(lines.collect()));
        return Ok((receiver, None));
    }
    match &args.file {
        Some(path) if path.as_os_str() != "-" => {
            let (file, length) = FileReader::open(path).map_err(Failure::Failed)?;
            Ok((input::read_lines(file, limit), Some(length)))
        }
        _ => {
            if std::io::stdin().is_terminal() && !args.quiet {
                output::complain("one record a line; end with Ctrl-D");
            }
            Ok((input::read_lines(std::io::stdin(), limit), None))
        }
    }
}

/// A record that was handed to the producer.
struct InFlight {
    line: u64,
    bytes: u64,
    receipt: Receipt,
}

struct Sending {
    /// To ask where records went, if that is wanted.
    admin: Option<Admin>,
    to_explain: Vec<RecordMetadata>,
    topic: Arc<str>,
    args: ProduceArgs,
    producer: Producer,
    out: Out,
    in_flight: VecDeque<InFlight>,
    progress: Progress,
    unit: Unit,
    line: u64,
    acknowledged: u64,
    bytes: u64,
    failed: u64,
    stopped: Option<String>,
    /// The record, as long as it is the only one.
    only: Option<RecordMetadata>,
    /// Where the records are, if a group is waited for.
    stored: Vec<RecordAt>,
    /// Where those are whose receipts are still to be asked for.
    to_ask: Vec<RecordAt>,
    client: Client,
}

impl Sending {
    async fn run(&mut self, lines: &mut mpsc::Receiver<Block>) -> Result<(), Failure> {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while self.stopped.is_none() {
            tokio::select! {
                biased;
                _ = &mut interrupted => self.stopped = Some("interrupted".to_owned()),
                (sent, result) = next_outcome(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    self.settle(&sent, result)?;
                    self.explain().await?;
                    self.ask_receipts().await?;
                    if self.in_flight.is_empty() {
                        self.out.flush()?;
                    }
                }
                block = lines.recv(), if self.in_flight.len() < RECORDS_IN_FLIGHT => match block {
                    Some(Ok(block)) => self.send_all(block).await?,
                    Some(Err(error)) => self.stopped = Some(format!("cannot read the input: {error}")),
                    None => break,
                },
            }
        }
        // What has been handed over is still sent; its outcome is told.
        let flushed = self.producer.flush().await;
        while !self.in_flight.is_empty() {
            let (sent, result) = next_outcome(&mut self.in_flight).await;
            self.settle(&sent, result)?;
            self.explain().await?;
            self.ask_receipts().await?;
        }
        self.out.flush()?;
        match flushed {
            // A record's own outcome says more, and has been told.
            Err(error) if self.failed == 0 && self.stopped.is_none() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn send_all(&mut self, block: Vec<Line>) -> Result<(), Failure> {
        for line in block {
            if self.stopped.is_some() {
                break;
            }
            self.line += 1;
            let (content, bytes) = match line {
                Line::Whole(content) => {
                    let bytes = content.len() as u64;
                    (self.message(content), bytes)
                }
                Line::TooLong(size) => {
                    let limit = self.args.max_message_bytes.0;
                    let why = format!("{} bytes is more than the limit of {} bytes", grouped(size), grouped(limit));
                    (Err(why), size)
                }
            };
            self.progress.advance(if matches!(self.unit, Unit::Bytes) { bytes + 1 } else { 1 });
            match content {
                Err(why) => self.refuse(self.line, &why, true),
                Ok(message) => match self.producer.send(message).await {
                    Ok(receipt) => self.in_flight.push_back(InFlight { line: self.line, bytes, receipt }),
                    Err(error) => self.refuse(self.line, &error.to_string(), of_the_record(&error)),
                },
            }
        }
        Ok(())
    }

    /// The record that a line stands for.
    fn message(&self, line: Bytes) -> Result<Message, String> {
        let mut message = Message::to(Arc::clone(&self.topic));
        match &self.args.key_separator {
            Some(separator) => {
                let separator = separator.as_bytes();
                let at = line.windows(separator.len()).position(|window| window == separator);
                let at = at.ok_or_else(|| "there is no key separator in it".to_owned())?;
                message = message.key(line.slice(..at)).value(line.slice(at + separator.len()..));
            }
            None if self.args.tombstone => message = message.key(line),
            None => message = message.value(line),
        }
        if let Some(key) = &self.args.key {
            message = message.key(key.clone());
        }
        for (name, value) in &self.args.header {
            message = message.header(name.clone(), value.clone());
        }
        let now = SystemClock::new().wall_ms();
        if let Some(delay) = self.args.delay {
            message = message.deliver_at(now.saturating_add_unsigned(delay.0));
        }
        if let Some(span) = self.args.expires_in {
            message = message.expires_at(now.saturating_add_unsigned(span.0));
        }
        if let Some(partition) = self.args.partition {
            message = message.partition(partition);
        }
        Ok(message)
    }

    fn settle(&mut self, sent: &InFlight, result: Result<RecordMetadata, ClientError>) -> Result<(), Failure> {
        match result {
            Ok(record) => {
                self.acknowledged += 1;
                self.only = (self.acknowledged == 1).then(|| record.clone());
                self.bytes += sent.bytes;
                if let Some(offset) = record.offset {
                    let topic = || record.topic.as_ref().to_owned();
                    let at = || RecordAt { topic: topic(), partition: record.partition, offset };
                    self.stored.extend(self.args.wait_for.is_some().then(at));
                    self.to_ask.extend(self.args.receipt_of.is_some().then(at));
                }
                if self.args.json {
                    let line = ReceiptLine {
                        topic: &record.topic,
                        partition: record.partition,
                        offset: record.offset,
                        timestamp: record.timestamp,
                    };
                    output::json_line(&mut self.out, &line)?;
                }
                if self.admin.is_some() {
                    self.to_explain.push(record);
                }
            }
            Err(error) => self.refuse(sent.line, &error.to_string(), of_the_record(&error)),
        }
        Ok(())
    }

    /// Asks for the receipts of what was acknowledged, when it is worth a request.
    async fn ask_receipts(&mut self) -> Result<(), Failure> {
        let (Some(group), Some(url)) = (&self.args.receipt_of, &self.args.receipt_to) else { return Ok(()) };
        if self.to_ask.is_empty() || self.to_ask.len() < RECEIPTS && !self.in_flight.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.to_ask);
        let unasked = count(records.len() as u64, "record");
        let mut told = self.args.quiet;
        loop {
            let asked = self.client.ask_receipts(group, url, records.clone(), self.args.receipt_timeout()).await;
            match asked {
                Ok(()) => return Ok(()),
                // There is room again when others are taken.
                Err(error) if error.kind() == ErrorKind::Overloaded && self.stopped.is_none() => {
                    if !std::mem::replace(&mut told, true) {
                        self.progress.complain(&format!("waiting to ask for receipts: {error}"));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                // What is under way is still sent, and told of.
                Err(error) => {
                    let why = format!("no receipts asked for of the last {unasked} acknowledged: {error}");
                    self.stopped.get_or_insert(why);
                    return Ok(());
                }
            }
        }
    }

    /// Tells where the records went that were acknowledged.
    async fn explain(&mut self) -> Result<(), Failure> {
        let Some(admin) = &self.admin else { return Ok(()) };
        for record in self.to_explain.drain(..) {
            let Some(offset) = record.offset else { continue };
            let routes = admin.explain_record(&*record.topic, record.partition, offset, EXPLAIN_WAIT).await?;
            let trace = ShownTrace::new(&record.topic, record.partition, offset, &routes);
            if self.args.json {
                output::json_line(&mut self.out, &trace)?;
            } else {
                print_trace(&mut self.out, &trace)?;
            }
        }
        Ok(())
    }

    /// A line failed. What is wrong with the server would be wrong with every line, so it always stops.
    fn refuse(&mut self, line: u64, why: &str, of_the_record: bool) {
        self.failed += 1;
        let message = format!("line {line}: {why}");
        if of_the_record && self.args.on_error == OnError::Continue {
            self.progress.complain(&message);
        } else if self.stopped.is_none() {
            self.stopped = Some(message);
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let verb = if self.args.ack == AckArg::None { "sent" } else { "acknowledged" };
        match self.stopped {
            Some(why) => Err(Failure::Failed(format!("{why} ({} {verb})", count(self.acknowledged, "record")))),
            None if self.failed > 0 => Err(Failure::Failed(format!(
                "{} of {} failed, {} {verb}",
                grouped(self.failed),
                count(self.line, "line"),
                grouped(self.acknowledged)
            ))),
            None => {
                if !self.args.quiet
                    && let Some(RecordMetadata { topic, partition, offset: Some(offset), .. }) = &self.only
                {
                    output::complain(&format!("{verb} 1 record: {topic}/{partition} offset {offset}"));
                } else if !self.args.quiet {
                    let rate = output::rate(self.acknowledged, self.bytes, self.progress.elapsed());
                    output::complain(&format!("{verb} {rate}"));
                }
                Ok(())
            }
        }
    }
}

/// Whether another record could fare better.
fn of_the_record(error: &ClientError) -> bool {
    matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::CorruptBatch)
}

/// The outcome of the record sent longest ago. Nothing is lost when the future is dropped.
async fn next_outcome(queue: &mut VecDeque<InFlight>) -> (InFlight, Result<RecordMetadata, ClientError>) {
    poll_fn(|context: &mut Context<'_>| {
        let Some(front) = queue.front_mut() else { return Poll::Pending };
        let Poll::Ready(result) = Pin::new(&mut front.receipt).poll(context) else { return Poll::Pending };
        match queue.pop_front() {
            Some(sent) => Poll::Ready((sent, result)),
            None => Poll::Pending,
        }
    })
    .await
}
