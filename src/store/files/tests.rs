//! The writer on this thread, where every step on the disk can be made to fail.

use std::collections::HashMap;
use std::path::Path;

use headworks_actors::{
    Attempt, Batch, ChunkBuilder, Opening, RetentionPolicy, Seq, StorageError, TenantId, UnixMillis,
};
use proptest::prelude::*;

use super::disk::fail_after;
use super::line::push_line;
use super::rotation::Rotation;
use super::shelf::{Begun, Shelf, Store, event_files};
use super::thread::Writer;
use super::{FilesReader, HeldInFiles, lock, rotation};
use crate::retention::Rest;

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn batch(seq: u64, bodies: &[Vec<u8>]) -> Batch {
    let mut builder = ChunkBuilder::default();
    bodies.iter().for_each(|body| builder.push(body, None));
    Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant(), UnixMillis(1)).unwrap())
}

fn writer(root: &Path) -> Writer {
    let (rotation, shelves) = (Rotation::default(), HashMap::new());
    Writer { root: root.to_owned(), shelves, group_max_bytes: 0, rotation, _lock: lock(root).unwrap() }
}

/// What all events files have, one after the other.
fn cat(root: &Path) -> Vec<u8> {
    let dir = root.join("acme");
    let files = event_files(&dir).unwrap();
    files.iter().flat_map(|(file, _)| std::fs::read(dir.join(rotation::name(*file))).unwrap()).collect()
}

fn bodies(root: &Path) -> Vec<Vec<u8>> {
    FilesReader::open(root).unwrap().bodies(&tenant()).unwrap()
}

/// What is there by the index, and that whoever looks at the file sees the same.
fn bodies_and_lines(root: &Path) -> Vec<Vec<u8>> {
    let bodies = bodies(root);
    let mut expected = vec![];
    bodies.iter().for_each(|body| push_line(body, &mut expected));
    let file = cat(root);
    let lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').filter(|line| *line != b"\n").collect();
    assert_eq!(lines.concat(), expected, "the files must hold the lines of what is there, and blank ones");
    bodies
}

/// A step that fails on the way of a call: after so many good ones, for so many; and whether the process dies of it.
type Failure = (u64, u64, bool);

/// Calls until it works, with one failure after the other. After each, what was there before must be there, and `what`
/// alone may be there or not.
fn insist(
    root: &Path,
    writer: &mut Writer,
    failures: &[Failure],
    mut call: impl FnMut(&mut Writer, u32) -> Result<(), StorageError>,
    may_be: [&[Vec<u8>]; 2],
) -> u32 {
    for (attempt, (good, times, dies)) in (1..).zip(failures) {
        fail_after(*good, *times);
        let outcome = call(writer, attempt);
        fail_after(u64::MAX, 0);
        let there = bodies(root);
        if outcome.is_ok() {
            assert_eq!(bodies_and_lines(root), may_be[1], "what was answered as done must be done");
            return attempt;
        }
        assert!(may_be.contains(&&there[..]), "after a failure a batch must be whole or not there: {there:?}");
        if *dies {
            writer.shelves.clear();
        }
    }
    let last = u32::try_from(failures.len()).unwrap() + 1;
    call(writer, last).unwrap();
    assert_eq!(bodies_and_lines(root), may_be[1]);
    last
}

fn failures() -> impl Strategy<Value = Vec<Failure>> {
    prop::collection::vec((0u64..16, 1u64..4, any::<bool>()), 0..4)
}

/// Bodies, the failures on their way, and if so which of the batches is rolled back afterwards, with what failures; and if so down to
/// how many bytes is pruned, whether nothing is in flight, and with what failures.
type Round =
    (Vec<Vec<u8>>, Vec<Failure>, Option<(prop::sample::Index, Vec<Failure>)>, Option<(usize, bool, Vec<Failure>)>);

