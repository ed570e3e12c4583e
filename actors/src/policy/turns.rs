use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{PriorityClass, PriorityPolicy};

/// Who has waited for so long is due: a higher class that waits does not take every turn before it any more.
pub(crate) const DUE_AFTER: Duration = Duration::from_secs(5);

/// Of so many turns in a row, one goes to a lower class that is due.
const DUE_TURN: u32 = 4;

/// Who is next of those that wait for a store.
///
/// Within a class: start-time fair queueing, by bytes and weights. It is what deficit round robin comes to where only the first
/// batch of each queue is known: each class has a clock that counts bytes for each unit of weight, a turn starts where the last one
/// of its tenant ended on that clock but not before the clock's time, and the one that starts first is next. So who has had much
/// waits until the others have had as much, and who was away is owed nothing.
///
/// Between classes: the highest first. But of four turns one goes to a lower class with somebody in it who has waited for
/// [`DUE_AFTER`], whose longest wait is the longest, so that with n tenants waiting and turns of length t nobody waits for much more
/// than `DUE_AFTER` + 4 n t of its class.
///
/// A turn costs O(log n), and nothing is allocated where nobody waits.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    classes: [Waiting<T>; 3],
    tickets: u64,
    /// Turns in a row of which none went to a class that was due.
    since_due: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    /// By where their turn starts, and then as they came.
    by_start: BTreeMap<(u64, u64), (T, u64)>,
    /// Since when, as they came.
    since: BTreeMap<u64, Instant>,
    clock: u64,
}

/// Where the last turn of a tenant ended on the clock of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tag {
    class: PriorityClass,
    end: u64,
}

/// What somebody wants a turn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) priority: PriorityPolicy,
    pub(crate) bytes: usize,
}

/// A place among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    class: PriorityClass,
    start: u64,
    ticket: u64,
}

/// A byte of weight 1, on the clock of a class: every weight divides it well enough.
const BYTE: u64 = 1_000;

impl Want {
    fn cost(&self) -> u64 {
        let bytes = u64::try_from(self.bytes.max(1)).unwrap_or(u64::MAX);
        bytes.saturating_mul(BYTE) / u64::from(self.priority.weight.max(1))
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        let waiting = || Waiting { by_start: BTreeMap::new(), since: BTreeMap::new(), clock: 0 };
        Self { classes: [waiting(), waiting(), waiting()], tickets: 0, since_due: 0 }
    }
}

