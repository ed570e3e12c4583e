use std::collections::BTreeMap;
use std::path::Path as FsPath;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use headworks_actors::{
    BatchDetail, DeadLetterQuery, Policy, TenantDetail, TenantHandle, TenantId, ThrottleDetail, ThrottlePolicy,
    UnixMillis, What, WhenOver,
};
use serde::{Deserialize, Serialize};

use super::health::{journal_trouble, standing};
use super::{Admin, Inspect, JournalFiles, JournalTenant, Problem, TenantRow, UncompensatedRow, advice, log};
use crate::store::{StoreReadError, StoreReader};
use crate::supervisor_log::{self, LogCause, LogEntry, LogQuery, rfc3339};

/// So many entries of the supervisor log are looked at.
const ENTRIES: usize = 200;
/// So many rollbacks are counted at the most.
const ROLLBACKS: usize = 100_000;
/// And so many are told, the newest.
const TOLD: usize = 8;

/// All that is known of one tenant, in the words of a [`TenantDetail`] and of the files: what `headworks explain` shows.
///
/// Of a directory at rest there is no actor, no timer and no report: those fields are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// Whose.
    pub tenant: String,
    /// When this was read.
    #[serde(with = "rfc3339")]
    pub at: UnixMillis,
    /// Whether a daemon runs; else the files were read.
    pub is_live: bool,
    /// In the words of [`Status`](headworks_actors::Status); `unknown` where no daemon runs or none has met the tenant.
    pub status: String,
    /// Since when it is so, where it is in trouble and the log says it.
    #[serde(with = "rfc3339::option")]
    pub since: Option<UnixMillis>,
    /// What holds up everybody, and so this tenant too: why the journal takes nothing.
    pub journal_trouble: Option<String>,
    /// Which sources bring nothing in, or not all, and why: this tenant's events may be what does not come.
    pub sources_trouble: Vec<String>,
    /// What is to be done about it, in words; nothing where nothing is wrong.
    pub advice: Vec<String>,
    /// Whether its events are dropped at the door.
    pub is_muted: bool,
    /// When an actor that waits for its restart, or the quarantine, has waited enough.
    #[serde(with = "rfc3339::option")]
    pub restart_at: Option<UnixMillis>,
    /// The open window.
    pub window: Option<ExplainedWindow>,
    /// Whether its sender is silent, where that is listened for.
    pub silence: Option<ExplainedSilence>,
    /// Batches that wait, the one in front included.
    pub backlog: ExplainedBacklog,
    /// The batch in front, once work on it has begun.
    pub batch: Option<ExplainedBatch>,
    /// What could not be undone of its batches that were given up, and is tried again.
    pub uncompensated: Vec<UncompensatedRow>,
    /// Its circuit breakers, of stores at which its last call failed.
    pub breakers: Vec<ExplainedBreaker>,
    /// Its actors.
    pub actors: Vec<ExplainedActor>,
    /// Who goes first at a store, in the words of a [`PriorityPolicy`](headworks_actors::PriorityPolicy). None at rest.
    pub priority: Option<ExplainedPriority>,
    /// The rate it is held to, if it is to any.
    pub throttle: Option<ExplainedThrottle>,
    /// The counters, in the words of the accounting, and `in_flight`. At rest those that the journal has.
    pub counters: BTreeMap<String, u64>,
    /// What it failed with since the daemon was started, by code.
    pub failures: Vec<ExplainedFailure>,
    /// What was compensated, by all of the log that is kept; where memory alone was asked, by its newest entries there.
    pub compensations: Compensations,
    /// What the store holds of it.
    pub stored: Option<TenantRow>,
    /// Its dead letters that no replay brought back; `None` where the store was not asked.
    pub letters_waiting: Option<u64>,
    /// The newest entries of the supervisor log about it that say more than that it is alive, oldest first.
    pub log: Vec<LogEntry>,
}

/// See [`OpenWindow`](headworks_actors::OpenWindow).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `OpenWindow`")]
pub struct ExplainedWindow {
    pub events: u64,
    pub max_events: u64,
    pub bytes: u64,
    pub max_bytes: u64,
    #[serde(with = "rfc3339::option")]
    pub due_at: Option<UnixMillis>,
    #[serde(with = "rfc3339::option")]
    pub oldest_at: Option<UnixMillis>,
}

