//! What damage does: it is told, what is whole is kept, nothing is invented, and nothing panics.

use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{
    Attempt, BatchId, ChunkPlace, Code, Entry, Opening, Outcome, Recovered, Seq, StoreName, StreamId, UnixMillis,
};

use super::super::checkpoint::NAMES;
use super::super::format::{VERSION, segment_name};
use super::super::log::{Group, Log, Opened};
use super::super::memory_disk::MemoryDisk;
use super::super::scan::read_entry;
use super::{chunk, open, tenant, try_open};

fn batch(seq: u64) -> BatchId {
    BatchId::new(Opening(3), tenant("acme"), Seq(seq))
}

fn place(seq: u64, index: u32) -> ChunkPlace {
    ChunkPlace { seq, index }
}

fn put(log: &mut Log, entries: impl IntoIterator<Item = Entry>) {
    let mut group = Group::default();
    group.push(&mut entries.into_iter().collect());
    log.commit(&mut group).unwrap();
}

fn accept(name: &str, seq: u64) -> Entry {
    Entry::Chunk { seq, chunk: chunk(name, seq * 10, 2, 5) }
}

/// Two tenants over two segments: acme's first batch is stored, its second was tried, its third is cut; the rest is uncut.
fn lived(is_closed: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let Opened { mut log, .. } = open(&disk);
    log.begin(Opening(3), UnixMillis(1));
    put(&mut log, [accept("acme", 1), accept("acme", 2), accept("zen", 1)]);
    put(&mut log, [Entry::Cut { batch: batch(1), from: place(1, 0), until: place(1, 2) }]);
    put(&mut log, [Entry::Settled { batch: batch(1), outcome: Outcome::Stored, events: 2 }]);
    put(
        &mut log,
        [accept("acme", 3), Entry::Mark { stream: StreamId::new("s").unwrap(), position: 4, at: UnixMillis(1) }],
    );
    put(&mut log, [Entry::Cut { batch: batch(2), from: place(2, 0), until: place(3, 1) }]);
    put(&mut log, [Entry::Intent { batch: batch(2), store: StoreName::ONLY, attempt: Attempt(1) }]);
    // So long that the next block begins a segment.
    put(&mut log, [Entry::Chunk { seq: 2, chunk: chunk("zen", 20, 2, 2100) }]);
    put(&mut log, [accept("acme", 4), accept("acme", 5)]);
    put(&mut log, [Entry::Cut { batch: batch(3), from: place(3, 1), until: place(4, 2) }]);
    put(&mut log, [accept("acme", 6), accept("zen", 3)]);
    put(&mut log, [accept("zen", 4)]);
    if is_closed {
        log.checkpoint(true).unwrap();
    }
    assert!(disk.names().contains(&segment_name(2)));
    disk.copy()
}

/// Each tenant's unsettled events, in order.
fn events(log: &Log, told: &Recovered) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for told in &told.tenants {
        let bodies: &mut Vec<String> = all.entry(told.tenant.to_string()).or_default();
        let mut expected = told.settled.seq;
        for live in &told.chunks {
            assert_eq!(live.seq, expected, "chunks have no holes");
            expected += 1;
            let place = log.ledger().find(&told.tenant, live).unwrap();
            let Ok(Some(Entry::Chunk { chunk, .. })) = read_entry(&*log.disk, log.salt, place) else {
                panic!("a recovered chunk must be read");
            };
            assert_eq!((chunk.tenant(), chunk.len() as u32), (&told.tenant, live.events));
            bodies.extend(chunk.events().map(|event| String::from_utf8(event.body.to_vec()).unwrap()));
        }
        assert!(told.chunks.is_empty() || expected == told.next_chunk, "the next chunk follows the last");
    }
    all
}

