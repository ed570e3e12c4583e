use std::collections::HashMap;

use headworks_actors::{Attempt, BatchId, Opening, Seq, TenantId};

use super::record::{Record, Removed, VERSION};

/// What the records of a tenant's index come to.
///
/// It does not grow with the number of batches: a batch is looked up in the index itself, and only if its seq says that
/// it may be there.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Where the last batch ends in the events file.
    pub(super) end: u64,
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

impl Ledger {
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
            Record::Stored { from, to, events, batch, .. } => {
                if *from != self.end || to < from {
                    return Err(format!("batch {batch} does not begin where the one before ends"));
                }
                self.end = *to;
                self.events += events;
                Ok(())
            }
            Record::Again { .. } | Record::RolledBack { removed: None, .. } => Ok(()),
            Record::RolledBack { removed: Some(removed), batch, .. } => {
                if removed.events > self.events || (removed.to > self.end && removed.from < removed.to) {
                    return Err(format!("more was removed with batch {batch} than there was"));
                }
                self.events -= removed.events;
                if removed.from == removed.to {
                    // An empty batch has no place.
                } else if removed.to == self.end {
                    self.end = removed.from;
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
    /// Takes in the next record about the batch.
    pub(super) fn take(&mut self, record: &Record) {
        match *record {
            Record::Head { .. } => {}
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
