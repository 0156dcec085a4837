//! `tidelog clock`: what the server believes of its wall clock.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::base::Millis;
use tidelog::client::ClockDoubt;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, rfc3339, table};

const EXAMPLES: &str = "\
Examples:
  tidelog clock show
  tidelog clock confirm

A wall clock that leaps by more than five minutes, or is more than an hour ahead of when the
server was last seen to run, is doubted: nothing is deleted or expires because of it. It is
believed once it has kept steady for an hour (clock_quarantine), or when it is confirmed.
What becomes old by a clock that is confirmed is deleted: look at 'show' first.";

/// Options of `clock`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ClockArgs {
    #[command(subcommand)]
    command: ClockCommand,
    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum ClockCommand {
    /// Prints the server's times, and whether its wall clock is doubted
    Show,
    /// Says that the server's wall clock is right, so that it is doubted no more
    Confirm,
}

/// Runs `clock`.
pub async fn run(args: ClockArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    let mut out = output::stdout();
    match args.command {
        ClockCommand::Show => {
            let clock = client.admin().describe_clock().await?;
            if args.json {
                let line = json!({
                    "wall": clock.wall_ms,
                    "now": clock.now_ms,
                    "certain": clock.certain_ms,
                    "doubt": clock.doubt.as_ref().map(doubt_json),
                });
                output::json_line(&mut out, &line)?;
                return Ok(out.flush()?);
            }
            let mut rows = vec![
                vec!["wall clock".to_owned(), rfc3339(clock.wall_ms)],
                vec!["delays go by".to_owned(), rfc3339(clock.now_ms)],
                vec!["deletion goes by".to_owned(), rfc3339(clock.certain_ms.min(clock.wall_ms))],
            ];
            let verdict = clock.doubt.as_ref().map_or_else(|| "no".to_owned(), sentence);
            rows.push(vec!["doubted".to_owned(), verdict]);
            writeln!(out, "{}", table(&[], &[], rows))?;
        }
        ClockCommand::Confirm => {
            let doubt = client.admin().confirm_clock().await?;
            if args.json {
                output::json_line(&mut out, &json!({ "doubt": doubt.as_ref().map(doubt_json) }))?;
            } else {
                let what = doubt.map_or_else(
                    || "the wall clock was not doubted".to_owned(),
                    |doubt| format!("the wall clock is believed; it was doubted: {}", sentence(&doubt)),
                );
                output::complain(&what);
            }
        }
    }
    Ok(out.flush()?)
}

fn sentence(doubt: &ClockDoubt) -> String {
    let span = rough(doubt.ahead_ms.unsigned_abs());
    let side = if doubt.ahead_ms < 0 { "behind" } else { "ahead of" };
    let (since, than) = match doubt.at_start {
        true => ("at the start", "when the server was last seen to run"),
        false => ("since it leapt", "the time before"),
    };
    let left = rough(doubt.quarantine_ms.saturating_sub(doubt.steady_ms));
    format!("{since}: {span} {side} {than}; believed in {left} if it keeps steady")
}

/// A span as people say it: hours of days, minutes of hours, seconds of minutes.
fn rough(ms: u64) -> Millis {
    const HOUR: u64 = 3_600_000;
    let unit = match ms {
        0..HOUR => 1000,
        HOUR..172_800_000 => 60_000,
        _ => HOUR,
    };
    Millis(ms / unit * unit)
}

fn doubt_json(doubt: &ClockDoubt) -> serde_json::Value {
    json!({
        "at_start": doubt.at_start,
        "ahead_ms": doubt.ahead_ms,
        "steady_ms": doubt.steady_ms,
        "quarantine_ms": doubt.quarantine_ms,
    })
}
