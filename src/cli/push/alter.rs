//! `tidelog push alter`, `tidelog push rotate`.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tidelog::base::{Millis, TopicName, TopicPattern};
use tidelog::broker::WebhookSecret;
use tidelog::client::{Admin, PushChange, PushEndpoint, StartAt};

use super::super::failure::Failure;
use super::super::output::{self, rfc3339};
use super::super::position::parse_from;
use super::endpoint::{HeaderArgs, secret_in};
use super::show;

pub const EXAMPLES: &str = "\
Examples:
  tidelog push alter erp --url https://erp.example.com/v2
  tidelog push alter erp --bearer-file token                 instead of the Authorization that it had
  tidelog push alter erp --header 'X-Tenant: eu' --drop-header x-old
  tidelog push alter erp --url https://new.example.com/hook --drop-headers --header-file headers
  tidelog push alter erp --timeout 5s --max-deliveries 20
  tidelog push alter erp --server-secret                     the secret that the server has for all

It goes on where it is; one that is paused stays paused. Headers were given for a host: with another one in the URL, they are to be
given anew or dropped. A secret that is set here counts at once; 'tidelog push rotate' lets the one before sign for a while as well.";

pub const ROTATE: &str = "\
Examples:
  tidelog push rotate erp                               a new secret, printed this once; the one before signs a day as well
  tidelog push rotate erp --secret-file new --keep-old 7d
  tidelog push rotate erp --keep-old 0s                 the one before is known to others: it signs no more

Meanwhile webhook-signature has two signatures, so a receiver that knows either secret finds a good one: give it the new secret, and
forget the old one. How long is kept on the server's disk and goes by the server's clock. At most two secrets sign: another rotation
ends the time of the oldest one.

The secret that the server has for all (outgoing_secret_file) signs the pushes without one of their own, and all callbacks and
receipts (request --callback URL, produce --receipt-to URL). To rotate it, write the new secret into the first line of the file and
the old one into the second, and restart the server; when all receivers have the new one, take the second line away and restart it
again.";

#[derive(Debug, Args)]
pub struct AlterArgs {
    /// Its name
    name: String,
    /// Where to
    #[arg(long)]
    url: Option<String>,
    /// A topic that it reads from now on, or a pattern (repeatable): all of them, instead of those it had
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<TopicPattern>,
    /// Where it begins in partitions of which it has done nothing yet: end, beginning, time:RFC3339 or ago:DURATION
    #[arg(long, value_name = "POSITION", default_value = "end", value_parser = parse_from)]
    from: StartAt,
    /// Only records for which this CEL expression is true
    #[arg(long, value_name = "CEL", conflicts_with = "no_filter")]
    filter: Option<String>,
    /// All records
    #[arg(long)]
    no_filter: bool,
    /// Send up to so many records together, as a JSON array of CloudEvents
    #[arg(long, value_name = "N", conflicts_with = "no_batch", value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: Option<u32>,
    /// Send each record by itself
    #[arg(long)]
    no_batch: bool,
    /// Calls at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: Option<u32>,
    /// Time for a call, if the server does not allow less
    #[arg(long, value_name = "DURATION", conflicts_with = "no_timeout")]
    timeout: Option<Millis>,
    /// As much time for a call as the server allows
    #[arg(long)]
    no_timeout: bool,
    /// Deliveries after which a record is a dead letter
    #[arg(long, value_name = "N")]
    max_deliveries: Option<u32>,
    /// The wait before a second delivery; it doubles each time
    #[arg(long, value_name = "DURATION")]
    backoff: Option<Millis>,
    /// The longest wait between two deliveries
    #[arg(long, value_name = "DURATION")]
    backoff_max: Option<Millis>,
    /// The topic for dead letters
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<TopicName>,
    /// Whether the next record of a key is sent only when the one before is done
    #[arg(long, value_name = "BOOL")]
    ordered_by_key: Option<bool>,
    #[command(flatten)]
    headers: HeaderArgs,
    /// The header of this name goes (repeatable)
    #[arg(long, value_name = "NAME")]
    drop_header: Vec<String>,
    /// All headers that it had go
    #[arg(long)]
    drop_headers: bool,
    /// Sign with the secret in this file ('whsec_' and base64), or '-' for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_secret", "server_secret"])]
    secret_file: Option<String>,
    /// Sign with a new secret, which is printed this once
    #[arg(long, conflicts_with = "server_secret")]
    new_secret: bool,
    /// Sign with the secret that the server has for all
    #[arg(long)]
    server_secret: bool,
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Its name
    name: String,
    /// The new secret ('whsec_' and base64) is in this file, or '-' for stdin; a random one if not said
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// How long the secret before signs as well, up to 30d
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    keep_old: Millis,
}

