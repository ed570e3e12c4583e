use std::collections::BTreeMap;

use headworks_actors::Status;
use proptest::prelude::*;

use super::*;

fn tenant(name: &str, received: u64) -> TenantSnapshot {
    TenantSnapshot {
        tenant: TenantId::new(name).unwrap(),
        status: Status::Active,
        is_muted: false,
        counters: Counters { received, ..Counters::default() },
        in_flight: 1,
        window: 1,
        batches_waiting: 0,
        in_flight_bytes: 10,
        in_journal: 0,
        in_journal_bytes: 0,
        uncompensated: 0,
        oldest_at: None,
        silence: None,
    }
}

/// Received, by label.
fn told(busiest: &mut Busiest, tenants: &[TenantSnapshot], max: usize) -> BTreeMap<String, u64> {
    let rows = busiest.rows(tenants, max);
    rows.into_iter().map(|row| (row.tenant.into_owned(), row.counters[0])).collect()
}

fn expected(each: &[(&str, u64)]) -> BTreeMap<String, u64> {
    each.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn all_have_series_of_their_own_as_long_as_there_is_room_and_then_the_busiest() {
    let mut busiest = Busiest::default();
    assert_eq!(told(&mut busiest, &[tenant("a", 3)], 2), expected(&[("a", 3)]));
    let all = [tenant("a", 3), tenant("b", 5)];
    assert_eq!(told(&mut busiest, &all, 2), expected(&[("a", 3), ("b", 5)]), "of one that is new all is told");
    let all = [tenant("a", 3), tenant("b", 5), tenant("c", 2)];
    assert_eq!(told(&mut busiest, &all, 2), expected(&[("a", 3), ("b", 5), ("other", 2)]));
    let all = [tenant("a", 8), tenant("b", 5), tenant("c", 6)];
    assert_eq!(told(&mut busiest, &all, 2), expected(&[("a", 8), ("b", 5), ("other", 6)]), "not a quarter busier");
    let all = [tenant("a", 8), tenant("b", 5), tenant("c", 7)];
    let after = expected(&[("a", 8), ("c", 0), ("other", 7)]);
    assert_eq!(told(&mut busiest, &all, 2), after, "what it brought before stays in the sum");
    let all = [tenant("a", 8), tenant("b", 6), tenant("c", 10)];
    assert_eq!(told(&mut busiest, &all, 2), expected(&[("a", 8), ("c", 3), ("other", 8)]));
}

#[test]
fn at_the_first_look_the_busiest_are_told_whole() {
    let all = [tenant("a", 1), tenant("b", 9), tenant("c", 4)];
    assert_eq!(told(&mut Busiest::default(), &all, 1), expected(&[("b", 9), ("other", 5)]));
    assert_eq!(told(&mut Busiest::default(), &all, 0), expected(&[("other", 14)]));
    assert_eq!(told(&mut Busiest::default(), &[], 1), expected(&[]));
}

#[test]
fn a_tenant_named_other_is_not_taken_for_the_sum() {
    let all = [tenant("a", 1), tenant("b", 2), tenant("other", 9)];
    let mut busiest = Busiest::default();
    assert_eq!(told(&mut busiest, &all, 1), expected(&[("_other", 9), ("other", 3)]));
    assert!(TenantId::new("_other").is_err(), "no tenant can be named so");
    let rows = busiest.rows(&all, 1);
    assert_eq!((rows[0].gauges, rows[1].gauges), ([1, 10, 0, 0], [2, 20, 0, 0]));
}

proptest! {
    /// Whatever comes and goes: no series falls while it is there, the sum never does, and nothing is counted in two.
    #[test]
    fn no_series_falls(max in 0usize..4, steps in prop::collection::vec(prop::collection::vec(0u64..40, 0..8), 1..40)) {
        let mut busiest = Busiest::default();
        let mut counts: Vec<u64> = vec![];
        let mut before = BTreeMap::new();
        for step in steps {
            counts.resize(counts.len().max(step.len()), 0);
            counts.iter_mut().zip(&step).for_each(|(count, more)| *count += more);
            let all: Vec<_> = counts.iter().enumerate().map(|(n, count)| tenant(&format!("t{n}"), *count)).collect();
            let now = told(&mut busiest, &all, max);
            prop_assert!(now.len() <= max + 1);
            for (label, value) in &now {
                prop_assert!(before.get(label).is_none_or(|before| before <= value), "{} fell: {:?} to {:?}", label, before, now);
            }
            prop_assert!(!before.contains_key(OTHER) || now.contains_key(OTHER));
            let in_series = now.values().sum::<u64>() + busiest.retired[0];
            prop_assert_eq!(in_series, counts.iter().sum::<u64>());
            before = now;
        }
    }
}
