//! The working copy of the journal: what must survive the death of an actor lies here, outside of it.
//!
//! One [`Lane`] a tenant. Chunks go in at one end as they are accepted; cuts turn them into batches, in order; batches
//! leave at the other end with their one outcome. A message to an actor is only a hint to look here, so a message that
//! is lost, doubled or late changes nothing, and a fresh actor finds everything its predecessor knew. Each step is put on
//! record in the [journal](super::Journal) under the lane's lock, so that the record has the lane's order; where the journal is
//! durable, what the outside may see of a step waits until it is committed.
//!
//! A lane's counters stand under the same lock as its contents: a snapshot is one moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::storage::UndoList;
pub(crate) use super::work::{Failed, FailedAttempt, Left, Step, Work};
use super::work::{Waiting, damaged, of_made};
use crate::model::{
    Attempt, Batch, BatchId, Cause, Chunk, FlushReason, Opening, Part, Piece, Seq, TenantId, UnixMillis,
};
use crate::observe::{Backlog, BatchDetail, Counters, Flushed, OpenWindow, Outcome};
use crate::policy::{Holdup, Policy, RetryPolicy, Window, WindowPolicy};
use crate::port::fault_point::fault_point;
use crate::port::{
    ChunkPlace, DoorTotals, DynJournal, Entry, Position, RecoveredCut, RecoveredTenant, Stores, Uncompensated,
};

/// What the journal holds of one tenant.
pub(crate) struct Lane {
    tenant: TenantId,
    opening: Opening,
    /// The saga.
    stores: Arc<Stores>,
    /// Whether batches pass through hooks before their first attempt.
    has_hooks: bool,
    /// Where steps go on record; `None` where that would keep nothing.
    journal: Option<Arc<dyn DynJournal>>,
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
    batches: VecDeque<Waiting>,
    /// How many events they hold.
    cut: u64,
    /// Events that were given up at the door, whose dead letters are on their way.
    given_up_at_door: u64,
    /// Events that had their outcome at the door, as parts of the counters of all.
    discarded_at_door: u64,
    dead_lettered_at_door: u64,
    /// What the journal was last told of the door.
    door: DoorTotals,
    /// Events of an earlier process that are on record and not read yet.
    unread: u64,
    /// How many batches were cut.
    cuts: u64,
    /// Steps of the batches so far: an attempt begun, on record or ended, a batch prepared or settled.
    moved: u64,
    /// How often what lies uncut was changed otherwise than by accepting more: a window that missed one begins anew.
    turn: u64,
    /// The batch at the front, once work on it has begun.
    work: Option<Work>,
    /// The memory of the chunks that hold events in flight.
    bytes: usize,
    /// The list of the last batch, to be used again where nobody holds it any more.
    undo: Arc<UndoList>,
    /// Events of the batch that was split last, which were given up alone: its seq, and how many.
    poison: (u64, u32),
    /// Compensations that could not be done, each with when it is tried again.
    uncompensated: Vec<(Uncompensated, Instant)>,
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
    },
    /// The lane is full, and the chunk comes back.
    Full(Chunk),
}

/// Where a window over the lane stands: the chunk's seq, the events of it that it has seen, and whether that is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    seq: u64,
    offset: usize,
    turn: u64,
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
    unread: u64,
    pub(crate) batches: usize,
    pub(crate) bytes: usize,
    /// Of the batch at the front: how often it failed, whether it is parked, whether it is given up.
    pub(crate) front: Option<(u32, bool, bool)>,
    /// Compensations that could not be done.
    pub(crate) uncompensated: u64,
    /// Steps of the batches so far.
    pub(crate) moved: u64,
}

impl LaneSnapshot {
    /// Accepted events without an outcome.
    pub(crate) fn in_flight(&self) -> u64 {
        self.window + self.cut + self.given_up_at_door + self.unread
    }

