//! What a store refuses for good is found event by event, and everything else of the batch is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use headworks_actors::{
    Attempt, Batch, BatchId, Code, Entry, Fault, Faulty, Hooks, OnFailure, Outcome, Piece, Policy, RetryPolicy, Saga,
    Storage, StorageError, Undo, What,
};
use proptest::prelude::*;

use crate::rig::{
    Pair, Recorder, Rig, Store, World, bodies, event, events, holds, in_order, lines, number, pass, secs,
    split_windows_of, tenant, virtual_time, windows_of,
};

/// Refuses the batches that hold one of these events, for good.
fn refusing(poison: impl IntoIterator<Item = usize>) -> impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static {
    let poison: BTreeSet<_> = poison.into_iter().collect();
    move |batch, _| if holds(batch, &poison) { Fault::Permanent } else { Fault::None }
}

async fn feed(rig: &Rig, n: usize) {
    rig.ingress().await.feed(lines(events("a", 0..n))).await.unwrap();
}

/// Feeds `n` events of the tenant `a` as one batch.
async fn one_batch(rig: &Rig, n: usize) {
    feed(rig, n).await;
    rig.tenant("a").flush();
    rig.drained().await;
}

fn without(n: usize, poison: &BTreeSet<usize>) -> Vec<String> {
    events("a", (0..n).filter(|n| !poison.contains(n)))
}

fn most_tries(n: usize, bad: usize) -> usize {
    2 * n.next_power_of_two().ilog2() as usize * bad + 1
}

#[test]
fn of_a_batch_of_500_with_3_poison_events_497_are_stored_in_order_within_55_tries() {
    virtual_time(async {
        let poison = BTreeSet::from([7, 250, 499]);
        let (rig, store) = Rig::faulty(split_windows_of(500), refusing(poison.clone()));
        one_batch(&rig, 500).await;
        assert_eq!(rig.stored("a"), without(500, &poison));
        assert_eq!(rig.dead(), events("a", poison.iter().copied()));
        for letter in rig.letters.all() {
            assert_eq!((letter.cause.code, letter.attempts), (Code::StorePermanent, 1));
            assert!(letter.cause.detail.contains("injected permanent error in call"), "{}", letter.cause);
            let (id, index) = letter.batch.unwrap();
            assert!(!id.piece.is_whole() && index == 0, "{id}");
        }
        assert_eq!(most_tries(500, 3), 55);
        assert!(store.calls() <= 55, "{}", store.calls());
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.stored, counters.dead_lettered), (500, 497, 3));
        let log = rig.logged("a", What::Split);
        assert!(!log.is_empty() && log[0].cause.as_ref().unwrap().code == Code::StorePermanent);
        assert_eq!((log[0].batch.as_ref().unwrap().piece, log[0].attempt), (Piece::WHOLE, Some(1)));
    });
}

