//! The batches of a segment, one at a time: memory is one batch, whatever the file's size.

use std::io::Write;

use bytes::Bytes;
use serde_json::json;
use tidelog::base::limits;
use tidelog::disk::{self, DiskFile};
use tidelog::log::is_room;
use tidelog::record::{BatchHeader, Record, read_records, verify_batch};

use super::DumpArgs;
use crate::cli::failure::Failure;
use crate::cli::json::Text;
use crate::cli::output::{Out, count, json_line, rfc3339};

/// What is printed instead of a credential.
const HIDDEN: &[u8] = b"(not shown: it may hold credentials)";

/// Prints a segment.
///
/// # Errors
/// The first batch that is not whole.
pub fn dump(out: &mut Out, args: &DumpArgs, file: &dyn DiskFile) -> Result<(), Failure> {
    let path = args.file.display();
    let cannot = |error: std::io::Error| Failure::Failed(format!("cannot read '{path}': {error}"));
    let length = file.len().map_err(cannot)?;
    let (mut position, mut batches, mut records) = (0u64, 0u64, 0u64);
    while position < length {
        let broken = |what: String| Failure::Failed(format!("'{path}' has no whole batch at {position}: {what}"));
        let left = length - position;
        // A batch begins with its offset, of which only the first one is 0.
        let room = |to: u64| is_room(file, position, to).map_err(cannot);
        if batches > 0 && room(length.min(position + 8))? && room(length)? {
            break;
        }
        let mut head = [0; limits::BATCH_HEADER_BYTES];
        if position == 0 && left < head.len() as u64 {
            let what = "it is no segment, index, checkpoint or sync mark";
            return Err(Failure::Failed(format!("'{path}' cannot be dumped: {what} ({length} bytes)")));
        }
        if left < head.len() as u64 {
            return Err(broken(format!("{left} bytes are left, a batch header has {}", head.len())));
        }
        disk::read_exact_at(file, &mut head, position).map_err(cannot)?;
        let header = BatchHeader::parse(&head).map_err(|error| broken(error.to_string()))?;
        let total = header.total_bytes();
        if total as u64 > left {
            return Err(broken(format!("a batch of {total} bytes of which {left} are there")));
        }
        let mut batch = vec![0; total];
        disk::read_exact_at(file, &mut batch, position).map_err(cannot)?;
        let checked = verify_batch(&batch);
        print_batch(out, args, position, &header, checked.is_ok())?;
        checked.map_err(|error| broken(error.to_string()))?;
        if args.records {
            let all = read_records(&Bytes::from(batch), limits::MAX_DECOMPRESSED_BYTES);
            for record in all.map_err(|error| broken(error.to_string()))? {
                print_record(out, args, &record.map_err(|error| broken(error.to_string()))?)?;
            }
        }
        position += total as u64;
        batches += 1;
        records += u64::from(header.record_count);
    }
    if !args.json {
        writeln!(out, "{}: {batches} batches, {}, {length} bytes", path, count(records, "record"))?;
    }
    Ok(())
}

fn print_batch(
    out: &mut Out,
    args: &DumpArgs,
    position: u64,
    header: &BatchHeader,
    whole: bool,
) -> Result<(), Failure> {
    let codec = header.compression().map_or("unknown", |codec| codec.name());
    if args.json {
        let line = json!({
            "position": position,
            "base_offset": header.base_offset,
            "last_offset": header.last_offset(),
            "records": header.record_count,
            "bytes": header.total_bytes(),
            "codec": codec,
            "producer_id": header.producer_id,
            "producer_epoch": header.producer_epoch,
            "base_sequence": header.base_sequence,
            "base_timestamp": header.base_timestamp,
            "max_timestamp": header.max_timestamp,
            "log_append_time": header.log_append_time(),
            "transactional": header.is_transactional(),
            "control": header.is_control(),
            "delete_horizon": header.delete_horizon(),
            "crc": format!("{:08x}", header.crc),
            "crc_ok": whole,
        });
        return json_line(out, &line);
    }
    write!(
        out,
        "at {position}: offsets {}-{}, {}, {} bytes, {codec}, {} .. {}",
        header.base_offset,
        header.last_offset(),
        count(header.record_count.into(), "record"),
        header.total_bytes(),
        rfc3339(header.base_timestamp),
        rfc3339(header.max_timestamp),
    )?;
    if header.producer_id >= 0 {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        write!(out, ", producer {id} epoch {epoch} sequence {sequence}-{}", header.last_sequence())?;
    }
    for (is, word) in [(header.is_transactional(), ", transactional"), (header.is_control(), ", control")] {
        if is {
            write!(out, "{word}")?;
        }
    }
    Ok(writeln!(out, ", crc {:08x} {}", header.crc, if whole { "ok" } else { "WRONG" })?)
}

/// Whether it is an event of the journal that may hold the credentials of an endpoint.
fn is_hidden(args: &DumpArgs, key: Option<&[u8]>) -> bool {
    let of_journal = args.file.parent().and_then(|folder| folder.file_name()).is_some_and(|name| name == "journal");
    of_journal && key.is_some_and(|key| key.starts_with(b"push/"))
}

fn print_record(out: &mut Out, args: &DumpArgs, record: &Record) -> Result<(), Failure> {
    let (key, mut value) = (record.key.as_deref(), record.value.as_deref());
    if value.is_some() && is_hidden(args, key) {
        value = Some(HIDDEN);
    }
    if args.json {
        let line = json!({
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": key.map(Text),
            "headers": &record.headers,
            "value": value.map(Text),
        });
        return json_line(out, &line);
    }
    write!(out, "  {} {}", record.offset, rfc3339(record.timestamp))?;
    if let Some(key) = key {
        write!(out, " key {}", key.escape_ascii())?;
    }
    for header in &record.headers {
        let value = header.value.unwrap_or_default();
        write!(out, " {}={}", header.name.escape_ascii(), value.escape_ascii())?;
    }
    match value {
        Some(value) => writeln!(out, ": {}", String::from_utf8_lossy(value).escape_debug())?,
        None => writeln!(out, ": (no value)")?,
    }
    Ok(())
}