/// Prunes until it works. After each failure what was there must be there, or what is left.
fn prune(root: &Path, writer: &mut Writer, most: usize, is_settled: bool, failures: &[Failure]) {
    let reader = FilesReader::open(root).unwrap();
    let mark = reader.marks().unwrap().remove(0);
    let rules = RetentionPolicy { max_bytes: most, ..RetentionPolicy::default() };
    let rest = if is_settled { Rest::Settled } else { Rest::InFlight };
    let before = bodies(root);
    let Some(step) = reader.due(&mark, &rules, UnixMillis(0), rest).unwrap() else { return };
    for (good, times, dies) in failures {
        fail_after(*good, *times);
        let outcome = writer.prune(&tenant(), &step);
        fail_after(u64::MAX, 0);
        let there = bodies(root);
        assert!(before.ends_with(&there), "what is pruned is the beginning: {before:?} {there:?}");
        if let Ok(pruned) = outcome {
            assert_eq!(pruned.events, (before.len() - there.len()) as u64);
            return;
        }
        if *dies {
            writer.shelves.clear();
        }
        if there.len() < before.len() {
            return;
        }
    }
    let pruned = writer.prune(&tenant(), &step).unwrap();
    assert_eq!(pruned.events, (before.len() - bodies(root).len()) as u64);
    if failures.is_empty() {
        assert_eq!(pruned, step.holds, "a reader knows what goes");
    }
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let body = prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\\'), Just(0), any::<u8>()], 0..6);
    let bodies = prop::collection::vec(body, 1..4);
    let rollback = prop::option::of((any::<prop::sample::Index>(), failures()));
    let prune = prop::option::of((1usize..60, any::<bool>(), failures()));
    prop::collection::vec((bodies, failures(), rollback, prune), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_and_whenever_a_batch_is_there_whole_once_and_in_order_or_not_at_all(
        rounds in rounds(), rotate_bytes in prop_oneof![Just(0), 1..40u64],
    ) {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let mut writer = writer(root);
        writer.rotation.bytes = rotate_bytes;
        let (mut pruned, mut rolled_back) = (0, 0);
        let mut sent = 0;
        let mut there: Vec<(Batch, u32, Vec<Vec<u8>>)> = vec![];
        let all = |there: &[(Batch, u32, Vec<Vec<u8>>)]| -> Vec<Vec<u8>> {
            there.iter().flat_map(|(.., bodies)| bodies.clone()).collect()
        };
        for (seq, (bodies, failures, rollback, retention)) in (1..).zip(rounds) {
            sent += bodies.len();
            let batch = batch(seq, &bodies);
            let before = all(&there);
            let after = [&before[..], &bodies].concat();
            let call = |writer: &mut Writer, attempt| writer.store(&[Store::new(&batch, Attempt(attempt))]).remove(0);
            let attempt = insist(root, &mut writer, &failures, call, [&before, &after]);
            there.push((batch, attempt, bodies));
            if let Some((which, failures)) = rollback {
                let before = all(&there);
                let (batch, attempt, gone) = there.remove(which.index(there.len()));
                rolled_back += gone.len();
                let after = all(&there);
                let call = |writer: &mut Writer, _| writer.roll_back(batch.id(), Attempt(attempt));
                insist(root, &mut writer, &failures, call, [&before, &after]);
                // The fence holds, whatever happened.
                let late = writer.store(&[Store::new(&batch, Attempt(attempt))]).remove(0);
                prop_assert!(matches!(late, Err(StorageError::Permanent { .. })), "{:?}", late);
            }
            if let Some((most, is_settled, failures)) = retention {
                prune(root, &mut writer, most, is_settled, &failures);
                let left = self::bodies(root);
                while all(&there) != left {
                    pruned += there.remove(0).2.len();
                }
                if !is_settled && let Some((batch, attempt, bodies)) = there.pop() {
                    // The newest one may be rolled back yet.
                    writer.roll_back(batch.id(), Attempt(attempt)).unwrap();
                    rolled_back += bodies.len();
                    prop_assert_eq!(bodies_and_lines(root), all(&there));
                }
            }
        }
        // A fresh writer finds the same, and so do its readers after it has cut off what was left over.
        let mut writer = Writer { shelves: HashMap::new(), ..writer };
        writer.shelves.insert(tenant(), Shelf::new(root, tenant()));
        writer.shelves.get_mut(&tenant()).unwrap().load().unwrap();
        let expected = all(&there);
        for (batch, attempt, _) in &there {
            prop_assert_eq!(writer.store(&[Store::new(batch, Attempt(*attempt))]).remove(0), Ok(()));
        }
        let held = FilesReader::open(root).unwrap().held(Some(Opening(1))).unwrap().remove(0);
        let events = expected.len() as u64;
        prop_assert_eq!(held, HeldInFiles { tenant: tenant(), events, whole: events, pruned: pruned as u64, erased: 0 });
        prop_assert_eq!(sent, expected.len() + pruned + rolled_back);
        prop_assert_eq!(bodies_and_lines(root), expected);
    }
}

#[test]
fn a_tenant_whose_disk_fails_does_not_take_its_group_with_it() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(place.path());
    let other = {
        let mut builder = ChunkBuilder::default();
        builder.push(b"other", None);
        let chunk = builder.build(TenantId::new("other").unwrap(), UnixMillis(1)).unwrap();
        Batch::of_chunk(Opening(1), Seq(1), chunk)
    };
    let group = [batch(1, &[b"one".to_vec()]), other].map(|batch| Store::new(&batch, Attempt(1)));
    fail_after(0, 1);
    let outcomes = writer.store(&group);
    assert!(matches!(outcomes[0], Err(StorageError::Unavailable { .. })), "{outcomes:?}");
    assert!(outcomes[0].as_ref().unwrap_err().to_string().contains("the disk is full"));
    assert_eq!(outcomes[1], Ok(()));
    assert_eq!(writer.store(&group), [Ok(()), Ok(())]);
    assert_eq!(bodies(place.path()), [b"one"]);
}

