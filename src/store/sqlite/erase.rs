//! What is kept of a tenant, taken away.

use std::collections::BTreeSet;

use headworks_actors::fault_point::fault_point;
use headworks_actors::{StorageError, StoreName, TenantId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{SqliteStore, letters};

/// So many events go in one transaction, at least where there are as many: others are stored in between.
const STEP: i64 = 20_000;

/// What stands in the place of events that were erased: how many they were, by the opening that stored them. It is kept where the
/// counts of purged letters are, under a kind of its own.
pub(super) const ERASED: &str = "stored";

/// What is being erased in a store that is no database begins so, and goes on with its name.
const ELSEWHERE: &str = "store:";

fn elsewhere(store: &StoreName) -> String {
    format!("{ELSEWHERE}{store}")
}

impl SqliteStore {
    /// Erases every event of the tenant, and overwrites their bytes in the file; the answer is how many there were. Of a layout in
    /// segments it erases their index: the bytes go with their segment. Nothing of the tenant must be on its way into the store.
    ///
    /// # Errors
    /// It cannot be written; what is not erased yet is still there, and a second call goes on.
    pub async fn erase(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        self.begin_erasure(tenant).await?;
        self.go_on_erasing(tenant).await
    }

    /// Takes down that all events are to be erased that there are by now of the tenant.
    pub(crate) async fn begin_erasure(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.begin(tenant, "SELECT ?1, 'events', coalesce(max(batch_id), 0) FROM batches").await
    }

    /// The same of its dead letters.
    pub(crate) async fn begin_erasing_letters(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.begin(tenant, "SELECT ?1, 'letters', coalesce(max(place), 0) FROM dead_letters").await
    }

    async fn begin(&self, tenant: &TenantId, row: &'static str) -> Result<(), StorageError> {
        let id = tenant.clone();
        let sql = format!(
            "INSERT INTO erasing {row} WHERE true ON CONFLICT (tenant, what) DO UPDATE SET upto = excluded.upto"
        );
        let begin = move |conn: &Connection| conn.prepare_cached(&sql)?.execute([id.as_str()]).map(drop);
        self.change("begin to erase what is kept of a tenant", begin).await
    }

    /// Erases the tenant's events as far as that was begun, and not ended; the answer is how many there were.
    pub(crate) async fn go_on_erasing(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let mut all = 0;
        loop {
            let id = tenant.clone();
            let (batches, events) = self.change("erase a tenant's events", move |conn| step(conn, &id)).await?;
            all += events;
            if batches == 0 {
                break;
            }
            fault_point("in-erase");
        }
        self.empty_log().await?;
        Ok(all)
    }

    /// What is begun and not ended: whose events, and whose dead letters.
    pub(crate) async fn erasures(&self) -> Result<(BTreeSet<TenantId>, BTreeSet<TenantId>), StorageError> {
        self.read("look for erasures", |conn| {
            let all = |what: &str| {
                let mut found = conn.prepare("SELECT tenant FROM erasing WHERE what = ?1")?;
                let found = found.query_map([what], |row| letters::tenant(0, &row.get::<_, String>(0)?))?;
                found.collect::<rusqlite::Result<_>>()
            };
            Ok((all("events")?, all("letters")?))
        })
        .await
    }

    /// Takes down that what stores elsewhere have of the tenant is to be erased, each up to the number that it gave; all of it or nothing.
    pub(crate) async fn begin_elsewhere(
        &self,
        tenant: &TenantId,
        marks: Vec<(StoreName, i64)>,
    ) -> Result<(), StorageError> {
        let id = tenant.clone();
        let begin = move |conn: &Connection| {
            let sql =
                "INSERT INTO erasing VALUES (?1, ?2, ?3) ON CONFLICT (tenant, what) DO UPDATE SET upto = excluded.upto";
            let mut begin = conn.prepare_cached(sql)?;
            marks
                .iter()
                .try_for_each(|(name, upto)| begin.execute(params![id.as_str(), elsewhere(name), upto]).map(drop))
        };
        self.change("begin to erase what is kept of a tenant", begin).await
    }

    /// What is begun elsewhere and not ended: whose events, where, and up to which number.
    pub(crate) async fn elsewhere(&self) -> Result<Vec<(TenantId, StoreName, i64)>, StorageError> {
        self.read("look for erasures", |conn| {
            let mut found = conn.prepare("SELECT tenant, what, upto FROM erasing ORDER BY tenant, what")?;
            let mut rows = found.query([])?;
            let mut all = vec![];
            while let Some(row) = rows.next()? {
                let what: String = row.get(1)?;
                if let Some(name) = what.strip_prefix(ELSEWHERE).and_then(|name| StoreName::new(name).ok()) {
                    all.push((letters::tenant(0, &row.get::<_, String>(0)?)?, name, row.get(2)?));
                }
            }
            Ok(all)
        })
        .await
    }

    /// It is done there.
    pub(crate) async fn end_elsewhere(&self, tenant: &TenantId, store: &StoreName) -> Result<(), StorageError> {
        let (id, what) = (tenant.clone(), elsewhere(store));
        let end = move |conn: &Connection| {
            let sql = "DELETE FROM erasing WHERE tenant = ?1 AND what = ?2";
            conn.prepare_cached(sql)?.execute([id.as_str(), &what]).map(drop)
        };
        self.change("end to erase what is kept of a tenant", end).await
    }

    /// The same for its dead letters; they are counted as purged.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn erase_letters(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let id = tenant.clone();
        let purge = move |conn: &Connection| overwriting(conn, || take_letters(conn, id.as_str()));
        let letters = self.change("erase a tenant's dead letters", purge).await?;
        self.empty_log().await?;
        Ok(letters)
    }

    /// The log of the database has yet what is gone there. Where a reader holds that up, the next checkpoint does it.
    async fn empty_log(&self) -> Result<(), StorageError> {
        let empty = |conn: &Connection| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.read("empty the log of the database", empty).await
    }
}

