//! `tidelog replay`: copies a range of one topic into another, each copy saying in a header where it comes from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use serde::Serialize;
use tidelog::base::{Clock, SystemClock, TopicName};
use tidelog::client::{Client, ConsumedRecord, Message, OffsetAt, StartAt};
use tokio::time::Instant;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;
use super::position::{Until, parse_from, parse_rate, parse_to};
use super::progress::{Progress, Unit};

/// The header that says which record a copy was made from: `topic/partition/offset`.
const SOURCE_HEADER: &str = "tidelog-source";

/// Copies whose acknowledgement is awaited.
const IN_FLIGHT: usize = 16 * 1024;

const EXAMPLES: &str = "\
Examples:
  tidelog replay orders --into orders-again                          all of it
  tidelog replay orders --from ago:2h --into orders-fix              the last two hours
  tidelog replay orders --from offset:100 --to offset:200 --into orders-sample
  tidelog replay orders --filter 'value.region == \"eu\"' --into orders-eu
  tidelog replay orders --from time:2026-01-31T08:00:00Z --to time:2026-01-31T09:00:00Z --into load --rate 500/s

Key, value, headers and timestamp stay; a key goes to the partition it always goes to. Each copy has the header
tidelog-source with the topic, partition and offset it was made from. --to is not included.";

/// Options of `replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// Topic to copy from
    topic: TopicName,
    /// Where to start: beginning, offset:N, last:N, time:RFC3339 or ago:DURATION
    #[arg(long, value_name = "POSITION", default_value = "beginning", value_parser = parse_from)]
    from: StartAt,
    /// Where to stop, itself not included: end, offset:N, time:RFC3339 or ago:DURATION
    #[arg(long, value_name = "POSITION", default_value = "end", value_parser = parse_to)]
    to: Until,
    /// Topic to copy into; created if it does not exist
    #[arg(long, value_name = "TOPIC")]
    into: TopicName,
    /// At most this many records a second
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Copy only records for which this CEL expression is true; the server evaluates it
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// Print the summary as a JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Print no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    topic: &'a str,
    into: &'a str,
    records: u64,
    bytes: u64,
    seconds: f64,
}

/// Runs `replay`.
pub async fn run(args: ReplayArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    let ends = ends(&client, &args).await?;
    let mut copying = Copying { copied: 0, bytes: 0, progress: Progress::new(Unit::Records, None, "copying") };
    let worked = copying.run(&client, &args, ends).await;
    copying.progress.finish();
    let took = copying.progress.elapsed();
    worked.map_err(|failure| match failure {
        Failure::Failed(why) => Failure::Failed(format!("{why} ({} copied)", output::count(copying.copied, "record"))),
        other => other,
    })?;
    if args.json {
        let summary = Summary {
            topic: args.topic.as_str(),
            into: args.into.as_str(),
            records: copying.copied,
            bytes: copying.bytes,
            seconds: took.as_secs_f64(),
        };
        output::json_line(&mut std::io::stdout(), &summary)?;
    } else if !args.quiet {
        output::complain(&format!("copied {}", output::rate(copying.copied, copying.bytes, took)));
    }
    Ok(())
}

/// Where each partition's range ends; `None` for the end as it is when reading starts.
async fn ends(client: &Client, args: &ReplayArgs) -> Result<Option<HashMap<u32, u64>>, Failure> {
    let time = match args.to {
        Until::End => return Ok(None),
        Until::Offset(_) => None,
        Until::Time(time) => Some(time),
        Until::Ago(span) => Some(SystemClock::new().now_ms() - span.as_i64()),
    };
    let admin = client.admin();
    let mut ends = HashMap::new();
    for partition in admin.describe_topic(args.topic.as_str()).await?.partitions {
        let end = match (args.to, time) {
            (Until::Offset(offset), _) => offset.min(partition.stable_end),
            (_, Some(time)) => {
                admin.list_offsets(args.topic.as_str(), partition.partition, OffsetAt::Timestamp(time)).await?.0
            }
            _ => partition.stable_end,
        };
        ends.insert(partition.partition, end);
    }
    Ok(Some(ends))
}

struct Copying {
    copied: u64,
    bytes: u64,
    progress: Progress,
}

impl Copying {
    async fn run(
        &mut self,
        client: &Client,
        args: &ReplayArgs,
        ends: Option<HashMap<u32, u64>>,
    ) -> Result<(), Failure> {
        let mut range = client.consumer().topic(args.topic.as_str()).from(args.from).until_end(true);
        // Nothing behind the last of the ends is read; what lies between them is dropped below.
        if let Some(end) = ends.as_ref().and_then(|ends| ends.values().max()) {
            range = range.until_offset(*end);
        }
        if let Some(filter) = &args.filter {
            range = range.filter(filter);
        }
        let mut consumer = range.build().await?;
        let producer = client.producer().build().await?;
        let into: Arc<str> = args.into.as_str().into();
        let mut receipts = FuturesOrdered::new();
        let (started, mut sent) = (Instant::now(), 0u64);
        loop {
            let record = tokio::select! {
                biased;
                Some(receipt) = receipts.next(), if !receipts.is_empty() => {
                    let _: tidelog::client::RecordMetadata = receipt?;
                    self.copied += 1;
                    self.progress.advance(1);
                    continue;
                }
                record = consumer.next(), if receipts.len() < IN_FLIGHT => record,
            };
            let Some(record) = record else { break };
            let record = record?;
            if ends.as_ref().is_some_and(|ends| ends.get(&record.partition).is_none_or(|&end| record.offset >= end)) {
                continue;
            }
            if let Some(rate) = args.rate {
                tokio::time::sleep_until(started + Duration::from_secs_f64(sent as f64 / rate)).await;
            }
            self.bytes += record.value.as_ref().map_or(0, |value| value.len() as u64);
            receipts.push_back(producer.send(copy_of(record, Arc::clone(&into))).await?);
            sent += 1;
        }
        producer.flush().await?;
        while let Some(receipt) = receipts.next().await {
            receipt?;
            self.copied += 1;
            self.progress.advance(1);
        }
        Ok(())
    }
}

fn copy_of(record: ConsumedRecord, into: Arc<str>) -> Message {
    let source = format!("{}/{}/{}", record.topic, record.partition, record.offset);
    let mut message = Message::to(into).timestamp(record.timestamp);
    if let Some(key) = record.key {
        message = message.key(key);
    }
    if let Some(value) = record.value {
        message = message.value(value);
    }
    // A copy of a copy names what it was copied from last; the earlier source can be followed from there.
    for header in record.headers.into_iter().filter(|header| header.name != SOURCE_HEADER) {
        let name = String::from_utf8_lossy(&header.name).into_owned();
        message = match header.value {
            Some(value) => message.header(name, value),
            None => message.empty_header(name),
        };
    }
    message.header(SOURCE_HEADER, source)
}