#[test]
fn a_record_whose_sync_failed_is_not_believed_though_it_can_be_read() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(place.path());
    let [first, second] = [1, 2].map(|seq| Store::new(&batch(seq, &[b"x".to_vec()]), Attempt(1)));
    writer.store(&[first]).remove(0).unwrap();
    // Two files to open, lines to write and to sync, a record to write: then the sync of the record.
    fail_after(5, 1);
    assert!(matches!(writer.store(&[second]).remove(0), Err(StorageError::Unavailable { .. })));
    assert_eq!(bodies(place.path()).len(), 2, "the record was written, and a reader sees it");
    assert_eq!(writer.shelves.get_mut(&tenant()).unwrap().count(), Ok(1), "whether it is on the disk nobody knows");
    assert_eq!(bodies_and_lines(place.path()).len(), 1);
}

fn put(writer: &mut Writer, seq: u64, body: &str) {
    writer.store(&[Store::new(&batch(seq, &[body.into()]), Attempt(1))]).remove(0).unwrap();
}

fn files(root: &Path) -> Vec<u32> {
    event_files(&root.join("acme")).unwrap().into_iter().map(|(file, _)| file).collect()
}

#[test]
fn the_next_file_is_begun_once_the_first_batch_in_this_one_is_too_old() {
    let place = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::new(place.path(), tenant());
    let every = Rotation { bytes: 0, every: Some(std::time::Duration::from_millis(100)) };
    for (seq, (now, expected)) in (1..).zip([(0, 0), (99, 0), (100, 1), (199, 1), (150, 1), (200, 2), (900, 3)]) {
        let store = Store::new(&batch(seq, &[b"x".to_vec()]), Attempt(1));
        let Begun::Writing(mut writing) = shelf.begin(&store, &every, UnixMillis(now)).unwrap() else { unreachable!() };
        writing.sync_events().and_then(|()| writing.write_index()).and_then(|()| writing.sync_index()).unwrap();
        shelf.finish(&writing).unwrap();
        assert_eq!(files(place.path()).last(), Some(&expected), "at {now}");
    }
    assert_eq!(bodies(place.path()).len(), 7);
}

