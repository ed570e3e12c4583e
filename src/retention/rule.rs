use std::ops::AddAssign;

use headworks_actors::{RetentionPolicy, UnixMillis};
use serde::{Deserialize, Serialize};

/// A stored batch, as far as it counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// When its last event arrived.
    pub arrived: UnixMillis,
    /// Of its bodies.
    pub bytes: u64,
}

/// What was pruned, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pruned {
    /// Whole batches.
    pub batches: u64,
    /// Their events.
    pub events: u64,
    /// The bytes of their bodies.
    pub bytes: u64,
}

impl AddAssign for Pruned {
    fn add_assign(&mut self, more: Self) {
        self.batches += more.batches;
        self.events += more.events;
        self.bytes += more.bytes;
    }
}

/// How many of a tenant's oldest batches are to go at `now`; all batches together take `bytes`. `oldest` are in the order in which
/// they were stored, from the oldest on: all of them, or as many as are looked at together. What was stored before one that is due
/// goes with it, whatever the clock said.
///
/// ```
/// use headworks::retention::{Kept, due};
/// use headworks::{RetentionPolicy, UnixMillis};
///
/// let oldest = [1_000, 2_000, 3_000].map(|at| Kept { arrived: UnixMillis(at), bytes: 10 });
/// let mut rules = RetentionPolicy::default();
/// assert_eq!(due(&oldest, 30, &rules, UnixMillis(9_000)), 0);
/// rules.max_age = Some(std::time::Duration::from_secs(7));
/// assert_eq!(due(&oldest, 30, &rules, UnixMillis(9_000)), 2);
/// rules.max_bytes = 5;
/// assert_eq!(due(&oldest, 30, &rules, UnixMillis(9_000)), 3);
/// ```
#[must_use]
pub fn due(oldest: &[Kept], bytes: u64, rules: &RetentionPolicy, now: UnixMillis) -> usize {
    let by_age = rules.max_age.map_or(0, |age| {
        let before = now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        oldest.iter().rposition(|kept| kept.arrived.0 <= before).map_or(0, |last| last + 1)
    });
    let by_size = match rules.max_bytes as u64 {
        0 => 0,
        most => {
            let mut left = bytes;
            let is_above = |kept: &&Kept| {
                let before = left;
                left = left.saturating_sub(kept.bytes);
                before > most
            };
            oldest.iter().take_while(is_above).count()
        }
    };
    by_age.max(by_size)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_goes_if_it_or_one_behind_it_is_too_old_or_too_much_lies_from_it_on(
            batches in prop::collection::vec((0..100i64, 0..100u64), 0..20),
            newer in 0..200u64, max_age in prop::option::of(0..100u64), max_bytes in 0..1000usize, now in 0..200i64,
        ) {
            let oldest: Vec<_> = batches.iter().map(|(at, bytes)| Kept { arrived: UnixMillis(*at), bytes: *bytes }).collect();
            let all = newer + oldest.iter().map(|kept| kept.bytes).sum::<u64>();
            let rules = RetentionPolicy { max_age: max_age.map(Duration::from_millis), max_bytes, ..RetentionPolicy::default() };
            let goes = |nth: usize| {
                let is_old = |kept: &Kept| max_age.is_some_and(|age| now - kept.arrived.0 >= age.cast_signed());
                let from_it_on = newer + oldest[nth..].iter().map(|kept| kept.bytes).sum::<u64>();
                oldest[nth..].iter().any(is_old) || (max_bytes > 0 && from_it_on > max_bytes as u64)
            };
            let expected = (0..oldest.len()).filter(|nth| goes(*nth)).count();
            prop_assert_eq!(due(&oldest, all, &rules, UnixMillis(now)), expected);
            prop_assert!((0..expected).all(goes), "they are the oldest");
        }
    }
}
