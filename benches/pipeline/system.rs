//! The contestant: the actor system behind its own TCP source.

use headworks::{Attempt, Batch, BatchId, Storage, StorageError, Undo};

use crate::contest::{Contest, Outcome, Result, Tally};

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
pub(crate) fn run(_contest: &Contest) -> Result<Outcome> {
    Err("the system is not wired into this benchmark".into())
}
