use std::path::{Path, PathBuf};
use std::time::Duration;

use headworks_actors::{DeadLetter, DeadLetterPage, DeadLetterQuery, Opening, TenantId, UnixMillis};
use rusqlite::{Connection, Params, Row};

use super::segment::SegmentFiles;
use super::{OpenError, ReadError, holdings, letters, schema};
use crate::audit::Holdings;
use crate::store::events::Span;

/// Reads a database, also while a daemon writes to it; never writes to it.
///
/// For commands and tools: calls block. A write-ahead log needs its two files beside the database, so SQLite may make
/// these where no writer has them open.
#[derive(Debug)]
pub struct SqliteReader {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
}

/// What a database holds of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantTotals {
    /// Whose.
    pub tenant: TenantId,
    /// Events stored and not rolled back.
    pub events: u64,
    /// Batches they came in.
    pub batches: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// When the first of the stored events arrived.
    pub first_arrived: Option<UnixMillis>,
    /// When the last of the stored events arrived.
    pub last_arrived: Option<UnixMillis>,
}

impl TenantTotals {
    /// Of a tenant that the database does not know.
    pub(crate) fn none(tenant: TenantId) -> Self {
        Self { tenant, events: 0, batches: 0, dead_letters: 0, first_arrived: None, last_arrived: None }
    }
}

impl SqliteReader {
    /// Opens an existing database.
    ///
    /// # Errors
    /// [`OpenError`]: it is not there, not one of ours, or not readable. Nothing is created.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        // A writer never keeps a reader waiting, except for the moment of a recovery.
        const PATIENCE: Duration = Duration::from_secs(2);
        let path = path.as_ref().to_owned();
        let conn = schema::open_for_reading(&path, PATIENCE)?;
        Ok(Self { conn, path })
    }

    /// The totals of every tenant that has an event or a dead letter, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantTotals>, ReadError> {
        self.all(
            "SELECT tenant, sum(events), sum(batches), sum(letters), min(first), max(last) FROM (
                SELECT tenant, sum(events) AS events, count(*) AS batches, 0 AS letters,
                       min(first_arrived) AS first, max(last_arrived) AS last
                FROM batches GROUP BY tenant
                UNION ALL
                SELECT tenant, 0, 0, count(*), NULL, NULL FROM dead_letters WHERE tenant IS NOT NULL GROUP BY tenant
             ) GROUP BY tenant ORDER BY tenant",
            [],
            |row| {
                let name: String = row.get(0)?;
                Ok(TenantTotals {
                    tenant: letters::tenant(0, &name)?,
                    events: row.get::<_, i64>(1)?.cast_unsigned(),
                    batches: row.get::<_, i64>(2)?.cast_unsigned(),
                    dead_letters: row.get::<_, i64>(3)?.cast_unsigned(),
                    first_arrived: row.get::<_, Option<i64>>(4)?.map(UnixMillis),
                    last_arrived: row.get::<_, Option<i64>>(5)?.map(UnixMillis),
                })
            },
        )
    }

    /// How many events of each tenant were stored and are gone since, pruned or erased.
    pub(crate) fn gone(&self) -> Result<Vec<(TenantId, u64)>, ReadError> {
        let sql = "SELECT tenant, sum(letters) FROM purged_letters WHERE kind IN (?1, ?2) GROUP BY tenant";
        self.all(sql, [super::erase::ERASED, super::prune::PRUNED], |row| {
            Ok((letters::tenant(0, &row.get::<_, String>(0)?)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })
    }

    /// How many dead letters have no tenant.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters_without_tenant(&self) -> Result<u64, ReadError> {
        let sql = "SELECT count(*) FROM dead_letters WHERE tenant IS NULL";
        let count: rusqlite::Result<i64> = self.conn.query_row(sql, [], |row| row.get(0));
        count.map(i64::cast_unsigned).map_err(|error| self.failed(&error))
    }

    /// How many dead letters are kept, and what they take of their quotas, in bytes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters_kept(&self) -> Result<(u64, u64), ReadError> {
        let sql = "SELECT coalesce(sum(letters), 0), coalesce(sum(bytes), 0) FROM dead_letter_bytes";
        let kept: rusqlite::Result<(i64, i64)> = self.conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let kept = kept.map_err(|error| self.failed(&error))?;
        Ok((kept.0.cast_unsigned(), kept.1.cast_unsigned()))
    }

    /// The newest dead letters that match, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, ReadError> {
        letters::list(&self.conn, query).map_err(|error| self.failed(&error))
    }

    /// A page of all dead letters that match; see [`DeadLetters::page`](headworks_actors::DeadLetters::page).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letter_page(&self, query: &DeadLetterQuery, after: u64) -> Result<DeadLetterPage, ReadError> {
        letters::page(&self.conn, query, after).map_err(|error| self.failed(&error))
    }

    /// How many dead letters match, whatever the query's limit is.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64, ReadError> {
        letters::count(&self.conn, query).map_err(|error| self.failed(&error))
    }

    /// The dead letter with this id, if there is one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>, ReadError> {
        letters::get(&self.conn, id).map_err(|error| self.failed(&error))
    }

    /// What is held of every tenant, at one moment, for an audit: events and malformed frames, each of one opening or of
    /// all of them. Counts every row and reads every batch in a segment: it takes as long as reading all files.
    ///
    /// # Errors
    /// The database cannot be read. A batch in a segment that is not as it was stored counts as missing.
    pub fn holdings(&self, events: Option<Opening>, frames: Option<Opening>) -> Result<Holdings, ReadError> {
        let segments = SegmentFiles::of(&self.path);
        holdings::read(&self.conn, segments, events, frames).map_err(|error| self.failed(&error))
    }

    /// The bodies of the tenant's events, in the order they were stored; all of them at once, in memory.
    ///
    /// # Errors
    /// The database cannot be read, or a batch in a segment is not as it was stored.
    pub fn bodies(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, ReadError> {
        let (mut cursor, mut bodies) = (self.cursor(), vec![]);
        while self.peek(&mut cursor, tenant, Span::ALL)?.is_some() {
            self.read_next(&mut cursor, &mut |event| bodies.push(event.body.to_vec()))?;
        }
        Ok(bodies)
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        from_row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        let read =
            move || self.conn.prepare_cached(sql)?.query_map(values, &from_row)?.collect::<rusqlite::Result<Vec<T>>>();
        read().map_err(|error| self.failed(&error))
    }

    pub(super) fn failed(&self, error: &rusqlite::Error) -> ReadError {
        ReadError::new(&self.path, error)
    }
}
