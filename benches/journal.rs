//! What the durable journal costs: events a second, CPU an event, bytes written a byte of input.
//!
//! `cargo bench --bench journal`. Appends of 100 chunks, one of each of 100 tenants, of 13 events of 200 bytes; everything is settled a
//! while after, as by a store that keeps up. The directory is made under `HEADWORKS_BENCH_DIR`, or in the system's
//! temporary one.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use headworks::journal::{DurableJournal, JournalOptions};
use headworks::{
    BatchId, Chunk, ChunkBuilder, ChunkPlace, Entry, Journal, Opening, Outcome, Position, Seq, TenantId, UnixMillis,
};

const TENANTS: u64 = 100;
const EVENTS: u64 = 13;
const BODY: usize = 200;
const ROUNDS: u64 = 8_000;
/// How many rounds lie between a chunk and its outcome.
const LAG: u64 = 20;

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn chunks() -> Vec<Arc<Chunk>> {
    let chunk = |n| {
        let tenant = TenantId::new(&format!("tenant-{n}")).unwrap();
        let mut builder = ChunkBuilder::with_capacity(EVENTS as usize * BODY, EVENTS as usize);
        for event in 0..EVENTS {
            builder.push(format!("{:0>BODY$}", n * 1000 + event).as_bytes(), None);
        }
        Arc::new(builder.build(tenant, UnixMillis(1_700_000_000_000)).unwrap())
    };
    (0..TENANTS).map(chunk).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base = std::env::var_os("HEADWORKS_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).unwrap();
    let journal = DurableJournal::open(dir.path(), JournalOptions::default(), |_, _| {}).unwrap();
    journal.begin(Opening(1), UnixMillis(1)).unwrap();
    let chunks = chunks();
    let mut entries = Vec::new();
    let mut last = Position(0);
    let mut waits = Duration::ZERO;
    let (began, busy) = (Instant::now(), cpu());
    for seq in 1..=ROUNDS {
        entries.extend(chunks.iter().map(|chunk| Entry::Chunk { seq, chunk: chunk.clone() }));
        while !journal.has_room((TENANTS * EVENTS) as usize * BODY) {
            let from = Instant::now();
            journal.room().await;
            waits += from.elapsed();
        }
        last = journal.append(&mut entries);
        if let Some(seq) = seq.checked_sub(LAG).filter(|seq| *seq > 0) {
            for chunk in &chunks {
                let batch = BatchId::new(Opening(1), chunk.tenant().clone(), Seq(seq));
                let (from, until) = (ChunkPlace { seq, index: 0 }, ChunkPlace { seq, index: EVENTS as u32 });
                entries.push(Entry::Cut { batch: batch.clone(), from, until });
                entries.push(Entry::Settled { batch, outcome: Outcome::Stored, events: EVENTS });
            }
            last = journal.append(&mut entries);
        }
    }
    journal.committed(last).await;
    let (took, used) = (began.elapsed(), cpu() - busy);
    let health = journal.health();
    let events = ROUNDS * TENANTS * EVENTS;
    println!("{events} events of {BODY} bytes, {TENANTS} tenants, chunks of {EVENTS}:");
    println!("  {:.2} million events/s", events as f64 / took.as_secs_f64() / 1e6);
    println!("  {:.3} us of CPU an event", used.as_secs_f64() * 1e6 / events as f64);
    println!("  {:.3} bytes written a byte of events", health.written_bytes as f64 / (events * BODY as u64) as f64);
    println!("  {} commits in {took:.2?}, {waits:.2?} waiting for room", health.commits);
    println!("  {} bytes on disk at the end", health.disk_bytes);
    journal.close().await.unwrap();
    let began = Instant::now();
    let journal = DurableJournal::open(dir.path(), JournalOptions::default(), |_, _| {}).unwrap();
    println!("  opened again in {:.2?}", began.elapsed());
    drop(journal);
}
