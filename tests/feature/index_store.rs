//! The layout `index` of the SQLite store: segments on disk, and the database that knows where each batch lies in them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use futures::future::join_all;
use headworks::store::sqlite::{OpenError, SegmentFile};
use headworks::store::{Layout, SqliteOptions, SqliteReader, SqliteStore};
use headworks::{
    Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, StorageError, TenantId, Undo, UnixMillis, conformance,
};
use rusqlite::Connection;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("events.db")
    }

    fn open_as(&self, layout: Layout, segment_bytes: u64) -> SqliteStore {
        let mut options = SqliteOptions::default();
        (options.layout, options.segment_bytes) = (layout, segment_bytes);
        SqliteStore::open(self.path(), options).unwrap()
    }

    fn open(&self) -> SqliteStore {
        self.open_as(Layout::Index, 64 << 20)
    }

    fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn number(&self, sql: &str) -> i64 {
        self.sql().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn reader(&self) -> SqliteReader {
        SqliteReader::open(self.path()).unwrap()
    }

    fn bodies(&self, name: &str) -> Vec<String> {
        let bodies = self.reader().bodies(&tenant(name)).unwrap();
        bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
    }

    /// The names of the segments.
    fn segments(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join("events.segments")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".seg")).collect();
        names.sort();
        names
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.0.path().join(format!("events.segments/{number:010}.seg"))
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn batch(name: &str, seq: u64, bodies: &[&str]) -> Batch {
    let mut builder = ChunkBuilder::default();
    bodies.iter().for_each(|body| builder.push(body.as_bytes(), Some(UnixMillis(seq.cast_signed()))));
    Batch::of_chunk(Opening(1), Seq(seq), builder.build(tenant(name), UnixMillis(seq.cast_signed() * 1000)).unwrap())
}

async fn put(store: &SqliteStore, batch: &Batch) -> Result<(), StorageError> {
    store.store(batch, &Undo::for_attempt(Attempt(1))).await
}

#[tokio::test]
async fn the_layout_index_keeps_the_contract_and_so_it_does_with_the_smallest_groups_and_segments() {
    for small in [false, true] {
        let place = TempDir::new().unwrap();
        let opened = Cell::new(0);
        let make = async || {
            opened.set(opened.get() + 1);
            let mut options = SqliteOptions::default();
            options.layout = Layout::Index;
            if small {
                (options.queue, options.group_max_bytes, options.segment_bytes) = (1, 0, 1);
            }
            SqliteStore::open(place.path().join(format!("{}.db", opened.get())), options).unwrap()
        };
        let bodies = async |store: &SqliteStore, tenant: &TenantId| {
            SqliteReader::open(store.path()).unwrap().bodies(tenant).unwrap()
        };
        conformance::storage(make, bodies).await;
        conformance::managed_dead_letters(make).await;
    }
}

#[tokio::test]
async fn plain_sql_says_which_batches_a_tenant_has_and_where_they_lie() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a", "bc"])).await.unwrap();
    put(&store, &batch("zen", 1, &["z"])).await.unwrap();
    put(&store, &batch("acme", 2, &["d"])).await.unwrap();
    let conn = place.sql();
    let sql =
        "SELECT batch || ' ' || events || ' ' || bytes || ' ' || first_arrived || ' ' || last_time || ' ' || segment
               FROM stored_batches WHERE tenant = 'acme'";
    let mut rows = conn.prepare(sql).unwrap();
    let rows: Vec<String> = rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows, ["0000000000000001/acme/1 2 3 1000 1 1", "0000000000000001/acme/2 1 1 2000 2 1"]);
    assert_eq!(place.number("SELECT count(*) FROM events"), 0);
    let lengths = place.number("SELECT sum(length) + 28 FROM stored_batches");
    assert_eq!(lengths.unsigned_abs(), fs::metadata(place.segment(1)).unwrap().len(), "one behind the other");
    assert_eq!(place.number("SELECT garbage FROM stored_segments"), 0);
    let file = SegmentFile::read(place.segment(1)).unwrap();
    let salvaged: Vec<_> = file.batches().map(|batch| (batch.id.to_string(), batch.events.len())).collect();
    let id = |id: &str| format!("0000000000000001/{id}");
    assert_eq!(salvaged, [(id("acme/1"), 2), (id("zen/1"), 1), (id("acme/2"), 1)]);
    assert_eq!(file.damage(), []);
}

