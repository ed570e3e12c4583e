//! The storage child: stores a tenant's batches in order, one at a time, and tries again by policy. What it does without waiting are
//! [steps](super::steps).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use tokio::time::Instant;

use super::alarms::Alarm;
use super::gate::Turn;
use super::letters::describe;
use super::message::{AttemptDue, Attempted, BatchesWait, GaveUp};
use super::registry::Shared;
use super::slot::Slot;
use super::steps::{Attempt, Halt, Steps};
use super::supervise::Child;
use crate::model::{Cause, Code, Failure, Role, SupervisorEvent, What};
use crate::port::StorageError;
use crate::port::lane::{BreakerTurned, Failed, FailedAttempt};

pub(crate) struct Writer {
    steps: Steps,
    rng: fastrand::Rng,
    /// Whether a store call is under way, or its record.
    storing: bool,
    /// When a timer was last set for. A timer that is not wanted any more is let go off and not cancelled: a context forgets the
    /// numbers of its futures when it is restarted, but not which of them it was to cancel.
    timer: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self { rng: shared.seam.rng(), steps: Steps::new(slot, shared), storing: false, timer: None }
    }

    /// Does what the lane says is next, until something has to be waited for. A turn is kept for nothing but a store.
    fn step(&mut self, ctx: &mut Context<Self>) {
        let handed_over = self.steps.slot.handed_over().take();
        if let Some(handover) = handed_over {
            let (attempt, turn) = *handover;
            self.steps.turn = turn;
            self.attempt(attempt, ctx);
        }
        if !self.go_on(ctx) {
            self.steps.turn = None;
        }
    }

    /// Whether a store is being called, or its turn waited for.
    fn go_on(&mut self, ctx: &mut Context<Self>) -> bool {
        while !self.storing {
            if self.steps.slot.is_to_move() && !self.steps.slot.lane.is_attempt_open() {
                self.steps.shared.alarms.set(Instant::now(), &self.steps.slot, Alarm::Move);
                return false;
            }
            match self.steps.go_on() {
                Halt::Rest => return false,
                Halt::GivenUp => {
                    self.gave_up();
                    return false;
                }
                Halt::Turn => {
                    self.ask_again(ctx);
                    return true;
                }
                Halt::Until(until) => {
                    if self.timer.replace(until) != Some(until) {
                        ctx.notify_later(AttemptDue, until.saturating_duration_since(Instant::now()));
                    }
                    return false;
                }
                Halt::Record(position) => {
                    self.storing = true;
                    let journal = self.steps.shared.journal.clone();
                    let committed = async move { journal.committed(position).await };
                    ctx.spawn(committed.into_actor(self).map(|(), writer, ctx| {
                        writer.storing = false;
                        writer.step(ctx);
                    }));
                    return false;
                }
                Halt::Orphaned => self.orphaned(),
                Halt::Attempt(attempt) => self.attempt(attempt, ctx),
            }
        }
        true
    }

    /// Asks for its turn again after a while, if it was not told until then.
    fn ask_again(&mut self, ctx: &mut Context<Self>) {
        let after = self.steps.turn.as_ref().and_then(Turn::ask_after);
        if let (None, Some(after)) = (self.timer, after) {
            self.timer = Some(Instant::now() + after);
            ctx.notify_later(AttemptDue, after);
        }
    }

    /// An attempt did not store its batch at once.
    fn attempt(&mut self, attempt: Attempt, ctx: &mut Context<Self>) {
        match attempt {
            Attempt::Failed(error) => self.attempted(Some(Err(error))),
            Attempt::Open(attempt) => {
                self.storing = true;
                let attempt = async move { attempt.await.ok() };
                ctx.spawn(attempt.into_actor(self).map(|answer, writer, ctx| writer.handle(Attempted(answer), ctx)));
            }
        }
    }

    /// The open attempt has its answer; `None` is a timeout.
    fn attempted(&mut self, answer: Option<Result<(), StorageError>>) {
        match answer {
            Some(Ok(())) => self.steps.stored(),
            Some(Err(error)) => {
                if let Some(turn) = &self.steps.turn {
                    turn.answered(matches!(error, StorageError::Unavailable { .. }));
                }
                let (failed, code) = match &error {
                    StorageError::Transient { retry_after, .. } => {
                        (Failed::Transient { retry_after: *retry_after }, Code::StoreTransient)
                    }
                    StorageError::Permanent { .. } => (Failed::Permanent, Code::StorePermanent),
                    StorageError::Unavailable { retry_after, .. } => {
                        (Failed::Unavailable { retry_after: *retry_after }, Code::StoreUnavailable)
                    }
                };
                self.failed(failed, Cause::new(code, describe(&error)), What::Failed);
            }
            None => {
                let limit = humantime::format_duration(self.steps.slot.policy().retry.attempt_timeout);
                let detail = format!("the store did not answer within {limit} (retry.attempt_timeout)");
                let timeout = Cause::new(Code::StoreTimeout, detail);
                self.failed(Failed::Transient { retry_after: None }, timeout, What::Failed);
            }
        }
    }

    /// The predecessor died in the middle of an attempt: whether it took effect is not known, and the same batch is sent
    /// again under the same id.
    fn orphaned(&mut self) {
        let cause =
            self.steps.slot.writer_cause().unwrap_or_else(|| {
                Cause::new(Code::ActorStopped, "the writer was restarted in the middle of an attempt")
            });
        self.failed(Failed::Transient { retry_after: None }, cause, What::Ambiguous);
    }

    /// The open attempt failed. `what` it is in the log: whoever ended a predecessor has told of its failure.
    fn failed(&mut self, failed: Failed, cause: Cause, what: What) {
        if let Some(turn) = &self.steps.turn {
            turn.ended(false);
        }
        self.steps.observe_attempt(Some(cause.code));
        let was_parked = self.steps.slot.lane.is_parked();
        let next = self.steps.slot.lane.failed(failed, cause.clone(), Instant::now(), &mut self.rng);
        let Some(FailedAttempt { store, attempt, next_after, in_a_row, breaker }) = next else { return };
        // By its own word. What hangs or panics does not tell that there are too many calls.
        if cause.code == Code::StoreTransient
            && in_a_row == 1
            && let Some(turn) = &self.steps.turn
        {
            turn.overloaded(Instant::now());
        }
        self.steps.slot.recovered();
        let batch = self.steps.slot.lane.front_id();
        self.steps
            .shared
            .failed(&Failure { batch: batch.clone(), ..self.steps.slot.failure(&self.steps.shared, cause.clone(), 0) });
        if was_parked && !matches!(failed, Failed::Unavailable { .. }) {
            // It fails in another way now, so it is there.
            self.steps.shared.log(self.steps.slot.event(Role::Writer, What::Unparked));
        }
        let event = match (next_after, failed) {
            // Told once an outage, not once a probe.
            (Some(_), Failed::Unavailable { .. }) if was_parked => None,
            (Some(_), Failed::Unavailable { .. }) => Some(self.steps.slot.event(Role::Writer, What::Parked)),
            _ => Some(self.steps.slot.event(Role::Writer, what)),
        };
        if let Some(event) = event {
            let next_attempt_at = next_after.map(|after| self.steps.shared.seam.now().plus(after));
            let (store, cause) = (Some(store.clone()), Some(cause.clone()));
            let attempt = Some(attempt.0);
            self.steps.shared.log(SupervisorEvent { batch, store, cause, attempt, next_attempt_at, ..event });
        }
        match breaker {
            Some(BreakerTurned::Opened { until }) => {
                self.steps.breaker(What::BreakerOpened, store, Some((cause, in_a_row, until)))
            }
            Some(BreakerTurned::Closed) => self.steps.breaker(What::BreakerClosed, store, None),
            None => {}
        }
    }

    /// The batch belongs to the aggregator, which tells this writer when it is settled. One that knows already does nothing.
    fn gave_up(&self) {
        if let Some(aggregator) = self.steps.shared.aggregator() {
            aggregator.do_send(GaveUp(self.steps.slot.clone()));
        }
    }
}