/// What must hold of whatever is recovered.
fn check(told: &Recovered, log: &Log) {
    events(log, told);
    for told in &told.tenants {
        let held: u64 = told.chunks.iter().map(|chunk| u64::from(chunk.events)).sum();
        let unsettled = if told.chunks.is_empty() { 0 } else { held - u64::from(told.settled.index) };
        let totals = told.totals;
        assert_eq!(totals.accepted, totals.stored + totals.dead_lettered + totals.shed + totals.discarded + unsettled);
        let number = |place: ChunkPlace| {
            let before = told.chunks.iter().filter(|chunk| chunk.seq < place.seq).map(|chunk| u64::from(chunk.events));
            before.sum::<u64>() + u64::from(place.index)
        };
        let mut from = number(told.settled);
        for cut in &told.cuts {
            assert_eq!(number(cut.from), from, "cuts follow each other");
            assert!(number(cut.until) > from && cut.until.index > 0 && number(cut.until) <= held, "cuts hold events");
            assert!(cut.batch.seq < told.next_batch);
            from = number(cut.until);
        }
    }
}

/// The same events in the same order, with some left out.
fn is_part(part: &[String], whole: &[String]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|event| whole.any(|other| other == event))
}

/// Opens what a change made of the disk, twice, and gives what is first told and the events.
fn survives(
    what: &str,
    disk: &MemoryDisk,
    all: &BTreeMap<String, Vec<String>>,
) -> (Recovered, u64, BTreeMap<String, Vec<String>>) {
    let Opened { log, recovered, torn_bytes } = try_open(disk).unwrap_or_else(|why| panic!("{what}: {why}"));
    check(&recovered, &log);
    let found = events(&log, &recovered);
    for (name, events) in &found {
        // Where an outcome is lost, its events come back; they were there once.
        let mut whole: Vec<String> =
            if name == "acme" { (10..12).map(|n| format!("acme/{n}/xxxxx")).collect() } else { vec![] };
        whole.extend(all.get(name).cloned().unwrap_or_default());
        assert!(is_part(events, &whole), "{what}: {name} has {events:?}");
    }
    drop(log);
    // What was damaged is out of the way.
    let Opened { log, recovered: again, .. } = open(disk);
    assert_eq!(again.damage, Vec::<String>::new(), "{what}: told {:?}", recovered.damage);
    assert_eq!(events(&log, &again), found, "{what}");
    check(&again, &log);
    (recovered, torn_bytes, found)
}

fn whole(disk: &MemoryDisk) -> BTreeMap<String, Vec<String>> {
    let disk = disk.copy();
    let Opened { log, recovered, .. } = open(&disk);
    assert_eq!(recovered.damage, Vec::<String>::new());
    events(&log, &recovered)
}

fn files(disk: &MemoryDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| !name.contains('/')).collect()
}

/// Deep in the padding of a long event, where all places are alike.
fn is_padding(bytes: &[u8], at: usize) -> bool {
    !at.is_multiple_of(64) && at.checked_sub(16).is_some_and(|before| bytes[before..at].iter().all(|b| *b == b'x'))
}

#[test]
fn any_flipped_byte_is_told_and_costs_one_block_at_most() {
    for is_closed in [false, true] {
        let disk = lived(is_closed);
        let all = whole(&disk);
        for name in files(&disk) {
            let bytes = disk.contents(&name).unwrap();
            for at in (0..bytes.len()).filter(|at| !is_padding(&bytes, *at)) {
                let hit = disk.copy();
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                hit.put(&name, changed);
                let what = format!("byte {at} of {name}, closed: {is_closed}");
                let (told, torn, found) = survives(&what, &hit, &all);
                assert!(!told.damage.is_empty() || (!is_closed && torn > 0), "{what} must be told");
                // A block holds no more than three chunks of two events; a cut that is lost costs none.
                let lost: usize =
                    all.iter().map(|(name, all)| all.len().saturating_sub(found.get(name).map_or(0, Vec::len))).sum();
                assert!(lost <= 6, "{what} cost {lost} events");
                if NAMES.contains(&name.as_str()) {
                    assert_eq!(found, all, "{what} must cost nothing: there are two copies");
                }
            }
        }
    }
}

