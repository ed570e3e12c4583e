//! Messages of a real broker, in both versions of MQTT: broker, store and daemon are stopped, killed and slow, and what was handed over
//! is there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::rig::mosquitto::Mosquitto;
use crate::rig::postgres::{AGAIN, Postgres};
use crate::rig::prometheus::{Prometheus, bridge, samples, scrape};
use crate::rig::{DEADLINE, Place, Process, lines, metric};

const COUNT: &str = "SELECT count(*) FROM events";
const CONNECTED: &str = "connected to the broker";
const AGAIN_CONNECTED: &str = "connected to the broker again";
const AWAY: &str = "source_fails";

fn daemon(place: &Place, broker: &Mosquitto, version: &str, more: &[(&str, &str)]) -> Command {
    let mut command = place.daemon();
    let url = broker.url();
    let all = [("TYPE", "mqtt"), ("URL", &url), ("TOPIC", "tenants/{tenant}/#"), ("VERSION", version)];
    for (key, value) in all.iter().chain(more) {
        command.env(format!("HEADWORKS__SOURCES__BUS__{key}"), value);
    }
    command
}

fn start(command: &mut Command) -> Process {
    let mut process = Process::spawn(command);
    process.says(CONNECTED);
    process
}

/// A number of the source.
fn told(place: &Place, name: &str) -> u64 {
    let told = samples(&scrape(place, "*/*").1);
    told.get(&format!("headworks_source_{name}_total{{source=\"bus\"}}")).copied().unwrap_or(0.0) as u64
}

/// Waits until a number of the source is so high: for what nobody announces.
#[track_caller]
fn until(place: &Place, name: &str, number: u64) {
    let began = Instant::now();
    while told(place, name) < number {
        assert!(began.elapsed() < DEADLINE, "{name} did not come to {number}, but to {}", told(place, name));
        std::thread::sleep(AGAIN);
    }
}

fn is_ready(place: &Place) -> Option<String> {
    let told = place.run(&["ready", "--data", "data"]);
    (told.code != Some(0)).then(|| told.text())
}

/// The numbers of the events of a tenant that are stored, in order.
fn numbers(bodies: &[Vec<u8>]) -> Vec<u64> {
    let number = |body: &Vec<u8>| serde_json::from_slice::<Value>(body).unwrap()["n"].as_u64().unwrap();
    bodies.iter().map(number).collect()
}

#[test]
fn ten_thousand_messages_are_in_postgresql_once_while_it_hangs_and_the_broker_is_restarted() {
    for version in ["v5", "v3.1.1"] {
        let (place, postgres, mut broker) = (Place::new(), Postgres::start(), Mosquitto::start());
        // What the store has not is not acknowledged: all that is on its way comes again.
        let mut command = daemon(&place, &broker, version, &[("ACK", "stored")]);
        command.env("HEADWORKS__STORE__TYPE", "postgres").env("HEADWORKS__STORE__URL", postgres.url());
        command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "50ms");
        let mut process = start(&mut command);
        broker.publish("tenants/acme/events", 1, &lines("acme", 0..3_000));
        let count = "SELECT count(*) FROM headworks.events";
        let until_stored = |number: &str| {
            let began = Instant::now();
            while postgres.ask(count) != number {
                assert!(began.elapsed() < DEADLINE, "{version}: {} are stored", postgres.ask(count));
                std::thread::sleep(AGAIN);
            }
        };
        until_stored("3000");
        postgres.freeze(true);
        broker.publish("tenants/acme/events", 1, &lines("acme", 3_000..6_000));
        until(&place, "received", 3_500);
        broker.restart();
        process.says(AGAIN_CONNECTED);
        until(&place, "redelivered", 100);
        postgres.freeze(false);
        broker.publish("tenants/acme/events", 1, &lines("acme", 6_000..10_000));
        until_stored("10000");
        let (again, known) = (told(&place, "redelivered"), told(&place, "duplicate"));
        assert!(known >= 100 && again >= known, "{version}: {again} came again, of which {known} were known");
        assert_eq!(told(&place, "reconnects"), 1);
        process.terminated().succeeded();
        let all = "SELECT count(DISTINCT body), min((body::json ->> 'n')::int), max((body::json ->> 'n')::int)
                   FROM headworks.events WHERE tenant = 'acme'";
        assert_eq!(postgres.ask(all).replace(['\t', '|'], " "), "10000 0 9999", "{version}");
        // And in the order in which they were published.
        let ordered = postgres.ask("SELECT (body::json ->> 'n')::int FROM headworks.events ORDER BY batch, idx");
        let expected: Vec<_> = (0..10_000).map(|n| n.to_string()).collect();
        assert!(ordered.lines().eq(expected.iter().map(String::as_str)), "{version}");
        assert_eq!(place.run(&["audit", "--data", "data"]).code, Some(0));
    }
}

