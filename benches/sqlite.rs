//! How fast the embedded store takes events: `cargo bench --bench sqlite`.
//!
//! 20 writers keep one batch of 500 events of 200 bytes each in flight, as the tenants of a busy daemon do. Says rows a
//! second of wall time, and CPU time of the whole process an event, for each layout. `BENCH_DIR` names another place than `target`.
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

use std::time::Instant;

use futures::future::join_all;
use headworks::store::{Layout, SqliteOptions, SqliteStore};
use headworks::{Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, TenantId, Undo, UnixMillis};

const TENANTS: usize = 20;
const BATCHES: u64 = 200;
const EVENTS: usize = 500;

fn batch(tenant: &TenantId, seq: u64) -> Batch {
    let mut builder = ChunkBuilder::with_capacity(EVENTS * 200, EVENTS);
    for n in 0..EVENTS {
        let body =
            format!("{{\"tenant\":\"{tenant}\",\"seq\":{seq},\"n\":{n},\"text\":\"{:x<140}\"}}", "some log line ");
        builder.push(&body.as_bytes()[..body.len().min(200)], None);
    }
    let chunk = builder.build(tenant.clone(), UnixMillis(1_732_233_600_000)).expect("events");
    Batch::of_chunk(Opening(1), Seq(seq), chunk)
}

/// CPU time of this process so far, in microseconds, where the system tells.
fn cpu_micros() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks * 10_000.0)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let tenants: Vec<_> = (0..TENANTS).map(|n| TenantId::new(&format!("tenant-{n}")).expect("an id")).collect();
    // A temporary directory may be in memory; what counts is the disk.
    let parent = std::env::var("BENCH_DIR").unwrap_or_else(|_| "target".into());
    let rounds = (1..=3).flat_map(|round| [(round, Layout::Rows), (round, Layout::Index)]);
    for (round, layout) in rounds {
        let directory = tempfile::tempdir_in(&parent).expect("a directory");
        let batches: Vec<Vec<_>> = tenants.iter().map(|t| (1..=BATCHES).map(|seq| batch(t, seq)).collect()).collect();
        let (began, cpu) = (Instant::now(), cpu_micros());
        let mut options = SqliteOptions::default();
        options.layout = layout;
        let store = SqliteStore::open(directory.path().join("bench.db"), options).expect("a database");
        runtime.block_on(async {
            join_all(batches.iter().map(async |batches| {
                for batch in batches {
                    store.store(batch, &Undo::for_attempt(Attempt(1))).await.expect("stored");
                }
            }))
            .await;
            store.close().await.expect("closed");
        });
        drop(store);
        let events = (TENANTS * EVENTS) as f64 * BATCHES as f64;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = cpu_micros().zip(cpu).map_or(f64::NAN, |(after, before)| (after - before) / events);
        println!("round {round}, {layout:?}: {:.2} M events/s, {cpu:.3} us CPU an event", events / seconds / 1e6);
    }
}
