//! Code of embedders on the way of an event: it changes what it may, and where it fails it costs its event or batch.

use std::sync::{Arc, Mutex};

use headworks_actors::{
    Batch, ChunkBuilder, Code, DeadLetterKind, Event, Fault, Hooks, Opening, Policy, Seq, TenantSpec, UnixMillis,
};

use crate::rig::{Rig, event, events, lines, tenant, virtual_time, windows_of};

fn is_poison(body: &[u8]) -> bool {
    body.windows(6).any(|part| part == b"poison")
}

fn upper(event: headworks_actors::EventRef<'_>) -> bytes::Bytes {
    event.body.to_ascii_uppercase().into()
}

fn with(policy: Policy, hooks: Hooks) -> Rig {
    Rig::with(policy, |builder| builder.hooks(hooks))
}

#[test]
fn maps_and_filters_run_in_order_and_what_a_filter_drops_is_counted() {
    virtual_time(async {
        let hooks = Hooks::new().filter(|event| !event.body.ends_with(b"7}")).map(|mut event| {
            event.body = [&event.body[..], b"!"].concat().into();
            event
        });
        let rig = with(Policy::default(), hooks.filter(|event| event.body.ends_with(b"!")));
        rig.ingress().await.feed(lines(events("a", 0..20))).await.unwrap();
        rig.drained().await;
        let kept = events("a", (0..20).filter(|n| n % 10 != 7)).into_iter().map(|event| event + "!");
        assert!(rig.stored("a").into_iter().eq(kept));
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.discarded, counters.stored), (20, 2, 18));
    });
}

#[test]
fn a_tenants_own_hooks_run_after_the_systems() {
    virtual_time(async {
        let add = |letter: &'static str| {
            Hooks::new().map(move |mut event: Event| {
                event.body = [&event.body[..], letter.as_bytes()].concat().into();
                event
            })
        };
        let rig = Rig::with(Policy::default(), |builder| {
            builder.hooks(add("1")).tenant(TenantSpec::from(tenant("a")).hooks(add("2")))
        });
        rig.ingress().await.feed(lines([event("a", 0), event("b", 0)])).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a"), [event("a", 0) + "12"]);
        assert_eq!(rig.stored("b"), [event("b", 0) + "1"]);
    });
}

#[test]
fn batches_are_mapped_once_and_every_attempt_sees_the_same_bytes() {
    virtual_time(async {
        let runs = Arc::new(Mutex::new(0));
        let count = runs.clone();
        let hooks = Hooks::new().map_batch(move |batch| {
            *count.lock().unwrap() += 1;
            let run = *count.lock().unwrap();
            batch.map_bodies(|event| [event.body, format!(" {run}").as_bytes()].concat().into())
        });
        for fault in [Fault::Transient, Fault::PanicBefore, Fault::Stall] {
            *runs.lock().unwrap() = 0;
            let (rig, store) = Rig::faulty_with(windows_of(2), fault.first(3), |builder| builder.hooks(hooks.clone()));
            rig.ingress().await.feed(lines(events("a", 0..2))).await.unwrap();
            rig.drained().await;
            assert_eq!(*runs.lock().unwrap(), 1, "{fault:?}");
            let attempts = store.attempts();
            assert_eq!(attempts.len(), 4);
            assert!(attempts.iter().all(|attempt| attempt.2 == attempts[0].2), "{fault:?}");
            assert_eq!(rig.stored("a"), events("a", 0..2).into_iter().map(|event| event + " 1").collect::<Vec<_>>());
        }
    });
}

#[test]
fn batches_that_a_filter_drops_are_discarded_and_the_next_is_stored() {
    virtual_time(async {
        let rig = with(windows_of(2), Hooks::new().filter_batch(|batch| batch.id().seq.0 != 2));
        rig.ingress().await.feed(lines(events("a", 0..6))).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a"), events("a", [0, 1, 4, 5]));
        assert_eq!((rig.snapshot("a").counters.discarded, rig.letters.all().len()), (2, 0));
    });
}

#[test]
fn taps_see_what_was_stored_and_what_was_given_up() {
    virtual_time(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tell = |word: &'static str| {
            let seen = seen.clone();
            move |body: &[u8]| seen.lock().unwrap().push(format!("{word} {}", String::from_utf8_lossy(body)))
        };
        let (stored, failed, batch_stored, batch_failed) =
            (tell("stored"), tell("failed"), tell("batch stored"), tell("batch failed"));
        let hooks = Hooks::new()
            .on_event_stored(move |event| stored(&event.body))
            .on_event_failed(move |event, failure| {
                assert_eq!(failure.cause.code, Code::StorePermanent);
                failed(&event.body);
            })
            .on_stored(move |batch| batch_stored(batch.len().to_string().as_bytes()))
            .on_failed(move |batch, failure| {
                assert_eq!(failure.batch.as_ref(), Some(batch.id()));
                batch_failed(batch.len().to_string().as_bytes());
            });
        let (rig, _store) = Rig::faulty_with(windows_of(2), Fault::Permanent.first(1), |builder| builder.hooks(hooks));
        rig.ingress().await.feed(lines(events("a", 0..4))).await.unwrap();
        rig.drained().await;
        let told = |word: &str, n| format!("{word} {}", event("a", n));
        let expected = [
            "batch failed 2".to_owned(),
            told("failed", 0),
            told("failed", 1),
            "batch stored 2".to_owned(),
            told("stored", 2),
            told("stored", 3),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
    });
}

