//! The numbers of a system for Prometheus, in its text format or as OpenMetrics.
//!
//! [`Metrics`] reads what the system counts itself: a scrape is one look at it, and nothing is counted twice. The daemon serves it
//! on `/metrics`; any other program shows it wherever it likes, or puts it into a registry of its own, as a
//! [`Collector`]:
//!
//! ```
//! use headworks::metrics::{Format, Metrics};
//! use headworks::System;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let system = System::builder().start()?;
//! let metrics = Metrics::new(system.clone());
//! assert!(metrics.text(Format::Prometheus).contains("headworks_events_in_flight 0"));
//!
//! let mut registry = prometheus_client::registry::Registry::default();
//! registry.register_collector(Box::new(metrics));
//! # Ok(())
//! # }
//! ```
//!
//! # Which tenants have series of their own
//!
//! The [busiest ones](Metrics::max_tenants), by the frames that ever came for them; all others are summed as `tenant="other"`. What a
//! tenant brought before it had series of its own stays in that sum, and what it brought in them goes with them if it loses them: no
//! series ever falls but with the process, so that a rate over any of them is right. A tenant that has a place loses it to one alone that
//! is a quarter busier. A tenant that is really named `other` is written `tenant="_other"`, which no tenant can be named, and so is
//! never taken for the sum.

mod exported;
mod families;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
mod process;
mod system;
mod tenants;
mod text;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use headworks_actors::System;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text::encode};
use prometheus_client::registry::Registry;

pub use text::Format;

pub(crate) use exported::Exported;
use families::{Families, In};
use system::Seen;
use tenants::Busiest;

/// The numbers of a system. See the [module](self). Clones are one: they remember together which tenants had series of their own,
/// so all scrapes of a system are to go to one of these or its clones.
#[derive(Clone)]
pub struct Metrics {
    system: System,
    max_tenants: usize,
    is_own_process: bool,
    busiest: Arc<Mutex<Busiest>>,
    of_stores: Option<OfStores>,
}

/// Says what stores on servers count in this process, without asking those servers.
pub(crate) type OfStores = Arc<dyn Fn() -> Vec<OfStore> + Send + Sync>;

/// What one of them counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfStore {
    pub(crate) store: String,
    /// By column: values that did not fit it.
    pub(crate) misfits: Vec<(String, u64)>,
    /// Events that were pruned, once its server has said so.
    pub(crate) pruned: Option<u64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("max_tenants", &self.max_tenants).finish_non_exhaustive()
    }
}

impl Metrics {
    /// How many tenants have series of their own where nothing else is said.
    pub const MAX_TENANTS: usize = 100;

    /// Of a system.
    #[must_use]
    pub fn new(system: System) -> Self {
        Self { system, max_tenants: Self::MAX_TENANTS, is_own_process: false, busiest: Arc::default(), of_stores: None }
    }

    /// So many tenants have series of their own, about 1.3 KB of text each. Default [`MAX_TENANTS`](Self::MAX_TENANTS).
    #[must_use]
    pub fn max_tenants(self, max_tenants: usize) -> Self {
        Self { max_tenants, ..self }
    }

    /// Adds what is known of the process as a whole, under the names that are usual: `process_resident_memory_bytes` and so on. Only on
    /// Linux. Default no: a program that embeds headworks may tell that already.
    #[must_use]
    pub fn process(self) -> Self {
        Self { is_own_process: true, ..self }
    }

    /// Adds what stores on servers count.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub(crate) fn of_stores(self, of_stores: OfStores) -> Self {
        Self { of_stores: Some(of_stores), ..self }
    }

    /// All of them as text. Looks at every tenant, and waits for one whose code holds its lane: to be called where that holds
    /// nobody up.
    #[must_use]
    pub fn text(&self, format: Format) -> String {
        self.text_with(format, Beside::default())
    }

    /// The same, and what is beside the system.
    pub(crate) fn text_with(&self, format: Format, beside: Beside) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        registry.register_collector(Box::new(self.with_servers(beside)));
        let mut told = String::with_capacity(256 << 10);
        // A string takes all that is written to it.
        let _ = encode(&mut told, &registry);
        text::in_format(told, format)
    }
}