/// What is deleted is overwritten.
fn overwriting<T>(conn: &Connection, delete: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let before: i64 = conn.pragma_query_value(None, "secure_delete", |row| row.get(0))?;
    let set = |to: i64| conn.query_row(&format!("PRAGMA secure_delete = {to}"), [], |_| Ok(()));
    set(1)?;
    let done = delete();
    set(before)?;
    done
}

/// The oldest batches: how many, and how many events.
fn step(conn: &Connection, tenant: &TenantId) -> rusqlite::Result<(usize, u64)> {
    let tenant = tenant.as_str();
    overwriting(conn, || take(conn, tenant))
}

fn take(conn: &Connection, tenant: &str) -> rusqlite::Result<(usize, u64)> {
    let sql = "SELECT batch_id, events FROM batches
               WHERE tenant = ?1 AND batch_id <= (SELECT upto FROM erasing WHERE tenant = ?1 AND what = 'events')
               ORDER BY batch_id";
    let mut oldest = conn.prepare_cached(sql)?;
    let mut rows = oldest.query([tenant])?;
    let mut batches: Vec<i64> = vec![];
    let mut events = 0;
    while let Some(row) = rows.next()?.filter(|_| events < STEP) {
        batches.push(row.get(0)?);
        events += row.get::<_, i64>(1)?;
    }
    drop(rows);
    for batch in &batches {
        remove(conn, tenant, *batch, ERASED)?;
    }
    if batches.is_empty() {
        // Attempts that were rolled back: none of them is under way any more.
        conn.prepare_cached("DELETE FROM fences WHERE substr(id, 18, length(?1) + 1) = ?1 || '/'")?
            .execute([tenant])?;
        conn.prepare_cached("DELETE FROM erasing WHERE tenant = ?1 AND what = 'events'")?.execute([tenant])?;
    }
    Ok((batches.len(), events.cast_unsigned()))
}

/// All letters of the tenant, or those that an erasure that was begun speaks of.
fn take_letters(conn: &Connection, tenant: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT upto FROM erasing WHERE tenant = ?1 AND what = 'letters'";
    let upto: Option<i64> = conn.prepare_cached(sql)?.query_row([tenant], |row| row.get(0)).optional()?;
    let gone = letters::purge_upto(conn, tenant, upto.unwrap_or(i64::MAX))?;
    conn.prepare_cached("DELETE FROM erasing WHERE tenant = ?1 AND what = 'letters'")?.execute([tenant])?;
    Ok(gone)
}

