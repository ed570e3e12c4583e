use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::columns::Columns;

/// What a store counts, for whoever must not wait for its server.
#[derive(Debug)]
pub(crate) struct Counts {
    /// By column: values that did not fit it, since this process opened the store.
    misfits: Vec<(String, AtomicU64)>,
    /// Events that were pruned since the tables were made; none until the server has said so.
    pruned: Mutex<Option<u64>>,
}

impl Counts {
    pub(super) fn new(columns: &Columns) -> Self {
        let misfits = columns.all.iter().map(|column| (column.name.clone(), AtomicU64::new(0))).collect();
        Self { misfits, pruned: Mutex::new(None) }
    }

    /// Adds those of rows that are committed, in the order of the columns. The log tells of the first of each.
    pub(super) fn misfit(&self, misfits: &[u64], place: &str) {
        for ((column, count), more) in self.misfits.iter().zip(misfits).filter(|(_, more)| **more > 0) {
            if count.fetch_add(*more, Ordering::Relaxed) == 0 {
                tracing::warn!(target: "headworks", place, column, "events have something in a field that does not fit the type of its column, where they are NULL; \
                     their bodies have it, and further ones are only counted");
            }
        }
    }

    /// What the server says, where nobody knows it yet.
    pub(super) fn know_pruned(&self, events: u64) {
        self.pruned.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(events);
    }

    pub(super) fn prune(&self, events: u64) {
        if let Some(pruned) = self.pruned.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            *pruned += events;
        }
    }

    /// By column.
    pub(crate) fn misfits(&self) -> impl Iterator<Item = (&str, u64)> {
        self.misfits.iter().map(|(column, count)| (column.as_str(), count.load(Ordering::Relaxed)))
    }

    pub(crate) fn pruned(&self) -> Option<u64> {
        *self.pruned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
