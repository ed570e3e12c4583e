//! Syslog from programs that are not ours: `logger` and rsyslog.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::rig::prometheus::{Prometheus, bridge};
use crate::rig::{DEADLINE, Place, Process, metric, send};

const COUNT: &str = "SELECT count(*) FROM events";

fn start(place: &Place, settings: &[(&str, &str)]) -> (Process, SocketAddr) {
    let mut command = place.daemon();
    // It is the only source.
    command.env_remove("HEADWORKS__SOURCES__TCP__LISTEN");
    command.env("HEADWORKS__SOURCES__LOGS__TYPE", "syslog").env("HEADWORKS__SOURCES__LOGS__LISTEN", "127.0.0.1:0");
    for (key, value) in settings {
        command.env(format!("HEADWORKS__SOURCES__LOGS__{key}"), value);
    }
    let mut process = Process::spawn(&mut command);
    let address = process.listens();
    (process, address)
}

/// Has `logger` send some lines, each a message.
fn log(to: SocketAddr, words: &[&str], messages: std::ops::Range<usize>) {
    let lines: String = messages.map(|n| format!("message {n}\n")).collect();
    let mut command = Command::new("logger");
    command.args(["--server", "127.0.0.1", "--port", &to.port().to_string(), "--tag", "app", "--id=77"]).args(words);
    Process::spawn(&mut command).feed(lines.as_bytes()).ended().succeeded();
}

#[track_caller]
fn assert_stored(place: &Place, tenant: &str, count: usize) -> Vec<Value> {
    let bodies: Vec<Value> = place.stored()[tenant].iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
    let messages: Vec<_> = bodies.iter().map(|body| body["message"].as_str().unwrap().trim().to_owned()).collect();
    let expected: Vec<_> = (0..count).map(|n| format!("message {n}")).collect();
    assert_eq!(messages, expected);
    bodies
}

#[test]
fn what_logger_sends_is_stored_by_either_rfc_and_either_way() {
    let place = Place::new();
    let (process, address) = start(&place, &[("TENANT_FROM", "app_name")]);
    let mut sent = 0;
    for words in [
        &["--udp", "--rfc5424"][..],
        &["--udp", "--rfc3164"],
        &["--tcp", "--rfc5424"],
        &["--tcp", "--rfc3164"],
        &["--tcp", "--rfc5424", "--octet-count"],
        &["--tcp", "--rfc3164", "--octet-count"],
    ] {
        log(address, words, sent..sent + 50);
        sent += 50;
        place.until(COUNT, sent as i64);
    }
    process.terminated().succeeded();
    for body in assert_stored(&place, "app", sent) {
        let of = |key: &str| body[key].as_str().unwrap_or_default();
        assert_eq!(
            (of("app_name"), of("severity"), of("facility"), of("procid")),
            ("app", "notice", "user", "77"),
            "{body}"
        );
        assert!(of("timestamp").contains('T') && !of("hostname").is_empty(), "{body}");
    }
}

/// Has rsyslog pass on what `logger` sends it to an address, with these words in its configuration, and waits until it is stored.
fn pass_on(place: &Place, to: SocketAddr, global: &str, action: &str, messages: usize) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "{global}\nmodule(load=\"imptcp\")\ninput(type=\"imptcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\" \
         template=\"RSYSLOG_SyslogProtocol23Format\" {action})\n",
        to.port()
    );
    let config = place.write("rsyslog.conf", config);
    let mut command = Command::new("rsyslogd");
    let _rsyslog = Process::spawn(command.arg("-n").arg("-f").arg(config).arg("-i").arg(place.path("rsyslog.pid")));
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < DEADLINE, "rsyslog does not listen");
        std::thread::yield_now();
    }
    log(([127, 0, 0, 1], port).into(), &["--tcp", "--rfc5424", "--octet-count"], 0..messages);
    place.until("SELECT count(*) FROM events WHERE tenant = 'app'", messages as i64);
}

#[test]
fn rsyslog_passes_on_to_sqlite_what_it_was_sent() {
    const MESSAGES: usize = 2_000;
    let place = Place::new();
    let (process, address) = start(&place, &[("TENANT_FROM", "app_name"), ("TRANSPORT", "tcp")]);
    pass_on(&place, address, "", "", MESSAGES);
    process.terminated().succeeded();
    assert_stored(&place, "app", MESSAGES);
}

