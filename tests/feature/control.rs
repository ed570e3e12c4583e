//! The control socket: every command on a live directory goes through it, and none reads the files of a daemon.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use serde_json::Value;

use crate::rig::{DEADLINE, Ended, Place, Process, lines, send};

const LETTERS: &str = "SELECT count(*) FROM dead_letters";

fn socket(place: &Place) -> PathBuf {
    place.data().join("control.sock")
}

/// A daemon with events of two tenants stored, and two bad frames kept.
fn busy(place: &Place) -> Process {
    let mut daemon = Process::spawn(&mut place.daemon());
    let input = [&lines("acme", 0..3)[..], b"no JSON\n", &lines("b", 0..2), b"\xff\xfe\x00\n"].concat();
    send(daemon.listens(), &input);
    place.until("SELECT count(*) FROM events", 5);
    place.until(LETTERS, 2);
    daemon
}

/// What a request is answered with: the head, and the body as JSON.
fn asked(place: &Place, method: &str, target: &str) -> (String, Value) {
    let mut stream = UnixStream::connect(socket(place)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nhost: headworks\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap())
}

/// What every command that looks at the store prints.
fn told(place: &Place) -> Vec<String> {
    let letters = place.json(&["dead-letters", "list", "--data", "data", "--json"]);
    let ids: Vec<_> = letters.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    let mut commands = vec![
        vec!["dead-letters", "list"],
        vec!["dead-letters", "list", "--json"],
        vec!["dead-letters", "list", "--reason", "bad_utf8", "--limit", "1"],
        vec!["dead-letters", "list", "--tenant", "acme"],
    ];
    for id in ids {
        commands.extend([vec!["dead-letters", "show", id], vec!["dead-letters", "show", id, "--json"]]);
        commands.push(vec!["dead-letters", "show", id, "--raw"]);
    }
    let run = |words: Vec<&str>| {
        format!("{words:?} {:?}", place.run(&[&words, &["--data", "data"][..]].concat()).succeeded().out)
    };
    commands.into_iter().map(run).collect()
}

#[test]
fn the_commands_say_of_a_live_directory_what_they_say_of_it_at_rest() {
    let place = Place::new();
    let daemon = busy(&place);
    let live = told(&place);
    daemon.terminated().succeeded();
    assert_eq!(live, told(&place));
}