#[test]
fn any_cut_off_end_is_told_and_costs_no_more_than_what_was_cut_off() {
    for is_closed in [false, true] {
        let disk = lived(is_closed);
        let all = whole(&disk);
        for name in files(&disk) {
            let bytes = disk.contents(&name).unwrap();
            for len in (0..bytes.len()).filter(|len| !is_padding(&bytes, *len)) {
                let hit = disk.copy();
                hit.put(&name, bytes[..len].to_vec());
                let what = format!("{name} cut off after {len} of {} bytes, closed: {is_closed}", bytes.len());
                let (told, torn, _) = survives(&what, &hit, &all);
                // Of a crashed journal's last segment nobody can tell that whole blocks are missing.
                let is_last = name == segment_name(2);
                assert!(!told.damage.is_empty() || torn > 0 || (!is_closed && is_last), "{what} must be told");
                assert!(told.damage.is_empty() || !is_last || is_closed, "{what} is a torn end: {:?}", told.damage);
            }
        }
    }
}

#[test]
fn zeroed_ranges_and_missing_files_are_told() {
    for is_closed in [false, true] {
        let disk = lived(is_closed);
        let all = whole(&disk);
        for name in files(&disk) {
            let bytes = disk.contents(&name).unwrap();
            for from in (0..bytes.len()).step_by(37) {
                let hit = disk.copy();
                let mut changed = bytes.clone();
                let end = (from + 300).min(bytes.len());
                changed[from..end].fill(0);
                hit.put(&name, changed);
                survives(&format!("{name} zeroed from {from}, closed: {is_closed}"), &hit, &all);
            }
            let hit = disk.copy();
            super::super::disk::Disk::remove(&hit, &name).unwrap();
            let (told, ..) = survives(&format!("{name} missing, closed: {is_closed}"), &hit, &all);
            let is_told = !told.damage.is_empty();
            let is_last = name == segment_name(2);
            assert_eq!(is_told, !NAMES.contains(&name.as_str()) && (is_closed || !is_last), "{name} missing");
        }
    }
}

#[test]
fn random_bytes_anywhere_never_panic_and_invent_nothing() {
    let mut random = fastrand::Rng::with_seed(7);
    for is_closed in [false, true] {
        let disk = lived(is_closed);
        let all = whole(&disk);
        for round in 0..600 {
            let hit = disk.copy();
            let mut what = format!("round {round}, closed: {is_closed}:");
            for _ in 0..random.usize(1..5) {
                let files = files(&hit);
                let name = files[random.usize(..files.len())].clone();
                let mut bytes = hit.contents(&name).unwrap();
                if bytes.is_empty() {
                    continue;
                }
                let from = random.usize(..bytes.len());
                let end = random.usize(from..bytes.len().min(from + 200) + 1).min(bytes.len());
                match random.u8(..4) {
                    0 => bytes[from..end].fill_with(|| random.u8(..)),
                    1 => drop(bytes.drain(from..end)),
                    2 => bytes.rotate_left(from),
                    _ => bytes.truncate(from),
                }
                what += &format!(" {name} {from}..{end}");
                hit.put(&name, bytes);
            }
            survives(&what, &hit, &all);
        }
    }
}

#[test]
fn blocks_that_changed_places_are_taken_for_neither() {
    let disk = MemoryDisk::new();
    let Opened { mut log, .. } = open(&disk);
    let mut ends = vec![];
    for seq in 1..=6 {
        put(&mut log, [accept("acme", seq)]);
        ends.push(disk.contents(&segment_name(1)).unwrap().len());
    }
    drop(log);
    let mut bytes = disk.contents(&segment_name(1)).unwrap();
    let all = whole(&disk);
    // The blocks of chunks 2 and 3 have one length.
    let (second, third) = bytes[ends[0]..ends[2]].split_at(ends[1] - ends[0]);
    let swapped = [third, second].concat();
    bytes[ends[0]..ends[2]].copy_from_slice(&swapped);
    disk.put(&segment_name(1), bytes);
    let (told, _, found) = survives("swapped", &disk, &all);
    assert!(told.damage.iter().any(|said| said.contains("2 blocks")), "{:?}", told.damage);
    assert_eq!(found["acme"].len(), 8);
}