#[test]
fn a_daemon_that_is_killed_finds_in_its_session_what_it_had_not_acknowledged_and_what_came_meanwhile() {
    for version in ["v5", "v3.1.1"] {
        const PART: usize = 1_000;
        let (place, broker) = (Place::new(), Mosquitto::start());
        let mut command = daemon(&place, &broker, version, &[]);
        let mut process = start(&mut command);
        let mut again = 0;
        for round in 0..4 {
            let from = round * 2 * PART;
            broker.publish("tenants/acme/events", 1, &lines("acme", from..from + PART));
            until(&place, "received", 1);
            again += told(&place, "redelivered");
            process.kill();
            broker.publish("tenants/acme/events", 1, &lines("acme", from + PART..from + 2 * PART));
            process = start(&mut command);
        }
        let distinct = "SELECT count(DISTINCT body) FROM events";
        place.until(distinct, 8 * PART as i64);
        again += told(&place, "redelivered");
        process.terminated().succeeded();
        let stored = place.stored();
        let found: BTreeSet<_> = numbers(&stored["acme"]).into_iter().collect();
        assert!(found.into_iter().eq(0..8 * PART as u64), "{version}: all are there");
        let twice = stored["acme"].len() - 8 * PART;
        assert!(twice as u64 <= again, "{version}: {twice} are there twice, but {again} came again");
    }
}

#[test]
fn a_daemon_that_stops_acknowledges_what_it_took_in_and_takes_it_in_once() {
    for version in ["v5", "v3.1.1"] {
        let (place, broker) = (Place::new(), Mosquitto::start());
        let mut command = daemon(&place, &broker, version, &[]);
        let process = start(&mut command);
        std::thread::scope(|scope| {
            scope.spawn(|| broker.publish("tenants/acme/events", 1, &lines("acme", 0..3_000)));
            until(&place, "received", 100);
            process.terminated().succeeded();
        });
        let process = start(&mut command);
        place.until("SELECT count(DISTINCT body) FROM events", 3_000);
        process.terminated().succeeded();
        let stored = numbers(&place.stored()["acme"]);
        let differs = stored.iter().zip(0..).find(|(stored, expected)| *stored != expected);
        assert!(stored.len() == 3_000 && differs.is_none(), "{version}: {} are stored, {differs:?}", stored.len());
    }
}

