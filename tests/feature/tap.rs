//! `headworks tap` and `/v1/tap`: events as they pass a real daemon.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use serde_json::{Value, json};

use super::api::{asked, command, started};
use crate::rig::{DEADLINE, Place, Process, connect, lines, send};

/// Somebody who looks on: the tap is open once this is there.
struct Looking(BufReader<TcpStream>);

impl Looking {
    fn at(api: SocketAddr, query: &str) -> Self {
        let mut stream = connect(api);
        write!(stream, "GET /v1/tap?{query} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n\r\n").unwrap();
        let mut looking = Self(BufReader::new(stream));
        let head = std::iter::from_fn(|| Some(looking.raw()).filter(|line| line != "\r\n"));
        let head = head.collect::<String>().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: application/jsonl"), "{head}");
        looking
    }

    fn raw(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// The next line; `None` where there is none any more.
    fn next(&mut self) -> Option<Value> {
        // Beside the lines there are the sizes of the chunks that they come in.
        loop {
            let line = self.raw();
            if line.is_empty() {
                return None;
            }
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).unwrap());
            }
        }
    }

    fn payload(&mut self) -> Value {
        self.next().unwrap()["payload"].clone()
    }
}

fn with_config(place: &Place, config: &str) -> (Process, SocketAddr, SocketAddr) {
    place.write("my.toml", config);
    started(command(place).args(["--config", "my.toml"]))
}

/// Another file in the place of the one that is there, once the daemon has taken it over.
fn reload(place: &Place, daemon: &mut Process, config: &str) {
    place.write("next.toml", config);
    std::fs::rename(place.path("next.toml"), place.path("my.toml")).unwrap();
    daemon.says("the configuration was read again");
}

#[test]
fn events_are_seen_as_they_are_accepted_with_tenant_place_and_payload() {
    let place = Place::new();
    let (daemon, api, source) = started(&mut command(&place));
    let (mut all, mut one) = (Looking::at(api, ""), Looking::at(api, "tenant=b&limit=2"));
    send(source, &[&lines("acme", 0..2)[..], b"no JSON\n", &lines("b", 7..10)].concat());
    let first = all.next().unwrap();
    assert_eq!(first["payload"], json!({ "tenant": "acme", "n": 0 }));
    assert_eq!((&first["tenant"], &first["seq"], &first["place"]), (&"acme".into(), &1.into(), &0.into()), "{first}");
    assert!(first["arrived"].as_str().unwrap().ends_with('Z') && first.get("skipped").is_none(), "{first}");
    let rest: Vec<_> = (0..4).map(|_| all.payload()["n"].clone()).collect();
    assert_eq!(rest, [1, 7, 8, 9]);
    assert_eq!([one.payload()["n"].clone(), one.payload()["n"].clone()], [7, 8]);
    assert_eq!(one.next(), None, "two were asked for");
    daemon.terminated().succeeded();
    assert_eq!(all.next(), None, "with the daemon it is over");
}

#[test]
fn fields_are_kept_back_by_the_configuration_and_by_the_request_and_a_change_holds_at_once() {
    let place = Place::new();
    let (mut daemon, api, source) = with_config(&place, "[tap]\nredact = ['card.number']\n");
    let mut looking = Looking::at(api, "redact=name,%20n");
    let event = br#"{"tenant":"acme","n":1,"name":"Ann","card":{"number":"4111","ok":true},"key":"k"}"#;
    let event = [event, &b"\n"[..]].concat();
    send(source, &event);
    let card = json!({ "number": "[redacted]", "ok": true });
    let expected = json!({ "tenant": "acme", "n": "[redacted]", "name": "[redacted]", "card": card, "key": "k" });
    assert_eq!(looking.payload(), expected);
    reload(&place, &mut daemon, "[tap]\nredact = ['card', 'key']\n");
    send(source, &event);
    let redacted = "[redacted]";
    let expected = json!({ "tenant": "acme", "n": redacted, "name": redacted, "card": redacted, "key": redacted });
    assert_eq!(looking.payload(), expected);
    // What is stored is whole.
    place.until("SELECT count(*) FROM events", 2);
    assert!(place.stored()["acme"].iter().all(|body| body.as_slice() == event.trim_ascii_end()));
    reload(&place, &mut daemon, "[tap]\nenabled = false\n");
    assert_eq!(looking.next(), None);
    assert!(asked(api, "GET", "/v1/tap").problem(403).contains("tap.enabled is false"));
    let told = place.run(&["tap", "--data", "data"]).with(1);
    assert!(told.err.contains("tap.enabled is false"), "{}", told.err);
    daemon.terminated().succeeded();
}

