//! The way into a store: the writers of all tenants that share it take turns, and only so many are in it at once.
//!
//! A turn is taken before each call of [`Storage::store`](crate::Storage::store), after the attempt is on record, and given back with
//! its answer, or kept for the tenant's next batch where that is due at once and nobody else is before it. Nothing else holds one:
//! not a backoff, not a parked lane, not an open breaker. Who must wait is told by a hint, as of batches.
//!
//! Gates and seats lie outside of the actors; the [`Turn`] that a writer holds gives back what it has when it is dropped, however its
//! writer ended. One seat has one turn at the most, whatever becomes of its writers, so that a tenant has one call at a time in a
//! store, and a store has as many waiting as it has tenants.
//!
//! A rollback and an undo step need no turn. They are few, and have a deadline of their own; a tenant that takes back what it did must
//! not wait behind those that do more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::message::BatchesWait;
use super::slot::Slot;
use crate::model::StoreName;
use crate::observe::{Meters, StoreMeter};
use crate::policy::{Concurrency, Period, Place, StoreLimits, Tag, Turns, Want};
use crate::port::{BoxStorage, Stores};

/// The gates of all stores in use.
#[derive(Default)]
pub(crate) struct Gates(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By the address of the store, which the gate keeps alive.
    gates: HashMap<usize, Weak<Gate>>,
    /// How many there may be before those that are gone are looked for.
    sweep_at: usize,
}

/// The gate of one store.
pub(crate) struct Gate {
    _store: BoxStorage,
    meter: Arc<StoreMeter>,
    /// The tenant that was first told that the store is not there, since somebody last stored in it; 0 for none.
    told_first: AtomicUsize,
    /// Another one was told so, too.
    is_down: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Of seats that have a turn.
    limit: Concurrency,
    turns: Turns<(Arc<Slot>, usize)>,
}

/// A tenant's place at one of its stores.
pub(crate) struct Seat {
    gate: Arc<Gate>,
    /// Locked after the gate, and one at a time.
    sitter: Mutex<Sitter>,
}

impl Seat {
    /// Reads a word of it, without the lock: brings it near the processor.
    pub(super) fn near(&self) {
        std::hint::black_box(self.sitter.is_poisoned());
    }
}

#[derive(Debug, Default)]
struct Sitter {
    tag: Tag,
    standing: Standing,
    /// When its turn began.
    began: Period,
    /// Of how many turns it is the last: one that is older has nothing to say.
    life: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    #[default]
    Away,
    Waits(Place),
    /// Its turn has come, and it was told.
    Called,
    /// It calls the store, or did just now.
    In,
}

