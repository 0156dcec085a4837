//! `tidelog damage`: records that were acknowledged and cannot be read any more.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::client::DamageInfo;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, count, rfc3339, table};

const EXAMPLES: &str = "\
Examples:
  tidelog damage list
  tidelog damage list orders --json
  tidelog damage acknowledge orders       /ready answers 200 again
  tidelog damage acknowledge --all

Damage is found at the start, by readers, and by the scrubber, which reads all closed segments once a week
(scrub_rate, scrub_interval). Until it is acknowledged, /ready answers 503. It stays in the list until retention
has passed it, or 'tidelog repair' has given it up while the server was stopped. 'tidelog consume --skip-damaged'
reads what is left meanwhile.";

/// Options of `damage`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DamageArgs {
    #[command(subcommand)]
    command: DamageCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum DamageCommand {
    /// Lists damaged places
    List {
        /// Only those of this topic
        topic: Option<String>,
        /// So many at the most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Says that an operator has seen the damage, so that the server is ready again
    #[command(group(clap::ArgGroup::new("which").required(true).args(["topic", "all"])))]
    Acknowledge {
        /// Only that of this topic
        topic: Option<String>,
        /// All of it, the journal's included
        #[arg(long)]
        all: bool,
    },
}

/// Runs `damage`.
pub async fn run(args: DamageArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    let mut out = output::stdout();
    match args.command {
        DamageCommand::List { topic, limit } => {
            let (damage, total) = client.admin().list_damage(topic, limit).await?;
            if args.json {
                for place in &damage {
                    output::json_line(&mut out, &object(place))?;
                }
            } else if damage.is_empty() {
                output::complain("no damage is known");
            } else {
                let rows = damage.iter().map(row).collect();
                let header = ["topic", "partition", "from", "to", "found", "seen", "file", "byte", "what"];
                writeln!(out, "{}", table(&header, &[1, 2, 3, 7], rows))?;
            }
            if total > damage.len() as u64 {
                output::complain(&format!(
                    "{} more; --limit shows up to 1000",
                    count(total - damage.len() as u64, "place")
                ));
            }
        }
        DamageCommand::Acknowledge { topic, all: _ } => {
            let acknowledged = client.admin().acknowledge_damage(topic).await?;
            if args.json {
                output::json_line(&mut out, &json!({ "acknowledged": acknowledged }))?;
            } else {
                output::complain(&format!("{} acknowledged", count(acknowledged, "damaged place")));
            }
        }
    }
    Ok(out.flush()?)
}

fn object(place: &DamageInfo) -> serde_json::Value {
    json!({
        "topic": place.topic,
        "partition": place.partition,
        "from": place.from,
        "to": place.to,
        "file": place.file,
        "position": place.position,
        "what": place.what,
        "found": place.found_ms,
        "acknowledged": place.acknowledged,
    })
}

fn row(place: &DamageInfo) -> Vec<String> {
    vec![
        place.topic.clone().unwrap_or_else(|| "(journal)".to_owned()),
        place.partition.to_string(),
        place.from.to_string(),
        place.to.map_or_else(|| "?".to_owned(), |to| to.to_string()),
        rfc3339(place.found_ms),
        if place.acknowledged { "yes" } else { "no" }.to_owned(),
        place.file.clone(),
        place.position.to_string(),
        place.what.clone(),
    ]
}
