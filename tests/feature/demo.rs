//! Sample events, for trials.

use serde_json::Value;

use crate::rig::{Place, Process};

#[test]
fn a_trial_needs_nothing_but_the_source_of_sample_events_and_ends_after_so_many() {
    let place = Place::new();
    place
        .write("my.toml", "[sources.trial]\ntype = 'demo'\ntenants = 3\nevents_per_second = 5000\nmax_events = 2000\n");
    let said = place.run(&["check", "--config", "my.toml"]).succeeded().text();
    assert!(said.contains("sample events of 200 bytes and 3 tenants: 5000 a second, 2000 in all"), "{said}");
    let mut command = place.command(&["run", "--config", "my.toml", "--data", "data"]);
    command.env("HEADWORKS__ADMIN__LISTEN", "").env("HEADWORKS__LOG__FORMAT", "json");
    let process = Process::spawn(&mut command);
    place.until("SELECT count(*) FROM events", 2000);
    // It was to bring so many, and has.
    place.run(&["ready", "--data", "data"]).succeeded();
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!(stored.keys().collect::<Vec<_>>(), ["t0000", "t0001", "t0002"]);
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 2000);
    assert!(stored["t0000"].len() > stored["t0002"].len(), "the first is the busiest");
    let event: Value = serde_json::from_slice(&stored["t0000"][0]).unwrap();
    assert!(event["ts"].as_u64().unwrap() > 1_770_000_000_000, "{event}");
}
