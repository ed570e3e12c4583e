use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{Code, Failure, TenantId, UnixMillis};

/// The failures so far, by tenant and code. Bounded: beyond [`MAX_ENTRIES`](Report::MAX_ENTRIES) pairs, further tenants
/// are summed under no tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// When counting began.
    pub since: UnixMillis,
    /// Each pair of tenant and code that failed.
    pub entries: Vec<ReportEntry>,
}

/// The failures of one tenant with one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportEntry {
    /// Whose; `None` where no tenant is known.
    pub tenant: Option<TenantId>,
    /// What.
    pub code: Code,
    /// How many failures since the start.
    pub failures: u64,
    /// How many events or frames they hit.
    pub events: u64,
    /// How many failures since the last periodic report.
    pub recent: u64,
    /// The first.
    pub first_at: UnixMillis,
    /// The last.
    pub last_at: UnixMillis,
    /// What the last one said.
    pub sample: Arc<str>,
}

impl Report {
    /// How many pairs of tenant and code are kept apart.
    pub const MAX_ENTRIES: usize = 1_000;
}

impl fmt::Display for Report {
    /// One line an entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            let tenant = entry.tenant.as_ref().map_or("-", TenantId::as_str);
            let ReportEntry { code, failures, recent, events, last_at, sample, .. } = entry;
            writeln!(
                f,
                "{tenant} {code} failures={failures} recent={recent} events={events} last={last_at} {sample:?}"
            )?;
        }
        Ok(())
    }
}

/// The report in the making.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    since: UnixMillis,
    entries: BTreeMap<(Option<TenantId>, Code), ReportEntry>,
}

impl Collector {
    pub(crate) fn new(since: UnixMillis) -> Self {
        Self { since, entries: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, failure: &Failure) {
        let mut key = (failure.tenant.clone(), failure.cause.code);
        if self.entries.len() >= Report::MAX_ENTRIES && !self.entries.contains_key(&key) {
            key.0 = None;
        }
        let entry = self.entries.entry(key).or_insert_with_key(|(tenant, code)| ReportEntry {
            tenant: tenant.clone(),
            code: *code,
            failures: 0,
            events: 0,
            recent: 0,
            first_at: failure.at,
            last_at: failure.at,
            sample: failure.cause.detail.clone(),
        });
        entry.failures += 1;
        entry.recent += 1;
        entry.events += failure.events;
        entry.last_at = failure.at;
        entry.sample = failure.cause.detail.clone();
    }

    pub(crate) fn report(&self) -> Report {
        Report { since: self.since, entries: self.entries.values().cloned().collect() }
    }

    /// What failed since the last call of this, counted anew from here.
    pub(crate) fn take_recent(&mut self) -> Vec<ReportEntry> {
        let recent = self.entries.values_mut().filter(|entry| entry.recent > 0);
        recent.map(|entry| ReportEntry { recent: std::mem::take(&mut entry.recent), ..entry.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cause;

    fn failure(tenant: Option<&str>) -> Failure {
        Failure {
            at: UnixMillis(1),
            tenant: tenant.and_then(|t| TenantId::new(t).ok()),
            source: None,
            batch: None,
            cause: Cause::new(Code::BadJson, "why"),
            events: 2,
        }
    }

    #[test]
    fn a_flood_of_tenants_is_summed_and_no_failure_is_lost() {
        let mut collector = Collector::new(UnixMillis(0));
        for n in 0..3 * Report::MAX_ENTRIES {
            collector.add(&failure(Some(&format!("t{n}"))));
        }
        let report = collector.report();
        assert!(report.entries.len() <= Report::MAX_ENTRIES + Code::ALL.len());
        assert_eq!(report.entries.iter().map(|entry| entry.failures).sum::<u64>(), 3 * Report::MAX_ENTRIES as u64);
        assert_eq!(report.entries.iter().map(|entry| entry.events).sum::<u64>(), 6 * Report::MAX_ENTRIES as u64);
    }

    #[test]
    fn the_recent_count_begins_anew_with_each_periodic_report() {
        let mut collector = Collector::new(UnixMillis(0));
        collector.add(&failure(None));
        assert_eq!(collector.take_recent()[0].recent, 1);
        assert!(collector.take_recent().is_empty());
        collector.add(&failure(None));
        assert_eq!(collector.report().entries[0].failures, 2);
        assert_eq!(collector.take_recent()[0].recent, 1);
    }
}
