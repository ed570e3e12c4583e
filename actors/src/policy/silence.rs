use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{lasting, units, within};

/// After how long without a frame the tenant's sender counts as silent. Off by default.
///
/// Any frame of the tenant is a sign of its sender, whatever becomes of it: one that is throttled, muted or refused speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SilencePolicy {
    /// After how long without a frame. `None`, written `"never"`, for never. With `learn`, it holds until enough is learnt.
    /// Default never.
    #[serde(with = "units::duration_or_never")]
    pub after: Option<Duration>,
    /// Whether to learn it from the tenant's own rhythm: `multiple` times the second longest of its last 32 gaps, once there
    /// were 8; not less than `at_least` nor more than `at_most`. Begins anew with each start of the system. Default false.
    pub learn: bool,
    /// See `learn`. Default 4.
    pub multiple: u32,
    /// See `learn`. Frames that come within a `multiple`th of it after another are one sign of life with that. Default 10 s.
    #[serde(with = "units::duration")]
    pub at_least: Duration,
    /// See `learn`. Default 1 day.
    #[serde(with = "units::duration")]
    pub at_most: Duration,
    /// Whether a tenant that falls silent, and one that is heard again, gets an event that says so, in its own stream: accepted,
    /// windowed, stored and counted as any other, under the source `headworks`, and no sign of its sender. One that was passivated is
    /// woken for it. Where there is no room for it, or it is above the tenant's rate, it is refused and counted, and nobody
    /// waits. Default false.
    pub downstream: bool,
}

impl Default for SilencePolicy {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            after: None,
            learn: false,
            multiple: 4,
            at_least: Duration::from_secs(10),
            at_most: day,
            downstream: false,
        }
    }
}

impl SilencePolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        let (least, month) = (Duration::from_millis(10), Duration::from_secs(30 * 24 * 3600));
        self.after.map_or(Ok(()), |after| lasting("silence.after", after, least, month))?;
        within("silence.multiple", self.multiple, 2, 100)?;
        lasting("silence.at_least", self.at_least, least, month)?;
        lasting("silence.at_most", self.at_most, self.at_least, month)
    }

    /// Whether a tenant can fall silent by this.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.after.is_some() || self.learn
    }
}

/// What is learnt of one tenant's rhythm, and whether it is silent.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    /// When a frame came last; or when one began to be expected.
    last: Option<Instant>,
    is_heard: bool,
    /// The frame that the next gap is counted from.
    mark: Option<Instant>,
    gaps: VecDeque<Duration>,
    /// It was told that it is silent: by which expectation.
    told: Option<Expected>,
    /// A frame ended a silence that was told, and that is not told yet: it lasted so long.
    ended: Option<(Duration, Expected)>,
    /// Somebody will look.
    is_watched: bool,
}

/// Within what time a frame is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) within: Duration,
    pub(crate) is_learnt: bool,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sound {
    /// No frame came for so long.
    Silent(Duration, Expected),
    /// One did, after so long.
    Heard(Duration, Expected),
}

impl Silence {
    const GAPS: usize = 32;
    const ENOUGH: usize = 8;

    /// Of a tenant that was not heard, and is not expected.
    pub(crate) fn new() -> Self {
        let gaps = VecDeque::new();
        Self { last: None, is_heard: false, mark: None, gaps, told: None, ended: None, is_watched: false }
    }

    /// A frame came. Whether somebody is to [look](Self::look) now.
    pub(crate) fn heard(&mut self, policy: &SilencePolicy, now: Instant) -> bool {
        let lasted = now.saturating_duration_since(self.last.unwrap_or(now));
        if policy.learn {
            self.learn(policy, now);
        }
        (self.last, self.is_heard) = (Some(now), true);
        if let Some(expected) = self.told.take() {
            self.ended = Some((lasted, expected));
        }
        if self.is_watched || self.expected(policy).is_none() {
            return false;
        }
        self.is_watched = true;
        true
    }

