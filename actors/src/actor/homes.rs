//! The threads that actors live on.
//!
//! A tenant's two actors live on one thread, its home, and so do its alarms; an ingress lives where its connection is read. What
//! they share lies in the slot and its lane, so that an event comes in on any thread, and only a hint goes from one to another. A
//! tenant begins on the thread that its first event came in on. Where one thread is busy and another is not, some of its tenants
//! [move](Slot::moves), between two batches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::Instant;

use super::alarms::Alarm;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use crate::model::{Cause, Code, Role, SupervisorEvent, What};
use crate::policy::{Move, moves, uneven};

/// How often the threads are compared.
const LOOK: Duration = Duration::from_secs(1);

/// All of them; the first is the root's.
pub(crate) struct Homes(Box<[Home]>);

#[derive(Default)]
pub(crate) struct Home {
    thread: OnceLock<ThreadId>,
    metrics: OnceLock<RuntimeMetrics>,
    /// How often it has turned, where that is watched.
    pub(super) turns: AtomicU64,
    /// Connections that are read on it.
    connections: AtomicUsize,
}

/// A connection that is read on a home.
pub(crate) struct Reading {
    shared: Arc<Shared>,
    home: usize,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.shared.homes.0[self.home].connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Homes {
    pub(crate) fn new(homes: usize) -> Self {
        Self((0..homes.max(1)).map(|_| Home::default()).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether an event of a tenant may come in on one thread while its actors run on another.
    pub(crate) fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    pub(super) fn all(&self) -> &[Home] {
        &self.0
    }

    /// The calling thread is the one of `home`, for as long as it lasts. Within its runtime.
    pub(crate) fn settle(&self, home: usize) {
        if let Some(home) = self.0.get(home) {
            // It is settled once.
            let _ = home.thread.set(std::thread::current().id());
            let _ = home.metrics.set(tokio::runtime::Handle::current().metrics());
        }
    }

    /// Whether the calling thread is the one of `home`.
    pub(super) fn is_here(&self, home: usize) -> bool {
        !self.are_several() || self.0.get(home).and_then(|home| home.thread.get()) == Some(&std::thread::current().id())
    }

    /// The home that is the calling thread, or the first.
    pub(super) fn here(&self) -> usize {
        let here = std::thread::current().id();
        let is_here = |home: &Home| home.thread.get() == Some(&here);
        if self.are_several() { self.0.iter().position(is_here).unwrap_or(0) } else { 0 }
    }

    /// Where the fewest connections are read.
    pub(crate) fn for_connection(shared: &Arc<Shared>) -> (usize, Reading) {
        let homes = &shared.homes.0;
        // The first of several.
        let least = (0..homes.len()).min_by_key(|home| homes[*home].connections.load(Ordering::Acquire));
        let home = least.unwrap_or(0);
        homes[home].connections.fetch_add(1, Ordering::AcqRel);
        (home, Reading { shared: shared.clone(), home })
    }

    /// How many connections are read.
    pub(crate) fn connections(&self) -> usize {
        self.0.iter().map(|home| home.connections.load(Ordering::Acquire)).sum()
    }

    /// For how long each has been at work so far.
    pub(crate) fn busy(&self) -> Vec<Duration> {
        let busy = |home: &Home| home.metrics.get().map(|metrics| metrics.worker_total_busy_duration(0));
        self.0.iter().map(|home| busy(home).unwrap_or_default()).collect()
    }
}

/// Compares the threads again and again, and moves tenants from the busiest one. Ends with the system.
pub(crate) async fn balance(shared: Arc<Shared>) {
    let (mut before, mut looked, mut is_counted) = (shared.homes.busy(), Instant::now(), false);
    loop {
        tokio::time::sleep(LOOK).await;
        let (now, busy) = (Instant::now(), shared.homes.busy());
        let lasted = now.duration_since(looked).as_secs_f64();
        let shares: Vec<_> =
            busy.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before).as_secs_f64() / lasted).collect();
        (before, looked) = (busy, now);
        if uneven(&shares).is_none() {
            is_counted = false;
            continue;
        }
        let slots = shared.all_slots();
        let work: Vec<_> = slots.iter().map(|slot| (slot.home(), slot.work.swap(0, Ordering::Relaxed))).collect();
        // What was counted before this began is of another time.
        if std::mem::replace(&mut is_counted, true) {
            for Move { tenant, to } in moves(&shares, &work) {
                slots[tenant].move_to(&shared, to);
            }
        }
    }
}

impl Slot {
    /// The thread that its actors live on.
    pub(crate) fn home(&self) -> usize {
        self.home.load(Ordering::Acquire)
    }

    /// Its actors are to live on another thread, as soon as no batch is at a store. From any thread.
    pub(crate) fn move_to(self: &Arc<Self>, shared: &Shared, to: usize) {
        self.moving.store(to + 1, Ordering::Release);
        shared.alarms.set(Instant::now(), self, Alarm::Move);
    }

    /// Whether its writer is to begin nothing more, but leave it to [`moves`](Self::moves).
    pub(super) fn is_to_move(&self) -> bool {
        self.moving.load(Ordering::Acquire) > 0
    }

    /// Moves to the thread that was said, unless a batch is at a store: then its writer has it called again. Only on its thread.
    pub(super) fn moves(self: &Arc<Self>, shared: &Shared) {
        let from = self.home();
        let Some(to) = self.moving.load(Ordering::Acquire).checked_sub(1) else { return };
        if self.is_held() || to == from {
            self.moving.store(0, Ordering::Release);
            // Its writer may have stopped for this.
            return self.start_at_home(shared);
        }
        if self.lane.is_attempt_open() || self.compensating.load(Ordering::Acquire) {
            return;
        }
        // Whoever looks for it from now on looks there.
        self.home.store(to, Ordering::Release);
        self.moving.store(0, Ordering::Release);
        self.end_actors();
        let cause = Cause::new(Code::Rebalanced, format!("from thread {from}, which has more to do, to thread {to}"));
        shared.log(SupervisorEvent { cause: Some(cause), ..self.event(Role::Tenant, What::Moved) });
        self.start_at_home(shared);
    }

    /// Has the tenant's actors started where they live, if there is anything for them to do or not. From any thread.
    pub(super) fn start_at_home(self: &Arc<Self>, shared: &Shared) {
        if shared.phase() < Phase::Stopping && !self.starting.swap(true, Ordering::AcqRel) {
            shared.alarms.set(Instant::now(), self, Alarm::Start);
        }
    }
}
