//! The admin API: what a running daemon answers over HTTP, now on the control socket in its data directory.
//!
//! | route | answers with |
//! |---|---|
//! | `GET /healthz` | [`Alive`]: the process answers |
//! | `GET /readyz` | [`Ready`]: whether it does its work; 503 where it does not |
//! | `GET /v1` | [`Hello`]: which program, which version, which process |
//! | `GET /openapi.json` | the [description](openapi()) of all this: OpenAPI 3.1 |
//! | `GET /v1/tenants?limit=&cursor=&sort=&order=&name=&status=&muted=` | what the store holds of every tenant, and how it is now; see [`TenantsRequest`] |
//! | `POST /v1/tenants` | brings up what a [`SpawnRequest`] names |
//! | `GET /v1/tenants/{id}` | one of them |
//! | `POST /v1/tenants/{id}/{order}?within=` | an [`Ordered`], once the [`Order`] is carried out: `resume`, `stop`, ... |
//! | `POST /v1/tenants/{id}/erase` | erases what is kept of it, as an [`EraseRequest`] confirms: [`Erased`] |
//! | `GET /v1/tenants/{id}/policy` | the rules it lives by now: a [`Policy`](crate::Policy) |
//! | `PATCH /v1/tenants/{id}/policy` | changes what a [`PolicyRequest`] says, until the process ends: [`PolicyChanged`] |
//! | `GET /v1/tenants/{id}/explain?memory=` | all that is known of one: an [`Explanation`] |
//! | `GET /v1/tenants/{id}/events?since=&until=&limit=&store=&follow=&as=` | its stored events in order, one a line; see [`EventsRequest`] |
//! | `GET /v1/log?tenant=&what=&since=&last=&brief=&follow=` | the supervisor log, one [`LogEntry`](crate::supervisor_log::LogEntry) a line, or asked with `Accept: text/event-stream` an event each; see [`LogRequest`] |
//! | `GET /v1/failures`, `GET /v1/report` | what failed so far, by tenant and code: a [`FailureReport`] |
//! | `GET /v1/uncompensated?tenant=` | what could not be undone yet: an [`UncompensatedRow`] each |
//! | `GET /v1/dead-letters?tenant=&reason=&since=&until=&replayed=&limit=` | the newest [`Letter`]s that match a [`LetterFilter`], oldest first |
//! | `GET /v1/dead-letters/{id}` | one of them; the id percent-encoded |
//! | `PUT /v1/dead-letters/{id}` | edits it: the request is its new body, the answer the [`Letter`] |
//! | `POST /v1/dead-letters/replay` | replays what a [`ReplayRequest`] says, and answers with a [`ReplayReport`](crate::source::ReplayReport) at its end |
//! | `POST /v1/dead-letters/purge` | forgets what a [`PurgeRequest`] says: [`Purged`] |
//! | `POST /v1/dead-letters/export` | what an [`ExportRequest`] says, one letter a line |
//! | `GET /v1/config` | the configuration that it runs by: a [`RunningConfig`] |
//! | `GET /v1/audit` | an [`Audit`](crate::audit::Audit) |
//! | `GET /v1/journal` | what the durable journal holds: a [`JournalSummary`] |
//! | `GET /v1/journal/verify` | whether it is whole: a [`Verdict`] |
//! | `GET /metrics` | the numbers of the daemon for Prometheus: see [`metrics`](crate::metrics) |
//! | `GET /v1/journal/export?tenant=&as=` | its unsettled events, one a line, as [`ExportAs`] says |
//! | `GET /v1/overview?tenants=` | the whole system at one moment, a row a tenant: an [`Overview`] |
//! | `GET /v1/tap?tenant=&limit=&rate=&redact=` | events as they are accepted, a sample of them, one a line; see [`TapRequest`] |
//! | `GET /`, `/page/...` | the page for a browser, which asks the routes above |
//!
//! Answers are JSON, errors `application/problem+json` (RFC 9457, [`Problem`]). What reads the
//! database does so on a thread for such work and a connection of its own, and never holds up the store.

mod advice;
mod audit;
mod body;
mod config;
mod dead_letters;
mod erase;
mod events;
mod explain;
#[cfg(unix)]
mod guard;
mod health;
mod journal;
mod letter;
mod listing;
mod log;
mod metrics;
mod openapi;
mod overview;
mod page;
mod pieces;
mod policy;
mod problem;
mod prune;
mod report;
mod routes;
mod schemas;
mod socket;
mod tap;
mod tenants;
mod uncompensated;

use std::path::PathBuf;
use std::sync::Arc;

use axum::{Json, Router};
use headworks_actors::System;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, watch};

use crate::config::Running;
use crate::erasure::Eraser;
use crate::metrics::{Exported, Metrics};
use crate::retention::Pruner;
use crate::source::Replayer;
use crate::store::patient::Patient;
use crate::store::servers::Servers;
use crate::store::{SqliteStore, StoreReadError, StoreReader};

