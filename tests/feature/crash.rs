//! The process is killed: what is in the database is whole, and a new one goes on with it.

use std::io::Write;

use crate::rig::{Place, Process, assert_no_gap, connect, lines, send, sorted};

/// Batches whose rows are not exactly those they say.
const PARTIAL: &str = "SELECT count(*) FROM batches b WHERE b.events !=
    (SELECT count(DISTINCT e.idx) FROM events e WHERE e.batch_id = b.batch_id)
    OR b.events != (SELECT count(*) FROM events e WHERE e.batch_id = b.batch_id)";
const ORPHANS: &str = "SELECT count(*) FROM events WHERE batch_id NOT IN (SELECT batch_id FROM batches)";

#[test]
fn after_a_kill_in_mid_stream_there_are_whole_batches_without_a_gap_and_new_events_are_stored() {
    let place = Place::new();
    // Small batches: many chances to be torn.
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "20");
    let input = place.generated(&["--events", "20000", "--tenants", "4"]);

    let mut daemon = Process::spawn(&mut command);
    let connection = connect(daemon.listens());
    std::thread::scope(|scope| {
        // The same over and over, until the daemon is gone.
        scope.spawn(|| while (&connection).write_all(&input).is_ok() {});
        place.until("SELECT count(*) FROM batches", 50);
        daemon.kill();
    });
    let survived = place.stored();
    assert_no_gap(&sorted(&input).0, &survived);

    let mut daemon = Process::spawn(&mut command);
    send(daemon.listens(), &lines("after", 0..100));
    daemon.terminated().succeeded();
    let mut stored = place.stored();
    assert_eq!(stored.remove("after"), sorted(&lines("after", 0..100)).0.remove("after"));
    // What was accepted and not stored yet follows, as it is in the journal.
    for (tenant, bodies) in &survived {
        assert!(stored[tenant].starts_with(bodies), "{tenant} is not as it was");
    }
    assert_no_gap(&sorted(&input).0, &stored);
    assert_eq!((place.number(PARTIAL), place.number(ORPHANS)), (0, 0));
    assert_eq!(place.number("SELECT count(*) - count(DISTINCT id) FROM batches"), 0);
    let integrity: String = place.database().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}
