//! PostgreSQL and objects as one saga, while the daemon, the server of the one and the server of the other are killed in turn: a batch is
//! in both or in neither.
//!
//! The seed of everything that is drawn comes from the environment, as for `crash_acks`: `HEADWORKS_TEST_SEED=7`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::crash_acks::{MORE_POINTS, POINTS};
use crate::rig::crash::{Daemon, assert_sound, found, kill_at_random};
use crate::rig::postgres::Postgres;
use crate::rig::s3::{BUCKET, S3};
use crate::rig::sender::{Send, Sender};
use crate::rig::{DEADLINE, Place, Process};

/// No object may be longer; a batch of events that are as most are is a fraction of it.
const MOST: usize = 4096;
/// So long is an event that no object can have.
const LARGE: usize = 3 * MOST;
/// How often each of the three is killed, at the least.
const TURNS: usize = 5;
/// How long a daemon that is killed at a random moment lives, at most.
const LIFE: Duration = Duration::from_millis(400);

/// The servers behind the daemon.
struct Servers {
    postgres: Postgres,
    s3: S3,
}

/// What is killed while events come in; the daemon is killed after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A server is killed and comes back; then the daemon is killed at a moment.
    Back(Server),
    /// The daemon is killed while a server is away.
    Away(Server),
    /// The daemon starts while a server is away, which comes back.
    Late(Server),
    /// The daemon dies at a step, with a server killed on its way there.
    Step(Server, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Postgres,
    S3,
}

use Server::{Postgres as Pg, S3 as Objects};

impl Servers {
    fn kill(&mut self, server: Server) {
        match server {
            Pg => self.postgres.kill(),
            Objects => self.s3.kill(),
        }
    }

    fn restart(&mut self, server: Server) {
        match server {
            Pg => self.postgres.restart(),
            Objects => self.s3.restart(),
        }
    }

    /// Until the stream goes on: nobody announces it.
    fn until_some_is_stored(&self) {
        let (began, before) = (Instant::now(), self.s3.requests());
        while self.s3.requests() < before + 40 {
            assert!(began.elapsed() < DEADLINE, "nothing is stored any more");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What PostgreSQL has of a tenant, in its order.
    fn rows(&self, tenant: &str) -> String {
        self.postgres.ask(&format!("SELECT body FROM headworks.events WHERE tenant = '{tenant}' ORDER BY batch, idx"))
    }

    /// The ids of the batches that each of the two has: opening, tenant, seq.
    fn batches(&self) -> [BTreeSet<String>; 2] {
        let ids = self.postgres.ask("SELECT id FROM headworks.batches WHERE stored");
        let keys = self.s3.objects("events").into_iter();
        let has_events = |bytes: &[u8]| !zstd::stream::decode_all(bytes).unwrap().is_empty();
        let keys = keys.filter(|(_, bytes)| has_events(bytes)).map(|(key, _)| {
            let parts: Vec<_> = key.strip_suffix(".ndjson.zst").unwrap().split('/').collect();
            let (opening, seq) = parts[2].split_once('-').unwrap();
            let seq = seq.split_once("-r").map_or(seq, |(seq, _)| seq).trim_start_matches('0');
            format!("{opening}/{}/{seq}", parts[0])
        });
        [ids.lines().map(str::to_owned).collect(), keys.collect()]
    }
}

fn daemon<'p>(place: &'p Place, servers: &Servers, saga: &str) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "object")
        .with("store.url", &format!("s3://{BUCKET}/events"))
        .with("store.endpoint", &servers.s3.endpoint())
        .with("store.credentials_file", servers.s3.keys().to_str().unwrap())
        .with("stores.pg.type", "postgres")
        .with("stores.pg.url", &servers.postgres.url())
        .with("tenants.stores", saga)
        .with("tenants.defaults.window.max_events", "15")
        .with("tenants.defaults.window.max_age", "50ms")
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "100ms")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("journal.segment_bytes", "64KiB")
        .with("daemon.drain_deadline", "2m")
}

fn owed(place: &Place) -> usize {
    place.json(&["uncompensated", "--data", "data", "--json"]).as_array().unwrap().len()
}

/// One life of the daemon.
fn life(daemon: &Daemon<'_>, servers: &mut Servers, senders: &mut [Sender; 2], turn: Turn, seed: u64) {
    if let Turn::Late(server) = turn {
        servers.kill(server);
    }
    let points: Vec<_> = POINTS.into_iter().chain(MORE_POINTS).collect();
    let fault = match turn {
        Turn::Step(_, nth) => Some(format!("{}:{}", points[nth % points.len()], 1 + seed % 8)),
        _ => None,
    };
    let mut process: Process = daemon.launch(fault.as_deref());
    // It may come to its step before it listens, with what the one before has left.
    let Some(to) = process.listens_unless_it_ends() else { return process.died() };
    std::thread::scope(|scope| {
        for sender in &mut *senders {
            scope.spawn(move || assert!(!sender.session(to, Send::On), "it was not to stop"));
        }
        match turn {
            Turn::Back(server) => {
                servers.kill(server);
                servers.restart(server);
                servers.until_some_is_stored();
                kill_at_random(process, seed, LIFE);
            }
            Turn::Away(server) => {
                servers.until_some_is_stored();
                servers.kill(server);
                kill_at_random(process, seed, LIFE);
                servers.restart(server);
            }
            Turn::Late(server) => {
                servers.restart(server);
                servers.until_some_is_stored();
                kill_at_random(process, seed, LIFE);
            }
            Turn::Step(server, _) => {
                servers.kill(server);
                servers.restart(server);
                process.died();
            }
        }
    });
}

