//! What is settled is given back, and a stuck tenant pins nothing.

use headworks_actors::{BatchId, ChunkPlace, Entry, Opening, Outcome, Seq, UnixMillis};

use super::super::log::{Group, Log, Opened};
use super::super::memory_disk::MemoryDisk;
use super::{chunk, open, small, tenant};

fn put(log: &mut Log, entries: impl IntoIterator<Item = Entry>) {
    let mut group = Group::default();
    group.push(&mut entries.into_iter().collect());
    log.commit(&mut group).unwrap();
}

fn reclaim(log: &mut Log) {
    while log.reclaim().unwrap() {}
}

/// A chunk of some 2 KiB is accepted and settled.
fn pass(log: &mut Log, seq: u64) {
    let batch = BatchId::new(Opening(1), tenant("busy"), Seq(seq));
    let (from, until) = (ChunkPlace { seq, index: 0 }, ChunkPlace { seq, index: 10 });
    put(log, [Entry::Chunk { seq, chunk: chunk("busy", seq * 10, 10, 200) }]);
    put(log, [Entry::Cut { batch: batch.clone(), from, until }]);
    put(log, [Entry::Settled { batch, outcome: Outcome::Stored, events: 10 }]);
}

#[test]
fn settled_segments_go() {
    let disk = MemoryDisk::new();
    let Opened { mut log, .. } = open(&disk);
    for seq in 1..500 {
        pass(&mut log, seq);
        reclaim(&mut log);
        assert!(log.disk_bytes() < 5 * small().segment_bytes, "{}", log.disk_bytes());
    }
    assert!(disk.names().len() < 6, "{:?}", disk.names());
    let Opened { recovered, .. } = open(&disk.copy());
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(recovered.tenants[0].totals.stored, 4990, "and the totals stay");
}

#[test]
fn a_stuck_tenant_does_not_pin_the_disk() {
    let disk = MemoryDisk::new();
    let Opened { mut log, .. } = open(&disk);
    // One small chunk that nobody settles in each of very many segments, of 64 that may be.
    for seq in 1..1000 {
        if seq % 4 == 1 {
            put(&mut log, [Entry::Chunk { seq: seq / 4 + 1, chunk: chunk("stuck", seq, 1, 8) }]);
        }
        pass(&mut log, seq);
        reclaim(&mut log);
        assert!(log.disk_bytes() < small().quota(), "{}", log.disk_bytes());
    }
    drop(log);
    let Opened { log, recovered, .. } = open(&disk);
    assert_eq!(recovered.damage, Vec::<String>::new());
    let stuck = recovered.tenants.iter().find(|told| told.tenant.as_str() == "stuck").unwrap();
    assert_eq!(stuck.chunks.len(), 250);
    for (told, seq) in stuck.chunks.iter().zip((1..).step_by(4)) {
        let place = log.ledger().find(&stuck.tenant, told).unwrap();
        let Ok(Some(Entry::Chunk { chunk: found, .. })) = super::super::scan::read_entry(&disk, log.salt, place) else {
            panic!("chunk {} must be read", told.seq);
        };
        assert_eq!(found, chunk("stuck", seq, 1, 8));
    }
}

#[test]
fn streams_that_were_not_heard_of_for_long_are_forgotten() {
    let disk = MemoryDisk::new();
    let Opened { mut log, .. } = open(&disk);
    let day = 24 * 3600 * 1000;
    let mark = |name: &str, day_of: i64| Entry::Mark {
        stream: headworks_actors::StreamId::new(name).unwrap(),
        position: 1,
        at: UnixMillis(day_of * day),
    };
    put(&mut log, [mark("old", 1), mark("new", 5)]);
    put(&mut log, [mark("newest", 9)]);
    log.checkpoint(false).unwrap();
    let names: Vec<_> = log.ledger().recovered_streams().into_iter().map(|left| left.stream.to_string()).collect();
    assert_eq!(names, ["new", "newest"]);
    log.options.max_streams = 1;
    log.checkpoint(false).unwrap();
    let names: Vec<_> = log.ledger().recovered_streams().into_iter().map(|left| left.stream.to_string()).collect();
    assert_eq!(names, ["newest"]);
}
