//! Acknowledgements over TCP: what is answered is so, nothing is lost and nothing is stored twice, whatever breaks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod proxy;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::rig::{Ended, Place, Process, connect, lines, send, sorted};

use proxy::Proxy;

/// A client that asks, from its first line on.
struct Client {
    connection: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Client {
    fn hello(to: SocketAddr, rest: &str) -> Self {
        let connection = connect(to);
        let answers = BufReader::new(connection.try_clone().unwrap());
        let client = Self { connection, answers };
        client.send(format!("headworks-ack/1 {rest}\n").as_bytes());
        client
    }

    fn send(&self, bytes: &[u8]) {
        (&self.connection).write_all(bytes).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads answers until these positions have theirs; the answer is what each was told.
    fn answered(&mut self, positions: std::ops::RangeInclusive<u64>) -> BTreeMap<u64, String> {
        let mut told = BTreeMap::new();
        while !positions.clone().all(|position| told.contains_key(&position)) {
            told.extend(read(&self.answer()));
        }
        told
    }

    /// Closes this half and reads to the end.
    fn end(mut self) -> BTreeMap<u64, String> {
        self.connection.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.answers.read_to_string(&mut rest).unwrap();
        let answers = rest.strip_suffix("end\n").unwrap();
        answers.lines().flat_map(read).collect()
    }
}

/// What a line of answer says of each position.
fn read(line: &str) -> Vec<(u64, String)> {
    let words: Vec<_> = line.split(' ').collect();
    let (positions, said) = match words[..] {
        ["ack", positions] => (positions, "ack"),
        ["nack", positions, code, ..] => (positions, code),
        ["alive"] => return vec![],
        _ => panic!("{line:?}"),
    };
    let (from, to) = positions.split_once('-').unwrap_or((positions, positions));
    (from.parse().unwrap()..=to.parse().unwrap()).map(|position| (position, said.to_owned())).collect()
}

fn told<const N: usize>(answers: [(u64, &str); N]) -> BTreeMap<u64, String> {
    answers.map(|(position, said)| (position, said.to_owned())).into()
}

fn send_acked(place: &Place, to: SocketAddr, words: &[&str]) -> Ended {
    place.run(&[&["send", "--to", &to.to_string(), "--ack", "stored"], words].concat())
}

#[test]
fn an_acknowledgement_of_stored_comes_when_it_is_stored_and_a_bad_frame_is_refused_by_its_name() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let mut client = Client::hello(daemon.listens(), "stream=s next=1 level=stored");
    assert_eq!(client.answer(), "ok last=0 next=1");
    client.send(&[lines("acme", 0..2), b"no JSON\n{\"tenant\":\"a/b\"}\n".to_vec()].concat());
    assert_eq!(client.answered(1..=4), told([(1, "ack"), (2, "ack"), (3, "bad_json"), (4, "bad_tenant")]));
    // At this very moment.
    assert_eq!(place.stored(), sorted(&lines("acme", 0..2)).0);
    assert!(client.end().is_empty());
    daemon.terminated().succeeded();
}

#[test]
fn a_bad_frame_is_refused_once_its_dead_letter_is_kept_and_a_kill_before_that_has_it_sent_again() {
    for level in ["received", "journaled"] {
        let place = Place::new();
        let mut daemon = Process::spawn(&mut place.daemon());
        let to = daemon.listens();
        send(to, &lines("before", 0..1));
        place.until("SELECT count(*) FROM events", 1);
        let lock = place.database();
        lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut client = Client::hello(to, &format!("stream=s next=1 level={level}"));
        assert_eq!(client.answer(), "ok last=0 next=1");
        client.send(&[b"no JSON\n".to_vec(), lines("acme", 0..1)].concat());
        assert_eq!(client.answer(), "ack 2", "what is good does not wait for it");
        daemon.kill();
        lock.execute_batch("ROLLBACK").unwrap();
        drop(lock);

        let mut daemon = Process::spawn(&mut place.daemon());
        let mut client = Client::hello(daemon.listens(), &format!("stream=s next=1 level={level}"));
        assert_eq!(client.answer(), "ok last=0 next=1", "{level}: nothing is on record of the frame that was lost");
        client.send(&[b"no JSON\n".to_vec(), lines("acme", 0..1)].concat());
        assert_eq!(client.answered(1..=2), told([(1, "bad_json"), (2, "ack")]));
        // At this very moment.
        assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE body = 'no JSON'"), 1);
        assert!(client.end().is_empty());
        daemon.terminated().succeeded();
        let stored = place.stored();
        if level == "journaled" {
            assert_eq!(stored["acme"].len(), 1, "what was acknowledged is there once");
        }
        assert_eq!(place.json(&["audit", "--data", "data", "--json"])["holds"], true);
    }
}

#[test]
fn while_the_store_is_away_received_is_acknowledged_and_stored_is_not() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "200ms"));
    let to = daemon.listens();
    send(to, &lines("before", 0..1));
    place.until("SELECT count(*) FROM events", 1);
    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();

    let mut stored = Client::hello(to, "stream=stored next=1 level=stored");
    assert_eq!(stored.answer(), "ok last=0 next=1");
    stored.send(&lines("acme", 0..1));
    let mut received = Client::hello(to, "stream=received next=1 level=received");
    assert_eq!(received.answer(), "ok last=0 next=1");
    received.send(&lines("acme", 1..2));
    assert_eq!(received.answer(), "ack 1");
    stored.connection.set_nonblocking(true).unwrap();
    assert!(stored.connection.peek(&mut [0]).is_err(), "nothing is said of what is not stored");
    stored.connection.set_nonblocking(false).unwrap();

    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(stored.answered(1..=1), told([(1, "ack")]));
    daemon.terminated().succeeded();
    assert_eq!(place.number("SELECT count(*) FROM events"), 3);
}

