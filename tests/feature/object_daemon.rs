//! A daemon whose store is in objects, from the socket to the object.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::Value;

use crate::rig::crash::{Daemon, assert_sound, found, kill_at_random};
use crate::rig::s3::{BUCKET, S3};
use crate::rig::sender::{Send, Sender};
use crate::rig::{Place, Process, lines, send, sorted};

fn daemon<'p>(place: &'p Place, s3: &S3) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "object")
        .with("store.url", &format!("s3://{BUCKET}/events"))
        .with("store.endpoint", &s3.endpoint())
        .with("store.credentials_file", s3.keys().to_str().unwrap())
        .with("tenants.defaults.window.max_age", "50ms")
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "200ms")
}

/// Every event is there once, in the order in which it was sent.
#[track_caller]
fn assert_all_there(s3: &S3, input: &[u8]) {
    let sent = sorted(input).0;
    for (tenant, bodies) in &sent {
        let stored = s3.reader("events").bodies(&tenant.parse().unwrap()).unwrap();
        assert!(stored == *bodies, "{tenant}: {} sent, {} stored", bodies.len(), stored.len());
    }
    assert_eq!(counted(s3), sent.values().map(Vec::len).sum::<usize>());
}

/// The events, by the objects alone.
fn counted(s3: &S3) -> usize {
    let objects = s3.objects("events");
    let events = |bytes: &Vec<u8>| zstd::stream::decode_all(&**bytes).unwrap().split(|byte| *byte == b'\n').count() - 1;
    objects.values().map(events).sum()
}

#[test]
fn what_is_sent_is_in_its_objects_once_and_in_order_and_query_tenants_and_audit_find_it_live_and_at_rest() {
    let (place, s3) = (Place::new(), S3::start());
    let input = place.generated(&["--events", "5000", "--tenants", "4", "--seed", "3"]);
    let acme = lines("acme", 0..1000);
    let (process, address) = daemon(&place, &s3).start();
    send(address, &acme);
    let live = place.run(&["query", "acme", "--data", "data", "--limit", "10"]);
    let is_beginning = acme.starts_with(&live.succeeded().out);
    assert!(is_beginning);
    send(address, &input);
    let audit = |code| place.run(&["audit", "--data", "data"]).with(code).text();
    assert!(audit(0).ends_with("Both sums hold.\n"));
    let shown = place.run(&["config", "show", "--data", "data"]);
    let ended = process.terminated().succeeded();
    assert!(!format!("{}{}{}", shown.text(), shown.err, ended.err).contains("s3cret"));

    assert_all_there(&s3, &[acme.clone(), input].concat());
    assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().out, acme);
    let one = place.run(&["query", "acme", "--data", "data", "--limit", "1", "--json"]).succeeded().text();
    let one: Value = serde_json::from_str(&one).unwrap();
    assert!(one["batch"].as_str().unwrap().ends_with("/acme/1") && one["arrived"].is_string(), "{one}");
    let rows = place.json(&["tenants", "--data", "data", "--json"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["tenant"] == "acme").cloned();
    assert!(row.is_some(), "{rows}");
    assert!(audit(0).ends_with("The sum of events holds.\n"));

    let of_acme = |key: &String| key.starts_with("acme/");
    let key = s3.objects("events").into_keys().find(of_acme).unwrap();
    let bytes = s3.take("events", &key);
    assert!(audit(1).contains("acme: the store holds "), "{}", audit(1));
    let mut damaged = bytes.clone();
    damaged[10] ^= 1;
    s3.give("events", &key, &damaged);
    assert!(audit(1).contains("acme: "), "{}", audit(1));
    s3.give("events", &key, b"none of ours");
    assert!(audit(1).contains(&key), "{}", audit(1));
    s3.give("events", &key, &bytes);
    assert!(audit(0).ends_with("The sum of events holds.\n"));
}

#[test]
fn while_its_server_and_itself_are_killed_the_daemon_stores_each_event_once_and_in_order() {
    let (place, mut s3) = (Place::new(), S3::start());
    let daemon = daemon(&place, &s3).with("tenants.defaults.window.max_events", "50");
    let mut sender = Sender::new("stored", "stored", 11);
    for kill in 0..6 {
        sender.make_some(800);
        let (process, address) = daemon.start();
        std::thread::scope(|scope| {
            let session = scope.spawn(|| sender.session(address, Send::On));
            s3.kill();
            s3.restart();
            kill_at_random(process, kill, Duration::from_millis(300));
            assert!(!session.join().unwrap(), "it was not to stop");
        });
    }
    let (process, address) = daemon.start();
    assert!(sender.session(address, Send::TheRest));
    process.terminated().succeeded();
    assert_sound(&sender.account, &found(&place));
    assert!(sender.is_done());
    let events = sender.account.sent.values().map(Vec::len).sum::<usize>();
    assert_eq!(counted(&s3), events);
    eprintln!("six kills of the daemon and of its server: {events} events, each once");
    assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE kind = 'event'"), 0);
    assert_eq!(place.run(&["audit", "--data", "data"]).code, Some(0));
}

#[test]
fn a_daemon_whose_store_refuses_it_does_not_start_and_says_why() {
    let (place, s3) = (Place::new(), S3::start());
    std::fs::write(s3.keys(), "aws_access_key_id = AKIDHEADWORKS\naws_secret_access_key = wrong\n").unwrap();
    let refused = Process::spawn(&mut daemon(&place, &s3).command(None)).ended().with(78);
    assert!(refused.err.contains("check the keys in credentials_file"), "{}", refused.err);
}
