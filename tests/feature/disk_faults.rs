//! The disk is full, fails, or is slow: what was accepted stays, nothing is acknowledged on hope, it is told, and it goes on by
//! itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use crate::rig::crash::{Account, Daemon, assert_sound, found};
use crate::rig::disk::{Fault, Tmpfs};
use crate::rig::sender::{Send, Sender};
use crate::rig::{Ended, Place, Process};

const FAILS: &str = "the journal fails; it takes no events until it can be written";
const WORKS: &str = "the journal can be written again, and takes events";

fn daemon<'p>(place: &'p Place, store: &str) -> Daemon<'p> {
    let daemon = match store {
        "index" => Daemon::new(place).with("store.layout", "index"),
        _ => Daemon::new(place).with("store.type", store),
    };
    daemon
        .with("tenants.defaults.window.max_events", "15")
        .with("tenants.defaults.window.max_age", "50ms")
        .with("tenants.defaults.retry.cap", "200ms")
}

fn senders() -> [Sender; 2] {
    ["journaled", "stored"].map(|level| Sender::new(level, level, 7))
}

/// What both sent and were told.
fn account(senders: &[Sender; 2]) -> Account {
    senders.iter().map(|sender| sender.account.clone()).reduce(Account::and).unwrap()
}

fn inspected(place: &Place) -> Value {
    place.json(&["journal", "inspect", "--data", "data", "--json"])
}

/// It fails, which it says in the log and whoever asks.
#[track_caller]
fn assert_fails(place: &Place, process: &mut Process, why: &str) {
    let told = process.says(FAILS);
    assert!(told["why"].as_str().unwrap().contains(why), "{told}");
    let told = inspected(place);
    assert!(told["failing"].as_str().is_some_and(|failing| failing.contains(why)), "{told}");
    assert_eq!(told["damage"], Value::Array(vec![]));
    let text = place.run(&["journal", "inspect", "--data", "data"]).succeeded().text();
    assert!(text.contains("\nFAILING: ") && text.contains(why), "{text}");
}

/// `fault` comes, and the disk is well again when what it gives is dropped; the senders notice nothing but a wait. None where
/// there can be no such fault.
fn told_and_over<F>(place: &Place, store: &str, fault: impl FnOnce(&Process) -> Option<F>, why: &str) -> Option<()> {
    let (mut process, to) = daemon(place, store).start();
    let mut senders = senders();
    for sender in &mut senders {
        sender.make_some(200);
        assert!(sender.session(to, Send::TheRest));
        sender.make_some(1_000);
    }
    let fault = fault(&process)?;
    let before = senders.each_ref().map(|sender| sender.acknowledged);
    let process = std::thread::scope(|scope| {
        let sessions = senders.each_mut().map(|sender| scope.spawn(move || sender.session(to, Send::TheRest)));
        assert_fails(place, &mut process, why);
        assert!(sessions.iter().all(|session| !session.is_finished()), "not all of it can have its answer");
        drop(fault);
        process.says(WORKS);
        sessions.into_iter().for_each(|session| assert!(session.join().unwrap()));
        process
    });
    assert_eq!(inspected(place)["failing"], Value::Null);
    let Ended { err, .. } = process.terminated().succeeded();
    assert_eq!(err.matches(FAILS).count(), 1, "told once, not at each try: {err}");
    assert_sound(&account(&senders), &found(place));
    assert!(senders.iter().zip(before).all(|(sender, before)| sender.is_done() && sender.acknowledged > before));
    place.run(&["audit", "--data", "data"]).succeeded();
    Some(())
}

