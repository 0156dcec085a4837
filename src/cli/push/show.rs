//! How push subscriptions are shown.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tidelog::broker::WebhookSecret;
use tidelog::client::{PushDescription, PushEndpoint};

use super::super::failure::Failure;
use super::super::output::{self, grouped, rfc3339, table};

/// Prints several: a table, or JSON objects.
///
/// # Errors
/// Those of standard output.
pub fn list(pushes: &[PushDescription], endpoints: &[PushEndpoint], json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        for push in pushes {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.push == push.name);
            output::json_line(&mut out, &object(push, endpoint))?;
        }
    } else if pushes.is_empty() {
        output::complain("there is no push subscription yet: tidelog push create NAME --topic TOPIC --url URL");
    } else {
        let row = |push: &PushDescription| {
            vec![
                push.name.clone(),
                push.state.clone(),
                push.topics.join(" "),
                grouped(push.lag),
                grouped(push.delivered),
                grouped(push.retried),
                grouped(push.dead_letters),
                push.url.clone(),
            ]
        };
        let header = ["push", "state", "topics", "lag", "delivered", "retried", "dead letters", "url"];
        writeln!(out, "{}", table(&header, &[3, 4, 5, 6], pushes.iter().map(row).collect()))?;
    }
    Ok(out.flush()?)
}

/// Prints one, with what its endpoint gets, and a secret that nobody has seen yet.
///
/// # Errors
/// Those of standard output.
pub fn print(
    push: &PushDescription,
    endpoint: Option<&PushEndpoint>,
    secret: Option<&WebhookSecret>,
    json: bool,
) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        let mut line = object(push, endpoint);
        if let Some(secret) = secret {
            line["new_secret"] = json!(secret.text());
        }
        output::json_line(&mut out, &line)?;
        return Ok(out.flush()?);
    }
    writeln!(out, "{}  ({})\n", push.name, push.state)?;
    let span = |ms: u64| output::seconds(Duration::from_millis(ms));
    let mut facts = vec![vec!["url".to_owned(), push.url.clone()], vec!["topics".to_owned(), push.topics.join(" ")]];
    let mut fact = |name: &str, value: String| facts.push(vec![name.to_owned(), value]);
    if let Some(filter) = &push.filter {
        fact("filter", filter.clone());
    }
    if let Some(reason) = &push.paused {
        fact("paused", reason.clone());
    }
    if let Some(until) = push.rests_until_ms {
        fact("next try at", rfc3339(until));
    }
    fact(
        "sends",
        push.batch.map_or_else(|| "each record by itself".to_owned(), |most| format!("up to {most} together")),
    );
    fact("at a time", output::count(push.concurrency.into(), "call"));
    if let Some(timeout) = push.timeout_ms {
        fact("time for a call", span(timeout));
    }
    if let Some(endpoint) = endpoint {
        if !endpoint.headers.is_empty() {
            fact("headers", format!("{} (values are not shown)", endpoint.headers.join(", ")));
        }
        fact("signed", signed(endpoint));
    }
    if let Some(secret) = secret {
        fact("new secret", format!("{} (not shown again)", secret.text()));
    }
    let rules = &push.rules;
    fact("deliveries", format!("at most {}", rules.max_deliveries));
    fact("backoff", format!("{} to {}", span(rules.backoff_ms), span(rules.backoff_max_ms)));
    fact("order", if rules.ordered_by_key { "by key" } else { "any" }.to_owned());
    if let Some(topic) = &push.dead_letter {
        fact("dead letters", topic.clone());
    }
    fact(
        "lag",
        format!("{} ({} in flight, {} waiting)", grouped(push.lag), grouped(push.in_flight), grouped(push.waiting)),
    );
    let (delivered, retried, dead) = (grouped(push.delivered), grouped(push.retried), grouped(push.dead_letters));
    fact("since start", format!("{delivered} delivered, {retried} retried, {dead} dead letters"));
    if let Some(time) = push.delivered_ms {
        fact("last taken", rfc3339(time));
    }
    if let (Some(time), Some(error)) = (push.last_error_ms, &push.last_error) {
        fact("last error", format!("{} {error}", rfc3339(time)));
    }
    writeln!(out, "{}", table(&[], &[], facts))?;
    Ok(out.flush()?)
}

/// What signs the calls to an endpoint.
pub fn signed(endpoint: &PushEndpoint) -> String {
    let by = match (endpoint.own_secret, endpoint.signed) {
        (true, _) => "with its own secret",
        (false, true) => "with the server's secret",
        (false, false) => "no",
    };
    match endpoint.old_secret_until_ms {
        Some(until) => format!("{by}, and with the one before until {}", rfc3339(until)),
        None => by.to_owned(),
    }
}

/// As JSON; without the endpoint, nothing is said of it.
pub fn object(push: &PushDescription, endpoint: Option<&PushEndpoint>) -> Value {
    let rules = &push.rules;
    let mut object = json!({
        "push": push.name, "group": push.name, "state": push.state, "paused": push.paused,
        "rests_until": push.rests_until_ms, "url": push.url, "topics": push.topics, "filter": push.filter,
        "batch": push.batch, "concurrency": push.concurrency, "timeout_ms": push.timeout_ms,
        "rules": {
            "lease_ms": rules.lease_ms, "max_deliveries": rules.max_deliveries, "backoff_ms": rules.backoff_ms,
            "backoff_max_ms": rules.backoff_max_ms, "ordered_by_key": rules.ordered_by_key,
        },
        "dead_letter": push.dead_letter, "lag": push.lag, "in_flight": push.in_flight, "waiting": push.waiting,
        "delivered": push.delivered, "retried": push.retried, "dead_letters": push.dead_letters,
        "last_delivered": push.delivered_ms, "last_error_at": push.last_error_ms, "last_error": push.last_error,
        "created": push.created_ms, "changed": push.changed_ms,
    });
    if let Some(endpoint) = endpoint {
        object["headers"] = json!(endpoint.headers);
        object["secret"] = json!(if endpoint.own_secret { "own" } else { "server" });
        object["signed"] = json!(endpoint.signed);
        object["old_secret_until"] = json!(endpoint.old_secret_until_ms);
    }
    object
}
