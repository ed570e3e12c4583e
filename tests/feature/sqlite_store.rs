#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use headworks::store::sqlite::OpenError;
use headworks::store::{SqliteOptions, SqliteReader, SqliteStore};
use headworks::{
    Attempt, Batch, Cause, ChunkBuilder, Code, DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, Opening, Seq,
    Storage, StorageError, TenantId, Undo, UnixMillis, conformance,
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

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.path(), SqliteOptions::default()).unwrap()
    }

    /// Gives up on a lock at once.
    fn open_impatient(&self) -> SqliteStore {
        let mut options = SqliteOptions::default();
        options.busy_timeout = Duration::ZERO;
        SqliteStore::open(self.path(), options).unwrap()
    }

    fn refused(&self) -> OpenError {
        SqliteStore::open(self.path(), SqliteOptions::default()).expect_err("this file must be refused")
    }

    /// What somebody else would do to the file.
    fn sql(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        conn.busy_timeout(Duration::from_secs(10)).unwrap();
        conn
    }

    fn bodies(&self, name: &str) -> Vec<String> {
        let bodies = SqliteReader::open(self.path()).unwrap().bodies(&tenant(name)).unwrap();
        bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).unwrap().map(|file| file.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
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

fn letter(id: &str, tenant: Option<&str>, code: Code) -> DeadLetter {
    DeadLetter {
        id: id.into(),
        kind: DeadLetterKind::Frame,
        tenant: tenant.map(self::tenant),
        source: Some(Arc::from("tcp")),
        cause: Cause::new(code, "why"),
        attempts: 1,
        first_at: UnixMillis(1),
        last_at: UnixMillis(2),
        batch: None,
        original_bytes: 3,
        time: None,
        body: (&b"abc"[..]).into(),
        edit: None,
        replayed_at: None,
    }
}

async fn put(store: &SqliteStore, batch: &Batch) -> Result<(), StorageError> {
    store.store(batch, &Undo::for_attempt(Attempt(1))).await
}

#[tokio::test]
async fn the_sqlite_store_keeps_the_contract() {
    let place = TempDir::new().unwrap();
    let opened = Cell::new(0);
    let make = async || {
        opened.set(opened.get() + 1);
        let path = place.path().join(format!("{}.db", opened.get()));
        SqliteStore::open(path, SqliteOptions::default()).unwrap()
    };
    let bodies = async |store: &SqliteStore, tenant: &TenantId| {
        // Through another connection, while the store has the file open.
        SqliteReader::open(store.path()).unwrap().bodies(tenant).unwrap()
    };
    conformance::storage(make, bodies).await;
    conformance::managed_dead_letters(make).await;
}

#[tokio::test]
async fn a_store_with_a_queue_of_one_and_the_smallest_groups_keeps_the_contract() {
    let place = TempDir::new().unwrap();
    let opened = Cell::new(0);
    let make = async || {
        opened.set(opened.get() + 1);
        let mut options = SqliteOptions::default();
        (options.queue, options.group_max_bytes, options.page_bytes) = (1, 0, 512);
        (options.cache_bytes, options.wal_bytes) = (64 << 10, 64 << 10);
        SqliteStore::open(place.path().join(format!("{}.db", opened.get())), options).unwrap()
    };
    let bodies = async |store: &SqliteStore, tenant: &TenantId| {
        SqliteReader::open(store.path()).unwrap().bodies(tenant).unwrap()
    };
    conformance::storage(make, bodies).await;
    conformance::managed_dead_letters(make).await;
}

#[tokio::test]
async fn a_batch_that_is_refused_leaves_nothing_and_does_not_take_its_neighbours_with_it() {
    let place = Place::new();
    let store = place.open();
    place
        .sql()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON events WHEN NEW.body = 'poison'
             BEGIN SELECT RAISE(ABORT, 'poison is not allowed'); END",
        )
        .unwrap();
    let many: Vec<_> = (0..200).map(|n| if n == 150 { "poison".into() } else { format!("event {n}") }).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let batches =
        [batch("acme", 1, &["a"]), batch("zen", 1, &["z"]), batch("evil", 1, &many), batch("acme", 2, &["b"])];

    // A stranger's lock holds up the first one, so that all others gather in one group behind it.
    let lock = place.sql();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stores = join_all(batches.iter().map(|batch| put(&store, batch)));
    let unlock = async { lock.execute_batch("COMMIT").unwrap() };
    let (outcomes, ()) = futures::join!(stores, unlock);

    let poisoned = outcomes[2].clone().unwrap_err();
    assert!(matches!(poisoned, StorageError::Permanent { .. }), "{poisoned:?}");
    let said = poisoned.to_string();
    assert!(said.contains("0000000000000001/evil/1") && said.contains("poison is not allowed"), "{said}");
    for good in [0, 1, 3] {
        assert_eq!(outcomes[good], Ok(()));
    }
    assert_eq!(place.bodies("acme"), ["a", "b"]);
    assert_eq!(place.bodies("zen"), ["z"]);
    assert!(place.bodies("evil").is_empty());
    let rows: i64 = place.sql().query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3, "half a batch must not stay");
}

