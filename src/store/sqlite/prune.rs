//! What a tenant's retention lets go of, deleted in small steps. What is to go is found by a reader, so that the one thread that
//! writes is asked for no more than the deletion.

use headworks_actors::fault_point::fault_point;
use headworks_actors::{BatchId, StorageError, TenantId, UnixMillis};
use rusqlite::{Connection, params};

use super::erase::remove;
use super::{ReadError, SqliteReader, SqliteStore, letters};
use crate::retention::{Asked, FENCES, Kept, LOOK, Pruned, Step, Stock, Walk};

/// What stands in the place of events that were pruned, where [`ERASED`](super::erase::ERASED) does.
pub(super) const PRUNED: &str = "pruned";

/// So many of the oldest dead letters are looked at, and deleted, together.
const LETTERS: i64 = 500;

impl SqliteReader {
    /// What there is now.
    pub(crate) fn stock(&self) -> Result<Stock, ReadError> {
        let number = |sql| self.conn.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        let newest = number("SELECT max(batch_id) FROM batches").map_err(|error| self.failed(&error))?;
        let tenants =
            self.all("SELECT tenant FROM stored_totals", [], |row| letters::tenant(0, &row.get::<_, String>(0)?))?;
        let fences = self.all("SELECT id FROM fences ORDER BY id LIMIT ?1", [FENCES], |row| {
            letters::parsed(0, &row.get::<_, String>(0)?, "batch id", |id| id.parse().ok())
        })?;
        Ok(Stock { newest: newest.unwrap_or(0), tenants, fences })
    }

    /// Begins to look for what is due of a tenant, among what was there then. Where something of it is `in_flight`, its newest batch
    /// may be one that comes again, and stays.
    pub(crate) fn walk(&self, stock: &Stock, asked: Asked) -> Result<Walk, ReadError> {
        let tenant = &asked.tenant;
        let number = |sql: &str, upto: i64| {
            let found: rusqlite::Result<Option<i64>> = self
                .conn
                .prepare_cached(sql)
                .and_then(|mut sql| sql.query_row(params![tenant.as_str(), upto], |row| row.get(0)));
            found.map(|found| found.unwrap_or(0)).map_err(|error| self.failed(&error))
        };
        let bytes = number("SELECT sum(bytes) FROM stored_totals WHERE tenant = ?1 AND ?2 >= 0", stock.newest)?;
        let upto = if asked.in_flight {
            number("SELECT max(batch_id) - 1 FROM batches WHERE tenant = ?1 AND batch_id <= ?2", stock.newest)?
        } else {
            stock.newest
        };
        Ok(Walk { asked, after: 0, upto, bytes: bytes.cast_unsigned() })
    }

    /// The next that are to go together; none where nothing more is due.
    pub(crate) fn next_step(&self, walk: &mut Walk) -> Result<Option<Step>, ReadError> {
        let sql = "SELECT batch_id, last_arrived, body_bytes, events FROM batches
                   WHERE tenant = ?1 AND batch_id > ?2 AND batch_id <= ?3 ORDER BY batch_id LIMIT ?4";
        let oldest = self.all(sql, params![walk.asked.tenant.as_str(), walk.after, walk.upto, LOOK], |row| {
            let kept = Kept { arrived: UnixMillis(row.get(1)?), bytes: row.get::<_, i64>(2)?.cast_unsigned() };
            Ok((row.get::<_, i64>(0)?, kept, row.get::<_, i64>(3)?.cast_unsigned()))
        })?;
        Ok(walk.step(oldest))
    }

    /// How many dead letters were given up before then, of the oldest; of all of them where `all` is asked for.
    pub(crate) fn letters_due(&self, before: UnixMillis, all: bool) -> Result<u64, ReadError> {
        let limit = if all { i64::MAX } else { LETTERS };
        let sql = "SELECT count(*) FROM (SELECT last_at, replay FROM dead_letters ORDER BY place LIMIT ?2)
                   WHERE last_at < ?1 AND replay IS NULL";
        let count: rusqlite::Result<i64> = self.conn.query_row(sql, params![before.0, limit], |row| row.get(0));
        count.map(i64::cast_unsigned).map_err(|error| self.failed(&error))
    }