#[test]
fn what_is_no_event_or_nobodys_or_too_large_is_a_dead_letter_and_acknowledged_and_the_rest_is_stored() {
    for version in ["v5", "v3.1.1"] {
        let (place, broker) = (Place::new(), Mosquitto::start());
        let mut command = daemon(&place, &broker, version, &[("MAX_FRAME", "1KiB")]);
        let process = start(&mut command);
        broker.publish_one("tenants/acme/a", b"{\"n\": 0}");
        broker.publish_one("tenants/acme/a", b"{\"n\": ");
        broker.publish_empty("tenants/acme/a");
        broker.publish_one("tenants//a", b"{\"n\": 7}");
        broker.publish_one("tenants/no tenant/a", b"{\"n\": 7}");
        broker.publish_one("tenants/acme/a", &[b'x'; 2_000]);
        broker.publish_one("tenants/acme/a", &vec![b'x'; 1 << 20]);
        broker.publish_one("tenants/acme/a", b"\xff\n");
        broker.publish_one("tenants/zen/b/c", b"{\"tenant\": \"acme\", \"n\": 1}\n");
        place.until(COUNT, 2);
        place.until("SELECT count(*) FROM dead_letters", 7);
        process.terminated().succeeded();
        let process = start(&mut command);
        broker.publish_one("tenants/acme/a", b"{\"n\": 2}");
        place.until(COUNT, 3);
        assert_eq!((told(&place, "received"), told(&place, "redelivered")), (1, 0), "{version}");
        assert_eq!(is_ready(&place), None);
        process.terminated().succeeded();
        let stored = place.stored();
        assert_eq!((numbers(&stored["acme"]), numbers(&stored["zen"])), (vec![0, 2], vec![1]), "{version}");
        let reasons = place.json(&["dead-letters", "list", "--data", "data", "--json"]);
        let reasons: BTreeSet<_> =
            reasons.as_array().unwrap().iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect();
        let expected = ["bad_json", "bad_tenant", "bad_utf8", "empty", "no_tenant", "oversized"].map(str::to_owned);
        assert_eq!(reasons, expected.into_iter().collect(), "{version}");
    }
}

#[test]
fn a_message_may_have_an_event_a_line_each_with_its_tenant_at_quality_of_service_0_too() {
    for version in ["v5", "v3.1.1"] {
        let (place, broker) = (Place::new(), Mosquitto::start());
        let more = [("TOPIC", "events/+"), ("PAYLOAD", "lines"), ("QOS", "0"), ("CLIENT_ID", "me")];
        let process = start(&mut daemon(&place, &broker, version, &more));
        let both = [lines("acme", 0..100), lines("zen", 0..50)].concat();
        broker.published(&["-t", "events/a", "-q", "0", "-s"], &both);
        broker.publish("events/b", 0, &lines("acme", 100..200));
        place.until(COUNT, 250);
        process.terminated().succeeded();
        let stored = place.stored();
        assert!(numbers(&stored["acme"]).into_iter().eq(0..200), "{version}");
        assert!(numbers(&stored["zen"]).into_iter().eq(0..50), "{version}");
    }
}

#[test]
fn a_broker_that_is_away_or_refuses_is_told_of_once_and_tried_until_it_does_not() {
    for version in ["v5", "v3.1.1"] {
        let (place, mut broker) = (Place::new(), Mosquitto::prepared("password_file DIR/passwords\n"));
        broker.user("headworks", "right");
        let password = place.secret("password", "wrong\n");
        let more = [("USERNAME", "headworks"), ("PASSWORD_FILE", password.to_str().unwrap())];
        let mut process = Process::spawn(&mut daemon(&place, &broker, version, &more));
        let told = process.says_in("what", AWAY);
        assert!(told["detail"].as_str().unwrap().contains("cannot connect to 127.0.0.1"), "{told}");
        let why = is_ready(&place).unwrap();
        assert!(why.contains("source bus brings nothing in: there is no connection to the broker"), "{why}");
        broker.restart();
        let told = process.says_in("what", AWAY);
        assert!(told["detail"].as_str().unwrap().contains("(username, password_file)"), "{told}");
        place.write("password", "right\n");
        process.says(AGAIN_CONNECTED);
        assert_eq!(is_ready(&place), None);
        let ended = process.terminated().succeeded();
        assert_eq!(ended.err.matches(AWAY).count(), 2, "{}", ended.err);
        assert!(!ended.err.contains("right") && !ended.err.contains("wrong"), "{}", ended.err);
    }
}

#[test]
fn a_subscription_that_is_refused_is_told_with_its_topic() {
    for version in ["v5", "v3.1.1"] {
        let (place, mut broker) = (Place::new(), Mosquitto::unsubscribable());
        broker.restart();
        let mut process = Process::spawn(&mut daemon(&place, &broker, version, &[]));
        let told = process.says_in("what", AWAY);
        let why = told["detail"].as_str().unwrap();
        assert!(why.contains(": it refuses the subscription to tenants/+/#: "), "{why}");
        assert!(is_ready(&place).unwrap().contains("refuses the subscription"));
        process.terminated().succeeded();
    }
}

