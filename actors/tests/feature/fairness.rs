//! Tenants that share a store take turns at it, and none waits for another for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headworks_actors::{
    Attempt, Batch, BatchId, BoxStorage, BreakerPolicy, BreakerState, Event, Fault, HeartbeatPolicy, MemoryStore,
    Policy, PriorityClass, PriorityPolicy, RestartPolicy, RetryPolicy, Saga, Status, Storage, StorageError, StorageExt,
    StoreLimits, System, TenantSpec, Undo, What,
};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::rig::{Rig, bodies, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of};

/// How a store takes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Stores,
    Hangs,
    Fails,
    Panics,
    Refuses,
}

/// A store that takes its time, and knows who was in it when.
#[derive(Clone)]
struct Slow {
    kept: MemoryStore,
    seen: Arc<Mutex<Seen>>,
    takes: Arc<dyn Fn(&Batch) -> Duration + Send + Sync>,
}

#[derive(Default)]
struct Seen {
    moods: BTreeMap<String, Mood>,
    calls: Vec<(String, Instant)>,
    bytes: BTreeMap<String, usize>,
    inside: usize,
    most: usize,
}

struct Inside(Arc<Mutex<Seen>>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.lock().unwrap().inside -= 1;
    }
}

impl Slow {
    fn new(takes: impl Fn(&Batch) -> Duration + Send + Sync + 'static) -> Self {
        Self { kept: MemoryStore::new(), seen: Arc::default(), takes: Arc::new(takes) }
    }

    fn mood(&self, name: &str, mood: Mood) {
        self.seen.lock().unwrap().moods.insert(name.to_owned(), mood);
    }

    fn heal(&self) {
        self.seen.lock().unwrap().moods.clear();
    }

    fn bytes(&self, name: &str) -> usize {
        self.seen.lock().unwrap().bytes.get(name).copied().unwrap_or_default()
    }

    fn calls(&self) -> Vec<(String, Instant)> {
        self.seen.lock().unwrap().calls.clone()
    }

    fn calls_of(&self, name: &str) -> Vec<Instant> {
        self.calls().into_iter().filter(|(of, _)| of == name).map(|(_, at)| at).collect()
    }
}

impl Storage for Slow {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let name = batch.tenant().to_string();
        let mood = {
            let mut seen = self.seen.lock().unwrap();
            seen.calls.push((name.clone(), Instant::now()));
            seen.inside += 1;
            seen.most = seen.most.max(seen.inside);
            seen.moods.get(&name).copied().unwrap_or(Mood::Stores)
        };
        let _inside = Inside(self.seen.clone());
        tokio::time::sleep((self.takes)(batch)).await;
        match mood {
            Mood::Stores => {}
            Mood::Hangs => std::future::pending().await,
            Mood::Fails => return Err(StorageError::transient("it sighs")),
            Mood::Panics => panic!("a store's panic"),
            Mood::Refuses => return Err(StorageError::permanent("not this")),
        }
        Storage::store(&self.kept, batch, undo).await?;
        *self.seen.lock().unwrap().bytes.entry(name).or_default() += batch.body_bytes();
        Ok(())
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        Storage::rollback(&self.kept, id, attempt).await
    }
}

fn stands(class: PriorityClass, weight: u32, policy: &Policy) -> Policy {
    Policy { priority: PriorityPolicy { class, weight }, ..policy.clone() }
}

fn at_once(max_concurrency: u32, store: &BoxStorage) -> Saga {
    Saga::new().then_boxed(store.clone()).limits(StoreLimits { max_concurrency })
}

/// A system in front of a store that takes so many calls at once, with these tenants.
fn town(store: &Slow, max_concurrency: u32, tenants: Vec<(&str, Policy)>) -> Rig {
    let boxed = store.clone().boxed();
    let rig = Rig::with(windows_of(1), |builder| {
        let builder = builder.saga(at_once(max_concurrency, &boxed)).max_in_flight_bytes(1 << 30);
        let specs = tenants.into_iter().map(|(name, policy)| TenantSpec::new(name).unwrap().policy(policy));
        specs.fold(builder, |builder, spec| builder.tenant(spec))
    });
    Rig { store: store.kept.clone(), ..rig }
}

