//! The durable journal through its public API, on a real disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use headworks::journal::{DurableJournal, JournalOptions, inspect};
use headworks::{
    Attempt, BatchId, Cause, Chunk, ChunkBuilder, ChunkPlace, Code, Compensation, DoorTotals, Entry, Journal, Opening,
    Origin, Outcome, Recovered, Seq, StoreName, StreamId, TenantId, UndoStep, UnixMillis, conformance,
};

fn open(dir: &Path) -> DurableJournal {
    DurableJournal::open(dir, JournalOptions::default(), |_, _| {}).unwrap()
}

fn begin(journal: &DurableJournal) -> Recovered {
    journal.begin(Opening(2), UnixMillis(2_000)).unwrap()
}

async fn put(journal: &DurableJournal, entries: impl IntoIterator<Item = Entry>) {
    let position = journal.append(&mut entries.into_iter().collect());
    journal.committed(position).await;
}

fn chunk(name: &str, seq: u64, events: u64) -> Arc<Chunk> {
    let mut builder = ChunkBuilder::default();
    for n in 0..events {
        builder.push(format!("{name} {seq} {n}").as_bytes(), (n == 1).then_some(UnixMillis(77)));
    }
    let chunk = builder.build(TenantId::new(name).unwrap(), UnixMillis(1_000)).unwrap();
    let positions = (seq * 100..).take(events as usize).collect();
    Arc::new(chunk.with_origin(Origin { stream: StreamId::new("tcp/1").unwrap(), positions }))
}

fn batch(name: &str, seq: u64) -> BatchId {
    BatchId::new(Opening(0xfeed), TenantId::new(name).unwrap(), Seq(seq))
}

fn place(seq: u64, index: u32) -> ChunkPlace {
    ChunkPlace { seq, index }
}

/// What the fixture `tests/fixtures/journal-v1` was made of, and then closed. A new version of the format makes a fixture of its
/// own, and leaves this one.
async fn version_1(journal: &DurableJournal) {
    let stream = StreamId::new("tcp/1").unwrap();
    put(journal, (1..=3).map(|seq| Entry::Chunk { seq, chunk: chunk("acme", seq, 3) })).await;
    put(
        journal,
        [
            Entry::Mark { stream, position: 302, at: UnixMillis(1_500) },
            Entry::Door {
                tenant: TenantId::new("zen").unwrap(),
                totals: DoorTotals { muted: 9, ..DoorTotals::default() },
            },
            Entry::Cut { batch: batch("acme", 1), from: place(1, 0), until: place(1, 2) },
            Entry::Settled { batch: batch("acme", 1), outcome: Outcome::Stored, events: 2 },
            Entry::Cut { batch: batch("acme", 2), from: place(1, 2), until: place(2, 3) },
            Entry::Made { batch: batch("acme", 2), chunk: chunk("acme", 50, 4) },
            Entry::Intent { batch: batch("acme", 2), store: StoreName::ONLY, attempt: Attempt(1) },
            Entry::Failed { batch: batch("acme", 2), store: StoreName::ONLY, attempt: Attempt(1) },
            Entry::Intent { batch: batch("acme", 2), store: StoreName::ONLY, attempt: Attempt(2) },
            Entry::Undo {
                batch: batch("acme", 2),
                store: StoreName::ONLY,
                step: UndoStep { name: "unlink".to_owned(), data: vec![1, 0, 2] },
            },
        ],
    )
    .await;
}

