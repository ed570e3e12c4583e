use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::families::{Families, In};

/// What came of the spans that were to be exported by OTLP, and of the exports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exported(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    spans: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Exported {
    pub(super) fn tell(&self, families: &mut Families<'_>) -> fmt::Result {
        let each = [("exported", &self.0.spans), ("dropped", &self.0.dropped)];
        let each = each.map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)));
        let help = "Spans that a collector has, and those that were given up.";
        families.counters("headworks_telemetry_spans", help, "outcome", each)?;
        let help = "Exports to a collector that failed.";
        let failed = self.0.failed.load(Ordering::Relaxed);
        families.counter("headworks_telemetry_exports_failed", In::Things, help, failed)
    }
}

#[cfg(feature = "otlp")]
impl Exported {
    /// A collector has so many spans more.
    pub(crate) fn spans(&self, spans: u64) {
        self.0.spans.fetch_add(spans, Ordering::Relaxed);
    }

    /// So many spans are given up.
    pub(crate) fn dropped(&self, spans: u64) {
        self.0.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    /// How many were given up so far.
    pub(crate) fn all_dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// An export failed.
    pub(crate) fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }
}