#[cfg(feature = "tls")]
#[test]
fn rsyslog_passes_on_over_tls_each_side_sure_of_the_other_what_it_was_sent() {
    use crate::rig::certificates::{authority, certificate};
    use crate::rig::metric;

    const MESSAGES: usize = 2_000;
    let place = Place::new();
    authority(&place, "ca");
    certificate(&place, "ca", "server", "headworks", "DNS:logs.example", "30");
    certificate(&place, "ca", "client", "rsyslog", "", "30");
    let path = |name: &str| place.path(name).display().to_string();
    let (certificate, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let tls = [("TLS__CERT_FILE", &*certificate), ("TLS__KEY_FILE", &key), ("TLS__CLIENT_CA_FILE", &ca)];
    let (process, address) = start(&place, &[&[("TENANT_FROM", "app_name"), ("TRANSPORT", "tcp")], &tls[..]].concat());
    let global = format!(
        "global(DefaultNetstreamDriverCAFile=\"{ca}\" DefaultNetstreamDriverCertFile=\"{}\" \
         DefaultNetstreamDriverKeyFile=\"{}\")",
        path("client.pem"),
        path("client.key")
    );
    let action = "StreamDriver=\"gtls\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/name\" \
                  StreamDriverPermittedPeers=\"logs.example\"";
    pass_on(&place, address, &global, action, MESSAGES);
    let told = |what: &str| metric(&place, &format!("headworks_source_{what}_total{{source=\"logs\"}}"));
    assert_eq!((told("received"), told("accepted")), (MESSAGES as u64, MESSAGES as u64));
    process.terminated().succeeded();
    assert_stored(&place, "app", MESSAGES);
}

#[test]
fn what_is_no_syslog_is_a_dead_letter_with_its_bytes_and_a_strange_host_is_a_tenant() {
    let place = Place::new();
    let (process, address) = start(&place, &[]);
    let bad = [&b"garbage \xff\n\0"[..], b"<999>no priority", b"<13>1 no version"];
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for bytes in bad {
        socket.send_to(bytes, address).unwrap();
    }
    socket.send_to(b"<13>1 2026-01-02T03:04:05Z fe80::1 app - - - hello", address).unwrap();
    send(
        address,
        b"neither\n<13>1 2026-01-02T03:04:05Z host app - - - one\n47 <13>1 2026-01-02T03:04:05Z host app - - - two\nx",
    );
    place.until(COUNT, 3);
    place.until("SELECT count(*) FROM dead_letters", 4);
    process.terminated().succeeded();
    let stored = place.stored();
    let tenants: Vec<_> = stored.keys().collect();
    assert!(tenants.len() == 2 && tenants[0].starts_with("fe80__1-") && tenants[1] == "host", "{tenants:?}");
    assert_eq!(stored["host"].len(), 2);
    let database = place.database();
    let mut letters = database.prepare("SELECT CAST(body AS BLOB) FROM dead_letters").unwrap();
    let letters: Vec<Vec<u8>> = letters.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for bytes in bad.iter().chain(&[&b"neither"[..]]) {
        assert!(letters.iter().any(|letter| letter == bytes), "{:?} of {letters:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(letters.len(), 4, "{letters:?}");
}

#[test]
fn datagrams_that_the_kernel_drops_are_counted_and_told_in_the_log_and_by_an_alert() {
    let place = Place::new();
    let (mut process, address) = start(&place, &[("TRANSPORT", "udp"), ("TENANT_FROM", "app_name")]);
    let prometheus = Prometheus::start(&place, bridge(&place));
    let counter = "headworks_source_lost_datagrams_total";
    prometheus.until("it is scraped", |_| prometheus.value(counter) == Some(0.0));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let message = format!("<13>1 2026-11-22T09:00:00Z host acme - - - {}", "x".repeat(1_000));
    // Nobody reads, and the kernel keeps a few hundred KiB.
    process.signal("STOP");
    for _ in 0..5_000 {
        socket.send_to(message.as_bytes(), address).unwrap();
    }
    process.signal("CONT");
    let told = process.says_in("what", "source_lost");
    assert_eq!(told["source"], "logs");
    let (lost, why) = told["detail"].as_str().unwrap().split_once(" datagrams: ").unwrap();
    assert!(why.contains("the kernel dropped them"), "{told}");
    let lost: u64 = lost.parse().unwrap();
    assert!((1..5_000).contains(&lost), "{told}");
    assert_eq!(metric(&place, "headworks_source_lost_datagrams_total{source=\"logs\"}"), lost);
    place.until(COUNT, 5_000 - lost as i64);
    prometheus.until("losses are told", |firing| firing.contains("HeadworksSourceLoses"));
    let log = place.run(&["log", "--data", "data", "--what", "source_lost"]).succeeded().text();
    assert!(log.contains("Something was lost before the source logs could"), "{log}");
    process.terminated().succeeded();
}
