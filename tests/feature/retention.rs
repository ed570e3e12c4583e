//! Retention: what is stored is pruned by age and size while a daemon runs and at rest; nothing is lost or counted wrongly by it,
//! whenever the process dies.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::crash::{Daemon, kill_at_random};
use crate::rig::prometheus::{samples, scrape};
use crate::rig::{Bodies, DEADLINE, Place, Process, lines, pour, send, settled};

const LAYOUTS: [&str; 2] = ["rows", "index"];

/// Small batches of two tenants, of which one keeps the newest 20 KiB, and the other all.
fn daemon<'p>(place: &'p Place, layout: &str) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.layout", layout)
        .with("store.segment_bytes", "64KiB")
        .with("retention.every", "100ms")
        .with("journal.segment_bytes", "64KiB")
        .with("journal.max_bytes", "8MiB")
        .with("tenants.defaults.window.max_events", "20")
        .with("tenants.defaults.window.max_age", "20ms")
        .with("tenants.by_id.acme.retention.max_bytes", "20KiB")
}

pub(super) fn audited(place: &Place) -> Value {
    let audit = place.run(&["audit", "--data", "data", "--json"]);
    assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
    serde_json::from_slice(&audit.out).unwrap()
}

/// What the audit says of a tenant: stored, pruned.
pub(super) fn told(audit: &Value, tenant: &str) -> (u64, u64) {
    let row = audit["tenants"].as_array().unwrap().iter().find(|row| row["tenant"] == tenant).unwrap();
    (row["events"]["stored"].as_u64().unwrap(), row["pruned"].as_u64().unwrap())
}

/// The numbers of a tenant's events, in the order in which they are stored.
fn numbers(stored: &Bodies, tenant: &str) -> Vec<u64> {
    let number = |body: &Vec<u8>| serde_json::from_slice::<Value>(body).unwrap()["n"].as_u64().unwrap();
    stored.get(tenant).into_iter().flatten().map(number).collect()
}

/// What is there of a tenant is the end of what was stored of it, without a gap; nothing of the other one is gone.
#[track_caller]
pub(super) fn assert_pruned_from_the_front(place: &Place, stored: &Bodies) {
    let audit = audited(place);
    for (tenant, keeps_all) in [("acme", false), ("zen", true)] {
        let (all, pruned) = told(&audit, tenant);
        let there = numbers(stored, tenant);
        assert_eq!(all, pruned + there.len() as u64, "{tenant}");
        assert!(!keeps_all || pruned == 0, "{tenant}");
        assert!(there.windows(2).all(|pair| pair[1] == pair[0] + 1), "{tenant}: {there:?}");
        assert!(there.first().is_none_or(|first| *first == pruned), "{tenant}: {pruned} are gone, and {there:?} there");
    }
}

/// The same, at a pace at which there is time to prune between two batches.
fn slow<'p>(place: &'p Place, layout: &str) -> Daemon<'p> {
    daemon(place, layout)
        .with("tenants.defaults.throttle.events_per_second", "2000")
        .with("tenants.defaults.throttle.delay_for", "1day")
}

const PRUNED: &str = "SELECT coalesce(sum(letters), 0) FROM purged_letters WHERE kind = 'pruned'";

fn sum_of(place: &Place, tenant: &str) -> i64 {
    place.number(&format!("SELECT coalesce(sum(body_bytes), 0) FROM batches WHERE tenant = '{tenant}'"))
}

