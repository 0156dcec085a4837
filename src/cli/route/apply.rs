//! `tidelog route apply`: a file of routes, as a whole.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tidelog::base::TopicName;
use tidelog::client::{ResetPoint, RouteChange, RouteChangeKind, RouteDescription, RoutePoint};
use tidelog::route::{Mistake, RouteSpec};

use super::super::connection::ServerArgs;
use super::super::failure::Failure;
use super::super::output;
use super::file;

const EXAMPLES: &str = "\
Examples:
  tidelog route apply routes.toml --dry-run           what would change
  tidelog route apply routes.toml                     all of it or nothing; applied again it changes nothing
  tidelog route apply routes.toml --prune             routes that are not in the file are deleted

An edited route ends what it has begun by its old rules; the new ones hold from the offsets that are printed.";

/// Options of `route apply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApplyArgs {
    /// File of routes
    file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Delete routes that are not in the file
    #[arg(long)]
    prune: bool,
}

/// Runs `route apply`.
pub async fn run(args: ApplyArgs, json: bool, server: &ServerArgs) -> Result<(), Failure> {
    let text = file::text(&args.file)?;
    // Mistakes are told without a server too.
    let specs = tidelog::route::read(&text).map_err(|mistakes| file::complain(&args.file, &mistakes))?;
    let admin = server.connect().await?.admin();
    let applied = admin.apply_routes(text, args.dry_run, args.prune).await?;
    if !applied.mistakes.is_empty() {
        let mistake = |of: &tidelog::client::RouteMistake| Mistake {
            line: of.line,
            column: of.column,
            message: of.message.clone(),
        };
        let mistakes: Vec<Mistake> = applied.mistakes.iter().map(mistake).collect();
        return Err(file::complain(&args.file, &mistakes));
    }
    let mut out = output::stdout();
    for change in &applied.changes {
        if json { json_line(&mut out, change, args.dry_run)? } else { line(&mut out, change, args.dry_run)? }
    }
    out.flush()?;
    for change in &applied.changes {
        if let Some(note) =
            specs.iter().find(|spec| spec.name.as_str() == change.name).and_then(|spec| apart(spec, change))
        {
            output::complain(&note);
        }
    }
    Ok(())
}

/// What is to be said of a route that puts parts together and reads them from several partitions.
fn apart(spec: &RouteSpec, change: &RouteChange) -> Option<String> {
    spec.aggregate.as_ref()?;
    let name = &spec.name;
    let topics: BTreeSet<&str> = change.from.iter().map(|point| point.topic.as_str()).collect();
    let wild = spec.from.iter().any(|pattern| pattern.exact().is_none());
    if topics.len() > 1 || spec.from.len() > 1 || wild {
        return Some(format!(
            "route {name}: parts of a whole meet only in one partition of one topic, and it reads several topics: parts of a whole \
             must come in the same topic, with the same key"
        ));
    }
    (change.from.len() > 1).then(|| {
        let topic = topics.first().copied().unwrap_or_default();
        format!(
            "route {name}: parts of a whole meet only in one partition, and {topic} has {}: give parts of a whole the same key",
            change.from.len()
        )
    })
}

fn word(kind: RouteChangeKind) -> &'static str {
    match kind {
        RouteChangeKind::New => "new",
        RouteChangeKind::Changed => "changed",
        RouteChangeKind::Unchanged => "unchanged",
        RouteChangeKind::Removed => "removed",
    }
}

fn json_line(out: &mut impl Write, change: &RouteChange, dry_run: bool) -> Result<(), Failure> {
    let line = json!({
        "route": change.name,
        "change": word(change.kind),
        "version": change.version,
        "applied": !dry_run,
        "difference": change.difference,
        "from": points(&change.from),
    });
    output::json_line(out, &line)
}

fn line(out: &mut impl Write, change: &RouteChange, dry_run: bool) -> Result<(), Failure> {
    let would = if dry_run && change.kind != RouteChangeKind::Unchanged { "would be " } else { "" };
    writeln!(out, "route {}: {would}{} (version {})", change.name, word(change.kind), change.version)?;
    for line in &change.difference {
        writeln!(out, "    {line}")?;
    }
    if matches!(change.kind, RouteChangeKind::New | RouteChangeKind::Changed) {
        for RoutePoint { topic, partition, offset } in &change.from {
            writeln!(out, "  holds from offset {offset} of {topic} partition {partition} on")?;
        }
    }
    Ok(())
}

fn points(points: &[RoutePoint]) -> Vec<Value> {
    let point = |of: &RoutePoint| json!({ "topic": of.topic, "partition": of.partition, "offset": of.offset });
    points.iter().map(point).collect()
}

/// Where a route goes on, and what is written again by that.
pub fn print_reset(
    route: &TopicName,
    from: &[ResetPoint],
    writes: &RouteDescription,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut out = io::stdout();
    let again: u64 = from.iter().map(|point| point.before.saturating_sub(point.offset)).sum();
    if json {
        let points: Vec<_> = from
            .iter()
            .map(|point| {
                json!({
                    "topic": point.topic, "partition": point.partition, "before": point.before, "offset": point.offset,
                })
            })
            .collect();
        let line = json!({ "route": route.as_str(), "from": points, "routed_again": again, "done": !dry_run });
        return output::json_line(&mut out, &line);
    }
    let goes = if dry_run { "would go on" } else { "goes on" };
    for ResetPoint { topic, partition, before, offset } in from {
        writeln!(out, "route {route} {goes} at offset {offset} of {topic} partition {partition} (it was at {before})")?;
    }
    if again > 0 {
        let mut topics: Vec<&str> =
            writes.destinations.iter().filter(|to| to.records > 0).map(|to| to.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let where_to = if topics.is_empty() { "its destinations".to_owned() } else { topics.join(", ") };
        let (are, get) = if dry_run { ("would be", "would get") } else { ("are", "get") };
        output::complain(&format!(
            "{} {are} routed again: {where_to} {get} what was made of them a second time; a new route with start = \"beginning\" \
             writes them to topics of its own",
            output::count(again, "record")
        ));
    }
    if dry_run {
        output::complain("nothing was changed (--dry-run)");
    }
    Ok(())
}
