//! The storage child: stores a tenant's batches in order, one at a time, and tries again by policy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::gate::Turn;
use super::letters::describe;
use super::message::{AttemptDue, Attempted, BatchesWait, GaveUp};
use super::registry::Shared;
use super::slot::Slot;
use super::supervise::Child;
use crate::model::{Batch, Cause, Code, Failure, Role, StoreName, SupervisorEvent, What};
use crate::observe::Outcome;
use crate::policy::Want;
use crate::port::fault_point::fault_point;
use crate::port::lane::{BreakerTurned, Failed, FailedAttempt, Step, Stored};
use crate::port::{StorageError, Undo};

pub(crate) struct Writer {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    rng: fastrand::Rng,
    /// Whether a store call is under way, or its record.
    storing: bool,
    /// When a timer was last set for. A timer that is not wanted any more is let go off and not cancelled: a context forgets the
    /// numbers of its futures when it is restarted, but not which of them it was to cancel.
    timer: Option<Instant>,
    /// Its turn at a store, or its wish for one. It goes with the writer.
    turn: Option<Turn>,
}

impl Writer {
    pub(crate) fn new(slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self { rng: shared.seam.rng(), slot, shared, storing: false, timer: None, turn: None }
    }

    /// Does what the lane says is next, until something has to be waited for. A turn is kept for nothing but a store.
    fn step(&mut self, ctx: &mut Context<Self>) {
        if !self.go_on(ctx) {
            self.turn = None;
        }
    }

    /// Whether a store is being called, or its turn waited for.
    fn go_on(&mut self, ctx: &mut Context<Self>) -> bool {
        while !self.storing {
            let (now, slot, turn) = (Instant::now(), &self.slot, &mut self.turn);
            match slot.lane.next_step(now, |store, want| take_turn(slot, turn, store, want, now)) {
                Step::Rest => return false,
                Step::GivenUp => {
                    self.gave_up();
                    return false;
                }
                Step::Turn => {
                    self.ask_again(ctx);
                    return true;
                }
                Step::Lost(batch) => drop(self.shared.settle(&self.slot, &batch, Outcome::Discarded)),
                Step::Finished => self.settle(),
                Step::Prepare(batch) => self.prepare(batch),
                Step::Wait(until) => {
                    if self.timer.replace(until) != Some(until) {
                        ctx.notify_later(AttemptDue, until.saturating_duration_since(Instant::now()));
                    }
                    return false;
                }
                Step::Record(position) => {
                    self.storing = true;
                    let journal = self.shared.journal.clone();
                    let committed = async move { journal.committed(position).await };
                    ctx.spawn(committed.into_actor(self).map(|(), writer, ctx| {
                        writer.storing = false;
                        writer.step(ctx);
                    }));
                    return false;
                }
                Step::Store(store, batch, undo) => self.store(&store, batch, undo, ctx),
                Step::Orphaned => self.orphaned(),
            }
        }
        true
    }