/// Loses the block of each chunk of acme in turn.
fn without_chunk(seq: u64) -> (Recovered, Log) {
    let disk = lived(true);
    for number in 1..=2 {
        let name = segment_name(number);
        let mut bytes = disk.contents(&name).unwrap();
        let body = format!("acme/{}/", seq * 10);
        if let Some(at) = memchr::memmem::find(&bytes, body.as_bytes()) {
            bytes[at] ^= 1;
            disk.put(&name, bytes);
        }
    }
    let Opened { log, recovered, .. } = open(&disk);
    (recovered, log)
}

#[test]
fn a_batch_that_was_tried_and_lost_events_is_given_up_with_what_is_left() {
    let (told, log) = without_chunk(3);
    check(&told, &log);
    let acme = &told.tenants[0];
    let cut = &acme.cuts[0];
    let open = cut.progress.open().unwrap();
    assert_eq!((cut.batch.seq, open.attempt), (Seq(2), Attempt(1)));
    assert_eq!(cut.progress.given_up.as_ref().unwrap().code, Code::JournalDamaged);
    // Its first chunk is left; the third one, which began the next batch too, is lost.
    let left: u32 = acme.chunks.iter().filter(|chunk| chunk.seq <= cut.until.seq).map(|chunk| chunk.events).sum();
    assert_eq!(left, 2);
    assert!(told.damage.iter().any(|said| said.contains("acme") && said.contains("2 events")), "{:?}", told.damage);
    assert_eq!(acme.cuts.len(), 1, "the batch behind it lost events, was not tried and is cut anew");
    assert_eq!(acme.next_batch, Seq(4), "and no id is used twice");
}

#[test]
fn a_batch_that_was_not_tried_and_lost_events_is_cut_anew() {
    let (told, log) = without_chunk(4);
    check(&told, &log);
    let acme = &told.tenants[0];
    assert_eq!(acme.cuts.iter().map(|cut| cut.batch.seq).collect::<Vec<_>>(), [Seq(2)]);
    assert_eq!(acme.cuts[0].progress.given_up, None);
    assert_eq!(acme.totals.accepted, 2 + 6, "chunks 4 and 5, in one block, are not counted any more");
}

#[test]
fn what_is_damaged_is_set_aside_whole() {
    let disk = lived(true);
    let name = segment_name(1);
    let mut bytes = disk.contents(&name).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    disk.put(&name, bytes.clone());
    open(&disk);
    assert_eq!(disk.contents(&format!("damaged/{name}")), Some(bytes));
    let names: BTreeSet<String> = disk.names().into_iter().collect();
    assert!(!names.contains(&name), "what was whole in it lies elsewhere");
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_changed() {
    for file in ["checkpoint", "checkpoint.copy", &segment_name(1)] {
        let disk = lived(true);
        let mut bytes = disk.contents(file).unwrap();
        bytes[8] = VERSION as u8 + 1;
        bytes[12..17].copy_from_slice(b"9.8.7");
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        disk.put(file, bytes);
        let before: Vec<_> = disk.names().iter().map(|name| disk.contents(name)).collect();
        let Err(why) = try_open(&disk) else { panic!("{file} must be refused") };
        let why = why.to_string();
        assert!(why.contains("9.8.7") && why.contains("upgrade") && why.contains(file), "{why}");
        let after: Vec<_> = disk.names().iter().map(|name| disk.contents(name)).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn an_event_that_holds_a_forged_block_stays_an_event() {
    // The segment itself, as an event in it: its blocks are whole, but not there.
    let forged = lived(false).contents(&segment_name(2)).unwrap();
    let disk = MemoryDisk::new();
    let Opened { mut log, .. } = open(&disk);
    let mut builder = headworks_actors::ChunkBuilder::default();
    builder.push(&forged, None);
    let evil = builder.build(tenant("evil"), UnixMillis(1)).unwrap().into();
    put(&mut log, [Entry::Chunk { seq: 1, chunk: evil }]);
    put(&mut log, [accept("zen", 1)]);
    drop(log);
    let mut bytes = disk.contents(&segment_name(1)).unwrap();
    bytes[96] ^= 1;
    disk.put(&segment_name(1), bytes);
    let Opened { recovered, .. } = open(&disk);
    assert_eq!(recovered.tenants.iter().map(|told| told.tenant.as_str()).collect::<Vec<_>>(), ["zen"]);
}