/// Events of a size, each a batch of its own where windows hold one.
async fn offer(system: &System, name: &str, events: usize, bytes: usize) {
    let id = tenant(name);
    let events = (0..events).map(|n| Event::new(id.clone(), None, format!("{n:0bytes$}").into_bytes())).collect();
    system.offer(events).await.unwrap();
}

/// So many events in flight, whatever their size.
fn roomy(max_events: usize) -> Policy {
    let mut policy = windows_of(max_events);
    policy.overflow.max_in_flight = 1 << 28;
    policy
}

#[test]
fn weights_share_a_store_that_is_the_bottleneck_by_bytes() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let of = |weight| stands(PriorityClass::Normal, weight, &roomy(1));
        let names = ["one", "two", "four"];
        let rig = town(&store, 1, vec![("one", of(1)), ("two", of(2)), ("four", of(4))]);
        for name in names {
            offer(&rig.system, name, 3_000, 100).await;
        }
        pass(secs(21)).await;
        let got = names.map(|name| store.bytes(name) as f64);
        let all: f64 = got.iter().sum();
        assert!(all >= 2_090.0 * 100.0, "the store is never without work: {got:?}");
        for (got, share) in got.iter().zip([1.0, 2.0, 4.0]) {
            assert!((got / all - share / 7.0).abs() < 0.02 * share / 7.0, "{got} of {all} for {share}");
        }
        assert_eq!(store.seen.lock().unwrap().most, 1);
        rig.drained().await;
    });
}

#[test]
fn large_batches_get_no_more_bytes_than_small_ones() {
    virtual_time(async {
        // A byte takes its time, whoever sends it.
        let store = Slow::new(|batch| Duration::from_micros(batch.body_bytes() as u64));
        let rig = town(&store, 1, vec![("large", roomy(1)), ("small", roomy(1))]);
        offer(&rig.system, "large", 200, 50_000).await;
        offer(&rig.system, "small", 10_000, 1_000).await;
        pass(secs(10)).await;
        let (large, small) = (store.bytes("large") as f64, store.bytes("small") as f64);
        assert!((large / small - 1.0).abs() < 0.05, "{large} and {small}");
        assert!(large + small > 9_500_000.0, "{large} and {small}");
        rig.drained().await;
    });
}

#[test]
fn a_critical_tenant_waits_for_one_turn_among_bulk_ones_that_all_get_their_share() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let names: Vec<_> = (0..99).map(|n| format!("bulk{n:02}")).collect();
        let mut tenants: Vec<_> =
            names.iter().map(|name| (name.as_str(), stands(PriorityClass::Bulk, 1, &roomy(1)))).collect();
        tenants.push(("critical", stands(PriorityClass::Critical, 1, &roomy(1))));
        let rig = town(&store, 1, tenants);
        // Twice as much as the store takes in the time.
        for name in &names {
            offer(&rig.system, name, 120, 100).await;
        }
        let mut waits = vec![];
        for n in 0..500 {
            pass(millis(117 + n % 7)).await;
            let sent = Instant::now();
            offer(&rig.system, "critical", 1, 100).await;
            until("it is stored", || store.bytes("critical") == (n as usize + 1) * 100).await;
            waits.push(store.calls_of("critical").last().unwrap().duration_since(sent));
        }
        // The call that was under way, and, one time in four, one of somebody who was due.
        assert!(waits.iter().all(|wait| *wait <= millis(21)), "{:?}", waits.iter().max());
        let prompt = waits.iter().filter(|wait| **wait <= millis(11)).count();
        assert!(prompt >= 370, "{prompt} of 500 waited for no more than the call under way");
        let got: Vec<_> = names.iter().map(|name| store.bytes(name)).collect();
        let fair = got.iter().sum::<usize>() as f64 / 99.0;
        assert!(got.iter().all(|got| (*got as f64 / fair - 1.0).abs() < 0.2), "{fair}: {got:?}");
        rig.drained().await;
    });
}

