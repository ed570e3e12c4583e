use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::model::{Batch, Cause, Code, Event, Failure};
use crate::policy::OnFailure;

type Change<T> = Arc<dyn Fn(T) -> T + Send + Sync>;
type Keep<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;
type Tap<T> = Arc<dyn Fn(&T) + Send + Sync>;
type FailedTap<T> = Arc<dyn Fn(&T, &Failure) + Send + Sync>;
type Decide = Arc<dyn Fn(&Failure) -> OnFailure + Send + Sync>;

enum Step<T> {
    Map(Change<T>),
    Filter(Keep<T>),
}

impl<T> Clone for Step<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Map(map) => Self::Map(map.clone()),
            Self::Filter(keep) => Self::Filter(keep.clone()),
        }
    }
}

/// The value as the steps leave it; `None` if a filter drops it.
fn pass<T>(steps: &[Step<T>], value: T) -> Result<Option<T>, Cause> {
    guarded(|| {
        steps.iter().try_fold(value, |value, step| match step {
            Step::Map(map) => Some(map(value)),
            Step::Filter(keep) => keep(&value).then_some(value),
        })
    })
}

/// Code of an embedder on the way of an event: for a whole system, or for one tenant.
///
/// Steps run in the order they were added. Event steps run at the door, once, before the event is accepted into the journal;
/// batch steps run once, before the first attempt: every attempt and every restart sees the same bytes. Taps look on and
/// change nothing. All run on the system's thread and must not block.
///
/// A hook that panics fails its event or its batch, which becomes a dead letter with the code `hook_panic`; the stream goes
/// on. A tap that panics changes no outcome.
///
/// ```
/// use headworks_actors::Hooks;
///
/// let hooks = Hooks::new()
///     .filter(|event| !event.body.starts_with(b"debug"))
///     .map(|mut event| {
///         event.body = event.body.to_ascii_lowercase().into();
///         event
///     })
///     .on_failed(|batch, failure| eprintln!("{} events: {}", batch.len(), failure.cause));
/// # assert!(!hooks.is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Hooks {
    events: Vec<Step<Event>>,
    batches: Vec<Step<Batch>>,
    event_stored: Vec<Tap<Event>>,
    event_failed: Vec<FailedTap<Event>>,
    stored: Vec<Tap<Batch>>,
    failed: Vec<FailedTap<Batch>>,
    on_failure: Option<Decide>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks")
            .field("events", &self.events.len())
            .field("batches", &self.batches.len())
            .field("taps", &(self.event_stored.len() + self.event_failed.len() + self.stored.len() + self.failed.len()))
            .finish()
    }
}

impl Hooks {
    /// No hooks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes each event's body or time.
    #[must_use]
    pub fn map(mut self, map: impl Fn(Event) -> Event + Send + Sync + 'static) -> Self {
        self.events.push(Step::Map(Arc::new(map)));
        self
    }

