//! Clients that do not play fair: each is dealt with, is told of, and disturbs nobody else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::{DEADLINE, Place, Process, connect, finish, lines, metric, send, until_metric};

const COUNT: &str = "SELECT count(*) FROM events";

fn start(place: &Place, settings: &[(&str, &str)]) -> (Process, SocketAddr) {
    let mut command = place.daemon();
    for (key, value) in settings {
        command.env(format!("HEADWORKS__SOURCES__TCP__{key}"), value);
    }
    let mut process = Process::spawn(&mut command);
    let to = process.listens();
    (process, to)
}

#[test]
fn garbage_is_kept_as_dead_letters_and_costs_nobody_else_a_line() {
    let place = Place::new();
    let (process, to) = start(&place, &[("MAX_FRAME", "4KiB")]);
    let mut rng = fastrand::Rng::with_seed(7);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let garbage: Vec<u8> = (0..200_000).map(|_| rng.u8(..)).collect();
            scope.spawn(move || send(to, &[&[seed, b'x'], &garbage[..]].concat()));
        }
        scope.spawn(|| send(to, &lines("acme", 0..5_000)));
    });
    place.until(COUNT, 5_000);
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 5_000);
    assert!(place.number("SELECT count(*) FROM dead_letters") > 1_000);
    let audit = place.run(&["audit", "--data", "data"]);
    assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
}

/// Sends a byte of it now and then until the other side has had enough; gives what that said.
fn drip(mut connection: TcpStream, bytes: &[u8]) -> String {
    connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut said, mut answer, began) = (bytes.iter().cycle(), vec![], Instant::now());
    let mut read = [0; 1_000];
    loop {
        assert!(began.elapsed() < DEADLINE, "a drip goes on for ever");
        match connection.read(&mut read) {
            Ok(0) => return String::from_utf8(answer).unwrap(),
            Ok(more) => answer.extend_from_slice(&read[..more]),
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let _ = said.next().map(|byte| connection.write_all(&[*byte]));
            }
            // It was closed with a byte on its way.
            Err(_) => return String::from_utf8(answer).unwrap(),
        }
    }
}

#[test]
fn a_drip_of_bytes_ends_after_the_idle_timeout_and_whole_lines_do_not() {
    for framing in ["lines", "length_prefixed", "octet_counted"] {
        let place = Place::new();
        let (mut process, to) = start(&place, &[("IDLE_TIMEOUT", "1s"), ("FRAMING", framing)]);
        let frame: &[u8] = match framing {
            "lines" => b"{\"tenant\":\"acme\"}\n",
            "length_prefixed" => b"\0\0\0\x11{\"tenant\":\"acme\"}",
            _ => b"17 {\"tenant\":\"acme\"}",
        };
        // A whole frame at a time, for longer than that.
        let mut steady = connect(to);
        steady.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        for _ in 0..15 {
            steady.write_all(frame).unwrap();
            assert!(steady.read(&mut [0]).is_err_and(|why| why.kind() == ErrorKind::WouldBlock));
        }
        drip(connect(to), if framing == "length_prefixed" { b"\0\0\xff\xff" } else { b"9" });
        let why = process.says("connection ended")["why"].to_string();
        assert!(why.contains("no whole frame came for 1s (idle_timeout)"), "{why}");
        // One that says nothing at all, and one that asks for acknowledgements.
        drip(connect(to), b"");
        process.says("connection ended");
        let mut acked = connect(to);
        acked.write_all(b"headworks-ack/1 stream=s next=1 level=received\n").unwrap();
        let told = drip(acked, b"9");
        assert!(told.contains("error no whole frame came for 1s (idle_timeout)"), "{told}");
        drip(connect(to), b"headworks-ack/1 stream=");
        place.until(COUNT, 15);
        process.terminated().succeeded();
    }
}

#[test]
fn once_all_connections_are_taken_the_next_one_waits_for_one_to_end_and_it_is_told_of() {
    let place = Place::new();
    let (mut process, to) = start(&place, &[("MAX_CONNECTIONS", "3")]);
    let held: Vec<_> = (0..3)
        .map(|n| {
            let mut connection = connect(to);
            connection.write_all(&lines("held", n..n + 1)).unwrap();
            connection
        })
        .collect();
    place.until(COUNT, 3);
    assert_eq!(process.says("all connections are taken; further ones wait until one ends")["max_connections"], 3);
    let mut waiting = connect(to);
    waiting.write_all(&lines("acme", 0..1)).unwrap();
    assert_eq!(metric(&place, "headworks_source_connections{source=\"tcp\"}"), 3);
    held.into_iter().for_each(finish);
    finish(waiting);
    place.until(COUNT, 4);
    process.terminated().succeeded();
}

