//! Whatever rules meet, and however they change meanwhile: every event has one outcome, and everything goes on in the end.

use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{
    BreakerPolicy, DeadLetterKind, Error, Fault, HeartbeatPolicy, OverflowPolicy, Policy, PriorityClass,
    PriorityPolicy, RetryPolicy, ThrottlePolicy, What, WhenFull, WhenOver, WindowPolicy,
};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::rig::{Rig, World, event, in_order, lines, millis, number, pass, secs, tenant, until, virtual_time};

const TENANTS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    /// Events of these tenants, by one of the connections.
    Feed(usize, Vec<usize>),
    Advance(u64),
    Policy(usize, Box<Policy>),
    Mute(usize, bool),
    Flush(usize),
    Panic(usize),
    Restart(usize),
    Resume(usize),
    /// For so long, in milliseconds.
    Passivate(usize, u64),
    /// The fault, in each `nth` call, of one tenant or of all.
    Fault(Fault, u64, Option<usize>),
    Heal,
    /// Commits stop, or go on.
    Hold,
    Commit,
    /// The journal has room, or none.
    Room(bool),
    /// What spilled is slow to read.
    SlowReads(bool),
    /// A sender goes away in the middle.
    Abort(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let whose = 0..TENANTS.len();
    let fault = prop_oneof![
        Just(Fault::Transient),
        Just(Fault::Permanent),
        Just(Fault::Unavailable),
        Just(Fault::Stall),
        Just(Fault::PanicBefore),
        Just(Fault::PanicAfter),
        Just(Fault::LostReply),
    ];
    prop_oneof![
        10 => (0..CONNECTIONS, prop::collection::vec(whose.clone(), 1..30)).prop_map(|(by, of)| Op::Feed(by, of)),
        2 => (0..CONNECTIONS, whose.clone(), 1..40usize).prop_map(|(by, of, n)| Op::Feed(by, vec![of; n])),
        5 => prop_oneof![1..50u64, 1..2_000u64, 1..120_000u64].prop_map(Op::Advance),
        3 => (whose.clone(), policy()).prop_map(|(whose, policy)| Op::Policy(whose, policy.into())),
        1 => (whose.clone(), any::<bool>()).prop_map(|(whose, muted)| Op::Mute(whose, muted)),
        1 => whose.clone().prop_map(Op::Flush),
        2 => whose.clone().prop_map(Op::Panic),
        1 => whose.clone().prop_map(Op::Restart),
        1 => whose.clone().prop_map(Op::Resume),
        1 => (whose.clone(), 0..2_000u64).prop_map(|(whose, within)| Op::Passivate(whose, within)),
        4 => (fault, 1..4u64, prop::option::of(whose)).prop_map(|(fault, nth, of)| Op::Fault(fault, nth, of)),
        2 => Just(Op::Heal),
        1 => Just(Op::Hold),
        2 => Just(Op::Commit),
        1 => any::<bool>().prop_map(Op::Room),
        1 => any::<bool>().prop_map(Op::SlowReads),
        1 => (0..CONNECTIONS).prop_map(Op::Abort),
    ]
}

const CONNECTIONS: usize = 3;

