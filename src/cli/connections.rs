//! `tidelog connections`: who is connected, and ending a connection.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tidelog::client::Admin;

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, rfc3339, table};

/// Lines that are asked for at a time.
const PAGE: u32 = 1_000;

/// Options of `connections`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidelog connections list
  tidelog connections list --door kafka --json
  tidelog connections close 17                        its client sees the connection end; most clients connect again

A client says its own name: --client-name here, client.id in Kafka's clients, the user agent over HTTP.")]
pub struct ConnectionsArgs {
    #[command(subcommand)]
    command: ConnectionsCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum ConnectionsCommand {
    /// Lists the connections that are open
    List {
        /// Only of this listener
        #[arg(long, value_enum)]
        door: Option<Door>,
    },
    /// Ends connections
    Close {
        /// Their numbers, as 'connections list' shows them
        #[arg(required = true)]
        id: Vec<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Door {
    /// Native clients
    Native,
    /// The listener of administration
    Admin,
    /// Kafka clients
    Kafka,
    /// HTTP clients
    Http,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Admin => "admin",
            Self::Kafka => "kafka",
            Self::Http => "http",
        }
    }
}

/// Runs `connections`.
pub async fn run(args: ConnectionsArgs) -> Result<(), Failure> {
    let admin = args.server.connect().await?.admin();
    match args.command {
        ConnectionsCommand::List { door } => list(&admin, door, args.json).await,
        ConnectionsCommand::Close { id } => {
            let mut out = output::stdout();
            for id in id {
                admin.close_connection(id).await?;
                if args.json {
                    output::json_line(&mut out, &json!({ "id": id, "closed": true }))?;
                } else {
                    output::complain(&format!("connection {id} is closed"));
                }
            }
            Ok(out.flush()?)
        }
    }
}

async fn list(admin: &Admin, door: Option<Door>, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    let (mut after, mut rows) = (0, Vec::new());
    loop {
        let (page, more) = admin.connection_page(door.map(Door::name), after, PAGE).await?;
        for one in page {
            after = one.id;
            if json {
                let line = json!({
                    "id": one.id, "door": one.door, "peer": one.peer, "client": one.client, "since": one.since_ms,
                });
                output::json_line(&mut out, &line)?;
            } else {
                let client = if one.client.is_empty() { "-".to_owned() } else { one.client };
                rows.push(vec![one.id.to_string(), one.door, one.peer, rfc3339(one.since_ms), client]);
            }
        }
        if !more {
            break;
        }
    }
    if !json && !rows.is_empty() {
        writeln!(out, "{}", table(&["id", "door", "peer", "since", "client"], &[0], rows))?;
    }
    out.flush()?;
    Ok(())
}
