//! What very many tenants cost: awake, dormant, on being woken, and refused.
//!
//! ```text
//! cargo bench --bench tenants                      # all parts, about a minute
//! cargo bench --bench tenants -- passivated woken  # some of them: passivated, woken, idle, flood
//! ```
//!
//! Over the null store and without a durable journal. With `--quick` a tenth of the tenants. Memory is that of the process
//! (resident) and what is allocated at the moment (live); the allocator is the daemon's, or with `--no-default-features` that of the
//! system. Every count is verified.
#![expect(clippy::expect_used, reason = "a bench has nobody to report to")]

use std::time::{Duration, Instant};

use cap::Cap;
use futures::executor::block_on;
use headworks::{
    Code, Event, Framing, HeartbeatPolicy, IngressHandle, IngressSpec, Json, NullStore, Policy, Status, System,
    SystemBuilder, TenantId, TenantSpec, WindowPolicy,
};

#[cfg(feature = "mimalloc")]
type Allocator = mimalloc::MiMalloc;
#[cfg(feature = "mimalloc")]
const ALLOCATOR_OF_CHOICE: Allocator = mimalloc::MiMalloc;
#[cfg(not(feature = "mimalloc"))]
type Allocator = std::alloc::System;
#[cfg(not(feature = "mimalloc"))]
const ALLOCATOR_OF_CHOICE: Allocator = std::alloc::System;

#[global_allocator]
static ALLOCATOR: Cap<Allocator> = Cap::new(ALLOCATOR_OF_CHOICE, usize::MAX);

const MIB: f64 = 1_048_576.0;

fn name(number: usize) -> String {
    format!("tenant-{number:07}")
}

fn id(number: usize) -> TenantId {
    TenantId::new(&name(number)).expect("it follows the grammar")
}

fn lines(tenants: std::ops::Range<usize>) -> Vec<u8> {
    let line = |n| format!("{{\"tenant\":\"{}\",\"level\":\"info\",\"line\":\"{:x<100}\"}}\n", name(n), "");
    tenants.flat_map(|n| line(n).into_bytes()).collect()
}

/// Resident memory, in MiB; 0 where the system does not tell.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1_024.0
}

fn live() -> f64 {
    ALLOCATOR.allocated() as f64 / MIB
}

/// The processor time of this process so far; nothing where the system does not tell. In hundredths of a second.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let ticks: u64 =
        fields.map_or(0, |fields| fields[11..13].iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum());
    Duration::from_millis(ticks * 10)
}

fn policy(every: Duration, passivate_after: Option<Duration>, max_events: usize) -> Policy {
    let heartbeat = HeartbeatPolicy { every, passivate_after, ..HeartbeatPolicy::default() };
    let window = WindowPolicy { max_events, ..WindowPolicy::default() };
    Policy { heartbeat, window, ..Policy::default() }
}

fn started(policy: Policy, parts: impl FnOnce(SystemBuilder) -> SystemBuilder) -> (System, IngressHandle, NullStore) {
    let store = NullStore::default();
    let builder = System::builder().store(store.clone()).policy(policy).report_every(None);
    let system = parts(builder).start().expect("a thread");
    let spec = IngressSpec::new("bench", Framing::lines(), Json::new());
    let ingress = block_on(system.ingress(spec)).expect("the system runs");
    (system, ingress, store)
}

