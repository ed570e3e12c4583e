//! The circuit breakers between a tenant and its stores.

use tokio::time::Instant;

use super::{Lane, State};
use crate::model::{BreakerState, StoreName};
use crate::policy::{Breaker, Tripped};
use crate::port::work::{BreakerTurned, Failed};

impl Lane {
    /// The tenant's breakers that are not closed: of which stores.
    pub(crate) fn turned_breakers(&self, now: Instant) -> Vec<(StoreName, BreakerState)> {
        let state = self.lock();
        let all = state.breakers.iter().map(|(store, breaker)| (store.clone(), breaker.state(now)));
        all.filter(|(_, state)| *state != BreakerState::Closed).collect()
    }
}

impl State {
    /// A call of the store failed: how many did in a row, and what that makes of the breaker.
    pub(super) fn call_failed(
        &mut self,
        store: &StoreName,
        failed: Failed,
        now: Instant,
    ) -> (u32, Option<Tripped>, Option<BreakerTurned>) {
        match failed {
            Failed::Transient { .. } => {}
            // It answered, if not to please.
            Failed::Permanent => return (0, None, self.close_breaker(store).then_some(BreakerTurned::Closed)),
            // For all of its tenants, and so no matter of this one.
            Failed::Unavailable { .. } => return (0, None, None),
        }
        let policy = self.policy.breaker;
        let at = self.breakers.iter().position(|(other, _)| other == store).unwrap_or_else(|| {
            self.breakers.push((store.clone(), Breaker::default()));
            self.breakers.len() - 1
        });
        let breaker = &mut self.breakers[at].1;
        let tripped = breaker.failed(&policy, now);
        let opened =
            tripped.filter(|tripped| tripped.is_new).map(|tripped| BreakerTurned::Opened { until: tripped.until });
        (breaker.in_a_row(), tripped, opened)
    }

    /// A call of the store was answered. Whether its breaker was open until then.
    pub(super) fn close_breaker(&mut self, store: &StoreName) -> bool {
        let Some(at) = self.breakers.iter().position(|(other, _)| other == store) else { return false };
        self.breakers.swap_remove(at).1.probe_at().is_some()
    }

    /// Until when the tenant is not to call the store.
    pub(super) fn breaker_open_until(&self, store: &StoreName, now: Instant) -> Option<Instant> {
        let (_, breaker) = self.breakers.iter().find(|(other, _)| other == store)?;
        breaker.open_until(&self.policy.breaker, now)
    }
}