impl Actor for Writer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The hint may be what a dead predecessor died of.
        self.steps.slot.batches_hinted.store(false, Ordering::Release);
        if self.steps.slot.handed_over().is_none() {
            self.steps.slot.lane.taken_over();
        }
        self.step(ctx);
    }
}

impl Supervised for Writer {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.steps.slot.clone(), self.steps.shared.clone());
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
        self.steps.shared.panic_points.pass("writer/BatchesWait", Some(&self.steps.slot.id));
        self.steps.slot.batches_hinted.store(false, Ordering::Release);
        self.step(ctx);
    }
}

impl Handler<AttemptDue> for Writer {
    type Result = ();

    fn handle(&mut self, _: AttemptDue, ctx: &mut Self::Context) {
        self.steps.shared.panic_points.pass("writer/AttemptDue", Some(&self.steps.slot.id));
        self.timer = None;
        self.step(ctx);
    }
}

impl Handler<Attempted> for Writer {
    type Result = ();

    fn handle(&mut self, Attempted(answer): Attempted, ctx: &mut Self::Context) {
        self.steps.shared.panic_points.pass("writer/Attempted", Some(&self.steps.slot.id));
        self.storing = false;
        if let (Some(Ok(())), Some(turn)) = (&answer, &self.steps.turn) {
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