#[test]
fn whoever_sends_everything_from_the_beginning_again_has_it_stored_once() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    for (answer, end) in [("ok last=0 next=1", 40), ("ok last=40 next=1", 100), ("ok last=100 next=1", 100)] {
        let mut client = Client::hello(to, "stream=s next=1 level=stored");
        // Sent without waiting for the answer.
        client.send(&lines("acme", 0..end));
        assert_eq!(client.answer(), answer);
        let told = client.end();
        assert!(told.values().all(|said| said == "ack"), "{told:?}");
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=end as u64).collect::<Vec<_>>());
    }
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..100)).0);
}

#[test]
fn a_client_that_skips_goes_on_where_the_server_is_and_is_answered_from_where_it_asks() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let mut first = Client::hello(to, "stream=s next=1 level=stored skip=yes");
    assert_eq!(first.answer(), "ok last=0 next=1");
    first.send(&lines("acme", 0..5));
    first.answered(1..=5);
    let mut second = Client::hello(to, "stream=s next=3 level=stored skip=yes");
    assert_eq!(second.answer(), "ok last=5 next=6");
    second.send(&lines("acme", 5..7));
    assert_eq!(second.answered(3..=7).keys().copied().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    // Of a stream that it never heard of it believes what the client says.
    let mut third = Client::hello(to, "stream=other next=100 level=stored");
    assert_eq!(third.answer(), "ok last=99 next=100");
    third.send(&lines("acme", 7..8));
    assert_eq!(third.end(), told([(100, "ack")]));
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..8)).0);
}

#[test]
fn a_second_connection_takes_the_stream_over_and_the_first_is_told() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let mut first = Client::hello(to, "stream=s next=1 level=received");
    assert_eq!(first.answer(), "ok last=0 next=1");
    // The beginning of a frame that its sender will never end here.
    first.send(&[lines("acme", 0..1), b"{\"tenant\":".to_vec()].concat());
    assert_eq!(first.answer(), "ack 1");
    let mut second = Client::hello(to, "stream=s next=2 level=received");
    assert_eq!(second.answer(), "ok last=1 next=2");
    assert_eq!(first.answer(), "error another connection has taken this stream over");
    second.send(&lines("acme", 1..2));
    assert_eq!(second.end(), told([(2, "ack")]));
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..2)).0);
    assert_eq!(place.json(&["dead-letters", "list", "--data", "data", "--json"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_wrong_first_line_is_answered_with_what_is_wrong_and_costs_nothing() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    for (rest, why) in [
        ("stream=s next=0 level=stored", "error next=\"0\" is no position"),
        ("stream=s next=1 level=safe", "error there is no level \"safe\""),
        ("level=stored", "error stream= is missing"),
    ] {
        let mut client = Client::hello(to, rest);
        client.send(&lines("acme", 0..1_000));
        let answer = client.answer();
        assert!(answer.starts_with(why), "{answer}");
        assert_eq!(client.answer(), "");
    }
    daemon.terminated().succeeded();
    assert_eq!(place.number("SELECT count(*) FROM events"), 0);
}

#[test]
fn frames_that_follow_their_length_are_acknowledged_and_passed_over_like_lines() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__SOURCES__TCP__FRAMING", "length_prefixed"));
    let to = daemon.listens();
    let framed = |numbers| {
        let input = lines("acme", numbers);
        let frames = input.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
        let frame = |frame: &[u8]| [&u32::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat();
        frames.flat_map(frame).collect::<Vec<_>>()
    };
    for (last, end) in [(0, 3), (3, 7)] {
        let mut client = Client::hello(to, "stream=s next=1 level=stored");
        client.send(&framed(0..end));
        assert_eq!(client.answer(), format!("ok last={last} next=1"));
        assert_eq!(client.end().len(), end);
    }
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..7)).0);
}

