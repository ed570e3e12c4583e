//! The batch at the front of a lane: attempts, compensations, its outcome.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Lane, State, index};
use crate::model::{Attempt, Batch, BatchId, Cause, Piece, StoreName, UnixMillis};
use crate::observe::Outcome;
use crate::policy::Want;
use crate::port::fault_point::fault_point;
use crate::port::work::{Failed, FailedAttempt, Left, Step, Stored, Waiting, Work, damaged};
use crate::port::{Entry, Position, Uncompensated};

impl Lane {
    /// What the writer is to do. Where that is to store, the attempt is on record once this returns, and `turn` has said that the
    /// tenant has its turn at the store; it is asked under the lane's lock.
    pub(crate) fn next_step(&self, now: Instant, turn: impl FnOnce(&StoreName, Want) -> bool) -> Step {
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
                    let mut work = Work::new(&front);
                    if !front.is_whole && !front.batch.id().piece.is_whole() {
                        // What the hooks made of it is not there.
                        let (batch, cause) = (front.batch.id().clone(), damaged());
                        work.give_up(&cause);
                        work.recording = self.record(|| Entry::GivenUp { batch, cause });
                    }
                    state.work = Some(work.into());
                }
            }
        }
        let Some(work) = &mut state.work else { return Step::Rest };
        if work.is_given_up() {
            return Step::GivenUp;
        }
        if work.opened().is_some() {
            return Step::Orphaned;
        }
        if !work.is_open() {
            if let Some(at) = work.not_before.filter(|at| now < *at) {
                return Step::Wait(at);
            }
            let Some((store, attempt)) = work.next(&self.stores) else { return Step::Finished };
            if let Some(until) = state.breaker_open_until(&store, now) {
                return Step::Wait(until);
            }
            let Some(work) = &mut state.work else { return Step::Rest };
            state.moved += 1;
            if !work.begin(&store, attempt) {
                let batch = work.batch.id().clone();
                work.recording = self.record(|| Entry::Intent { batch, store, attempt });
            }
        }
        let Some(work) = &mut state.work else { return Step::Rest };
        if let (Some(position), Some(journal)) = (work.recording, &self.journal)
            && !journal.is_committed(position)
        {
            return Step::Record(position);
        }
        state.moved += u64::from(work.recording.take().is_some());
        let (Some(undo), Some(store)) = (work.undo(), work.store().cloned()) else { return Step::Rest };
        if !turn(&store, Want { priority: state.policy.priority, bytes: work.batch.body_bytes() }) {
            work.wants_turn.get_or_insert(now);
            return Step::Turn;
        }
        work.ask(now);
        let undo = match &self.journal {
            Some(journal) => undo.on_record(work.batch.id(), journal),
            None => undo,
        };
        Step::Store(store, work.batch.clone(), undo)
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
        let mut work = Work::new(&front);
        given_up.iter().for_each(|cause| work.give_up(cause));
        state.work = Some(work.into());
        state.moved += 1;
    }

    /// The attempt that is open: of which batch, in which store, and its number.
    pub(crate) fn open_attempt(&self) -> Option<(BatchId, StoreName, Attempt)> {
        let state = self.lock();
        let work = state.work.as_ref().filter(|work| work.is_open())?;
        Some((work.batch.id().clone(), work.store()?.clone(), work.attempt()))
    }

    /// The store of the open attempt has the batch.
    pub(crate) fn stored(&self) -> Stored {
        let state = &mut *self.lock();
        let answered =
            state.work.as_ref().and_then(|work| work.store().cloned()).filter(|_| !state.breakers.is_empty());
        let closed = answered.filter(|store| state.close_breaker(store));
        let Some(work) = state.work.as_mut().filter(|work| work.has_more(&self.stores)) else {
            return Stored { has_more: false, closed };
        };
        state.moved += 1;
        if let Some(store) = work.done() {
            let batch = work.batch.id().clone();
            self.record(|| Entry::Done { batch, store });
        }
        Stored { has_more: true, closed }
    }

    /// The open attempt failed. `unavailable` spends none.
    pub(crate) fn failed(
        &self,
        failure: Failed,
        cause: Cause,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<FailedAttempt> {
        let state = &mut *self.lock();
        let is_probe =
            matches!(failure, Failed::Unavailable { .. }) && state.work.as_ref().is_some_and(|work| work.parked);
        state.counters.attempts_failed += u64::from(!is_probe);
        let work = state.work.as_mut()?;
        let store = work.failed(&cause)?;
        state.moved += 1;
        let (in_a_row, tripped, breaker) = state.call_failed(&store, failure, now);
        let work = state.work.as_mut()?;
        let (batch, attempt) = (work.batch.id().clone(), work.attempt());
        work.parked = matches!(failure, Failed::Unavailable { .. });
        work.woken = false;
        let mut next_after = work.next_after(&state.policy.retry, failure, now, rng);
        if let (Some(after), Some(tripped)) = (&mut next_after, tripped) {
            work.hold_until(tripped.until, now, *after);
            *after = (*after).max(tripped.until.saturating_duration_since(now));
        }
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
        Some(FailedAttempt { store, attempt, next_after, in_a_row, breaker })
    }

    /// A writer takes over, after a while in which there may have been none.
    pub(crate) fn taken_over(&self) {
        self.lock().work.iter_mut().for_each(|work| work.begin_time_anew());
    }

    /// The work on the front batch, and the batch as it was cut, if it was given up.
    pub(crate) fn given_up(&self) -> Option<(Work, Batch)> {
        let state = self.lock();
        let work = state.work.as_ref().filter(|work| work.is_given_up())?;
        Some((Work::clone(work), state.batches.front()?.batch.clone()))
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
    pub(crate) fn again(&self, now: Instant, rng: &mut fastrand::Rng) {
        let state = &mut *self.lock();
        let Some(work) = state.work.as_mut().filter(|work| work.is_given_up()) else { return };
        let batch = work.batch.id().clone();
        let rounds = work.again();
        work.not_before = Some(now + state.policy.retry.wait(rounds, None, rng));
        work.recording = self.record(|| Entry::Again { batch });
    }

    /// A batch that was given up and compensated is two from here on, to find which of its events the store refuses. False where
    /// that is not to be done: `most` events of the whole were given up alone already.
    pub(crate) fn split(&self, most: u32) -> bool {
        let mut state = self.lock();
        let Some(work) = state.work.as_ref().filter(|work| work.is_given_up()) else { return false };
        let found = state.poison_of(work.batch.id());
        // On record the halves hold what is lost of it, too: they would be other ones for the next process.
        let Some(front) = state.batches.front().filter(|front| front.is_whole) else { return false };
        let (first, cut_at) = (front.batch.len() / 2, front.cut_at);
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
            state.batches.push_front(Waiting { batch, made, intended, recorded, cut_at, is_whole: true });
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

    /// Whether work on the batch at the front has begun.
    pub(crate) fn is_work_begun(&self) -> bool {
        self.lock().work.is_some()
    }

    /// Whether a store is at the batch, or was when its writer died.
    pub(crate) fn is_attempt_open(&self) -> bool {
        self.lock().work.as_ref().is_some_and(|work| work.opened().is_some())
    }

    /// The batch has its outcome and leaves the lane. `None` where it has left before.
    pub(crate) fn settle(&self, batch: &BatchId, outcome: Outcome) -> Option<Left> {
        let mut state = self.lock();
        let held_cuts = state.holds_cuts(None);
        let front = state.batches.pop_front_if(|front| front.batch.id().place() == batch.place())?;
        let Waiting { batch, cut_at, .. } = front;
        if state.batches.is_empty() {
            // With very many tenants, what each keeps for its next batch would be far from the processor by then; what all use in turn is near.
            state.batches = VecDeque::new();
        }
        let work = state.work.take();
        state.moved += 1;
        let cuts_again = held_cuts && !state.holds_cuts(None);
        let events = batch.len() as u64;
        self.record(|| Entry::Settled { batch: batch.id().clone(), outcome, events });
        self.tell_door(&mut state);
        let footprint = batch.footprint();
        state.cut -= events;
        self.holds(state.bytes, state.bytes - footprint);
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
        let was_given_up = work.as_ref().is_some_and(|work| work.is_given_up());
        if was_given_up {
            state.given_up_at = Some(Instant::now());
        }
        if was_given_up && id.piece != Piece::WHOLE && events == 1 {
            state.poison = (id.seq.0, state.poison_of(id) + 1);
        }
        let (attempts, was_parked) = work.as_ref().map_or((0, false), |work| (work.attempt().0, work.parked));
        let found_store_back = work.as_ref().is_some_and(|work| work.parked && !work.woken);
        let code = work.as_ref().and_then(|work| work.last_cause.as_ref()).map(|cause| cause.code);
        let shed = state.shedding_ended();
        let numbered = batch.parts().iter().filter(|part| part.chunk.origin().is_some()).cloned().collect();
        // What is in the store is what the hooks made; what was given up is kept as it came.
        let batch = work.filter(|_| outcome == Outcome::Stored).map_or(batch, |work| work.batch);
        Some(Left {
            batch,
            attempts,
            cut_at,
            was_parked,
            found_store_back,
            footprint,
            numbered,
            code,
            cuts_again,
            shed,
        })
    }
}

impl State {
    /// How many events of the batch that this is a piece of were given up alone.
    fn poison_of(&self, batch: &BatchId) -> u32 {
        if self.poison.0 == batch.seq.0 { self.poison.1 } else { 0 }
    }
}
