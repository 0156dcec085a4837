//! `tidelog replay`: copies a range of one topic into another, each copy saying in a header where it comes from.
//!
//! How far it is, it keeps as positions of a group of its own: in the topic it copies from, up to where all copies are on the
//! disk; in the topic it copies into, where that ended before anything behind those positions was written. So whoever
//! resumes it finds behind these ends what was copied and not noted, by the header [`NAME_HEADER`], and copies the rest. Where
//! compaction may have removed some of that, it goes by the order: what a partition has from another is always the first so
//! many of the records that belong there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, SelectAll};
use serde::{Deserialize, Serialize};
use tidelog::base::{Clock, SystemClock, TopicName};
use tidelog::client::{
    Admin, Client, CommitPosition, ConsumedRecord, Consumer, Message, NewTopic, OffsetAt, Producer, RecordMetadata,
    StartAt,
};
use tidelog::record::partition_for_key;
use tokio::time::Instant;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;
use super::position::{Until, parse_from, parse_rate, parse_to};
use super::progress::{Progress, Unit};

/// The header that says which record a copy was made from: `topic/partition/offset`.
const SOURCE_HEADER: &str = "tidelog-source";

/// The header that says which replay made a copy.
const NAME_HEADER: &str = "tidelog-replay";

/// Copies whose acknowledgement is awaited.
const IN_FLIGHT: usize = 16 * 1024;

/// Copies after which, or time after which it is noted how far it is.
const NOTED_RECORDS: u64 = 50_000;
const NOTED_EVERY: Duration = Duration::from_secs(2);

/// How long the topic it copies into has to be still before it is believed that the run that was interrupted writes nothing
/// more, and how long that is waited for: others may write into it.
const STILL: Duration = Duration::from_millis(500);
const STILL_AT_MOST: Duration = Duration::from_secs(3);
/// How long it is waited for a transaction of somebody else in the target.
const SEEN_AT_MOST: Duration = Duration::from_secs(30);

/// Bytes read ahead, for all partitions.
const AHEAD_BYTES: u64 = 16 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  tidelog replay orders --into orders-again                          all of it
  tidelog replay orders --from ago:2h --into orders-fix              the last two hours
  tidelog replay orders --from offset:100 --to offset:200 --into orders-sample
  tidelog replay orders --filter 'value.region == \"eu\"' --into orders-eu
  tidelog replay orders --from time:2026-01-31T08:00:00Z --to time:2026-01-31T09:00:00Z --into load --rate 500/s

  tidelog replay orders --into orders-again --resume 5f0c1a2b        goes on where that replay was interrupted

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
    /// Name of the replay, by which it can be resumed; one is made up if not given
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    name: Option<String>,
    /// Go on with the replay of this name where it was interrupted; its range and filter are those it began with
    #[arg(long, value_name = "NAME", conflicts_with_all = ["from", "to", "filter"])]
    resume: Option<String>,
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
    name: &'a str,
    records: u64,
    bytes: u64,
    seconds: f64,
}

/// What a replay remembers with its position in each partition that it copies from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    into: String,
    until: u64,
    filter: Option<String>,
}

/// A partition that is copied.
struct Part {
    partition: u32,
    /// Everything below is copied, and on the disk.
    done: u64,
    /// Everything below is handed to the producer.
    sent: u64,
    until: u64,
}

