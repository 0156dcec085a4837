//! `tidelog route`: rules that send records on.

mod apply;
mod describe;
mod file;
mod show;
mod test;
mod wait;

use std::io;

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog::base::{Millis, TopicName};
use tidelog::client::{OffsetAt, StartAt};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;
use super::position::parse_from;

pub use show::{ShownTrace, print_trace};

const EXAMPLES: &str = "\
Examples:
  tidelog route test routes.toml --input invoices.jsonl      what would go where, and why; needs no server
  tidelog route apply routes.toml --dry-run                  what would change
  tidelog route apply routes.toml                            all of it or nothing; again changes nothing
  tidelog route list
  tidelog route describe billing --wait 30s                  once it has routed what is there now
  tidelog route pause billing
  tidelog route reset billing --to beginning --dry-run       what would be routed again, and where it would be twice
  tidelog route reset billing --to beginning                 routes everything again that it reads
  tidelog produce billing.invoices --explain '{...}'         where this record goes

A file of routes:
  [[route]]
  name  = \"billing\"
  from  = [\"billing.invoices\"]              # topics, with wildcards: crm.*.orders, crm.>
  match = \"all\"                             # or \"first\", the default
  split = \"$.lines[*]\"                      # each element becomes a record: 'part' beside 'value'
  otherwise = \"crm.unrouted\"

  [[route.to]]
  when  = 'value.customer.region == \"apac\"'  # CEL
  topic = \"crm.apac\"                         # a name, or an expression: '\"crm.\" + value.customer.region'
  take  = \"$.automotive\"                     # only this part of the document; or shape = '{\"id\": value.id}'
  key   = 'value.customer.id'
  headers = { source = '\"billing\"' }";

/// Options of `route`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Runs the routes of a file on documents, offline: what would go where, and why
    Test(test::TestArgs),
    /// Applies a file of routes as a whole, and says what changes and from where on
    Apply(apply::ApplyArgs),
    /// Lists all routes
    List,
    /// Shows a route: what it sent where, how far it is, what went wrong
    #[command(after_help = "\
Examples:
  tidelog route describe billing
  tidelog route describe billing --wait 30s           once it has routed what is there now
  tidelog route describe billing --json")]
    Describe {
        /// Its name
        route: TopicName,
        /// First wait until it has routed what is there now, for so long at most; status 5 if it has not
        #[arg(long, value_name = "DURATION")]
        wait: Option<Millis>,
    },
    /// Pauses a route; when this returns, what it had begun is done
    Pause {
        /// Its name
        route: TopicName,
    },
    /// Resumes a route
    Resume {
        /// Its name
        route: TopicName,
    },
    /// Moves the positions of a route: what lies behind them is routed again
    Reset {
        /// Its name
        route: TopicName,
        /// beginning, end, time:RFC3339 or ago:DURATION
        #[arg(long, value_name = "POSITION", value_parser = parse_from)]
        to: StartAt,
        /// Only print what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Deletes a route; what it has written stays
    Delete {
        /// Its name
        route: TopicName,
    },
}

/// Runs `route`.
pub async fn run(args: RouteArgs) -> Result<(), Failure> {
    let RouteArgs { command, json, server } = args;
    let command = match command {
        RouteCommand::Test(args) => return test::run(args, json),
        RouteCommand::Apply(args) => return apply::run(args, json, &server).await,
        other => other,
    };
    let admin = server.connect().await?.admin();
    match command {
        RouteCommand::Test(_) | RouteCommand::Apply(_) => Ok(()),
        RouteCommand::List => describe::list(&admin.list_routes().await?, json),
        RouteCommand::Describe { route, wait: None } => {
            describe::describe(&admin.describe_route(route.as_str()).await?, json)
        }
        RouteCommand::Describe { route, wait: Some(wait) } => {
            describe::describe(&wait::until_routed(&admin, route.as_str(), wait).await?, json)
        }
        RouteCommand::Pause { route } => {
            admin.pause_route(route.as_str()).await?;
            done(json, &route, "paused")
        }
        RouteCommand::Resume { route } => {
            admin.resume_route(route.as_str()).await?;
            done(json, &route, "resumed")
        }
        RouteCommand::Reset { route, to, dry_run } => {
            let to = match to {
                StartAt::Beginning => OffsetAt::Beginning,
                StartAt::End => OffsetAt::End,
                StartAt::Time(time) => OffsetAt::Timestamp(time),
                StartAt::Ago(span) => {
                    let now = jiff::Timestamp::now().as_millisecond();
                    OffsetAt::Timestamp(now.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
                }
                _ => return Err(Failure::Usage("use beginning, end, time:2026-01-31T08:00:00Z or ago:15m".to_owned())),
            };
            let from = admin.reset_route(route.as_str(), to, dry_run).await?;
            let writes = admin.describe_route(route.as_str()).await?;
            apply::print_reset(&route, &from, &writes, dry_run, json)
        }
        RouteCommand::Delete { route } => {
            admin.delete_route(route.as_str()).await?;
            done(json, &route, "deleted")
        }
    }
}

fn done(json: bool, route: &TopicName, what: &str) -> Result<(), Failure> {
    if json {
        return output::json_line(&mut io::stdout(), &json!({ "route": route.as_str(), "done": what }));
    }
    output::complain(&format!("route '{route}' is {what}"));
    Ok(())
}
