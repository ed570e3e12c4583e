use std::collections::BTreeMap;
use std::fmt::Result;
use std::sync::Arc;

use headworks_actors::{
    Code, Counters, FlushReason, Health, Measurements, SourceCounters, Status, SystemHealth, TenantSnapshot,
};

use super::families::{Families, In};

/// Why a frame is no event.
pub(super) const MALFORMED: [Code; 10] = [
    Code::Empty,
    Code::Oversized,
    Code::Truncated,
    Code::BadUtf8,
    Code::BadJson,
    Code::TooDeep,
    Code::NoTenant,
    Code::BadTenant,
    Code::BadEvent,
    Code::DecoderPanic,
];

/// Why an event is refused at the door.
pub(super) const REJECTED: [Code; 5] =
    [Code::TenantFull, Code::TenantLimit, Code::UnknownTenant, Code::SpawnRate, Code::TenantNotAllowed];

/// What a tenant may be doing.
const STATUSES: [Status; 13] = [
    Status::Dormant,
    Status::Active,
    Status::Idle,
    Status::Silent,
    Status::Failing,
    Status::Retrying,
    Status::BreakerOpen,
    Status::Parked,
    Status::Compensating,
    Status::Stalled,
    Status::Restarting,
    Status::Quarantined,
    Status::Stopped,
];

/// A system at about one moment.
pub(super) struct Seen<'s> {
    pub(super) sources: &'s [(Arc<str>, SourceCounters)],
    pub(super) tenants: &'s [TenantSnapshot],
    pub(super) measured: &'s Measurements,
    pub(super) health: &'s SystemHealth,
}

