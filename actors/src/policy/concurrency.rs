use std::time::Duration;

use tokio::time::Instant;

use super::climb::Climb;
use super::within;

/// What a store may be asked for at once, by all tenants together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// How many calls of [`Storage::store`](crate::Storage::store) may be under way at the most, from 1 to 10,000. Default 256.
    ///
    /// How many there really are is found by trying: once the store has answered it begins with 16, and goes for the least that keeps the store's throughput, so
    /// that what waits does so where it can be put in order. Twice as many are let in where that brings at least 5 % more, half as many
    /// where it costs 3 % at the most; what was found is tried anew within 1 to 8 s, and at once when calls take twice or half the
    /// time. A tenth less, when a tenth of the answers are refusals for now. Calls that are long overdue are not counted, except
    /// against this maximum. 1 has the batches come one after the other.
    pub max_concurrency: u32,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_concurrency: 256 }
    }
}

impl StoreLimits {
    /// Whether they can work as written.
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        within("max_concurrency", self.max_concurrency, 1, 10_000)
    }
}

/// The weight of a call in what calls usually take.
const NEWEST: f64 = 0.05;
/// Calls are overdue once they take so many times as long as calls usually do, or up to twice as many; and this at least.
const OVERDUE: f64 = 4.0;
const PERIOD: Duration = Duration::from_millis(50);

/// How many calls a store may have under way.
///
/// Nothing limits them but the maximum until the store has answered a call that took any time. From then on the limit is what
/// [`Climb`] finds, from calls that stored something: what a tenant's own calls hang or fail for is no measure of the
/// store. Those that are overdue take no turns away from the others: as many more may begin, up to `max_concurrency` in all, and it is
/// for the breakers to give the store a rest. A call that times out counts for nothing at all. Of what the store says no to for now
/// only the first of each tenant in a row is told, and it must be a tenth of all answers: one sick tenant, however often it is tried,
/// takes no turns away from the others.
#[derive(Debug)]
pub(crate) struct Concurrency {
    climb: Climb,
    /// Calls that began in this period, in the one before, and before that.
    young: u32,
    older: u32,
    overdue: u32,
    period: Period,
    /// What calls take, in seconds.
    usual: Option<f64>,
    answers: Answers,
}

/// When a call began, by which it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Period(u64, Option<Instant>);

/// What the store said since the last judgement.
#[derive(Debug, Default)]
struct Answers {
    since: Option<Instant>,
    stored: u32,
    refused: u32,
    /// The most that were under way at once.
    most: u32,
}

impl Concurrency {
    pub(crate) fn new(limits: StoreLimits) -> Self {
        Self {
            climb: Climb::new(limits.max_concurrency.max(1)),
            young: 0,
            older: 0,
            overdue: 0,
            period: Period::default(),
            usual: None,
            answers: Answers::default(),
        }
    }

    /// No more than that from here on.
    pub(crate) fn lower_max(&mut self, limits: StoreLimits) {
        self.climb.lower_max(limits.max_concurrency.max(1));
    }

    /// Whether one more call may begin.
    pub(crate) fn has_room(&mut self, now: Instant) -> bool {
        self.age(now);
        let counted = self.young + self.older;
        counted < self.limit() && counted + self.overdue < self.climb.max()
    }

    /// When who waits should ask again, since calls may be overdue by then. `None` where that would be no use.
    pub(crate) fn ask_after(&self) -> Option<Duration> {
        (self.limit() < self.climb.max()).then(|| self.period_length() * 2)
    }

    fn limit(&self) -> u32 {
        if self.usual.is_some() { self.climb.limit() } else { self.climb.max() }
    }

    fn period_length(&self) -> Duration {
        let usual = self.usual.and_then(|usual| Duration::try_from_secs_f64(OVERDUE * usual).ok());
        usual.unwrap_or_default().max(PERIOD)
    }

    /// Turns to the next period, when it is time.
    fn age(&mut self, now: Instant) {
        let length = self.period_length();
        let lasted = self.period.1.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        if lasted < length {
            return;
        }
        let periods = if lasted < length * 2 { 1 } else { 2 };
        for _ in 0..periods {
            self.overdue += self.older;
            self.older = std::mem::take(&mut self.young);
        }
        self.period = Period(self.period.0 + periods, Some(now));
    }

    /// A call begins.
    pub(crate) fn began(&mut self, now: Instant) -> Period {
        self.age(now);
        self.young += 1;
        self.answers.most = self.answers.most.max(self.young + self.older);
        self.period
    }

    /// A call is over, whatever became of it.
    pub(crate) fn ended(&mut self, began: Period) {
        match self.period.0 - began.0 {
            0 => self.young -= 1,
            1 => self.older -= 1,
            _ => self.overdue -= 1,
        }
    }

    /// A call that is about to end stored so many bytes.
    pub(crate) fn stored(&mut self, latency: Duration, bytes: usize, now: Instant) {
        self.answers.stored += 1;
        // What is overdue was not counted, and how long it took tells of its tenant.
        if latency < self.period_length() {
            self.climb.stored(latency, bytes, self.young + self.older, now);
        }
        let (took, usual) = (latency.as_secs_f64(), self.usual.unwrap_or(latency.as_secs_f64()));
        self.usual = Some(usual + NEWEST * (took - usual));
        self.judge(now);
    }

    /// The store refused a call for now, of a tenant of which the call before had not failed.
    pub(crate) fn overloaded(&mut self, now: Instant) {
        self.answers.refused += 1;
        self.judge(now);
    }

    /// Looks at the answers of about the length of a call.
    fn judge(&mut self, now: Instant) {
        let Some(since) = self.answers.since else {
            self.answers.since = Some(now);
            return;
        };
        let lasting = now.saturating_duration_since(since).as_secs_f64();
        if lasting < self.usual.unwrap_or_default() || lasting == 0.0 {
            return;
        }
        let most = self.young + self.older;
        let answers = std::mem::replace(&mut self.answers, Answers { since: Some(now), most, ..Answers::default() });
        let is_overload = answers.refused > 0 && answers.refused * 10 >= answers.refused + answers.stored;
        // A limit that is hardly used is no reason for anything.
        if is_overload && answers.most.saturating_mul(2) >= self.limit() {
            self.climb.refused(now);
        }
    }
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