#[test]
fn while_the_store_hangs_nothing_more_is_read_and_the_connection_is_kept_alive() {
    for (version, qos) in [("v5", 0), ("v3.1.1", 0), ("v5", 1), ("v3.1.1", 1)] {
        let (place, postgres, broker) = (Place::new(), Postgres::start(), Mosquitto::start());
        let asked = qos.to_string();
        let mut command = daemon(&place, &broker, version, &[("KEEP_ALIVE", "1s"), ("QOS", &asked)]);
        command.env("HEADWORKS__STORE__TYPE", "postgres").env("HEADWORKS__STORE__URL", postgres.url());
        command.env("HEADWORKS__LIMITS__MAX_IN_FLIGHT", "64KiB").env("HEADWORKS__SOURCES__BUS__MAX_FRAME", "4KiB");
        command.env("HEADWORKS__SOURCES__TCP__MAX_FRAME", "4KiB");
        command.env("HEADWORKS__TENANTS__DEFAULTS__OVERFLOW__MAX_IN_FLIGHT", "64KiB");
        command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "20ms");
        let process = start(&mut command);
        postgres.freeze(true);
        let filler = "x".repeat(400);
        let events: String = (0..1_000).map(|n| format!("{{\"n\":{n},\"x\":\"{filler}\"}}\n")).collect();
        broker.publish("tenants/acme/events", qos, events.as_bytes());
        // Longer than it may be silent.
        for _ in 0..8 {
            broker.says("Received PINGREQ from headworks-bus");
        }
        let accepted = told(&place, "accepted");
        assert!(accepted < 500, "{version}: {accepted} were taken in while nothing could be stored");
        postgres.freeze(false);
        let count = "SELECT count(DISTINCT body) FROM headworks.events";
        let began = Instant::now();
        while postgres.ask(count) != "1000" {
            assert!(began.elapsed() < DEADLINE, "{version}: {} are stored", postgres.ask(count));
            std::thread::sleep(AGAIN);
        }
        assert_eq!((told(&place, "redelivered"), told(&place, "reconnects")), (0, 0), "{version}");
        let ended = process.terminated().succeeded();
        assert!(!ended.err.contains(AWAY), "{version}: {}", ended.err);
        assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "1000");
    }
}

#[test]
fn a_connection_is_encrypted_and_the_broker_must_be_who_it_says() {
    let settings = "allow_anonymous true\ncertfile DIR/server.crt\nkeyfile DIR/server.key\n";
    let (place, mut broker) = (Place::new(), Mosquitto::prepared(settings));
    let openssl = |words: &str| {
        let made = Command::new("openssl").args(words.split(' ')).current_dir(broker.directory()).output().unwrap();
        assert!(made.status.success(), "{words}: {}", String::from_utf8_lossy(&made.stderr));
    };
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"
        ));
    }
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mq -keyout server.key -out server.csr");
    broker.own("san", "subjectAltName=IP:127.0.0.1");
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out server.crt");
    for name in ["server.crt", "server.key"] {
        broker.own(name, std::fs::read(broker.directory().join(name)).unwrap());
    }
    broker.restart();
    let url = broker.encrypted_url();
    let ca = |name: &str| broker.directory().join(name).to_str().unwrap().to_owned();
    for version in ["v5", "v3.1.1"] {
        let other = ca("other.pem");
        let mut process = Process::spawn(&mut daemon(&place, &broker, version, &[("URL", &url), ("CA_FILE", &other)]));
        let told = process.says_in("what", AWAY);
        assert!(told["detail"].as_str().unwrap().contains("no encrypted connection to 127.0.0.1"), "{told}");
        process.terminated().succeeded();
        let ca = ca("ca.pem");
        let process = start(&mut daemon(&place, &broker, version, &[("URL", &url), ("CA_FILE", &ca)]));
        let trusted = ca.as_str();
        broker.published(&["--cafile", trusted, "-t", "tenants/acme/a", "-q", "1", "-m", "{\"n\":1}"], b"");
        place.until(COUNT, if version == "v5" { 1 } else { 2 });
        process.terminated().succeeded();
    }
}

