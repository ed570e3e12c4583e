//! A tenant whose events are given up is called the same wherever somebody looks, and so is a daemon that is not ready.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use crate::rig::{Place, Process, lines, send};

const REFUSING: &str = "
    CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.tenant = 'acme'
    BEGIN SELECT RAISE(ABORT, 'no such row is wanted'); END";

/// What each command says of a tenant.
fn statuses(place: &Place, tenant: &str) -> [String; 3] {
    let listed = place.json(&["tenants", "--data", "data", "--json"]);
    let row = listed.as_array().unwrap().iter().find(|row| row["tenant"] == tenant).unwrap();
    let explained = place.json(&["explain", tenant, "--data", "data", "--json"]);
    let top = place.json(&["top", "--data", "data", "--json"]);
    let line = top["tenants"].as_array().unwrap().iter().find(|row| row["tenant"] == tenant).unwrap();
    [&row["live"]["status"], &explained["status"], &line["status"]]
        .map(|status: &Value| status.as_str().unwrap().to_owned())
}

#[test]
fn a_tenant_whose_events_become_dead_letters_is_failing_in_every_command_and_the_daemon_is_ready_all_the_same() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "50ms"));
    let to = daemon.listens();
    send(to, &lines("zen", 0..1));
    place.until("SELECT count(*) FROM events", 1);
    assert_eq!(place.run(&["ready", "--data", "data"]).succeeded().text(), "ready\n");
    place.database().execute_batch(REFUSING).unwrap();
    send(to, &[lines("acme", 0..3), lines("zen", 1..2)].concat());
    place.until("SELECT count(*) FROM dead_letters", 3);
    place.until("SELECT count(*) FROM events", 2);
    // Once the batch is settled: its letters were kept a moment before.
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    assert_eq!(audit["holds"], true, "{audit}");
    assert_eq!(statuses(&place, "acme"), ["failing"; 3]);
    assert_eq!(statuses(&place, "zen")[0], "active");
    let ready = place.run(&["ready", "--data", "data"]).succeeded().text();
    let note = "note: events of tenant acme were given up within the last minute; `headworks explain acme` says why\n";
    assert_eq!(ready, format!("ready\n{note}"));
    let told = place.run(&["explain", "acme", "--data", "data"]).succeeded().text();
    assert!(told.contains("failing, events of it were given up") && told.contains("headworks dead-letters"), "{told}");
    daemon.terminated().succeeded();
}

#[test]
fn top_and_ready_say_the_same_of_a_daemon_whose_store_is_away() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms").env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "50ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    send(to, &lines("acme", 0..1));
    place.until("SELECT count(*) FROM events", 1);
    assert_eq!(place.json(&["top", "--data", "data", "--json"])["trouble"], Value::Null);
    let lock = place.database();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    send(to, &lines("acme", 1..2));
    daemon.says_in("what", "parked");
    let top = place.json(&["top", "--data", "data", "--json"]);
    let why = top["trouble"].as_str().unwrap().to_owned();
    assert!(why.starts_with("a store is away: tenant acme waits for it"), "{top}");
    let ready = place.run(&["ready", "--data", "data"]).with(1).text();
    assert!(ready.contains(&format!("not ready: stores: {why}")), "{ready}");
    lock.execute_batch("ROLLBACK").unwrap();
    daemon.terminated().succeeded();
}