#[test]
fn who_does_not_read_misses_events_is_told_and_holds_up_nobody() {
    let place = Place::new();
    let (daemon, api, source) = started(&mut command(&place));
    let mut looking = Looking::at(api, "rate=10000");
    // More than socket buffers and queue hold together; 5,000 of them, so that the rate lets all of them pass.
    let event = format!("{{\"tenant\":\"acme\",\"text\":\"{}\"}}\n", "x".repeat(8_000));
    for _ in 0..50 {
        send(source, event.repeat(100).as_bytes());
    }
    place.until("SELECT sum(events) FROM batches", 5_000);
    let (mut told, mut missed) = (0, 0);
    while told + missed < 5_000 {
        let line = looking.next().unwrap();
        assert!(line.get("skipped").is_none(), "{line}");
        missed += line["missed"].as_u64().unwrap_or(0);
        told += u64::from(line["tenant"] == "acme");
    }
    assert!(told > 0 && missed > 0, "{told} {missed}");
    drop(looking);
    daemon.terminated().succeeded();
}

#[test]
fn what_cannot_be_asked_is_refused_and_taps_are_so_many_and_no_more() {
    let place = Place::new();
    let (daemon, api, source) = started(&mut command(&place));
    for (query, told) in [
        ("rate=0", "rate is 0; it must be from 1 to 10000"),
        ("rate=10001", "rate is 10001"),
        ("redact=a..b", "redact: \"a..b\" names no field"),
        ("tenant=../x", "tenant"),
        ("limitt=1", "unknown field"),
    ] {
        let why = asked(api, "GET", &format!("/v1/tap?{query}")).problem(400);
        assert!(why.contains(told), "{query}: {why}");
    }
    let mut open: Vec<_> = (0..16).map(|_| Looking::at(api, "")).collect();
    assert!(asked(api, "GET", "/v1/tap?limit=1").problem(503).contains("16 taps are open"));
    open.pop();
    // The place of one that has gone is free once the daemon has noticed.
    let begun = std::time::Instant::now();
    while asked(api, "GET", "/v1/tap?limit=0").status != 200 {
        assert!(begun.elapsed() < DEADLINE);
    }
    send(source, &lines("acme", 0..1));
    assert!(open.iter_mut().all(|looking| looking.payload()["n"] == 0));
    daemon.terminated().succeeded();
}

#[test]
fn the_command_prints_lines_until_it_has_enough_and_says_where_no_daemon_runs() {
    let place = Place::new();
    let ended = place.run(&["tap", "--data", "data"]).with(69);
    assert!(ended.err.contains("no daemon runs on data, so that nothing passes"), "{}", ended.err);
    let mut daemon = Process::spawn(&mut place.daemon());
    let source = daemon.listens();
    let mut tap = place.command(&["tap", "--data", "data", "--tenant", "acme", "--limit", "3", "--redact", "secret,n"]);
    let mut tap = tap.stdout(Stdio::piped()).spawn().unwrap();
    let event = b"{\"tenant\":\"acme\",\"n\":{\"m\":1},\"text\":\"\xc2\x9b\"}\n{\"tenant\":\"b\"}\n";
    let begun = std::time::Instant::now();
    // Nobody announces that it looks on.
    while tap.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < DEADLINE);
        send(source, event);
    }
    let mut out = String::new();
    tap.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(tap.wait().unwrap().success());
    assert_eq!(out.lines().count(), 3, "{out}");
    for line in out.lines() {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["payload"], json!({ "tenant": "acme", "n": "[redacted]", "text": "\u{9b}" }));
    }
    daemon.terminated().succeeded();
}
