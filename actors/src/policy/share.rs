//! How much of the memory of all tenants one of them may hold: the dynamic threshold of switches that share their memory.
//!
//! Who holds much may hold more only as long as enough is free: the more is used, the less one tenant may hold, so that the heaviest
//! is the first to be held, and the first to go on when others give memory back. Heavy tenants, however many and in whatever order
//! they came to be, leave an eighth to those who hold little.

use super::{Policy, PriorityClass};

/// The part that is left to those who hold little, and what is little: so many-th parts of the memory of all.
const RESERVE: usize = 8;
const LITTLE: usize = 128;

/// How many times what is free a tenant of these rules may hold. With 4, one alone comes to seven tenths of all memory. Under load
/// the critical come first here, too.
pub(crate) fn share(policy: &Policy) -> usize {
    match policy.priority.class {
        PriorityClass::Critical => 32,
        PriorityClass::Normal => 4,
        PriorityClass::Bulk => 2,
    }
}

/// Whether a tenant with so many bytes is a heavy one among the `holders` that hold anything: then it answers for a memory that is
/// full by its own rules. Where none holds four times as much as the others, the store is too slow for all of them, and they wait.
pub(crate) fn is_heavy(bytes: usize, max: usize, holders: usize) -> bool {
    bytes > 4 * (max / (holders + 3))
}

/// The memory of all tenants at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) max: usize,
    /// With what asks to be let in.
    pub(crate) used: usize,
}

impl Memory {
    /// What one tenant may hold of it, with what asks to be let in.
    pub(crate) fn most(self, share: usize) -> usize {
        let free = (self.max - self.max / RESERVE).saturating_sub(self.used);
        free.saturating_mul(share).max(self.max / LITTLE)
    }

    /// Whether no more is used than there is.
    pub(crate) fn suffices(self) -> bool {
        self.used <= self.max
    }

    /// What all may hold at the most, for one of them to hold `bytes`.
    pub(crate) fn level(self, bytes: usize, share: usize) -> usize {
        if bytes <= self.max / LITTLE {
            return self.max;
        }
        (self.max - self.max / RESERVE).saturating_sub(bytes.div_ceil(share.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;

    /// Lets each in turn take what it may, in chunks of `chunk`, until nobody may take any more.
    fn fill(order: &[usize], chunk: usize, shares: &[usize]) -> Vec<usize> {
        let mut held = vec![0; shares.len()];
        loop {
            let before = held.clone();
            for who in order {
                let memory = Memory { max: MAX, used: held.iter().sum::<usize>() + chunk };
                let bytes = held[*who] + chunk;
                if memory.suffices() && bytes <= memory.most(shares[*who]) {
                    held[*who] = bytes;
                }
            }
            if held == before {
                return held;
            }
        }
    }

    proptest! {
        #[test]
        fn hogs_side_by_side_leave_what_the_threshold_says(hogs in 1..40usize, chunk in 64..2_048usize, share in 1..9usize) {
            let order: Vec<_> = (0..hogs).collect();
            let held = fill(&order, chunk, &vec![share; hogs]);
            let free = MAX - held.iter().sum::<usize>();
            let shared = MAX - MAX / RESERVE;
            prop_assert!(free >= MAX / RESERVE + shared / (1 + hogs * share) - chunk, "{free} of {MAX}");
            prop_assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= chunk, "each comes to the same: {held:?}");
        }

        #[test]
        fn hogs_in_any_order_leave_the_reserve_to_those_who_hold_little(
            shares in prop::collection::vec(1..1_000usize, 1..40),
            chunk in MAX / LITTLE..MAX / 16,
        ) {
            // One after the other, each as much as it gets: the worst order.
            let mut held = vec![0; shares.len()];
            for who in 0..shares.len() {
                loop {
                    let memory = Memory { max: MAX, used: held.iter().sum::<usize>() + chunk };
                    let bytes = held[who] + chunk;
                    if bytes > memory.most(shares[who]) || bytes <= MAX / LITTLE {
                        break;
                    }
                    held[who] = bytes;
                }
            }
            let free = MAX - held.iter().sum::<usize>();
            prop_assert!(free >= MAX / RESERVE, "{free}");
            let little = Memory { max: MAX, used: MAX - free + MAX / LITTLE };
            prop_assert!(little.suffices() && MAX / LITTLE <= little.most(1), "who holds little is let in");
        }

        #[test]
        fn of_tenants_that_hold_the_same_none_is_heavy_and_one_that_holds_most_is(holders in 2..1_000usize) {
            prop_assert!(!is_heavy(MAX / holders, MAX, holders));
            prop_assert!(holders < 4 || is_heavy(MAX * 7 / 10, MAX, holders));
        }

        #[test]
        fn the_heaviest_is_held_first(a in 0..MAX, b in 0..MAX, used in 0..2 * MAX, share in 1..100usize) {
            let memory = Memory { max: MAX, used };
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(more > memory.most(share) || less <= memory.most(share));
        }

        #[test]
        fn a_tenant_goes_on_at_its_level_and_not_before(
            bytes in 1..MAX,
            used in 0..MAX,
            max in 1_024..MAX,
            share in 1..100usize,
        ) {
            let memory = Memory { max, used };
            let level = memory.level(bytes, share);
            // At nothing used there is nobody who holds anything.
            prop_assume!(used > 0 && used <= max);
            prop_assert_eq!(bytes <= memory.most(share), used <= level, "level {}", level);
        }
    }
}
