//! Erasures that a crash cut short go on before anything else is done, as far as they are on this machine.

use std::collections::BTreeMap;

use headworks_actors::{StorageError, StoreName, System, TenantId, What};

use super::DaemonError;
use crate::erasure::{Eraser, Gone};

/// What was erased at this start, by tenant.
#[derive(Debug, Default)]
pub(super) struct Erasures(BTreeMap<TenantId, (Gone, Vec<StoreName>)>);

impl Erasures {
    /// Goes on with what was begun in the databases here. Only what was there when it was begun goes. To be called before anything is stored.
    pub(super) fn finish(eraser: &Eraser) -> Result<Self, DaemonError> {
        // Whoever starts a daemon may be a runtime's thread, which must not wait.
        std::thread::scope(|scope| {
            let finish = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let runtime = runtime.map_err(|why| StorageError::unavailable(why.to_string()))?;
                runtime.block_on(eraser.finish_here())
            };
            scope.spawn(finish).join()
        })
        .unwrap_or_else(|_| Err(StorageError::unavailable("it panicked")))
        .map(Self)
        .map_err(|why| DaemonError::Erasure { why })
    }

    /// Says in the supervisor log what was erased.
    pub(super) fn tell(self, system: &System) {
        for (tenant, (gone, unknown)) in self.0 {
            let mut told = format!("{}, the rest of what was cut short when the last process ended", gone.in_words());
            // It was done there, or not begun yet: nobody can tell.
            let unknown: Vec<_> = unknown.iter().map(StoreName::as_str).collect();
            if !unknown.is_empty() {
                told += &format!(
                    "; where it had ended already, or had not begun: {}: erase it again to be sure",
                    unknown.join(", ")
                );
            }
            system.log_order(&tenant, What::Erased, &told);
        }
    }
}
