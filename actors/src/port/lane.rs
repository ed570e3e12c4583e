//! The working copy of the journal: what must survive the death of an actor lies here, outside of it.
//!
//! One [`Lane`] a tenant. Chunks go in at one end as they are accepted; cuts turn them into batches, in order; batches
//! leave at the other end with their one outcome. A message to an actor is only a hint to look here, so a message that
//! is lost, doubled or late changes nothing, and a fresh actor finds everything its predecessor knew. Each step is put on
//! record in the [journal](super::Journal) under the lane's lock, so that the record has the lane's order; where the journal is
//! durable, what the outside may see of a step waits until it is committed.
//!
//! A lane's counters stand under the same lock as its contents: a snapshot is one moment.

mod breakers;
mod cut;
mod front;
mod over;
mod read_back;
mod rest;
mod shed;
mod spill;
mod told;
mod uncut;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Chunk, Opening, StoreName, TenantId};
use crate::observe::{Counters, SilenceDetail, Taps};
use crate::policy::{AckLevel, Breaker, Memory, Patience, Policy, Throttle, share};
use crate::port::silences::Listener;
use crate::port::work::Waiting;
pub(crate) use crate::port::work::{BreakerTurned, Failed, FailedAttempt, Left, Step, Stored, Work};
use crate::port::{DoorTotals, DynJournal, Entry, Position, Stores, Uncompensated};
pub(crate) use cut::{Advanced, Cursor};
pub(crate) use over::{Bound, Over};
pub(crate) use read_back::ReadBack;
pub(crate) use rest::Rest;
use shed::Shedding;
pub(crate) use spill::{Spilled, TakenBack, Unspilled, Wanted};
pub(crate) use told::{LaneDetail, LaneSnapshot};
use uncut::Uncut;

/// A due window is left to the clock, which cuts those of all tenants before it has any stored. Where that is so far behind it has more
/// to do than it can: then a tenant whose events still come does not wait for it, so that no more of them wait in memory.
const BEHIND: Duration = Duration::from_millis(20);

/// What the journal holds of one tenant.
#[repr(C)]
pub(crate) struct Lane {
    /// Where steps go on record; `None` where that would keep nothing.
    journal: Option<Arc<dyn DynJournal>>,
    /// How many lanes hold memory.
    holders: Arc<AtomicUsize>,
    state: Mutex<State>,
    tenant: TenantId,
    opening: Opening,
    /// The saga.
    stores: Arc<Stores>,
    /// Whether batches pass through hooks before their first attempt.
    has_hooks: bool,
}

/// With very many tenants nearly all of this is far from the processor. So what is looked at together lies together: first what the door
/// needs, then what a cut does, then what an outcome does, and what is seldom needed.
#[derive(Debug, Default)]
#[repr(C)]
struct State {
    /// Its tenant was passivated: nothing that comes counts here any more.
    gone: bool,
    /// Whether an alarm is set for the window.
    alarmed: bool,
    /// The rules as they are now.
    policy: Arc<Policy>,
    /// What of the tenant's rate is used up, once it was held to one.
    throttle: Option<Box<Throttle>>,
    /// Who listens whether frames come, if anybody does.
    listener: Option<Arc<Listener>>,
    /// The memory of the chunks that hold events in flight.
    bytes: usize,
    /// When the open window is due, as far as the lane knows.
    due: Option<Instant>,
    /// When a chunk was accepted last that the system did not make itself.
    last_accepted: Option<Instant>,
    /// Accepted chunks with events that are not cut yet, in the order of their seq.
    chunks: Uncut,
    /// The seq of `chunks[0]`.
    first: u64,
    /// What lies in the journal alone.
    spill: spill::Spill,
    counters: Counters,

