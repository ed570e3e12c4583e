//! Backup and restore of a data directory.
//!
//! # What a backup is
//!
//! A directory with the files of the data directory as they were at one moment, and `backup.json`, which has the length and the checksum
//! of each. It is there whole or not at all: it is made as `TO.part`, synced, and renamed.
//!
//! # The moment
//!
//! A running daemon goes on taking in and storing. For a few milliseconds its databases are locked against writing; meanwhile the
//! journal's files are opened and measured, and a snapshot of each database is begun. What is copied afterwards, at leisure, is
//! what was there then: the journal and the segments only grow, and a snapshot of SQLite does not change. A batch is on record in the
//! journal before its store is asked, so that what a database holds at that moment the journal knows of:
//!
//! - What was accepted and committed before the moment is in the backup, stored or unsettled, once. A batch whose outcome was not on record
//!   yet comes again under its id, and its store knows it.
//! - What was accepted later is not. A sender that asks for acknowledgements (`stream`) is told by a restored daemon what it has, and
//!   sends the rest again.
//! - A daemon with its journal in memory: only what is stored and given up.
//! - A store on files cannot be locked. Batches that it took within the moment may come again, once; where one was rolled back or pruned
//!   while its files were copied, the store may name the files of that tenant as damaged.
//! - The supervisor log may end in the middle of its last line.
//!
//! A restored directory is an earlier state of the same directory: its next daemon opens the journal under a new random id, so that no batch
//! that it cuts can be taken for one that a store has. Do not run both the original and the restored one on stores that they share.

mod restore;
mod snapshot;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use headworks_actors::UnixMillis;
use serde::{Deserialize, Serialize};

pub use restore::restore;
pub use snapshot::{State, backup};

/// The list of what is in a backup, in it.
const MANIFEST: &str = "backup.json";
/// The version of the list.
const FORMAT: u32 = 1;

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The version of this list.
    pub format: u32,
    /// The version of the program that made it.
    pub version: String,
    /// The moment whose state it has.
    pub taken_at: UnixMillis,
    /// Its files.
    pub files: Vec<BackupFile>,
}

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Where it is in the data directory.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The CRC-32C of its bytes.
    pub crc32c: u32,
}

impl Backup {
    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Why a backup or a restore was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something where it would be put.
    #[error("{path} is there already and is not empty; nothing was changed: name another place, or move it away")]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// It is no backup, or one that this version does not know.
    #[error("{path} is no backup that can be restored: {why}")]
    NoBackup {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It is not as it was made.
    #[error("the backup is damaged: {path} is not as it was written; nothing was restored")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}: {why}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// A database cannot be copied.
    #[error("cannot copy the database {path}: {why}")]
    Database {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: rusqlite::Error,
    },
    /// The journal changed again and again while it was looked at.
    #[error("the journal {path} changes too fast for a backup; try again")]
    Restless {
        /// Where.
        path: PathBuf,
    },
}

fn cannot(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |why| BackupError::Io { doing, path: path.to_owned(), why }
}

/// A directory in the making, under a name of its own beside its place. Dropped before it is finished, it goes.
struct Making {
    part: PathBuf,
    place: PathBuf,
    is_done: bool,
}

impl Making {
    /// Where `place` is not there, or is an empty directory.
    fn of(place: &Path) -> Result<Self, BackupError> {
        match std::fs::read_dir(place).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(BackupError::Exists { path: place.to_owned() }),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) if why.kind() == io::ErrorKind::NotADirectory => {
                return Err(BackupError::Exists { path: place.to_owned() });
            }
            Err(why) => return Err(cannot("look into", place)(why)),
        }
        let mut part = place.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        match std::fs::remove_dir_all(&part) {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(cannot("remove what an earlier attempt left,", &part)(why)),
        }
        make_dir(&part)?;
        Ok(Self { part, place: place.to_owned(), is_done: false })
    }

    /// A new file in it, for its owner alone.
    fn create(&self, path: &Path) -> Result<(PathBuf, std::fs::File), BackupError> {
        let path = self.part.join(path);
        path.parent().map_or(Ok(()), make_dir)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(cannot("make", &path))?;
        Ok((path, file))
    }

    /// Copies at most `bytes` bytes into a file of it, for good.
    fn copy(&self, path: &Path, from: impl Read, bytes: u64) -> Result<BackupFile, BackupError> {
        let (into, mut file) = self.create(path)?;
        let copied = copy(from.take(bytes), &mut file).and_then(|copied| file.sync_all().map(|()| copied));
        let (bytes, crc32c) = copied.map_err(cannot("write", &into))?;
        Ok(BackupFile { path: path.to_owned(), bytes, crc32c })
    }

    /// Gives it its name, once all in it is on the disk.
    fn finish(mut self) -> Result<(), BackupError> {
        sync_dirs(&self.part).map_err(cannot("sync", &self.part))?;
        std::fs::rename(&self.part, &self.place).map_err(cannot("make", &self.place))?;
        self.is_done = true;
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(cannot("sync", parent))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.is_done {
            // What is left is removed by the next attempt.
            let _ = std::fs::remove_dir_all(&self.part);
        }
    }
}

fn make_dir(path: &Path) -> Result<(), BackupError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(cannot("make", path))
}

fn sync_dirs(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    std::fs::File::open(path)?.sync_all()
}

/// How many bytes there were, and their checksum.
fn copy(mut from: impl Read, mut into: impl Write) -> io::Result<(u64, u32)> {
    let (mut bytes, mut sum, mut buffer) = (0, 0, vec![0; 256 << 10]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, sum)),
            Ok(read) => {
                into.write_all(&buffer[..read])?;
                sum = crc32c::crc32c_append(sum, &buffer[..read]);
                bytes += read as u64;
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}
