//! The daemon is killed again and again under senders that ask for acknowledgements: what was acknowledged is there, once and in
//! order, and nothing else is.
//!
//! The number of kills, for each store, and the seed of everything that is drawn come from the environment:
//!
//! ```sh
//! HEADWORKS_TEST_KILLS=1000 HEADWORKS_TEST_SEED=7 cargo test --all-features --test main crash_acks -- --nocapture
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use headworks::store::FilesReader;

use crate::rig::Place;
use crate::rig::crash::{Account, Daemon, Dead, assert_sound, found, kill_at_random};
use crate::rig::sender::{POISON, Send, Sender, is_poison};

pub(super) const POINTS: [&str; 6] =
    ["after-accept", "after-cut", "after-intent", "after-store", "after-outcome", "before-letters"];

/// Those that only a batch comes to that has several stores, or that one of them refuses.
pub(super) const MORE_POINTS: [&str; 6] =
    ["after-step", "after-given-up", "after-rollback", "after-compensation", "after-split", "after-letters"];

/// How long a daemon that is killed at a random moment lives, at most.
const LIFE: Duration = Duration::from_millis(250);
/// The looks at everything that is stored, in the course of a test.
const LOOKS: usize = 50;

fn setting<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// On a type of store, or on SQLite's other layout.
fn on<'p>(daemon: Daemon<'p>, store: &str) -> Daemon<'p> {
    match store {
        "index" => daemon.with("store.layout", "index").with("store.segment_bytes", "64KiB"),
        _ => daemon.with("store.type", store),
    }
}

/// Small batches, small segments: many steps, many chances to be torn.
pub(super) fn daemon<'p>(place: &'p Place, store: &str) -> Daemon<'p> {
    on(Daemon::new(place), store)
        .with("tenants.defaults.window.max_events", "15")
        .with("tenants.defaults.window.max_age", "50ms")
        .with("journal.segment_bytes", "64KiB")
        .with("journal.max_bytes", "8MiB")
        .with("daemon.threads", if store == "sqlite" { "1" } else { "3" })
}

/// How a daemon dies.
#[derive(Debug)]
enum Death {
    /// At a step, when it comes to it for the so manieth time.
    At(&'static str, u32),
    /// At any moment under load.
    Sometime,
    /// At any moment from its start on, while nobody sends.
    Early,
}

fn death(nth: usize, points: &[&'static str], rng: &mut fastrand::Rng) -> Death {
    match nth % 10 {
        even if even % 2 == 0 => Death::At(points[nth / 2 % points.len()], rng.u32(1..40)),
        9 => Death::Early,
        _ => Death::Sometime,
    }
}

struct Run<'p> {
    place: &'p Place,
    daemon: Daemon<'p>,
    senders: [Sender; 2],
    rng: fastrand::Rng,
}

impl Run<'_> {
    /// Starts a daemon and has it killed, while the senders send.
    fn life(&mut self, death: &Death) {
        let seed = self.rng.u64(..);
        let fault = match death {
            Death::At(point, times) => Some(format!("{point}:{times}")),
            _ => None,
        };
        let mut process = self.daemon.launch(fault.as_deref());
        if let Death::Early = death {
            return kill_at_random(process, seed, LIFE);
        }
        let Some(to) = process.listens_unless_it_ends() else { return process.died() };
        std::thread::scope(|scope| {
            for sender in &mut self.senders {
                scope.spawn(move || assert!(!sender.session(to, Send::On), "it was not to stop"));
            }
            match death {
                Death::At(..) => process.died(),
                _ => kill_at_random(process, seed, LIFE),
            }
        });
    }

    /// What may be said of a daemon that was killed: what was acknowledged as stored is in the store.
    fn so_far(&self) -> Account {
        let [journaled, stored] = &self.senders;
        let journaled = Account { acknowledged: Default::default(), ..journaled.account.clone() };
        journaled.and(stored.account.clone())
    }

