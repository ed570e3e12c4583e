use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use headworks_actors::{Outage, SourceCounters, Status, TenantId, TenantSnapshot, UnixMillis};
use serde::{Deserialize, Serialize};

use super::health;
use super::{Admin, Problem};

/// The whole system at one moment, small enough to be asked for every second: raw counters, from which whoever asks makes rates.
///
/// Each tenant was read in one moment of its own, so that its events, and the sums of them, always add up; frames do at every
/// moment of rest.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// When, in milliseconds since 1970.
    pub at: UnixMillis,
    /// Of the program.
    pub version: &'static str,
    /// The id of the process.
    pub process: u32,
    /// Which start this is. Where it is another than before, counters may begin anew.
    pub opening: String,
    /// Why the daemon is not [ready](super::Ready), in words, the most pressing thing first; none where it is. Whether the stores can
    /// be read is not asked for it.
    pub trouble: Option<String>,
    /// The counters of all tenants.
    pub totals: OverviewTotals,
    /// The memory of all events in flight, in bytes.
    pub in_flight_bytes: usize,
    /// Dead letters of bad frames that are still to be kept.
    pub dead_letters_pending: u64,
    /// The counters of each source.
    pub sources: BTreeMap<Arc<str>, SourceCounters>,
    /// The sources that bring nothing in, or not all, and why.
    pub outages: BTreeMap<Arc<str>, Outage>,
    /// What the places of a row mean.
    pub columns: [&'static str; 14],
    /// A row a tenant, by name; empty with `tenants=false`.
    pub tenants: Vec<Row>,
}

/// The counters of all tenants together, in the words of [`Counters`](headworks_actors::Counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "the words of `Counters` and `TenantSnapshot`")]
pub struct OverviewTotals {
    pub tenants: u64,
    pub received: u64,
    pub accepted: u64,
    pub duplicate: u64,
    pub muted: u64,
    pub throttled: u64,
    pub rejected: u64,
    pub malformed: u64,
    pub stored: u64,
    pub dead_lettered: u64,
    pub shed: u64,
    pub discarded: u64,
    pub in_flight: u64,
    pub batches: u64,
    pub batches_waiting: u64,
    pub attempts_failed: u64,
    pub restarts: u64,
    pub uncompensated: u64,
    /// When the oldest event without an outcome arrived, in milliseconds since 1970.
    pub oldest_at: Option<UnixMillis>,
}

impl OverviewTotals {
    fn add(&mut self, tenant: &TenantSnapshot) {
        let counters = &tenant.counters;
        self.tenants += 1;
        self.received += counters.received;
        self.accepted += counters.accepted;
        self.duplicate += counters.duplicate;
        self.muted += counters.muted;
        self.throttled += counters.throttled;
        self.rejected += counters.rejected;
        self.malformed += counters.malformed;
        self.stored += counters.stored;
        self.dead_lettered += counters.dead_lettered;
        self.shed += counters.shed;
        self.discarded += counters.discarded;
        self.in_flight += tenant.in_flight;
        self.batches += counters.batches;
        self.batches_waiting += tenant.batches_waiting;
        self.attempts_failed += counters.attempts_failed;
        self.restarts += counters.restarts;
        self.uncompensated += tenant.uncompensated;
        self.oldest_at = match (self.oldest_at, tenant.oldest_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// What the places of an [`Overview`]'s rows mean. `refused` is what was muted, throttled or rejected; `oldest_at` is null where
/// nothing is in flight.
pub const OVERVIEW_COLUMNS: [&str; 14] = [
    "tenant",
    "status",
    "is_muted",
    "received",
    "accepted",
    "stored",
    "dead_lettered",
    "refused",
    "malformed",
    "in_flight",
    "oldest_at",
    "attempts_failed",
    "restarts",
    "uncompensated",
];

/// A tenant: an array, since the names of the fields would be most of the answer.
#[derive(Debug, Serialize)]
pub struct Row(TenantId, Status, bool, u64, u64, u64, u64, u64, u64, u64, Option<UnixMillis>, u64, u64, u64);

impl From<TenantSnapshot> for Row {
    fn from(now: TenantSnapshot) -> Self {
        let of = now.counters;
        Self(
            now.tenant,
            now.status,
            now.is_muted,
            of.received,
            of.accepted,
            of.stored,
            of.dead_lettered,
            of.muted + of.throttled + of.rejected,
            of.malformed,
            now.in_flight,
            now.oldest_at,
            of.attempts_failed,
            of.restarts,
            now.uncompensated,
        )
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whether with a row a tenant.
    #[serde(default = "yes")]
    tenants: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn show(
    State(admin): State<Admin>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Overview>, Problem> {
    let Query(wanted) = wanted?;
    let system = &admin.system;
    let snapshots = system.tenants();
    let mut totals = OverviewTotals::default();
    snapshots.iter().for_each(|tenant| totals.add(tenant));
    Ok(Json(Overview {
        at: UnixMillis::now(),
        version: env!("CARGO_PKG_VERSION"),
        process: std::process::id(),
        opening: system.opening().to_string(),
        trouble: health::trouble(&admin, &snapshots),
        totals,
        in_flight_bytes: system.in_flight_bytes(),
        dead_letters_pending: system.dead_letters_pending(),
        sources: system.sources().into_iter().collect(),
        outages: system.outages().into_iter().filter_map(|(name, outage)| Some((name, outage?))).collect(),
        columns: OVERVIEW_COLUMNS,
        tenants: if wanted.tenants { snapshots.into_iter().map(Row::from).collect() } else { vec![] },
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use headworks_actors::{MemoryStore, System};

    use super::*;

    #[tokio::test]
    async fn a_row_has_a_place_for_each_column_and_the_totals_are_those_of_the_rows() {
        let system = System::builder().store(MemoryStore::new()).start().unwrap();
        for (tenant, events) in [("acme", 3), ("zen", 4)] {
            let tenant = system.spawn(headworks_actors::TenantSpec::new(tenant).unwrap()).await.unwrap();
            tenant.offer(vec!["event"; events]).await.unwrap();
        }
        let data_dir = std::path::PathBuf::from("unused");
        let ask = async |tenants| {
            let sources = super::super::Listening::default();
            sources.set(vec![]);
            let admin = Admin::new(system.clone(), data_dir.clone()).listening(sources);
            let overview = show(State(admin), Ok(Query(Wanted { tenants }))).await.unwrap();
            serde_json::to_value(overview.0).unwrap()
        };
        let told = ask(true).await;
        let (columns, rows) = (told["columns"].as_array().unwrap(), told["tenants"].as_array().unwrap());
        let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == columns.len()), "{told}");
        assert_eq!((&rows[0][at("tenant")], &rows[1][at("accepted")]), (&"acme".into(), &4.into()));
        assert_eq!((&rows[0][at("is_muted")], &told["totals"]["accepted"]), (&false.into(), &7.into()));
        // What has no outcome yet has an age.
        for row in rows {
            assert_eq!(row[at("in_flight")].as_u64() == Some(0), row[at("oldest_at")].is_null(), "{told}");
        }
        assert_eq!((told["totals"]["tenants"].as_u64(), told["trouble"].is_null()), (Some(2), true));
        system.drain(Duration::from_secs(10)).await;
        let rested = ask(false).await;
        assert_eq!((&rested["tenants"], &rested["totals"]["stored"]), (&serde_json::json!([]), &7.into()));
        assert!(rested["totals"]["oldest_at"].is_null(), "{rested}");
    }
}
