//! How long a sender waits for its acknowledgements, at a steady rate: the system with its durable journal, behind its TCP source.
//!
//! ```text
//! cargo bench --bench acks                                      # 10,000 and 200,000 events/s at `journaled`; half a minute
//! cargo bench --bench acks -- --quick                           # verifies the counts, measures little
//! cargo bench --bench acks -- --rate 50000 --level stored --seconds 30
//! ```
//!
//! One connection, 200-byte events, 100 tenants. Event `n` is due `n / rate` after the beginning, whatever became of those before
//! it. The sender wakes each millisecond and writes what is due; an event's latency is from when it was *due* until the sender has
//! read the `ack` that covers it, so that a system that falls behind, or a sender that is held up, is seen in the figures. Sender
//! and system share the processors. The first two seconds are not counted. Every event must be acknowledged once, none refused,
//! and the store must have been given as many, or the benchmark fails.
//!
//! The journal lies in a directory under `HEADWORKS_BENCH_DIR`, or in the system's temporary one. The disk's own answer is
//! measured before: appends of 64 KiB with an `fdatasync` each.

mod client;
mod disk;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use headworks::AckLevel;
use headworks::sample;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "acks", about = "How long a sender waits for its acknowledgements, at a steady rate")]
struct Args {
    /// Events a second; more than one to run one after the other
    #[arg(long, default_values_t = [10_000, 200_000], value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Vec<u64>,
    /// How long to measure, after the warm-up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// What the sender asks for: received, journaled or stored
    #[arg(long, default_value = "journaled")]
    level: AckLevel,
    /// Verify the counts with a second of each
    #[arg(long)]
    quick: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
struct Load {
    rate: u64,
    level: AckLevel,
    warm_up: Duration,
    measured: Duration,
}

impl Load {
    const TENANTS: u32 = 100;
    /// Of an event, without its newline.
    const BYTES: usize = 200;

    /// How many events are due by then.
    fn due(&self, since: Duration) -> u64 {
        let all = (self.warm_up + self.measured).as_secs() * self.rate;
        (u128::from(self.rate) * since.as_nanos() / 1_000_000_000).min(all.into()) as u64
    }

    /// How many there are.
    fn events(&self) -> u64 {
        self.due(Duration::MAX)
    }

    /// When event `n`, from 0, is due.
    fn due_at(&self, n: u64) -> Duration {
        Duration::from_nanos((u128::from(n) * 1_000_000_000 / u128::from(self.rate)) as u64)
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // Without a word from cargo or the user this is `cargo test --all-targets`.
    let quick = args.quick || std::env::args_os().len() == 1;
    let base: PathBuf = std::env::var_os("HEADWORKS_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    println!("the journal lies in {}, on {}", base.display(), disk::file_system(&base)?);
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "rate asked",
        "rate reached",
        "level",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "commits/s",
        "written/byte",
    ]);
    for rate in &args.rate {
        let (warm_up, measured) = if quick { (0, 1) } else { (2, args.seconds) };
        let (warm_up, measured) = (Duration::from_secs(warm_up), Duration::from_secs(measured));
        let load = Load { rate: *rate, level: args.level, warm_up, measured };
        if !quick {
            println!("{}", disk::answer(&base)?);
        }
        let outcome = server::run(&base, load)?;
        let latency = |share: f64| {
            let at = (outcome.latencies.len() as f64 * share).ceil() as usize;
            let micros = outcome.latencies.get(at.saturating_sub(1)).copied().unwrap_or_default();
            format!("{:.2}", f64::from(micros) / 1e3)
        };
        let in_all = (warm_up + measured).as_secs_f64();
        println!("{rate} events/s: {} events acknowledged and stored, counts verified", load.events());
        table.add_row([
            rate.to_string(),
            format!("{:.0}", outcome.reached),
            load.level.to_string(),
            latency(0.5),
            latency(0.9),
            latency(0.99),
            latency(1.0),
            format!("{:.0}", outcome.journal.commits as f64 / in_all),
            format!("{:.3}", outcome.journal.written_bytes as f64 / (load.events() * Load::BYTES as u64) as f64),
        ]);
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    Ok(())
}