/// Deletes a batch of the tenant, and counts its events as gone for this reason, with its opening. None where it is not there; else
/// how many events, and the bytes of their bodies.
pub(super) fn remove(conn: &Connection, tenant: &str, batch: i64, why: &str) -> rusqlite::Result<Option<(u64, u64)>> {
    let sql = "SELECT events, body_bytes, first_rowid, last_rowid, segment IS NULL, substr(id, 1, 16)
               FROM batches WHERE batch_id = ?1 AND tenant = ?2";
    type Found = (i64, i64, i64, i64, bool, String);
    let read =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?));
    let found: Option<Found> = conn.prepare_cached(sql)?.query_row(params![batch, tenant], read).optional()?;
    let Some((events, bytes, first, last, has_rows, opening)) = found else { return Ok(None) };
    if has_rows {
        conn.prepare_cached("DELETE FROM events WHERE event_id BETWEEN ?1 AND ?2 AND batch_id = ?3")?
            .execute(params![first, last, batch])?;
    }
    conn.prepare_cached("DELETE FROM batches WHERE batch_id = ?1")?.execute([batch])?;
    conn.prepare_cached(
        "INSERT INTO purged_letters (opening, tenant, kind, letters) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (opening, tenant, kind) DO UPDATE SET letters = letters + excluded.letters",
    )?
    .execute(params![opening, tenant, why, events])?;
    Ok(Some((events.cast_unsigned(), bytes.cast_unsigned())))
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, Undo, UnixMillis};

    use super::super::SqliteOptions;
    use super::*;
    use crate::store::{Layout, SqliteReader};

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    fn batch(id: &str, seq: u64, body: &str) -> Batch {
        let mut builder = ChunkBuilder::default();
        for _ in 0..3 {
            builder.push(body.as_bytes(), None);
        }
        Batch::of_chunk(Opening(7), Seq(seq), builder.build(tenant(id), UnixMillis(0)).unwrap())
    }

    #[tokio::test]
    async fn a_tenants_events_are_gone_to_the_last_byte_and_their_number_is_still_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        for (id, seq) in [("acme", 1), ("acme-2", 1), ("acme", 2)] {
            let batch = batch(id, seq, &format!("a secret of {id}."));
            store.store(&batch, &Undo::for_attempt(Attempt(1))).await.unwrap();
        }
        assert_eq!(store.erase(&tenant("acme")).await.unwrap(), 6);
        assert_eq!(store.erase(&tenant("acme")).await.unwrap(), 0);
        assert_eq!(store.erasures().await.unwrap(), Default::default());
        assert_eq!((store.count(&tenant("acme")).await, store.count(&tenant("acme-2")).await), (Some(0), Some(3)));
        let held = SqliteReader::open(&path).unwrap().holdings(None, None).unwrap();
        assert_eq!(held.tenants[&tenant("acme")].events, 6, "they were stored, and are not to be there");
        assert_eq!(held.erased[&tenant("acme")], 6);
        store.close().await.unwrap();
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            assert!(!has(b"a secret of acme."), "it is erased, not only unlinked");
            assert!(has(b"a secret of acme-2.") || bytes.is_empty());
        }
    }

    #[tokio::test]
    async fn what_comes_after_an_erasure_was_begun_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let put = async |store: &SqliteStore, seq| {
            store.store(&batch("acme", seq, "x"), &Undo::for_attempt(Attempt(1))).await.unwrap();
        };
        put(&store, 1).await;
        store.begin_erasure(&tenant("acme")).await.unwrap();
        store.begin_erasing_letters(&tenant("acme")).await.unwrap();
        put(&store, 2).await;
        store.close().await.unwrap();
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let acme = [tenant("acme")].into();
        assert_eq!(store.erasures().await.unwrap(), (BTreeSet::clone(&acme), acme));
        assert_eq!(store.go_on_erasing(&tenant("acme")).await.unwrap(), 3);
        assert_eq!(store.erase_letters(&tenant("acme")).await.unwrap(), 0);
        assert_eq!(
            (store.count(&tenant("acme")).await, store.erasures().await.unwrap()),
            (Some(3), Default::default())
        );
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn of_segments_the_index_goes() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions { layout: Layout::Index, ..SqliteOptions::default() };
        let store = SqliteStore::open(directory.path().join("events.db"), options).unwrap();
        store.store(&batch("acme", 1, "x"), &Undo::for_attempt(Attempt(1))).await.unwrap();
        assert_eq!(store.erase(&tenant("acme")).await.unwrap(), 3);
        assert_eq!(store.count(&tenant("acme")).await, Some(0));
        store.close().await.unwrap();
    }
}
