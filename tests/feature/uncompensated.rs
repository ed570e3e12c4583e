//! What could not be undone of a batch that was given up: told live and at rest, and gone once it is done. And the failure report.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use serde_json::Value;

use crate::rig::{DEADLINE, Place, Process, send};

const POISON: &[u8] = b"{\"tenant\":\"acme\",\"n\":\"poison\"}\n";

fn daemon(place: &Place) -> Process {
    Process::spawn(
        place
            .daemon()
            .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms")
            .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "1ms")
            .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__COMPENSATION_DEADLINE", "1ms"),
    )
}

/// Waits for an entry of the supervisor log of this kind.
fn until_logged(place: &Place, what: &str) {
    let words = ["log", "--data", "data", "--follow", "--json", "--what", what];
    let mut child = place.command(&words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (out, (tell, told)) = (child.stdout.take().unwrap(), mpsc::channel());
    std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).unwrap();
        // Nobody listens only once it has taken too long.
        let _ = tell.send(line);
    });
    let line = told.recv_timeout(DEADLINE);
    // It may have ended already.
    let _ = child.kill();
    child.wait().unwrap();
    let line = line.unwrap_or_else(|_| panic!("no entry says {what}"));
    assert!(line.contains(what), "the daemon ended without: {line}");
}

/// A daemon whose store refused a batch and could not roll it back.
fn owing(place: &Place) -> Process {
    let mut daemon = daemon(place);
    let to = daemon.listens();
    place
        .database()
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'this row is poison'); END;
             CREATE TRIGGER stuck BEFORE INSERT ON fences BEGIN SELECT RAISE(ABORT, 'the fence is stuck'); END",
        )
        .unwrap();
    send(to, POISON);
    until_logged(place, "dead_lettered");
    daemon
}

fn text(place: &Place, words: &[&str]) -> String {
    let words = [words, &["--data", "data"]].concat();
    String::from_utf8(place.run(&words).succeeded().out).unwrap()
}

/// The same, however it is broken into lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rows(place: &Place) -> Vec<Value> {
    place.json(&["uncompensated", "--data", "data", "--json"]).as_array().unwrap().clone()
}

#[test]
fn what_could_not_be_undone_is_told_live_and_at_rest_until_the_next_process_has_done_it() {
    let place = Place::new();
    let running = owing(&place);
    let live = rows(&place);
    assert_eq!(live.len(), 1);
    assert_eq!(
        (&live[0]["tenant"], &live[0]["store"], &live[0]["what"]),
        (&"acme".into(), &"store".into(), &"rollback".into())
    );
    assert!(live[0]["batch"].as_str().unwrap().ends_with("/acme/1"), "{live:?}");
    assert!(live[0]["cause"]["detail"].as_str().unwrap().contains("the fence is stuck"), "{live:?}");
    let screen = text(&place, &["uncompensated", "--tenant", "acme"]);
    assert!(
        screen.contains("/acme/1: rollback in store\n") && one_line(&screen).contains("the fence is stuck (comp"),
        "{screen}"
    );
    assert!(screen.lines().all(|line| line.len() <= 80), "{screen}");
    assert!(text(&place, &["uncompensated", "--tenant", "other"]).starts_with("Nothing: "));
    let explained = text(&place, &["explain", "acme"]);
    assert!(one_line(&explained).contains("not undone rollback of batch 1 in store, since "), "{explained}");
    let audit = text(&place, &["audit"]);
    assert!(audit.contains("not checked: what store may still hold of batch "), "{audit}");
    let err = running.terminated().succeeded().err;
    assert!(err.contains("1 compensation could NOT be done yet"), "{err}");

    let rest = rows(&place);
    assert_eq!((&rest[0]["batch"], &rest[0]["since"]), (&live[0]["batch"], &live[0]["since"]));
    let screen = text(&place, &["uncompensated"]);
    assert!(one_line(&screen).contains("the next start of the daemon tries it again"), "{screen}");
    assert!(one_line(&text(&place, &["explain", "acme"])).contains("not undone rollback of batch 1 in store"));
    assert!(text(&place, &["audit"]).contains("not checked: what store may still hold of batch "));

    place.database().execute_batch("DROP TRIGGER stuck").unwrap();
    let mut again = daemon(&place);
    again.listens();
    until_logged(&place, "compensated");
    assert_eq!(rows(&place), [Value::Null; 0]);
    assert!(text(&place, &["uncompensated"]).starts_with("Nothing: "));
    assert!(!text(&place, &["audit"]).contains("may still hold"));
    let err = again.terminated().succeeded().err;
    assert!(!err.contains("could NOT be done yet"), "{err}");
    assert_eq!(rows(&place), [Value::Null; 0]);
}

#[test]
fn a_run_over_an_input_says_what_it_leaves_not_undone() {
    let place = Place::new();
    owing(&place).terminated().succeeded();
    let run = Process::spawn(&mut place.command(&["run", "--data", "data", "--input", "-"]));
    let ended = run.feed(b"").ended().succeeded();
    let out = String::from_utf8(ended.out).unwrap();
    assert!(out.contains("1 compensation could NOT be done yet: a store may still hold events"), "{out}");
}

#[test]
fn without_a_journal_the_list_ends_with_its_process_and_the_log_is_named() {
    let place = Place::new();
    let mut running = Process::spawn(place.daemon().env("HEADWORKS__JOURNAL__TYPE", "memory"));
    running.listens();
    assert!(text(&place, &["uncompensated"]).starts_with("Nothing: "));
    running.terminated().succeeded();
    let refused = place.run(&["uncompensated", "--data", "data"]).with(1).err;
    assert!(refused.contains("headworks log --what compensation_failed"), "{refused}");
}

#[test]
fn the_report_of_a_running_daemon_is_a_table_and_at_rest_there_is_advice() {
    let place = Place::new();
    let mut running = daemon(&place);
    let to = running.listens();
    assert!(text(&place, &["report"]).starts_with("Nothing failed since "));
    send(to, b"no JSON\n");
    place.until("SELECT count(*) FROM dead_letters", 1);
    let report = place.json(&["report", "--data", "data", "--json"]);
    let [entry] = &report["entries"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&entry["code"], &entry["failures"], &entry["last_hour"]), (&"bad_json".into(), &1.into(), &1.into()));
    assert!(entry["first_at"].as_str().unwrap().ends_with('Z'), "{entry}");
    let table = text(&place, &["report"]);
    assert!(table.contains("\ntenant  code      1 min  5 min  hour  all  events  first "), "{table}");
    running.terminated().succeeded();
    let refused = place.run(&["report", "--data", "data"]).with(69).err;
    assert!(refused.contains("the report is in its memory") && refused.contains("`headworks log`"), "{refused}");
}
