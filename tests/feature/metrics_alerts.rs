//! A real Prometheus scrapes a real daemon, and the alerts that are shipped fire in the faults they are for, and in no others.

use std::collections::BTreeSet;

use crate::rig::prometheus::{Prometheus, bridge};
use crate::rig::{Place, Process, lines, send};

fn has(alert: &'static str) -> impl Fn(&BTreeSet<String>) -> bool {
    move |firing| firing.contains(alert)
}

#[test]
fn a_store_that_is_locked_is_told_until_it_is_back_and_a_daemon_that_is_gone_too() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "200ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    send(to, &lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    let prometheus = Prometheus::start(&place, bridge(&place));
    prometheus.until("it is scraped", |_| prometheus.value("headworks_events_stored_total") == Some(3.0));
    // Before the first scrape there was nobody.
    prometheus.until("nothing fires", BTreeSet::is_empty);

    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(to, &lines("acme", 3..6));
    prometheus.until("the store is down", has("HeadworksStoreDown"));
    lock.execute_batch("ROLLBACK").unwrap();
    place.until("SELECT count(*) FROM events", 6);
    prometheus.until("the store is back", |firing| !firing.contains("HeadworksStoreDown"));
    assert_eq!(prometheus.value("headworks_events_in_flight"), Some(0.0));

    daemon.terminated().succeeded();
    prometheus.until("the daemon is gone", has("HeadworksDown"));
}

#[test]
fn a_tenant_that_is_quarantined_is_told() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS_FAULT", "panic-after-intent")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RESTART__BASE", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RESTART__CAP", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RESTART__INTENSITY", "2")
        .env("HEADWORKS__TENANTS__DEFAULTS__RESTART__QUARANTINE", "1h")
        .env("HEADWORKS__DAEMON__DRAIN_DEADLINE", "1ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let prometheus = Prometheus::start(&place, bridge(&place));
    prometheus.until("it is scraped", |_| prometheus.value("headworks_events_stored_total") == Some(0.0));
    // Before the first scrape there was nobody.
    prometheus.until("nothing fires", BTreeSet::is_empty);
    send(to, &lines("acme", 0..3));
    prometheus.until("it is quarantined", has("HeadworksTenantQuarantined"));
    assert_eq!(prometheus.value("headworks_tenant_in_flight{tenant=\"acme\"}"), Some(3.0), "its events wait");
    daemon.kill();
}

#[test]
fn events_that_are_given_up_and_senders_that_send_what_is_no_event_are_told() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__UNKNOWN", "reject").env("HEADWORKS__TENANTS__BY_ID__ACME__ACK", "received");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let prometheus = Prometheus::start(&place, bridge(&place));
    prometheus.until("it is scraped", |_| prometheus.value("headworks_events_received_total") == Some(0.0));
    let all = |firing: &BTreeSet<String>| {
        ["HeadworksMalformed", "HeadworksRejected"].iter().all(|alert| firing.contains(*alert))
    };
    let began = std::time::Instant::now();
    // What increases is told, not what stands: a few more until it is seen.
    while !all(&prometheus.firing()) {
        assert!(began.elapsed() < crate::rig::DEADLINE, "{:?}", prometheus.firing());
        send(to, &[&b"no JSON\n"[..], &lines("stranger", 0..3)].concat());
    }
    daemon.terminated().succeeded();
}
