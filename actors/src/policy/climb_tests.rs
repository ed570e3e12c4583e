use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const MAX: u32 = 256;

/// What a store is like.
#[derive(Debug, Clone, Copy)]
enum Model {
    /// So many calls at once, each of so many microseconds; others wait in there, the first first.
    Servers(usize, u64),
    /// All that waits goes in one commit, of so many microseconds and so many for each call.
    Commits(u64, u64),
}

const UNLIMITED: usize = 100_000;

/// How long calls vary: as an exponential distribution would have it, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noise {
    None,
    Wild,
}

struct World {
    climb: Climb,
    rng: fastrand::Rng,
    noise: Noise,
    began: Instant,
    /// Microseconds since then.
    now: u64,
    under_way: u32,
    /// End and beginning.
    running: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: std::collections::VecDeque<u64>,
    done: u64,
}

impl World {
    fn new(max: u32, noise: Noise) -> Self {
        Self {
            climb: Climb::new(max),
            rng: fastrand::Rng::with_seed(7),
            noise,
            began: Instant::now(),
            now: 0,
            under_way: 0,
            running: BinaryHeap::new(),
            waiting: std::collections::VecDeque::new(),
            done: 0,
        }
    }

    fn time(&self, micros: u64) -> Instant {
        self.began + Duration::from_micros(micros)
    }

    fn varied(&mut self, micros: u64) -> u64 {
        match self.noise {
            Noise::None => micros,
            Noise::Wild => (-(1.0 - self.rng.f64()).ln() * micros as f64) as u64 + 1,
        }
    }

    /// Lets so many tenants, who always have a batch, call it for so long; how many calls a second it answered, and the mean of the
    /// settled limit.
    fn run(&mut self, model: Model, tenants: u32, seconds: u64) -> (f64, f64) {
        let (end, before) = (self.now + seconds * 1_000_000, self.done);
        let (mut area, from) = (0.0, self.now);
        while self.now < end {
            while self.under_way < self.climb.limit().min(tenants) {
                self.under_way += 1;
                self.waiting.push_back(self.now);
            }
            match model {
                Model::Servers(places, micros) => {
                    while self.running.len() < places
                        && let Some(call) = self.waiting.pop_front()
                    {
                        let ends = self.now + self.varied(micros);
                        self.running.push(Reverse((ends, call)));
                    }
                }
                Model::Commits(commit, each) => {
                    if self.running.is_empty() {
                        let took = commit + each * self.waiting.len() as u64;
                        let ends = self.now + self.varied(took);
                        self.running.extend(self.waiting.drain(..).map(|call| Reverse((ends, call))));
                    }
                }
            }
            let Some(Reverse((ends, call))) = self.running.pop() else { unreachable!("somebody always calls") };
            area += f64::from(self.climb.settled) * (ends - self.now) as f64;
            self.now = ends;
            let latency = Duration::from_micros(ends - call);
            let now = self.time(ends);
            self.climb.stored(latency, 10_000, self.under_way, now);
            self.under_way -= 1;
            self.done += 1;
        }
        let lasted = (self.now - from) as f64;
        ((self.done - before) as f64 * 1e6 / lasted, area / lasted)
    }
}

#[test]
fn a_store_that_takes_so_many_calls_at_once_gets_those_and_less_than_twice_as_many_within_seconds() {
    for places in [1, 2, 3, 5, 8, 13, 20, 40, 100] {
        let model = Model::Servers(places, 10_000);
        let mut world = World::new(MAX, Noise::None);
        world.run(model, 1_000, 8);
        let (pace, limit) = world.run(model, 1_000, 30);
        assert!(pace >= places as f64 * 100.0 * 0.95, "{places}: {pace}");
        assert!(limit >= places as f64 * 0.95 && limit <= places as f64 * 2.1, "{places}: {limit}");
    }
}

#[test]
fn a_store_without_a_limit_gets_all_that_it_may_within_two_seconds() {
    let mut world = World::new(MAX, Noise::None);
    let model = Model::Servers(UNLIMITED, 50_000);
    world.run(model, 1_000, 2);
    assert_eq!(world.climb.settled, MAX);
    let (pace, _) = world.run(model, 1_000, 60);
    // What it costs to look again.
    assert!(pace >= 256.0 * 20.0 * 0.97, "{pace}");
}

#[test]
fn a_store_that_groups_what_waits_keeps_nine_tenths_of_its_throughput_at_least() {
    for (commit, each) in [(5_000, 20), (5_000, 100), (2_000, 500), (1_000, 1_000)] {
        let model = Model::Commits(commit, each);
        let mut world = World::new(MAX, Noise::None);
        world.run(model, 1_000, 10);
        let (pace, limit) = world.run(model, 1_000, 30);
        let most = 256e6 / (commit + 256 * each) as f64;
        assert!(pace >= most * 0.9, "{commit} and {each}: {pace} of {most} with {limit}");
    }
}

