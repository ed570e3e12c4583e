//! The steps of a tenant's batches through their stores, as far as nothing has to be waited for.
//!
//! The [writer](super::writer) takes them. It is an actor for what has to be waited for: an answer, a backoff, a turn, the journal.
//! Many a store answers at once, and then it is woken, or even started, for nothing: with very many tenants, most of whose windows hold
//! a few events and close by age, that is much of what a batch costs. So whoever cuts such a window while no batch waits takes the
//! steps itself ([`host`]). What comes to anything but a stored batch is handed over to the writer, which goes on as if it had come
//! that far itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, Timeout};
use tracing::Instrument;

use super::gate::Turn;
use super::registry::Shared;
use super::slot::Slot;
use super::supervise::Child;
use super::writer::Writer;
use crate::model::{Batch, Cause, Code, Failure, Role, Status, StoreName, SupervisorEvent, What};
use crate::observe::{Attempted, Outcome};
use crate::policy::Want;
use crate::port::fault_point::fault_point;
use crate::port::lane::{Step, Stored};
use crate::port::{Position, StorageError, Undo};

/// Whoever takes the steps.
pub(super) struct Steps {
    pub(super) slot: Arc<Slot>,
    pub(super) shared: Arc<Shared>,
    /// A turn at a store, or the wish for one. It goes with whoever holds it.
    pub(super) turn: Option<Turn>,
}

/// An attempt that is on record and did not store its batch at once.
pub(super) enum Attempt {
    Failed(StorageError),
    /// The store is at it. Its time runs.
    Open(Pin<Box<Timeout<Answer>>>),
}

/// What a store says to an attempt.
type Answer = BoxFuture<'static, Result<(), StorageError>>;

/// What the steps have come to.
pub(super) enum Halt {
    /// Nothing is left to be done.
    Rest,
    /// The aggregator has the batch.
    GivenUp,
    /// Others are at the store.
    Turn,
    /// Not to be tried before.
    Until(Instant),
    /// The attempt is on record there, and not committed.
    Record(Position),
    /// Whoever made the last attempt died in the middle of it.
    Orphaned,
    Attempt(Attempt),
}

/// An attempt that goes over to the writer, with its turn at the store.
pub(super) type Handover = Option<Box<(Attempt, Option<Turn>)>>;

impl Steps {
    pub(super) fn new(slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self { slot, shared, turn: None }
    }

    /// Does what the lane says is next, until something has to be waited for or has failed.
    pub(super) fn go_on(&mut self) -> Halt {
        loop {
            let (now, slot, turn) = (Instant::now(), &self.slot, &mut self.turn);
            match slot.lane.next_step(now, |store, want| take_turn(slot, turn, store, want, now)) {
                Step::Rest => return Halt::Rest,
                Step::GivenUp => return Halt::GivenUp,
                Step::Turn => return Halt::Turn,
                Step::Wait(until) => return Halt::Until(until),
                Step::Record(position) => return Halt::Record(position),
                Step::Orphaned => return Halt::Orphaned,
                Step::Lost(batch) => drop(self.shared.settle(&self.slot, &batch, Outcome::Discarded)),
                Step::Finished => self.settle(),
                Step::Prepare(batch) => self.prepare(batch),
                Step::Store(store, batch, undo) => {
                    if let Some(attempt) = self.store(&store, batch, undo) {
                        return Halt::Attempt(attempt);
                    }
                }
            }
        }
    }

    /// Passes a fresh batch through the hooks.
    fn prepare(&self, batch: Batch) {
        match self.slot.hooks.batch(batch.clone()) {
            Ok(Some(made)) => self.slot.lane.prepared(made, None),
            Ok(None) => drop(self.shared.settle(&self.slot, batch.id(), Outcome::Discarded)),
            Err(cause) => self.slot.lane.prepared(batch, Some(cause)),
        }
    }

    /// Makes the attempt that is on record; what became of it unless the batch was stored at once. After a panic in there the attempt
    /// is open, for the next writer to find.
    fn store(&mut self, store: &StoreName, batch: Batch, undo: Undo) -> Option<Attempt> {
        fault_point("after-intent");
        // The name is one of the saga's.
        let storage = self.slot.stores.get(store).cloned()?;
        let span = tracing::debug_span!(target: "headworks", "store", tenant = %self.slot.id, batch = %batch.id(), attempt = undo.attempt().0, %store);
        let mut attempt = async move { storage.store(&batch, &undo).await }.instrument(span).boxed();
        // A store that answers at once needs neither a timer nor a place among an actor's futures.
        match (&mut attempt).now_or_never() {
            Some(Ok(())) => {
                self.stored();
                None
            }
            Some(Err(error)) => Some(Attempt::Failed(error)),
            None => {
                let limit = self.slot.policy().retry.attempt_timeout;
                Some(Attempt::Open(Box::pin(tokio::time::timeout(limit, attempt))))
            }
        }
    }

