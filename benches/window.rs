//! The window's rule alone: what it costs to count events into batches, and what a tenant's other rules add.
//!
//! `cargo bench --bench window`; an iteration is 10,000 events of 200 bytes, the throughput is events a second.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headworks::{Heartbeat, Window, WindowPolicy};
use tokio::time::Instant;

const EVENTS: usize = 10_000;
const BYTES: usize = 200;

/// Pushes one run, cutting where the window is full; gives back how many batches that made.
fn push_run(window: &mut Window, mut events: usize, at: Instant) -> usize {
    let mut batches = 0;
    while events > 0 {
        let (taken, full) = window.push(events, |events| events * BYTES, at);
        events -= taken;
        if full.is_some() && window.close().is_some() {
            batches += 1;
        }
    }
    batches
}

/// Pushes all events in runs of `run`, and closes what is left.
fn push_all(window: &mut Window, run: usize, at: Instant) -> usize {
    let batches: usize = (0..EVENTS / run).map(|_| push_run(window, black_box(run), at)).sum();
    batches + usize::from(window.close().is_some())
}

/// A run is what one read brought for one tenant: the more tenants, the shorter.
fn runs(c: &mut Criterion) {
    let mut group = c.benchmark_group("window");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let now = Instant::now();
    let by_events = WindowPolicy::default();
    let by_bytes = WindowPolicy { max_bytes: 64 << 10, ..WindowPolicy::default() };
    for (closed_by, policy, batches) in [("500 events", by_events, 20), ("64 KiB", by_bytes, 31)] {
        for run in [1, 10, 1_000] {
            let mut window = Window::new(policy.clone());
            assert_eq!(push_all(&mut window, run, now), batches);
            group.bench_function(BenchmarkId::new(format!("closed by {closed_by}"), format!("runs of {run}")), |b| {
                b.iter(|| push_all(black_box(&mut window), run, now));
            });
        }
    }
    group.finish();
}

/// All that a tenant's rules are asked for each chunk: whether the window is due, the push, when it will be due, and that the
/// tenant is not idle.
fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy of a chunk");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let now = Instant::now();
    for run in [1, 10, 1_000] {
        let (mut window, mut heartbeat) = (Window::new(WindowPolicy::default()), Heartbeat::new(now));
        group.bench_function(format!("chunks of {run}"), |b| {
            b.iter(|| {
                for _ in 0..EVENTS / run {
                    let now = black_box(now);
                    if window.is_due(now) {
                        black_box(window.close());
                    }
                    push_run(&mut window, run, now);
                    black_box((window.deadline(), heartbeat.events(now)));
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = window;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = runs, chunks
}
criterion_main!(window);
