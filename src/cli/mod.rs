//! Floor 6: the command line, one file a command.
//!
//! Data goes to stdout, everything else to stderr, the reason of a failure in one line. Exit status: [`failure::STATUSES`]. A closed stdout (`tidelog consume a | head`) is a reader that has enough, not a failure.

mod bench;
mod clock;
mod connection;
mod connections;
mod consume;
mod damage;
mod dead_letter;
mod demo;
mod dump;
mod ending;
mod failure;
mod group;
mod group_consume;
mod group_options;
mod group_records;
mod help;
mod info;
mod input;
mod json;
mod list;
mod output;
mod own_server;
mod position;
mod produce;
mod progress;
mod push;
mod receipts;
mod repair;
mod replay;
mod reply;
mod request;
mod requests;
mod route;
mod serve;
mod shell;
mod spout;
mod stream_consume;
mod template;
mod topic;
mod topic_trim;
mod transaction;
mod verify;
mod wait_for;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use failure::Failure;

const START: &str = "\
Start here:
  tidelog demo                                        see it work, with a kill -9 in the middle
  tidelog serve --data-dir ./data                     run a server on 127.0.0.1:7171
  echo '{\"total\":12}' | tidelog produce orders        send a record; it is on disk when the command returns
  tidelog consume orders --from beginning             read it back

'tidelog COMMAND --help' teaches each command by example.";

/// A durable message queue on a persistent log: acknowledged means on disk.
#[derive(Debug, Parser)]
#[command(
    name = "tidelog",
    version,
    max_term_width = 120,
    after_help = format!("{START}\n\n{}", failure::STATUSES)
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a server
    #[command(after_help = "\
Examples:
  tidelog serve --data-dir ./data                     on 127.0.0.1:7171
  tidelog serve --config tidelog.toml
  tidelog serve --data-dir ./data --print-config      what would be in force, and where each value comes from

It prints a line when it is ready. SIGTERM and Ctrl-C stop it cleanly; SIGKILL loses nothing that was acknowledged.")]
    Serve(serve::ServeArgs),
    /// Shows it at work in under a minute: a server of its own, sample data, a kill -9, a replay
    Demo(demo::DemoArgs),
    /// Sends records to a topic, one a line
    Produce(produce::ProduceArgs),
    /// Reads records of a topic from any point of its log
    Consume(consume::ConsumeArgs),
    /// Copies a range of one topic's log into another topic
    Replay(replay::ReplayArgs),
    /// Asks whoever responds on a topic, and waits for the reply or has it called back
    Request(request::RequestArgs),
    /// Answers each request on a topic with the output of a command
    Reply(reply::ReplyArgs),
    /// Lists, shows and cancels durable requests
    Requests(requests::RequestsArgs),
    /// Creates, lists, describes, changes, trims and deletes topics
    Topic(topic::TopicArgs),
    /// Creates, lists, describes, changes, pauses, resets and deletes groups
    Group(group::GroupArgs),
    /// Lists and describes transactions of Kafka producers, aborts them, forgets their ids
    #[command(alias = "transactions")]
    Transaction(transaction::TransactionArgs),
    /// Rules on the server that send records on, by their content; whole or in parts
    Route(route::RouteArgs),
    /// Sends records to HTTP endpoints, as webhooks
    Push(push::PushArgs),
    /// Lists and cancels receipts that the server is to POST
    Receipts(receipts::ReceiptsArgs),
    /// Lists, shows, sends back, edits and discards dead letters
    DeadLetter(dead_letter::DeadLetterArgs),
    /// Lists and acknowledges records that cannot be read any more
    Damage(damage::DamageArgs),
    /// Checks a data directory offline, every batch
    Verify(verify::VerifyArgs),
    /// Gives up what is damaged in a data directory, so that the rest can be used
    Repair(repair::RepairArgs),
    /// Prints what is in a segment, an index or a checkpoint
    Dump(dump::DumpArgs),
    /// Measures throughput, latency and recovery against the bare limits of this machine
    Bench(bench::BenchArgs),
    /// Shows what the server believes of its wall clock, and confirms it
    Clock(clock::ClockArgs),
    /// Lists and ends the connections that clients have open
    #[command(alias = "connection")]
    Connections(connections::ConnectionsArgs),
    /// Prints facts about the server
    Info(info::InfoArgs),
    /// Prints the server's metrics (Prometheus text format)
    Metrics(info::MetricsArgs),
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let parsed = help::fitted(Cli::command()).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if is_wrong_usage(&error) => {
            let asked: Vec<String> = std::env::args().skip(1).collect();
            output::complain(&in_one_line(&error.render().to_string(), &asked));
            return ExitCode::from(2);
        }
        // Help, and the version.
        Err(error) => error.exit(),
    };
    match run(cli.command) {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            output::complain(&message);
            ExitCode::from(1)
        }
        Err(Failure::As(status, message)) => {
            output::complain(&message);
            ExitCode::from(status as u8)
        }
        Err(Failure::Usage(message)) => {
            output::complain(&message);
            ExitCode::from(2)
        }
    }
}

fn is_wrong_usage(error: &clap::Error) -> bool {
    error.use_stderr() && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// What clap says in several lines: what is wrong, tips, and where the help is.
fn in_one_line(error: &str, asked: &[String]) -> String {
    let (said, usage) = error.split_once("Usage:").unwrap_or((error, ""));
    let (said, _) = said.split_once("For more information").unwrap_or((said, ""));
    let mut line = String::new();
    for part in said.lines().map(str::trim).filter(|part| !part.is_empty()) {
        let after = match line.chars().next_back() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        line.push_str(after);
        line.push_str(part.strip_prefix("error: ").unwrap_or(part));
    }
    let command = usage.split_whitespace().take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    let command: Vec<&str> = command.collect();
    let command = if command.is_empty() { command_of(asked) } else { command.join(" ") };
    format!("{line}; see '{command} --help'")
}

/// The command that somebody meant, as far as there is one of that name.
fn command_of(asked: &[String]) -> String {
    let mut command = Cli::command();
    let mut path = vec!["tidelog".to_owned()];
    for word in asked {
        let Some(next) = command.find_subcommand(word) else { break };
        path.push(next.get_name().to_owned());
        command = next.clone();
    }
    path.join(" ")
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args).map_err(Failure::failed),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Produce(args) => block_on(produce::run(args)),
        Command::Consume(args) => block_on(consume::run(args)),
        Command::Replay(args) => block_on(replay::run(args)),
        Command::Request(args) => block_on(request::run(args)),
        Command::Reply(args) => block_on(reply::run(args)),
        Command::Requests(args) => block_on(requests::run(args)),
        Command::Topic(args) => block_on(topic::run(args)),
        Command::Group(args) => block_on(group::run(args)),
        Command::Transaction(args) => block_on(transaction::run(args)),
        Command::Route(args) => block_on(route::run(args)),
        Command::Push(args) => block_on(push::run(args)),
        Command::Receipts(args) => block_on(receipts::run(args)),
        Command::Damage(args) => block_on(damage::run(args)),
        Command::DeadLetter(args) => block_on(dead_letter::run(args)),
        Command::Verify(args) => verify::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Clock(args) => block_on(clock::run(args)),
        Command::Connections(args) => block_on(connections::run(args)),
        Command::Info(args) => block_on(info::run(args)),
        Command::Metrics(args) => block_on(info::run_metrics(args)),
    }
}

/// Runs a client command: it has one connection and one thing to do, so one thread serves.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?.block_on(work)
}
