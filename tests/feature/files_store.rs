#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use futures::future::join_all;
use headworks::store::files::OpenError;
use headworks::store::{FilesOptions, FilesReader, FilesStore};
use headworks::{
    Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, StorageError, TenantId, Undo, UnixMillis, conformance,
};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("events")
    }

    fn open(&self) -> FilesStore {
        // A process that another test is just starting has the files of this one open until it is another program.
        let open = || FilesStore::open(self.root(), FilesOptions::default());
        let mut opened = open();
        while let Err(OpenError::InUse { .. }) = opened {
            std::thread::yield_now();
            opened = open();
        }
        opened.unwrap()
    }

    fn open_is_refused(&self) -> bool {
        matches!(FilesStore::open(self.root(), FilesOptions::default()), Err(OpenError::InUse { .. }))
    }

    fn file(&self, tenant: &str, name: &str) -> PathBuf {
        self.root().join(tenant).join(name)
    }

    /// What `cat` shows.
    fn cat(&self, tenant: &str) -> String {
        fs::read_to_string(self.file(tenant, "events.ndjson")).unwrap()
    }

    fn bodies(&self, name: &str) -> Vec<String> {
        let bodies = FilesReader::open(self.root()).unwrap().bodies(&tenant(name)).unwrap();
        bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn batch(name: &str, seq: u64, bodies: &[&str]) -> Batch {
    let mut builder = ChunkBuilder::default();
    bodies.iter().for_each(|body| builder.push(body.as_bytes(), None));
    Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant(name), UnixMillis(seq.cast_signed() * 1000)).unwrap())
}

async fn put(store: &FilesStore, batch: &Batch) -> Result<(), StorageError> {
    store.store(batch, &Undo::for_attempt(Attempt(1))).await
}

#[tokio::test]
async fn the_files_store_keeps_the_contract_and_so_it_does_with_the_smallest_queue_and_groups() {
    for small in [false, true] {
        let place = TempDir::new().unwrap();
        let opened = Cell::new(0);
        let make = async || {
            opened.set(opened.get() + 1);
            let mut options = FilesOptions::default();
            if small {
                (options.queue, options.group_max_bytes) = (1, 0);
            }
            FilesStore::open(place.path().join(opened.get().to_string()), options).unwrap()
        };
        // While the store has the files open.
        let bodies = async |store: &FilesStore, tenant: &TenantId| {
            FilesReader::open(store.path()).unwrap().bodies(tenant).unwrap()
        };
        conformance::storage(make, bodies).await;
    }
}

#[tokio::test]
async fn events_are_lines_that_cat_shows_and_a_rolled_back_batch_leaves_none() {
    let place = Place::new();
    let store = place.open();
    let first = batch("acme", 1, &["{\"n\":1}", "{\"n\":2}"]);
    let second = batch("acme", 2, &["two\nlines", "back\\slash", ""]);
    put(&store, &first).await.unwrap();
    put(&store, &second).await.unwrap();
    assert_eq!(place.cat("acme"), "{\"n\":1}\n{\"n\":2}\n\\two\\nlines\nback\\slash\n\\\n");
    store.rollback(first.id(), Attempt(1)).await.unwrap();
    assert_eq!(place.cat("acme").trim_start_matches('\n'), "\\two\\nlines\nback\\slash\n\\\n");
    store.rollback(second.id(), Attempt(1)).await.unwrap();
    assert_eq!(place.cat("acme").trim(), "");
    let totals = FilesReader::open(place.root()).unwrap().tenants().unwrap();
    assert_eq!((totals[0].events, totals[0].batches, totals[0].first_arrived), (0, 0, None));
}