/// Up to 600 events, and which of them are refused.
fn poisoned() -> impl Strategy<Value = (usize, BTreeSet<usize>)> {
    (1..=600usize).prop_flat_map(|n| (Just(n), prop::collection::btree_set(0..n, 0..n.min(12))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_event_that_is_not_refused_is_stored_in_order_within_the_tries(
        (n, poison) in poisoned(), chunk in 1..100usize,
    ) {
        virtual_time(async move {
            let (rig, store) = Rig::faulty(split_windows_of(600), refusing(poison.clone()));
            let ingress = rig.ingress().await;
            for from in (0..n).step_by(chunk) {
                ingress.feed(lines(events("a", from..n.min(from + chunk)))).await.unwrap();
            }
            rig.tenant("a").flush();
            rig.drained().await;
            assert_eq!(rig.stored("a"), without(n, &poison));
            assert_eq!(rig.dead(), events("a", poison.iter().copied()));
            assert!(store.calls() as usize <= most_tries(n, poison.len()), "{} for {n}", store.calls());
            assert_eq!(in_order(&rig.store, &rig.letters, "a"), events("a", 0..n));
            let ids: Vec<_> = store.attempts().into_iter().map(|attempt| attempt.0).collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "each piece is tried once, in order");
        });
    }

    /// The saga refuses in both stores, and the process dies again and again, wherever it is.
    #[test]
    fn pieces_keep_names_and_bytes_across_crashes_in_the_middle(
        (n, poison) in poisoned().prop_map(|(n, poison)| (n % 60 + 1, poison.into_iter().map(|p| p % 60).collect::<BTreeSet<_>>())),
        crashes in prop::collection::vec((0..40usize, 0..4usize), 1..6),
        changes in any::<bool>(),
    ) {
        virtual_time(async move {
            let hooks = if changes { shouting() } else { Hooks::new() };
            let (first, second): (BTreeSet<_>, _) = poison.iter().partition(|p| **p % 2 == 0);
            let (mut world, pair) = (World::new(), Pair::new());
            pair.first.script(refusing(first));
            pair.second.script(refusing(second));
            let start = |world: &World| {
                world.start_with(split_windows_of(60), |builder| builder.saga(pair.saga()).hooks(hooks.clone()))
            };
            let mut rig = start(&world);
            feed(&rig, n).await;
            rig.tenant("a").flush();
            for (steps, more) in crashes {
                world.journal.hold();
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                    world.journal.commit_all();
                }
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                world.crash_with(rig, more).await;
                rig = start(&world);
            }
            rig.tenant("a").flush();
            world.end(rig).await;
            pair.assert_same("a");
            let made = |body: String| if changes { body.to_ascii_uppercase() } else { body };
            let bad = |p: &usize| poison.contains(p);
            let expected: Vec<_> = events("a", (0..n).filter(|p| !bad(p))).into_iter().map(made).collect();
            let stored: Vec<_> = pair.first.inner().bodies(&tenant("a"));
            assert_eq!(stored, expected.into_iter().map(String::into_bytes).collect::<Vec<_>>());
            let mut dead: Vec<_> = world.letters.all().iter().map(|letter| number(&letter.body)).collect();
            dead.sort_unstable();
            assert_eq!(dead, (0..n).filter(bad).collect::<Vec<_>>(), "as they were accepted, each once");
            for store in pair.both() {
                let attempts = store.attempts();
                for (id, _, bodies) in &attempts {
                    assert!(attempts.iter().all(|other| other.0 != *id || other.2 == *bodies), "{id} has other bytes");
                }
            }
        });
    }
}

fn shouting() -> Hooks {
    Hooks::new().map_batch(|batch| batch.map_bodies(|event| event.body.to_ascii_uppercase().into()))
}

#[test]
fn pieces_hold_what_the_hooks_made_and_the_hooks_see_a_batch_once() {
    virtual_time(async {
        let seen = Arc::new(std::sync::Mutex::new(vec![]));
        let hooks = shouting().map_batch({
            let seen = seen.clone();
            move |batch| {
                seen.lock().unwrap().push(batch.id().clone());
                batch
            }
        });
        let (rig, store) = Rig::faulty_with(split_windows_of(8), refusing([3]), |builder| builder.hooks(hooks));
        one_batch(&rig, 8).await;
        let made: Vec<_> = without(8, &BTreeSet::from([3])).iter().map(|body| body.to_ascii_uppercase()).collect();
        assert_eq!(rig.stored("a"), made);
        assert_eq!(rig.dead(), [event("a", 3)], "kept as it was accepted");
        assert_eq!(seen.lock().unwrap().len(), 1);
        assert!(store.attempts().iter().flat_map(|attempt| &attempt.2).all(|body| body.starts_with(b"{\"TENANT\"")));
    });
}

#[test]
fn a_crash_before_the_hooks_have_been_at_a_batch_does_not_let_it_pass_them_by() {
    virtual_time(async {
        for hooks in [shouting(), Hooks::new().filter_batch(|_| false)] {
            let mut world = World::new();
            let rig = world.start_with(windows_of(2), |builder| builder.hooks(hooks.clone()));
            world.journal.hold();
            feed(&rig, 2).await;
            pass(secs(1)).await;
            let entries = world.journal.entries();
            assert!(matches!(entries[1], Entry::Cut { .. }));
            // Chunk and cut are on the disk, and nothing after.
            world.journal.commit_up_to(headworks_actors::Position(2));
            world.crash(rig).await;
            let rig = world.start_with(windows_of(2), |builder| builder.hooks(hooks));
            world.end(rig).await;
            assert!(world.kept.bodies(&tenant("a")).iter().all(|body| body.starts_with(b"{\"TENANT\"")));
        }
    });
}

/// Takes whole batches only.
struct Whole(Store, bool);

impl Storage for Whole {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        self.0.store(batch, undo).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.0.rollback(id, attempt).await
    }

    fn takes_pieces(&self) -> bool {
        assert!(self.1, "the question panics");
        false
    }
}

