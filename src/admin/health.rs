//! Whether the process is alive, and whether it does its work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use headworks_actors::{Health, Outage, SourceHandle, Status, System, TenantSnapshot};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Admin;
use crate::source::Tls;

/// The process is alive, and no more is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// `alive`.
    pub status: String,
}

/// Touches nothing that may be held up.
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { status: "alive".to_owned() })
}

/// Whether the daemon does its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether every check holds.
    pub ready: bool,
    /// All of them.
    pub checks: Vec<Check>,
    /// What somebody is to look at although the daemon does its work: tenants whose events are given up, certificates that expire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `running`, `sources`, `journal`, `stores`, `actors` or `progress`.
    pub name: String,
    /// Whether it does.
    pub ok: bool,
    /// Why not.
    pub why: Option<String>,
}

/// The sources of a daemon, once they listen.
#[derive(Debug, Clone, Default)]
pub struct Listening {
    sources: Arc<Mutex<Option<Named>>>,
    encrypted: Arc<Mutex<Vec<(String, Tls)>>>,
}

type Named = Vec<(String, SourceHandle)>;

impl Listening {
    /// They do.
    pub fn set(&self, sources: Named) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = Some(sources);
    }

    /// Those of them that speak TLS.
    pub(crate) fn encrypted(&self, sources: Vec<(String, Tls)>) {
        *self.encrypted.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// Certificates that clients refuse, or soon will.
    fn notes(&self, now: SystemTime) -> Vec<String> {
        let sources = self.encrypted.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(|(name, tls)| Some(format!("source {name}: {}", tls.warning(now)?))).collect()
    }

    /// Sources of which a part does not come.
    fn in_part(&self) -> Vec<String> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let partial = |(name, source): &(String, SourceHandle)| {
            let outage = source.outage().filter(|outage| outage.is_partial)?;
            Some(format!("source {name} does not bring in all: {}", standing(&outage)))
        };
        sources.iter().flatten().filter_map(partial).collect()
    }

    fn why_not(&self) -> Option<String> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sources) = &*sources else { return Some("no source listens yet".to_owned()) };
        let idle = sources.iter().filter_map(|(name, source)| match source.end() {
            // It has brought all that it was to bring.
            Some(Ok(())) => None,
            Some(Err(why)) => Some(format!("source {name} has failed: {why}")),
            None => source
                .outage()
                .filter(|outage| !outage.is_partial)
                .map(|outage| format!("source {name} brings nothing in: {}", standing(&outage))),
        });
        let idle: Vec<_> = idle.collect();
        (!idle.is_empty()).then(|| idle.join("; "))
    }
}

/// So long nothing at all is settled while batches wait, and the daemon counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// So long the stores may take to be read, and their servers to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is settled, since when no more was.
#[derive(Debug, Default)]
pub(super) struct Progress {
    settled: u64,
    since: Option<Instant>,
}

impl Progress {
    /// For how long, at least, nothing was settled while there was something to settle: as far as looks like this one can tell.
    fn look(&mut self, settled: u64, waiting: bool, now: Instant) -> Duration {
        if !waiting || settled != self.settled {
            self.since = None;
        }
        self.settled = settled;
        if !waiting {
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now))
    }
}

pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    let tenants = admin.system.tenants();
    let mut checks = checks(&admin, &tenants);
    for check in checks.iter_mut().filter(|check| check.name == "stores" && check.ok) {
        let (unread, away) = futures::future::join(unread(&admin), admin.servers.away(PATIENCE)).await;
        check.why = unread.or(away);
        check.ok = check.why.is_none();
    }
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let notes = failing(&tenants).into_iter().chain(admin.listening.in_part());
    let notes = notes.chain(admin.listening.notes(SystemTime::now())).collect();
    (status, Json(Ready { ready, checks, notes })).into_response()
}

/// What must hold, as far as memory knows it: nothing is read for it.
fn checks(admin: &Admin, tenants: &[TenantSnapshot]) -> Vec<Check> {
    let system = &admin.system;
    let health = system.health();
    let checks = [
        ("running", system.is_draining().then(|| "it drains: it takes nothing new".to_owned())),
        ("sources", admin.listening.why_not()),
        ("journal", journal_trouble(&system.journal_health())),
        ("stores", away(tenants)),
        (
            "actors",
            health.hung.map(|hung| hung.to_string()).or(health.failed.map(|failed| {
                format!("the {} failed, and was left alone at {}: {}", failed.actor, failed.since, failed.cause.detail)
            })),
        ),
        ("progress", stuck(admin, system, tenants)),
    ];
    checks.map(|(name, why)| Check { name: name.to_owned(), ok: why.is_none(), why }).into_iter().collect()
}