impl<T> Turns<T> {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.by_start.is_empty())
    }

    /// How many wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.classes.iter().map(|class| class.by_start.len()).sum()
    }

    fn start(&self, want: Want, tag: Tag) -> u64 {
        let PriorityPolicy { class, .. } = want.priority;
        let clock = self.classes[class as usize].clock;
        // Another class has another clock.
        if tag.class == class { clock.max(tag.end) } else { clock }
    }

    /// A turn that needs not be waited for: its tenant's tag from then on.
    pub(crate) fn pass(&mut self, want: Want, tag: Tag) -> Tag {
        let start = self.start(want, tag);
        let class = want.priority.class;
        self.classes[class as usize].clock = start;
        Tag { class, end: start.saturating_add(want.cost()) }
    }

    /// One more waits.
    pub(crate) fn wait(&mut self, want: Want, tag: Tag, who: T, now: Instant) -> Place {
        let place = Place { class: want.priority.class, start: self.start(want, tag), ticket: self.tickets };
        self.tickets += 1;
        let class = &mut self.classes[place.class as usize];
        class.by_start.insert((place.start, place.ticket), (who, want.cost()));
        class.since.insert(place.ticket, now);
        place
    }

    /// One waits no more, and is owed nothing.
    pub(crate) fn leave(&mut self, place: Place) -> Option<T> {
        let class = &mut self.classes[place.class as usize];
        class.since.remove(&place.ticket);
        class.by_start.remove(&(place.start, place.ticket)).map(|(who, _)| who)
    }

    /// Who is next, and its tag from then on.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(T, Tag)> {
        let highest = self.classes.iter().position(|class| !class.by_start.is_empty())?;
        let due = self.due(highest, now);
        let nth = match due {
            Some(due) if self.since_due + 1 >= DUE_TURN => due,
            _ => highest,
        };
        // Counted only while somebody is due: the turns before that are no credit against it.
        self.since_due = if due.is_some() && nth == highest { self.since_due + 1 } else { 0 };
        let class = &mut self.classes[nth];
        let ((start, ticket), (who, cost)) = class.by_start.pop_first()?;
        class.since.remove(&ticket);
        class.clock = class.clock.max(start);
        Some((who, Tag { class: PriorityClass::ALL[nth], end: start.saturating_add(cost) }))
    }

    /// The class below `highest` in which somebody is due, for the longest of all.
    fn due(&self, highest: usize, now: Instant) -> Option<usize> {
        let below = self.classes.iter().enumerate().skip(highest + 1);
        let oldest = below.filter_map(|(nth, class)| Some((*class.since.first_key_value()?.1, nth))).min()?;
        (now.saturating_duration_since(oldest.0) >= DUE_AFTER).then_some(oldest.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use PriorityClass::{Bulk, Critical, Normal};

    fn want(class: PriorityClass, weight: u32, bytes: usize) -> Want {
        Want { priority: PriorityPolicy { class, weight }, bytes }
    }

    /// Tenants that always have a batch, at a store that takes one at a time; the bytes that each got in so many turns.
    fn run(wants: &[Want], turns: usize, each: Duration) -> Vec<usize> {
        let (mut rule, mut now) = (Turns::default(), Instant::now());
        let (mut tags, mut got) = (vec![Tag::default(); wants.len()], vec![0; wants.len()]);
        for (who, want) in wants.iter().enumerate() {
            rule.wait(*want, tags[who], who, now);
        }
        for _ in 0..turns {
            let (who, tag) = rule.next(now).unwrap();
            now += each;
            (tags[who], got[who]) = (tag, got[who] + wants[who].bytes);
            rule.wait(wants[who], tag, who, now);
        }
        got
    }

    #[test]
    fn a_class_with_somebody_due_gets_every_fourth_turn_and_none_before() {
        let wants = [want(Critical, 1, 10), want(Normal, 1, 10), want(Bulk, 1, 10)];
        // 5 s pass in 50 turns.
        assert_eq!(run(&wants, 50, Duration::from_millis(100)), [500, 0, 0]);
        let got = run(&wants, 450, Duration::from_millis(100));
        assert_eq!(got.iter().sum::<usize>(), 4_500);
        // Each waits for 5 s again, after each of its turns.
        assert!(got[1] >= 60 && got[2] >= 60, "{got:?}");
    }

    #[test]
    fn a_crowd_that_is_due_leaves_three_of_four_turns_to_the_higher_class() {
        let mut wants = vec![want(Bulk, 1, 10); 100];
        wants.push(want(Critical, 1, 10));
        let got = run(&wants, 50 + 4_000, Duration::from_millis(100));
        assert_eq!(got[100], 10 * (50 + 3_000));
        assert!(got[..100].iter().all(|got| *got == 100), "{got:?}");
    }

    #[test]
    fn who_was_away_is_owed_nothing_and_who_was_alone_owes_one_turn_at_the_most() {
        let (mut rule, now) = (Turns::default(), Instant::now());
        let (one, mut of_a) = (want(Normal, 1, 10), Tag::default());
        for _ in 0..1_000 {
            of_a = rule.pass(one, of_a);
        }
        rule.wait(one, of_a, "a", now);
        let mut of_b = Tag::default();
        let mut got = vec![];
        for _ in 0..4 {
            rule.wait(one, of_b, "b", now);
            let (who, tag) = rule.next(now).unwrap();
            got.push(who);
            if who == "b" {
                of_b = tag;
            } else {
                break;
            }
        }
        assert_eq!(got, ["b", "a"]);
    }

    #[test]
    fn another_class_is_another_clock() {
        let (mut rule, now) = (Turns::default(), Instant::now());
        let heavy = rule.pass(want(Normal, 1, 1 << 30), Tag::default());
        rule.wait(want(Bulk, 1, 10), heavy, "was normal", now);
        rule.wait(want(Bulk, 1, 10), Tag::default(), "bulk", now);
        assert_eq!(rule.next(now).map(|(who, _)| who), Some("was normal"));
    }

    #[test]
    fn each_turn_of_a_hundred_thousand_finds_the_next_one() {
        let (mut rule, now) = (Turns::default(), Instant::now());
        let places: Vec<_> = (0..100_000).map(|n| rule.wait(want(Normal, 1, 10), Tag::default(), n, now)).collect();
        for place in places.iter().step_by(2) {
            assert!(rule.leave(*place).is_some() && rule.leave(*place).is_none());
        }
        let order = std::iter::from_fn(|| rule.next(now)).map(|(who, _)| who);
        assert!(order.eq((0..100_000).skip(1).step_by(2)));
        assert!(rule.is_empty());
    }

    proptest! {
        /// Against the plain reading of a fair share: within one class, whoever always waits has bytes by its weight, but for two
        /// batches of the largest size.
        #[test]
        fn bytes_are_shared_by_weight_whatever_the_size_of_the_batches(
            tenants in prop::collection::vec((1..20u32, 1..1_000usize), 2..12),
        ) {
            let wants: Vec<_> = tenants.iter().map(|(weight, bytes)| want(Normal, *weight, *bytes)).collect();
            let got = run(&wants, 2_000, Duration::ZERO);
            let share = |nth: usize| got[nth] as f64 / f64::from(tenants[nth].0);
            let slack = |nth: usize| tenants[nth].1 as f64 / f64::from(tenants[nth].0);
            for a in 0..tenants.len() {
                for b in 0..a {
                    let apart = (share(a) - share(b)).abs();
                    prop_assert!(apart <= slack(a) + slack(b) + 1.0, "{:?} {:?}", tenants, got);
                }
            }
        }

        /// Against a plain list: whoever is next is of the highest class that waits, or due; nobody is lost or doubled.
        #[test]
        fn nobody_is_lost_and_nobody_goes_before_a_higher_class_but_who_is_due(
            steps in prop::collection::vec((0..4u8, 0..3usize, 1..5u32, 1..100usize, 0..3_000u64), 1..200),
        ) {
            let (mut rule, mut now) = (Turns::default(), Instant::now());
            let mut model: Vec<(u64, PriorityClass, Instant, Place)> = vec![];
            for (nth, (what, class, weight, bytes, gap)) in steps.into_iter().enumerate() {
                now += Duration::from_millis(gap);
                let class = PriorityClass::ALL[class];
                match what {
                    0 | 1 => {
                        let who = nth as u64;
                        let place = rule.wait(want(class, weight, bytes), Tag::default(), who, now);
                        model.push((who, class, now, place));
                    }
                    2 if !model.is_empty() => {
                        let (who, _, _, place) = model.remove(bytes % model.len());
                        prop_assert_eq!(rule.leave(place), Some(who));
                    }
                    _ => {
                        let next = rule.next(now).map(|(who, _)| who);
                        prop_assert_eq!(next.is_none(), model.is_empty());
                        let Some(who) = next else { continue };
                        let at = model.iter().position(|(other, ..)| *other == who).unwrap();
                        let highest = model.iter().map(|(_, class, ..)| *class).min().unwrap();
                        let (_, class, ..) = model[at];
                        let is_due = model.iter().any(|(_, other, since, _)| *other == class && now - *since >= DUE_AFTER);
                        prop_assert!(class == highest || is_due);
                        model.remove(at);
                    }
                }
                prop_assert_eq!(rule.len(), model.len());
            }
        }
    }
}