#[test]
fn a_batch_is_given_up_whole_where_one_of_its_stores_takes_no_pieces_or_panics_when_asked() {
    virtual_time(async {
        for answers in [true, false] {
            let pair = Pair::new();
            pair.first.script(refusing([3]));
            let whole = Recorder::new(Faulty::new(Whole(pair.second.clone(), answers), Fault::None.always()));
            let saga = Saga::new().then(pair.first.clone()).then(whole);
            let rig = Rig::with(split_windows_of(4), |builder| builder.saga(saga));
            feed(&rig, 8).await;
            rig.drained().await;
            assert_eq!(rig.dead(), events("a", 0..4));
            assert_eq!(pair.in_order(&rig.letters, "a"), events("a", 0..8));
            assert!(rig.logged("a", What::Split).is_empty());
        }
    });
}

#[test]
fn no_more_than_so_many_events_of_a_batch_are_looked_for_and_then_pieces_are_given_up_whole() {
    virtual_time(async {
        for on_failure in [OnFailure::DeadLetter, OnFailure::Discard] {
            let retry = RetryPolicy { max_poison: 5, ..RetryPolicy::default() };
            let policy = Policy { retry, on_failure, ..split_windows_of(64) };
            let (rig, store) = Rig::faulty(policy, refusing(0..64));
            feed(&rig, 128).await;
            rig.drained().await;
            assert_eq!(rig.stored("a"), events("a", 64..128), "the next batch is not affected");
            let single = |attempt: &&(BatchId, u32, Vec<Vec<u8>>)| attempt.2.len() == 1;
            assert!(store.attempts().iter().filter(single).count() <= 6, "{on_failure:?}");
            assert!(store.calls() < 2 * 64 / 4, "{on_failure:?}: {}", store.calls());
            let counters = rig.snapshot("a").counters;
            let ended = if on_failure == OnFailure::Discard { counters.discarded } else { counters.dead_lettered };
            assert_eq!(ended, 64);
        }
    });
}

#[test]
fn a_limit_of_none_gives_the_batch_up_whole() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(8), refusing([3]));
        one_batch(&rig, 8).await;
        assert_eq!((rig.dead(), store.calls()), (events("a", 0..8), 1));
    });
}

#[test]
fn only_what_is_refused_for_good_is_split() {
    virtual_time(async {
        for fault in [Fault::Transient, Fault::LostReply, Fault::Stall, Fault::PanicAfter] {
            let (rig, store) = Rig::faulty(split_windows_of(4), fault.first(5));
            one_batch(&rig, 4).await;
            assert_eq!((rig.dead(), store.calls()), (events("a", 0..4), 5), "{fault:?}");
        }
    });
}

#[test]
fn pieces_are_retried_like_batches_and_those_that_run_out_of_attempts_are_given_up_whole() {
    virtual_time(async {
        let poison = refusing([5]);
        let (rig, _) = Rig::faulty(split_windows_of(8), move |batch, call| match poison(batch, call) {
            Fault::None if batch.id().piece.to_string() == ".1" => Fault::LostReply,
            Fault::None if call % 2 == 0 => Fault::Transient,
            fault => fault,
        });
        one_batch(&rig, 8).await;
        assert_eq!(rig.stored("a"), [event("a", 4), event("a", 6), event("a", 7)]);
        assert_eq!(rig.dead(), events("a", (0..4).chain(5..6)));
        assert_eq!(rig.letters.all()[0].cause.code, Code::StoreTransient);
    });
}

#[test]
fn what_is_refused_is_dropped_or_tried_for_ever_where_policy_or_hook_say_so() {
    virtual_time(async {
        for by_hook in [false, true] {
            for verdict in [OnFailure::Discard, OnFailure::Retry] {
                let on_failure = if by_hook { OnFailure::DeadLetter } else { verdict };
                let policy = Policy { on_failure, ..split_windows_of(8) };
                let hooks = if by_hook { Hooks::new().on_failure(move |_| verdict) } else { Hooks::new() };
                let (rig, store) = Rig::faulty_with(policy, refusing([3]), |builder| builder.hooks(hooks));
                feed(&rig, 16).await;
                pass(secs(3600)).await;
                let counters = rig.snapshot("a").counters;
                match verdict {
                    OnFailure::Discard => {
                        assert_eq!((counters.stored, counters.discarded), (15, 1));
                        assert_eq!(rig.logged("a", What::Discarded).len(), 1);
                    }
                    _ => {
                        assert_eq!(
                            (counters.stored, rig.snapshot("a").in_flight),
                            (3, 13),
                            "the others wait behind it"
                        );
                        assert!(rig.logged("a", What::StartedOver).len() > 50, "it backs off up to half a minute");
                        assert!(store.calls() < 1_000, "{}", store.calls());
                        let numbers: Vec<_> = store
                            .attempts()
                            .iter()
                            .filter(|attempt| attempt.2.len() == 1 && number(&attempt.2[0]) == 3)
                            .map(|attempt| attempt.1)
                            .collect();
                        assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
                        store.heal();
                    }
                }
                rig.drained().await;
                assert!(rig.letters.all().is_empty());
                let all =
                    if verdict == OnFailure::Discard { without(16, &BTreeSet::from([3])) } else { events("a", 0..16) };
                assert_eq!(rig.stored("a"), all, "in order");
            }
        }
    });
}

