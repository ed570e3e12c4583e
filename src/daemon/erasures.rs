//! Erasures that a crash cut short go on before anything else is done.

use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{StorageError, StoreName, System, TenantId, What};

use super::DaemonError;
use crate::store::SqliteStore;

/// What was erased at this start, in words, by tenant.
#[derive(Debug, Default)]
pub(super) struct Erasures(BTreeMap<TenantId, String>);

impl Erasures {
    /// Goes on with what was begun in these stores, the first of which has the dead letters. Only what was there when it was begun
    /// goes. To be called before anything is stored.
    pub(super) fn finish(letters: &SqliteStore, stores: &[(StoreName, SqliteStore)]) -> Result<Self, DaemonError> {
        // Whoever starts a daemon may be a runtime's thread, which must not wait.
        std::thread::scope(|scope| {
            let finish = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let runtime = runtime.map_err(|why| StorageError::unavailable(why.to_string()))?;
                runtime.block_on(finish(letters, stores))
            };
            scope.spawn(finish).join()
        })
        .unwrap_or_else(|_| Err(StorageError::unavailable("it panicked")))
        .map(Self)
        .map_err(|why| DaemonError::Erasure { why })
    }

    /// Says in the supervisor log what was erased.
    pub(super) fn tell(self, system: &System) {
        for (tenant, told) in self.0 {
            system.log_order(&tenant, What::Erased, &told);
        }
    }
}

async fn finish(
    letters: &SqliteStore,
    stores: &[(StoreName, SqliteStore)],
) -> Result<BTreeMap<TenantId, String>, StorageError> {
    let (_, mut begun) = letters.erasures().await?;
    let mut events: BTreeMap<TenantId, u64> = BTreeMap::new();
    let mut left: BTreeMap<TenantId, BTreeSet<&StoreName>> = BTreeMap::new();
    let mut known = vec![];
    for (name, store) in stores {
        let (of_events, _) = store.erasures().await?;
        begun.extend(of_events.iter().cloned());
        known.push((name, store, of_events));
    }
    for (name, store, of_events) in known {
        for tenant in &begun {
            if of_events.contains(tenant) {
                *events.entry(tenant.clone()).or_default() += store.go_on_erasing(tenant).await?;
            } else {
                left.entry(tenant.clone()).or_default().insert(name);
            }
        }
    }
    let mut told = BTreeMap::new();
    for tenant in begun {
        let has_letters = letters.erasures().await?.1.contains(&tenant);
        let letters = if has_letters { letters.erase_letters(&tenant).await? } else { 0 };
        let events = events.get(&tenant).copied().unwrap_or(0);
        let mut words = format!(
            "{events} events and {letters} dead letters, the rest of what was cut short when the last process ended"
        );
        // It was done there, or not begun yet: nobody can tell.
        let left: Vec<_> = left.remove(&tenant).into_iter().flatten().map(StoreName::as_str).collect();
        if !left.is_empty() {
            words += &format!(
                "; where it had ended already, or had not begun: {}: erase it again to be sure",
                left.join(", ")
            );
        }
        told.insert(tenant, words);
    }
    Ok(told)
}
