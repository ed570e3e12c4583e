use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{lasting, units, within};

/// The tenant's timer message, and what is made of an answer that does not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatPolicy {
    /// How often the tenant shows that it is alive. Default 10 s.
    #[serde(with = "units::duration")]
    pub every: Duration,
    /// After how long without an event it counts as idle; told at the next heartbeat. Default 60 s.
    #[serde(with = "units::duration")]
    pub idle_after: Duration,
    /// After how many heartbeats in a row without an answer the tenant's actor counts as failed and is started afresh.
    /// Default 3.
    pub max_missed: u32,
    /// After how long without a step of any kind, while batches wait, they count as stalled; looked at once a heartbeat. A
    /// writer that is to blame for it counts as failed and is started afresh. To wait for a turn at a store that others are at is no
    /// stall. More than `retry.attempt_timeout`. Default 60 s.
    #[serde(with = "units::duration")]
    pub stall_after: Duration,
    /// After how long without an event a tenant with nothing in flight is passivated: its actors end, and all but its counters
    /// leaves the memory, until its next event; looked at once a heartbeat. `None`, written `"never"`, for never. Default 5 min.
    #[serde(with = "units::duration_or_never")]
    pub passivate_after: Option<Duration>,
    /// How often at the most a heartbeat becomes an event in the tenant's own stream: at the first one, and at the next that comes
    /// so long after. Such an event is accepted, windowed, stored and counted as any other, under the source `headworks`; it is no
    /// sign of the tenant's sender and does not keep the tenant from idling and from being passivated, after which there is none.
    /// Where there is no room for it, or it is above the tenant's rate, it is refused and counted, and nobody waits. `None`, written
    /// `"never"`, for never. Default never.
    #[serde(with = "units::duration_or_never")]
    pub downstream_every: Option<Duration>,
}

impl Default for HeartbeatPolicy {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            every: Duration::from_secs(10),
            idle_after: minute,
            max_missed: 3,
            stall_after: minute,
            passivate_after: Some(5 * minute),
            downstream_every: None,
        }
    }
}

impl HeartbeatPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        let (least, day) = (Duration::from_millis(10), Duration::from_secs(24 * 3600));
        lasting("heartbeat.every", self.every, least, day)?;
        lasting("heartbeat.idle_after", self.idle_after, least, day)?;
        within("heartbeat.max_missed", self.max_missed, 1, 1_000)?;
        lasting("heartbeat.stall_after", self.stall_after, least, day)?;
        self.passivate_after.map_or(Ok(()), |after| lasting("heartbeat.passivate_after", after, least, day))?;
        let second = Duration::from_secs(1);
        self.downstream_every.map_or(Ok(()), |every| lasting("heartbeat.downstream_every", every, second, day))
    }

    /// Whether a tenant whose last sign of use was at `used` is to be passivated by now, if it has nothing to do.
    pub(crate) fn is_forgotten(&self, now: Instant, used: Instant) -> bool {
        self.passivate_after.is_some_and(|after| now.saturating_duration_since(used) >= after)
    }
}

/// Whether events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveliness {
    /// They do.
    Active,
    /// None lately.
    Idle,
}

/// When events came last.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    last_event: Instant,
    state: Liveliness,
    /// When a heartbeat was due downstream last, if one was.
    downstream: Option<Instant>,
}

impl Heartbeat {
    /// A tenant that has just come up.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::resumed(now, Liveliness::Active)
    }

    /// A tenant that comes up again, and was in this state when it went down.
    #[must_use]
    pub fn resumed(now: Instant, state: Liveliness) -> Self {
        Self { last_event: now, state, downstream: None }
    }

    /// Events came. Says so if the tenant had been idle.
    pub fn events(&mut self, now: Instant) -> Option<Liveliness> {
        self.last_event = now;
        self.turn(Liveliness::Active)
    }

    /// A heartbeat. Says so if the tenant has just become idle: once, not at every beat. `last_event` is when one came last,
    /// as far as is known: it may be later than the last that [`events`](Self::events) was told.
    pub fn beat(&mut self, policy: &HeartbeatPolicy, now: Instant, last_event: Option<Instant>) -> Option<Liveliness> {
        self.last_event = self.last_event.max(last_event.unwrap_or(self.last_event));
        if now.duration_since(self.last_event) < policy.idle_after {
            return None;
        }
        self.turn(Liveliness::Idle)
    }

    /// Whether this beat becomes an event of its own. `used` is when the tenant showed a sign of use last: one that is to be passivated
    /// by now has none, or it would never come to rest.
    pub fn is_downstream(&mut self, policy: &HeartbeatPolicy, now: Instant, used: Instant) -> bool {
        let Some(every) = policy.downstream_every.filter(|_| !policy.is_forgotten(now, used)) else { return false };
        let due = self.downstream.map_or(now, |last| last + every);
        if now < due {
            return false;
        }
        // Heartbeats come a little late each time: that is not to add up.
        self.downstream = Some(if now < due + every { due } else { now });
        true
    }

    fn turn(&mut self, to: Liveliness) -> Option<Liveliness> {
        (std::mem::replace(&mut self.state, to) != to).then_some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_turns_idle_once_and_active_once() {
        let policy = HeartbeatPolicy::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.beat(&policy, at(59), None), None);
        assert_eq!(heartbeat.beat(&policy, at(60), None), Some(Liveliness::Idle));
        assert_eq!(heartbeat.beat(&policy, at(70), None), None);
        assert_eq!(heartbeat.events(at(75)), Some(Liveliness::Active));
        assert_eq!(heartbeat.events(at(76)), None);
        assert_eq!(heartbeat.beat(&policy, at(80), None), None);
    }

    #[test]
    fn beats_become_events_as_often_as_asked_however_late_they_come_and_none_of_who_is_to_be_passivated() {
        let (start, mut policy) = (Instant::now(), HeartbeatPolicy::default());
        let at = |millis| start + Duration::from_millis(millis);
        let mut heartbeat = Heartbeat::new(start);
        assert!(!heartbeat.is_downstream(&policy, at(0), start), "nobody asked");
        policy.downstream_every = Some(Duration::from_secs(30));
        let told = |heartbeat: &mut Heartbeat, policy: &HeartbeatPolicy, from: u64| {
            let beats = (from..from + 13).map(|n| n * 10_007);
            let told = beats.filter(|millis| heartbeat.is_downstream(policy, at(*millis), start));
            told.map(|millis| millis / 10_007).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut heartbeat, &policy, 1), [1, 4, 7, 10, 13]);
        policy.downstream_every = Some(Duration::from_secs(1));
        assert_eq!(told(&mut heartbeat, &policy, 14).len(), 13, "no more often than it beats");
        policy.downstream_every = Some(Duration::from_secs(60));
        assert_eq!(told(&mut heartbeat, &policy, 27), [0; 0], "none from 5 minutes after the last sign of use on");
        assert!(heartbeat.is_downstream(&policy, at(400_000), at(390_000)));
    }

    #[test]
    fn no_more_than_one_a_second_may_be_asked_for() {
        let policy =
            HeartbeatPolicy { downstream_every: Some(Duration::from_millis(999)), ..HeartbeatPolicy::default() };
        assert_eq!(policy.check().unwrap_err(), "heartbeat.downstream_every is 999ms, but must be from 1s to 1day");
    }
}
