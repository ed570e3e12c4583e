//! Orders to the future that keeps an actor alive, and what it says about it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use crate::model::{Cause, Status};

/// The outside of a supervised actor, for all of its lives. Works from any thread and past a full mailbox.
///
/// A life begins when the actor is started or restarted and has a number, its epoch. Once a life is ended, the future that kept
/// it finds that it is not its own any more, and is gone, whatever was asked of it meanwhile and whoever lives by then.
#[derive(Debug)]
pub(crate) struct Control {
    /// The epoch, and in the lowest bits the state: they change together.
    life: AtomicU64,
    order: AtomicU8,
    /// Whether the actor's own code runs right now.
    polling: AtomicBool,
    /// Who polls the actor. Kept when it is woken: it is the same for as long as the task lives.
    pub(super) waker: Mutex<Option<Waker>>,
    last_cause: Mutex<Option<Cause>>,
}

pub(super) mod order {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const RESUME: u8 = 1;
    pub(crate) const RESTART: u8 = 2;
    /// It failed, by the word of somebody outside.
    pub(crate) const FAIL: u8 = 3;
    #[cfg(feature = "testing")]
    pub(crate) const PANIC: u8 = 4;
}

pub(super) mod state {
    pub(crate) const RUNNING: u64 = 0;
    pub(crate) const RESTARTING: u64 = 1;
    pub(crate) const QUARANTINED: u64 = 2;
    pub(crate) const ENDED: u64 = 3;
}

const STATE: u64 = 0b11;

impl Default for Control {
    /// Of an actor that was never started.
    fn default() -> Self {
        Self::after(Self::NEVER)
    }
}

impl Control {
    /// Before the first life: the epoch after it is 0.
    pub(super) const NEVER: u64 = u64::MAX;

    /// Of an actor whose last life has this mark.
    pub(super) fn after(life: u64) -> Self {
        Self {
            life: AtomicU64::new(life | state::ENDED),
            order: AtomicU8::new(order::NONE),
            polling: AtomicBool::new(false),
            waker: Mutex::default(),
            last_cause: Mutex::default(),
        }
    }

    /// The mark of its last life, which is over.
    pub(super) fn last_life(&self) -> u64 {
        self.life.load(Ordering::Acquire) | state::ENDED
    }

    /// How many lives came before the one with this mark.
    pub(super) fn epoch_of(life: u64) -> u64 {
        if life == Self::NEVER { 0 } else { life >> 2 }
    }

    fn give(&self, order: u8) {
        self.order.fetch_max(order, Ordering::AcqRel);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waker.inspect(Waker::wake_by_ref);
    }

    /// Replace the actor by a fresh one now.
    pub(crate) fn restart(&self) {
        self.give(order::RESTART);
    }

    /// Cut a backoff short.
    pub(crate) fn resume(&self) {
        self.give(order::RESUME);
    }

    /// The actor failed: it neither panics nor stops, and yet does not do its work.
    pub(crate) fn fail(&self, cause: Cause) {
        self.remember(cause);
        self.give(order::FAIL);
    }

    /// Panic as if the actor's own code had.
    #[cfg(feature = "testing")]
    pub(crate) fn panic(&self) {
        self.give(order::PANIC);
    }

    pub(super) fn take_order(&self) -> u8 {
        // Polled at every message, ordered about hardly ever.
        match self.order.load(Ordering::Acquire) {
            order::NONE => order::NONE,
            _ => self.order.swap(order::NONE, Ordering::AcqRel),
        }
    }

    /// A life begins; its mark. Not while another lasts.
    pub(super) fn begin(&self) -> u64 {
        self.order.store(order::NONE, Ordering::Release);
        let life = self.life.load(Ordering::Acquire) & !STATE;
        let life = life.wrapping_add(STATE + 1) | state::RUNNING;
        self.life.store(life, Ordering::Release);
        life
    }

    /// Whether the life with this mark lasts.
    pub(super) fn is(&self, life: u64) -> bool {
        self.life.load(Ordering::Acquire) == life
    }

    /// The life with this mark goes on in another state, or as the next one. False where it was ended meanwhile.
    pub(super) fn turn(&self, life: &mut u64, is_next: bool, state: u64) -> bool {
        let next = ((*life >> 2) + u64::from(is_next)) << 2 | state;
        let turned = self.life.compare_exchange(*life, next, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned {
            *life = next;
        }
        turned
    }

    /// Ends the actor's life.
    pub(crate) fn end(&self) {
        if self.life.fetch_or(state::ENDED, Ordering::AcqRel) & STATE != state::ENDED {
            self.wake();
        }
    }

    /// What is wrong with the actor, if anything is.
    pub(crate) fn status(&self) -> Option<Status> {
        match self.life.load(Ordering::Acquire) & STATE {
            state::RUNNING => None,
            state::RESTARTING => Some(Status::Restarting),
            state::QUARANTINED => Some(Status::Quarantined),
            _ => Some(Status::Stopped),
        }
    }

    /// How many lives the actor had before this one.
    pub(crate) fn epoch(&self) -> u64 {
        Self::epoch_of(self.life.load(Ordering::Acquire))
    }

    /// Marks that the actor's own code runs, for whoever looks for one that does not return. As cheap as two plain writes.
    pub(super) fn while_polling<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.polling.store(true, Ordering::Relaxed);
        let polled = poll();
        self.polling.store(false, Ordering::Relaxed);
        polled
    }

    pub(crate) fn is_polling(&self) -> bool {
        self.polling.load(Ordering::Relaxed)
    }

    pub(super) fn remember(&self, cause: Cause) {
        *self.last_cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    /// Why the actor failed last; for its successor, once.
    pub(crate) fn take_last_cause(&self) -> Option<Cause> {
        self.last_cause.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_was_ended_goes_on_in_no_state() {
        let control = Control::default();
        assert_eq!((control.status(), control.epoch()), (Some(Status::Stopped), 0));
        let mut life = control.begin();
        assert!(control.turn(&mut life, false, state::RESTARTING) && control.is(life));
        assert_eq!((control.status(), control.epoch()), (Some(Status::Restarting), 0));
        assert!(control.turn(&mut life, true, state::RUNNING) && control.is(life));
        assert_eq!((control.status(), control.epoch()), (None, 1));
        control.end();
        control.end();
        assert!(!control.is(life) && !control.turn(&mut life, true, state::RUNNING));
        assert_eq!((control.status(), control.epoch()), (Some(Status::Stopped), 1));
        let next = control.begin();
        assert!(control.is(next) && !control.is(life));
        assert_eq!((control.status(), control.epoch()), (None, 2));
    }

    #[test]
    fn what_was_asked_of_one_life_is_not_asked_of_the_next() {
        let control = Control::default();
        control.begin();
        control.restart();
        control.end();
        let life = control.begin();
        assert_eq!(control.take_order(), order::NONE);
        assert!(control.is(life));
        assert_eq!((control.status(), control.epoch()), (None, 1));
    }
}