/// See [`SilenceDetail`](headworks_actors::SilenceDetail).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `SilenceDetail`")]
pub struct ExplainedSilence {
    pub silent_ms: Option<u64>,
    pub heard_ms_ago: Option<u64>,
    pub expected_within_ms: Option<u64>,
    pub is_learnt: bool,
}

/// See [`Backlog`](headworks_actors::Backlog).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `Backlog`")]
pub struct ExplainedBacklog {
    pub batches: u64,
    pub events: u64,
    pub bytes: u64,
    #[serde(with = "rfc3339::option")]
    pub oldest_at: Option<UnixMillis>,
    pub unread: u64,
    /// Events that lie in the journal alone, and about what they take there, in bytes.
    pub in_journal: u64,
    pub in_journal_bytes: u64,
    /// Those that may be in the store already: at rest, an attempt has no outcome on record.
    pub batches_open: u64,
}

/// See [`BatchDetail`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `BatchDetail`")]
pub struct ExplainedBatch {
    pub id: String,
    pub events: u64,
    pub bytes: u64,
    pub store: Option<String>,
    pub attempt: u32,
    pub attempts_spent: u32,
    pub attempts_allowed: u32,
    #[serde(with = "rfc3339::option")]
    pub open_since: Option<UnixMillis>,
    #[serde(with = "rfc3339::option")]
    pub next_attempt_at: Option<UnixMillis>,
    #[serde(with = "rfc3339::option")]
    pub wants_turn_since: Option<UnixMillis>,
    pub is_parked: bool,
    pub is_given_up: bool,
    pub last_cause: Option<LogCause>,
    pub undo_steps: Vec<String>,
}

/// See [`BreakerDetail`](headworks_actors::BreakerDetail).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `BreakerDetail`")]
pub struct ExplainedBreaker {
    pub store: String,
    pub state: String,
    pub failures: u32,
    #[serde(with = "rfc3339::option")]
    pub probe_at: Option<UnixMillis>,
}

/// See [`PriorityPolicy`](headworks_actors::PriorityPolicy).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `PriorityPolicy`")]
pub struct ExplainedPriority {
    pub class: String,
    pub weight: u32,
}

/// See [`ThrottlePolicy`](headworks_actors::ThrottlePolicy).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `ThrottlePolicy`")]
pub struct ExplainedThrottle {
    pub events_per_second: u64,
    pub bytes_per_second: u64,
    pub when_over: String,
    /// How many may pass at once now, where that is known.
    pub events_left: Option<u64>,
    pub bytes_left: Option<u64>,
}

impl ExplainedThrottle {
    fn of(policy: &ThrottlePolicy, now: Option<ThrottleDetail>) -> Self {
        Self {
            events_per_second: policy.events_per_second,
            bytes_per_second: policy.bytes_per_second as u64,
            when_over: match policy.when_over {
                WhenOver::Reject => "reject",
                _ => "delay",
            }
            .to_owned(),
            events_left: now.and_then(|now| now.events_left),
            bytes_left: now.and_then(|now| now.bytes_left),
        }
    }
}

/// One actor: its word, how often it was restarted, and what is wrong with it, if anything is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `ActorDetail`")]
pub struct ExplainedActor {
    pub actor: String,
    pub epoch: u64,
    pub status: Option<String>,
}

/// See [`ReportEntry`](headworks_actors::ReportEntry).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the words of `ReportEntry`")]
pub struct ExplainedFailure {
    pub code: String,
    pub failures: u64,
    pub events: u64,
    pub last_minute: u64,
    pub last_5_minutes: u64,
    pub last_hour: u64,
    #[serde(with = "rfc3339")]
    pub first_at: UnixMillis,
    #[serde(with = "rfc3339")]
    pub last_at: UnixMillis,
    pub sample: String,
}

/// Compensations in the newest entries of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Compensations {
    /// Batches that were rolled back whole.
    pub batches: u64,
    /// Undo steps and rollbacks that ran.
    pub run: u64,
    /// Those that failed for good.
    pub failed: u64,
    /// When the first of them was.
    #[serde(with = "rfc3339::option")]
    pub since: Option<UnixMillis>,
}