/// A writer's turn at a store, or its wish for one.
pub(crate) struct Turn {
    slot: Arc<Slot>,
    /// Which store of the saga.
    nth: usize,
    life: u64,
    /// When its call began, and with how many bytes.
    call: Option<(Instant, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gates {
    /// A seat at each of the stores. Where those who share a store name different limits, the lowest counts.
    pub(crate) fn seats(&self, stores: &Stores, meters: &Meters) -> Box<[Seat]> {
        let known = &mut *lock(&self.0);
        let seat = |(name, (store, limits)): (&StoreName, (&BoxStorage, StoreLimits))| {
            let gate = known.gate(store, limits, || meters.store(name));
            Seat { gate, sitter: Mutex::default() }
        };
        stores.names().zip(stores.limited()).map(seat).collect()
    }

    /// Whether any store is there, for all that is known: whoever stores in it could move. What one tenant alone is told is no proof.
    pub(crate) fn any_up(&self) -> bool {
        let up = |gate: &Weak<Gate>| gate.upgrade().is_some_and(|gate| !gate.is_down.load(Ordering::Relaxed));
        lock(&self.0).gates.values().any(up)
    }
}

impl Known {
    fn gate(&mut self, store: &BoxStorage, limits: StoreLimits, meter: impl FnOnce() -> Arc<StoreMeter>) -> Arc<Gate> {
        let address = Arc::as_ptr(store).cast::<()>().addr();
        if let Some(gate) = self.gates.get(&address).and_then(Weak::upgrade) {
            lock(&gate.state).limit.lower_max(limits);
            return gate;
        }
        if self.gates.len() >= self.sweep_at {
            self.gates.retain(|_, gate| gate.strong_count() > 0);
            self.sweep_at = (self.gates.len() * 2).max(64);
        }
        let state = State { limit: Concurrency::new(limits), turns: Turns::default() };
        let gate = Arc::new(Gate {
            _store: store.clone(),
            meter: meter(),
            told_first: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        self.gates.insert(address, Arc::downgrade(&gate));
        gate
    }
}

impl State {
    /// Gives a turn to whoever waits, as far as there is room; whom to tell.
    fn call(&mut self, now: Instant) -> Vec<Arc<Slot>> {
        let mut called = vec![];
        while self.limit.has_room(now)
            && let Some(((slot, nth), tag)) = self.turns.next(now)
        {
            if let Some(seat) = slot.seats.get(nth) {
                let mut sitter = lock(&seat.sitter);
                (sitter.tag, sitter.standing, sitter.began) = (tag, Standing::Called, self.limit.began(now));
            }
            called.push(slot);
        }
        called
    }
}

/// Tells those whose turn has come, other than `but`.
fn tell(called: &[Arc<Slot>], but: Option<&Slot>) {
    for slot in called.iter().filter(|slot| but.is_none_or(|but| !std::ptr::eq(but, &***slot))) {
        slot.writer.tell(BatchesWait, &slot.batches_hinted);
    }
}

impl Slot {
    /// Whether its writer waits for its turn at a store that others are at.
    pub(super) fn waits_for_turn(&self) -> bool {
        self.seats.iter().any(|seat| matches!(lock(&seat.sitter).standing, Standing::Waits(_)))
    }
}

impl Turn {
    /// A wish for a turn at that store. What an earlier writer of the tenant has there goes over to this one.
    pub(super) fn wish(slot: &Arc<Slot>, nth: usize) -> Option<Self> {
        let mut sitter = lock(&slot.seats.get(nth)?.sitter);
        sitter.life += 1;
        Some(Self { slot: slot.clone(), nth, life: sitter.life, call: None })
    }

    /// The store has answered: that it is not there, or as one that is.
    pub(super) fn answered(&self, is_down: bool) {
        let Some(Gate { told_first, is_down: known, .. }) = self.seat().map(|seat| &*seat.gate) else { return };
        let first = told_first.load(Ordering::Relaxed);
        let me = Arc::as_ptr(&self.slot).addr();
        match (is_down, first) {
            (false, 0) => {}
            (false, _) => {
                told_first.store(0, Ordering::Relaxed);
                known.store(false, Ordering::Relaxed);
            }
            (true, 0) => told_first.store(me, Ordering::Relaxed),
            (true, first) if first == me => {}
            (true, _) => known.store(true, Ordering::Relaxed),
        }
    }

    /// Whether it is one at this store.
    pub(super) fn is_at(&self, store: &StoreName) -> bool {
        self.slot.stores.place(store) == Some(self.nth)
    }

    fn seat(&self) -> Option<&Seat> {
        self.slot.seats.get(self.nth)
    }

    /// Whether the writer may call the store now; else it is told when. With its turn from an earlier call it asks anew, before that
    /// turn goes to another.
    pub(super) fn take(&mut self, want: Want, now: Instant) -> bool {
        let is_in = self.enter(want, now);
        self.call = is_in.then_some((now, want.bytes));
        is_in
    }

    fn enter(&self, want: Want, now: Instant) -> bool {
        let Some(seat) = self.seat() else { return true };
        let state = &mut *lock(&seat.gate.state);
        let mut sitter = lock(&seat.sitter);
        match sitter.standing {
            Standing::Waits(_) => {
                drop(sitter);
                return Self::call(&self.slot, seat, state, now);
            }
            Standing::Called => sitter.standing = Standing::In,
            Standing::In | Standing::Away => {
                if sitter.standing == Standing::In {
                    state.limit.ended(sitter.began);
                }
                if state.turns.is_empty() && state.limit.has_room(now) {
                    sitter.tag = state.turns.pass(want, sitter.tag);
                    sitter.standing = Standing::In;
                    sitter.began = state.limit.began(now);
                } else {
                    let who = (self.slot.clone(), self.nth);
                    sitter.standing = Standing::Waits(state.turns.wait(want, sitter.tag, who, now));
                    drop(sitter);
                    return Self::call(&self.slot, seat, state, now);
                }
            }
        }
        true
    }

    /// Lets in whoever is next; whether this one is among them.
    fn call(slot: &Slot, seat: &Seat, state: &mut State, now: Instant) -> bool {
        let called = state.call(now);
        let mut sitter = lock(&seat.sitter);
        let is_in = sitter.standing == Standing::Called;
        if is_in {
            sitter.standing = Standing::In;
        }
        drop(sitter);
        tell(&called, Some(slot));
        is_in
    }

    /// When to ask again, while it waits: nobody tells when calls become overdue.
    pub(super) fn ask_after(&self) -> Option<Duration> {
        lock(&self.seat()?.gate.state).limit.ask_after()
    }

    /// The call is over, either way. Measured here, so that it is once a call.
    pub(super) fn ended(&self, is_stored: bool) {
        if let (Some((began, _)), Some(seat)) = (self.call, self.seat()) {
            let meter = &seat.gate.meter;
            let histogram = if is_stored { &meter.stored } else { &meter.failed };
            histogram.took(began.elapsed());
        }
    }

    /// How long ago its call began.
    pub(super) fn took(&self) -> Option<Duration> {
        self.call.map(|(began, _)| began.elapsed())
    }

    /// The call stored its batch, and took its time.
    pub(super) fn stored(&self, now: Instant) {
        if let Some((began, bytes)) = self.call {
            self.learn(now, |limit| limit.stored(now.saturating_duration_since(began), bytes, now));
        }
    }

    /// The store refused the call for now, and had not refused the one before.
    pub(super) fn overloaded(&self, now: Instant) {
        self.learn(now, |limit| limit.overloaded(now));
    }

    fn learn(&self, now: Instant, learn: impl FnOnce(&mut Concurrency)) {
        let Some(seat) = self.seat() else { return };
        let mut state = lock(&seat.gate.state);
        learn(&mut state.limit);
        let called = state.call(now);
        drop(state);
        tell(&called, None);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(seat) = self.seat() else { return };
        let mut state = lock(&seat.gate.state);
        let mut sitter = lock(&seat.sitter);
        if sitter.life != self.life {
            return;
        }
        match std::mem::take(&mut sitter.standing) {
            Standing::Away => return,
            Standing::Waits(place) => drop(state.turns.leave(place)),
            Standing::Called | Standing::In => state.limit.ended(sitter.began),
        }
        drop(sitter);
        // The clock is asked only where somebody waits.
        let called = if state.turns.is_empty() { vec![] } else { state.call(Instant::now()) };
        drop(state);
        tell(&called, None);
    }
}