#[test]
fn the_newest_stay_within_their_bound_while_events_come_and_all_is_accounted_for() {
    for layout in LAYOUTS {
        let place = Place::new();
        let (process, address) = daemon(&place, layout).start();
        let mut most = 0;
        std::thread::scope(|scope| {
            let pouring = scope.spawn(|| pour(address, 0, 20_000));
            while !pouring.is_finished() {
                // A wal says that the database is made.
                if place.data().join("headworks.db-wal").exists() {
                    most = most.max(sum_of(&place, "acme"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        place.until("SELECT count(*) FROM (SELECT 1 FROM batches WHERE tenant = 'zen' GROUP BY tenant HAVING sum(events) = 20000)", 1);
        let began = Instant::now();
        while sum_of(&place, "acme") > 20 << 10 {
            assert!(began.elapsed() < DEADLINE, "{layout}: {} bytes are there", sum_of(&place, "acme"));
            std::thread::sleep(Duration::from_millis(10));
        }
        // What comes in between two looks is there beyond the bound.
        let all = sum_of(&place, "zen");
        assert!(most < all, "{layout}: of {all} bytes {most} were there at once");
        assert_pruned_from_the_front(&place, &place.stored());
        let (_, text) = scrape(&place, "");
        let pruned = samples(&text)["headworks_events_pruned_total"];
        assert_eq!(pruned, place.number(PRUNED) as f64);
        let log = place.run(&["log", "--data", "data", "--what", "pruned"]).succeeded().text();
        let log = log.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(log.contains("What the rules of retention let go of was pruned:") && log.contains("of acme"), "{log}");
        let queried = place.run(&["query", "acme", "--data", "data"]).succeeded().out;
        assert_eq!(queried.split_inclusive(|byte| *byte == b'\n').count(), numbers(&place.stored(), "acme").len());
        let copy = place.run(&["backup", "copy", "--data", "data"]);
        assert_eq!(copy.code, Some(0), "{}", copy.err);
        process.terminated().succeeded();
        assert_pruned_from_the_front(&place, &place.stored());
        place.run(&["restore", "copy", "--data", "restored"]).succeeded();
        place.run(&["audit", "--data", "restored"]).succeeded();
    }
}

#[test]
fn killed_while_it_prunes_it_has_pruned_and_counted_or_neither_and_goes_on() {
    for layout in LAYOUTS {
        let place = Place::new();
        let mut next = 0;
        let points = match layout {
            "rows" => &["in-prune:1", "in-prune:4", "after-prune:2", "after-store:40", ""][..],
            _ => &["in-prune:3", "after-prune:1", ""],
        };
        for &point in points {
            // What was sent and not accepted must not make a gap: each life has its own end, from the journal.
            let (process, address) = match point {
                "" => slow(&place, layout).start(),
                point => slow(&place, layout).start_doomed(point),
            };
            if point.is_empty() {
                std::thread::scope(|scope| {
                    scope.spawn(|| pour(address, next, 20_000));
                    kill_at_random(process, next, Duration::from_millis(400));
                });
            } else {
                pour(address, next, 200_000);
                process.died();
            }
            // All that was accepted is stored, and what is sent next follows it.
            let (process, _) = slow(&place, layout).start();
            settled(&place);
            process.terminated().succeeded();
            assert_pruned_from_the_front(&place, &place.stored());
            let audit = audited(&place);
            // One of the two may be ahead by what a torn connection brought of it.
            let (acme, zen) = (told(&audit, "acme").0, told(&audit, "zen").0);
            if acme != zen {
                let (process, address) = slow(&place, layout).start();
                let (who, from, upto) = if acme < zen { ("acme", acme, zen) } else { ("zen", zen, acme) };
                send(address, &lines(who, usize::try_from(from).unwrap()..usize::try_from(upto).unwrap()));
                process.terminated().succeeded();
            }
            next = acme.max(zen);
        }
        assert!(place.number(PRUNED) > 0);
        assert_pruned_from_the_front(&place, &place.stored());
        let integrity: String = place.database().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(integrity, "ok");
    }
}

#[test]
fn rules_that_are_changed_while_it_runs_hold_and_by_default_nothing_goes() {
    let place = Place::new();
    let mut process = Process::spawn(place.daemon().env("HEADWORKS__RETENTION__EVERY", "100ms"));
    send(process.listens(), &lines("acme", 0..100));
    place.until("SELECT count(*) FROM events", 100);
    place.run(&["tenants", "set", "acme", "retention.max_bytes=1B", "--data", "data"]).succeeded();
    place.until(PRUNED, 100);
    let audit = audited(&place);
    assert_eq!(told(&audit, "acme"), (100, 100));
    assert_eq!(audit["tenants"][0]["held"]["rows"], 100);
    process.terminated().succeeded();
    let nothing = place.run(&["query", "acme", "--data", "data"]).succeeded();
    assert_eq!(nothing.text(), "", "it is known, and has nothing");
    let text = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(text.contains("100 stored events were pruned by their retention, and are counted as there\n"), "{text}");
}

#[test]
fn dead_letters_go_by_their_age() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__RETENTION__EVERY", "100ms").env("HEADWORKS__DEAD_LETTERS__MAX_AGE", "1s");
    let mut process = Process::spawn(&mut command);
    send(process.listens(), &b"no JSON\n".repeat(700));
    place.until("SELECT coalesce(sum(letters), 0) FROM purged_letters WHERE kind = 'frame'", 700);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
    assert_eq!(audited(&place)["malformed"]["purged"], 700);
    process.terminated().succeeded();
}

#[test]
fn dead_letters_of_a_tenant_go_by_its_own_rule_and_others_stay() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__RETENTION__EVERY", "100ms")
        .env("HEADWORKS__DEAD_LETTERS__MAX_AGE", "1day")
        .env("HEADWORKS__TENANTS__BY_ID__ACME__RETENTION__DEAD_LETTERS_MAX_AGE", "1s");
    let mut process = Process::spawn(&mut command);
    let to = process.listens();
    send(to, &lines("other", 0..1));
    place.until("SELECT count(*) FROM events", 1);
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'not wanted'); END";
    place.database().execute_batch(refuse).unwrap();
    send(to, &[lines("acme", 0..20), lines("zen", 0..5)].concat());
    place.until("SELECT coalesce(sum(letters), 0) FROM purged_letters WHERE kind = 'event' AND tenant = 'acme'", 20);
    place.until("SELECT count(*) FROM dead_letters WHERE tenant = 'zen'", 5);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 5);
    settled(&place);
    audited(&place);
    process.terminated().succeeded();
}

#[test]
fn a_daemon_that_runs_prunes_when_it_is_told_to_and_a_dry_run_only_says_what_would_go() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__RETENTION__EVERY", "1day")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "100")
        .env("HEADWORKS__TENANTS__BY_ID__ACME__RETENTION__MAX_BYTES", "10KiB");
    let mut process = Process::spawn(&mut command);
    send(process.listens(), &[lines("acme", 0..1000), lines("zen", 0..1000)].concat());
    place.until("SELECT count(*) FROM events", 2000);
    settled(&place);
    let would = place.json(&["prune", "--dry-run", "--json", "--data", "data"]);
    let events = would["events"][0]["events"].as_i64().unwrap();
    assert!(events >= 500 && would["events"][0]["tenant"] == "acme", "{would}");
    assert_eq!(place.number(PRUNED), 0);
    let did = place.run(&["prune", "--data", "data"]).succeeded().text();
    assert!(did.ends_with(&format!("\n{events} events and 0 dead letters were pruned.\n")), "{did}");
    assert_eq!((place.number(PRUNED), sum_of(&place, "acme") <= 10 << 10), (events, true));
    let none = place.run(&["prune", "--data", "data"]).succeeded().text();
    assert_eq!(none, "0 events and 0 dead letters were pruned.\n");
    let log = place.run(&["log", "--data", "data", "--what", "pruned"]).succeeded().text();
    assert!(log.contains(&format!("{events} events: {events} of acme")), "{log}");
    assert_pruned_from_the_front(&place, &place.stored());
    process.terminated().succeeded();
}

#[test]
fn a_directory_at_rest_is_pruned_by_hand_and_a_dry_run_only_says_what_would_go() {
    for layout in LAYOUTS {
        let place = Place::new();
        let mut command = place.daemon();
        command.env("HEADWORKS__STORE__LAYOUT", layout).env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "100");
        let mut process = Process::spawn(&mut command);
        send(process.listens(), &[lines("acme", 0..1000), lines("zen", 0..1000)].concat());
        let refused = place.run(&["prune", "--vacuum", "--data", "data"]).with(69);
        assert!(refused.err.contains("--vacuum writes the databases anew"), "{}", refused.err);
        process.terminated().succeeded();
        let prune = |more: &[&str]| {
            let mut command = place.command(&[&["prune", "--data", "data"], more].concat());
            command.env("HEADWORKS__TENANTS__BY_ID__ACME__RETENTION__MAX_BYTES", "10KiB");
            Process::spawn(&mut command).ended().succeeded().text()
        };
        let would = prune(&["--dry-run"]);
        assert!(would.contains(" dead letters would be pruned.\n"), "{would}");
        assert_eq!(place.number(PRUNED), 0);
        let did = prune(&["--vacuum"]);
        assert_eq!(did, would.replace("would be", "were"));
        assert!(place.number(PRUNED) >= 500 && sum_of(&place, "acme") <= 10 << 10);
        assert!(prune(&["--json"]).contains("\"dead_letters\": 0"));
        assert_pruned_from_the_front(&place, &place.stored());
        let none = place.run(&["prune", "--data", "data"]).succeeded().text();
        assert!(
            none.starts_with("0 events and 0 dead letters were pruned.\nNo rule says that anything is to go"),
            "{none}"
        );
    }
}