#[test]
fn a_broker_that_is_away_is_in_the_log_the_metrics_the_report_and_an_alert_until_it_is_back() {
    let (place, mut broker) = (Place::new(), Mosquitto::start());
    let mut process = start(&mut daemon(&place, &broker, "v5", &[]));
    broker.publish("tenants/acme/events", 1, &lines("acme", 0..3));
    place.until(COUNT, 3);
    let prometheus = Prometheus::start(&place, bridge(&place));
    let [up, open] = ["up", "connections"].map(|name| format!("headworks_source_{name}{{source=\"bus\"}}"));
    prometheus.until("it is scraped", |_| prometheus.value(&up) == Some(1.0));
    assert_eq!(prometheus.value(&open), Some(1.0));
    prometheus.until("nothing fires", BTreeSet::is_empty);

    broker.stop();
    let told = process.says_in("what", AWAY);
    assert_eq!((&told["source"], told["next_attempt_at"].is_string()), (&"bus".into(), true), "{told}");
    prometheus.until("the source is down", |firing| firing.contains("HeadworksSourceDown"));
    assert_eq!((prometheus.value(&up), prometheus.value(&open)), (Some(0.0), Some(0.0)));
    let say = |words: &[&str]| {
        let told = place.run(&[words, &["--data", "data"]].concat()).succeeded().text();
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let away = "there is no connection to the broker 127.0.0.1:";
    let log = say(&["log", "--what", "source_fails"]);
    assert!(log.contains(&format!("The source bus fails: {away}")) && log.contains("It is tried again at"), "{log}");
    let explained = say(&["explain", "acme"]);
    assert!(explained.contains(&format!("NOT EVERYTHING COMES IN from the source bus: {away}")), "{explained}");
    assert!(say(&["report"]).contains(&format!("source bus: {away}")), "{}", say(&["report"]));
    let ready = is_ready(&place).unwrap();
    assert!(ready.contains("(since ") && ready.contains("; it is tried again at "), "{ready}");
    let top = say(&["top", "--once"]);
    assert!(top.contains("source bus brings nothing in") && top.contains("NOT READY"), "{top}");

    broker.restart();
    let told = process.says_in("what", "source_works");
    assert_eq!((&told["source"], told["since"].is_string()), (&"bus".into(), true), "{told}");
    prometheus.until("the source is back", |firing| !firing.contains("HeadworksSourceDown"));
    assert_eq!(prometheus.value(&open), Some(1.0));
    assert!(say(&["log", "--what", "source_works"]).contains("The source bus works again, after"), "{log}");
    assert_eq!(is_ready(&place), None);
    process.terminated().succeeded();
}

#[test]
fn two_daemons_with_one_client_id_say_so_and_leave_each_other_time_until_one_of_them_ends() {
    for version in ["v5", "v3.1.1"] {
        let mut broker = Mosquitto::start();
        let places = [Place::new(), Place::new()];
        let one_id = &[("CLIENT_ID", "twins")];
        let mut twins = places.each_ref().map(|place| start(&mut daemon(place, &broker, version, one_id)));
        let takeovers = broker.log();
        for (place, twin) in places.iter().zip(&mut twins) {
            let told = std::iter::repeat_with(|| twin.says_in("what", AWAY));
            let why = told.map(|told| told["detail"].as_str().unwrap().to_owned());
            let why = why.into_iter().find(|why| why.contains("client_id")).unwrap();
            assert!(why.contains("\"twins\"") && why.contains("each daemon needs one of its own"), "{why}");
            // It may be connected now; that counts once it lasts.
            assert_eq!(metric(place, "headworks_source_up{source=\"bus\"}"), 0, "{version}");
            assert!(is_ready(place).unwrap().contains("client_id"));
        }
        // Without a pause they would have been hundreds.
        let takeovers = takeovers.try_iter().filter(|line| line.contains("already connected")).count();
        assert!((2..20).contains(&takeovers), "{version}: {takeovers}");
        let [first, second] = twins;
        first.terminated().succeeded();
        broker.publish("tenants/acme/events", 1, &lines("acme", 0..100));
        places[1].until(COUNT, 100);
        second.terminated().succeeded();
    }
}
