//! The judge of crash tests: a daemon that is killed and started again, and what must be true of the data afterwards.
//!
//! The judge knows nothing of the program but what was sent, what was acknowledged and what is there. It is plain data in
//! and violations out, so that its own tests can show that it finds each kind of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use headworks::TenantId;
use headworks::store::FilesReader;

use super::{Bodies, Place, Process};

/// What a test did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// The events of each tenant in the order they were sent; the first has number 0. An event that was sent again, since
    /// nobody acknowledged it, is listed once. No two payloads are the same.
    pub(crate) sent: Bodies,
    /// The numbers of the events of each tenant that were acknowledged, at whatever level the test is about.
    pub(crate) acknowledged: BTreeMap<String, BTreeSet<usize>>,
    /// Frames that were sent and are no events.
    pub(crate) malformed: Vec<Vec<u8>>,
    /// Those of them that were answered: each is a dead letter.
    pub(crate) answered: BTreeSet<Vec<u8>>,
}

impl Account {
    /// Notes an event as sent; the answer is its number.
    pub(crate) fn send(&mut self, tenant: &str, payload: impl Into<Vec<u8>>) -> usize {
        let events = self.sent.entry(tenant.to_owned()).or_default();
        events.push(payload.into());
        events.len() - 1
    }

    /// With the account of another sender, who has no tenant in common with this one.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.sent.extend(other.sent);
        self.acknowledged.extend(other.acknowledged);
        self.malformed.extend(other.malformed);
        self.answered.extend(other.answered);
        self
    }

    /// Notes that the tenant's events up to this number, and with it, were acknowledged.
    pub(crate) fn acknowledge_up_to(&mut self, tenant: &str, number: usize) {
        self.acknowledged.entry(tenant.to_owned()).or_default().extend(0..=number);
    }
}

/// What is there afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// The events of each tenant in the order they were stored.
    pub(crate) stored: Bodies,
    pub(crate) dead: Vec<Dead>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) tenant: Option<String>,
    /// Whether it was accepted as an event, and not refused as a frame.
    pub(crate) is_event: bool,
    pub(crate) body: Vec<u8>,
}

/// What may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An acknowledged event has no outcome.
    Lost { tenant: String, number: usize },
    /// A frame that is no event was answered, and is no dead letter.
    LostFrame { body: String },
    /// An event has more outcomes than one: it is stored twice, or stored and a dead letter, or two dead letters.
    Doubled { tenant: String, number: usize, times: usize },
    /// An event is stored behind one that was sent after it.
    OutOfOrder { tenant: String, number: usize, behind: usize },
    /// A tenant has an event of another one.
    Misplaced { tenant: String, number: usize, found_with: Option<String> },
    /// Something is there that nobody sent.
    NeverSent { tenant: Option<String>, body: String },
}

/// All that is wrong, in the order of tenants and numbers; nothing if all is well.
///
/// # Panics
/// If the account itself cannot be judged: two payloads are the same, or an event was acknowledged that was never sent.
pub(crate) fn judge(account: &Account, found: &Found) -> Vec<Violation> {
    let mut places: HashMap<&[u8], (&str, usize)> = HashMap::new();
    for (tenant, bodies) in &account.sent {
        for (number, body) in bodies.iter().enumerate() {
            let twin = places.insert(body, (tenant, number));
            assert!(twin.is_none(), "event {number} of {tenant} has the payload of another: nobody can judge this");
        }
    }
    for (tenant, numbers) in &account.acknowledged {
        let sent = account.sent.get(tenant).map_or(0, Vec::len);
        assert!(numbers.iter().all(|number| *number < sent), "{tenant}: acknowledged, but never sent: {numbers:?}");
    }

    let mut violations = vec![];
    let mut outcomes: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    let mut settle = |tenant: Option<&str>, body: &[u8], is_whole: bool| {
        let Some((owner, number)) = places.get(body).copied() else {
            let is_known = !is_whole
                && (account.malformed.iter().any(|frame| frame == body)
                    || places.keys().any(|payload| payload.starts_with(body)));
            if !is_known {
                let body = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
                violations.push(Violation::NeverSent { tenant: tenant.map(str::to_owned), body });
            }
            return None;
        };
        *outcomes.entry((owner, number)).or_default() += 1;
        // A refused frame may have no tenant; an event always has.
        if tenant.map_or(is_whole, |tenant| tenant != owner) {
            let found_with = tenant.map(str::to_owned);
            violations.push(Violation::Misplaced { tenant: owner.to_owned(), number, found_with });
            return None;
        }
        Some(number)
    };

    let mut disorder = vec![];
    for (tenant, bodies) in &found.stored {
        let mut highest: Option<usize> = None;
        for body in bodies {
            let Some(number) = settle(Some(tenant), body, true) else { continue };
            match highest {
                // The same one again is a double, and told as such.
                Some(behind) if number < behind => {
                    disorder.push(Violation::OutOfOrder { tenant: tenant.clone(), number, behind });
                }
                _ => highest = Some(number),
            }
        }
    }
    for Dead { tenant, is_event, body } in &found.dead {
        settle(tenant.as_deref(), body, *is_event);
    }
    violations.extend(disorder);
    violations.extend(outcomes.iter().filter(|(_, times)| **times > 1).map(|((tenant, number), times)| {
        Violation::Doubled { tenant: (*tenant).to_owned(), number: *number, times: *times }
    }));
    for (tenant, numbers) in &account.acknowledged {
        let lost = numbers.iter().filter(|number| !outcomes.contains_key(&(tenant.as_str(), **number)));
        violations.extend(lost.map(|number| Violation::Lost { tenant: tenant.clone(), number: *number }));
    }
    let kept: BTreeSet<_> = found.dead.iter().filter(|letter| !letter.is_event).map(|letter| &*letter.body).collect();
    let lost = account.answered.iter().filter(|frame| !kept.contains(&***frame));
    violations.extend(lost.map(|frame| Violation::LostFrame { body: String::from_utf8_lossy(frame).into_owned() }));
    violations
}

