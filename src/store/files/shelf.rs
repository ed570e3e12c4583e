//! The files of one tenant.
//!
//! A batch is there if the index says so. So its lines are written and synced first, then the record of it; a crash in
//! between leaves lines that no record speaks of, and these are cut off before anything else is done. A removal goes the
//! other way: the record first, then the lines; what a crash left to be removed is removed then.
//!
//! Whatever fails, the shelf forgets what it knew and finds it anew in its files the next time: there is one way to get
//! up again, after a crash and after an error. Only the length of the index up to which all is on the disk is kept, since
//! what a failed sync left in the page cache may not be believed.

#[cfg(feature = "sqlite")]
mod prune;

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use headworks_actors::{Attempt, Batch, BatchId, StorageError, TenantId, UnixMillis};

use super::ledger::{Ledger, Past};
use super::record::{self, End, Record, Removed, VERSION};
use super::rotation::{self, Rotation};
use super::{disk, error, line};
use crate::store::hash;

#[cfg(feature = "sqlite")]
pub(crate) use prune::Step;

pub(super) const INDEX: &str = "batches.ndjson";

type Result<T> = std::result::Result<T, StorageError>;

pub(super) struct Shelf {
    tenant: TenantId,
    dir: PathBuf,
    state: Option<State>,
    /// What is known to be on the disk of the index, where the state was lost.
    trusted: Option<u64>,
}

#[derive(Default)]
struct State {
    /// Whether the index is there.
    exists: bool,
    /// Whether the events file that is written to is.
    has_events: bool,
    /// Whether all that was read from them is known to be on the disk.
    synced: bool,
    index_len: u64,
    ledger: Ledger,
}

/// A batch to store, with what can be computed before the writer's thread has its turn.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) batch: Batch,
    attempt: Attempt,
    hash: u64,
}

impl Store {
    pub(super) fn new(batch: &Batch, attempt: Attempt) -> Self {
        Self { batch: batch.clone(), attempt, hash: hash::content_hash(batch.events().map(|event| event.body)) }
    }

    fn lines(&self) -> Vec<u8> {
        let mut lines = Vec::with_capacity(self.batch.body_bytes() + self.batch.len());
        self.batch.events().for_each(|event| line::push_line(event.body, &mut lines));
        lines
    }
}

/// What a call comes to.
pub(super) enum Begun {
    /// Nothing has to be written.
    Done(Result<()>),
    /// The lines are written. What follows is to be done in this order, then [`Shelf::finish`].
    Writing(Writing),
}

/// A write that has begun. Its steps stand alone, so that those of several tenants can be taken side by side.
pub(super) struct Writing {
    dir: PathBuf,
    index: File,
    /// Where it was written to.
    events: Option<File>,
    events_path: PathBuf,
    /// The byte that it begins with.
    events_from: u64,
    index_at: u64,
    /// All that is new.
    records: Vec<Record>,
    lines: Vec<u8>,
    /// Whether the directory may not be on the disk yet.
    sync_dir: bool,
}

impl Writing {
    /// With their entries in the directory: a record without its file would be damage.
    pub(super) fn sync_events(&mut self) -> Result<()> {
        let synced = self.events.as_ref().map_or(Ok(()), disk::sync);
        let synced = synced.and_then(|()| if self.sync_dir { sync_dir(&self.dir) } else { Ok(()) });
        synced.map_err(|why| failed("sync", &self.events_path, &why))
    }

    pub(super) fn write_index(&mut self) -> Result<()> {
        disk::write_at(&self.index, self.index_at, &self.lines)
            .map_err(|why| failed("write", &self.dir.join(INDEX), &why))
    }

    pub(super) fn sync_index(&mut self) -> Result<()> {
        disk::sync(&self.index).map_err(|why| failed("sync", &self.dir.join(INDEX), &why))
    }
}

impl Shelf {
    pub(super) fn new(root: &Path, tenant: TenantId) -> Self {
        Self { dir: root.join(tenant.as_str()), tenant, state: None, trusted: None }
    }

    /// Brings the files in order, if that was not done yet.
    pub(super) fn load(&mut self) -> Result<()> {
        self.loaded().map(drop)
    }

    /// How many events there are.
    pub(super) fn count(&mut self) -> Result<u64> {
        Ok(self.loaded()?.ledger.events)
    }

    /// Forgets everything but what is on the disk for sure: something failed.
    pub(super) fn forget(&mut self) {
        if let Some(state) = self.state.take() {
            self.trusted = Some(state.index_len);
        }
    }