#[test]
fn a_critical_crowd_that_could_fill_the_store_does_not_starve_a_lower_class() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let of = |class| stands(class, 1, &roomy(1));
        let mut tenants: Vec<_> = ["c1", "c2", "c3"].map(|name| (name, of(PriorityClass::Critical))).into();
        tenants.push(("bulk", of(PriorityClass::Bulk)));
        let rig = town(&store, 1, tenants);
        for name in ["c1", "c2", "c3"] {
            offer(&rig.system, name, 2_500, 100).await;
        }
        offer(&rig.system, "bulk", 10, 100).await;
        pass(secs(56)).await;
        assert!(!rig.stored("c1").is_empty() && store.bytes("c1") < 250_000, "the crowd is still there");
        let calls = store.calls_of("bulk");
        assert_eq!(calls.len(), 10, "one every five seconds");
        assert!(calls.windows(2).all(|pair| pair[1] - pair[0] <= secs(5) + millis(100)), "{calls:?}");
        rig.drained().await;
    });
}

#[test]
fn a_retrying_batch_holds_no_turn() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let retry = RetryPolicy { base: secs(100), cap: secs(100), deadline: secs(86_400), ..windows_of(1).retry };
        let fails = Policy { retry, ..roomy(1) };
        let rig = town(&store, 1, vec![("fails", fails), ("well", roomy(1))]);
        store.mood("fails", Mood::Fails);
        offer(&rig.system, "fails", 1, 100).await;
        pass(millis(20)).await;
        assert_eq!(rig.snapshot("fails").status, Status::Retrying);
        offer(&rig.system, "well", 100, 100).await;
        pass(millis(1_010)).await;
        assert_eq!(store.bytes("well"), 10_000);
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn hanging_tenants_delay_nobody_beyond_the_turns_that_they_hold_and_their_breakers_take_those_back() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let names: Vec<_> = (0..10).map(|n| format!("hangs{n}")).collect();
        let mut tenants: Vec<_> = names.iter().map(|name| (name.as_str(), roomy(1))).collect();
        tenants.push(("well", roomy(1)));
        let rig = town(&store, 11, tenants);
        for name in &names {
            store.mood(name, Mood::Hangs);
            offer(&rig.system, name, 100, 100).await;
        }
        let mut sent = 0;
        for _ in 0..600 {
            pass(secs(1)).await;
            let offered = Instant::now();
            offer(&rig.system, "well", 1, 100).await;
            sent += 100;
            until("it is stored", || store.bytes("well") == sent).await;
            assert!(offered.elapsed() <= millis(12), "{:?} after {sent}", offered.elapsed());
        }
        let statuses = names.iter().map(|name| rig.snapshot(name).status);
        assert_eq!(statuses.filter(|status| *status == Status::BreakerOpen).count(), 10);
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn more_hanging_tenants_than_the_store_takes_calls_hold_the_others_up_for_an_attempt_at_the_most() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let names: Vec<_> = (0..20).map(|n| format!("hangs{n}")).collect();
        let mut tenants: Vec<_> = names.iter().map(|name| (name.as_str(), roomy(1))).collect();
        tenants.push(("well", roomy(1)));
        let rig = town(&store, 4, tenants);
        for name in &names {
            store.mood(name, Mood::Hangs);
            offer(&rig.system, name, 100, 100).await;
        }
        let (mut sent, mut most) = (0, Duration::ZERO);
        for _ in 0..20 {
            let offered = Instant::now();
            offer(&rig.system, "well", 1, 100).await;
            sent += 100;
            while store.bytes("well") < sent {
                pass(millis(100)).await;
            }
            most = most.max(offered.elapsed());
            assert!(rig.logged("well", What::Stalled).is_empty() && rig.logged("well", What::Failed).is_empty());
        }
        // Timeouts of 10 s give turns back; as many as wait before it, four at a time.
        assert!(most > secs(10), "{most:?}: else this shows nothing");
        assert!(most < secs(61), "{most:?}");
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn a_breaker_opens_is_shown_half_opens_and_closes() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let breaker = BreakerPolicy { failures: 3, wait: secs(20) };
        let retry =
            RetryPolicy { attempts: 5, base: millis(1), cap: millis(1), deadline: secs(1), ..windows_of(1).retry };
        let rig = town(&store, 1, vec![("sick", Policy { breaker, retry, ..roomy(1) }), ("well", roomy(1))]);
        store.mood("sick", Mood::Fails);
        offer(&rig.system, "sick", 2, 100).await;
        pass(secs(1)).await;
        let first = store.calls_of("sick");
        assert_eq!(first.len(), 3);
        assert_eq!(rig.snapshot("sick").status, Status::BreakerOpen);
        let detail = rig.tenant("sick").explain();
        let (breaker, batch) = (&detail.breakers[0], detail.batch.unwrap());
        assert_eq!((breaker.state, breaker.failures, breaker.store.as_str()), (BreakerState::Open, 3, "store"));
        assert_eq!((batch.attempts_spent, batch.next_attempt_at), (3, breaker.probe_at));
        assert_eq!(rig.logged("sick", What::BreakerOpened).len(), 1);

        // The probe fails, the next one too: then the attempts of the batch are spent, though its deadline was 1 s.
        pass(secs(40)).await;
        assert_eq!(store.calls_of("sick").len(), 5);
        assert_eq!(rig.dead().len(), 1);
        // The next batch waits, and spends nothing. Others go on.
        offer(&rig.system, "well", 10, 100).await;
        pass(secs(1)).await;
        assert_eq!(store.bytes("well"), 1_000);
        let detail = rig.tenant("sick").explain();
        let next = detail.batch.unwrap();
        assert_eq!((next.attempts_spent, next.next_attempt_at), (0, detail.breakers[0].probe_at));
        assert_eq!(rig.logged("sick", What::BreakerOpened).len(), 1, "told once");
        assert!(rig.logged("sick", What::BreakerClosed).is_empty());

        store.heal();
        pass(secs(20)).await;
        assert_eq!(rig.logged("sick", What::BreakerClosed).len(), 1);
        assert!(rig.tenant("sick").explain().breakers.is_empty());
        assert_eq!((rig.stored("sick").len(), rig.snapshot("sick").status), (1, Status::Failing));
        rig.drained().await;
    });
}

