use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::ChunkBuilder;

fn chunk(tenant: &str, events: &[usize]) -> Chunk {
    let mut builder = ChunkBuilder::default();
    events.iter().for_each(|size| builder.push(&vec![b'x'; *size], None));
    builder.build(tenant.parse().unwrap(), UnixMillis(1)).unwrap()
}

fn tap(taps: &Arc<Taps>, rate: u32, bytes: usize, now: Instant) -> Tap {
    taps.open(TapOptions { events_per_second: rate, max_waiting_bytes: bytes, ..TapOptions::default() }, now)
}

#[derive(Debug, Clone)]
enum Step {
    Pass(Vec<usize>),
    Wait(u64),
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::vec(0..2_000_usize, 1..20).prop_map(Step::Pass),
        1 => (0..2_000_u64).prop_map(Step::Wait),
        2 => (0..30_usize).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn every_event_is_told_skipped_or_missed_in_order_and_within_the_bounds(steps in steps(), rate in 1..40_u32) {
        const BYTES: usize = 8_000;
        let began = Instant::now();
        let (taps, mut now) = (Arc::new(Taps::default()), began);
        let mut tap = tap(&taps, rate, BYTES, now);
        let (mut passed, mut seq, mut told) = (0_u64, 0, vec![]);
        let (mut events, mut missed) = (0_u64, 0);
        for step in steps.into_iter().chain([Step::Read(usize::MAX)]) {
            match step {
                Step::Pass(sizes) => {
                    seq += 1;
                    passed += sizes.len() as u64;
                    taps.pass(seq, &chunk("a", &sizes), now);
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Read(most) => told.extend(std::iter::from_fn(|| tap.try_next()).take(most)),
            }
            let waiting = lock(&tap.reader.waiting);
            prop_assert!(waiting.bytes <= BYTES && waiting.items.len() <= 2 * BYTES / HEAD + 1);
            let sampled = u64::from(rate) * (1 + now.duration_since(began).as_secs() + 1);
            prop_assert!(told.len() as u64 <= sampled + missed);
        }
        let (mut last, mut skipped) = ((0, 0), lock(&tap.reader.waiting).skipped);
        for item in &told {
            match item {
                TapItem::Missed(some) => missed += some,
                TapItem::Event(event) => {
                    prop_assert!((event.seq, event.place) > last || last == (0, 0));
                    last = (event.seq, event.place);
                    events += 1;
                    skipped += event.skipped;
                }
            }
        }
        prop_assert_eq!(events + missed + skipped, passed);
        prop_assert_eq!(lock(&tap.reader.waiting).bytes, 0);
        // Nothing but the rate and the room keeps an event back.
        prop_assert!(events + missed <= u64::from(rate) * (1 + now.duration_since(began).as_secs() + 1));
    }
}

#[test]
fn as_many_as_a_second_has_may_come_at_once_and_then_as_the_rate_allows() {
    let now = Instant::now();
    let taps = Arc::new(Taps::default());
    let mut tap = tap(&taps, 10, 1 << 20, now);
    let mut told = |seq, at: u64| {
        taps.pass(seq, &chunk("a", &[1; 25]), now + Duration::from_millis(at));
        std::iter::from_fn(|| tap.try_next()).count()
    };
    assert_eq!([told(1, 0), told(2, 50), told(3, 200), told(4, 10_000)], [10, 0, 2, 10]);
    taps.pass(5, &chunk("a", &[1]), now + Duration::from_secs(11));
    let Some(TapItem::Event(event)) = tap.try_next() else { panic!("a second has passed") };
    assert_eq!((event.skipped, event.seq, event.place), (15, 5, 0), "those of the last chunk that were not told");
}

#[test]
fn nobody_looks_on_once_a_tap_is_dropped() {
    let (taps, now) = (Arc::new(Taps::default()), Instant::now());
    assert!(!taps.any());
    let (one, other) = (tap(&taps, 1, 1_000, now), tap(&taps, 1, 1_000, now));
    drop(one);
    assert!(taps.any());
    drop(other);
    assert!(!taps.any() && lock(&taps.readers).is_empty());
}
