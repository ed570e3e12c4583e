//! The events of one tenant, batch by batch, whichever layout they are in.

use std::collections::VecDeque;

use headworks_actors::{TenantId, UnixMillis};
use rusqlite::{OptionalExtension, Row, params};

use super::segment::{Place, SegmentFiles};
use super::{ReadError, SqliteReader, letters};
use crate::store::events::{Span, StoredEvent};

/// Where somebody is who goes through a tenant's batches.
#[derive(Debug)]
pub(in crate::store) struct Cursor {
    /// Batches that were seen and not read.
    ids: VecDeque<i64>,
    /// Everything up to this one was seen.
    seen: i64,
    head: Option<Head>,
    segments: SegmentFiles,
}

/// A batch, by its row.
#[derive(Debug)]
struct Head {
    batch_id: i64,
    id: String,
    rows: (i64, i64),
    arrived: (i64, i64),
    hash: u64,
    place: Option<Place>,
}

const HEAD: &str =
    "SELECT batch_id, id, first_rowid, last_rowid, first_arrived, last_arrived, content_hash, segment, offset, length
                    FROM batches WHERE batch_id = ?1";

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    let number = |at| row.get::<_, Option<i64>>(at).map(|number| number.map(i64::cast_unsigned));
    let place = match (number(7)?, number(8)?, number(9)?) {
        (Some(segment), Some(offset), Some(length)) => Some(Place { segment, offset, length }),
        _ => None,
    };
    Ok(Head {
        batch_id: row.get(0)?,
        id: row.get(1)?,
        rows: (row.get(2)?, row.get(3)?),
        arrived: (row.get(4)?, row.get(5)?),
        hash: row.get::<_, i64>(6)?.cast_unsigned(),
        place,
    })
}

impl SqliteReader {
    pub(in crate::store) fn cursor(&self) -> Cursor {
        let segments = SegmentFiles::of(&self.path);
        Cursor { ids: VecDeque::new(), seen: 0, head: None, segments }
    }

    pub(in crate::store) fn knows(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM batches WHERE tenant = ?1) OR EXISTS (SELECT 1 FROM dead_letters WHERE tenant = ?1)
                   OR EXISTS (SELECT 1 FROM purged_letters WHERE tenant = ?1)";
        self.conn.query_row(sql, [tenant.as_str()], |row| row.get(0)).map_err(|error| self.failed(&error))
    }

    /// Makes sure that the next batch is at hand, if there is one; when its first event arrived.
    pub(in crate::store) fn peek(
        &self,
        cursor: &mut Cursor,
        tenant: &TenantId,
        span: Span,
    ) -> Result<Option<i64>, ReadError> {
        if cursor.ids.is_empty() && cursor.head.is_none() {
            self.look(cursor, tenant).map_err(|error| self.failed(&error))?;
        }
        while cursor.head.is_none() {
            let Some(next) = cursor.ids.pop_front() else { return Ok(None) };
            // Where there is none, it was rolled back meanwhile.
            cursor.head = self.head(next)?.filter(|head| span.meets(head.arrived));
        }
        Ok(cursor.head.as_ref().map(|head| head.arrived.0))
    }

    fn head(&self, batch: i64) -> Result<Option<Head>, ReadError> {
        let read = || self.conn.prepare_cached(HEAD)?.query_row([batch], head).optional();
        read().map_err(|error| self.failed(&error))
    }

    /// Takes down which batches came since. The first time the index by tenant finds them, later the order in which they came:
    /// numbers are given in the order of commits, and never twice.
    fn look(&self, cursor: &mut Cursor, tenant: &TenantId) -> rusqlite::Result<()> {
        let newest: Option<i64> =
            self.conn.prepare_cached("SELECT max(batch_id) FROM batches")?.query_row([], |row| row.get(0))?;
        let newest = newest.unwrap_or(0);
        if newest <= cursor.seen {
            return Ok(());
        }
        let sql = match cursor.seen {
            0 => {
                "SELECT batch_id FROM batches WHERE tenant = ?1 AND batch_id > ?2 AND batch_id <= ?3 ORDER BY +batch_id"
            }
            _ => {
                "SELECT batch_id FROM batches WHERE +tenant = ?1 AND batch_id > ?2 AND batch_id <= ?3 ORDER BY batch_id"
            }
        };
        let mut found = self.conn.prepare_cached(sql)?;
        let found = found.query_map(params![tenant.as_str(), cursor.seen, newest], |row| row.get(0))?;
        cursor.ids = found.collect::<rusqlite::Result<_>>()?;
        cursor.seen = newest;
        Ok(())
    }

    /// Visits the events of the batch at hand, and goes on to the next.
    pub(in crate::store) fn read_next(
        &self,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<(), ReadError> {
        let Some(head) = cursor.head.take() else { return Ok(()) };
        let Some(place) = head.place else {
            return self.read_rows(&head, visit).map_err(|error| self.failed(&error));
        };
        match cursor.segments.read(place, &head.id, head.hash) {
            Ok(batch) => {
                for (place, event) in (0..).zip(batch.events()) {
                    let (time, arrived, body) = (event.time, Some(event.arrived), event.body);
                    visit(StoredEvent { time, arrived, batch: &head.id, place, body });
                }
                Ok(())
            }
            // Rolled back meanwhile, and its segment may be gone.
            Err(_) if self.head(head.batch_id)?.is_none() => Ok(()),
            Err(why) => Err(why),
        }
    }

    fn read_rows(&self, head: &Head, visit: &mut dyn FnMut(StoredEvent<'_>)) -> rusqlite::Result<()> {
        let sql = "SELECT body, event_time, arrived_at, idx FROM events
                   WHERE event_id BETWEEN ?1 AND ?2 AND batch_id = ?3 ORDER BY event_id";
        let mut events = self.conn.prepare_cached(sql)?;
        let mut rows = events.query([head.rows.0, head.rows.1, head.batch_id])?;
        while let Some(row) = rows.next()? {
            visit(StoredEvent {
                time: row.get::<_, Option<i64>>(1)?.map(UnixMillis),
                arrived: row.get::<_, Option<i64>>(2)?.map(UnixMillis),
                batch: &head.id,
                place: row.get::<_, i64>(3)?.cast_unsigned(),
                body: letters::body_bytes(row, 0)?,
            });
        }
        Ok(())
    }
}
