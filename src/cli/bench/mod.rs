//! `tidelog bench`: what this server reaches on this machine, and in the same run what the bare machine does.

mod compact;
mod connections;
mod filter;
mod groups;
mod kafka;
mod latencies;
mod latency;
mod limits;
mod outcome;
mod pace;
mod plot;
mod process;
mod produce;
mod producing;
mod reading;
mod recover;
mod request;
mod route;
mod session;
mod slow_consumer;
mod subscribers;
mod topics;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tidelog::client::Ack;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output;
use outcome::Outcome;
use session::Session;

/// How long threads that still measure something may take to notice that it is over.
const SHUTDOWN: std::time::Duration = std::time::Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  tidelog bench produce                               durable, pipelined, one connection
  tidelog bench produce --connections 16 --in-flight 256
  tidelog bench produce --ack written --size 100 --messages 5000000
  tidelog bench latency --in-flight 1                 one at a time: how long an acknowledgement takes
  tidelog bench latency --rate 2000 --seconds 10 --plot latency.svg
  tidelog bench replay --messages 2000000
  tidelog bench replay --server 127.0.0.1:7171 --topic orders
  tidelog bench consume --connections 4               four followers of one producer
  tidelog bench request --connections 64              requests and replies, in memory; with --durable, kept
  tidelog bench recover --messages 1000000            how soon it is ready after kill -9
  tidelog bench topics --topics 1000
  tidelog bench connections --connections 5000
  tidelog bench subscribers --connections 10000       idle subscribers: their memory, and until all have a record
  tidelog bench groups                                memory of 2,000 queue groups, and of records that are not acked
  tidelog bench slow-consumer                         a reader beside consumers that take nothing
  tidelog bench compact                               1,000,000 keys, 10 updates each: compaction, and what others notice
  tidelog bench kafka                                 librdkafka at the Kafka listener beside the native client: minutes
  tidelog bench filter                                a header, a key prefix, a JSON field: the cost of each record
  tidelog bench route --messages 200000               1, 10 and 100 rules on headers and JSON; lag behind the answer

Without --server it starts a server of its own on a temporary folder and takes both away at the end. Each run also
measures the bare limit on the same machine: the same bytes per sync to the same kind of file, a loopback copy, a ping-pong.
1 MB is 1,000,000 bytes. Latency counts from the intended time of sending.";

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Produces as fast as it is acknowledged
    Produce(Options),
    /// Consumers that follow a topic as it is written
    Consume(Options),
    /// Sends at a steady rate and measures until it is acknowledged and until it is consumed; with `--in-flight 1`, one at
    /// a time
    Latency(Options),
    /// Consumers that read a topic from its beginning; one, if not said
    Replay(Options),
    /// Requests to a responder, one at a time on each connection
    Request(Options),
    /// Kills the server under load and measures until it is ready again
    Recover(Options),
    /// Many topics written in turn, compared with one
    Topics(Options),
    /// Many idle connections: what they cost, and that others do not notice
    Connections(Options),
    /// Memory of many queue groups (`--connections` of them), and of one with many records that are not acked
    #[command(mut_arg("size", |size| size.default_value("8")))]
    Groups(Options),
    /// Many idle subscribers: what they cost, and how soon all of them have a record that is published
    Subscribers(Options),
    /// A reader beside consumers that take nothing of what they have asked for: what they cost it and the server
    SlowConsumer(Options),
    /// Compacts a topic in which each key was updated ten times (`--messages` in all, 10,000,000 if not said), alone and while
    /// others produce to it and read it
    #[command(mut_arg("size", |size| size.default_value("100")))]
    Compact(Options),
    /// Reads a topic without a filter and with several, and says what each costs the server for a record
    #[command(mut_arg("size", |size| size.default_value("300")))]
    Filter(Options),
    /// librdkafka at the Kafka listener beside the native client, on one server, in turn: produce, fetch and latencies
    /// (needs a program that was built with the feature librdkafka)
    Kafka(kafka::KafkaOptions),
    /// Routes records by 1, 10 and 100 rules on headers and on JSON, and measures how far routing lags behind the producer's
    /// answer
    Route(Options),
}

/// What all of them take; each uses what makes sense for it.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Server to measure; without it, one is started for the time
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
    /// Messages in all
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
    /// Bytes of a message's value
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=4_000_000))]
    pub size: u32,
    /// Connections, each with a producer or consumer of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Messages of a connection that may be unacknowledged; without it, as many as the producer's memory takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: Option<u32>,
    /// What counts as acknowledged: durable, written or none
    #[arg(long, default_value = "durable", value_parser = parse_ack)]
    pub ack: Ack,
    /// Messages a second
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// Requests are kept on disk
    #[arg(long)]
    pub durable: bool,
    /// Partitions of the topic; by default one a connection, 16 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: Option<u32>,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: u32,
    /// Seconds to measure, where it goes by time; for produce, in place of --messages
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub seconds: Option<f64>,
    /// Topic that is there already, for replay
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Bytes at which the producer's batches are full
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1_000..=8_000_000))]
    pub batch_bytes: Option<u32>,
    /// Write the distribution of latencies to an SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Messages in all, or so many bytes' worth of them.
    pub fn messages_or(&self, bytes: u64) -> u64 {
        self.messages.unwrap_or(bytes / u64::from(self.size)).max(1)
    }

    /// The same, and without end where it is the time that ends it.
    pub fn messages_or_time(&self, bytes: u64) -> u64 {
        match (self.messages, self.seconds) {
            (None, Some(_)) => u64::MAX,
            _ => self.messages_or(bytes),
        }
    }

    /// Seconds to measure, 5 if not said.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(5.0)
    }

    /// Connections, 1 if not said.
    pub fn connections(&self) -> u32 {
        self.connections.unwrap_or(1)
    }

    /// Partitions, as the help says.
    pub fn partitions(&self) -> u32 {
        self.partitions.unwrap_or(self.connections().min(16))
    }
}

