//! Headers and secrets of endpoints: from the command line and from files. No message repeats a value.

use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use tidelog::broker::WebhookSecret;
use tidelog::disk::{self, RealDisk};

use super::super::failure::Failure;

/// What reads standard input instead of a file.
const STDIN: &str = "-";

/// Options for headers that go with each call.
#[derive(Debug, Args)]
pub struct HeaderArgs {
    /// A header that goes with each call (repeatable). Others on this machine see the command line: for a credential use a file
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Headers from a file, or '-' for stdin: a line 'NAME: VALUE' each; empty lines and those that begin with # say nothing
    #[arg(long, value_name = "FILE")]
    header_file: Option<String>,
    /// Send 'Authorization: Bearer TOKEN', with the token in this file, or '-' for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "basic_file")]
    bearer_file: Option<String>,
    /// Send 'Authorization: Basic ...', with USER:PASSWORD in this file, or '-' for stdin
    #[arg(long, value_name = "FILE")]
    basic_file: Option<String>,
}

impl HeaderArgs {
    /// Name and value of each header.
    ///
    /// # Errors
    /// A file cannot be read; something is no header.
    pub fn headers(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut headers = Vec::new();
        for (at, text) in self.header.iter().enumerate() {
            headers.push(header(text).ok_or_else(|| {
                Failure::Usage(format!("--header number {} is not written like 'X-Api-Key: value'", at + 1))
            })?);
        }
        if let Some(file) = &self.header_file {
            for (at, line) in read(file, "--header-file")?.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                headers.push(header(line).ok_or_else(|| {
                    Failure::Failed(format!("{file}, line {}: not written like 'X-Api-Key: value'", at + 1))
                })?);
            }
        }
        if let Some(file) = &self.bearer_file {
            let token = read(file, "--bearer-file")?;
            let token = token.trim();
            if token.is_empty() || token.contains(char::is_whitespace) {
                return Err(Failure::Failed(format!("{file}: a token is one word, and the file has none or several")));
            }
            headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
        }
        if let Some(file) = &self.basic_file {
            let pair = read(file, "--basic-file")?;
            let pair = pair.trim_end_matches(['\r', '\n']);
            if pair.split_once(':').is_none_or(|(user, _)| user.is_empty()) || pair.contains(['\r', '\n']) {
                return Err(Failure::Failed(format!("{file}: not written like user:password, on one line")));
            }
            headers.push(("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(pair))));
        }
        Ok(headers)
    }
}

fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// The secret in a file.
///
/// # Errors
/// It cannot be read; it has none.
pub fn secret_in(file: &str) -> Result<WebhookSecret, Failure> {
    let text = read(file, "--secret-file")?;
    WebhookSecret::parse(&text).map_err(|error| Failure::Failed(format!("{file}: {error}")))
}

fn read(file: &str, option: &str) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::Failed(format!("{option} {file} cannot be read: {error}"));
    let mut bytes = Vec::new();
    if file == STDIN {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(cannot)?;
    } else {
        bytes = disk::read_file(&RealDisk, Path::new(file)).map_err(cannot)?;
    }
    String::from_utf8(bytes).map_err(|_| Failure::Failed(format!("{option} {file}: it is not text")))
}

#[cfg(test)]
mod tests;