#[tokio::test]
async fn rows_that_a_trigger_swallows_are_noticed() {
    let place = Place::new();
    let store = place.open();
    let swallow = "CREATE TRIGGER t BEFORE INSERT ON events WHEN NEW.body = 'gone' BEGIN SELECT RAISE(IGNORE); END";
    place.sql().execute_batch(swallow).unwrap();
    let refused = put(&store, &batch("acme", 1, &["a", "gone", "b"])).await.unwrap_err();
    assert!(refused.to_string().contains("2 rows were inserted"), "{refused}");
    assert!(place.bodies("acme").is_empty());
}

#[tokio::test]
async fn a_lock_of_another_process_is_an_outage_for_all_who_wait_and_nothing_is_doubled() {
    let place = Place::new();
    let store = place.open_impatient();
    let batches: Vec<_> = (1..=5).map(|seq| batch("acme", seq, &["x"])).collect();
    put(&store, &batches[0]).await.unwrap();

    let lock = place.sql();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for outcome in join_all(batches.iter().map(|batch| put(&store, batch))).await {
        let outage = outcome.unwrap_err();
        assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
        assert!(outage.to_string().contains("database is locked by another process"), "{outage}");
    }
    let rollback = store.rollback(batches[0].id(), Attempt(1)).await.unwrap_err();
    assert!(matches!(rollback, StorageError::Unavailable { .. }), "{rollback:?}");
    assert_eq!(store.count(&tenant("acme")).await, Some(1), "reading goes on");
    lock.execute_batch("COMMIT").unwrap();

    for outcome in join_all(batches.iter().map(|batch| put(&store, batch))).await {
        outcome.unwrap();
    }
    assert_eq!(place.bodies("acme").len(), 5);
}

#[tokio::test]
async fn a_batch_that_comes_again_after_a_restart_is_there_once() {
    let place = Place::new();
    let batch = batch("acme", 1, &["a", "b"]);
    for _ in 0..3 {
        let store = place.open();
        put(&store, &batch).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(place.bodies("acme"), ["a", "b"]);
    }
}

#[tokio::test]
async fn other_content_under_the_same_id_is_refused_for_good() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a", "b"])).await.unwrap();
    for other in [&["a", "c"] as &[_], &["a", "b", "c"], &["ab"], &["b", "a"]] {
        let refused = put(&store, &batch("acme", 1, other)).await.unwrap_err();
        assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
        assert!(refused.to_string().contains("already stored with other content"), "{refused}");
    }
    assert_eq!(place.bodies("acme"), ["a", "b"]);
}

#[tokio::test]
async fn a_fence_holds_after_a_restart() {
    let place = Place::new();
    let batch = batch("acme", 1, &["a"]);
    let store = place.open();
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    drop(store);
    let store = place.open();
    let late = put(&store, &batch).await.unwrap_err();
    assert!(matches!(late, StorageError::Permanent { .. }), "{late:?}");
    assert!(place.bodies("acme").is_empty());
}

#[tokio::test]
async fn a_late_rollback_does_not_take_away_what_a_later_attempt_was_told_is_stored() {
    let place = Place::new();
    let store = place.open();
    let batch = batch("acme", 1, &["a"]);
    for attempt in [1, 2] {
        store.store(&batch, &Undo::for_attempt(Attempt(attempt))).await.unwrap();
    }
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a"]);
    store.rollback(batch.id(), Attempt(2)).await.unwrap();
    assert!(place.bodies("acme").is_empty());
}

