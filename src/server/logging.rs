//! Logs, on stderr.

use std::io::{self, IsTerminal, Write};

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
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    let colours = io::stderr().is_terminal();
    // A second start fails because there is a subscriber: then that one stays.
    let _ = match config.log_format {
        LogFormat::Text => {
            let writer = move || OneLine { to: io::stderr(), colours };
            logs.with_writer(writer).with_target(false).with_ansi(colours).try_init()
        }
        LogFormat::Json => {
            let logs = logs.with_writer(io::stderr).json().flatten_event(true);
            logs.with_current_span(true).with_span_list(false).try_init()
        }
    };
    Ok(())
}

/// Keeps each event on one line. Some words in it are a peer's: a line break among them would begin a line that looks like
/// one of the server's, and an escape sequence would speak to the operator's terminal.
struct OneLine<W> {
    to: W,
    /// The formatter sets colours itself, and escapes the sequences in values.
    colours: bool,
}

impl<W: Write> Write for OneLine<W> {
    /// Takes a whole event, which ends with a line break.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let harmful = |character: char| character.is_control() && !(self.colours && character == '\x1b');
        if line.contains(harmful) {
            let mut escaped = String::with_capacity(line.len() + 16);
            for character in line.chars() {
                match harmful(character) {
                    true => escaped.extend(character.escape_default()),
                    false => escaped.push(character),
                }
            }
            escaped.push_str(end);
            self.to.write_all(escaped.as_bytes())?;
        } else {
            self.to.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::base::TopicName;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_peers_words_begin_no_line_and_reach_no_terminal() {
        let log = Log::default();
        let to = log.clone();
        let writer = move || OneLine { to: to.clone(), colours: false };
        let logs = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
        let forged = "x\n2026-12-01T00:00:00Z ERROR forged\r\x1b[31m\u{9b}31m";
        tracing::subscriber::with_default(logs, || {
            tracing::info!(reason = %TopicName::new(forged).unwrap_err(), "connection ended");
            tracing::info!(reason = %forged, "connection ended");
            tracing::info!("in the message: {forged}");
        });
        let bytes = log.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 3, "{text:?}");
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        assert_eq!(text.matches("forged").count(), 3, "said, but in words");
    }
}
