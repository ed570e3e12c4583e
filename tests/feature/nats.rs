//! The source for NATS JetStream, with a server and a client that are not ours: each is killed in the middle.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::rig::nats::Nats;
use crate::rig::{Place, Process};

const COUNT: &str = "SELECT count(*) FROM events";
const READS: &str = "reads a NATS stream";
const WAITS: &str = "source_fails";

fn daemon(place: &Place, nats: &Nats, settings: &[(&str, &str)]) -> Command {
    let mut command = place.daemon();
    command.env_remove("HEADWORKS__SOURCES__TCP__LISTEN");
    let usual = [("TYPE", "nats"), ("URL", &nats.url()), ("STREAM", "EVENTS"), ("ACK_WAIT", "2s")];
    for (key, value) in usual.iter().chain(settings) {
        command.env(format!("HEADWORKS__SOURCES__BUS__{key}"), value);
    }
    command
}

fn start(place: &Place, nats: &Nats, settings: &[(&str, &str)]) -> Process {
    Process::spawn(&mut daemon(place, nats, settings))
}

fn made() -> Nats {
    let nats = Nats::start();
    nats.run("make", &["EVENTS", "events.>"]);
    nats
}

fn numbers(place: &Place, tenant: &str) -> Vec<u64> {
    let stored = place.stored();
    let number = |body: &Vec<u8>| serde_json::from_slice::<Value>(body).unwrap()["n"].as_u64().unwrap();
    stored.get(tenant).map(|bodies| bodies.iter().map(number).collect()).unwrap_or_default()
}

/// Each is stored once, and in order.
#[track_caller]
fn assert_stored(place: &Place, tenant: &str, expected: impl Iterator<Item = u64>) {
    let (stored, expected) = (numbers(place, tenant), expected.collect::<Vec<_>>());
    let differ = stored.iter().zip(&expected).position(|(stored, expected)| stored != expected);
    assert!(stored == expected, "{tenant}: {} of {}, the first that differs: {differ:?}", stored.len(), expected.len());
}

#[test]
fn a_daemon_that_is_killed_five_times_stores_each_message_once_and_in_order() {
    const PART: u64 = 400;
    let (place, nats) = (Place::new(), made());
    let settings = [("SUBJECT", "events.{tenant}.>"), ("MAX_ACK_PENDING", "300")];
    let mut published = 0;
    let mut publish = || {
        let words = [published.to_string(), (published + PART).to_string()];
        published += PART;
        let client = nats.client("publish", &["events.acme.x,events.zen.y.z", &words[0], &words[1]]);
        (client, published)
    };
    for _ in 0..5 {
        let (client, all) = publish();
        let process = start(&place, &nats, &settings);
        place.until(COUNT, (all - PART + 50) as i64);
        process.kill();
        client.ended().succeeded();
    }
    let (client, all) = publish();
    client.ended().succeeded();
    let process = start(&place, &nats, &settings);
    place.until(COUNT, all as i64);
    let told = nats.until("floor", all as usize);
    assert_eq!((&told["pending"], &told["left"]), (&0.into(), &0.into()));
    process.terminated().succeeded();
    assert_stored(&place, "acme", (0..all).step_by(2));
    assert_stored(&place, "zen", (1..all).step_by(2));
}

#[test]
fn a_server_that_is_killed_three_times_has_each_message_stored_once_and_in_order() {
    const PART: u64 = 300;
    let (place, mut nats) = (Place::new(), made());
    let mut process = start(&place, &nats, &[]);
    process.says(READS);
    let mut all = 0;
    for _ in 0..3 {
        let client = nats.client("publish", &["events.acme.x", &all.to_string(), &(all + PART).to_string()]);
        place.until(COUNT, (all + PART / 3) as i64);
        nats.kill();
        process.says_in("what", WAITS);
        nats.restart();
        process.says(READS);
        client.ended().succeeded();
        all += PART;
    }
    place.until(COUNT, all as i64);
    nats.until("floor", all as usize);
    process.terminated().succeeded();
    assert_stored(&place, "acme", 0..all);
}