    fn learn(&mut self, policy: &SilencePolicy, now: Instant) {
        let Some(mark) = self.mark else {
            self.mark = Some(now);
            return;
        };
        let gap = now.saturating_duration_since(mark);
        if gap < policy.at_least / policy.multiple.max(1) {
            return;
        }
        // An outage is no rhythm, but a rhythm that has slowed down is to be learnt in the end.
        let learnt = self.expected(policy).filter(|expected| expected.is_learnt);
        let most = learnt.map_or(policy.at_most, |expected| expected.within);
        self.mark = Some(now);
        if self.gaps.len() == Self::GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back(gap.min(most));
    }

    /// Within what time the next frame is expected, if it is.
    pub(crate) fn expected(&self, policy: &SilencePolicy) -> Option<Expected> {
        if !policy.learn || self.gaps.len() < Self::ENOUGH {
            return policy.after.map(|within| Expected { within, is_learnt: false });
        }
        let (mut longest, mut second) = (Duration::ZERO, Duration::ZERO);
        for gap in &self.gaps {
            second = second.max(longest.min(*gap));
            longest = longest.max(*gap);
        }
        let within = second.saturating_mul(policy.multiple).min(policy.at_most).max(policy.at_least);
        Some(Expected { within, is_learnt: true })
    }

    /// Looks at `now`: what is to be told, and when to look again. Where it is not said, the next frame says that
    /// [it is time](Self::heard).
    pub(crate) fn look(&mut self, policy: &SilencePolicy, now: Instant) -> (Option<Sound>, Option<Instant>) {
        if let Some((lasted, expected)) = self.ended.take() {
            // And at once again for what comes after.
            return (Some(Sound::Heard(lasted, expected)), Some(now));
        }
        let (Some(last), Some(expected)) = (self.last, self.expected(policy)) else {
            // Nothing is to be expected. What was is not any more.
            self.told = None;
            self.is_watched = false;
            return (None, None);
        };
        let due = last + expected.within;
        if now < due {
            // Not by the rules as they are now.
            self.told = None;
        }
        self.is_watched = now < due && self.told.is_none();
        if self.told.is_some() || now < due {
            return (None, self.is_watched.then_some(due));
        }
        self.told = Some(expected);
        (Some(Sound::Silent(now.saturating_duration_since(last), expected)), None)
    }

    /// It is expected from `since` on, if that is said and it was not before. Whether that is new.
    pub(crate) fn expect(&mut self, since: Option<Instant>) -> bool {
        let is_new = self.last.is_none() && since.is_some();
        if is_new {
            (self.last, self.is_watched) = (since, true);
        }
        is_new
    }

    /// Other rules hold: what was told by the old ones counts no more, and somebody looks at once.
    pub(crate) fn rules_changed(&mut self) {
        self.is_watched = true;
    }

