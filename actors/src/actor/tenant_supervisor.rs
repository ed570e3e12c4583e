//! What is decided about both actors of a tenant: their restarts are counted together, and they are held and let go together.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::alarms::Alarm;
use super::control::Control;
use super::dormant::Dormant;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use crate::model::{Cause, FlushReason, Role, Status, SupervisorEvent, TenantId, What};
use crate::policy::{Decision, Restarts, Stall};

/// What the supervision of a tenant has to remember.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Of both actors: it is the tenant that fails too often, whichever of them it is.
    restarts: Restarts,
    held: Option<Held>,
    /// Heartbeats in a row without an answer.
    pub(super) missed: u32,
    pub(super) stall: Stall,
}

/// Why none of a tenant's actors may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Quarantined {
        until: Instant,
    },
    Stopped,
    /// The tenant was passivated, and has another slot by now or none.
    Gone,
}

impl Upkeep {
    pub(super) fn new(restarts: Option<Restarts>, is_stopped: bool) -> Self {
        let held = is_stopped.then_some(Held::Stopped);
        Self { restarts: restarts.unwrap_or_default(), held, ..Self::default() }
    }

    /// What it is called to be held.
    pub(super) fn held(&self) -> Option<Status> {
        self.held.map(|held| match held {
            Held::Quarantined { .. } => Status::Quarantined,
            Held::Stopped => Status::Stopped,
            Held::Gone => Status::Dormant,
        })
    }
}

impl Slot {
    pub(super) fn upkeep(&self) -> MutexGuard<'_, Upkeep> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether none of its actors may run.
    pub(super) fn is_held(&self) -> bool {
        self.upkeep().held.is_some()
    }

    /// One of its actors failed.
    pub(super) fn child_failed(&self, now: Instant, rng: &mut fastrand::Rng) -> Decision {
        // One that is gone has no actors.
        let _ = self.lane.count(|counters| counters.restarts += 1);
        let settled = self.settled.load(Ordering::Acquire);
        let policy = self.policy();
        self.upkeep().restarts.failed(&policy.restart, now, settled, rng)
    }

    /// The failure of `child` was one too many: neither actor runs before `until`, unless somebody lifts it.
    pub(super) fn quarantine(
        self: &Arc<Self>,
        shared: &Shared,
        child: Role,
        cause: Cause,
        attempt: u32,
        until: Instant,
    ) {
        let lasting = until.saturating_duration_since(Instant::now());
        let event = SupervisorEvent {
            cause: Some(cause),
            attempt: Some(attempt),
            next_attempt_at: Some(shared.seam.now().plus(lasting)),
            ..self.event(child, What::Quarantined)
        };
        let mut upkeep = self.upkeep();
        if upkeep.held.is_some() {
            // Somebody was faster and stopped it, actors and all.
            return;
        }
        upkeep.held = Some(Held::Quarantined { until });
        drop(upkeep);
        self.end_actors();
        shared.log(event);
        shared.alarms.set(until, self, Alarm::Lift);
    }

    /// Ends both actors until [`resume`](Self::resume), from any thread. False where the slot is gone: then it is for the next.
    pub(crate) fn stop(&self, shared: &Shared) -> bool {
        let mut upkeep = self.upkeep();
        if upkeep.held == Some(Held::Gone) {
            return false;
        }
        upkeep.held = Some(Held::Stopped);
        drop(upkeep);
        for role in self.end_actors() {
            shared.log(self.event(role, What::Stopped));
        }
        true
    }

    /// Lets the tenant go where it is held, else cuts a backoff short. From any thread.
    pub(crate) fn resume(self: &Arc<Self>, shared: &Shared) {
        let mut upkeep = self.upkeep();
        match upkeep.held {
            None => {
                drop(upkeep);
                self.each_control(Control::resume);
            }
            Some(Held::Stopped | Held::Quarantined { .. }) if shared.phase() < Phase::Stopping => {
                let until = Instant::now();
                upkeep.held = Some(Held::Quarantined { until });
                drop(upkeep);
                // Actors are started on the system's thread, by the alarm.
                shared.alarms.set(until, self, Alarm::Lift);
            }
            Some(_) => {}
        }
    }

