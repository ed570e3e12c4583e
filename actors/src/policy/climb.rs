use std::time::Duration;

use tokio::time::Instant;

/// How many calls at once it begins with.
const START: u32 = 16;
/// What a call counts for beside its bytes: what it costs a store to be called at all.
const CALL: f64 = 4_096.0;
/// Twice as many calls at once are worth it from so much more throughput on, and half as many up to so much less; other steps in
/// proportion. They are apart so that a store in between is left alone.
const WORTH: f64 = 0.05;
const SPARED: f64 = 0.03;
/// Less gain than that for twice as many may be chance, and has to be seen twice.
const DOUBTED: f64 = 0.25;
/// What is put down to chance at the most.
const CHANCE: f64 = 0.15;
/// Calls that take so many times as long as they did are those of another store.
const ANOTHER: f64 = 2.0;
/// A pace is measured over so much time, and over two rounds of all calls.
const MEASURED: Duration = Duration::from_millis(200);
const CALLS: u32 = 32;
/// For how long it stays with what it found: longer each time that it finds the same.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(8);

/// Finds the least number of calls at once that keeps a store's throughput.
///
/// It compares the throughput at a limit with that at twice and at half of it, by trying them: latency alone does not tell a store
/// that queues what it is given from one that groups it. It goes up while that brings clearly more, down while it costs next to
/// nothing, and then stays, to try again within seconds, at once where calls take a different time than they did. Only calls count
/// that were made while the limit was used up: what comes of fewer tells about the tenants, and not about the store. By Little's law
/// throughput is calls at once by time, so that it needs no idle time taken out of it.
#[derive(Debug)]
pub(crate) struct Climb {
    max: u32,
    limit: u32,
    stage: Stage,
    /// The limit to go back to, and the pace with it.
    settled: u32,
    pace: f64,
    /// Calls that began before belong to another limit.
    changed: Option<Instant>,
    /// No call has ended that began since. Those that begin until then find the store as it was.
    settles: bool,
    trial: Trial,
    /// Every call, whether or not the limit is used up.
    watched: Trial,
    /// What a unit of work took, in seconds, when first watched at this limit.
    usual: Option<f64>,
    hold: Duration,
    /// The limit at the beginning of this round.
    before: u32,
    /// The step up was worth it once.
    is_doubted: bool,
    /// The store refused for now: steps up are small.
    is_wary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Measures where it is.
    Here,
    Up,
    Down,
    /// Until when it stays.
    Hold(Instant),
}

#[derive(Debug, Default)]
struct Trial {
    since: Option<Instant>,
    calls: u32,
    seconds: f64,
    squares: f64,
    work: f64,
    at_once: f64,
    most: u32,
}

impl Trial {
    fn add(&mut self, latency: Duration, bytes: usize, at_once: u32, now: Instant) {
        // From the beginning of its first call.
        self.since.get_or_insert(now - latency);
        self.calls += 1;
        self.seconds += latency.as_secs_f64();
        self.squares += latency.as_secs_f64().powi(2);
        self.work += bytes as f64 + CALL;
        self.at_once += f64::from(at_once);
        self.most = self.most.max(at_once);
    }

    fn is_over(&self, now: Instant) -> bool {
        let lasted = self.since.is_some_and(|since| now.saturating_duration_since(since) >= MEASURED);
        lasted && self.calls >= CALLS.max(self.most.saturating_mul(2))
    }

    fn at_once(&self) -> f64 {
        self.at_once / f64::from(self.calls.max(1))
    }

    /// Seconds a unit of work.
    fn cost(&self) -> f64 {
        self.seconds.max(1e-9) / self.work.max(1.0)
    }

    /// By what share the mean may well be off by chance: those under way at once may all have waited for the same.
    fn chance(&self) -> f64 {
        let calls = f64::from(self.calls.max(1));
        let mean = (self.seconds / calls).max(1e-9);
        let deviation = (self.squares / calls - mean * mean).max(0.0).sqrt();
        (deviation / mean * (self.at_once() / calls).sqrt() / 2.0).min(CHANCE)
    }

    /// Units of work a second.
    fn pace(&self) -> f64 {
        self.at_once() / self.cost()
    }
}