    /// When a frame came last.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.last.filter(|_| self.is_heard)
    }

    /// Since when a frame is missed, where it was told that the tenant is silent.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.told.and(self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn after(seconds: u64) -> SilencePolicy {
        SilencePolicy { after: Some(secs(seconds)), ..SilencePolicy::default() }
    }

    fn learns() -> SilencePolicy {
        SilencePolicy { learn: true, ..SilencePolicy::default() }
    }

    /// A tenant whose frames came after these gaps.
    fn heard(policy: &SilencePolicy, gaps: &[u64]) -> (Silence, Instant) {
        let (mut silence, mut now) = (Silence::new(), Instant::now());
        silence.heard(policy, now);
        for gap in gaps {
            now += secs(*gap);
            silence.heard(policy, now);
            silence.look(policy, now);
        }
        (silence, now)
    }

    fn within(silence: &Silence, policy: &SilencePolicy) -> Option<u64> {
        silence.expected(policy).map(|expected| expected.within.as_secs())
    }

    #[test]
    fn a_rhythm_is_known_after_eight_gaps_and_one_outage_does_not_change_it() {
        let policy = learns();
        assert_eq!(within(&heard(&policy, &[60; 7]).0, &policy), None);
        assert_eq!(within(&heard(&policy, &[60; 8]).0, &policy), Some(240));
        let mut gaps = vec![60; 10];
        gaps.push(50_000);
        assert_eq!(within(&heard(&policy, &gaps).0, &policy), Some(240));
        gaps.extend([600; 40]);
        assert_eq!(within(&heard(&policy, &gaps).0, &policy), Some(2400), "a slower rhythm is learnt in the end");
        let both = SilencePolicy { after: Some(secs(30)), ..learns() };
        assert_eq!(within(&heard(&both, &[60; 7]).0, &both), Some(30), "what is set holds until enough is learnt");
        assert_eq!(within(&heard(&both, &[60; 8]).0, &both), Some(240));
    }

    #[test]
    fn bursts_do_not_hide_the_pauses_between_them() {
        let policy = learns();
        let (mut silence, mut now) = (Silence::new(), Instant::now());
        for _ in 0..12 {
            for _ in 0..1_000 {
                silence.heard(&policy, now);
                now += Duration::from_millis(1);
            }
            now += secs(60);
        }
        assert_eq!(within(&silence, &policy), Some(244));
    }

    #[test]
    fn what_is_learnt_is_within_its_bounds() {
        let policy = SilencePolicy { at_most: secs(100), ..learns() };
        assert_eq!(within(&heard(&policy, &[3; 32]).0, &policy), Some(12));
        assert_eq!(within(&heard(&policy, &[60; 32]).0, &policy), Some(100));
        assert_eq!(within(&heard(&policy, &[1; 200]).0, &policy), Some(12), "in steps of 2.5 s");
    }

    #[test]
    fn a_tenant_that_was_never_heard_is_silent_only_where_it_is_expected() {
        let (policy, start) = (after(10), Instant::now());
        assert_eq!(Silence::new().look(&policy, start + secs(100)), (None, None));
        let mut expected = Silence::new();
        assert!(expected.expect(Some(start)) && !expected.expect(Some(start + secs(5))));
        assert_eq!(expected.look(&policy, start), (None, Some(start + secs(10))));
        let by = Expected { within: secs(10), is_learnt: false };
        assert_eq!(expected.look(&policy, start + secs(10)), (Some(Sound::Silent(secs(10), by)), None));
        assert!(expected.heard(&policy, start + secs(25)));
        assert_eq!(expected.look(&policy, start + secs(25)).0, Some(Sound::Heard(secs(25), by)));
    }

    #[test]
    fn bounds_are_told_by_name() {
        let policy = SilencePolicy { after: Some(Duration::ZERO), ..SilencePolicy::default() };
        assert_eq!(policy.check().unwrap_err(), "silence.after is 0s, but must be from 10ms to 30days");
        let policy = SilencePolicy { at_most: secs(1), ..SilencePolicy::default() };
        assert_eq!(policy.check().unwrap_err(), "silence.at_most is 1s, but must be from 10s to 30days");
    }

    proptest! {
        /// Against the plain reading: silent when a gap reaches the limit, told once, at its end; heard at the next frame.
        #[test]
        fn each_gap_that_reaches_the_limit_is_told_once_and_so_is_its_end(
            gaps in prop::collection::vec(1..30u64, 1..60), limit in 2..25u64,
        ) {
            let policy = after(limit);
            let (mut silence, start) = (Silence::new(), Instant::now());
            let (mut at, mut alarm, mut told) = (0, None::<Instant>, vec![]);
            let mut expected = vec![];
            for gap in [&[0], &gaps[..]].concat() {
                let next = at + gap;
                // The clock, up to just before the frame.
                while let Some(due) = alarm.filter(|due| *due < start + secs(next) || (gap >= limit && *due == start + secs(next))) {
                    let (sound, again) = silence.look(&policy, due);
                    told.extend(sound);
                    alarm = again;
                }
                if gap >= limit {
                    let by = Expected { within: secs(limit), is_learnt: false };
                    expected.extend([Sound::Silent(secs(limit), by), Sound::Heard(secs(gap), by)]);
                }
                at = next;
                if silence.heard(&policy, start + secs(at)) {
                    alarm = Some(start + secs(at));
                    while let Some(due) = alarm.filter(|due| *due <= start + secs(at)) {
                        let (sound, again) = silence.look(&policy, due);
                        told.extend(sound);
                        alarm = again;
                    }
                }
                prop_assert!(alarm.is_some(), "somebody looks, for as long as it is not silent");
            }
            prop_assert_eq!(told, expected);
        }
    }
}
