//! `tidelog requests`: the durable requests that the server knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog::base::TopicName;
use tidelog::client::{ListRequests, RequestInfo};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output::{self, rfc3339, table};

const EXAMPLES: &str = "\
Examples:
  tidelog requests list                               newest first
  tidelog requests list --state open --topic crm.load
  tidelog requests list --limit 5000 --json
  tidelog requests list --summary                     what they are: how many by state, topic and requester
  tidelog requests show ID
  tidelog requests cancel ID                          a callback is told so";

/// Options of `requests`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RequestsArgs {
    #[command(subcommand)]
    command: RequestsCommand,
    /// Print JSON objects, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum RequestsCommand {
    /// Lists durable requests: open ones, and those that ended lately
    List {
        /// Only those in this state: open, replied, failed, timed_out or cancelled
        #[arg(long)]
        state: Option<String>,
        /// Only those with a step of this topic
        #[arg(long)]
        topic: Option<TopicName>,
        /// So many at the most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only those behind this one in the list
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// How many there are by state, topic and requester, of all of them; the most first
        #[arg(long, conflicts_with_all = ["limit", "before"])]
        summary: bool,
    },
    /// Shows a request
    Show {
        /// Its correlation id
        id: String,
    },
    /// Cancels a request that is open
    Cancel {
        /// Its correlation id
        id: String,
    },
}

/// Runs `requests`.
pub async fn run(args: RequestsArgs) -> Result<(), Failure> {
    let client = args.server.connect().await?;
    let mut out = output::stdout();
    match args.command {
        RequestsCommand::List { state, topic, limit, before, summary } => {
            let topic = topic.map(|topic| topic.to_string());
            let limit = if summary { u32::MAX } else { limit };
            let (mut requests, mut more) = (Vec::<RequestInfo>::new(), true);
            while more && requests.len() < limit as usize {
                let before = requests.last().map(|last| last.id.clone()).or_else(|| before.clone());
                let limit = (limit - requests.len() as u32).min(ListRequests::default().limit);
                let wanted = ListRequests { state: state.clone(), topic: topic.clone(), before, limit };
                let (page, and_more) = client.admin().list_requests(wanted).await?;
                requests.extend(page);
                more = and_more;
            }
            if summary {
                let mut sums: BTreeMap<[String; 3], u64> = BTreeMap::new();
                for request in &requests {
                    let of = [request.state.clone(), topic_at(request), request.requester.clone()];
                    *sums.entry(of).or_default() += 1;
                }
                output::summary(&mut out, ["state", "topic", "requester"], sums, args.json)?;
                return Ok(out.flush()?);
            }
            if args.json {
                for request in &requests {
                    output::json_line(&mut out, &object(request))?;
                }
            } else if requests.is_empty() {
                output::complain(
                    "there is no such request; 'tidelog request TOPIC --durable' and '--callback' make one that is kept",
                );
            } else {
                let row = |request: &RequestInfo| {
                    vec![
                        request.id.clone(),
                        request.state.clone(),
                        topic_at(request),
                        rfc3339(request.created_ms),
                        rfc3339(request.deadline_ms),
                        request.requester.clone(),
                    ]
                };
                let header = ["id", "state", "topic", "asked", "deadline", "requester"];
                writeln!(out, "{}", table(&header, &[], requests.iter().map(row).collect()))?;
            }
            if more {
                output::complain(&format!("there are more than {limit}; see --limit"));
            }
        }
        RequestsCommand::Show { id } => {
            let (info, _) = client.request_status(&id).await?;
            print(&mut out, &info, args.json)?;
        }
        RequestsCommand::Cancel { id } => {
            let info = client.admin().cancel_request(&id).await?;
            print(&mut out, &info, args.json)?;
            if info.state != "cancelled" {
                out.flush()?;
                return Err(Failure::Failed(format!("request {id} had ended before: {}", info.state)));
            }
        }
    }
    Ok(out.flush()?)
}

fn print(out: &mut output::Out, info: &RequestInfo, json: bool) -> Result<(), Failure> {
    if json { output::json_line(out, &object(info)) } else { Ok(write!(out, "{}", shown(info))?) }
}

fn topic_at(info: &RequestInfo) -> String {
    info.steps.get(info.step as usize).cloned().unwrap_or_default()
}

/// A request for people, several lines.
pub fn shown(info: &RequestInfo) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("request", &info.id);
    line("state", &info.state);
    if info.steps.len() > 1 {
        line("steps", &info.steps.join(" -> "));
        line("step", &format!("{} ({})", info.step, topic_at(info)));
    } else {
        line("topic", &topic_at(info));
    }
    line("requester", &info.requester);
    line("asked", &rfc3339(info.created_ms));
    line("deadline", &rfc3339(info.deadline_ms));
    if let Some(finished) = info.finished_ms {
        line("ended", &rfc3339(finished));
    }
    if let Some(error) = &info.error {
        line("error", &format!("{}: {}", error.code, error.text));
    }
    if let Some(callback) = &info.callback {
        line("callback", &format!("{callback} ({})", info.callback_state));
    }
    text
}

/// A request for programs.
pub fn object(info: &RequestInfo) -> Value {
    json!({
        "id": info.id,
        "state": info.state,
        "steps": info.steps,
        "step": info.step,
        "topic": topic_at(info),
        "requester": info.requester,
        "created": info.created_ms,
        "deadline": info.deadline_ms,
        "finished": info.finished_ms,
        "error": info.error.as_ref().map(|error| json!({ "code": error.code, "text": error.text })),
        "callback": info.callback,
        "callback_state": info.callback_state,
    })
}