    /// Decides about a batch, and writes its lines where it is new.
    pub(super) fn begin(&mut self, store: &Store, rotation: &Rotation, now: UnixMillis) -> Result<Begun> {
        let id = store.batch.id();
        let past = self.past(id)?;
        if past.fence.is_some_and(|fence| store.attempt <= fence) {
            let detail = format!("attempt {} of batch {id} was rolled back", store.attempt);
            return Ok(Begun::Done(Err(StorageError::permanent(detail))));
        }
        let mut lines = vec![];
        let records = match past.stored {
            Some((_, hash, place)) if hash != store.hash => {
                let detail = format!(
                    "batch {id} is already stored with other content: {} events there, {} events now, and their hashes \
                     differ; nothing was changed. A batch id must never be used for other events",
                    place.events,
                    store.batch.len()
                );
                return Ok(Begun::Done(Err(StorageError::permanent(detail))));
            }
            Some((by, ..)) if store.attempt <= by => {
                self.settle()?;
                return Ok(Begun::Done(Ok(())));
            }
            // A rollback of an earlier attempt must not take away what this one was told is there.
            Some(_) => vec![Record::Again { batch: id.clone(), attempt: store.attempt }],
            None => {
                lines = store.lines();
                let ledger = &self.loaded()?.ledger;
                let rotated = ledger.rotated(rotation, lines.len() as u64, now.0);
                rotated.into_iter().chain([stored(store, ledger.end, lines.len(), now)]).collect()
            }
        };
        let mut writing = self.writing(records)?;
        match writing.records.last() {
            Some(Record::Stored { from, .. }) => {
                let at = from - writing.events_from;
                let written = writing.events.as_ref().map_or(Ok(()), |file| disk::write_at(file, at, &lines));
                written.map_err(|why| failed("write", &writing.events_path, &why))?;
            }
            _ if self.loaded()?.synced => writing.events = None,
            _ => {}
        }
        Ok(Begun::Writing(writing))
    }

    /// The write is on the disk.
    pub(super) fn finish(&mut self, writing: &Writing) -> Result<()> {
        let path = self.dir.join(INDEX);
        let state = self.loaded()?;
        (state.exists, state.has_events, state.synced) = (true, true, true);
        state.index_len += writing.lines.len() as u64;
        let taken = writing.records.iter().try_for_each(|record| state.ledger.take(record));
        taken.map_err(|how| error::damaged(&path, &how))
    }

    /// Removes what attempts up to this one left, and puts up the fence. All of it is on the disk once this returns.
    pub(super) fn roll_back(&mut self, id: &BatchId, attempt: Attempt) -> Result<()> {
        let past = self.past(id)?;
        // What a later attempt was told is stored stays.
        let removed = past.stored.filter(|(by, ..)| *by <= attempt).map(|(.., place)| place);
        if removed.is_none() && past.fence >= Some(attempt) {
            return self.settle();
        }
        self.write(vec![Record::RolledBack { batch: id.clone(), attempt, removed }])?;
        removed.map_or(Ok(()), |place| self.remove(place))
    }

    /// Puts records on the disk that have no lines.
    fn write(&mut self, records: Vec<Record>) -> Result<()> {
        let mut writing = self.writing(records)?;
        writing.sync_events()?;
        writing.write_index()?;
        writing.sync_index()?;
        self.finish(&writing)
    }

    fn events_path(&self, file: u32) -> PathBuf {
        self.dir.join(rotation::name(file))
    }

    fn loaded(&mut self) -> Result<&mut State> {
        let state = match self.state.take() {
            Some(state) => state,
            None => self.recovered()?,
        };
        self.trusted = None;
        Ok(self.state.insert(state))
    }

    /// Makes sure that what was found in the files is on the disk, before anybody is told that it is there.
    fn settle(&mut self) -> Result<()> {
        let dir = self.dir.clone();
        let state = self.loaded()?;
        if !state.synced {
            let events = state.has_events.then(|| rotation::name(state.ledger.file));
            for name in events.into_iter().chain([INDEX.to_owned()]) {
                let path = dir.join(name);
                let synced = disk::open(&path, false).and_then(|file| disk::sync(&file));
                synced.map_err(|why| failed("sync", &path, &why))?;
            }
            sync_dir(&dir).map_err(|why| failed("sync", &dir, &why))?;
            state.synced = true;
        }
        Ok(())
    }

    /// What the index knows of a batch.
    fn past(&mut self, id: &BatchId) -> Result<Past> {
        let path = self.dir.join(INDEX);
        let state = self.loaded()?;
        let mut past = Past::default();
        if !state.ledger.may_know(id) {
            return Ok(past);
        }
        let of_it = |record: Record| past.take(id, &record);
        let index = disk::open(&path, false).map_err(|why| failed("open", &path, &why))?;
        match record::read(BufReader::new(index.take(state.index_len)), of_it) {
            Ok(End::Whole(len)) if len == state.index_len => Ok(past),
            Ok(end) => Err(error::damaged(&path, &format!("it was changed while in use ({end:?})"))),
            Err(why) => Err(failed("read", &path, &why)),
        }
    }

