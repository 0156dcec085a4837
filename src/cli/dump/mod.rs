//! `tidelog dump`: what is in one file of a partition folder. What the file is, its content says; its name does not
//! matter.

mod segment;
mod side_files;

use std::path::PathBuf;

use clap::Args;
use tidelog::disk::{self, Disk, OpenMode, RealDisk};

use super::failure::Failure;
use super::output;

const EXAMPLES: &str = "\
Examples:
  tidelog dump data/topics/orders~*/0/00000000000000000000.log             one line a batch
  tidelog dump data/topics/orders~*/0/00000000000000000000.log --records   and one a record
  tidelog dump data/topics/orders~*/0/00000000000000000000.index
  tidelog dump data/topics/orders~*/0/checkpoint --json

It reads segments, offset and time indexes, checkpoints and sync marks. It stops at the first batch that is not whole,
with exit status 1; 'tidelog verify' tells a damaged batch from an unfinished write.";

/// Options of `dump`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DumpArgs {
    /// The file
    file: PathBuf,
    /// Print the records of each batch, too
    #[arg(long, short)]
    records: bool,
    /// Print JSON objects, one a line
    #[arg(long)]
    json: bool,
}

/// Runs `dump`.
pub fn run(args: DumpArgs) -> Result<(), Failure> {
    let path = &args.file;
    let cannot = |error: std::io::Error| Failure::Failed(format!("cannot read '{}': {error}", path.display()));
    let file = RealDisk.open(path, OpenMode::Read).map_err(cannot)?;
    let mut magic = [0; 4];
    let known = file.read_at(&mut magic, 0).map_err(cannot)?;
    let mut out = output::stdout();
    let kind = side_files::Kind::of(&magic[..known]);
    let dumped = match kind {
        Some(kind) => {
            let content = disk::read_file(&RealDisk, path).map_err(cannot)?;
            side_files::dump(&mut out, &args, kind, &content)
        }
        None => segment::dump(&mut out, &args, file.as_ref()),
    };
    let flushed = std::io::Write::flush(&mut out);
    dumped?;
    Ok(flushed?)
}