#[test]
fn a_refusal_for_good_is_an_answer_and_an_absent_store_is_no_failure_of_the_tenant() {
    virtual_time(async {
        let breaker = BreakerPolicy { failures: 2, wait: secs(20) };
        let retry =
            RetryPolicy { attempts: 10, base: millis(1), cap: millis(1), max_poison: 0, ..RetryPolicy::default() };
        let policy = Policy { breaker, retry, ..windows_of(1) };
        let script = [Fault::Transient, Fault::Permanent, Fault::Transient, Fault::Unavailable, Fault::None];
        let (rig, store) = Rig::faulty(policy, move |_, call| script[(call as usize - 1) % script.len()]);
        rig.ingress().await.feed(lines(events("a", 0..20))).await.unwrap();
        rig.drained().await;
        assert!(rig.logged("a", What::BreakerOpened).is_empty());
        assert_eq!(store.calls(), 50, "two of five calls end a batch");
    });
}

#[test]
fn who_waits_for_a_turn_is_shown_and_is_no_stall() {
    virtual_time(async {
        let store = Slow::new(|_| secs(300));
        let mut policy = roomy(1);
        (policy.retry.attempt_timeout, policy.heartbeat.stall_after) = (secs(400), secs(401));
        let hasty = Policy {
            retry: RetryPolicy { deadline: millis(1), attempt_timeout: secs(301), ..policy.retry.clone() },
            heartbeat: HeartbeatPolicy { stall_after: secs(302), ..HeartbeatPolicy::default() },
            ..policy.clone()
        };
        let rig = town(&store, 1, vec![("a", policy.clone()), ("b", policy), ("hasty", hasty)]);
        for name in ["a", "b", "hasty"] {
            offer(&rig.system, name, 1, 100).await;
            pass(millis(1)).await;
        }
        pass(secs(590)).await;
        let batch = rig.tenant("hasty").explain().batch.unwrap();
        assert!(batch.wants_turn_since.is_some() && batch.open_since.is_none() && batch.next_attempt_at.is_none());
        let batch = rig.tenant("b").explain().batch.unwrap();
        assert!(batch.wants_turn_since.is_none() && batch.open_since.is_some());
        rig.drained().await;
        assert!(rig.logged("hasty", What::Stalled).is_empty(), "{:?}", rig.log_of("hasty"));
        assert_eq!((rig.stored("hasty").len(), rig.snapshot("hasty").counters.attempts_failed), (1, 0));
    });
}

