use headworks_actors::{Batch, ChunkBuilder, Opening, Seq, StorageError, TenantId, UnixMillis};
use proptest::prelude::*;

use super::format::{Found, HEADER, Segment, scan};
use super::{Place, SegmentFile, SegmentFiles, Segments, file};
use crate::store::files::disk;
use crate::store::sqlite::{SqliteOptions, schema};

const SEGMENT: Segment = Segment { database: 7, number: 3 };

/// What one event is: its time and its body.
type Told = (Option<i64>, Vec<u8>);

fn batch(seq: u64, events: &[Told]) -> Batch {
    let mut builder = ChunkBuilder::default();
    events.iter().for_each(|(time, body)| builder.push(body, time.map(UnixMillis)));
    let chunk = builder.build(TenantId::new("acme").unwrap(), UnixMillis(seq.cast_signed() * 1000)).unwrap();
    Batch::of_chunk(Opening(1), Seq(seq), chunk)
}

fn some() -> Vec<Vec<Told>> {
    let told = |text: &str| (None, text.as_bytes().to_vec());
    vec![
        vec![told("a"), told("")],
        vec![(Some(5), b"with a time".to_vec()), (None, b"HwB\nlooks like a head".to_vec())],
        vec![(Some(-1), vec![0xff, 0, b'\n'])],
    ]
}

/// A segment of these batches, and where each of them lies.
fn segment(batches: &[Vec<Told>]) -> (Vec<u8>, Vec<Place>) {
    let mut bytes = SEGMENT.header().to_vec();
    let mut place = |(seq, events): (u64, &Vec<Told>)| {
        let offset = bytes.len() as u64;
        let length = SEGMENT.encode(&mut bytes, offset, &batch(seq, events), seq).unwrap();
        Place { segment: SEGMENT.number, offset, length }
    };
    let places = (1..).zip(batches).map(&mut place).collect();
    (bytes, places)
}

/// What a scan finds: the seq of each batch with its place and its events, and how many bytes are damaged.
fn found(bytes: &[u8]) -> (Vec<(u64, Place, Vec<Told>)>, u64) {
    let (mut batches, mut damaged) = (vec![], 0);
    for found in scan(SEGMENT, bytes) {
        match found {
            Found::Record(place, record) => {
                assert_eq!(record.id, format!("0000000000000001/acme/{}", record.hash));
                let arrived = UnixMillis(record.hash.cast_signed() * 1000);
                let events: Vec<_> = record.events().collect();
                assert!(events.len() == record.events as usize && events.iter().all(|event| event.arrived == arrived));
                let told = events.iter().map(|event| (event.time.map(|time| time.0), event.body.to_vec())).collect();
                batches.push((record.hash, place, told));
            }
            Found::Damage(bytes) => damaged += bytes.end - bytes.start,
        }
    }
    (batches, damaged)
}

fn expected(batches: &[Vec<Told>], places: &[Place]) -> Vec<(u64, Place, Vec<Told>)> {
    (1..).zip(places).zip(batches).map(|((seq, place), events)| (seq, *place, events.clone())).collect()
}

#[test]
fn cut_at_every_byte_what_is_whole_is_kept_and_nothing_is_made_up() {
    let (bytes, places) = segment(&some());
    let all = expected(&some(), &places);
    for cut in 0..=bytes.len() {
        let (kept, damaged) = found(&bytes[..cut]);
        let whole = places.iter().filter(|place| place.offset + place.length <= cut as u64).count();
        assert_eq!(kept, all[..whole], "{cut}");
        let end = places[..whole].last().map_or(HEADER as u64, |last| last.offset + last.length);
        assert_eq!(damaged, (cut as u64).saturating_sub(end), "{cut}");
    }
}

