//! In real time, on several threads: connections are read on all of them, tenants live on all of them and move, and what holds on
//! one thread holds on many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use headworks_actors::{
    Attempt, Batch, BatchId, DrainReport, Framing, HeartbeatPolicy, IngressSpec, Json, MemoryStore, Placement, Policy,
    RestartPolicy, Storage, StorageError, SupervisorEvent, System, SystemBuilder, TenantId, Undo, What, WindowPolicy,
};

use crate::rig::{ModelJournal, tenant};

const THREADS: usize = 3;
const CONNECTIONS: usize = 6;
const TENANTS: usize = 12;
const READS: usize = 150;
const LINES: usize = 40;

/// Small windows, and restarts that wait for nothing.
fn policy() -> Policy {
    Policy {
        window: WindowPolicy { max_events: 20, max_age: Duration::from_millis(5), ..WindowPolicy::default() },
        restart: RestartPolicy {
            intensity: 1_000,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(2),
            ..RestartPolicy::default()
        },
        ..Policy::default()
    }
}

fn builder(store: &MemoryStore) -> SystemBuilder {
    System::builder().placement(Placement::Threads(THREADS)).policy(policy()).store(store.clone())
}

fn name(nth: usize) -> TenantId {
    tenant(&format!("t{nth}"))
}

/// Sends from several threads at once, each over a connection of its own: numbered lines of all tenants, in turns of its own.
/// `beside` goes on meanwhile.
fn send(system: &System, beside: impl Fn(&mut fastrand::Rng) + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(connection as u64);
                    let spec = IngressSpec::new("test", Framing::lines(), Json::new());
                    let ingress = block_on(system.ingress(spec)).unwrap();
                    let mut next = [0; TENANTS];
                    for _ in 0..READS {
                        let mut read = String::new();
                        for _ in 0..LINES {
                            // Some are sent to much more often than others.
                            let to = rng.usize(..TENANTS).min(rng.usize(..TENANTS));
                            read += &format!("{{\"tenant\":\"t{to}\",\"from\":{connection},\"n\":{}}}\n", next[to]);
                            next[to] += 1;
                        }
                        block_on(ingress.feed(read)).unwrap();
                    }
                    block_on(ingress.finish(true)).unwrap();
                })
            })
            .collect();
        scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(7);
            while !done.load(Ordering::Acquire) {
                beside(&mut rng);
                std::thread::yield_now();
            }
        });
        let sent: Vec<_> = senders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        sent.into_iter().for_each(|sent| sent.unwrap());
    });
}

/// Everything that was sent is stored, once, and in each connection's order.
fn assert_stored(store: &MemoryStore, report: &DrainReport) {
    assert!(report.complete, "{report}");
    let mut stored = 0;
    for to in 0..TENANTS {
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for body in store.bodies(&name(to)) {
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(event["tenant"], format!("t{to}"));
            let next = next.entry(event["from"].as_u64().unwrap()).or_default();
            assert_eq!(event["n"].as_u64().unwrap(), *next, "of {event}");
            *next += 1;
            stored += 1;
        }
    }
    assert_eq!(stored, CONNECTIONS * READS * LINES);
    for tenant in &report.tenants {
        assert!(tenant.end.adds_up(), "{:?}", tenant.end);
    }
    let accepted: u64 = report.tenants.iter().map(|tenant| tenant.end.counters.accepted).sum();
    assert_eq!(accepted, stored as u64);
}

#[test]
fn what_comes_in_on_many_threads_is_stored_once_and_in_the_order_of_its_connection() {
    let store = MemoryStore::new();
    let system = builder(&store).start().unwrap();
    send(&system, |_| {});
    assert_stored(&store, &block_on(system.drain(Duration::from_secs(60))));
}

#[test]
fn the_record_of_a_journal_has_the_order_of_each_tenant_whatever_the_thread() {
    let (store, journal) = (MemoryStore::new(), ModelJournal::new());
    let system = builder(&store).journal(journal.clone()).start().unwrap();
    send(&system, |rng| {
        if let Some(tenant) = system.tenant(&name(rng.usize(..TENANTS))) {
            tenant.inject_move(rng.usize(..THREADS));
        }
    });
    assert_stored(&store, &block_on(system.drain(Duration::from_secs(60))));
    // It panics where a cut is of chunks that are not on record, or out of order.
    assert_eq!(journal.check().recovered().tenants.iter().filter(|tenant| !tenant.is_settled()).count(), 0);
}

