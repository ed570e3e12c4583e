//! Against a server that does as its script says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use headworks::source::ack::Hello;

use super::*;

/// What the server does with a connection: it gets the first line, and what is left to be read.
type Scene = Box<dyn FnOnce(Hello, BufReader<TcpStream>) + Send>;

fn scene(scene: impl FnOnce(Hello, BufReader<TcpStream>) + Send + 'static) -> Scene {
    Box::new(scene)
}

fn say(connection: &BufReader<TcpStream>, lines: &str) {
    connection.get_ref().write_all(lines.as_bytes()).unwrap();
}

fn line(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    line
}

fn rest(connection: &mut BufReader<TcpStream>) -> String {
    let mut rest = String::new();
    connection.read_to_string(&mut rest).unwrap();
    rest
}

struct Sent {
    result: Result<(), Failure>,
    window: Window,
    connections: u64,
}

/// One connection a scene; the listener is gone after the last.
fn server(scenes: impl IntoIterator<Item = Scene>) -> (String, JoinHandle<()>) {
    let mut scenes: VecDeque<_> = scenes.into_iter().collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        while let Some(scene) = scenes.pop_front() {
            let (connection, _) = listener.accept().unwrap();
            let mut connection = BufReader::new(connection);
            let hello: Hello = line(&mut connection).trim_end().parse().unwrap();
            assert_eq!((hello.stream.as_str(), hello.level, hello.skip), ("s", AckLevel::Stored, true));
            scene(hello, connection);
        }
    });
    (to, server)
}

fn sent_within(
    input: &str,
    give_up_after: Duration,
    silence: Duration,
    scenes: impl IntoIterator<Item = Scene>,
) -> Sent {
    let (to, server) = server(scenes);
    let options = Options { to, stream: "s".parse().unwrap(), level: AckLevel::Stored, silence };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut window, mut connections) = (Window::new(LIMIT), 0);
    let mut input = Input::new(input::read(std::io::Cursor::new(input.to_owned())).unwrap());
    let bar = ProgressBar::hidden();
    let sending = send(&options, give_up_after, &mut window, &mut input, &mut connections, &bar);
    let result = runtime.block_on(sending);
    server.join().unwrap();
    Sent { result, window, connections }
}

fn sent(input: &str, scenes: impl IntoIterator<Item = Scene>) -> Sent {
    sent_within(input, Duration::from_secs(60), SILENCE, scenes)
}

#[test]
fn all_is_sent_and_its_answers_are_waited_for() {
    let sent = sent(
        "a\nb\nc",
        [scene(|hello, mut connection| {
            assert_eq!(hello.next, 1);
            say(&connection, "ok last=0 next=1\n");
            assert_eq!(rest(&mut connection), "a\nb\nc\n", "the last line is given its end");
            say(&connection, "alive\nsome later word\nack 2-3\nack 1\nend\n");
        })],
    );
    assert!(sent.result.is_ok(), "{:?}", sent.result);
    assert_eq!((sent.window.answered(), sent.connections), (3, 1));
}

#[test]
fn after_a_break_it_goes_on_behind_what_the_server_has_and_asks_for_the_answers_it_missed() {
    let sent = sent(
        "a\nb\nc\nd\n",
        [
            scene(|_, mut connection| {
                say(&connection, "ok last=0 next=1\n");
                assert_eq!((line(&mut connection), line(&mut connection)), ("a\n".to_owned(), "b\n".to_owned()));
                say(&connection, "ack 1\n");
                // The client may still be writing: nothing of it arrives.
            }),
            scene(|hello, mut connection| {
                // Whether the acknowledgement got there before the end, only the client knows.
                assert!([1, 2].contains(&hello.next));
                say(&connection, "ok last=2 next=3\n");
                assert_eq!(rest(&mut connection), "c\nd\n");
                say(&connection, "ack 1-4\nend\n");
            }),
        ],
    );
    assert!(sent.result.is_ok(), "{:?}", sent.result);
    assert_eq!((sent.window.answered(), sent.connections), (4, 2));
}

#[test]
fn refused_lines_are_answered_lines_and_counted_by_their_reason() {
    let sent = sent(
        "a\nb\nc\nd\n",
        [scene(|_, mut connection| {
            say(&connection, "ok last=0 next=1\n");
            rest(&mut connection);
            say(&connection, "ack 1\nnack 2-3 bad_json\nnack 4 code_of_a_later_version\nend\n");
        })],
    );
    assert!(sent.result.is_ok(), "{:?}", sent.result);
    let refused: Vec<_> = sent.window.refused().iter().map(|(code, refused)| (code.as_str(), refused.frames)).collect();
    assert_eq!(refused, [("bad_json", 2), ("code_of_a_later_version", 1)]);
}

