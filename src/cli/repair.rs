//! `tidelog repair`: gives up what is damaged in a data directory, so that everything else can be used again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tidelog::base::{Clock, SystemClock};
use tidelog::catalog::{DataDir, JournalRepair, ViewMode, repair_journal};
use tidelog::disk::{Disk, RealDisk};
use tidelog::log::{DamageList, Finding, LogConfig, PartitionLog};

use super::failure::Failure;
use super::output::{self, Out, count};
use super::verify::{check, logs_of};

const EXAMPLES: &str = "\
Examples:
  tidelog verify ./data                  what is damaged
  tidelog repair ./data --dry-run        what a repair would give up; changes nothing
  tidelog repair ./data                  says the same, asks, and does it
  tidelog repair ./data --yes --json     for scripts

Stop the server first. Batches that cannot be read are given up: their offsets stay empty, readers pass over
them, and no offset is used again. Every other record stays. Files that are replaced are kept in
DIR/damaged until you delete them. Events that the journal lost are written back if the view still knows them;
a topic whose creation was lost comes back with default settings.

If you have a copy of the data, restore the damaged files from it instead.";

/// Options of `repair`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RepairArgs {
    /// Data directory of a server that is stopped
    dir: PathBuf,
    /// Say what would be given up, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Print JSON objects, one a line
    #[arg(long)]
    json: bool,
}

/// A log with damage.
struct Broken {
    dir: PathBuf,
    /// Its path in the data directory.
    name: String,
    findings: Vec<Finding>,
}

/// Runs `repair`.
pub fn run(args: RepairArgs) -> Result<(), Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let data = match args.dry_run {
        true => DataDir::open_read_only(&disk, &args.dir),
        false => DataDir::open(&disk, &args.dir, false),
    };
    let data = data.map_err(Failure::failed)?;
    let mut out = output::stdout();
    let broken = find(&disk, &data)?;
    let (missing, broken): (Vec<_>, Vec<_>) =
        broken.into_iter().partition(|log| !disk.exists(&log.dir).unwrap_or(true));
    for log in &broken {
        tell(&mut out, &args, log)?;
    }
    out.flush()?;
    let offsets = broken.iter().flat_map(|log| &log.findings).map(lost).sum();
    if !args.dry_run && !broken.is_empty() {
        if !args.yes {
            output::confirm(
                &format!("Give up {} that cannot be read?", count(offsets, "offset")),
                "giving up records needs --yes where nobody can be asked",
                "nothing was changed",
            )?;
        }
        for log in &broken {
            let keep = data.path.join("damaged").join(&log.name);
            repair(&mut out, &args, &disk, &data, log, &keep)?;
        }
        let left: Vec<_> =
            find(&disk, &data)?.into_iter().filter(|log| disk.exists(&log.dir).unwrap_or(true)).collect();
        if let Some(log) = left.first() {
            return Err(Failure::Failed(format!("'{}' has damage that could not be repaired", log.name)));
        }
    }
    summarize(&mut out, &args, broken.len(), offsets)?;
    match missing.first() {
        Some(log) => Err(Failure::Failed(format!(
            "the folder of '{}' is missing and cannot be repaired: restore it from a copy, or delete the topic",
            log.name
        ))),
        None => Ok(()),
    }
}

/// The logs with damage, of which some is only remembered.
fn find(disk: &Arc<dyn Disk>, data: &DataDir) -> Result<Vec<Broken>, Failure> {
    let mut broken = Vec::new();
    for dir in logs_of(disk, &data.path)? {
        let mut findings = Vec::new();
        let mut found = |finding: Finding| findings.extend(finding.damage.then_some(finding));
        check(disk, std::slice::from_ref(&dir), &mut found, &mut |_| {})?;
        let known = DamageList::read(disk.as_ref(), &dir).is_ok_and(|list| !list.entries().is_empty());
        if known || !findings.is_empty() {
            let name = dir.strip_prefix(&data.path).unwrap_or(&dir).display().to_string();
            broken.push(Broken { dir, name, findings });
        }
    }
    Ok(broken)
}

/// Offsets that a finding takes; 1 where the end is unknown.
fn lost(finding: &Finding) -> u64 {
    finding.to.map_or(1, |to| to.saturating_sub(finding.from)).max(1)
}

fn tell(out: &mut Out, args: &RepairArgs, log: &Broken) -> Result<(), Failure> {
    for finding in &log.findings {
        if args.json {
            let line = json!({
                "log": log.name,
                "file": finding.file.display().to_string(),
                "position": finding.position,
                "from": finding.from,
                "to": finding.to,
                "what": finding.what,
            });
            output::json_line(out, &line)?;
            continue;
        }
        let offsets = match finding.to {
            Some(to) if to > finding.from + 1 => format!("offsets {} to {}", finding.from, to - 1),
            _ => format!("offset {}", finding.from),
        };
        let file = finding.file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(out, "{}: {offsets} lost: {file} at byte {}: {}", log.name, finding.position, finding.what)?;
    }
    Ok(())
}

fn repair(
    out: &mut Out,
    args: &RepairArgs,
    disk: &Arc<dyn Disk>,
    data: &DataDir,
    log: &Broken,
    keep: &Path,
) -> Result<(), Failure> {
    let now = SystemClock::default().wall_ms();
    let fail = |error: String| Failure::Failed(format!("'{}' cannot be repaired: {error}", log.name));
    if log.dir == data.journal_dir() {
        let mode = if data.topics_dir().is_dir() { ViewMode::Sled } else { ViewMode::Off };
        let repair = repair_journal(disk, data, mode, keep, now).map_err(|error| fail(error.to_string()))?;
        return tell_of_journal(out, args, &repair);
    }
    let open = || {
        let (mut open, _) = PartitionLog::open(Arc::clone(disk), log.dir.clone(), LogConfig::default(), now)?;
        open.repair(keep)?;
        open.close(now)
    };
    open().map_err(|error| fail(error.to_string()))
}

fn tell_of_journal(out: &mut Out, args: &RepairArgs, repair: &JournalRepair) -> Result<(), Failure> {
    let JournalRepair { recovered, written_back, adopted, .. } = repair;
    if args.json {
        let adopted: Vec<_> = adopted.iter().map(|name| name.as_str()).collect();
        let line = json!({
            "log": "journal", "recovered": recovered, "written_back": written_back, "adopted": adopted,
        });
        return output::json_line(out, &line);
    }
    if *recovered {
        let entries = count(*written_back as u64, "lost entry").replace("entrys", "entries");
        writeln!(out, "journal: nothing is lost: the view knew everything; {entries} written back")?;
    } else {
        writeln!(out, "journal: the view does not know what was lost: check topics, groups and routes")?;
    }
    for name in adopted {
        writeln!(out, "journal: topic '{name}' is back by its folder, with default settings")?;
    }
    Ok(())
}

fn summarize(out: &mut Out, args: &RepairArgs, logs: usize, offsets: u64) -> Result<(), Failure> {
    if args.json {
        let line = json!({ "summary": true, "logs": logs, "offsets": offsets, "repaired": !args.dry_run && logs > 0 });
        output::json_line(out, &line)?;
    } else if logs == 0 {
        writeln!(out, "no damage: nothing to repair")?;
    } else if args.dry_run {
        writeln!(out, "{} in {} would be given up", count(offsets, "offset"), count(logs as u64, "log"))?;
    } else {
        let kept = args.dir.join("damaged");
        let logs = count(logs as u64, "log");
        writeln!(out, "{} in {logs} given up; replaced files are in {}", count(offsets, "offset"), kept.display())?;
    }
    Ok(out.flush()?)
}
