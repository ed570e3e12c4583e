//! Who is listened for: the tenants that may fall silent, whether they are awake, dormant or were never met.
//!
//! A tenant's lane says that a frame came; one task of the system looks when one is due. An alarm is not moved by each frame, but
//! looked at when it rings.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::TenantId;
use crate::observe::SilenceDetail;
use crate::policy::{Silence, SilencePolicy, Sound};

/// All who are listened for.
#[derive(Debug, Default)]
pub(crate) struct Silences {
    tenants: DashMap<TenantId, Arc<Listener>>,
    clock: Arc<Clock>,
}

#[derive(Debug, Default)]
struct Clock {
    set: Mutex<BTreeSet<(Instant, TenantId)>>,
    sooner: Notify,
}

/// One who is listened for. Outlives the tenant's slot.
#[derive(Debug)]
pub(crate) struct Listener {
    tenant: TenantId,
    clock: Arc<Clock>,
    state: Mutex<(SilencePolicy, Silence)>,
}

impl Silences {
    /// The tenant's, by its rules as they are now; `None` where these expect nothing. One who is `expected` is, from now on at the
    /// latest; others from their first frame on.
    pub(crate) fn of(&self, tenant: &TenantId, policy: &SilencePolicy, expected: bool) -> Option<Arc<Listener>> {
        if !policy.is_set() {
            self.tenants.remove(tenant);
            return None;
        }
        let since = expected.then(Instant::now);
        let make = || {
            let state = Mutex::new((policy.clone(), Silence::new()));
            Arc::new(Listener { tenant: tenant.clone(), clock: self.clock.clone(), state })
        };
        let listener = self.tenants.entry(tenant.clone()).or_insert_with(make).clone();
        let is_changed = {
            let (own, silence) = &mut *listener.state();
            let is_changed = own != policy;
            own.clone_from(policy);
            if is_changed {
                silence.rules_changed();
            }
            silence.expect(since) || is_changed
        };
        if is_changed {
            self.clock.set(Instant::now(), tenant);
        }
        Some(listener)
    }

    /// Who is listened for, in no order.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.tenants.iter().map(|listener| listener.key().clone()).collect()
    }

    /// What is known of a tenant's silence, if it is listened for.
    pub(crate) fn detail(&self, tenant: &TenantId) -> Option<SilenceDetail> {
        Some(self.tenants.get(tenant)?.detail())
    }

    /// The next tenant that is due, once it is.
    ///
    /// # Cancel safety
    /// A call that is dropped has taken nothing.
    pub(crate) async fn due(&self) -> TenantId {
        loop {
            let now = Instant::now();
            let Some(first) = self.clock.alarms().first().map(|(at, _)| *at) else {
                self.clock.sooner.notified().await;
                continue;
            };
            if first <= now {
                if let Some((_, tenant)) = self.clock.alarms().pop_first() {
                    return tenant;
                }
                continue;
            }
            let sooner = std::pin::pin!(self.clock.sooner.notified());
            let due = std::pin::pin!(tokio::time::sleep_until(first));
            futures::future::select(sooner, due).await;
        }
    }

    /// Looks at a tenant that is due: what is to be told of it.
    pub(crate) fn look(&self, tenant: &TenantId) -> Option<Sound> {
        let listener = self.tenants.get(tenant)?.clone();
        let (sound, again) = {
            let (policy, silence) = &mut *listener.state();
            silence.look(policy, Instant::now())
        };
        if let Some(at) = again {
            self.clock.set(at, tenant);
        }
        sound
    }
}

impl Clock {
    fn alarms(&self) -> MutexGuard<'_, BTreeSet<(Instant, TenantId)>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Instant, tenant: &TenantId) {
        let mut set = self.alarms();
        let is_first = set.first().is_none_or(|(first, _)| at < *first);
        set.insert((at, tenant.clone()));
        drop(set);
        if is_first {
            self.sooner.notify_one();
        }
    }
}

impl Listener {
    fn state(&self) -> MutexGuard<'_, (SilencePolicy, Silence)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of the tenant came.
    pub(crate) fn heard(&self) {
        let now = Instant::now();
        let is_due = {
            let (policy, silence) = &mut *self.state();
            silence.heard(policy, now)
        };
        if is_due {
            self.clock.set(now, &self.tenant);
        }
    }

    pub(crate) fn detail(&self) -> SilenceDetail {
        let (now, state) = (Instant::now(), self.state());
        let (policy, silence) = &*state;
        let expected = silence.expected(policy);
        let millis = |lasting: Duration| u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX);
        let ago = |at: Instant| millis(now.saturating_duration_since(at));
        SilenceDetail {
            silent_ms: silence.silent_since().map(ago),
            heard_ms_ago: silence.last_heard().map(ago),
            expected_within_ms: expected.map(|expected| millis(expected.within)),
            is_learnt: expected.is_some_and(|expected| expected.is_learnt),
        }
    }
}
