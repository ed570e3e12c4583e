//! Whatever panics, a handler of ours or any code of an embedder: the neighbours keep their pace, nothing is lost, and the place
//! is named. The tables know every place there is, and a test says so where one is missing.
//!
//! A [`Journal`](headworks_actors::Journal) is not among the places. It is the record that everything else is made good from, and
//! must not panic.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use headworks_actors::port::panic_point::PANIC_POINTS;
use headworks_actors::{
    Error, HeartbeatPolicy, IngressHandle, IngressSpec, MemoryDeadLetters, MemoryStore, PanicAt, Policy, RestartPolicy,
    Status, TenantId, TenantSpec, WindowPolicy,
};
use tokio::time::Instant;

use crate::rig::{
    Rig, Trip, UserLetters, UserObserver, UserSource, UserStore, When, event, lines, millis, pass, secs, tenant,
    virtual_time,
};

/// Every place in an embedder's code, with what names it: the tenant and the actor in the log, or the tenant and the code in the
/// report. Where a call gives a future, there are two: before the future is there, and in it.
const USER_CODE: [(&str, &str); 35] = [
    ("Source::name", "- source"),
    ("Source::run", "- source"),
    ("Source::run, later", "- source"),
    ("Decoder::decode", "- decoder_panic"),
    ("TypedJson", "- decoder_panic"),
    ("TypedJson::new", "- decoder_panic"),
    ("TypedJson::time", "- decoder_panic"),
    ("Hooks::map", "a hook_panic"),
    ("Hooks::filter", "a hook_panic"),
    ("Hooks::map_batch", "a hook_panic"),
    ("Hooks::filter_batch", "a hook_panic"),
    ("Hooks::on_event_stored", "a hook_panic"),
    ("Hooks::on_event_failed", "a hook_panic"),
    ("Hooks::on_stored", "a hook_panic"),
    ("Hooks::on_failed", "a hook_panic"),
    ("Hooks::on_failure", "a hook_panic"),
    ("Storage::store", "a writer"),
    ("Storage::store, later", "a writer"),
    ("Storage::rollback", "a compensation_failed"),
    ("Storage::rollback, later", "a compensation_failed"),
    ("Storage::undo", "a compensation_failed"),
    ("Storage::undo, later", "a compensation_failed"),
    ("Storage::takes_pieces", "a aggregator"),
    ("DeadLetters::put", "- dead_letter_failed"),
    ("DeadLetters::put, later", "- dead_letter_failed"),
    ("DeadLetters::put of a batch", "a dead_letter_failed"),
    ("DeadLetters::put of a batch, later", "a dead_letter_failed"),
    ("Observer::flushed", "a observer_panic"),
    ("Observer::attempted", "a observer_panic"),
    ("Observer::settled", "a observer_panic"),
    ("Observer::failed", "a observer_panic"),
    ("Observer::supervised", "a observer_panic"),
    ("SystemBuilder::on_report", "- observer_panic"),
    ("Seam::new", "- supervisor"),
    ("Seam::new", "- clock_panic"),
];

/// What no actor ever calls: whoever does gets the panic himself.
const NEVER_CALLED: [&str; 10] = [
    "Storage::count",
    "DeadLetters::list",
    "DeadLetters::get",
    "DeadLetters::page",
    "DeadLetters::edit",
    "DeadLetters::purge",
    "DeadLetters::begin_replay",
    "DeadLetters::replays",
    "DeadLetters::replaying",
    "DeadLetters::replayed",
];

/// In milliseconds.
const MAX_LATENESS: u64 = 2;

/// A system in which everything that can be plugged in is, and what it was sent.
struct Town {
    rig: Rig,
    trip: Trip,
    stored_at: Arc<Mutex<Vec<(String, Instant)>>>,
    /// When each event was sent, and what else was sent as a frame.
    sent: RefCell<BTreeMap<String, Instant>>,
    garbage: RefCell<Vec<String>>,
}

impl Town {
    fn new(trip: Trip, panic_at: Option<PanicAt>) -> Rc<Self> {
        let policy = Policy {
            heartbeat: HeartbeatPolicy { every: millis(700), idle_after: secs(3), ..HeartbeatPolicy::default() },
            restart: RestartPolicy { quarantine: secs(2), ..RestartPolicy::default() },
            ..Policy::default()
        };
        // Its windows close by their number of events and by their age.
        let of_a = Policy { window: WindowPolicy { max_events: 4, ..WindowPolicy::default() }, ..policy.clone() };
        let (kept, letters) = (MemoryStore::new(), MemoryDeadLetters::default());
        let stored_at = Arc::<Mutex<Vec<_>>>::default();
        let store =
            UserStore { trip: trip.clone(), kept: kept.clone(), stored_at: stored_at.clone(), calls: Arc::default() };
        let rig = Rig::with(policy, |builder| {
            let builder = builder
                .tenant(TenantSpec::from(tenant("a")).policy(of_a))
                .store(store)
                .dead_letters(UserLetters(trip.clone(), letters.clone()))
                .hooks(trip.hooks())
                .observer(UserObserver(trip.clone()))
                .report_every(Some(millis(200)))
                .on_report({
                    let trip = trip.clone();
                    move |_| trip.at("SystemBuilder::on_report", None)
                })
                .seam(trip.seam());
            panic_at.into_iter().fold(builder, |builder, at| builder.panic_at(at))
        });
        let rig = Rig { store: kept, letters, ..rig };
        trip.arm(true);
        Rc::new(Self { rig, trip, stored_at, sent: RefCell::default(), garbage: RefCell::default() })
    }

