//! `tidelog request`: asks whoever responds on a topic, now or with a callback.

use std::io::{Read, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog::base::{Millis, RequestId, TopicName, limits};
use tidelog::client::{Client, DurableRequestBuilder, ErrorReply, Outcome, Reply, ReplyEvent, RequestBuilder, Step};

use super::connection::ServerArgs;
use super::failure::{Failure, Status};
use super::json::Text;
use super::output;
use super::position::parse_pair;
use super::requests::shown;

/// How long an answer is waited for that nobody keeps.
const LIVE: Millis = Millis(5_000);
/// How long the server may take to take a request in.
const SUBMIT: Duration = Duration::from_secs(60);
/// What the server may take to say that a time is over.
const GRACE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  tidelog request crm.phone 4711                      waits for the reply and prints it
  tidelog request crm.phone - < question.json         the body from stdin
  tidelog request crm.load 4711 --durable             survives restarts of server and responder; has a day
  tidelog request crm.load 4711 --then crm.analyse --callback answers
                                                      prints the request's id and goes away; one record comes to 'answers'
  tidelog request crm.load 4711 --callback https://example.com/hook
                                                      the outcome is POSTed there, signed with the server's secret
  tidelog request status ID                           what became of it
  tidelog request status ID --wait 1h                 waits for it

A reply is printed as it is. An error reply (exit status 7), nobody there (3) and a time-out (5) are told on stderr. With --json, 'outcome'
is replied, failed (with 'code' and 'text'), no_responder, timed_out or cancelled.";

/// Options of `request`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RequestArgs {
    #[command(subcommand)]
    command: Option<RequestCommand>,
    /// Topic to ask
    #[arg(required = true)]
    topic: Option<TopicName>,
    /// Body of the request; '-' reads it from stdin
    #[arg(required = true)]
    body: Option<String>,
    /// How long an answer is of use: 5s if not said, 1d of a durable request
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Millis>,
    /// Header beside the body (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    header: Vec<(String, String)>,
    /// Topic whose responder gets the reply as its request (repeatable)
    #[arg(long, value_name = "TOPIC")]
    then: Vec<TopicName>,
    /// Keep it on the server's disk until it has its outcome, for a day if --timeout says nothing else; waits for that
    #[arg(long)]
    durable: bool,
    /// Do not wait: have the outcome delivered to this topic, as one record, or POSTed to this URL; the request is durable then
    #[arg(long, value_name = "TOPIC|URL")]
    callback: Option<String>,
    /// Correlation id of a durable request; the same one again is the same request
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum RequestCommand {
    /// Shows what became of a durable request
    Status {
        /// Its correlation id
        id: String,
        /// Wait so long for its outcome
        #[arg(long, value_name = "DURATION")]
        wait: Option<Millis>,
    },
}

/// Runs `request`.
pub async fn run(args: RequestArgs) -> Result<(), Failure> {
    if let Some(RequestCommand::Status { id, wait }) = &args.command {
        let client = args.server.connect().await?;
        return status(&client, id, wait.map(|wait| wait.as_duration()), args.json).await;
    }
    let (Some(topic), Some(body)) = (&args.topic, &args.body) else {
        return Err(Failure::Usage("a request needs a topic and a body".to_owned()));
    };
    let body = if body == "-" { stdin()? } else { body.clone().into_bytes() };
    let client = args.server.connect().await?;
    let is_durable = args.durable || args.callback.is_some() || args.id.is_some();
    let usual = if is_durable { Millis(limits::DURABLE_REQUEST_MS) } else { LIVE };
    let said = args.timeout.unwrap_or(usual);
    let timeout = said.as_duration();
    let mut request = client.request(topic.as_str(), body, timeout);
    for (name, value) in &args.header {
        request = request.header(name, value.clone());
    }
    for topic in &args.then {
        request = request.then(topic.as_str());
    }
    if !is_durable {
        return live(request, args.json).await;
    }
    let id = args.id.clone().unwrap_or_else(|| RequestId::random().to_string());
    let request = request.durable().id(&id);
    match &args.callback {
        Some(callback) => {
            submit(request.callback(callback), &id).await?;
            let mut out = output::stdout();
            if args.json {
                // An id that was used before is the same request, which may have ended.
                let (info, _) = client.request_status(&id).await?;
                output::json_line(&mut out, &json!({ "id": id, "state": info.state, "callback": callback }))?;
            } else {
                writeln!(out, "{id}")?;
            }
            out.flush()?;
            output::complain(&format!(
                "the outcome goes to {callback} within {said}; what became of it so far: tidelog request status {id}"
            ));
            Ok(())
        }
        None => {
            submit(request, &id).await?;
            output::complain(&format!("request {id} is kept; if nobody waits here: tidelog request status {id}"));
            match client.await_reply(&id, timeout.saturating_add(GRACE)).await? {
                Some(outcome) => print(&outcome, args.json),
                None => Err(Failure::Failed(format!("request {id} has no outcome yet: tidelog request status {id}"))),
            }
        }
    }
}

/// Has a request taken in. It may have a day, but a server that is away is not waited for that long.
async fn submit(request: DurableRequestBuilder, id: &str) -> Result<(), Failure> {
    match tokio::time::timeout(SUBMIT, request.submit()).await {
        Ok(submitted) => Ok(submitted.map(drop)?),
        Err(_) => Err(Failure::Failed(format!(
            "the server has not answered within {} s; whether request {id} is there: tidelog request status {id}",
            SUBMIT.as_secs()
        ))),
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut body);
    read.map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
    Ok(body)
}

/// A reply that comes in parts is printed as it comes.
async fn live(request: RequestBuilder, json: bool) -> Result<(), Failure> {
    if json {
        return print(&request.send().await?, true);
    }
    let mut stream = request.stream().await?;
    while let Some(event) = stream.next().await {
        match event? {
            ReplyEvent::Part(part) => {
                let mut out = output::stdout();
                out.write_all(&part.body)?;
                out.flush()?;
            }
            ReplyEvent::End(outcome) => return print(&outcome, false),
        }
    }
    Ok(())
}

async fn status(client: &Client, id: &str, wait: Option<Duration>, json: bool) -> Result<(), Failure> {
    if let Some(wait) = wait {
        client.await_reply(id, wait).await?;
    }
    let (info, outcome) = client.request_status(id).await?;
    let mut out = output::stdout();
    if json {
        let mut line = super::requests::object(&info);
        if let Some(Outcome::Reply(reply)) = &outcome {
            line["value"] = serde_json::to_value(Text(&reply.body))?;
        }
        output::json_line(&mut out, &line)?;
        return Ok(out.flush()?);
    }
    write!(out, "{}", shown(&info))?;
    if let Some(Outcome::Reply(reply)) = &outcome {
        writeln!(out, "reply:")?;
        out.write_all(&reply.body)?;
        if !reply.body.ends_with(b"\n") {
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// Prints a reply; says what came instead of one.
fn print(outcome: &Outcome, json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        output::json_line(&mut out, &line(outcome)?)?;
    } else if let Outcome::Reply(Reply { body, .. }) = outcome {
        out.write_all(body)?;
        if !body.is_empty() && !body.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    let at = |step: &Step| match step.number {
        0 => format!("topic '{}'", step.topic),
        number => format!("topic '{}' (step {number})", step.topic),
    };
    match outcome {
        Outcome::Reply(_) => Ok(()),
        Outcome::Error(ErrorReply { code, text, step }) => {
            Err(Failure::As(Status::Refused, format!("{}: error reply '{code}': {text}", at(step))))
        }
        Outcome::NoResponder(step) => Err(Failure::As(Status::NotThere, format!("{}: nobody responds", at(step)))),
        Outcome::TimedOut(step) => Err(Failure::As(Status::TimedOut, format!("{}: no reply in time", at(step)))),
        Outcome::Cancelled => Err(Failure::Failed("the request was cancelled".to_owned())),
    }
}

fn line(outcome: &Outcome) -> Result<Value, Failure> {
    let at = |name: &str, step: &Step| json!({ "outcome": name, "step": step.number, "topic": step.topic });
    Ok(match outcome {
        Outcome::Reply(reply) => json!({
            "outcome": "replied",
            "headers": serde_json::to_value(&reply.headers)?,
            "value": serde_json::to_value(Text(&reply.body))?,
        }),
        Outcome::Error(error) => {
            let mut line = at("failed", &error.step);
            line["code"] = json!(error.code);
            line["text"] = json!(error.text);
            line
        }
        Outcome::NoResponder(step) => at("no_responder", step),
        Outcome::TimedOut(step) => at("timed_out", step),
        Outcome::Cancelled => json!({ "outcome": "cancelled" }),
    })
}
