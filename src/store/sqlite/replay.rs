//! Dead letters on their way back.

use std::sync::Arc;

use headworks_actors::{DeadLetter, ReplayAnswer, StreamId};
use rusqlite::{Connection, params};

use super::letters::{self, COLUMNS, WIDTH};

/// How many letters are handed out at once.
const MOST: usize = 512;

/// Gives letters their positions, in the order of their places.
pub(super) fn begin(conn: &Connection, run: &StreamId, ids: &[Arc<str>]) -> rusqlite::Result<u64> {
    let ids = serde_json::Value::from_iter(ids.iter().map(|id| &**id)).to_string();
    let begin = "UPDATE dead_letters SET replay = ?1, replay_position = new.position
                 FROM (SELECT place, row_number() OVER (ORDER BY place) AS position FROM dead_letters
                       WHERE replay IS NULL AND id IN (SELECT value FROM json_each(?2))) AS new
                 WHERE dead_letters.place = new.place";
    conn.prepare_cached(begin)?.execute(params![run.as_str(), ids]).map(|letters| letters as u64)
}

/// Every run with letters that have no answer.
pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<StreamId>> {
    let mut runs =
        conn.prepare_cached("SELECT DISTINCT replay FROM dead_letters WHERE replay IS NOT NULL ORDER BY 1")?;
    let runs =
        runs.query_map([], |row| letters::parsed(0, &row.get::<_, String>(0)?, "replay", |id| StreamId::new(id).ok()))?;
    runs.collect()
}

/// Letters of a run behind a position.
pub(super) fn pending(conn: &Connection, run: &StreamId, after: u64) -> rusqlite::Result<Vec<(u64, DeadLetter)>> {
    let sql = format!(
        "SELECT {COLUMNS}, replay_position FROM dead_letters WHERE replay = ?1 AND replay_position > ?2 ORDER BY replay_position"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![run.as_str(), i64::try_from(after).unwrap_or(i64::MAX)])?;
    let (mut found, mut bytes) = (vec![], 0);
    while let Some(row) = rows.next()?.filter(|_| found.len() < MOST && bytes < letters::PAGE_BYTES) {
        let letter = letters::from_row(row)?;
        bytes += letters::cost(&letter);
        found.push((row.get::<_, i64>(WIDTH)?.cast_unsigned(), letter));
    }
    Ok(found)
}

/// Letters leave their run: those that came back say when.
pub(super) fn answered(conn: &Connection, run: &StreamId, answers: &[ReplayAnswer]) -> rusqlite::Result<()> {
    let mut leave = conn.prepare_cached(
        "UPDATE dead_letters SET replay = NULL, replay_position = NULL, replayed_at = coalesce(?4, replayed_at)
         WHERE replay = ?1 AND replay_position BETWEEN ?2 AND ?3",
    )?;
    let signed = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
    for ReplayAnswer { positions, replayed_at } in answers {
        let (from, to) = (signed(*positions.start()), signed(*positions.end()));
        leave.execute(params![run.as_str(), from, to, replayed_at.map(|at| at.0)])?;
    }
    Ok(())
}
