//! How fast each source takes events in, next to the plain library that it is made of: a bare server or client that reads frames and
//! counts them, and does nothing else.
//!
//! ```text
//! cargo bench --all-features --bench sources                    # every source
//! cargo bench --all-features --bench sources -- tcp mqtt        # some of them
//! cargo bench --all-features --bench sources -- --quick         # seconds; verifies the counts, measures little
//! cargo bench --all-features --bench sources -- --journal       # with the durable journal, which nothing plain has
//! ```
//!
//! Events are JSON of 200 bytes, of ten tenants; they come from a client in this process, over loopback, or from a file. Behind a source
//! is a whole system with a store that keeps nothing: its time ends when the last event is accepted. Both sides of a pair get the same
//! bytes in the same way, one after the other; what counts is the median of the ratios of the pairs. Every event must come, once, on
//! either side, and be stored, or the whole benchmark fails. `mqtt` needs Mosquitto and its clients, `nats` Python to install a server with.

#[path = "../blast/mod.rs"]
mod blast;
mod http;
mod listener;
mod load;
mod mqtt;
mod nats;
mod rig;
mod side;
#[path = "../fairness/stats.rs"]
#[expect(dead_code, reason = "another benchmark needs more of it")]
mod stats;
mod tail;
mod websocket;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use load::Load;
use side::{Result, Way};
use stats::{median, range};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    Tcp,
    Http,
    Websocket,
    Syslog,
    Tail,
    Mqtt,
    Nats,
}

#[derive(Parser)]
#[command(name = "sources", about = "Each source next to the plain library that it is made of")]
struct Args {
    /// Which ones [default: all]
    sources: Vec<Name>,
    /// Events of a run [default: as many as take a second or some]
    #[arg(long)]
    events: Option<u64>,
    /// How often both sides run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// The systems have a durable journal; otherwise one in memory
    #[arg(long)]
    journal: bool,
    /// Verify the counts with few events and one pair
    #[arg(long)]
    quick: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

impl Name {
    /// Enough for some seconds, on a machine of 2024.
    fn events(self) -> u64 {
        match self {
            Self::Tcp | Self::Tail => 4_000_000,
            Self::Http | Self::Websocket | Self::Syslog => 1_000_000,
            Self::Mqtt | Self::Nats => 100_000,
        }
    }

    fn way(self, load: &Load) -> Result<Box<dyn Way>> {
        Ok(match self {
            Self::Tcp => Box::new(listener::tcp(load)),
            Self::Http => Box::new(http::way(load)),
            Self::Websocket => Box::new(websocket::way(load)),
            Self::Syslog => Box::new(listener::syslog(load)),
            Self::Tail => Box::new(tail::Tail::new(load)?),
            Self::Mqtt => Box::new(mqtt::Mqtt::new(load)?),
            Self::Nats => Box::new(nats::JetStream::new(load)?),
        })
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("sources: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // Without a word from cargo or the user this is `cargo test --all-targets`.
    let is_quick = args.quick || std::env::args_os().len() == 1;
    let pairs = if is_quick { 1 } else { args.pairs };
    let all = if args.sources.is_empty() { Name::value_variants() } else { &args.sources };
    println!("{:<10} {:>9}  {:>14}  {:>14}  source / plain", "", "events", "source /s", "plain /s");
    for name in all {
        let events = args.events.unwrap_or(if is_quick { 5_000 } else { name.events() });
        let named = format!("{name:?}").to_lowercase();
        row(&named, *name, events, pairs, args.journal).map_err(|why| format!("{named}: {why}"))?;
    }
    Ok(())
}

fn row(named: &str, name: Name, events: u64, pairs: u32, journal: bool) -> Result<()> {
    let load = Load { events, journal };
    let mut way = name.way(&load)?;
    let (mut source, mut plain, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..pairs {
        way.prepare()?;
        let rate = |took: std::time::Duration| events as f64 / took.as_secs_f64();
        let (with, without) = (rate(side::source(&mut *way, &load)?), rate(side::plain(&mut *way, &load)?));
        source.push(with);
        plain.push(without);
        ratios.push(with / without);
    }
    let (least, most) = range(&ratios);
    let (source, plain, ratio) = (median(source), median(plain), median(ratios));
    println!(
        "{named:<10} {events:>9}  {source:>14.0}  {plain:>14.0}  {ratio:.2} ({least:.2} to {most:.2}), counts verified"
    );
    Ok(())
}