#[test]
fn a_tenant_that_is_being_erased_when_the_process_dies_is_erased_by_the_next_one() {
    for layout in LAYOUTS {
        let place = Place::new();
        let daemon = Daemon::new(&place).with("store.layout", layout);
        let (process, address) = daemon.start_doomed("in-erase");
        // More than goes in one step.
        send(address, &[lines("acme", 0..50_000), lines("zen", 0..100)].concat());
        settled(&place);
        place.run(&["tenants", "erase", "acme", "--yes", "--data", "data"]);
        process.died();
        let left = place.number("SELECT count(*) FROM batches WHERE tenant = 'acme'");
        assert!(left > 0, "it died in the midst");
        let (process, address) = daemon.start();
        assert_eq!(place.number("SELECT count(*) FROM batches WHERE tenant = 'acme'"), 0);
        assert_eq!(place.number("SELECT count(*) FROM erasing"), 0);
        let log = place.run(&["log", "--data", "data", "--what", "erased"]).succeeded().text();
        let log = log.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(log.contains("the rest of what was cut short when the last process ended"), "{log}");
        send(address, &lines("acme", 0..10));
        settled(&place);
        process.terminated().succeeded();
        audited(&place);
        assert_eq!(place.stored()["acme"].len(), 10);
        assert_eq!(place.stored()["zen"].len(), 100);
    }
}
