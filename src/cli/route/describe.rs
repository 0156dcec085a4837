//! `tidelog route list` and `describe`.

use std::io::{self, Write};

use serde_json::{Value, json};
use tidelog::client::{RouteDescription, RouteSummary};

use super::super::failure::Failure;
use super::super::output::{self, grouped, rfc3339, table};

/// Prints all routes.
pub fn list(routes: &[RouteSummary], json: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    if json {
        for route in routes {
            output::json_line(&mut out, &summary(route))?;
        }
    } else if routes.is_empty() {
        output::complain("there is no route yet; 'tidelog route apply FILE' makes one");
    } else {
        let rows = routes.iter().map(|route| {
            vec![
                route.name.clone(),
                route.state.clone(),
                route.version.to_string(),
                route.from.join(", "),
                grouped(route.lag),
                grouped(route.failed),
            ]
        });
        let header = ["route", "state", "version", "from", "lag", "dead letters"];
        writeln!(out, "{}", table(&header, &[2, 4, 5], rows.collect()))?;
    }
    Ok(out.flush()?)
}

fn summary(route: &RouteSummary) -> Value {
    json!({
        "route": route.name,
        "state": route.state,
        "version": route.version,
        "from": route.from,
        "lag": route.lag,
        "failed": route.failed,
    })
}

/// Prints one route.
pub fn describe(route: &RouteDescription, json: bool) -> Result<(), Failure> {
    if json { print_json(route) } else { print(route) }
}

fn print_json(route: &RouteDescription) -> Result<(), Failure> {
    let destinations: Vec<Value> = route
        .destinations
        .iter()
        .map(|of| json!({ "name": of.name, "topic": of.topic, "records": of.records }))
        .collect();
    let partitions: Vec<Value> = route
        .partitions
        .iter()
        .map(|of| {
            json!({
                "topic": of.topic,
                "partition": of.partition,
                "offset": of.offset,
                "end": of.end,
                "lag": of.end - of.offset,
                "waiting": of.waiting,
                "stuck": of.stuck,
                "last_error": of.last_error,
                "last_error_ms": of.last_error_ms,
            })
        })
        .collect();
    let mut line = summary(&route.summary);
    if let Value::Object(fields) = &mut line {
        fields.insert("definition".to_owned(), json!(route.definition));
        fields.insert("created_ms".to_owned(), json!(route.created_ms));
        fields.insert("changed_ms".to_owned(), json!(route.changed_ms));
        fields.insert("read".to_owned(), json!(route.read));
        fields.insert("unwanted".to_owned(), json!(route.unwanted));
        fields.insert("destinations".to_owned(), Value::Array(destinations));
        fields.insert("dead_letter".to_owned(), json!(route.dead_letter));
        fields.insert("made_topics".to_owned(), json!(route.made));
        fields.insert("partitions".to_owned(), Value::Array(partitions));
    }
    output::json_line(&mut io::stdout(), &line)
}

fn print(route: &RouteDescription) -> Result<(), Failure> {
    let mut out = output::stdout();
    let RouteSummary { name, version, state, lag, failed, .. } = &route.summary;
    writeln!(out, "{name}  ({state}, version {version} of {})\n", rfc3339(route.changed_ms))?;
    writeln!(out, "{}", route.definition)?;
    writeln!(out, "{} read, {} still to be routed", output::count(route.read, "record"), grouped(*lag))?;
    if *failed > 0 {
        writeln!(out, "{} went to {}", output::count(*failed, "dead letter"), route.dead_letter)?;
    }
    if route.unwanted > 0 {
        // Whole records, where the route does not split.
        let what =
            output::count(route.unwanted, if route.definition.contains("\nsplit = ") { "part" } else { "record" });
        writeln!(out, "no rule matched {what}, and there is no 'otherwise'")?;
    }
    if !route.made.is_empty() {
        writeln!(out, "topics made: {}", route.made.join(", "))?;
    }
    let rows = route.destinations.iter().map(|of| vec![of.name.clone(), of.topic.clone(), grouped(of.records)]);
    writeln!(out, "\n{}\n", table(&["destination", "topic", "records"], &[2], rows.collect()))?;
    let rows = route.partitions.iter().map(|of| {
        vec![
            of.topic.clone(),
            of.partition.to_string(),
            grouped(of.offset),
            grouped(of.end),
            grouped(of.end - of.offset),
            grouped(of.waiting),
            if of.stuck { "stuck".to_owned() } else { "ok".to_owned() },
            of.last_error.clone().map_or_else(String::new, |error| {
                format!("{} {error}", of.last_error_ms.map_or_else(String::new, rfc3339))
            }),
        ]
    });
    let header = ["topic", "partition", "next", "end", "lag", "waiting parts", "state", "last error"];
    writeln!(out, "{}", table(&header, &[1, 2, 3, 4, 5], rows.collect()))?;
    Ok(out.flush()?)
}
