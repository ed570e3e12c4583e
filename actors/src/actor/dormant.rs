//! What is kept of a tenant that has nothing to do: some 300 bytes where an awake one takes thousands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::control::Control;
use super::registry::{Defaults, Phase, Shared};
use super::slot::Slot;
use super::spec::TenantSpec;
use crate::model::{Role, Status, TenantId};
use crate::observe::{ActorDetail, Backlog, OpenWindow, SilenceDetail, TenantDetail, TenantSnapshot};
use crate::policy::{Policy, Restarts};
use crate::port::lane::Rest;
use crate::port::{Hooks, RecoveredTenant, Stores};

/// The rules, the stores and the hooks of a tenant.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) policy: Arc<Policy>,
    /// Whether they are its own: no others take their place but by hand.
    pub(crate) has_own_policy: bool,
    pub(crate) stores: Arc<Stores>,
    pub(crate) hooks: Arc<Hooks>,
}

impl Own {
    /// What the spec says, and where it is silent, the defaults.
    pub(crate) fn of(id: &TenantId, spec: TenantSpec, defaults: &Defaults) -> Self {
        let hooks = match spec.hooks.is_empty() {
            true => defaults.hooks.clone(),
            false => Arc::new(defaults.hooks.then(&spec.hooks)),
        };
        Self {
            has_own_policy: spec.policy.is_some(),
            policy: spec.policy.map_or_else(|| defaults.policy(id), Arc::new),
            stores: spec.stores.unwrap_or_else(|| defaults.stores.clone()),
            hooks,
        }
    }

    /// To be kept only where it is not what the defaults say anyway.
    fn unless_default(self, defaults: &Defaults) -> Option<Box<Self>> {
        let is_default = !self.has_own_policy
            && Arc::ptr_eq(&self.stores, &defaults.stores)
            && Arc::ptr_eq(&self.hooks, &defaults.hooks);
        (!is_default).then(|| Box::new(self))
    }
}

/// A tenant without a slot: it has none before an event comes after it was passivated, or after a start for which nothing of it
/// was left to be done.
pub(crate) struct Dormant {
    pub(crate) rest: Rest,
    /// Where it is not as the defaults are.
    own: Option<Box<Own>>,
    /// The last lives of both actors.
    pub(super) tenant: u64,
    pub(super) writer: u64,
    /// Batches settled so far, and failures that would still count together with one more.
    pub(super) settled: u64,
    pub(super) restarts: Option<Box<Restarts>>,
    pub(super) is_unclaimed: bool,
    pub(super) is_idle: bool,
}

impl Dormant {
    /// What is to be kept of the slot.
    pub(super) fn of(slot: &Slot, rest: Rest, restarts: &Restarts, shared: &Shared) -> Self {
        let policy = slot.policy();
        let restarts = restarts.are_recent(&policy.restart, Instant::now()).then(|| Box::new(restarts.clone()));
        let (stores, hooks) = (slot.stores.clone(), slot.hooks.clone());
        let own = Own { policy, has_own_policy: slot.has_own_policy, stores, hooks };
        let life = |control: Option<&Arc<Control>>| control.map_or(Control::NEVER, |control| control.last_life());
        Self {
            rest,
            own: own.unless_default(&shared.defaults),
            tenant: life(slot.tenant.control()),
            writer: life(slot.writer.control()),
            settled: slot.settled.load(Ordering::Acquire),
            restarts,
            is_unclaimed: slot.is_unclaimed.load(Ordering::Acquire),
            is_idle: slot.idle.load(Ordering::Acquire),
        }
    }

    /// A tenant that an earlier process has settled with. `spec` is what is said of it now.
    pub(super) fn recovered(left: &RecoveredTenant, spec: TenantSpec, shared: &Shared) -> Self {
        Self {
            rest: Rest::recovered(left),
            own: Own::of(&left.tenant, spec, &shared.defaults).unless_default(&shared.defaults),
            tenant: Control::NEVER,
            writer: Control::NEVER,
            settled: 0,
            restarts: None,
            is_unclaimed: true,
            is_idle: false,
        }
    }

    /// Its rules, stores and hooks. Rules that are not its own may be others by now.
    pub(crate) fn own(&self, id: &TenantId, defaults: &Defaults) -> Own {
        match self.own.as_deref().cloned() {
            Some(own) if own.has_own_policy => own,
            Some(own) => Own { policy: defaults.policy(id), ..own },
            None => Own::of(id, TenantSpec::silent(), defaults),
        }
    }

    pub(super) fn snapshot(&self, id: &TenantId, shared: &Shared) -> TenantSnapshot {
        let is_over = shared.phase() >= Phase::Stopping;
        let silence = shared.silences.detail(id);
        let status = SilenceDetail::status(silence.as_ref(), Status::Dormant);
        TenantSnapshot {
            tenant: id.clone(),
            status: if is_over { Status::Stopped } else { status },
            is_muted: shared.tenants.is_muted(id),
            counters: self.rest.counters,
            in_flight: 0,
            window: 0,
            batches_waiting: 0,
            in_flight_bytes: 0,
            in_journal: 0,
            in_journal_bytes: 0,
            uncompensated: 0,
            silence,
            oldest_at: None,
        }
    }

    pub(super) fn detail(&self, id: &TenantId, shared: &Shared) -> TenantDetail {
        let at = shared.seam.now();
        let window = &shared.changed(id, self.own(id, &shared.defaults)).policy.window;
        let window = OpenWindow {
            max_events: window.max_events as u64,
            max_bytes: window.max_bytes as u64,
            ..OpenWindow::default()
        };
        let lives = [(Role::Tenant, self.tenant), (Role::Writer, self.writer)];
        let lived = lives.into_iter().filter(|(_, life)| *life != Control::NEVER);
        let ended =
            |(actor, life)| ActorDetail { actor, epoch: Control::epoch_of(life), status: Some(Status::Stopped) };
        TenantDetail {
            tenant: id.clone(),
            at,
            snapshot: self.snapshot(id, shared),
            window,
            backlog: Backlog::default(),
            batch: None,
            actors: lived.map(ended).collect(),
            breakers: vec![],
            throttle: None,
            failures: shared.collect(|collector| collector.of(id, at)),
            log: shared.log.last_of(id, TenantDetail::LOG_ENTRIES),
        }
    }
}