fn throttle() -> impl Strategy<Value = ThrottlePolicy> {
    let when_over = prop_oneof![Just(WhenOver::Delay), Just(WhenOver::Reject)];
    let rate = prop_oneof![Just(0), 1..20u64, Just(1_000)];
    let bytes = prop_oneof![2 => Just(0), 1 => 40..2_000usize];
    let delay_for = prop_oneof![Just(0), Just(100), Just(5_000)];
    (rate, bytes, when_over, 1..10u64, delay_for).prop_map(|(rate, bytes, when_over, burst, delay_for)| {
        ThrottlePolicy {
            events_per_second: rate,
            bytes_per_second: bytes,
            burst_events: if rate > 0 { burst.max(rate.div_ceil(20)) } else { 0 },
            burst_bytes: 0,
            when_over,
            delay_for: millis(delay_for),
        }
    })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let when_full =
        prop_oneof![Just(WhenFull::Block), Just(WhenFull::Reject), Just(WhenFull::DropOldest), Just(WhenFull::Spill),];
    let max_in_flight = prop_oneof![Just(1 << 10), Just(3 << 10), Just(8 << 20)];
    let max_spilled = prop_oneof![Just(0), Just(2 << 10), Just(256 << 20)];
    let block_for = prop_oneof![Just(0), Just(200), Just(5_000), Just(86_400_000)];
    let overflow = (max_in_flight, when_full, block_for, max_spilled).prop_map(
        |(max_in_flight, when_full, block_for, max_spilled)| OverflowPolicy {
            max_in_flight,
            when_full,
            block_for: millis(block_for),
            max_spilled,
        },
    );
    let window = (1..8usize, 20..400usize, 1..2_000u64).prop_map(|(max_events, max_bytes, age)| WindowPolicy {
        max_events,
        max_bytes,
        max_age: millis(age),
    });
    let class = prop_oneof![Just(PriorityClass::Critical), Just(PriorityClass::Normal), Just(PriorityClass::Bulk)];
    let breaker = prop_oneof![Just(0), 1..4u32].prop_map(|failures| BreakerPolicy { failures, wait: millis(700) });
    let idle = prop::option::of((100..1_000u64, 10..3_000u64));
    let retry = (1..4u32, prop_oneof![Just(0), Just(2), Just(100)]);
    (
        window,
        prop_oneof![Just(ThrottlePolicy::default()).boxed(), throttle().boxed()],
        overflow,
        retry,
        breaker,
        class,
        idle,
    )
        .prop_map(|(window, throttle, overflow, (attempts, max_poison), breaker, class, idle)| Policy {
            window,
            throttle,
            overflow,
            retry: RetryPolicy { attempts, max_poison, ..RetryPolicy::default() },
            breaker,
            priority: PriorityPolicy { class, ..PriorityPolicy::default() },
            // Those that are passivated by themselves are so every other moment.
            heartbeat: idle.map_or_else(HeartbeatPolicy::default, |(every, after)| HeartbeatPolicy {
                every: millis(every),
                passivate_after: Some(millis(after)),
                ..HeartbeatPolicy::default()
            }),
            ..Policy::default()
        })
}

type Feeding = tokio::task::JoinHandle<Result<(), Error>>;

struct Run {
    world: World,
    rig: Rig,
    connections: Vec<(headworks_actors::IngressHandle, Option<Feeding>)>,
    sent: BTreeMap<&'static str, u64>,
    /// By which connection each event came, by its number.
    by: Vec<usize>,
    /// The number of each connection, and of the next one.
    numbers: [usize; CONNECTIONS],
    next: usize,
}

impl Run {
    fn lift(&self) {
        self.world.store.heal();
        self.world.journal.release();
        self.world.journal.set_room(true);
        self.world.journal.hold_reads(false);
    }

    /// The last read of the connection is dealt with; where that takes long, with help.
    async fn settle_down(&mut self, by: usize) {
        let Some(mut feeding) = self.connections[by].1.take() else { return };
        if tokio::time::timeout(secs(60), &mut feeding).await.is_err() {
            self.lift();
            tokio::time::timeout(secs(36_000), feeding).await.expect("a read waits for ever").unwrap().unwrap();
        }
    }

    fn write(&mut self, name: &'static str, by: usize) -> String {
        self.by.push(by);
        *self.sent.entry(name).or_default() += 1;
        event(name, self.by.len() - 1)
    }

    async fn feed(&mut self, by: usize, of: Vec<usize>) {
        self.settle_down(by).await;
        let events: Vec<_> = of.into_iter().map(|whose| self.write(TENANTS[whose], self.numbers[by])).collect();
        let ingress = self.connections[by].0.clone();
        self.connections[by].1 =
            Some(tokio::task::spawn_local(async move { ingress.feed(lines(events)).await.map(drop) }));
        pass(millis(1)).await;
    }

