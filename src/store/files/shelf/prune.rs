//! Files that are given up, with all that the index knows of their batches.
//!
//! The index is written anew, beside the old one: its first lines have what is still to be known of what goes, and the records behind
//! those files follow byte for byte. It takes the old one's place, and then the files go. What a crash leaves of that is
//! finished when the tenant's files are looked at next.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use headworks_actors::{Attempt, BatchId, UnixMillis};

use super::super::record::{Fence, PrunedOf};
use super::*;
use crate::retention::Pruned;

const FRESH: &str = "batches.ndjson.new";

/// What a reader found to be due of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The files up to the one of this number go.
    pub(in super::super) through: Option<u32>,
    /// Whether the file that is written to is closed before that.
    pub(in super::super) close: bool,
    /// The length of the index then. Where it is another one now, the file that is written to does not go.
    pub(in super::super) index_len: u64,
    /// Whether the fences go, too, that were put up before what stays.
    pub(in super::super) fences: bool,
    /// What is in the files that go.
    pub(crate) holds: Pruned,
}

/// Why files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Pruned,
    Erased,
}

/// What the index says of the files that go.
#[derive(Default)]
struct Going {
    batches: HashMap<BatchId, Removed>,
    fences: HashMap<BatchId, Attempt>,
    /// What went before, by opening: all of it, and the events of it that were erased.
    pruned: BTreeMap<u64, (Pruned, u64)>,
    /// Where the records behind them begin.
    tail: Option<u64>,
    /// As in the index.
    beginning: (u64, u64),
}

impl Going {
    fn take(&mut self, record: Record, ends: u64, through: u32) {
        match record {
            Record::Begins { index_from, pruned, fences, .. } => {
                self.beginning = (ends, index_from);
                self.pruned.extend(pruned.iter().map(|of| (of.opening, (of.pruned, of.erased))));
                self.fences.extend(fences.into_iter().map(|fence| (fence.batch, fence.attempt)));
            }
            Record::Rotated { file, .. } if file.checked_sub(1) == Some(through) => self.tail = Some(ends),
            Record::Stored { batch, from, to, events, .. } if self.tail.is_none() => {
                self.batches.insert(batch, Removed { from, to, events });
            }
            Record::RolledBack { batch, attempt, removed } => {
                if removed.is_some() {
                    self.batches.remove(&batch);
                }
                if self.tail.is_none() {
                    let fence = self.fences.entry(batch).or_insert(attempt);
                    *fence = attempt.max(*fence);
                }
            }
            Record::Head { .. } | Record::Rotated { .. } | Record::Stored { .. } | Record::Again { .. } => {}
        }
    }
}

impl Shelf {
    /// Takes a step; what went. All of it is on the disk once this returns.
    pub(in super::super) fn prune(&mut self, step: &Step, now: UnixMillis) -> Result<Pruned> {
        let state = self.loaded()?;
        let (active, is_same) = (state.ledger.file, state.index_len == step.index_len);
        let through = step.through.and_then(|file| {
            if is_same { Some(file) } else { file.min(active).checked_sub(u32::from(file >= active)) }
        });
        if step.close && state.ledger.end > state.ledger.from {
            let closing = state.ledger.closing(now.0);
            self.write(vec![closing])?;
        }
        let closed = &self.loaded()?.ledger.closed;
        match through.filter(|file| closed.iter().any(|closed| closed.file == *file)) {
            Some(through) => self.give_up(through, step.fences, Why::Pruned),
            None => Ok(Pruned::default()),
        }
    }

    /// Closes the file that is written to, if there is something in it; the number of the last one that is closed then.
    pub(in super::super) fn mark_erasure(&mut self, now: UnixMillis) -> Result<Option<u32>> {
        let state = self.loaded()?;
        if state.ledger.end > state.ledger.from {
            let closing = state.ledger.closing(now.0);
            self.write(vec![closing])?;
        }
        Ok(self.loaded()?.ledger.closed.last().map(|closed| closed.file))
    }

    /// Gives up the closed files up to this one, as far as they are there; how many events were in them.
    pub(in super::super) fn erase(&mut self, through: u32) -> Result<u64> {
        if !self.loaded()?.ledger.closed.iter().any(|closed| closed.file == through) {
            return Ok(0);
        }
        Ok(self.give_up(through, true, Why::Erased)?.events)
    }

    /// Gives up the closed files up to this one.
    fn give_up(&mut self, through: u32, without_fences: bool, why: Why) -> Result<Pruned> {
        let (path, fresh) = (self.dir.join(INDEX), self.dir.join(FRESH));
        let tenant = self.tenant.clone();
        let state = self.loaded()?;
        let index_len = state.index_len;
        let mut index = disk::open(&path, false).map_err(|why| failed("open", &path, &why))?;
        let mut going = Going::default();
        let read = record::read_while(BufReader::new((&index).take(index_len)), |record, ends| {
            going.take(record, ends, through);
            true
        });
        match read {
            Ok(End::Whole(len)) if len == index_len => {}
            Ok(end) => return Err(error::damaged(&path, &format!("it was changed while in use ({end:?})"))),
            Err(why) => return Err(failed("read", &path, &why)),
        }
        let Some(tail) = going.tail else {
            return Err(error::damaged(&path, &format!("file {through} has no end")));
        };
        let mut all = Pruned::default();
        for (batch, place) in &going.batches {
            let pruned = Pruned { batches: 1, events: place.events, bytes: place.to - place.from };
            let (before, erased) = going.pruned.entry(batch.opening.0).or_default();
            *before += pruned;
            *erased += if why == Why::Erased { pruned.events } else { 0 };
            all += pruned;
        }
        let mut fences: Vec<_> = going
            .fences
            .into_iter()
            .map(|(batch, attempt)| Fence { batch, attempt })
            .filter(|_| !without_fences)
            .collect();
        fences.sort_by_key(|fence| (fence.batch.opening, fence.batch.seq));
        let (head_len, index_from) = going.beginning;
        let first = state.ledger.closed.iter().find(|closed| closed.file > through);
        let (file, at) = first.map_or((state.ledger.file, state.ledger.from), |first| (first.file, first.from));
        let pruned = going.pruned.into_iter();
        let pruned = pruned.map(|(opening, (pruned, erased))| PrunedOf { opening, pruned, erased }).collect();
        let begins = Record::Begins { file, at, index_from: index_from + tail - head_len, pruned, fences };
        let mut lines = vec![];
        for record in [Record::Head { version: VERSION, tenant }, begins] {
            record.push_line(&mut lines).map_err(StorageError::permanent)?;
        }
        let rest =
            index.seek(SeekFrom::Start(tail)).and_then(|_| (&index).take(index_len - tail).read_to_end(&mut lines));
        rest.map_err(|why| failed("read", &path, &why))?;

        let written = disk::open(&fresh, true).and_then(|file: File| {
            disk::set_len(&file, 0)?;
            disk::write_at(&file, 0, &lines)?;
            disk::sync(&file)
        });
        written.map_err(|why| failed("write", &fresh, &why))?;
        disk::rename(&fresh, &path).map_err(|why| failed("replace", &path, &why))?;
        // From here on the new one counts, whatever fails.
        self.state = None;
        self.trusted = Some(lines.len() as u64);
        sync_dir(&self.dir).map_err(|why| failed("sync", &self.dir, &why))?;
        // What is not on record any more goes.
        self.load()?;
        // It was synced, all of it.
        self.loaded()?.synced = true;
        Ok(all)
    }
}
