//! A lane in which nothing lies: its numbers are all there is to it.

use tokio::time::Instant;

use super::{Lane, State};
use crate::model::StoreName;
use crate::observe::Counters;
use crate::policy::{Breaker, Patience, Throttle};
use crate::port::RecoveredTenant;

/// What is kept of a lane while its tenant is passivated.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    pub(crate) counters: Counters,
    discarded_at_door: u64,
    dead_lettered_at_door: u64,
    /// The seq of the next chunk.
    first: u64,
    /// How many batches were cut.
    cuts: u64,
    /// What its rules remember, if anything: most tenants are at rest without.
    memories: Option<Box<Memories>>,
}

/// What the rules of a tenant remember of what it did: to be passivated is no way around them.
#[derive(Debug, Clone)]
struct Memories {
    throttle: Option<Box<Throttle>>,
    patience: Option<Box<[Patience; 2]>>,
    breakers: Vec<(StoreName, Breaker)>,
}

impl Lane {
    /// What is to be kept of the lane, if nothing lies in it and nothing is owed; what happened at the door is on record then.
    pub(crate) fn rest(&self) -> Option<Rest> {
        let mut state = self.lock();
        if !state.snapshot().is_over() {
            return None;
        }
        self.tell_door(&mut state);
        state.gone = true;
        Some(state.rest())
    }

    /// Goes on where a lane was left.
    pub(crate) fn go_on(&self, rest: &Rest) {
        self.lock().go_on(rest);
    }
}

impl State {
    fn rest(&self) -> Rest {
        Rest {
            counters: self.counters,
            discarded_at_door: self.discarded_at_door,
            dead_lettered_at_door: self.dead_lettered_at_door,
            first: self.first,
            cuts: self.cuts,
            memories: self.memories(Instant::now()),
        }
    }

    fn memories(&self, now: Instant) -> Option<Box<Memories>> {
        let bounds = [self.policy.overflow.block_for, self.policy.throttle.delay_for];
        let lasts = |patience: &[Patience; 2]| patience.iter().zip(bounds).any(|(one, bound)| one.lasts(bound, now));
        let memories = Memories {
            throttle: self.throttle.clone(),
            patience: self.patience.clone().filter(|patience| lasts(patience)),
            breakers: self.breakers.clone(),
        };
        let Memories { throttle, patience, breakers } = &memories;
        let is_any = throttle.is_some() || patience.is_some() || !breakers.is_empty();
        is_any.then(|| Box::new(memories))
    }

    pub(super) fn go_on(&mut self, rest: &Rest) {
        let Rest { counters, discarded_at_door, dead_lettered_at_door, first, cuts, ref memories } = *rest;
        self.counters = counters;
        (self.discarded_at_door, self.dead_lettered_at_door) = (discarded_at_door, dead_lettered_at_door);
        (self.first, self.cuts) = (first, cuts);
        self.door = self.door_totals();
        let Some(memories) = memories else { return };
        let Memories { throttle, patience, breakers } = (**memories).clone();
        if let Some(mut throttle) = throttle {
            throttle.change(&self.policy.throttle, Instant::now());
            self.throttle = Some(throttle);
        }
        (self.patience, self.breakers) = (patience, breakers);
    }

    /// Takes over what an earlier process left to be done.
    pub(super) fn owe(&mut self, left: &RecoveredTenant) {
        self.unread = if left.is_settled() { 0 } else { Rest::unsettled(left) };
        let now = Instant::now();
        self.uncompensated = left.uncompensated.iter().map(|owed| (owed.clone(), now)).collect();
    }
}

impl Rest {
    fn unsettled(left: &RecoveredTenant) -> u64 {
        let totals = &left.totals;
        totals.accepted - (totals.stored + totals.dead_lettered + totals.discarded + totals.shed)
    }

    /// The numbers that an earlier process left.
    pub(crate) fn recovered(left: &RecoveredTenant) -> Self {
        let RecoveredTenant { door, totals, .. } = left;
        // Where nothing is left to be read they were lost with a damaged journal: the process that found out has told.
        let lost = if left.is_settled() { Self::unsettled(left) } else { 0 };
        let at_door = door.duplicate + door.muted + door.throttled + door.rejected + door.malformed;
        let accepted = totals.accepted + door.discarded + door.dead_lettered - lost;
        let counters = Counters {
            received: accepted + at_door,
            accepted,
            duplicate: door.duplicate,
            muted: door.muted,
            throttled: door.throttled,
            rejected: door.rejected,
            malformed: door.malformed,
            stored: totals.stored,
            dead_lettered: totals.dead_lettered + door.dead_lettered,
            shed: totals.shed,
            discarded: totals.discarded + door.discarded,
            batches: totals.batches,
            ..Counters::default()
        };
        Self {
            counters,
            discarded_at_door: door.discarded,
            dead_lettered_at_door: door.dead_lettered,
            first: left.next_chunk,
            cuts: left.next_batch.0 - 1,
            memories: None,
        }
    }
}