/// Opens connections, each with a line, and then one that is to be served as if it were alone.
const FLOOD: &str = r#"
import resource, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
for n in range(count):
    held.append(socket.create_connection(("127.0.0.1", port), timeout=110))
    held[-1].sendall(b'{"tenant":"flood","n":%d}\n' % n)
print("open", flush=True)
sys.stdin.readline()
"#;

#[test]
fn ten_thousand_connections_take_bounded_memory_and_others_are_served() {
    let out = Command::new("sh").args(["-c", "ulimit -H -n"]).output().unwrap();
    let limit = String::from_utf8(out.stdout).unwrap().trim().parse::<usize>().unwrap_or(usize::MAX);
    let count = 10_000.min(limit - 1_000);
    let place = Place::new();
    let program = place.daemon();
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={}", count + 900)).arg(program.get_program()).args(program.get_args());
    command.current_dir(place.path(""));
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("HEADWORKS__SOURCES__TCP__MAX_CONNECTIONS", (count + 100).to_string());
    let mut process = Process::spawn(&mut command);
    let to = process.listens();
    send(to, &lines("acme", 0..10));
    place.until(COUNT, 10);
    let before = process.memory();
    let mut flood = Command::new("python3");
    flood.args(["-c", FLOOD, &to.port().to_string(), &count.to_string()]);
    let mut flood = flood.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut open = [0; 4];
    flood.stdout.as_mut().unwrap().read_exact(&mut open).unwrap();
    place.until(COUNT, 10 + count as i64);
    assert_eq!(metric(&place, "headworks_source_connections{source=\"tcp\"}"), count as u64);
    send(to, &lines("acme", 10..1_000));
    place.until(COUNT, 1_000 + count as i64);
    let each = (process.memory() - before) / count as u64;
    println!("{count} connections, {each} bytes each");
    assert!(each < 64 << 10, "{each} bytes a connection");
    drop(flood.stdin.take());
    flood.wait().unwrap();
    until_metric(&place, "headworks_source_connections{source=\"tcp\"}", 0);
    process.terminated().succeeded();
    assert_eq!((place.stored()["acme"].len(), place.stored()["flood"].len()), (1_000, count));
}

#[test]
#[cfg(target_os = "linux")]
fn a_quiet_connection_is_asked_whether_it_is_there_so_that_one_that_is_gone_ends() {
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    let connection = connect(to);
    (&connection).write_all(&lines("acme", 0..1)).unwrap();
    place.until(COUNT, 1);
    // Its line in the list of sockets: the kernel has a timer for keepalive (2) running, of no more than a minute.
    let own = connection.local_addr().unwrap().port();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (format!(":{:04X}", to.port()), format!(":{own:04X}"));
    let is_it = |words: &[&str]| words[1].ends_with(&local) && words[2].ends_with(&remote);
    let found = table.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        is_it(&words).then(|| words[5].to_owned())
    });
    let timer = found.unwrap();
    let (kind, ticks) = timer.split_once(':').unwrap();
    assert_eq!(kind, "02", "{timer}");
    assert!(u64::from_str_radix(ticks, 16).unwrap() <= 6_000, "{timer}");
    finish(connection);
    process.terminated().succeeded();
}

#[test]
fn frames_that_are_counted_are_stored_as_they_come_with_and_without_acknowledgements() {
    let place = Place::new();
    let (process, to) = start(&place, &[("FRAMING", "octet_counted"), ("MAX_FRAME", "64B")]);
    let frame = |n: usize| format!("{{\"tenant\":\"acme\",\"n\":{n}}}");
    let counted: String = (0..500).map(|n| format!("{} {}", frame(n).len(), frame(n))).collect();
    let mut connection = connect(to);
    for piece in counted.as_bytes().chunks(7) {
        connection.write_all(piece).unwrap();
    }
    // One that is too long, a line, and one that is cut off.
    connection.write_all(format!("100 {}{}\n22 {{\"tenant\":", "x".repeat(100), frame(500)).as_bytes()).unwrap();
    finish(connection);
    place.until("SELECT count(*) FROM dead_letters", 2);

    let mut acked = connect(to);
    let hello = format!("headworks-ack/1 stream=s next=1 level=stored\n{} {}5 12345", frame(501).len(), frame(501));
    acked.write_all(hello.as_bytes()).unwrap();
    acked.shutdown(std::net::Shutdown::Write).unwrap();
    let mut told = String::new();
    acked.read_to_string(&mut told).unwrap();
    assert!(
        told.contains("ok last=0 next=1\n") && told.contains("ack 1\n") && told.contains("nack 2 bad_event\n"),
        "{told}"
    );
    process.terminated().succeeded();
    let stored: Vec<_> = place.stored().remove("acme").unwrap();
    assert_eq!(stored, (0..502).map(|n| frame(n).into_bytes()).collect::<Vec<_>>());
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 3);
}
