use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000 * MICRO;
const SECOND: u64 = 1_000 * MILLI;

/// Bounds for times, in nanoseconds: from 100 µs to 5 minutes.
const TIMES: &[u64] = &[
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    2_500 * MILLI,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    300 * SECOND,
];

/// Bounds for how many: from one to 100 000.
const NUMBERS: &[u64] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 100_000];

/// How values are spread over fixed bounds, counted without a lock: two atomic steps a value. To be read at any time, from any
/// thread.
///
/// ```
/// use std::time::Duration;
/// use headworks_actors::Histogram;
///
/// let histogram = Histogram::of_times();
/// histogram.took(Duration::from_millis(3));
/// let read = histogram.read();
/// assert_eq!((read.count(), read.sum_time()), (1, Duration::from_millis(3)));
/// ```
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// For times, from 100 µs to 5 minutes.
    #[must_use]
    pub fn of_times() -> Self {
        Self::new(TIMES)
    }

    /// For numbers of things, from 1 to 100 000.
    #[must_use]
    pub fn of_numbers() -> Self {
        Self::new(NUMBERS)
    }

    /// Counts a value; of a time, its nanoseconds.
    pub fn add(&self, value: u64) {
        let place = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time.
    pub fn took(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was counted so far. A value that is counted meanwhile may be missing from its sum.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What a [`Histogram`] has counted. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Distribution {
    /// The upper bounds, each one included.
    pub bounds: &'static [u64],
    /// How many values lie up to each bound and above the one before; last, how many are above all.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

impl Distribution {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values, where they are times.
    #[must_use]
    pub fn sum_time(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Adds what another has counted over the same bounds.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
        } else if self.bounds == other.bounds {
            self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
            self.sum = self.sum.wrapping_add(other.sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_value_is_counted_once_up_to_the_first_bound_that_holds_it(values in prop::collection::vec(0u64..400_000_000_000, 0..200)) {
            let histogram = Histogram::of_times();
            values.iter().for_each(|value| histogram.add(*value));
            let read = histogram.read();
            prop_assert_eq!(read.count(), values.len() as u64);
            prop_assert_eq!(read.sum, values.iter().sum::<u64>());
            let mut below = 0;
            for (bound, count) in read.bounds.iter().zip(&read.counts) {
                below += count;
                prop_assert_eq!(below, values.iter().filter(|value| *value <= bound).count() as u64);
            }
        }
    }

    #[test]
    fn what_is_above_all_bounds_is_counted_too_and_two_histograms_add_up() {
        let (one, other) = (Histogram::of_numbers(), Histogram::of_numbers());
        one.add(u64::from(u32::MAX));
        other.add(1);
        let mut both = Distribution::default();
        both.merge(&one.read());
        both.merge(&other.read());
        assert_eq!((both.count(), both.counts[0], both.counts[NUMBERS.len()]), (2, 1, 1));
        assert_eq!(both.sum, u64::from(u32::MAX) + 1);
    }

    #[test]
    fn bounds_grow() {
        assert!([TIMES, NUMBERS].iter().all(|bounds| bounds.is_sorted_by(|a, b| a < b)));
    }
}
