//! The journal in memory: what must survive the death of an actor lies here, outside of it.
//!
//! One [`Lane`] a tenant. Chunks go in at one end as they are accepted; cuts turn them into batches, in order; batches
//! leave at the other end with their one outcome. A message to an actor is only a hint to look here, so a message that
//! is lost, doubled or late changes nothing, and a fresh actor finds everything its predecessor knew.
//!
//! A lane's counters stand under the same lock as its contents: a snapshot is one moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::model::{Attempt, Batch, BatchId, Cause, Chunk, FlushReason, Opening, Part, Seq, TenantId};
use crate::observe::{Counters, Flushed, Outcome};
use crate::policy::{Policy, Retry, RetryPolicy, Window, WindowPolicy};
use crate::port::{Undo, UndoStep};

/// What the journal holds of one tenant.
#[derive(Debug)]
pub(crate) struct Lane {
    tenant: TenantId,
    opening: Opening,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    /// Accepted chunks with events that are not cut yet, in the order of their seq.
    chunks: VecDeque<(Arc<Chunk>, Instant)>,
    /// The seq of `chunks[0]`.
    first: u64,
    /// How many events of `chunks[0]` are cut.
    cut_of_first: usize,
    /// How many events are not cut, and the size of their bodies in bytes.
    uncut: u64,
    uncut_bytes: usize,
    /// When the open window is due, as far as the lane knows.
    due: Option<Instant>,
    /// Whether an alarm is set for the window.
    alarmed: bool,
    /// When a chunk was accepted last.
    last_accepted: Option<Instant>,
    /// Batches without an outcome, in order.
    batches: VecDeque<Batch>,
    /// How many events they hold.
    cut: u64,
    /// Events that were given up at the door, whose dead letters are on their way.
    given_up_at_door: u64,
    /// How many batches were cut.
    cuts: u64,
    /// The batch at the front, once work on it has begun.
    work: Option<Work>,
    /// The memory of the chunks that hold events in flight.
    bytes: usize,
    /// The list of the last batch, to be used again where nobody holds it any more.
    undo: Arc<Mutex<Vec<UndoStep>>>,
}

/// What arrived at the lane.
pub(crate) enum Arrival {
    /// It waits in the lane.
    Accepted {
        /// Whether it may close the window: then the tenant is to be told.
        wake: bool,
        /// When the window that it opened is due: then the tenant is to be told, unless it was told before.
        due: Option<Instant>,
    },
    /// The lane is full, and the chunk comes back.
    Full(Chunk),
}

/// Where a window over the lane stands: the chunk's seq, the events of it that it has seen, and after how many cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    seq: u64,
    offset: usize,
    cuts: u64,
}

/// The batch at the front of a lane.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// As the hooks made it; they run once, so that every attempt sees the same bytes.
    pub(crate) batch: Batch,
    pub(crate) retry: Retry,
    /// The last attempt begun; 0 before the first.
    pub(crate) attempt: Attempt,
    /// Whether that attempt has no outcome yet.
    open: bool,
    /// Not to be tried again before.
    not_before: Option<Instant>,
    /// Whether it waits for a store that is not there.
    pub(crate) parked: bool,
    /// Whether it was told that the store is back.
    woken: bool,
    /// Why the last attempt failed.
    pub(crate) last_cause: Option<Cause>,
    /// Whether it was given up and belongs to the aggregator now.
    given_up: bool,
    undo: Arc<Mutex<Vec<UndoStep>>>,
}

impl Work {
    /// `undo` is an empty list.
    fn new(batch: Batch, undo: Arc<Mutex<Vec<UndoStep>>>, given_up: Option<Cause>) -> Self {
        Self {
            batch,
            retry: Retry::default(),
            attempt: Attempt(0),
            open: false,
            not_before: None,
            parked: false,
            woken: false,
            given_up: given_up.is_some(),
            last_cause: given_up,
            undo,
        }
    }

    /// What must be undone if it is given up, oldest first.
    pub(crate) fn undo_steps(&self) -> Vec<UndoStep> {
        Undo::new(self.attempt, self.undo.clone()).steps()
    }
}

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing waits.
    Rest,
    /// A fresh batch: pass it through the hooks, then say [`Lane::prepared`].
    Prepare(Batch),
    /// Try again then.
    Wait(Instant),
    /// The attempt is on record: store it.
    Store(Batch, Undo),
    /// The last writer died in the middle of an attempt.
    Orphaned,
    /// The aggregator has it.
    GivenUp,
}

/// What a failed attempt leads to.
#[derive(Debug)]
pub(crate) enum Next {
    /// Another one.
    Again {
        /// The one that failed.
        attempt: Attempt,
        /// When.
        after: Duration,
    },
    /// None is left.
    GiveUp(Work),
}

