//! A batch at the front of its lane, on its way through the saga. Plain state: the [lane](super::lane) moves it on and puts each
//! step on record.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::storage::UndoList;
use crate::model::{Attempt, Batch, BatchId, Cause, Chunk, Code, Part, StoreName};
use crate::policy::{Retry, RetryPolicy};
use crate::port::{Compensation, Position, Progress, RecoveredCut, Stores, Undo};

/// A batch without an outcome.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) batch: Batch,
    /// What the hooks had made of it, where that is known already.
    pub(super) made: Option<Batch>,
    /// The store of which a first attempt went on record with the cut.
    pub(super) intended: Option<StoreName>,
    /// Where its cut is on record, if it is and that was not known to be committed.
    pub(super) recorded: Option<Position>,
    /// When it was cut, or read back.
    pub(super) cut_at: Instant,
    /// Whether it holds all that was cut into it, and is what the hooks made of it; not so where a journal is damaged.
    pub(super) is_whole: bool,
}

/// The batch at the front of a lane.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// As the hooks made it; they run once, so that every attempt sees the same bytes.
    pub(crate) batch: Batch,
    /// Of the step that is under way.
    pub(crate) retry: Retry,
    /// Without what the stores registered.
    progress: Progress,
    /// The store of which a first attempt is on record.
    intended: Option<StoreName>,
    /// The step whose attempt has no outcome yet.
    open: Option<StoreName>,
    /// When its store was asked, once it was.
    opened: Option<Instant>,
    /// Since when it waits for its turn at the store.
    pub(super) wants_turn: Option<Instant>,
    /// When the first attempt at this store was, as far as the deadline is concerned.
    began: Option<Instant>,
    /// Where that attempt is on record, until that is committed: it is not begun before.
    pub(super) recording: Option<Position>,
    /// Not to be tried again before.
    pub(super) not_before: Option<Instant>,
    /// Whether it waits for a store that is not there.
    pub(crate) parked: bool,
    /// Whether it was told that the store is back.
    pub(super) woken: bool,
    /// Why the last attempt failed.
    pub(crate) last_cause: Option<Cause>,
    /// How often its saga began anew after it had been given up.
    rounds: u32,
    undo: Arc<UndoList>,
}

impl Work {
    /// Nothing is begun.
    pub(super) fn new(waiting: &Waiting) -> Self {
        let Waiting { batch, made, intended, recorded, .. } = waiting;
        Self {
            batch: made.as_ref().unwrap_or(batch).clone(),
            retry: Retry::default(),
            progress: Progress::default(),
            intended: intended.clone(),
            open: None,
            opened: None,
            wants_turn: None,
            began: None,
            recording: *recorded,
            not_before: None,
            parked: false,
            woken: false,
            last_cause: None,
            rounds: 0,
            undo: Arc::default(),
        }
    }

    /// What an earlier process had begun. An attempt of which the outcome is not on record may have taken effect or not: the next
    /// one stores the same batch again, under the same id.
    pub(super) fn found(cut: &RecoveredCut, waiting: &Waiting) -> Self {
        let Progress { undo, given_up, .. } = &cut.progress;
        // The store may hold all of it: what is left cannot pass for it, and is kept as dead letters after a rollback, whatever it
        // was given up for.
        let last_cause = if waiting.is_whole { given_up.clone() } else { Some(damaged()) };
        let given_up = given_up.clone().or_else(|| last_cause.clone());
        let progress = Progress { undo: vec![], given_up, ..cut.progress.clone() };
        Self { progress, last_cause, intended: None, undo: UndoList::of(undo.clone()), ..Self::new(waiting) }
    }

    /// Whether it was given up and belongs to the aggregator now.
    pub(crate) fn is_given_up(&self) -> bool {
        self.progress.given_up.is_some()
    }

    /// Whether an attempt is begun, be its store asked or not.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When the store was asked, where it is at it.
    pub(super) fn opened(&self) -> Option<Instant> {
        self.opened
    }

    /// The store that is at it, or was last.
    pub(crate) fn store(&self) -> Option<&StoreName> {
        self.progress.steps.last().map(|step| &step.store)
    }

