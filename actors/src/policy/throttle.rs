use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{lasting, units, within};

/// What a tenant may send over time, and what becomes of more. By default nobody is held to a rate.
///
/// Both rates hold together. Of any span of time, no more passes than the rate brings in it and the burst on top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottlePolicy {
    /// How many events a second may pass; 0 for no limit. Default 0.
    pub events_per_second: u64,
    /// How many bytes of event bodies a second may pass; 0 for no limit. Default 0.
    #[serde(with = "units::bytes")]
    pub bytes_per_second: usize,
    /// How many events may pass at once after a pause; 0 for what the rate brings in a second. At least what it brings in 50 ms:
    /// the clock of the door is no finer. Default 0.
    pub burst_events: u64,
    /// The same in bytes. One event alone may be larger: it passes after a pause, and what follows waits the longer. Default 0.
    #[serde(with = "units::bytes")]
    pub burst_bytes: usize,
    /// What becomes of events above the rate. Default `delay`.
    pub when_over: WhenOver,
    /// How long `delay` may hold connections that have brought events of other tenants, too: all of its waits together; afterwards
    /// what is above the rate is refused, until the tenant was within it for as long. A connection of one tenant is held for as long as
    /// it takes. Default 5 s.
    #[serde(with = "units::duration")]
    pub delay_for: Duration,
}

/// The choices for a tenant above its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenOver {
    /// The connection is not read until they may pass: the sender feels it, nothing is lost. Others on the same connection wait
    /// too, for `delay_for` at the most.
    Delay,
    /// They are refused at once, and counted as throttled. A sender that asks is told when to come again.
    Reject,
}

/// The least burst is what the rate brings in such a part of a second.
const LEAST_BURST: u64 = 20;

impl Default for ThrottlePolicy {
    fn default() -> Self {
        Self {
            events_per_second: 0,
            bytes_per_second: 0,
            burst_events: 0,
            burst_bytes: 0,
            when_over: WhenOver::Delay,
            delay_for: Duration::from_secs(5),
        }
    }
}

impl ThrottlePolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        within("throttle.events_per_second", self.events_per_second, 0, 1_000_000_000)?;
        within("throttle.bytes_per_second", self.bytes_per_second, 0, 1 << 40)?;
        let bytes = self.bytes_per_second as u64;
        for (key, burst, rate, unit) in [
            ("throttle.burst_events", self.burst_events, self.events_per_second, ""),
            ("throttle.burst_bytes", self.burst_bytes as u64, bytes, " bytes"),
        ] {
            within(key, burst, 0, 1 << 40)?;
            let least = rate.div_ceil(LEAST_BURST);
            if burst > 0 && burst < least {
                return Err(format!(
                    "{key} is {burst}, but must be at least {least}{unit}, which the rate brings in 50ms, or 0 for what it brings \
                     in a second"
                ));
            }
        }
        lasting("throttle.delay_for", self.delay_for, Duration::ZERO, Duration::from_secs(24 * 3600))
    }

    /// The rates that are set, as an error says them.
    pub(crate) fn rates(&self) -> String {
        let events =
            (self.events_per_second > 0).then(|| format!("throttle.events_per_second = {}", self.events_per_second));
        let bytes = (self.bytes_per_second > 0)
            .then(|| format!("throttle.bytes_per_second = {}", units::bytes::display(self.bytes_per_second)));
        events.into_iter().chain(bytes).collect::<Vec<_>>().join(" and ")
    }

    /// Whether there is a rate to hold to.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.events_per_second > 0 || self.bytes_per_second > 0
    }
}

/// How much of a tenant's rate is used up, as a rule (GCRA): it knows how much passed, and what of that time has paid for.
#[derive(Debug, Clone)]
pub struct Throttle {
    events: Meter,
    bytes: Meter,
}