/// Every acknowledged event is there once, in order and with its own tenant, and nothing else is.
#[track_caller]
pub(crate) fn assert_sound(account: &Account, found: &Found) {
    let violations = judge(account, found);
    let shown: Vec<_> = violations.iter().take(20).map(|violation| format!("  {violation:?}")).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), shown.join("\n"));
}

/// What the database and the files of a data directory hold, and the server of its store.
pub(crate) fn found(place: &Place) -> Found {
    let mut found = Found { stored: place.stored(), dead: vec![] };
    #[cfg(feature = "postgres")]
    found.stored.extend(super::postgres::stored(place));
    #[cfg(feature = "webhook")]
    found.stored.extend(super::webhook::stored(place));
    #[cfg(feature = "parquet")]
    found.stored.extend(super::s3::stored(place));
    #[cfg(feature = "nats")]
    found.stored.extend(super::published::stored(place));
    if let Ok(files) = FilesReader::open(place.data().join("events")) {
        for totals in files.tenants().unwrap() {
            let tenant: TenantId = totals.tenant;
            let bodies = files.bodies(&tenant).unwrap();
            assert_eq!(bodies.len() as u64, totals.events, "{tenant}: the index and the lines must agree");
            found.stored.entry(tenant.to_string()).or_default().extend(bodies);
        }
    }
    let database = place.database();
    let sql = "SELECT tenant, kind, CAST(body AS BLOB) FROM dead_letters ORDER BY place";
    let mut letters = database.prepare(sql).unwrap();
    let mut rows = letters.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let kind: String = row.get(1).unwrap();
        found.dead.push(Dead { tenant: row.get(0).unwrap(), is_event: kind == "event", body: row.get(2).unwrap() });
    }
    found
}

/// A daemon on the data directory of a place, to be started as often as it is killed.
pub(crate) struct Daemon<'p> {
    place: &'p Place,
    settings: Vec<(String, String)>,
}

impl<'p> Daemon<'p> {
    pub(crate) fn new(place: &'p Place) -> Self {
        Self { place, settings: vec![] }
    }

    /// With a setting, by its key: `store.type`.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        let name = format!("HEADWORKS__{}", key.to_uppercase().replace('.', "__"));
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Starts it; the address is where it listens.
    pub(crate) fn start(&self) -> (Process, SocketAddr) {
        self.spawn(None)
    }

    /// Starts it to die at a fault point: `after-intent:3`. See [`Process::died`].
    pub(crate) fn start_doomed(&self, fault: &str) -> (Process, SocketAddr) {
        self.spawn(Some(fault))
    }

    /// Starts it and waits for nothing; with a fault it may die before it listens.
    pub(crate) fn launch(&self, fault: Option<&str>) -> Process {
        Process::spawn(&mut self.command(fault))
    }

    /// The command that starts it, for more settings.
    pub(crate) fn command(&self, fault: Option<&str>) -> Command {
        let mut command = self.place.daemon();
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.envs(fault.map(|fault| ("HEADWORKS_FAULT", fault)));
        command
    }

    fn spawn(&self, fault: Option<&str>) -> (Process, SocketAddr) {
        let mut process = self.launch(fault);
        let address = process.listens();
        (process, address)
    }
}

/// Kills the daemon at a moment that the seed decides, up to `within` from now. The moment is not waited for: it is what
/// the test is about.
pub(crate) fn kill_at_random(daemon: Process, seed: u64, within: Duration) {
    let micros = u64::try_from(within.as_micros()).unwrap();
    std::thread::sleep(Duration::from_micros(fastrand::Rng::with_seed(seed).u64(..micros)));
    daemon.kill();
}
