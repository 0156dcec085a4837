//! `tidelog bench`: what this server reaches on this machine, and in the same run what the bare machine does.

mod connections;
mod latency;
mod limits;
mod outcome;
mod plot;
mod process;
mod produce;
mod recover;
mod replay;
mod session;
mod topics;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidelog::client::Ack;

use super::failure::Failure;
use super::output;
use session::Session;

const EXAMPLES: &str = "\
Examples:
  tidelog bench produce                               durable, pipelined, one connection
  tidelog bench produce --connections 16 --in-flight 256
  tidelog bench produce --ack written --size 100 --messages 5000000
  tidelog bench latency --in-flight 1                 one at a time: how long an acknowledgement takes
  tidelog bench latency --rate 2000 --seconds 10 --plot latency.svg
  tidelog bench replay --messages 2000000
  tidelog bench recover --messages 1000000            how soon it is ready after kill -9
  tidelog bench topics --topics 1000
  tidelog bench connections --connections 5000

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
    /// Consumers that read a topic from its beginning, all at once
    Consume(Options),
    /// Sends at a steady rate and measures until it is acknowledged and until it is consumed; with `--in-flight 1`, one at
    /// a time
    Latency(Options),
    /// One consumer that reads a topic from its beginning
    Replay(Options),
    /// Kills the server under load and measures until it is ready again
    Recover(Options),
    /// Many topics written in turn, compared with one
    Topics(Options),
    /// Many idle connections: what they cost, and that others do not notice
    Connections(Options),
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
    /// Partitions of the topic; by default one a connection, 16 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: Option<u32>,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: u32,
    /// Seconds to measure, where it goes by time
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    pub seconds: f64,
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

/// Runs `bench`.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    // One message at a time is for one thread; the rest is for as many as there are.
    let mut builder = match args.work {
        Work::Latency(_) | Work::Connections(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
    let (Work::Produce(options)
    | Work::Consume(options)
    | Work::Latency(options)
    | Work::Replay(options)
    | Work::Recover(options)
    | Work::Topics(options)
    | Work::Connections(options)) = &args.work;
    let measured = runtime.block_on(async {
        let interrupted = async {
            // Without the signal the process just ends.
            let _ = tokio::signal::ctrl_c().await;
            Err(Failure::Failed("interrupted".to_owned()))
        };
        let work = async {
            match &args.work {
                Work::Produce(options) => produce::run(Session::open(options).await?, options).await,
                Work::Consume(options) => replay::run(Session::open(options).await?, options, "consume").await,
                Work::Latency(options) => latency::run(Session::open(options).await?, options).await,
                Work::Replay(options) => {
                    let one = Options { connections: Some(1), ..options.clone() };
                    replay::run(Session::open(options).await?, &one, "replay").await
                }
                Work::Recover(options) => recover::run(options).await,
                Work::Topics(options) => topics::run(Session::open(options).await?, options).await,
                Work::Connections(options) => connections::run(Session::open(options).await?, options).await,
            }
        };
        tokio::select! {
            measured = work => measured,
            failed = interrupted => failed,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    let outcome = measured?;
    let mut out = output::stdout();
    if let Some(path) = &options.plot {
        plot::write(path, &outcome)?;
    }
    outcome.print(&mut out, options.json)
}
