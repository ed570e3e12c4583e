//! What of a chunk is above its tenant's rate.

use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, State};
use crate::model::Chunk;
use crate::policy::WhenOver;

/// What of a chunk may not pass now, by its tenant's rate.
pub(crate) enum Over {
    /// It is to wait, until about then.
    Delayed { rest: Box<Chunk>, until: Instant },
    /// It is refused, and counted; it is to come again so much later.
    Refused { events: usize, retry_after: Duration },
}

impl Over {
    /// How many events it is.
    pub(crate) fn events(&self) -> usize {
        match self {
            Self::Delayed { rest, .. } => rest.len(),
            Self::Refused { events, .. } => *events,
        }
    }
}

/// What waits for the rate looks again after so long at least: a sender is not let in event by event.
const PACE: Duration = Duration::from_millis(10);

/// A sender counts in milliseconds: to come again a little later is sound.
fn in_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

impl Lane {
    /// Lets pass whatever comes, until the rules are changed.
    pub(crate) fn unthrottle(&self) {
        self.lock().throttle = None;
    }
}

/// For which bound a tenant holds others.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// It is full.
    Full,
    /// It is above its rate.
    Rate,
}

impl Lane {
    /// How much longer the tenant may hold connections of others.
    pub(crate) fn patience(&self, bound: Bound, now: Instant) -> Duration {
        let state = &mut *self.lock();
        let most = match bound {
            Bound::Full => state.policy.overflow.block_for,
            Bound::Rate => state.policy.throttle.delay_for,
        };
        state.patience.get_or_insert_default()[bound as usize].left(most, now)
    }

    /// The tenant has held a connection of others from then until then.
    pub(crate) fn held(&self, bound: Bound, from: Instant, until: Instant) {
        self.lock().patience.get_or_insert_default()[bound as usize].held(from, until);
    }
}

impl State {
    /// How many events of the chunk its tenant's rate lets pass.
    pub(super) fn may_pass(&mut self, chunk: &Chunk, at: Instant) -> usize {
        let len = chunk.len();
        self.throttle.as_mut().map_or(len, |throttle| throttle.may_pass(len, |n| chunk.body_bytes_of(0..n), at))
    }

    /// Pays for the first `passes` events, and takes the others off. An error where there are only others.
    pub(super) fn pass(&mut self, mut chunk: Chunk, passes: usize, at: Instant) -> Result<(Chunk, Option<Over>), Over> {
        let Some(throttle) = &mut self.throttle else { return Ok((chunk, None)) };
        throttle.pay(passes, chunk.body_bytes_of(0..passes));
        if passes == chunk.len() {
            return Ok((chunk, None));
        }
        let front = (passes > 0).then(|| chunk.split_front(passes));
        let wait = throttle.wait(chunk.body_bytes_of(0..1));
        let over = match self.policy.throttle.when_over {
            WhenOver::Delay => Over::Delayed { rest: Box::new(chunk), until: at + wait.max(PACE) },
            WhenOver::Reject => {
                self.counters.throttled += chunk.len() as u64;
                Over::Refused { events: chunk.len(), retry_after: in_millis(wait) }
            }
        };
        match front {
            Some(front) => Ok((front, Some(over))),
            None => Err(over),
        }
    }
}