#[test]
fn what_the_stream_lacks_is_passed_over_and_what_cannot_be_read_is_a_dead_letter_that_is_acknowledged() {
    let (place, nats) = (Place::new(), made());
    let events = |range: std::ops::Range<u64>| {
        nats.run("publish", &["events.acme.x", &range.start.to_string(), &range.end.to_string()]);
    };
    events(0..10);
    nats.run("raw", &["events.acme.x", "no JSON", "{\"tenant\":\"a/b\"}"]);
    events(10..20);
    nats.run("raw", &["other.x"]);
    for number in ["3", "4", "15", "22"] {
        nats.run("delete", &["EVENTS", number]);
    }
    let process = start(&place, &nats, &[("ACK", "stored")]);
    place.until(COUNT, 16);
    place.until("SELECT count(*) FROM dead_letters", 2);
    nats.until("pending", 0);
    process.kill();
    // And none comes again.
    events(20..30);
    let process = start(&place, &nats, &[("ACK", "stored")]);
    place.until(COUNT, 26);
    nats.until("floor", 32);
    process.terminated().succeeded();
    assert_stored(&place, "acme", (0..30).filter(|n| ![2, 3, 12, 19].contains(n)));
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 2);
}

#[test]
fn a_slow_store_holds_the_server_back_and_nothing_is_acknowledged_before_it_is_stored_or_delivered_twice() {
    let (place, nats) = (Place::new(), made());
    let mut process = start(&place, &nats, &[("ACK", "stored"), ("MAX_ACK_PENDING", "100"), ("ACK_WAIT", "1s")]);
    process.says(READS);
    nats.run("publish", &["events.acme.x", "0", "10"]);
    place.until(COUNT, 10);
    nats.until("floor", 10);
    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    nats.run("publish", &["events.acme.x", "10", "500"]);
    nats.until("pending", 100);
    // The server would deliver them again after a second: three times as long, at three signs of life in a second.
    nats.run("progress", &["EVENTS", "headworks", "900"]);
    let told = nats.until("pending", 100);
    assert_eq!((&told["floor"], &told["redelivered"], &told["left"]), (&10.into(), &0.into(), &390.into()));
    lock.execute_batch("ROLLBACK").unwrap();
    place.until(COUNT, 500);
    nats.until("floor", 500);
    process.terminated().succeeded();
    assert_stored(&place, "acme", 0..500);
}

#[test]
fn messages_whose_deliveries_were_lost_are_taken_in_before_those_that_were_delivered_later() {
    let (place, nats) = (Place::new(), made());
    // Long enough that nothing is delivered again before the end.
    let mut process = start(&place, &nats, &[("ACK_WAIT", "10m")]);
    process.says(READS);
    process.terminated().succeeded();
    nats.run("publish", &["events.acme.x", "0", "100"]);
    nats.run("delete", &["EVENTS", "7"]);
    nats.run("take", &["EVENTS", "headworks", "40"]);
    let process = start(&place, &nats, &[("ACK_WAIT", "10m")]);
    place.until(COUNT, 99);
    // Those of which it got no delivery stay with the server.
    let told = nats.until("pending", 40);
    assert_eq!((&told["left"], &told["floor"]), (&0.into(), &0.into()));
    process.terminated().succeeded();
    assert_stored(&place, "acme", (0..100).filter(|n| *n != 6));
}

#[test]
fn what_was_delivered_to_one_who_is_gone_is_taken_in_at_once_and_once() {
    let (place, nats) = (Place::new(), made());
    // Long enough that nothing is delivered again before the end.
    let patient = &[("ACK_WAIT", "10m")];
    let mut process = start(&place, &nats, patient);
    process.says(READS);
    process.terminated().succeeded();
    nats.run("publish", &["events.acme.x", "0", "100"]);
    nats.run("delete", &["EVENTS", "7"]);
    // All that there is is held by one who dies with it, and nothing new comes that would show that.
    nats.run("take", &["EVENTS", "headworks", "99"]);
    let process = start(&place, &nats, patient);
    place.until(COUNT, 99);
    let told = nats.until("pending", 99);
    assert_eq!((&told["left"], &told["redelivered"]), (&0.into(), &0.into()));
    process.kill();
    // The next one knows what is in the journal, and what is new comes behind it.
    let process = start(&place, &nats, patient);
    nats.run("publish", &["events.acme.x", "100", "110"]);
    place.until(COUNT, 109);
    nats.until("pending", 99);
    process.terminated().succeeded();
    assert_stored(&place, "acme", (0..110).filter(|n| *n != 6));
}

/// What `ready` says.
#[track_caller]
fn assert_not_ready(place: &Place, says: &str) {
    let told = place.run(&["ready", "--data", "data"]).with(1).text();
    assert!(told.contains(says), "{told}");
}

