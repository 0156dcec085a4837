//! Which of the segment files in a folder make up the log.
//!
//! The checkpoint says so for everything before the active segment. Beside those there may be files that a crash left:
//! of a compaction that did not come to its checkpoint, of files that it had replaced, of retention. Without a
//! checkpoint, of files with one first offset the one of the highest generation counts: it was whole, and made of the
//! others, before it got its name.

use std::path::{Path, PathBuf};

use crate::disk::Disk;

use super::SegmentName;
use super::checkpoint::Checkpoint;

/// The segment files of a folder, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Those of the log, in order.
    pub(crate) log: Vec<SegmentName>,
    /// What a crash left; the next opening removes them.
    pub(crate) leftovers: Vec<SegmentName>,
    /// Those that belong to nobody.
    pub(crate) strays: Vec<SegmentName>,
}

impl Listing {
    /// Tells files apart; `names` is sorted.
    pub(crate) fn new(names: &[SegmentName], checkpoint: Option<&Checkpoint>) -> Self {
        let mut listing = Self::default();
        let Some(checkpoint) = checkpoint else {
            for &name in names {
                match listing.log.last_mut() {
                    Some(last) if last.base_offset == name.base_offset => {
                        listing.leftovers.push(std::mem::replace(last, name));
                    }
                    _ => listing.log.push(name),
                }
            }
            return listing;
        };
        for &name in names {
            let base = name.base_offset;
            let replaced = || {
                let mut compacted = checkpoint.sealed.iter().filter(|sealed| sealed.generation > 0);
                compacted.any(|sealed| (sealed.base_offset..sealed.next_offset).contains(&base))
            };
            if checkpoint.sealed(name).is_some() || base >= checkpoint.active_base && name.generation == 0 {
                listing.log.push(name);
            } else if name.generation > 0 || base < checkpoint.log_start || replaced() {
                listing.leftovers.push(name);
            } else {
                listing.strays.push(name);
            }
        }
        listing
    }
}

/// Whether the checkpoint is older than the files: compaction has replaced files that it names by ones that it does not
/// know. Never after a crash, but in a copy that was made while the server was at work.
pub(crate) fn is_outdated(checkpoint: &Checkpoint, names: &[SegmentName]) -> bool {
    let unknown = || names.iter().filter(|name| name.generation > 0 && checkpoint.sealed(**name).is_none());
    let named = checkpoint.sealed.iter().map(|sealed| sealed.name());
    let active = (checkpoint.position > 0).then(|| SegmentName::written(checkpoint.active_base));
    let mut missing = named.chain(active).filter(|name| !names.contains(name));
    unknown().any(|name| name.base_offset >= checkpoint.active_base)
        || missing.any(|missing| unknown().any(|name| name.base_offset <= missing.base_offset))
}

/// The segment files that make up the log in a folder, in order, without opening (and so recovering) it.
///
/// # Errors
/// Those of listing the folder.
pub fn segment_files(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let checkpoint = Checkpoint::read(disk, dir).unwrap_or_default();
    let names = segment_names(disk, dir)?;
    let checkpoint = checkpoint.filter(|checkpoint| !is_outdated(checkpoint, &names));
    let listing = Listing::new(&names, checkpoint.as_ref());
    Ok(listing.log.into_iter().map(|name| dir.join(name.file("log"))).collect())
}

/// The names of all segment files in a folder, sorted.
pub(crate) fn segment_names(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<SegmentName>> {
    let entries = disk.list(dir)?;
    let mut names: Vec<_> = entries.iter().filter_map(|entry| SegmentName::parse(&entry.name, "log")).collect();
    names.sort_unstable();
    Ok(names)
}