#[test]
fn a_hook_that_panics_when_it_is_to_decide_leaves_it_to_the_policy_and_is_reported() {
    virtual_time(async {
        for on_failure in [OnFailure::DeadLetter, OnFailure::Discard] {
            let hooks = Hooks::new().on_failure(|failure| panic!("cannot decide on {}", failure.cause));
            let policy = Policy { on_failure, ..split_windows_of(4) };
            let (rig, _) = Rig::faulty_with(policy, refusing([1]), |builder| builder.hooks(hooks));
            one_batch(&rig, 4).await;
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.stored, counters.dead_lettered + counters.discarded), (3, 1));
            assert_eq!(rig.dead().len(), usize::from(on_failure == OnFailure::DeadLetter));
            assert!(rig.system.report().entries.iter().any(|entry| entry.code == Code::HookPanic));
        }
    });
}

#[test]
fn a_batch_that_starts_over_is_stored_under_its_id_by_a_later_attempt_also_after_a_crash() {
    virtual_time(async {
        let (mut world, pair) = (World::new(), Pair::new());
        pair.second.script(Fault::Permanent.always());
        let policy = Policy { on_failure: OnFailure::Retry, ..windows_of(2) };
        let rig = world.start_with(policy.clone(), |builder| builder.saga(pair.saga()));
        feed(&rig, 2).await;
        pass(secs(60)).await;
        world.crash(rig).await;
        pair.heal();
        let rig = world.start_with(policy, |builder| builder.saga(pair.saga()));
        world.end(rig).await;
        let numbers = |store: &Store| store.attempts().into_iter().map(|attempt| attempt.1).collect::<Vec<_>>();
        assert!(numbers(&pair.first).len() > 3);
        assert_eq!(numbers(&pair.first), numbers(&pair.second));
        assert!(numbers(&pair.first).windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!((pair.in_order(&world.letters, "a"), world.letters.all().len()), (events("a", 0..2), 0));
    });
}

/// What was told to be dead letters is dead letters, whatever the next process would have decided.
#[test]
fn a_decision_for_dead_letters_is_not_made_again_after_a_crash_once_they_may_be_kept() {
    virtual_time(async {
        for verdict in [OnFailure::Retry, OnFailure::DeadLetter] {
            let mut world = World::faulty(Fault::Permanent.always());
            let rig = world.start(windows_of(2));
            world.journal.hold();
            feed(&rig, 2).await;
            while rig.dead().is_empty() {
                world.journal.commit_all();
                tokio::task::yield_now().await;
            }
            world.crash(rig).await;
            assert_eq!(world.journal.on_disk().tenants[&tenant("a")].totals.dead_lettered, 0);
            world.store.heal();
            let policy = Policy { on_failure: verdict, ..split_windows_of(2) };
            let rig = world.start(policy);
            world.end(rig).await;
            assert_eq!(in_order(&world.kept, &world.letters, "a"), events("a", 0..2));
            assert_eq!(world.letters.all().len(), 2, "{verdict:?}");
        }
    });
}

#[test]
fn a_batch_that_is_damaged_is_not_split_as_its_pieces_would_be_others_for_the_next_process() {
    virtual_time(async {
        for is_front in [true, false] {
            let mut world = World::faulty(Fault::Unavailable.always());
            let rig = world.start(split_windows_of(4));
            let ingress = rig.ingress().await;
            for n in 0..4 {
                ingress.feed(lines(events("a", n * 2..n * 2 + 2))).await.unwrap();
            }
            pass(secs(1)).await;
            world.crash(rig).await;
            world.store.script(refusing(0..8));
            let hit = if is_front { 1 } else { 3 };
            world.journal.damage(|entry| matches!(entry, Entry::Chunk { seq, .. } if *seq == hit));
            let rig = world.start(split_windows_of(4));
            world.end(rig).await;
            let splits = world.journal.entries().into_iter().filter_map(|entry| match entry {
                Entry::Split { batch, .. } if batch.piece.is_whole() => Some(batch.seq.0),
                _ => None,
            });
            assert_eq!(splits.collect::<Vec<_>>(), [if is_front { 2 } else { 1 }]);
            assert_eq!(world.letters.all().len(), 6);
        }
    });
}

#[test]
fn a_piece_of_which_the_changed_bodies_cannot_be_read_is_not_stored_with_others() {
    virtual_time(async {
        let mut world =
            World::faulty(|batch, _| if batch.id().piece.is_whole() { Fault::Permanent } else { Fault::Stall });
        let rig = world.start_with(split_windows_of(4), |builder| builder.hooks(shouting()));
        feed(&rig, 4).await;
        pass(secs(1)).await;
        world.crash(rig).await;
        world.store.heal();
        world.journal.damage(|entry| matches!(entry, Entry::Made { batch, .. } if batch.piece.to_string() == ".2"));
        let rig = world.start_with(split_windows_of(4), |builder| builder.hooks(shouting()));
        world.end(rig).await;
        assert_eq!(world.kept.bodies(&tenant("a")).len(), 2);
        let dead: Vec<_> = world.letters.all().iter().map(|letter| (letter.cause.code, number(&letter.body))).collect();
        assert_eq!(dead, [(Code::JournalDamaged, 2), (Code::JournalDamaged, 3)]);
    });
}

#[test]
fn each_piece_has_its_one_outcome_on_record_and_the_sum_is_that_of_the_batch() {
    virtual_time(async {
        let world = World::faulty(refusing([1, 6]));
        let rig = world.start(split_windows_of(8));
        feed(&rig, 8).await;
        world.end(rig).await;
        let settled: Vec<_> = world
            .journal
            .entries()
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Settled { batch, outcome, events } => Some((batch.piece, outcome, events)),
                _ => None,
            })
            .collect();
        assert!(settled.is_sorted_by_key(|settled| settled.0));
        assert_eq!(settled.iter().map(|settled| settled.2).sum::<u64>(), 8);
        assert_eq!(settled.iter().filter(|settled| settled.1 == Outcome::DeadLettered).count(), 2);
        let stored = world.kept.batches(&tenant("a"));
        assert_eq!(stored.iter().flat_map(bodies).count(), 6);
    });
}