    /// Who has dead letters; those of frames are nobody's.
    pub(crate) fn letter_owners(&self) -> Result<Vec<TenantId>, ReadError> {
        let sql = "SELECT tenant FROM dead_letter_bytes WHERE letters > 0 AND tenant != '' ORDER BY tenant";
        self.all(sql, [], |row| letters::tenant(0, &row.get::<_, String>(0)?))
    }

    /// How many dead letters of a tenant were given up before then.
    pub(crate) fn letters_due_of(&self, tenant: &TenantId, before: UnixMillis) -> Result<u64, ReadError> {
        let sql = "SELECT count(*) FROM dead_letters WHERE tenant = ?1 AND last_at < ?2 AND replay IS NULL";
        let count: rusqlite::Result<i64> =
            self.conn.query_row(sql, params![tenant.as_str(), before.0], |row| row.get(0));
        count.map(i64::cast_unsigned).map_err(|error| self.failed(&error))
    }

    /// How many events were pruned, since the database was made.
    pub(crate) fn pruned(&self) -> Result<u64, ReadError> {
        let sql = "SELECT coalesce(sum(letters), 0) FROM purged_letters WHERE kind = ?1";
        let pruned: rusqlite::Result<i64> = self.conn.query_row(sql, [PRUNED], |row| row.get(0));
        pruned.map(i64::cast_unsigned).map_err(|error| self.failed(&error))
    }
}

impl SqliteStore {
    /// Deletes what is to go in one step, and counts it, in one transaction.
    pub(crate) async fn prune(&self, tenant: &TenantId, step: Step) -> Result<Pruned, StorageError> {
        let id = tenant.clone();
        let pruned = self.change("prune a tenant's events", move |conn| take(conn, id.as_str(), &step.batches)).await?;
        fault_point("after-prune");
        Ok(pruned)
    }

    /// Deletes some of the oldest dead letters that were given up before then, and counts them as purged; none where none is left.
    /// Those that are in a replay stay.
    pub(crate) async fn prune_letters(&self, before: UnixMillis) -> Result<u64, StorageError> {
        self.change("prune dead letters", move |conn| letters::purge_old(conn, before, LETTERS)).await
    }

    /// The same of the dead letters of one tenant.
    pub(crate) async fn prune_letters_of(&self, tenant: &TenantId, before: UnixMillis) -> Result<u64, StorageError> {
        let id = tenant.clone();
        let purge = move |conn: &Connection| letters::purge_old_of(conn, id.as_str(), before, LETTERS);
        self.change("prune a tenant's dead letters", purge).await
    }

    /// Forgets the fences of batches that will not come again.
    pub(crate) async fn forget_fences(&self, batches: Vec<BatchId>) -> Result<(), StorageError> {
        self.change("forget fences", move |conn| {
            let mut forget = conn.prepare_cached("DELETE FROM fences WHERE id = ?1")?;
            batches.iter().try_for_each(|batch| forget.execute([batch.to_string()]).map(drop))
        })
        .await
    }

