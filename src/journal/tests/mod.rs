//! Tests of the journal's inside, on a disk in memory that fails and forgets.

mod damage;
mod driver;
mod entries;
mod life;
mod model;
mod mutants;
mod reclaim;
mod simulation;

use std::sync::Arc;

use headworks_actors::{Chunk, ChunkBuilder, JournalError, TenantId, UnixMillis};

use super::log::{Log, Opened};
use super::memory_disk::MemoryDisk;
use super::options::JournalOptions;

/// Small segments, so that a short life has many.
fn small() -> JournalOptions {
    JournalOptions { segment_bytes: 4096, max_bytes: 64 * 4096, ..JournalOptions::default() }
}

fn open(disk: &MemoryDisk) -> Opened {
    try_open(disk).unwrap_or_else(|why| panic!("it must open: {why}"))
}

fn try_open(disk: &MemoryDisk) -> Result<Opened, JournalError> {
    Log::open(Arc::new(disk.clone()), small(), &mut |_, _| {})
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A chunk whose events name their tenant and their place among its events.
fn chunk(name: &str, first: u64, events: u64, padding: usize) -> Arc<Chunk> {
    let mut builder = ChunkBuilder::default();
    for n in first..first + events {
        let body = format!("{name}/{n}/{}", "x".repeat(padding));
        builder.push(body.as_bytes(), (n % 3 == 0).then_some(UnixMillis(n as i64)));
    }
    Arc::new(builder.build(tenant(name), UnixMillis(1)).unwrap())
}
