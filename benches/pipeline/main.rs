//! End to end over loopback TCP: the system against a loop without actors that does the same job.
//!
//! ```text
//! cargo bench --bench pipeline                          # the standard set, about three minutes
//! cargo bench --bench pipeline -- --quick               # seconds; verifies the counts, measures little
//! cargo bench --bench pipeline -- --tenants 1000 --zipf 1.1 --store sqlite --events 2000000 --pairs 5
//! ```
//!
//! Three processes: this one, a *sender* that has its bytes ready in memory before it connects, and a *contestant* that
//! listens, so that the CPU time and the memory of a contestant are its own. Pairs are run A B A B, since a machine's
//! mood changes slower than that; what counts is the median of the ratios of the pairs. Every run must have stored, for
//! every tenant, as many events as were sent, or the whole benchmark fails.

mod baseline;
#[path = "../blast/mod.rs"]
mod blast;
mod contest;
mod decode;
mod measure;
mod referee;
mod report;
mod sender;
mod sqlite;
mod system;
mod table;
mod windows;
mod writer;

use headworks::sample;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use contest::{Contest, Journal, Load, Result, Store};

#[derive(Parser)]
#[command(name = "pipeline", about = "The system against a loop without actors, over loopback TCP")]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Events of a run [default: as many as take a second or so]
    #[arg(long)]
    events: Option<u64>,
    /// Run one contest only, with so many tenants [default: 100]
    #[arg(long)]
    tenants: Option<u32>,
    /// Run one contest only, with events spread over tenants by this Zipf exponent [default: 0]
    #[arg(long)]
    zipf: Option<sample::Zipf>,
    /// Run one contest only, with this store [default: null]
    #[arg(long)]
    store: Option<Store>,
    /// Run one contest only, the system with this journal (the baseline has none) [default: memory]
    #[arg(long)]
    journal: Option<Journal>,
    /// Connections that send at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// How often both contestants run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Verify the counts with few events and one pair
    #[arg(long)]
    quick: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the processes are that this one starts.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    Sender(Load),
    Contestant {
        name: contest::Contestant,
        #[command(flatten)]
        contest: Contest,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.role {
        Some(Role::Sender(load)) => sender::run(load),
        Some(Role::Contestant { name, contest }) => report::take_part(*name, contest),
        None => contests(&args).and_then(|contests| referee::run(&contests, pairs(&args))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn quick(args: &Args) -> bool {
    // Without a word from cargo or the user this is `cargo test --all-targets`.
    args.quick || std::env::args_os().len() == 1
}

fn pairs(args: &Args) -> u32 {
    if quick(args) { 1 } else { args.pairs }
}

fn contests(args: &Args) -> Result<Vec<Contest>> {
    let contest = |store, tenants, zipf, events| {
        let events = args.events.unwrap_or(if quick(args) { 100_000 } else { events });
        let journal = args.journal.unwrap_or_default();
        Contest { load: Load { events, tenants, zipf, connections: args.connections }, store, journal }
    };
    let uniform = sample::Zipf::default();
    if args.tenants.is_some() || args.zipf.is_some() || args.store.is_some() || args.journal.is_some() {
        let store = args.store.unwrap_or(Store::Null);
        let (tenants, zipf) = (args.tenants.unwrap_or(100), args.zipf.unwrap_or_default());
        return Ok(vec![contest(store, tenants, zipf, store.default_events())]);
    }
    let skewed = "1.1".parse()?;
    let set = [(Store::Null, 100, uniform), (Store::Null, 100, skewed), (Store::Sqlite, 100, uniform)]
        .into_iter()
        .chain([(Store::Null, 10_000, uniform), (Store::Null, 100_000, uniform)])
        .map(|(store, tenants, zipf)| contest(store, tenants, zipf, store.default_events()))
        .collect();
    Ok(set)
}
