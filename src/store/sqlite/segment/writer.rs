use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use headworks_actors::{Batch, StorageError};
use rusqlite::Connection;

use super::format::{HEAD, HEADER, Segment};
use super::{Place, directory, file, number_of};
use crate::store::files::disk;
use crate::store::sqlite::OpenError;

const LOCK: &str = ".headworks.lock";

/// The segments of a database, for its one writer.
///
/// What a group writes is staged in memory, so that it is one write. The rows of its batches may be made before: the place
/// of each is known.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Segments {
    directory: PathBuf,
    database: u64,
    max_bytes: u64,
    current: Current,
    /// The bytes of this group.
    staged: Vec<u8>,
    /// Those that are there, beside the current one.
    sealed: BTreeSet<u64>,
    /// Something may have no use any more.
    is_to_sweep: bool,
    _lock: File,
}

/// The segment that is appended to.
#[derive(Debug)]
struct Current {
    number: u64,
    /// Where the next record begins; nothing before it is ever written over. 0 before there is a file.
    end: u64,
    file: Option<File>,
}

impl Current {
    fn fresh(number: u64) -> Self {
        Self { number, end: 0, file: None }
    }
}

/// What the index says of a segment.
struct Indexed {
    number: u64,
    /// Where its last record ends.
    upto: u64,
    batches: i64,
}