    async fn op(&mut self, op: Op) {
        let handle = |whose: usize| self.rig.system.tenant(&tenant(TENANTS[whose]));
        match op {
            Op::Feed(by, of) => self.feed(by, of).await,
            Op::Advance(by) => pass(millis(by)).await,
            Op::Policy(whose, policy) => self.rig.system.set_policy(&tenant(TENANTS[whose]), *policy).unwrap(),
            Op::Mute(whose, true) => self.rig.system.mute(&tenant(TENANTS[whose])),
            Op::Mute(whose, false) => self.rig.system.unmute(&tenant(TENANTS[whose])),
            Op::Flush(whose) => handle(whose).iter().for_each(|tenant| tenant.flush()),
            Op::Panic(whose) => handle(whose).iter().for_each(|tenant| tenant.inject_panic()),
            Op::Restart(whose) => handle(whose).iter().for_each(|tenant| tenant.restart()),
            Op::Resume(whose) => handle(whose).iter().for_each(|tenant| tenant.resume()),
            Op::Passivate(whose, within) => {
                if let Some(tenant) = handle(whose) {
                    drop(tokio::time::timeout(millis(within), tenant.passivate()).await);
                }
            }
            Op::Fault(fault, nth, of) => self.world.store.script(move |batch, call| {
                let hit = of.is_none_or(|whose| batch.tenant().as_str() == TENANTS[whose]);
                if hit && call % nth == 0 { fault } else { Fault::None }
            }),
            Op::Heal => self.world.store.heal(),
            Op::Hold => self.world.journal.hold(),
            Op::Commit => self.world.journal.release(),
            Op::Room(has_room) => self.world.journal.set_room(has_room),
            Op::SlowReads(slow) => self.world.journal.hold_reads(slow),
            Op::Abort(by) => {
                if let Some(feeding) = self.connections[by].1.take() {
                    // What waits at the door is taken in all the same, beside what comes by another connection.
                    feeding.abort();
                    (self.numbers[by], self.next) = (self.next, self.next + 1);
                    self.connections[by].0 = self.rig.ingress().await;
                }
            }
        }
        for snapshot in self.rig.system.tenants() {
            assert!(snapshot.events_add_up(), "{snapshot:?}");
        }
    }

    async fn end(mut self) {
        self.lift();
        for by in 0..CONNECTIONS {
            self.settle_down(by).await;
            self.connections[by].0.finish(true).await.unwrap();
        }
        let fresh = self.rig.ingress().await;
        let plain =
            Policy { window: WindowPolicy { max_age: millis(10), ..WindowPolicy::default() }, ..Policy::default() };
        for name in TENANTS {
            self.rig.system.set_policy(&tenant(name), plain.clone()).unwrap();
            self.rig.system.unmute(&tenant(name));
            self.rig.system.tenant(&tenant(name)).iter().for_each(|tenant| tenant.resume());
        }
        for name in TENANTS {
            let event = self.write(name, self.next);
            tokio::time::timeout(secs(1_200), fresh.feed(lines([event.clone()])))
                .await
                .expect("the door is open")
                .unwrap();
            until("a fresh event gets through", || self.rig.stored(name).contains(&event)).await;
        }
        until("all memory is given back", || self.rig.system.in_flight_bytes() == 0).await;
        fresh.finish(true).await.unwrap();
        self.rig.drained().await;
        self.check();
    }

    fn check(&self) {
        let replay = self.world.journal.check();
        for name in TENANTS {
            let ended = in_order(&self.rig.store, &self.rig.letters, name);
            let numbers: Vec<_> = ended.iter().map(|event| number(event.as_bytes())).collect();
            for by in 0..=self.next {
                let in_order = numbers.iter().filter(|n| self.by[**n] == by).is_sorted();
                assert!(in_order, "of {name}, by {by}: {numbers:?}");
            }
            let once: BTreeSet<_> = numbers.iter().collect();
            assert_eq!(once.len(), numbers.len(), "of {name}: {numbers:?}");
            let counters = self.rig.snapshot(name).counters;
            let letters = self.rig.letters.all();
            let dead = letters.iter().filter(|letter| letter.tenant == Some(tenant(name)));
            let dead = dead.filter(|letter| letter.kind == DeadLetterKind::Event).count();
            assert_eq!(counters.dead_lettered, dead as u64, "{name}: {counters:?}");
            assert_eq!(counters.stored + counters.dead_lettered, ended.len() as u64, "{name}: {counters:?}");
            assert_eq!((counters.discarded, counters.duplicate, counters.malformed), (0, 0, 0));
            assert_eq!(counters.received, self.sent[name], "{name}: {counters:?}");
            let totals = &replay.tenants[&tenant(name)].totals;
            assert_eq!(
                (totals.accepted, totals.stored, totals.dead_lettered, totals.shed),
                (counters.accepted, counters.stored, counters.dead_lettered, counters.shed)
            );
        }
    }
}

async fn run(policies: [Policy; 3], ops: Vec<Op>, budget: usize) {
    let world = World::new();
    let rig = world.start_with(policies[0].clone(), |builder| builder.max_in_flight_bytes(budget));
    for (name, policy) in TENANTS.iter().zip(policies) {
        rig.system.set_policy(&tenant(name), policy).unwrap();
    }
    let mut connections = vec![];
    for _ in 0..CONNECTIONS {
        connections.push((rig.ingress().await, None));
    }
    let mut run =
        Run { world, rig, connections, sent: BTreeMap::new(), by: vec![], numbers: [0, 1, 2], next: CONNECTIONS };
    for op in ops {
        run.op(op).await;
    }
    run.end().await;
}

