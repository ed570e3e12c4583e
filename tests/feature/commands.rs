//! The command line itself.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::rig::Place;

const COMMANDS: [&[&str]; 18] = [
    &["run"],
    &["query"],
    &["check"],
    &["tenants"],
    &["dead-letters"],
    &["dead-letters", "list"],
    &["dead-letters", "show"],
    &["dead-letters", "replay"],
    &["dead-letters", "edit"],
    &["dead-letters", "purge"],
    &["dead-letters", "export"],
    &["audit"],
    &["journal"],
    &["journal", "inspect"],
    &["journal", "verify"],
    &["journal", "export"],
    &["gen"],
    &["send"],
];

#[test]
fn the_help_lists_every_command_and_every_command_has_a_help_of_its_own() {
    let place = Place::new();
    let top = place.run(&["--help"]).succeeded().text();
    assert!(top.contains("Exit codes: 0 done;"), "{top}");
    for words in COMMANDS {
        let (name, above) = words.split_last().unwrap();
        let listed = place.run(&[above, &["--help"]].concat()).succeeded().text();
        assert!(listed.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{listed}");
        let own = place.run(&[words, &["--help"]].concat()).succeeded().text();
        assert!(own.contains(&format!("Usage: headworks {}", words.join(" "))), "{own}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    let place = Place::new();
    for words in [&["rnu"][..], &[], &["run", "--json"], &["gen"], &["send", "x"], &["dead-letters"]] {
        place.run(words).with(2);
    }
}

#[test]
fn the_tools_say_which_directory_they_miss() {
    let place = Place::new();
    for words in [
        &["tenants"][..],
        &["query", "acme"],
        &["dead-letters", "list"],
        &["dead-letters", "show", "1"],
        &["dead-letters", "replay", "--all"],
        &["dead-letters", "edit", "1", "--stdin"],
        &["dead-letters", "purge", "--all", "--yes"],
        &["dead-letters", "export"],
        &["audit"],
    ] {
        let ended = place.run(&[words, &["--data", "nowhere"]].concat()).with(1);
        assert!(ended.err.contains("there is no nowhere/headworks.db"), "{}", ended.err);
    }
    assert!(!place.path("nowhere").exists());
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_one_others() {
    let place = Place::new();
    let of = |seed| place.generated(&["--events", "100", "--zipf", "1.1", "--seed", seed]);
    assert_eq!(of("5"), of("5"));
    assert_ne!(of("5"), of("6"));
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let place = Place::new();
    let mut generating = place.command(&["gen", "--events", "1000000000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(generating.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("{\"tenant\":"));
    drop(lines);
    assert_eq!(generating.wait().unwrap().code(), Some(0));
}