impl Segments {
    /// Opens the segments of a database, if there are any or there are to be, and cuts away what was never acknowledged.
    pub(in crate::store::sqlite) fn open(
        database: &Path,
        conn: &Connection,
        max_bytes: u64,
        is_wanted: bool,
    ) -> Result<Option<Self>, OpenError> {
        let directory = directory(database);
        if !is_wanted && !directory.is_dir() {
            return Ok(None);
        }
        let cannot = |source| OpenError::Segments { path: directory.clone(), source };
        disk::make_dir(&directory).map_err(cannot)?;
        let lock = disk::open(&directory.join(LOCK), true).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::SegmentsInUse { path: directory }),
            Err(TryLockError::Error(why)) => return Err(cannot(why)),
        }
        let unread = |error| OpenError::sqlite(database, &error);
        let id: i64 = conn.query_row("SELECT id FROM segments_id", [], |row| row.get(0)).map_err(unread)?;
        let mut sealed = BTreeSet::new();
        for entry in std::fs::read_dir(&directory).map_err(cannot)? {
            sealed.extend(number_of(&entry.map_err(cannot)?.path()));
        }
        let indexed = indexed(conn).map_err(unread)?;
        let last = sealed.last().copied().into_iter().chain(indexed.last().map(|last| last.number)).max().unwrap_or(0);
        let mut segments = Self {
            directory: directory.clone(),
            database: id.cast_unsigned(),
            max_bytes,
            current: Current::fresh(last + 1),
            staged: vec![],
            sealed,
            is_to_sweep: true,
            _lock: lock,
        };
        segments.mend(&indexed).map_err(cannot)?;
        segments.sweep(conn);
        Ok(Some(segments))
    }

    fn path(&self, number: u64) -> PathBuf {
        file(&self.directory, number)
    }

    fn segment(&self, number: u64) -> Segment {
        Segment { database: self.database, number }
    }

    /// Cuts the torn tail, and goes on in the last segment where that is whole.
    fn mend(&mut self, indexed: &[Indexed]) -> io::Result<()> {
        let mut unknown: Vec<_> =
            self.sealed.iter().copied().filter(|number| !indexed.iter().any(|row| row.number == *number)).collect();
        // What a crash left of a segment that was begun.
        if let [only] = unknown[..]
            && self.sealed.last() == Some(&only)
            && self.is_ours_or_torn(only)?
        {
            std::fs::remove_file(self.path(only))?;
            self.sealed.remove(&only);
            unknown.clear();
        }
        if !unknown.is_empty() {
            let (path, segments) = (self.directory.display(), unknown.len());
            tracing::warn!(
                target: "headworks", %path, segments,
                "there are segments that the database does not know, and they are left as they are: is it an older copy?"
            );
        }
        for Indexed { number, upto, .. } in indexed.iter().filter(|row| row.batches > 0) {
            let path = self.path(*number);
            let length = match std::fs::metadata(&path) {
                Ok(file) => file.len(),
                Err(why) if why.kind() == io::ErrorKind::NotFound => 0,
                Err(why) => return Err(why),
            };
            if length < *upto {
                let path = path.display();
                tracing::error!(target: "headworks", %path, length, indexed = upto, "a segment is missing, or its end is: the audit counts what is gone");
            } else if self.sealed.last() == Some(number) && self.is_ours(*number)? {
                let file = disk::open(&path, false)?;
                if length > *upto {
                    disk::set_len(&file, *upto)?;
                    let (path, bytes) = (path.display(), length - upto);
                    tracing::info!(target: "headworks", %path, bytes, "the torn end of a segment was cut off: it was never acknowledged");
                }
                self.sealed.remove(number);
                self.current = Current { number: *number, end: *upto, file: Some(file) };
            }
        }
        Ok(())
    }

    fn header(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut header = vec![];
        File::open(self.path(number))?.take(HEADER as u64).read_to_end(&mut header)?;
        Ok(header)
    }

    fn is_ours(&self, number: u64) -> io::Result<bool> {
        Ok(Segment::of_header(&self.header(number)?) == Some(self.segment(number)))
    }

    /// Whether it is one that this database began: a crash may leave it without a head, or with zeros for one.
    fn is_ours_or_torn(&self, number: u64) -> io::Result<bool> {
        let header = self.header(number)?;
        let is_torn = header.len() < HEADER || header.iter().all(|byte| *byte == 0);
        Ok(is_torn || Segment::of_header(&header) == Some(self.segment(number)))
    }

    /// Begins a group of about so many bytes. What another group staged and did not write is forgotten.
    pub(in crate::store::sqlite) fn begin(&mut self, bytes: usize) {
        self.staged.clear();
        if self.current.end > HEADER as u64 && self.current.end.saturating_add(bytes as u64) > self.max_bytes {
            self.roll();
        }
    }

    /// From here on the next segment is the current one.
    fn roll(&mut self) {
        let next = self.current.number + 1;
        let full = std::mem::replace(&mut self.current, Current::fresh(next));
        if full.file.is_some() {
            self.sealed.insert(full.number);
        }
        self.is_to_sweep = true;
    }

    /// What is staged so far, to come back to.
    pub(in crate::store::sqlite) fn mark(&self) -> usize {
        self.staged.len()
    }

    pub(in crate::store::sqlite) fn forget(&mut self, mark: usize) {
        self.staged.truncate(mark);
    }

    /// Adds a batch to the group; where it will lie.
    pub(in crate::store::sqlite) fn stage(&mut self, batch: &Batch, hash: u64) -> Result<Place, StorageError> {
        let segment = self.segment(self.current.number);
        if self.current.end == 0 && self.staged.is_empty() {
            self.staged.extend_from_slice(&segment.header());
        }
        let offset = self.current.end + self.staged.len() as u64;
        let length = segment.encode(&mut self.staged, offset, batch, hash).ok_or_else(|| {
            let why = format!("batch {} is larger than a record of a segment can be: 4 GiB", batch.id());
            StorageError::permanent(why)
        })?;
        Ok(Place { segment: segment.number, offset, length })
    }

    /// Writes what is staged. It is on the disk once this returns, and may be pointed to.
    pub(in crate::store::sqlite) fn flush(&mut self) -> Result<(), StorageError> {
        // A head alone is no reason for a file.
        if self.staged.len() <= if self.current.end == 0 { HEADER } else { 0 } {
            return Ok(());
        }
        let path = self.path(self.current.number);
        self.write(&path).map_err(|why| {
            self.abandon(&path);
            StorageError::unavailable(format!(
                "cannot write to the segment {}: {why}; nothing of it was kept",
                path.display()
            ))
        })
    }

    fn write(&mut self, path: &Path) -> io::Result<()> {
        let is_new = self.current.file.is_none();
        let file = match self.current.file.take() {
            Some(file) => file,
            None => disk::open(path, true)?,
        };
        let file = self.current.file.insert(file);
        disk::write_at(file, self.current.end, &self.staged)?;
        disk::sync(file)?;
        if is_new {
            disk::sync_dir(&self.directory)?;
        }
        self.current.end += self.staged.len() as u64;
        // One group was large, once: that memory is given back.
        self.staged.clear();
        self.staged.shrink_to(KEEP);
        Ok(())
    }

    /// What could not be written or synced goes, as far as the disk allows; the next group begins a new segment.
    fn abandon(&mut self, path: &Path) {
        self.staged.clear();
        match (self.current.end, &self.current.file) {
            (0, _) => {
                // Where it fails, the file is one that no row points to.
                let _ = std::fs::remove_file(path);
                self.current.file = None;
            }
            (end, Some(file)) => drop(disk::set_len(file, end)),
            (_, None) => {}
        }
        self.roll();
    }

    /// Something may have gone out of the index.
    pub(in crate::store::sqlite) fn look_again(&mut self) {
        self.is_to_sweep = true;
    }

    /// Deletes the segments in which nothing is indexed any more. To be called outside a transaction.
    pub(in crate::store::sqlite) fn sweep(&mut self, conn: &Connection) {
        if !std::mem::take(&mut self.is_to_sweep) {
            return;
        }
        let swept = indexed(conn).map_err(io::Error::other).and_then(|indexed| {
            let current = self.current.number;
            for Indexed { number, .. } in indexed.iter().filter(|row| row.batches <= 0 && row.number != current) {
                match std::fs::remove_file(self.path(*number)) {
                    Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                    _ => {}
                }
                self.sealed.remove(number);
                let mut forget =
                    conn.prepare_cached("DELETE FROM segments WHERE segment = ?1").map_err(io::Error::other)?;
                forget.execute([number.cast_signed()]).map_err(io::Error::other)?;
            }
            Ok(())
        });
        if let Err(why) = swept {
            let path = self.directory.display();
            tracing::warn!(target: "headworks", %path, %why, "segments without use could not be deleted; that is tried again");
        }
    }

    /// About how much of a segment a batch takes.
    pub(in crate::store::sqlite) fn cost(batch: &Batch) -> usize {
        HEAD + 128 + batch.body_bytes() + batch.len() * 12
    }
}

/// The memory for staging that is kept between groups.
const KEEP: usize = 8 << 20;

/// By number.
fn indexed(conn: &Connection) -> rusqlite::Result<Vec<Indexed>> {
    let mut rows = conn.prepare_cached("SELECT segment, upto, batches FROM segments ORDER BY segment")?;
    let rows = rows.query_map([], |row| {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(Indexed { number: number(0)?, upto: number(1)?, batches: row.get(2)? })
    })?;
    rows.collect()
}
