//! How fast a replay goes.

use std::num::NonZeroU32;
use std::time::Duration;

/// At most so many events at once.
const MOST: u32 = 512;
/// A second has so many groups, where the rate allows it.
const GROUPS: u32 = 20;

/// A rate, as a rule: how many at once, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    rate: NonZeroU32,
}

impl Pace {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self { rate }
    }

    /// How many go at once.
    pub(super) fn group(self) -> usize {
        (self.rate.get() / GROUPS).clamp(1, MOST) as usize
    }

    /// How long after the first the next ones may go, where `gone` have.
    pub(super) fn due(self, gone: u64) -> Duration {
        let nanos = u128::from(gone) * 1_000_000_000 / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_has_more_than_its_rate_and_a_group(rate in 1..1_000_000u32, groups in 1..1_000u64) {
            let pace = Pace::new(NonZeroU32::new(rate).unwrap());
            let group = pace.group() as u64;
            let gone = groups * group;
            // What has gone by the time the next group is due.
            let allowed = pace.due(gone).as_secs_f64() * f64::from(rate);
            prop_assert!((allowed - gone as f64).abs() <= 1.0, "{allowed} {gone}");
            prop_assert!(group <= u64::from(rate).max(1));
        }
    }
}