    /// Writes the database anew, without the room of what was deleted. Needs as much free disk as what is left takes, and the database
    /// for itself, for as long as that takes.
    ///
    /// # Errors
    /// It cannot be written, or somebody else reads it; then it is as it was.
    pub(crate) async fn vacuum(&self) -> Result<(), StorageError> {
        self.read("give back the room of what was deleted", |conn| {
            conn.execute_batch("VACUUM")?;
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
        .await
    }
}

fn take(conn: &Connection, tenant: &str, batches: &[i64]) -> rusqlite::Result<Pruned> {
    let mut pruned = Pruned::default();
    for batch in batches {
        // Where it is not there, it was rolled back meanwhile.
        if let Some((events, bytes)) = remove(conn, tenant, *batch, PRUNED)? {
            pruned += Pruned { batches: 1, events, bytes };
        }
    }
    fault_point("in-prune");
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use headworks_actors::{Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, Undo};
    use proptest::prelude::*;

    use super::super::SqliteOptions;
    use headworks_actors::RetentionPolicy;

    use super::*;
    use crate::store::Layout;

    fn acme() -> TenantId {
        TenantId::new("acme").unwrap()
    }

    fn batch(tenant: &TenantId, seq: u64, arrived: i64, bytes: usize) -> Batch {
        let mut builder = ChunkBuilder::default();
        let body = vec![b'x'; bytes / 2];
        builder.push(&body, None);
        builder.push(&body, None);
        Batch::of_chunk(Opening(7), Seq(seq), builder.build(tenant.clone(), UnixMillis(arrived)).unwrap())
    }

    #[derive(Debug, Clone)]
    enum Op {
        /// So much later a batch of so many times two bytes.
        Store(i64, usize),
        RollBack,
        /// So much later all is pruned that is due, while the newest may or may not come again.
        Prune {
            later: i64,
            max_age: Option<u64>,
            max_bytes: usize,
            in_flight: bool,
        },
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (0..20i64, 0..50usize).prop_map(|(later, bytes)| Op::Store(later, bytes * 2)),
            1 => Just(Op::RollBack),
            2 => (0..30i64, prop::option::of(0..200u64), 0..600usize, any::<bool>())
                .prop_map(|(later, max_age, max_bytes, in_flight)| Op::Prune { later, max_age, max_bytes, in_flight }),
        ];
        prop::collection::vec(op, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// A model that keeps whole batches in a queue, and an innocent neighbour.
        #[test]
        fn what_goes_is_the_oldest_that_is_due_and_all_of_it_is_counted(ops in ops(), index: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let place = tempfile::tempdir().unwrap();
                let layout = if index { Layout::Index } else { Layout::Rows };
                let options = SqliteOptions { layout, segment_bytes: 300, ..SqliteOptions::default() };
                let store = SqliteStore::open(place.path().join("events.db"), options).unwrap();
                let (mut now, mut seq, mut gone) = (1_000_000, 0, 0);
                let mut model: VecDeque<(u64, i64, usize)> = VecDeque::new();
                let neighbour = TenantId::new("zen").unwrap();
                store.store(&batch(&neighbour, 1, 0, 100), &Undo::for_attempt(Attempt(1))).await.unwrap();
                for op in ops {
                    match op {
                        Op::Store(later, bytes) => {
                            (now, seq) = (now + later, seq + 1);
                            store.store(&batch(&acme(), seq, now, bytes), &Undo::for_attempt(Attempt(1))).await.unwrap();
                            model.push_back((seq, now, bytes));
                        }
                        Op::RollBack => if let Some((seq, arrived, bytes)) = model.pop_back() {
                            let batch = batch(&acme(), seq, arrived, bytes);
                            store.rollback(batch.id(), Attempt(1)).await.unwrap();
                        },
                        Op::Prune { later, max_age, max_bytes, in_flight } => {
                            now += later;
                            let rules = RetentionPolicy { max_age: max_age.map(Duration::from_millis), max_bytes, ..RetentionPolicy::default() };
                            let reader = SqliteReader::open(store.path()).unwrap();
                            let stock = reader.stock().unwrap();
                            let mut walk = reader.walk(&stock, Asked { tenant: acme(), rules, now: UnixMillis(now), in_flight }).unwrap();
                            while let Some(step) = reader.next_step(&mut walk).unwrap() {
                                let holds = step.holds;
                                prop_assert_eq!(store.prune(&acme(), step).await.unwrap(), holds);
                            }
                            let stays = usize::from(in_flight);
                            while model.len() > stays {
                                let all: usize = model.iter().map(|(.., bytes)| bytes).sum();
                                let (_, arrived, _) = model[0];
                                let is_old = max_age.is_some_and(|age| arrived <= now - age.cast_signed());
                                if !is_old && (max_bytes == 0 || all <= max_bytes) { break; }
                                model.pop_front();
                                gone += 2;
                            }
                        }
                    }
                }
                let reader = SqliteReader::open(store.path()).unwrap();
                let left: Vec<usize> = reader.bodies(&acme()).unwrap().iter().map(|body| body.len() * 2).step_by(2).collect();
                let expected: Vec<usize> = model.iter().map(|(.., bytes)| *bytes).collect();
                prop_assert_eq!(left, expected);
                let held = reader.holdings(None, None).unwrap();
                let of_acme = held.tenants.get(&acme()).copied().unwrap_or_default();
                prop_assert_eq!((of_acme.events, of_acme.rows), (gone + model.len() as u64 * 2, gone + model.len() as u64 * 2));
                prop_assert_eq!((held.pruned.get(&acme()).copied().unwrap_or(0), reader.pruned().unwrap()), (gone, gone));
                prop_assert_eq!(store.count(&neighbour).await, Some(2), "it keeps all");
                let sums = |table: &str| format!("SELECT tenant || count(*) || ' ' || sum(events) || ' ' || sum(body_bytes) FROM {table} GROUP BY tenant");
                let counted = reader.conn.prepare("SELECT tenant || batches || ' ' || events || ' ' || bytes FROM stored_totals").unwrap()
                    .query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap();
                let there = reader.conn.prepare(&sums("batches")).unwrap()
                    .query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap();
                prop_assert_eq!(counted, there);
                store.close().await.unwrap();
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_segment_goes_once_all_in_it_is_pruned() {
        let place = tempfile::tempdir().unwrap();
        let options = SqliteOptions { layout: Layout::Index, segment_bytes: 4096, ..SqliteOptions::default() };
        let store = SqliteStore::open(place.path().join("events.db"), options).unwrap();
        for seq in 1..=100 {
            let batch = batch(&acme(), seq, seq.cast_signed(), 1000);
            store.store(&batch, &Undo::for_attempt(Attempt(1))).await.unwrap();
        }
        let segments = || std::fs::read_dir(place.path().join("events.segments")).unwrap().count();
        let before = segments();
        let rules = RetentionPolicy { max_age: None, max_bytes: 10_000, ..RetentionPolicy::default() };
        let reader = SqliteReader::open(store.path()).unwrap();
        let stock = reader.stock().unwrap();
        let mut walk = reader
            .walk(&stock, Asked { tenant: acme(), rules: rules.clone(), now: UnixMillis(0), in_flight: false })
            .unwrap();
        while let Some(step) = reader.next_step(&mut walk).unwrap() {
            store.prune(&acme(), step).await.unwrap();
        }
        assert_eq!(store.count(&acme()).await, Some(20));
        // Each holds three; the lock is a file, too.
        assert!(before > 30 && segments() <= 6, "{before} {}", segments());
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn the_room_of_pruned_rows_is_used_again_and_given_back_by_a_vacuum() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let rules = RetentionPolicy { max_age: None, max_bytes: 200_000, ..RetentionPolicy::default() };
        let mut sizes = vec![];
        for round in 0..10 {
            for seq in 1..=20 {
                let batch = batch(&acme(), round * 20 + seq, 0, 50_000);
                store.store(&batch, &Undo::for_attempt(Attempt(1))).await.unwrap();
            }
            let reader = SqliteReader::open(&path).unwrap();
            let stock = reader.stock().unwrap();
            let mut walk = reader
                .walk(&stock, Asked { tenant: acme(), rules: rules.clone(), now: UnixMillis(0), in_flight: false })
                .unwrap();
            while let Some(step) = reader.next_step(&mut walk).unwrap() {
                store.prune(&acme(), step).await.unwrap();
            }
            sizes.push(reader.conn.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)).unwrap());
        }
        assert!(sizes[9] <= sizes[1], "{sizes:?}");
        store.vacuum().await.unwrap();
        store.close().await.unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < 800_000, "{size}");
        assert_eq!(SqliteReader::open(&path).unwrap().bodies(&acme()).unwrap().len(), 8);
    }
}