    /// Whether there is nothing that the tenant's actors would have to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.window + self.unread == 0 && self.batches == 0
    }
}

/// The chunks and cuts that an earlier process left of a tenant, read back.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    /// By seq. What is missing is lost.
    pub(crate) chunks: BTreeMap<u64, Chunk>,
    pub(crate) cuts: Vec<(RecoveredCut, Option<Chunk>)>,
}

impl Lane {
    pub(crate) fn new(
        tenant: TenantId,
        opening: Opening,
        stores: Arc<Stores>,
        has_hooks: bool,
        journal: &Arc<dyn DynJournal>,
    ) -> Self {
        let state = State { first: 1, ..State::default() };
        let journal = journal.is_durable().then(|| journal.clone());
        Self { tenant, opening, stores, has_hooks, journal, state: Mutex::new(state) }
    }

    /// Takes over the numbers of an earlier process; its events are to be [read back](Self::read_back).
    pub(crate) fn restore(&self, left: &RecoveredTenant) {
        let mut state = self.lock();
        let RecoveredTenant { door, totals, .. } = left;
        state.counters = Counters {
            received: totals.accepted
                + door.discarded
                + door.dead_lettered
                + door.duplicate
                + door.muted
                + door.throttled
                + door.rejected
                + door.malformed,
            accepted: totals.accepted + door.discarded + door.dead_lettered,
            duplicate: door.duplicate,
            muted: door.muted,
            throttled: door.throttled,
            rejected: door.rejected,
            malformed: door.malformed,
            stored: totals.stored,
            dead_lettered: totals.dead_lettered + door.dead_lettered,
            discarded: totals.discarded + door.discarded,
            batches: totals.batches,
            ..Counters::default()
        };
        state.door = *door;
        state.discarded_at_door = door.discarded;
        state.dead_lettered_at_door = door.dead_lettered;
        let unsettled = totals.accepted - (totals.stored + totals.dead_lettered + totals.discarded);
        if left.is_settled() {
            // Lost with a damaged journal: the process that found out has told.
            state.counters.accepted -= unsettled;
            state.counters.received -= unsettled;
        } else {
            state.unread = unsettled;
        }
        state.first = left.next_chunk;
        state.cuts = left.next_batch.0 - 1;
        let now = Instant::now();
        state.uncompensated = left.uncompensated.iter().map(|owed| (owed.clone(), now)).collect();
    }

