use axum::Json;
use axum::extract::State;
use headworks_actors::{Report, ReportEntry, UnixMillis};
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::supervisor_log::rfc3339;

/// What failed since the daemon was started, by tenant and code: see [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureReport {
    /// When counting began.
    #[serde(with = "rfc3339")]
    pub since: UnixMillis,
    /// When this was made.
    #[serde(with = "rfc3339")]
    pub at: UnixMillis,
    /// Each pair of tenant and code that failed.
    pub entries: Vec<FailureRow>,
}

/// The failures of one tenant with one code: see [`ReportEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `ReportEntry`")]
pub struct FailureRow {
    /// None where no tenant is known.
    pub tenant: Option<String>,
    pub code: String,
    pub failures: u64,
    pub events: u64,
    pub recent: u64,
    pub last_minute: u64,
    pub last_5_minutes: u64,
    pub last_hour: u64,
    #[serde(with = "rfc3339")]
    pub first_at: UnixMillis,
    #[serde(with = "rfc3339")]
    pub last_at: UnixMillis,
    pub sample: String,
}

impl From<Report> for FailureReport {
    fn from(Report { since, at, entries }: Report) -> Self {
        Self { since, at, entries: entries.into_iter().map(FailureRow::from).collect() }
    }
}

impl From<ReportEntry> for FailureRow {
    fn from(entry: ReportEntry) -> Self {
        Self {
            tenant: entry.tenant.map(|tenant| tenant.to_string()),
            code: entry.code.as_str().to_owned(),
            failures: entry.failures,
            events: entry.events,
            recent: entry.recent,
            last_minute: entry.last_minute,
            last_5_minutes: entry.last_5_minutes,
            last_hour: entry.last_hour,
            first_at: entry.first_at,
            last_at: entry.last_at,
            sample: entry.sample.to_string(),
        }
    }
}

pub(super) async fn show(State(admin): State<Admin>) -> Json<FailureReport> {
    Json(admin.system.report().into())
}