#[tokio::test]
async fn a_rollback_removes_its_own_rows_only_even_if_others_deleted_or_renumbered_rows() {
    let place = Place::new();
    let store = place.open();
    let acme = batch("acme", 1, &["a1", "a2"]);
    let last = batch("last", 1, &["l1", "l2"]);
    for batch in [&batch("zen", 1, &["z1"]), &acme, &batch("zen", 2, &["z2"]), &last] {
        put(&store, batch).await.unwrap();
    }
    // Somebody deletes the newest rows by hand, and the next batch gets their places.
    place.sql().execute("DELETE FROM events WHERE tenant = 'last' OR body = 'z1'", []).unwrap();
    put(&store, &batch("zen", 3, &["z3", "z4", "z5"])).await.unwrap();
    store.rollback(last.id(), Attempt(1)).await.unwrap();
    assert_eq!(place.bodies("zen"), ["z2", "z3", "z4", "z5"]);

    place.sql().execute_batch("VACUUM").unwrap();
    store.rollback(acme.id(), Attempt(1)).await.unwrap();
    assert_eq!(place.bodies("zen"), ["z2", "z3", "z4", "z5"]);
    assert!(place.bodies("acme").is_empty());
    let rows: i64 = place.sql().query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 4);
}

#[cfg(unix)]
#[tokio::test]
async fn the_database_and_its_log_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    assert_eq!(place.files(), ["events.db", "events.db-shm", "events.db-wal"]);
    for name in place.files() {
        let mode = std::fs::metadata(place.0.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_is() {
    let text = "not a database, but somebody's only copy of a poem. ".repeat(100);
    let place = Place::new();
    std::fs::write(place.path(), &text).unwrap();
    let refused = place.refused();
    assert!(matches!(refused, OpenError::NotADatabase { .. }), "{refused:?}");
    assert!(refused.to_string().contains("choose another path"), "{refused}");
    assert_eq!(std::fs::read_to_string(place.path()).unwrap(), text);

    let place = Place::new();
    place.sql().execute_batch("CREATE TABLE poems (text)").unwrap();
    let before = std::fs::read(place.path()).unwrap();
    let refused = place.refused();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
    assert!(matches!(SqliteReader::open(place.path()), Err(OpenError::Foreign { .. })));
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
    assert_eq!(place.files(), ["events.db"]);
}

#[test]
fn a_database_of_a_newer_version_is_refused_with_advice() {
    let place = Place::new();
    drop(place.open());
    place.sql().pragma_update(None, "user_version", 99).unwrap();
    let refused = place.refused();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused:?}");
    assert!(refused.to_string().contains("run the newer headworks"), "{refused}");
    assert!(matches!(SqliteReader::open(place.path()), Err(OpenError::Newer { .. })));
}

#[test]
fn a_missing_directory_is_named_and_a_reader_creates_nothing() {
    let place = Place::new();
    let path = place.0.path().join("nowhere/events.db");
    let refused = SqliteStore::open(&path, SqliteOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("nowhere/events.db") && refused.contains("directory must exist"), "{refused}");

    let missing = SqliteReader::open(place.path()).unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing:?}");
    assert!(place.files().is_empty());
}

#[tokio::test]
async fn a_database_that_is_removed_while_in_use_is_an_outage_not_a_silent_loss() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    let aside = place.0.path().join("aside.db");
    std::fs::rename(place.path(), &aside).unwrap();
    let outage = put(&store, &batch("acme", 2, &["b"])).await.unwrap_err();
    assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
    assert!(outage.to_string().contains("removed or replaced"), "{outage}");
    std::fs::rename(&aside, place.path()).unwrap();
    put(&store, &batch("acme", 2, &["b"])).await.unwrap();
    assert_eq!(place.bodies("acme"), ["a", "b"]);
}

#[tokio::test]
async fn what_was_handed_over_is_kept_when_the_last_handle_is_dropped() {
    let place = Place::new();
    let store = place.open();
    for id in ["one", "two", "three"] {
        // Polled once: the letter waits for the writer, and nobody waits for the answer.
        let _ = store.put(&[letter(id, None, Code::Empty)]).now_or_never();
    }
    drop(store);
    assert_eq!(place.files(), ["events.db"], "the log was copied into the database");
    let letters = SqliteReader::open(place.path()).unwrap().dead_letters(&DeadLetterQuery::default()).unwrap();
    assert_eq!(letters.len(), 3);
}

#[tokio::test]
async fn a_closed_store_says_so_and_can_be_closed_again() {
    let place = Place::new();
    let store = place.open();
    let clone = store.clone();
    put(&store, &batch("acme", 1, &["a"])).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(place.files(), ["events.db"]);
    let outage = put(&clone, &batch("acme", 2, &["b"])).await.unwrap_err();
    assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
    assert!(outage.to_string().contains("closed"), "{outage}");
    assert_eq!(clone.count(&tenant("acme")).await, None);
    clone.close().await.unwrap();
}

