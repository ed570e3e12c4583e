use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::handle::System;
use crate::model::Outage;
use crate::observe::{Distribution, FailureTotal, StoreBreakers, StoreCalls};
use crate::port::Health;

/// What is measured of a system as a whole, beside the counters of its tenants and sources. From its start; see
/// [`System::measure`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Measurements {
    /// How many events the windows held that were closed.
    pub window_events: Distribution,
    /// How long after its deadline a window was closed, of those that closed by age.
    pub lateness: Distribution,
    /// How long it took from the cut of a batch to its outcome; of one that an earlier process left, from when it was read back.
    pub batches: Distribution,
    /// The calls of each store, by name, in the order in which they were first needed.
    pub stores: Vec<StoreCalls>,
    /// Compensations that ran.
    pub compensations_run: u64,
    /// Compensations that failed and went on the list of the [uncompensated](System::uncompensated).
    pub compensations_failed: u64,
    /// What failed, by code: those alone that did.
    pub failures: Vec<FailureTotal>,
    /// The memory of all events in flight, in bytes.
    pub in_flight_bytes: u64,
    /// How much it may be.
    pub max_in_flight_bytes: u64,
    /// How many tenants may be known.
    pub max_tenants: u64,
    /// Connections that are read now, and other ways in that are open.
    pub connections: u64,
    /// How many ways into each source are open, by its name: connections, and what is read to its end.
    pub connections_by_source: Vec<(Arc<str>, u64)>,
    /// The sources that were added and have not brought in all that they were to, by name, and why they bring nothing in, if they do
    /// not; see [`System::outages`].
    pub outages: Vec<(Arc<str>, Option<Outage>)>,
    /// The circuit breakers that are not closed, of each store, in the order of `stores`.
    pub breakers: Vec<StoreBreakers>,
    /// Dead letters that are still to be kept.
    pub dead_letters_pending: u64,
    /// For how long each of the actors' threads was at work.
    pub busy: Vec<Duration>,
    /// How the journal is doing, where it is durable.
    pub journal: Option<Health>,
}

impl System {
    /// What is measured of the system as a whole. With [`tenants`](Self::tenants) and [`sources`](Self::sources), what a metrics
    /// exporter needs. Each number is right by itself; they are not of one moment.
    ///
    /// ```
    /// # use headworks_actors::System;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().max_in_flight_bytes(1 << 20).start()?;
    /// let measured = system.measure();
    /// assert_eq!((measured.in_flight_bytes, measured.max_in_flight_bytes), (0, 1 << 20));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn measure(&self) -> Measurements {
        let shared = &self.shared;
        let (window_events, lateness) = shared.meters.windows();
        let (compensations_run, compensations_failed) = shared.meters.compensations();
        Measurements {
            window_events,
            lateness,
            batches: shared.meters.batches.read(),
            stores: shared.meters.stores(),
            compensations_run,
            compensations_failed,
            failures: shared.collect(|collector| collector.totals()),
            in_flight_bytes: shared.budget.used() as u64,
            max_in_flight_bytes: shared.budget.max() as u64,
            max_tenants: shared.tenants.max() as u64,
            connections: shared.homes.connections() as u64,
            connections_by_source: shared.open_by_source(),
            outages: shared.outages(),
            breakers: shared.breakers(Instant::now()),
            dead_letters_pending: self.dead_letters_pending(),
            busy: shared.homes.busy(),
            journal: shared.journal.is_durable().then(|| shared.journal.health()),
        }
    }
}
