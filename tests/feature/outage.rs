//! A store that is away: the sender waits, memory stays flat, nothing is given up, and all is stored once it is back.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{DEADLINE, Place, Process, connect, finish, send, sorted};

/// Waits until a number has not moved for so many looks in a row; does the same at each.
fn at_rest(number: &AtomicU64, mut at_each_look: impl FnMut()) -> u64 {
    const LOOKS: usize = 10;
    let began = Instant::now();
    let (mut last, mut same) = (number.load(Ordering::Relaxed), 0);
    while same < LOOKS {
        assert!(began.elapsed() < DEADLINE, "it does not come to rest");
        std::thread::sleep(Duration::from_millis(100));
        at_each_look();
        let now = number.load(Ordering::Relaxed);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn while_another_process_holds_the_database_the_sender_waits_and_memory_stays_flat_and_nothing_is_lost() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "10ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "100ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let events = |count: &str, seed: &str| {
        place.generated(&["--events", count, "--tenants", "4", "--bytes", "4000", "--seed", seed])
    };
    // What the program needs for its ordinary work, it has from now on.
    let before = events("400", "1");
    send(to, &before);
    place.until("SELECT count(*) FROM events", 400);
    let memory_before = daemon.memory();

    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let offered = events("17000", "2");
    assert!(offered.len() >= 64 << 20, "{}", offered.len());
    let sent = AtomicU64::new(0);
    let (taken, grown, is_held) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut connection = connect(to);
            for part in offered.chunks(64 << 10) {
                connection.write_all(part).unwrap();
                sent.fetch_add(part.len() as u64, Ordering::Relaxed);
            }
            finish(connection);
        });
        let mut most = 0;
        let taken = at_rest(&sent, || most = daemon.memory().max(most));
        let is_held = !sender.is_finished();
        lock.execute_batch("ROLLBACK").unwrap();
        sender.join().unwrap();
        (taken, most.saturating_sub(memory_before), is_held)
    });
    assert!(is_held && taken < offered.len() as u64, "the sender must feel the store");
    assert!(grown < 32 << 20, "memory grew by {} KiB", grown >> 10);
    daemon.terminated().succeeded();

    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
    // Not one line twice, since every line is at its place.
    assert!(place.stored() == sorted(&[before, offered].concat()).0, "every event once, in order");
}

#[test]
fn what_was_accepted_before_the_store_went_away_is_not_tried_to_death() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "1ms")
        .env("HEADWORKS__REPORT__EVERY", "1s")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__ATTEMPTS", "1")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "1ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "1ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(to, b"{\"tenant\":\"acme\"}\n");
    let told = daemon.says("failures since the last report");
    assert_eq!((&told["tenant"], &told["code"]), (&"acme".into(), &"store_unavailable".into()));
    assert!(told["sample"].as_str().unwrap().contains("locked by another process"), "{told}");
    lock.execute_batch("ROLLBACK").unwrap();
    daemon.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 1);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
}
