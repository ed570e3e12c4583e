//! The contestant: the actor system behind its own TCP source.

use headworks::{Attempt, Batch, BatchId, Storage, StorageError, Undo};

use crate::contest::{Contest, Result};
use crate::report::{Outcome, Tally};

/// Whether there is anything to run.
pub(crate) const TAKES_PART: bool = false;

/// The null store, as the system sees it.
impl Storage for Tally {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> std::result::Result<(), StorageError> {
        self.add(batch.tenant(), batch.len() as u64);
        Ok(())
    }

    async fn rollback(&self, _id: &BatchId, _attempt: Attempt) -> std::result::Result<(), StorageError> {
        Err(StorageError::permanent("what is counted cannot be taken back"))
    }
}

/// Takes part in the contest.
///
/// Listens, calls `ready(address)` and keeps its `Start`; once as many events as `contest.load.events` are accepted,
/// drains; then `start.finish()` at once, and the counts last: [`Tally::counts`], or [`crate::sqlite::counts`] of the
/// store's database. Until then this is an error, and [`TAKES_PART`] says so beforehand.
pub(crate) fn run(_contest: &Contest) -> Result<Outcome> {
    Err("the system is not wired into this benchmark".into())
}
