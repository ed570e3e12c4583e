use std::sync::LazyLock;

use headworks_actors::{Attempt, Batch, BatchId, DeadLetter, EventRef, StorageError, UnixMillis};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::letters;
use super::quota::Quota;
use super::segment::{Place, Segments};
use crate::store::hash;

/// One thing to write, within a transaction.
#[derive(Debug)]
pub(super) enum Write {
    Store(Store),
    Rollback {
        id: BatchId,
        attempt: Attempt,
    },
    Letters(Vec<DeadLetter>),
    /// Something rare, with an answer of its own.
    Change(Change),
}

type Make = Box<dyn Fn(&Connection) -> rusqlite::Result<()> + Send>;

/// Something that is written.
pub(super) struct Change {
    /// For an error.
    what: &'static str,
    /// May be called again, after the first call was undone.
    make: Make,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)
    }
}

/// A batch to store, with what can be computed before the writer's thread has its turn.
#[derive(Debug)]
pub(super) struct Store {
    batch: Batch,
    attempt: Attempt,
    content_hash: u64,
}

/// Why one write did not happen.
#[derive(Debug)]
pub(super) enum Refusal {
    /// By our own rules, before anything was written.
    Rule(StorageError),
    /// By SQLite. Part of it may have been written.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Write {
    pub(super) fn store(batch: &Batch, attempt: Attempt) -> Self {
        Self::Store(Store {
            batch: batch.clone(),
            attempt,
            content_hash: hash::content_hash(batch.events().map(|event| event.body)),
        })
    }

    pub(super) fn change(
        what: &'static str,
        make: impl Fn(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Self {
        Self::Change(Change { what, make: Box::new(make) })
    }

    /// About how much it writes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        const ROW: usize = 32;
        match self {
            Self::Store(store) => store.batch.body_bytes() + store.batch.len() * ROW,
            Self::Rollback { .. } | Self::Change(_) => ROW,
            Self::Letters(letters) => letters.iter().map(|letter| letter.body.len() + 8 * ROW).sum(),
        }
    }

    /// What it does, for an error.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Store(store) => format!("store batch {}", store.batch.id()),
            Self::Rollback { id, .. } => format!("roll back batch {id}"),
            Self::Letters(letters) => format!("keep {} dead letters", letters.len()),
            Self::Change(change) => change.what.to_owned(),
        }
    }

    /// About how much of a segment it takes.
    pub(super) fn segment_bytes(&self) -> usize {
        match self {
            Self::Store(store) => Segments::cost(&store.batch),
            _ => 0,
        }
    }

    /// Whether batches may go by it.
    pub(super) fn may_remove(&self) -> bool {
        matches!(self, Self::Rollback { .. } | Self::Change(_))
    }

    /// Does it. What SQLite refused is the caller's to undo.
    pub(super) fn apply(
        &self,
        conn: &Connection,
        quota: &Quota,
        segments: Option<&mut Segments>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Store(store) => store.apply(conn, segments),
            Self::Rollback { id, attempt } => Ok(rollback(conn, id, *attempt)?),
            Self::Letters(letters) => quota.put(conn, letters),
            Self::Change(change) => Ok((change.make)(conn)?),
        }
    }
}