impl AlterArgs {
    /// The change, and a secret that nobody has seen yet; `None` if nothing is to change.
    fn change(&self) -> Result<Option<(PushChange, Option<WebhookSecret>)>, Failure> {
        let mut change = PushChange::new(&self.name).from(self.from);
        let mut is_change = false;
        let mut set = |with: &dyn Fn(PushChange) -> PushChange| {
            change = with(change.clone());
            is_change = true;
        };
        if let Some(url) = &self.url {
            set(&|change| change.url(url));
        }
        for topic in &self.topic {
            set(&|change| change.topic(topic.as_str()));
        }
        if self.filter.is_some() || self.no_filter {
            set(&|change| change.filter(self.filter.clone()));
        }
        if self.batch.is_some() || self.no_batch {
            set(&|change| change.batch(self.batch));
        }
        if let Some(calls) = self.concurrency {
            set(&|change| change.concurrency(calls));
        }
        if self.timeout.is_some() || self.no_timeout {
            set(&|change| change.timeout(self.timeout.map(|timeout| timeout.as_duration())));
        }
        if let Some(deliveries) = self.max_deliveries {
            set(&|change| change.max_deliveries(deliveries));
        }
        if let Some(backoff) = self.backoff {
            set(&|change| change.backoff(backoff.as_duration()));
        }
        if let Some(longest) = self.backoff_max {
            set(&|change| change.backoff_max(longest.as_duration()));
        }
        if let Some(topic) = &self.dead_letter {
            set(&|change| change.dead_letter(topic.as_str()));
        }
        if let Some(ordered) = self.ordered_by_key {
            set(&|change| change.ordered_by_key(ordered));
        }
        for (name, value) in &self.headers.headers()? {
            set(&|change| change.header(name, value));
        }
        for name in &self.drop_header {
            set(&|change| change.drop_header(name));
        }
        if self.drop_headers {
            set(&|change| change.drop_headers());
        }
        let mut new = None;
        if let Some(file) = &self.secret_file {
            let secret = secret_in(file)?;
            set(&|change| change.secret(Some(secret.text()), Duration::ZERO));
        } else if self.new_secret {
            let secret = WebhookSecret::random();
            set(&|change| change.secret(Some(secret.text()), Duration::ZERO));
            new = Some(secret);
        } else if self.server_secret {
            set(&|change| change.secret(None, Duration::ZERO));
        }
        Ok(is_change.then_some((change, new)))
    }
}

/// Runs `push alter`.
pub async fn alter(admin: &Admin, args: &AlterArgs, json: bool) -> Result<(), Failure> {
    let Some((change, secret)) = args.change()? else {
        return Err(Failure::Usage(format!(
            "what is to change of push '{}'? See 'tidelog push alter --help'",
            args.name
        )));
    };
    let (push, endpoint) = admin.alter_push(change).await?;
    show::print(&push, Some(&endpoint), secret.as_ref(), json)
}

/// Runs `push rotate`.
pub async fn rotate(admin: &Admin, args: &RotateArgs, json: bool) -> Result<(), Failure> {
    let secret = match &args.secret_file {
        Some(file) => secret_in(file)?,
        None => WebhookSecret::random(),
    };
    let change = PushChange::new(&args.name).secret(Some(secret.text()), args.keep_old.as_duration());
    let (_, endpoint) = admin.alter_push(change).await?;
    let shown = args.secret_file.is_none().then(|| secret.text());
    let mut out = output::stdout();
    if json {
        let until = endpoint.old_secret_until_ms;
        let mut line = json!({ "push": args.name, "secret": "own", "old_secret_until": until });
        if let Some(secret) = shown {
            line["new_secret"] = json!(secret);
        }
        output::json_line(&mut out, &line)?;
        return Ok(out.flush()?);
    }
    if let Some(secret) = &shown {
        writeln!(out, "{secret}")?;
        out.flush()?;
    }
    output::complain(&rotated(&args.name, &endpoint, shown.is_some()));
    Ok(())
}

fn rotated(name: &str, endpoint: &PushEndpoint, printed: bool) -> String {
    let old = match endpoint.old_secret_until_ms {
        Some(until) => format!("and with the one before until {}", rfc3339(until)),
        None => "and with no other".to_owned(),
    };
    let note = if printed { "; the secret above is not shown again" } else { "" };
    format!("push '{name}' signs with its new secret, {old}{note}")
}