#[tokio::test]
async fn anybody_can_ask_in_plain_sql() {
    let place = Place::new();
    let store = place.open();
    let mut builder = ChunkBuilder::default();
    builder.push(br#"{"level":"warn"}"#, Some(UnixMillis(77)));
    builder.push(b"\xff\xfe", None);
    builder.push(b"a\0b", None);
    let chunk = builder.build(tenant("acme"), UnixMillis(5)).unwrap();
    put(&store, &Batch::of_chunk(Opening(0xab), Seq(9), chunk)).await.unwrap();
    put(&store, &batch("zen", 1, &["z"])).await.unwrap();

    let sql = place.sql();
    let lines = |query: &str| -> Vec<String> {
        let mut statement = sql.prepare(query).unwrap();
        let columns = statement.column_count();
        let line = |row: &rusqlite::Row<'_>| {
            let texts = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                rusqlite::types::ValueRef::Null => "-".to_owned(),
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            });
            Ok(texts.collect::<Vec<_>>().join("|"))
        };
        statement.query_map([], line).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(lines("SELECT tenant, count(*) FROM events GROUP BY tenant"), ["acme|3", "zen|1"]);
    assert_eq!(
        lines(
            "SELECT typeof(body), hex(body), idx, arrived_at, event_time FROM events WHERE tenant = 'acme' ORDER BY idx"
        ),
        ["text|7B226C6576656C223A227761726E227D|0|5|77", "blob|FFFE|1|5|-", "blob|610062|2|5|-"]
    );
    assert_eq!(lines("SELECT body ->> '$.level' FROM events WHERE idx = 0 AND tenant = 'acme'"), ["warn"]);
    assert_eq!(
        lines("SELECT batch, idx FROM events_with_batch ORDER BY event_id"),
        [
            "00000000000000ab/acme/9|0",
            "00000000000000ab/acme/9|1",
            "00000000000000ab/acme/9|2",
            "0000000000000001/zen/1|0"
        ]
    );
}

#[tokio::test]
async fn a_reader_tells_what_each_tenant_has_while_the_store_writes() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a", "b"])).await.unwrap();
    let reader = SqliteReader::open(place.path()).unwrap();
    put(&store, &batch("acme", 3, &["c"])).await.unwrap();
    let mut of_batch = letter("l2", Some("acme"), Code::StorePermanent);
    of_batch.batch = Some((batch("acme", 7, &["x"]).id().clone(), 4));
    let letters = [letter("l1", Some("bare"), Code::BadJson), of_batch.clone(), letter("l3", None, Code::NoTenant)];
    store.put(&letters).await.unwrap();

    let totals: Vec<_> = reader
        .tenants()
        .unwrap()
        .into_iter()
        .map(|t| (t.tenant.to_string(), t.events, t.batches, t.dead_letters, t.first_arrived, t.last_arrived))
        .collect();
    assert_eq!(
        totals,
        [
            ("acme".into(), 3, 2, 1, Some(UnixMillis(1000)), Some(UnixMillis(3000))),
            ("bare".into(), 0, 0, 1, None, None)
        ]
    );
    assert_eq!(reader.dead_letters_without_tenant().unwrap(), 1);
    assert_eq!(reader.dead_letter("l2").unwrap(), Some(of_batch));
    assert_eq!(reader.dead_letter("l9").unwrap(), None);
    let mut query = DeadLetterQuery::default();
    query.code = Some(Code::BadJson);
    assert_eq!(reader.dead_letters(&query).unwrap(), letters[..1]);
}

#[tokio::test]
async fn what_was_answered_as_stored_is_there_after_a_crash() {
    let place = Place::new();
    let store = place.open();
    put(&store, &batch("acme", 1, &["a", "b"])).await.unwrap();
    // What a killed process leaves: the database and its log, never closed.
    let crashed = Place::new();
    let copy = |name: &str| std::fs::copy(place.0.path().join(name), crashed.0.path().join(name)).unwrap();
    copy("events.db");
    copy("events.db-wal");
    drop(store);

    assert_eq!(crashed.bodies("acme"), ["a", "b"], "a reader needs no writer to have cleaned up");
    let store = crashed.open();
    put(&store, &batch("acme", 1, &["a", "b"])).await.unwrap();
    assert_eq!(store.count(&tenant("acme")).await, Some(2));
}
