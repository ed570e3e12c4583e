//! Keeps one actor alive: what actix's own supervisor does not do.
//!
//! actix ends an actor whose handler panics, with its queue and its address. This future holds the actor's context, polls it
//! behind `catch_unwind`, and after a panic or a stop builds the actor afresh on the same mailbox: addresses stay valid,
//! queued messages stay queued, timers and spawned futures of the dead one are gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker, ready};

use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Context, Supervised};
use tokio::time::{Instant, Sleep};

use super::registry::Shared;
use super::slot::Slot;
use crate::model::{Cause, Code, Failure, Role, Status, SupervisorEvent, What};
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

/// A supervised actor, seen from outside.
pub(crate) struct Running<A: Actor> {
    pub(crate) addr: Addr<A>,
    pub(crate) control: Arc<Control>,
}

/// Orders to the future that keeps an actor alive, and what it says about it. Works from any thread and past a full
/// mailbox.
#[derive(Debug, Default)]
pub(crate) struct Control {
    order: AtomicU8,
    state: AtomicU8,
    epoch: AtomicU64,
    /// Who polls the actor. Kept when it is woken: it is the same for as long as the task lives.
    waker: Mutex<Option<Waker>>,
    last_cause: Mutex<Option<Cause>>,
}

mod order {
    pub(super) const NONE: u8 = 0;
    pub(super) const RESUME: u8 = 1;
    pub(super) const RESTART: u8 = 2;
    #[cfg(feature = "testing")]
    pub(super) const PANIC: u8 = 3;
    pub(super) const STOP: u8 = 4;
}

mod state {
    pub(super) const RUNNING: u8 = 0;
    pub(super) const RESTARTING: u8 = 1;
    pub(super) const QUARANTINED: u8 = 2;
    pub(super) const STOPPED: u8 = 3;
}

impl Control {
    fn give(&self, order: u8) {
        // A stop is never overruled.
        self.order.fetch_max(order, Ordering::AcqRel);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waker.inspect(Waker::wake_by_ref);
    }

    /// End the actor for good.
    pub(crate) fn stop(&self) {
        self.give(order::STOP);
    }

    /// Replace the actor by a fresh one now.
    pub(crate) fn restart(&self) {
        self.give(order::RESTART);
    }

    /// Lift a quarantine, or cut a backoff short.
    pub(crate) fn resume(&self) {
        self.give(order::RESUME);
    }

    /// Panic as if the actor's own code had.
    #[cfg(feature = "testing")]
    pub(crate) fn panic(&self) {
        self.give(order::PANIC);
    }

    fn take_order(&self) -> u8 {
        // Polled at every message, ordered about hardly ever.
        match self.order.load(Ordering::Acquire) {
            order::NONE => order::NONE,
            _ => self.order.swap(order::NONE, Ordering::AcqRel),
        }
    }

