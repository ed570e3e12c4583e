//! `headworks audit`: the sums, on a live directory and on one at rest, and what it says when somebody's hand was in it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;

use serde_json::Value;

use crate::rig::{Place, Process, connect, lines, send};

const LETTERS: &str = "SELECT count(*) FROM dead_letters";

/// The daemon with 100 events of one tenant stored, 50 of another, and 4 bad frames kept.
fn busy(place: &Place) -> Process {
    let mut command = place.daemon();
    command.env("HEADWORKS__JOURNAL__TYPE", "memory");
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "10");
    command.env("HEADWORKS__TENANTS__MUTE", "[\"quiet\"]");
    let mut daemon = Process::spawn(&mut command);
    let bad = b"no JSON\n".repeat(4);
    let input = [lines("acme", 0..100), bad, lines("b", 0..50), lines("quiet", 0..7)].concat();
    send(daemon.listens(), &input);
    place.until("SELECT count(*) FROM events", 150);
    place.until(LETTERS, 4);
    daemon
}

/// The audit as JSON, which ends with `code`.
#[track_caller]
fn audited(place: &Place, code: i32) -> Value {
    serde_json::from_slice(&place.run(&["audit", "--data", "data", "--json"]).with(code).out).unwrap()
}

#[track_caller]
fn by_hand(place: &Place, sql: &str) {
    assert!(place.database().execute(sql, []).unwrap() > 0);
}

/// Tenant, what was compared and by how much it differs, for each difference.
fn differences(audit: &Value) -> Vec<(Option<&str>, &str, i64)> {
    let all = audit["differences"].as_array().unwrap().iter();
    all.map(|d| (d["tenant"].as_str(), d["check"].as_str().unwrap(), d["difference"].as_i64().unwrap())).collect()
}

#[test]
fn the_sums_hold_on_a_live_directory_each_number_from_where_it_is_on_record() {
    let place = Place::new();
    let daemon = busy(&place);
    let audit = audited(&place, 0);
    assert_eq!(
        (&audit["scope"], &audit["holds"], &audit["differences"]),
        (&"run".into(), &true.into(), &Value::Array(vec![]))
    );
    let acme = &audit["tenants"][0];
    assert_eq!(acme["tenant"], "acme");
    assert_eq!(
        (&acme["events"]["accepted"], &acme["events"]["stored"], &acme["held"]["rows"]),
        (&100.into(), &100.into(), &100.into())
    );
    assert_eq!(
        (&audit["tenants"][2]["frames"]["received"], &audit["tenants"][2]["frames"]["muted"]),
        (&7.into(), &7.into())
    );
    let frames = &audit["all"]["frames"];
    assert_eq!((&frames["received"], &frames["accepted"], &frames["malformed"]), (&161.into(), &150.into(), &4.into()));
    assert_eq!((&audit["malformed"]["counted"], &audit["malformed"]["kept"]), (&4.into(), &4.into()));
    let text = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(text.ends_with("\nBoth sums hold, of all that came since the daemon was started.\n"), "{text}");
    daemon.terminated().succeeded();
}

#[test]
fn rows_deleted_by_hand_are_missed_on_a_live_directory_with_1_and_the_difference() {
    let place = Place::new();
    let daemon = busy(&place);
    by_hand(&place, "DELETE FROM events WHERE event_id IN (SELECT event_id FROM events WHERE tenant = 'acme' LIMIT 3)");
    let audit = audited(&place, 1);
    assert_eq!(differences(&audit), [(Some("acme"), "stored", -3)]);
    let holds: Vec<_> =
        audit["tenants"].as_array().unwrap().iter().map(|row| row["holds"].as_bool().unwrap()).collect();
    assert_eq!(
        (holds, &audit["holds"], &audit["all"]["holds"]),
        (vec![false, true, true], &false.into(), &false.into())
    );
    let text = place.run(&["audit", "--data", "data"]).with(1).text();
    let says = "\nacme: the store holds 3 events fewer than the journal says were stored: 3 rows were deleted from its \
                batches (97, not 100)\n";
    assert!(text.contains(says) && text.ends_with("\nIt does NOT add up.\n"), "{text}");
    daemon.terminated().succeeded();
}

#[test]
fn whole_batches_and_dead_letters_deleted_by_hand_are_missed_too() {
    let place = Place::new();
    let daemon = busy(&place);
    by_hand(&place, "DELETE FROM batches WHERE batch_id = (SELECT max(batch_id) FROM batches WHERE tenant = 'b')");
    by_hand(&place, "DELETE FROM dead_letters WHERE place = 1");
    let audit = audited(&place, 1);
    let lost = place.number("SELECT sum(events) FROM batches WHERE tenant = 'b'") - 50;
    assert_eq!(differences(&audit), [(Some("b"), "stored", lost), (None, "malformed", -1)]);
    daemon.terminated().succeeded();
}