impl Throttle {
    /// One that nothing has passed.
    #[must_use]
    pub fn new(policy: &ThrottlePolicy, now: Instant) -> Self {
        let idle = || Meter { rate: 0, burst: 0, is_on: false, debt: 0, at: now };
        let mut throttle = Self { events: idle(), bytes: idle() };
        throttle.change(policy, now);
        throttle
    }

    /// Other rates from now on. What was used of the burst stays used, in proportion, also while a rate is turned off: so no
    /// change brings a burst anew, and after any change the next event passes as soon as the new rate brings it.
    pub fn change(&mut self, policy: &ThrottlePolicy, now: Instant) {
        self.events.change(policy.events_per_second, policy.burst_events, now);
        self.bytes.change(policy.bytes_per_second as u64, policy.burst_bytes as u64, now);
    }

    /// How many of a run of events may pass now; `bytes_of(n)` is the size of its first `n`. To be [paid](Self::pay) for.
    pub fn may_pass(&mut self, events: usize, bytes_of: impl Fn(usize) -> usize, now: Instant) -> usize {
        self.events.settle(now);
        self.bytes.settle(now);
        let fits = |n: usize| self.events.has_room(n as u64, n) && self.bytes.has_room(bytes_of(n) as u64, n);
        if fits(events) {
            return events;
        }
        let (mut passes, mut exceeds) = (0, events);
        while exceeds - passes > 1 {
            let middle = passes + (exceeds - passes) / 2;
            if fits(middle) { passes = middle } else { exceeds = middle }
        }
        passes
    }

    /// So many passed, as [`may_pass`](Self::may_pass) said.
    pub fn pay(&mut self, events: usize, bytes: usize) {
        self.events.pay(events as u64);
        self.bytes.pay(bytes as u64);
    }

    /// How many events and how many bytes may pass at once now: `None` for a rate that is not set.
    #[must_use]
    pub fn left(&mut self, now: Instant) -> (Option<u64>, Option<u64>) {
        self.events.settle(now);
        self.bytes.settle(now);
        (self.events.left(), self.bytes.left())
    }

    /// How long after the last question an event of `bytes` may pass, if nothing else does.
    #[must_use]
    pub fn wait(&self, bytes: usize) -> Duration {
        self.events.wait(1).max(self.bytes.wait(bytes as u64))
    }
}

/// One of the two rates. What has passed is a debt, which time pays back at the rate, and which may not exceed the burst.
#[derive(Debug, Clone)]
struct Meter {
    /// Also of a meter that was turned off: by it the debt goes down.
    rate: u64,
    burst: u64,
    is_on: bool,
    /// In billionths, so that a nanosecond pays a whole number of them.
    debt: u128,
    /// Up to when it is paid.
    at: Instant,
}

const BILLION: u128 = 1_000_000_000;

impl Meter {
    fn change(&mut self, rate: u64, burst: u64, now: Instant) {
        self.settle(now);
        self.is_on = rate > 0;
        if !self.is_on {
            return;
        }
        let burst = if burst > 0 { burst } else { rate };
        if self.burst > 0 {
            let in_proportion = (self.debt * u128::from(burst)).div_ceil(u128::from(self.burst));
            self.debt = in_proportion.min(u128::from(burst) * BILLION);
        }
        (self.rate, self.burst) = (rate, burst);
    }

    fn settle(&mut self, now: Instant) {
        let paid = now.saturating_duration_since(self.at).as_nanos().saturating_mul(u128::from(self.rate));
        self.debt = self.debt.saturating_sub(paid);
        self.at = self.at.max(now);
    }

    /// Whether `amount` may pass, in so many events: one alone may be of any size, once nothing is owed.
    fn has_room(&self, amount: u64, events: usize) -> bool {
        !self.is_on || (events <= 1 && self.debt == 0) || self.debt + u128::from(amount) * BILLION <= self.most()
    }

    fn most(&self) -> u128 {
        u128::from(self.burst) * BILLION
    }

