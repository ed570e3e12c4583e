use std::time::Duration;

use tokio::time::Instant;

use super::within;

/// What a store may be asked for at once, by all tenants together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// How many calls of [`Storage::store`](crate::Storage::store) may be under way at the most, from 1 to 10,000. Default 256.
    ///
    /// It begins with that and adapts below it: a tenth less when the store gets clearly slower without storing more, or fails for
    /// many at once; one more, when all of it is used and the store is no slower than it was. 1 has the batches come one after the
    /// other.
    pub max_concurrency: u32,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_concurrency: 256 }
    }
}

impl StoreLimits {
    /// Whether they can work as written.
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        within("max_concurrency", self.max_concurrency, 1, 10_000)
    }
}

/// The weight of the newest interval in what is known of the past.
const NEWEST: f64 = 0.4;
/// So many deviations above the mean of the past, and a tenth at least, is clearly slower.
const DEVIATIONS: f64 = 2.5;
const CLEARLY: f64 = 1.1;

/// How many calls a store may have under way: additive increase, multiplicative decrease, judged once an interval of about the length
/// of a call.
///
/// Only calls that stored something tell how slow the store is: what a tenant's own calls hang or fail for is no measure of it. A
/// call that times out counts for nothing at all: fewer turns would only leave fewer to those whose calls do not hang, and it is for
/// the breakers to give the store a rest. Of what the store says no to for now only the first of each tenant in a row is told, and it
/// must be a tenth of all answers: one sick tenant, however often it is tried, takes no turns away from the others.
#[derive(Debug)]
pub(crate) struct Concurrency {
    max: u32,
    limit: u32,
    under_way: u32,
    past: Option<Past>,
    interval: Interval,
}

/// What calls took before, in seconds, and how many bytes a second there were.
#[derive(Debug, Clone, Copy)]
struct Past {
    mean: f64,
    variance: f64,
    rate: f64,
}

#[derive(Debug, Default)]
struct Interval {
    since: Option<Instant>,
    stored: u32,
    seconds: f64,
    bytes: f64,
    overloads: u32,
    /// The most that were under way at once.
    most: u32,
}

impl Concurrency {
    pub(crate) fn new(limits: StoreLimits) -> Self {
        let max = limits.max_concurrency.max(1);
        Self { max, limit: max, under_way: 0, past: None, interval: Interval::default() }
    }

    /// No more than that from here on.
    pub(crate) fn lower_max(&mut self, limits: StoreLimits) {
        self.max = self.max.min(limits.max_concurrency.max(1));
        self.limit = self.limit.min(self.max);
    }

    /// Whether one more call may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way < self.limit
    }

    /// A call begins.
    pub(crate) fn began(&mut self) {
        self.under_way += 1;
        self.interval.most = self.interval.most.max(self.under_way);
    }

    /// A call is over, whatever became of it.
    pub(crate) fn ended(&mut self) {
        self.under_way -= 1;
    }

    /// A call that is about to end stored so many bytes.
    pub(crate) fn stored(&mut self, latency: Duration, bytes: usize, now: Instant) {
        self.interval.stored += 1;
        self.interval.seconds += latency.as_secs_f64();
        self.interval.bytes += bytes as f64;
        self.look(now);
    }

    /// The store refused a call for now, of a tenant of which the call before had not failed.
    pub(crate) fn overloaded(&mut self, now: Instant) {
        self.interval.overloads += 1;
        self.look(now);
    }

    /// Judges the interval, if it is over.
    fn look(&mut self, now: Instant) {
        let Some(since) = self.interval.since else {
            self.interval.since = Some(now);
            return;
        };
        let lasting = now.saturating_duration_since(since).as_secs_f64();
        if lasting < self.past.map_or(0.0, |past| past.mean) || lasting == 0.0 {
            return;
        }
        let interval = std::mem::take(&mut self.interval);
        (self.interval.since, self.interval.most) = (Some(now), self.under_way);
        let Interval { stored, seconds, bytes, overloads, most, .. } = interval;
        // A limit that is hardly used is no reason for anything.
        let is_used = most.saturating_mul(2) >= self.limit;
        let (is_reached, mut down) = (most >= self.limit, overloads > 0 && overloads * 10 >= overloads + stored);
        let mut up = is_reached && overloads == 0;
        if stored > 0 {
            let (mean, rate) = (seconds / f64::from(stored), bytes / lasting);
            if let Some(past) = self.past {
                let slow = (past.mean + DEVIATIONS * past.variance.sqrt()).max(past.mean * CLEARLY);
                down |= mean > slow && rate <= past.rate;
                up &= mean <= past.mean * (1.0 + 1e-9);
            }
            self.past = Some(Past::of(self.past, mean, rate));
        } else {
            up = false;
        }
        if down && is_used {
            self.limit = (self.limit * 9 / 10).max(1);
        } else if up {
            self.limit = (self.limit + 1).min(self.max);
        }
    }
}