#[test]
fn what_came_before_the_daemon_was_started_is_not_counted_where_its_journal_is_in_memory() {
    let place = Place::new();
    busy(&place).terminated().succeeded();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__JOURNAL__TYPE", "memory"));
    send(daemon.listens(), &lines("acme", 0..5));
    place.until("SELECT count(*) FROM events", 155);
    let audit = audited(&place, 0);
    assert_eq!((&audit["all"]["events"]["stored"], &audit["all"]["held"]["rows"]), (&5.into(), &5.into()));
    assert!(audit["unchecked"][0].as_str().unwrap().starts_with("what came before this start"), "{audit}");
    daemon.terminated().succeeded();
}

#[test]
fn at_rest_without_a_durable_journal_the_store_is_checked_against_itself() {
    let place = Place::new();
    busy(&place).terminated().succeeded();
    let audit = audited(&place, 0);
    assert_eq!((&audit["scope"], &audit["all"]["events"]), (&"store".into(), &Value::Null));
    assert_eq!((&audit["all"]["held"]["rows"], &audit["malformed"]["kept"]), (&150.into(), &4.into()));
    assert!(audit["unchecked"][0].as_str().unwrap().contains("no record is left of what was accepted"), "{audit}");
    by_hand(&place, "DELETE FROM events WHERE tenant = 'b'");
    assert_eq!(differences(&audited(&place, 1)), [(Some("b"), "rows", -50)]);
}

#[test]
fn in_mid_stream_the_sums_hold_at_every_look() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "20");
    let mut daemon = Process::spawn(&mut command);
    let connection = connect(daemon.listens());
    let input = place.generated(&["--events", "20000", "--tenants", "4", "--bad", "1"]);
    std::thread::scope(|scope| {
        // The same over and over, until the daemon is gone.
        scope.spawn(|| while (&connection).write_all(&input).is_ok() {});
        place.until("SELECT count(*) FROM batches", 50);
        for _ in 0..5 {
            let audit = place.run(&["audit", "--data", "data"]);
            assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
        }
        daemon.terminated().succeeded();
    });
}

#[test]
fn frames_that_wait_at_the_door_for_their_tenant_s_rate_are_no_difference() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "1");
    command.env("HEADWORKS__TENANTS__DEFAULTS__THROTTLE__EVENTS_PER_SECOND", "1");
    command.env("HEADWORKS__TENANTS__DEFAULTS__THROTTLE__BURST_EVENTS", "5");
    let mut daemon = Process::spawn(&mut command);
    let mut sender = connect(daemon.listens());
    sender.write_all(&lines("acme", 0..200)).unwrap();
    let began = std::time::Instant::now();
    loop {
        let audit = audited(&place, 0);
        let waiting = audit["waiting"].as_u64().unwrap();
        if waiting > 0 && audit["all"]["events"]["in_flight"] == 0 {
            let frames = &audit["tenants"][0]["frames"];
            assert_eq!(frames["received"].as_u64().unwrap(), frames["accepted"].as_u64().unwrap() + waiting);
            break;
        }
        assert!(began.elapsed() < crate::rig::DEADLINE, "{audit}");
    }
    let text = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(
        text.contains(" wait at the door, as for their tenant's rate") && text.ends_with("Both sums hold.\n"),
        "{text}"
    );
    daemon.kill();
}

#[test]
fn malformed_frames_are_accounted_for_over_kills_and_restarts() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__DAEMON__THREADS", "2");
    let input = [b"no JSON\n".repeat(50), lines("acme", 0..50)].concat();
    let mut kept = 0;
    for _ in 0..4 {
        let mut daemon = Process::spawn(&mut command);
        let address = daemon.listens();
        let connections = [connect(address), connect(address)];
        std::thread::scope(|scope| {
            for mut connection in &connections {
                let input = &input;
                // The same over and over, until the daemon is gone.
                scope.spawn(move || while connection.write_all(input).is_ok() {});
            }
            place.until(LETTERS, kept + 300);
            audited(&place, 0);
            daemon.kill();
        });
        audited(&place, 0);
        kept = place.number(LETTERS);
    }
    // Stopped, it has kept all.
    let mut daemon = Process::spawn(&mut command);
    send(daemon.listens(), &input);
    daemon.terminated().succeeded();
    assert_eq!(place.number(LETTERS), kept + 50);

    let mut daemon = Process::spawn(&mut command);
    daemon.listens();
    let audit = audited(&place, 0);
    let told = format!("{} of which are among the dead letters", kept + 50);
    assert!(audit["unchecked"][0].as_str().unwrap().contains(&told), "{audit}");
    let first: String =
        place.database().query_row("SELECT id FROM dead_letters ORDER BY place LIMIT 1", [], |row| row.get(0)).unwrap();
    place.run(&["dead-letters", "purge", &first, "--yes", "--data", "data"]).succeeded();
    audited(&place, 0);
    by_hand(&place, "DELETE FROM dead_letters WHERE place IN (SELECT place FROM dead_letters ORDER BY place LIMIT 3)");
    assert_eq!(differences(&audited(&place, 1)), [(None, "numbered", -3)]);
    daemon.terminated().succeeded();
    assert_eq!(differences(&audited(&place, 1)), [(None, "numbered", -3)]);
}
