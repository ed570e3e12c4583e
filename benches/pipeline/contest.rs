//! What a contest is: who takes part, what is sent and where it ends up.

use std::fmt;

use clap::{Args, ValueEnum};

use crate::sample::{Shape, Share, Zipf};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

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
    /// Segments on disk with SQLite as their index. The baseline has no such thing, and writes rows.
    Index,
}

impl Store {
    /// Enough for about a second, on a machine of 2024.
    pub(crate) fn default_events(self) -> u64 {
        match self {
            Self::Null => 5_000_000,
            Self::Sqlite | Self::Index => 2_000_000,
        }
    }
}

/// Where accepted events are on record until they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Journal {
    /// In memory.
    #[default]
    Memory,
    /// On disk.
    Durable,
}

/// One row of the results: what is sent, and where it ends up.
#[derive(Debug, Clone, Args)]
pub(crate) struct Contest {
    #[command(flatten)]
    pub(crate) load: Load,
    #[arg(long)]
    pub(crate) store: Store,
    #[arg(long)]
    pub(crate) journal: Journal,
}

impl Contest {
    /// As arguments for another process.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args = self.load.to_args();
        args.push(format!("--store={}", self.store));
        args.push(format!("--journal={}", self.journal));
        args
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Sqlite => "sqlite",
            Self::Index => "index",
        })
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        })
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} tenants", self.store, self.load.tenants)?;
        if self.journal == Journal::Durable {
            f.write_str(", journal")?;
        }
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
