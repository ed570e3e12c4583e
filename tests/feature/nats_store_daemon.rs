//! A daemon whose store is in a NATS JetStream, from the socket to the message.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use crate::rig::crash::{Daemon, assert_sound, found, kill_at_random};
use crate::rig::nats::Nats;
use crate::rig::sender::{Send, Sender};
use crate::rig::{Place, Process, lines, send};

const STREAM: &str = "BATCHES";

fn daemon<'p>(place: &'p Place, nats: &Nats) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "nats")
        .with("store.url", &nats.url())
        .with("store.stream", STREAM)
        .with("tenants.defaults.window.max_age", "50ms")
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
    let mut found = found(&place);
    found.stored.extend(nats.events(STREAM));
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
    let (mut process, address) = daemon(&place, &nats).with("tenants.defaults.window.max_age", "1s").start();
    let large = format!("{{\"tenant\":\"acme\",\"text\":\"{}\"}}\n", "x".repeat(100_000));
    send(address, &[lines("acme", 0..200), large.into_bytes(), lines("acme", 200..400)].concat());
    let warning = process.says_in("message", "larger is halved");
    assert!(warning["message"].as_str().unwrap().contains("window.max_bytes"), "{warning}");
    process.terminated().succeeded();
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
