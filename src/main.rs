//! The `tidelog` command.

mod cli {
    pub mod serve;
}

use clap::Parser;

/// A stand-in with one command, until the command line is here.
#[derive(Debug, clap::Parser)]
enum Command {
    /// Runs the server.
    Serve(cli::serve::ServeArgs),
}

fn main() -> std::process::ExitCode {
    let Command::Serve(args) = Command::parse();
    match cli::serve::run(args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidelog: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
