//! What the tests share: virtual time, a system on the test's own thread, and what it stored.

use std::future::Future;
use std::time::Duration;

use headworks_actors::{
    Framing, IngressHandle, IngressSpec, Json, MemoryDeadLetters, MemoryStore, Placement, Policy, Seam, System,
    SystemBuilder, TenantId, TenantSnapshot, UnixMillis,
};

/// Runs a test on one thread whose clock jumps to the next timer whenever nothing else is left to do.
pub(crate) fn virtual_time<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
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

/// Lines of `events`, each with its line end.
pub(crate) fn lines(events: impl IntoIterator<Item = String>) -> Vec<u8> {
    events.into_iter().flat_map(|event| (event + "\n").into_bytes()).collect()
}

impl Rig {
    /// A system with a memory store, on this thread.
    pub(crate) fn new(policy: Policy) -> Self {
        Self::with(policy, |builder| builder)
    }

    pub(crate) fn with(policy: Policy, parts: impl FnOnce(SystemBuilder) -> SystemBuilder) -> Self {
        let (store, letters) = (MemoryStore::new(), MemoryDeadLetters::default());
        let builder = System::builder()
            .policy(policy)
            .store(store.clone())
            .dead_letters(letters.clone())
            .seam(seam(7))
            .placement(Placement::Inline);
        Self { system: parts(builder).start().unwrap(), store, letters }
    }

    pub(crate) async fn ingress(&self) -> IngressHandle {
        self.system.ingress(IngressSpec::new("test", Framing::lines(), Json::new())).await.unwrap()
    }

    pub(crate) fn snapshot(&self, name: &str) -> TenantSnapshot {
        self.system.tenant(&tenant(name)).expect("the tenant is known").snapshot()
    }

    /// What is stored of a tenant, as text.
    pub(crate) fn stored(&self, name: &str) -> Vec<String> {
        self.store.bodies(&tenant(name)).into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
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
    }
}
