//! Which tenants move to another thread, so that all threads have about the same to do.

/// A thread that is less busy than so, as a share of its time, is relieved of nothing.
const BUSY: f64 = 0.5;

/// Threads whose shares lie less far apart than so are alike.
const ALIKE: f64 = 0.2;

/// So many move at once, at the most.
const AT_ONCE: usize = 64;

/// A tenant, by its place in the list that was given, that is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) tenant: usize,
    /// The thread that it moves to.
    pub(crate) to: usize,
}

/// The busiest thread and the one that is least so, if the first is to be relieved. `busy` is the share of its time that each
/// was at work lately.
pub(crate) fn uneven(busy: &[f64]) -> Option<(usize, usize)> {
    let by_share = |a: &usize, b: &usize| busy[*a].total_cmp(&busy[*b]);
    let (from, to) = ((0..busy.len()).max_by(by_share)?, (0..busy.len()).min_by(by_share)?);
    (busy[from] >= BUSY && busy[from] - busy[to] >= ALIKE).then_some((from, to))
}

/// Who moves from the busiest thread to the one that is least so. `tenants` has each one's thread and its work lately, in
/// whatever unit.
///
/// As much work moves as would make the two alike if the thread had nothing else to do, and not more: a tenant that is more than
/// that alone stays, and others leave it the thread.
pub(crate) fn moves(busy: &[f64], tenants: &[(usize, u64)]) -> Vec<Move> {
    let Some((from, to)) = uneven(busy) else { return vec![] };
    let own = || tenants.iter().enumerate().filter(|(_, (home, work))| *home == from && *work > 0);
    let all: u64 = own().map(|(_, (_, work))| *work).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a positive number")]
    let mut wanted = (all as f64 * (busy[from] - busy[to]) / 2.0 / busy[from]) as u64;
    let mut heaviest: Vec<_> = own().map(|(tenant, (_, work))| (*work, tenant)).collect();
    heaviest.sort_by_key(|(work, tenant)| (std::cmp::Reverse(*work), *tenant));
    let mut moves = vec![];
    for (work, tenant) in heaviest {
        if work <= wanted && moves.len() < AT_ONCE {
            wanted -= work;
            moves.push(Move { tenant, to });
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_heaviest_that_fit_move_from_the_busiest_thread_to_the_one_that_is_least_so() {
        let tenants = [(0, 60), (0, 20), (0, 15), (1, 5), (0, 5)];
        let moved = moves(&[1.0, 0.1, 0.3], &tenants);
        assert_eq!(moved, [Move { tenant: 1, to: 1 }, Move { tenant: 2, to: 1 }, Move { tenant: 4, to: 1 }]);
    }

    #[test]
    fn one_that_has_all_the_work_stays_where_it_is() {
        assert_eq!(moves(&[1.0, 0.0], &[(0, 100), (0, 0), (1, 0)]), []);
    }

    #[test]
    fn threads_that_are_alike_or_have_little_to_do_keep_what_they_have() {
        assert_eq!(moves(&[0.9, 0.75], &[(0, 1), (0, 1)]), []);
        assert_eq!(moves(&[0.4, 0.0], &[(0, 1), (0, 1)]), []);
        assert_eq!(moves(&[], &[]), []);
    }

    proptest! {
        /// Where tenants are all there is to do, look after look makes the threads more alike, and comes to an end.
        #[test]
        fn it_never_makes_the_busiest_thread_busier_and_comes_to_an_end(
            work in prop::collection::vec(0_u64..1_000, 1..60),
            homes in 2_usize..6,
            at in any::<u64>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(at);
            let mut tenants: Vec<_> = work.iter().map(|work| (rng.usize(..homes), *work)).collect();
            let full = 1 + work.iter().sum::<u64>();
            let busy = |tenants: &[(usize, u64)]| -> Vec<f64> {
                let of = |home| tenants.iter().filter(|(at, _)| *at == home).map(|(_, work)| *work).sum::<u64>();
                (0..homes).map(|home| of(home) as f64 / full as f64 * homes as f64).collect()
            };
            let most = |busy: &[f64]| busy.iter().copied().fold(0.0, f64::max);
            for look in 0.. {
                let before = busy(&tenants);
                let moved = moves(&before, &tenants);
                if moved.is_empty() {
                    break;
                }
                prop_assert!(look < 1_000, "it goes round in circles");
                for Move { tenant, to } in moved {
                    prop_assert_ne!(tenants[tenant].0, to);
                    tenants[tenant].0 = to;
                }
                prop_assert!(most(&busy(&tenants)) <= most(&before) + 1e-9);
            }
        }
    }
}
