//! Dead letters in SQLite: the quota of each tenant, and databases of earlier versions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use headworks::store::{LettersWhenFull, SqliteOptions, SqliteReader, SqliteStore};
use headworks::{
    Cause, Code, DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, Opening, StorageError, TenantId, UnixMillis,
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

    fn open(&self, letters_max_bytes: u64, letters_when_full: LettersWhenFull) -> SqliteStore {
        let mut options = SqliteOptions::default();
        (options.letters_max_bytes, options.letters_when_full) = (letters_max_bytes, letters_when_full);
        SqliteStore::open(self.path(), options).unwrap()
    }

    fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// What the store goes by is what is there.
    #[track_caller]
    fn assert_bytes_add_up(&self) {
        let differ = "SELECT count(*) FROM (
            SELECT tenant, letters, bytes FROM dead_letter_bytes WHERE letters > 0
            EXCEPT
            SELECT coalesce(tenant, ''), count(*),
                   sum(256 + octet_length(detail) + octet_length(body) + coalesce(octet_length(original_body), 0))
            FROM dead_letters GROUP BY 1)";
        assert_eq!(self.sql().query_row(differ, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }
}

/// One that counts 1,000 bytes.
fn letter(n: u32, tenant: Option<&str>) -> DeadLetter {
    let body = vec![b'x'; 1_000 - 256 - 3];
    DeadLetter {
        id: format!("{}/event/{n}", Opening(7)).into(),
        kind: if tenant.is_some() { DeadLetterKind::Event } else { DeadLetterKind::Frame },
        tenant: tenant.map(|name| TenantId::new(name).unwrap()),
        source: None,
        cause: Cause::new(Code::StorePermanent, "why"),
        attempts: 1,
        first_at: UnixMillis(1),
        last_at: UnixMillis(2),
        batch: None,
        original_bytes: body.len() as u64,
        time: None,
        body: body.into(),
        edit: None,
        replayed_at: None,
    }
}

async fn kept(store: &SqliteStore, tenant: Option<&str>) -> Vec<u32> {
    let query = DeadLetterQuery::default();
    let all = store.list(&query).await.unwrap();
    let of = all.iter().filter(|letter| letter.tenant.as_ref().map(TenantId::as_str) == tenant);
    of.map(|letter| letter.id.rsplit('/').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn above_its_quota_a_tenant_loses_its_oldest_letters_which_stay_counted_and_no_other_loses_any() {
    let place = Place::new();
    let store = place.open(3_000, LettersWhenFull::PurgeOldest);
    for n in 0..3 {
        store.put(&[letter(n, Some("acme")), letter(100 + n, Some("zen")), letter(200 + n, None)]).await.unwrap();
    }
    assert_eq!(kept(&store, Some("acme")).await, [0, 1, 2], "a quota may be used up");
    store.put(&[letter(3, Some("acme")), letter(4, Some("acme")), letter(203, None)]).await.unwrap();
    assert_eq!(kept(&store, Some("acme")).await, [2, 3, 4]);
    assert_eq!(kept(&store, Some("zen")).await, [100, 101, 102]);
    assert_eq!(kept(&store, None).await, [201, 202, 203], "letters without a tenant share a quota");
    place.assert_bytes_add_up();
    let held = SqliteReader::open(place.path()).unwrap().holdings(Some(Opening(7)), Some(Opening(7))).unwrap();
    let acme = held.tenants[&TenantId::new("acme").unwrap()];
    assert_eq!((acme.dead_letters, acme.purged, held.malformed, held.malformed_purged), (3, 2, 3, 1));
    let other = SqliteReader::open(place.path()).unwrap().holdings(Some(Opening(8)), Some(Opening(8))).unwrap();
    assert_eq!((other.tenants.len(), other.malformed_purged), (0, 0), "a purge is counted by its opening");

    let large = DeadLetter { body: vec![b'y'; 10_000].into(), ..letter(5, Some("acme")) };
    store.put(&[large]).await.unwrap();
    assert_eq!(kept(&store, Some("acme")).await, [5], "the newest is kept, however large");
    place.assert_bytes_add_up();
}

#[tokio::test]
async fn where_letters_are_to_wait_a_full_tenant_is_an_outage_until_somebody_makes_room() {
    let place = Place::new();
    let store = place.open(3_000, LettersWhenFull::Wait);
    let first: Vec<_> = (0..3).map(|n| letter(n, Some("acme"))).collect();
    store.put(&first).await.unwrap();
    let more = [letter(3, Some("zen")), letter(4, Some("acme"))];
    let refused = store.put(&more).await.unwrap_err();
    assert!(matches!(refused, StorageError::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("the dead letters of tenant acme take 3000 bytes"), "{refused}");
    assert!(kept(&store, Some("zen")).await.is_empty(), "all or none");
    store.put(&first).await.unwrap();
    store.put(&more[..1]).await.unwrap();
    assert_eq!(kept(&store, Some("zen")).await, [3], "others are not held up");

    let mut oldest = DeadLetterQuery::default();
    oldest.ids = vec![first[0].id.clone()];
    assert_eq!(store.purge(&oldest).await.unwrap(), 1);
    store.put(&more).await.unwrap();
    assert_eq!(kept(&store, Some("acme")).await, [1, 2, 4]);
    place.assert_bytes_add_up();
}

#[tokio::test]
async fn what_letters_take_is_known_after_every_change() {
    let place = Place::new();
    let store = place.open(u64::MAX >> 2, LettersWhenFull::Wait);
    let letters: Vec<_> = (0..6).map(|n| letter(n, [Some("acme"), None][n as usize % 2])).collect();
    store.put(&letters).await.unwrap();
    store.put(&letters).await.unwrap();
    place.assert_bytes_add_up();
    for body in ["short", "a longer one, caf\u{e9}\0"] {
        store.edit(&letters[0].id, body.as_bytes().into(), UnixMillis(3)).await.unwrap();
        store.edit(&letters[1].id, body.as_bytes().into(), UnixMillis(3)).await.unwrap();
        place.assert_bytes_add_up();
    }
    let mut some = DeadLetterQuery::default();
    some.ids = letters[..3].iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(store.purge(&some).await.unwrap(), 3);
    place.assert_bytes_add_up();
    let left: i64 = place.sql().query_row("SELECT sum(bytes) FROM dead_letter_bytes", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 3_000);
}

/// As the first version made it, with two letters.
const VERSION_1: &str = "
PRAGMA journal_mode = wal;
CREATE TABLE events (event_id INTEGER PRIMARY KEY, tenant TEXT, body TEXT, batch_id INTEGER, idx INTEGER, arrived_at INTEGER,
    event_time INTEGER);
CREATE TABLE batches (batch_id INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, tenant TEXT NOT NULL, seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL, events INTEGER NOT NULL, body_bytes INTEGER NOT NULL, content_hash INTEGER NOT NULL,
    first_rowid INTEGER NOT NULL, last_rowid INTEGER NOT NULL, first_arrived INTEGER NOT NULL, last_arrived INTEGER NOT NULL,
    stored_at INTEGER NOT NULL, UNIQUE (tenant, id));
CREATE TABLE fences (id TEXT PRIMARY KEY, attempt INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letters (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, tenant TEXT, source TEXT,
    reason TEXT NOT NULL, detail TEXT NOT NULL, attempts INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
    batch_id TEXT, idx INTEGER, original_bytes INTEGER NOT NULL, body BLOB);
CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant);
CREATE INDEX dead_letters_by_reason ON dead_letters (reason);
CREATE VIEW events_with_batch AS
    SELECT e.event_id, e.tenant, e.body, b.id AS batch, e.idx, e.arrived_at, e.event_time, b.attempt, b.stored_at
    FROM events e JOIN batches b ON b.batch_id = e.batch_id;
INSERT INTO dead_letters VALUES
    (1, '0000000000000001/acme/4#2', 'event', 'acme', NULL, 'store_permanent', 'why', 5, 10, 20, '0000000000000001/acme/4', 2, 3,
     'abc'),
    (2, '0000000000000001/frame/1', 'frame', NULL, 'tcp', 'bad_json', 'no', 0, 30, 30, NULL, NULL, 4, x'ff00');
PRAGMA application_id = 0x6864776b;
PRAGMA user_version = 1;
";

#[tokio::test]
async fn a_database_of_version_1_keeps_its_letters_and_a_reader_reads_it_as_it_is() {
    let place = Place::new();
    place.sql().execute_batch(VERSION_1).unwrap();
    let version = || place.sql().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let reader = SqliteReader::open(place.path()).unwrap();
    let before = reader.dead_letters(&DeadLetterQuery::default()).unwrap();
    assert_eq!((before.len(), &*before[0].body, &*before[1].body), (2, &b"abc"[..], &b"\xff\0"[..]));
    assert_eq!(reader.dead_letter("0000000000000001/frame/1").unwrap().as_ref(), Some(&before[1]));
    assert_eq!(reader.holdings(None, None).unwrap().malformed, 1);
    drop(reader);
    assert_eq!(version(), 1, "a reader changes nothing");

    let store = place.open(1 << 20, LettersWhenFull::PurgeOldest);
    assert_eq!(version(), 4);
    assert_eq!(store.list(&DeadLetterQuery::default()).await.unwrap(), before);
    place.assert_bytes_add_up();
    let ids: Vec<Arc<str>> = before.iter().map(|letter| letter.id.clone()).collect();
    let run = "replay-1".parse().unwrap();
    assert_eq!(store.begin_replay(&run, &ids).await.unwrap(), 2);
    store.close().await.unwrap();
    let store = place.open(1 << 20, LettersWhenFull::PurgeOldest);
    assert_eq!(store.replays().await.unwrap(), [run], "a replay is on record");
    assert_eq!(store.purge(&DeadLetterQuery::default()).await.unwrap(), 2);
    place.assert_bytes_add_up();
}
