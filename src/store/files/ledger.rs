use std::collections::HashMap;

use headworks_actors::{Attempt, BatchId, Opening, Seq, TenantId};

use super::record::{Record, Removed, VERSION};
use super::rotation::Rotation;

/// What the records of a tenant's index come to.
///
/// It grows with the number of files, and not with that of batches: a batch is looked up in the index itself, and only if its seq says that
/// it may be there.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Where the last batch ends. Places are counted over all files that ever were.
    pub(super) end: u64,
    /// The files before the one that is written to, oldest first.
    pub(super) closed: Vec<Closed>,
    /// The one that is written to, and where it begins.
    pub(super) file: u32,
    pub(super) from: u64,
    /// When the first batch in it was stored.
    since: Option<i64>,
    /// Events that are there.
    pub(super) events: u64,
    /// The highest seq of each opening that was stored or rolled back. A tenant's batches come in order, so that a higher
    /// one is new.
    highest: HashMap<Opening, Seq>,
    /// The place to remove, where that is what the last record says: it may not have been done.
    pub(super) to_remove: Option<Removed>,
    /// Whose it is, by its first line.
    pub(super) owner: Option<TenantId>,
}

/// An events file that nothing is added to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) file: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Ledger {
    /// Where the first file begins.
    pub(super) fn begin(&self) -> u64 {
        self.closed.first().map_or(self.from, |first| first.from)
    }

    /// The number of the first file.
    pub(super) fn first_file(&self) -> u32 {
        self.closed.first().map_or(self.file, |first| first.file)
    }

    /// The file that has this byte, and where it begins.
    pub(super) fn file_of(&self, at: u64) -> (u32, u64) {
        match self.closed.iter().find(|closed| at < closed.to) {
            Some(closed) => (closed.file, closed.from),
            None => (self.file, self.from),
        }
    }

    /// The record that closes the file, if a batch of `len` bytes that comes `now` is for the next one.
    pub(super) fn rotated(&self, rotation: &Rotation, len: u64, now: i64) -> Option<Record> {
        let size = self.end - self.from;
        let is_due = size > 0
            && (rotation.is_too_large(size.saturating_add(len))
                || self.since.is_some_and(|at| rotation.is_too_old(at, now)));
        is_due.then(|| self.closing(now))
    }

    /// The record that closes the file.
    pub(super) fn closing(&self, now: i64) -> Record {
        Record::Rotated { file: self.file + 1, at: self.end, rotated_at: now }
    }

    /// Takes in one record more.
    ///
    /// # Errors
    /// It does not follow from those before.
    pub(super) fn take(&mut self, record: &Record) -> Result<(), String> {
        self.to_remove = None;
        if let Some(batch) = record.batch() {
            if self.owner.is_none() {
                return Err("its first line is missing".to_owned());
            }
            let highest = self.highest.entry(batch.opening).or_insert(batch.seq);
            *highest = batch.seq.max(*highest);
        }
        match record {
            Record::Head { version, .. } if *version > VERSION => {
                Err(format!("it has version {version}, and this headworks knows {VERSION} only; run the newer one"))
            }
            Record::Head { tenant, .. } => {
                self.owner = Some(tenant.clone());
                Ok(())
            }
            Record::Begins { .. } if self.end > 0 || self.file > 0 || !self.highest.is_empty() => {
                Err("it begins twice".to_owned())
            }
            Record::Begins { file, at, fences, .. } => {
                (self.file, self.from, self.end) = (*file, *at, *at);
                for fence in fences {
                    let highest = self.highest.entry(fence.batch.opening).or_insert(fence.batch.seq);
                    *highest = fence.batch.seq.max(*highest);
                }
                Ok(())
            }
            Record::Rotated { file, at, .. } => {
                if *at != self.end || self.file.checked_add(1) != Some(*file) {
                    return Err(format!("file {file} does not begin where the one before ends"));
                }
                self.closed.push(Closed { file: self.file, from: self.from, to: *at });
                (self.file, self.from, self.since) = (*file, *at, None);
                Ok(())
            }
            Record::Stored { from, to, events, batch, stored_at, .. } => {
                if *from != self.end || to < from {
                    return Err(format!("batch {batch} does not begin where the one before ends"));
                }
                self.end = *to;
                self.events += events;
                self.since.get_or_insert(*stored_at);
                Ok(())
            }
            Record::Again { .. } | Record::RolledBack { removed: None, .. } => Ok(()),
            // It went with its file.
            Record::RolledBack { removed: Some(removed), .. } if removed.from < self.begin() => Ok(()),
            Record::RolledBack { removed: Some(removed), batch, .. } => {
                if removed.events > self.events || (removed.to > self.end && removed.from < removed.to) {
                    return Err(format!("more was removed with batch {batch} than there was"));
                }
                self.events -= removed.events;
                if removed.from == removed.to {
                    // An empty batch has no place.
                } else if removed.to == self.end && removed.from >= self.from {
                    self.end = removed.from;
                    if self.end == self.from {
                        self.since = None;
                    }
                } else {
                    self.to_remove = Some(*removed);
                }
                Ok(())
            }
        }
    }

    /// Whether the index may know of the batch.
    pub(super) fn may_know(&self, batch: &BatchId) -> bool {
        self.highest.get(&batch.opening).is_some_and(|highest| batch.seq <= *highest)
    }
}

/// What an index knows of one batch.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The attempt that asked for it last, the hash of its bodies, and its place.
    pub(super) stored: Option<(Attempt, u64, Removed)>,
    /// Attempts up to this one must not land.
    pub(super) fence: Option<Attempt>,
}

impl Past {
    /// Takes in the next record, as far as it is about the batch.
    pub(super) fn take(&mut self, id: &BatchId, record: &Record) {
        if let Record::Begins { fences, .. } = record {
            let of_it = fences.iter().filter(|fence| fence.batch == *id).map(|fence| fence.attempt);
            self.fence = self.fence.max(of_it.max());
        }
        if record.batch() != Some(id) {
            return;
        }
        match *record {
            Record::Head { .. } | Record::Begins { .. } | Record::Rotated { .. } => {}
            Record::Stored { attempt, from, to, events, hash, .. } => {
                self.stored = Some((attempt, hash, Removed { from, to, events }));
            }
            Record::Again { attempt, .. } => {
                if let Some((by, ..)) = &mut self.stored {
                    *by = attempt.max(*by);
                }
            }
            Record::RolledBack { attempt, removed, .. } => {
                self.fence = self.fence.max(Some(attempt));
                if removed.is_some() {
                    self.stored = None;
                }
            }
        }
    }
}