#[test]
fn tenants_that_move_panic_are_restarted_stopped_and_passivated_all_the_while_lose_nothing() {
    let store = MemoryStore::new();
    let heartbeat = HeartbeatPolicy {
        every: Duration::from_millis(10),
        passivate_after: Some(Duration::from_millis(10)),
        ..HeartbeatPolicy::default()
    };
    let system = builder(&store).policy(Policy { heartbeat, ..policy() }).start().unwrap();
    let log = system.log().subscribe();
    send(&system, |rng| {
        let Some(tenant) = system.tenant(&name(rng.usize(..TENANTS))) else { return };
        match rng.u32(..8) {
            0 => tenant.inject_panic(),
            1 => tenant.restart(),
            2 => tenant.stop(),
            3 => drop(futures::FutureExt::now_or_never(tenant.passivate())),
            4 => tenant.flush(),
            _ => tenant.inject_move(rng.usize(..THREADS)),
        }
        tenant.resume();
    });
    for nth in 0..TENANTS {
        system.tenant(&name(nth)).unwrap().resume();
    }
    drop(log);
    let report = block_on(system.drain(Duration::from_secs(60)));
    assert_stored(&store, &report);
    let restarts: u64 = report.tenants.iter().map(|tenant| tenant.end.counters.restarts).sum();
    assert!(restarts > 0, "else this shows little");
}

/// Counts, and takes its time on the processor: what a store's own work on the tenants' thread does.
struct Busy(MemoryStore);

impl Storage for Busy {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(300) {
            std::hint::spin_loop();
        }
        self.0.store(batch, undo).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.0.rollback(id, attempt).await
    }
}

#[test]
fn tenants_of_a_thread_that_has_more_to_do_than_another_move_there() {
    let store = MemoryStore::new();
    let system =
        System::builder().placement(Placement::Threads(2)).policy(policy()).store(Busy(store.clone())).start().unwrap();
    let mut log = system.log().subscribe();
    let mut moved = || -> Option<std::sync::Arc<SupervisorEvent>> {
        std::iter::from_fn(|| log.try_next()).find_map(|item| match item {
            headworks_actors::LogItem::Event(event) if event.what == What::Moved => Some(event),
            _ => None,
        })
    };
    // Over one connection: all of them come up on its thread.
    let ingress = block_on(system.ingress(IngressSpec::new("test", Framing::lines(), Json::new()))).unwrap();
    let (began, mut sent) = (Instant::now(), 0);
    let event = loop {
        if let Some(event) = moved() {
            break event;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody moves");
        let read: String =
            (0..400).map(|n| format!("{{\"tenant\":\"t{}\",\"n\":{}}}\n", n % TENANTS, sent + n)).collect();
        block_on(ingress.feed(read)).unwrap();
        sent += 400;
    };
    let cause = event.cause.as_ref().unwrap();
    assert_eq!(cause.code.as_str(), "rebalanced");
    assert!(cause.detail.contains("to thread "), "{cause}");
    block_on(ingress.finish(true)).unwrap();
    let report = block_on(system.drain(Duration::from_secs(60)));
    assert!(report.complete, "{report}");
    assert_eq!(store.totals().values().sum::<u64>(), sent as u64);
}

#[test]
fn code_that_holds_one_of_several_threads_is_named() {
    let (store, (let_go, held)) = (MemoryStore::new(), std::sync::mpsc::channel::<()>());
    let (stored, held) = (store.clone(), std::sync::Mutex::new(Some(held)));
    struct Holding(MemoryStore, std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>>);
    impl Storage for Holding {
        async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
            if batch.tenant().as_str() == "t1"
                && let Some(held) = self.1.lock().unwrap().take()
            {
                let _ = held.recv();
            }
            self.0.store(batch, undo).await
        }

        async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
            self.0.rollback(id, attempt).await
        }
    }
    let system = System::builder()
        .placement(Placement::Threads(2))
        .policy(policy())
        .store(Holding(stored, held))
        .hang_after(Duration::from_millis(200))
        .start()
        .unwrap();
    let mut log = system.log().subscribe();
    for nth in 0..2 {
        block_on(system.spawn(name(nth))).unwrap();
    }
    system.tenant(&name(1)).unwrap().inject_move(1);
    block_on(system.tenant(&name(1)).unwrap().offer(["{}"])).unwrap();
    let hung = loop {
        if let headworks_actors::LogItem::Event(event) = block_on(log.next())
            && event.what == What::Hung
        {
            break event;
        }
    };
    assert_eq!(hung.tenant, Some(name(1)), "{hung}");
    // The other thread goes on meanwhile.
    block_on(system.tenant(&name(0)).unwrap().offer(["{}"])).unwrap();
    while store.bodies(&name(0)).is_empty() {
        std::thread::yield_now();
    }
    drop(let_go);
    assert!(block_on(system.drain(Duration::from_secs(60))).complete);
    assert_eq!(store.bodies(&name(1)).len(), 1);
}