    /// Everything that was sent is acknowledged, and the daemon has stopped.
    fn end(&mut self) -> Account {
        let (process, to) = self.daemon.start();
        for sender in &mut self.senders {
            assert!(sender.session(to, Send::TheRest), "nobody killed it");
        }
        // While it is in use.
        self.audit();
        process.terminated().succeeded();
        let [journaled, stored] = &self.senders;
        journaled.account.clone().and(stored.account.clone())
    }

    #[track_caller]
    fn audit(&self) {
        let audit = self.place.run(&["audit", "--data", "data"]);
        assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
    }
}

/// Kills as often as is asked for; the place is left with all that was sent in it.
pub(super) fn killed_again_and_again(place: &Place, store: &str) {
    let run = killed(place, store, daemon(place, store), &POINTS);
    // Whatever was sent has its answer by now, and that is a yes for every event.
    assert_eq!((run.acknowledged, run.stored), (run.events, run.events));
}

/// What came of it.
pub(super) struct Toll {
    pub(super) events: u64,
    pub(super) acknowledged: u64,
    pub(super) stored: u64,
    pub(super) dead: Vec<Dead>,
}

pub(super) fn killed<'p>(place: &'p Place, store: &str, daemon: Daemon<'p>, points: &[&'static str]) -> Toll {
    let kills: usize = setting("HEADWORKS_TEST_KILLS").unwrap_or(100);
    let seed: u64 = setting("HEADWORKS_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{store}: HEADWORKS_TEST_KILLS={kills} HEADWORKS_TEST_SEED={seed}");
    let began = Instant::now();
    let senders = [Sender::new("journaled", "journaled", seed), Sender::new("stored", "stored", seed + 1)];
    let rng = fastrand::Rng::with_seed(seed);
    let mut run = Run { place, daemon, senders, rng };
    for nth in 0..kills {
        let death = death(nth, points, &mut run.rng);
        run.life(&death);
        let looks = (nth + 1).is_multiple_of(kills.div_ceil(LOOKS));
        if looks {
            let told = std::panic::catch_unwind(|| {
                run.audit();
                assert_sound(&run.so_far(), &found(place));
            });
            told.unwrap_or_else(|_| panic!("{store}: kill {nth}, {death:?}, seed {seed}"));
        }
    }
    let account = run.end();
    let found = found(place);
    assert_sound(&account, &found);
    run.audit();
    place.run(&["journal", "verify", "--data", "data"]).succeeded();

    let count = |of: &dyn Fn(&Sender) -> u64| run.senders.iter().map(of).sum::<u64>();
    let events = account.sent.values().map(Vec::len).sum::<usize>() as u64;
    let stored = found.stored.values().map(Vec::len).sum::<usize>() as u64;
    eprintln!(
        "{store}: {kills} kills, {} connections, {events} events and {} bad frames in {} frames sent, {} acknowledged, {stored} \
         stored: {} lost, {} doubled; {:.1} s",
        count(&|sender| sender.sessions),
        account.malformed.len(),
        count(&|sender| sender.sent),
        count(&|sender| sender.acknowledged),
        events.saturating_sub(stored + found.dead.iter().filter(|letter| letter.is_event).count() as u64),
        stored.saturating_sub(events),
        began.elapsed().as_secs_f64(),
    );
    assert!(run.senders.iter().all(Sender::is_done));
    let dead = found.dead.into_iter().filter(|letter| letter.is_event).collect();
    Toll { events, acknowledged: count(&|sender| sender.acknowledged), stored, dead }
}

/// The audit ends with 1, and says this.
#[track_caller]
pub(super) fn assert_told(place: &Place, says: &str) {
    let text = place.run(&["audit", "--data", "data"]).with(1).text();
    assert!(text.contains(says) && text.ends_with("\nIt does NOT add up.\n"), "{text}");
}

