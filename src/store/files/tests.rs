//! The writer on this thread, where every step on the disk can be made to fail.

use std::collections::HashMap;
use std::path::Path;

use headworks_actors::{Attempt, Batch, ChunkBuilder, Opening, Seq, StorageError, TenantId, UnixMillis};
use proptest::prelude::*;

use super::disk::fail_after;
use super::line::push_line;
use super::shelf::Store;
use super::thread::Writer;
use super::{FilesReader, lock};

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn batch(seq: u64, bodies: &[Vec<u8>]) -> Batch {
    let mut builder = ChunkBuilder::default();
    bodies.iter().for_each(|body| builder.push(body, None));
    Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant(), UnixMillis(1)).unwrap())
}

fn writer(root: &Path) -> Writer {
    Writer { root: root.to_owned(), shelves: HashMap::new(), group_max_bytes: 0, _lock: lock(root).unwrap() }
}

fn bodies(root: &Path) -> Vec<Vec<u8>> {
    FilesReader::open(root).unwrap().bodies(&tenant()).unwrap()
}

/// What is there by the index, and that whoever looks at the file sees the same.
fn bodies_and_lines(root: &Path) -> Vec<Vec<u8>> {
    let bodies = bodies(root);
    let mut expected = vec![];
    bodies.iter().for_each(|body| push_line(body, &mut expected));
    let file = std::fs::read(root.join("acme/events.ndjson")).unwrap();
    let lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').filter(|line| *line != b"\n").collect();
    assert_eq!(lines.concat(), expected, "the file must hold the lines of what is there, and blank ones");
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

/// Bodies, the failures on their way, and if so which of the batches is rolled back afterwards, with what failures.
type Round = (Vec<Vec<u8>>, Vec<Failure>, Option<(prop::sample::Index, Vec<Failure>)>);

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let body = prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\\'), Just(0), any::<u8>()], 0..6);
    let bodies = prop::collection::vec(body, 1..4);
    let rollback = prop::option::of((any::<prop::sample::Index>(), failures()));
    prop::collection::vec((bodies, failures(), rollback), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_and_whenever_a_batch_is_there_whole_once_and_in_order_or_not_at_all(rounds in rounds()) {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let mut writer = writer(root);
        let mut there: Vec<(Batch, u32, Vec<Vec<u8>>)> = vec![];
        let all = |there: &[(Batch, u32, Vec<Vec<u8>>)]| -> Vec<Vec<u8>> {
            there.iter().flat_map(|(.., bodies)| bodies.clone()).collect()
        };
        for (seq, (bodies, failures, rollback)) in (1..).zip(rounds) {
            let batch = batch(seq, &bodies);
            let before = all(&there);
            let after = [&before[..], &bodies].concat();
            let call = |writer: &mut Writer, attempt| writer.store(&[Store::new(&batch, Attempt(attempt))]).remove(0);
            let attempt = insist(root, &mut writer, &failures, call, [&before, &after]);
            there.push((batch, attempt, bodies));
            if let Some((which, failures)) = rollback {
                let before = all(&there);
                let (batch, attempt, _) = there.remove(which.index(there.len()));
                let after = all(&there);
                let call = |writer: &mut Writer, _| writer.roll_back(batch.id(), Attempt(attempt));
                insist(root, &mut writer, &failures, call, [&before, &after]);
                // The fence holds, whatever happened.
                let late = writer.store(&[Store::new(&batch, Attempt(attempt))]).remove(0);
                prop_assert!(matches!(late, Err(StorageError::Permanent { .. })), "{:?}", late);
            }
        }
        // A fresh writer finds the same, and so do its readers after it has cut off what was left over.
        let mut writer = Writer { shelves: HashMap::new(), ..writer };
        let expected = all(&there);
        for (batch, attempt, _) in &there {
            prop_assert_eq!(writer.store(&[Store::new(batch, Attempt(*attempt))]).remove(0), Ok(()));
        }
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
