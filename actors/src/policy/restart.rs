use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{lasting, units, within};

/// How often and how soon a tenant's actor that failed is started afresh. The failures of both its actors count together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestartPolicy {
    /// How many restarts within `period` are allowed with no batch settled in between. Default 5.
    pub intensity: u32,
    /// The period that `intensity` speaks of. Default 60 s.
    #[serde(with = "units::duration")]
    pub period: Duration,
    /// The wait before the first restart; each further wait is twice the last, with up to a quarter of jitter.
    /// Default 50 ms.
    #[serde(with = "units::duration")]
    pub base: Duration,
    /// The longest wait before a restart. Default 10 s.
    #[serde(with = "units::duration")]
    pub cap: Duration,
    /// How long a tenant whose intensity is spent stays in quarantine. Default 60 s.
    #[serde(with = "units::duration")]
    pub quarantine: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            intensity: 5,
            period: Duration::from_secs(60),
            base: Duration::from_millis(50),
            cap: Duration::from_secs(10),
            quarantine: Duration::from_secs(60),
        }
    }
}

impl RestartPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        let (milli, day) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
        within("restart.intensity", self.intensity, 1, 1_000)?;
        lasting("restart.period", self.period, milli, day)?;
        // Not zero: an actor that fails at once on every start must not spin.
        lasting("restart.base", self.base, milli, day)?;
        lasting("restart.cap", self.cap, self.base, day)?;
        lasting("restart.quarantine", self.quarantine, milli, day)
    }
}

/// What to do about an actor that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start a fresh one after the wait; the number counts restarts in a row without progress, from 1.
    Restart {
        /// Which restart in a row this is.
        attempt: u32,
        /// The wait before it.
        after: Duration,
    },
    /// The intensity is spent: leave it alone for so long.
    Quarantine {
        /// For how long.
        lasting: Duration,
    },
}

/// The restarts so far of the actors that fail together: those of one tenant, or those of the root.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    /// When each restart without progress in between was; never more than `intensity`.
    recent: Vec<Instant>,
    progress: u64,
}

impl Restarts {
    /// Whether a failure now would count together with earlier ones.
    pub(crate) fn are_recent(&self, policy: &RestartPolicy, now: Instant) -> bool {
        self.recent.iter().any(|at| now.duration_since(*at) < policy.period)
    }

    /// One of them failed at `now`. `progress` counts the batches its tenant has settled so far: where it grew since the
    /// last failure, the count of restarts begins anew.
    pub fn failed(&mut self, policy: &RestartPolicy, now: Instant, progress: u64, rng: &mut fastrand::Rng) -> Decision {
        if progress != self.progress {
            self.progress = progress;
            self.recent.clear();
        }
        self.recent.retain(|at| now.duration_since(*at) < policy.period);
        if self.recent.len() >= policy.intensity as usize {
            self.recent.clear();
            return Decision::Quarantine { lasting: policy.quarantine };
        }
        self.recent.push(now);
        let attempt = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        let bound = policy.base.saturating_mul(1 << (attempt - 1).min(31)).min(policy.cap);
        Decision::Restart { attempt, after: bound.mul_f64(1.0 - rng.f64() / 4.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attempts(decisions: &[Decision]) -> Vec<u32> {
        decisions.iter().map(|d| if let Decision::Restart { attempt, .. } = d { *attempt } else { 0 }).collect()
    }

    #[test]
    fn the_sixth_restart_without_progress_is_a_quarantine() {
        let (policy, mut rng) = (RestartPolicy::default(), fastrand::Rng::with_seed(1));
        let mut restarts = Restarts::default();
        let now = Instant::now();
        let decisions: Vec<_> = (0..6).map(|_| restarts.failed(&policy, now, 0, &mut rng)).collect();
        assert_eq!(attempts(&decisions), [1, 2, 3, 4, 5, 0]);
        assert_eq!(decisions[5], Decision::Quarantine { lasting: Duration::from_secs(60) });
    }

    #[test]
    fn a_batch_settled_in_between_begins_the_count_anew() {
        let (policy, mut rng) = (RestartPolicy::default(), fastrand::Rng::with_seed(1));
        let mut restarts = Restarts::default();
        let now = Instant::now();
        let decisions: Vec<_> = (0..100).map(|n| restarts.failed(&policy, now, n / 3, &mut rng)).collect();
        assert!(attempts(&decisions).iter().all(|attempt| (1..=3).contains(attempt)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_intensity_within_the_period(
            intensity in 1..6u32, gaps in prop::collection::vec(0..40_000u64, 1..60), seed: u64,
        ) {
            let policy = RestartPolicy { intensity, ..RestartPolicy::default() };
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut restarts = Restarts::default();
            let (mut now, mut made) = (Instant::now(), vec![]);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match restarts.failed(&policy, now, 0, &mut rng) {
                    Decision::Restart { after, .. } => {
                        prop_assert!(after <= policy.cap && after >= policy.base.mul_f64(0.7));
                        made.push(now);
                    }
                    Decision::Quarantine { lasting } => { now += lasting; made.clear(); }
                }
                let within = made.iter().filter(|at| now.duration_since(**at) < policy.period).count();
                prop_assert!(within <= intensity as usize);
            }
        }
    }
}
