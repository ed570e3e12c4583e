use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::FailureTotal;
use super::sliding::Sliding;
use crate::model::{Code, Failure, TenantId, UnixMillis};

/// The failures so far, by tenant and code. Bounded: beyond [`MAX_ENTRIES`](Report::MAX_ENTRIES) pairs, further tenants
/// are summed under no tenant. A pair takes about 500 bytes and its sample.
///
/// Given to [`SystemBuilder::on_report`](crate::SystemBuilder::on_report), it has the pairs alone that failed since the last time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// When counting began; of a periodic report, when the last one was made.
    pub since: UnixMillis,
    /// When this was made.
    pub at: UnixMillis,
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
    /// How many failures since the start. That a batch is given up at last is no further one: what it failed with was counted.
    pub failures: u64,
    /// How many events or frames they hit.
    pub events: u64,
    /// How many failures since the last periodic report.
    pub recent: u64,
    /// How many in the last minute, to 5 s: the rate a minute as it is now.
    pub last_minute: u64,
    /// How many in the last 5 minutes, to a minute.
    pub last_5_minutes: u64,
    /// How many in the last hour, to a minute.
    pub last_hour: u64,
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

    /// Says each entry to `tracing`, under the target `headworks::report`: what becomes of the periodic report where nobody else
    /// takes it.
    pub fn log(&self) {
        for entry in &self.entries {
            tracing::warn!(
                target: "headworks::report",
                tenant = entry.tenant.as_ref().map(TenantId::as_str),
                code = entry.code.as_str(),
                recent = entry.recent,
                last_minute = entry.last_minute,
                last_5_minutes = entry.last_5_minutes,
                last_hour = entry.last_hour,
                failures = entry.failures,
                events = entry.events,
                first_at = %entry.first_at,
                last_at = %entry.last_at,
                sample = &*entry.sample,
                "failures since the last report"
            );
        }
    }
}

impl fmt::Display for Report {
    /// One line an entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            let tenant = entry.tenant.as_ref().map_or("-", TenantId::as_str);
            let ReportEntry { code, failures, recent, events, first_at, last_at, sample, .. } = entry;
            let ReportEntry { last_minute, last_5_minutes, last_hour, .. } = entry;
            writeln!(
                f,
                "{tenant} {code} failures={failures} recent={recent} last_minute={last_minute} \
                 last_5_minutes={last_5_minutes} last_hour={last_hour} events={events} first={first_at} last={last_at} \
                 {sample:?}"
            )?;
        }
        Ok(())
    }
}

/// The report in the making.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    since: UnixMillis,
    last_report: UnixMillis,
    pairs: BTreeMap<(Option<TenantId>, Code), Pair>,
}

/// The failures of one tenant with one code.
#[derive(Debug)]
struct Pair {
    failures: u64,
    events: u64,
    recent: u64,
    lately: Sliding,
    first_at: UnixMillis,
    last_at: UnixMillis,
    sample: Arc<str>,
}