#[test]
fn a_client_that_never_reads_its_answers_costs_nobody_else_anything() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let deaf = Client::hello(to, "stream=deaf next=1 level=stored");
    deaf.send(&lines("acme", 0..10_000));
    place.until("SELECT count(*) FROM events", 10_000);
    let mut other = Client::hello(to, "stream=other next=1 level=stored");
    other.send(&lines("umbrella", 0..10));
    assert_eq!(other.answer(), "ok last=0 next=1");
    assert_eq!(other.end().len(), 10);
    daemon.terminated().succeeded();
    assert_eq!(place.number("SELECT count(*) FROM events"), 10_010);
}

#[test]
fn a_file_that_is_sent_again_is_not_stored_again_and_what_was_appended_is() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let input = place.generated(&["--events", "8000", "--tenants", "4"]);
    place.write("input", &input);
    let sent = send_acked(&place, to, &["input"]).succeeded();
    assert!(sent.err.contains("8,000 lines") && sent.err.contains("8,000 stored"), "{}", sent.err);
    send_acked(&place, to, &["input"]).succeeded();
    let more = lines("more", 0..100);
    place.write("input", [&input[..], &more].concat());
    let sent = send_acked(&place, to, &["input"]).succeeded();
    assert!(sent.err.contains("8,100 stored"), "{}", sent.err);
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&[input, more].concat()).0);
}

#[test]
fn lines_that_are_refused_are_named_and_the_others_are_stored() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let input = [lines("acme", 0..2), b"oops\n".to_vec(), lines("acme", 2..3), b"{}".to_vec()].concat();
    place.write("input", &input);
    let ended = send_acked(&place, daemon.listens(), &["input"]).with(1);
    for words in ["3 stored", "2 refused", "1 bad_json: lines 3", "1 no_tenant: lines 5", "2 lines were refused"] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..3)).0);
}

#[test]
fn over_a_line_that_breaks_again_and_again_everything_arrives_once_and_in_order() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let input = place.generated(&["--events", "20000", "--tenants", "4"]);
    place.write("input", &input);
    // Each connection breaks after so many bytes of the client's: in first lines and in frames, everywhere.
    let mut rng = fastrand::Rng::with_seed(11);
    let cuts: Vec<_> =
        (0..12).map(|nth| if nth < 3 { 20 * nth } else { rng.u64(100..input.len() as u64 / 6) }).collect();
    let breaks = cuts.len();
    let proxy = Proxy::between(daemon.listens(), cuts);
    let sent = send_acked(&place, proxy.address(), &["--give-up-after", "10m", "input"]).succeeded();
    assert!(sent.err.contains("20,000 stored"), "{}", sent.err);
    assert!(proxy.broken() >= breaks - 3, "{}", proxy.broken());
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&input).0);
}

#[test]
fn over_the_kill_of_the_daemon_everything_is_stored_once_and_in_order() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "50");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let words = ["send", "--to", &to.to_string(), "--ack", "stored", "--give-up-after", "10m", "-"];
    let mut sender = Process::spawn(&mut place.command(&words));
    command.env("HEADWORKS__SOURCES__TCP__LISTEN", to.to_string());
    for part in 0..3 {
        sender.stdin(&lines("acme", part * 2_000..(part + 1) * 2_000));
        place.until("SELECT count(*) FROM events", part as i64 * 2_000 + 500);
        daemon.kill();
        daemon = Process::spawn(&mut command);
        daemon.listens();
    }
    let sent = sender.feed(&lines("acme", 6_000..6_100)).ended().succeeded();
    assert!(sent.err.contains("6,100 stored"), "{}", sent.err);
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..6_100)).0);
}

