//! A replay that is cut short by a crash goes on, and brings each event once.

use crate::rig::{Place, Process, sorted};

const BACK: &str = "SELECT count(*) FROM dead_letters WHERE replayed_at IS NOT NULL";

/// Frames whose tenant nobody found, since it was looked for elsewhere.
fn given_up(events: &str) -> (Place, Vec<u8>) {
    let place = Place::new();
    let sample = place.generated(&["--events", events, "--tenants", "5", "--bad", "0"]);
    place.write("input", &sample);
    let mut first = place.command(&["run", "--data", "data", "--input", "input", "--json"]);
    Process::spawn(first.env("HEADWORKS__DECODER__TENANT_FIELD", "elsewhere")).ended().succeeded();
    (place, sample)
}

fn daemon(place: &Place, fault: &str) -> Process {
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "20");
    if !fault.is_empty() {
        command.env("HEADWORKS_FAULT", fault);
    }
    let mut daemon = Process::spawn(&mut command);
    daemon.listens();
    daemon
}

fn assert_all_are_back_once(place: &Place, sample: &[u8]) {
    let mut daemon = daemon(place, "");
    daemon.says("went on with a replay of dead letters that had been cut short");
    daemon.terminated().succeeded();
    let (sent, _) = sorted(sample);
    let stored = place.stored();
    for (tenant, events) in &sent {
        assert!(stored.get(tenant) == Some(events), "{tenant}: each event once and in order");
    }
    assert_eq!(stored.len(), sent.len());
    let letters = place.number("SELECT count(*) FROM dead_letters");
    assert_eq!((place.number(BACK), place.number("SELECT count(*) FROM events")), (letters, letters));
    assert_eq!(place.json(&["audit", "--data", "data", "--json"])["holds"], true);
}

#[test]
fn killed_at_any_step_of_a_replay_the_next_process_brings_back_the_rest_and_nothing_twice() {
    for point in ["after-accept:7", "after-cut:4", "after-intent:3", "after-store:3", "after-outcome:5"] {
        let (place, sample) = given_up("1000");
        let first = daemon(&place, point);
        let replay = ["dead-letters", "replay", "--all", "--rate", "4000", "--data", "data"];
        let replay = place.run(&replay).with(69);
        assert!(replay.err.contains("to be had on its control socket"), "{}", replay.err);
        first.died();
        assert_all_are_back_once(&place, &sample);
    }
}

#[test]
fn killed_in_the_middle_of_a_replay_the_next_process_brings_back_the_rest_and_nothing_twice() {
    let (place, sample) = given_up("2000");
    let first = daemon(&place, "");
    let replay = ["dead-letters", "replay", "--all", "--rate", "1000", "--data", "data"];
    let replay = Process::spawn(&mut place.command(&replay));
    place.until(BACK, 300);
    first.kill();
    replay.ended().with(69);
    assert!(place.number(BACK) < 2_000, "it was in the middle");
    assert_all_are_back_once(&place, &sample);
}

#[test]
fn a_replay_that_a_stop_interrupts_says_so_and_goes_on_with_the_next_start() {
    let (place, sample) = given_up("2000");
    let first = daemon(&place, "");
    let replay = ["dead-letters", "replay", "--all", "--rate", "1000", "--data", "data"];
    let replay = Process::spawn(&mut place.command(&replay));
    place.until(BACK, 100);
    first.terminated().succeeded();
    let told = replay.ended().with(1).text();
    assert!(told.ends_with("The daemon stopped before the end; it goes on when it is started again.\n"), "{told}");
    assert_all_are_back_once(&place, &sample);
}