impl Collector {
    pub(crate) fn new(since: UnixMillis) -> Self {
        Self { since, last_report: since, pairs: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, failure: &Failure) {
        // The end of a batch: of what it failed with, the events were not known to be hit before.
        let is_end = failure.batch.is_some() && failure.events > 0;
        let mut key = (failure.tenant.clone(), failure.cause.code);
        if self.pairs.len() >= Report::MAX_ENTRIES && !self.pairs.contains_key(&key) {
            key.0 = None;
        }
        let pair = self.pairs.entry(key).or_insert_with(|| Pair {
            failures: 0,
            events: 0,
            recent: 0,
            lately: Sliding::default(),
            first_at: failure.at,
            last_at: failure.at,
            sample: failure.cause.detail.clone(),
        });
        pair.events += failure.events;
        if !is_end || pair.failures == 0 {
            pair.failures += 1;
            pair.recent += 1;
            pair.lately.add(failure.at);
        }
        pair.last_at = failure.at;
        pair.sample = failure.cause.detail.clone();
    }

    /// All of it, as of `now`.
    pub(crate) fn report(&self, now: UnixMillis) -> Report {
        let entries = self.pairs.iter().map(|(key, pair)| pair.entry(key, now)).collect();
        Report { since: self.since, at: now, entries }
    }

    /// All of it by code, over all tenants.
    pub(crate) fn totals(&self) -> Vec<FailureTotal> {
        let mut totals = BTreeMap::<Code, FailureTotal>::new();
        for ((_, code), pair) in &self.pairs {
            let total = totals.entry(*code).or_insert(FailureTotal { code: *code, failures: 0, events: 0 });
            total.failures += pair.failures;
            total.events += pair.events;
        }
        totals.into_values().collect()
    }

    /// What one tenant failed with.
    pub(crate) fn of(&self, tenant: &TenantId, now: UnixMillis) -> Vec<ReportEntry> {
        let each = Code::ALL.iter().map(|code| (Some(tenant.clone()), *code));
        each.filter_map(|key| Some(self.pairs.get(&key)?.entry(&key, now))).collect()
    }

    /// What failed since the last call of this, counted anew from here. `None` where nothing did.
    pub(crate) fn take_recent(&mut self, now: UnixMillis) -> Option<Report> {
        let since = std::mem::replace(&mut self.last_report, now);
        let recent = self.pairs.iter_mut().filter(|(_, pair)| pair.recent > 0);
        let entries: Vec<_> = recent
            .map(|(key, pair)| {
                let entry = pair.entry(key, now);
                pair.recent = 0;
                entry
            })
            .collect();
        (!entries.is_empty()).then_some(Report { since, at: now, entries })
    }
}

impl Pair {
    fn entry(&self, (tenant, code): &(Option<TenantId>, Code), now: UnixMillis) -> ReportEntry {
        let [last_minute, last_5_minutes, last_hour] = self.lately.counts(now);
        ReportEntry {
            tenant: tenant.clone(),
            code: *code,
            failures: self.failures,
            events: self.events,
            recent: self.recent,
            last_minute,
            last_5_minutes,
            last_hour,
            first_at: self.first_at,
            last_at: self.last_at,
            sample: self.sample.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BatchId, Cause, Opening, Seq};

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
        let report = collector.report(UnixMillis(2));
        assert!(report.entries.len() <= Report::MAX_ENTRIES + Code::ALL.len());
        assert_eq!(report.entries.iter().map(|entry| entry.failures).sum::<u64>(), 3 * Report::MAX_ENTRIES as u64);
        assert_eq!(report.entries.iter().map(|entry| entry.events).sum::<u64>(), 6 * Report::MAX_ENTRIES as u64);
    }

    #[test]
    fn the_recent_count_begins_anew_with_each_periodic_report_and_the_windows_do_not() {
        let mut collector = Collector::new(UnixMillis(0));
        collector.add(&failure(None));
        let first = collector.take_recent(UnixMillis(10)).unwrap();
        assert_eq!((first.since, first.at, first.entries[0].recent), (UnixMillis(0), UnixMillis(10), 1));
        assert_eq!(collector.take_recent(UnixMillis(20)), None);
        collector.add(&failure(None));
        assert_eq!(collector.report(UnixMillis(20)).entries[0].failures, 2);
        let second = collector.take_recent(UnixMillis(30)).unwrap();
        assert_eq!((second.since, second.entries[0].recent, second.entries[0].last_minute), (UnixMillis(20), 1, 2));
        let later = collector.report(UnixMillis(120_001));
        assert_eq!((later.entries[0].last_minute, later.entries[0].last_5_minutes), (0, 2));
    }

    #[test]
    fn a_batch_that_is_refused_and_given_up_failed_once_and_hit_its_events() {
        let batch = BatchId::new(Opening(1), TenantId::new("a").unwrap(), Seq(1));
        let mut collector = Collector::new(UnixMillis(0));
        let refused = Failure { batch: Some(batch), events: 0, ..failure(Some("a")) };
        collector.add(&refused);
        collector.add(&Failure { events: 5, ..refused.clone() });
        let entry = collector.report(UnixMillis(2)).entries.remove(0);
        assert_eq!((entry.failures, entry.recent, entry.last_minute, entry.events), (1, 1, 1, 5));
        // One whose failure an earlier process counted.
        let mut collector = Collector::new(UnixMillis(0));
        collector.add(&Failure { events: 5, ..refused });
        assert_eq!(collector.report(UnixMillis(2)).entries[0].failures, 1);
    }

    #[test]
    fn a_tenant_is_told_its_own_failures_alone() {
        let mut collector = Collector::new(UnixMillis(0));
        for tenant in [Some("a"), Some("b"), None] {
            collector.add(&failure(tenant));
        }
        let of_a = collector.of(&TenantId::new("a").unwrap(), UnixMillis(2));
        assert_eq!((of_a.len(), of_a[0].failures, of_a[0].code), (1, 1, Code::BadJson));
    }
}
