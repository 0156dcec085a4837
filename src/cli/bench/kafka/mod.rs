//! `bench kafka`: librdkafka at the Kafka listener beside the native client at its own, on one server, in turn.

#[cfg(feature = "librdkafka")]
mod beside;
#[cfg(feature = "librdkafka")]
mod foreign;
#[cfg(feature = "librdkafka")]
mod measured;
#[cfg(feature = "librdkafka")]
mod native;

use clap::Args;

use crate::cli::failure::Failure;

use super::outcome::Outcome;

/// Options of `bench kafka`.
#[derive(Debug, Clone, Args)]
pub struct KafkaOptions {
    /// Server to measure; without it, one is started for the time
    #[arg(long, value_name = "ADDR", requires = "kafka_server")]
    pub server: Option<String>,
    /// Kafka listener of the same server
    #[arg(long, value_name = "ADDR", requires = "server")]
    pub kafka_server: Option<String>,
    /// Messages that each client produces and reads in a round; without it, 500 MB of them, 2,000,000 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// Bytes of a message's value; one after the other if there are several
    #[arg(long, value_name = "BYTES,..", value_delimiter = ',', default_values_t = [1024, 100], value_parser = clap::value_parser!(u32).range(8..=900_000))]
    pub size: Vec<u32>,
    /// How often each of the two is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Seconds for which each latency is measured in a round
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = super::parse_seconds)]
    pub seconds: f64,
    /// Messages a second to the consumer that waits for them
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// Bytes at which both producers' batches are full
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=4_000_000))]
    pub batch_bytes: u32,
    /// Milliseconds for which both producers let a batch wait that is not full
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub linger: u64,
    /// A setting of librdkafka, in place of the one that the bench makes or of its default; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub setting: Vec<(String, String)>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not NAME=VALUE")),
    }
}

/// Runs it.
#[cfg(feature = "librdkafka")]
pub async fn run(options: &KafkaOptions) -> Result<Outcome, Failure> {
    beside::run(options).await
}

/// Says how to get it.
#[cfg(not(feature = "librdkafka"))]
pub async fn run(_options: &KafkaOptions) -> Result<Outcome, Failure> {
    Err(Failure::Usage(
        "this program was built without librdkafka; with a C compiler and make: cargo run --release --features librdkafka -- \
         bench kafka"
            .to_owned(),
    ))
}
