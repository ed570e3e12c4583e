//! What a contest is, and what both contestants share: how to say that one listens, how to report, how to count.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use foldhash::fast::FixedState;
use headworks::TenantId;
use serde::{Deserialize, Serialize};

use crate::measure::{Finish, Start};
use crate::sample::{Shape, Share, Zipf};
use crate::{baseline, system};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many events each tenant has.
pub(crate) type Counts = BTreeMap<String, u64>;

/// A contestant that hangs has lost an event: it is ended after this long.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is sent.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    #[arg(long)]
    pub(crate) events: u64,
    #[arg(long)]
    pub(crate) tenants: u32,
    #[arg(long)]
    pub(crate) zipf: Zipf,
    #[arg(long)]
    pub(crate) connections: u32,
}

impl Load {
    /// 200 bytes an event, none of them bad.
    pub(crate) fn shape(&self) -> Shape {
        Shape { tenants: self.tenants, zipf: self.zipf, bytes: 200, bad: Share::default(), seed: 1 }
    }

    /// As arguments for another process.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let Self { events, tenants, zipf, connections } = self;
        [
            format!("--events={events}"),
            format!("--tenants={tenants}"),
            format!("--zipf={zipf}"),
            format!("--connections={connections}"),
        ]
        .into()
    }
}

/// Where events end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// Counted and dropped.
    Null,
    /// Rows in a SQLite database on disk.
    Sqlite,
}

impl Store {
    /// Enough for about a second, on a machine of 2024.
    pub(crate) fn default_events(self) -> u64 {
        match self {
            Self::Null => 5_000_000,
            Self::Sqlite => 2_000_000,
        }
    }
}

/// One row of the results: what is sent, and where it ends up.
#[derive(Debug, Clone, Args)]
pub(crate) struct Contest {
    #[command(flatten)]
    pub(crate) load: Load,
    #[arg(long)]
    pub(crate) store: Store,
}

impl Contest {
    /// As arguments for another process.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args = self.load.to_args();
        args.push(format!("--store={}", self.store));
        args
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Sqlite => "sqlite",
        })
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} tenants", self.store, self.load.tenants)?;
        if self.load.zipf == Zipf::default() { Ok(()) } else { write!(f, ", Zipf {}", self.load.zipf) }
    }
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contestant {
    Baseline,
    System,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Baseline => "baseline",
            Self::System => "system",
        })
    }
}

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