#[tokio::test]
async fn what_is_stored_and_what_is_fenced_is_so_after_a_restart() {
    let place = Place::new();
    let (kept, fenced) = (batch("acme", 1, &["a", "b"]), batch("acme", 2, &["c"]));
    let store = place.open();
    put(&store, &fenced).await.unwrap();
    store.rollback(fenced.id(), Attempt(1)).await.unwrap();
    drop(store);
    for _ in 0..3 {
        let store = place.open();
        put(&store, &kept).await.unwrap();
        let late = put(&store, &fenced).await.unwrap_err();
        assert!(matches!(late, StorageError::Permanent { .. }), "{late:?}");
        assert_eq!(store.count(&tenant("acme")).await, Some(2));
        store.close().await.unwrap();
        assert_eq!(place.bodies("acme"), ["a", "b"]);
    }
    let store = place.open();
    store.store(&fenced, &Undo::for_attempt(Attempt(2))).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_late_rollback_does_not_take_away_what_a_later_attempt_was_told_is_stored_not_even_after_a_restart() {
    let place = Place::new();
    let batch = batch("acme", 1, &["a"]);
    let store = place.open();
    for attempt in [1, 2] {
        store.store(&batch, &Undo::for_attempt(Attempt(attempt))).await.unwrap();
    }
    drop(store);
    let store = place.open();
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a"]);
    store.rollback(batch.id(), Attempt(2)).await.unwrap();
    assert!(place.bodies("acme").is_empty());
}

#[tokio::test]
async fn other_content_under_the_same_id_is_refused_for_good() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a", "b"])).await.unwrap();
    for other in [&["a", "c"] as &[_], &["a", "b", "c"], &["a\nb"], &["b", "a"]] {
        let refused = put(&store, &batch("acme", 1, other)).await.unwrap_err();
        assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
        assert!(refused.to_string().contains("already stored with other content"), "{refused}");
    }
    assert_eq!(place.bodies("acme"), ["a", "b"]);
}

