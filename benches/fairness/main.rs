//! Whether one tenant is felt by the others, end to end over loopback TCP, with every event accounted for.
//!
//! ```text
//! cargo bench --bench fairness                          # one tenant runs mad, in ten ways; about eight minutes
//! cargo bench --bench fairness -- --quick               # a second of each: verifies the counts, measures little
//! cargo bench --bench fairness -- --case hang --pairs 5
//! cargo bench --bench fairness -- critical              # one critical tenant among bulk, on a store that is too slow
//! cargo bench --bench fairness -- lateness              # how late windows close at 80 % CPU
//! ```
//!
//! Open loop: event `n` of a connection is due at a time that is fixed beforehand, whatever became of those before it, and its
//! latency is from when it was *due* until the store has it. So a connection that is not read, or a sender that is held up, is seen
//! in the figures. Sender and system share the processors and the process; each run has a system of its own, and runs are
//! interleaved with quiet ones, since a machine's mood changes slower than that. Where an event is lost, or its outcome cannot be
//! told, or an actor of another tenant is restarted, the benchmark fails.

mod busy;
mod cases;
mod critical;
mod isolation;
mod lateness;
mod load;
mod matrix;
mod priority;
mod rig;
mod sender;
mod shop;
mod stats;

use headworks::sample;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "fairness", about = "Whether one tenant is felt by the others, over loopback TCP")]
struct Args {
    /// Events a second of all tenants together, where nobody is mad [default: 20,000; quick: 5,000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    rate: Option<u32>,
    /// How long to measure in each run, after the warm-up [default: 5; critical: 20; lateness: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: Option<u64>,
    /// How often each case runs, each time after a quiet run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// This case only; may be given several times
    #[arg(long)]
    case: Vec<cases::Case>,
    /// Verify the counts with a second of each
    #[arg(long, global = true)]
    quick: bool,
    /// What cargo passes
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// One critical tenant among 99 of bulk, on a store that takes half of what is offered
    Critical,
    /// How late windows close while the system's thread is busy for 80 % of the time
    Lateness,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Scale {
    quick: bool,
    /// Events a second.
    rate: u32,
    warm_up: Duration,
    measured: Duration,
}

impl Scale {
    fn of(args: &Args, seconds: u64, warm_up: u64) -> Self {
        // Without a word from cargo or the user this is `cargo test --all-targets`.
        let quick = args.quick || std::env::args_os().len() == 1;
        let (warm_up, seconds) = if quick { (0, 1) } else { (warm_up, args.seconds.unwrap_or(seconds)) };
        Self {
            quick,
            rate: args.rate.unwrap_or(if quick { 5_000 } else { 20_000 }),
            warm_up: Duration::from_secs(warm_up),
            measured: Duration::from_secs(seconds),
        }
    }

    fn length(self) -> Duration {
        self.warm_up + self.measured
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.what {
        None => isolation::run(Scale::of(&args, 5, 1), args.pairs, &args.case),
        Some(What::Critical) => critical::run(Scale::of(&args, 20, 4)),
        Some(What::Lateness) => lateness::run(Scale::of(&args, 10, 2)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairness: {error}");
            ExitCode::FAILURE
        }
    }
}
