use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::{Distribution, Flushed, Histogram};
use crate::model::{BreakerState, Code, FlushReason, StoreName, SupervisorEvent};

/// What is measured of a system as a whole, a few times a batch at most. What stands in the counters of tenants and sources is
/// not counted here again.
#[derive(Debug)]
pub(crate) struct Meters {
    window_events: Histogram,
    lateness: Histogram,
    /// From the cut of a batch to its outcome.
    pub(crate) batches: Histogram,
    stores: Mutex<Vec<(StoreName, Arc<StoreMeter>)>>,
    compensations_run: AtomicU64,
    compensations_failed: AtomicU64,
}

/// The calls of one store, or of all stores of one name.
#[derive(Debug)]
pub(crate) struct StoreMeter {
    pub(crate) stored: Histogram,
    pub(crate) failed: Histogram,
}

/// So many stores are told apart by name; what others come is counted with the last of them.
const MAX_STORES: usize = 64;

impl Default for Meters {
    fn default() -> Self {
        Self {
            window_events: Histogram::of_numbers(),
            lateness: Histogram::of_times(),
            batches: Histogram::of_times(),
            stores: Mutex::default(),
            compensations_run: AtomicU64::new(0),
            compensations_failed: AtomicU64::new(0),
        }
    }
}

impl Meters {
    /// A window was closed.
    pub(crate) fn flushed(&self, flushed: &Flushed) {
        self.window_events.add(flushed.events as u64);
        if flushed.reason == FlushReason::Age {
            self.lateness.took(flushed.lateness);
        }
    }

    /// The supervisor log has an entry more.
    pub(crate) fn supervised(&self, event: &SupervisorEvent) {
        if event.compensations_run + event.compensations_failed > 0 {
            self.compensations_run.fetch_add(u64::from(event.compensations_run), Ordering::Relaxed);
            self.compensations_failed.fetch_add(u64::from(event.compensations_failed), Ordering::Relaxed);
        }
    }

    /// That of the store of this name. To be asked once a store, and kept.
    pub(crate) fn store(&self, name: &StoreName) -> Arc<StoreMeter> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, meter)) = stores.iter().find(|(known, _)| known == name) {
            return meter.clone();
        }
        if let Some((_, last)) = stores.last().filter(|_| stores.len() >= MAX_STORES) {
            return last.clone();
        }
        let meter = Arc::new(StoreMeter { stored: Histogram::of_times(), failed: Histogram::of_times() });
        stores.push((name.clone(), meter.clone()));
        meter
    }

    pub(crate) fn compensations(&self) -> (u64, u64) {
        (self.compensations_run.load(Ordering::Relaxed), self.compensations_failed.load(Ordering::Relaxed))
    }

    pub(crate) fn windows(&self) -> (Distribution, Distribution) {
        (self.window_events.read(), self.lateness.read())
    }

    pub(crate) fn store_names(&self) -> Vec<StoreName> {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.iter().map(|(store, _)| store.clone()).collect()
    }

    pub(crate) fn stores(&self) -> Vec<StoreCalls> {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = |(store, meter): &(StoreName, Arc<StoreMeter>)| StoreCalls {
            store: store.clone(),
            stored: meter.stored.read(),
            failed: meter.failed.read(),
        };
        stores.iter().map(calls).collect()
    }
}

/// The calls of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreCalls {
    /// Its name. Beyond 64 names, further ones are counted under the last.
    pub store: StoreName,
    /// How long those took that stored their batch.
    pub stored: Distribution,
    /// How long those took that failed, by their own word, by a panic or by the time allowed for them.
    pub failed: Distribution,
}

/// The circuit breakers between tenants and one store, as far as they are not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreBreakers {
    /// The name of the store.
    pub store: StoreName,
    /// Tenants that make no call of it for a while.
    pub open: u64,
    /// Tenants whose next call of it says whether they go on.
    pub half_open: u64,
}

impl StoreBreakers {
    pub(crate) fn closed(store: StoreName) -> Self {
        Self { store, open: 0, half_open: 0 }
    }

    pub(crate) fn add(&mut self, state: BreakerState) {
        match state {
            BreakerState::Closed => {}
            BreakerState::Open => self.open += 1,
            BreakerState::HalfOpen => self.half_open += 1,
        }
    }
}

/// What failed with one code, over all tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FailureTotal {
    /// The code.
    pub code: Code,
    /// How many failures.
    pub failures: u64,
    /// How many events or frames they hit.
    pub events: u64,
}