    fn sends(&self, event: String) -> String {
        self.sent.borrow_mut().insert(event.clone(), Instant::now());
        event
    }

    async fn open(&self, spec: impl Fn() -> IngressSpec) -> IngressHandle {
        again(async || self.rig.system.ingress(spec()).await).await
    }

    /// What a user with faults does, by every way there is into the system.
    async fn faulty(&self) {
        let (mut raw, typed) = (self.open(|| self.trip.raw()).await, self.open(|| self.trip.typed()).await);
        for n in 0..40 {
            let frames = lines([self.sends(event("a", n))]);
            again(async || raw.feed(frames.clone()).await).await;
            if n % 5 == 0 {
                let offered = self.sends(event("a", 1_000 + n));
                again(async || self.rig.system.offer(vec![of_a(&offered)]).await).await;
                let frames = lines([self.sends(event("a", 2_000 + n))]);
                again(async || typed.feed(frames.clone()).await).await;
                let frame = format!("garbage {n}");
                self.garbage.borrow_mut().push(frame.clone());
                again(async || raw.feed(lines([frame.clone()])).await).await;
            }
            if n % 10 == 0 {
                again(async || raw.finish(true).await).await;
                raw = self.open(|| self.trip.raw()).await;
                let source =
                    again(async || self.rig.system.add_source(UserSource(self.trip.clone(), 3_000 + n)).await).await;
                if source.ended().await.is_ok() {
                    self.sends(event("a", 3_000 + n));
                }
            }
            pass(millis(100)).await;
        }
    }

    /// Two neighbours, with a connection of their own.
    async fn neighbours(&self) {
        let ingress = self.open(|| self.trip.raw()).await;
        for n in 0..40 {
            pass(millis(100)).await;
            ingress.feed(lines(["b", "c"].map(|name| self.sends(event(name, n))))).await.unwrap();
        }
    }

    /// No event of these was on its way for longer than a window may be open.
    fn assert_on_time(&self, what: &str, of: &[&str]) {
        let (stored, sent) = (self.stored_at.lock().unwrap(), self.sent.borrow());
        let mine = |body: &str| of.iter().any(|name| body.contains(&format!("\"{name}\"")));
        for (body, at) in stored.iter().filter(|(body, _)| mine(body)) {
            let took = *at - sent[body];
            assert!(took <= secs(1) + millis(MAX_LATENESS), "{what}: {body} took {took:?}");
        }
    }

    /// Everything that names a panic: `tenant actor: detail` and `tenant code: detail`.
    fn told(&self) -> Vec<String> {
        let of = |tenant: &Option<TenantId>| tenant.as_ref().map_or("-".to_owned(), ToString::to_string);
        let log = self.rig.system.log().last(usize::MAX);
        let log = log.iter().filter_map(|event| {
            Some(format!("{} {}: {}", of(&event.tenant), event.actor.as_str(), event.cause.as_ref()?.detail))
        });
        let report = self.rig.system.report().entries;
        let report = report.iter().map(|entry| format!("{} {}: {}", of(&entry.tenant), entry.code, entry.sample));
        log.chain(report).collect()
    }
}

fn of_a(body: &str) -> headworks_actors::Event {
    headworks_actors::Event::new(tenant("a"), None, body.to_owned())
}

