use headworks_actors::{DeadLetterKind, Opening};
use rusqlite::{Connection, params};

use super::letters;
use crate::audit::Holdings;

/// The events of each tenant's batches: what the batches say, and the rows that are there. Events have no index but their
/// number, of which each batch has a range of its own: this reads every page of the table once.
const STORED: &str = "
    SELECT tenant, sum(events), sum((
        SELECT count(*) FROM events e WHERE e.event_id BETWEEN b.first_rowid AND b.last_rowid AND e.batch_id = b.batch_id
    ))
    FROM batches b WHERE id >= ?1 AND id < ?2 GROUP BY tenant";

const LETTERS: &str =
    "SELECT tenant, kind, count(*) FROM dead_letters WHERE id >= ?1 AND id < ?2 GROUP BY tenant, kind";

/// What is there, at one moment: of one opening, or of all of them.
pub(super) fn read(conn: &Connection, opening: Option<Opening>) -> rusqlite::Result<Holdings> {
    // The id of a batch begins with its opening, and that of a dead letter too. The sign after the slash is the zero.
    let (low, high) = match opening {
        Some(opening) => (format!("{opening}/"), format!("{opening}0")),
        None => (String::new(), char::MAX.to_string()),
    };
    let moment = conn.unchecked_transaction()?;
    let mut holdings = Holdings::default();
    let mut stored = moment.prepare_cached(STORED)?;
    let mut rows = stored.query(params![low, high])?;
    while let Some(row) = rows.next()? {
        let held = holdings.tenants.entry(letters::tenant(0, &row.get::<_, String>(0)?)?).or_default();
        held.events = row.get::<_, i64>(1)?.cast_unsigned();
        held.rows = row.get::<_, i64>(2)?.cast_unsigned();
    }
    let mut kept = moment.prepare_cached(LETTERS)?;
    let mut rows = kept.query(params![low, high])?;
    while let Some(row) = rows.next()? {
        let (tenant, kind): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let count = row.get::<_, i64>(2)?.cast_unsigned();
        match tenant {
            Some(tenant) if kind == DeadLetterKind::Event.as_str() => {
                holdings.tenants.entry(letters::tenant(0, &tenant)?).or_default().dead_letters += count;
            }
            _ => holdings.malformed += count,
        }
    }
    Ok(holdings)
}
