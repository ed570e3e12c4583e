//! The real actors and the real journal on a simulated machine: power is lost, writes are torn or never arrive, the disk fails
//! and fills up, all under load. A sender keeps what is not acknowledged and sends it again. In the end, when the faults are
//! over, everything it sent must be in the store once and in order, and nothing else.
//!
//! A seed is a life: `HEADWORKS_SIMULATION_SEED=17 cargo test --lib simulation` lives one again, step by step the same.

mod rot;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{
    AckLevel, Answer, Code, Fault, Faulty, Framing, IngressSpec, Intake, Json, MemoryDeadLetters, MemoryStore,
    OverflowPolicy, Placement, Policy, RetryPolicy, Seam, Source, StreamId, System, TenantId, TenantSnapshot,
    UnixMillis, WindowPolicy,
};
use turmoil::fs::shim::std::fs;

use super::super::step::{Step, leave_out};
use super::super::{Disk, DiskFile, DurableJournal, JournalOptions, Lock};

const TENANTS: [&str; 3] = ["a", "b", "c"];
const EVENTS: u64 = 60;
const DIR: &str = "/journal";

/// What outlives the machine: the sender, the store, and what is known of both.
struct World {
    seed: u64,
    store: MemoryStore,
    letters: MemoryDeadLetters,
    /// No more faults.
    is_calm: AtomicBool,
    faults: f64,
    /// Whether the disk damages what lies on it; see [`rot`].
    rots: bool,
    rng: Mutex<fastrand::Rng>,
    lives: AtomicU64,
    /// Positions that the sender was told about.
    acked: Mutex<BTreeSet<u64>>,
    /// What happened, in order, with the time.
    trace: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
}

impl World {
    fn chance(&self, of: f64) -> bool {
        !self.is_calm.load(Ordering::Relaxed) && self.rng.lock().unwrap().f64() < of
    }

    fn draw(&self, below: u64) -> u64 {
        self.rng.lock().unwrap().u64(0..below)
    }

    fn next(&self) -> u64 {
        let acked = self.acked.lock().unwrap();
        (1..).find(|position| !acked.contains(position)).unwrap_or(1)
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.trace.lock().unwrap().push(what());
    }
}

fn tenant_of(position: u64) -> &'static str {
    TENANTS[(position * 7 % 5 % 3) as usize]
}

fn line(position: u64) -> String {
    format!("{{\"tenant\":\"{}\",\"n\":{position}}}", tenant_of(position))
}

/// The simulated file system as a disk, with faults on top.
#[derive(Clone)]
struct SimDisk(Arc<World>);

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated disk")
    }
}

impl SimDisk {
    fn may_fail(&self) -> io::Result<()> {
        match self.0.chance(self.0.faults) {
            true => Err(if self.0.draw(2) == 0 { ErrorKind::StorageFull } else { ErrorKind::Other }.into()),
            false => Ok(()),
        }
    }

    fn path(name: &str) -> PathBuf {
        PathBuf::from(DIR).join(name)
    }
}