/// Why the daemon is not ready, the most pressing thing first; none where it is, as far as memory knows.
pub(super) fn trouble(admin: &Admin, tenants: &[TenantSnapshot]) -> Option<String> {
    const PRESSING: [&str; 6] = ["actors", "journal", "stores", "progress", "sources", "running"];
    let checks = checks(admin, tenants);
    let broken = |name: &&str| checks.iter().find(|check| check.name == **name && !check.ok);
    PRESSING.iter().find_map(broken).map(|check| {
        let why = check.why.as_deref().unwrap_or_default();
        match check.name.as_str() {
            "journal" => format!("the journal: {why}"),
            _ => why.to_owned(),
        }
    })
}

/// Why, since when, and when it is tried again.
pub(super) fn standing(outage: &Outage) -> String {
    let Outage { why, since, next_attempt_at, .. } = outage;
    let next = next_attempt_at.map_or(String::new(), |at| format!("; it is tried again at {at}"));
    format!("{why} (since {since}{next})")
}

/// Tenants of whose events some were given up lately.
fn failing(tenants: &[TenantSnapshot]) -> Option<String> {
    let mut failing = tenants.iter().filter(|tenant| tenant.status == Status::Failing);
    let first = failing.next()?;
    let who = match failing.count() {
        0 => format!("tenant {}", first.tenant),
        more => format!("tenant {} and {more} more", first.tenant),
    };
    Some(format!("events of {who} were given up within the last minute; `headworks explain {}` says why", first.tenant))
}

/// What is wrong with the journal, of which it goes without saying that it is the subject.
pub(super) fn journal_trouble(journal: &Health) -> Option<String> {
    match &journal.failing {
        Some(why) => {
            let why = why.as_ref();
            Some(format!("it cannot be written: {}", why.strip_prefix("it cannot be written: ").unwrap_or(why)))
        }
        None if journal.is_full => Some("its quota (journal.max_bytes) is reached: sources wait".to_owned()),
        None => None,
    }
}

/// A store that says that it is not there, by the tenants that wait for it.
fn away(tenants: &[TenantSnapshot]) -> Option<String> {
    let mut parked = tenants.iter().filter(|tenant| tenant.status == Status::Parked);
    let first = parked.next()?;
    let who = match parked.count() {
        0 => format!("tenant {} waits", first.tenant),
        more => format!("tenant {} and {more} more wait", first.tenant),
    };
    Some(format!("a store is away: {who} for it; `headworks explain {}` says why", first.tenant))
}

async fn unread(admin: &Admin) -> Option<String> {
    match tokio::time::timeout(PATIENCE, admin.read(|_| Ok(()))).await {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(format!("cannot be read: {why}")),
        Err(_) => Some(format!("cannot be opened within {}", humantime::format_duration(PATIENCE))),
    }
}

fn stuck(admin: &Admin, system: &System, tenants: &[TenantSnapshot]) -> Option<String> {
    // What an operator stopped waits by order.
    let waiting: u64 =
        tenants.iter().filter(|tenant| tenant.status != Status::Stopped).map(|tenant| tenant.batches_waiting).sum();
    let settled = tenants.iter().map(|tenant| tenant.counters.settled()).sum();
    let now = Instant::now();
    let mut progress = admin.progress.lock().unwrap_or_else(PoisonError::into_inner);
    let lasting = progress.look(settled, waiting > 0 && !system.is_draining(), now);
    (lasting >= STUCK_AFTER).then(|| {
        let lasting = humantime::format_duration(Duration::from_secs(lasting.as_secs()));
        format!("{waiting} batches wait, and none of any tenant was settled for {lasting}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_while_nothing_at_all_is_settled_is_stuck() {
        let began = Instant::now();
        let mut progress = Progress::default();
        let mut look =
            |settled, waiting, second| progress.look(settled, waiting, began + Duration::from_secs(second)).as_secs();
        assert_eq!(look(0, true, 0), 0);
        assert_eq!(look(0, true, 59), 59);
        assert_eq!(look(1, true, 61), 0, "something was settled, by whatever tenant");
        assert_eq!(look(1, false, 90), 0);
        assert_eq!(look(1, true, 100), 0, "what waits has come since");
        assert_eq!(look(1, true, 160), 60);
    }
}