proptest! {
    #[test]
    fn whatever_rules_meet_every_event_has_one_outcome_and_a_fresh_one_gets_through(
        policies in [policy(), policy(), policy()],
        ops in prop::collection::vec(op(), 1..60),
        budget in prop_oneof![Just(2 << 10), Just(6 << 10), Just(64 << 20)],
    ) {
        virtual_time(run(policies, ops, budget));
    }
}

fn forgetting(policy: Policy) -> Policy {
    let every = millis(50);
    Policy { heartbeat: HeartbeatPolicy { every, passivate_after: Some(millis(100)), ..policy.heartbeat }, ..policy }
}

#[test]
fn a_tenant_that_is_passivated_between_its_events_holds_a_shared_connection_no_longer_for_that() {
    virtual_time(async {
        let throttle =
            ThrottlePolicy { events_per_second: 1, burst_events: 1, delay_for: secs(3), ..ThrottlePolicy::default() };
        let window = WindowPolicy { max_age: millis(10), ..WindowPolicy::default() };
        let rig = Rig::with(Policy { window: window.clone(), ..Policy::default() }, |builder| builder);
        let slow = forgetting(Policy { throttle, window, ..Policy::default() });
        rig.system.set_policy(&tenant("a"), slow).unwrap();
        let begun = Instant::now();
        let events = (0..10).map(|n| event("a", n)).chain([event("b", 10)]);
        rig.ingress().await.feed(lines(events)).await.unwrap();
        assert!(begun.elapsed() < millis(3_100), "{:?}", begun.elapsed());
        let counters = rig.snapshot("a").counters;
        assert_eq!((counters.accepted, counters.throttled), (4, 6));
        assert!(rig.logged("a", What::Passivated).len() > 1, "else this shows nothing");
        rig.drained().await;
    });
}

#[test]
fn a_breaker_stays_open_while_its_tenant_is_passivated() {
    virtual_time(async {
        let policy = forgetting(Policy {
            window: WindowPolicy { max_events: 1, ..WindowPolicy::default() },
            retry: RetryPolicy { attempts: 2, max_poison: 0, ..RetryPolicy::default() },
            breaker: BreakerPolicy { failures: 2, wait: secs(60) },
            ..Policy::default()
        });
        let (rig, store) = Rig::faulty(policy, Fault::Transient.always());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("the tenant is passivated", || !rig.logged("a", What::Passivated).is_empty()).await;
        assert_eq!((store.calls(), rig.dead().len()), (2, 1));
        store.heal();
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        pass(secs(30)).await;
        assert_eq!(store.calls(), 2, "the breaker is open");
        pass(secs(31)).await;
        assert_eq!(rig.stored("a"), [event("a", 1)]);
        assert_eq!(rig.logged("a", What::BreakerClosed).len(), 1);
        rig.drained().await;
    });
}

#[test]
fn what_is_above_the_rate_neither_makes_a_tenant_full_nor_is_room_made_for_it() {
    virtual_time(async {
        for (when_full, when_over) in [(WhenFull::Reject, WhenOver::Reject), (WhenFull::DropOldest, WhenOver::Reject)] {
            let window = WindowPolicy { max_events: 1_000, max_age: secs(3_600), ..WindowPolicy::default() };
            let throttle =
                ThrottlePolicy { events_per_second: 1, burst_events: 10, when_over, ..ThrottlePolicy::default() };
            let overflow = OverflowPolicy { max_in_flight: 3 << 10, when_full, ..OverflowPolicy::default() };
            let rig = Rig::new(Policy { window, throttle, overflow, ..Policy::default() });
            let ingress = rig.ingress().await;
            ingress.feed(lines((0..6).map(|n| event("a", n)))).await.unwrap();
            // Large as it is, next to nothing of it may pass, and there is room for that.
            ingress.feed(lines((6..106).map(|n| event("a", n)))).await.unwrap();
            let counters = rig.snapshot("a").counters;
            let told = (counters.accepted, counters.throttled, counters.rejected, counters.shed);
            assert_eq!(told, (10, 96, 0, 0), "{when_full:?}");
            rig.drained().await;
        }
    });
}
