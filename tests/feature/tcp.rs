//! The listener: lines over TCP, in whatever cuts they come.

use std::io::Write;

use crate::rig::{Place, Process, connect, finish, lines, send, sorted};

#[test]
fn lines_in_odd_cuts_are_all_taken_in_before_the_connection_is_closed() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let mut input = place.generated(&["--events", "3000", "--tenants", "4"]);
    input.pop(); // The last line needs no newline where the sender closes its half.

    let mut connection = connect(to);
    connection.set_nodelay(true).unwrap();
    let (mut rest, mut rng) = (input.as_slice(), fastrand::Rng::with_seed(7));
    while !rest.is_empty() {
        let (cut, more) = rest.split_at(rng.usize(1..4_000).min(rest.len()));
        connection.write_all(cut).unwrap();
        rest = more;
    }
    finish(connection);

    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&input).0);
}

#[test]
fn each_of_many_connections_keeps_its_order() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    std::thread::scope(|scope| {
        for tenant in ["a", "b", "c", "d", "e"] {
            scope.spawn(move || send(to, &lines(tenant, 0..2_000)));
        }
    });
    daemon.terminated().succeeded();
    let expected: Vec<_> = ["a", "b", "c", "d", "e"].iter().flat_map(|tenant| lines(tenant, 0..2_000)).collect();
    assert_eq!(place.stored(), sorted(&expected).0);
}

#[test]
fn what_is_sent_is_stored_while_the_daemon_goes_on() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    send(daemon.listens(), &lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    daemon.terminated().succeeded();
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_line_costs_that_line_alone() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let ending = connect(to);
    (&ending).write_all(&[lines("acme", 0..3), b"{\"tenant\":\"ac".to_vec()].concat()).unwrap();
    place.until("SELECT count(*) FROM events", 3);
    finish(ending);
    send(to, &lines("acme", 3..6));
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..6)).0);
    let letters = place.json(&["dead-letters", "list", "--data", "data", "--json"]);
    assert_eq!(letters[0]["body"], "{\"tenant\":\"ac");
    assert_eq!(letters.as_array().unwrap().len(), 1);
}

#[test]
fn send_streams_a_file_or_stdin_and_returns_once_it_is_taken_in() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens().to_string();
    let input = place.generated(&["--events", "8000", "--tenants", "4"]);
    place.write("input", &input);
    let sent = place.run(&["send", "--to", &to, "input"]).succeeded();
    assert!(sent.err.contains("8,000 lines"), "{}", sent.err);
    let more = lines("more", 0..100);
    Process::spawn(&mut place.command(&["send", "--to", &to, "-"])).feed(&more).ended().succeeded();
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&[input, more].concat()).0);
}

#[test]
fn send_to_nobody_ends_with_69_and_says_what_helps() {
    let place = Place::new();
    place.write("input", lines("acme", 0..1));
    // A port that takes an administrator to listen on.
    let nobody = "127.0.0.1:1";
    let ended = place.run(&["send", "--to", nobody, "input"]).with(69);
    assert!(ended.err.contains("is `headworks run` listening there?"), "{}", ended.err);
}

#[test]
fn frames_that_follow_their_length_are_stored_like_lines() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__SOURCES__TCP__FRAMING", "length_prefixed"));
    let input = lines("acme", 0..1_000);
    let frames = input.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').flat_map(|frame| {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        length.into_iter().chain(frame.iter().copied())
    });
    send(daemon.listens(), &frames.collect::<Vec<_>>());
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&input).0);
}
