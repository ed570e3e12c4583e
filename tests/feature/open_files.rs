//! How many files the daemon may have open, and who gets them.

use std::io::Write;
use std::process::Command;

use crate::rig::{Place, Process, connect, lines};

/// The daemon under limits of its own, as `ulimit` sets them.
fn limited(place: &Place, ulimit: &str) -> Process {
    let daemon = place.daemon();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ulimit}; exec \"$0\" \"$@\"")]);
    command.arg(daemon.get_program()).args(daemon.get_args()).current_dir(place.path(""));
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Process::spawn(&mut command)
}

#[test]
fn the_stores_and_the_admin_api_have_files_to_open_however_many_connections_there_are() {
    let place = Place::new();
    let mut daemon = limited(&place, "ulimit -n 200");
    let to = daemon.listens();
    // Half of so few is kept.
    let mut taken: Vec<_> = (0..100).map(|_| connect(to)).collect();
    let waiting: Vec<_> = (0..100).map(|_| connect(to)).collect();
    let full = daemon.says("all connections are taken; further ones wait until one ends");
    assert_eq!(full["max_connections"], 100);
    taken[99].write_all(&lines("acme", 0..10)).unwrap();
    place.until("SELECT count(*) FROM events", 10);
    assert_eq!(place.run(&["ready", "--data", "data"]).succeeded().text(), "ready\n");
    drop(waiting);
    drop(taken);
    let ended = daemon.terminated().succeeded();
    assert!(!ended.err.contains("Too many open files"), "{}", ended.err);
    for says in ["1024 connections (the sum", "200 open files: 100 are kept", "only 100 connections are accepted"] {
        assert!(ended.err.contains(says), "{}", ended.err);
    }
}

#[test]
fn the_limit_is_raised_as_far_as_it_may_be() {
    let place = Place::new();
    let mut daemon = limited(&place, "ulimit -S -n 150; ulimit -H -n 2048");
    daemon.listens();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["Max", "open", "files", "2048", "2048", "files"]);
    let ended = daemon.terminated().succeeded();
    assert!(!ended.err.contains("are kept"), "{}", ended.err);
}