    /// Asks for its turn again after a while, if it was not told until then.
    fn ask_again(&mut self, ctx: &mut Context<Self>) {
        let after = self.turn.as_ref().and_then(Turn::ask_after);
        if let (None, Some(after)) = (self.timer, after) {
            self.timer = Some(Instant::now() + after);
            ctx.notify_later(AttemptDue, after);
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

    /// Makes the attempt that is on record. A panic in there ends this writer; its successor finds the attempt open.
    fn store(&mut self, store: &StoreName, batch: Batch, undo: Undo, ctx: &mut Context<Self>) {
        fault_point("after-intent");
        // The name is one of the saga's.
        let Some(storage) = self.slot.stores.get(store).cloned() else { return };
        let span = tracing::debug_span!(target: "headworks", "store", tenant = %self.slot.id, batch = %batch.id(), attempt = undo.attempt().0, %store);
        let mut attempt = Box::pin(async move { storage.store(&batch, &undo).await }.instrument(span));
        // A store that answers at once needs neither a timer nor a place among the actor's futures.
        if let Some(answer) = (&mut attempt).now_or_never() {
            return self.attempted(Some(answer));
        }
        self.storing = true;
        let attempt = tokio::time::timeout(self.slot.policy().retry.attempt_timeout, attempt);
        let attempt = async move { attempt.await.ok() };
        ctx.spawn(attempt.into_actor(self).map(|answer, writer, ctx| writer.handle(Attempted(answer), ctx)));
    }

    /// The open attempt has its answer; `None` is a timeout.
    fn attempted(&mut self, answer: Option<Result<(), StorageError>>) {
        if let (Some(answer), Some(turn)) = (&answer, &self.turn) {
            turn.answered(matches!(answer, Err(StorageError::Unavailable { .. })));
        }
        match answer {
            Some(Ok(())) => self.stored(),
            Some(Err(error)) => {
                let (failed, code) = match &error {
                    StorageError::Transient { retry_after, .. } => {
                        (Failed::Transient { retry_after: *retry_after }, Code::StoreTransient)
                    }
                    StorageError::Permanent { .. } => (Failed::Permanent, Code::StorePermanent),
                    StorageError::Unavailable { .. } => (Failed::Unavailable, Code::StoreUnavailable),
                };
                self.failed(failed, Cause::new(code, describe(&error)), What::Failed);
            }
            None => {
                let limit = humantime::format_duration(self.slot.policy().retry.attempt_timeout);
                let detail = format!("the store did not answer within {limit} (retry.attempt_timeout)");
                let timeout = Cause::new(Code::StoreTimeout, detail);
                self.failed(Failed::Transient { retry_after: None }, timeout, What::Failed);
            }
        }
    }

    /// The predecessor died in the middle of an attempt: whether it took effect is not known, and the same batch is sent
    /// again under the same id.
    fn orphaned(&mut self) {
        let cause = self
            .slot
            .writer_cause()
            .unwrap_or_else(|| Cause::new(Code::ActorStopped, "the writer was restarted in the middle of an attempt"));
        self.failed(Failed::Transient { retry_after: None }, cause, What::Ambiguous);
    }

    /// The open attempt failed. `what` it is in the log: whoever ended a predecessor has told of its failure.
    fn failed(&mut self, failed: Failed, cause: Cause, what: What) {
        let was_parked = self.slot.lane.is_parked();
        let next = self.slot.lane.failed(failed, cause.clone(), Instant::now(), &mut self.rng);
        let Some(FailedAttempt { store, attempt, next_after, in_a_row, breaker }) = next else { return };
        // By its own word. What hangs or panics does not tell that there are too many calls.
        if cause.code == Code::StoreTransient
            && in_a_row == 1
            && let Some(turn) = &self.turn
        {
            turn.overloaded(Instant::now());
        }
        self.slot.recovered();
        let batch = self.slot.lane.front_id();
        self.shared.failed(&Failure { batch: batch.clone(), ..self.slot.failure(&self.shared, cause.clone(), 0) });
        if was_parked && !matches!(failed, Failed::Unavailable) {
            // It fails in another way now, so it is there.
            self.shared.log(self.slot.event(Role::Writer, What::Unparked));
        }
        let event = match (next_after, failed) {
            // Told once an outage, not once a probe.
            (Some(_), Failed::Unavailable) if was_parked => None,
            (Some(_), Failed::Unavailable) => Some(self.slot.event(Role::Writer, What::Parked)),
            _ => Some(self.slot.event(Role::Writer, what)),
        };
        if let Some(event) = event {
            let next_attempt_at = next_after.map(|after| self.shared.seam.now().plus(after));
            let (store, cause) = (Some(store.clone()), Some(cause.clone()));
            let attempt = Some(attempt.0);
            self.shared.log(SupervisorEvent { batch, store, cause, attempt, next_attempt_at, ..event });
        }
        match breaker {
            Some(BreakerTurned::Opened { until }) => {
                self.breaker(What::BreakerOpened, store, Some((cause, in_a_row, until)))
            }
            Some(BreakerTurned::Closed) => self.breaker(What::BreakerClosed, store, None),
            None => {}
        }
    }

    /// The tenant's breaker at the store is open, after so many failures in a row, or closed again.
    fn breaker(&self, what: What, store: StoreName, opened: Option<(Cause, u32, Instant)>) {
        let wall = |at: Instant| self.shared.seam.now().plus(at.saturating_duration_since(Instant::now()));
        let next_attempt_at = opened.as_ref().map(|(.., until)| wall(*until));
        let (cause, attempt) = opened.map(|(cause, in_a_row, _)| (cause, in_a_row)).unzip();
        let event = self.slot.event(Role::Writer, what);
        self.shared.log(SupervisorEvent { store: Some(store), cause, attempt, next_attempt_at, ..event });
    }

    /// The batch belongs to the aggregator, which tells this writer when it is settled. One that knows already does nothing.
    fn gave_up(&self) {
        if let Some(aggregator) = self.shared.aggregator() {
            aggregator.do_send(GaveUp(self.slot.clone()));
        }
    }

    /// The store of the open attempt has the batch: on to the next one, or it is settled.
    fn stored(&self) {
        fault_point("after-store");
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

impl Actor for Writer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The hint may be what a dead predecessor died of.
        self.slot.batches_hinted.store(false, Ordering::Release);
        self.slot.lane.taken_over();
        self.step(ctx);
    }
}

impl Supervised for Writer {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.slot.clone(), self.shared.clone());
    }
}

impl Child for Writer {
    const ROLE: Role = Role::Writer;

    fn panic_code(slot: Option<&Slot>) -> Code {
        if slot.is_some_and(|slot| slot.lane.is_attempt_open()) { Code::StorePanic } else { Code::ActorPanic }
    }
}

impl Handler<BatchesWait> for Writer {
    type Result = ();

    fn handle(&mut self, _: BatchesWait, ctx: &mut Self::Context) {
        self.shared.panic_points.pass("writer/BatchesWait", Some(&self.slot.id));
        self.slot.batches_hinted.store(false, Ordering::Release);
        self.step(ctx);
    }
}

impl Handler<AttemptDue> for Writer {
    type Result = ();

    fn handle(&mut self, _: AttemptDue, ctx: &mut Self::Context) {
        self.shared.panic_points.pass("writer/AttemptDue", Some(&self.slot.id));
        self.timer = None;
        self.step(ctx);
    }
}

impl Handler<Attempted> for Writer {
    type Result = ();

    fn handle(&mut self, Attempted(answer): Attempted, ctx: &mut Self::Context) {
        self.shared.panic_points.pass("writer/Attempted", Some(&self.slot.id));
        self.storing = false;
        if let (Some(Ok(())), Some(turn)) = (&answer, &self.turn) {
            turn.stored(Instant::now());
        }
        self.attempted(answer);
        self.step(ctx);
    }
}

#[cfg(feature = "testing")]
impl Handler<super::message::Hang> for Writer {
    type Result = ();

    fn handle(&mut self, _: super::message::Hang, ctx: &mut Self::Context) {
        ctx.wait(std::future::pending::<()>().into_actor(self));
    }
}
