//! A batch is in every store of its saga, or in none.

use std::sync::Mutex;

use headworks_actors::{
    Batch, Cause, Code, Entry, Error, Fault, MemoryStore, Policy, RetryPolicy, Saga, System, TenantSpec, What,
};

use crate::rig::{
    Call, Pair, Rig, Store, World, events, lines, millis, pass, secs, split_windows_of, tenant, virtual_time,
    windows_of,
};

async fn feed(rig: &Rig, events: impl IntoIterator<Item = String>) {
    rig.ingress().await.feed(lines(events)).await.unwrap();
}

/// A script that draws a fault for each call, of these, each with how often it comes in a hundred calls.
fn at_random(seed: u64, faults: &'static [(Fault, u32)]) -> impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static {
    let rng = Mutex::new(fastrand::Rng::with_seed(seed));
    move |_, _| {
        let mut drawn = rng.lock().unwrap().u32(..100);
        for (fault, share) in faults {
            if drawn < *share {
                return *fault;
            }
            drawn -= share;
        }
        Fault::None
    }
}

const PASSING: &[(Fault, u32)] = &[
    (Fault::Transient, 8),
    (Fault::Unavailable, 4),
    (Fault::LostReply, 8),
    (Fault::PanicBefore, 2),
    (Fault::PanicAfter, 2),
    (Fault::Stall, 3),
];

const ALL: &[(Fault, u32)] = &[
    (Fault::Permanent, 10),
    (Fault::Tear, 4),
    (Fault::Transient, 10),
    (Fault::Unavailable, 4),
    (Fault::LostReply, 10),
    (Fault::PanicAfter, 3),
    (Fault::Stall, 4),
];

/// Ten tenants with a thousand batches each. Says how many batches there are in each store, and how many dead letters.
fn ten_thousand_batches(
    policy: Policy,
    first: &'static [(Fault, u32)],
    second: &'static [(Fault, u32)],
) -> (usize, usize) {
    let window = policy.window.max_events;
    // A fault is no reason to restart less often.
    let policy = Policy { retry: RetryPolicy { attempts: 3, attempt_timeout: secs(1), ..policy.retry }, ..policy };
    virtual_time(async move {
        let pair = Pair::new();
        pair.first.script(at_random(1, first));
        pair.second.script(at_random(2, second));
        let rig = pair.rig_with(policy, |builder| builder.max_in_flight_bytes(1 << 30));
        let names: Vec<_> = (0..10).map(|n| format!("t{n}")).collect();
        for name in &names {
            feed(&rig, events(name, 0..1_000 * window)).await;
        }
        while rig.system.in_flight_bytes() > 0 {
            pass(secs(60)).await;
        }
        for name in &names {
            assert_eq!(pair.in_order(&rig.letters, name), events(name, 0..1_000 * window));
            assert_eq!(rig.snapshot(name).uncompensated, 0);
        }
        rig.drained().await;
        let batches = names.iter().map(|name| rig.store.batches(&tenant(name)).len()).sum();
        (batches, rig.letters.all().len())
    })
}

#[test]
fn after_ten_thousand_batches_of_which_the_second_store_refuses_some_both_hold_the_same_and_the_rest_are_dead_letters()
{
    let (batches, letters) = ten_thousand_batches(windows_of(1), &[], &[(Fault::Permanent, 20)]);
    assert_eq!(batches + letters, 10_000, "nothing is partial");
    assert!((1_500..2_500).contains(&letters), "{letters}");
}

#[test]
fn both_hold_the_same_after_ten_thousand_batches_that_are_split_where_the_second_store_refuses() {
    let (batches, letters) = ten_thousand_batches(split_windows_of(3), &[], &[(Fault::Permanent, 20)]);
    assert!(batches > 10_000 && letters > 100, "{batches} {letters}");
}

#[test]
fn both_hold_the_same_whatever_else_goes_wrong_in_either() {
    for policy in [windows_of(2), split_windows_of(2)] {
        let (batches, letters) = ten_thousand_batches(policy, PASSING, ALL);
        assert!(batches > 5_000 && letters > 1_000, "{batches} {letters}");
    }
}

