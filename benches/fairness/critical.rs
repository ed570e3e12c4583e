//! One critical tenant among ninety-nine of bulk, on a store that takes half of what is offered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headworks::{OverflowPolicy, Policy, System, TenantSpec, WhenFull, WindowPolicy};
use tokio::sync::Semaphore;

use crate::load::{BYTES, Cycle, Line, Load, name};
use crate::priority::with_class;
use crate::rig::Rig;
use crate::sender::send;
use crate::shop::{Limit, Madness, SPECIAL, Shop};
use crate::stats::{millis, quantile};
use crate::{Result, Scale};

const TENANTS: usize = 100;
const WINDOW: Duration = Duration::from_millis(250);
/// Small batches, so that many turns go round in the time that is measured.
const WINDOW_EVENTS: usize = 50;
/// Of bulk, so that its tenants soon wait for the store with all they may have.
const MAX_IN_FLIGHT: usize = 64 << 10;
/// Of the critical tenant, over a connection of its own.
const CRITICAL_PER_SECOND: u32 = 100;
const CONNECTIONS: u32 = 4;
/// Calls that the store takes at once.
const PLACES: usize = 8;
/// The bulk tenants send one, two or four shares, in turn.
const SHARES: [usize; 3] = [1, 2, 4];
/// How far from its fair share a tenant may be.
const UNFAIR: f64 = 0.20;
/// How many windows the critical tenant's p99 may be.
const WINDOWS: f64 = 2.0;

pub(crate) fn run(scale: Scale) -> Result<()> {
    let (load, offered) = load(scale.rate)?;
    let capacity = f64::from(scale.rate) * BYTES as f64 / 2.0;
    let limit = Limit { places: Semaphore::new(PLACES), rate: capacity / PLACES as f64 };
    let began = Instant::now();
    let counts = scale.warm_up..scale.length();
    let shop = Arc::new(Shop::new(began, counts, TENANTS, Madness::None, Some(limit)));
    let policy = Policy {
        window: WindowPolicy { max_age: WINDOW, max_events: WINDOW_EVENTS, ..WindowPolicy::default() },
        // A connection that blocks would be measured in the place of the store's turns.
        overflow: OverflowPolicy {
            max_in_flight: MAX_IN_FLIGHT,
            when_full: WhenFull::Reject,
            ..OverflowPolicy::default()
        },
        ..Policy::default()
    };
    let (bulk, critical) = (with_class(&policy, "bulk")?, with_class(&policy, "critical")?);
    if critical.is_none() {
        println!("This system knows no priorities: all tenants are alike to it.");
    }
    let critical = TenantSpec::from(name(SPECIAL)?).policy(critical.unwrap_or_else(|| policy.clone()));
    let builder = System::builder().store(shop.clone()).policy(bulk.unwrap_or(policy)).tenant(critical);
    let rig = Rig::start(builder)?;
    let sent = send(rig.address, &load, began, scale.length())?;
    let ended = rig.end()?;
    let mut tally = shop.tally().clone();
    let wrong = ended.unaccounted(&sent, &tally)?;
    wrong.iter().for_each(|why| eprintln!("{why}"));
    if !wrong.is_empty() || ended.restarts > 0 {
        return Err(format!("{} sums do not hold, and {} actors were restarted", wrong.len(), ended.restarts).into());
    }
    let seconds = scale.measured.as_secs_f64();
    let stored: Vec<_> = tally.in_time[1..].iter().map(|events| *events as f64 / seconds).collect();
    let fair = fair_shares(&offered[1..], stored.iter().sum());
    let ratios: Vec<_> = stored.iter().zip(fair).map(|(stored, fair)| stored / fair).collect();
    tally.special.sort_unstable();
    let windows = |at| millis(quantile(&tally.special, at)) / millis(WINDOW);
    let refused = ended.drained.of(&name(SPECIAL)?).map_or(0, |critical| critical.end.counters.rejected);
    let (least, most) = crate::stats::range(&ratios);
    println!(
        "{} events/s of {BYTES} bytes offered by bulk, {:.0} stored; {CRITICAL_PER_SECOND} by the critical one, {refused} of \
         them refused; windows of {} ms; counts verified.",
        scale.rate,
        stored.iter().sum::<f64>(),
        WINDOW.as_millis()
    );
    println!(
        "| critical p50, windows | p99, windows (at most {WINDOWS}) | max, windows | bulk: stored / fair share, least | most |"
    );
    println!("|---|---|---|---|---|");
    println!("| {:.2} | {:.2} | {:.2} | {least:.2} | {most:.2} |", windows(0.5), windows(0.99), windows(1.0));
    for (nth, share) in SHARES.iter().enumerate() {
        let of: Vec<_> = ratios.iter().skip(nth).step_by(SHARES.len()).copied().collect();
        let (least, most) = crate::stats::range(&of);
        println!(
            "bulk tenants that send {share} of {:.0} events/s: {least:.2} to {most:.2} of their fair share",
            offered[1]
        );
    }
    let is_fair = 1.0 - least <= UNFAIR && most - 1.0 <= UNFAIR;
    if scale.quick || (windows(0.99) <= WINDOWS && refused == 0 && is_fair) {
        return Ok(());
    }
    Err("the critical tenant waits for too long or is refused, or a bulk tenant is too far from its fair share".into())
}

/// What is sent, and how many events a second each tenant offers.
fn load(rate: u32) -> Result<(Load, Vec<f64>)> {
    let lines = (0..TENANTS).map(|n| Line::event(n, BYTES)).collect::<Result<_>>()?;
    let shares = |tenant: usize| SHARES[(tenant - 1) % SHARES.len()];
    let all: usize = (1..TENANTS).map(shares).sum();
    // Round after round, a tenant is in as many as it has shares.
    let rounds = (0..SHARES[SHARES.len() - 1]).flat_map(|round| (1..TENANTS).filter(move |n| round < shares(*n)));
    let order: Vec<_> = rounds.collect();
    let every = Duration::from_secs(1) * CONNECTIONS * all as u32 / rate;
    let bulk = (0..CONNECTIONS).map(|_| Cycle { order: order.clone(), every });
    let critical = Cycle { order: vec![SPECIAL], every: Duration::from_secs(1) / CRITICAL_PER_SECOND };
    let offered = |tenant| match tenant {
        SPECIAL => f64::from(CRITICAL_PER_SECOND),
        bulk => f64::from(rate) * shares(bulk) as f64 / all as f64,
    };
    let load = Load { tenants: TENANTS, lines, connections: bulk.chain([critical]).collect() };
    Ok((load, (0..TENANTS).map(offered).collect()))
}

/// What each gets of `capacity` where nobody gets more than they offer, and nobody less than others who want more than they get.
fn fair_shares(offered: &[f64], capacity: f64) -> Vec<f64> {
    let mut by_offer: Vec<_> = (0..offered.len()).collect();
    by_offer.sort_by(|a, b| offered[*a].total_cmp(&offered[*b]));
    let (mut left, mut fair) = (capacity, vec![0.0; offered.len()]);
    for (nth, tenant) in by_offer.into_iter().enumerate() {
        fair[tenant] = offered[tenant].min(left / (offered.len() - nth) as f64);
        left -= fair[tenant];
    }
    fair
}