/// Counts what it is told by its word.
#[derive(Clone, Default)]
struct Counting(Arc<std::sync::Mutex<std::collections::BTreeMap<&'static str, u64>>>);

impl headworks_actors::Observer for Counting {
    fn supervised(&self, event: &headworks_actors::SupervisorEvent) {
        *self.0.lock().unwrap().entry(event.what.as_str()).or_default() += 1;
    }
}

#[test]
fn a_store_that_refuses_everything_is_a_few_entries_of_the_log_a_period_that_count_all_there_was() {
    virtual_time(async {
        let counted = Counting::default();
        let observer = counted.clone();
        let (rig, _) = Rig::faulty_with(
            split_windows_of(10),
            |_, _| Fault::Permanent,
            move |builder| builder.observer(observer).log_entries(10_000),
        );
        let ingress = rig.ingress().await;
        for n in 0..100 {
            ingress.feed(lines(events("a", n * 10..n * 10 + 10))).await.unwrap();
            pass(secs(1)).await;
        }
        rig.drained().await;
        assert_eq!(rig.dead().len(), 1_000);
        let told = counted.0.lock().unwrap().clone();
        assert!(told["failed"] > 1_000 && told["split"] > 500, "{told:?}");
        let log = rig.log_of("a");
        for what in [What::Failed, What::Compensated, What::Split, What::DeadLettered] {
            let entries: Vec<_> = log.iter().filter(|entry| entry.what == what).collect();
            // The first of them as they were, and then one each 10 s.
            assert!((21..=32).contains(&entries.len()), "{what:?}: {}", entries.len());
            let all = entries.iter().map(|entry| 1 + entry.repeats).sum::<u64>();
            assert_eq!(Some(&all), told.get(what.as_str()), "{what:?}");
            assert!(entries.last().unwrap().since.is_some() && entries[19].since.is_none());
        }
        let sum = |what: What, of: fn(&headworks_actors::SupervisorEvent) -> u64| {
            log.iter().filter(|entry| entry.what == what).map(|entry| of(entry)).sum::<u64>()
        };
        assert_eq!(sum(What::DeadLettered, |entry| entry.batch_events), 1_000);
        let measured = rig.system.measure();
        assert_eq!(sum(What::Compensated, |entry| u64::from(entry.compensations_run)), measured.compensations_run);
    });
}
