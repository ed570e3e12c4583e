use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Addr;
use futures::FutureExt;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::message::Run;
use crate::actor::registry::{Phase, Shared};
use crate::actor::supervisor::Supervisor;
use crate::model::{FlushReason, Role, SupervisorEvent, TenantId, What};
use crate::observe::{Counters, TenantSnapshot};

/// How long a system that is done waits for clients to be told so, which may not listen.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a drain came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainReport {
    /// Whether everything accepted has its outcome, and every dead letter is kept.
    pub complete: bool,
    /// Bad frames and events that were given up at the door, whose dead letters could not be kept before the deadline.
    pub dead_letters_pending: u64,
    /// Each tenant, by name.
    pub tenants: Vec<TenantDrained>,
}

/// One tenant at the end of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantDrained {
    /// Everything of it, at the end.
    #[serde(flatten)]
    pub end: TenantSnapshot,
    /// How many of its events were in flight when the drain began.
    pub in_flight_before: u64,
}

impl DrainReport {
    /// The tenants that still have events in flight.
    pub fn unfinished(&self) -> impl Iterator<Item = &TenantDrained> {
        self.tenants.iter().filter(|tenant| tenant.end.in_flight > 0)
    }

    /// How many compensations could not be done: a store may hold events that were given up. With a durable journal the next
    /// process goes on with them.
    #[must_use]
    pub fn uncompensated(&self) -> u64 {
        self.tenants.iter().map(|tenant| tenant.end.uncompensated).sum()
    }

    /// One tenant's part.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Option<&TenantDrained> {
        self.tenants.iter().find(|drained| drained.end.tenant == *tenant)
    }
}

impl fmt::Display for DrainReport {
    /// One line, and one more for each tenant with events in flight. That something is not undone is said where it is so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: fn(&TenantDrained) -> u64| self.tenants.iter().map(count).sum::<u64>();
        write!(
            f,
            "drained: tenants={} stored={} dead_lettered={} in_flight={} dead_letters_pending={}",
            self.tenants.len(),
            sum(|t| t.end.counters.stored),
            sum(|t| t.end.counters.dead_lettered),
            sum(|t| t.end.in_flight),
            self.dead_letters_pending,
        )?;
        if self.uncompensated() > 0 {
            write!(f, " uncompensated={}", self.uncompensated())?;
        }
        for TenantDrained { end, .. } in self.unfinished() {
            write!(f, "\n  {} in_flight={} status={}", end.tenant, end.in_flight, end.status)?;
            if end.in_journal > 0 {
                write!(f, " in_journal={}", end.in_journal)?;
            }
        }
        Ok(())
    }
}

impl DrainReport {
    /// The same with the counters of what happened since `before`, and without the tenants that nothing happened to.
    #[must_use]
    pub fn since(mut self, before: &[TenantSnapshot]) -> Self {
        let before: HashMap<_, _> = before.iter().map(|before| (&before.tenant, &before.counters)).collect();
        for tenant in &mut self.tenants {
            if let Some(before) = before.get(&tenant.end.tenant) {
                tenant.end.counters = tenant.end.counters.since(before);
            }
        }
        self.tenants.retain(|TenantDrained { end, .. }| {
            end.in_flight + end.uncompensated > 0 || end.counters != Counters::default()
        });
        self
    }
}

/// Drains on the system's thread: the caller may have no runtime, or one without timers.
pub(super) async fn drain(shared: &Arc<Shared>, supervisor: &Addr<Supervisor>, deadline: Duration) -> DrainReport {
    let report = loop {
        let (tell, told) = oneshot::channel();
        let on = shared.clone();
        let run = Run(Box::new(move || {
            let drained = async move {
                // Nobody listens if the caller has gone; the drain goes on.
                let _ = tell.send(flow(&on, deadline).await);
                on.enter(Phase::Stopping);
            };
            drained.boxed_local()
        }));
        match supervisor.send(run).await {
            Ok(()) => break told.await.ok(),
            // A system that has stopped has no supervisor to ask: what is there is the report.
            Err(_) if shared.phase() >= Phase::Stopping => break None,
            // It failed, and its successor reads on.
            Err(_) => {}
        }
    };
    let mut phase = shared.phase.subscribe();
    // The sender lives in `shared`.
    let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
    report.unwrap_or_else(|| report_of(shared, &HashMap::new()))
}

/// The stages of a drain.
async fn flow(shared: &Arc<Shared>, deadline: Duration) -> DrainReport {
    let deadline = Instant::now() + deadline;
    let before = shared.all_slots().iter().map(|slot| (slot.id.clone(), slot.snapshot().in_flight)).collect();
    if shared.enter(Phase::Draining) {
        shared.log(SupervisorEvent::new(None, Role::Supervisor, What::Draining));
    }
    let close_windows = || shared.all_slots().iter().for_each(|slot| slot.want_flush(shared, FlushReason::Drain));
    // What waits for a rate waits no longer.
    shared.rules_changed.notify_waiters();
    // First stage: sources end, calls that are under way return. Windows need not wait for that: a call that a full tenant
    // holds may last until the deadline.
    close_windows();
    let nothing_comes = || shared.feeds.load(Ordering::Acquire) == 0 && shared.unread.load(Ordering::Acquire) == 0;
    until(shared, deadline, nothing_comes).await;
    // Second stage: the windows of what these calls brought, and of what was left by an earlier process.
    close_windows();
    // Last stage: writers and the dead letters.
    until(shared, deadline, || is_settled(shared)).await;
    // And whoever waits for an answer may hear the last of it.
    let mut telling = shared.telling.subscribe();
    let all_told = telling.wait_for(|connections| *connections == 0);
    let _ = tokio::time::timeout_at(deadline.min(Instant::now() + FAREWELL), all_told).await;
    report_of(shared, &before)
}

fn is_settled(shared: &Shared) -> bool {
    let is_read = [&shared.unread, &shared.spilling].iter().all(|tenants| tenants.load(Ordering::Acquire) == 0);
    shared.budget.used() == 0 && shared.letters.is_empty() && is_read
}

fn report_of(shared: &Shared, before: &HashMap<TenantId, u64>) -> DrainReport {
    let tenants = shared
        .snapshots()
        .into_iter()
        .map(|end| TenantDrained { in_flight_before: before.get(&end.tenant).copied().unwrap_or(0), end });
    let dead_letters_pending = shared.letters.len() as u64;
    DrainReport { complete: is_settled(shared), dead_letters_pending, tenants: tenants.collect() }
}

/// Waits until `done`, which is looked at whenever something was released, or until the deadline.
async fn until(shared: &Shared, deadline: Instant, done: impl Fn() -> bool) {
    loop {
        let room = shared.budget.room().notified();
        let left = shared.letters.left().notified();
        let (mut room, mut left) = (std::pin::pin!(room), std::pin::pin!(left));
        room.as_mut().enable();
        left.as_mut().enable();
        shared.budget.wake_at(usize::MAX);
        if done() {
            return;
        }
        let released = futures::future::select(room, left);
        if tokio::time::timeout_at(deadline, released).await.is_err() {
            return;
        }
    }
}
