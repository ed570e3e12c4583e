use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Storage, StorageError, Undo};
use crate::model::{Attempt, Batch, BatchId, TenantId};

/// A store that counts and forgets: for benchmarks and trials. Idempotent in name only: it keeps no ids.
#[derive(Debug, Clone, Default)]
pub struct NullStore {
    events: Arc<AtomicU64>,
}

impl NullStore {
    /// How many events it was given.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

impl Storage for NullStore {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> Result<(), StorageError> {
        self.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn rollback(&self, _id: &BatchId, _attempt: Attempt) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A store in memory, for tests and for embedders that look at their batches in the same process.
///
/// It keeps every batch it is given until it is dropped: it is no cache and has no bound. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Stored>>,
}

#[derive(Debug, Default)]
struct Stored {
    tenants: BTreeMap<TenantId, Vec<Batch>>,
    /// Which batches are there, and which attempt brought them.
    ids: HashMap<BatchId, Attempt>,
    fences: HashMap<BatchId, Attempt>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batches of a tenant, in the order they were stored.
    #[must_use]
    pub fn batches(&self, tenant: &TenantId) -> Vec<Batch> {
        self.lock().tenants.get(tenant).cloned().unwrap_or_default()
    }

    /// The bodies of a tenant's events, in the order they were stored.
    #[must_use]
    pub fn bodies(&self, tenant: &TenantId) -> Vec<Vec<u8>> {
        self.batches(tenant)
            .iter()
            .flat_map(|batch| batch.events().map(|e| e.body.to_vec()).collect::<Vec<_>>())
            .collect()
    }

    /// How many events each tenant has.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<TenantId, u64> {
        let count = |batches: &Vec<Batch>| batches.iter().map(|batch| batch.len() as u64).sum();
        self.lock().tenants.iter().map(|(tenant, batches)| (tenant.clone(), count(batches))).collect()
    }
}

impl Storage for MemoryStore {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let mut stored = self.lock();
        if stored.fences.get(batch.id()).is_some_and(|fence| undo.attempt() <= *fence) {
            return Err(StorageError::permanent(format!(
                "attempt {} of batch {} was rolled back",
                undo.attempt(),
                batch.id()
            )));
        }
        if let Some(attempt) = stored.ids.get_mut(batch.id()) {
            *attempt = undo.attempt().max(*attempt);
        } else {
            stored.ids.insert(batch.id().clone(), undo.attempt());
            stored.tenants.entry(batch.tenant().clone()).or_default().push(batch.clone());
        }
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        let mut stored = self.lock();
        let fence = stored.fences.entry(id.clone()).or_insert(attempt);
        *fence = attempt.max(*fence);
        // What a later attempt was told is stored stays.
        if stored.ids.get(id).is_some_and(|by| *by <= attempt)
            && stored.ids.remove(id).is_some()
            && let Some(batches) = stored.tenants.get_mut(&id.tenant)
        {
            batches.retain(|batch| batch.id() != id);
        }
        Ok(())
    }

    async fn count(&self, tenant: &TenantId) -> Option<u64> {
        let stored = self.lock();
        Some(stored.tenants.get(tenant).map_or(0, |batches| batches.iter().map(|batch| batch.len() as u64).sum()))
    }
}