#[test]
fn a_server_that_says_nothing_any_more_is_left_for_a_new_connection() {
    let sent = sent_within(
        "a\n",
        Duration::from_secs(60),
        Duration::from_millis(50),
        [
            scene(|_, mut connection| {
                say(&connection, "ok last=0 next=1\n");
                // Silent until the client goes.
                assert_eq!(rest(&mut connection), "a\n");
                assert_eq!(connection.get_ref().read(&mut [0]).unwrap(), 0);
            }),
            scene(|hello, mut connection| {
                assert_eq!(hello.next, 1);
                say(&connection, "ok last=1 next=2\nack 1\n");
                assert_eq!(rest(&mut connection), "");
                say(&connection, "end\n");
            }),
        ],
    );
    assert!(sent.result.is_ok(), "{:?}", sent.result);
    assert_eq!(sent.connections, 2);
}

#[test]
fn a_server_that_closes_before_all_is_answered_is_asked_again() {
    let sent = sent(
        "a\nb\n",
        [
            scene(|_, mut connection| {
                say(&connection, "ok last=0 next=1\n");
                assert_eq!(rest(&mut connection), "a\nb\n");
                say(&connection, "ack 2\nend\n");
            }),
            scene(|_, connection| say(&connection, "end\n")),
            scene(|hello, mut connection| {
                assert_eq!(hello.next, 1);
                say(&connection, "ok last=2 next=3\nack 1\n");
                assert_eq!(rest(&mut connection), "");
            }),
        ],
    );
    assert!(sent.result.is_ok(), "{:?}", sent.result);
}

#[test]
fn a_server_that_has_forgotten_is_sent_what_was_not_answered_and_nothing_else() {
    let sent = sent(
        "a\nb\nc\n",
        [
            scene(|_, mut connection| {
                say(&connection, "ok last=0 next=1\n");
                rest(&mut connection);
                say(&connection, "ack 2\nend\n");
            }),
            scene(|hello, mut connection| {
                assert_eq!(hello.next, 1);
                say(&connection, "ok last=0 next=1\n");
                assert_eq!(rest(&mut connection), "a\n");
            }),
            scene(|hello, mut connection| {
                assert_eq!(hello.next, 3);
                say(&connection, "ok last=2 next=3\n");
                assert_eq!(rest(&mut connection), "c\n");
                say(&connection, "ack 1-3\nend\n");
            }),
        ],
    );
    assert!(sent.result.is_ok(), "{:?}", sent.result);
    assert_eq!(sent.connections, 3);
}

#[test]
fn what_the_server_says_no_to_is_not_tried_again() {
    let sent = sent("a\n", [scene(|_, connection| say(&connection, "error no such level here\n"))]);
    let Err(Failure::Refused { why, .. }) = sent.result else { panic!("{:?}", sent.result) };
    assert_eq!(why, "no such level here");
}

#[test]
fn an_answer_to_what_was_never_sent_ends_it_and_is_named() {
    let sent = sent(
        "a\n",
        [scene(|_, mut connection| {
            say(&connection, "ok last=0 next=1\n");
            line(&mut connection);
            say(&connection, "ack 1-9\n");
            rest(&mut connection);
        })],
    );
    let Err(Failure::Refused { why, .. }) = sent.result else { panic!("{:?}", sent.result) };
    assert!(why.contains("an answer to 9, which was not sent"), "{why}");
}

#[test]
fn a_server_of_another_kind_is_told_by_its_first_words() {
    let sent = sent("a\n", [scene(|_, connection| say(&connection, "HTTP/1.1 400 Bad Request\r\n"))]);
    let Err(Failure::Refused { why, .. }) = sent.result else { panic!("{:?}", sent.result) };
    assert!(why.contains("HTTP/1.1 400"), "{why}");
}

#[test]
fn an_input_that_is_shorter_than_what_was_sent_before_is_another_input() {
    let sent = sent(
        "a\n",
        [scene(|_, mut connection| {
            say(&connection, "ok last=7 next=8\nack 1-7\n");
            rest(&mut connection);
            say(&connection, "end\n");
        })],
    );
    let Err(failure @ Failure::Shorter { lines: 1, had: 7, .. }) = sent.result else { panic!("{:?}", sent.result) };
    assert!(failure.to_string().contains("--stream"), "{failure}");
}

#[test]
fn without_a_connection_that_lasts_it_gives_up() {
    let drop_it = || scene(|_, connection| connection.get_ref().shutdown(Shutdown::Both).unwrap());
    let sent = sent_within("a\n", Duration::from_millis(1), SILENCE, [drop_it()]);
    let Err(failure @ Failure::GaveUp { .. }) = sent.result else { panic!("{:?}", sent.result) };
    assert_eq!(failure.exit(), Exit::Unavailable);
}