/// Each state that a crash can leave between the first byte of a batch's lines and the last byte of its record.
#[tokio::test]
async fn a_batch_that_a_crash_tore_anywhere_is_removed_when_the_store_is_opened_and_stored_whole_when_it_comes_again() {
    let place = Place::new();
    let store = place.open();
    let [first, second] = [batch("acme", 1, &["a", "b"]), batch("acme", 2, &["c\n", "d"])];
    put(&store, &first).await.unwrap();
    let (events, index) = (place.file("acme", "events.ndjson"), place.file("acme", "batches.ndjson"));
    let before = (fs::read(&events).unwrap().len(), fs::read(&index).unwrap().len());
    put(&store, &second).await.unwrap();
    store.close().await.unwrap();
    let (lines, records) = (fs::read(&events).unwrap(), fs::read(&index).unwrap());
    let torn_lines = (before.0..=lines.len()).map(|cut| (cut, before.1));
    let torn_records = (before.1..records.len()).map(|cut| (lines.len(), cut));
    for (lines_end, records_end) in torn_lines.chain(torn_records) {
        fs::write(&events, &lines[..lines_end]).unwrap();
        fs::write(&index, &records[..records_end]).unwrap();
        let store = place.open();
        assert_eq!((place.cat("acme"), place.bodies("acme")), ("a\nb\n".to_owned(), vec!["a".into(), "b".into()]));
        put(&store, &first).await.unwrap();
        put(&store, &second).await.unwrap();
        assert_eq!(place.bodies("acme"), ["a", "b", "c\n", "d"], "{lines_end} {records_end}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn damage_stays_with_its_tenant_is_told_and_nothing_is_cut_off() {
    let place = Place::new();
    let store = place.open();
    for name in ["acme", "zen"] {
        put(&store, &batch(name, 1, &["a"])).await.unwrap();
        put(&store, &batch(name, 2, &["b"])).await.unwrap();
    }
    store.close().await.unwrap();
    let index = place.file("acme", "batches.ndjson");
    let good = fs::read_to_string(&index).unwrap();
    for (bad, says) in [
        (good.replacen("\"seq\"", "\"xxx\"", 1).replacen("\"attempt\":1", "\"attempt\":7", 1), "line 2 was changed"),
        (good.replacen("\"events\":1", "\"events\":2", 2), "line 2 was changed"),
        (good.lines().skip(1).map(|line| format!("{line}\n")).collect(), "first line is missing"),
        (good.lines().take(1).chain(good.lines().skip(2)).map(|line| format!("{line}\n")).collect(), "does not begin"),
    ] {
        fs::write(&index, &bad).unwrap();
        let store = place.open();
        let outage = put(&store, &batch("acme", 3, &["c"])).await.unwrap_err();
        assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
        assert!(outage.to_string().contains(says) && outage.to_string().contains("batches.ndjson"), "{outage}");
        assert_eq!(store.count(&tenant("acme")).await, None);
        put(&store, &batch("zen", 3, &["c"])).await.unwrap();
        assert_eq!((fs::read_to_string(&index).unwrap(), place.cat("acme")), (bad, "a\nb\n".to_owned()));
        store.close().await.unwrap();
    }
    // Put right again, it goes on without a restart.
    let store = place.open();
    fs::write(&index, &good).unwrap();
    put(&store, &batch("acme", 3, &["c"])).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a", "b", "c"]);
}

#[tokio::test]
async fn events_that_are_gone_or_came_from_elsewhere_are_noticed_while_in_use() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    let (dir, aside) = (place.root().join("acme"), place.0.path().join("aside"));
    for round in 2..4 {
        fs::rename(&dir, &aside).unwrap();
        for _ in 0..2 {
            let outage = put(&store, &batch("acme", round, &["b"])).await.unwrap_err();
            assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
            assert!(!dir.exists(), "nothing is begun anew behind the owner's back");
        }
        put(&store, &batch("zen", round, &["z"])).await.unwrap();
        fs::rename(&aside, &dir).unwrap();
        put(&store, &batch("acme", round, &["b"])).await.unwrap();
    }
    let shorter = fs::OpenOptions::new().write(true).open(place.file("acme", "events.ndjson")).unwrap();
    shorter.set_len(1).unwrap();
    let outage = put(&store, &batch("acme", 9, &["c"])).await.unwrap_err();
    assert!(outage.to_string().contains("1 bytes"), "{outage}");
    assert_eq!(place.cat("acme").len(), 1);
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_alone() {
    let place = Place::new();
    fs::create_dir_all(place.root().join("acme")).unwrap();
    fs::write(place.file("acme", "events.ndjson"), "somebody's poem\n").unwrap();
    fs::write(place.root().join("zen"), "a file where a directory should be").unwrap();
    let store = place.open();
    for name in ["acme", "zen"] {
        let outage = put(&store, &batch(name, 1, &["a"])).await.unwrap_err();
        assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
    }
    assert_eq!(place.cat("acme"), "somebody's poem\n");
    assert!(FilesReader::open(place.root()).unwrap().tenants().unwrap().is_empty());
}

#[tokio::test]
async fn an_index_of_another_tenant_is_refused_for_good() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    store.close().await.unwrap();
    // What a file system does that does not tell upper from lower case.
    fs::rename(place.root().join("acme"), place.root().join("ACME")).unwrap();
    let refused = put(&place.open(), &batch("ACME", 1, &["b"])).await.unwrap_err();
    assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
    assert!(refused.to_string().contains("belongs to tenant acme"), "{refused}");
}

#[tokio::test]
async fn one_store_at_a_time_has_the_directory() {
    let place = Place::new();
    let store = place.open();
    assert!(place.open_is_refused());
    store.close().await.unwrap();
    assert!(!place.open_is_refused());
    let outage = put(&store, &batch("acme", 1, &["a"])).await.unwrap_err();
    assert!(matches!(outage, StorageError::Unavailable { .. }) && outage.to_string().contains("closed"), "{outage:?}");
    store.close().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    put(&place.open(), &batch("acme", 1, &["a"])).await.unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.file("acme", "events.ndjson")), 0o600);
    assert_eq!(mode(place.file("acme", "batches.ndjson")), 0o600);
    assert_eq!([mode(place.root().join("acme")), mode(place.root())], [0o700; 2]);
}

#[tokio::test]
async fn many_tenants_at_once_are_all_stored() {
    let place = Place::new();
    let store = place.open();
    let names: Vec<_> = (0..100).map(|n| format!("t{n}")).collect();
    let batches: Vec<_> = names.iter().map(|name| batch(name, 1, &["a"])).collect();
    join_all(batches.iter().map(|batch| put(&store, batch))).await.into_iter().for_each(Result::unwrap);
    assert_eq!(FilesReader::open(place.root()).unwrap().tenants().unwrap().len(), 100);
}
