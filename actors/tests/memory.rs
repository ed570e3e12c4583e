//! What a tenant costs in memory, counted at the allocator. A program of its own: everything in it is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use cap::Cap;
use headworks_actors::{
    Framing, HeartbeatPolicy, IngressHandle, IngressSpec, Json, NullStore, Placement, Policy, Status, System, Unknown,
};

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const TENANTS: usize = 20_000;

fn lines(tenants: std::ops::Range<usize>) -> Vec<u8> {
    tenants.flat_map(|n| format!("{{\"tenant\":\"tenant-{n:07}\",\"n\":1}}\n").into_bytes()).collect()
}

async fn feed(ingress: &IngressHandle, tenants: std::ops::Range<usize>) {
    for from in tenants.clone().step_by(500) {
        ingress.feed(lines(from..(from + 500).min(tenants.end))).await.unwrap();
    }
}

async fn started(unknown: Unknown, max: usize) -> (System, IngressHandle) {
    let every = Duration::from_secs(10);
    let heartbeat = HeartbeatPolicy { every, passivate_after: Some(6 * every), ..HeartbeatPolicy::default() };
    let system = System::builder()
        .policy(Policy { heartbeat, ..Policy::default() })
        .store(NullStore::default())
        .max_tenants(max)
        .unknown_tenants(unknown)
        .placement(Placement::Inline)
        .start()
        .unwrap();
    let ingress = system.ingress(IngressSpec::new("test", Framing::lines(), Json::new())).await.unwrap();
    (system, ingress)
}

/// One test: two at a time would count each other's memory.
#[test]
fn a_dormant_tenant_takes_a_few_hundred_bytes_an_awake_one_a_few_thousand_and_a_refused_one_none() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (system, ingress) = started(Unknown::Spawn, TENANTS + 5_000).await;
        // Whatever has a bound is filled: the supervisor log, the tables of the runtime.
        feed(&ingress, TENANTS..TENANTS + 5_000).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        let before = ALLOCATOR.allocated();
        for _ in 0..3 {
            feed(&ingress, 0..TENANTS).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let awake = (ALLOCATOR.allocated() - before) / TENANTS;
        tokio::time::sleep(Duration::from_secs(200)).await;
        let dormant = (ALLOCATOR.allocated() - before) / TENANTS;
        println!("bytes a tenant: {awake} awake, {dormant} dormant");
        assert!(system.tenants().iter().all(|tenant| tenant.status == Status::Dormant));
        assert!(dormant < 500, "{dormant} bytes a dormant tenant");
        assert!(awake < 6_000, "{awake} bytes an awake tenant");
        drop((system, ingress));

        for (unknown, max) in [(Unknown::Spawn, 0), (Unknown::Reject, 10)] {
            let (system, ingress) = started(unknown, max).await;
            feed(&ingress, 0..1_000).await;
            let before = ALLOCATOR.allocated();
            feed(&ingress, 0..100_000).await;
            let grown = ALLOCATOR.allocated().saturating_sub(before);
            assert!(grown < 1_000, "{grown} bytes are kept of tenants that were refused");
            assert_eq!((system.tenants().len(), system.sources()[0].1.rejected), (0, 101_000));
        }
    });
}