#[test]
fn taps_of_stored_batches_see_the_bytes_that_are_in_the_store() {
    virtual_time(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tap = seen.clone();
        let hooks = Hooks::new()
            .map_batch(|batch| batch.map_bodies(upper))
            .on_event_stored(move |event| tap.lock().unwrap().push(String::from_utf8_lossy(&event.body).into_owned()));
        let rig = with(windows_of(2), hooks);
        rig.ingress().await.feed(lines(events("a", 0..2))).await.unwrap();
        rig.drained().await;
        assert_eq!(*seen.lock().unwrap(), rig.stored("a"));
    });
}

#[test]
fn an_event_hook_that_panics_costs_its_event_and_nothing_else() {
    virtual_time(async {
        let map = Hooks::new().map(|event| {
            assert!(!is_poison(&event.body), "the map panics");
            event
        });
        let filter = Hooks::new().filter(|event| {
            assert!(!is_poison(&event.body), "the filter panics");
            true
        });
        for hooks in [map, filter] {
            let rig = with(Policy::default(), hooks);
            let poison = r#"{"tenant":"a","x":"poison"}"#.to_owned();
            let sent = [event("a", 0), poison.clone(), event("b", 0), event("a", 1)];
            rig.ingress().await.feed(lines(sent)).await.unwrap();
            rig.drained().await;
            assert_eq!((rig.stored("a"), rig.stored("b")), (events("a", 0..2), events("b", 0..1)));
            let letters = rig.letters.all();
            assert_eq!(rig.dead(), [poison]);
            assert_eq!((letters[0].kind, letters[0].cause.code), (DeadLetterKind::Event, Code::HookPanic));
            assert_eq!(letters[0].tenant, Some(tenant("a")));
            let counters = rig.snapshot("a").counters;
            assert_eq!((counters.accepted, counters.dead_lettered, counters.stored), (3, 1, 2));
            assert_eq!(rig.source("test").accepted, 4);
        }
    });
}

#[test]
fn a_batch_hook_that_panics_costs_its_batch_and_nothing_else() {
    virtual_time(async {
        let map = Hooks::new().map_batch(|batch| {
            assert!(batch.id().seq.0 != 1, "the map panics");
            batch
        });
        let filter = Hooks::new().filter_batch(|batch| {
            assert!(batch.id().seq.0 != 1, "the filter panics");
            true
        });
        for hooks in [map, filter] {
            let (rig, store) = Rig::faulty_with(windows_of(2), Fault::None.always(), |builder| builder.hooks(hooks));
            rig.ingress().await.feed(lines(events("a", 0..4))).await.unwrap();
            rig.drained().await;
            assert_eq!((rig.dead(), rig.stored("a")), (events("a", 0..2), events("a", 2..4)));
            let letters = rig.letters.all();
            assert!(letters.iter().all(|letter| letter.cause.code == Code::HookPanic && letter.attempts == 0));
            assert_eq!((store.attempts().len(), store.rollbacks()), (1, 0), "the store never saw it");
            assert_eq!(rig.snapshot("a").counters.restarts, 0);
        }
    });
}

#[test]
fn a_tap_that_panics_changes_no_outcome_and_is_reported() {
    virtual_time(async {
        let hooks = [
            Hooks::new().on_stored(|_| panic!("the tap panics")),
            Hooks::new().on_event_stored(|_| panic!("the tap panics")),
            Hooks::new().on_failed(|_, _| panic!("the tap panics")),
            Hooks::new().on_event_failed(|_, _| panic!("the tap panics")),
        ];
        for hooks in hooks {
            let script = Fault::Permanent.first(1);
            let (rig, _store) = Rig::faulty_with(windows_of(2), script, |builder| builder.hooks(hooks));
            rig.ingress().await.feed(lines(events("a", 0..4))).await.unwrap();
            while rig.snapshot("a").in_flight > 0 {
                crate::rig::pass(crate::rig::millis(1)).await;
            }
            let report = rig.system.report();
            assert!(report.entries.iter().any(|entry| entry.code == Code::HookPanic), "{report}");
            rig.drained().await;
            assert_eq!((rig.dead(), rig.stored("a")), (events("a", 0..2), events("a", 2..4)));
            assert_eq!(rig.snapshot("a").counters.restarts, 0);
        }
    });
}

#[test]
fn a_batch_hook_cannot_change_id_or_number_of_events() {
    virtual_time(async {
        let other = |tenant: headworks_actors::TenantId, seq: u64, events: usize| {
            let mut builder = ChunkBuilder::default();
            (0..events).for_each(|_| builder.push(b"forged", None));
            Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant, UnixMillis(0)).unwrap())
        };
        let hooks = Hooks::new().map_batch(move |batch| match batch.id().seq.0 {
            1 => other(batch.tenant().clone(), 1, batch.len()),
            2 => other(tenant("b"), 2, batch.len()),
            3 => batch.map_bodies(upper),
            _ => batch,
        });
        let rig = with(windows_of(2), hooks);
        rig.ingress().await.feed(lines(events("a", 0..8))).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.dead(), events("a", 0..4), "as they were accepted");
        let upper = events("a", 4..6).into_iter().map(|event| event.to_ascii_uppercase());
        assert!(rig.stored("a").into_iter().eq(upper.chain(events("a", 6..8))));
        assert!(rig.stored("b").is_empty());
    });
}