/// A batch that has left its lane.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) batch: Batch,
    pub(crate) attempts: u32,
    pub(crate) was_parked: bool,
    /// Whether it is the first to find its store back.
    pub(crate) found_store_back: bool,
    /// The memory its events held.
    pub(crate) footprint: usize,
}

/// What a look at the lane came to.
#[derive(Debug, Default)]
pub(crate) struct Advanced {
    /// How many events the window took.
    pub(crate) events: usize,
    /// The windows that closed.
    pub(crate) flushed: SmallVec<[Flushed; 1]>,
    /// The memory of the events in them.
    pub(crate) cut_bytes: usize,
    /// When the open window is due, if no alarm is set for it.
    pub(crate) alarm: Option<Instant>,
}

/// A lane at one moment.
#[derive(Debug, Clone)]
pub(crate) struct LaneSnapshot {
    pub(crate) counters: Counters,
    pub(crate) window: u64,
    cut: u64,
    given_up_at_door: u64,
    pub(crate) batches: usize,
    pub(crate) bytes: usize,
    /// Of the batch at the front: how often it failed, whether it is parked, whether it is given up.
    pub(crate) front: Option<(u32, bool, bool)>,
}

impl LaneSnapshot {
    /// Accepted events without an outcome.
    pub(crate) fn in_flight(&self) -> u64 {
        self.window + self.cut + self.given_up_at_door
    }
}

