//! What the tests share: virtual time, a system on the test's own thread, and what it stored.

mod journal;
mod letters;
mod recorder;
mod replay;
mod saga;
mod trip;
mod world;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use headworks_actors::{
    Batch, Fault, Faulty, Framing, IngressHandle, IngressSpec, Json, MemoryDeadLetters, MemoryStore, Placement, Policy,
    RetryPolicy, Seam, SourceCounters, SupervisorEvent, System, SystemBuilder, TenantHandle, TenantId, TenantSnapshot,
    UnixMillis, What, WindowPolicy,
};

pub(crate) use journal::ModelJournal;
pub(crate) use letters::{FaultyLetters, Mood};
pub(crate) use recorder::{Call, Recorder};
pub(crate) use saga::{Pair, bodies, holds, in_order, number, split_windows_of};
pub(crate) use trip::{Trip, UserLetters, UserObserver, UserSource, UserStore, When};
pub(crate) use world::{Conn, World};

/// A store that misbehaves by script, and a record of what it was asked.
pub(crate) type Store = Recorder<Faulty<MemoryStore>>;

/// Runs a test on one thread whose clock jumps to the next timer whenever nothing else is left to do.
pub(crate) fn virtual_time<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let week = Duration::from_secs(7 * 24 * 3600);
    let bounded = async { tokio::time::timeout(week, test).await.expect("the test hangs: a week of its time is over") };
    tokio::task::LocalSet::new().block_on(&runtime, bounded)
}

/// Lets virtual time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets virtual time pass until `done`, twenty minutes at the most.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < secs(1200), "twenty minutes have passed, and not yet: {what}");
        pass(millis(1)).await;
    }
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A seam whose wall clock follows the virtual one, and whose randomness is the same in every run.
pub(crate) fn seam(seed: u64) -> Seam {
    let start = tokio::time::Instant::now();
    let wall = move || UnixMillis(1_700_000_000_000).plus(start.elapsed());
    Seam::new(wall, seed)
}

pub(crate) struct Rig {
    pub(crate) system: System,
    pub(crate) store: MemoryStore,
    pub(crate) letters: MemoryDeadLetters,
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn event(tenant: &str, n: usize) -> String {
    format!(r#"{{"tenant":"{tenant}","n":{n}}}"#)
}

/// The events `from` a range, of one tenant.
pub(crate) fn events(tenant: &str, from: impl IntoIterator<Item = usize>) -> Vec<String> {
    from.into_iter().map(|n| event(tenant, n)).collect()
}

/// Lines of `events`, each with its line end.
pub(crate) fn lines(events: impl IntoIterator<Item = String>) -> Vec<u8> {
    events.into_iter().flat_map(|event| (event + "\n").into_bytes()).collect()
}

/// Windows of `max_events` that nothing but their size closes within a day.
///
/// What a store refuses is given up whole.
pub(crate) fn windows_of(max_events: usize) -> Policy {
    let window = WindowPolicy { max_events, max_bytes: 1 << 30, max_age: secs(24 * 3600) };
    Policy { window, retry: RetryPolicy { max_poison: 0, ..RetryPolicy::default() }, ..Policy::default() }
}

impl Rig {
    /// A system with a memory store, on this thread.
    pub(crate) fn new(policy: Policy) -> Self {
        Self::with(policy, |builder| builder)
    }

    pub(crate) fn with(policy: Policy, parts: impl FnOnce(SystemBuilder) -> SystemBuilder) -> Self {
        Self::over(MemoryStore::new(), policy, parts)
    }

    /// A system in front of a store that misbehaves by script.
    pub(crate) fn faulty(
        policy: Policy,
        script: impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static,
    ) -> (Self, Store) {
        Self::faulty_with(policy, script, |builder| builder)
    }

    pub(crate) fn faulty_with(
        policy: Policy,
        script: impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static,
        parts: impl FnOnce(SystemBuilder) -> SystemBuilder,
    ) -> (Self, Store) {
        let store = MemoryStore::new();
        let faulty = Recorder::new(Faulty::new(store.clone(), script));
        let in_front = faulty.clone();
        (Self::over(store, policy, |builder| parts(builder.store(in_front))), faulty)
    }

    fn over(store: MemoryStore, policy: Policy, parts: impl FnOnce(SystemBuilder) -> SystemBuilder) -> Self {
        let letters = MemoryDeadLetters::default();
        let builder = System::builder()
            .policy(policy)
            .store(store.clone())
            .dead_letters(letters.clone())
            .seam(seam(7))
            .placement(Placement::Inline);
        Self { system: parts(builder).start().unwrap(), store, letters }
    }

    pub(crate) async fn ingress(&self) -> IngressHandle {
        self.ingress_of("test").await
    }

    /// A connection of a source.
    pub(crate) async fn ingress_of(&self, source: &str) -> IngressHandle {
        self.system.ingress(IngressSpec::new(source, Framing::lines(), Json::new())).await.unwrap()
    }

    pub(crate) fn tenant(&self, name: &str) -> TenantHandle {
        self.system.tenant(&tenant(name)).expect("the tenant is known")
    }

    pub(crate) fn snapshot(&self, name: &str) -> TenantSnapshot {
        self.tenant(name).snapshot()
    }

    /// The frames of a source.
    pub(crate) fn source(&self, name: &str) -> SourceCounters {
        self.system.sources().into_iter().find(|source| &*source.0 == name).expect("the source is known").1
    }

    /// What is stored of a tenant, as text.
    pub(crate) fn stored(&self, name: &str) -> Vec<String> {
        self.store.bodies(&tenant(name)).into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
    }

    /// The bodies of the dead letters, as text.
    pub(crate) fn dead(&self) -> Vec<String> {
        self.letters.all().iter().map(|letter| String::from_utf8_lossy(&letter.body).into_owned()).collect()
    }

    /// What the supervisor log says of a tenant, oldest first.
    pub(crate) fn log_of(&self, name: &str) -> Vec<Arc<SupervisorEvent>> {
        self.system.log().last_of(&tenant(name), usize::MAX)
    }

    /// The entries of one kind.
    pub(crate) fn logged(&self, name: &str, what: What) -> Vec<Arc<SupervisorEvent>> {
        self.log_of(name).into_iter().filter(|event| event.what == what).collect()
    }

    /// Drains and checks what must hold at the end of every test: everything has its outcome, and both sums hold.
    pub(crate) async fn drained(&self) {
        let report = self.system.drain(Duration::from_secs(3600)).await;
        assert!(report.complete, "{report}");
        for tenant in &report.tenants {
            assert!(tenant.end.adds_up(), "{:?}", tenant.end);
            assert_eq!(tenant.end.in_flight, 0);
        }
        for (name, source) in self.system.sources() {
            assert!(source.adds_up(), "{name}: {source:?}");
        }
        assert_eq!(self.system.in_flight_bytes(), 0);
    }
}
