//! Keeps one actor alive: what actix's own supervisor does not do.
//!
//! actix ends an actor whose handler panics, with its queue and its address. This future holds the actor's context, polls it
//! behind `catch_unwind`, and after a panic or a stop builds the actor afresh on the same mailbox: addresses stay valid,
//! queued messages stay queued, timers and spawned futures of the dead one are gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker, ready};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Supervised};
use tokio::time::{Instant, Sleep};

use super::control::{Control, order, state};
use super::registry::Shared;
use super::slot::Slot;
use crate::model::{Cause, Code, Failure, Role, SupervisorEvent, What};
use crate::policy::{Decision, RestartPolicy, Restarts};
use crate::port::spawn;

/// An actor that can be kept alive. Its `restarting` must replace it by a fresh one.
pub(crate) trait Child: Actor<Context = Context<Self>> + Supervised {
    const ROLE: Role;

    /// What to call a panic of it, seeing what it was about.
    fn panic_code(slot: Option<&Slot>) -> Code {
        let _ = slot;
        Code::ActorPanic
    }
}

/// A supervised actor of the root, seen from outside.
pub(crate) struct Running<A: Actor> {
    pub(crate) addr: Addr<A>,
    pub(crate) control: Arc<Control>,
}

/// Starts an actor of the root and keeps it alive until it is ended or nobody can reach it any more. Only on the system's
/// thread.
pub(crate) fn supervise<A: Child>(shared: &Arc<Shared>, actor: A) -> Running<A> {
    let control = Arc::new(Control::default());
    shared.root.register(A::ROLE, &control);
    let addr = keep(shared, None, &control, actor);
    shared.log(SupervisorEvent::new(None, A::ROLE, What::Started));
    Running { addr, control }
}

/// Begins a life of the actor behind `control`, on this thread. It is for the caller to log it.
pub(super) fn keep<A: Child>(
    shared: &Arc<Shared>,
    slot: Option<&Arc<Slot>>,
    control: &Arc<Control>,
    actor: A,
) -> Addr<A> {
    let context = Context::new();
    let addr = context.address();
    spawn(Keeper {
        actor: Some(context.into_future(actor)),
        wait: None,
        restarts: Restarts::default(),
        rng: shared.seam.rng(),
        life: control.begin(),
        control: control.clone(),
        waker: None,
        slot: slot.cloned(),
        shared: shared.clone(),
    });
    addr
}

struct Keeper<A: Child> {
    /// `None` only while it is dropped.
    actor: Option<ContextFut<A, Context<A>>>,
    wait: Option<(u32, Pin<Box<Sleep>>)>,
    /// Those of an ingress, which fails for itself alone. The others count where they belong.
    restarts: Restarts,
    rng: fastrand::Rng,
    /// The mark of the life that it keeps.
    life: u64,
    control: Arc<Control>,
    /// The one that `control` has, to see without a lock whether it is still the right one.
    waker: Option<Waker>,
    slot: Option<Arc<Slot>>,
    shared: Arc<Shared>,
}

impl<A: Child> Future for Keeper<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            // Another life may have its own waker there by now.
            if !this.control.is(this.life) {
                return this.ended();
            }
            if !this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                this.waker = Some(cx.waker().clone());
                this.control.waker.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&this.waker);
                // Whoever ended this one before had nobody to wake.
                if !this.control.is(this.life) {
                    return this.ended();
                }
            }
            let mut panic_now = false;
            match this.control.take_order() {
                order::NONE => {}
                order::RESUME => {
                    if let Some((_, sleep)) = &mut this.wait {
                        sleep.as_mut().reset(Instant::now());
                        this.log(What::Resumed, None, None, None);
                    }
                }
                order::RESTART => {
                    // An older failure is not why this one ends.
                    drop(this.control.take_last_cause());
                    if !this.renew() || !this.running(None) {
                        return this.ended();
                    }
                    this.wait = None;
                }
                // One that waits for its restart has failed already.
                order::FAIL if this.wait.is_none() => {
                    let cause = this.control.take_last_cause();
                    let cause = cause.unwrap_or_else(|| Cause::new(Code::Hung, "it does not do its work"));
                    if !this.failed(cause) {
                        return Poll::Ready(());
                    }
                }
                order::FAIL => {}
                _ => panic_now = true,
            }
            if let Some((attempt, sleep)) = &mut this.wait {
                ready!(sleep.as_mut().poll(cx));
                let attempt = *attempt;
                this.wait = None;
                if !this.running(Some(attempt)) {
                    return this.ended();
                }
            }
            let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
            let polled = this.control.while_polling(|| {
                catch_unwind(AssertUnwindSafe(|| {
                    assert!(!panic_now, "a panic was asked for");
                    Pin::new(&mut *actor).poll(cx)
                }))
            });
            let cause = match polled {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => Cause::new(Code::ActorStopped, "it stopped by itself"),
                Err(panic) => Cause::from_panic(A::panic_code(this.slot.as_deref()), &*panic),
            };
            if !this.failed(cause) {
                return Poll::Ready(());
            }
        }
    }
}

