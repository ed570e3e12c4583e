//! The supervisor log on disk, `headworks log` and `headworks explain`, live and at rest, and where the failure report goes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::rig::{DEADLINE, Place, Process, lines, send};

const POISON: &[u8] = b"{\"tenant\":\"acme\",\"n\":\"poison\"}\n";

/// The daemon, having given up a batch.
fn failed(place: &Place, settings: &[(&str, &str)]) -> Process {
    let mut daemon = Process::spawn(
        place.daemon().env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms").envs(settings.iter().copied()),
    );
    let to = daemon.listens();
    poisoned(place);
    send(to, POISON);
    // The last that is said of it.
    let told = Follower::of(place, &["--what", "dead_lettered"]).next().unwrap();
    assert_eq!(told["tenant"], "acme");
    daemon
}

/// From now on the store refuses what is poison.
fn poisoned(place: &Place) {
    let database = place.database();
    database
        .execute_batch(
            "CREATE TRIGGER IF NOT EXISTS poison BEFORE INSERT ON events WHEN CAST(NEW.body AS TEXT) LIKE '%poison%'
             BEGIN SELECT RAISE(ABORT, 'this row is poison'); END",
        )
        .unwrap();
}

/// The entries that the command prints, as JSON.
fn entries(place: &Place, words: &[&str]) -> Vec<Value> {
    let out = place.run(&[&["log", "--data", "data", "--json"], words].concat()).succeeded().out;
    out.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn whats(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect()
}

#[test]
fn the_log_says_live_and_at_rest_why_a_batch_failed_and_what_was_rolled_back() {
    let place = Place::new();
    let daemon = failed(&place, &[]);
    let of_acme = |words: &[&str]| entries(&place, &[&["--tenant", "acme"], words].concat());
    let live = of_acme(&[]);
    assert_eq!(whats(&live), ["failed", "compensated", "dead_lettered"]);
    for entry in &live {
        assert_eq!(entry["cause"]["code"], "store_permanent");
        assert!(entry["cause"]["detail"].as_str().unwrap().contains("this row is poison"), "{entry}");
        assert!(entry["batch"].as_str().unwrap().ends_with("/acme/1"), "{entry}");
    }
    let screen = |place: &Place| String::from_utf8(place.run(&["log", "--data", "data"]).succeeded().out).unwrap();
    let text = screen(&place);
    assert!(text.contains("Batch 1 (1 event) was rolled back: 1"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    daemon.terminated().succeeded();
    assert_eq!(of_acme(&[]), live);
    let all = entries(&place, &["--all", "--last", "1000"]);
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert_eq!((&first["what"], &last["what"]), (&"opened".into(), &"closed".into()));
    assert!(whats(&all).contains(&"started"), "{all:?}");
    assert!(all.iter().all(|entry| entry["actor"] != "ingress"), "connections come and go, and are not kept");
    assert_eq!(whats(&of_acme(&["--what", "failed,compensated"])), ["failed", "compensated"]);
    assert_eq!(whats(&of_acme(&["--last", "1"])), ["dead_lettered"]);
    assert_eq!(entries(&place, &["--since", "2100-01-01T00:00:00Z"]), Vec::<Value>::new());
    assert!(screen(&place).contains(" closed "), "{}", screen(&place));
}

#[test]
fn the_log_goes_on_across_restarts_and_a_torn_line_is_passed_by() {
    let place = Place::new();
    let daemon = failed(&place, &[]);
    let file = place.data().join("supervisor-log/log.jsonl");
    // Nobody announces that it is on disk too.
    let began = Instant::now();
    while !std::fs::read_to_string(&file).unwrap().contains("dead_lettered") {
        assert!(began.elapsed() < DEADLINE, "it is not written");
        std::thread::yield_now();
    }
    daemon.kill();
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"at\":\"2026-11-");
    std::fs::write(&file, text).unwrap();
    let ended = place.run(&["log", "--data", "data"]).succeeded();
    assert!(ended.err.contains("1 line of the log could not be read"), "{}", ended.err);
    let mut again = Process::spawn(&mut place.daemon());
    again.listens();
    again.terminated().succeeded();
    let all = entries(&place, &[]);
    let openings: Vec<_> =
        all.iter().filter(|entry| entry["what"] == "opened").map(|entry| &entry["opening"]).collect();
    assert!(openings.len() == 2 && openings[0] != openings[1], "{all:?}");
    assert_eq!(whats(&all), ["opened", "failed", "compensated", "dead_lettered", "opened", "draining", "closed"]);
}

/// `headworks log --follow`, and what it prints.
struct Follower {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Follower {
    fn of(place: &Place, words: &[&str]) -> Self {
        let words = [&["log", "--data", "data", "--follow", "--json"], words].concat();
        let mut command = place.command(&words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next entry; none at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_follower_is_told_what_comes_and_ends_with_the_daemon() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms"));
    let to = daemon.listens();
    poisoned(&place);
    let mut follower = Follower::of(&place, &["--last", "1"]);
    assert_eq!(follower.next().unwrap()["what"], "opened", "what was there before");
    send(to, POISON);
    for what in ["failed", "compensated", "dead_lettered"] {
        let entry = follower.next().unwrap();
        assert_eq!((&entry["what"], &entry["tenant"]), (&what.into(), &"acme".into()));
    }
    daemon.terminated().succeeded();
    assert_eq!(follower.next().unwrap()["what"], "draining");
    assert_eq!(follower.next(), None);
    assert!(follower.child.wait().unwrap().success());
    let refused = place.run(&["log", "--data", "data", "--follow"]).with(1);
    assert!(refused.err.contains("no daemon writes to it, so that nothing will follow"), "{}", refused.err);
}

#[test]
fn explain_tells_a_tenant_live_and_at_rest_and_misses_one_that_is_not_there() {
    let place = Place::new();
    let daemon = failed(&place, &[]);
    let explain = |words: &[&str]| place.run(&[&["explain", "--data", "data"], words].concat());
    let live: Value = serde_json::from_slice(&explain(&["acme", "--json"]).succeeded().out).unwrap();
    assert_eq!((&live["status"], &live["is_live"]), (&"failing".into(), &true.into()));
    assert_eq!((&live["counters"]["dead_lettered"], &live["compensations"]["batches"]), (&1.into(), &1.into()));
    assert_eq!(live["failures"][0]["code"], "store_permanent");
    let text = String::from_utf8(explain(&["acme"]).succeeded().out).unwrap();
    assert!(text.lines().count() <= 29 && text.contains("rollbacks  1 batch rolled back since "), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("to do mend what refused its 1 dead letter (`headworks dead-letters list --tenant acme` says"),
        "{text}"
    );
    assert!(explain(&["nobody"]).with(1).err.contains("there is no tenant nobody"));
    daemon.terminated().succeeded();
    let rest: Value = serde_json::from_slice(&explain(&["acme", "--json"]).succeeded().out).unwrap();
    assert_eq!((&rest["is_live"], &rest["log"], &rest["stored"]), (&false.into(), &live["log"], &live["stored"]));
    assert_eq!(rest["counters"]["dead_lettered"], 1);
    assert!(explain(&["nobody"]).with(1).err.contains("there is no tenant nobody"));
}

#[test]
fn explain_tells_of_a_store_that_is_away_while_it_is_away() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__STORE__BUSY_TIMEOUT", "1ms").env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut follower = Follower::of(&place, &["--what", "parked,unparked"]);
    send(to, &lines("acme", 0..3));
    let parked = follower.next().unwrap();
    assert_eq!((&parked["what"], &parked["cause"]["code"]), (&"parked".into(), &"store_unavailable".into()));
    let told = place.json(&["explain", "acme", "--data", "data", "--json"]);
    assert_eq!((&told["status"], &told["batch"]["is_parked"]), (&"parked".into(), &true.into()));
    assert_eq!((&told["backlog"]["events"], &told["batch"]["id"]), (&3.into(), &parked["batch"]));
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(follower.next().unwrap()["what"], "unparked");
    daemon.terminated().succeeded();
    assert_eq!(follower.next(), None);
}

#[test]
fn the_report_goes_to_a_file_where_the_configuration_says_so() {
    let place = Place::new();
    let settings = [("HEADWORKS__REPORT__TO", "file"), ("HEADWORKS__REPORT__PATH", "failures.jsonl")];
    failed(&place, &settings).terminated().succeeded();
    let text = std::fs::read_to_string(place.data().join("failures.jsonl")).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&line["tenant"], &line["code"]), (&"acme".into(), &"store_permanent".into()));
    assert_eq!((&line["recent"], &line["last_hour"], &line["events"]), (&1.into(), &1.into(), &1.into()));
}

#[test]
fn the_report_goes_to_the_store_as_events_of_a_tenant_of_its_own() {
    let place = Place::new();
    let settings = [("HEADWORKS__REPORT__TO", "store"), ("HEADWORKS__REPORT__EVERY", "1s")];
    let mut daemon = Process::spawn(place.daemon().envs(settings));
    send(daemon.listens(), b"no JSON\n");
    place.until("SELECT count(*) FROM events WHERE tenant = 'headworks-report'", 1);
    daemon.terminated().succeeded();
    let bodies = &place.stored()["headworks-report"];
    let body: Value = serde_json::from_slice(&bodies[0]).unwrap();
    assert_eq!((&body["tenant"], &body["report"]["tenant"]), (&"headworks-report".into(), &Value::Null));
    assert_eq!((&body["report"]["code"], &body["report"]["failures"]), (&"bad_json".into(), &1.into()));
    assert_eq!(bodies.len(), 1, "what it reported is over, and a report is no failure");
}