struct SimFile {
    file: fs::File,
    disk: SimDisk,
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Result<Lock, String>> {
        Ok(Ok(Box::new(())))
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = vec![];
        for entry in fs::read_dir(DIR)? {
            let entry = entry?;
            if entry.metadata()?.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.may_fail()?;
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(Self::path(name))?;
        Ok(Box::new(SimFile { file, disk: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SimFile { file: fs::File::open(Self::path(name))?, disk: self.clone() }))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.may_fail()?;
        let file = fs::OpenOptions::new().write(true).open(Self::path(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may_fail()?;
        fs::rename(Self::path(from), Self::path(to))
    }

    fn set_aside(&self, name: &str) -> io::Result<String> {
        fs::create_dir_all("/journal/damaged")?;
        let to = format!("damaged/{name}.{}", self.0.lives.load(Ordering::Relaxed));
        fs::rename(Self::path(name), Self::path(&to))?;
        Ok(to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(Self::path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        // The error comes after the effect: the simulated disk confuses a file with the one that took its name and was not synced.
        fs::sync_dir(DIR)?;
        self.may_fail()
    }
}

impl DiskFile for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.may_fail()?;
        // A short write now and then.
        let len = if self.disk.0.chance(0.05) { bytes.len().div_ceil(2) } else { bytes.len() };
        self.file.write(&bytes[..len])
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.disk.may_fail()?;
        self.file.sync_data()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
}

/// The sender: sends on from where it is told, in reads of any cut, and notes what is acknowledged.
struct Sender(Arc<World>);

impl Source for Sender {
    fn name(&self) -> &str {
        "sender"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let world = self.0;
            let spec = IngressSpec::new("sender", Framing::lines(), Json::new());
            let stream: StreamId = "sender/1".parse().unwrap();
            let level = if world.draw(2) == 0 { AckLevel::Journaled } else { AckLevel::Stored };
            let opened = intake.open_stream(spec, stream, world.next(), level).await;
            let (ingress, mut answers) = opened.map_err(|why| why.to_string())?;
            let mut next = answers.last() + 1;
            world.say(|| format!("goes on at {next}, {level}"));
            let told = world.clone();
            let listening = intake.spawn(async move {
                while let Some(answers) = answers.next().await {
                    for answer in answers {
                        told.say(|| format!("{answer:?}"));
                        match answer {
                            Answer::Ack(range) => {
                                for position in range {
                                    let is_missing = level == AckLevel::Stored && !is_stored(&told.store, position);
                                    if is_missing && !told.rots {
                                        *told.broken.lock().unwrap() =
                                            Some(format!("{position} is acknowledged as stored, and is not"));
                                    }
                                    told.acked.lock().unwrap().insert(position);
                                }
                            }
                            Answer::Nack(_, Code::JournalDamaged, _) if told.rots => {}
                            Answer::Nack(range, code, _) => {
                                *told.broken.lock().unwrap() = Some(format!("{range:?} are refused: {code}"));
                            }
                        }
                    }
                }
            });
            while next <= EVENTS {
                let until = (next + world.draw(rot::READ)).min(EVENTS);
                let lines: String = (next..=until).map(|position| line(position) + "\n").collect();
                ingress.feed(lines).await.map_err(|why| why.to_string())?;
                next = until + 1;
                tokio::time::sleep(Duration::from_millis(world.draw(20))).await;
            }
            ingress.finish(true).await.map_err(|why| why.to_string())?;
            listening.await.map_err(|why| why.to_string())?;
            Ok(())
        }
        .boxed_local()
    }
}

fn is_stored(store: &MemoryStore, position: u64) -> bool {
    let tenant = TenantId::new(tenant_of(position)).unwrap();
    store.bodies(&tenant).iter().any(|body| *body == line(position).as_bytes())
}

/// One process, from its start until the power goes.
async fn serve(world: Arc<World>, options: JournalOptions) {
    let life = world.lives.fetch_add(1, Ordering::Relaxed);
    if world.rots {
        rot::damage(&world);
    }
    let start = tokio::time::Instant::now();
    let wall = move || UnixMillis(1_700_000_000_000).plus(start.elapsed());
    let (journal, driver) = loop {
        let opened = fs::create_dir_all(DIR).map_err(|why| why.to_string()).and_then(|()| {
            DurableJournal::inline(SimDisk(world.clone()), options.clone()).map_err(|why| why.to_string())
        });
        match opened {
            Ok(opened) => break opened,
            Err(why) => world.say(|| why),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::task::spawn_local(driver);
    let policy = Policy {
        window: WindowPolicy { max_events: 4, max_age: Duration::from_millis(20), ..WindowPolicy::default() },
        retry: RetryPolicy {
            attempts: 1000,
            base: Duration::from_millis(5),
            cap: Duration::from_millis(50),
            attempt_timeout: Duration::from_millis(100),
            ..RetryPolicy::default()
        },
        overflow: OverflowPolicy { max_in_flight: 16 << 10, ..OverflowPolicy::default() },
        ..Policy::default()
    };
    let script = world.clone();
    let store =
        Faulty::new(world.store.clone(), move |_, _| match script.chance(if script.rots { 0.5 } else { 0.2 }) {
            true if script.rots => Fault::LostReply,
            true => [Fault::Transient, Fault::LostReply, Fault::Stall, Fault::Unavailable][script.draw(4) as usize],
            false => Fault::None,
        });
    let builder = System::builder()
        .policy(policy)
        .store(store)
        .dead_letters(world.letters.clone())
        .journal(journal)
        .seam(Seam::new(wall, world.seed.wrapping_mul(31).wrapping_add(life)))
        .report_every(None)
        .placement(Placement::Inline);
    let Ok(system) = builder.start() else { return std::future::pending().await };
    let (watched, watching) = (system.clone(), world.clone());
    tokio::task::spawn_local(async move {
        loop {
            let is_wrong = |tenant: &TenantSnapshot| {
                !tenant.events_add_up() || (tenant.in_flight == 0) != (tenant.in_flight_bytes == 0)
            };
            if let Some(tenant) = watched.tenants().into_iter().find(is_wrong) {
                *watching.broken.lock().unwrap() = Some(format!("the sums do not hold: {tenant:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    if let Ok(source) = system.add_source(Sender(world.clone())).await {
        drop(source.ended().await);
    }
    std::future::pending::<()>().await;
}

/// What a life came to.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    crashes: u64,
    acked: u64,
    trace: Vec<String>,
}

/// Lives a life. An error says which promise was broken.
fn live(seed: u64) -> Result<Life, String> {
    live_on(seed, false)
}

fn live_on(seed: u64, rots: bool) -> Result<Life, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World {
        seed,
        store: MemoryStore::new(),
        letters: MemoryDeadLetters::default(),
        is_calm: AtomicBool::new(false),
        faults: [0.0, 0.01, 0.05][rng.usize(0..3)],
        rots,
        rng: Mutex::new(rng.fork()),
        lives: AtomicU64::new(0),
        acked: Mutex::default(),
        trace: Mutex::default(),
        broken: Mutex::default(),
    });
    let mut machine = turmoil::Builder::new();
    machine.rng_seed(seed).simulation_duration(Duration::from_secs(3600)).tick_duration(Duration::from_millis(1));
    machine.fs().sync_probability([0.0, 0.1, 0.5][rng.usize(0..3)]);
    if let Some(block) = [None, Some(512), Some(64)][rng.usize(0..3)] {
        machine.fs().block_size(block);
    }
    let mut sim = machine.build();
    let options = JournalOptions { segment_bytes: 4 << 10, max_bytes: 128 << 10, ..JournalOptions::default() };
    let (of_host, running) = (world.clone(), Rc::new(options));
    sim.host("server", move || {
        let (world, options) = (of_host.clone(), (*running).clone());
        async move {
            serve(world, options).await;
            Ok(())
        }
    });
    let most = rng.u64(0..6);
    let mut crashes = 0;
    let mut until_crash = rng.u64(1..150);
    for step in 0..60_000 {
        sim.step().map_err(|why| why.to_string())?;
        if let Some(broken) = world.broken.lock().unwrap().take() {
            return Err(broken);
        }
        if crashes < most {
            until_crash -= 1;
            if until_crash == 0 {
                sim.crash("server");
                sim.bounce("server");
                crashes += 1;
                until_crash = rng.u64(1..150);
                world.say(|| format!("crash {crashes}"));
            }
        } else if step > 400 {
            world.is_calm.store(true, Ordering::Relaxed);
        }
        let is_done = crashes == most && world.acked.lock().unwrap().len() as u64 == EVENTS;
        let is_over = if rots { step > 400 + rot::CALM } else { is_done && all_stored(&world) };
        if is_over {
            if rots {
                rot::check(&world)?
            } else {
                check(&world)?
            }
            let (acked, trace) = (world.acked.lock().unwrap().len() as u64, world.trace.lock().unwrap().clone());
            return Ok(Life { crashes, acked, trace });
        }
    }
    check(&world)?;
    Err(format!(
        "after a minute without faults only {} of {EVENTS} are acknowledged",
        world.acked.lock().unwrap().len()
    ))
}

fn all_stored(world: &World) -> bool {
    TENANTS.iter().map(|name| world.store.bodies(&TenantId::new(name).unwrap()).len() as u64).sum::<u64>() >= EVENTS
}

fn check(world: &World) -> Result<(), String> {
    let mut sent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for position in 1..=EVENTS {
        sent.entry(tenant_of(position)).or_default().push(line(position));
    }
    for name in TENANTS {
        let tenant = TenantId::new(name).unwrap();
        let stored: Vec<_> =
            world.store.bodies(&tenant).iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
        let expected = sent.remove(name).unwrap_or_default();
        if stored != expected {
            let lost: Vec<_> = expected.iter().filter(|body| !stored.contains(body)).collect();
            return Err(format!(
                "{name} is not in the store as it was sent: {} of {} are there, lost are {lost:?}",
                stored.len(),
                expected.len()
            ));
        }
    }
    if world.letters.all().is_empty() { Ok(()) } else { Err("there are dead letters of good events".to_owned()) }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_to_the_machine_what_was_acknowledged_is_stored_once_and_in_order() {
    if let Some(seed) = number("HEADWORKS_SIMULATION_SEED") {
        panic!("seed {seed}: {:#?}", live(seed));
    }
    let seeds = number("HEADWORKS_SIMULATION_SEEDS").unwrap_or(2_000);
    let (mut crashes, mut acked) = (0, 0);
    for seed in 0..seeds {
        match live(seed) {
            Ok(life) => (crashes, acked) = (crashes + life.crashes, acked + life.acked),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    eprintln!("{seeds} seeds, {crashes} power losses, {acked} acknowledged events, 0 violations");
}

#[test]
fn a_seed_is_the_same_life_again() {
    for seed in [3, 11, 40] {
        assert_eq!(live(seed), live(seed), "seed {seed}");
    }
}

/// The first seed that notices that the step is left out.
fn noticed(step: Step, seeds: u64) -> Option<(u64, String)> {
    noticed_in(live, step, seeds)
}

fn noticed_in(live: fn(u64) -> Result<Life, String>, step: Step, seeds: u64) -> Option<(u64, String)> {
    leave_out(Some(step));
    let noticed = (0..seeds).find_map(|seed| {
        let lived = std::panic::catch_unwind(|| live(seed));
        match lived {
            Ok(lived) => lived.err().map(|why| (seed, why)),
            Err(_) => Some((seed, "a panic".to_owned())),
        }
    });
    leave_out(None);
    noticed
}

#[test]
fn it_notices_a_journal_that_does_not_sync() {
    assert!(noticed(Step::Sync, 200).is_some());
}

#[test]
fn it_notices_a_journal_that_does_not_sync_its_directory() {
    assert!(noticed(Step::SyncDir, 200).is_some());
}

#[test]
fn it_notices_a_journal_that_acknowledges_first() {
    assert!(noticed(Step::CommitFirst, 200).is_some());
}