    /// Takes back the events of an earlier process, before any others: batches that it had cut under their old ids, with what
    /// is known of attempts to store them, and the rest as the open window. Returns how many events are lost, and the memory
    /// of the chunks that lie in batches.
    pub(crate) fn read_back(&self, back: ReadBack, settled: ChunkPlace, now: Instant) -> (u64, usize) {
        let mut state = self.lock();
        let (begin, next) = (settled.seq.max(1), state.first);
        let mut chunks = back.chunks;
        let mut lost_chunks = BTreeSet::new();
        let chunks: Vec<_> = (begin..next)
            .map(|seq| {
                chunks.remove(&seq).map(Arc::new).unwrap_or_else(|| {
                    lost_chunks.insert(seq);
                    Arc::new(Chunk::lost(self.tenant.clone()))
                })
            })
            .collect();
        let at = |seq: u64| chunks.get(usize::try_from(seq.checked_sub(begin)?).ok()?);
        let part = |seq: u64, from: ChunkPlace, until: ChunkPlace| {
            let chunk = at(seq)?;
            let begin = if seq == from.seq { from.index as usize } else { 0 };
            let end = if seq == until.seq { until.index as usize } else { chunk.len() };
            let range = begin.min(chunk.len())..end.min(chunk.len());
            // Between two chunks a place has two names: a part that only ends the chunk before would give its memory back again.
            (!range.is_empty()).then(|| Part { chunk: chunk.clone(), range })
        };
        state.bytes = chunks.iter().map(|chunk| chunk.footprint()).sum();
        let mut place = ChunkPlace { seq: begin, ..settled };
        for (nth, (cut, made)) in back.cuts.into_iter().enumerate() {
            let seqs = cut.from.seq..=cut.until.seq;
            let batch =
                Batch::new(cut.batch.clone(), seqs.clone().filter_map(|seq| part(seq, cut.from, cut.until)).collect());
            let is_whole = lost_chunks.range(seqs).next().is_none() && made.is_some() == cut.made.is_some();
            place = cut.until;
            state.cut += batch.len() as u64;
            let made = made.filter(|_| is_whole).map(|made| of_made(&cut, made));
            // Its first attempt went on record with the cut, and one that was not in front was never made.
            let intended = cut.progress.steps.first().map(|step| step.store.clone());
            let waiting = Waiting { batch, made, intended, recorded: None, is_whole };
            if nth == 0 && (cut.progress.was_tried() || cut.made.is_some()) {
                let work = Work::found(&cut, &waiting);
                state.work = Some(self.given_up_on_record(&cut, work));
            }
            state.batches.push_back(waiting);
        }
        if at(place.seq).is_some_and(|chunk| place.index as usize >= chunk.len()) {
            place = ChunkPlace { seq: place.seq + 1, index: 0 };
        }
        state.first = place.seq;
        state.cut_of_first = place.index as usize;
        state.turn += 1;
        for seq in place.seq..next {
            let Some(Part { chunk, range }) = part(seq, place, ChunkPlace { seq: next, index: 0 }) else { continue };
            state.uncut += range.len() as u64;
            state.uncut_bytes += chunk.body_bytes_of(range);
            state.chunks.push_back((chunk, now));
        }
        let lost = std::mem::take(&mut state.unread).saturating_sub(state.uncut + state.cut);
        state.counters.accepted -= lost;
        state.counters.received -= lost;
        (lost, state.batches.iter().map(|waiting| waiting.batch.footprint()).sum())
    }

    /// What is given up only now goes on record: the next process may be able to read what this one could not.
    fn given_up_on_record(&self, cut: &RecoveredCut, mut work: Work) -> Work {
        if let (Some(cause), None, true) = (&work.last_cause, &cut.progress.given_up, work.is_given_up()) {
            let (batch, cause) = (cut.batch.clone(), cause.clone());
            work.recording = self.record(|| Entry::GivenUp { batch, cause });
        }
        work
    }

    /// How much memory the lane holds.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Reads a word beside the lock, without taking it: brings the lane near the processor.
    pub(crate) fn near(&self) {
        std::hint::black_box(self.state.is_poisoned());
    }