impl Lane {
    pub(crate) fn new(tenant: TenantId, opening: Opening) -> Self {
        Self { tenant, opening, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a word beside the lock, without taking it: brings the lane near the processor.
    pub(crate) fn near(&self) {
        std::hint::black_box(self.state.is_poisoned());
    }

    /// Accepts the chunk, or hands it back where the tenant has as much in flight as it may. An empty lane takes a
    /// chunk of any size. `count` is told the counters under the same lock, whatever the answer.
    ///
    /// A tenant need not look at every chunk, but only at the one that may close its window, and when the window is due.
    pub(crate) fn accept(
        &self,
        chunk: Chunk,
        at: Instant,
        policy: &Policy,
        count: impl FnOnce(&mut Counters),
    ) -> Arrival {
        let footprint = chunk.footprint();
        let mut state = self.lock();
        count(&mut state.counters);
        if state.bytes > 0 && state.bytes + footprint > policy.overflow.max_in_flight {
            return Arrival::Full(chunk);
        }
        state.counters.accepted += chunk.len() as u64;
        state.uncut += chunk.len() as u64;
        state.uncut_bytes += chunk.body_bytes();
        state.bytes += footprint;
        state.chunks.push_back((Arc::new(chunk), at));
        state.last_accepted = Some(at);
        let due = *state.due.get_or_insert(at + policy.window.max_age);
        let full = state.uncut >= policy.window.max_events as u64 || state.uncut_bytes >= policy.window.max_bytes;
        let alarm = !std::mem::replace(&mut state.alarmed, true);
        Arrival::Accepted { wake: full || at >= due, due: alarm.then_some(due) }
    }

    /// An event was accepted and given up in the same breath.
    pub(crate) fn give_up_at_door(&self) {
        let mut state = self.lock();
        state.counters.received += 1;
        state.counters.accepted += 1;
        state.given_up_at_door += 1;
    }

    /// The dead letter of such an event is kept.
    pub(crate) fn letter_kept(&self) {
        let mut state = self.lock();
        state.given_up_at_door -= 1;
        state.counters.dead_lettered += 1;
    }

    /// The alarm for the window went off.
    pub(crate) fn alarm_rang(&self) {
        self.lock().alarmed = false;
    }

    /// The alarm for the window went off, and it is cut without its tenant: what a fresh tenant would do at once.
    pub(crate) fn cut_due(&self, policy: &WindowPolicy, now: Instant) -> Advanced {
        let mut state = self.lock();
        state.alarmed = false;
        let mut cursor = state.uncut();
        state.advance(self, &mut cursor, &mut Window::new(policy.clone()), now, None)
    }

    /// When a chunk was accepted last.
    pub(crate) fn last_accepted(&self) -> Option<Instant> {
        self.lock().last_accepted
    }

    /// Counts something that happened at the door or to the actors.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.lock().counters);
    }

    /// Where a fresh window begins: behind the last cut.
    pub(crate) fn uncut(&self) -> Cursor {
        self.lock().uncut()
    }

    /// Whether anything lies in the open window or came after it.
    pub(crate) fn has_uncut(&self) -> bool {
        self.lock().uncut > 0
    }

    /// Offers the window what came since `cursor`, and cuts a batch whenever it closes: because it is full, because its
    /// time has come, or because `flush` asks for it.
    pub(crate) fn advance(
        &self,
        cursor: &mut Cursor,
        window: &mut Window,
        now: Instant,
        flush: Option<FlushReason>,
    ) -> Advanced {
        self.lock().advance(self, cursor, window, now, flush)
    }

    /// What the writer is to do. Where that is to store, the attempt is on record once this returns.
    pub(crate) fn next_step(&self, now: Instant, with_hooks: bool) -> Step {
        let mut state = self.lock();
        if state.work.is_none() {
            match state.batches.front().cloned() {
                None => return Step::Rest,
                Some(front) if with_hooks => return Step::Prepare(front),
                Some(front) => state.work = Some(Work::new(front, state.fresh_undo(), None)),
            }
        }
        let Some(work) = &mut state.work else { return Step::Rest };
        if work.given_up {
            return Step::GivenUp;
        }
        if work.open {
            return Step::Orphaned;
        }
        match work.not_before {
            Some(at) if now < at => Step::Wait(at),
            _ => {
                work.attempt = Attempt(work.attempt.0 + 1);
                work.open = true;
                Step::Store(work.batch.clone(), Undo::new(work.attempt, work.undo.clone()))
            }
        }
    }

    /// The hooks have made `batch` of the batch at the front. A batch given up by a hook has a cause.
    pub(crate) fn prepared(&self, batch: Batch, given_up: Option<Cause>) {
        let mut state = self.lock();
        if state.batches.front().is_some_and(|front| front.id() == batch.id()) && state.work.is_none() {
            state.work = Some(Work::new(batch, state.fresh_undo(), given_up));
        }
    }

    /// The open attempt failed. `unavailable` spends none.
    pub(crate) fn failed(
        &self,
        policy: &RetryPolicy,
        failure: Failed,
        cause: Cause,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Next> {
        let mut state = self.lock();
        state.counters.attempts_failed += 1;
        let work = state.work.as_mut().filter(|work| work.open)?;
        work.open = false;
        work.last_cause = Some(cause);
        work.parked = matches!(failure, Failed::Unavailable);
        work.woken = false;
        let after = match failure {
            Failed::Transient { retry_after } => work.retry.failed(policy, retry_after, rng),
            Failed::Unavailable => Some(work.retry.unavailable(policy, rng)),
            Failed::Permanent => None,
        };
        Some(match after {
            Some(after) => {
                work.not_before = Some(now + after);
                Next::Again { attempt: work.attempt, after }
            }
            None => {
                work.given_up = true;
                Next::GiveUp(work.clone())
            }
        })
    }

    /// The work on the front batch, and the batch as it was cut, if it was given up.
    pub(crate) fn given_up(&self) -> Option<(Work, Batch)> {
        let state = self.lock();
        let work = state.work.as_ref().filter(|work| work.given_up)?;
        Some((work.clone(), state.batches.front()?.clone()))
    }

    /// The name of the batch at the front.
    pub(crate) fn front_id(&self) -> Option<BatchId> {
        self.lock().batches.front().map(|batch| batch.id().clone())
    }

    /// Its place in the tenant's order.
    pub(crate) fn front_seq(&self) -> Option<Seq> {
        self.lock().batches.front().map(|batch| batch.id().seq)
    }

    /// Whether the batch at the front waits for a store that is not there.
    pub(crate) fn is_parked(&self) -> bool {
        self.lock().work.as_ref().is_some_and(|work| work.parked)
    }

    /// The store is back: a batch that waits for it need not wait any longer. Whether one does.
    pub(crate) fn unpark(&self) -> bool {
        let mut state = self.lock();
        let Some(work) = state.work.as_mut().filter(|work| work.parked) else { return false };
        work.woken = true;
        !work.open && work.not_before.take().is_some()
    }

    /// Whether an attempt is under way, or was when its writer died.
    pub(crate) fn is_attempt_open(&self) -> bool {
        self.lock().work.as_ref().is_some_and(|work| work.open)
    }

    /// The batch has its outcome and leaves the lane. `None` where it has left before.
    pub(crate) fn settle(&self, seq: Seq, outcome: Outcome) -> Option<Left> {
        let mut state = self.lock();
        let batch = state.batches.pop_front_if(|front| front.id().seq == seq)?;
        let work = state.work.take();
        let events = batch.len() as u64;
        let footprint = batch.footprint();
        state.cut -= events;
        state.bytes -= footprint;
        let counters = &mut state.counters;
        match outcome {
            Outcome::Stored => {
                counters.stored += events;
                counters.batches += 1;
            }
            Outcome::DeadLettered => counters.dead_lettered += events,
            Outcome::Discarded => counters.discarded += events,
        }
        let (attempts, was_parked) = work.as_ref().map_or((0, false), |work| (work.attempt.0, work.parked));
        let found_store_back = work.as_ref().is_some_and(|work| work.parked && !work.woken);
        // What is in the store is what the hooks made; what was given up is kept as it came.
        let batch = work.filter(|_| outcome == Outcome::Stored).map_or(batch, |work| work.batch);
        Some(Left { batch, attempts, was_parked, found_store_back, footprint })
    }

    pub(crate) fn snapshot(&self) -> LaneSnapshot {
        let state = self.lock();
        LaneSnapshot {
            counters: state.counters,
            window: state.uncut,
            cut: state.cut,
            given_up_at_door: state.given_up_at_door,
            batches: state.batches.len(),
            bytes: state.bytes,
            front: state.work.as_ref().map(|work| (work.retry.spent(), work.parked, work.given_up)),
        }
    }
}

/// How an attempt failed, as far as the next one is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failed {
    Transient { retry_after: Option<Duration> },
    Unavailable,
    Permanent,
}

impl State {
    /// An empty list of undo steps.
    fn fresh_undo(&mut self) -> Arc<Mutex<Vec<UndoStep>>> {
        match Arc::get_mut(&mut self.undo) {
            Some(steps) => steps.get_mut().unwrap_or_else(PoisonError::into_inner).clear(),
            None => self.undo = Arc::default(),
        }
        self.undo.clone()
    }

