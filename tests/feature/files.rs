//! The store on files, as the command uses it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::rig::crash::found;
use crate::rig::{Bodies, Place, Process, lines, send, sorted};

/// Takes in an input into files.
fn take_in(place: &Place, input: &[u8], words: &[&str]) -> Vec<u8> {
    place.write("input", input);
    let mut command = place.command(&[&["run", "--data", "data", "--input", "input"], words].concat());
    Process::spawn(command.env("HEADWORKS__STORE__TYPE", "files")).ended().succeeded().out
}

/// What `cat` shows, line by line.
fn lines_of(place: &Place, tenants: &Bodies) -> Bodies {
    let cat = |tenant: &String| {
        let text = std::fs::read(place.data().join("events").join(tenant).join("events.ndjson")).unwrap();
        let lines = text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        (tenant.clone(), lines.collect())
    };
    tenants.keys().map(cat).collect()
}

#[test]
fn events_are_lines_in_the_files_of_their_tenants_and_dead_letters_are_in_the_database() {
    let place = Place::new();
    let input = place.generated(&["--events", "8000", "--tenants", "4", "--bad", "1"]);
    let (expected, bad) = sorted(&input);
    assert!(!bad.is_empty());
    let summary: serde_json::Value = serde_json::from_slice(&take_in(&place, &input, &["--json"])).unwrap();
    assert_eq!(lines_of(&place, &expected), expected);
    assert_eq!(found(&place).stored, expected);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), i64::try_from(bad.len()).unwrap());
    assert_eq!(place.number("SELECT count(*) FROM events"), 0);
    assert!(summary["store"].as_str().unwrap().ends_with("/data/events"), "{summary}");
    assert!(summary["dead_letters"].as_str().unwrap().ends_with("/data/headworks.db"), "{summary}");
}

#[test]
fn the_summary_says_where_the_data_is() {
    let place = Place::new();
    let text = String::from_utf8(take_in(&place, &lines("acme", 0..3), &[])).unwrap();
    let end: Vec<_> = text.lines().rev().take(2).collect();
    assert!(end[0].starts_with("dead letters: ") && end[0].ends_with("/data/headworks.db"), "{text}");
    assert!(end[1].starts_with("store: ") && end[1].ends_with("/data/events"), "{text}");
}

#[test]
fn what_is_in_files_and_what_was_in_the_database_before_is_listed_together() {
    let place = Place::new();
    place.take_in(&[lines("acme", 0..10), lines("old", 0..1)].concat());
    take_in(&place, &[lines("acme", 10..15), lines("new", 0..2), b"no JSON\n".to_vec()].concat(), &[]);
    let tenants = place.json(&["tenants", "--data", "data", "--json"]);
    let row = |n: usize| (tenants[n]["tenant"].as_str(), tenants[n]["events"].as_u64(), tenants[n]["batches"].as_u64());
    assert_eq!(row(0), (Some("acme"), Some(15), Some(2)));
    assert_eq!(row(1), (Some("new"), Some(2), Some(1)));
    assert_eq!(row(2), (Some("old"), Some(1), Some(1)));
    assert_eq!((row(3).0, tenants[3]["dead_letters"].as_u64()), (None, Some(1)));
    assert!(tenants[0]["first_arrived"].as_str() < tenants[0]["last_arrived"].as_str(), "{tenants}");
}

#[test]
fn a_tenant_whose_files_are_damaged_holds_up_nobody_else() {
    let place = Place::new();
    take_in(&place, &[lines("acme", 0..10), lines("zen", 0..10)].concat(), &[]);
    std::fs::write(place.data().join("events/acme/batches.ndjson"), "gone\n").unwrap();
    let mut command = place.daemon();
    let settings = [("STORE__TYPE", "files"), ("DAEMON__DRAIN_DEADLINE", "1s")];
    command.envs(settings.map(|(name, value)| (format!("HEADWORKS__{name}"), value)));
    let mut daemon = Process::spawn(&mut command);
    send(daemon.listens(), &[lines("acme", 10..20), lines("zen", 10..20)].concat());
    let ended = daemon.terminated().with(1);
    assert!(ended.err.contains("line 1 was changed") && ended.err.contains("not stored before the deadline"));
    let zen = sorted(&lines("zen", 0..20)).0;
    assert_eq!(lines_of(&place, &zen), zen);
}
