//! What is known to be damaged in a log, kept beside it, so that no restart forgets it.
//!
//! Damage is found when the log is opened, by a reader, or by the scrubber. Recovery goes on behind it, so the next opening
//! may not meet it again: only this list still says that acknowledged records are missing. An entry stays until retention
//! has passed it or `tidelog repair` has put a hole in its place. An operator may acknowledge it meanwhile.
//!
//! `damage`, replaced as a whole (all integers big-endian):
//!
//! ```text
//! magic "TLDM" | u16 version = 1 | u16 count of entries:
//!   (u64 from | u64 to, 0 for unknown | u64 position | i64 found at, ms since the Unix epoch | u8 acknowledged: 0 or 1
//!    | u16 length | file name in the partition folder | u16 length | what was found)*
//! | u32 CRC-32 of all before
//! ```
//!
//! A list that cannot be read is taken for an empty one, with a note: what it said is found again by a reader or the scrubber.

use std::path::Path;

use crate::base::{Offset, TimestampMs};
use crate::disk::{self, Disk};

use super::checkpoint::{Fields, seal};
use super::partition::PartitionLog;
use super::{Damage, LogError};

const MAGIC: &[u8; 4] = b"TLDM";
const VERSION: u16 = 1;

/// Damaged places that are remembered for a log. A disk that loses more is known to be lost.
pub const DAMAGE_ENTRIES: usize = 1_000;

/// Bytes of a text of an entry.
const TEXT_BYTES: usize = 512;

/// Damage, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDamage {
    /// What is damaged.
    pub damage: Damage,
    /// When it was found, in milliseconds since the Unix epoch.
    pub found_ms: TimestampMs,
    /// An operator has seen it.
    pub acknowledged: bool,
}

impl KnownDamage {
    /// The number of offsets that cannot be read; 1 at the least, as the end may be unknown.
    pub fn offsets(&self) -> u64 {
        self.damage.to.map_or(1, |to| to.saturating_sub(self.damage.from)).max(1)
    }
}

/// The damaged places of a log, by first offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DamageList {
    entries: Vec<KnownDamage>,
}

impl DamageList {
    /// The file's name.
    pub const FILE: &str = "damage";

    /// The entries, by first offset.
    pub fn entries(&self) -> &[KnownDamage] {
        &self.entries
    }

    /// Takes damage in; whether that is news. What is known already stays acknowledged if it was, and a later finding of the
    /// same place is believed about its extent.
    pub(crate) fn note(&mut self, damage: &Damage, now_ms: TimestampMs) -> bool {
        let covers = |known: &KnownDamage| {
            let end = known.damage.to.unwrap_or(known.damage.from + 1);
            known.damage.from <= damage.from && damage.from < end.max(known.damage.from + 1)
        };
        if self.entries.iter().any(covers) || self.entries.len() >= DAMAGE_ENTRIES {
            return false;
        }
        let at = self.entries.partition_point(|known| known.damage.from < damage.from);
        self.entries.insert(at, KnownDamage { damage: damage.clone(), found_ms: now_ms, acknowledged: false });
        true
    }

    /// Marks all entries as acknowledged; how many were not.
    pub(crate) fn acknowledge(&mut self) -> usize {
        let open = self.entries.iter_mut().filter(|known| !known.acknowledged);
        open.map(|known| known.acknowledged = true).count()
    }

