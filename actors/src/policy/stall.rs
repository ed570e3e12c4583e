use std::time::Duration;

use tokio::time::Instant;

/// What the batches of a tenant wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holdup {
    /// Their writer: it is at the first, or should be.
    Writer,
    /// The time of the next attempt, or of a restart: it is known when they go on.
    Backoff,
    /// Their turn at a store that others are at: it comes when one of those is done, which each is within its
    /// `retry.attempt_timeout`.
    Turn,
    /// A store that is not there.
    Store,
    /// The journal: the next attempt is not on record yet.
    Journal,
    /// The first was given up, and is not settled yet.
    Compensation,
}

/// Whether anything moves, looked at from outside now and then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stall {
    moved: u64,
    holdup: Option<Holdup>,
    since: Option<Instant>,
    is_told: bool,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    /// Nothing has moved for too long: told once.
    NoLonger(Holdup),
    /// It moves again.
    Again,
}

impl Stall {
    /// A look at `now`. `moved` counts the steps of the batches so far; `holdup` is what they wait for, if any waits.
    ///
    /// The probes of a store that is not there are steps, and yet nothing moves.
    pub(crate) fn look(&mut self, limit: Duration, now: Instant, moved: u64, holdup: Option<Holdup>) -> Option<Moves> {
        let is_same = self.holdup == holdup && (self.moved == moved || holdup == Some(Holdup::Store));
        let waiting = holdup.filter(|holdup| is_same && !matches!(holdup, Holdup::Backoff | Holdup::Turn));
        self.moved = moved;
        let (Some(holdup), Some(since)) = (waiting, self.since) else {
            let was_told = self.is_told;
            *self = Self { moved, holdup, since: Some(now), is_told: false };
            return was_told.then_some(Moves::Again);
        };
        if self.is_told || now.duration_since(since) < limit {
            return None;
        }
        self.is_told = true;
        Some(Moves::NoLonger(holdup))
    }

    /// Whether, by the last look and what moved since, nothing moves.
    pub(crate) fn lasts(&self, moved: u64) -> bool {
        self.is_told && self.moved == moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_waits_and_does_not_move_is_told_once_and_so_is_its_moving_again() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        let writer = Some(Holdup::Writer);
        let looks = [(0, 7, writer), (50, 7, writer), (60, 7, writer), (70, 7, writer), (80, 8, writer), (90, 8, None)];
        let told = looks.map(|(at, moved, holdup)| stall.look(LIMIT, after(start, at), moved, holdup));
        assert_eq!(told, [None, None, Some(Moves::NoLonger(Holdup::Writer)), None, Some(Moves::Again), None]);
    }

    #[test]
    fn a_known_wait_is_no_stall_and_the_probes_of_a_store_that_is_away_are_no_movement() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        for at in 0..100 {
            assert_eq!(stall.look(LIMIT, after(start, at * 10), 7, Some(Holdup::Backoff)), None);
        }
        let told =
            (100..107).map(|at| stall.look(LIMIT, after(start, at * 10), at, Some(Holdup::Store))).collect::<Vec<_>>();
        assert_eq!(told.last(), Some(&Some(Moves::NoLonger(Holdup::Store))), "{told:?}");
        assert!(told[..6].iter().all(Option::is_none), "{told:?}");
    }

    fn holdups() -> impl Strategy<Value = Option<Holdup>> {
        use Holdup::{Backoff, Compensation, Journal, Store, Turn, Writer};
        prop::sample::select(vec![
            None,
            Some(Writer),
            Some(Backoff),
            Some(Turn),
            Some(Store),
            Some(Journal),
            Some(Compensation),
        ])
    }

    proptest! {
        /// Against the plain reading: at each look, how long the same has been waited for without a step.
        #[test]
        fn a_stall_is_told_when_the_same_was_waited_for_all_the_time(
            looks in prop::collection::vec((1..40u64, 0..3u64, holdups()), 1..60),
        ) {
            let (mut stall, start) = (Stall::default(), Instant::now());
            let (mut now, mut moved, mut history) = (0, 0, vec![]);
            let mut is_told = false;
            for (gap, steps, holdup) in looks {
                now += gap;
                moved += steps / 2;
                history.push((now, moved, holdup));
                let same = history.iter().rev().take_while(|(_, then, was)| {
                    *was == holdup && (*then == moved || holdup == Some(Holdup::Store))
                });
                let since = same.last().map_or(now, |(at, ..)| *at);
                let waits = !matches!(holdup, None | Some(Holdup::Backoff | Holdup::Turn));
                let stalls = waits && now - since >= 60;
                let is_same = history.len() > 1 && since < now;
                let expected = match (is_told, stalls) {
                    (false, true) => holdup.map(Moves::NoLonger),
                    (true, _) if !(waits && is_same) => Some(Moves::Again),
                    _ => None,
                };
                prop_assert_eq!(stall.look(LIMIT, after(start, now), moved, holdup), expected);
                match expected {
                    Some(Moves::NoLonger(_)) => is_told = true,
                    Some(Moves::Again) => is_told = false,
                    None => {}
                }
            }
        }
    }
}
