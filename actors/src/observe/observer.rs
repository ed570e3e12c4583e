use std::time::Duration;

use crate::model::{Attempt, BatchId, Code, Failure, FlushReason, StoreName, SupervisorEvent, TenantId};

/// Callbacks for whoever measures the system: a metrics exporter, a test.
///
/// They are called on the system's own threads, a few times a batch at the most, and must not block. A panic in one is
/// caught and counted in the [`Report`](crate::Report), as `observer_panic`; what it was told is lost to it.
pub trait Observer: Send + Sync + 'static {
    /// A window was closed.
    fn flushed(&self, tenant: &TenantId, flushed: &Flushed) {
        let _ = (tenant, flushed);
    }

    /// A store has answered an attempt to store a batch, or did not in time.
    fn attempted(&self, tenant: &TenantId, attempted: &Attempted) {
        let _ = (tenant, attempted);
    }

    /// A batch has its outcome.
    fn settled(&self, tenant: &TenantId, settled: &Settled) {
        let _ = (tenant, settled);
    }

    /// Something went wrong.
    fn failed(&self, failure: &Failure) {
        let _ = failure;
    }

    /// The supervisor saw or did something. Told of each, those too that the log sums up in one entry: their cursor is that of an
    /// entry before it.
    fn supervised(&self, event: &SupervisorEvent) {
        let _ = event;
    }
}

/// A window that was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// Why.
    pub reason: FlushReason,
    /// How many events it held.
    pub events: usize,
    /// For [`FlushReason::Age`]: how long after its deadline.
    pub lateness: Duration,
}

/// An attempt to store a batch that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempted {
    /// Which batch.
    pub batch: BatchId,
    /// In which store of the saga.
    pub store: StoreName,
    /// The number of the attempt, from 1.
    pub attempt: Attempt,
    /// How long the call took; zero where that is not known, since whoever made it died in it.
    pub took: Duration,
    /// How it failed; `None` where the store has the batch.
    pub failed: Option<Code>,
}

/// The one outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is in the store.
    Stored,
    /// Its events are kept as dead letters.
    DeadLettered,
    /// A hook's rule dropped it.
    Discarded,
}

/// A batch that has its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// Which.
    pub batch: BatchId,
    /// How it ended.
    pub outcome: Outcome,
    /// How many events it held.
    pub events: usize,
    /// How many attempts to store it were begun.
    pub attempts: u32,
    /// How long ago it was cut; where an earlier process cut it, how long ago it was read back.
    pub since_cut: Duration,
    /// Why it was given up, where it was.
    pub given_up: Option<Code>,
}
