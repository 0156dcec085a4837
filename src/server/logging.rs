//! Logs, on stderr.

use std::io;

use tracing_subscriber::EnvFilter;

use super::config::{ConfigError, LogFormat, ServerConfig};

/// Sends logs to stderr in the form and with the level of the configuration. Once a process; later calls do nothing.
///
/// # Errors
/// The level is neither a level nor a list of directives.
pub fn start(config: &ServerConfig) -> Result<(), ConfigError> {
    let filter = EnvFilter::builder()
        .parse(&config.log_level)
        .map_err(|error| ConfigError(format!("log_level = \"{}\": {error}", config.log_level)))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second start fails because there is a subscriber: then that one stays.
    let _ = match config.log_format {
        LogFormat::Text => logs.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    Ok(())
}