    /// How many events of `chunks[0]` are cut.
    cut_of_first: usize,
    /// How often what lies uncut was changed otherwise than by accepting more: a window that missed one begins anew.
    turn: u64,
    /// How many batches were cut.
    cuts: u64,
    /// How many events the batches hold.
    cut: u64,
    /// Batches without an outcome, in order.
    batches: VecDeque<Waiting>,
    /// The batch at the front, once work on it has begun.
    work: Option<Box<Work>>,
    /// Steps of the batches so far: an attempt begun, on record or ended, a batch prepared or settled.
    moved: u64,
    /// Of stores at which the tenant's last call failed, and of no others.
    breakers: Vec<(StoreName, Breaker)>,
    /// Events are given up to make room.
    shedding: Option<Shedding>,

    /// How long it has held others, full and above its rate, once it has.
    patience: Option<Box<[Patience; 2]>>,
    /// When a chunk was accepted last that the system made itself.
    last_own: Option<Instant>,
    /// Events that were given up at the door, whose dead letters are on their way.
    given_up_at_door: u64,
    /// Events that had their outcome at the door, as parts of the counters of all.
    discarded_at_door: u64,
    dead_lettered_at_door: u64,
    /// What the journal was last told of the door.
    door: DoorTotals,
    /// Events of an earlier process that are on record and not read yet.
    unread: u64,
    /// Events of the batch that was split last, which were given up alone: its seq, and how many.
    poison: (u64, u32),
    /// Compensations that could not be done, each with when it is tried again.
    uncompensated: Vec<(Uncompensated, Instant)>,
    /// When events of it were given up last.
    given_up_at: Option<Instant>,
}

/// Frames of one tenant in one read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frames {
    /// All of them.
    pub(crate) received: u64,
    /// Those whose events were accepted, and dropped by a hook's rule, in the same breath.
    pub(crate) discarded: u64,
}

/// What arrived at the lane.
pub(crate) enum Arrival {
    /// It waits in the lane.
    Accepted {
        /// Whether it may close the window: then the tenant is to be told.
        wake: bool,
        /// When the window that it opened is due: then the tenant is to be told, unless it was told before.
        due: Option<Instant>,
        /// How safe its events must be at least before their sender is told.
        ack: AckLevel,
        /// What it takes in memory.
        footprint: usize,
        /// What was taken off it before, since it was above the tenant's rate.
        over: Option<Over>,
    },
    /// None of it may pass, by the tenant's rate.
    Over(Over),
    /// The lane is full, and the chunk comes back.
    Full(Box<Chunk>),
    /// The lane would hold more than its share of the memory of all: the chunk comes back, with how much may be in use before it.
    AboveShare(Box<Chunk>, usize),
    /// The tenant was passivated a moment ago: the chunk is for the lane that it has next. Nothing was counted.
    Gone(Box<Chunk>),
}

/// What goes on record of a read: appended with all of it, or each entry at once, in the order of its lane, where other threads
/// accept for the same tenants.
#[derive(Default)]
pub(crate) struct Record {
    entries: Vec<Entry>,
    at_once: bool,
    at: Position,
    /// Who looks on.
    taps: Option<Arc<Taps>>,
    /// The events are the system's own: no sign that the tenant is used.
    is_own: bool,
}

impl Record {
    pub(crate) fn new(at_once: bool, taps: Arc<Taps>) -> Self {
        Self { at_once, taps: Some(taps), ..Self::default() }
    }

    /// The same, of events that the system makes itself.
    pub(crate) fn own(self) -> Self {
        Self { is_own: true, ..self }
    }

    /// A chunk was accepted. Called under its lane's lock, so that who looks on sees its tenant's order.
    #[inline]
    fn tap(&self, chunk: &Chunk, at: Instant, seq: u64) {
        if let Some(taps) = self.taps.as_ref().filter(|taps| taps.any()) {
            taps.pass(seq, chunk, at);
        }
    }

    /// Adds the entry. Called under its lane's lock.
    fn push(&mut self, journal: &Arc<dyn DynJournal>, entry: Entry) {
        self.push_all(journal, [entry]);
    }

