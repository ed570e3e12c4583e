//! How often something happened lately: counts over sliding windows, in bounded memory. Pure: time is an argument.

use crate::model::UnixMillis;

/// Counts of the last minute, to 5 s, and of the last 5 and 60 minutes, to a minute.
///
/// 312 bytes, whatever is counted. A clock that goes back counts into the newest bucket; none of this ever counts twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sliding {
    fine: Ring<5_000, 12>,
    coarse: Ring<60_000, 60>,
}

impl Sliding {
    /// One more, at `at`.
    pub(crate) fn add(&mut self, at: UnixMillis) {
        self.fine.add(at);
        self.coarse.add(at);
    }

    /// What was counted in the last minute, the last 5 and the last 60, as of `now`. Each window ends with the bucket that
    /// `now` is in, and is shorter than its name by less than a bucket.
    pub(crate) fn counts(&self, now: UnixMillis) -> [u64; 3] {
        [self.fine.newest(12, now), self.coarse.newest(5, now), self.coarse.newest(60, now)]
    }
}

/// `N` buckets of `MILLIS` each; a bucket's place is its number modulo `N`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ring<const MILLIS: i64, const N: usize> {
    /// The number of the newest bucket.
    newest: i64,
    counts: [u32; N],
}

impl<const MILLIS: i64, const N: usize> Default for Ring<MILLIS, N> {
    fn default() -> Self {
        Self { newest: i64::MIN, counts: [0; N] }
    }
}

impl<const MILLIS: i64, const N: usize> Ring<MILLIS, N> {
    fn add(&mut self, at: UnixMillis) {
        let number = at.0.div_euclid(MILLIS).max(self.newest);
        // What lies between is empty; after a whole round, all is.
        let passed = number.saturating_sub(self.newest).min(N as i64);
        for back in 0..passed {
            self.counts[Self::place(number - back)] = 0;
        }
        self.newest = number;
        let count = &mut self.counts[Self::place(number)];
        *count = count.saturating_add(1);
    }

    /// The sum of the `buckets` that end with the one of `now`.
    fn newest(&self, buckets: i64, now: UnixMillis) -> u64 {
        let last = now.0.div_euclid(MILLIS).max(self.newest);
        let gone = last.saturating_sub(self.newest);
        (gone..buckets).map(|back| u64::from(self.counts[Self::place(last - back)])).sum()
    }

    fn place(number: i64) -> usize {
        usize::try_from(number.rem_euclid(N as i64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was counted in the buckets of `width` ms, as many as make `window` ms, that end with the one of `now`.
    fn model(times: &[i64], now: i64, width: i64, window: i64) -> u64 {
        let first = now.div_euclid(width) - window / width + 1;
        times.iter().filter(|at| at.div_euclid(width) >= first).count() as u64
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list_of_all_times(
            steps in prop::collection::vec(prop_oneof![0..100i64, 0..10_000i64, 0..400_000i64, 0..20_000_000i64], 0..300),
            begin in -10_000_000..2_000_000_000_000i64,
            later in prop_oneof![Just(0i64), 0..100_000i64, 0..8_000_000i64],
        ) {
            let (mut sliding, mut at, mut times) = (Sliding::default(), begin, vec![]);
            for step in steps {
                at += step;
                sliding.add(UnixMillis(at));
                times.push(at);
            }
            let now = at + later;
            let expected = [(5_000, 60_000), (60_000, 300_000), (60_000, 3_600_000)];
            let expected = expected.map(|(width, window)| model(&times, now, width, window));
            prop_assert_eq!(sliding.counts(UnixMillis(now)), expected);
        }

        #[test]
        fn no_clock_makes_it_panic_or_forget(times in prop::collection::vec(any::<i64>(), 1..50), now: i64) {
            let mut sliding = Sliding::default();
            for at in &times {
                sliding.add(UnixMillis(*at));
            }
            let counts = sliding.counts(UnixMillis(now));
            prop_assert!(counts[1] <= counts[2] && counts[2] <= times.len() as u64);
            prop_assert!(sliding.counts(UnixMillis(i64::MIN))[0] >= 1, "the newest bucket is there however the clock goes back");
        }
    }
}