impl Seen<'_> {
    fn of_sources(&self, of: fn(&SourceCounters) -> u64) -> u64 {
        self.sources.iter().map(|(_, source)| of(source)).sum()
    }

    fn of_tenants(&self, of: fn(&TenantSnapshot) -> u64) -> u64 {
        self.tenants.iter().map(of).sum()
    }

    fn counted(&self, of: fn(&Counters) -> u64) -> u64 {
        self.tenants.iter().map(|tenant| of(&tenant.counters)).sum()
    }

    pub(super) fn tell(&self, families: &mut Families<'_>) -> Result {
        let version = env!("CARGO_PKG_VERSION");
        families.info("headworks_build", "The program.", &[("version", version)])?;
        self.frames(families)?;
        self.events(families)?;
        self.batches(families)?;
        self.failures(families)?;
        self.tenants(families)?;
        self.whole(families)?;
        self.measured.journal.iter().try_for_each(|journal| tell_journal(families, journal))
    }

    /// What comes in: from the start of the process.
    fn frames(&self, families: &mut Families<'_>) -> Result {
        let by_code = |codes: &'static [Code]| {
            codes.iter().map(|code| {
                let failed = self.measured.failures.iter().find(|total| total.code == *code);
                (code.as_str(), failed.map_or(0, |total| total.events))
            })
        };
        let mut count = |name: &str, help: &str, of: fn(&SourceCounters) -> u64| {
            families.counter(&format!("headworks_events_{name}"), In::Things, help, self.of_sources(of))
        };
        count("received", "Frames that came.", |s| s.received)?;
        count("duplicate", "Frames that had been accepted before.", |s| s.duplicate)?;
        count("muted", "Frames dropped because their tenant is muted.", |s| s.muted)?;
        count("throttled", "Frames refused because their tenant is above its rate.", |s| s.throttled)?;
        let help = "Events refused at the door.";
        families.counters("headworks_events_rejected", help, "reason", by_code(&REJECTED))?;
        families.counters("headworks_events_malformed", "Frames that are no event.", "reason", by_code(&MALFORMED))?;
        let mut each = |name: &str, help: &str, of: fn(&SourceCounters) -> u64| {
            let each = self.sources.iter().map(|(source, counters)| (source, of(counters)));
            families.counters(&format!("headworks_source_{name}"), help, "source", each)
        };
        each("received", "Frames of the source that came.", |s| s.received)?;
        each("accepted", "Frames of the source that became accepted events.", |s| s.accepted)?;
        each("duplicate", "Frames of the source that had been accepted before.", |s| s.duplicate)?;
        each("muted", "Frames of the source whose tenant is muted.", |s| s.muted)?;
        each("throttled", "Frames of the source above the rate of their tenant.", |s| s.throttled)?;
        each("rejected", "Events of the source that were refused at the door.", |s| s.rejected)?;
        each("malformed", "Frames of the source that are no event.", |s| s.malformed)?;
        let help = "What the sender marked as sent before, whether or not it had come.";
        each("redelivered", help, |s| s.redelivered)?;
        each("reconnects", "How often the source found its way back to what it reads from.", |s| s.reconnects)?;
        each("lost_bytes", "Bytes that were lost before the source could read them.", |s| s.lost_bytes)?;
        each("lost_datagrams", "Datagrams that were lost before the source could take them in.", |s| s.lost_datagrams)?;
        each("read_bytes", "Bytes of the source that were read.", |s| s.bytes)
    }

    /// What becomes of accepted events: where the journal is durable, from its first opening.
    fn events(&self, families: &mut Families<'_>) -> Result {
        let mut count = |name: &str, help: &str, of: fn(&Counters) -> u64| {
            families.counter(&format!("headworks_events_{name}"), In::Things, help, self.counted(of))
        };
        count("accepted", "Events that were accepted.", |c| c.accepted)?;
        count("stored", "Events that are stored.", |c| c.stored)?;
        count("dead_lettered", "Events that were kept as dead letters.", |c| c.dead_lettered)?;
        count("shed", "Events that were given up to make room.", |c| c.shed)?;
        count("discarded", "Events that a rule dropped.", |c| c.discarded)?;
        count("spilled", "Events that were accepted into the journal alone.", |c| c.spilled)?;
        let mut now = |name: &str, unit, help: &str, of| families.gauge(name, unit, help, self.of_tenants(of));
        let help = "Accepted events without an outcome yet.";
        now("headworks_events_in_flight", In::Things, help, |t| t.in_flight)?;
        let help = "Accepted events without an outcome yet that lie in the journal alone.";
        now("headworks_events_in_journal", In::Things, help, |t| t.in_journal)?;
        now("headworks_batches_waiting", In::Things, "Closed batches that wait or are being stored.", |t| {
            t.batches_waiting
        })
    }

    fn batches(&self, families: &mut Families<'_>) -> Result {
        let measured = self.measured;
        let flushes = FlushReason::ALL.into_iter().map(|reason| {
            let all = self.tenants.iter().map(|tenant| tenant.counters.flushes_for(reason));
            (reason.as_str(), all.sum::<u64>())
        });
        families.counters("headworks_flushes", "Windows that were closed.", "reason", flushes)?;
        let help = "Events in the windows that were closed.";
        families.histogram("headworks_window_events", In::Things, help, &measured.window_events)?;
        let help = "How long after its deadline a window was closed by age.";
        families.histogram("headworks_flush_lateness", In::Seconds, help, &measured.lateness)?;
        let help = "Time from the cut of a batch to its outcome.";
        families.histogram("headworks_batch_duration", In::Seconds, help, &measured.batches)?;
        let batches = self.counted(|c| c.batches);
        families.counter("headworks_batches_stored", In::Things, "Batches that are stored.", batches)?;
        let calls = measured.stores.iter().flat_map(|calls| {
            let store = calls.store.as_str();
            [([store, "stored"], &calls.stored), ([store, "failed"], &calls.failed)]
        });
        let help = "Time that calls of a store took.";
        families.histograms("headworks_store_call_duration", help, ["store", "outcome"], calls)
    }

    fn failures(&self, families: &mut Families<'_>) -> Result {
        let measured = self.measured;
        let by_code = measured.failures.iter().map(|total| (total.code.as_str(), total.failures));
        families.counters("headworks_failures", "Whatever failed.", "reason", by_code)?;
        let mut count = |name: &str, help: &str, value| families.counter(name, In::Things, help, value);
        let failed = self.counted(|c| c.attempts_failed);
        let help = "Calls of a store that failed: each is made again, unless its batch is given up.";
        count("headworks_attempts_failed", help, failed)?;
        count("headworks_restarts", "Restarts of tenants' actors.", self.counted(|c| c.restarts))?;
        let help = "Compensations that ran.";
        count("headworks_compensations_run", help, measured.compensations_run)?;
        let help = "Compensations that failed, and are tried again.";
        count("headworks_compensations_failed", help, measured.compensations_failed)?;
        let owed = self.of_tenants(|t| t.uncompensated);
        families.gauge("headworks_uncompensated", In::Things, "Compensations that could not be done yet.", owed)?;
        let pending = measured.dead_letters_pending;
        families.gauge("headworks_dead_letters_pending", In::Things, "Dead letters still to be kept.", pending)
    }

    fn tenants(&self, families: &mut Families<'_>) -> Result {
        let mut by_status: BTreeMap<_, u64> = STATUSES.iter().map(|status| (status.as_str(), 0)).collect();
        for tenant in self.tenants {
            *by_status.entry(tenant.status.as_str()).or_default() += 1;
        }
        families.gauges("headworks_tenants", In::Things, "Tenants that are known.", "status", by_status)?;
        let muted = self.of_tenants(|t| u64::from(t.is_muted));
        families.gauge("headworks_tenants_muted", In::Things, "Tenants that are known and muted.", muted)?;
        let help = "How many tenants may be known.";
        families.gauge("headworks_tenants_limit", In::Things, help, self.measured.max_tenants)
    }

    fn whole(&self, families: &mut Families<'_>) -> Result {
        let measured = self.measured;
        let help = "Memory of all events in flight.";
        families.gauge("headworks_budget_used", In::Bytes, help, measured.in_flight_bytes)?;
        let help = "How much memory events in flight may take.";
        families.gauge("headworks_budget_limit", In::Bytes, help, measured.max_in_flight_bytes)?;
        let help = "Connections and other ways in that are open.";
        families.gauge("headworks_connections", In::Things, help, measured.connections)?;
        let help = "Connections of the source, and other ways into it, that are open.";
        let by_source = measured.connections_by_source.iter().map(|(source, open)| (source, *open));
        families.gauges("headworks_source_connections", In::Things, help, "source", by_source)?;
        let help =
            "Whether the source brings in what it is to: 1, or 0 where it is away from what it reads, or has failed.";
        let up = measured.outages.iter().map(|(source, outage)| (source, u64::from(outage.is_none())));
        families.gauges("headworks_source_up", In::Things, help, "source", up)?;
        let help = "Circuit breakers between a tenant and a store that are not closed.";
        let breakers = measured.breakers.iter().flat_map(|of| {
            let store = of.store.as_str();
            [([store, "open"], of.open), ([store, "half_open"], of.half_open)]
        });
        families.gauges_by_two("headworks_breakers", help, ["store", "state"], breakers)?;
        let busy = measured.busy.iter().enumerate().map(|(thread, busy)| (thread.to_string(), busy.as_secs_f64()));
        families.seconds_counters("headworks_thread_busy", "Time the actors' threads have worked.", "thread", busy)?;
        let help = "For how long something has held one of the actors' threads; 0 where nothing does.";
        let hung = self.health.hung.as_ref().map_or(0.0, |hung| hung.lasting.as_secs_f64());
        families.seconds("headworks_hung", help, hung)?;
        let help = "Whether an actor of the root has failed too often and does not run: 1 or 0.";
        families.gauge("headworks_failed", In::Things, help, u64::from(self.health.failed.is_some()))
    }
}

fn tell_journal(families: &mut Families<'_>, journal: &Health) -> Result {
    families.gauge("headworks_journal", In::Bytes, "Size of the journal on disk.", journal.disk_bytes)?;
    let help = "The part of the journal that unsettled events need.";
    families.gauge("headworks_journal_live", In::Bytes, help, journal.live_bytes)?;
    let help = "From what size on the journal takes no more events.";
    families.gauge("headworks_journal_limit", In::Bytes, help, journal.quota_bytes)?;
    let help = "Whether the journal cannot be written: 1 or 0.";
    families.gauge("headworks_journal_failing", In::Things, help, u64::from(journal.failing.is_some()))?;
    let help = "Whether the journal had no room for the last events that came: 1 or 0.";
    families.gauge("headworks_journal_full", In::Things, help, u64::from(journal.is_full))?;
    families.counter("headworks_journal_written", In::Bytes, "Bytes written to the journal.", journal.written_bytes)?;
    let help = "Time that commits of the journal took.";
    families.histogram("headworks_journal_commit_duration", In::Seconds, help, &journal.commit_times)
}
