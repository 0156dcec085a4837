//! `tidelog info` and `tidelog metrics`: what a running server says of itself.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, grouped, rfc3339, table};

/// Options of `info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog info
  tidelog info --server 10.0.0.5:7171 --json")]
pub struct InfoArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Options of `metrics`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog metrics
  tidelog metrics | grep produce")]
pub struct MetricsArgs {
    /// Print one JSON object with the text as its member 'metrics'
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs `info`.
pub async fn run(args: InfoArgs) -> Result<(), Failure> {
    let info = args.server.connect().await?.admin().server_info().await?;
    let mut out = output::stdout();
    if args.json {
        let line = json!({
            "server": args.server.server,
            "server_id": info.server_id,
            "server_version": info.server_version,
            "started_at": info.started_at_ms,
            "uptime_ms": info.uptime_ms,
            "topics": info.topics,
            "partitions": info.partitions,
            "connections": info.connections,
            "recovery_ms": info.recovery_ms,
            "data_format": info.data_format,
            "disk_free_bytes": info.disk_free_bytes,
        });
        output::json_line(&mut out, &line)?;
        return Ok(out.flush()?);
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = vec![
        row("server", args.server.server),
        row("version", info.server_version),
        row("id", info.server_id),
        row("started", rfc3339(info.started_at_ms)),
        row("up for", output::seconds(Duration::from_millis(info.uptime_ms))),
        row("recovery took", output::seconds(Duration::from_millis(info.recovery_ms))),
        row("topics", grouped(info.topics)),
        row("partitions", grouped(info.partitions)),
        row("connections", grouped(info.connections)),
        row("data format", info.data_format.to_string()),
        row("room on disk", info.disk_free_bytes.map_or_else(|| "unknown".to_owned(), output::size)),
    ];
    writeln!(out, "{}", table(&[], &[], rows))?;
    Ok(out.flush()?)
}

/// Runs `metrics`.
pub async fn run_metrics(args: MetricsArgs) -> Result<(), Failure> {
    let text = args.server.connect().await?.admin().metrics().await?;
    let mut out = output::stdout();
    if args.json {
        output::json_line(&mut out, &json!({ "metrics": text }))?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    Ok(out.flush()?)
}