#[test]
fn a_stream_that_is_missing_or_a_consumer_that_cannot_be_used_is_told_and_waited_for() {
    let (place, nats) = (Place::new(), Nats::start());
    let mut process = start(&place, &nats, &[]);
    let why = |entry: Value| entry["detail"].as_str().unwrap().to_owned();
    let told = why(process.says_in("what", WAITS));
    assert!(told.contains("the stream EVENTS cannot be read; does it exist?") && told.contains("not found"), "{told}");
    assert_not_ready(&place, "source bus brings nothing in: the stream EVENTS");
    nats.run("make", &["OTHERS", "others.>"]);
    nats.run("make", &["EVENTS", "events.>", "{\"storage\":\"memory\",\"max_msgs\":1000}"]);
    let messages: Vec<_> = (0..2).map(|_| process.next_warning()["message"].as_str().unwrap().to_owned()).collect();
    assert!(messages[0].contains("kept in memory") && messages[1].contains("discards its oldest"), "{messages:?}");
    process.says(READS);
    assert_eq!(place.run(&["ready", "--data", "data"]).succeeded().text(), "ready\n");
    nats.run("publish", &["events.acme.x", "0", "10"]);
    place.until(COUNT, 10);
    process.terminated().succeeded();
    // Another consumer, which somebody else made.
    nats.run("consumer", &["EVENTS", "theirs", "{\"filter_subject\":\"events.zen.>\"}"]);
    nats.run("consumer", &["EVENTS", "like", "{\"max_deliver\":5,\"ack_wait\":7}"]);
    let mut process = start(&place, &nats, &[("CONSUMER", "theirs")]);
    let told = why(process.says_in("what", WAITS));
    assert!(told.contains("the consumer theirs") && told.contains("events.zen.>"), "{told}");
    process.terminated().succeeded();
    let mut process = start(&place, &nats, &[("CONSUMER", "like")]);
    process.says("the consumer like has ack_wait 7s, and not 2s: it is used as it is");
    process.says(READS);
    process.terminated().succeeded();
}

#[test]
fn wrong_secrets_are_told_and_once_they_are_right_it_goes_on() {
    const NKEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let users = format!("authorization {{ users: [ {{user: app, password: right}}, {{nkey: {NKEY}}} ] }}");
    let (place, nats) = (Place::new(), Nats::start_with(&users));
    let url = nats.url_of("app:right");
    let client = |command: &str, words: &[&str]| drop(Nats::client_at(&url, command, words).ended().succeeded());
    client("make", &["EVENTS", "events.>"]);
    client("publish", &["events.acme.x", "0", "10"]);
    let secrets = place.secret("secrets", "app:wrong\n");
    let mut process = start(&place, &nats, &[("CREDENTIALS_FILE", secrets.to_str().unwrap())]);
    let told = process.says_in("what", WAITS)["detail"].as_str().unwrap().to_ascii_lowercase();
    assert!(told.contains("authorization violation") && !told.contains("wrong"), "{told}");
    assert_not_ready(&place, "authorization violation");
    place.write("secrets", "app:right\n");
    process.says(READS);
    place.until(COUNT, 10);
    process.terminated().succeeded();
    place.write("secrets", format!("{SEED}\n"));
    let process = start(&place, &nats, &[("CREDENTIALS_FILE", secrets.to_str().unwrap())]);
    client("publish", &["events.acme.x", "10", "20"]);
    place.until(COUNT, 20);
    process.terminated().succeeded();
    assert_stored(&place, "acme", 0..20);
}

fn certificates(directory: &Path) {
    let openssl = |words: &str| {
        let made = Command::new("openssl").args(words.split(' ')).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "{words}: {}", String::from_utf8_lossy(&made.stderr));
    };
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"
        ));
    }
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bus -keyout server.key -out server.csr");
    std::fs::write(directory.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out server.crt");
}

#[test]
fn a_server_must_be_who_it_says_where_certificates_are_asked_for() {
    let (place, mut nats) = (Place::new(), made());
    nats.run("publish", &["events.acme.x", "0", "10"]);
    certificates(place.path("").as_path());
    let path = |name: &str| place.path(name).display().to_string();
    nats.kill();
    nats.configure(&format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", path("server.crt"), path("server.key")));
    nats.restart();
    let mut process = start(&place, &nats, &[("CA_FILE", &path("other.pem"))]);
    let told = process.says_in("what", WAITS)["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("TLS") || told.contains("certificate"), "{told}");
    process.terminated().succeeded();
    let mut process = start(&place, &nats, &[("CA_FILE", &path("ca.pem"))]);
    process.says(READS);
    place.until(COUNT, 10);
    process.terminated().succeeded();
}