#[tokio::test]
async fn many_batches_at_once_are_one_write_and_each_is_found() {
    let place = Place::new();
    let store = place.open();
    let batches: Vec<_> = (0..200).map(|n| batch(&format!("t{}", n % 20), 1 + n / 20, &["a", "b"])).collect();
    for outcome in join_all(batches.iter().map(|batch| put(&store, batch))).await {
        outcome.unwrap();
    }
    store.close().await.unwrap();
    for n in 0..20 {
        assert_eq!(place.bodies(&format!("t{n}")), ["a", "b"].repeat(10));
    }
}

/// What a killed process leaves: bytes behind the last row, whole batches of them or not.
#[tokio::test]
async fn bytes_that_no_row_points_to_are_cut_off_and_their_batch_comes_again() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    store.close().await.unwrap();
    let kept = fs::read(place.segment(1)).unwrap();
    let store = place.open();
    put(&store, &batch("acme", 2, &["b"])).await.unwrap();
    store.close().await.unwrap();
    let all = fs::read(place.segment(1)).unwrap();
    assert_eq!(place.segments().len(), 1, "it goes on where it was");
    place
        .sql()
        .execute_batch(
            "DELETE FROM batches WHERE seq = 2; UPDATE segments SET upto = (SELECT max(offset + length) FROM batches)",
        )
        .unwrap();

    for cut in kept.len()..=all.len() {
        fs::write(place.segment(1), &all[..cut]).unwrap();
        let store = place.open();
        assert_eq!(fs::read(place.segment(1)).unwrap(), kept, "{cut}");
        drop(store);
    }
    let store = place.open();
    put(&store, &batch("acme", 2, &["b"])).await.unwrap();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a", "b"]);
    assert_eq!(fs::read(place.segment(1)).unwrap(), all);
}

#[tokio::test]
async fn a_segment_that_a_crash_left_without_a_row_is_deleted_and_those_of_another_database_are_left_alone() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    store.close().await.unwrap();
    let text = fs::read(place.segment(1)).unwrap();
    for torn in [0, 10, 28] {
        fs::write(place.segment(2), vec![0; torn]).unwrap();
        drop(place.open());
        assert_eq!(place.segments(), ["0000000001.seg"], "{torn}");
    }
    // A new database where an older one was: its segments are not this one's.
    for file in ["events.db", "events.db-wal", "events.db-shm"] {
        let _ = fs::remove_file(place.0.path().join(file));
    }
    let store = place.open();
    put(&store, &batch("acme", 9, &["new"])).await.unwrap();
    assert_eq!(place.segments(), ["0000000001.seg", "0000000002.seg"]);
    assert_eq!(fs::read(place.segment(1)).unwrap(), text);
    assert_eq!(place.bodies("acme"), ["new"]);
}

#[tokio::test]
async fn damage_is_named_with_its_segment_and_batch_and_what_is_whole_is_read() {
    let place = Place::new();
    let store = place.open();
    for seq in 1..=3 {
        put(&store, &batch("acme", seq, &["some text"])).await.unwrap();
    }
    put(&store, &batch("zen", 1, &["z"])).await.unwrap();
    let offset = usize::try_from(place.number("SELECT offset FROM batches WHERE seq = 2")).unwrap();
    let mut bytes = fs::read(place.segment(1)).unwrap();
    bytes[offset + 60] ^= 1;
    fs::write(place.segment(1), &bytes).unwrap();
    let why = place.reader().bodies(&tenant("acme")).unwrap_err().to_string();
    let says = format!("0000000001.seg: batch 0000000000000001/acme/2, segment 1, bytes {offset} to ");
    assert!(why.contains(&says) && why.contains("is not as it was stored"), "{why}");
    assert_eq!(place.bodies("zen"), ["z"]);
    let held = place.reader().holdings(None, None).unwrap();
    let of = |name| (held.tenants[&tenant(name)].events, held.tenants[&tenant(name)].rows);
    assert_eq!((of("acme"), of("zen")), ((3, 2), (1, 1)));
    assert_eq!((held.tenants[&tenant("acme")].damaged, held.tenants[&tenant("zen")].damaged), (1, 0));
    assert!(held.damage.len() == 1 && held.damage[0].contains(&says), "{:?}", held.damage);
    let audit = headworks::audit::audit(headworks::audit::Scope::Store, None, None, &held);
    assert!(audit.differences[0].meaning.ends_with("1 event in damaged batches, which cannot be read"), "{audit:?}");
    let file = SegmentFile::read(place.segment(1)).unwrap();
    let seqs: Vec<_> = file.batches().map(|batch| batch.id.seq.0).collect();
    assert_eq!((seqs, file.damage().len()), (vec![1, 3, 1], 1));

    fs::remove_file(place.segment(1)).unwrap();
    let why = place.reader().bodies(&tenant("zen")).unwrap_err().to_string();
    assert!(why.contains("0000000001.seg: batch 0000000000000001/zen/1"), "{why}");
    assert_eq!(place.reader().holdings(None, None).unwrap().tenants[&tenant("zen")].rows, 0);
}