    /// Puts the entry on record. Called under the lane's lock, so that the record has its order.
    fn record(&self, entry: impl FnOnce() -> Entry) -> Option<Position> {
        self.journal.as_ref().map(|journal| journal.append(&mut vec![entry()]))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts the chunk, or hands it back where the tenant has as much in flight as it may. An empty lane takes a
    /// chunk of any size. `frames` are counted under the same lock, whatever the answer.
    ///
    /// A tenant need not look at every chunk, but only at the one that may close its window, and when the window is due.
    ///
    /// Where it is to go on record, the entry is added to `record`, which the caller appends before the lane can be looked at.
    pub(crate) fn accept(
        &self,
        chunk: Chunk,
        at: Instant,
        policy: &Policy,
        record: &mut Vec<Entry>,
        frames: Frames,
    ) -> Arrival {
        let footprint = chunk.footprint();
        let mut state = self.lock();
        state.count(frames);
        if state.bytes > 0 && state.bytes + footprint > policy.overflow.max_in_flight {
            return Arrival::Full(chunk);
        }
        state.counters.accepted += chunk.len() as u64;
        state.uncut += chunk.len() as u64;
        state.uncut_bytes += chunk.body_bytes();
        state.bytes += footprint;
        let chunk = Arc::new(chunk);
        if self.journal.is_some() {
            let seq = state.first + state.chunks.len() as u64;
            record.push(Entry::Chunk { seq, chunk: chunk.clone() });
        }
        state.chunks.push_back((chunk, at));
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
        state.dead_lettered_at_door += 1;
        state.counters.dead_lettered += 1;
    }

    /// Frames came of which none became part of a chunk.
    pub(crate) fn count_frames(&self, frames: Frames) {
        self.lock().count(frames);
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
    pub(crate) fn next_step(&self, now: Instant) -> Step {
        let state = &mut *self.lock();
        if state.work.is_none() {
            match state.batches.front().cloned() {
                None => return Step::Rest,
                Some(front) if front.batch.is_empty() => return Step::Lost(front.batch.id().clone()),
                // A piece has been through the hooks with the whole.
                Some(front) if self.has_hooks && front.made.is_none() && front.batch.id().piece.is_whole() => {
                    return Step::Prepare(front.batch);
                }
                Some(front) => {
                    let mut work = Work::new(&front, state.fresh_undo());
                    if !front.is_whole && !front.batch.id().piece.is_whole() {
                        // What the hooks made of it is not there.
                        let (batch, cause) = (front.batch.id().clone(), damaged());
                        work.give_up(&cause);
                        work.recording = self.record(|| Entry::GivenUp { batch, cause });
                    }
                    state.work = Some(work);
                }
            }
        }
        let Some(work) = &mut state.work else { return Step::Rest };
        if work.is_given_up() {
            return Step::GivenUp;
        }
        if work.is_open() && work.recording.is_none() {
            return Step::Orphaned;
        }
        if !work.is_open() {
            if let Some(at) = work.not_before.filter(|at| now < *at) {
                return Step::Wait(at);
            }
            let Some((store, attempt)) = work.next(&self.stores) else { return Step::Finished };
            state.moved += 1;
            if !work.begin(&store, attempt, now) {
                let batch = work.batch.id().clone();
                work.recording = self.record(|| Entry::Intent { batch, store, attempt });
            }
        }
        if let (Some(position), Some(journal)) = (work.recording, &self.journal)
            && !journal.is_committed(position)
        {
            return Step::Record(position);
        }
        state.moved += u64::from(work.recording.take().is_some());
        let (Some(undo), Some(store)) = (work.undo(), work.store()) else { return Step::Rest };
        let undo = match &self.journal {
            Some(journal) => undo.on_record(work.batch.id(), journal),
            None => undo,
        };
        Step::Store(store.clone(), work.batch.clone(), undo)
    }

    /// The hooks have made `batch` of the batch at the front. A batch given up by a hook has a cause.
    pub(crate) fn prepared(&self, batch: Batch, given_up: Option<Cause>) {
        let mut state = self.lock();
        if state.work.is_some() {
            return;
        }
        let Some(front) = state.batches.front_mut().filter(|front| front.batch.id() == batch.id()) else { return };
        if let Some(cause) = &given_up {
            front.recorded = self.record(|| Entry::GivenUp { batch: batch.id().clone(), cause: cause.clone() });
        } else if let Some(journal) = &self.journal {
            let is_changed = !batch.is_same(&front.batch);
            let made = is_changed.then(|| batch.to_chunk()).flatten().map(Arc::new);
            let mut entries: Vec<_> =
                made.into_iter().map(|chunk| Entry::Made { batch: batch.id().clone(), chunk }).collect();
            if front.intended.is_none()
                && let Some(store) = self.stores.names().next().cloned()
            {
                front.intended = Some(store.clone());
                entries.push(Entry::Intent { batch: batch.id().clone(), store, attempt: Attempt(1) });
            }
            if !entries.is_empty() {
                front.recorded = Some(journal.append(&mut entries));
            }
        }
        front.made = Some(batch);
        let front = front.clone();
        let mut work = Work::new(&front, state.fresh_undo());
        given_up.iter().for_each(|cause| work.give_up(cause));
        state.work = Some(work);
        state.moved += 1;
    }

    /// The store of the open attempt has the batch. Whether another step follows; where none does, the batch is to be settled.
    pub(crate) fn stored(&self) -> bool {
        let state = &mut *self.lock();
        let Some(work) = &mut state.work else { return false };
        if !work.has_more(&self.stores) {
            return false;
        }
        state.moved += 1;
        if let Some(store) = work.done() {
            let batch = work.batch.id().clone();
            self.record(|| Entry::Done { batch, store });
        }
        true
    }

    /// The open attempt failed. `unavailable` spends none.
    pub(crate) fn failed(
        &self,
        policy: &RetryPolicy,
        failure: Failed,
        cause: Cause,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<FailedAttempt> {
        let state = &mut *self.lock();
        state.counters.attempts_failed += 1;
        let work = state.work.as_mut()?;
        let store = work.failed(&cause)?;
        state.moved += 1;
        let (batch, attempt) = (work.batch.id().clone(), work.attempt());
        work.parked = matches!(failure, Failed::Unavailable);
        work.woken = false;
        let next_after = work.next_after(policy, failure, now, rng);
        match next_after {
            Some(after) => {
                work.not_before = Some(now + after);
                self.record(|| Entry::Failed { batch, store: store.clone(), attempt });
            }
            None => {
                work.give_up(&cause);
                work.recording = self.record(|| Entry::GivenUp { batch, cause });
            }
        }
        Some(FailedAttempt { store, attempt, next_after })
    }

    /// The work on the front batch, and the batch as it was cut, if it was given up.
    pub(crate) fn given_up(&self) -> Option<(Work, Batch)> {
        let state = self.lock();
        let work = state.work.as_ref().filter(|work| work.is_given_up())?;
        Some((work.clone(), state.batches.front()?.batch.clone()))
    }

    /// The nth compensation of the batch that was given up is done, or goes on the list of those that could not be.
    pub(crate) fn compensated(&self, nth: u32, failed: Option<(Cause, UnixMillis)>) {
        let mut state = self.lock();
        let Some(work) = state.work.as_mut().filter(|work| work.is_given_up()) else { return };
        let batch = work.batch.id().clone();
        work.compensated(nth);
        let owed = failed.clone().and_then(|(cause, at)| work.progress().uncompensated(&batch, nth, cause, at));
        state.uncompensated.extend(owed.map(|owed| (owed, Instant::now())));
        self.record(|| Entry::Compensated { batch, nth, failed });
    }

    /// A batch that was given up and compensated becomes dead letters, which is not to be kept before this is committed: a later
    /// process must not come to another decision.
    pub(crate) fn condemn(&self) -> Option<Position> {
        let mut state = self.lock();
        let work = state.work.as_mut().filter(|work| work.is_given_up() && !work.is_condemned())?;
        let batch = work.batch.id().clone();
        let nth = u32::try_from(work.progress().compensations().len()).unwrap_or(u32::MAX);
        work.compensated(nth);
        self.record(|| Entry::Compensated { batch, nth, failed: None })
    }

    /// A batch that was given up and compensated goes through its saga once more, after a while.
    pub(crate) fn again(&self, policy: &RetryPolicy, now: Instant, rng: &mut fastrand::Rng) {
        let mut state = self.lock();
        let Some(work) = state.work.as_mut().filter(|work| work.is_given_up()) else { return };
        let batch = work.batch.id().clone();
        let rounds = work.again();
        work.not_before = Some(now + policy.wait(rounds, None, rng));
        work.recording = self.record(|| Entry::Again { batch });
    }

    /// A batch that was given up and compensated is two from here on, to find which of its events the store refuses. False where
    /// that is not to be done: `most` events of the whole were given up alone already.
    pub(crate) fn split(&self, most: u32) -> bool {
        let mut state = self.lock();
        let Some(work) = state.work.as_ref().filter(|work| work.is_given_up()) else { return false };
        let seq = work.batch.id().seq.0;
        let found = if state.poison.0 == seq { state.poison.1 } else { 0 };
        // On record the halves hold what is lost of it, too: they would be other ones for the next process.
        let Some(front) = state.batches.front().filter(|front| front.is_whole) else { return false };
        let first = front.batch.len() / 2;
        let (Some(halves), Some(made)) = (front.batch.split_at(first), work.batch.split_at(first)) else {
            return false;
        };
        if found >= most {
            return false;
        }
        let is_made = !work.batch.is_same(&front.batch);
        let batch = front.batch.id().clone();
        let intended = self.stores.names().next().cloned();
        let recorded = self.journal.as_ref().map(|journal| {
            let mut entries = vec![Entry::Split { batch, first: index(first) }];
            let pieces = made.iter().filter(|_| is_made);
            entries.extend(pieces.filter_map(|piece| {
                Some(Entry::Made { batch: piece.id().clone(), chunk: Arc::new(piece.to_chunk()?) })
            }));
            let batch = halves[0].id().clone();
            let intent = intended.clone().map(|store| Entry::Intent { batch, store, attempt: Attempt(1) });
            entries.extend(intent);
            journal.append(&mut entries)
        });
        state.batches.pop_front();
        state.work = None;
        let intents = [intended, None];
        for ((batch, made), intended) in halves.into_iter().zip(made).zip(intents).rev() {
            let made = is_made.then_some(made);
            state.batches.push_front(Waiting { batch, made, intended, recorded, is_whole: true });
        }
        fault_point("after-split");
        true
    }

    /// The compensation on the list that is to be tried first, and when.
    pub(crate) fn next_uncompensated(&self) -> Option<(Uncompensated, Instant)> {
        self.lock().uncompensated.iter().min_by_key(|(_, at)| *at).cloned()
    }

    /// Those on the list.
    pub(crate) fn uncompensated(&self) -> Vec<Uncompensated> {
        self.lock().uncompensated.iter().map(|(owed, _)| owed.clone()).collect()
    }

    /// One on the list was tried once more: it is done, or failed again and is tried again then.
    pub(crate) fn pursued(&self, owed: &Uncompensated, failed: Option<(Cause, UnixMillis, Instant)>) {
        let mut state = self.lock();
        let is_it = |other: &Uncompensated| (&other.batch, other.nth) == (&owed.batch, owed.nth);
        let Some(at) = state.uncompensated.iter().position(|(other, _)| is_it(other)) else { return };
        match failed {
            Some((cause, next_at, then)) => {
                let (owed, at) = &mut state.uncompensated[at];
                (owed.cause, owed.next_at, owed.tries, *at) = (cause, Some(next_at), owed.tries + 1, then);
            }
            None => {
                state.uncompensated.remove(at);
                self.record(|| Entry::Undone { batch: owed.batch.clone(), nth: owed.nth });
            }
        }
    }

    /// The name of the batch at the front.
    pub(crate) fn front_id(&self) -> Option<BatchId> {
        self.lock().batches.front().map(|front| front.batch.id().clone())
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
        !work.is_open() && work.not_before.take().is_some()
    }

    /// Whether an attempt is under way, or was when its writer died.
    pub(crate) fn is_attempt_open(&self) -> bool {
        self.lock().work.as_ref().is_some_and(Work::is_open)
    }

    /// The batch has its outcome and leaves the lane. `None` where it has left before.
    pub(crate) fn settle(&self, batch: &BatchId, outcome: Outcome) -> Option<Left> {
        let mut state = self.lock();
        let batch = state.batches.pop_front_if(|front| front.batch.id().place() == batch.place())?.batch;
        let work = state.work.take();
        state.moved += 1;
        let events = batch.len() as u64;
        self.record(|| Entry::Settled { batch: batch.id().clone(), outcome, events });
        self.tell_door(&mut state);
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
        let id = batch.id();
        let was_given_up = work.as_ref().is_some_and(Work::is_given_up);
        if was_given_up && id.piece != Piece::WHOLE && events == 1 {
            let found = if state.poison.0 == id.seq.0 { state.poison.1 } else { 0 };
            state.poison = (id.seq.0, found + 1);
        }
        let (attempts, was_parked) = work.as_ref().map_or((0, false), |work| (work.attempt().0, work.parked));
        let found_store_back = work.as_ref().is_some_and(|work| work.parked && !work.woken);
        let code = work.as_ref().and_then(|work| work.last_cause.as_ref()).map(|cause| cause.code);
        let numbered = batch.parts().iter().filter(|part| part.chunk.origin().is_some()).cloned().collect();
        // What is in the store is what the hooks made; what was given up is kept as it came.
        let batch = work.filter(|_| outcome == Outcome::Stored).map_or(batch, |work| work.batch);
        Some(Left { batch, attempts, was_parked, found_store_back, footprint, numbered, code })
    }

    /// How many steps the batches have made so far, and what they wait for now, if any waits.
    pub(crate) fn standing(&self, now: Instant) -> (u64, Option<Holdup>) {
        let state = self.lock();
        let is_committed = |position| self.journal.as_ref().is_none_or(|journal| journal.is_committed(position));
        let holdup = state.batches.front().map(|_| match &state.work {
            Some(work) if work.is_given_up() => Holdup::Compensation,
            Some(work) if work.parked => Holdup::Store,
            Some(work) if !work.is_open() && work.not_before.is_some_and(|at| now < at) => Holdup::Backoff,
            Some(work) if work.recording.is_some_and(|position| !is_committed(position)) => Holdup::Journal,
            _ => Holdup::Writer,
        });
        (state.moved, holdup)
    }

    pub(crate) fn snapshot(&self) -> LaneSnapshot {
        self.lock().snapshot()
    }

    /// All there is to tell of the lane, in one moment. `wall` says what the wall clock shows at an instant.
    pub(crate) fn detail(&self, policy: &Policy, wall: impl Fn(Instant) -> UnixMillis) -> LaneDetail {
        let state = self.lock();
        let window = OpenWindow {
            events: state.uncut,
            max_events: policy.window.max_events as u64,
            bytes: state.uncut_bytes as u64,
            max_bytes: policy.window.max_bytes as u64,
            due_at: state.due.filter(|_| state.uncut > 0).map(&wall),
            oldest_at: state.chunks.front().filter(|_| state.uncut > 0).map(|(chunk, _)| chunk.arrived()),
        };
        let backlog = Backlog {
            batches: state.batches.len() as u64,
            events: state.cut,
            bytes: state.batches.iter().map(|waiting| waiting.batch.body_bytes() as u64).sum(),
            oldest_at: state.batches.front().map(|front| front.batch.first_arrived()),
            unread: state.unread,
        };
        let batch = state.work.as_ref().map(|work| BatchDetail {
            id: work.batch.id().clone(),
            events: work.batch.len() as u64,
            bytes: work.batch.body_bytes() as u64,
            store: work.store().cloned(),
            attempt: work.attempt(),
            attempts_spent: work.retry.spent(),
            attempts_allowed: policy.retry.attempts,
            open_since: work.opened().map(&wall),
            next_attempt_at: work.not_before.filter(|_| !work.is_open() && !work.is_given_up()).map(&wall),
            is_parked: work.parked,
            is_given_up: work.is_given_up(),
            last_cause: work.last_cause.clone(),
            undo_steps: work.progress().undo.into_iter().rev().map(|(_, step)| step.name).collect(),
        });
        LaneDetail { snapshot: state.snapshot(), window, backlog, batch }
    }
}

/// A lane at one moment, in words.
pub(crate) struct LaneDetail {
    pub(crate) snapshot: LaneSnapshot,
    pub(crate) window: OpenWindow,
    pub(crate) backlog: Backlog,
    pub(crate) batch: Option<BatchDetail>,
}

/// A chunk holds fewer than 4 Gi events.
fn index(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl State {
    fn snapshot(&self) -> LaneSnapshot {
        LaneSnapshot {
            counters: self.counters,
            window: self.uncut,
            cut: self.cut,
            given_up_at_door: self.given_up_at_door,
            unread: self.unread,
            batches: self.batches.len(),
            bytes: self.bytes,
            front: self.work.as_ref().map(|work| (work.retry.spent(), work.parked, work.is_given_up())),
            uncompensated: self.uncompensated.len() as u64,
            moved: self.moved,
        }
    }

    fn count(&mut self, Frames { received, discarded }: Frames) {
        self.counters.received += received;
        self.counters.accepted += discarded;
        self.counters.discarded += discarded;
        self.discarded_at_door += discarded;
    }

    fn door_totals(&self) -> DoorTotals {
        let Counters { duplicate, muted, throttled, rejected, malformed, .. } = self.counters;
        let (discarded, dead_lettered) = (self.discarded_at_door, self.dead_lettered_at_door);
        DoorTotals { duplicate, muted, throttled, rejected, malformed, discarded, dead_lettered }
    }

    /// An empty list of undo steps.
    fn fresh_undo(&mut self) -> Arc<UndoList> {
        match Arc::get_mut(&mut self.undo) {
            Some(list) => list.clear(),
            None => self.undo = Arc::default(),
        }
        self.undo.clone()
    }

    /// Where a fresh window begins.
    fn uncut(&self) -> Cursor {
        Cursor { seq: self.first, offset: self.cut_of_first, turn: self.turn }
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
        // Another cut what this window had counted, or something was put before it.
        if cursor.turn != self.turn {
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
        cursor.turn = self.turn;
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
        let from = ChunkPlace { seq: self.first, index: index(self.cut_of_first) };
        let mut until = from;
        let mut wanted = events;
        while wanted > 0
            && let Some((chunk, at)) = self.chunks.pop_front()
        {
            let begin = self.cut_of_first;
            let to = chunk.len().min(begin + wanted);
            wanted -= to - begin;
            until = ChunkPlace { seq: self.first, index: index(to) };
            if to == chunk.len() {
                self.first += 1;
                self.cut_of_first = 0;
            } else {
                self.chunks.push_front((chunk.clone(), at));
                self.cut_of_first = to;
            }
            parts.push(Part { chunk, range: begin..to });
        }
        self.cuts += 1;
        self.turn += 1;
        let id = BatchId::new(lane.opening, lane.tenant.clone(), Seq(self.cuts));
        // Not before the hooks have been at it: a batch that was begun does not pass through them again.
        let intended = lane.stores.names().next().filter(|_| !lane.has_hooks).cloned();
        // What the batch holds, and that it is about to be stored, before the first attempt: in one write.
        let recorded = lane.journal.as_ref().map(|journal| {
            let cut = Entry::Cut { batch: id.clone(), from, until };
            let intent = intended.clone().map(|store| Entry::Intent { batch: id.clone(), store, attempt: Attempt(1) });
            journal.append(&mut [cut].into_iter().chain(intent).collect())
        });
        let batch = Batch::new(id, parts);
        self.uncut -= batch.len() as u64;
        self.uncut_bytes -= batch.body_bytes();
        self.cut += batch.len() as u64;
        self.counters.flushed(reason);
        told.cut_bytes += batch.footprint();
        told.flushed.push(Flushed { reason, events, lateness: lateness.unwrap_or_default() });
        self.batches.push_back(Waiting { batch, made: None, intended, recorded, is_whole: true });
        fault_point("after-cut");
    }
}