#[test]
fn the_second_store_is_asked_once_the_first_one_is_done_and_a_refusal_takes_the_batch_back_from_both() {
    virtual_time(async {
        let pair = Pair::new();
        pair.second.script(Fault::Permanent.on_call(2));
        let rig = pair.rig(windows_of(2));
        feed(&rig, events("a", 0..6)).await;
        rig.drained().await;
        for store in pair.both() {
            assert_eq!(store.rolled_back(), [1]);
            let order: Vec<_> = store
                .record()
                .into_iter()
                .filter_map(|call| match call {
                    Call::Store { id, .. } => Some(('s', id.seq.0)),
                    Call::Rollback { id, .. } => Some(('r', id.seq.0)),
                    _ => None,
                })
                .collect();
            assert_eq!(order, [('s', 1), ('s', 2), ('r', 2), ('s', 3)]);
        }
        assert_eq!(pair.in_order(&rig.letters, "a"), events("a", 0..6));
        assert_eq!(rig.dead(), events("a", 2..4));
        assert!(rig.letters.all().iter().all(|letter| letter.cause.code == Code::StorePermanent));
        let log = rig.logged("a", What::DeadLettered);
        assert_eq!(log[0].store.as_ref().map(|store| store.as_str()), Some("second"));
        assert_eq!(rig.logged("a", What::Compensated)[0].compensations_run, 2);
    });
}