/// What the fixture `tests/fixtures/journal-v2` was made of on top of that, and then closed: a batch in two stores is given up,
/// compensated but for one step, begun anew, given up once more and split; a piece is stored, and a piece of another is open.
async fn version_2(journal: &DurableJournal) {
    version_1(journal).await;
    let store = |name| StoreName::new(name).unwrap();
    let id = batch("acme", 2);
    let [first, second] = id.halves().unwrap();
    let cause = || Cause::new(Code::StorePermanent, "no");
    let done = |nth, failed: Option<&str>| Entry::Compensated {
        batch: id.clone(),
        nth,
        failed: failed.map(|why| (Cause::new(Code::CompensationFailed, why), UnixMillis(1_700))),
    };
    put(
        journal,
        [
            Entry::Done { batch: id.clone(), store: StoreName::ONLY },
            Entry::Intent { batch: id.clone(), store: store("archive"), attempt: Attempt(1) },
            Entry::GivenUp { batch: id.clone(), cause: cause() },
            done(0, None),
            done(1, Some("stuck")),
            done(2, Some("stuck too")),
            Entry::Undone { batch: id.clone(), nth: 1 },
            Entry::Again { batch: id.clone() },
            Entry::Intent { batch: id.clone(), store: StoreName::ONLY, attempt: Attempt(3) },
            Entry::GivenUp { batch: id.clone(), cause: cause() },
            Entry::Split { batch: id.clone(), first: 2 },
            Entry::Made { batch: first.clone(), chunk: chunk("acme", 51, 2) },
            Entry::Made { batch: second.clone(), chunk: chunk("acme", 52, 2) },
            Entry::Intent { batch: first.clone(), store: StoreName::ONLY, attempt: Attempt(1) },
            Entry::Settled { batch: first, outcome: Outcome::Stored, events: 2 },
            Entry::Intent { batch: second, store: StoreName::ONLY, attempt: Attempt(1) },
        ],
    )
    .await;
}

/// What the fixture `tests/fixtures/journal-v3` was made of, and then closed: behind a batch that is cut, the rest of a chunk and a
/// whole one are shed.
async fn version_3(journal: &DurableJournal) {
    let acme = || TenantId::new("acme").unwrap();
    put(journal, (1..=4).map(|seq| Entry::Chunk { seq, chunk: chunk("acme", seq, 3) })).await;
    put(
        journal,
        [
            Entry::Cut { batch: batch("acme", 1), from: place(1, 0), until: place(2, 1) },
            Entry::Shed { tenant: acme(), from: place(2, 1), until: place(3, 0), events: 2 },
            Entry::Shed { tenant: acme(), from: place(3, 0), until: place(4, 0), events: 3 },
        ],
    )
    .await;
}

async fn is_version_3(journal: &DurableJournal) {
    let told = begin(journal);
    assert_eq!(told.damage, Vec::<String>::new());
    let acme = &told.tenants[0];
    assert_eq!((acme.totals.accepted, acme.totals.shed, acme.totals.stored), (12, 5, 0));
    assert_eq!((acme.settled, acme.uncut), (place(1, 0), place(4, 0)));
    let chunks: Vec<_> = acme.chunks.iter().map(|chunk| (chunk.seq, chunk.events)).collect();
    assert_eq!(chunks, [(1, 3), (2, 1), (4, 3)]);
    let [cut] = acme.cuts.as_slice() else { panic!("one cut, not {:?}", acme.cuts) };
    assert_eq!((&cut.batch, cut.from, cut.until), (&batch("acme", 1), place(1, 0), place(2, 1)));
    put(journal, [Entry::Settled { batch: batch("acme", 1), outcome: Outcome::Stored, events: 4 }]).await;
    journal.close().await.unwrap();
}

/// What the fixture `tests/fixtures/journal-v4` was made of, and then closed: on top of that, frames of a stream are refused, and its
/// sender has heard of some.
async fn version_4(journal: &DurableJournal) {
    version_3(journal).await;
    let stream = || StreamId::new("tcp/1").unwrap();
    let refused = |positions, code| Entry::Refused { stream: stream(), positions, code };
    put(
        journal,
        [
            Entry::Mark { stream: stream(), position: 402, at: UnixMillis(1_500) },
            refused(vec![(1, 1), (3, 9)], Code::BadJson),
            refused(vec![(201, 202), (300, 302)], Code::Shed),
            Entry::Heard { stream: stream(), position: 5 },
        ],
    )
    .await;
}

