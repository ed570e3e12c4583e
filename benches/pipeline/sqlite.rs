//! SQLite as the baseline writes it: the tables, the statements and the transactions of the system's own store, without
//! its attempts, fences and checks.

use std::hash::{BuildHasher, Hasher};
use std::sync::mpsc::Receiver;

use foldhash::quality::FixedState;
use headworks::UnixMillis;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, ToSql};
use tempfile::TempDir;

use crate::contest::Result;
use crate::report::Counts;
use crate::windows::Events;
use crate::writer::Batch;

/// Rows of one INSERT.
const ROWS: usize = 64;

const SCHEMA: &str = "
    PRAGMA page_size = 16384;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -8192;
    PRAGMA wal_autocheckpoint = 1024;
    CREATE TABLE batches (
        batch_id INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, seq INTEGER NOT NULL,
        attempt INTEGER NOT NULL, events INTEGER NOT NULL, body_bytes INTEGER NOT NULL, content_hash INTEGER NOT NULL,
        first_rowid INTEGER, last_rowid INTEGER, stored_at INTEGER);
    CREATE TABLE events (
        tenant TEXT NOT NULL, body, batch_id INTEGER NOT NULL, idx INTEGER NOT NULL, arrived_at INTEGER NOT NULL,
        event_time INTEGER);
";
const INSERT_BATCH: &str = "INSERT INTO batches (id, tenant, seq, attempt, events, body_bytes, content_hash, \
    first_rowid, last_rowid, stored_at) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?)";

/// A database in a directory of its own, removed at the end.
pub(crate) struct Database {
    connection: Connection,
    _directory: TempDir,
}

impl Database {
    /// A new one, in the directory for temporary files.
    pub(crate) fn create() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let connection = Connection::open(directory.path().join("events.db"))?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection, _directory: directory })
    }

    /// Writes one transaction after the other, until the queue is closed.
    pub(crate) fn write_all(&self, queue: &Receiver<Vec<Batch>>) -> rusqlite::Result<()> {
        let connection = &self.connection;
        let mut insert_batch = connection.prepare(INSERT_BATCH)?;
        let mut insert_rows = connection.prepare(&insert_events(ROWS))?;
        let mut insert_row = connection.prepare(&insert_events(1))?;
        let mut next_rowid = 1;
        for batches in queue {
            let transaction = connection.unchecked_transaction()?;
            let mut ids = Vec::with_capacity(batches.len());
            for batch in &batches {
                ids.push(insert_batch_row(connection, &mut insert_batch, batch, next_rowid)?);
                next_rowid += batch.events.ends.len() as i64;
            }
            // Rows of several batches share a statement, so that small batches cost no more of them.
            let rows: Vec<_> = batches.iter().zip(ids).flat_map(|(batch, id)| rows_of(batch, id)).collect();
            let (whole, rest) = rows.as_chunks::<ROWS>();
            whole.iter().try_for_each(|rows| insert(&mut insert_rows, rows))?;
            rest.chunks(1).try_for_each(|row| insert(&mut insert_row, row))?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// What is really there, tenant by tenant.
    pub(crate) fn counts(&self) -> Result<Counts> {
        counts(&self.connection)
    }
}

/// What the tables of the store hold, tenant by tenant.
pub(crate) fn counts(connection: &Connection) -> Result<Counts> {
    let mut query = connection.prepare("SELECT tenant, count(*) FROM events GROUP BY tenant")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn insert_events(rows: usize) -> String {
    let rows = vec!["(?, ?, ?, ?, ?, NULL)"; rows].join(", ");
    format!("INSERT INTO events (tenant, body, batch_id, idx, arrived_at, event_time) VALUES {rows}")
}

fn insert_batch_row(
    connection: &Connection,
    insert: &mut Statement<'_>,
    batch: &Batch,
    first_rowid: i64,
) -> rusqlite::Result<i64> {
    let Batch { tenant, seq, events } = batch;
    insert.execute((
        format!("{:016x}/{tenant}/{seq}", 0x5f0c_9b1e_2d3a_4f60_u64),
        tenant.as_str(),
        seq.cast_signed(),
        events.ends.len() as i64,
        events.bytes.len() as i64,
        content_hash(events),
        first_rowid,
        first_rowid + events.ends.len() as i64 - 1,
        UnixMillis::now().0,
    ))?;
    Ok(connection.last_insert_rowid())
}

fn content_hash(events: &Events) -> i64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(&events.bytes);
    events.ends.iter().for_each(|&end| hasher.write_u32(end));
    hasher.finish().cast_signed()
}

struct Row<'b> {
    tenant: &'b str,
    body: Text<'b>,
    batch_id: i64,
    index: i64,
    arrived_at: i64,
}

/// Bytes that are known to be UTF-8.
struct Text<'b>(&'b [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

fn rows_of(batch: &Batch, batch_id: i64) -> impl Iterator<Item = Row<'_>> {
    let Events { bytes, ends, arrived } = &batch.events;
    let mut start = 0;
    (0..).zip(ends).map(move |(index, &end)| {
        let body = Text(&bytes[start..end as usize]);
        start = end as usize;
        Row { tenant: batch.tenant.as_str(), body, batch_id, index, arrived_at: arrived.0 }
    })
}

fn insert(statement: &mut Statement<'_>, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    let mut at = 0;
    let mut bind = |value: &dyn ToSql| {
        at += 1;
        statement.raw_bind_parameter(at, value)
    };
    for Row { tenant, body, batch_id, index, arrived_at } in rows {
        bind(tenant)?;
        bind(body)?;
        bind(batch_id)?;
        bind(index)?;
        bind(arrived_at)?;
    }
    statement.raw_execute().map(drop)
}