impl Store {
    fn apply(&self, conn: &Connection, segments: Option<&mut Segments>) -> Result<(), Refusal> {
        let id = self.batch.id().to_string();
        let fence: Option<u32> = conn
            .prepare_cached("SELECT attempt FROM fences WHERE id = ?1")?
            .query_row([&id], |row| row.get(0))
            .optional()?;
        if fence.is_some_and(|fence| self.attempt.0 <= fence) {
            let detail = format!("attempt {} of batch {id} was rolled back", self.attempt);
            return Err(Refusal::Rule(StorageError::permanent(detail)));
        }
        let there: Option<(i64, i64)> = conn
            .prepare_cached("SELECT content_hash, events FROM batches WHERE tenant = ?1 AND id = ?2")?
            .query_row([self.batch.tenant().as_str(), &id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match there {
            None => self.insert(conn, &id, segments),
            Some((hash, _)) if hash == self.content_hash.cast_signed() => {
                // A rollback of an earlier attempt must not take away what this one was told is there.
                conn.prepare_cached("UPDATE batches SET attempt = ?3 WHERE tenant = ?1 AND id = ?2 AND attempt < ?3")?
                    .execute(params![self.batch.tenant().as_str(), id, self.attempt.0])?;
                Ok(())
            }
            Some((_, events)) => {
                let detail = format!(
                    "batch {id} is already stored with other content: {events} events there, {} events now, and their \
                     hashes differ; nothing was changed. A batch id must never be used for other events",
                    self.batch.len()
                );
                Err(Refusal::Rule(StorageError::permanent(detail)))
            }
        }
    }

    fn insert(&self, conn: &Connection, id: &str, segments: Option<&mut Segments>) -> Result<(), Refusal> {
        let Some(segments) = segments else { return Ok(self.insert_rows(conn, id)?) };
        let mark = segments.mark();
        let place = segments.stage(&self.batch, self.content_hash).map_err(Refusal::Rule)?;
        let inserted = self.insert_batch(conn, id, Where::Segment(place));
        if inserted.is_err() {
            segments.forget(mark);
        }
        Ok(inserted?)
    }

    fn insert_rows(&self, conn: &Connection, id: &str) -> rusqlite::Result<()> {
        let batch = &self.batch;
        // Under the write lock nobody else can take these numbers.
        let last: Option<i64> =
            conn.prepare_cached("SELECT max(event_id) FROM events")?.query_row([], |row| row.get(0))?;
        let first_rowid = last.unwrap_or(0) + 1;
        self.insert_batch(conn, id, Where::Rows { first: first_rowid })?;
        let batch_id = conn.last_insert_rowid();
        insert_events(conn, batch, batch_id)?;
        // SQLite numbers the rows upwards from the last one, and a rollback relies on it.
        if !batch.is_empty() && conn.last_insert_rowid() != first_rowid + signed(batch.len()) - 1 {
            let count = "SELECT count(*) FROM events WHERE event_id >= ?1 AND batch_id = ?2";
            let rows: i64 = conn.query_row(count, [first_rowid, batch_id], |row| row.get(0))?;
            return Err(rusqlite::Error::StatementChangedRows(usize::try_from(rows).unwrap_or(0)));
        }
        Ok(())
    }

    fn insert_batch(&self, conn: &Connection, id: &str, place: Where) -> rusqlite::Result<()> {
        let batch = &self.batch;
        // A range of rows without any, where they lie in a segment.
        let (rows, segment) = match place {
            Where::Rows { first } => ((first, first + signed(batch.len()) - 1), None),
            Where::Segment(place) => ((1, 0), Some(place)),
        };
        let number = |of: fn(Place) -> u64| segment.map(|place| of(place).cast_signed());
        let spans = Spans::of(batch);
        conn.prepare_cached(
            "INSERT INTO batches (id, tenant, seq, attempt, events, body_bytes, content_hash, first_rowid, last_rowid,
                                  first_arrived, last_arrived, stored_at, first_time, last_time, segment, offset, length)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            id,
            batch.tenant().as_str(),
            batch.id().seq.0.cast_signed(),
            self.attempt.0,
            signed(batch.len()),
            signed(batch.body_bytes()),
            self.content_hash.cast_signed(),
            rows.0,
            rows.1,
            spans.arrived.map_or(0, |span| span.0),
            spans.arrived.map_or(0, |span| span.1),
            UnixMillis::now().0,
            spans.time.map(|span| span.0),
            spans.time.map(|span| span.1),
            number(|place| place.segment),
            number(|place| place.offset),
            number(|place| place.length),
        ])
        .map(drop)
    }
}

/// Where the events of a batch are.
#[derive(Clone, Copy)]
enum Where {
    /// In `events`, from this number on.
    Rows {
        first: i64,
    },
    Segment(Place),
}