/// Runs `replay`.
pub async fn run(args: ReplayArgs) -> Result<(), Failure> {
    if args.topic == args.into {
        return Err(Failure::Usage(format!("'{}' cannot be replayed into itself", args.topic)));
    }
    let client = args.server.connect().await?;
    let mut copying = Copying::begin(&client, &args).await?;
    if !args.quiet && args.resume.is_none() && output::is_watched() {
        output::complain(&format!("replay {}: if it is interrupted, --resume {0} goes on with it", copying.name));
    }
    let interrupted = tokio::signal::ctrl_c();
    let worked = tokio::select! {
        worked = copying.run(&client, args.rate) => worked,
        _ = interrupted => Err(Failure::Failed("interrupted".to_owned())),
    };
    copying.progress.finish();
    let took = copying.progress.elapsed();
    if let Err(Failure::Failed(why)) = worked {
        let copied = output::count(copying.copied, "record");
        return Err(Failure::Failed(format!("{why} ({copied} copied; --resume {} goes on with it)", copying.name)));
    }
    worked?;
    // Nothing is left to be resumed.
    copying.admin.delete_group(copying.group(), true).await?;
    if args.json {
        let summary = Summary {
            topic: args.topic.as_str(),
            into: args.into.as_str(),
            name: &copying.name,
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

/// The range in each partition, by what the options say.
async fn parts(admin: &Admin, args: &ReplayArgs) -> Result<Vec<Part>, Failure> {
    let topic = args.topic.as_str();
    let now = SystemClock::new().wall_ms();
    let ago = |span: Duration| now.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    let mut parts = Vec::new();
    for at in admin.describe_topic(topic).await?.partitions {
        let by_time =
            async |time| Ok::<_, Failure>(admin.list_offsets(topic, at.partition, OffsetAt::Timestamp(time)).await?.0);
        let from = match args.from {
            StartAt::Beginning => at.log_start,
            StartAt::End => at.stable_end,
            StartAt::Offset(offset) if offset < at.log_start || offset > at.stable_end => {
                return Err(Failure::Failed(format!(
                    "offset {offset} of {topic}/{} is out of range: it holds {} to {}",
                    at.partition, at.log_start, at.stable_end
                )));
            }
            StartAt::Offset(offset) => offset,
            StartAt::Last(count) => at.stable_end.saturating_sub(count).max(at.log_start),
            StartAt::Time(time) => by_time(time).await?,
            StartAt::Ago(span) => by_time(ago(span)).await?,
        };
        let until = match args.to {
            Until::End => at.stable_end,
            Until::Offset(offset) => offset.min(at.stable_end),
            Until::Time(time) => by_time(time).await?,
            Until::Ago(span) => by_time(ago(span.as_duration())).await?,
        };
        parts.push(Part { partition: at.partition, done: from, sent: from, until: until.max(from) });
    }
    Ok(parts)
}

struct Copying {
    admin: Admin,
    name: String,
    topic: String,
    into: Arc<str>,
    filter: Option<String>,
    parts: Vec<Part>,
    /// Records behind the noted positions that are copied already.
    there: HashSet<(u32, u64)>,
    /// Where the topic it copies into is compacted: the last that each of its partitions has of each of the others.
    reached: HashMap<(u32, u32), u64>,
    /// Partitions of the topic it copies into.
    partitions: u32,
    copied: u64,
    bytes: u64,
    progress: Progress,
}

impl Copying {
    async fn begin(client: &Client, args: &ReplayArgs) -> Result<Self, Failure> {
        let admin = client.admin();
        admin.create_topic(NewTopic::new(args.into.as_str()).if_not_exists()).await?;
        let made_up = || format!("{:08x}", fastrand::u32(..));
        let name = args.resume.clone().or_else(|| args.name.clone()).unwrap_or_else(made_up);
        let mut copying = Self {
            admin,
            name,
            topic: args.topic.to_string(),
            into: args.into.as_str().into(),
            filter: args.filter.clone(),
            parts: Vec::new(),
            there: HashSet::new(),
            reached: HashMap::new(),
            partitions: 0,
            copied: 0,
            bytes: 0,
            progress: Progress::new(Unit::Records, None, "copying"),
        };
        let noted = copying.admin.positions(copying.group()).await?;
        match (args.resume.is_some(), noted.is_empty()) {
            (true, _) => copying.resume(client, noted).await?,
            (false, false) => {
                let name = &copying.name;
                return Err(Failure::Failed(format!(
                    "a replay named '{name}' is not finished: --resume {name} goes on with it"
                )));
            }
            (false, true) => {
                copying.parts = parts(&copying.admin, args).await?;
                copying.note().await?;
            }
        }
        Ok(copying)
    }

    /// The group whose positions say how far it is.
    fn group(&self) -> String {
        format!("replay.{}", self.name)
    }

    /// Takes up what is noted, and finds what was copied beyond.
    async fn resume(&mut self, client: &Client, noted: Vec<tidelog::client::GroupPosition>) -> Result<(), Failure> {
        let (sources, targets): (Vec<_>, Vec<_>) = noted.into_iter().partition(|at| at.topic == self.topic);
        for at in sources {
            let plan: Plan = serde_json::from_str(&at.metadata).map_err(|error| {
                Failure::Failed(format!("what replay '{}' noted cannot be read: {error}", self.name))
            })?;
            if plan.into != *self.into {
                return Err(Failure::Failed(format!(
                    "replay '{}' copies into '{}', not '{}'",
                    self.name, plan.into, self.into
                )));
            }
            self.filter = plan.filter;
            self.parts.push(Part { partition: at.partition, done: at.offset, sent: at.offset, until: plan.until });
        }
        if self.parts.is_empty() {
            return Err(Failure::Failed(format!(
                "there is no unfinished replay of '{}' named '{}'",
                self.topic, self.name
            )));
        }
        self.wait_until_still().await?;
        self.wait_until_seen().await?;
        let into = self.admin.describe_topic(self.into.as_ref()).await?;
        self.partitions = u32::try_from(into.partitions.len()).unwrap_or(u32::MAX);
        let compacted = into.settings.iter().any(|setting| setting.name == "cleanup" && setting.value != "delete");
        for at in targets {
            let start =
                into.partitions.iter().find(|found| found.partition == at.partition).map(|found| found.log_start);
            if let Some(start) = start.filter(|start| *start > at.offset) {
                return Err(Failure::Failed(format!(
                    "what replay '{}' had copied is not known any more: {}/{} begins at {start}, and what it wrote and had not \
                     noted lies from {} on; begin a new one",
                    self.name, self.into, at.partition, at.offset
                )));
            }
            let mut copies = client
                .consumer()
                .topic_partition(self.into.as_ref(), at.partition)
                .from(StartAt::Offset(at.offset))
                .until_end(true)
                .build()
                .await?;
            while let Some(record) = copies.next().await {
                let record = record?;
                if header(&record, NAME_HEADER) == Some(self.name.as_bytes())
                    && let Some(source) =
                        header(&record, SOURCE_HEADER).and_then(|source| std::str::from_utf8(source).ok())
                {
                    let mut parts = source.rsplitn(3, '/');
                    if let (Some(Ok(offset)), Some(Ok(partition))) =
                        (parts.next().map(str::parse), parts.next().map(str::parse))
                    {
                        self.there.insert((partition, offset));
                        if compacted {
                            let reached = self.reached.entry((partition, at.partition)).or_default();
                            *reached = offset.max(*reached);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What the interrupted run has sent may still be on its way into the log.
    async fn wait_until_still(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let mut ends = self.ends().await?;
        let mut since = Instant::now();
        while since.elapsed() < STILL && started.elapsed() < STILL_AT_MOST {
            tokio::time::sleep(STILL / 5).await;
            let now = self.ends().await?;
            if now != ends {
                (ends, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Behind somebody else's open transaction there may be copies that no reader sees yet: they would be made again.
    async fn wait_until_seen(&self) -> Result<(), Failure> {
        let into = self.admin.describe_topic(self.into.as_ref()).await?;
        let started = Instant::now();
        for at in &into.partitions {
            loop {
                let seen = self.ends().await?.into_iter().find(|(partition, _)| *partition == at.partition);
                let Some((_, seen)) = seen.filter(|(_, seen)| *seen < at.log_end) else { break };
                if started.elapsed() >= SEEN_AT_MOST {
                    return Err(Failure::Failed(format!(
                        "{}/{} is written to {}, and can be read only to {seen} because of an open transaction: what replay '{}' \
                         copied behind that is not known yet; resume it when the transaction has ended",
                        self.into, at.partition, at.log_end, self.name
                    )));
                }
                tokio::time::sleep(STILL / 5).await;
            }
        }
        Ok(())
    }

    async fn ends(&self) -> Result<Vec<(u32, u64)>, Failure> {
        let into = self.admin.describe_topic(self.into.as_ref()).await?;
        Ok(into.partitions.iter().map(|at| (at.partition, at.stable_end)).collect())
    }

    /// Notes how far it is; everything up to there is on the disk. First the one, then the other: in between, what is looked
    /// at on resuming is only more than needed.
    async fn note(&mut self) -> Result<(), Failure> {
        let plan = |part: &Part| Plan { into: self.into.to_string(), until: part.until, filter: self.filter.clone() };
        let sources = self.parts.iter().map(|part| CommitPosition {
            topic: self.topic.clone(),
            partition: part.partition,
            offset: part.sent,
            metadata: serde_json::to_string(&plan(part)).unwrap_or_default(),
        });
        let sources: Vec<_> = sources.collect();
        // As it ends now, before anything else is written.
        let ends = self.ends().await?;
        self.admin.commit_positions(self.group(), sources).await?;
        let targets = ends.into_iter().map(|(partition, offset)| CommitPosition {
            topic: self.into.to_string(),
            partition,
            offset,
            metadata: String::new(),
        });
        self.admin.commit_positions(self.group(), targets.collect()).await?;
        for part in &mut self.parts {
            part.done = part.sent;
        }
        Ok(())
    }

    async fn run(&mut self, client: &Client, rate: Option<f64>) -> Result<(), Failure> {
        let mut records: SelectAll<Consumer> = SelectAll::new();
        let open: Vec<&Part> = self.parts.iter().filter(|part| part.done < part.until).collect();
        for part in &open {
            let mut range = client
                .consumer()
                .topic_partition(&self.topic, part.partition)
                .from(StartAt::Offset(part.done))
                .until_offset(part.until)
                .prefetch(AHEAD_BYTES / open.len() as u64, 1_000_000);
            if let Some(filter) = &self.filter {
                range = range.filter(filter);
            }
            records.push(range.build().await?);
        }
        let producer = client.producer().build().await?;
        let mut receipts = FuturesOrdered::new();
        let (started, mut sent) = (Instant::now(), 0u64);
        let (mut noted, mut noted_at) = (0u64, Instant::now());
        loop {
            let record = tokio::select! {
                biased;
                Some(receipt) = receipts.next(), if !receipts.is_empty() => {
                    let _: RecordMetadata = receipt?;
                    self.one_more();
                    continue;
                }
                record = records.next(), if receipts.len() < IN_FLIGHT => record,
            };
            let Some(record) = record else { break };
            let record = record?;
            if let Some(part) = self.parts.iter_mut().find(|part| part.partition == record.partition) {
                part.sent = record.offset + 1;
            }
            if self.is_there(&record) {
                continue;
            }
            if let Some(rate) = rate {
                tokio::time::sleep_until(started + Duration::from_secs_f64(sent as f64 / rate)).await;
            }
            self.bytes += record.value.as_ref().map_or(0, |value| value.len() as u64);
            receipts.push_back(producer.send(copy_of(record, Arc::clone(&self.into), &self.name)).await?);
            sent += 1;
            if sent - noted >= NOTED_RECORDS || noted_at.elapsed() >= NOTED_EVERY {
                self.settle(&producer, &mut receipts).await?;
                self.note().await?;
                (noted, noted_at) = (sent, Instant::now());
            }
        }
        self.settle(&producer, &mut receipts).await
    }

    /// Whether it was copied before.
    fn is_there(&self, record: &ConsumedRecord) -> bool {
        let reached = |key: &Bytes| self.reached.get(&(record.partition, partition_for_key(key, self.partitions)));
        self.there.contains(&(record.partition, record.offset))
            || record.key.as_ref().and_then(reached).is_some_and(|reached| record.offset <= *reached)
    }

    /// Everything that was sent is on the disk.
    async fn settle(
        &mut self,
        producer: &Producer,
        receipts: &mut FuturesOrdered<tidelog::client::Receipt>,
    ) -> Result<(), Failure> {
        producer.flush().await?;
        while let Some(receipt) = receipts.next().await {
            receipt?;
            self.one_more();
        }
        Ok(())
    }

    fn one_more(&mut self) {
        self.copied += 1;
        self.progress.advance(1);
    }
}

fn header<'a>(record: &'a ConsumedRecord, name: &str) -> Option<&'a [u8]> {
    record.headers.get(name)
}

fn copy_of(record: ConsumedRecord, into: Arc<str>, name: &str) -> Message {
    let source = format!("{}/{}/{}", record.topic, record.partition, record.offset);
    let mut message = Message::to(into).timestamp(record.timestamp);
    if let Some(key) = record.key {
        message = message.key(key);
    }
    if let Some(value) = record.value {
        message = message.value(value);
    }
    // A copy of a copy names what it was copied from last; the earlier source can be followed from there.
    let own = |name: &[u8]| name == SOURCE_HEADER.as_bytes() || name == NAME_HEADER.as_bytes();
    for header in record.headers.iter().filter(|header| !own(header.name)) {
        let name = String::from_utf8_lossy(header.name).into_owned();
        message = match header.value {
            Some(value) => message.header(name, Bytes::copy_from_slice(value)),
            None => message.empty_header(name),
        };
    }
    message.header(SOURCE_HEADER, source).header(NAME_HEADER, name.to_owned())
}