#[test]
fn an_interrupt_tells_what_is_not_acknowledged_and_how_to_go_on() {
    let place = Place::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    let words = ["send", "--to", &to, "--ack", "stored", "--stream", "mine", "-"];
    let mut sender = Process::spawn(&mut place.command(&words));
    sender.stdin(&lines("acme", 0..5));
    let mut client = BufReader::new(server.accept().unwrap().0);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    client.get_ref().write_all(b"ok last=0 next=1\n").unwrap();
    for _ in 0..5 {
        client.read_line(&mut line).unwrap();
    }
    sender.signal("INT");
    let ended = sender.ended().with(1);
    for words in ["interrupted", "5 not acknowledged", "not acknowledged is 1", "--stream mine"] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
}

#[test]
fn the_client_in_the_specification_is_told_when_to_come_again_with_what_was_throttled() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("there is no python3 here");
        return;
    }
    let place = Place::new();
    let specification = include_str!("../../docs/TCP_ACKNOWLEDGEMENTS.md");
    let code = specification.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    place.write("client.py", code);
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__DEFAULTS__THROTTLE__EVENTS_PER_SECOND", "1");
    command.env("HEADWORKS__TENANTS__DEFAULTS__THROTTLE__BURST_EVENTS", "4");
    command.env("HEADWORKS__TENANTS__DEFAULTS__THROTTLE__WHEN_OVER", "reject");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    place.write("input", lines("acme", 0..1_000));
    let mut python = Command::new("python3");
    python.args(["client.py", &host, &port, "s", "input"]).current_dir(place.path(""));
    let printed = Process::spawn(&mut python).ended().succeeded().text();
    let nack = printed.lines().find(|line| line.starts_with("nack")).unwrap();
    let (_, after) = nack.split_once(" throttled retry_after=").unwrap();
    assert!((1..=1_000).contains(&after.parse::<u64>().unwrap()), "{nack}");
    let positions: Vec<_> = printed.strip_suffix("end\n").unwrap().lines().flat_map(read).collect();
    assert_eq!(positions.len(), 1_000, "each is answered once");
    daemon.terminated().succeeded();
    let stored = place.stored()["acme"].len();
    assert_eq!(positions.iter().filter(|(_, said)| said == "ack").count(), stored);
    assert!((4..1_000).contains(&stored), "{stored}");
}

#[test]
fn the_client_in_the_specification_works() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("there is no python3 here");
        return;
    }
    let place = Place::new();
    let specification = include_str!("../../docs/TCP_ACKNOWLEDGEMENTS.md");
    let code = specification.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    place.write("client.py", code);
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    for end in [10, 25] {
        place.write("input", lines("acme", 0..end));
        let mut python = Command::new("python3");
        python.args(["client.py", &host, &port, "s", "input"]).current_dir(place.path(""));
        let printed = Process::spawn(&mut python).ended().succeeded().text();
        let positions: Vec<_> = printed.strip_suffix("end\n").unwrap().lines().flat_map(read).collect();
        assert_eq!(positions.len(), end, "{printed}");
        assert!(positions.iter().all(|(_, said)| said == "ack"), "{printed}");
    }
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..25)).0);
}

#[test]
fn positions_end_at_the_largest_signed_number_and_what_is_beyond_is_refused_in_words() {
    const LAST: u64 = i64::MAX as u64;
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let to = daemon.listens();
    for next in [LAST + 1, u64::MAX] {
        let refused = Client::hello(to, &format!("stream=s next={next} level=stored")).answer();
        assert_eq!(refused, format!("error next=\"{next}\" is no position: a whole number from 1 to {LAST}"));
    }
    let refused = Client::hello(to, "stream=s next=18446744073709551616 level=stored").answer();
    assert!(refused.ends_with("is no position: a whole number from 1 to 9223372036854775807"), "{refused}");
    let mut client = Client::hello(to, &format!("stream=s next={} level=stored", LAST - 1));
    assert_eq!(client.answer(), format!("ok last={} next={}", LAST - 2, LAST - 1));
    client.send(&lines("acme", 0..4));
    assert_eq!(client.answered(LAST - 1..=LAST), told([(LAST - 1, "ack"), (LAST, "ack")]));
    let refused = client.answer();
    assert!(
        refused.starts_with("error the positions of this stream are used up: they end at 9223372036854775807"),
        "{refused}"
    );
    // Nothing of that comes to harm, or to the store.
    let mut client = Client::hello(to, &format!("stream=s next={LAST} level=stored skip=yes"));
    assert!(client.answer().starts_with("error the positions of this stream are used up"));
    daemon.terminated().succeeded();
    assert_eq!(place.stored(), sorted(&lines("acme", 0..2)).0);
}
