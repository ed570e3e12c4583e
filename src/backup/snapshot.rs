use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headworks_actors::UnixMillis;
use rusqlite::backup::Backup as Pages;
use rusqlite::{Connection, OpenFlags};

use super::{Backup, BackupError, BackupFile, FORMAT, MANIFEST, Making, cannot, copy};

/// How long a commit of the daemon may hold up a backup.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often, and how far apart, the journal is looked at until it does not change meanwhile.
const LOOKS: u32 = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// So many segments, the oldest, are held open: retention may delete them before they are copied.
const SEGMENTS_HELD: usize = 256;
/// So many pages of a database are copied at once.
const PAGES: i32 = 1024;

/// Whether a daemon writes to the data directory while it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// One does, and it has read its journal: its databases are locked for a moment.
    Live,
    /// None does, and none will until the backup is done.
    AtRest,
}

/// Copies a data directory as it is at one moment to `to`, which must not be there; see the [module](super) for what it has.
///
/// # Errors
/// See [`BackupError`]. Then nothing is left.
pub fn backup(data_dir: &Path, to: &Path, state: State) -> Result<Backup, BackupError> {
    let making = Making::of(to)?;
    let Moment { taken_at, databases, files } = Moment::take(data_dir, state)?;
    let mut listed = vec![];
    for Seen { path, bytes, open } in files {
        let file = match open {
            Some(file) => file,
            None => File::open(data_dir.join(&path)).map_err(cannot("read", &data_dir.join(&path)))?,
        };
        listed.push(making.copy(&path, file, bytes)?);
    }
    for (path, snapshot) in databases {
        listed.push(copy_database(&making, data_dir, path, &snapshot)?);
    }
    listed.sort_by(|one, other| one.path.cmp(&other.path));
    let backup = Backup { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), taken_at, files: listed };
    let list = serde_json::to_vec_pretty(&backup).map_err(|why| cannot("write", to)(io::Error::other(why)))?;
    making.copy(Path::new(MANIFEST), list.as_slice(), u64::MAX)?;
    making.finish()?;
    Ok(backup)
}

/// A file as it was found.
struct Seen {
    path: PathBuf,
    bytes: u64,
    /// Those that may go, or get another name, are held open.
    open: Option<File>,
}

/// The data directory at one moment.
struct Moment {
    taken_at: UnixMillis,
    databases: Vec<(PathBuf, Connection)>,
    files: Vec<Seen>,
}

impl Moment {
    fn take(data_dir: &Path, state: State) -> Result<Self, BackupError> {
        let mut found = Found::default();
        found.walk(data_dir, Path::new(""))?;
        let failed = |path: &Path| {
            let path = data_dir.join(path);
            move |why| BackupError::Database { path, why }
        };
        let open = |path: &Path, flags: OpenFlags| {
            let conn = Connection::open_with_flags(data_dir.join(path), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            conn.busy_timeout(PATIENCE)?;
            Ok(conn)
        };
        let mut locks = vec![];
        if state == State::Live {
            for path in &found.databases {
                let lock = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
                    .and_then(|conn| conn.execute_batch("BEGIN IMMEDIATE").map(|()| conn));
                locks.push(lock.map_err(failed(path))?);
            }
        }
        let taken_at = UnixMillis::now();
        let mut files = journal(data_dir)?;
        // Again: the files of a store on files have grown meanwhile.
        let mut found = Found::default();
        found.walk(data_dir, Path::new(""))?;
        // Those that were written first are pruned first.
        let (mut oldest, mut held) = (std::mem::take(&mut found.files), 0);
        let all: BTreeSet<_> = oldest.iter().cloned().collect();
        oldest.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
        for path in oldest {
            let is_held = (is_segment(&path) || found.is_rotated(&path)) && held < SEGMENTS_HELD;
            held += usize::from(is_held);
            files.extend(see(data_dir, path, is_held)?);
        }
        // Files that were begun after the folder was looked at: the index, measured since, may speak of them.
        let mut later = Found::default();
        later.walk(data_dir, Path::new(""))?;
        for path in later.files.into_iter().filter(|path| is_events(path) && !all.contains(path)) {
            files.extend(see(data_dir, path, false)?);
        }
        let snapshot = |path: PathBuf| {
            let conn = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(|conn| {
                // The first reading begins the snapshot.
                conn.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
                Ok(conn)
            });
            let conn = conn.map_err(failed(&path))?;
            Ok((path, conn))
        };
        let databases = found.databases.into_iter().map(snapshot).collect::<Result<_, BackupError>>()?;
        drop(locks);
        Ok(Self { taken_at, databases, files })
    }
}

/// What is in a data directory, beside the journal.
#[derive(Default)]
struct Found {
    databases: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Directories of tenants, in stores on files, that have more than one file.
    rotated: BTreeSet<PathBuf>,
}

impl Found {
    /// Whether it is of a tenant in a store on files whose files may be pruned, and whose index is then replaced.
    fn is_rotated(&self, path: &Path) -> bool {
        path.extension().is_some_and(|end| end == "ndjson")
            && path.parent().is_some_and(|dir| self.rotated.contains(dir))
    }