    /// Opens the files, makes them where there are none, and readies records; the events file is the one that they lead to.
    fn writing(&mut self, records: Vec<Record>) -> Result<Writing> {
        let (tenant, dir) = (self.tenant.clone(), self.dir.clone());
        let state = self.loaded()?;
        if !state.exists {
            disk::make_dir(&dir).map_err(|why| failed("make", &dir, &why))?;
        }
        let open = |name: &str, len: u64, is_new: bool| {
            let path = dir.join(name);
            let file = disk::open(&path, is_new).map_err(|why| failed("open", &path, &why))?;
            let found = file.metadata().map_err(|why| failed("look at", &path, &why))?.len();
            if found != len {
                let how = format!("it has {found} bytes, not {len}: somebody else changed it while it is in use");
                return Err(error::damaged(&path, &how));
            }
            Ok(file)
        };
        // The index first: an events file without one is not ours.
        let index = open(INDEX, state.index_len, !state.exists)?;
        let ledger = &state.ledger;
        let rotated = records.iter().find_map(|record| match record {
            Record::Rotated { file, at, .. } => Some((*file, *at)),
            _ => None,
        });
        let (file, events_from) = rotated.unwrap_or((ledger.file, ledger.from));
        let name = rotation::name(file);
        let events = open(&name, ledger.end - events_from, rotated.is_some() || !state.has_events)?;
        let mut lines = vec![];
        let head = ledger.owner.is_none().then_some(Record::Head { version: VERSION, tenant });
        let records: Vec<_> = head.into_iter().chain(records).collect();
        for record in &records {
            record.push_line(&mut lines).map_err(StorageError::permanent)?;
        }
        let sync_dir = !state.synced || !state.has_events || rotated.is_some();
        let (events, events_path, index_at) = (Some(events), dir.join(name), state.index_len);
        Ok(Writing { dir, index, events, events_path, events_from, index_at, records, lines, sync_dir })
    }

    /// Removes the lines of a batch that the index has given up: those at the end are cut off, others become empty lines,
    /// since what stands behind them must stay where it is.
    fn remove(&mut self, place: Removed) -> Result<()> {
        let ledger = &self.loaded()?.ledger;
        let (end, (file, from)) = (ledger.end, ledger.file_of(place.from));
        let path = self.events_path(file);
        let removed = disk::open(&path, false).and_then(|file| {
            if place.from >= end {
                disk::set_len(&file, end - from)?;
            } else {
                blank(&file, place, from)?;
            }
            disk::sync(&file)
        });
        removed.map_err(|why| failed("remove a batch from", &path, &why))
    }