    /// Keeps the events for which `keep` says true; the others are accepted and counted as discarded.
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(&Event) -> bool + Send + Sync + 'static) -> Self {
        self.events.push(Step::Filter(Arc::new(keep)));
        self
    }

    /// Changes the bodies of each batch, with [`Batch::map_bodies`].
    #[must_use]
    pub fn map_batch(mut self, map: impl Fn(Batch) -> Batch + Send + Sync + 'static) -> Self {
        self.batches.push(Step::Map(Arc::new(map)));
        self
    }

    /// Keeps the batches for which `keep` says true; the events of the others are discarded.
    #[must_use]
    pub fn filter_batch(mut self, keep: impl Fn(&Batch) -> bool + Send + Sync + 'static) -> Self {
        self.batches.push(Step::Filter(Arc::new(keep)));
        self
    }

    /// Looks at each event that was stored.
    #[must_use]
    pub fn on_event_stored(mut self, tap: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.event_stored.push(Arc::new(tap));
        self
    }

    /// Looks at each event of each batch that was given up. What a hook failed on at the door was never in a batch: it is
    /// in the dead letters alone.
    #[must_use]
    pub fn on_event_failed(mut self, tap: impl Fn(&Event, &Failure) + Send + Sync + 'static) -> Self {
        self.event_failed.push(Arc::new(tap));
        self
    }

    /// Looks at each batch that was stored.
    #[must_use]
    pub fn on_stored(mut self, tap: impl Fn(&Batch) + Send + Sync + 'static) -> Self {
        self.stored.push(Arc::new(tap));
        self
    }

    /// Looks at each batch that was given up.
    #[must_use]
    pub fn on_failed(mut self, tap: impl Fn(&Batch, &Failure) + Send + Sync + 'static) -> Self {
        self.failed.push(Arc::new(tap));
        self
    }

    /// Decides what becomes of a batch that its stores refused or that ran out of attempts, in place of the
    /// [policy](crate::Policy::on_failure). Asked once it is rolled back in every store. Of several, the last one counts; where
    /// it panics, the policy does.
    #[must_use]
    pub fn on_failure(mut self, decide: impl Fn(&Failure) -> OnFailure + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Arc::new(decide));
        self
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.batches.is_empty()
            && !self.tap_stored()
            && !self.tap_failed()
            && self.on_failure.is_none()
    }

    fn tap_stored(&self) -> bool {
        !self.event_stored.is_empty() || !self.stored.is_empty()
    }

    fn tap_failed(&self) -> bool {
        !self.event_failed.is_empty() || !self.failed.is_empty()
    }

    /// Whether an event passes through any step.
    pub(crate) fn sees_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a batch passes through any step.
    pub(crate) fn sees_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    /// The system's hooks, then the tenant's own.
    pub(crate) fn then(&self, more: &Self) -> Self {
        fn joined<T: Clone>(first: &[T], second: &[T]) -> Vec<T> {
            first.iter().chain(second).cloned().collect()
        }
        Self {
            events: joined(&self.events, &more.events),
            batches: joined(&self.batches, &more.batches),
            event_stored: joined(&self.event_stored, &more.event_stored),
            event_failed: joined(&self.event_failed, &more.event_failed),
            stored: joined(&self.stored, &more.stored),
            failed: joined(&self.failed, &more.failed),
            on_failure: more.on_failure.as_ref().or(self.on_failure.as_ref()).cloned(),
        }
    }

    /// The event as the steps leave it; `None` if a filter drops it.
    pub(crate) fn event(&self, event: Event) -> Result<Option<Event>, Cause> {
        pass(&self.events, event)
    }

    /// The batch as the steps leave it; `None` if a filter drops it.
    pub(crate) fn batch(&self, batch: Batch) -> Result<Option<Batch>, Cause> {
        if self.batches.is_empty() {
            return Ok(Some(batch));
        }
        let (id, len) = (batch.id().clone(), batch.len());
        let made = pass(&self.batches, batch)?;
        match made {
            Some(other) if *other.id() != id || other.len() != len => {
                Err(Cause::new(Code::HookPanic, "a hook gave back another batch than it was given"))
            }
            made => Ok(made),
        }
    }

    /// What is to become of a batch that cannot be stored, if a hook decides that. The cause tells of one that panicked.
    pub(crate) fn decision(&self, failure: &Failure) -> Result<Option<OnFailure>, Cause> {
        self.on_failure.as_ref().map(|decide| guarded(|| decide(failure))).transpose()
    }

    /// Shows a stored batch to the taps. The cause tells of one that panicked.
    pub(crate) fn stored(&self, batch: &Batch) -> Result<(), Cause> {
        if !self.tap_stored() {
            return Ok(());
        }
        guarded(|| {
            self.stored.iter().for_each(|tap| tap(batch));
            each_event(batch, &self.event_stored, |tap, event| tap(event));
        })
    }

    /// Shows a batch that was given up to the taps. The cause tells of one that panicked.
    pub(crate) fn failed(&self, batch: &Batch, failure: &Failure) -> Result<(), Cause> {
        if !self.tap_failed() {
            return Ok(());
        }
        guarded(|| {
            self.failed.iter().for_each(|tap| tap(batch, failure));
            each_event(batch, &self.event_failed, |tap, event| tap(event, failure));
        })
    }
}

fn each_event<T>(batch: &Batch, taps: &[T], show: impl Fn(&T, &Event)) {
    if taps.is_empty() {
        return;
    }
    for event in batch.events() {
        let event = Event::new(batch.tenant().clone(), event.time, bytes::Bytes::copy_from_slice(event.body));
        taps.iter().for_each(|tap| show(tap, &event));
    }
}

fn guarded<T>(hook: impl FnOnce() -> T) -> Result<T, Cause> {
    // What a hook leaves half done is its own; nothing of ours is touched in there.
    catch_unwind(AssertUnwindSafe(hook)).map_err(|panic| Cause::from_panic(Code::HookPanic, &*panic))
}
