use headworks_actors::{DeadLetterKind, Opening};
use rusqlite::{Connection, params};

use super::erase::ERASED;
use super::letters;
use super::prune::PRUNED;
use super::segment::{Place, SegmentFiles};
use crate::audit::Holdings;

/// The events of each tenant's batches: what the batches say, and the rows that are there. Events have no index but their
/// number, of which each batch has a range of its own: this reads every page of the table once.
const STORED: &str = "
    SELECT tenant, sum(events), sum((
        SELECT count(*) FROM events e WHERE e.event_id BETWEEN b.first_rowid AND b.last_rowid AND e.batch_id = b.batch_id
    ))
    FROM batches b WHERE id >= ?1 AND id < ?2 GROUP BY tenant";

/// Batches that lie in segments, in the order in which they do.
const INDEXED: &str = "
    SELECT tenant, id, segment, offset, length, content_hash, events
    FROM batches WHERE segment IS NOT NULL AND id >= ?1 AND id < ?2 ORDER BY batch_id";

const LETTERS: &str = "
    SELECT tenant, count(*) FROM dead_letters WHERE kind = ?3 AND id >= ?1 AND id < ?2 GROUP BY tenant";

const MALFORMED: &str = "SELECT count(*) FROM dead_letters WHERE kind = ?3 AND id >= ?1 AND id < ?2";

/// Letters that were made at the door, by opening: how many are there, and the number of the last. Their ids are
/// `OPENING/KIND/NUMBER`; those of events that were given up later say which batch they were in.
const AT_DOOR: &str = "
    SELECT d.opening, d.letters, d.last, coalesce((SELECT sum(letters) FROM purged_letters p
                                                   WHERE p.opening = d.opening AND p.kind IN ('frame', 'event')), 0)
    FROM (SELECT substr(id, 1, instr(id, '/') - 1) AS opening, count(*) AS letters,
                 max(CAST(substr(id, instr(id, '/') + length(kind) + 2) AS INTEGER)) AS last
          FROM dead_letters WHERE batch_id IS NULL AND NOT (id >= ?1 AND id < ?2) GROUP BY 1) d";

const PURGED: &str = "
    SELECT tenant, sum(letters) FROM purged_letters WHERE kind = ?3 AND opening || '/' >= ?1 AND opening || '/' < ?2 GROUP BY tenant";

/// What is there, at one moment: events and frames, each of one opening or of all of them.
pub(super) fn read(
    conn: &Connection,
    mut segments: SegmentFiles,
    events: Option<Opening>,
    frames: Option<Opening>,
) -> rusqlite::Result<Holdings> {
    let moment = conn.unchecked_transaction()?;
    let (low, high) = range(events);
    let mut holdings = Holdings::default();
    let mut stored = moment.prepare_cached(STORED)?;
    let mut rows = stored.query(params![low, high])?;
    while let Some(row) = rows.next()? {
        let held = holdings.tenants.entry(letters::tenant(0, &row.get::<_, String>(0)?)?).or_default();
        held.events = row.get::<_, i64>(1)?.cast_unsigned();
        held.rows = row.get::<_, i64>(2)?.cast_unsigned();
    }
    let mut indexed = moment.prepare_cached(INDEXED)?;
    let mut rows = indexed.query(params![low, high])?;
    while let Some(row) = rows.next()? {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let place = Place { segment: number(2)?, offset: number(3)?, length: number(4)? };
        let held = holdings.tenants.entry(letters::tenant(0, &row.get::<_, String>(0)?)?).or_default();
        match segments.read(place, row.get_ref(1)?.as_str()?, number(5)?) {
            Ok(batch) => held.rows += batch.events().count() as u64,
            Err(why) => {
                held.damaged += number(6)?;
                if holdings.damage.len() < Holdings::DAMAGE {
                    holdings.damage.push(why.to_string());
                }
            }
        }
    }
    let mut kept = moment.prepare_cached(LETTERS)?;
    let mut rows = kept.query(params![low, high, DeadLetterKind::Event.as_str()])?;
    while let Some(row) = rows.next()? {
        let tenant = letters::tenant(0, &row.get::<_, String>(0)?)?;
        holdings.tenants.entry(tenant).or_default().dead_letters = row.get::<_, i64>(1)?.cast_unsigned();
    }
    let mut purged = moment.prepare_cached(PURGED)?;
    let mut rows = purged.query(params![low, high, DeadLetterKind::Event.as_str()])?;
    while let Some(row) = rows.next()? {
        let tenant = letters::tenant(0, &row.get::<_, String>(0)?)?;
        holdings.tenants.entry(tenant).or_default().purged = row.get::<_, i64>(1)?.cast_unsigned();
    }
    drop(rows);
    // They were stored, and are not to be there.
    for (why, gone) in [(ERASED, &mut holdings.erased), (PRUNED, &mut holdings.pruned)] {
        let mut rows = purged.query(params![low, high, why])?;
        while let Some(row) = rows.next()? {
            let tenant = letters::tenant(0, &row.get::<_, String>(0)?)?;
            let events = row.get::<_, i64>(1)?.cast_unsigned();
            let held = holdings.tenants.entry(tenant.clone()).or_default();
            held.events += events;
            held.rows += events;
            gone.insert(tenant, events);
        }
    }
    let (low, high) = range(frames);
    let malformed = params![low, high, DeadLetterKind::Frame.as_str()];
    holdings.malformed = moment.query_row(MALFORMED, malformed, |row| row.get::<_, i64>(0))?.cast_unsigned();
    let mut rows = purged.query(params![low, high, DeadLetterKind::Frame.as_str()])?;
    while let Some(row) = rows.next()? {
        holdings.malformed_purged += row.get::<_, i64>(1)?.cast_unsigned();
    }
    let mut at_door = moment.prepare_cached(AT_DOOR)?;
    let mut rows = match frames {
        Some(_) => at_door.query(params![low, high])?,
        None => at_door.query(params!["", ""])?,
    };
    while let Some(row) = rows.next()? {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        // Events of batches may be among those that were purged: that can only hide that one is missing.
        let (last, held) = (number(2)?, number(1)? + number(3)?);
        holdings.at_door_before += last;
        holdings.at_door_missing += last.saturating_sub(held);
    }
    if frames.is_some() {
        let (low, high) = range(None);
        let all = params![low, high, DeadLetterKind::Frame.as_str()];
        let all = moment.query_row(MALFORMED, all, |row| row.get::<_, i64>(0))?.cast_unsigned();
        holdings.malformed_before = all.saturating_sub(holdings.malformed);
    }
    Ok(holdings)
}

/// The ids of batches and of dead letters that begin with the opening: all of them do with theirs, and a slash. What
/// follows the slash is the zero.
fn range(opening: Option<Opening>) -> (String, String) {
    match opening {
        Some(opening) => (format!("{opening}/"), format!("{opening}0")),
        None => (String::new(), char::MAX.to_string()),
    }
}