#[test]
fn each_store_has_all_the_attempts_and_a_retry_of_the_second_does_not_ask_the_first_again() {
    virtual_time(async {
        let pair = Pair::new();
        pair.first.script(Fault::Transient.first(4));
        pair.second.script(Fault::LostReply.first(4));
        let rig = pair.rig(windows_of(2));
        feed(&rig, events("a", 0..2)).await;
        rig.drained().await;
        for store in pair.both() {
            assert_eq!(store.attempts().iter().map(|attempt| attempt.1).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
            assert!(store.rolled_back().is_empty());
        }
        assert_eq!((pair.in_order(&rig.letters, "a"), rig.dead()), (events("a", 0..2), vec![]));
    });
}

#[test]
fn an_outage_of_the_second_store_parks_the_batch_and_does_not_touch_the_first_again() {
    virtual_time(async {
        let pair = Pair::new();
        pair.second.script(Fault::Unavailable.always());
        let rig = pair.rig(windows_of(1));
        feed(&rig, events("a", 0..3).into_iter().chain(events("b", 0..3))).await;
        pass(secs(3600)).await;
        assert_eq!(pair.first.attempts().len(), 2, "one of each tenant");
        assert_eq!((rig.logged("a", What::Parked).len(), rig.letters.all().len()), (1, 0));
        pair.heal();
        rig.drained().await;
        assert_eq!(rig.logged("a", What::Unparked).len(), 1);
        for name in ["a", "b"] {
            assert_eq!((pair.in_order(&rig.letters, name), rig.stored(name).len()), (events(name, 0..3), 3));
        }
    });
}

#[test]
fn a_restart_by_hand_in_the_middle_of_the_second_step_goes_on_with_the_second_step() {
    virtual_time(async {
        let pair = Pair::new();
        pair.second.script(Fault::Stall.first(2));
        let rig = pair.rig(windows_of(1));
        feed(&rig, events("a", 0..1)).await;
        for calls in 1..=2 {
            pair.second.until_calls(calls).await;
            if calls == 1 { rig.tenant("a").restart() } else { rig.tenant("a").inject_panic() }
        }
        rig.drained().await;
        assert_eq!((pair.first.attempts().len(), pair.second.attempts().len()), (1, 3));
        assert_eq!((pair.in_order(&rig.letters, "a"), rig.dead()), (events("a", 0..1), vec![]));
    });
}

fn start_error(saga: Saga) -> String {
    match System::builder().saga(saga).start() {
        Err(Error::InvalidSaga(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_saga_that_cannot_work_is_refused_and_the_error_says_why() {
    let store = MemoryStore::new;
    assert!(start_error(Saga::new()).contains("has no store"));
    let twice = Saga::new().then(store()).named("db").then(store()).named("db");
    assert!(start_error(twice).contains("two stores are named db"));
    let clash = Saga::new().then(store()).then(store()).named("store-1");
    assert!(start_error(clash).contains("two stores are named store-1"), "also with a name that was not given");
    for name in ["", "a/b", ".db", "a b", &"x".repeat(65)] {
        let why = start_error(Saga::new().then(store()).named(name));
        assert!(why.contains("is no name for a store"), "{why}");
    }
    assert!(start_error(Saga::new().named("db").then(store())).contains("\"db\" comes before the first store"));
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        let spec = TenantSpec::new("a").unwrap().saga(Saga::new());
        let Err(Error::InvalidSaga(why)) = rig.system.spawn(spec.clone()).await else { panic!("it is refused") };
        assert!(why.contains("tenant a") && why.contains("has no store"), "{why}");
        assert!(matches!(System::builder().tenant(spec).start(), Err(Error::InvalidSaga(_))));
    });
}

fn one_attempt_each(policy: Policy) -> Policy {
    Policy { retry: RetryPolicy { attempts: 1, ..policy.retry }, ..policy }
}

/// What goes on record of one batch, as words.
fn words(world: &World) -> Vec<String> {
    let word = |entry| match entry {
        Entry::Intent { store, attempt, .. } => Some(format!("intent {store} {attempt}")),
        Entry::Failed { store, attempt, .. } => Some(format!("failed {store} {attempt}")),
        Entry::Done { store, .. } => Some(format!("done {store}")),
        Entry::GivenUp { .. } => Some("given up".to_owned()),
        Entry::Compensated { nth, .. } => Some(format!("compensated {nth}")),
        Entry::Settled { outcome, .. } => Some(format!("{outcome:?}")),
        _ => None,
    };
    world.journal.entries().into_iter().filter_map(word).collect()
}

#[test]
fn each_step_is_on_record_before_it_begins_and_done_before_the_next_one_does() {
    virtual_time(async {
        let (world, pair) = (World::new(), Pair::new());
        pair.second.script(|batch, call| match (batch.id().seq.0, call) {
            (1, 1) => Fault::Transient,
            (2, _) => Fault::Permanent,
            _ => Fault::None,
        });
        let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
        feed(&rig, events("a", 0..2)).await;
        pass(secs(60)).await;
        feed(&rig, events("a", 2..4)).await;
        world.end(rig).await;
        let expected = [
            "intent first 1",
            "done first",
            "intent second 1",
            "failed second 1",
            "intent second 2",
            "Stored",
            "intent first 1",
            "done first",
            "intent second 1",
            "given up",
            "compensated 0",
            "compensated 1",
            "compensated 2",
            "DeadLettered",
        ];
        assert_eq!(words(&world), expected, "the last of the compensated says that there is no way back");
    });
}

#[test]
fn the_second_store_is_not_asked_before_it_is_committed_that_the_first_one_is_done() {
    virtual_time(async {
        let (world, pair) = (World::new(), Pair::new());
        pair.first.script(Fault::Stall.always());
        let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
        feed(&rig, events("a", 0..2)).await;
        pair.first.until_calls(1).await;
        world.journal.hold();
        pair.first.heal();
        pass(secs(60)).await;
        assert_eq!(words(&world), ["intent first 1", "done first", "intent second 1"]);
        assert_eq!(pair.second.attempts(), []);
        world.journal.release();
        world.end(rig).await;
        assert_eq!(pair.in_order(&world.letters, "a"), events("a", 0..2));
    });
}

#[test]
fn attempts_of_each_store_are_numbered_without_a_gap_across_crashes() {
    virtual_time(async {
        let (mut world, pair) = (World::new(), Pair::new());
        pair.first.script(Fault::Stall.always());
        for process in 0..6 {
            if process == 3 {
                pair.first.heal();
                pair.second.script(Fault::Stall.always());
            }
            let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
            if process == 0 {
                feed(&rig, events("a", 0..2)).await;
            }
            pass(secs(1)).await;
            world.crash(rig).await;
        }
        pair.heal();
        let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
        world.end(rig).await;
        for store in pair.both() {
            let attempts: Vec<_> = store.attempts().into_iter().map(|attempt| attempt.1).collect();
            assert_eq!(attempts, [1, 2, 3, 4], "what the first has done is not done again");
        }
        assert_eq!(pair.in_order(&world.letters, "a"), events("a", 0..2));
    });
}

/// A process that died in the middle of the second step of two batches' saga, of which the first is at it.
async fn dies_in_the_second_step(world: &mut World, pair: &Pair) {
    pair.second.script(Fault::Stall.always());
    let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
    feed(&rig, events("a", 0..4)).await;
    pass(secs(1)).await;
    assert_eq!((pair.first.attempts().len(), pair.second.attempts().len()), (1, 1));
    world.crash(rig).await;
    pair.second.script(Fault::None.always());
}

fn owed(world: &World) -> Vec<(String, Cause)> {
    let tenants = world.journal.on_disk().tenants;
    let owed = tenants.into_values().flat_map(|tenant| tenant.uncompensated);
    owed.map(|owed| (owed.store.to_string(), owed.cause)).collect()
}

#[test]
fn a_store_that_is_new_in_the_saga_gets_the_batches_that_were_begun_without_it() {
    virtual_time(async {
        for place in 0..3 {
            let (mut world, pair, new) = (World::new(), Pair::new(), Pair::new().first);
            dies_in_the_second_step(&mut world, &pair).await;
            let mut stores: Vec<(&str, Store)> = vec![("first", pair.first.clone()), ("second", pair.second.clone())];
            stores.insert(place, ("new", new.clone()));
            let saga = stores.into_iter().fold(Saga::new(), |saga, (name, store)| saga.then(store).named(name));
            let rig = world.start_with(windows_of(2), |builder| builder.saga(saga));
            world.end(rig).await;
            assert_eq!(pair.in_order(&world.letters, "a"), events("a", 0..4), "{place}");
            let held = |store: &Store| store.inner().bodies(&tenant("a"));
            assert_eq!((held(&new), held(&new).len()), (held(&pair.first), 4), "{place}");
            let of_first: Vec<_> = pair.second.attempts().into_iter().filter(|attempt| attempt.0.seq.0 == 1).collect();
            assert_eq!(of_first.iter().map(|attempt| attempt.1).collect::<Vec<_>>(), [1, 2], "{place}");
        }
    });
}

#[test]
fn stores_that_change_places_keep_their_attempts_and_are_rolled_back_newest_first() {
    virtual_time(async {
        for refuses in [false, true] {
            let (mut world, pair) = (World::new(), Pair::new());
            pair.first.script(Fault::Stall.always());
            let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
            feed(&rig, events("a", 0..4)).await;
            pass(secs(1)).await;
            world.crash(rig).await;
            pair.heal();
            if refuses {
                pair.first.script(Fault::Permanent.always());
            }
            let saga = Saga::new().then(pair.second.clone()).named("second").then(pair.first.clone()).named("first");
            let rig = world.start_with(windows_of(2), |builder| builder.saga(saga));
            world.end(rig).await;
            let numbers = |store: &Store| store.attempts().into_iter().map(|attempt| attempt.1).collect::<Vec<_>>();
            assert_eq!(numbers(&pair.second), [1, 1]);
            assert_eq!(numbers(&pair.first)[..2], [1, 2], "on record the first one was begun for both");
            assert_eq!(pair.in_order(&world.letters, "a"), events("a", 0..4));
            assert_eq!(world.letters.all().is_empty(), !refuses);
            assert_eq!(owed(&world), []);
        }
    });
}

#[test]
fn a_batch_that_is_done_in_a_store_that_is_gone_is_settled_by_the_stores_that_are_left() {
    virtual_time(async {
        let (mut world, pair) = (World::new(), Pair::new());
        dies_in_the_second_step(&mut world, &pair).await;
        let saga = Saga::new().then(pair.second.clone()).named("second");
        let rig = world.start_with(windows_of(2), |builder| builder.saga(saga));
        world.end(rig).await;
        assert_eq!(pair.second.inner().bodies(&tenant("a")).len(), 4);
        assert_eq!((owed(&world), world.letters.all().len()), (vec![], 0));
    });
}

#[test]
fn what_a_store_that_is_gone_may_hold_of_a_batch_that_is_given_up_stands_on_the_list_until_it_is_named_again() {
    virtual_time(async {
        let (mut world, pair) = (World::new(), Pair::new());
        dies_in_the_second_step(&mut world, &pair).await;
        // The second one is named otherwise now, and refuses what the first process had begun there.
        pair.second.script(|batch, _| if batch.id().seq.0 == 1 { Fault::Permanent } else { Fault::None });
        let saga = Saga::new().then(pair.first.clone()).named("first").then(pair.second.clone()).named("renamed");
        let rig = world.start_with(one_attempt_each(windows_of(2)), |builder| builder.saga(saga));
        pass(secs(3)).await;
        let listed = owed(&world);
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].0.as_str(), listed[0].1.code), ("second", Code::CompensationFailed));
        let why = &listed[0].1.detail;
        assert!(why.contains("no store is named second any more, only first, renamed"), "{why}");
        assert_eq!(rig.snapshot("a").uncompensated, 1);
        assert_eq!(rig.dead(), events("a", 0..2));
        assert!(rig.letters.all()[0].cause.detail.contains("not undone when it was given up: rollback in second"));
        world.crash(rig).await;
        // It has its name again: the list empties by itself.
        let rig = world.start_with(windows_of(2), |builder| builder.saga(pair.saga()));
        assert_eq!(rig.snapshot("a").uncompensated, 1, "it is durable");
        pass(secs(10)).await;
        assert_eq!((rig.snapshot("a").uncompensated, owed(&world)), (0, vec![]));
        world.end(rig).await;
        assert_eq!(pair.in_order(&world.letters, "a"), events("a", 0..4));
    });
}

#[test]
fn two_steps_that_hang_do_not_hold_another_tenant() {
    virtual_time(async {
        let pair = Pair::new();
        pair.first.script(Fault::Stall.of_tenant(tenant("a")));
        pair.second.script(Fault::Stall.of_tenant(tenant("b")));
        let rig = pair.rig(windows_of(1));
        feed(&rig, ["a", "b", "c"].into_iter().flat_map(|name| events(name, 0..1))).await;
        pass(millis(1)).await;
        assert_eq!(pair.second.inner().bodies(&tenant("c")).len(), 1, "at once");
        pair.heal();
        rig.drained().await;
    });
}