#[test]
fn a_letter_that_is_not_there_is_missed_in_the_same_words_live_and_at_rest() {
    let place = Place::new();
    let daemon = busy(&place);
    let missed = || place.run(&["dead-letters", "show", "no/such", "--data", "data"]).with(1).err;
    let live = missed();
    assert!(live.contains("there is no dead letter \"no/such\"; `headworks dead-letters list` has the ids"), "{live}");
    daemon.terminated().succeeded();
    assert_eq!(live, missed());
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_daemon() {
    let place = Place::new();
    let daemon = busy(&place);
    let found = std::fs::metadata(socket(&place)).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    daemon.terminated().succeeded();
    assert!(!socket(&place).exists());
}

#[test]
fn a_run_over_an_input_answers_too() {
    let place = Place::new();
    let mut run = Process::spawn(&mut place.command(&["run", "--data", "data", "--input", "-"]));
    run.stdin(&lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    assert_eq!(asked(&place, "GET", "/v1").1["process"], run.id());
    assert_eq!(place.json(&["tenants", "--data", "data", "--json"])[0]["events"], 3);
    run.feed(b"").ended().succeeded();
    assert!(!socket(&place).exists());
}

#[test]
fn the_socket_that_a_killed_daemon_left_is_in_nobodys_way() {
    let place = Place::new();
    busy(&place).kill();
    assert!(socket(&place).exists(), "a kill leaves it");
    // The lock went with the process: these read the files.
    assert_eq!(told(&place).len(), 10);
    let daemon = busy_again(&place);
    assert_eq!(asked(&place, "GET", "/v1").1["process"], daemon.id());
    daemon.terminated().succeeded();
    assert!(!socket(&place).exists());
}

fn busy_again(place: &Place) -> Process {
    let mut daemon = Process::spawn(&mut place.daemon());
    daemon.listens();
    daemon
}

#[track_caller]
fn assert_no_answer(place: &Place, daemon: &Process, why: &str) {
    for words in [&["tenants"][..], &["dead-letters", "list"], &["dead-letters", "show", "1"], &["audit"]] {
        let Ended { err, out, .. } = place.run(&[words, &["--data", "data"]].concat()).with(69);
        assert!(out.is_empty(), "nothing was read");
        let says = format!(
            "process {} writes to this data directory and is not to be had on its control socket ",
            daemon.id()
        );
        assert!(err.contains(&says) && err.contains("/data/control.sock: ") && err.contains(why), "{err}");
    }
}

#[test]
fn where_the_socket_is_gone_the_commands_end_with_69_and_read_no_file() {
    let place = Place::new();
    let daemon = busy(&place);
    std::fs::remove_file(socket(&place)).unwrap();
    assert_no_answer(&place, &daemon, "No such file or directory");
    daemon.terminated().succeeded();
    place.run(&["tenants", "--data", "data"]).succeeded();
}

#[test]
fn where_somebody_else_listens_there_the_commands_end_with_69() {
    let place = Place::new();
    let daemon = busy(&place);
    std::fs::remove_file(socket(&place)).unwrap();
    let other = UnixListener::bind(socket(&place)).unwrap();
    std::thread::spawn(move || other.incoming().for_each(drop));
    assert_no_answer(&place, &daemon, ": ");
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_on() {
    let place = Place::new();
    let daemon = busy(&place);
    daemon.signal("STOP");
    let ended = place.run(&["tenants", "--data", "data"]).with(69);
    assert!(ended.err.contains("it did not answer within 5s"), "{}", ended.err);
    daemon.signal("CONT");
    place.run(&["tenants", "--data", "data"]).succeeded();
}

#[test]
fn a_file_of_that_name_that_is_no_socket_ends_the_daemon_with_73_and_is_left_as_it_is() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let diary = place.write("data/control.sock", "a diary");
    let ended = Process::spawn(&mut place.daemon()).ended().with(73);
    assert!(ended.err.contains("cannot listen on the control socket "), "{}", ended.err);
    assert!(ended.err.contains("there is something of that name that is no socket; move it away"), "{}", ended.err);
    assert_eq!(std::fs::read_to_string(diary).unwrap(), "a diary");
}

#[test]
#[cfg(target_os = "linux")]
fn a_path_longer_than_a_sockets_may_be_is_no_hindrance() {
    let place = Place::new();
    let data = format!("{}/data", "long".repeat(50));
    let mut daemon = Process::spawn(
        place
            .command(&["run", "--data", &data])
            .envs([("HEADWORKS__LOG__FORMAT", "json"), ("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0")])
            .env("HEADWORKS__ADMIN__LISTEN", ""),
    );
    send(daemon.listens(), &lines("acme", 0..3));
    let found = std::fs::metadata(place.path(&data).join("control.sock")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    place.json(&["tenants", "--data", &data, "--json"]);
    assert_eq!(place.json(&["audit", "--data", &data, "--json"])["scope"], "journal");
    daemon.terminated().succeeded();
    assert!(!place.path(&data).join("control.sock").exists());
    assert_eq!(place.json(&["tenants", "--data", &data, "--json"])[0]["events"], 3);
}

#[test]
fn a_daemon_waits_for_a_command_that_reads_the_files() {
    let place = Place::new();
    busy(&place).terminated().succeeded();
    let lock = File::open(place.data().join("headworks.lock")).unwrap();
    lock.lock_shared().unwrap();
    // Others may read too.
    place.run(&["tenants", "--data", "data"]).succeeded();
    let mut daemon = Process::spawn(&mut place.daemon());
    daemon.says("waiting for a command that reads the data directory");
    drop(lock);
    daemon.listens();
    daemon.terminated().succeeded();
}

#[test]
fn an_error_is_told_as_a_problem() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__JOURNAL__TYPE", "memory"));
    daemon.listens();
    for (method, target, status, says) in [
        ("GET", "/v1/nothing", 404, "there is no /v1/nothing; this is headworks "),
        ("PUT", "/v1/tenants", 405, "/v1/tenants does not answer to PUT"),
        ("POST", "/v1/tenants", 415, "Content-Type"),
        ("GET", "/v1/tenants/nobody", 404, "there is no tenant nobody"),
        ("POST", "/v1/tenants/nobody/stop", 404, "there is no tenant nobody in the running daemon"),
        ("GET", "/v1/tenants/nobody/stop", 405, "/v1/tenants/nobody/stop does not answer to GET"),
        ("POST", "/v1/tenants/nobody/shoot", 400, "unknown variant `shoot`, expected one of `resume`, `stop`"),
        ("GET", "/v1/tenants/%2e.%2fetc", 400, "is no tenant id"),
        ("GET", "/v1/dead-letters?limit=0", 400, "limit is 0; it must be at least 1"),
        ("GET", "/v1/dead-letters?limits=1", 400, "unknown field `limits`"),
        ("GET", "/v1/dead-letters?reason=bad", 400, "valid: empty, "),
        ("GET", "/v1/dead-letters?tenant=-", 400, "must begin with a letter or a digit"),
        ("GET", "/v1/dead-letters/no/such", 404, "there is no dead letter \"no/such\""),
        ("GET", "/v1/journal", 404, "this daemon keeps its journal in memory"),
    ] {
        let (head, body) = asked(&place, method, target);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{target}: {head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert_eq!((&body["type"], &body["status"]), (&"about:blank".into(), &status.into()), "{body}");
        assert!(body["detail"].as_str().unwrap().contains(says), "{target}: {body}");
    }
    daemon.terminated().succeeded();
}

#[test]
fn a_tenant_is_told_with_how_it_is_now() {
    let place = Place::new();
    let daemon = busy(&place);
    let (_, acme) = asked(&place, "GET", "/v1/tenants/acme");
    assert_eq!((&acme["tenant"], &acme["events"], &acme["live"]["accepted"]), (&"acme".into(), &3.into(), &3.into()));
    let (_, all) = asked(&place, "GET", "/v1/tenants");
    let names: Vec<_> = all.as_array().unwrap().iter().map(|tenant| tenant["tenant"].clone()).collect();
    assert_eq!(names, ["acme".into(), "b".into(), Value::Null]);
    assert_eq!(all[0], acme);
    daemon.terminated().succeeded();
}