    /// What is wrong with the actor, if anything is.
    pub(crate) fn status(&self) -> Option<Status> {
        match self.state.load(Ordering::Acquire) {
            state::RUNNING => None,
            state::RESTARTING => Some(Status::Restarting),
            state::QUARANTINED => Some(Status::Quarantined),
            _ => Some(Status::Stopped),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }

    /// Why the actor failed last; for its successor, once.
    pub(crate) fn take_last_cause(&self) -> Option<Cause> {
        self.last_cause.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Starts the actor and keeps it alive until it is stopped or nobody can reach it any more. Only on the system's thread.
pub(crate) fn supervise<A: Child>(shared: &Arc<Shared>, slot: Option<&Arc<Slot>>, actor: A) -> Running<A> {
    let control = Arc::new(Control::default());
    let context = Context::new();
    let addr = context.address();
    let keeper = Keeper {
        actor: Some(context.into_future(actor)),
        wait: None,
        restarts: Restarts::default(),
        rng: shared.seam.rng(),
        control: control.clone(),
        waker: None,
        slot: slot.cloned(),
        shared: shared.clone(),
    };
    keeper.log(What::Started, None, None, None);
    spawn(keeper);
    Running { addr, control }
}

struct Keeper<A: Child> {
    /// `None` only while it is dropped.
    actor: Option<ContextFut<A, Context<A>>>,
    wait: Option<(u32, Pin<Box<Sleep>>)>,
    restarts: Restarts,
    rng: fastrand::Rng,
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
            if !this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                this.waker = Some(cx.waker().clone());
                this.control.waker.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&this.waker);
            }
            let mut panic_now = false;
            match this.control.take_order() {
                order::NONE => {}
                order::STOP => {
                    this.control.set(state::STOPPED);
                    this.log(What::Stopped, None, None, None);
                    return Poll::Ready(());
                }
                order::RESUME => {
                    if let Some((_, sleep)) = &mut this.wait {
                        sleep.as_mut().reset(Instant::now());
                        this.log(What::Resumed, None, None, None);
                    }
                }
                order::RESTART => {
                    // An older failure is not why this one ends.
                    drop(this.control.take_last_cause());
                    if !this.renew() {
                        return Poll::Ready(());
                    }
                    this.wait = None;
                    this.running(None);
                }
                _ => panic_now = true,
            }
            if let Some((attempt, sleep)) = &mut this.wait {
                ready!(sleep.as_mut().poll(cx));
                let attempt = *attempt;
                this.wait = None;
                this.running(Some(attempt));
            }
            let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
            let polled = catch_unwind(AssertUnwindSafe(|| {
                assert!(!panic_now, "a panic was asked for");
                Pin::new(&mut *actor).poll(cx)
            }));
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

    /// The actor ended with `cause`: decides what follows. False if it is to end for good.
    fn failed(&mut self, cause: Cause) -> bool {
        *self.control.last_cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.clone());
        if !self.renew() {
            // The last address is gone: this was the end, not a failure. Nobody is left to wonder.
            self.control.set(state::STOPPED);
            self.log(What::Stopped, None, None, None);
            return false;
        }
        let (policy, progress) = match &self.slot {
            Some(slot) => {
                slot.lane.count(|counters| counters.restarts += 1);
                (slot.policy.restart.clone(), slot.settled.load(Ordering::Acquire))
            }
            None => (RestartPolicy::default(), self.shared.settled.load(Ordering::Acquire)),
        };
        self.shared.failed(&Failure {
            at: self.shared.seam.now(),
            tenant: self.slot.as_ref().map(|slot| slot.id.clone()),
            source: None,
            batch: None,
            cause: cause.clone(),
            events: 0,
        });
        let now = Instant::now();
        let (state, what, attempt, after) = match self.restarts.failed(&policy, now, progress, &mut self.rng) {
            Decision::Restart { attempt, after } => (state::RESTARTING, What::BackingOff, attempt, after),
            Decision::Quarantine { lasting } => (state::QUARANTINED, What::Quarantined, policy.intensity + 1, lasting),
        };
        self.control.set(state);
        self.log(What::Failed, Some(cause.clone()), Some(attempt), None);
        self.log(what, Some(cause), Some(attempt), Some(after));
        self.wait = Some((attempt, Box::pin(tokio::time::sleep_until(now + after))));
        true
    }

    fn running(&mut self, attempt: Option<u32>) {
        self.control.epoch.fetch_add(1, Ordering::AcqRel);
        self.control.set(state::RUNNING);
        self.log(What::Restarted, None, attempt, None);
    }

    fn log(&self, what: What, cause: Option<Cause>, attempt: Option<u32>, after: Option<std::time::Duration>) {
        let event = match &self.slot {
            // Hundreds of thousands may start at once, and have nothing to tell yet.
            Some(slot) if what == What::Started => SupervisorEvent::new(Some(slot.id.clone()), A::ROLE, what),
            Some(slot) => slot.event(A::ROLE, what),
            None => SupervisorEvent::new(None, A::ROLE, what),
        };
        self.shared.log(SupervisorEvent {
            epoch: self.control.epoch(),
            cause,
            attempt,
            next_attempt_at: after.map(|after| self.shared.seam.now().plus(after)),
            ..event
        });
    }
}

impl<A: Child> Drop for Keeper<A> {
    fn drop(&mut self) {
        // actix polls a context once more as it is dropped; nothing in there may take the thread down.
        let actor = self.actor.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(actor)));
    }
}