impl Metrics {
    /// The same families as messages of OTLP; `began` and `now` in nanoseconds since 1970.
    #[cfg(feature = "otlp")]
    pub(crate) fn otlp(
        &self,
        beside: &Beside,
        began: u64,
        now: u64,
    ) -> Vec<opentelemetry_proto::tonic::metrics::v1::Metric> {
        let mut families = Families::Otlp(otlp::Sink::new(began, now));
        // Nothing can go wrong in memory.
        let _ = self.tell(&mut families).and_then(|()| self.with_servers(beside.clone()).tell(&mut families));
        match families {
            Families::Otlp(sink) => sink.told(),
            Families::Text(_) => vec![],
        }
    }

    /// What is pruned on servers counts with what is pruned here, once all of it is known.
    fn with_servers(&self, mut beside: Beside) -> Beside {
        let of_stores = self.of_stores.iter().flat_map(|told| told()).map(|store| store.pruned);
        beside.pruned = of_stores.fold(beside.pruned, |all, pruned| Some(all? + pruned?));
        beside
    }

    fn tell(&self, families: &mut Families<'_>) -> fmt::Result {
        let (sources, tenants) = (self.system.sources(), self.system.tenants());
        let (measured, health) = (self.system.measure(), self.system.health());
        let seen = Seen { sources: &sources, tenants: &tenants, measured: &measured, health: &health };
        seen.tell(families)?;
        if let Some(told) = &self.of_stores {
            let help = "Values of events that did not fit their column of the store, where they are null.";
            let told = told();
            let each = told.iter().flat_map(|store| {
                store.misfits.iter().map(|(column, misfits)| ([store.store.as_str(), column.as_str()], *misfits))
            });
            families.counters_by_two("headworks_column_misfits", help, ["store", "column"], each)?;
        }
        let mut busiest = self.busiest.lock().unwrap_or_else(PoisonError::into_inner);
        tenants::tell(families, &busiest.rows(&tenants, self.max_tenants))?;
        drop(busiest);
        if self.is_own_process { process::tell(families) } else { Ok(()) }
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.tell(&mut Families::new(encoder))
    }
}

/// What a daemon has to tell beside its system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    /// The dead letters that are kept, where that is known: how many, and their size in bytes.
    pub(crate) letters: Option<(u64, u64)>,
    /// Events that were pruned, where that is known.
    pub(crate) pruned: Option<u64>,
    /// What was exported by OTLP, where there is a daemon that may do so.
    pub(crate) exported: Option<Exported>,
}

impl Beside {
    /// What the stores in `data_dir` say, and what was exported. Where the database cannot be read, that says nothing of all the rest.
    #[cfg(feature = "sqlite")]
    pub(crate) fn of(data_dir: &std::path::Path, exported: &Exported) -> Self {
        let store = crate::store::StoreReader::open(data_dir).ok();
        Self {
            letters: store.as_ref().and_then(|store| store.dead_letters_kept().ok()),
            pruned: store.as_ref().and_then(|store| store.pruned_here().ok()),
            exported: Some(exported.clone()),
        }
    }

    fn tell(&self, families: &mut Families<'_>) -> fmt::Result {
        if let Some(pruned) = self.pruned {
            let help = "Stored events that the retention of their tenants let go of, since each store was made.";
            families.counter("headworks_events_pruned", In::Things, help, pruned)?;
        }
        if let Some((letters, bytes)) = self.letters {
            families.gauge("headworks_dead_letters_kept", In::Things, "Dead letters that are kept.", letters)?;
            let help = "Room that the dead letters take of their quotas.";
            families.gauge("headworks_dead_letters", In::Bytes, help, bytes)?;
        }
        self.exported.as_ref().map_or(Ok(()), |exported| exported.tell(families))
    }
}

impl Collector for Beside {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.tell(&mut Families::new(encoder))
    }
}