#[test]
fn a_writer_that_dies_waiting_leaves_the_queue_and_its_successor_makes_the_same_attempt() {
    virtual_time(async {
        let store = Slow::new(|_| secs(5));
        let rig = town(&store, 1, vec![("a", roomy(1)), ("b", roomy(1)), ("c", roomy(1))]);
        for name in ["a", "b", "c"] {
            offer(&rig.system, name, 1, 100).await;
            pass(millis(1)).await;
        }
        rig.tenant("b").inject_panic();
        rig.tenant("b").restart();
        pass(secs(1)).await;
        rig.tenant("a").restart();
        rig.drained().await;
        assert_eq!(rig.snapshot("b").counters.attempts_failed, 0, "the store was never asked");
        assert_eq!(rig.snapshot("a").counters.attempts_failed, 1);
        assert_eq!(store.seen.lock().unwrap().most, 1);
        assert_eq!(store.calls_of("b").len(), 1);
    });
}

#[test]
fn tenants_with_stores_of_their_own_wait_for_nobody_and_the_lowest_limit_of_those_that_share_counts() {
    virtual_time(async {
        let (shared, own) = (Slow::new(|_| secs(1)), Slow::new(|_| secs(1)));
        let boxed = shared.clone().boxed();
        let rig = Rig::with(windows_of(1), |builder| {
            builder
                .saga(at_once(3, &boxed))
                .tenant(TenantSpec::new("low").unwrap().saga(at_once(2, &boxed)))
                .tenant(TenantSpec::new("own").unwrap().store(own.clone()))
        });
        for name in ["low", "a", "b", "c", "own"] {
            offer(&rig.system, name, 1, 10).await;
        }
        pass(millis(1_500)).await;
        assert_eq!((shared.seen.lock().unwrap().most, own.bytes("own")), (2, 10));
        rig.drained().await;
        let rig = Rig { store: shared.kept.clone(), ..Rig::new(windows_of(1)) };
        rig.drained().await;
    });
}

#[test]
fn limits_that_cannot_be_are_refused_with_the_store_that_they_are_of() {
    let refused = |saga: Saga| System::builder().saga(saga).start().unwrap_err().to_string();
    let zero = StoreLimits { max_concurrency: 0 };
    assert_eq!(
        refused(Saga::new().then(MemoryStore::new()).named("db").limits(zero)),
        "the saga cannot work: store db: max_concurrency is 0, but must be from 1 to 10000"
    );
    assert_eq!(
        refused(Saga::new().limits(StoreLimits::default()).then(MemoryStore::new())),
        "the saga cannot work: limits come before the first store; limit a store after its `then`"
    );
}

#[test]
fn a_drain_ends_though_many_wait_for_their_turn() {
    virtual_time(async {
        let store = Slow::new(|_| millis(10));
        let rig = town(&store, 2, vec![]);
        for n in 0..500 {
            offer(&rig.system, &format!("t{n:03}"), 2, 10).await;
        }
        rig.drained().await;
        assert_eq!(store.calls().len(), 1_000);
        assert_eq!(store.seen.lock().unwrap().most, 2);
    });
}

#[derive(Debug, Clone)]
enum Op {
    Offer(usize, usize),
    Mood(usize, Mood),
    Panic(usize),
    Restart(usize),
    Stop(usize),
    Resume(usize),
    Passivate(usize),
    Advance(u64),
}

const TENANTS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn op() -> impl Strategy<Value = Op> {
    let whose = || 0..TENANTS.len();
    let mood = prop::sample::select(vec![Mood::Stores, Mood::Hangs, Mood::Fails, Mood::Panics, Mood::Refuses]);
    prop_oneof![
        8 => (whose(), 1..4usize).prop_map(|(whose, n)| Op::Offer(whose, n)),
        3 => (whose(), mood).prop_map(|(whose, mood)| Op::Mood(whose, mood)),
        2 => whose().prop_map(Op::Panic),
        2 => whose().prop_map(Op::Restart),
        1 => whose().prop_map(Op::Stop),
        2 => whose().prop_map(Op::Resume),
        1 => whose().prop_map(Op::Passivate),
        6 => prop_oneof![0..20u64, 1..2_000u64, 1..60_000u64].prop_map(Op::Advance),
    ]
}

