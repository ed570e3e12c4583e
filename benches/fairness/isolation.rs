//! One of a hundred tenants runs mad: what the other ninety-nine feel of it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use headworks::{Policy, System, TenantSnapshot, WindowPolicy};

use crate::cases::{Case, TENANTS, load};
use crate::load::name;
use crate::rig::Rig;
use crate::sender::{Sent, send};
use crate::shop::{Madness, SPECIAL, Shop, hide_panics};
use crate::stats::{millis, quantile};
use crate::{Result, Scale, matrix};

const WINDOW: Duration = Duration::from_millis(250);

/// What a run came to, for the others and for the mad one.
pub(crate) struct Run {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Events of others that were sent and are not in the store.
    pub(crate) lost: u64,
    /// Of actors of others.
    pub(crate) restarts: u64,
    /// What cannot be told.
    pub(crate) unaccounted: Vec<String>,
    pub(crate) mad: Mad,
}

/// What became of the mad one's frames, at the moment at which the last one was due; after that its madness ends.
pub(crate) struct Mad {
    pub(crate) sent: u64,
    pub(crate) strangers: u64,
    pub(crate) garbage: u64,
    pub(crate) then: Option<TenantSnapshot>,
    /// Refused in the whole run, at the end of which nothing is in flight any more.
    pub(crate) rejected: u64,
}

/// Each case, after a quiet run, as often as there are pairs.
pub(crate) fn run(scale: Scale, pairs: u32, cases: &[Case]) -> Result<()> {
    hide_panics();
    let cases = if cases.is_empty() { Case::value_variants() } else { cases };
    println!(
        "{TENANTS} tenants, {} events/s of {} bytes over 4 connections, windows of {} ms, a store of 1 ms a call, journal in memory",
        scale.rate,
        crate::load::BYTES,
        WINDOW.as_millis()
    );
    let mut quiet = vec![];
    let mut results: Vec<_> = cases.iter().map(|case| (*case, vec![])).collect();
    for pair in 1..=if scale.quick { 1 } else { pairs } {
        for (case, runs) in &mut results {
            quiet.push(one_run(scale, None)?);
            let run = one_run(scale, Some(*case))?;
            let (before, p99) = (millis(quiet[quiet.len() - 1].p99), millis(run.p99));
            println!("  pair {pair}: {case:26} others' p99 {p99:.1} ms, quiet {before:.1} ms");
            runs.push(run);
        }
    }
    let exceed = matrix::print(&quiet, &results);
    let failed = |run: &Run| run.lost > 0 || run.restarts > 0 || !run.unaccounted.is_empty();
    let all = quiet.iter().chain(results.iter().flat_map(|(_, runs)| runs));
    let failures: Vec<_> = all.filter(|run| failed(run)).collect();
    failures.iter().flat_map(|run| &run.unaccounted).for_each(|why| eprintln!("{why}"));
    if !failures.is_empty() {
        let runs = failures.len();
        return Err(format!("{runs} runs with events lost or unaccounted for, or with restarts of others").into());
    }
    println!("No event of others was lost, no actor of theirs restarted; every event is accounted for.");
    if scale.quick || exceed.is_empty() {
        return Ok(());
    }
    let exceed: Vec<_> = exceed.iter().map(ToString::to_string).collect();
    Err(format!("others wait longer than the bound allows where the mad one: {}", exceed.join("; ")).into())
}

fn one_run(scale: Scale, case: Option<Case>) -> Result<Run> {
    let load = load(scale.rate, case)?;
    let began = Instant::now();
    let madness = case.map_or(Madness::None, Case::madness);
    let shop = Arc::new(Shop::new(began, scale.warm_up..scale.length(), TENANTS, madness, None));
    let policy = Policy { window: WindowPolicy { max_age: WINDOW, ..WindowPolicy::default() }, ..Policy::default() };
    let mut builder = System::builder().store(shop.clone());
    if let Some(case) = case {
        builder = builder.tenant(case.spec(&policy)?);
        if case == Case::Strangers {
            let known = (0..TENANTS).filter(|tenant| *tenant != SPECIAL).map(name).collect::<Result<Vec<_>>>()?;
            // No more may become known; those that are configured come up all the same.
            builder = known.into_iter().fold(builder.max_tenants(0), |builder, known| builder.tenant(known.into()));
        }
    }
    let rig = Rig::start(builder.policy(policy))?;
    let (sent, then) = thread::scope(|scope| {
        let sending = scope.spawn(|| send(rig.address, &load, began, scale.length()));
        thread::sleep((began + scale.length()).saturating_duration_since(Instant::now()));
        let then = rig.special();
        shop.heal();
        let sent = sending.join().map_err(|_| "the sender panicked")??;
        Result::Ok((sent, then?))
    })?;
    let ended = rig.end()?;
    let tally = shop.tally().clone();
    let unaccounted = ended.unaccounted(&sent, &tally)?;
    let Sent { events, strangers, garbage } = sent;
    let others = (0..TENANTS).filter(|tenant| *tenant != SPECIAL);
    let mut latencies = tally.others;
    latencies.sort_unstable();
    let refused = ended.drained.of(&name(SPECIAL)?).map_or(0, |mad| mad.end.counters.rejected);
    Ok(Run {
        p50: quantile(&latencies, 0.5),
        p99: quantile(&latencies, 0.99),
        lost: others.map(|tenant| events[tenant].abs_diff(tally.stored[tenant])).sum(),
        restarts: ended.restarts,
        unaccounted,
        mad: Mad { sent: events[SPECIAL], strangers, garbage, then, rejected: refused + strangers },
    })
}
