//! A lane at one moment, for whoever looks on.

use tokio::time::Instant;

use super::{Lane, State};
use crate::model::UnixMillis;
use crate::observe::{Backlog, BatchDetail, BreakerDetail, Counters, OpenWindow, ThrottleDetail};
use crate::policy::Holdup;
use crate::port::Stores;
use crate::port::work::Work;

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
    /// What lies in the journal alone: events, and bytes on disk.
    pub(crate) spilled: (u64, u64),
    /// Of the batch at the front: how often it failed, whether it is parked, whether it is given up.
    pub(crate) front: Option<(u32, bool, bool)>,
    /// Compensations that could not be done.
    pub(crate) uncompensated: u64,
    /// Whether a breaker of it is not closed.
    pub(crate) breaker_open: bool,
    /// Steps of the batches so far.
    pub(crate) moved: u64,
    /// When events of it were given up last.
    pub(crate) given_up_at: Option<Instant>,
    /// When the first of the events in memory arrived.
    pub(crate) oldest_at: Option<UnixMillis>,
}

impl LaneSnapshot {
    /// Accepted events without an outcome.
    pub(crate) fn in_flight(&self) -> u64 {
        self.window + self.cut + self.given_up_at_door + self.unread + self.spilled.0
    }

    /// Whether there is nothing that the tenant's actors would have to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.in_flight() == 0 && self.batches == 0
    }

    /// Whether nothing of the tenant is under way or owed: then its numbers are all there is to it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_at_rest() && self.uncompensated == 0
    }
}

/// A lane at one moment, in words.
pub(crate) struct LaneDetail {
    pub(crate) snapshot: LaneSnapshot,
    pub(crate) window: OpenWindow,
    pub(crate) backlog: Backlog,
    pub(crate) batch: Option<BatchDetail>,
    pub(crate) breakers: Vec<BreakerDetail>,
    pub(crate) throttle: Option<ThrottleDetail>,
}

impl Lane {
    /// How many steps the batches have made so far, and what they wait for now, if any waits.
    pub(crate) fn standing(&self, now: Instant) -> (u64, Option<Holdup>) {
        let state = self.lock();
        let is_committed = |position| self.journal.as_ref().is_none_or(|journal| journal.is_committed(position));
        let holdup = state.batches.front().map(|_| match &state.work {
            Some(work) if work.is_given_up() => Holdup::Compensation,
            Some(work) if work.parked => Holdup::Store,
            Some(work) if state.not_before(work, &self.stores, now).is_some_and(|at| now < at) => Holdup::Backoff,
            Some(work) if work.recording.is_some_and(|position| !is_committed(position)) => Holdup::Journal,
            Some(work) if work.wants_turn.is_some() => Holdup::Turn,
            _ => Holdup::Writer,
        });
        (state.moved, holdup)
    }

    pub(crate) fn snapshot(&self) -> LaneSnapshot {
        self.lock().snapshot()
    }

    /// All there is to tell of the lane, in one moment. `wall` says what the wall clock shows at an instant.
    pub(crate) fn detail(&self, now: Instant, wall: impl Fn(Instant) -> UnixMillis) -> LaneDetail {
        let mut state = self.lock();
        let throttle = state.throttle.as_mut().map(|throttle| throttle.left(now));
        let throttle = throttle.map(|(events_left, bytes_left)| ThrottleDetail { events_left, bytes_left });
        let policy = &state.policy;
        let uncut = state.chunks.sums();
        let window = OpenWindow {
            events: uncut.events as u64,
            max_events: policy.window.max_events as u64,
            bytes: uncut.body_bytes as u64,
            max_bytes: policy.window.max_bytes as u64,
            due_at: state.due.filter(|_| uncut.events > 0).map(&wall),
            oldest_at: state.window_since(),
        };
        let backlog = Backlog {
            batches: state.batches.len() as u64,
            events: state.cut,
            bytes: state.batches.iter().map(|waiting| waiting.batch.body_bytes() as u64).sum(),
            oldest_at: state.backlog_since(),
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
            next_attempt_at: state.not_before(work, &self.stores, now).map(&wall),
            wants_turn_since: work.wants_turn.map(&wall),
            is_parked: work.parked,
            is_given_up: work.is_given_up(),
            last_cause: work.last_cause.clone(),
            undo_steps: work.progress().undo.into_iter().rev().map(|(_, step)| step.name).collect(),
        });
        let breakers = state.breakers.iter().map(|(store, breaker)| BreakerDetail {
            store: store.clone(),
            state: breaker.state(now),
            failures: breaker.in_a_row(),
            probe_at: breaker.probe_at().map(&wall),
        });
        let breakers = breakers.collect();
        LaneDetail { snapshot: state.snapshot(), window, backlog, batch, breakers, throttle }
    }
}

impl State {
    fn window_since(&self) -> Option<UnixMillis> {
        self.chunks.first().filter(|_| self.chunks.sums().events > 0).map(|first| first.chunk.arrived())
    }

    fn backlog_since(&self) -> Option<UnixMillis> {
        self.batches.front().map(|front| front.batch.first_arrived())
    }

    /// When the next attempt is due, where none is begun and it is known.
    fn not_before(&self, work: &Work, stores: &Stores, now: Instant) -> Option<Instant> {
        if work.is_open() || work.is_given_up() {
            return None;
        }
        let breaker = work.next(stores).and_then(|(store, _)| self.breaker_open_until(&store, now));
        work.not_before.max(breaker)
    }

    pub(super) fn snapshot(&self) -> LaneSnapshot {
        LaneSnapshot {
            counters: self.counters,
            window: self.chunks.sums().events as u64,
            cut: self.cut,
            given_up_at_door: self.given_up_at_door,
            unread: self.unread,
            batches: self.batches.len(),
            bytes: self.bytes,
            spilled: (self.spill.events, self.spill.bytes),
            front: self.work.as_ref().map(|work| (work.retry.spent(), work.parked, work.is_given_up())),
            uncompensated: self.uncompensated.len() as u64,
            breaker_open: self.breakers.iter().any(|(_, breaker)| breaker.probe_at().is_some()),
            moved: self.moved,
            given_up_at: self.given_up_at,
            oldest_at: self.backlog_since().or_else(|| self.window_since()),
        }
    }
}
