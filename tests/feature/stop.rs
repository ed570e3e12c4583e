//! How the daemon ends: it stores what it accepted, or says what it could not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::Command;

use rusqlite::Connection;

use crate::rig::disk::Fault;
use crate::rig::{Place, Process, assert_no_gap, connect, lines, send, sorted};

/// A daemon whose windows nothing but a drain will close.
fn patient(place: &Place) -> Command {
    let mut daemon = place.daemon();
    daemon
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "100000");
    daemon
}

/// Keeps everybody else from writing, until it is dropped.
fn locked(place: &Place) -> Connection {
    let database = place.database();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    database
}

#[test]
fn sigterm_stores_the_windows_that_are_open() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut patient(&place));
    let input = place.generated(&["--events", "1000", "--tenants", "4"]);
    send(daemon.listens(), &input);
    assert_eq!(place.number("SELECT count(*) FROM events"), 0, "nothing but the drain stores these");
    let ended = daemon.terminated().succeeded();
    assert!(ended.err.contains("\"complete\":true"), "{}", ended.err);
    assert_eq!(place.stored(), sorted(&input).0);
    assert_eq!(place.number("SELECT count(*) FROM batches"), 4);
}

#[test]
fn ctrl_c_ends_it_in_the_same_way() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut patient(&place));
    send(daemon.listens(), &lines("acme", 0..10));
    daemon.signal("INT");
    daemon.ended().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..10)).0);
}

#[test]
fn sigterm_in_mid_stream_stores_a_beginning_of_each_tenants_events_without_a_gap() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let connection = connect(daemon.listens());
    let input = place.generated(&["--events", "20000", "--tenants", "4"]);
    let ended = std::thread::scope(|scope| {
        // The same over and over, until the daemon is gone.
        scope.spawn(|| while (&connection).write_all(&input).is_ok() {});
        place.until("SELECT count(*) FROM events", 1);
        daemon.terminated()
    });
    ended.succeeded();
    assert_no_gap(&sorted(&input).0, &place.stored());
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end_and_the_line_it_began_is_kept_as_truncated() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let connection = connect(daemon.listens());
    (&connection).write_all(b"{\"tenant\":\"acme\"}\n{\"tenant\":").unwrap();
    place.until("SELECT count(*) FROM events", 1);
    daemon.terminated().succeeded();
    let letters = place.json(&["dead-letters", "list", "--data", "data", "--json"]);
    assert_eq!((&letters[0]["reason"], &letters[0]["body"]), (&"truncated".into(), &"{\"tenant\":".into()));
    drop(connection);
}

#[test]
fn sigterm_ends_an_input_before_its_end_and_stores_what_was_read() {
    let place = Place::new();
    let mut command = place.command(&["run", "--data", "data", "--input", "-", "--json"]);
    let mut run = Process::spawn(&mut command);
    run.stdin(&lines("acme", 0..10));
    place.until("SELECT count(*) FROM events", 10);
    let ended = run.terminated().with(1);
    assert!(ended.err.contains("stopped by SIGTERM before the end of stdin"), "{}", ended.err);
    assert_eq!(place.stored(), sorted(&lines("acme", 0..10)).0);
}

#[test]
fn a_drain_that_cannot_store_ends_at_its_deadline_with_1_and_says_what_is_in_flight() {
    let place = Place::new();
    let mut daemon = Process::spawn(
        patient(&place).env("HEADWORKS__DAEMON__DRAIN_DEADLINE", "1s").env("HEADWORKS__STORE__BUSY_TIMEOUT", "50ms"),
    );
    send(daemon.listens(), &lines("acme", 0..10));
    let lock = locked(&place);
    daemon.signal("TERM");
    let told = daemon.says("not stored before the deadline");
    assert_eq!((&told["tenant"], &told["in_flight"]), (&"acme".into(), &10.into()));
    assert_eq!(daemon.says("drained")["complete"], false);
    let left = daemon.says("what is in flight stays in the journal, and the next start goes on with it");
    assert_eq!(left["in_flight"], 10);
    daemon.ended().with(1);
    drop(lock);
    assert_eq!(place.number("SELECT count(*) FROM events"), 0);
}

#[test]
fn a_second_signal_ends_a_drain_that_hangs_at_once() {
    let place = Place::new();
    let mut daemon = Process::spawn(patient(&place).env("HEADWORKS__DAEMON__DRAIN_DEADLINE", "1day"));
    send(daemon.listens(), &lines("acme", 0..10));
    let lock = locked(&place);
    daemon.signal("TERM");
    daemon.says("draining: no new events, what was accepted is stored");
    daemon.signal("TERM");
    let told = daemon.says("stopped before the drain was done");
    assert_eq!((&told["signal"], &told["in_flight"]), (&"SIGTERM".into(), &10.into()));
    assert_eq!(told["left"], "what is in flight stays in the journal, and the next start goes on with it");
    daemon.ended().with(1);
    drop(lock);
    // So it does.
    let mut next = Process::spawn(&mut patient(&place));
    next.says("recovered from the journal: accepted earlier and not stored yet");
    next.listens();
    next.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..10)).0);
}

#[test]
fn a_second_signal_leaves_in_the_journal_what_was_on_its_way_to_a_slow_disk() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut patient(&place));
    let to = daemon.listens();
    let Some(_slow) = Fault::of_the_journal(&daemon, "pwrite64,write:delay_enter=500ms") else { return };
    send(to, &lines("acme", 0..10));
    let lock = locked(&place);
    daemon.signal("TERM");
    daemon.says("draining: no new events, what was accepted is stored");
    daemon.signal("TERM");
    let told = daemon.says("stopped before the drain was done");
    assert_eq!(told["left"], "what is in flight stays in the journal, and the next start goes on with it");
    daemon.ended().with(1);
    drop(lock);
    let mut next = Process::spawn(&mut patient(&place));
    next.listens();
    next.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..10)).0);
}

#[test]
fn two_signals_at_once_end_a_daemon_at_rest_and_none_of_them_tells_of_a_loss() {
    for _ in 0..5 {
        let place = Place::new();
        let mut daemon = Process::spawn(&mut patient(&place));
        daemon.listens();
        daemon.signal("TERM");
        daemon.signal("TERM");
        let err = daemon.ended().err;
        assert!(!err.contains("could not be written") && !err.contains("stays in the journal"), "{err}");
    }
}
