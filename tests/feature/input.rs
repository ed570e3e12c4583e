//! `headworks run --input`: a file or stdin, to its end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use crate::rig::{Bodies, Place, Process, lines, sorted};

/// Four tenants, 8,000 events: each tenant with a number in the summary and its lines in the database.
fn assert_complete(place: &Place, summary: &Value, expected: &Bodies) {
    assert_eq!(place.stored(), *expected);
    assert_eq!(summary["complete"], true);
    let tenants = summary["tenants"].as_array().unwrap();
    assert_eq!(tenants.len(), expected.len());
    for (tenant, bodies) in tenants.iter().zip(expected.values()) {
        for counter in ["received", "accepted", "stored"] {
            assert_eq!(tenant[counter], bodies.len(), "{counter} of {tenant}");
        }
        assert_eq!(tenant["in_flight"], 0);
        assert_eq!(tenant["batches"], bodies.len().div_ceil(500), "a window closes at 500 events: {tenant}");
    }
}

#[test]
fn a_file_is_stored_whole_byte_for_byte_and_in_order_for_each_tenant() {
    let place = Place::new();
    let input = place.generated(&["--events", "8000", "--tenants", "4"]);
    let (expected, bad) = sorted(&input);
    assert_eq!((expected.len(), bad.len()), (4, 0));
    let summary = place.take_in(&input);
    assert_complete(&place, &summary, &expected);
    assert_eq!(summary["source"]["received"], 8_000);
    assert_eq!(summary["source"]["bytes"], input.len());
}

#[test]
fn stdin_is_taken_in_like_a_file() {
    let place = Place::new();
    let input = place.generated(&["--events", "8000", "--tenants", "4", "--seed", "2"]);
    let mut command = place.command(&["run", "--data", "data", "--input", "-", "--json"]);
    let ended = Process::spawn(&mut command).feed(&input).ended().succeeded();
    assert_complete(&place, &serde_json::from_slice(&ended.out).unwrap(), &sorted(&input).0);
}

#[test]
fn the_summary_is_a_table_with_a_line_for_each_tenant_and_where_the_data_is() {
    let place = Place::new();
    place.write("input", [lines("acme", 0..700), lines("globex", 0..3)].concat());
    let text = place.run(&["run", "--data", "data", "--input", "input"]).succeeded().text();
    let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1], ["acme", "700", "700", "2", "0", "0", "0", "0"]);
    assert_eq!(words[2], ["globex", "3", "3", "1", "0", "0", "0", "0"]);
    assert_eq!(words[3][2..], ["703", "703", "3", "0", "0", "0", "0"], "the sums");
    assert!(text.contains("703 frames received, 0 malformed"), "{text}");
    assert!(text.ends_with("data/headworks.db\n"), "{text}");
}

#[test]
fn with_no_configuration_at_all_the_data_is_beside_the_caller() {
    let place = Place::new();
    place.write("input", lines("acme", 0..3));
    place.run(&["run", "--input", "input"]).succeeded();
    assert!(place.path("headworks-data/headworks.db").exists());
    let tenants = place.json(&["tenants", "--json"]);
    assert_eq!((&tenants[0]["tenant"], &tenants[0]["events"]), (&"acme".into(), &3.into()));
}

#[test]
fn a_second_file_is_added_to_the_first() {
    let place = Place::new();
    place.take_in(&lines("acme", 0..600));
    place.take_in(&lines("acme", 600..1_000));
    assert_eq!(place.stored(), sorted(&lines("acme", 0..1_000)).0);
}

#[test]
fn a_last_line_without_its_newline_is_an_event_too() {
    let place = Place::new();
    let mut input = lines("acme", 0..3);
    input.pop();
    place.take_in(&input);
    assert_eq!(place.stored(), sorted(&lines("acme", 0..3)).0);
}

#[test]
fn an_empty_file_is_no_event_and_no_failure() {
    let place = Place::new();
    let summary = place.take_in(b"");
    assert_eq!((&summary["complete"], &summary["source"]["received"]), (&true.into(), &0.into()));
    assert_eq!(place.stored(), Bodies::new());
}

#[test]
fn a_missing_file_ends_with_74_says_which_and_leaves_nothing_behind() {
    let place = Place::new();
    let ended = place.run(&["run", "--data", "data", "--input", "no-such-file"]).with(74);
    assert!(ended.err.contains("no-such-file: No such file"), "{}", ended.err);
    assert!(!place.data().exists());
}

#[test]
fn a_directory_is_no_input() {
    let place = Place::new();
    let ended = place.run(&["run", "--data", "data", "--input", "."]).with(74);
    assert!(ended.err.contains("it is a directory"), "{}", ended.err);
    assert!(!place.data().exists());
}
