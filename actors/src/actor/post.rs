//! A child's place in its tenant: whoever fills it now, and what its lives have in common.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use actix::dev::ToEnvelope;
use actix::{Addr, Handler, Message};

use super::control::Control;
use super::registry::Shared;
use super::slot::Slot;
use super::supervise::{Child, keep};
use crate::model::{SupervisorEvent, What};

/// Holds the address of a tenant's actor; an actor without one ends.
pub(crate) struct Post<A: Child> {
    /// Made for the first life, and read without a lock.
    control: OnceLock<Arc<Control>>,
    addr: Mutex<Option<Addr<A>>>,
}

impl<A: Child> Default for Post<A> {
    fn default() -> Self {
        Self { control: OnceLock::new(), addr: Mutex::new(None) }
    }
}

impl<A: Child> Post<A> {
    /// Of an actor whose last life has this mark.
    pub(super) fn after(life: u64) -> Self {
        let control = OnceLock::new();
        if life != Control::NEVER {
            // It was empty.
            let _ = control.set(Arc::new(Control::after(life)));
        }
        Self { control, addr: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Addr<A>>> {
        self.addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The actor's outside, if it ever lived.
    pub(super) fn control(&self) -> Option<&Arc<Control>> {
        self.control.get()
    }

    /// Whether an actor fills it, be it one that waits for its restart.
    pub(super) fn is_filled(&self) -> bool {
        self.lock().is_some()
    }

    /// Lets an actor fill it, if none does, and tells it the hint, unless one is on its way to it. Does nothing while the
    /// tenant is held. Only on the thread that the tenant lives on.
    pub(super) fn hint<M>(
        &self,
        shared: &Arc<Shared>,
        slot: &Arc<Slot>,
        hint: Option<(M, &AtomicBool)>,
        make: impl FnOnce() -> A,
    ) where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message<Result = ()> + Send + 'static,
    {
        let mut post = self.lock();
        let is_new = post.is_none();
        if is_new && slot.is_held() {
            return;
        }
        let control = self.control.get_or_init(Arc::default);
        let addr = post.get_or_insert_with(|| keep(shared, Some(slot), control, make()));
        if let Some((message, is_hinted)) = hint
            && !is_hinted.swap(true, Ordering::AcqRel)
        {
            addr.do_send(message);
        }
        // Whoever observes the log may look at the tenant.
        drop(post);
        if is_new {
            // Hundreds of thousands may start at once, and have nothing to tell yet.
            let event = SupervisorEvent::new(Some(slot.id.clone()), A::ROLE, What::Started);
            shared.log(SupervisorEvent { epoch: control.epoch(), ..event });
        }
    }

    /// Tells the actor something, from any thread, unless a hint is on its way to it. False if there is no actor.
    pub(crate) fn tell<M>(&self, message: M, is_hinted: &AtomicBool) -> bool
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message<Result = ()> + Send + 'static,
    {
        let post = self.lock();
        let Some(addr) = &*post else { return false };
        if !is_hinted.swap(true, Ordering::AcqRel) {
            addr.do_send(message);
        }
        true
    }

    /// Ends the actor, from any thread. What is on its way to it are hints, which are forgotten with it. False if there was
    /// no actor.
    pub(super) fn end(&self, hints: &[&AtomicBool]) -> bool {
        let mut post = self.lock();
        let Some(addr) = post.take() else { return false };
        hints.iter().for_each(|hint| hint.store(false, Ordering::Release));
        if let Some(control) = self.control.get() {
            control.end();
        }
        drop(post);
        drop(addr);
        true
    }
}
