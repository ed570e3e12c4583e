//! The small things of the command line: slips that are named, orders that could not be done, tables that fit their screen.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::rig::{Ended, Place, Process, lines, send};

/// A daemon whose windows stay open, and its listener.
fn started(place: &Place) -> (Process, std::net::SocketAddr) {
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h"));
    let address = daemon.listens();
    (daemon, address)
}

fn run(place: &Place, words: &[&str]) -> Ended {
    place.run(&[words, &["--data", "data"]].concat())
}

#[test]
fn a_slip_on_the_command_line_ends_with_2_and_says_what_is_valid() {
    let place = Place::new();
    place.take_in(&lines("acme", 0..1));
    let refused = run(&place, &["log", "--what", "failed,quarantine"]).with(2).err;
    assert!(refused.contains("valid: active, ") && refused.contains("did you mean \"quarantined\"?"), "{refused}");
    run(&place, &["log", "--what", "failed,quarantined"]).succeeded();
    for (words, says) in [
        (&["dead-letters", "replay"][..], "say which dead letters: their ids, --tenant,"),
        (&["dead-letters", "purge"], "say which dead letters: their ids, --tenant,"),
        (&["dead-letters", "purge", "--all"], "nothing was purged: say --yes to purge 0 dead letters"),
        (&["tenants", "erase", "acme"], "say --yes to that"),
    ] {
        let refused = run(&place, words).with(2).err;
        assert!(refused.contains(says), "{words:?}: {refused}");
    }
}

#[test]
fn an_order_that_had_nothing_to_do_says_so_and_one_that_could_not_be_done_ends_with_1() {
    let place = Place::new();
    let (daemon, address) = started(&place);
    let order = |words: &[&str]| run(&place, &[&["tenants"], words].concat());
    send(address, &lines("acme", 0..3));
    assert_eq!(order(&["flush", "acme"]).succeeded().text(), "acme: flushed\n");
    place.until("SELECT count(*) FROM events", 3);
    assert_eq!(order(&["flush", "acme"]).succeeded().text(), "acme: flushed: its window was empty\n");
    let resumed = order(&["resume", "acme"]).succeeded().text();
    assert!(resumed.starts_with("acme: resumed: nothing held it: it was "), "{resumed}");
    order(&["stop", "acme"]).succeeded();
    send(address, &lines("acme", 3..5));
    let refused = order(&["flush", "acme"]).with(1).err;
    assert!(
        refused.contains("tenant acme is not flushed: it is stopped, and its window with 2 events stays open"),
        "{refused}"
    );
    assert_eq!(order(&["resume", "acme"]).succeeded().text(), "acme: resumed\n");
    assert_eq!(order(&["flush", "acme"]).succeeded().text(), "acme: flushed\n");
    place.until("SELECT count(*) FROM events", 5);
    daemon.terminated().succeeded();
}

#[test]
fn the_tenants_are_listed_with_how_they_are_also_those_of_which_nothing_is_stored() {
    let place = Place::new();
    let (daemon, address) = started(&place);
    send(address, &lines("acme", 0..3));
    run(&place, &["tenants", "stop", "acme"]).succeeded();
    run(&place, &["tenants", "set", "b", "throttle.events_per_second=1", "throttle.when_over=reject"]).succeeded();
    send(address, &lines("b", 0..50));
    let text = run(&place, &["tenants"]).succeeded().text();
    let of = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(of("tenant").contains("status") && of("tenant").contains("throttled"), "{text}");
    assert!(of("acme").contains("stopped") && of("b ").contains("active"), "{text}");
    let json = place.json(&["tenants", "--data", "data", "--json"]);
    assert_eq!(
        (&json[0]["tenant"], &json[0]["events"], &json[0]["live"]["in_flight"]),
        (&"acme".into(), &0.into(), &3.into())
    );
    let refused = json[1]["live"]["throttled"].as_u64().unwrap();
    assert!(refused > 40 && of("b ").contains(&format!(" {refused} ")), "{text}");
    let explained = run(&place, &["explain", "b"]).succeeded().text();
    let words = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("rules priority normal, weight 1; held to 1 events a second, of which "), "{explained}");
    assert!(words.contains("; more is refused"), "{explained}");
    run(&place, &["tenants", "resume", "acme"]).succeeded();
    daemon.terminated().succeeded();
    let at_rest = place.json(&["tenants", "--data", "data", "--json"]);
    assert_eq!((&at_rest[0]["events"], &at_rest[0]["live"]["stored"]), (&3.into(), &3.into()));
}

