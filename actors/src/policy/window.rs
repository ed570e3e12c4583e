use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{lasting, sized, units, within};
use crate::model::FlushReason;

/// When a tenant's window closes: at the first of three bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowPolicy {
    /// Close at so many events. Default 500.
    pub max_events: usize,
    /// Close before the bodies together exceed so many bytes; one event alone may be larger. Default 1 MiB.
    #[serde(with = "units::bytes")]
    pub max_bytes: usize,
    /// Close so long after the *first* event, however steadily others follow. Default 1 s.
    #[serde(with = "units::duration")]
    pub max_age: Duration,
}

impl Default for WindowPolicy {
    fn default() -> Self {
        Self { max_events: 500, max_bytes: 1 << 20, max_age: Duration::from_secs(1) }
    }
}

impl WindowPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        within("window.max_events", self.max_events, 1, 1_000_000)?;
        sized("window.max_bytes", self.max_bytes, 1, 1 << 30)?;
        lasting("window.max_age", self.max_age, Duration::from_millis(1), Duration::from_secs(24 * 3600))
    }
}

/// What a window takes and remains open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Fewer than so many.
    pub(crate) events: usize,
    /// Not more than so many together.
    pub(crate) body_bytes: usize,
    /// Accepted before that.
    pub(crate) until: Instant,
}

/// The open window of one tenant, as a rule: it holds numbers, not events.
///
/// The events lie in the journal, in order; a cut takes as many of them as the window had counted.
#[derive(Debug, Clone)]
pub struct Window {
    policy: WindowPolicy,
    events: usize,
    bytes: usize,
    opened: Option<Instant>,
}

impl Window {
    /// An empty window.
    #[must_use]
    pub fn new(policy: WindowPolicy) -> Self {
        Self { policy, events: 0, bytes: 0, opened: None }
    }

    /// Offers a run of events that were accepted at `at`; `bytes_of(n)` is the size of its first `n`.
    ///
    /// Takes as many as fit and says how many. Where that fills the window, the reason says so, and the caller cuts
    /// before it offers the rest.
    pub fn push(
        &mut self,
        events: usize,
        bytes_of: impl Fn(usize) -> usize,
        at: Instant,
    ) -> (usize, Option<FlushReason>) {
        let room = self.policy.max_events - self.events;
        let mut taken = events.min(room);
        let mut full = (taken == room).then_some(FlushReason::Size);
        if self.bytes + bytes_of(taken) > self.policy.max_bytes {
            // The longest run that fits; an empty window takes one event of any size.
            let (mut fits, mut exceeds) = (0, taken);
            while exceeds - fits > 1 {
                let middle = fits + (exceeds - fits) / 2;
                if self.bytes + bytes_of(middle) > self.policy.max_bytes { exceeds = middle } else { fits = middle }
            }
            taken = if fits == 0 && self.events == 0 { 1 } else { fits };
            full = Some(FlushReason::Bytes);
        }
        if taken > 0 {
            self.opened.get_or_insert(at);
            self.events += taken;
            self.bytes += bytes_of(taken);
        }
        (taken, full)
    }

    /// What it takes without a close, if the next event was accepted at `at`.
    pub(crate) fn room(&self, at: Instant) -> Room {
        Room {
            events: self.policy.max_events - self.events,
            body_bytes: self.policy.max_bytes.saturating_sub(self.bytes),
            until: self.opened.unwrap_or(at) + self.policy.max_age,
        }
    }

    /// Takes a run of events that it has [room](Self::room) for, the first of which was accepted at `at`.
    pub(crate) fn take(&mut self, events: usize, bytes: usize, at: Instant) {
        self.opened.get_or_insert(at);
        self.events += events;
        self.bytes += bytes;
    }

    /// Whether the window's time has come.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// When its time comes; `None` while it is empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.opened.map(|opened| opened + self.policy.max_age)
    }

    /// How many events it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Closes it: how many events the batch takes, or `None` for an empty window, which is never flushed.
    pub fn close(&mut self) -> Option<usize> {
        let events = self.events;
        self.clear();
        (events > 0).then_some(events)
    }

    /// Forgets what it holds: another has cut it.
    pub fn clear(&mut self) {
        self.events = 0;
        self.bytes = 0;
        self.opened = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(max_events: usize, max_bytes: usize) -> WindowPolicy {
        WindowPolicy { max_events, max_bytes, max_age: Duration::from_secs(1) }
    }

    /// What the window says of runs, said event by event.
    fn model(policy: &WindowPolicy, sizes: &[usize]) -> Vec<usize> {
        let (mut cuts, mut events, mut bytes) = (vec![], 0, 0);
        for size in sizes {
            if events > 0 && bytes + size > policy.max_bytes {
                cuts.push(events);
                (events, bytes) = (0, 0);
            }
            events += 1;
            bytes += size;
            if events == policy.max_events {
                cuts.push(events);
                (events, bytes) = (0, 0);
            }
        }
        cuts.extend((events > 0).then_some(events));
        cuts
    }

    proptest! {
        #[test]
        fn runs_are_cut_exactly_where_single_events_would_be(
            max_events in 1..20usize,
            max_bytes in 1..200usize,
            runs in prop::collection::vec(prop::collection::vec(0..60usize, 1..30), 0..20),
        ) {
            let policy = policy(max_events, max_bytes);
            let mut window = Window::new(policy.clone());
            let now = Instant::now();
            let mut cuts = vec![];
            for run in &runs {
                let mut from = 0;
                while from < run.len() {
                    let rest = &run[from..];
                    let (taken, full) = window.push(rest.len(), |n| rest[..n].iter().sum(), now);
                    from += taken;
                    if full.is_some() {
                        cuts.extend(window.close());
                    } else {
                        prop_assert_eq!(from, run.len(), "an open window takes all that is offered");
                    }
                }
            }
            cuts.extend(window.close());
            // A cut by bytes may come with the event that does not fit or with the one before that fills it exactly:
            // the cuts are the same.
            prop_assert_eq!(cuts, model(&policy, &runs.concat()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_from_the_first_event_not_from_the_last() {
        let mut window = Window::new(policy(500, 1 << 20));
        let first = Instant::now();
        assert_eq!(window.deadline(), None);
        window.push(1, |n| n, first);
        window.push(1, |n| n, first + Duration::from_millis(900));
        assert_eq!(window.deadline(), Some(first + Duration::from_secs(1)));
        assert!(!window.is_due(first + Duration::from_millis(999)));
        assert!(window.is_due(first + Duration::from_secs(1)));
    }

    #[test]
    fn an_empty_window_is_never_closed_into_a_batch() {
        let mut window = Window::new(policy(2, 10));
        assert_eq!(window.close(), None);
        assert!(!window.is_due(Instant::now() + Duration::from_secs(3600)));
    }

    #[test]
    fn one_event_above_the_bytes_is_a_batch_of_its_own() {
        let mut window = Window::new(policy(500, 10));
        assert_eq!(window.push(2, |n| n * 100, Instant::now()), (1, Some(FlushReason::Bytes)));
        assert_eq!(window.close(), Some(1));
    }
}