impl Explanation {
    /// From what a running system knows.
    fn live(detail: TenantDetail, policy: &Policy) -> Self {
        let TenantDetail { snapshot, window, backlog, batch, breakers, throttle, actors, failures, .. } = detail;
        let mut counters = numbers(&serde_json::to_value(snapshot.counters).unwrap_or_default());
        counters.insert("in_flight".to_owned(), snapshot.in_flight);
        Self {
            tenant: detail.tenant.to_string(),
            at: detail.at,
            is_live: true,
            status: snapshot.status.as_str().to_owned(),
            is_muted: snapshot.is_muted,
            window: Some(ExplainedWindow {
                events: window.events,
                max_events: window.max_events,
                bytes: window.bytes,
                max_bytes: window.max_bytes,
                due_at: window.due_at,
                oldest_at: window.oldest_at,
            }),
            silence: snapshot.silence.map(|silence| ExplainedSilence {
                silent_ms: silence.silent_ms,
                heard_ms_ago: silence.heard_ms_ago,
                expected_within_ms: silence.expected_within_ms,
                is_learnt: silence.is_learnt,
            }),
            backlog: ExplainedBacklog {
                batches: backlog.batches,
                events: backlog.events,
                bytes: backlog.bytes,
                oldest_at: backlog.oldest_at,
                unread: backlog.unread,
                in_journal: snapshot.in_journal,
                in_journal_bytes: snapshot.in_journal_bytes,
                batches_open: 0,
            },
            batch: batch.map(ExplainedBatch::from),
            breakers: breakers
                .into_iter()
                .map(|breaker| ExplainedBreaker {
                    store: breaker.store.to_string(),
                    state: breaker.state.as_str().to_owned(),
                    failures: breaker.failures,
                    probe_at: breaker.probe_at,
                })
                .collect(),
            actors: actors
                .into_iter()
                .map(|actor| ExplainedActor {
                    actor: actor.actor.as_str().to_owned(),
                    epoch: actor.epoch,
                    status: actor.status.map(|status| status.as_str().to_owned()),
                })
                .collect(),
            counters,
            priority: Some(ExplainedPriority {
                class: policy.priority.class.as_str().to_owned(),
                weight: policy.priority.weight,
            }),
            throttle: policy.throttle.is_set().then(|| ExplainedThrottle::of(&policy.throttle, throttle)),
            failures: failures
                .into_iter()
                .map(|entry| ExplainedFailure {
                    code: entry.code.as_str().to_owned(),
                    failures: entry.failures,
                    events: entry.events,
                    last_minute: entry.last_minute,
                    last_5_minutes: entry.last_5_minutes,
                    last_hour: entry.last_hour,
                    first_at: entry.first_at,
                    last_at: entry.last_at,
                    sample: entry.sample.to_string(),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// From the files of a data directory that no daemon writes to. `None` where they know no such tenant.
    ///
    /// # Errors
    /// Something is there and cannot be read, in words.
    pub fn at_rest(data_dir: &FsPath, tenant: &TenantId) -> Result<Option<Self>, String> {
        let journal = data_dir.join("journal");
        let told = if journal.is_dir() {
            let summary = JournalFiles::new(journal).summary().map_err(|why| why.to_string())?;
            summary.tenants.into_iter().find(|told| told.tenant == *tenant)
        } else {
            None
        };
        let stored = match data_dir.join("headworks.db").exists() {
            true => StoreReader::open(data_dir).and_then(|store| row(&store, tenant)).map_err(|why| why.to_string())?,
            false => (None, 0),
        };
        let (stored, letters) = stored;
        let query = LogQuery { tenant: Some(tenant.clone()), is_brief: true, ..LogQuery::default() };
        let read = |query: &LogQuery, last| {
            supervisor_log::read(&supervisor_log::file(data_dir), query, last)
                .map_err(|why| format!("the supervisor log cannot be read: {why}"))
        };
        let log = read(&query, ENTRIES)?;
        let rollbacks = read(&rollbacks_of(tenant), usize::MAX)?;
        if told.is_none() && stored.is_none() && log.entries.is_empty() {
            return Ok(None);
        }
        let mut explanation = Self {
            tenant: tenant.to_string(),
            at: UnixMillis::now(),
            status: "unknown".to_owned(),
            stored,
            letters_waiting: Some(letters),
            ..Self::default()
        };
        if let Some(JournalTenant { events, batches, batches_open, uncompensated, .. }) = told {
            explanation.uncompensated = uncompensated;
            explanation.counters = numbers(&serde_json::to_value(events).unwrap_or_default());
            explanation.backlog =
                ExplainedBacklog { batches, batches_open, events: events.in_flight, ..ExplainedBacklog::default() };
        }
        explanation.tell_log(log.entries, &rollbacks.entries);
        Ok(Some(explanation))
    }

    fn tell_log(&mut self, entries: Vec<LogEntry>, rollbacks: &[LogEntry]) {
        let rollbacks = rollbacks.iter().filter(|entry| entry.compensations_run + entry.compensations_failed > 0);
        self.compensations.since = rollbacks.clone().next().map(|entry| entry.since.unwrap_or(entry.at));
        for entry in rollbacks {
            // What could not be undone and was done later has no cause: its batch was counted.
            let is_whole = entry.what == "compensated" && entry.cause.is_some();
            self.compensations.batches += if is_whole { 1 + entry.repeats } else { 0 };
            self.compensations.run += entry.compensations_run;
            self.compensations.failed += entry.compensations_failed;
        }
        let began: &[&str] = match &*self.status {
            "parked" => &["parked"],
            "breaker_open" => &["breaker_opened"],
            "quarantined" => &["quarantined"],
            "stalled" => &["stalled"],
            "restarting" => &["backing_off"],
            _ => &[],
        };
        self.since = entries.iter().rev().find(|entry| began.contains(&&*entry.what)).map(|entry| entry.at);
        if self.status == "retrying" {
            // From the first of the failures in a row.
            let in_a_row = entries.iter().rev().take_while(|entry| matches!(&*entry.what, "failed" | "ambiguous"));
            self.since = in_a_row.last().map(|entry| entry.since.unwrap_or(entry.at));
        }
        if self.status == "failing" {
            self.since = failing_since(&entries);
        }
        if matches!(&*self.status, "restarting" | "quarantined") {
            let waits = entries.iter().rev().find(|entry| matches!(&*entry.what, "backing_off" | "quarantined"));
            self.restart_at = waits.and_then(|entry| entry.next_attempt_at);
        }
        self.log = entries;
        self.log.drain(..self.log.len().saturating_sub(TOLD));
        self.advice = advice::of(self);
    }
}

impl From<BatchDetail> for ExplainedBatch {
    fn from(batch: BatchDetail) -> Self {
        Self {
            id: batch.id.to_string(),
            events: batch.events,
            bytes: batch.bytes,
            store: batch.store.map(|store| store.to_string()),
            attempt: batch.attempt.0,
            attempts_spent: batch.attempts_spent,
            attempts_allowed: batch.attempts_allowed,
            open_since: batch.open_since,
            next_attempt_at: batch.next_attempt_at,
            wants_turn_since: batch.wants_turn_since,
            is_parked: batch.is_parked,
            is_given_up: batch.is_given_up,
            last_cause: batch
                .last_cause
                .map(|cause| LogCause { code: cause.code.as_str().to_owned(), detail: cause.detail.to_string() }),
            undo_steps: batch.undo_steps,
        }
    }
}

/// What was taken back of a tenant, or could not be.
fn rollbacks_of(tenant: &TenantId) -> LogQuery {
    let what = [What::Compensated, What::CompensationFailed].map(|what| what.as_str().to_owned());
    LogQuery { tenant: Some(tenant.clone()), what: what.into(), ..LogQuery::default() }
}

/// The numbers in an object, by name.
fn numbers(object: &serde_json::Value) -> BTreeMap<String, u64> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

/// What the store holds of it, and how many of its dead letters no replay brought back.
fn row(store: &StoreReader, tenant: &TenantId) -> Result<(Option<TenantRow>, u64), StoreReadError> {
    let row = store.tenants()?.into_iter().find(|totals| totals.tenant == *tenant).map(TenantRow::from);
    let (of, every) = (Some(tenant.clone()), 1 << 40);
    let mut waiting = DeadLetterQuery::default();
    (waiting.tenant, waiting.replayed, waiting.limit) = (of, Some(false), every);
    let letters =
        if row.as_ref().is_some_and(|row| row.dead_letters > 0) { store.count_dead_letters(&waiting)? } else { 0 };
    Ok((row, letters))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whether what is in memory is enough, for who asks every second: neither the store nor the files of the log are read.
    #[serde(default)]
    memory: bool,
}

impl Explanation {
    /// What is wrong with more than this tenant.
    fn tell_trouble(&mut self, admin: &Admin) {
        self.journal_trouble = journal_trouble(&admin.system.journal_health());
        let outages = admin.system.outages().into_iter().filter_map(|(name, outage)| Some((name, outage?)));
        self.sources_trouble = outages.map(|(name, outage)| format!("{name}: {}", standing(&outage))).collect();
    }
}

/// Without the store, and with the entries of the log that are still in memory.
fn from_memory(admin: &Admin, tenant: &TenantHandle) -> Explanation {
    let detail = tenant.explain();
    let opening = admin.system.opening();
    let query = LogQuery { is_brief: true, ..LogQuery::default() };
    let log: Vec<_> =
        detail.log.iter().map(|event| LogEntry::of(event, opening)).filter(|entry| query.matches(entry)).collect();
    let mut explanation = Explanation::live(detail, &tenant.policy());
    explanation.tell_trouble(admin);
    explanation.uncompensated = tenant.uncompensated().into_iter().map(UncompensatedRow::from).collect();
    let rollbacks = log.clone();
    explanation.tell_log(log, &rollbacks);
    explanation
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Explanation>, Problem> {
    let (Path(id), Query(wanted)) = (id?, wanted?);
    if wanted.memory
        && let Some(tenant) = admin.system.tenant(&id)
    {
        return Ok(Json(from_memory(&admin, &tenant)));
    }
    let wanted = id.clone();
    // The supervisor log and the system answer even where the store cannot be read: that may be what is to be explained.
    let read = admin.read(move |store| row(store, &wanted)).await.ok();
    let (stored, letters_waiting) = read.map_or((None, None), |(stored, letters)| (stored, Some(letters)));
    let query = LogQuery { tenant: Some(id.clone()), is_brief: true, ..LogQuery::default() };
    let log = log::history(&admin, &query, ENTRIES).await.map(|(log, _)| Vec::from(log)).unwrap_or_default();
    let rollbacks = log::history(&admin, &rollbacks_of(&id), ROLLBACKS).await;
    let rollbacks = rollbacks.map(|(log, _)| Vec::from(log)).unwrap_or_default();
    let live = admin.system.tenant(&id).map(|tenant| Explanation {
        uncompensated: tenant.uncompensated().into_iter().map(UncompensatedRow::from).collect(),
        ..Explanation::live(tenant.explain(), &tenant.policy())
    });
    if live.is_none() && stored.is_none() && log.is_empty() {
        return Err(Problem::not_found(format!("there is no tenant {id}: no event and no dead letter of it")));
    }
    let mut explanation = live.unwrap_or_else(|| Explanation {
        tenant: id.to_string(),
        at: UnixMillis::now(),
        is_live: true,
        status: "unknown".to_owned(),
        ..Explanation::default()
    });
    explanation.tell_trouble(&admin);
    (explanation.stored, explanation.letters_waiting) = (stored, letters_waiting);
    explanation.tell_log(log, &rollbacks);
    Ok(Json(explanation))
}

/// From the first of the batches on that were given up with no more than a minute in between.
fn failing_since(entries: &[LogEntry]) -> Option<UnixMillis> {
    const APART: i64 = 60_000;
    let given_up = entries.iter().rev().filter(|entry| matches!(&*entry.what, "dead_lettered" | "discarded"));
    let mut first: Option<UnixMillis> = None;
    for entry in given_up {
        if first.is_some_and(|first| first.0 - entry.at.0 > APART) {
            break;
        }
        first = Some(entry.since.unwrap_or(entry.at));
    }
    first
}