pub use config::RunningConfig;
pub use dead_letters::{ExportRequest, PurgeRequest, Purged, ReplayRequest, edited, export_letters};
pub use erase::{EraseRequest, Erased, NotErased};
pub use events::{EventRow, EventsAs, EventsRequest, write_events};
pub use explain::{
    Compensations, ExplainedActor, ExplainedBacklog, ExplainedBatch, ExplainedBreaker, ExplainedFailure,
    ExplainedPriority, ExplainedSilence, ExplainedThrottle, ExplainedWindow, Explanation,
};
#[cfg(unix)]
pub use guard::{Token, guarded};
pub use health::{Alive, Check, Listening, Ready};
pub use journal::{ExportAs, Inspect, JournalFiles, JournalStream, JournalSummary, JournalTenant, Segment, Verdict};
pub use letter::{Letter, LetterBody, LetterFilter, LettersAs, reason};
pub use listing::{Direction, TenantSort, TenantsRequest};
pub use log::LogRequest;
pub use openapi::document as openapi;
pub use overview::{OVERVIEW_COLUMNS, Overview, OverviewTotals};
pub use page::is_page;
pub use policy::{PolicyChanged, PolicyRequest};
pub use problem::Problem;
pub use prune::PruneRequest;
pub use report::{FailureReport, FailureRow};
pub use socket::Address;
pub use tap::TapRequest;
pub use tenants::{Order, OrderRequest, Ordered, SpawnRequest, TenantRow, rows};
pub use uncompensated::UncompensatedRow;

/// What the handlers answer from.
#[derive(Clone)]
pub struct Admin {
    system: System,
    data_dir: Arc<PathBuf>,
    journal: Option<Arc<dyn Inspect>>,
    replayer: Option<Replayer<SqliteStore>>,
    pruner: Option<Pruner>,
    /// Held while the rules of a tenant are changed.
    rules: Arc<Mutex<()>>,
    largest_frame: usize,
    eraser: Option<Eraser>,
    /// Held while a tenant is erased.
    erasing: Arc<Mutex<()>>,
    listening: Listening,
    patient: Patient,
    servers: Servers,
    progress: Arc<std::sync::Mutex<health::Progress>>,
    metrics: Metrics,
    exported: Exported,
    /// One scrape at a time.
    scraping: Arc<Semaphore>,
    /// A permit for each tap.
    tapping: Arc<Semaphore>,
    /// What the daemon runs by.
    running: Option<watch::Receiver<Arc<Running>>>,
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
            metrics: Metrics::new(system.clone()).process(),
            exported: Exported::default(),
            scraping: Arc::new(Semaphore::new(1)),
            tapping: Arc::new(Semaphore::new(tap::MOST)),
            system,
            data_dir: Arc::new(data_dir),
            journal: None,
            replayer: None,
            pruner: None,
            rules: Arc::default(),
            largest_frame: 1 << 30,
            eraser: None,
            erasing: Arc::default(),
            listening: Listening::default(),
            patient: Patient::default(),
            servers: Servers::default(),
            progress: Arc::default(),
            running: None,
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

    /// What is stored may be pruned by hand.
    #[must_use]
    pub(crate) fn pruner(mut self, pruner: Pruner) -> Self {
        self.pruner = Some(pruner);
        self
    }

    /// Tenants may be erased.
    #[must_use]
    pub(crate) fn eraser(mut self, eraser: Eraser) -> Self {
        self.eraser = Some(eraser);
        self
    }

    /// The largest frame that a source takes, in bytes: a dead letter may be edited to be so large. Default 1 GiB.
    #[must_use]
    pub fn largest_frame(mut self, bytes: usize) -> Self {
        self.largest_frame = bytes;
        self
    }

    /// The stores on servers, which it asks whether they are there.
    #[must_use]
    pub(crate) fn servers(mut self, servers: Servers) -> Self {
        self.servers = servers;
        self
    }

    /// The stores whose servers are asked again where a tenant is resumed.
    #[must_use]
    pub(crate) fn patient(mut self, stores: Patient) -> Self {
        self.patient = stores;
        self
    }

    /// The sources that must listen for the daemon to be ready.
    #[must_use]
    pub fn listening(mut self, sources: Listening) -> Self {
        self.listening = sources;
        self
    }

    /// So many tenants have series of their own in `/metrics`. Default [`Metrics::MAX_TENANTS`].
    #[must_use]
    pub fn metrics_max_tenants(mut self, max_tenants: usize) -> Self {
        self.metrics = self.metrics.max_tenants(max_tenants);
        self
    }

    /// The numbers, where others tell them too.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// What is exported by OTLP is counted here.
    #[cfg(feature = "otlp")]
    pub(crate) fn exported(mut self, exported: Exported) -> Self {
        self.exported = exported;
        self
    }

    /// The configuration is the one that is there.
    #[must_use]
    pub fn running(mut self, running: watch::Receiver<Arc<Running>>) -> Self {
        self.running = Some(running);
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
        routes::router(self.largest_frame)
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
