//! The store on the standard output, as the command uses it.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::rig::crash::Daemon;
use crate::rig::{Place, Process, lines, send, sorted};

#[test]
fn every_event_is_a_line_on_stdout_in_order_and_nothing_else_is_there() {
    let place = Place::new();
    let input = place.generated(&["--events", "5000", "--tenants", "4", "--bad", "1"]);
    let (expected, _) = sorted(&input);
    place.write("input", &input);
    let words = ["run", "--data", "data", "--input", "input", "--json"];
    let mut command = place.command(&words);
    let ended = Process::spawn(command.env("HEADWORKS__STORE__TYPE", "stdout")).ended().succeeded();
    assert_eq!(sorted(&ended.out), (expected.clone(), vec![]));
    assert!(ended.err.contains("\"stored\""), "the summary is on stderr: {}", ended.err);

    let other = Place::new();
    let (process, address) = Daemon::new(&other).with("store.type", "stdout").with("log.level", "debug").start();
    send(address, &input);
    let ended = process.terminated().succeeded();
    assert_eq!(sorted(&ended.out), (expected, vec![]));
    let audit = other.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(
        audit.contains("what is stored in store: it is a webhook, a NATS stream or the standard output"),
        "{audit}"
    );
}

#[test]
fn when_the_reader_has_gone_what_was_accepted_is_kept_and_printed_to_the_next_one() {
    let place = Place::new();
    let daemon = Daemon::new(&place).with("store.type", "stdout").with("tenants.defaults.window.max_events", "10");
    let mut child = daemon
        .command(None)
        .env("HEADWORKS__DAEMON__DRAIN_DEADLINE", "1s")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut until = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended and did not say {text:?}");
        }
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    let address = until("\"listening\"")["address"].as_str().unwrap().parse().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    send(address, &lines("acme", 0..10));
    let mut printed = vec![];
    for _ in 0..10 {
        out.read_until(b'\n', &mut printed).unwrap();
    }
    assert_eq!(printed, lines("acme", 0..10));
    drop(out);
    send(address, &lines("acme", 10..30));
    until("whoever read it has gone");
    let kill = format!("kill -s TERM {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();

    let (process, _) = daemon.start();
    let ended = process.terminated().succeeded();
    assert_eq!(ended.out, lines("acme", 10..30));
}

#[test]
fn what_is_printed_cannot_be_taken_back_so_that_it_must_come_last() {
    let place = Place::new();
    place.write("headworks.toml", "[stores.out]\ntype = 'stdout'\n[tenants]\nstores = ['out', 'store']");
    let refused = place.run(&["check", "--config", "headworks.toml"]);
    assert!(refused.code == Some(78) && refused.err.contains("cannot be taken back: put it last"), "{}", refused.err);
    place.write("headworks.toml", "[stores.out]\ntype = 'stdout'\n[tenants]\nstores = ['store', 'out']");
    place.run(&["check", "--config", "headworks.toml"]).succeeded();
}
