//! The admin API: what a running daemon answers over HTTP, now on the control socket in its data directory.
//!
//! | route | answers with |
//! |---|---|
//! | `GET /v1` | [`Hello`]: which program, which version, which process |
//! | `GET /v1/tenants` | what the store holds of every tenant, and how it is now |
//! | `GET /v1/tenants/{id}` | one of them |
//! | `POST /v1/tenants/{id}/{order}` | an [`Ordered`], once the [`Order`] is carried out: `resume`, `stop`, ... |
//! | `GET /v1/tenants/{id}/policy` | the rules it lives by now: a [`Policy`](crate::Policy) |
//! | `PATCH /v1/tenants/{id}/policy` | changes what a [`PolicyRequest`] says, until the process ends: [`PolicyChanged`] |
//! | `GET /v1/tenants/{id}/explain?memory=` | all that is known of one: an [`Explanation`] |
//! | `GET /v1/tenants/{id}/events?since=&until=&limit=&store=&follow=&as=` | its stored events in order, one a line; see [`EventsRequest`] |
//! | `GET /v1/log?tenant=&what=&since=&last=&brief=&follow=` | the supervisor log, one [`LogEntry`](crate::supervisor_log::LogEntry) a line; see [`LogRequest`] |
//! | `GET /v1/report` | what failed so far, by tenant and code: a [`FailureReport`] |
//! | `GET /v1/uncompensated?tenant=` | what could not be undone yet: an [`UncompensatedRow`] each |
//! | `GET /v1/dead-letters?tenant=&reason=&since=&until=&replayed=&limit=` | the newest [`Letter`]s that match a [`LetterFilter`], oldest first |
//! | `GET /v1/dead-letters/{id}` | one of them; the id percent-encoded |
//! | `PUT /v1/dead-letters/{id}` | edits it: the request is its new body, the answer the [`Letter`] |
//! | `POST /v1/dead-letters/replay` | replays what a [`ReplayRequest`] says, and answers with a [`ReplayReport`](crate::source::ReplayReport) at its end |
//! | `POST /v1/dead-letters/purge` | forgets what a [`PurgeRequest`] says: [`Purged`] |
//! | `POST /v1/dead-letters/export` | what an [`ExportRequest`] says, one letter a line |
//! | `GET /v1/audit` | an [`Audit`](crate::audit::Audit) |
//! | `GET /v1/journal` | what the durable journal holds: a [`JournalSummary`] |
//! | `GET /v1/journal/verify` | whether it is whole: a [`Verdict`] |
//! | `GET /v1/journal/export?tenant=&as=` | its unsettled events, one a line, as [`ExportAs`] says |
//! | `GET /v1/overview?tenants=` | the whole system at one moment, a row a tenant: an [`Overview`] |
//! | `GET /`, `/page/...` | the page for a browser, which asks the routes above |
//!
//! Answers are JSON, errors `application/problem+json` (RFC 9457, [`Problem`]). What reads the
//! database does so on a thread for such work and a connection of its own, and never holds up the store.

mod audit;
mod dead_letters;
mod events;
mod explain;
mod journal;
mod letter;
mod log;
mod overview;
mod page;
mod pieces;
mod policy;
mod problem;
mod report;
mod socket;
mod tenants;
mod uncompensated;

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Json, Router};
use headworks_actors::System;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use crate::source::Replayer;
use crate::store::{SqliteStore, StoreReadError, StoreReader};

pub use dead_letters::{ExportRequest, PurgeRequest, Purged, ReplayRequest, edited, export_letters};
pub use events::{EventRow, EventsAs, EventsRequest, write_events};
pub use explain::{
    Compensations, ExplainedActor, ExplainedBacklog, ExplainedBatch, ExplainedBreaker, ExplainedFailure,
    ExplainedWindow, Explanation,
};
pub use journal::{ExportAs, Inspect, JournalFiles, JournalStream, JournalSummary, JournalTenant, Segment, Verdict};
pub use letter::{Letter, LetterBody, LetterFilter, LettersAs, reason};
pub use log::LogRequest;
pub use overview::{OVERVIEW_COLUMNS, Overview, OverviewTotals};
pub use page::is_page;
pub use policy::{PolicyChanged, PolicyRequest};
pub use problem::Problem;
pub use report::{FailureReport, FailureRow};
pub use socket::Address;
pub use tenants::{Order, Ordered, TenantRow, rows};
pub use uncompensated::UncompensatedRow;