    /// The last attempt of that one; 0 before the first.
    pub(crate) fn attempt(&self) -> Attempt {
        self.progress.steps.last().map_or(Attempt(0), |step| step.attempt)
    }

    /// The step that comes next, with the number of its attempt; `None` where all are done.
    pub(super) fn next(&self, stores: &Stores) -> Option<(StoreName, Attempt)> {
        let store = stores.names().find(|store| !self.progress.is_done(store))?;
        Some((store.clone(), Attempt(self.progress.attempt(store).0 + 1)))
    }

    /// Whether another step follows the one that is under way.
    pub(super) fn has_more(&self, stores: &Stores) -> bool {
        let is_left = |store: &StoreName| self.open.as_ref() != Some(store) && !self.progress.is_done(store);
        stores.names().any(is_left)
    }

    /// An attempt begins. Whether it is on record already.
    pub(super) fn begin(&mut self, store: &StoreName, attempt: Attempt) -> bool {
        let intended = self.intended.take();
        let is_on_record = intended.as_ref() == Some(store);
        if let Some(other) = intended.filter(|_| !is_on_record) {
            // The saga had another beginning when the batch was cut. By the record alone, that store may have it.
            self.progress.intent(&other, Attempt(1));
        }
        self.progress.intent(store, attempt);
        self.undo.open(store, attempt);
        self.open = Some(store.clone());
        is_on_record
    }

    /// The store is asked from here on. Waiting for the turn took nothing from the deadline.
    pub(super) fn ask(&mut self, now: Instant) {
        let waited = self.wants_turn.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.began = Some(self.began.map_or(now, |began| began + waited));
        self.opened = Some(now);
    }

    /// No attempt is made before `until`, by a breaker, although the next one was due after `after`: that takes nothing from the
    /// deadline.
    pub(super) fn hold_until(&mut self, until: Instant, now: Instant, after: Duration) {
        if let Some(began) = &mut self.began {
            *began += until.saturating_duration_since(now + after);
        }
    }

    /// The attempt that is under way, as its store sees it.
    pub(super) fn undo(&self) -> Option<Undo> {
        Some(Undo::new(self.open.clone()?, self.attempt(), self.undo.clone()))
    }

    /// The attempt is over; whose it was.
    fn end(&mut self) -> Option<StoreName> {
        // First of all: what its store registers from here on would not be undone.
        self.undo.close();
        (self.recording, self.opened, self.wants_turn) = (None, None, None);
        self.open.take()
    }

    /// The store has the batch.
    pub(super) fn done(&mut self) -> Option<StoreName> {
        let store = self.end()?;
        self.progress.done(&store);
        (self.retry, self.parked, self.not_before, self.began) = (Retry::default(), false, None, None);
        Some(store)
    }

    /// The attempt failed.
    pub(super) fn failed(&mut self, cause: &Cause) -> Option<StoreName> {
        let attempt = self.attempt();
        let store = self.end()?;
        self.progress.failed(&store, attempt);
        self.last_cause = Some(cause.clone());
        Some(store)
    }

    /// The time in which there was nobody to try does not count towards the deadline.
    pub(super) fn begin_time_anew(&mut self) {
        self.began = None;
    }

    /// When the next attempt is due, by the policy, after one that failed; `None` where there is to be none.
    pub(super) fn next_after(
        &mut self,
        policy: &RetryPolicy,
        failed: Failed,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        match failed {
            Failed::Transient { retry_after } => {
                let deadline = self.began.unwrap_or(now) + policy.deadline;
                self.retry.failed(policy, retry_after, rng).filter(|after| now + *after < deadline)
            }
            Failed::Unavailable { retry_after } => {
                // An outage gives nothing up: the time begins anew with its end.
                self.began = None;
                Some(self.retry.unavailable(policy, retry_after, rng))
            }
            Failed::Permanent => None,
        }
    }

    /// It is given up.
    pub(super) fn give_up(&mut self, cause: &Cause) {
        if let Some(intended) = self.intended.take() {
            // It never came to that attempt, but on record it did.
            self.progress.intent(&intended, Attempt(1));
        }
        self.progress.give_up(cause);
        self.last_cause = Some(cause.clone());
    }

