//! `tidelog demo`: the product at work in under a minute, on a server and a folder of its own. Every line that it prints
//! is a check that held; the first that does not ends it with exit status 1.

mod crash;
mod report;
mod samples;

mod story;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use crate::cli::own_server::Workspace;
use report::Report;

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog demo
  tidelog demo --json
  tidelog demo --keep                                 then: tidelog verify, dump and serve on what it left

It starts this same program as a server on a free port of 127.0.0.1, with its data in a temporary folder, and leaves
neither behind. Documents in ./data/*.jsonl are used where they exist, built-in copies where not.")]
pub struct DemoArgs {
    /// Print a JSON object for each check
    #[arg(long)]
    json: bool,
    /// Keep the data folder, and say where it is
    #[arg(long)]
    keep: bool,
}

/// Runs `demo`.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let cannot_listen = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_listen)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_listen)?;
    let workspace = Workspace::new("demo", args.keep)?;
    let mut report = Report::new(args.json);
    // Whichever way this ends, the story is dropped first, and its server with it; then the folder goes.
    let outcome = tokio::select! {
        told = story::tell(&mut report, &workspace) => told,
        _ = interrupt.recv() => Err(Failure::Failed("interrupted".to_owned())),
        _ = terminate.recv() => Err(Failure::Failed("interrupted".to_owned())),
    };
    if args.keep {
        report.kept(workspace.path())?;
    }
    outcome
}
