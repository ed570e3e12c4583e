//! A fixed amount of work from bytes to settled batches over the durable journal, to count instructions by: no timer takes part,
//! and nothing fails.
//!
//! ```text
//! cargo bench --bench cost --no-run     # prints where the program is
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/deps/cost-...
//! ```
//!
//! 500,000 events of 200 bytes, evenly of 100 tenants, in windows of 500; the instructions of start and end are part of it. With
//! `--quick` a tenth of that; `--stores N` has batches go through N stores.
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

const TENANTS: usize = 100;
const LINE: usize = 201;
/// Lines in a block.
const BLOCK: usize = 1_000;

fn line(number: usize) -> Vec<u8> {
    let tenant = number * 37 % TENANTS;
    let head = format!(r#"{{"tenant":"t{tenant:05}","seq":1{number:07},"line":""#);
    format!("{head}{:x<rest$}\"}}\n", "", rest = LINE - head.len() - 3).into_bytes()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok());
    let is_quick = args.iter().any(|arg| arg == "--quick" || arg == "--test");
    let events = if is_quick { 50_000 } else { 500_000 };
    let directory = tempfile::tempdir().expect("a directory");
    let journal = DurableJournal::open(directory.path(), JournalOptions::default(), |_, _| {}).expect("a journal");
    let stores: Vec<_> = (0..after("--stores").unwrap_or(1)).map(|_| NullStore::default()).collect();
    let window = WindowPolicy { max_events: 500, max_age: Duration::from_secs(3_600), ..WindowPolicy::default() };
    let system = System::builder()
        .saga(stores.iter().fold(Saga::new(), |saga, store| saga.then(store.clone())))
        .journal(Arc::new(journal))
        .policy(Policy { window, ..Policy::default() })
        .start()
        .expect("a thread");
    block_on(async {
        let spec = IngressSpec::new("cost", Framing::lines(), Json::new());
        let ingress = system.ingress(spec).await.expect("the system runs");
        for block in 0..events / BLOCK {
            let lines: Vec<u8> = (block * BLOCK..(block + 1) * BLOCK).flat_map(line).collect();
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