    /// It is compensated, and begins anew.
    pub(super) fn again(&mut self) -> u32 {
        self.progress.again();
        self.undo.clear();
        (self.retry, self.began) = (Retry::default(), None);
        self.rounds += 1;
        self.rounds
    }

    /// Where it is on record that it was given up.
    pub(crate) fn recorded_at(&self) -> Option<Position> {
        self.recording
    }

    /// How far it has come, as it is on record.
    pub(crate) fn progress(&self) -> Progress {
        Progress { undo: self.undo.steps(), ..self.progress.clone() }
    }

    /// What is left of its compensations, newest first, each with its number.
    pub(crate) fn compensations(&self) -> Vec<(u32, StoreName, Compensation)> {
        let all = self.progress().compensations();
        let numbered = (0..).zip(all).skip(self.progress.compensated as usize);
        numbered.map(|(nth, (store, compensation))| (nth, store, compensation)).collect()
    }

    /// Whether it becomes dead letters whatever happens.
    pub(crate) fn is_condemned(&self) -> bool {
        self.progress().is_condemned()
    }

    /// A compensation is dealt with.
    pub(super) fn compensated(&mut self, nth: u32) {
        self.progress.compensated(nth);
    }
}

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing waits.
    Rest,
    /// Nothing is left of the batch: settle it.
    Lost(BatchId),
    /// A fresh batch: pass it through the hooks, then say [`Lane::prepared`](super::lane::Lane::prepared).
    Prepare(Batch),
    /// Try again then.
    Wait(Instant),
    /// The attempt is on record, but not committed: wait for that, then ask again.
    Record(Position),
    /// The attempt is on record: store it there.
    Store(StoreName, Batch, Undo),
    /// Others are at the store: wait until it is told that its turn has come.
    Turn,
    /// Every store has it.
    Finished,
    /// The last writer died in the middle of an attempt.
    Orphaned,
    /// The aggregator has it.
    GivenUp,
}

/// How an attempt failed, as far as the next one is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failed {
    Transient { retry_after: Option<Duration> },
    Unavailable { retry_after: Option<Duration> },
    Permanent,
}

/// An attempt that failed, and what it leads to.
#[derive(Debug)]
pub(crate) struct FailedAttempt {
    pub(crate) store: StoreName,
    pub(crate) attempt: Attempt,
    /// When the next one is; none is left where the batch is given up.
    pub(crate) next_after: Option<Duration>,
    /// How many calls of the tenant failed there in a row, in a way that may pass.
    pub(crate) in_a_row: u32,
    /// What that made of its breaker there, if anything.
    pub(crate) breaker: Option<BreakerTurned>,
}

/// What an answer made of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerTurned {
    /// It was closed before.
    Opened {
        until: Instant,
    },
    Closed,
}

/// What it means that a store has the batch.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Another step follows; else the batch is to be settled.
    pub(crate) has_more: bool,
    /// Where the tenant's breaker was open until then.
    pub(crate) closed: Option<StoreName>,
}

/// A batch that has left its lane.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) batch: Batch,
    pub(crate) attempts: u32,
    /// When it was cut, or read back.
    pub(crate) cut_at: Instant,
    pub(crate) was_parked: bool,
    /// Whether it is the first to find its store back.
    pub(crate) found_store_back: bool,
    /// The memory its events held.
    pub(crate) footprint: usize,
    /// The parts of it that came in numbered streams.
    pub(crate) numbered: Vec<Part>,
    /// Why it was given up, if it was.
    pub(crate) code: Option<Code>,
    /// Whether windows were kept open behind it, and may close now.
    pub(crate) cuts_again: bool,
    /// How many events were shed in a time that ended with it.
    pub(crate) shed: Option<u64>,
}

/// Why a batch is given up of which not all can be read.
pub(super) fn damaged() -> Cause {
    Cause::new(Code::JournalDamaged, "some of the batch's events are lost with a damaged journal")
}

/// A batch of one chunk, as the hooks made it.
pub(super) fn of_made(cut: &RecoveredCut, made: Chunk) -> Batch {
    let range = 0..made.len();
    Batch::new(cut.batch.clone(), vec![Part { chunk: Arc::new(made), range }])
}