    /// Adds entries that are found together or not at all.
    fn push_all(&mut self, journal: &Arc<dyn DynJournal>, entries: impl IntoIterator<Item = Entry>) {
        self.entries.extend(entries);
        if self.at_once {
            self.at = journal.append(&mut self.entries);
        }
    }

    /// Adds what is no lane's.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries.extend(entries);
    }

    /// Appends what is left, and tells where the last of it is. Keeps its room.
    pub(crate) fn append(&mut self, journal: &Arc<dyn DynJournal>) -> Position {
        if !self.entries.is_empty() {
            self.at = journal.append(&mut self.entries);
        }
        std::mem::take(&mut self.at)
    }
}

impl Lane {
    pub(crate) fn new(
        tenant: TenantId,
        opening: Opening,
        stores: Arc<Stores>,
        policy: Arc<Policy>,
        has_hooks: bool,
        journal: &Arc<dyn DynJournal>,
        holders: Arc<AtomicUsize>,
    ) -> Self {
        let throttle = throttle(&policy);
        let state = State { policy, throttle, first: 1, ..State::default() };
        let journal = journal.is_durable().then(|| journal.clone());
        Self { tenant, opening, stores, has_hooks, journal, holders, state: Mutex::new(state) }
    }

    /// The rules as they are now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.lock().policy.clone()
    }

    /// Other rules from now on; gives those before. The open window is counted anew, by the new ones.
    pub(crate) fn set_policy(&self, policy: Arc<Policy>) -> Arc<Policy> {
        let state = &mut *self.lock();
        match &mut state.throttle {
            Some(throttle) => throttle.change(&policy.throttle, Instant::now()),
            None => state.throttle = throttle(&policy),
        }
        state.turn += 1;
        std::mem::replace(&mut state.policy, policy)
    }

    /// From now on `listener`, if any, is told of frames that come.
    pub(crate) fn listen(&self, listener: Option<Arc<Listener>>) {
        self.lock().listener = listener;
    }

    /// What is known of the tenant's silence, if somebody listens.
    pub(crate) fn silence(&self) -> Option<SilenceDetail> {
        let listener = self.lock().listener.clone();
        listener.map(|listener| listener.detail())
    }

    /// How much memory the lane holds.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Reads a word beside the lock, without taking it: brings the lane near the processor.
    pub(crate) fn near(&self) {
        std::hint::black_box(self.state.is_poisoned());
    }

    /// Counts the lane among those that hold memory, or no more, where it held `before` bytes.
    fn holds(&self, before: usize, now: usize) {
        match (before, now) {
            (0, 1..) => _ = self.holders.fetch_add(1, Ordering::Relaxed),
            (1.., 0) => _ = self.holders.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Puts the entry on record. Called under the lane's lock, so that the record has its order.
    fn record(&self, entry: impl FnOnce() -> Entry) -> Option<Position> {
        self.journal.as_ref().map(|journal| journal.append(&mut vec![entry()]))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts the chunk, as far as the tenant's rate lets it pass, or hands it back where the tenant has as much in flight as it
    /// may, or as is its share of `memory`. An empty lane takes a chunk of any size. `frames` are counted under the same lock,
    /// whatever the answer.
    ///
    /// A tenant need not look at every chunk, but only at the one that fills its window, and at one that comes when the window should
    /// have been closed for a while.
    ///
    /// Where it is to go on record, the entry is added to `record`, which the caller appends before any other thread can look at
    /// the lane.
    pub(crate) fn accept(
        &self,
        chunk: Chunk,
        at: Instant,
        record: &mut Record,
        frames: Frames,
        memory: Memory,
    ) -> Arrival {
        let footprint = chunk.footprint();
        let state = &mut *self.lock();
        if state.gone {
            return Arrival::Gone(chunk.into());
        }
        state.count(frames);
        let passes = state.may_pass(&chunk, at);
        if passes > 0 {
            let passing = chunk.footprint_of_front(passes);
            // Nothing overtakes what is spilled.
            let is_full = state.bytes > 0 && state.bytes + passing > state.policy.overflow.max_in_flight;
            if is_full || state.spill.chunks > 0 {
                return Arrival::Full(chunk.into());
            }
            let with_passing = Memory { used: memory.used.saturating_sub(footprint.saturating_sub(passing)), ..memory };
            if let Some(level) = state.above_share(passing, with_passing) {
                return Arrival::AboveShare(chunk.into(), level);
            }
        }
        let (chunk, over) = match state.pass(chunk, passes, at) {
            Ok(passed) => passed,
            Err(over) => return Arrival::Over(over),
        };
        let footprint = if over.is_some() { chunk.footprint() } else { footprint };
        state.counters.accepted += chunk.len() as u64;
        self.holds(state.bytes, state.bytes + footprint);
        let seq = state.next_chunk();
        let chunk = state.push(chunk, at, footprint);
        record.tap(chunk, at, seq);
        if let Some(journal) = &self.journal {
            record.push(journal, Entry::Chunk { seq, chunk: chunk.clone() });
        }
        *state.last(record.is_own) = Some(at);
        let policy = &*state.policy;
        let due = *state.due.get_or_insert(at + policy.window.max_age);
        let uncut = state.chunks.sums();
        let full = uncut.events >= policy.window.max_events || uncut.body_bytes >= policy.window.max_bytes;
        let alarm = !std::mem::replace(&mut state.alarmed, true);
        let wake = full || at >= due + BEHIND;
        Arrival::Accepted { wake, due: alarm.then_some(due), ack: policy.ack, footprint, over }
    }

    /// How much may be in use before a chunk of `footprint`, if the lane holds more than its share of `memory` with it.
    pub(crate) fn above_share(&self, footprint: usize, memory: Memory) -> Option<usize> {
        self.lock().above_share(footprint, memory)
    }

    /// An event was accepted and given up in the same breath. False, and nothing counted, where the tenant was passivated.
    pub(crate) fn give_up_at_door(&self) -> bool {
        let mut state = self.lock();
        if !state.gone {
            state.counters.received += 1;
            state.hear();
            state.counters.accepted += 1;
            state.given_up_at_door += 1;
        }
        !state.gone
    }

    /// The dead letter of such an event is kept.
    pub(crate) fn letter_kept(&self) {
        let mut state = self.lock();
        state.given_up_at_door -= 1;
        state.dead_lettered_at_door += 1;
        state.given_up_at = Some(Instant::now());
        state.counters.dead_lettered += 1;
    }

    /// Frames came of which none became part of a chunk. False, and nothing counted, where the tenant was passivated.
    pub(crate) fn count_frames(&self, frames: Frames) -> bool {
        let mut state = self.lock();
        if !state.gone {
            state.count(frames);
        }
        !state.gone
    }

    /// An event that the system made is received: no sign of the tenant's sender. False, and nothing counted, where the tenant was
    /// passivated.
    pub(crate) fn count_own(&self) -> bool {
        let mut state = self.lock();
        state.counters.received += u64::from(!state.gone);
        !state.gone
    }

    /// Puts on record what happened at the door, if anything did since it was last told.
    pub(crate) fn record_door(&self) {
        self.tell_door(&mut self.lock());
    }

    fn tell_door(&self, state: &mut State) {
        if self.journal.is_none() {
            return;
        }
        let totals = state.door_totals();
        if totals != state.door {
            state.door = totals;
            self.record(|| Entry::Door { tenant: self.tenant.clone(), totals });
        }
    }

    /// When a chunk was accepted last that the system did not make itself.
    pub(crate) fn last_accepted(&self) -> Option<Instant> {
        self.lock().last_accepted
    }

    /// The same, and when one was that the system did make itself.
    pub(crate) fn last_accepted_and_own(&self) -> (Option<Instant>, Option<Instant>) {
        let state = self.lock();
        (state.last_accepted, state.last_own)
    }

    /// Counts something that happened at the door or to the actors. False, and nothing counted, where the tenant was passivated.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Counters)) -> bool {
        let mut state = self.lock();
        if !state.gone {
            let before = state.counters.received;
            count(&mut state.counters);
            if state.counters.received > before {
                state.hear();
            }
        }
        !state.gone
    }
}

fn throttle(policy: &Policy) -> Option<Box<Throttle>> {
    policy.throttle.is_set().then(|| Box::new(Throttle::new(&policy.throttle, Instant::now())))
}

/// A chunk holds fewer than 4 Gi events.
fn index(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl State {
    /// Puts a chunk behind those that are not cut.
    fn push(&mut self, chunk: Chunk, at: Instant, footprint: usize) -> &Arc<Chunk> {
        self.bytes += footprint;
        self.chunks.push(chunk, at)
    }

    fn above_share(&self, footprint: usize, memory: Memory) -> Option<usize> {
        let (bytes, share) = (self.bytes + footprint, share(&self.policy));
        let is_above = self.bytes > 0 && bytes > memory.most(share);
        is_above.then(|| memory.level(bytes, share).saturating_sub(footprint))
    }

    fn count(&mut self, Frames { received, discarded }: Frames) {
        self.counters.received += received;
        if discarded > 0 {
            self.counters.accepted += discarded;
            self.counters.discarded += discarded;
            self.discarded_at_door += discarded;
        }
        if received > 0 {
            self.hear();
        }
    }

    /// When a chunk was accepted last, by who made its events.
    fn last(&mut self, is_own: bool) -> &mut Option<Instant> {
        if is_own { &mut self.last_own } else { &mut self.last_accepted }
    }

    /// Frames came.
    fn hear(&self) {
        if let Some(listener) = &self.listener {
            listener.heard();
        }
    }

    fn door_totals(&self) -> DoorTotals {
        let Counters { duplicate, muted, throttled, rejected, malformed, .. } = self.counters;
        let (discarded, dead_lettered) = (self.discarded_at_door, self.dead_lettered_at_door);
        DoorTotals { duplicate, muted, throttled, rejected, malformed, discarded, dead_lettered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChunkBuilder, UnixMillis};
    use crate::policy::WindowPolicy;
    use crate::port::{MemoryJournal, MemoryStore, Saga};

    const AGE: Duration = Duration::from_secs(1);

    /// Of windows of so many events.
    fn lane(max_events: usize) -> Lane {
        let window = WindowPolicy { max_events, max_age: AGE, ..WindowPolicy::default() };
        let stores = Saga::new().then(MemoryStore::new()).check().unwrap();
        let policy = Policy { window, ..Policy::default() };
        let journal: Arc<dyn DynJournal> = Arc::new(MemoryJournal::new());
        let tenant = "acme".parse().unwrap();
        Lane::new(tenant, Opening(1), stores.into(), policy.into(), false, &journal, Arc::default())
    }

    /// Whether the tenant is told of a chunk of one event that comes at `at`.
    fn wakes(lane: &Lane, at: Instant) -> bool {
        let mut builder = ChunkBuilder::default();
        builder.push(b"{}", None);
        let chunk = builder.build("acme".parse().unwrap(), UnixMillis(1)).unwrap();
        let memory = Memory { max: 1 << 20, used: chunk.footprint() };
        match lane.accept(chunk, at, &mut Record::default(), Frames::default(), memory) {
            Arrival::Accepted { wake, .. } => wake,
            _ => panic!("there is room"),
        }
    }

    #[test]
    fn a_due_window_is_left_to_the_clock_unless_that_is_behind_and_a_full_one_never() {
        let (began, millis) = (Instant::now(), Duration::from_millis);
        for chunks in [1, 100] {
            let due = lane(1_000);
            assert!((0..chunks).all(|_| !wakes(&due, began)));
            assert!(!wakes(&due, began + AGE + millis(19)), "{chunks}");
            assert!(wakes(&due, began + AGE + millis(20)), "{chunks}");
        }
        let full = lane(3);
        assert_eq!([0, 1, 2].map(|at| wakes(&full, began + millis(at))), [false, false, true]);
    }
}
