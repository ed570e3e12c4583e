//! Lines that are no events: kept with their reason, whatever they are, and no bar to those that are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde_json::Value;

use crate::rig::{Place, sorted};

/// As many good lines as `gen` makes, one in ten broken, and three more that it does not make.
fn input(place: &Place) -> Vec<u8> {
    let mut input = place.generated(&["--events", "4000", "--tenants", "4", "--bad", "10"]);
    let brackets = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    for bad in [oversized(), format!("{{\"tenant\":\"t0000\",\"line\":{brackets}}}"), "[".repeat(100_000)] {
        input.extend_from_slice(bad.as_bytes());
        input.push(b'\n');
    }
    // The last word is a good line's.
    input.extend_from_slice(b"{\"tenant\":\"t0000\",\"line\":\"the end\"}\n");
    input
}

fn oversized() -> String {
    format!("{{\"tenant\":\"t0000\",\"line\":\"{}\"}}", "x".repeat(2 << 20))
}

fn letters(place: &Place) -> Vec<Value> {
    let letters = place.json(&["dead-letters", "list", "--data", "data", "--json", "--limit", "10000"]);
    letters.as_array().unwrap().clone()
}

#[test]
fn of_a_file_with_one_line_in_ten_broken_every_good_one_is_stored_and_every_bad_one_kept_with_its_reason() {
    let place = Place::new();
    let input = input(&place);
    let (good, mut bad) = sorted(&input);
    let summary = place.take_in(&input);
    // It is valid JSON: only its size tells.
    let (mut good, big) = (good, oversized().into_bytes());
    good.get_mut("t0000").unwrap().retain(|line| *line != big);
    bad.insert(400, big);

    assert_eq!(place.stored(), good);
    let letters = letters(&place);
    let reasons = letters.iter().fold(BTreeMap::new(), |mut reasons, letter| {
        *reasons.entry(letter["reason"].as_str().unwrap()).or_insert(0) += 1;
        reasons
    });
    let expected = [
        ("bad_json", 100),
        ("bad_tenant", 100),
        ("bad_utf8", 50),
        ("empty", 50),
        ("no_tenant", 50),
        ("oversized", 1),
        ("too_deep", 52),
    ];
    assert_eq!(reasons, BTreeMap::from(expected));
    assert!(letters.iter().all(|letter| letter["kind"] == "frame" && letter["source"] == "input"));
    assert!(letters.iter().all(|letter| !letter["detail"].as_str().unwrap().is_empty()));

    let stored = good.values().map(Vec::len).sum::<usize>();
    assert_eq!(summary["source"]["received"], stored + bad.len());
    assert_eq!(summary["source"]["accepted"], stored);
    assert_eq!(summary["source"]["malformed"], letters.len());
}

#[test]
fn a_dead_letter_gives_back_the_exact_bytes_of_its_line_and_of_an_oversized_one_the_beginning() {
    let place = Place::new();
    let input = input(&place);
    place.take_in(&input);
    let lines: Vec<_> = input.split(|byte| *byte == b'\n').collect();
    let mut seen = BTreeMap::new();
    for letter in letters(&place).into_iter().rev() {
        let (id, reason) = (letter["id"].as_str().unwrap(), letter["reason"].as_str().unwrap().to_owned());
        if seen.contains_key(&reason) {
            continue;
        }
        let raw = place.run(&["dead-letters", "show", "--data", "data", id, "--raw"]).succeeded().out;
        let original = letter["original_bytes"].as_u64().unwrap();
        if reason == "oversized" {
            assert_eq!((original, raw.len()), (oversized().len() as u64, 64 << 10));
            assert!(oversized().as_bytes().starts_with(&raw));
        } else {
            assert_eq!(original, raw.len() as u64);
            assert!(lines.contains(&raw.as_slice()), "{reason}: no line has these bytes");
        }
        seen.insert(reason, raw);
    }
    assert_eq!(seen["empty"], b"");
    assert_eq!(seen["too_deep"], "[".repeat(100_000).as_bytes(), "the last one that is too deep");
    assert!(std::str::from_utf8(&seen["bad_utf8"]).is_err());
    assert_eq!(seen.len(), 7);
}

#[test]
fn the_tables_of_tenants_and_dead_letters_tell_the_same_as_their_json() {
    let place = Place::new();
    place.take_in(b"{\"tenant\":\"acme\"}\n{\"tenant\":\"acme\"}\nno json\n{}\n");
    let tenants = place.json(&["tenants", "--data", "data", "--json"]);
    let (acme, none) = (&tenants[0], &tenants[1]);
    assert_eq!((&acme["tenant"], &acme["events"], &acme["batches"]), (&"acme".into(), &2.into(), &1.into()));
    assert_eq!((&none["tenant"], &none["events"], &none["dead_letters"]), (&Value::Null, &0.into(), &2.into()));

    let table = place.run(&["tenants", "--data", "data"]).succeeded().text();
    let words: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1][..4], ["acme", "2", "1", "0"]);
    assert_eq!(words[1][4..], [&acme["first_arrived"], &acme["last_arrived"]], "whole, though this is no terminal");
    assert_eq!(words[2], ["-", "0", "0", "2", "-", "-"]);

    let table = place.run(&["dead-letters", "list", "--data", "data", "--reason", "no_tenant"]).succeeded().text();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.lines().last().unwrap().ends_with("{}"), "{table}");
    let ended = place.run(&["dead-letters", "show", "--data", "data", "1/frame/1"]).with(1);
    assert!(ended.err.contains("there is no dead letter \"1/frame/1\""), "{}", ended.err);
}
