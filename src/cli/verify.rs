//! `tidelog verify`: an offline check of a data directory, every batch of every partition and of the journal.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tidelog::catalog::{DataDir, expected_partitions};
use tidelog::disk::{Disk, RealDisk, length_of};
use tidelog::log::{Finding, SegmentName, VerifySummary, verify_partition};

use super::failure::Failure;
use super::output::{self, Out, count, grouped};
use super::progress::{Progress, Unit};

const EXAMPLES: &str = "\
Examples:
  tidelog verify ./data                               a data directory
  tidelog verify ./data/topics/orders~*/0             one partition
  tidelog verify ./data --json | jq 'select(.damage)'

It reads every batch and changes nothing. Damage makes the exit status 1. A note is something that the next start
repairs by itself, such as an unfinished write at the end; beside a running server, it may be a write under way.";

/// Options of `verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Data directory, or the folder of one partition
    dir: PathBuf,
    /// Print each finding, and the summary, as a JSON object
    #[arg(long)]
    json: bool,
    /// Print damage only
    #[arg(long, short)]
    quiet: bool,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Logs checked: partitions, and the journal.
    pub logs: u64,
    /// Whole batches found.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Findings that are damage.
    pub damaged: u64,
    /// Findings that the next start repairs.
    pub notes: u64,
}

/// Runs `verify`.
pub fn run(args: VerifyArgs) -> Result<(), Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let logs = logs_of(&disk, &args.dir)?;
    let mut progress = Progress::new(Unit::Bytes, Some(bytes_of(&disk, &logs)), "checking");
    let mut out = output::stdout();
    let mut broken = Ok(());
    let verdict = check(
        &disk,
        &logs,
        &mut |finding| {
            if broken.is_ok() && (finding.damage || !args.quiet) {
                broken = print(&mut out, &args, &finding);
            }
        },
        &mut |bytes| progress.advance(bytes),
    );
    progress.finish();
    broken?;
    let verdict = verdict?;
    summarize(&mut out, &args, verdict, progress.elapsed())?;
    match verdict.damaged {
        0 => Ok(()),
        damaged => Err(Failure::Failed(format!("'{}' has damage in {}", args.dir.display(), count(damaged, "place")))),
    }
}

/// Checks the folders of `logs_of`.
///
/// # Errors
/// What keeps it from reading; damage is a finding.
pub fn check(
    disk: &Arc<dyn Disk>,
    logs: &[PathBuf],
    found: &mut dyn FnMut(Finding),
    progress: &mut dyn FnMut(u64),
) -> Result<Verdict, Failure> {
    let mut verdict = Verdict::default();
    let (mut damaged, mut notes) = (0, 0);
    for dir in logs {
        let mut count = |finding: Finding| {
            *(if finding.damage { &mut damaged } else { &mut notes }) += 1;
            found(finding);
        };
        if !disk.exists(dir).unwrap_or(true) {
            let what = "the partition's folder is missing".to_owned();
            count(Finding { file: dir.clone(), position: 0, from: 0, to: None, what, damage: true });
            continue;
        }
        let VerifySummary { batches, records, bytes, .. } =
            verify_partition(disk, dir, &mut count, progress).map_err(Failure::failed)?;
        verdict.logs += 1;
        verdict.batches += batches;
        verdict.records += records;
        verdict.bytes += bytes;
    }
    Ok(Verdict { damaged, notes, ..verdict })
}

/// The folders with a log in them: the journal's and every partition's, or `dir` itself if it is one.
///
/// # Errors
/// It is no data directory of this format, or cannot be read.
pub fn logs_of(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let list = |dir: &Path| {
        disk.list(dir).map_err(|error| Failure::Failed(format!("cannot list '{}': {error}", dir.display())))
    };
    if list(dir)?.iter().any(|entry| SegmentName::parse(&entry.name, "log").is_some()) {
        return Ok(vec![dir.to_owned()]);
    }
    let data = DataDir::open_read_only(disk, dir).map_err(Failure::failed)?;
    let mut logs = Vec::new();
    if disk.exists(&data.journal_dir()).unwrap_or(false) {
        logs.push(data.journal_dir());
    }
    if disk.exists(&data.topics_dir()).unwrap_or(false) {
        for topic in list(&data.topics_dir())?.iter().filter(|entry| entry.is_dir) {
            let topic_dir = data.topics_dir().join(&topic.name);
            let mut partitions: Vec<u32> = list(&topic_dir)?
                .iter()
                .filter(|entry| entry.is_dir)
                .filter_map(|entry| entry.name.parse().ok())
                .collect();
            partitions.sort_unstable();
            logs.extend(partitions.into_iter().map(|partition| topic_dir.join(partition.to_string())));
        }
    }
    // One that is not there is for `check` to report.
    for expected in expected_partitions(disk.as_ref(), &data) {
        if !logs.contains(&expected) {
            logs.push(expected);
        }
    }
    Ok(logs)
}

/// Bytes of all segments, for the progress bar; what cannot be listed counts as nothing and is told by the check.
fn bytes_of(disk: &Arc<dyn Disk>, logs: &[PathBuf]) -> u64 {
    let listed = logs.iter().filter_map(|dir| Some((dir, disk.list(dir).ok()?)));
    let files = listed.flat_map(|(dir, entries)| entries.into_iter().map(move |entry| (dir.join(&entry.name), entry)));
    let segments = files.filter(|(_, entry)| SegmentName::parse(&entry.name, "log").is_some());
    segments.map(|(path, _)| length_of(disk.as_ref(), &path)).sum()
}

fn print(out: &mut Out, args: &VerifyArgs, finding: &Finding) -> Result<(), Failure> {
    if args.json {
        let line = json!({
            "file": finding.file.display().to_string(),
            "position": finding.position,
            "from": finding.from,
            "to": finding.to,
            "damage": finding.damage,
            "what": finding.what,
        });
        return output::json_line(out, &line);
    }
    let offsets = match finding.to {
        Some(to) if to > finding.from + 1 => format!("offsets {} to {}", finding.from, to - 1),
        Some(to) if to == finding.from => format!("before offset {to}"),
        _ => format!("offset {}", finding.from),
    };
    let label = if finding.damage { "DAMAGE" } else { "note" };
    Ok(writeln!(out, "{label}: {} at {}, {offsets}: {}", finding.file.display(), finding.position, finding.what)?)
}

fn summarize(out: &mut Out, args: &VerifyArgs, verdict: Verdict, took: Duration) -> Result<(), Failure> {
    if args.json {
        let line = json!({
            "summary": true,
            "logs": verdict.logs,
            "batches": verdict.batches,
            "records": verdict.records,
            "bytes": verdict.bytes,
            "damaged": verdict.damaged,
            "notes": verdict.notes,
            "seconds": took.as_secs_f64(),
        });
        output::json_line(out, &line)?;
    } else if !args.quiet {
        writeln!(
            out,
            "{}, {}, {}, {} checked in {}: {}, {}",
            count(verdict.logs, "log"),
            if verdict.batches == 1 { "1 batch".to_owned() } else { format!("{} batches", grouped(verdict.batches)) },
            count(verdict.records, "record"),
            output::size(verdict.bytes),
            output::seconds(took),
            if verdict.damaged == 0 { "no damage".to_owned() } else { count(verdict.damaged, "damaged place") },
            count(verdict.notes, "note"),
        )?;
    }
    Ok(out.flush()?)
}
