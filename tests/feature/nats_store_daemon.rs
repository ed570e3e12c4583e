//! A daemon whose store is in a NATS JetStream, from the socket to the message.

use std::time::Duration;

use crate::rig::crash::{Daemon, assert_sound, found, kill_at_random};
use crate::rig::nats::Nats;
use crate::rig::sender::{Send, Sender};
use crate::rig::{Place, Process, lines, send};

use super::crash_acks::{self, POINTS, killed};

const STREAM: &str = "BATCHES";

fn daemon<'p>(place: &'p Place, nats: &Nats) -> Daemon<'p> {
    in_stream(Daemon::new(place).with("tenants.defaults.window.max_age", "50ms"), nats, "store")
}

/// With a store there.
fn in_stream<'p>(daemon: Daemon<'p>, nats: &Nats, store: &str) -> Daemon<'p> {
    daemon
        .with(&format!("{store}.type"), "nats")
        .with(&format!("{store}.url"), &nats.url())
        .with(&format!("{store}.stream"), STREAM)
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "200ms")
}

#[test]
fn while_its_server_and_itself_are_killed_the_daemon_publishes_each_event_once_and_in_order() {
    let (place, mut nats) = (Place::new(), Nats::start());
    let daemon = daemon(&place, &nats).with("tenants.defaults.window.max_events", "50");
    let mut sender = Sender::new("stored", "stored", 13);
    for kill in 0..6 {
        sender.make_some(800);
        let (process, address) = daemon.start();
        std::thread::scope(|scope| {
            let session = scope.spawn(|| sender.session(address, Send::On));
            nats.kill();
            nats.restart();
            kill_at_random(process, kill, Duration::from_millis(300));
            assert!(!session.join().unwrap(), "it was not to stop");
        });
    }
    let (process, address) = daemon.start();
    assert!(sender.session(address, Send::TheRest));
    process.terminated().succeeded();
    nats.publishes(&place, STREAM);
    let found = found(&place);
    assert_sound(&sender.account, &found);
    assert!(sender.is_done());
    let (sent, stored) = (&sender.account.sent, &found.stored);
    let count = |of: &crate::rig::Bodies| of.values().map(Vec::len).sum::<usize>();
    assert_eq!(count(sent), count(stored));
    eprintln!("six kills of the daemon and of its server: {} events, each once", count(stored));
    let audit = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(audit.contains("what is stored in store: it is a webhook, a NATS stream"), "{audit}");
    let refused = place.run(&["query", "acme", "--data", "data"]);
    assert!(refused.code != Some(0) && refused.err.contains("cannot be read back"), "{}", refused.err);
}

#[test]
fn an_event_that_is_larger_than_the_server_takes_is_found_and_becomes_a_dead_letter_and_all_others_are_there() {
    let (place, nats) = (Place::new(), Nats::start_with("max_payload: 64KB"));
    let (process, address) = daemon(&place, &nats).with("tenants.defaults.window.max_age", "1s").start();
    let large = format!("{{\"tenant\":\"acme\",\"text\":\"{}\"}}\n", "x".repeat(100_000));
    send(address, &[lines("acme", 0..200), large.into_bytes(), lines("acme", 200..400)].concat());
    let said = process.terminated().succeeded().err;
    assert!(said.contains("a batch may have 1MiB (window.max_bytes), and the stream BATCHES takes 64KiB"), "{said}");
    let sent: Vec<Vec<u8>> = lines("acme", 0..400)
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    assert!(nats.events(STREAM)["acme"] == sent);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE kind = 'event'"), 1);
    assert_eq!(place.json(&["uncompensated", "--data", "data", "--json"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn a_daemon_whose_server_refuses_it_does_not_start_and_says_why() {
    let (place, nats) = (Place::new(), Nats::start_with("authorization { user: app, password: right }"));
    let refused = Process::spawn(&mut daemon(&place, &nats).command(None)).ended();
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("check credentials_file"), "{}", refused.err);
}

#[test]
fn killed_a_hundred_times_over_a_nats_stream_all_that_was_acknowledged_is_published_once() {
    let (place, nats) = (Place::new(), Nats::start());
    nats.run("make", &[STREAM, "headworks.>"]);
    nats.publishes(&place, STREAM);
    let daemon = in_stream(crash_acks::daemon(&place, "sqlite"), &nats, "store");
    let run = killed(&place, "nats", daemon, &POINTS);
    assert_eq!((run.acknowledged, run.stored), (run.events, run.events));
    assert_eq!(place.number("SELECT count(*) FROM batches"), 0);
}

#[cfg(feature = "webhook")]
#[test]
fn killed_a_hundred_times_over_a_nats_stream_and_a_webhook_both_hold_the_same_and_what_one_refuses_is_in_neither() {
    use crate::rig::webhook::{Receiver, stored};

    use super::crash_acks::MORE_POINTS;

    let (place, nats) = (Place::new(), Nats::start());
    nats.run("make", &[STREAM, "headworks.>"]);
    nats.publishes(&place, STREAM);
    let receiver = Receiver::start(&place, "");
    let daemon = in_stream(crash_acks::daemon(&place, "sqlite"), &nats, "stores.bus")
        .with("stores.hook.type", "webhook")
        .with("stores.hook.url", &receiver.url())
        .with("stores.hook.rollback_url", &receiver.rollback_url())
        .with("tenants.stores", "['bus', 'hook']")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("daemon.drain_deadline", "2m");
    receiver.mode("{\"poison\":true}");
    let few = MORE_POINTS.into_iter().filter(|point| ["after-step", "after-rollback", "after-split"].contains(point));
    let points: Vec<_> = POINTS.into_iter().chain(few).collect();
    let run = killed(&place, "nats, then webhook", daemon, &points);
    assert_eq!((run.acknowledged, run.stored + run.dead.len() as u64), (run.events, run.events));
    assert!(!run.dead.is_empty());
    assert!(nats.events(STREAM) == stored(&place), "the two hold the same");
}