impl Past {
    fn of(before: Option<Self>, mean: f64, rate: f64) -> Self {
        let Some(past) = before else { return Self { mean, variance: 0.0, rate } };
        let (off, off_rate) = (mean - past.mean, rate - past.rate);
        Self {
            mean: past.mean + NEWEST * off,
            variance: (1.0 - NEWEST) * (past.variance + NEWEST * off * off),
            rate: past.rate + NEWEST * off_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A store whose calls, all that are allowed, take as long as `latency` says of how many there are; the limit after so many rounds.
    fn rounds(limit: &mut Concurrency, now: &mut Instant, rounds: u32, latency: impl Fn(u32) -> u64, bytes: usize) {
        for _ in 0..rounds {
            let calls = limit.limit;
            (0..calls).for_each(|_| limit.began());
            let took = Duration::from_millis(latency(calls));
            *now += took;
            for _ in 0..calls {
                limit.stored(took, bytes, *now);
                limit.ended();
            }
        }
    }

    fn of(max_concurrency: u32) -> (Concurrency, Instant) {
        (Concurrency::new(StoreLimits { max_concurrency }), Instant::now())
    }

    #[test]
    fn a_store_that_gets_slower_is_asked_less_and_one_that_holds_its_pace_is_asked_more_again() {
        let (mut limit, mut now) = of(100);
        rounds(&mut limit, &mut now, 10, |_| 10, 1_000);
        assert_eq!(limit.limit, 100);
        // Ten times as slow, at once: it takes a few looks until that is what it always was.
        rounds(&mut limit, &mut now, 3, |_| 100, 1_000);
        let less = limit.limit;
        assert!(less < 95, "{less}");
        rounds(&mut limit, &mut now, 60, |_| 10, 1_000);
        let more = limit.limit;
        assert_eq!(more, 100);
    }

    #[test]
    fn a_store_that_groups_what_waits_keeps_its_large_groups() {
        let (mut limit, mut now) = of(256);
        // A commit takes 5 ms and a little for each batch; later the batches are twice as large, and so is the commit's work.
        rounds(&mut limit, &mut now, 50, |calls| 5 + u64::from(calls) / 50, 1_000);
        rounds(&mut limit, &mut now, 50, |calls| 6 + u64::from(calls) / 25, 2_000);
        assert_eq!(limit.limit, 256);
    }

    #[test]
    fn a_limit_that_is_hardly_used_stays_as_it_is() {
        let (mut limit, mut now) = of(256);
        for nth in 0..1_000u64 {
            (0..3).for_each(|_| limit.began());
            now += Duration::from_millis(50);
            limit.stored(Duration::from_millis(1 + nth * nth % 97), 10, now);
            limit.overloaded(now);
            (0..3).for_each(|_| limit.ended());
        }
        assert_eq!(limit.limit, 256);
    }

    #[test]
    fn overload_by_a_tenth_of_the_answers_takes_a_tenth_of_the_limit() {
        for (failed, expected) in [(5, 100), (40, 90)] {
            let (mut limit, mut now) = of(100);
            rounds(&mut limit, &mut now, 5, |_| 10, 1_000);
            (0..100).for_each(|_| limit.began());
            now += Duration::from_millis(1);
            for nth in 0..100 {
                if nth < failed {
                    limit.overloaded(now);
                } else {
                    limit.stored(Duration::from_millis(10), 1_000, now);
                }
            }
            now += Duration::from_millis(20);
            limit.stored(Duration::from_millis(10), 1_000, now);
            assert_eq!(limit.limit, expected, "{failed}");
        }
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(
            max in 1..300u32,
            steps in prop::collection::vec((0..100u32, any::<bool>(), 0..5_000u64, 0..1_000u64), 0..300),
        ) {
            let (mut limit, mut now) = of(max);
            for (most, stores, took, gap) in steps {
                let before = limit.limit;
                let more = (0..most).take_while(|_| { let room = limit.has_room(); if room { limit.began(); } room }).count();
                now += Duration::from_millis(gap);
                if stores {
                    limit.stored(Duration::from_millis(took), 100, now);
                } else {
                    limit.overloaded(now);
                }
                (0..more).for_each(|_| limit.ended());
                let after = limit.limit;
                prop_assert!((1..=max).contains(&after));
                prop_assert!(after <= before + 1 && after >= before * 9 / 10, "{} then {}", before, after);
            }
        }
    }
}