fn killed_in_turn(saga: &str) {
    let place = Place::new();
    let mut servers = Servers { postgres: Postgres::start(), s3: S3::start() };
    let seed = std::env::var("HEADWORKS_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    eprintln!("{saga}: HEADWORKS_TEST_SEED={seed}");
    let began = Instant::now();
    let daemon = daemon(&place, &servers, saga);
    let (first, _) = daemon.start();
    first.terminated().succeeded();
    // Each of the two refuses some events for good, and not the same.
    servers.postgres.ask("ALTER TABLE headworks.events ADD CHECK ((body::jsonb ->> 'n')::int % 211 <> 7)");
    servers.s3.takes_at_most(MOST);

    let mut rng = fastrand::Rng::with_seed(seed);
    let mut senders = [("journaled", seed), ("stored", seed ^ 1)]
        .map(|(level, seed)| Sender::new(level, level, seed).with_large(LARGE));
    let mut kills = BTreeMap::from([("daemon", 0), ("PostgreSQL", 0), ("objects", 0)]);
    for turn in 0..2 * TURNS {
        let server = if turn % 2 == 0 { Pg } else { Objects };
        let turn = match turn / 2 {
            0 => Turn::Back(server),
            1 => Turn::Away(server),
            2 => Turn::Late(server),
            _ => Turn::Step(server, rng.usize(..)),
        };
        life(&daemon, &mut servers, &mut senders, turn, rng.u64(..));
        *kills.get_mut("daemon").unwrap() += 1;
        *kills.get_mut(if server == Pg { "PostgreSQL" } else { "objects" }).unwrap() += 1;
    }
    let (process, to) = daemon.start();
    for sender in &mut senders {
        assert!(sender.session(to, Send::TheRest), "nobody killed it");
        assert!(sender.is_done());
    }
    while owed(&place) > 0 {
        assert!(began.elapsed() < DEADLINE, "something is not undone");
        std::thread::sleep(Duration::from_millis(20));
    }
    process.terminated().succeeded();

    let [journaled, stored] = &senders;
    let account = journaled.account.clone().and(stored.account.clone());
    let found = found(&place);
    assert_sound(&account, &found);
    let count = |bodies: &crate::rig::Bodies| bodies.values().map(Vec::len).sum::<usize>();
    let (sent, stored) = (count(&account.sent), count(&found.stored));
    // What is a dead letter is what one of them refuses, each of it, and nothing else.
    let refused = account.sent.values().flat_map(|bodies| bodies.iter().enumerate());
    let refused: BTreeSet<_> =
        refused.filter(|(number, _)| journaled.is_refused(*number)).map(|(_, body)| body.clone()).collect();
    let dead: Vec<_> = found.dead.iter().filter(|letter| letter.is_event).map(|letter| letter.body.clone()).collect();
    assert_eq!((sent, dead.len()), (stored + dead.len(), refused.len()));
    assert_eq!(dead.into_iter().collect::<BTreeSet<_>>(), refused);
    assert!(refused.iter().any(|body| body.len() > LARGE) && refused.iter().any(|body| body.len() < LARGE));

    for (tenant, bodies) in &found.stored {
        let text: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body)).collect();
        assert!(
            servers.rows(tenant) == text.join("\n"),
            "{saga}: of {tenant} the two hold the same, in the same order"
        );
    }
    assert_eq!(servers.postgres.ask("SELECT count(*) FROM headworks.events"), stored.to_string());
    let [rows, objects] = servers.batches();
    assert_eq!(rows, objects, "{saga}: the same batches are in both");
    let audit = place.run(&["audit", "--data", "data"]);
    assert_eq!(audit.code, Some(0), "{saga}: {}{}", audit.text(), audit.err);
    assert_eq!(owed(&place), 0);
    eprintln!(
        "{saga}: kills of {kills:?}; {sent} events sent, {stored} in both in {} batches, {} refused by one and in neither; {:.1} s",
        rows.len(),
        refused.len(),
        began.elapsed().as_secs_f64(),
    );
}

#[test]
fn a_batch_is_in_objects_and_then_in_postgresql_or_in_neither_while_each_and_the_daemon_are_killed_in_turn() {
    killed_in_turn("['store', 'pg']");
}

#[test]
fn a_batch_is_in_postgresql_and_then_in_objects_or_in_neither_while_each_and_the_daemon_are_killed_in_turn() {
    killed_in_turn("['pg', 'store']");
}
