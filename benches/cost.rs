//! A fixed amount of work from bytes to settled batches over the durable journal, to count instructions by: no timer takes part,
//! and nothing fails.
//!
//! ```text
//! cargo bench --bench cost --no-run     # prints where the program is
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/deps/cost-...
//! ```
//!
//! 500,000 events of 200 bytes, evenly of 100 tenants, in windows of 500; the instructions of start and end are part of it. With
//! `--quick` a tenth of that; `--stores N` has batches go through N stores, `--tenants N` has them be of N, `--block N` feeds so
//! many lines at once (1,000), and `--memory` keeps the journal in memory.
#![expect(clippy::expect_used, reason = "a bench has nobody to report to")]

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use headworks::journal::{DurableJournal, JournalOptions};
use headworks::{Framing, IngressSpec, Json, NullStore, Policy, Saga, System, WindowPolicy};

/// The daemon's own.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINE: usize = 201;

fn line(number: usize, tenants: usize) -> Vec<u8> {
    let tenant = number * 37 % tenants;
    let mut line = format!(r#"{{"tenant":"t{tenant:05}","seq":1{number:07},"line":""#).into_bytes();
    line.resize(LINE - 3, b'x');
    line.extend(b"\"}\n");
    line
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok());
    let is_quick = args.iter().any(|arg| arg == "--quick" || arg == "--test");
    let events = if is_quick { 50_000 } else { 500_000 };
    let directory = tempfile::tempdir().expect("a directory");
    let (tenants, block) = (after("--tenants").unwrap_or(100), after("--block").unwrap_or(1_000));
    let stores: Vec<_> = (0..after("--stores").unwrap_or(1)).map(|_| NullStore::default()).collect();
    let window = WindowPolicy { max_events: 500, max_age: Duration::from_secs(3_600), ..WindowPolicy::default() };
    let builder = System::builder()
        .saga(stores.iter().fold(Saga::new(), |saga, store| saga.then(store.clone())))
        .max_tenants(tenants)
        .policy(Policy { window, ..Policy::default() });
    let builder = if args.iter().any(|arg| arg == "--memory") {
        builder
    } else {
        let journal = DurableJournal::open(directory.path(), JournalOptions::default(), |_, _| {}).expect("a journal");
        builder.journal(Arc::new(journal))
    };
    let system = builder.start().expect("a thread");
    block_on(async {
        let spec = IngressSpec::new("cost", Framing::lines(), Json::new());
        let ingress = system.ingress(spec).await.expect("the system runs");
        for from in (0..events).step_by(block) {
            let lines: Vec<_> = (from..events.min(from + block)).map(|number| line(number, tenants)).collect();
            let lines = lines.concat();
            ingress.feed(lines).await.expect("the system runs");
        }
        let report = system.drain(Duration::from_secs(600)).await;
        assert!(report.complete, "{report}");
    });
    for store in &stores {
        assert_eq!(store.events(), events as u64);
    }
    println!("{events} events through {} stores", stores.len());
}