/// The daemon is killed while its disk fails; what it had acknowledged is there for the next one.
fn killed_meanwhile<F>(place: &Place, store: &str, fault: impl FnOnce(&Process) -> Option<F>, why: &str) {
    let (mut process, to) = daemon(place, store).start();
    let mut senders = senders();
    for sender in &mut senders {
        sender.make_some(200);
        assert!(sender.session(to, Send::TheRest));
        sender.make_some(1_000);
    }
    let Some(fault) = fault(&process) else { return };
    std::thread::scope(|scope| {
        let sessions = senders.each_mut().map(|sender| scope.spawn(move || sender.session(to, Send::TheRest)));
        assert_fails(place, &mut process, why);
        process.kill();
        sessions.into_iter().for_each(|session| assert!(!session.join().unwrap()));
    });
    assert!(senders.iter().all(|sender| !sender.is_done()));
    let [journaled, stored] = &senders;
    let journaled = Account { acknowledged: Default::default(), ..journaled.account.clone() };
    assert_sound(&journaled.and(stored.account.clone()), &found(place));
    drop(fault);
    let (process, to) = daemon(place, store).start();
    for sender in &mut senders {
        assert!(sender.session(to, Send::TheRest));
    }
    process.terminated().succeeded();
    assert_sound(&account(&senders), &found(place));
    place.run(&["audit", "--data", "data"]).succeeded();
}

/// A disk that is full until this is dropped.
struct Filled<'t>(&'t Tmpfs);

impl<'t> Filled<'t> {
    fn of(disk: &'t Tmpfs) -> Self {
        disk.fill();
        Self(disk)
    }
}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        self.0.free();
    }
}

const FULL: &str = "No space left on device";

#[test]
fn a_full_disk_holds_the_senders_up_and_they_go_on_once_there_is_room() {
    for (mounted, store) in [("data", "sqlite"), ("data", "files"), ("data", "index"), ("data/journal", "sqlite")] {
        let place = Place::new();
        let Some(disk) = Tmpfs::on(&place.path(mounted), "16m") else { return };
        told_and_over(&place, store, |_| Some(Filled::of(&disk)), FULL);
    }
}

#[test]
fn killed_with_a_full_disk_it_has_all_that_it_acknowledged_and_starts_once_there_is_room() {
    for store in ["sqlite", "files", "index"] {
        let place = Place::new();
        let Some(disk) = Tmpfs::on(&place.data(), "16m") else { return };
        killed_meanwhile(&place, store, |_| Some(Filled::of(&disk)), FULL);
    }
}

#[test]
fn on_a_full_disk_it_does_not_start_and_says_why() {
    let place = Place::new();
    let Some(disk) = Tmpfs::on(&place.data(), "1m") else { return };
    disk.fill();
    let ended = Process::spawn(&mut place.daemon()).ended().with(73);
    assert!(ended.err.contains("cannot use the data directory data: No space left on device"), "{}", ended.err);
    disk.free();
    daemon(&place, "sqlite").start().0.terminated().succeeded();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_one_succeeds_on_another_file() {
    let place = Place::new();
    told_and_over(
        &place,
        "sqlite",
        |daemon| Fault::of_the_journal(daemon, "fdatasync:error=EIO"),
        "Input/output error",
    );
    let place = Place::new();
    killed_meanwhile(
        &place,
        "files",
        |daemon| Fault::of_the_journal(daemon, "fdatasync:error=EIO"),
        "Input/output error",
    );
}

#[test]
fn a_disk_that_turns_read_only_holds_the_senders_up_until_it_can_be_written() {
    let place = Place::new();
    let read_only = |daemon: &Process| Fault::of_the_journal(daemon, "fdatasync,openat,unlink,rename:error=EROFS");
    told_and_over(&place, "sqlite", read_only, "Read-only file system");
}

#[test]
fn on_a_slow_disk_everything_is_acknowledged_and_stored_only_later() {
    let place = Place::new();
    let (process, to) = daemon(&place, "sqlite").start();
    let Some(_slow) = Fault::of_the_journal(&process, "fdatasync:delay_enter=300ms") else { return };
    let mut senders = senders();
    std::thread::scope(|scope| {
        for sender in &mut senders {
            sender.make_some(500);
            scope.spawn(move || assert!(sender.session(to, Send::TheRest)));
        }
    });
    let ended = process.terminated().succeeded();
    assert!(!ended.err.contains(FAILS), "{}", ended.err);
    assert_sound(&account(&senders), &found(&place));
    assert!(senders.iter().all(Sender::is_done));
    place.run(&["audit", "--data", "data"]).succeeded();
}
