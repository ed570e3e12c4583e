use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{lasting, units, within};
use crate::model::BreakerState;

/// When a store is left alone by one tenant, whose calls of it keep failing: the circuit breaker between the two.
///
/// It counts what fails and may pass: transient errors, timeouts and panics, in a row, whatever batch they are of. A success and a
/// refusal for good are answers, and end the row. A store that says that it is not available counts for nothing here: then the
/// tenant is parked, as all that share the store are, and woken with them.
///
/// While the breaker is open the tenant's batches wait. That spends none of their attempts, nor of `retry.deadline`; then the next
/// attempt is the probe: where it succeeds the breaker is closed, else it stays open for as long again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// How many failed calls in a row open it; 0 for never. At most 1000. Default 10: two batches of five attempts.
    pub failures: u32,
    /// How long it stays open before a call is tried again. Default 30 s.
    #[serde(with = "units::duration")]
    pub wait: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 10, wait: Duration::from_secs(30) }
    }
}

impl BreakerPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        within("breaker.failures", self.failures, 0, 1_000)?;
        lasting("breaker.wait", self.wait, Duration::from_millis(1), Duration::from_secs(24 * 3600))
    }
}

/// The circuit breaker of one tenant at one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Breaker {
    in_a_row: u32,
    /// When the probe is due, from its opening until it is closed.
    probe_at: Option<Instant>,
}

/// What a failure did to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tripped {
    /// No call before.
    pub(crate) until: Instant,
    /// It was closed before.
    pub(crate) is_new: bool,
}

impl Breaker {
    /// How many calls failed in a row.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// A call failed in a way that may pass. Where that has the breaker open: until when.
    pub(crate) fn failed(&mut self, policy: &BreakerPolicy, now: Instant) -> Option<Tripped> {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if policy.failures == 0 {
            self.probe_at = None;
            return None;
        }
        let trips = self.probe_at.is_some() || self.in_a_row >= policy.failures;
        trips.then(|| {
            let until = now + policy.wait;
            Tripped { until, is_new: self.probe_at.replace(until).is_none() }
        })
    }

    /// Until when no call goes through, if none does at `now`.
    pub(crate) fn open_until(&self, policy: &BreakerPolicy, now: Instant) -> Option<Instant> {
        self.probe_at.filter(|at| policy.failures > 0 && now < *at)
    }

    /// When the probe is due, or was.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// What it is at `now`.
    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        match self.probe_at {
            None => BreakerState::Closed,
            Some(at) if now < at => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_opens_at_the_last_failure_allowed_and_a_probe_that_fails_opens_it_again() {
        let policy = BreakerPolicy { failures: 3, wait: Duration::from_secs(30) };
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        assert_eq!([breaker.failed(&policy, start), breaker.failed(&policy, start)], [None; 2]);
        assert_eq!(breaker.state(start), BreakerState::Closed);
        let until = start + policy.wait;
        assert_eq!(breaker.failed(&policy, start), Some(Tripped { until, is_new: true }));
        assert_eq!((breaker.state(start), breaker.state(until)), (BreakerState::Open, BreakerState::HalfOpen));
        assert_eq!((breaker.open_until(&policy, start), breaker.open_until(&policy, until)), (Some(until), None));
        let next = until + policy.wait;
        assert_eq!(breaker.failed(&policy, until), Some(Tripped { until: next, is_new: false }));
        assert_eq!((breaker.state(until), breaker.in_a_row()), (BreakerState::Open, 4));
    }

    #[test]
    fn one_that_is_turned_off_holds_nobody_not_even_where_it_was_open() {
        let (on, off) = (
            BreakerPolicy { failures: 1, ..BreakerPolicy::default() },
            BreakerPolicy { failures: 0, ..BreakerPolicy::default() },
        );
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        assert!(breaker.failed(&on, start).is_some() && breaker.open_until(&off, start).is_none());
        assert!(breaker.failed(&off, start).is_none() && breaker.open_until(&on, start).is_none());
    }

    proptest! {
        /// Against the plain reading: from the last success, count the failures.
        #[test]
        fn it_is_open_for_the_wait_after_each_failure_from_the_one_that_opened_it_on(
            failures in 1..6u32, steps in prop::collection::vec((0..50u64, any::<bool>()), 1..60),
        ) {
            let policy = BreakerPolicy { failures, wait: Duration::from_secs(30) };
            let (mut breaker, start) = (Breaker::default(), Instant::now());
            let (mut now, mut row) = (start, vec![]);
            for (gap, fails) in steps {
                now += Duration::from_secs(gap);
                if fails {
                    row.push(now);
                    breaker.failed(&policy, now);
                } else {
                    row.clear();
                    breaker = Breaker::default();
                }
                let opened = row.get(failures as usize - 1..).and_then(|after| after.last());
                prop_assert_eq!(breaker.open_until(&policy, now), opened.map(|at| *at + policy.wait));
            }
        }
    }
}
