//! What climbs up to the root: the failures of its own actors, and which of all actors holds the thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::control::Control;
use crate::model::{Cause, FailedActor, Hung, Role, SystemHealth, UnixMillis};
use crate::policy::{Decision, RestartPolicy, Restarts};

/// The root of the supervision tree, as far as it must survive its own actors.
#[derive(Debug, Default)]
pub(crate) struct Root(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of the supervisor and the aggregator together.
    restarts: Restarts,
    /// The actors of no tenant.
    actors: Vec<(Role, Weak<Control>)>,
    /// How many there may be before those that have ended are looked for.
    sweep_at: usize,
    failed: Option<FailedActor>,
    hung: Option<Hung>,
}

impl Root {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is an actor of no tenant.
    pub(super) fn register(&self, role: Role, control: &Arc<Control>) {
        let mut state = self.lock();
        if state.actors.len() >= state.sweep_at {
            state.actors.retain(|(_, control)| control.strong_count() > 0);
            state.sweep_at = (state.actors.len() * 2).max(64);
        }
        state.actors.push((role, Arc::downgrade(control)));
    }

    /// The role of an actor of no tenant whose code runs right now, if it is one of them.
    pub(super) fn polled(&self) -> Option<Role> {
        let is_polling = |control: &Weak<Control>| control.upgrade().is_some_and(|control| control.is_polling());
        self.lock().actors.iter().find(|(_, control)| is_polling(control)).map(|(role, _)| *role)
    }

    /// The supervisor or the aggregator failed.
    pub(super) fn child_failed(
        &self,
        policy: &RestartPolicy,
        now: Instant,
        progress: u64,
        rng: &mut fastrand::Rng,
    ) -> Decision {
        self.lock().restarts.failed(policy, now, progress, rng)
    }

    /// The intensity of the root is spent. An ingress has its own, and takes nothing but its connection along.
    pub(super) fn failed(&self, actor: Role, cause: &Cause, since: UnixMillis) {
        if actor != Role::Ingress {
            self.lock().failed = Some(FailedActor { actor, cause: cause.clone(), since });
        }
    }

    pub(super) fn runs_again(&self, actor: Role) {
        self.lock().failed.take_if(|failed| failed.actor == actor);
    }

    /// The thread does not turn, or does again; what was said of it before.
    pub(super) fn hangs(&self, hung: Option<Hung>) -> Option<Hung> {
        std::mem::replace(&mut self.lock().hung, hung)
    }

    pub(crate) fn health(&self) -> SystemHealth {
        let state = self.lock();
        SystemHealth { hung: state.hung.clone(), failed: state.failed.clone() }
    }
}
