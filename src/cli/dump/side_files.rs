//! The small files beside a segment.

use std::io::Write;

use serde_json::json;
use tidelog::log::{Checkpoint, IndexFile, SyncMark, read_index_file};

use super::DumpArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Out, count, json_line, rfc3339};

/// Which sort of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An offset or a time index.
    Index,
    /// What is known to be synced and verified.
    Checkpoint,
    /// How far the last sync reached.
    SyncMark,
}

impl Kind {
    /// What begins with these bytes; `None` for a segment, which has no magic of its own.
    pub fn of(magic: &[u8]) -> Option<Self> {
        match magic {
            b"TLOI" | b"TLTI" => Some(Self::Index),
            b"TLCP" => Some(Self::Checkpoint),
            b"TLSM" => Some(Self::SyncMark),
            _ => None,
        }
    }
}

/// Prints such a file.
///
/// # Errors
/// What is wrong with it.
pub fn dump(out: &mut Out, args: &DumpArgs, kind: Kind, content: &[u8]) -> Result<(), Failure> {
    let broken = |what: String| Failure::Failed(format!("'{}' is damaged: {what}", args.file.display()));
    match kind {
        Kind::Index => index(out, args.json, &read_index_file(content).map_err(broken)?),
        Kind::Checkpoint => checkpoint(out, args.json, &Checkpoint::decode(content).map_err(broken)?),
        Kind::SyncMark => {
            let mark = SyncMark::decode(content).ok_or_else(|| broken("it is not whole".to_owned()))?;
            if args.json {
                let line = json!({ "synced": mark.offset, "segment": mark.segment, "position": mark.position });
                return json_line(out, &line);
            }
            let SyncMark { offset, segment, position } = mark;
            Ok(writeln!(out, "synced up to offset {offset}: position {position} of segment {segment}")?)
        }
    }
}

fn index(out: &mut Out, json: bool, index: &IndexFile) -> Result<(), Failure> {
    if json {
        let value = if index.by_time { "newest_timestamp_before" } else { "position" };
        json_line(
            out,
            &json!({
                "index": if index.by_time { "time" } else { "offset" },
                "base_offset": index.base_offset,
                "covered_bytes": index.covered,
                "next_offset": index.next_offset,
                "newest_timestamp": index.newest_timestamp,
                "entries": index.entries.len(),
            }),
        )?;
        for (offset, number) in &index.entries {
            json_line(out, &json!({ "offset": offset, value: number }))?;
        }
        return Ok(());
    }
    writeln!(
        out,
        "{} index of the segment from offset {}: covers {} bytes up to offset {}, newest record {}, {} entries",
        if index.by_time { "time" } else { "offset" },
        index.base_offset,
        index.covered,
        index.next_offset,
        time(index.newest_timestamp),
        index.entries.len()
    )?;
    for (offset, number) in &index.entries {
        if index.by_time {
            writeln!(out, "offset {offset}: newest record before it {}", time(*number))?;
        } else {
            writeln!(out, "offset {offset}: at {number}")?;
        }
    }
    Ok(())
}

/// An empty index has the smallest number for its newest timestamp.
fn time(timestamp: i64) -> String {
    if timestamp == i64::MIN { "none".to_owned() } else { rfc3339(timestamp) }
}

fn checkpoint(out: &mut Out, json: bool, checkpoint: &Checkpoint) -> Result<(), Failure> {
    if json {
        let sealed = checkpoint.sealed.iter().map(|segment| {
            json!({
                "base_offset": segment.base_offset,
                "generation": segment.generation,
                "bytes": segment.bytes,
                "next_offset": segment.next_offset,
                "newest_timestamp": segment.newest_timestamp,
                "delete_horizon": segment.horizon,
            })
        });
        let line = json!({
            "log_start": checkpoint.log_start,
            "active_segment": checkpoint.active_base,
            "position": checkpoint.position,
            "next_offset": checkpoint.next_offset,
            "compacted_to": checkpoint.cleaned_to,
            "producers": checkpoint.producers(),
            "keys": checkpoint.keys(),
            "sealed": sealed.collect::<Vec<_>>(),
        });
        return json_line(out, &line);
    }
    writeln!(
        out,
        "log from offset {}; synced and verified up to offset {}: position {} of segment {}; {}; {}; {}",
        checkpoint.log_start,
        checkpoint.next_offset,
        checkpoint.position,
        checkpoint.active_base,
        count(checkpoint.producers() as u64, "producer"),
        count(checkpoint.keys() as u64, "key"),
        count(checkpoint.sealed.len() as u64, "sealed segment"),
    )?;
    if checkpoint.cleaned_to > 0 {
        writeln!(out, "compacted up to offset {}", checkpoint.cleaned_to)?;
    }
    for segment in &checkpoint.sealed {
        let newest = time(segment.newest_timestamp);
        let last = segment.next_offset.saturating_sub(1);
        write!(
            out,
            "segment {}: to offset {last}, {} bytes, newest record {newest}",
            segment.base_offset, segment.bytes
        )?;
        match segment.generation {
            0 => writeln!(out)?,
            generation => writeln!(out, ", compacted (generation {generation})")?,
        }
    }
    Ok(())
}