#[test]
fn few_tenants_use_all_of_a_store_and_more_of_them_later_do_so_too() {
    let mut world = World::new(MAX, Noise::None);
    let model = Model::Servers(UNLIMITED, 20_000);
    let (pace, _) = world.run(model, 99, 30);
    assert!(pace >= 99.0 * 50.0 * 0.95, "{pace}");
    world.run(model, 1_000, 10);
    assert_eq!(world.climb.settled, MAX);
}

#[test]
fn a_store_that_begins_to_queue_is_found_though_the_limit_was_not_used_up() {
    let mut world = World::new(MAX, Noise::None);
    world.run(Model::Servers(UNLIMITED, 20_000), 99, 30);
    world.run(Model::Servers(8, 40_000), 99, 15);
    let (pace, limit) = world.run(Model::Servers(8, 40_000), 99, 30);
    assert!(pace >= 190.0 && limit <= 17.0, "{pace} with {limit}");
    world.run(Model::Servers(UNLIMITED, 20_000), 99, 10);
    let (pace, _) = world.run(Model::Servers(UNLIMITED, 20_000), 99, 30);
    assert!(pace >= 99.0 * 50.0 * 0.93, "{pace}");
}

#[test]
fn a_limit_that_is_hardly_used_stays_as_it_is() {
    let mut world = World::new(MAX, Noise::Wild);
    world.run(Model::Servers(UNLIMITED, 20_000), 3, 60);
    assert_eq!(world.climb.limit(), START);
}

#[test]
fn refusals_take_a_tenth_and_the_next_steps_up_are_small() {
    let mut world = World::new(MAX, Noise::None);
    let model = Model::Servers(UNLIMITED, 10_000);
    world.run(model, 1_000, 3);
    let now = world.time(world.now);
    world.climb.refused(now);
    assert_eq!(world.climb.limit(), 230);
    world.climb.refused(now);
    assert_eq!(world.climb.limit(), 207);
    let mut most = 0;
    for _ in 0..2 {
        world.run(model, 1_000, 1);
        most = most.max(world.climb.limit());
    }
    assert!(most <= 256, "{most}");
}

/// What single runs come to depends on chance; so many together do not.
#[test]
fn where_calls_vary_wildly_nearly_all_throughput_is_kept_and_few_too_many_wait_in_the_store() {
    for (places, micros) in [(1, 3_000), (1, 20_000), (3, 10_000), (8, 40_000), (40, 20_000)] {
        let model = Model::Servers(places, micros);
        let full = places as f64 * 1e6 / micros as f64;
        let (mut pace, mut limit) = (0.0, 0.0);
        for seed in 0..10 {
            let mut world = World::new(MAX, Noise::Wild);
            world.rng.seed(seed);
            world.run(model, 300, 20);
            let (paced, limited) = world.run(model, 300, 60);
            (pace, limit) = (pace + paced / 10.0, limit + limited / 10.0);
        }
        assert!(pace >= full * 0.9, "{places} of {micros}: {pace} of {full} with {limit}");
        assert!(limit <= places as f64 * 2.0 + 16.0, "{places} of {micros}: {pace} with {limit}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    /// From any store to any other one.
    #[test]
    fn a_store_that_becomes_another_one_is_found_within_seconds(
        stores in prop::collection::vec((1..100usize, 3_000..20_000u64), 2..4), tenants in 100..500u32,
    ) {
        let mut world = World::new(MAX, Noise::None);
        for (places, micros) in stores {
            let model = Model::Servers(places, micros);
            // A call that waits behind all others takes so long: a try takes no less.
            let round = u64::from(tenants.min(MAX)) * micros / places as u64 / 1_000_000;
            world.run(model, tenants, 25 + 10 * round);
            let (pace, limit) = world.run(model, tenants, 20);
            let full = places as f64 * 1e6 / micros as f64;
            prop_assert!(pace >= full * 0.87, "{} of {} with {}", pace, full, limit);
            prop_assert!(limit <= places as f64 * 2.2 + 1.0, "{} with {}", places, limit);
        }
    }

    #[test]
    fn it_never_leaves_its_bounds(
        max in 1..300u32,
        steps in prop::collection::vec((0..400u32, any::<bool>(), 0..5_000u64, 0..1_000u64), 0..500),
    ) {
        let (mut climb, mut now) = (Climb::new(max), Instant::now());
        for (at_once, stores, took, gap) in steps {
            now += Duration::from_millis(gap);
            if stores {
                climb.stored(Duration::from_millis(took), 100, at_once, now);
            } else {
                climb.refused(now);
            }
            prop_assert!((1..=max).contains(&climb.limit()));
        }
    }
}
