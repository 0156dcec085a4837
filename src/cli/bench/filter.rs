//! `bench filter`: what a filter costs on the server, for each record that it is asked about.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tidelog::client::{Client, Message, StartAt};

use super::Options;
use super::outcome::Outcome;
use super::process::cpu_seconds;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::output::grouped;

/// Messages that each filter is asked about, if not said.
const MESSAGES: u64 = 500_000;
/// One message in so many is wanted, so that it is filtering that is measured and not sending.
const KINDS: u64 = 100;

/// A filter that is measured, and which messages it wants.
struct Case {
    name: &'static str,
    filter: Option<&'static str>,
    wants: fn(u64) -> bool,
}

fn one_kind(number: u64) -> bool {
    number % KINDS == 42
}

const CASES: [Case; 8] = [
    Case { name: "no filter", filter: None, wants: |_| true },
    Case { name: "header", filter: Some(r#"headers.kind == "k42""#), wants: one_kind },
    Case { name: "key prefix", filter: Some(r#"key.startsWith("k42-")"#), wants: one_kind },
    Case { name: "JSON field", filter: Some(r#"value.kind == "k42""#), wants: one_kind },
    Case { name: "JSON number", filter: Some("value.customer.amount > 98"), wants: |number| number % KINDS == 99 },
    Case { name: "JSON list", filter: Some("value.lines.exists(line, line.of == 42)"), wants: one_kind },
    Case { name: "header, all match", filter: Some(r#"headers.source == "bench""#), wants: |_| true },
    Case { name: "header, missing", filter: Some(r#"headers.other == "bench""#), wants: |_| false },
];

/// Runs it: one consumer reads the topic from its beginning to its end, once without a filter and once with each.
pub async fn run(session: Session, options: &Options) -> Result<Outcome, Failure> {
    let client = session.client().await?;
    let topic: Arc<str> = session.topic(&client, options.partitions(), options.ack).await?.into();
    let messages = options.messages.unwrap_or(MESSAGES).max(1);
    fill(&client, options, &topic, messages).await?;
    // What is read first is read from a cold cache, and it is not that which is compared.
    measure(&session, &topic, &CASES[0], messages).await?;
    let (mut notes, mut cases, mut header) = (Vec::new(), Vec::new(), None);
    let meters = session.meters();
    for case in &CASES {
        let Measured { seconds, cpu } = measure(&session, &topic, case, messages).await?;
        let per_core = cpu.map(|cpu| messages as f64 / cpu.max(0.01));
        let nanoseconds = cpu.map(|cpu| cpu * 1e9 / messages as f64);
        let shown = |figure: Option<f64>| figure.map_or("unknown".to_owned(), |figure| grouped(figure as u64));
        notes.push(format!(
            "{:<17}  {:>9} records/s, {:>9} a second and core, {:>6} ns of the server each   {}",
            case.name,
            grouped((messages as f64 / seconds) as u64),
            shown(per_core),
            shown(nanoseconds),
            case.filter.unwrap_or_default()
        ));
        cases.push(json!({
            "name": case.name,
            "filter": case.filter,
            "messages_per_s": (messages as f64 / seconds).round(),
            "per_core_and_s": per_core.map(f64::round),
            "server_ns": nanoseconds.map(f64::round),
        }));
        if case.filter.is_some() {
            header.get_or_insert(seconds);
        }
    }
    let seconds = header.unwrap_or_default();
    Ok(Outcome {
        work: "filter",
        title: format!("filters, {} byte messages, 1 of {KINDS} wanted; figures of a header test", options.size),
        messages: Some(messages),
        seconds,
        messages_per_s: Some(messages as f64 / seconds),
        bytes: Some(messages * u64::from(options.size)),
        usage: session.usage(&meters),
        notes,
        cases,
        ..Outcome::default()
    })
}

/// A message as an order might be: some fields, some nested, the rest of it text.
fn message(topic: &Arc<str>, number: u64, size: u32) -> Message {
    let kind = number % KINDS;
    let fields = format!(
        r#"{{"id":{number},"kind":"k{kind}","customer":{{"name":"Ann","country":"SE","amount":{kind}}},"lines":[{{"of":1}},{{"of":{kind}}}],"rate":1.5,"open":true,"text":""}}"#
    );
    let padding = "x".repeat((size as usize).saturating_sub(fields.len()));
    let text = format!("{}{padding}\"}}", &fields[..fields.len() - 2]);
    Message::to(Arc::clone(topic))
        .key(format!("k{kind}-{number}"))
        .value(text)
        .header("source", "bench")
        .header("kind", format!("k{kind}"))
        .header("trace", "4bf92f3577b34da6a3ce929d0e0e4736")
}

async fn fill(client: &Client, options: &Options, topic: &Arc<str>, messages: u64) -> Result<(), Failure> {
    let producer = client.producer().build().await?;
    for number in 0..messages {
        producer.send(message(topic, number, options.size)).await?;
    }
    Ok(producer.flush().await?)
}

struct Measured {
    seconds: f64,
    /// Of the server, in seconds.
    cpu: Option<f64>,
}

async fn measure(session: &Session, topic: &str, case: &Case, messages: u64) -> Result<Measured, Failure> {
    let client = session.client().await?;
    let cpu_before = session.pid().and_then(cpu_seconds);
    let started = Instant::now();
    let consumer = client.consumer().topic(topic).from(StartAt::Beginning).until_end(true);
    let consumer = match case.filter {
        Some(filter) => consumer.filter(filter),
        None => consumer,
    };
    let mut consumer = consumer.build().await?;
    let mut got = 0;
    while let Some(record) = consumer.next().await {
        record?;
        got += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = session.pid().and_then(cpu_seconds).zip(cpu_before).map(|(after, before)| after - before);
    let wanted = (0..messages).filter(|number| (case.wants)(*number)).count();
    if got != wanted {
        return Err(Failure::Failed(format!("'{}' let {got} of {messages} messages through, not {wanted}", case.name)));
    }
    Ok(Measured { seconds, cpu })
}
