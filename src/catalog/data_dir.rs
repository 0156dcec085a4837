//! The data directory: what lies where, whose it is, and that one server at a time has it.
//!
//! ```text
//! <data directory>/
//!   lock                      held while a server runs; its content is that server's process id, for people
//!   format                    what this folder is: see below
//!   journal/                  the log of every change to what exists
//!   clock                     the time of the last run, for the next one
//!   view/                     a cache over the journal
//!   topics/<name>~<id>/<n>/   the log of partition n
//! ```
//!
//! The file `format`, big-endian:
//!
//! ```text
//! "TIDELOG\n" | u32 format version | u128 server id | u32 CRC-32 of all before it
//! ```
//!
//! Every later version begins with the same magic and version and ends with the CRC-32 of the rest, so that a newer
//! format can be told from a damaged file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::{PartitionId, TopicId, TopicName};
use crate::disk::{self, DirLock, Disk, OpenMode};

use super::CatalogError;

const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format";
const MAGIC: &[u8; 8] = b"TIDELOG\n";
const FORMAT_VERSION: u32 = 1;
const FORMAT_BYTES: usize = 8 + 4 + 16 + 4;

/// Characters of a topic's name in its folder's name: with `~` and the id, a file name has at most 255 bytes.
const FOLDER_NAME_CHARS: usize = 200;

/// An open data directory. The lock is held until it is unlocked or dropped.
pub struct DataDir {
    /// Its path.
    pub path: PathBuf,
    /// Chosen at random when it was made; a copy has the same.
    pub server_id: u128,
    lock: Mutex<Option<Box<dyn DirLock>>>,
}

impl DataDir {
    /// Opens a data directory and locks it. With `create`, a folder that is missing or empty becomes one.
    ///
    /// # Errors
    /// [`CatalogError::InUse`], [`CatalogError::NotADataDir`], [`CatalogError::NewerFormat`],
    /// [`CatalogError::DamagedFormat`], and those of the disk. Nothing in it has changed then (but for the lock file).
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, create: bool) -> Result<Self, CatalogError> {
        let disk = disk.as_ref();
        if create {
            make_dir(disk, path)?;
        } else if !disk.exists(path).map_err(CatalogError::io("cannot look at", path))? {
            return Err(not_one(path, "there is no such folder"));
        }
        // A folder of somebody else's is left alone, without even a lock file.
        if !look_like_ours(disk, path, create)? {
            return Err(not_one(path, "it has no file 'format' and is not empty"));
        }
        let lock = take_lock(disk, path)?;
        let format = path.join(FORMAT_FILE);
        let server_id = if disk.exists(&format).map_err(CatalogError::io("cannot look at", &format))? {
            read_format(disk, path, &format)?
        } else {
            let server_id = uuid::Uuid::new_v4().as_u128();
            disk::replace_file(disk, &format, &encode_format(server_id))
                .map_err(CatalogError::io("cannot write", &format))?;
            server_id
        };
        let dir = Self { path: path.to_owned(), server_id, lock: Mutex::new(Some(lock)) };
        make_dir(disk, &dir.topics_dir())?;
        settle(disk, path)?;
        Ok(dir)
    }

    /// Opens a data directory to look at it: takes no lock and changes nothing, so it also works on a copy, on a
    /// read-only file system, and beside a running server.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_read_only(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self, CatalogError> {
        let disk = disk.as_ref();
        let format = path.join(FORMAT_FILE);
        if !disk.exists(&format).map_err(CatalogError::io("cannot look at", &format))? {
            return Err(not_one(path, "it has no file 'format'"));
        }
        Ok(Self { path: path.to_owned(), server_id: read_format(disk, path, &format)?, lock: Mutex::default() })
    }

    /// Lets another server have it. Nothing in it may be changed through this one any more.
    pub fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The journal's folder.
    pub fn journal_dir(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The view's folder.
    pub fn view_dir(&self) -> PathBuf {
        self.path.join("view")
    }

    /// The folder of all topics.
    pub fn topics_dir(&self) -> PathBuf {
        self.path.join("topics")
    }

    /// The folder of one incarnation of a topic. The id makes it unique, the name is for people.
    pub fn topic_dir(&self, name: &TopicName, id: TopicId) -> PathBuf {
        let name: String = name.as_str().chars().take(FOLDER_NAME_CHARS).collect();
        self.topics_dir().join(format!("{name}~{id}"))
    }

    /// The folder of a partition's log.
    pub fn partition_dir(&self, name: &TopicName, id: TopicId, partition: PartitionId) -> PathBuf {
        self.topic_dir(name, id).join(partition.to_string())
    }
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataDir({}, server {:032x})", self.path.display(), self.server_id)
    }
}

