//! One run: a system of its own behind its TCP source, with someone who watches it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headworks::source::{TcpOptions, TcpSource};
use headworks::{
    DrainReport, FlushReason, Flushed, Framing, IngressSpec, Json, Observer, SourceCounters, SupervisorEvent, System,
    SystemBuilder, TenantId, TenantSnapshot, What,
};
use tokio::runtime::Runtime;

use crate::Result;
use crate::load::{name, number};
use crate::sender::Sent;
use crate::shop::{SPECIAL, Tally};

const SOURCE: &str = "tcp";
/// How long the end of a run may take.
const DRAIN: Duration = Duration::from_secs(60);

/// What is seen from outside while a system runs.
#[derive(Default)]
pub(crate) struct Watcher {
    /// Of actors that are not the special tenant's, by the supervisor log.
    restarts: AtomicU64,
    lateness: Mutex<Vec<Duration>>,
}

impl Watcher {
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Acquire)
    }

    /// How late windows were closed by age since the last call.
    pub(crate) fn take_lateness(&self) -> Vec<Duration> {
        std::mem::take(&mut self.lateness.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Watcher {
    fn flushed(&self, _tenant: &TenantId, flushed: &Flushed) {
        if flushed.reason == FlushReason::Age {
            self.lateness.lock().unwrap_or_else(PoisonError::into_inner).push(flushed.lateness);
        }
    }

    fn supervised(&self, event: &SupervisorEvent) {
        let is_special = event.tenant.as_ref().and_then(number) == Some(SPECIAL);
        if !is_special && matches!(event.what, What::Restarted | What::Quarantined) {
            self.restarts.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// A system that listens.
pub(crate) struct Rig {
    pub(crate) system: System,
    pub(crate) address: SocketAddr,
    pub(crate) watcher: Arc<Watcher>,
    runtime: Runtime,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) drained: DrainReport,
    pub(crate) source: SourceCounters,
    pub(crate) restarts: u64,
}

/// Lets a shared watcher be an observer.
struct Shared(Arc<Watcher>);

impl Observer for Shared {
    fn flushed(&self, tenant: &TenantId, flushed: &Flushed) {
        self.0.flushed(tenant, flushed);
    }

    fn supervised(&self, event: &SupervisorEvent) {
        self.0.supervised(event);
    }
}

impl Rig {
    pub(crate) fn start(builder: SystemBuilder) -> Result<Self> {
        let watcher = Arc::new(Watcher::default());
        let system = builder.observer(Shared(watcher.clone())).start()?;
        let spec = IngressSpec::new(SOURCE, Framing::lines(), Json::new());
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let source = TcpSource::bind(SOURCE, anywhere, spec, TcpOptions::default())?;
        let address = source.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(system.add_source(source))?;
        Ok(Self { system, address, watcher, runtime })
    }

    /// The special tenant as it is now, if anything came for it.
    pub(crate) fn special(&self) -> Result<Option<TenantSnapshot>> {
        Ok(self.system.tenant(&name(SPECIAL)?).map(|tenant| tenant.snapshot()))
    }

    /// Stores what was accepted.
    pub(crate) fn end(self) -> Result<Ended> {
        let Self { system, watcher, runtime, .. } = self;
        let drained = runtime.block_on(system.drain(DRAIN));
        let sources = system.sources();
        let (_, source) = sources.iter().find(|(name, _)| &**name == SOURCE).ok_or("nothing came in")?;
        Ok(Ended { drained, source: *source, restarts: watcher.restarts() })
    }
}

impl Ended {
    /// Whether everything sent has its one outcome, and the store has what the system says it stored. What does not hold is
    /// told in words.
    pub(crate) fn unaccounted(&self, sent: &Sent, tally: &Tally) -> Result<Vec<String>> {
        let mut wrong = vec![];
        if !self.drained.complete {
            wrong.push(format!("not all is settled: {}", self.drained));
        }
        // What its tenant's own rules refused is no stranger's.
        let by_rules: u64 = self.drained.tenants.iter().map(|tenant| tenant.end.counters.rejected).sum();
        let counted = (self.source.received, self.source.rejected.wrapping_sub(by_rules), self.source.malformed);
        if counted != (sent.frames(), sent.strangers, sent.garbage) || !self.source.adds_up() {
            wrong.push(format!(
                "of {} frames sent, {} of them of strangers and {} garbage: {:?}",
                sent.frames(),
                sent.strangers,
                sent.garbage,
                self.source
            ));
        }
        for (tenant, &sent) in sent.events.iter().enumerate() {
            let name = name(tenant)?;
            let end = self.drained.of(&name).map(|drained| &drained.end);
            let counters = end.map(|end| end.counters).unwrap_or_default();
            let adds_up = end.is_none_or(TenantSnapshot::adds_up) && end.is_none_or(|end| end.in_flight == 0);
            if counters.received != sent || counters.stored != tally.stored[tenant] || !adds_up {
                wrong.push(format!("{name}: {sent} sent, the store has {}, {counters:?}", tally.stored[tenant]));
            }
        }
        Ok(wrong)
    }
}