fn is_version_4(journal: &DurableJournal) {
    let told = begin(journal);
    assert_eq!(told.damage, Vec::<String>::new());
    let [stream] = told.streams.as_slice() else { panic!("one stream, not {:?}", told.streams) };
    assert_eq!((stream.stream.as_str(), stream.position), ("tcp/1", 402));
    let refused = [(6, 9, Code::BadJson), (201, 202, Code::Shed), (300, 302, Code::Shed)];
    assert_eq!(stream.refused, refused);
}

#[tokio::test]
async fn a_journal_of_format_version_4_is_read_for_ever() {
    is_version_4(&open(fixture(4).path()));
}

#[tokio::test]
async fn a_journal_of_format_version_3_is_read_for_ever() {
    let dir = fixture(3);
    is_version_3(&open(dir.path())).await;
    let told = begin(&open(dir.path()));
    let acme = &told.tenants[0];
    assert_eq!((acme.settled, acme.uncut), (place(4, 0), place(4, 0)), "what was shed goes with what lies before");
    assert_eq!((acme.totals.accepted, acme.totals.shed, acme.totals.stored), (12, 5, 4));
}

/// A copy of the fixture, since to open it changes it.
fn fixture(version: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/journal-v{version}"));
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

#[tokio::test]
async fn the_durable_journal_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    conformance::journal(async |name: &str| open(&dir.path().join(name))).await;
}

#[tokio::test]
async fn a_journal_of_format_version_1_is_read_for_ever() {
    is_version_1(&open(fixture(1).path())).await;
}

#[tokio::test]
async fn a_journal_of_format_version_2_is_read_for_ever() {
    is_version_2(&open(fixture(2).path())).await;
}

#[tokio::test]
async fn what_the_fixtures_were_made_of_reads_the_same_today() {
    is_version_1(&open(written(version_1).await.path())).await;
    is_version_2(&open(written(version_2).await.path())).await;
    is_version_3(&open(written(version_3).await.path())).await;
    is_version_4(&open(written(version_4).await.path()));
}

/// A journal with that in it, as it is written today.
async fn written(write: impl AsyncFnOnce(&DurableJournal)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.begin(Opening(0xfeed), UnixMillis(1_000)).unwrap();
    write(&journal).await;
    journal.close().await.unwrap();
    dir
}

async fn is_version_2(journal: &DurableJournal) {
    let told = begin(journal);
    assert_eq!(told.damage, Vec::<String>::new());
    let acme = &told.tenants[0];
    assert_eq!((acme.totals.accepted, acme.totals.stored, acme.totals.batches), (9, 4, 2));
    assert_eq!((acme.next_chunk, acme.next_batch), (4, Seq(3)));
    let [_, second] = batch("acme", 2).halves().unwrap();
    let [cut] = acme.cuts.as_slice() else { panic!("one cut, not {:?}", acme.cuts) };
    assert_eq!((&cut.batch, cut.from, cut.until), (&second, place(2, 1), place(2, 3)));
    assert_eq!(cut.progress.open().map(|step| (&step.store, step.attempt)), Some((&StoreName::ONLY, Attempt(1))));
    assert_eq!(journal.read(&acme.tenant, &cut.made.unwrap()).await.unwrap(), *chunk("acme", 52, 2));
    // Newest first: of `archive` its rollback; of the other the undo of a step, and its rollback.
    let [owed] = acme.uncompensated.as_slice() else { panic!("one is left, not {:?}", acme.uncompensated) };
    assert_eq!((&owed.batch, owed.nth, &owed.store), (&batch("acme", 2), 2, &StoreName::ONLY));
    assert_eq!(owed.compensation, Compensation::Rollback(Attempt(2)));
    assert_eq!((&*owed.cause.detail, owed.since), ("stuck too", UnixMillis(1_700)));
}