fn not_one(path: &Path, what: &str) -> CatalogError {
    CatalogError::NotADataDir { path: path.to_owned(), what: what.to_owned() }
}

/// Makes a folder, durable when it returns.
fn make_dir(disk: &dyn Disk, path: &Path) -> Result<(), CatalogError> {
    // Of the folders above, those that are missing are made too, and each becomes durable in the one above it.
    let mut parents = Vec::new();
    let mut missing = path;
    while !disk.exists(missing).map_err(CatalogError::io("cannot look at", missing))? {
        let Some(parent) = missing.parent().filter(|parent| !parent.as_os_str().is_empty()) else { break };
        parents.push(parent);
        missing = parent;
    }
    disk.create_dir_all(path).map_err(CatalogError::io("cannot make", path))?;
    for parent in parents {
        disk.sync_dir(parent).map_err(CatalogError::io("cannot sync", parent))?;
    }
    Ok(())
}

/// Makes the folder's own entries durable: a start that was killed may have left them unsynced.
fn settle(disk: &dyn Disk, path: &Path) -> Result<(), CatalogError> {
    disk.sync_dir(path).map_err(CatalogError::io("cannot sync", path))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && let Err(error) = disk.sync_dir(parent)
    {
        // It may belong to somebody else, who made this folder long ago.
        tracing::debug!(folder = %parent.display(), %error, "cannot sync the folder above the data directory");
    }
    Ok(())
}

/// Whether there is a format file, or nothing yet and one may be made.
fn look_like_ours(disk: &dyn Disk, path: &Path, create: bool) -> Result<bool, CatalogError> {
    let entries = disk.list(path).map_err(CatalogError::io("cannot list", path))?;
    if entries.iter().any(|entry| entry.name == FORMAT_FILE) {
        return Ok(true);
    }
    // What a first start that was cut short may have left.
    let leftovers = [LOCK_FILE, "format.tmp"];
    Ok(create && entries.iter().all(|entry| !entry.is_dir && leftovers.contains(&entry.name.as_str())))
}

fn take_lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DirLock>, CatalogError> {
    let file = path.join(LOCK_FILE);
    let lock = disk.lock(&file).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => {
            let content = disk::read_file(disk, &file).unwrap_or_default();
            let pid = String::from_utf8_lossy(&content).trim().parse().ok();
            CatalogError::InUse { path: path.to_owned(), pid }
        }
        _ => CatalogError::Io { doing: "cannot lock", path: file.clone(), source },
    })?;
    let noted = disk.open(&file, OpenMode::ReadWrite).and_then(|file| {
        file.set_len(0)?;
        file.write_at(format!("{}\n", std::process::id()).as_bytes(), 0)
    });
    if let Err(error) = noted {
        // The lock holds without it; only the other server's message will be poorer.
        tracing::debug!(file = %file.display(), %error, "cannot note the process id");
    }
    Ok(lock)
}

pub(crate) fn encode_format(server_id: u128) -> Vec<u8> {
    let mut content = Vec::with_capacity(FORMAT_BYTES);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    content.extend_from_slice(&server_id.to_be_bytes());
    let checksum = crc32fast::hash(&content);
    content.extend_from_slice(&checksum.to_be_bytes());
    content
}

fn read_format(disk: &dyn Disk, path: &Path, file: &Path) -> Result<u128, CatalogError> {
    let content = disk::read_file(disk, file).map_err(CatalogError::io("cannot read", file))?;
    let damaged = |what: &str| CatalogError::DamagedFormat { path: file.to_owned(), what: what.to_owned() };
    if !content.starts_with(MAGIC) {
        return Err(damaged("it does not begin with TIDELOG"));
    }
    let Some((body, checksum)) = content.split_last_chunk::<4>() else {
        return Err(damaged("it is too short"));
    };
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return Err(damaged("its checksum does not fit its content"));
    }
    let Some((version, fields)) = body.get(MAGIC.len()..).and_then(|rest| rest.split_first_chunk::<4>()) else {
        return Err(damaged("it is too short"));
    };
    let found = u32::from_be_bytes(*version);
    if found > FORMAT_VERSION {
        return Err(CatalogError::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION });
    }
    match (found, <[u8; 16]>::try_from(fields)) {
        (FORMAT_VERSION, Ok(server_id)) => Ok(u128::from_be_bytes(server_id)),
        (FORMAT_VERSION, Err(_)) => Err(damaged(&format!("it has {} bytes instead of {FORMAT_BYTES}", content.len()))),
        _ => Err(damaged(&format!("there is no format version {found}"))),
    }
}
