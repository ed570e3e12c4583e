use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A set of positions, kept as the ranges it consists of.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// The first of each range to its last; no two of them touch.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    /// How many positions there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds the range; gives the parts of it that were not there.
    pub(super) fn insert(&mut self, range: RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let (mut from, mut to) = range.clone().into_inner();
        let (mut fresh, mut missing) = (vec![], from);
        // Those it overlaps or touches, in order.
        let before =
            self.ranges.range(..from).next_back().filter(|(_, last)| **last >= from - 1).map(|(first, _)| *first);
        let touched = before.unwrap_or(from)..=to.saturating_add(1);
        let touched: Vec<_> = self.ranges.range(touched).map(|(first, last)| (*first, *last)).collect();
        for (first, last) in touched {
            self.ranges.remove(&first);
            if first > missing {
                fresh.push(missing..=(first - 1).min(*range.end()));
            }
            missing = missing.max(last + 1);
            from = from.min(first);
            to = to.max(last);
        }
        if missing <= *range.end() {
            fresh.push(missing..=*range.end());
        }
        self.ranges.insert(from, to);
        self.len += fresh.iter().map(|part| part.end() - part.start() + 1).sum::<u64>();
        fresh
    }

    /// The first position from `from` on that is not there.
    pub(super) fn first_missing(&self, from: u64) -> u64 {
        match self.ranges.range(..=from).next_back() {
            Some((_, last)) if *last >= from => last + 1,
            _ => from,
        }
    }

    /// The first position from `from` on that is there.
    pub(super) fn first_present(&self, from: u64) -> Option<u64> {
        if self.first_missing(from) > from {
            return Some(from);
        }
        self.ranges.range(from..).next().map(|(first, _)| *first)
    }

    /// How many positions up to `to` there are.
    pub(super) fn len_up_to(&self, to: u64) -> u64 {
        let above = self.ranges.range(to + 1..).map(|(first, last)| last - first + 1).sum::<u64>();
        let across = self.first_missing(to + 1) - (to + 1);
        // A range that begins behind `to` is above; one that only reaches over it is across.
        let across = if self.ranges.contains_key(&(to + 1)) { 0 } else { across };
        self.len - above - across
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_of_positions_holds(inserts in prop::collection::vec((1..40_u64, 0..8_u64), 0..20)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (from, more) in inserts {
                let fresh: Vec<u64> = ranges.insert(from..=from + more).into_iter().flatten().collect();
                let expected: Vec<u64> = (from..=from + more).filter(|position| model.insert(*position)).collect();
                prop_assert_eq!(fresh, expected);
                prop_assert_eq!(ranges.len(), model.len() as u64);
                let touch = ranges.ranges.iter().zip(ranges.ranges.iter().skip(1)).any(|(a, b)| a.1 + 1 >= *b.0);
                prop_assert!(!touch, "{:?}", ranges);
                for at in 1..60 {
                    prop_assert_eq!(ranges.first_missing(at), (at..).find(|position| !model.contains(position)).unwrap());
                    prop_assert_eq!(ranges.first_present(at), model.range(at..).next().copied());
                    prop_assert_eq!(ranges.len_up_to(at), model.range(..=at).count() as u64);
                }
            }
        }
    }
}