/// What the handlers answer from.
#[derive(Clone)]
pub struct Admin {
    system: System,
    data_dir: Arc<PathBuf>,
    journal: Option<Arc<dyn Inspect>>,
    replayer: Option<Replayer<SqliteStore>>,
    /// Held while the rules of a tenant are changed.
    rules: Arc<Mutex<()>>,
    /// Its sender goes when the daemon ends.
    ending: Option<watch::Receiver<()>>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Admin {
    /// Of a system whose stores are in a data directory.
    #[must_use]
    pub fn new(system: System, data_dir: PathBuf) -> Self {
        Self {
            system,
            data_dir: Arc::new(data_dir),
            journal: None,
            replayer: None,
            rules: Arc::default(),
            ending: None,
        }
    }

    /// The system's journal is durable.
    #[must_use]
    pub fn journal(mut self, journal: Arc<dyn Inspect>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// The system's dead letters may be edited, purged and replayed.
    #[must_use]
    pub fn replayer(mut self, replayer: Replayer<SqliteStore>) -> Self {
        self.replayer = Some(replayer);
        self
    }

    /// Answers that go on, as to one who follows the log, end once the sender is dropped.
    #[must_use]
    pub fn until(mut self, ending: watch::Receiver<()>) -> Self {
        self.ending = Some(ending);
        self
    }

    async fn ends(&self) {
        match self.ending.clone() {
            // An error is the word that the sender has gone.
            Some(mut ending) => while ending.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }

    /// The routes above.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1", get(hello))
            .route("/v1/tenants", get(tenants::list))
            .route("/v1/tenants/{id}", get(tenants::show))
            .route("/v1/tenants/{id}/explain", get(explain::show))
            .route("/v1/tenants/{id}/events", get(events::show))
            .route("/v1/tenants/{id}/policy", get(policy::show).patch(policy::change))
            .route("/v1/tenants/{id}/{order}", post(tenants::order).fallback(problem::only_post))
            .route("/v1/log", get(log::show))
            .route("/v1/report", get(report::show))
            .route("/v1/uncompensated", get(uncompensated::list))
            .route("/v1/dead-letters", get(dead_letters::list))
            // An id has slashes in it.
            .route("/v1/dead-letters/{*id}", get(dead_letters::show).put(dead_letters::edit))
            .route("/v1/dead-letters/replay", post(dead_letters::replay))
            .route("/v1/dead-letters/purge", post(dead_letters::purge))
            .route("/v1/dead-letters/export", post(dead_letters::export))
            // A frame may be as large as the configuration says.
            .layer(DefaultBodyLimit::disable())
            .route("/v1/audit", get(audit::show))
            .route("/v1/journal", get(journal::summary))
            .route("/v1/journal/verify", get(journal::verify))
            .route("/v1/journal/export", get(journal::export))
            .route("/v1/overview", get(overview::show))
            .route("/", get(page::index))
            .route("/page/{file}", get(page::file))
            .fallback(problem::no_such_route)
            .method_not_allowed_fallback(problem::no_such_method)
            .with_state(self)
    }

    /// Reads the database where that holds nobody up.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&StoreReader) -> Result<T, StoreReadError> + Send + 'static,
    ) -> Result<T, Problem> {
        let file = self.data_dir.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let store = StoreReader::open(&file).map_err(Problem::internal)?;
            read(&store).map_err(Problem::internal)
        });
        reading.await.map_err(Problem::internal)?
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `headworks`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The id of its process.
    pub process: u32,
}

async fn hello() -> Json<Hello> {
    let (name, version) = (env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Json(Hello { name, version, process: std::process::id() })
}