async fn run(ops: Vec<Op>, max_concurrency: u32) {
    let store = Slow::new(|_| millis(7));
    let restart = RestartPolicy { intensity: 2, quarantine: secs(5), ..RestartPolicy::default() };
    let policy = Policy { restart, retry: RetryPolicy { attempts: 2, ..windows_of(2).retry }, ..windows_of(2) };
    let classes = PriorityClass::ALL.into_iter().cycle();
    let tenants = TENANTS.into_iter().zip(classes).zip(1..);
    let rig = town(
        &store,
        max_concurrency,
        tenants.map(|((name, class), weight)| (name, stands(class, weight, &policy))).collect(),
    );
    let ingress = rig.ingress().await;
    let mut sent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for op in ops {
        let handle = |whose: usize| rig.system.tenant(&tenant(TENANTS[whose]));
        match op {
            Op::Offer(whose, n) => {
                let of = sent.entry(TENANTS[whose]).or_default();
                let more: Vec<_> = (of.len()..of.len() + n).map(|n| event(TENANTS[whose], n)).collect();
                of.extend(more.clone());
                ingress.feed(lines(more)).await.unwrap();
                handle(whose).unwrap().flush();
            }
            Op::Mood(whose, mood) => store.mood(TENANTS[whose], mood),
            Op::Panic(whose) => handle(whose).iter().for_each(|tenant| tenant.inject_panic()),
            Op::Restart(whose) => handle(whose).iter().for_each(|tenant| tenant.restart()),
            Op::Stop(whose) => handle(whose).iter().for_each(|tenant| tenant.stop()),
            Op::Resume(whose) => handle(whose).iter().for_each(|tenant| tenant.resume()),
            Op::Passivate(whose) => {
                if let Some(tenant) = handle(whose) {
                    let _ = tokio::time::timeout(millis(50), tenant.passivate()).await;
                }
            }
            Op::Advance(by) => pass(millis(by)).await,
        }
        let seen = store.seen.lock().unwrap();
        assert!(seen.inside <= max_concurrency as usize && seen.most <= max_concurrency as usize);
    }
    store.heal();
    rig.system.tenants().iter().for_each(|told| rig.tenant(told.tenant.as_str()).resume());
    // A turn that had leaked would leave the store without any at some limit.
    for n in 0..max_concurrency {
        offer(&rig.system, &format!("fresh{n}"), 1, 10).await;
    }
    while rig.system.tenants().iter().any(|told| told.in_flight > 0) {
        pass(millis(500)).await;
    }
    // As many at once as ever, once the store was found to take them again: refusals took some away.
    for n in 0..max_concurrency {
        offer(&rig.system, &format!("fresh{n}"), 1_000, 10).await;
    }
    pass(secs(15)).await;
    store.seen.lock().unwrap().most = 0;
    for n in 0..max_concurrency {
        offer(&rig.system, &format!("fresh{n}"), 1, 10).await;
    }
    pass(secs(1)).await;
    let most = store.seen.lock().unwrap().most;
    assert!(most >= (max_concurrency as usize).div_ceil(2), "{most} of {max_concurrency}");
    ingress.finish(true).await.unwrap();
    rig.drained().await;
    for name in TENANTS {
        let stored = rig.store.batches(&tenant(name));
        assert!(stored.is_sorted_by_key(|batch| batch.id().place()));
        let all = crate::rig::in_order(&rig.store, &rig.letters, name);
        assert_eq!(all, sent.get(name).cloned().unwrap_or_default());
        assert_eq!(stored.iter().map(|batch| bodies(batch).len()).sum::<usize>(), rig.stored(name).len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn no_turn_is_lost_and_none_is_held_twice_whatever_becomes_of_the_writers(
        ops in prop::collection::vec(op(), 1..80), max_concurrency in 1..4u32,
    ) {
        virtual_time(run(ops, max_concurrency));
    }
}