#[test]
fn a_batch_that_is_larger_than_a_file_has_one_of_its_own_and_none_is_in_two() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(place.path());
    writer.rotation.bytes = 10;
    for (seq, (body, expected)) in
        (1..).zip([("a", 0), ("b", 0), ("longer than ten", 1), ("c", 2), ("12345678", 3), ("", 4)])
    {
        put(&mut writer, seq, body);
        assert_eq!(files(place.path()).last(), Some(&expected), "{body}");
    }
    // One that is rolled back late leaves its file as long as it was.
    writer.roll_back(batch(2, &[b"b".to_vec()]).id(), Attempt(1)).unwrap();
    writer.roll_back(batch(5, &[b"12345678".to_vec()]).id(), Attempt(1)).unwrap();
    writer.shelves.clear();
    put(&mut writer, 7, "d");
    assert_eq!(bodies_and_lines(place.path()), [&b"a"[..], b"longer than ten", b"c", b"", b"d"]);
    assert_eq!(std::fs::read(place.path().join("acme/events.000003.ndjson")).unwrap(), b"\n".repeat(9));
}

#[test]
fn whole_files_go_once_all_in_them_is_too_old_and_the_last_one_once_its_tenant_is_settled() {
    let place = tempfile::tempdir().unwrap();
    let (root, mut writer) = (place.path(), writer(place.path()));
    writer.rotation.bytes = 4;
    // Two batches a file; all arrived at 1.
    (1..=5).for_each(|seq| put(&mut writer, seq, "x"));
    let reader = FilesReader::open(root).unwrap();
    let rules = RetentionPolicy { max_age: Some(std::time::Duration::from_millis(10)), ..RetentionPolicy::default() };
    let due = |now, rest| reader.due(&reader.marks().unwrap()[0], &rules, UnixMillis(now), rest).unwrap();
    assert_eq!(due(10, Rest::Settled), None);
    assert_eq!(due(11, Rest::Owed), None);
    let in_flight = due(11, Rest::InFlight).unwrap();
    assert_eq!(writer.prune(&tenant(), &in_flight).unwrap().events, 4);
    // What was due is closed, so that it can go; the newest one was in flight.
    assert_eq!((files(root), bodies(root).len()), (vec![2, 3], 1));
    assert_eq!(due(11, Rest::InFlight), None);
    let settled = due(11, Rest::Settled).unwrap();
    // Another one comes between the look and the step: it stays.
    put(&mut writer, 6, "later");
    assert_eq!(writer.prune(&tenant(), &settled).unwrap().events, 1);
    assert_eq!((files(root), bodies(root)), (vec![3], vec![b"later".to_vec()]));
    // One that is pruned and one that is not are known in the index for what they are.
    assert_eq!(reader.gone().unwrap(), [(tenant(), 5, 0)]);
    put(&mut writer, 6, "later");
    assert_eq!(bodies_and_lines(root), [b"later"]);
}

#[test]
fn whoever_follows_sees_each_event_once_also_while_files_are_pruned() {
    use crate::store::events::Span;
    use crate::store::files::Cursor;

    let place = tempfile::tempdir().unwrap();
    let (root, mut writer) = (place.path(), writer(place.path()));
    writer.rotation.bytes = 2;
    let reader = FilesReader::open(root).unwrap();
    let (mut cursor, mut seen) = (Cursor::default(), vec![]);
    let mut follow = |most: usize| {
        for _ in 0..most {
            if reader.peek(&mut cursor, &tenant(), Span::ALL).unwrap().is_none() {
                break;
            }
            reader.read_next(&mut cursor, &tenant(), &mut |event| seen.push(event.body.to_vec())).unwrap();
        }
        seen.len()
    };
    (1..=4).for_each(|seq| put(&mut writer, seq, &seq.to_string()));
    assert_eq!(follow(2), 2);
    let rules = RetentionPolicy { max_bytes: 3, ..RetentionPolicy::default() };
    let prune = |writer: &mut Writer| {
        let step = reader.due(&reader.marks().unwrap()[0], &rules, UnixMillis(0), Rest::Settled).unwrap().unwrap();
        writer.prune(&tenant(), &step).unwrap().events
    };
    // The third is at hand, and goes; the fourth stays.
    assert_eq!(prune(&mut writer), 3);
    assert_eq!(follow(9), 3);
    (5..=7).for_each(|seq| put(&mut writer, seq, &seq.to_string()));
    assert_eq!(follow(1), 4);
    prune(&mut writer);
    (8..=9).for_each(|seq| put(&mut writer, seq, &seq.to_string()));
    follow(9);
    assert_eq!(seen, [b"1", b"2", b"4", b"5", b"7", b"8", b"9"]);
}

