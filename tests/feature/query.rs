//! `headworks query`: the stored events of a tenant, whichever store has them, live and at rest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::rig::{Place, Process, lines, send};

/// The settings of each kind of store.
const STORES: [&[(&str, &str)]; 3] =
    [&[("TYPE", "sqlite")], &[("TYPE", "sqlite"), ("LAYOUT", "index")], &[("TYPE", "files")]];

fn daemon(place: &Place, store: &[(&str, &str)]) -> Process {
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms");
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "100");
    command.env("HEADWORKS__DECODER__TIME_FIELD", "at");
    for (key, value) in store {
        command.env(format!("HEADWORKS__STORE__{key}"), value);
    }
    Process::spawn(&mut command)
}

fn query(place: &Place, words: &[&str]) -> crate::rig::Ended {
    place.run(&[&["query", "--data", "data"], words].concat())
}

fn rows(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn whatever_the_store_its_events_are_printed_in_order_live_and_at_rest() {
    for store in STORES {
        let place = Place::new();
        let mut process = daemon(&place, store);
        let to = process.listens();
        let timed = br#"{"tenant":"acme","n":2000,"at":1732233600000}"#;
        let sent = [lines("acme", 0..2000), timed.to_vec(), b"\n".to_vec()].concat();
        send(to, &[sent.clone(), lines("zen", 0..3)].concat());
        let told = || {
            let all = query(&place, &["acme"]).succeeded().out;
            let json = rows(&query(&place, &["acme", "--json"]).succeeded().out);
            let some = query(&place, &["acme", "--limit", "150"]).succeeded().out;
            let nobody = query(&place, &["nobody"]).with(1);
            assert!(nobody.err.contains("there is no tenant nobody"), "{}", nobody.err);
            assert!(query(&place, &["zen", "--until", "1h"]).succeeded().out.is_empty(), "{store:?}");
            assert_eq!(query(&place, &["zen", "--since", "1h"]).succeeded().out, lines("zen", 0..3), "{store:?}");
            (all, json, some)
        };
        // Whoever was sent to last is stored last, or nearly so.
        let mut followed = follower(&place, &["acme", "--limit", "2001"]);
        let mut out = vec![];
        std::io::copy(&mut followed.stdout.take().unwrap(), &mut out).unwrap();
        assert!(followed.wait().unwrap().success());
        assert!(out == sent, "{store:?}");
        let until = || query(&place, &["zen"]).out == lines("zen", 0..3);
        while !until() {
            std::thread::yield_now();
        }
        let live = told();
        process.terminated().succeeded();
        assert!(live == told(), "{store:?}");
        let (all, json, some) = live;
        assert!(all == sent && all.starts_with(&some) && some == lines("acme", 0..150), "{store:?}");
        assert_eq!(json.len(), 2001);
        let (first, last) = (&json[0], &json[2000]);
        assert_eq!((&first["tenant"], &first["place"], &first["time"]), (&"acme".into(), &0.into(), &Value::Null));
        assert!(first["batch"].as_str().unwrap().ends_with("/acme/1"), "{first}");
        assert_eq!(format!("{}\n", last["body"].as_str().unwrap()).into_bytes(), sent[sent.len() - timed.len() - 1..]);
        if store[0].1 == "sqlite" {
            assert_eq!(last["time"], "2024-11-22T00:00:00.000Z");
            assert!(last["arrived"].as_str().is_some());
        }
    }
}

fn follower(place: &Place, words: &[&str]) -> std::process::Child {
    let mut command = place.command(&[&["query", "--data", "data", "--follow"], words].concat());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_follower_sees_what_is_stored_as_it_comes_and_ends_with_the_daemon() {
    for store in STORES {
        let place = Place::new();
        let mut process = daemon(&place, store);
        let to = process.listens();
        send(to, &lines("acme", 0..1));
        while query(&place, &["acme"]).out.is_empty() {
            std::thread::yield_now();
        }
        let mut child = follower(&place, &["acme"]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        for n in 0..5 {
            let mut line = vec![];
            out.read_until(b'\n', &mut line).unwrap();
            assert_eq!(line, lines("acme", n..n + 1), "{store:?}");
            send(to, &[lines("zen", n..n + 1), lines("acme", n + 1..n + 2)].concat());
        }
        process.terminated().succeeded();
        let mut rest = vec![];
        std::io::copy(&mut out, &mut rest).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(lines("acme", 5..6).starts_with(&rest), "{store:?}");
        let refused = query(&place, &["acme", "--follow"]).with(1);
        assert!(refused.err.contains("no daemon writes to it, so that nothing will follow"), "{}", refused.err);
    }
}

#[test]
fn damage_of_a_segment_is_told_and_ends_with_74() {
    let place = Place::new();
    let mut process = daemon(&place, STORES[1]);
    send(process.listens(), &lines("acme", 0..10));
    process.terminated().succeeded();
    let path = place.data().join("headworks.segments/0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ended = query(&place, &["acme"]).with(74);
    assert!(
        ended.err.contains("0000000001.seg: batch ") && ended.err.contains("/acme/1, segment 1, bytes 28 to "),
        "{}",
        ended.err
    );
    place.run(&["audit", "--data", "data"]).with(1);
    assert!(query(&place, &["acme", "--store", "more"]).with(1).err.contains("has no store more; there is: store"));
}

#[test]
fn bytes_that_are_no_text_come_as_they_are_and_in_json_as_hex() {
    let place = Place::new();
    place.take_in(&lines("acme", 0..1));
    place.database().execute("UPDATE events SET body = x'ff00'", []).unwrap();
    assert_eq!(query(&place, &["acme"]).succeeded().out, b"\xff\0\n");
    assert_eq!(rows(&query(&place, &["acme", "--json"]).succeeded().out)[0]["body_hex"], "ff00");
}