/// The least and the greatest of the times of a batch's events.
#[derive(Default)]
struct Spans {
    arrived: Option<(i64, i64)>,
    time: Option<(i64, i64)>,
}

impl Spans {
    fn of(batch: &Batch) -> Self {
        let widen = |span: &mut Option<(i64, i64)>, at: i64| {
            let (low, high) = span.unwrap_or((at, at));
            *span = Some((low.min(at), high.max(at)));
        };
        batch.events().fold(Self::default(), |mut spans, event| {
            widen(&mut spans.arrived, event.arrived.0);
            event.time.into_iter().for_each(|time| widen(&mut spans.time, time.0));
            spans
        })
    }
}

fn rollback(conn: &Connection, id: &BatchId, attempt: Attempt) -> rusqlite::Result<()> {
    let (tenant, id) = (id.tenant.as_str(), id.to_string());
    conn.prepare_cached(
        "INSERT INTO fences (id, attempt) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET attempt = max(attempt, excluded.attempt)",
    )?
    .execute(params![id, attempt.0])?;
    // What a later attempt has stored since stays.
    let there: Option<(i64, i64, i64)> = conn
        .prepare_cached(
            "SELECT batch_id, first_rowid, last_rowid FROM batches WHERE tenant = ?1 AND id = ?2 AND attempt <= ?3",
        )?
        .query_row(params![tenant, id, attempt.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    if let Some((batch_id, first, last)) = there {
        // The range makes it quick, the number makes it right: rows deleted by hand free their places for others.
        conn.prepare_cached("DELETE FROM events WHERE event_id BETWEEN ?1 AND ?2 AND batch_id = ?3")?
            .execute([first, last, batch_id])?;
        conn.prepare_cached("DELETE FROM batches WHERE batch_id = ?1")?.execute([batch_id])?;
    }
    Ok(())
}

/// Many rows a statement save its start and end; a few sizes keep the number of prepared statements small.
const ROWS_A_STATEMENT: [usize; 4] = [64, 16, 4, 1];

static INSERTS: LazyLock<[String; 4]> = LazyLock::new(|| ROWS_A_STATEMENT.map(insert_sql));

/// Parameters 1 to 3 are shared by its rows: tenant, batch, and the idx of the first.
fn insert_sql(rows: usize) -> String {
    let row = |n: usize| {
        let at = 4 + n * 3;
        format!("(?1, ?{at}, ?2, ?3 + {n}, ?{}, ?{})", at + 1, at + 2)
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    let columns = "tenant, body, batch_id, idx, arrived_at, event_time";
    format!("INSERT INTO events ({columns}) VALUES {}", rows.join(", "))
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn insert_events(conn: &Connection, batch: &Batch, batch_id: i64) -> rusqlite::Result<()> {
    let mut events = batch.events();
    let mut left = batch.len();
    let mut idx = 0;
    for (rows, sql) in ROWS_A_STATEMENT.into_iter().zip(&*INSERTS) {
        if left < rows {
            continue;
        }
        let mut insert = conn.prepare_cached(sql)?;
        insert.raw_bind_parameter(1, batch.tenant().as_str())?;
        insert.raw_bind_parameter(2, batch_id)?;
        while left >= rows {
            insert.raw_bind_parameter(3, idx)?;
            for (row, event) in events.by_ref().take(rows).enumerate() {
                bind_event(&mut insert, 4 + row * 3, event)?;
            }
            insert.raw_execute()?;
            left -= rows;
            idx += signed(rows);
        }
    }
    Ok(())
}

fn bind_event(insert: &mut CachedStatement<'_>, at: usize, event: EventRef<'_>) -> rusqlite::Result<()> {
    insert.raw_bind_parameter(at, letters::body_value(event.body))?;
    insert.raw_bind_parameter(at + 1, event.arrived.0)?;
    insert.raw_bind_parameter(at + 2, event.time.map(|time| time.0))
}
