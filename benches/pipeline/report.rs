//! What both contestants share: how to say that one listens, how to count, how to report.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;
use headworks::TenantId;
use serde::{Deserialize, Serialize};

use crate::contest::{Contest, Contestant, Result};
use crate::measure::{Finish, Start};
use crate::{baseline, system};

/// How many events each tenant has.
pub(crate) type Counts = BTreeMap<String, u64>;

/// A contestant that hangs has lost an event: it is ended after this long.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a contestant says on its stdout, as lines of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It listens.
    Ready(SocketAddr),
    /// All is stored.
    Done(Report),
}

/// What a contestant answers for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// When the last event was stored, in nanoseconds of the wall clock.
    pub(crate) finished_at: u128,
    pub(crate) cpu: Duration,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) stored: Counts,
}

/// What a contestant's `run` gives: taken the moment the last event is stored, and counted after that at leisure.
pub(crate) struct Outcome {
    pub(crate) finish: Finish,
    pub(crate) stored: Counts,
}

/// Says one thing to the referee.
pub(crate) fn say(said: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(said)?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

/// A contestant's call once it listens: tells the referee where, and begins to measure.
pub(crate) fn ready(address: SocketAddr) -> Result<Start> {
    let start = Start::now()?;
    say(&Said::Ready(address))?;
    Ok(start)
}

/// The life of a contestant's process.
pub(crate) fn take_part(name: Contestant, contest: &Contest) -> Result<()> {
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        eprintln!("pipeline: the {name} has not stored every event after {} s", PATIENCE.as_secs());
        std::process::exit(1);
    });
    let Outcome { finish, stored } = match name {
        Contestant::Baseline => baseline::run(contest)?,
        Contestant::System => system::run(contest)?,
    };
    let Finish { at, cpu, peak_rss_bytes } = finish;
    say(&Said::Done(Report { finished_at: at, cpu, peak_rss_bytes, stored }))
}

/// The null store of both contestants: counts what it is given, tenant by tenant.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<HashMap<TenantId, u64, FixedState>>);

impl Tally {
    /// `events` more of `tenant` are stored.
    pub(crate) fn add(&self, tenant: &TenantId, events: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(tenant) {
            Some(count) => *count += events,
            None => {
                counts.insert(tenant.clone(), events);
            }
        }
    }

    /// What is stored so far.
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(tenant, count)| (tenant.to_string(), *count)).collect()
    }
}
