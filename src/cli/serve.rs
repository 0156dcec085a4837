//! `tidelog serve`. Stands in until the server is there.

use clap::Args;

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {}

/// Runs `serve`.
pub fn run(_args: ServeArgs) -> Result<(), String> {
    Err("serve is not there yet".to_owned())
}
