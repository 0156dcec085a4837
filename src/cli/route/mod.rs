//! `tidelog route`: rules that send records on.

mod file;
mod show;
mod test;

use clap::{Args, Subcommand};

use super::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  tidelog route test routes.toml --input invoices.jsonl      what would go where, and why; needs no server
  tidelog route test routes.toml --input invoices.jsonl --json

A file of routes:
  [[route]]
  name  = \"billing\"
  from  = [\"billing.invoices\"]              # topics, with wildcards: crm.*.orders, crm.>
  match = \"all\"                             # or \"first\"
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
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Runs the routes of a file on documents, offline: what would go where, and why
    Test(test::TestArgs),
}

/// Runs `route`.
pub fn run(args: RouteArgs) -> Result<(), Failure> {
    match args.command {
        RouteCommand::Test(test) => test::run(test, args.json),
    }
}