    /// Finds out what is there, cuts off what no record speaks of, and removes what is still to be removed.
    fn recovered(&self) -> Result<State> {
        let path = self.dir.join(INDEX);
        let look = |path: &Path| match disk::open(path, false) {
            Ok(file) => file.metadata().map(|meta| Some((file, meta.len()))),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        };
        let index = look(&path).map_err(|why| failed("open", &path, &why))?;
        let there = event_files(&self.dir).map_err(|why| failed("look into", &self.dir, &why))?;
        let found = index.as_ref().map_or(0, |(_, len)| *len);
        let trusted = self.trusted.unwrap_or(found);
        if found < trusted {
            return Err(error::damaged(&path, "it was removed or cut short while in use"));
        }
        if index.is_none() && there.iter().any(|(_, len)| *len > 0) {
            return Err(error::damaged(&path, "it is missing, and so nobody can tell which events belong to a batch"));
        }

        let mut ledger = Ledger::default();
        let mut whole = 0;
        if let Some((file, _)) = &index {
            let mut problem = Ok(());
            let read = record::read(BufReader::new(file.take(trusted)), |record| {
                if problem.is_ok() {
                    problem = ledger.take(&record);
                }
            });
            whole = match read.map_err(|why| failed("read", &path, &why))? {
                End::Whole(len) | End::Torn(len) => len,
                End::Damaged(number) => return Err(error::damaged(&path, &format!("line {number} was changed"))),
            };
            problem.map_err(|how| error::damaged(&path, &how))?;
            if self.trusted.is_some_and(|trusted| trusted != whole) {
                return Err(error::damaged(&path, "it was changed while in use"));
            }
        }
        if let Some(owner) = ledger.owner.as_ref().filter(|owner| **owner != self.tenant) {
            let (dir, tenant) = (self.dir.display(), &self.tenant);
            return Err(StorageError::permanent(format!(
                "cannot store events of tenant {tenant}: {dir} belongs to tenant {owner}. This file system does not tell \
                 upper from lower case, so that the two cannot be kept apart; use another store"
            )));
        }
        let events_path = self.events_path(ledger.file);
        let events = look(&events_path).map_err(|why| failed("open", &events_path, &why))?;
        let events_len = events.as_ref().map_or(0, |(_, len)| *len);
        let end = ledger.end - ledger.from;
        if events_len < end {
            let how = format!("it has {events_len} bytes, but batches up to byte {end} are on record");
            return Err(error::damaged(&events_path, &how));
        }
        for closed in &ledger.closed {
            let (len, found) = (closed.to - closed.from, there.iter().find(|(file, _)| *file == closed.file));
            if found.map(|(_, len)| *len) != Some(len) {
                let found = found.map_or_else(|| "is missing".into(), |(_, found)| format!("has {found} bytes"));
                let how = format!("it {found}, and had {len} bytes when it was closed");
                return Err(error::damaged(&self.events_path(closed.file), &how));
            }
        }
        if let Some((file, _)) =
            there.iter().find(|(file, _)| ledger.file.checked_add(1).is_some_and(|next| *file > next))
        {
            return Err(error::damaged(&self.events_path(*file), "no record speaks of it"));
        }

        // All of it is understood; from here on the files are changed.
        let cut = |file: &File, len: u64, path: &Path, from: u64| {
            let cut = disk::set_len(file, len).and_then(|()| disk::sync(file));
            cut.map_err(|why| failed("cut off the end of", path, &why))?;
            tracing::warn!(target: "headworks", tenant = %self.tenant, file = %path.display(), bytes = from - len, "an unfinished write was cut off; nobody was told that it is stored");
            Ok(())
        };
        if let Some((file, len)) = &index
            && *len > whole
        {
            cut(file, whole, &path, *len)?;
        }
        if let Some((file, len)) = &events
            && *len > end
        {
            cut(file, end, &events_path, *len)?;
        }
        if let Some(place) = ledger.to_remove.take() {
            let (file, from) = ledger.file_of(place.from);
            let path = self.events_path(file);
            let open = disk::open(&path, false);
            let blanked = open.and_then(|file| blank(&file, place, from).and_then(|()| disk::sync(&file)));
            blanked.map_err(|why| failed("remove a batch from", &path, &why))?;
        }
        // Those that were pruned, and one that was begun in vain.
        for (file, bytes) in there.iter().filter(|(file, _)| *file < ledger.first_file() || *file > ledger.file) {
            let path = self.events_path(*file);
            disk::remove(&path).map_err(|why| failed("remove", &path, &why))?;
            if *file > ledger.file {
                tracing::warn!(target: "headworks", tenant = %self.tenant, file = %path.display(), bytes, "an unfinished write was removed; nobody was told that it is stored");
            }
        }
        let (exists, has_events) = (index.is_some(), events.is_some());
        Ok(State { exists, has_events, synced: false, index_len: whole, ledger })
    }
}

/// The entry of the directory's files, and its own in its parent.
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    disk::sync_dir(dir)?;
    dir.parent().map_or(Ok(()), disk::sync_dir)
}

/// The events files that are there, by number, with their lengths.
pub(super) fn event_files(dir: &Path) -> std::io::Result<Vec<(u32, u64)>> {
    let mut found = vec![];
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(found),
        Err(why) => return Err(why),
    };
    for entry in entries {
        let entry = entry?;
        if let Some(file) = entry.file_name().to_str().and_then(rotation::number) {
            found.push((file, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The record of a batch whose lines begin at `from`.
fn stored(store: &Store, from: u64, len: usize, now: UnixMillis) -> Record {
    let arrivals = || store.batch.events().map(|event| event.arrived.0);
    Record::Stored {
        batch: store.batch.id().clone(),
        attempt: store.attempt,
        from,
        to: from + len as u64,
        events: store.batch.len() as u64,
        hash: store.hash,
        first_arrived: arrivals().min().unwrap_or(0),
        last_arrived: arrivals().max().unwrap_or(0),
        stored_at: now.0,
    }
}

/// Makes the place empty lines, in the file that begins with byte `from`; what was blank already is not written again.
fn blank(mut file: &File, place: Removed, from: u64) -> std::io::Result<()> {
    const BLANK: [u8; 8192] = [b'\n'; 8192];
    let mut there = [0; BLANK.len()];
    let (mut at, to) = (place.from - from, place.to - from);
    while at < to {
        let len = (to - at).min(BLANK.len() as u64);
        let (there, blank) = (&mut there[..to_usize(len)], &BLANK[..to_usize(len)]);
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(there)?;
        if there != blank {
            disk::write_at(file, at, blank)?;
        }
        at += len;
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "at most the length of a small buffer")]
fn to_usize(len: u64) -> usize {
    len as usize
}

fn failed(what: &str, path: &Path, why: &std::io::Error) -> StorageError {
    error::storage_error(what, path, why)
}
