use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use headworks_actors::{EventRef, JournalError, StreamId, TenantId};
use serde::{Deserialize, Serialize};

use super::{Admin, LetterBody, Problem, UncompensatedRow, pieces};
use crate::audit::Events;
use crate::journal::{DurableJournal, inspect};

/// Who can tell what is in a durable journal: its files at rest, or the journal that writes them. Calls block.
pub trait Inspect: Send + Sync + 'static {
    /// What it holds.
    ///
    /// # Errors
    /// It cannot be read.
    fn summary(&self) -> Result<JournalSummary, JournalError>;

    /// Reads every block and checks it.
    ///
    /// # Errors
    /// It cannot be read. Damage is no error but the answer.
    fn verify(&self) -> Result<Verdict, JournalError>;

    /// Writes all unsettled events, or those of one tenant: by tenant, each one's in order.
    ///
    /// # Errors
    /// It cannot be read, or `out` not be written.
    fn export(&self, tenant: Option<&TenantId>, form: ExportAs, out: &mut dyn Write) -> Result<(), JournalError>;
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportAs {
    /// The body as it came, and a newline: what the daemon takes in as lines.
    #[default]
    Lines,
    /// One JSON object a line: `tenant`, `arrived`, `time`, and `body`, or `body_hex` where it is not UTF-8.
    Json,
}

impl std::fmt::Display for ExportAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Lines => "lines",
            Self::Json => "json",
        })
    }
}

#[derive(Serialize)]
struct Exported<'e> {
    tenant: &'e TenantId,
    arrived: String,
    time: Option<String>,
    #[serde(flatten)]
    body: LetterBody,
}

fn write(form: ExportAs, tenant: &TenantId, event: &EventRef<'_>, out: &mut dyn Write) -> io::Result<()> {
    match form {
        ExportAs::Lines => out.write_all(event.body)?,
        ExportAs::Json => {
            let (arrived, time) = (event.arrived.to_string(), event.time.map(|time| time.to_string()));
            serde_json::to_writer(&mut *out, &Exported { tenant, arrived, time, body: LetterBody::from(event.body) })?;
        }
    }
    out.write_all(b"\n")
}

/// The files of a journal that no process writes.
#[derive(Debug, Clone)]
pub struct JournalFiles {
    directory: PathBuf,
}

impl JournalFiles {
    /// Those in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }
}

impl Inspect for JournalFiles {
    fn summary(&self) -> Result<JournalSummary, JournalError> {
        inspect::summary(&self.directory, |_, _| {}).map(JournalSummary::from)
    }

    fn verify(&self) -> Result<Verdict, JournalError> {
        inspect::summary(&self.directory, |_, _| {}).map(Verdict::from)
    }

    fn export(&self, tenant: Option<&TenantId>, form: ExportAs, out: &mut dyn Write) -> Result<(), JournalError> {
        inspect::export(&self.directory, tenant, |tenant, event| write(form, tenant, event, out)).map(drop)
    }
}

/// What a durable journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JournalSummary {
    /// Its files, in order.
    pub segments: Vec<Segment>,
    /// Their size and that of its checkpoints, in bytes.
    pub disk_bytes: u64,
    /// The part of it that unsettled events need, in bytes.
    pub live_bytes: u64,
    /// Why it cannot be written at the moment, if a process has it and cannot: it takes no events until it can.
    pub failing: Option<String>,
    /// Whether its last process closed it: else there may be a torn end, which is no damage.
    pub was_closed: bool,
    /// The length of that torn end: what a crash interrupted, and was never committed.
    pub torn_bytes: u64,
    /// Every tenant on record, by name.
    pub tenants: Vec<JournalTenant>,
    /// Every stream on record, by name.
    pub streams: Vec<JournalStream>,
    /// What is damaged, in words.
    pub damage: Vec<String>,
}

/// One file of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number, as in its name.
    pub number: u64,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The number of its first block.
    pub first_block: u64,
    /// How many it has.
    pub blocks: u64,
    /// The part of it that unsettled events need, in bytes.
    pub live_bytes: u64,
}

/// One tenant in a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalTenant {
    /// Whose.
    pub tenant: TenantId,
    /// What became of its events; those in flight are the unsettled ones.
    #[serde(flatten)]
    pub events: Events,
    /// The chunks that hold unsettled events.
    pub chunks: u64,
    /// Batches that were cut and have no outcome.
    pub batches: u64,
    /// Those of them that may be in the store already: an attempt has no outcome on record.
    pub batches_open: u64,
    /// Compensations that could not be done, and are tried again.
    #[serde(default)]
    pub uncompensated: Vec<UncompensatedRow>,
}

