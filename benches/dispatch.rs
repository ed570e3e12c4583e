//! Bytes to stored batches through the whole system, with a store that costs nothing and no socket: what the actors cost.
//!
//! `cargo bench --bench dispatch`; an iteration is 16 blocks of up to 256 KiB with events of 200 bytes, evenly of all tenants,
//! and the throughput is events a second. The system runs on its own thread; a block is fed once the one before was taken in.
#![expect(clippy::expect_used, reason = "a bench has nobody to report to")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use headworks::{Framing, IngressHandle, IngressSpec, Json, NullStore, System};

/// The daemon's own.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 16;
const LINE: usize = 201;

/// Whole lines, so that every feed of the same bytes is the same work.
fn blocks(tenants: usize) -> Vec<Vec<u8>> {
    let a_block = BLOCK / LINE;
    let line = |number: usize| {
        // A step that shares no factor with the number of tenants: each has its turn, but not in order.
        let tenant = number * 7919 % tenants;
        let head = format!(r#"{{"tenant":"t{tenant:05}","seq":1{number:07},"line":""#);
        format!("{head}{:x<rest$}\"}}\n", "", rest = LINE - head.len() - 3).into_bytes()
    };
    (0..BLOCKS).map(|block| (block * a_block..(block + 1) * a_block).flat_map(line).collect()).collect()
}

/// Feeds every block; the buffers come back for the next time.
fn feed(ingress: &IngressHandle, blocks: &mut [Vec<u8>]) {
    block_on(async {
        for block in blocks {
            *block = ingress.feed(std::mem::take(block)).await.expect("the system runs");
        }
    });
}

fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatch");
    let events = (BLOCK / LINE * BLOCKS) as u64;
    group.throughput(Throughput::Elements(events));
    for tenants in [1, 100, 10_000] {
        let store = NullStore::default();
        let system = System::builder().store(store.clone()).start().expect("a thread");
        let spec = IngressSpec::new("bench", Framing::lines(), Json::new());
        let ingress = block_on(system.ingress(spec)).expect("the system runs");
        let mut blocks = blocks(tenants);
        // The first round brings the tenants up.
        feed(&ingress, &mut blocks);
        let mut rounds = 1;
        group.bench_function(BenchmarkId::new("null store", format!("{tenants} tenants")), |b| {
            b.iter(|| {
                feed(&ingress, &mut blocks);
                rounds += 1;
            });
        });
        let report = block_on(system.drain(Duration::from_secs(60)));
        assert!(report.complete, "{report}");
        assert_eq!((report.tenants.len(), store.events()), (tenants, rounds * events));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = dispatch
}
criterion_main!(benches);