#[test]
fn a_file_that_is_missing_or_was_cut_or_is_not_on_record_is_damage_and_nothing_is_touched() {
    let place = tempfile::tempdir().unwrap();
    let (root, mut writer) = (place.path(), writer(place.path()));
    writer.rotation.bytes = 2;
    (1..=3).for_each(|seq| put(&mut writer, seq, "x"));
    let path = |file| root.join("acme").join(rotation::name(file));
    let index = root.join("acme/batches.ndjson");
    let records = std::fs::read(&index).unwrap();
    let refused = |writer: &mut Writer, says: &str| {
        writer.shelves.clear();
        let outage = writer.store(&[Store::new(&batch(9, &[b"x".to_vec()]), Attempt(1))]).remove(0).unwrap_err();
        assert!(matches!(&outage, StorageError::Unavailable { detail, .. } if detail.contains(says)), "{outage:?}");
        assert_eq!(std::fs::read(&index).unwrap_or_default(), records);
    };
    std::fs::rename(path(1), root.join("aside")).unwrap();
    refused(&mut writer, "events.000001.ndjson is not as it was left: it is missing");
    std::fs::write(path(1), "x").unwrap();
    refused(&mut writer, "has 1 bytes, and had 2 bytes when it was closed");
    std::fs::rename(root.join("aside"), path(1)).unwrap();
    std::fs::write(path(9), "x").unwrap();
    refused(&mut writer, "events.000009.ndjson is not as it was left: no record speaks of it");
    std::fs::remove_file(path(9)).unwrap();
    writer.shelves.clear();
    put(&mut writer, 9, "x");
    // Without the index nobody knows what is in any of them.
    std::fs::remove_file(&index).unwrap();
    std::fs::remove_file(path(0)).unwrap();
    writer.shelves.clear();
    let outage = writer.store(&[Store::new(&batch(10, &[b"x".to_vec()]), Attempt(1))]).remove(0).unwrap_err();
    assert!(outage.to_string().contains("it is missing"), "{outage}");
    assert_eq!(files(root), [1, 2, 3]);
}

#[test]
fn what_was_taken_back_late_from_a_file_that_goes_is_not_told_as_due() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = writer(place.path());
    writer.rotation.bytes = 1;
    let batches: Vec<_> = (1..4).map(|seq| batch(seq, &[vec![b'x'; 9], vec![b'y'; 9]])).collect();
    for batch in &batches {
        writer.store(&[Store::new(batch, Attempt(1))]).remove(0).unwrap();
    }
    // On record behind the beginnings of files that stay.
    writer.roll_back(batches[0].id(), Attempt(1)).unwrap();
    let reader = FilesReader::open(place.path()).unwrap();
    let mark = reader.marks().unwrap().remove(0);
    let rules = RetentionPolicy { max_bytes: 50, ..RetentionPolicy::default() };
    let step = reader.due(&mark, &rules, UnixMillis(0), Rest::InFlight).unwrap().unwrap();
    assert_eq!(step.holds, crate::retention::Pruned::default());
    assert_eq!(writer.prune(&tenant(), &step).unwrap(), step.holds);
    assert_eq!(bodies(place.path()).len(), 4);
}