/// One sender's stream in a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStream {
    /// Its name.
    pub stream: StreamId,
    /// The position up to which its frames have their answers.
    pub position: u64,
    /// When it was last heard of: RFC 3339.
    pub at: String,
}

/// What reading every block came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether nothing is damaged.
    pub is_whole: bool,
    /// Blocks that are whole.
    pub blocks: u64,
    /// Bytes of a torn end, which is no damage.
    pub torn_bytes: u64,
    /// What is damaged, in words: where, and what is lost.
    pub damage: Vec<String>,
}

/// The journal that this process writes.
impl Inspect for DurableJournal {
    fn summary(&self) -> Result<JournalSummary, JournalError> {
        Self::summary(self).map(JournalSummary::from)
    }

    fn verify(&self) -> Result<Verdict, JournalError> {
        Self::summary(self).map(Verdict::from)
    }

    fn export(&self, tenant: Option<&TenantId>, form: ExportAs, out: &mut dyn Write) -> Result<(), JournalError> {
        Self::export(self, tenant, &mut |tenant, event| write(form, tenant, event, out)).map(drop)
    }
}

impl From<inspect::Summary> for JournalSummary {
    fn from(summary: inspect::Summary) -> Self {
        let segments = summary.segments.into_iter().map(|segment| Segment {
            number: segment.number,
            bytes: segment.bytes,
            first_block: segment.first_block,
            blocks: segment.blocks,
            live_bytes: segment.live_bytes,
        });
        let tenants = summary.tenants.into_iter().map(|told| JournalTenant {
            events: Events {
                accepted: told.accepted,
                stored: told.stored,
                dead_lettered: told.dead_lettered,
                shed: told.shed,
                discarded: told.discarded,
                in_flight: told.in_flight,
            },
            chunks: told.chunks,
            batches: told.batches,
            batches_open: told.open_attempts,
            uncompensated: told.uncompensated.into_iter().map(UncompensatedRow::from).collect(),
            tenant: told.tenant,
        });
        let streams = summary.streams.into_iter().map(|told| JournalStream {
            stream: told.stream,
            position: told.position,
            at: told.at.to_string(),
        });
        Self {
            segments: segments.collect(),
            disk_bytes: summary.disk_bytes,
            live_bytes: summary.live_bytes,
            failing: summary.failing,
            was_closed: summary.is_closed,
            torn_bytes: summary.torn_bytes,
            tenants: tenants.collect(),
            streams: streams.collect(),
            damage: summary.damage,
        }
    }
}

impl From<inspect::Summary> for Verdict {
    fn from(inspect::Summary { blocks, torn_bytes, damage, .. }: inspect::Summary) -> Self {
        Self { is_whole: damage.is_empty(), blocks, torn_bytes, damage }
    }
}

/// Asks the journal where that holds nobody up.
async fn ask<T: Send + 'static>(
    admin: &Admin,
    ask: impl FnOnce(&dyn Inspect) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, Problem> {
    let journal = journal(admin)?;
    let asked = tokio::task::spawn_blocking(move || ask(&*journal).map_err(Problem::internal));
    asked.await.map_err(Problem::internal)?
}

fn journal(admin: &Admin) -> Result<Arc<dyn Inspect>, Problem> {
    let none = || Problem::not_found("this daemon keeps its journal in memory: there are no files of one");
    admin.journal.clone().ok_or_else(none)
}

pub(super) async fn summary(State(admin): State<Admin>) -> Result<Json<JournalSummary>, Problem> {
    ask(&admin, |journal| journal.summary()).await.map(Json)
}

pub(super) async fn verify(State(admin): State<Admin>) -> Result<Json<Verdict>, Problem> {
    ask(&admin, |journal| journal.verify()).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    tenant: Option<TenantId>,
    #[serde(default, rename = "as")]
    form: ExportAs,
}

pub(super) async fn export(
    State(admin): State<Admin>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Wanted { tenant, form }) = wanted?;
    let journal = journal(&admin)?;
    Ok(pieces::stream(move |out| journal.export(tenant.as_ref(), form, out).map_err(io::Error::other)))
}