    fn walk(&mut self, data_dir: &Path, within: &Path) -> Result<(), BackupError> {
        let folder = data_dir.join(within);
        let entries = std::fs::read_dir(&folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = entries.map_err(cannot("look into", &folder))?;
        // The index of a store on files before its lines: a record that was seen has its lines.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = within.join(entry.file_name());
            let kind = entry.file_type().map_err(cannot("look at", &entry.path()))?;
            if kind.is_dir() {
                self.walk(data_dir, &path)?;
            } else if kind.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_passing = [".lock", "-wal", "-shm", "-journal", ".new"].iter().any(|end| name.ends_with(end));
                if is_events(&path) && name != "events.ndjson" {
                    self.rotated.insert(within.to_owned());
                }
                let is_database =
                    path == Path::new("headworks.db") || (within == Path::new("stores") && name.ends_with(".db"));
                match (is_passing || is_journal(&path), is_database) {
                    (true, _) => {}
                    (false, true) => self.databases.push(path),
                    (false, false) => self.files.push(path),
                }
            }
        }
        Ok(())
    }
}

/// Whether it is one of the files that make the journal; what was set aside is not.
fn is_journal(path: &Path) -> bool {
    path.parent() == Some(Path::new("journal"))
}

/// Whether it is an events file of a store on files.
fn is_events(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "ndjson")
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events."))
}

/// Whether it is one of the files of the layout `index`.
fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "seg")
}

/// None where it went meanwhile.
fn see(data_dir: &Path, path: PathBuf, is_held: bool) -> Result<Option<Seen>, BackupError> {
    let full = data_dir.join(&path);
    // Those of which there may be very many keep their names.
    let is_many = path.components().count() > 2 || is_segment(&path);
    let open = if is_many && !is_held { Ok(None) } else { File::open(&full).map(Some) };
    let seen = open.and_then(|open| {
        let meta = open.as_ref().map_or_else(|| std::fs::metadata(&full), File::metadata)?;
        Ok(Seen { path, bytes: meta.len(), open })
    });
    match seen {
        Ok(seen) => Ok(Some(seen)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(cannot("read", &full)(why)),
    }
}

/// The journal's files, none of which came, went or was replaced while they were opened.
fn journal(data_dir: &Path) -> Result<Vec<Seen>, BackupError> {
    let folder = data_dir.join("journal");
    if !folder.is_dir() {
        return Ok(vec![]);
    }
    for _ in 0..LOOKS {
        let names = names(&folder).map_err(cannot("look into", &folder))?;
        // By name: the checkpoints are the last ones, but a segment holds all that they stand for, so they are opened first.
        let seen: io::Result<Vec<_>> = names
            .iter()
            .rev()
            .map(|(name, _)| File::open(folder.join(name)).map(|file| (Path::new("journal").join(name), file)))
            .collect();
        let seen = seen.and_then(|seen| {
            // The lengths after all are open, the oldest segment's first.
            let seen = seen.into_iter().rev();
            seen.map(|(path, file)| Ok(Seen { path, bytes: file.metadata()?.len(), open: Some(file) })).collect()
        });
        match seen {
            Ok(seen) if self::names(&folder).is_ok_and(|now| now == names) => return Ok(seen),
            Ok(_) => {}
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(cannot("read", &folder)(why)),
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Err(BackupError::Restless { path: folder })
}

/// The names that make the journal, each with what tells its file from one that takes its place.
fn names(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut names = vec![];
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".segment") || name == "checkpoint" || name == "checkpoint.copy" {
            names.push((name, std::os::unix::fs::DirEntryExt::ino(&entry)));
        }
    }
    names.sort();
    Ok(names)
}

fn copy_database(
    making: &Making,
    data_dir: &Path,
    path: PathBuf,
    snapshot: &Connection,
) -> Result<BackupFile, BackupError> {
    let (into, _) = making.create(&path)?;
    let copied = || {
        let mut copy = Connection::open_with_flags(&into, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Pages::new(snapshot, &mut copy)?.run_to_completion(PAGES, Duration::ZERO, None)?;
        copy.close().map_err(|(_, why)| why)
    };
    copied().map_err(|why| BackupError::Database { path: data_dir.join(&path), why })?;
    let file = File::open(&into).map_err(cannot("read", &into))?;
    let (bytes, crc32c) =
        copy(&file, io::sink()).and_then(|sum| file.sync_all().map(|()| sum)).map_err(cannot("read", &into))?;
    Ok(BackupFile { path, bytes, crc32c })
}
