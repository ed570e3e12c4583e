//! A data directory as each earlier version of the schema left it is taken over as it is; one of a later version is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use rusqlite::Connection;

use crate::rig::{Place, Process, lines, send};

/// What makes version 3 of what is version 4: takes away what that added.
const TO_3: &str = "
DROP TRIGGER batch_counted;
DROP TRIGGER batch_gone;
DROP INDEX batches_in_order;
DROP TABLE stored_totals;
DROP TABLE erasing;
PRAGMA user_version = 3;
";

const TO_2: &str = "
DROP VIEW stored_batches;
DROP VIEW stored_segments;
DROP TRIGGER batch_indexed;
DROP TRIGGER batch_removed;
DROP TABLE segments;
DROP TABLE segments_id;
ALTER TABLE batches DROP COLUMN first_time;
ALTER TABLE batches DROP COLUMN last_time;
ALTER TABLE batches DROP COLUMN segment;
ALTER TABLE batches DROP COLUMN offset;
ALTER TABLE batches DROP COLUMN length;
PRAGMA user_version = 2;
";

const TO_1: &str = "
DROP INDEX dead_letters_by_replay;
DROP TABLE dead_letter_bytes;
DROP TABLE purged_letters;
ALTER TABLE dead_letters DROP COLUMN event_time;
ALTER TABLE dead_letters DROP COLUMN edited_at;
ALTER TABLE dead_letters DROP COLUMN original_body;
ALTER TABLE dead_letters DROP COLUMN replayed_at;
ALTER TABLE dead_letters DROP COLUMN replay;
ALTER TABLE dead_letters DROP COLUMN replay_position;
PRAGMA user_version = 1;
";

/// The tables, indexes, triggers and views of the database, without their comments and spaces, and without the columns of one table,
/// of which those that were added later may stand elsewhere.
fn schema(conn: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut found = conn.prepare(sql).unwrap();
    let found = found.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
    let plain = |sql: String| {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
        lines.flat_map(str::split_whitespace).collect::<String>()
    };
    found.map(|row| row.map(|(name, sql)| (name, plain(sql))).unwrap()).collect()
}

/// Two tenants, of which one has a further store, plain files, and dead letters; all settled.
fn filled(place: &Place, layout: &str) {
    let (daemon, address) = started(place, layout);
    send(address, &[lines("acme", 0..100), lines("zen", 0..50), b"no JSON\n".to_vec()].concat());
    place.until("SELECT count(*) FROM dead_letters", 1);
    daemon.terminated().succeeded();
}

fn started(place: &Place, layout: &str) -> (Process, SocketAddr) {
    let mut command = place.daemon();
    command.env("HEADWORKS__STORE__LAYOUT", layout);
    command.env("HEADWORKS__STORES__ARCHIVE__TYPE", "files");
    command.env("HEADWORKS__TENANTS__STORES_BY_ID__ZEN", "[\"store\", \"archive\"]");
    let mut daemon = Process::spawn(&mut command);
    let address = daemon.listens();
    (daemon, address)
}

#[test]
fn a_directory_of_every_earlier_schema_is_taken_over_with_all_that_is_in_it() {
    for (version, steps) in [(4, &[][..]), (3, &[TO_3]), (2, &[TO_3, TO_2]), (1, &[TO_3, TO_2, TO_1])] {
        for layout in ["rows", "index"] {
            if layout == "index" && version < 3 {
                continue;
            }
            let place = Place::new();
            filled(&place, layout);
            let (stored, today) = (place.stored(), schema(&place.database()));
            steps.iter().for_each(|step| place.database().execute_batch(step).unwrap());
            let version_of = || place.number("PRAGMA user_version");
            assert_eq!(version_of(), version);

            // Commands read it as it is.
            let audit = place.run(&["audit", "--data", "data"]);
            assert_eq!(audit.code, Some(0), "version {version}: {}{}", audit.text(), audit.err);
            let query = place.run(&["query", "acme", "--data", "data"]).succeeded().out;
            assert_eq!(query, lines("acme", 0..100));
            let letters = place.run(&["dead-letters", "list", "--data", "data"]).succeeded().text();
            assert!(letters.contains("bad_json"), "{letters}");
            assert_eq!(version_of(), version, "a reader changes nothing");

            // The daemon brings it to today's.
            let (daemon, address) = started(&place, layout);
            assert_eq!(version_of(), 4);
            send(address, &[lines("acme", 100..200), lines("zen", 50..60)].concat());
            daemon.terminated().succeeded();
            let found = place.stored();
            assert_eq!(
                found["acme"].concat(),
                lines("acme", 0..200).split(|b| *b == b'\n').collect::<Vec<_>>().concat()
            );
            assert!(found["zen"].starts_with(&stored["zen"]) && found["zen"].len() == 60, "version {version}");
            assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 1);
            place.run(&["audit", "--data", "data"]).succeeded();
            // Nothing is different from a database that was made today, but for the order of what was dropped above.
            assert_eq!(schema(&place.database()), today, "version {version}");
            let totals = "SELECT count(*) FROM stored_totals t WHERE events =
                (SELECT sum(events) FROM batches b WHERE b.tenant = t.tenant) AND bytes =
                (SELECT sum(body_bytes) FROM batches b WHERE b.tenant = t.tenant)";
            assert_eq!(place.number(totals), 2);
        }
    }
}

#[test]
fn what_a_later_version_wrote_is_refused_and_left_as_it_is() {
    let place = Place::new();
    filled(&place, "rows");
    place.database().pragma_update(None, "user_version", 5).unwrap();
    let refused = place.run(&["run", "--data", "data"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("has schema version 5, but this headworks knows only 4"), "{}", refused.err);
    assert_eq!(place.number("PRAGMA user_version"), 5);
    place.database().pragma_update(None, "user_version", 4).unwrap();

    // The index of a store on files, which has had two versions so far: the first had one events file a tenant.
    let index = place.data().join("stores/archive/events/zen/batches.ndjson");
    let text = std::fs::read_to_string(&index).unwrap();
    assert!(text.starts_with("{\"op\":\"head\",\"version\":2,"), "{text}");
    let audit = place.run(&["audit", "--data", "data"]);
    assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
}