    /// Where a fresh window begins.
    fn uncut(&self) -> Cursor {
        Cursor { seq: self.first, offset: self.cut_of_first, cuts: self.cuts }
    }

    /// See [`Lane::advance`].
    fn advance(
        &mut self,
        lane: &Lane,
        cursor: &mut Cursor,
        window: &mut Window,
        now: Instant,
        flush: Option<FlushReason>,
    ) -> Advanced {
        // Another cut what this window had counted.
        if cursor.cuts != self.cuts {
            *cursor = self.uncut();
            window.clear();
        }
        let mut advanced = Advanced::default();
        while let Some(index) = cursor.seq.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
            && let Some((_, at)) = self.chunks.get(index)
        {
            // By the time it was accepted: what came before the deadline belongs to the window, however late this look is.
            if window.is_due(*at) {
                self.close(lane, window, now, FlushReason::Age, &mut advanced);
                continue;
            }
            let (chunk, at) = &self.chunks[index];
            let (from, len) = (cursor.offset, chunk.len());
            let (taken, full) = window.push(len - from, |n| chunk.body_bytes_of(from..from + n), *at);
            advanced.events += taken;
            *cursor = match from + taken {
                seen if seen == len => Cursor { seq: cursor.seq + 1, offset: 0, ..*cursor },
                seen => Cursor { offset: seen, ..*cursor },
            };
            if let Some(reason) = full {
                self.close(lane, window, now, reason, &mut advanced);
            }
        }
        if window.is_due(now) {
            self.close(lane, window, now, FlushReason::Age, &mut advanced);
        } else if let Some(reason) = flush {
            self.close(lane, window, now, reason, &mut advanced);
        }
        cursor.cuts = self.cuts;
        self.due = window.deadline();
        if let Some(due) = self.due
            && !std::mem::replace(&mut self.alarmed, true)
        {
            advanced.alarm = Some(due);
        }
        advanced
    }

    /// Cuts what the window had counted into a batch.
    fn close(&mut self, lane: &Lane, window: &mut Window, now: Instant, reason: FlushReason, told: &mut Advanced) {
        let lateness = window.deadline().map(|deadline| now.saturating_duration_since(deadline));
        let Some(events) = window.close() else { return };
        let mut parts = Vec::with_capacity(self.chunks.len().min(events));
        let mut wanted = events;
        while wanted > 0
            && let Some((chunk, at)) = self.chunks.pop_front()
        {
            let from = self.cut_of_first;
            let to = chunk.len().min(from + wanted);
            wanted -= to - from;
            if to == chunk.len() {
                self.first += 1;
                self.cut_of_first = 0;
            } else {
                self.chunks.push_front((chunk.clone(), at));
                self.cut_of_first = to;
            }
            parts.push(Part { chunk, range: from..to });
        }
        self.cuts += 1;
        let id = BatchId { opening: lane.opening, tenant: lane.tenant.clone(), seq: Seq(self.cuts) };
        let batch = Batch::new(id, parts);
        self.uncut -= batch.len() as u64;
        self.uncut_bytes -= batch.body_bytes();
        self.cut += batch.len() as u64;
        self.counters.flushed(reason);
        told.cut_bytes += batch.footprint();
        told.flushed.push(Flushed { reason, events, lateness: lateness.unwrap_or_default() });
        self.batches.push_back(batch);
    }
}
