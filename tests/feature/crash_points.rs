//! The process is killed at each step of the way, and at any moment: what is there is sound, and a new one goes on.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::rig::crash::{Account, Daemon, assert_sound, found, kill_at_random};
use crate::rig::{Place, connect, send};

const POINTS: [&str; 5] = ["after-accept", "after-cut", "after-intent", "after-store", "after-outcome"];
const STORES: [&str; 2] = ["sqlite", "files"];

/// Small batches: many steps, and many chances to be torn.
fn daemon<'p>(place: &'p Place, store: &str) -> Daemon<'p> {
    Daemon::new(place).with("store.type", store).with("tenants.defaults.window.max_events", "20")
}

/// Notes `events` of each of three tenants, in turn, and gives back their lines.
fn sample(account: &mut Account, events: usize) -> Vec<Vec<u8>> {
    let mut lines = vec![];
    for _ in 0..events {
        for tenant in ["acme", "umbrella", "zen"] {
            let n = account.sent.get(tenant).map_or(0, Vec::len);
            let line = format!("{{\"tenant\":\"{tenant}\",\"n\":{n}}}");
            lines.push(format!("{line}\n").into_bytes());
            account.send(tenant, line);
        }
    }
    lines
}

/// Sends until there is nobody left to take it.
fn send_until_it_is_gone(to: SocketAddr, lines: &[Vec<u8>]) {
    let mut connection = connect(to);
    for some in lines.chunks(60) {
        if connection.write_all(&some.concat()).is_err() {
            return;
        }
    }
}

/// Nothing is acknowledged before the end: then a whole run that drained. Its events are in the store, in order behind
/// what survived.
fn goes_on(daemon: &Daemon<'_>, place: &Place, account: &mut Account) {
    let (process, address) = daemon.start();
    let before: Vec<_> = account.sent.values().map(Vec::len).collect();
    send(address, &sample(account, 50).concat());
    process.terminated().succeeded();
    for ((tenant, events), before) in account.sent.clone().into_iter().zip(before) {
        account.acknowledged.entry(tenant).or_default().extend(before..events.len());
    }
    assert_sound(account, &found(place));
}

#[test]
fn killed_at_any_step_it_leaves_whole_events_once_and_in_order_and_the_next_one_goes_on() {
    for store in STORES {
        for point in POINTS {
            let place = Place::new();
            let daemon = daemon(&place, store);
            let mut account = Account::default();
            let (doomed, address) = daemon.start_doomed(&format!("{point}:8"));
            send_until_it_is_gone(address, &sample(&mut account, 20_000));
            doomed.died();
            // Batches of 20, at most one of each of three tenants under way.
            let expected = match point {
                "after-accept" | "after-cut" => 0,
                "after-intent" => (8 - 3) * 20,
                _ => 8 * 20,
            };
            let survived: usize = found(&place).stored.values().map(Vec::len).sum();
            assert!(survived >= expected, "{store} {point}: {survived}");
            goes_on(&daemon, &place, &mut account);
        }
    }
}

#[test]
fn killed_at_any_moment_again_and_again_it_leaves_whole_events_once_and_in_order() {
    for store in STORES {
        let place = Place::new();
        let daemon = daemon(&place, store);
        let mut account = Account::default();
        for seed in 0..5 {
            let (process, address) = daemon.start();
            let lines = sample(&mut account, 20_000);
            std::thread::scope(|scope| {
                scope.spawn(|| send_until_it_is_gone(address, &lines));
                kill_at_random(process, seed, Duration::from_millis(300));
            });
            assert_sound(&account, &found(&place));
        }
        goes_on(&daemon, &place, &mut account);
    }
}

#[test]
fn a_fault_point_that_does_not_exist_is_refused_and_no_test_that_passes() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS_FAULT", "after-intend");
    let mut process = crate::rig::Process::spawn(&mut command);
    let address = process.listens();
    send_until_it_is_gone(address, &sample(&mut Account::default(), 100));
    let ended = process.ended();
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("valid: after-accept, after-cut"), "{}", ended.err);
}