#[tokio::test]
async fn what_is_rolled_back_is_garbage_and_a_segment_of_nothing_else_is_deleted() {
    let place = Place::new();
    let store = place.open_as(Layout::Index, 400);
    for seq in 1..=6 {
        put(&store, &batch("acme", seq, &["x".repeat(100).as_str()])).await.unwrap();
    }
    let segments = place.segments();
    assert!(segments.len() >= 3, "{segments:?}");
    let in_first = place.number("SELECT batches FROM stored_segments WHERE segment = 1");
    for seq in 1..=in_first.unsigned_abs() {
        assert_eq!(place.segments(), segments);
        store.rollback(batch("acme", seq, &["x"]).id(), Attempt(1)).await.unwrap();
        if seq < in_first.unsigned_abs() {
            assert!(place.number("SELECT garbage FROM stored_segments WHERE segment = 1") > 100);
        }
    }
    // The answer comes before the sweep: the next call finds it done.
    assert_eq!(store.count(&tenant("acme")).await, Some(6 - in_first.unsigned_abs()));
    assert_eq!(place.segments(), segments[1..]);
    assert_eq!(place.number("SELECT count(*) FROM stored_segments WHERE segment = 1"), 0);
    let late = put(&store, &batch("acme", 1, &["x"])).await.unwrap_err();
    assert!(matches!(late, StorageError::Permanent { .. }), "{late:?}");
    store.close().await.unwrap();
    // By hand, as for a retention.
    place.sql().execute("DELETE FROM batches WHERE seq < 6", []).unwrap();
    drop(place.open());
    assert_eq!(place.segments(), segments[segments.len() - 1..]);
    assert_eq!(place.bodies("acme").len(), 1);
}

#[tokio::test]
async fn the_layout_may_change_at_each_opening_and_whatever_is_there_is_read_in_order() {
    let place = Place::new();
    for (seq, layout) in (1..).zip([Layout::Rows, Layout::Index, Layout::Rows, Layout::Index]) {
        let store = place.open_as(layout, 64 << 20);
        put(&store, &batch("acme", seq, &[&format!("event {seq}")])).await.unwrap();
        // It is known, whatever it was stored as.
        put(&store, &batch("acme", 1, &["event 1"])).await.unwrap();
        assert_eq!(store.count(&tenant("acme")).await, Some(seq));
        store.close().await.unwrap();
    }
    assert_eq!(place.bodies("acme"), ["event 1", "event 2", "event 3", "event 4"]);
    assert_eq!(place.number("SELECT count(*) FROM events"), 2);
    let store = place.open_as(Layout::Rows, 64 << 20);
    for seq in [1, 2] {
        store.rollback(batch("acme", seq, &["x"]).id(), Attempt(1)).await.unwrap();
    }
    assert_eq!(place.bodies("acme"), ["event 3", "event 4"]);
    let held = place.reader().holdings(None, None).unwrap().tenants[&tenant("acme")];
    assert_eq!((held.events, held.rows), (2, 2));
}

#[tokio::test]
async fn a_second_store_on_the_same_segments_is_refused() {
    let place = Place::new();
    let first = place.open();
    let mut options = SqliteOptions::default();
    options.layout = Layout::Index;
    let refused = SqliteStore::open(place.path(), options).expect_err("the first has them");
    assert!(matches!(refused, OpenError::SegmentsInUse { .. }), "{refused:?}");
    put(&first, &batch("acme", 1, &["a"])).await.unwrap();
}

#[tokio::test]
async fn where_a_segment_cannot_be_made_it_is_an_outage_and_passes() {
    let place = Place::new();
    let store = place.open();
    let directory = place.0.path().join("events.segments");
    let aside = place.0.path().join("aside");
    fs::rename(&directory, &aside).unwrap();
    let outage = put(&store, &batch("acme", 1, &["a"])).await.unwrap_err();
    assert!(matches!(outage, StorageError::Unavailable { .. }) && outage.to_string().contains(".seg: "), "{outage:?}");
    assert_eq!(store.count(&tenant("acme")).await, Some(0));
    fs::rename(aside, directory).unwrap();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a"]);
}