fn parse_ack(text: &str) -> Result<Ack, String> {
    match text {
        "durable" => Ok(Ack::Durable),
        "written" => Ok(Ack::Written),
        "none" => Ok(Ack::None),
        other => Err(format!("'{other}' is none of durable, written, none")),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err(format!("{seconds} is not 0.1 to 86400")) }
}

/// The level's name, as on the command line.
fn ack_name(ack: Ack) -> &'static str {
    match ack {
        Ack::Durable => "durable",
        Ack::Written => "written",
        Ack::None => "none",
    }
}

impl Work {
    /// What all of them take, but one.
    fn options(&self) -> Option<&Options> {
        let options = match self {
            Self::Kafka(_) => return None,
            Self::Produce(options)
            | Self::Consume(options)
            | Self::Latency(options)
            | Self::Replay(options)
            | Self::Recover(options)
            | Self::Request(options)
            | Self::Topics(options)
            | Self::Connections(options)
            | Self::Groups(options)
            | Self::Subscribers(options)
            | Self::SlowConsumer(options)
            | Self::Compact(options)
            | Self::Filter(options)
            | Self::Route(options) => options,
        };
        Some(options)
    }

    fn json(&self) -> bool {
        match self {
            Self::Kafka(options) => options.json,
            _ => self.options().is_some_and(|options| options.json),
        }
    }

    fn plot(&self) -> Option<&Path> {
        self.options()?.plot.as_deref()
    }

    /// What cannot be told before anything is begun is told by the work itself.
    fn check(&self) -> Result<(), Failure> {
        let without_latencies = matches!(
            self,
            Self::Consume(_)
                | Self::Replay(_)
                | Self::Topics(_)
                | Self::Filter(_)
                | Self::SlowConsumer(_)
                | Self::Compact(_)
                | Self::Groups(_)
        );
        let nobody_answers = self.options().is_some_and(|options| options.ack == Ack::None);
        let wrong = |why: &str| Err(Failure::Usage(why.to_owned()));
        match self {
            Self::Produce(options) if options.plot.is_some() && nobody_answers => {
                wrong("--plot draws latencies, and nobody acknowledges with --ack none")
            }
            Self::Latency(options) if options.in_flight.is_some() && nobody_answers => {
                wrong("--in-flight waits for acknowledgements, and there are none with --ack none")
            }
            Self::Connections(_) if nobody_answers => {
                wrong("bench connections measures acknowledgements, and there are none with --ack none")
            }
            Self::Route(_) if nobody_answers => {
                wrong("bench route measures from the acknowledgement, and there are none with --ack none")
            }
            _ if without_latencies && self.plot().is_some() => wrong("--plot draws latencies, and this work has none"),
            _ => Ok(()),
        }
    }

    async fn measure(&self) -> Result<Outcome, Failure> {
        match self {
            Self::Produce(options) => produce::run(Session::open(options, &[]).await?, options).await,
            Self::Consume(options) => reading::consume(Session::open(options, &[]).await?, options).await,
            Self::Latency(options) => latency::run(Session::open(options, &[]).await?, options).await,
            Self::Replay(options) => reading::replay(Session::open(options, &[]).await?, options).await,
            Self::Recover(options) => recover::run(options).await,
            Self::Request(options) => request::run(Session::open(options, &[]).await?, options).await,
            Self::Topics(options) => topics::run(Session::open(options, &[]).await?, options).await,
            Self::Connections(options) => connections::run(options).await,
            Self::Groups(options) => groups::run(Session::open(options, &[]).await?, options).await,
            Self::Subscribers(options) => subscribers::run(options).await,
            Self::SlowConsumer(options) => slow_consumer::run(Session::open(options, &[]).await?, options).await,
            Self::Compact(options) => compact::run(options).await,
            Self::Kafka(options) => kafka::run(options).await,
            Self::Filter(options) => filter::run(Session::open(options, &[]).await?, options).await,
            Self::Route(options) => route::run(Session::open(options, &[]).await?, options).await,
        }
    }
}

/// Runs `bench`.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    args.work.check()?;
    // One message at a time is for one thread; the rest is for as many as there are.
    let mut builder = match args.work {
        Work::Latency(_) | Work::Connections(_) | Work::Request(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
    // Whichever way this ends, the work is dropped first, and its server and folder with it.
    let measured = runtime.block_on(async {
        let cannot_listen = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_listen)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot_listen)?;
        tokio::select! {
            measured = args.work.measure() => measured,
            _ = interrupt.recv() => Err(Failure::Failed("interrupted".to_owned())),
            _ = terminate.recv() => Err(Failure::Failed("interrupted".to_owned())),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    let outcome = measured?;
    outcome.print(&mut output::stdout(), args.work.json())?;
    args.work.plot().map_or(Ok(()), |path| plot::write(path, &outcome))
}
