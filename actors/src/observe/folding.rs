use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Code, Role, StoreName, SupervisorEvent, TenantId, UnixMillis, What};

/// Holds a tenant to so many entries of a kind a period, and sums up what is beyond: a store that refuses everything must not
/// push what matters out of the log.
///
/// Entries are of one kind if tenant, actor, what, store and code are the same. The first [`WHOLE`](Self::WHOLE) of a period
/// are written as they are; those after them are one entry at its end, which says how many they were, since when, and the sums
/// of what they count. So it goes on until a period passes without one to be summed up. What a tenant has not often (it is parked, it
/// is restarted, its rules change) is written at once, and what was summed up of it so far before that.
#[derive(Debug, Default)]
pub(crate) struct Folding {
    tenants: BTreeMap<TenantId, Vec<Run>>,
    is_over: bool,
}

/// Entries of one kind.
#[derive(Debug)]
struct Run {
    kind: (Role, What, Option<StoreName>, Option<Code>),
    /// How many were written as they are, in this period.
    whole: u32,
    /// The sum of those that were not.
    sum: Option<SupervisorEvent>,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    /// The entry, behind these.
    Written(Vec<SupervisorEvent>),
    /// Nothing before the end of the period.
    Waits,
}

impl Folding {
    /// How long a period is.
    pub(crate) const PERIOD: Duration = Duration::from_secs(10);
    /// What a batch of ten takes of a kind until each of its events is known to be refused.
    const WHOLE: u32 = 20;
    /// So many tenants are held to it at a time; those of others are written as they are.
    const MAX_TENANTS: usize = 10_000;

    /// An entry comes at `now`.
    pub(crate) fn take(&mut self, event: &SupervisorEvent, now: UnixMillis) -> Folded {
        let Some(tenant) = &event.tenant else { return Folded::Written(vec![]) };
        if self.is_over {
            return Folded::Written(vec![]);
        }
        if !comes_often(event.what) {
            let runs = self.tenants.get_mut(tenant).into_iter().flatten();
            return Folded::Written(runs.filter_map(|run| run.sum.take()).collect());
        }
        if self.tenants.len() >= Self::MAX_TENANTS && !self.tenants.contains_key(tenant) {
            return Folded::Written(vec![]);
        }
        let kind = (event.actor, event.what, event.store.clone(), event.cause.as_ref().map(|cause| cause.code));
        let runs = self.tenants.entry(tenant.clone()).or_default();
        let run = match runs.iter().position(|run| run.kind == kind) {
            Some(nth) => &mut runs[nth],
            None => {
                runs.push(Run { kind, whole: 0, sum: None });
                let last = runs.len() - 1;
                &mut runs[last]
            }
        };
        if run.whole < Self::WHOLE {
            run.whole += 1;
            return Folded::Written(vec![]);
        }
        run.sum = Some(match run.sum.take() {
            None => SupervisorEvent { since: Some(now), ..event.clone() },
            Some(sum) => SupervisorEvent {
                repeats: sum.repeats + 1,
                since: sum.since,
                batch_events: sum.batch_events + event.batch_events,
                compensations_run: sum.compensations_run.saturating_add(event.compensations_run),
                compensations_failed: sum.compensations_failed.saturating_add(event.compensations_failed),
                ..event.clone()
            },
        });
        Folded::Waits
    }

    /// The end of a period: what is to be written.
    pub(crate) fn turn(&mut self) -> Vec<SupervisorEvent> {
        let mut sums = vec![];
        self.tenants.retain(|_, runs| {
            runs.retain_mut(|run| {
                let sum = run.sum.take();
                let goes_on = sum.is_some();
                sums.extend(sum);
                goes_on
            });
            !runs.is_empty()
        });
        sums
    }

    /// The same, and from now on each entry is written as it is.
    pub(crate) fn end(&mut self) -> Vec<SupervisorEvent> {
        self.is_over = true;
        self.turn()
    }

    /// Whether a period is under way.
    pub(crate) fn is_running(&self) -> bool {
        !self.tenants.is_empty()
    }
}

