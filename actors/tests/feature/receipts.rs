//! A call that offers events is told what becomes of them.

use std::collections::BTreeMap;

use headworks_actors::{
    Code, Error, Event, Fault, Hooks, OnFailure, OverflowPolicy, Policy, Receipt, Settlement, TenantSpec, WhenFull,
};

use crate::rig::{Rig, World, event, pass, secs, tenant, virtual_time, windows_of};

fn made(name: &str, range: std::ops::Range<usize>) -> Vec<Event> {
    range.map(|n| Event::new(tenant(name), None, event(name, n))).collect()
}

async fn is_waiting<T>(what: impl Future<Output = T>) -> bool {
    tokio::time::timeout(secs(60), what).await.is_err()
}

async fn send(rig: &Rig, events: Vec<Event>) -> Receipt {
    rig.system.send(events).await.unwrap()
}

#[test]
fn a_receipt_says_accepted_once_it_is_committed_and_settled_once_it_has_its_outcome() {
    virtual_time(async {
        let world = World::faulty(Fault::Unavailable.always());
        let rig = world.start(windows_of(2));
        world.journal.hold();
        let mut receipt = send(&rig, made("a", 0..2)).await;
        assert!(is_waiting(receipt.accepted()).await);
        world.journal.commit_up_to(headworks_actors::Position(1));
        receipt.accepted().await;
        assert!(is_waiting(receipt.settled()).await);
        world.journal.release();
        assert!(is_waiting(receipt.settled()).await, "the store is away");
        world.store.heal();
        assert_eq!(*receipt.settled().await, Settlement { stored: 2, ..Settlement::default() });
        assert_eq!(receipt.settled().await.stored, 2, "asked again, it says the same");
        drop(receipt);
        world.end(rig).await;
    });
}

#[test]
fn with_a_volatile_journal_accepted_is_said_at_once() {
    virtual_time(async {
        let rig = Rig::new(windows_of(2));
        let mut receipt = send(&rig, made("a", 0..1)).await;
        receipt.accepted().await;
        assert!(is_waiting(receipt.settled()).await, "its window is open");
        rig.tenant("a").flush();
        assert_eq!(receipt.settled().await.stored, 1);
        rig.drained().await;
    });
}

#[test]
fn what_was_refused_is_counted_by_its_reason() {
    virtual_time(async {
        let world = World::faulty(Fault::Permanent.of_tenant(tenant("poor")));
        let hooks = Hooks::new().filter(|event| !event.body.ends_with(b":7}")).map(|event| {
            assert!(!event.body.ends_with(b":8}"), "a hook fails");
            event
        });
        let overflow =
            OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::Reject, ..OverflowPolicy::default() };
        let full = TenantSpec::from(tenant("full")).policy(Policy { overflow, ..windows_of(1000) });
        let rig = world.start_with(windows_of(1), |builder| builder.hooks(hooks).tenant(full).max_tenants(4));
        rig.system.mute(&tenant("muted"));
        drop(send(&rig, made("full", 100..106)).await);
        let lot =
            [made("a", 6..9), made("muted", 0..2), made("poor", 0..3), made("late", 0..1), made("full", 200..220)];
        let mut receipt = send(&rig, lot.concat()).await;
        let refused = [
            (Code::HookPanic, 1),
            (Code::Muted, 2),
            (Code::StorePermanent, 3),
            (Code::TenantLimit, 1),
            (Code::TenantFull, 20),
        ];
        let settlement = receipt.settled().await.clone();
        assert_eq!(
            settlement,
            Settlement { stored: 2, refused: BTreeMap::from(refused), retry_after: None },
            "one of them was discarded"
        );
        drop(receipt);
        world.end(rig).await;
    });
}

#[test]
fn an_event_that_is_dropped_because_no_store_takes_it_is_not_told_as_stored() {
    virtual_time(async {
        let world = World::faulty(|_, _| Fault::Permanent);
        let policy = Policy { on_failure: OnFailure::Discard, ..windows_of(1) };
        let rig = world.start(policy);
        let mut receipt = send(&rig, made("a", 0..2)).await;
        let refused = BTreeMap::from([(Code::StorePermanent, 2)]);
        assert_eq!(*receipt.settled().await, Settlement { refused, ..Settlement::default() });
        assert_eq!(rig.snapshot("a").counters.discarded, 2);
        drop(receipt);
        world.end(rig).await;
    });
}

#[test]
fn an_empty_call_is_settled_at_once() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(1));
        let mut receipt = send(&rig, vec![]).await;
        receipt.accepted().await;
        assert_eq!(*receipt.settled().await, Settlement::default());
        drop(receipt);
        world.end(rig).await;
    });
}

#[test]
fn waiting_for_a_receipt_may_be_given_up_and_taken_up_again() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        let mut receipt = send(&rig, [made("a", 0..1), made("b", 0..2)].concat()).await;
        for _ in 0..3 {
            assert!(is_waiting(receipt.settled()).await);
        }
        rig.tenant("a").flush();
        assert_eq!(receipt.settled().await.stored, 3);
        drop(receipt);
        world.end(rig).await;
    });
}

#[test]
fn receipts_of_many_calls_do_not_mix_and_a_dropped_one_harms_nobody() {
    virtual_time(async {
        let world = World::faulty(Fault::Permanent.on_call(1));
        let rig = world.start(windows_of(2));
        let mut one = send(&rig, made("a", 0..2)).await;
        drop(send(&rig, made("a", 2..3)).await);
        let mut other = send(&rig, made("a", 3..4)).await;
        assert_eq!(one.settled().await.refused, BTreeMap::from([(Code::StorePermanent, 2)]));
        assert_eq!(*other.settled().await, Settlement { stored: 1, ..Settlement::default() });
        drop((one, other));
        world.end(rig).await;
    });
}

#[test]
fn a_call_leaves_no_stream_on_record_and_its_events_survive_a_crash() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let first = world.start(windows_of(2));
        let receipt = send(&first, made("a", 0..3)).await;
        receipt.accepted().await;
        pass(secs(1)).await;
        assert!(world.journal.check().streams.is_empty());
        drop(receipt);
        world.crash(first).await;
        world.store.heal();
        let second = world.start(windows_of(2));
        // Its calls are numbered from the start again: none may be taken for one of the first process.
        let mut receipt = send(&second, made("a", 3..4)).await;
        assert_eq!(receipt.settled().await.stored, 1);
        drop(receipt);
        world.end(second).await;
        assert_eq!(world.kept.totals()[&tenant("a")], 4);
    });
}

#[test]
fn a_call_after_the_drain_is_refused_and_gets_no_receipt() {
    virtual_time(async {
        let rig = Rig::new(windows_of(2));
        rig.drained().await;
        assert!(matches!(rig.system.send(made("a", 0..1)).await, Err(Error::Closed | Error::Failed(_))));
    });
}