impl Climb {
    pub(crate) fn new(max: u32) -> Self {
        let limit = max.min(START);
        Self {
            max,
            limit,
            stage: Stage::Here,
            settled: limit,
            pace: 0.0,
            changed: None,
            settles: false,
            trial: Trial::default(),
            watched: Trial::default(),
            usual: None,
            hold: SHORT,
            before: limit,
            is_doubted: false,
            is_wary: false,
        }
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn lower_max(&mut self, max: u32) {
        self.max = self.max.min(max);
        self.limit = self.limit.min(self.max);
        self.settled = self.settled.min(self.max);
    }

    /// A call stored so many bytes, as one of so many that were under way.
    pub(crate) fn stored(&mut self, latency: Duration, bytes: usize, at_once: u32, now: Instant) {
        if self.max == 1 || self.changed.is_some_and(|changed| now - latency < changed) {
            return;
        }
        if std::mem::take(&mut self.settles) {
            self.changed = Some(now);
            return;
        }
        let is_used_up = at_once >= if self.stage == Stage::Up { self.settled + 1 } else { self.limit };
        if self.stage != Stage::Down {
            self.watched.add(latency, bytes, at_once, now);
        }
        if self.stage == Stage::Up && self.trial.calls == 0 && self.watched.is_over(now) {
            // Nobody is there who would go in.
            return self.down(now);
        }
        if matches!(self.stage, Stage::Here | Stage::Hold(_)) {
            if self.watched.is_over(now) && self.is_another() {
                return self.begin(now);
            }
            if let Stage::Hold(until) = self.stage
                && is_used_up
                && now >= until
            {
                return self.begin(now);
            }
        }
        if is_used_up && !matches!(self.stage, Stage::Hold(_)) {
            self.trial.add(latency, bytes, at_once, now);
            if self.trial.is_over(now) {
                let trial = std::mem::take(&mut self.trial);
                self.tried(&trial, now);
            }
        }
    }

    /// The store refuses too many calls for now.
    pub(crate) fn refused(&mut self, now: Instant) {
        if self.stage != Stage::Up {
            self.settled = (self.limit * 9 / 10).max(1);
        }
        self.is_wary = true;
        self.hold = SHORT;
        self.go(self.settled, Stage::Hold(now + SHORT), now);
    }

    /// Whether calls take another time than they did. What is above what was used then is given back, so that the limit is felt.
    fn is_another(&mut self) -> bool {
        let Trial { most, .. } = self.watched;
        let cost = std::mem::take(&mut self.watched).cost();
        let usual = *self.usual.get_or_insert(cost);
        let (is_slower, is_faster) = (cost > usual * ANOTHER, cost * ANOTHER < usual);
        if is_slower {
            self.limit = self.limit.min(most.max(START));
        }
        if is_slower || is_faster {
            self.is_wary = false;
            self.hold = SHORT;
        }
        is_slower || is_faster
    }

    /// A new round from here.
    fn begin(&mut self, now: Instant) {
        self.before = self.limit;
        self.is_doubted = false;
        self.settled = self.limit;
        self.go(self.limit, Stage::Here, now);
    }

    fn go(&mut self, limit: u32, stage: Stage, now: Instant) {
        if limit != self.limit || stage == Stage::Here {
            (self.limit, self.changed, self.settles, self.usual) = (limit, Some(now), true, None);
        }
        self.stage = stage;
        (self.trial, self.watched) = (Trial::default(), Trial::default());
    }

    fn tried(&mut self, trial: &Trial, now: Instant) {
        let (pace, at_once, settled) = (trial.pace(), trial.at_once(), f64::from(self.settled));
        match self.stage {
            Stage::Hold(_) => {}
            Stage::Here => {
                self.pace = pace;
                self.up(now);
            }
            Stage::Up => {
                let (gain, more) = (pace / self.pace - 1.0, at_once / settled - 1.0);
                let was_doubted = std::mem::take(&mut self.is_doubted);
                if gain < (WORTH + trial.chance()) * more {
                    self.down(now);
                } else if gain < DOUBTED * more && !was_doubted {
                    self.is_doubted = true;
                    self.go(self.settled, Stage::Here, now);
                } else {
                    // No more than there is to do: a limit that is not felt tells nothing.
                    (self.pace, self.settled) = (pace, trial.most);
                    if trial.most < self.limit { self.rest(now) } else { self.up(now) }
                }
            }
            Stage::Down if self.pace / pace - 1.0 <= SPARED * (settled / at_once - 1.0) => {
                (self.pace, self.settled) = (pace, self.limit);
                self.down(now);
            }
            Stage::Down => self.rest(now),
        }
    }

    fn up(&mut self, now: Instant) {
        let step = if self.is_wary { self.settled / 8 + 1 } else { self.settled };
        match self.settled.saturating_add(step).min(self.max) {
            same if same == self.settled => self.down(now),
            more => self.go(more, Stage::Up, now),
        }
    }

    fn down(&mut self, now: Instant) {
        // What was just gone up to is not to be gone down from.
        if self.settled == 1 || self.settled > self.before {
            return self.rest(now);
        }
        self.go(self.settled.div_ceil(2), Stage::Down, now);
    }

    fn rest(&mut self, now: Instant) {
        self.hold = if self.settled == self.before { (self.hold * 2).min(LONG) } else { SHORT };
        self.go(self.settled, Stage::Hold(now + self.hold), now);
    }
}

#[cfg(test)]
#[path = "climb_tests.rs"]
mod tests;