/// Whether a tenant may have very many of them: each is about one batch.
fn comes_often(what: What) -> bool {
    matches!(
        what,
        What::Failed
            | What::Ambiguous
            | What::Compensated
            | What::CompensationFailed
            | What::Split
            | What::StartedOver
            | What::Discarded
            | What::DeadLettered
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Cause;

    fn event(tenant: &str, what: What, code: Code, events: u64) -> SupervisorEvent {
        let tenant = TenantId::new(tenant).ok();
        let (cause, compensations_run) = (Some(Cause::new(code, "why")), 1);
        SupervisorEvent {
            cause,
            batch_events: events,
            compensations_run,
            ..SupervisorEvent::new(tenant, Role::Aggregator, what)
        }
    }

    fn dead(events: u64) -> SupervisorEvent {
        event("a", What::DeadLettered, Code::StorePermanent, events)
    }

    fn take(folding: &mut Folding, event: &SupervisorEvent, now: i64) -> usize {
        match folding.take(event, UnixMillis(now)) {
            Folded::Written(before) => 1 + before.len(),
            Folded::Waits => 0,
        }
    }

    #[test]
    fn the_first_of_a_kind_are_written_and_those_after_them_are_one_entry_a_period_until_they_are_few() {
        let mut folding = Folding::default();
        let written = (0..57).map(|n| take(&mut folding, &dead(2), n)).sum::<usize>();
        assert_eq!(written, 20);
        let sums = folding.turn();
        assert_eq!(sums.len(), 1);
        assert_eq!((sums[0].repeats, sums[0].batch_events, sums[0].compensations_run), (36, 74, 37));
        assert_eq!(sums[0].since, Some(UnixMillis(20)));
        // It goes on: not one is written as it is.
        assert_eq!((0..5).map(|n| take(&mut folding, &dead(1), n)).sum::<usize>(), 0);
        assert_eq!(folding.turn()[0].repeats, 4);
        // A period with none of it.
        assert!(folding.turn().is_empty() && !folding.is_running());
        assert_eq!(take(&mut folding, &dead(1), 99), 1);
        assert!(folding.turn().is_empty());
        // Few a period are never held.
        for _ in 0..10 {
            assert_eq!((0..20).map(|n| take(&mut folding, &dead(1), n)).sum::<usize>(), 20);
            assert!(folding.turn().is_empty());
        }
    }

    #[test]
    fn other_causes_and_other_tenants_are_kinds_of_their_own_and_what_is_rare_is_written_at_once_behind_the_sums() {
        let mut folding = Folding::default();
        (0..30).for_each(|n| drop(folding.take(&dead(1), UnixMillis(n))));
        assert_eq!(take(&mut folding, &event("b", What::DeadLettered, Code::StorePermanent, 1), 30), 1);
        assert_eq!(take(&mut folding, &event("a", What::DeadLettered, Code::StoreTransient, 1), 30), 1);
        assert_eq!(take(&mut folding, &event("a", What::Split, Code::StorePermanent, 1), 30), 1);
        assert_eq!(take(&mut folding, &event("b", What::Parked, Code::StoreUnavailable, 1), 30), 1);
        let Folded::Written(before) =
            folding.take(&event("a", What::Parked, Code::StoreUnavailable, 1), UnixMillis(31))
        else {
            panic!("a rare entry is written")
        };
        assert_eq!((before.len(), before[0].what, before[0].repeats), (1, What::DeadLettered, 9));
        assert_eq!(take(&mut folding, &SupervisorEvent::new(None, Role::Ingress, What::Failed), 32), 1);
        (0..3).for_each(|n| drop(folding.take(&dead(1), UnixMillis(n))));
        assert_eq!(folding.end()[0].repeats, 2);
        assert_eq!((0..50).map(|n| take(&mut folding, &dead(1), n)).sum::<usize>(), 50, "at the end nothing waits");
    }

    proptest! {
        #[test]
        fn every_entry_is_counted_once_whatever_comes(
            steps in proptest::collection::vec((0..3_u8, 0..4_u8, 0..2_u8), 0..600),
        ) {
            let whats = [What::Failed, What::DeadLettered, What::Split, What::Restarted];
            let (mut folding, mut came, mut told) = (Folding::default(), (0, 0), (0, 0));
            let mut tell = |event: &SupervisorEvent| {
                told = (told.0 + 1 + event.repeats, told.1 + event.batch_events);
            };
            for (now, (tenant, what, turns)) in steps.into_iter().enumerate() {
                let event = event(["a", "b", "c"][usize::from(tenant)], whats[usize::from(what)], Code::StorePermanent, 3);
                came = (came.0 + 1, came.1 + 3);
                if let Folded::Written(before) = folding.take(&event, UnixMillis(now as i64)) {
                    before.iter().for_each(&mut tell);
                    tell(&event);
                }
                if turns == 1 && now % 37 == 0 {
                    folding.turn().iter().for_each(&mut tell);
                }
            }
            folding.end().iter().for_each(&mut tell);
            prop_assert_eq!(told, came);
        }
    }
}
