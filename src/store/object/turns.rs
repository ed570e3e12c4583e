use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use headworks_actors::TenantId;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};

/// What is done about one tenant is done one after the other.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<TenantId, Arc<TurnMutex<()>>>>);

/// One at a time has it. Dropped, the next one does.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    tenant: &'t TenantId,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(super) async fn of<'t>(&'t self, tenant: &'t TenantId) -> Turn<'t> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant.clone()).or_default().clone();
        Turn { turns: self, tenant, held: Some(turn.lock_owned().await) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.held = None;
        // The map's alone: nobody waits.
        if turns.get(self.tenant).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(self.tenant);
        }
    }
}
