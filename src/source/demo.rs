use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{IngressHandle, IngressSpec, Intake, Source};
use tokio::time::{MissedTickBehavior, interval};

use crate::sample::{SampleEvents, Shape, Share, Zipf};

/// How often events are made.
const TICK: Duration = Duration::from_millis(50);

/// About how many bytes are fed at once.
const BLOCK: usize = 256 << 10;

/// What a [`DemoSource`] makes.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Of how many tenants the events are. They are named `t0000` and so on, and the first is the busiest: of the tenant of rank
    /// `k` there are `1/k` as many. Default 10.
    pub tenants: u32,
    /// How many come in a second, at the most: while something is full none do, and they are not made up for. Default 10.
    pub events_per_second: u32,
    /// How long each is, in bytes, but for fields that need more. Default 200.
    pub event_bytes: usize,
    /// How many come in all, before the source ends by itself. Default `None`: without an end.
    pub max_events: Option<u64>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { tenants: 10, events_per_second: 10, event_bytes: 200, max_events: None }
    }
}

/// Sample events of the present, for trials: what `headworks gen` makes, at a rate.
#[derive(Debug)]
pub struct DemoSource {
    name: String,
    spec: IngressSpec,
    options: DemoOptions,
}

impl DemoSource {
    /// Lines as `spec` decodes them: JSON objects with the fields `tenant`, `ts`, `level` and `line`. The framing of `spec` is to be
    /// lines.
    #[must_use]
    pub fn new(name: impl Into<String>, spec: IngressSpec, options: DemoOptions) -> Self {
        Self { name: name.into(), spec, options }
    }
}

impl Source for DemoSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let ingress = intake.open(self.spec).await.map_err(|why| why.to_string())?;
            let mut making = Making::new(&self.options);
            let mut closing = std::pin::pin!(intake.closing());
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while making.left > 0 {
                tokio::select! {
                    biased;
                    () = &mut closing => return Ok(()),
                    _ = ticks.tick() => {}
                }
                if !making.feed(&ingress).await {
                    // It is refused as the system ends.
                    return Ok(());
                }
            }
            ingress.finish(true).await.map_err(|why| why.to_string())
        }
        .boxed_local()
    }
}

struct Making {
    events: SampleEvents,
    pace: Pace,
    left: u64,
}

impl Making {
    fn new(options: &DemoOptions) -> Self {
        let shape = Shape {
            tenants: options.tenants,
            zipf: Zipf::NATURAL,
            bytes: options.event_bytes,
            bad: Share::default(),
            seed: fastrand::u64(..),
        };
        let pace = Pace { per_second: options.events_per_second, carry: 0 };
        Self { events: SampleEvents::new(&shape), pace, left: options.max_events.unwrap_or(u64::MAX) }
    }

    /// Makes the events of a tick, and says whether they were taken in.
    async fn feed(&mut self, ingress: &IngressHandle) -> bool {
        let mut due = self.pace.tick().min(self.left);
        self.left -= due;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.events.set_time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let mut block = vec![];
        while due > 0 {
            block.clear();
            while due > 0 && block.len() < BLOCK {
                self.events.write_next(&mut block);
                due -= 1;
            }
            block = match ingress.feed(block).await {
                Ok(used) => used,
                Err(_) => return false,
            };
        }
        true
    }
}

/// How many events a tick has, for a rate that no tick divides.
struct Pace {
    per_second: u32,
    /// Thousandths of an event that are owed.
    carry: u64,
}

impl Pace {
    fn tick(&mut self) -> u64 {
        self.carry += u64::from(self.per_second) * TICK.as_millis() as u64;
        let due = self.carry / 1_000;
        self.carry %= 1_000;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_actors::{Framing, Json, MemoryStore, NullStore, Placement, System};

    /// What one brings, in virtual time.
    async fn brought(options: DemoOptions, store: MemoryStore) -> (Duration, u64) {
        let system = System::builder().placement(Placement::Inline).store(store).start().unwrap();
        let spec = IngressSpec::new("demo", Framing::lines(), Json::new());
        let began = tokio::time::Instant::now();
        let source = system.add_source(DemoSource::new("demo", spec, options)).await.unwrap();
        source.ended().await.unwrap();
        let took = began.elapsed();
        assert!(system.drain(Duration::from_secs(60)).await.complete);
        (took, system.sources()[0].1.accepted)
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_events_come_in_a_second_and_in_all_of_so_many_tenants() {
        let all = async {
            for (events_per_second, max_events, least, most) in [(7, 21, 2_800, 3_100), (1_000, 2_500, 2_400, 2_600)] {
                let store = MemoryStore::new();
                let options =
                    DemoOptions { tenants: 3, events_per_second, max_events: Some(max_events), event_bytes: 150 };
                let (took, accepted) = brought(options, store.clone()).await;
                assert!((least..=most).contains(&took.as_millis()), "{took:?}");
                assert_eq!((accepted, store.totals().values().sum::<u64>()), (max_events, max_events));
                assert_eq!(store.totals().len(), 3);
                assert!(store.totals().keys().all(|tenant| tenant.as_str().starts_with("t000")));
            }
        };
        tokio::task::LocalSet::new().run_until(all).await;
    }

    #[tokio::test]
    async fn one_without_an_end_ends_with_the_system() {
        let system = System::builder().store(NullStore::default()).start().unwrap();
        let spec = IngressSpec::new("demo", Framing::lines(), Json::new());
        let options = DemoOptions { events_per_second: 1_000_000, ..DemoOptions::default() };
        let source = system.add_source(DemoSource::new("demo", spec, options)).await.unwrap();
        while system.sources().first().is_none_or(|(_, counters)| counters.accepted < 100_000) {
            tokio::task::yield_now().await;
        }
        assert!(system.drain(Duration::from_secs(60)).await.complete);
        source.ended().await.unwrap();
    }
}