    /// The store of the open attempt has the batch: on to the next one, or it is settled.
    pub(super) fn stored(&self) {
        if let Some(turn) = &self.turn {
            turn.answered(false);
            turn.ended(true);
        }
        fault_point("after-store");
        self.observe_attempt(None);
        let was_parked = self.slot.lane.is_parked();
        let Stored { has_more, closed } = self.slot.lane.stored();
        if let Some(store) = closed {
            self.breaker(What::BreakerClosed, store, None);
        }
        if !has_more {
            return self.settle();
        }
        fault_point("after-step");
        if was_parked {
            self.shared.log(self.slot.event(Role::Writer, What::Unparked));
            self.shared.store_is_back(&self.slot);
        }
    }

    /// Tells the observers, if there are any, that the open attempt is over, and how it failed.
    pub(super) fn observe_attempt(&self, failed: Option<Code>) {
        if self.shared.observers.is_empty() {
            return;
        }
        let Some((batch, store, attempt)) = self.slot.lane.open_attempt() else { return };
        let took = self.turn.as_ref().and_then(Turn::took).unwrap_or_default();
        let attempted = Attempted { batch, store, attempt, took, failed };
        self.shared.observe(Some(&self.slot.id), |observer| observer.attempted(&self.slot.id, &attempted));
    }

    /// Every store has the batch.
    fn settle(&self) {
        let Some(batch) = self.slot.lane.front_id() else { return };
        let Some(left) = self.shared.settle(&self.slot, &batch, Outcome::Stored) else { return };
        fault_point("after-outcome");
        let batch = left.batch.id();
        if left.was_parked {
            self.shared.log(self.slot.event(Role::Writer, What::Unparked));
        }
        if left.found_store_back {
            // Once an outage: whoever is told does not tell the others again.
            self.shared.store_is_back(&self.slot);
        }
        tracing::debug!(target: "headworks", tenant = %self.slot.id, %batch, events = left.batch.len(), attempts = left.attempts, "stored");
        if let Err(cause) = self.slot.hooks.stored(&left.batch) {
            self.shared.failed(&Failure { batch: Some(batch.clone()), ..self.slot.failure(&self.shared, cause, 0) });
        }
    }

    /// The tenant's breaker at the store is open, after so many failures in a row, or closed again.
    pub(super) fn breaker(&self, what: What, store: StoreName, opened: Option<(Cause, u32, Instant)>) {
        let wall = |at: Instant| self.shared.seam.now().plus(at.saturating_duration_since(Instant::now()));
        let next_attempt_at = opened.as_ref().map(|(.., until)| wall(*until));
        let (cause, attempt) = opened.map(|(cause, in_a_row, _)| (cause, in_a_row)).unzip();
        let event = self.slot.event(Role::Writer, what);
        self.shared.log(SupervisorEvent { store: Some(store), cause, attempt, next_attempt_at, ..event });
    }
}

/// Whether the tenant has its turn at the store.
fn take_turn(slot: &Arc<Slot>, turn: &mut Option<Turn>, store: &StoreName, want: Want, now: Instant) -> bool {
    if turn.as_ref().is_none_or(|turn| !turn.is_at(store)) {
        // That of another store first goes back.
        *turn = None;
        *turn = slot.stores.place(store).and_then(|nth| Turn::wish(slot, nth));
    }
    turn.as_mut().is_none_or(|turn| turn.take(want, now))
}

/// Stores what was just cut of a tenant that has no other batch, or hands it over to its writer. Only on the thread on which the
/// tenant's actors live.
pub(super) fn host(slot: &Arc<Slot>, shared: &Arc<Shared>) {
    if !slot.writer_rests() {
        return slot.hint_batches(shared);
    }
    let mut steps = Steps::new(slot.clone(), shared.clone());
    slot.hosting.store(true, Ordering::Relaxed);
    let halt = catch_unwind(AssertUnwindSafe(|| {
        // What the writer does of this message, without one.
        shared.panic_points.pass("writer/BatchesWait", Some(&slot.id));
        steps.go_on()
    }));
    slot.hosting.store(false, Ordering::Relaxed);
    match halt {
        Ok(Halt::Rest) => {}
        Ok(Halt::Attempt(attempt)) => {
            *slot.handed_over() = Some(Box::new((attempt, steps.turn.take())));
            slot.hint_batches(shared);
            if !slot.writer.is_filled() {
                // The tenant was stopped meanwhile, and the attempt dies as with its writer.
                slot.forget_handover();
            }
        }
        Ok(_) => {
            // It comes to the same by itself; a turn is not kept for it.
            drop(steps);
            slot.hint_batches(shared);
        }
        Err(panic) => {
            let cause = Cause::from_panic(Writer::panic_code(Some(slot)), &*panic);
            drop(steps);
            slot.hint_batches(shared);
            // It is the writer's failure: what it leads to is decided there.
            slot.writer.control().iter().for_each(|writer| writer.fail(cause.clone()));
        }
    }
}

impl Slot {
    /// Whether its writer waits for nothing, or there is none and may be one.
    fn writer_rests(&self) -> bool {
        !self.batches_hinted.load(Ordering::Acquire)
            && self.writer.control().is_none_or(|writer| matches!(writer.status(), None | Some(Status::Stopped)))
    }

    /// The attempt that the writer is to go on with.
    pub(super) fn handed_over(&self) -> std::sync::MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is to go on with it. It is of the store's own making, and may panic as it is dropped.
    pub(super) fn forget_handover(&self) {
        let handover = self.handed_over().take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handover)));
    }
}