#[test]
fn killed_a_hundred_times_over_sqlite_all_that_was_acknowledged_is_stored_once_and_the_audit_says_what_is_taken_away() {
    let place = Place::new();
    killed_again_and_again(&place, "sqlite");
    let some = "SELECT event_id FROM events WHERE tenant = 'stored-zen' LIMIT 3";
    assert_eq!(place.database().execute(&format!("DELETE FROM events WHERE event_id IN ({some})"), []).unwrap(), 3);
    assert_told(
        &place,
        "\nstored-zen: the store holds 3 events fewer than the journal says were stored: 3 rows were deleted from its \
         batches (",
    );
}

#[test]
fn killed_a_hundred_times_over_files_all_that_was_acknowledged_is_stored_once_and_the_audit_says_what_is_taken_away() {
    let place = Place::new();
    killed_again_and_again(&place, "files");
    // The text of one event, with its place left as it was.
    let file: PathBuf = place.data().join("events/stored-zen/events.ndjson");
    let text = std::fs::read(&file).unwrap();
    let end = text.iter().position(|byte| *byte == b'\n').unwrap();
    std::fs::write(&file, [vec![b' '; end], text[end..].to_vec()].concat()).unwrap();
    assert_told(&place, "\nstored-zen: the store holds ");
}

#[test]
fn killed_a_hundred_times_over_an_index_all_that_was_acknowledged_is_stored_once_and_the_audit_says_what_is_damaged() {
    let place = Place::new();
    killed_again_and_again(&place, "index");
    assert_eq!(place.number("SELECT count(*) FROM events"), 0);
    let sql = "SELECT segment FROM batches WHERE tenant = 'stored-zen' LIMIT 1";
    let file = place.data().join(format!("headworks.segments/{:010}.seg", place.number(sql)));
    let mut bytes = std::fs::read(&file).unwrap();
    let offset = place.number("SELECT offset FROM batches WHERE tenant = 'stored-zen' LIMIT 1");
    bytes[usize::try_from(offset).unwrap() + 20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_told(&place, "\nstored-zen: the store holds ");
}

#[test]
fn killed_a_hundred_times_over_two_stores_both_hold_the_same_and_what_one_refuses_is_a_dead_letter_and_in_neither() {
    let place = Place::new();
    let daemon = daemon(&place, "sqlite")
        .with("stores.archive.type", "files")
        .with("tenants.stores", "['archive', 'store']")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("daemon.drain_deadline", "2m");
    // Makes the database.
    let (first, _) = daemon.start();
    first.terminated().succeeded();
    place.database().execute_batch(POISON).unwrap();
    let points: Vec<_> = POINTS.into_iter().chain(MORE_POINTS).collect();
    let run = killed(&place, "archive, then sqlite", daemon, &points);
    assert_eq!((run.acknowledged, run.stored + run.dead.len() as u64), (run.events, run.events));

    let number = |body: &[u8]| {
        let event: serde_json::Value = serde_json::from_slice(body).unwrap();
        usize::try_from(event["n"].as_u64().unwrap()).unwrap()
    };
    assert!(!run.dead.is_empty() && run.dead.iter().all(|letter| is_poison(number(&letter.body))));
    let archive = FilesReader::open(place.data().join("stores/archive/events")).unwrap();
    let stored = place.stored();
    assert!(stored.values().flatten().all(|body| !is_poison(number(body))));
    for (tenant, bodies) in &stored {
        assert!(archive.bodies(&tenant.parse().unwrap()).unwrap() == *bodies, "of {tenant} the two hold the same");
    }
    assert_eq!(archive.tenants().unwrap().len(), stored.len());
    let some = "SELECT event_id FROM events WHERE tenant = 'stored-zen' LIMIT 3";
    assert_eq!(place.database().execute(&format!("DELETE FROM events WHERE event_id IN ({some})"), []).unwrap(), 3);
    assert_told(&place, "\nstored-zen: in store: the store holds 3 events fewer than the journal says were stored: ");
    eprintln!("archive, then sqlite: {} events in both, {} dead letters", run.stored, run.dead.len());
}
