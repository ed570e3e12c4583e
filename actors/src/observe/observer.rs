use std::time::Duration;

use crate::model::{BatchId, Failure, FlushReason, SupervisorEvent, TenantId};

/// Callbacks for whoever measures the system: a metrics exporter, a test.
///
/// They are called on the system's own thread, once a batch at the most, and must not block. A panic in one is
/// caught and counted in the [`Report`](crate::Report), as `observer_panic`; what it was told is lost to it.
pub trait Observer: Send + Sync + 'static {
    /// A window was closed.
    fn flushed(&self, tenant: &TenantId, flushed: &Flushed) {
        let _ = (tenant, flushed);
    }

    /// A batch has its outcome.
    fn settled(&self, tenant: &TenantId, settled: &Settled) {
        let _ = (tenant, settled);
    }

    /// Something went wrong.
    fn failed(&self, failure: &Failure) {
        let _ = failure;
    }

    /// The supervisor saw or did something.
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
}