#[test]
fn whichever_bit_is_flipped_the_other_batches_are_kept_and_nothing_is_made_up() {
    let (bytes, places) = segment(&some());
    let all = expected(&some(), &places);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if at < HEADER {
                assert_eq!(Segment::of_header(&flipped), None, "byte {at}");
                continue;
            }
            let is_hit = |place: &Place| (place.offset..place.offset + place.length).contains(&(at as u64));
            let others: Vec<_> = all.iter().filter(|(_, place, _)| !is_hit(place)).cloned().collect();
            let (kept, damaged) = found(&flipped);
            assert_eq!(kept, others, "bit {bit} of byte {at}");
            assert_eq!(damaged, all.iter().find(|(_, place, _)| is_hit(place)).unwrap().1.length);
        }
    }
}

#[test]
fn a_record_in_another_place_or_segment_is_none() {
    let (bytes, places) = segment(&some());
    let Place { offset, .. } = places[1];
    let record = &bytes[usize::try_from(offset).unwrap()..];
    assert!(SEGMENT.decode(offset, record).is_some());
    assert!(SEGMENT.decode(offset + 1, record).is_none());
    assert!(Segment { number: 4, ..SEGMENT }.decode(offset, record).is_none());
    assert!(Segment { database: 8, ..SEGMENT }.decode(offset, record).is_none());
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_no_bytes_make_it_panic(
        batches in prop::collection::vec(prop::collection::vec((prop::option::of(-9_i64..9), prop::collection::vec(any::<u8>(), 0..40)), 1..9), 0..5),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, places) = segment(&batches);
        prop_assert_eq!(found(&bytes), (expected(&batches, &places), 0));
        let at = at.index(bytes.len() - HEADER + 1) + HEADER;
        let end = (at + noise.len()).min(bytes.len());
        bytes.splice(at..end, noise.iter().copied());
        let (kept, _) = found(&bytes);
        let all = expected(&batches, &places);
        prop_assert!(kept.iter().all(|batch| all.contains(batch)));
        let before = all.iter().filter(|(_, place, _)| place.offset + place.length <= at as u64);
        prop_assert!(before.into_iter().all(|batch| kept.contains(batch)));
        scan(SEGMENT, &noise).for_each(drop);
    }
}

/// Whichever call on the disk fails, once or for a while: the group is answered with an outage, and a later one is stored.
#[test]
fn whichever_call_on_the_disk_fails_a_later_group_is_there_and_earlier_ones_stay() {
    for times in [1, 3] {
        for good in 0..7 {
            let directory = tempfile::tempdir().unwrap();
            let database = directory.path().join("events.db");
            let conn = schema::open_for_writing(&database, &SqliteOptions::default()).unwrap();
            let mut segments = Segments::open(&database, &conn, 600, true).unwrap().unwrap();
            let mut stored = vec![];
            disk::fail_after(good, times);
            for seq in 1..20 {
                let batch = batch(seq, &[(None, vec![b'x'; 100])]);
                segments.begin(Segments::cost(&batch));
                let place = segments.stage(&batch, seq).unwrap();
                match segments.flush() {
                    Ok(()) => stored.push((seq, place)),
                    Err(why) => assert!(matches!(why, StorageError::Unavailable { .. }), "{why:?}"),
                }
            }
            disk::fail_after(u64::MAX, 0);
            assert!(stored.len() as u64 >= 19 - times && stored.last().unwrap().0 == 19, "{good} {times}: {stored:?}");
            let mut files = SegmentFiles::of(&database);
            for (seq, place) in &stored {
                let read = files.read(*place, &format!("0000000000000001/acme/{seq}"), *seq).unwrap();
                assert_eq!(read.events().count(), 1);
            }
            let numbers: std::collections::BTreeSet<_> = stored.iter().map(|(_, place)| place.segment).collect();
            assert!(numbers.len() > 3, "they are small");
            let salvaged = |number| SegmentFile::read(file(&super::directory(&database), number)).unwrap();
            let whole: usize = numbers.iter().map(|number| salvaged(*number).batches().count()).sum();
            // Where cutting it off failed too, it is garbage.
            assert!(whole == stored.len() || times > 1 && whole > stored.len(), "{good} {times}: {whole}");
        }
    }
}
