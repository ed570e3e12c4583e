use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{lasting, units, within};

/// How storing a batch is tried again: exponential backoff with a cap and full jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// How many attempts in all, the first one included. Default 5.
    pub attempts: u32,
    /// The bound of the first wait; each further bound is twice the last. Default 200 ms.
    #[serde(with = "units::duration")]
    pub base: Duration,
    /// The highest bound of a wait. Default 30 s.
    #[serde(with = "units::duration")]
    pub cap: Duration,
    /// How long one attempt may take before it counts as failed, from when its turn at the store has come. Default 10 s.
    #[serde(with = "units::duration")]
    pub attempt_timeout: Duration,
    /// How long the attempts of a batch at one store may take together, with the waits between them: none begins later, whatever
    /// is left of `attempts`. A time in which the store is not available, in which the tenant is stopped or restarted, in which its
    /// breaker is open or in which it waits for its turn at the store, does not count. Default 10 min.
    #[serde(with = "units::duration")]
    pub deadline: Duration,
    /// How long one compensation of a batch that was given up is tried in a row. One that could not be done by then is put on the
    /// list of the uncompensated and tried again from there, while the tenant goes on. Default 60 s.
    #[serde(with = "units::duration")]
    pub compensation_deadline: Duration,
    /// A batch that a store refuses for good is split until the events that it refuses are found, up to so many in one batch; pieces
    /// that are refused after that become dead letters whole. 0 splits none. Default 100.
    pub max_poison: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(200),
            cap: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(600),
            compensation_deadline: Duration::from_secs(60),
            max_poison: 100,
        }
    }
}

impl RetryPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        let (milli, day) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
        within("retry.attempts", self.attempts, 1, 1_000)?;
        lasting("retry.base", self.base, milli, day)?;
        lasting("retry.cap", self.cap, self.base, day)?;
        lasting("retry.attempt_timeout", self.attempt_timeout, milli, day)?;
        lasting("retry.deadline", self.deadline, milli, day)?;
        lasting("retry.compensation_deadline", self.compensation_deadline, milli, day)
    }

    /// The longest that the wait after `failures` failed attempts in a row may be.
    #[must_use]
    pub fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }

    /// The wait after `failures` failed attempts in a row: anywhere from nothing to the bound (full jitter), so that
    /// tenants which failed together do not come back together; but not before the store's own `retry_after`.
    pub fn wait(&self, failures: u32, retry_after: Option<Duration>, rng: &mut fastrand::Rng) -> Duration {
        self.bound(failures).mul_f64(rng.f64()).max(retry_after.unwrap_or_default())
    }
}

/// What is left to do about one batch, as its attempts fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retry {
    spent: u32,
    unavailable_in_a_row: u32,
}

impl Retry {
    /// How many attempts are spent.
    #[must_use]
    pub fn spent(&self) -> u32 {
        self.spent
    }

    /// An attempt failed: the wait before the next one, or `None` if there is none left.
    pub fn failed(
        &mut self,
        policy: &RetryPolicy,
        retry_after: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        self.spent += 1;
        self.unavailable_in_a_row = 0;
        (self.spent < policy.attempts).then(|| policy.wait(self.spent, retry_after, rng))
    }

    /// The store was not there: no attempt is spent, however often. The wait before it is asked again.
    pub fn unavailable(
        &mut self,
        policy: &RetryPolicy,
        retry_after: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        self.unavailable_in_a_row = self.unavailable_in_a_row.saturating_add(1);
        policy.wait(self.unavailable_in_a_row, retry_after, rng)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_never_above_its_bound_nor_before_the_store_asked(
            base in 1..1_000u64, cap in 1..100_000u64, failures in 0..1_000u32,
            after in prop::option::of(0..100_000u64), seed: u64,
        ) {
            let policy = RetryPolicy {
                base: Duration::from_millis(base),
                cap: Duration::from_millis(base.max(cap)),
                ..RetryPolicy::default()
            };
            let after = after.map(Duration::from_millis);
            let wait = policy.wait(failures, after, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(wait <= policy.bound(failures).max(after.unwrap_or_default()));
            prop_assert!(after.is_none_or(|after| wait >= after));
            prop_assert!(policy.bound(failures) <= policy.cap);
        }
    }

    #[test]
    fn bounds_double_up_to_the_cap() {
        let policy = RetryPolicy { cap: Duration::from_secs(1), ..RetryPolicy::default() };
        let bounds: Vec<_> = (1..=5).map(|failures| policy.bound(failures).as_millis()).collect();
        assert_eq!(bounds, [200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn five_attempts_mean_four_waits_and_an_unavailable_store_spends_none() {
        let (policy, mut rng) = (RetryPolicy::default(), fastrand::Rng::with_seed(1));
        let mut retry = Retry::default();
        for _ in 0..100 {
            assert!(retry.unavailable(&policy, None, &mut rng) <= policy.cap);
        }
        let waits = (0..5).filter(|_| retry.failed(&policy, None, &mut rng).is_some()).count();
        assert_eq!((waits, retry.spent()), (4, 5));
    }
}
