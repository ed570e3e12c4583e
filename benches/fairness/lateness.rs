//! How late windows close while the system's thread is busy for most of the time.

use std::time::{Duration, Instant};

use headworks::{NullStore, Policy, System, WindowPolicy};

use crate::busy::Busy;
use crate::load::{BYTES, Cycle, Line, Load};
use crate::rig::Rig;
use crate::sender::send;
use crate::stats::{millis, quantile};
use crate::{Result, Scale};

const TENANTS: usize = 1_000;
const CONNECTIONS: u32 = 4;
const WINDOW: Duration = Duration::from_secs(1);
/// How busy the thread is to be.
const SHARE: f64 = 0.80;
/// Near enough.
const NEAR: f64 = 0.03;
/// What the p99 must not exceed.
const BOUND: Duration = Duration::from_millis(20);
/// So much that windows close by age alone, whatever the rate: a second of it is in flight.
const MAX_IN_FLIGHT_BYTES: usize = 2 << 30;

pub(crate) fn run(scale: Scale) -> Result<()> {
    let window = WindowPolicy { max_age: WINDOW, max_events: 1_000_000, max_bytes: 1 << 30 };
    let policy = Policy { window, ..Policy::default() };
    let store = NullStore::default();
    let builder = System::builder().policy(policy).store(store.clone()).max_in_flight_bytes(MAX_IN_FLIGHT_BYTES);
    let rig = Rig::start(builder)?;
    let (mut rate, mut sent) = (f64::from(scale.rate), 0);
    let mut phase = |rate: f64, length: Duration| {
        rig.watcher.take_lateness();
        let (load, busy, began) = (load(rate)?, Busy::now()?, Instant::now());
        sent += send(rig.address, &load, began, length)?.frames();
        Result::Ok((busy.share()?, rig.watcher.take_lateness()))
    };
    if !scale.quick {
        // What an event costs falls with the rate, as chunks grow, so that it takes some steps to get near.
        rate = 100_000.0;
        for _ in 0..8 {
            let (share, _) = phase(rate, scale.warm_up)?;
            println!("  {rate:.0} events/s keep the system's thread busy for {:.0} % of the time", share * 100.0);
            if (share - SHARE).abs() < NEAR {
                break;
            }
            rate *= (SHARE / share).clamp(0.5, 2.0);
        }
    }
    let (share, mut lateness) = phase(rate, scale.measured.max(2 * WINDOW))?;
    let ended = rig.end()?;
    if store.events() != sent || !ended.drained.complete || ended.restarts > 0 {
        return Err(format!("{sent} events sent, {} stored; {}", store.events(), ended.drained).into());
    }
    lateness.sort_unstable();
    let ms = |at| millis(quantile(&lateness, at));
    println!(
        "\n{TENANTS} tenants, windows of 1 s, events of {BYTES} bytes over {CONNECTIONS} connections; counts verified."
    );
    println!("| events/s | thread busy | windows | late by p50 ms | p99 ms | max ms |");
    println!("|---|---|---|---|---|---|");
    let (windows, busy) = (lateness.len(), share * 100.0);
    println!("| {rate:.0} | {busy:.0} % | {windows} | {:.2} | {:.2} | {:.2} |", ms(0.5), ms(0.99), ms(1.0));
    let late = quantile(&lateness, 0.99);
    if scale.quick || late < BOUND {
        return Ok(());
    }
    Err(format!("windows are late by {:.1} ms (p99), and may be by {} ms", millis(late), BOUND.as_millis()).into())
}

fn load(rate: f64) -> Result<Load> {
    let lines = (0..TENANTS).map(|n| Line::event(n, BYTES)).collect::<Result<_>>()?;
    let every = Duration::from_secs_f64(TENANTS as f64 * f64::from(CONNECTIONS) / rate);
    let connection = |_| Cycle { order: (0..TENANTS).collect(), every };
    Ok(Load { tenants: TENANTS, lines, connections: (0..CONNECTIONS).map(connection).collect() })
}
