use std::time::Duration;

use tokio::time::Instant;

/// For how long a tenant that is full, or above its rate, has held connections that it shares with others.
///
/// It counts over all of its waits, so that a tenant that is full again and again cannot hold the others for the whole bound each
/// time; and begins anew once the tenant has met no bound for as long as that.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience {
    spent: Duration,
    /// When a bound was met last.
    asked: Option<Instant>,
    /// Until when what was held is counted.
    counted: Option<Instant>,
}

impl Patience {
    /// The tenant is full, or above its rate: how much longer it may hold others.
    pub(crate) fn left(&mut self, bound: Duration, now: Instant) -> Duration {
        if !self.lasts(bound, now) {
            self.spent = Duration::ZERO;
        }
        self.asked = Some(now);
        bound.saturating_sub(self.spent)
    }

    /// Whether it has not begun anew by now.
    pub(crate) fn lasts(&self, bound: Duration, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < bound)
    }

    /// A connection was held from then until then. Of several at once, the time counts once.
    pub(crate) fn held(&mut self, from: Instant, until: Instant) {
        self.spent += until.saturating_duration_since(self.counted.map_or(from, |counted| counted.max(from)));
        self.counted = self.counted.max(Some(until));
        self.asked = self.asked.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(5);

    #[test]
    fn what_is_held_side_by_side_counts_once_and_all_waits_together_come_to_the_bound() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut patience = Patience::default();
        assert_eq!(patience.left(BOUND, at(0)), BOUND);
        assert_eq!(patience.left(BOUND, at(0)), BOUND);
        patience.held(at(0), at(2_000));
        patience.held(at(0), at(2_000));
        assert_eq!(patience.left(BOUND, at(2_500)), Duration::from_secs(3));
        patience.held(at(2_500), at(5_500));
        assert_eq!(patience.left(BOUND, at(5_600)), Duration::ZERO);
    }

    #[test]
    fn it_begins_anew_only_after_a_time_without_a_bound() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::default();
        patience.left(BOUND, at(0));
        patience.held(at(0), at(5));
        for second in 6..100 {
            assert_eq!(patience.left(BOUND, at(second)), Duration::ZERO, "still full after {second} s");
        }
        assert_eq!(patience.left(BOUND, at(104)), BOUND);
    }

    #[test]
    fn no_bound_is_no_patience() {
        assert_eq!(Patience::default().left(Duration::ZERO, Instant::now()), Duration::ZERO);
    }
}