impl<A: Child> Keeper<A> {
    /// A fresh actor on the old mailbox; false where nobody can reach it any more.
    fn renew(&mut self) -> bool {
        let Some(actor) = &mut self.actor else { return false };
        // This drops the old value and its futures, parts of which may be user code. Where one panics, the second call
        // finds it gone.
        let mut restart = || catch_unwind(AssertUnwindSafe(|| actor.restart()));
        restart().or_else(|_| restart()).unwrap_or(true)
    }

    /// Another ended this life. Whoever ends a tenant's actor says why.
    fn ended(&self) -> Poll<()> {
        if self.slot.is_none() {
            self.log(What::Stopped, None, None, None);
        }
        Poll::Ready(())
    }

    /// The actor ended with `cause`: decides what follows. False if this life is over.
    fn failed(&mut self, cause: Cause) -> bool {
        if !self.control.is(self.life) {
            // It was told to end, and its last address with it.
            let _ = self.ended();
            return false;
        }
        self.control.remember(cause.clone());
        if !self.renew() {
            // The last address is gone: this was the end, not a failure. Nobody is left to wonder.
            self.control.end();
            let _ = self.ended();
            return false;
        }
        self.shared.failed(&Failure {
            at: self.shared.seam.now(),
            tenant: self.slot.as_ref().map(|slot| slot.id.clone()),
            source: None,
            batch: None,
            cause: cause.clone(),
            events: 0,
        });
        let now = Instant::now();
        let (decision, policy) = self.decide(now);
        match (decision, &self.slot) {
            (Decision::Restart { attempt, after }, _) => {
                self.log(What::Failed, Some(cause.clone()), Some(attempt), None);
                self.pause(state::RESTARTING, What::BackingOff, cause, attempt, now, after)
            }
            (Decision::Quarantine { lasting }, Some(slot)) => {
                let attempt = policy.intensity + 1;
                self.log(What::Failed, Some(cause.clone()), Some(attempt), None);
                slot.quarantine(&self.shared, A::ROLE, cause, attempt, now + lasting);
                false
            }
            (Decision::Quarantine { lasting }, None) => {
                let attempt = policy.intensity + 1;
                self.log(What::Failed, Some(cause.clone()), Some(attempt), None);
                self.shared.root.failed(A::ROLE, &cause, self.shared.seam.now());
                self.pause(state::QUARANTINED, What::Quarantined, cause, attempt, now, lasting)
            }
        }
    }

    /// Counts the failure where it climbs to: a tenant's at its tenant, one of the root's at the root, an ingress's nowhere.
    fn decide(&mut self, now: Instant) -> (Decision, RestartPolicy) {
        if let Some(slot) = &self.slot {
            return (slot.child_failed(now, &mut self.rng), slot.policy().restart.clone());
        }
        let (policy, settled) =
            (RestartPolicy::default(), self.shared.settled.load(std::sync::atomic::Ordering::Acquire));
        let decision = match A::ROLE {
            Role::Ingress => self.restarts.failed(&policy, now, settled, &mut self.rng),
            _ => self.shared.root.child_failed(&policy, now, settled, &mut self.rng),
        };
        (decision, policy)
    }

    /// Does not poll the actor before `after` is over. False where another ended it meanwhile.
    fn pause(&mut self, state: u64, what: What, cause: Cause, attempt: u32, now: Instant, after: Duration) -> bool {
        if !self.control.turn(&mut self.life, false, state) {
            let _ = self.ended();
            return false;
        }
        self.log(what, Some(cause), Some(attempt), Some(after));
        self.wait = Some((attempt, Box::pin(tokio::time::sleep_until(now + after))));
        true
    }

    /// The next life begins. False where another ended this one meanwhile.
    fn running(&mut self, attempt: Option<u32>) -> bool {
        let goes_on = self.control.turn(&mut self.life, true, state::RUNNING);
        if goes_on {
            self.log(What::Restarted, None, attempt, None);
            if self.slot.is_none() {
                self.shared.root.runs_again(A::ROLE);
            }
        }
        goes_on
    }

    fn log(&self, what: What, cause: Option<Cause>, attempt: Option<u32>, after: Option<Duration>) {
        let event = match &self.slot {
            Some(slot) => slot.event(A::ROLE, what),
            None => SupervisorEvent { epoch: self.control.epoch(), ..SupervisorEvent::new(None, A::ROLE, what) },
        };
        self.shared.log(SupervisorEvent {
            cause,
            attempt,
            next_attempt_at: after.map(|after| self.shared.seam.now().plus(after)),
            ..event
        });
    }
}

impl<A: Child> Drop for Keeper<A> {
    fn drop(&mut self) {
        let mut actor = self.actor.take();
        // actix polls a context once more as it is dropped, and starts it first where it is a fresh one that still waited: a
        // tenant's actors leave nothing to be done then, and must not begin anything. In there nothing may take the thread down.
        if let Some(actor) = &mut actor
            && self.slot.is_some()
        {
            actor.ctx().terminate();
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(actor)));
    }
}