/// What whoever is told that an actor failed does: the same again.
async fn again<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(Error::Failed(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// One panic, or many, at one place in the life of three tenants.
fn a_panic_at(place: &'static str, named: &str, when: When, panic_at: Option<PanicAt>) {
    let what = format!("{place}, {when:?}");
    virtual_time(async {
        let town = Town::new(Trip::new(place, when), panic_at);
        for name in ["a", "b", "c"] {
            again(async || town.rig.system.spawn(tenant(name)).await).await;
        }
        let (faulty, neighbours) = (town.clone(), town.clone());
        let faulty = tokio::task::spawn_local(async move { faulty.faulty().await });
        let neighbours = tokio::task::spawn_local(async move { neighbours.neighbours().await });
        faulty.await.unwrap();
        neighbours.await.unwrap();
        pass(secs(2)).await;
        town.assert_on_time(&what, &["b", "c"]);
        for name in ["b", "c"] {
            assert_eq!(town.rig.stored(name), (0..40).map(|n| event(name, n)).collect::<Vec<_>>(), "{what}");
        }
        let (told, says) = (town.told(), format!("a panic was asked for at {place}"));
        let is_named = told.iter().any(|line| line.starts_with(&format!("{named}: ")) && line.contains(&says));
        assert!(is_named, "{what}: nothing of {named} says that among {told:#?}");

        // The fault is gone: everybody is as before.
        town.trip.arm(false);
        pass(secs(60)).await;
        for name in ["a", "b", "c"] {
            let now = town.rig.snapshot(name);
            // What was given up shortly before is told for a while.
            assert!(matches!(now.status, Status::Idle | Status::Failing), "{what}: {name}: {}", now.status);
            assert_eq!((now.in_flight, now.uncompensated), (0, 0), "{what}: {name}");
        }
        town.stored_at.lock().unwrap().clear();
        let ingress = town.open(|| town.trip.raw()).await;
        ingress.feed(lines(["a", "b", "c"].map(|name| town.sends(event(name, 9_999))))).await.unwrap();
        pass(secs(2)).await;
        town.assert_on_time(&what, &["a", "b", "c"]);
        assert_eq!(town.stored_at.lock().unwrap().len(), 3, "{what}");
        town.rig.drained().await;
        let (stored, dead) = (["a", "b", "c"].map(|name| town.rig.stored(name)).concat(), town.rig.dead());
        let mut outcomes = [stored, dead].concat();
        outcomes.sort();
        let mut sent: Vec<_> = town.sent.borrow().keys().cloned().chain(town.garbage.borrow().clone()).collect();
        sent.sort();
        assert_eq!(outcomes, sent, "{what}: each has one outcome");
    });
}

#[test]
fn a_handler_that_panics_delays_no_neighbour_loses_nothing_and_is_named() {
    for point in PANIC_POINTS {
        let actor = point.split('/').next().unwrap();
        let tenant_of = if matches!(actor, "tenant" | "writer") { "a" } else { "-" };
        for nth in 1..=3 {
            let at = PanicAt::new(point).nth(nth);
            let is_about_a_tenant = matches!(actor, "tenant" | "writer" | "aggregator");
            let at = if is_about_a_tenant { at.of(tenant("a")) } else { at };
            a_panic_at(point, &format!("{tenant_of} {actor}"), When::Nth(nth), Some(at));
        }
    }
}

#[test]
fn code_of_an_embedder_that_panics_delays_no_neighbour_loses_nothing_and_is_named() {
    for (place, named) in USER_CODE {
        for when in [When::Nth(1), When::Nth(3), When::Always] {
            a_panic_at(place, named, when, None);
        }
    }
}

#[test]
fn every_message_has_its_panic_point() {
    let source = include_str!("../../src/actor/message.rs");
    let parts: Vec<_> = source.split("#[derive(Message)]").collect();
    // What tests alone send is not among them.
    let declared = parts.windows(2).filter(|pair| !pair[0].ends_with("#[cfg(feature = \"testing\")]\n"));
    let name = |rest: &'static str| {
        let declared = rest.split_once("struct ").unwrap().1;
        declared.split(|c: char| !c.is_alphanumeric()).next().unwrap()
    };
    let messages: Vec<_> = declared.map(|pair| name(pair[1])).collect();
    let points: Vec<_> = PANIC_POINTS.iter().map(|point| point.split_once('/').unwrap().1).collect();
    assert_eq!(messages, points, "a message without a panic point, or the other way round");
}

#[test]
fn every_call_of_an_embedders_code_is_in_the_table() {
    let mut places = vec![];
    for (name, source) in [
        ("Source", include_str!("../../src/system/source.rs")),
        ("Decoder", include_str!("../../src/wire/decode.rs")),
        ("Storage", include_str!("../../src/port/storage.rs")),
        ("DeadLetters", include_str!("../../src/port/dead_letters.rs")),
        ("Observer", include_str!("../../src/observe/observer.rs")),
    ] {
        let body = source.split_once(&format!("\npub trait {name}: ")).unwrap().1.split_once("\n}\n").unwrap().0;
        let methods = body.split("\n    fn ").skip(1).map(|rest| rest.split(['(', '<']).next().unwrap());
        places.extend(methods.map(|method| format!("{name}::{method}")));
    }
    // What takes a closure.
    for (name, source) in [
        ("Hooks", include_str!("../../src/port/hooks.rs")),
        ("TypedJson", include_str!("../../src/wire/typed_json.rs")),
        ("Seam", include_str!("../../src/port/seam.rs")),
        ("SystemBuilder", include_str!("../../src/system/builder.rs")),
    ] {
        let heads = source.split("\n    pub fn ").skip(1).map(|rest| rest.split_once(" {").unwrap().0);
        let takers = heads.filter(|head| head.contains("impl Fn(")).map(|head| head.split('(').next().unwrap());
        places.extend(takers.map(|taker| format!("{name}::{taker}")));
    }
    assert!(places.len() > 30, "it finds what it looks for: {places:?}");
    let known: Vec<_> = USER_CODE.iter().map(|(place, _)| *place).chain(NEVER_CALLED).collect();
    for place in places {
        assert!(known.contains(&&*place), "{place} is in no table");
    }
}

#[test]
fn a_drain_goes_on_where_the_supervisor_panicked_as_it_was_told() {
    virtual_time(async {
        let rig = Rig::with(Policy::default(), |builder| builder.panic_at(PanicAt::new("supervisor/Run")));
        rig.ingress().await.feed(lines([event("a", 0)])).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 1);
    });
}
