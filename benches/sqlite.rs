//! How fast the embedded store takes events: `cargo bench --bench sqlite`.
//!
//! 20 writers keep one batch of 500 events of 200 bytes each in flight, as the tenants of a busy daemon do. Says rows a
//! second of wall time, and CPU time of the whole process an event, for each layout. `BENCH_DIR` names another place than `target`.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

mod batches;
mod cpu;

use std::time::Instant;

use headworks::store::{Layout, SqliteOptions, SqliteStore};

use batches::{EVENTS, TENANTS};
use cpu::cpu_micros;

const BATCHES: u64 = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // A temporary directory may be in memory; what counts is the disk.
    let parent = std::env::var("BENCH_DIR").unwrap_or_else(|_| "target".into());
    let rounds = (1..=3).flat_map(|round| [(round, Layout::Rows), (round, Layout::Index)]);
    for (round, layout) in rounds {
        let directory = tempfile::tempdir_in(&parent).expect("a directory");
        let batches = batches::batches(BATCHES);
        let (began, cpu) = (Instant::now(), cpu_micros());
        let mut options = SqliteOptions::default();
        options.layout = layout;
        let store = SqliteStore::open(directory.path().join("bench.db"), options).expect("a database");
        runtime.block_on(async {
            batches::store(&store, &batches).await;
            store.close().await.expect("closed");
        });
        drop(store);
        let events = (TENANTS * EVENTS) as f64 * BATCHES as f64;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = cpu_micros().zip(cpu).map_or(f64::NAN, |(after, before)| (after - before) / events);
        println!("round {round}, {layout:?}: {:.2} M events/s, {cpu:.3} us CPU an event", events / seconds / 1e6);
    }
}