async fn is_version_1(journal: &DurableJournal) {
    let told = begin(journal);
    assert_eq!(told.damage, Vec::<String>::new());
    let [stream] = told.streams.as_slice() else { panic!("one stream, not {:?}", told.streams) };
    assert_eq!((stream.stream.as_str(), stream.position, stream.at), ("tcp/1", 302, UnixMillis(1_500)));
    let [acme, zen] = told.tenants.as_slice() else { panic!("two tenants, not {:?}", told.tenants) };
    assert_eq!(zen.door.muted, 9);
    assert_eq!((acme.totals.accepted, acme.totals.stored, acme.totals.batches), (9, 2, 1));
    assert_eq!((acme.next_chunk, acme.next_batch, acme.settled), (4, Seq(3), place(1, 2)));
    assert_eq!(acme.chunks.iter().map(|chunk| chunk.seq).collect::<Vec<_>>(), [1, 2, 3]);
    for told in &acme.chunks {
        assert_eq!(journal.read(&acme.tenant, told).await.unwrap(), *chunk("acme", told.seq, 3));
    }
    let [cut] = acme.cuts.as_slice() else { panic!("one cut, not {:?}", acme.cuts) };
    assert_eq!((&cut.batch, cut.from, cut.until), (&batch("acme", 2), place(1, 2), place(2, 3)));
    assert_eq!(cut.progress.open().map(|step| (&step.store, step.attempt)), Some((&StoreName::ONLY, Attempt(2))));
    assert_eq!(cut.progress.undo, [(StoreName::ONLY, UndoStep { name: "unlink".to_owned(), data: vec![1, 0, 2] })]);
    let made = cut.made.unwrap();
    assert_eq!(journal.read(&acme.tenant, &made).await.unwrap(), *chunk("acme", 50, 4));
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused_with_the_process_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    for error in [
        DurableJournal::open(dir.path(), JournalOptions::default(), |_, _| {}).unwrap_err(),
        inspect::summary(dir.path(), |_, _| {}).unwrap_err(),
    ] {
        let why = error.to_string();
        assert!(why.contains(&format!("in use by process {}", std::process::id())), "{why}");
        assert!(why.contains(&dir.path().display().to_string()), "{why}");
    }
    journal.close().await.unwrap();
    assert!(inspect::summary(dir.path(), |_, _| {}).is_ok());
}