    fn left(&self) -> Option<u64> {
        self.is_on.then(|| u64::try_from(self.most().saturating_sub(self.debt) / BILLION).unwrap_or(u64::MAX))
    }

    fn pay(&mut self, amount: u64) {
        if self.is_on {
            self.debt += u128::from(amount) * BILLION;
        }
    }

    fn wait(&self, amount: u64) -> Duration {
        let too_much = self.debt.saturating_sub(self.most().saturating_sub(u128::from(amount) * BILLION));
        if !self.is_on || too_much == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(u64::try_from(too_much.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(events_per_second: u64, burst_events: u64) -> ThrottlePolicy {
        ThrottlePolicy { events_per_second, burst_events, ..ThrottlePolicy::default() }
    }

    fn bytes(bytes_per_second: usize, burst_bytes: usize) -> ThrottlePolicy {
        ThrottlePolicy { bytes_per_second, burst_bytes, ..ThrottlePolicy::default() }
    }

    fn take(throttle: &mut Throttle, wanted: usize, size: usize, now: Instant) -> usize {
        let passed = throttle.may_pass(wanted, |n| n * size, now);
        throttle.pay(passed, passed * size);
        passed
    }

    /// The definition itself: the most that leaves no span of time with more than its rate brings and the burst.
    fn allowed(passed: &[(u128, u128)], rate: u64, burst: u64, at: u128) -> u128 {
        let span = |from: usize| {
            let brought = u128::from(burst) * BILLION + (at - passed[from].0) * u128::from(rate);
            (brought / BILLION).saturating_sub(passed[from..].iter().map(|(_, n)| n).sum())
        };
        (0..passed.len()).map(span).min().unwrap_or(u128::MAX).min(u128::from(burst))
    }

    proptest! {
        #[test]
        fn what_passes_is_the_most_that_no_span_of_time_forbids(
            rate in 1..3_000u64,
            burst in 1..200u64,
            arrivals in prop::collection::vec((0..400_000_000u64, 1..300usize), 1..60),
        ) {
            let start = Instant::now();
            let mut throttle = Throttle::new(&events(rate, burst), start);
            let (mut at, mut passed) = (0, vec![]);
            for (gap, wanted) in arrivals {
                at += gap;
                let expected = allowed(&passed, rate, burst, u128::from(at)).min(wanted as u128);
                let took = take(&mut throttle, wanted, 1, start + Duration::from_nanos(at)) as u128;
                prop_assert_eq!(took, expected);
                passed.push((u128::from(at), took));
            }
        }

        #[test]
        fn what_waits_as_long_as_it_is_told_passes_then_and_not_a_nanosecond_before(
            rate in 1..2_000_000usize,
            burst in 1..100_000usize,
            sizes in prop::collection::vec(1..200_000usize, 1..50),
        ) {
            let mut now = Instant::now();
            let mut throttle = Throttle::new(&bytes(rate, burst), now);
            for size in sizes {
                if take(&mut throttle, 1, size, now) == 0 {
                    let wait = throttle.wait(size);
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert_eq!(throttle.may_pass(1, |n| n * size, now + wait - Duration::from_nanos(1)), 0);
                    now += wait;
                    prop_assert_eq!(take(&mut throttle, 1, size, now), 1);
                }
            }
        }

        /// Counted in bursts, as their size changes: whatever is changed, at most one is free, and the rest is what the rates bring.
        #[test]
        fn no_change_of_the_rate_brings_a_burst_anew_or_leaves_a_debt_that_starves(
            steps in prop::collection::vec((0..2_000u64, 1..500usize, prop::option::of((1..500u64, 1..500u64))), 1..60),
        ) {
            let start = Instant::now();
            let (mut rate, mut burst) = (10, 20);
            let mut throttle = Throttle::new(&events(rate, burst), start);
            let (mut now, mut brought, mut passed) = (start, 1.0, 0.0);
            for (gap, wanted, change) in steps {
                now += Duration::from_millis(gap);
                brought += gap as f64 / 1_000.0 * rate as f64 / burst as f64;
                if let Some(change) = change {
                    throttle.change(&events(0, 0), now);
                    throttle.change(&events(change.0, change.1), now);
                    (rate, burst) = change;
                    let soon = Duration::from_nanos(1_000_000_000u64.div_ceil(rate));
                    prop_assert!(throttle.wait(0) <= soon, "{:?} is more than {soon:?}", throttle.wait(0));
                }
                passed += take(&mut throttle, wanted, 1, now) as f64 / burst as f64;
                prop_assert!(passed <= brought + 1e-9, "{passed} of {brought}");
            }
        }

        #[test]
        fn a_steady_flood_passes_at_the_rate(rate in 1..5_000usize, wanted in 1..5_000usize) {
            let start = Instant::now();
            let mut throttle = Throttle::new(&events(rate as u64, 0), start);
            let took: Vec<_> = (0..2_000).map(|tick| {
                let now = start + Duration::from_millis(tick * 10);
                (0..5).map(|_| take(&mut throttle, wanted.max(rate), 1, now)).sum::<usize>()
            }).collect();
            for ten_seconds in took[1..].windows(1_000).step_by(100) {
                let sum: usize = ten_seconds.iter().sum();
                prop_assert!(sum.abs_diff(rate * 10) <= 1 + rate / 10, "{sum} at {rate}");
            }
        }
    }

    #[test]
    fn both_rates_hold_together() {
        let now = Instant::now();
        let policy = ThrottlePolicy { bytes_per_second: 1_000, ..events(10, 0) };
        assert_eq!(Throttle::new(&policy, now).may_pass(100, |n| n * 10, now), 10);
        assert_eq!(Throttle::new(&policy, now).may_pass(100, |n| n * 300, now), 3);
    }

    #[test]
    fn an_event_above_the_burst_passes_alone_after_a_pause_and_is_paid_for() {
        let now = Instant::now();
        let mut throttle = Throttle::new(&bytes(1_000, 100), now);
        assert_eq!(take(&mut throttle, 5, 2_000, now), 1);
        assert_eq!((take(&mut throttle, 5, 2_000, now), throttle.wait(2_000)), (0, Duration::from_secs(2)));
        assert_eq!(throttle.wait(100), Duration::from_secs(2));
        assert_eq!(throttle.wait(50), Duration::from_millis(1_950));
        assert_eq!(take(&mut throttle, 5, 2_000, now + Duration::from_secs(2)), 1);
    }

    #[test]
    fn a_rate_that_is_off_holds_nothing_and_back_on_has_no_burst_anew() {
        let now = Instant::now();
        let mut throttle = Throttle::new(&events(10, 0), now);
        assert_eq!(take(&mut throttle, 50, 1, now), 10);
        throttle.change(&events(0, 0), now);
        assert_eq!((take(&mut throttle, 1_000, 1, now), throttle.wait(1)), (1_000, Duration::ZERO));
        throttle.change(&events(10, 0), now);
        assert_eq!(take(&mut throttle, 50, 1, now), 0);
        assert_eq!(take(&mut throttle, 50, 1, now + Duration::from_millis(300)), 3);
    }

    #[test]
    fn a_burst_that_the_clock_of_the_door_could_not_use_is_refused() {
        let why = events(1_000, 49).check().unwrap_err();
        assert!(why.starts_with("throttle.burst_events is 49, but must be at least 50"), "{why}");
        assert_eq!(
            [events(1_000, 50), events(10, 1), events(1_000, 0)].map(|policy| policy.check()),
            [Ok(()), Ok(()), Ok(())]
        );
        assert!(bytes(1 << 20, 1_000).check().unwrap_err().starts_with("throttle.burst_bytes is 1000, "));
    }
}