#[test]
fn what_a_command_did_is_one_json_document_where_that_is_asked_for() {
    let place = Place::new();
    let (daemon, address) = started(&place);
    let input = place.write("input", [&lines("acme", 0..3)[..], b"no JSON\n"].concat());
    let (to, input) = (address.to_string(), input.display().to_string());
    let sent = place.json(&["send", "--json", "--to", &to, &input]);
    assert_eq!((&sent["lines"], &sent["to"]), (&4.into(), &to.clone().into()));
    let acked = place.run(&["send", "--json", "--to", &to, "--ack", "received", &input]).with(1);
    let acked: serde_json::Value = serde_json::from_slice(&acked.out).unwrap();
    assert_eq!((&acked["acknowledged"], &acked["refused"]["bad_json"]), (&3.into(), &1.into()), "{acked}");
    let json = |words: &[&str]| place.json(&[words, &["--data", "data", "--json"]].concat());
    let flushed = json(&["tenants", "flush", "acme"]);
    assert_eq!((&flushed["tenant"], &flushed["order"]), (&"acme".into(), &"flush".into()));
    assert_eq!(json(&["tenants", "set", "acme", "window.max_events=9"])["changes"][0]["key"], "window.max_events");
    place.until("SELECT count(*) FROM dead_letters", 2);
    let id = json(&["dead-letters", "list"])[0]["id"].as_str().unwrap().to_owned();
    let body = place.write("body", "{}").display().to_string();
    let edited = json(&["dead-letters", "edit", &id, "--body", &body]);
    assert_eq!((&edited["edited"], &edited["bytes"], &edited["bytes_before"]), (&true.into(), &2.into(), &7.into()));
    assert_eq!(json(&["dead-letters", "purge", "--all", "--dry-run"])["letters"], 2);
    assert_eq!(json(&["dead-letters", "purge", "--all", "--yes"])["letters"], 2);
    place.until("SELECT count(*) FROM events", 6);
    assert_eq!(json(&["tenants", "erase", "acme", "--yes"])["events"], 6);
    daemon.terminated().succeeded();
}

#[test]
fn one_who_follows_a_tenant_that_never_came_is_told_and_sees_its_first_event() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let address = daemon.listens();
    let mut follower = place.command(&["query", "newcomer", "--follow", "--data", "data"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(follower.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("no event of a tenant newcomer has come so far; waiting for the first"), "{told}");
    send(address, &lines("newcomer", 0..1));
    let mut line = vec![];
    BufReader::new(follower.stdout.take().unwrap()).read_until(b'\n', &mut line).unwrap();
    assert_eq!(line, lines("newcomer", 0..1));
    daemon.terminated().succeeded();
    follower.wait().unwrap();
}

/// What a command prints on a terminal of 80 columns.
fn on_a_terminal(place: &Place, words: &str, env: &[(&str, &str)]) -> String {
    let program = env!("CARGO_BIN_EXE_headworks");
    // Of bsdutils, which every Debian has.
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows 24 cols 80; exec {program} {words} --data data"), "/dev/null"]);
    script.env_remove("NO_COLOR").env("TERM", "xterm").envs(env.iter().copied()).current_dir(place.path(""));
    let told = script.stdin(Stdio::null()).output().unwrap();
    assert!(!told.stdout.is_empty(), "{told:?}");
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn on_a_terminal_of_80_columns_no_line_is_wider_and_colours_are_there_unless_somebody_wants_none() {
    let place = Place::new();
    let (daemon, address) = started(&place);
    let long = "a-tenant-with-a-name-of-the-very-greatest-length-that-one-may-have";
    let long = &long[..64];
    send(
        address,
        &[&lines(long, 0..3)[..], &lines("acme", 0..2), b"no JSON, but a good deal of other text, more than fits\n"]
            .concat(),
    );
    run(&place, &["tenants", "set", long, "throttle.events_per_second=1", "throttle.when_over=reject"]).succeeded();
    send(address, &lines(long, 0..40));
    run(&place, &["tenants", "flush", "acme"]).succeeded();
    place.until("SELECT count(*) FROM events", 2);
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'refused'); END";
    place.database().execute_batch(refuse).unwrap();
    send(address, &lines("acme", 2..3));
    run(&place, &["tenants", "flush", "acme"]).succeeded();
    place.until("SELECT count(*) FROM dead_letters WHERE kind = 'event'", 1);
    place.database().execute_batch("DROP TRIGGER refuse").unwrap();
    for words in [
        "tenants",
        "audit",
        "report",
        "dead-letters list",
        "journal inspect",
        "log --all",
        "uncompensated",
        "explain acme",
    ] {
        let text = on_a_terminal(&place, words, &[]);
        let plain = console::strip_ansi_codes(&text).into_owned();
        for line in plain.lines() {
            assert!(console::measure_text_width(line) <= 80, "{words}: {line:?}\n{plain}");
        }
    }
    assert!(on_a_terminal(&place, "log", &[]).contains("\u{1b}["));
    assert!(!on_a_terminal(&place, "log", &[("NO_COLOR", "1")]).contains("\u{1b}["));
    assert!(!run(&place, &["log"]).succeeded().text().contains('\u{1b}'));
    daemon.terminated().succeeded();
}