fn feed(ingress: &IngressHandle, tenants: std::ops::Range<usize>) {
    for from in tenants.clone().step_by(1_000) {
        let block = lines(from..(from + 1_000).min(tenants.end));
        block_on(ingress.feed(block)).expect("the system runs");
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(300), "five minutes have passed, and not yet: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn all_dormant(system: &System) -> bool {
    system.tenants().iter().all(|tenant| tenant.status == Status::Dormant)
}

fn end(system: &System, store: &NullStore, accepted: usize) {
    let report = block_on(system.drain(Duration::from_secs(60)));
    assert!(report.complete, "{report}");
    assert_eq!(store.events(), accepted as u64);
}

/// Of `count` tenants that were active and are passivated.
fn passivated(count: usize) {
    const ROUNDS: usize = 3;
    let (before, before_live) = (resident(), live());
    let second = Duration::from_secs(1);
    let (system, ingress, store) =
        started(policy(second, Some(3 * second), 500), |builder| builder.max_tenants(usize::MAX));
    let (mut peak, mut peak_live) = (0_f64, 0_f64);
    let mut look = || (peak, peak_live) = (peak.max(resident()), peak_live.max(live()));
    for _ in 0..ROUNDS {
        feed(&ingress, 0..count);
        look();
    }
    until("all are stored", || {
        look();
        store.events() == (ROUNDS * count) as u64
    });
    until("all are passivated", || all_dormant(&system));
    let after_at_once = resident();
    for _ in 0..10 {
        std::thread::sleep(second);
        feed(&ingress, 0..1);
    }
    let (after, after_live) = (resident(), live());
    let each = (after_live - before_live) * MIB / count as f64;
    println!("passivated  {count} tenants, {ROUNDS} events each");
    println!(
        "  resident  {before:.0} MiB before, {peak:.0} at the peak, {after_at_once:.0} right after, {after:.0} ten seconds later"
    );
    println!(
        "  live      {before_live:.0} MiB before, {peak_live:.0} at the peak, {after_live:.0} after: {each:.0} bytes a tenant"
    );
    // Of some 30 MiB that are allocated.
    assert!(cfg!(not(feature = "mimalloc")) || after < 150.0, "the allocator keeps {after:.0} MiB");
    end(&system, &store, ROUNDS * count + 10);
}

/// How long each took, told as its median and its 99th percentile.
fn told(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    format!("p50 {:.0} us, p99 {:.0} us", at(0.5), at(0.99))
}

/// Offers an event to each tenant: until it is accepted, and until it is stored.
fn offered(system: &System, tenants: impl Iterator<Item = usize>) -> (Vec<Duration>, Vec<Duration>) {
    tenants
        .map(|n| {
            let event = Event::new(id(n), None, "an event");
            let began = Instant::now();
            let mut receipt = block_on(system.send(vec![event])).expect("the system runs");
            let accepted = began.elapsed();
            assert_eq!(block_on(receipt.settled()).stored, 1);
            (accepted, began.elapsed())
        })
        .unzip()
}

/// One event to a dormant tenant, out of `count`.
fn woken(count: usize) {
    let tenth = Duration::from_millis(100);
    let after = Duration::from_secs(5);
    let (system, ingress, store) = started(policy(tenth, Some(after), 1), |builder| builder.max_tenants(usize::MAX));
    feed(&ingress, 0..count);
    until("all are passivated", || all_dormant(&system));
    let some = || (0..count).step_by(count / 2_000);
    let (accepted, stored) = offered(&system, some());
    println!("woken       one event to a dormant tenant of {count}");
    println!("  accepted  {}", told(accepted));
    println!("  stored    {}", told(stored));
    let (accepted, stored) = offered(&system, some());
    println!("  once more, while it is awake: accepted {}; stored {}", told(accepted), told(stored));
    end(&system, &store, count + 2 * some().count());
}

/// The processor time that `count` tenants without events take.
fn idle(count: usize, lasting: Duration) {
    let (system, ingress, store) =
        started(policy(Duration::from_secs(10), None, 500), |builder| builder.max_tenants(usize::MAX));
    feed(&ingress, 0..count);
    until("all are stored", || store.events() == count as u64);
    std::thread::sleep(Duration::from_secs(2));
    let (began, before) = (Instant::now(), processor());
    std::thread::sleep(lasting);
    let share = (processor() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!("idle        {count} awake tenants, a heartbeat each every 10 s: {share:.1} % of a core");
    end(&system, &store, count);
}

/// `distinct` unknown tenants, at 100,000 a second, while 100 known ones go on.
fn flood(distinct: usize) {
    const KNOWN: usize = 100;
    const CAP: usize = 10_000;
    let one = policy(Duration::from_secs(10), None, 1);
    let (system, ingress, store) = started(policy(Duration::from_secs(10), None, 500), |builder| {
        let known = (0..KNOWN).map(|n| TenantSpec::from(id(n)).policy(one.clone()));
        known.fold(builder.max_tenants(CAP), SystemBuilder::tenant)
    });
    feed(&ingress, 0..CAP);
    let steady = || {
        let mut took = vec![];
        let began = Instant::now();
        for n in 0..distinct / 100 {
            let due = began + Duration::from_millis(n as u64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            took.extend(offered(&system, std::iter::once(n % KNOWN)).1);
        }
        took
    };
    let quiet = steady();
    let (before, before_live) = (resident(), live());
    let (flooded, refusing) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let (began, mut refusing) = (Instant::now(), Duration::ZERO);
            for (nth, from) in (0..distinct).step_by(1_000).enumerate() {
                let block = lines(1_000_000 + from..1_000_000 + from + 1_000);
                let due = began + Duration::from_millis(10 * nth as u64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let fed = Instant::now();
                block_on(ingress.feed(block)).expect("the system runs");
                refusing += fed.elapsed();
            }
            refusing
        });
        (steady(), flood.join().expect("the flood ends"))
    });
    let (after, after_live) = (resident(), live());
    let rejected = system.sources().iter().map(|(_, source)| source.rejected).sum::<u64>();
    assert_eq!((rejected, system.tenants().len()), (distinct as u64, CAP));
    let report = system.report();
    let lines: Vec<_> = report.entries.iter().filter(|entry| entry.code == Code::TenantLimit).collect();
    assert_eq!((lines.len(), lines[0].events), (1, distinct as u64), "one line of the report has them all");
    let each = refusing.as_secs_f64() * 1e9 / distinct as f64;
    println!("flood       {distinct} unknown tenants against a cap of {CAP}: {each:.0} ns each, from bytes to refusal");
    println!(
        "  resident  {before:.0} MiB before, {after:.0} after; live {before_live:.1} MiB before, {after_live:.1} after"
    );
    println!("  stored    {} of {KNOWN} known tenants without it, {} with it", told(quiet), told(flooded));
    end(&system, &store, CAP + 2 * (distinct / 100));
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_quick = args.iter().any(|arg| arg == "--quick" || arg == "--test");
    let named: Vec<_> = args.iter().filter(|arg| !arg.starts_with("--")).map(String::as_str).collect();
    let wants = |part| named.is_empty() || named.contains(&part);
    let (count, distinct) = if is_quick { (10_000, 100_000) } else { (100_000, 1_000_000) };
    let lasting = Duration::from_secs(if is_quick { 10 } else { 20 });
    if wants("passivated") {
        passivated(count);
    }
    if wants("woken") {
        woken(count);
    }
    if wants("idle") {
        idle(count, lasting);
    }
    if wants("flood") {
        flood(distinct);
    }
}