    /// Forgets damage that lies wholly below `start`; whether there was any.
    pub(crate) fn forget_below(&mut self, start: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|known| known.damage.to.is_none_or(|to| to > start));
        self.entries.len() != before
    }

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 160);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&(self.entries.len() as u16).to_be_bytes());
        for KnownDamage { damage, found_ms, acknowledged } in &self.entries {
            for number in [damage.from, damage.to.unwrap_or(0), damage.position] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&found_ms.to_be_bytes());
            out.push(u8::from(*acknowledged));
            let name = damage.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            for text in [name.as_str(), damage.what.as_str()] {
                let text = &text[..text.floor_char_boundary(TEXT_BYTES)];
                out.extend_from_slice(&(text.len() as u16).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        seal(out)
    }

    /// Reads the file's content; `dir` is the partition's folder.
    ///
    /// # Errors
    /// One line on what is wrong with it.
    pub fn decode(content: &[u8], dir: &Path) -> Result<Self, String> {
        let mut fields = Fields::open(content, MAGIC)?;
        let version = fields.u16()?;
        if version != VERSION {
            return Err(format!("version {version}; this version reads {VERSION}"));
        }
        let mut entries = Vec::new();
        for _ in 0..fields.u16()? {
            let (from, to, position) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let (found_ms, acknowledged) = (fields.i64()?, fields.u8()? != 0);
            let (name, what) = (fields.text()?, fields.text()?);
            let damage = Damage { file: dir.join(name), position, from, to: (to > 0).then_some(to), what };
            entries.push(KnownDamage { damage, found_ms, acknowledged });
        }
        fields.end()?;
        Ok(Self { entries })
    }

    /// Reads the list of a partition folder, an empty one if there is none.
    ///
    /// # Errors
    /// One line on what is wrong with it.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, String> {
        match disk::read_file(disk, &dir.join(Self::FILE)) {
            Ok(content) => Self::decode(&content, dir),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes the list durable; one without entries is removed.
    ///
    /// # Errors
    /// Those of the disk; the old list is there then.
    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(Self::FILE);
        if self.entries.is_empty() {
            return match disk.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(LogError::Io { doing: "cannot remove", path, source: error })
                }
                _ => Ok(()),
            };
        }
        disk::replace_file(disk, &path, &self.encode()).map_err(LogError::io("cannot write", &path))
    }
}

impl PartitionLog {
    /// The damaged places that are known and not below the log start, by first offset.
    pub fn damage(&self) -> impl Iterator<Item = &KnownDamage> {
        let start = self.log_start;
        self.damage.entries().iter().filter(move |known| known.damage.to.is_none_or(|to| to > start))
    }

    /// Remembers damage that was found by a reader or the scrubber; whether that is news. Touches no file, so that a reader
    /// need not wait: [`PartitionLog::store_damage`] makes it durable. Damage below the log start is left out.
    pub fn note_damage(&mut self, damage: &Damage, now_ms: TimestampMs) -> bool {
        damage.to.is_none_or(|to| to > self.log_start) && self.damage.note(damage, now_ms)
    }

    /// Makes what is known of damage durable.
    ///
    /// # Errors
    /// Those of the disk; the list in memory is as it was.
    pub fn store_damage(&self) -> Result<(), LogError> {
        self.damage.store(self.files.disk().as_ref(), &self.dir)
    }

    /// Marks all known damage as acknowledged by an operator; how many places were not.
    ///
    /// # Errors
    /// Those of the disk; nothing is acknowledged then.
    pub fn acknowledge_damage(&mut self) -> Result<usize, LogError> {
        let mut list = self.damage.clone();
        list.forget_below(self.log_start);
        let count = list.acknowledge();
        if list != self.damage {
            list.store(self.files.disk().as_ref(), &self.dir)?;
            self.damage = list;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn damage(from: Offset, to: Option<Offset>) -> Damage {
        let file = PathBuf::from("/data/p/00000000000000000000.log");
        Damage { file, position: 77, from, to, what: "checksum differs".to_owned() }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_every_wrong_byte_is_found() {
        let mut list = DamageList::default();
        assert!(list.note(&damage(10, Some(20)), 5));
        assert!(list.note(&damage(3, None), 6));
        list.acknowledge();
        assert!(list.note(&damage(30, Some(31)), 7));
        let content = list.encode();
        assert_eq!(DamageList::decode(&content, Path::new("/data/p")), Ok(list.clone()));
        for at in 0..content.len() {
            let mut wrong = content.clone();
            wrong[at] ^= 1;
            DamageList::decode(&wrong, Path::new("/data/p")).unwrap_err();
            DamageList::decode(&content[..at], Path::new("/data/p")).unwrap_err();
        }
    }

    #[test]
    fn damage_that_is_known_is_no_news_and_stays_acknowledged() {
        let mut list = DamageList::default();
        assert!(list.note(&damage(10, Some(20)), 5));
        assert_eq!(list.acknowledge(), 1);
        assert!(!list.note(&damage(12, Some(20)), 9), "a reader that begins inside meets the same place");
        assert!(list.note(&damage(20, Some(21)), 9));
        assert_eq!(list.acknowledge(), 1);
        assert!(!list.forget_below(10));
        assert!(list.forget_below(20));
        assert_eq!(list.entries().len(), 1);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut list = DamageList::default();
        for at in 0..DAMAGE_ENTRIES as u64 + 10 {
            list.note(&damage(at * 2, Some(at * 2 + 1)), 0);
        }
        assert_eq!(list.entries().len(), DAMAGE_ENTRIES);
        assert!(DamageList::decode(&list.encode(), Path::new("/data/p")).is_ok());
    }
}