    /// Replaces the actors by fresh ones, be they held. From any thread.
    pub(crate) fn restart(self: &Arc<Self>, shared: &Shared) {
        if self.is_held() {
            self.resume(shared);
        } else {
            self.each_control(Control::restart);
        }
    }

    /// A quarantine may be over. Only on the system's thread.
    pub(super) fn lift(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut upkeep = self.upkeep();
        let now = Instant::now();
        if !matches!(upkeep.held, Some(Held::Quarantined { until }) if until <= now) {
            return;
        }
        *upkeep = Upkeep::default();
        drop(upkeep);
        shared.log(self.event(Role::Tenant, What::Resumed));
        self.start(shared);
    }

    /// Whether it may be passivated without being asked for: it is at nothing, not held, and nothing is to be undone.
    pub(super) fn is_to_be_let_go(&self) -> bool {
        self.lane.snapshot().is_over() && !self.is_held() && !self.pursuing.load(Ordering::Acquire)
    }

    /// Ends both actors and lets the tenant's memory go if there is nothing for them to do, until there is. Whether there was
    /// nothing. From any of the system's threads: what another one brings meanwhile is either seen here or comes to the slot that the
    /// tenant has next.
    ///
    /// Of a tenant that is held, or that has compensations to be done, its slot stays.
    pub(crate) fn passivate(self: &Arc<Self>, shared: &Shared) -> bool {
        if self.is_gone() {
            return true;
        }
        let lane = self.lane.snapshot();
        let is_busy = self.compensating.load(Ordering::Acquire) || self.recovering.load(Ordering::Acquire);
        if is_busy || !lane.is_at_rest() {
            return false;
        }
        let event = self.event(Role::Tenant, What::Passivated);
        let laid_down = shared.tenants.lay_down(self, || {
            let restarts = {
                let mut upkeep = self.upkeep();
                if upkeep.held.is_some() || self.pursuing.load(Ordering::Acquire) {
                    return None;
                }
                upkeep.held = Some(Held::Gone);
                upkeep.restarts.clone()
            };
            let Some(rest) = self.lane.rest() else {
                // Another thread was faster, and brought something to do.
                self.upkeep().held.take_if(|held| *held == Held::Gone);
                return None;
            };
            let dormant = Dormant::of(self, rest, &restarts, shared);
            self.gone.store(true, Ordering::Release);
            Some(dormant)
        });
        self.flush.store(0, Ordering::Release);
        let had_actors = !self.end_actors().is_empty();
        if laid_down {
            // Whoever waits for it looks again, and the table of those that were met forgets it.
            self.room.notify_waiters();
            shared.alarms.set(Instant::now(), self, Alarm::Forget);
        } else {
            self.lane.record_door();
        }
        if had_actors {
            shared.log(event);
        }
        if laid_down || self.lane.snapshot().is_at_rest() {
            return true;
        }
        // Its actors may have been ended before they heard of it.
        self.start_at_home(shared);
        false
    }

    /// Ends both actors, and says which there were.
    pub(super) fn end_actors(&self) -> Vec<Role> {
        let tenant = self.tenant.end(&[&self.chunks_hinted, &self.beat_sent]).then_some(Role::Tenant);
        let writer = self.writer.end(&[&self.batches_hinted]).then_some(Role::Writer);
        self.forget_handover();
        let mut upkeep = self.upkeep();
        upkeep.missed = 0;
        upkeep.stall = Stall::default();
        tenant.into_iter().chain(writer).collect()
    }
}

/// Closes the tenant's window, waits until nothing is in flight, and passivates it.
pub(crate) async fn passivate_soon(shared: &Arc<Shared>, id: &TenantId) {
    while let Some(slot) = shared.slot(id) {
        let mut room = std::pin::pin!(slot.room.notified());
        room.as_mut().enable();
        if slot.passivate(shared) {
            return;
        }
        if slot.lane.has_uncut() {
            slot.want_flush(shared, FlushReason::Explicit);
        }
        room.await;
    }
}

/// Ends the tenant's actors until it is resumed, be it that it has none. From any thread.
pub(crate) fn stop(shared: &Arc<Shared>, id: &TenantId) {
    while !shared.wake(id).stop(shared) {}
}