#[tokio::test]
async fn a_journal_that_is_dropped_has_written_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    begin(&journal);
    journal.append(&mut vec![Entry::Chunk { seq: 1, chunk: chunk("acme", 1, 3) }]);
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(begin(&journal).tenants[0].chunks.len(), 1);
    assert_eq!(journal.torn_bytes(), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn its_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("journal");
    let journal = open(&inside);
    begin(&journal);
    put(&journal, [Entry::Chunk { seq: 1, chunk: chunk("acme", 1, 3) }]).await;
    journal.close().await.unwrap();
    assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = fs::read_dir(&inside).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

/// Each file with its bytes.
fn contents(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_look_at_a_journal_tells_what_is_in_it_and_changes_nothing() {
    let dir = fixture(1);
    let before = contents(dir.path());
    let mut last = (0, 1);
    let summary = inspect::summary(dir.path(), |done, total| last = (done, total)).unwrap();
    assert!(last.0 == last.1 && last.1 > 0, "{last:?}");
    assert!(summary.is_closed && summary.damage.is_empty() && summary.torn_bytes == 0, "{summary:?}");
    assert_eq!((summary.segments.len(), summary.blocks, summary.next_block), (1, 2, 3));
    let acme = &summary.tenants[0];
    assert_eq!((acme.accepted, acme.stored, acme.in_flight, acme.batches, acme.open_attempts), (9, 2, 7, 1, 1));

    let mut lines = Vec::new();
    let given = inspect::export(dir.path(), None, |tenant, event| {
        lines.push(format!("{tenant}: {}", String::from_utf8_lossy(event.body)));
        Ok(())
    });
    assert_eq!(given.unwrap(), 7);
    assert_eq!((lines[0].as_str(), lines[6].as_str()), ("acme: acme 1 2", "acme: acme 3 2"));
    let nobody = TenantId::new("nobody").unwrap();
    assert_eq!(inspect::export(dir.path(), Some(&nobody), |_, _| Ok(())).unwrap(), 0);
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn a_look_at_a_damaged_journal_tells_the_damage_and_the_next_start_sets_it_aside() {
    let dir = fixture(1);
    let name = "0000000000000001.segment";
    let mut bytes = fs::read(dir.path().join(name)).unwrap();
    bytes[200] ^= 1;
    fs::write(dir.path().join(name), &bytes).unwrap();
    let summary = inspect::summary(dir.path(), |_, _| {}).unwrap();
    assert!(summary.damage.iter().any(|said| said.contains(name) && said.contains("byte 96")), "{:?}", summary.damage);
    assert!(
        summary.damage.iter().any(|said| said.contains("acme") && said.contains("9 events")),
        "{:?}",
        summary.damage
    );

    let journal = open(dir.path());
    assert_eq!(begin(&journal).damage, summary.damage);
    assert_eq!(fs::read(dir.path().join("damaged").join(name)).unwrap(), bytes);
}

#[test]
fn options_that_do_not_fit_together_are_refused_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("journal");
    let options = JournalOptions { max_bytes: 1 << 20, ..JournalOptions::default() };
    let why = DurableJournal::open(&inside, options, |_, _| {}).unwrap_err().to_string();
    assert!(why.contains("max_bytes") && why.contains("8 times segment_bytes"), "{why}");
    assert!(!inside.exists(), "and nothing is made");
}

#[tokio::test]
async fn a_journal_that_holds_nothing_takes_a_chunk_that_is_larger_than_its_quota() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions { segment_bytes: 4096, max_bytes: 16 * 4096, ..JournalOptions::default() };
    let journal = DurableJournal::open(dir.path(), options, |_, _| {}).unwrap();
    begin(&journal);
    for seq in 1..4 {
        assert!(journal.has_room(1 << 20) && !journal.health().is_full);
        put(&journal, [Entry::Chunk { seq, chunk: chunk("acme", seq, 20_000) }]).await;
        assert!(!journal.has_room(1) && journal.health().is_full, "it holds more than its quota");
        let cut = Entry::Cut { batch: batch("acme", seq), from: place(seq, 0), until: place(seq, 20_000) };
        put(&journal, [cut, Entry::Settled { batch: batch("acme", seq), outcome: Outcome::Stored, events: 20_000 }])
            .await;
    }
}

#[tokio::test]
async fn a_full_journal_takes_no_chunks_but_every_outcome_and_has_room_again_when_they_are_settled() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions { segment_bytes: 4096, max_bytes: 16 * 4096, ..JournalOptions::default() };
    let journal = DurableJournal::open(dir.path(), options, |_, _| {}).unwrap();
    begin(&journal);
    let mut seq = 0;
    while journal.has_room(1_000) {
        seq += 1;
        put(&journal, [Entry::Chunk { seq, chunk: chunk("acme", seq, 50) }]).await;
        assert!(seq < 1_000, "the quota must be reached");
    }
    assert!(journal.health().is_full);
    for seq in 1..=seq {
        let cut = Entry::Cut { batch: batch("acme", seq), from: place(seq, 0), until: place(seq, 50) };
        put(&journal, [cut, Entry::Settled { batch: batch("acme", seq), outcome: Outcome::Stored, events: 50 }]).await;
    }
    while !journal.has_room(1_000) {
        journal.room().await;
    }
    assert!(!journal.health().is_full);
}
