//! A daemon whose tenants spill while the store is away: nobody waits, memory stays flat, and after a kill everything is stored once
//! and in order.

use crate::rig::{Place, Process, sorted};

/// The events that lie in the journal alone, and all that are in flight.
fn in_flight(place: &Place, tenant: &str) -> (u64, u64) {
    let told = place.json(&["explain", tenant, "--data", "data", "--json"]);
    // What is not there is not what is expected either.
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    (number(&told["backlog"]["in_journal"]), number(&told["counters"]["in_flight"]))
}

#[test]
fn what_is_spilled_while_the_store_is_away_survives_a_kill_and_is_stored_once_and_in_order() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "100ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__OVERFLOW__WHEN_FULL", "spill")
        .env("HEADWORKS__TENANTS__DEFAULTS__OVERFLOW__MAX_IN_FLIGHT", "256KiB");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens().to_string();
    let before = place.write("before", place.generated(&["--events", "400", "--tenants", "2", "--seed", "1"]));
    place.run(&["send", "--to", &to, "before"]).succeeded();
    place.until("SELECT count(*) FROM events", 400);
    let memory_before = daemon.memory();

    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let offered = place.generated(&["--events", "60000", "--tenants", "2", "--bytes", "2000", "--seed", "2"]);
    assert!(offered.len() >= 112 << 20, "{}", offered.len());
    place.write("offered", &offered);
    // It ends once all is on disk, and does not wait for the store.
    place.run(&["send", "--to", &to, "--ack", "journaled", "offered"]).succeeded();
    let (good, _) = sorted(&offered);
    for (tenant, bodies) in &good {
        let (in_journal, in_flight) = in_flight(&place, tenant);
        assert_eq!(in_flight, bodies.len() as u64, "{tenant}");
        assert!(in_journal > in_flight / 2, "{tenant}: {in_journal} of {in_flight}");
    }
    let grown = daemon.memory().saturating_sub(memory_before);
    // What is on its way to a slow disk is bounded, too; about a third of what was offered.
    assert!(grown < 40 << 20, "memory grew by {} KiB", grown >> 10);
    daemon.kill();
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);

    let mut daemon = Process::spawn(&mut command);
    daemon.listens();
    place.until("SELECT count(*) FROM events", 60_400);
    let said = String::from_utf8(place.run(&["log", "--data", "data"]).succeeded().out).unwrap();
    assert!(said.contains("spilling") && said.contains("caught_up"), "{said}");
    daemon.terminated().succeeded();
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
    let all = [std::fs::read(before).unwrap(), offered].concat();
    assert!(place.stored() == sorted(&all).0, "every event once, in order");
}
