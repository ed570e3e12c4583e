//! The data directory: its owner's alone, and one process's at a time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::rig::{Place, Process, lines, send};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_directory_and_every_file_in_it_are_readable_by_their_owner_alone() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    send(daemon.listens(), &lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    assert_eq!(mode(&place.data()), 0o700);
    let files: Vec<_> = std::fs::read_dir(place.data()).unwrap().map(|file| file.unwrap().path()).collect();
    for file in &files {
        let expected = if file.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(file), expected, "{}", file.display());
    }
    assert!(files.contains(&place.data().join("headworks.db-wal")), "{files:?}");
    daemon.terminated().succeeded();
}

#[test]
fn a_second_daemon_on_one_directory_ends_with_69_and_names_the_first() {
    let place = Place::new();
    let mut first = Process::spawn(&mut place.daemon());
    let to = first.listens();
    let second = Process::spawn(&mut place.daemon()).ended().with(69);
    assert!(second.err.contains(&format!("in use by process {};", first.id())), "{}", second.err);
    place.write("input", lines("acme", 0..1));
    place.run(&["run", "--data", "data", "--input", "input"]).with(69);
    // The first one is none the worse for it.
    send(to, &lines("acme", 0..3));
    first.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 3);
    place.run(&["run", "--data", "data", "--input", "input"]).succeeded();
}

#[test]
fn a_port_that_is_taken_ends_it_with_69_and_is_named() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Process::spawn(place.daemon().env("HEADWORKS__SOURCES__TCP__LISTEN", &address)).ended().with(69);
    assert!(ended.err.contains(&format!("source tcp cannot listen on {address}: ")), "{}", ended.err);
    assert!(ended.err.contains("is another program there, or another headworks?"), "{}", ended.err);
}

#[test]
fn a_directory_that_cannot_be_made_ends_it_with_73() {
    let place = Place::new();
    place.write("file", "");
    let ended = place.run(&["run", "--data", "file/data"]).with(73);
    assert!(ended.err.contains("cannot use the data directory file/data: "), "{}", ended.err);
}

#[test]
fn a_file_that_is_no_database_of_ours_ends_it_with_74_and_is_left_as_it_is() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let text = "a diary, say, and not a short one: ".repeat(100);
    let diary = place.write("data/headworks.db", &text);
    let ended = place.run(&["run", "--data", "data"]).with(74);
    assert!(ended.err.contains("is not a SQLite database; it was left as it is"), "{}", ended.err);
    assert_eq!(std::fs::read_to_string(diary).unwrap(), text);
}

#[test]
fn a_daemon_whose_database_somebody_else_holds_says_so_waits_and_starts_once_it_is_free() {
    let place = Place::new();
    place.take_in(&lines("acme", 0..1));
    let other = place.database();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__STORE__BUSY_TIMEOUT", "5ms"));
    let told = daemon.says("waiting for the database, which another process holds locked");
    assert!(told["database"].as_str().unwrap().ends_with("headworks.db"), "{told}");
    assert_eq!(told["at_most"], "30s");
    other.execute_batch("ROLLBACK").unwrap();
    send(daemon.listens(), &lines("acme", 1..3));
    place.until("SELECT count(*) FROM events", 3);
    daemon.terminated().succeeded();
}
