use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use headworks_actors::{LogItem, Subscription, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Admin, Problem};
use crate::supervisor_log::{self, Found, LogEntry, LogQuery};

/// How many entries are answered with where the request does not say.
const LAST: usize = 50;
/// How many may be asked for.
const MOST: usize = 100_000;

/// What is asked of `/v1/log`: the query of the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// Those of one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Those of these kinds, with commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Those from a time on, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// How many at the most, the newest; 50 if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Whether to go on with what comes.
    #[serde(default)]
    pub follow: bool,
    /// Whether those are left out that say no more than that an actor is alive.
    #[serde(default)]
    pub brief: bool,
    /// Whether each entry says in a field `sentence` what it means, as `headworks log` does.
    #[serde(default)]
    pub sentences: bool,
}

impl LogRequest {
    /// Which entries that means.
    #[must_use]
    pub fn query(&self) -> LogQuery {
        let what = self.what.iter().flat_map(|what| what.split(',')).filter(|word| !word.is_empty());
        LogQuery {
            tenant: self.tenant.clone(),
            what: what.map(str::to_owned).collect(),
            since: self.since.map(UnixMillis),
            is_brief: self.brief,
        }
    }
}

pub(super) async fn show(
    State(admin): State<Admin>,
    headers: HeaderMap,
    request: Result<Query<LogRequest>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(request) = request?;
    let (query, last) = (request.query(), request.last.unwrap_or(LAST));
    if last > MOST {
        return Err(Problem::bad_request(format!("last is {last}; it must be at most {MOST}")));
    }
    let as_events = headers.get_all(header::ACCEPT).iter().any(wants_events);
    let had = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|_| as_events);
    let (mut history, entries) = history(&admin, &query, if had.is_some() { MOST } else { last }).await?;
    // Where what it had is in no file any more, all that is there has come since.
    if let Some(place) = had.and_then(|had| history.iter().rposition(|entry| event_id(entry).as_deref() == Some(had))) {
        history.drain(..=place);
    }
    let write = if as_events { event } else { line };
    let mut lines = vec![];
    for entry in &history {
        lines.extend(write(entry, request.sentences));
    }
    let kind = if as_events { "text/event-stream" } else { "application/jsonl" };
    // What is live is never to be kept for later.
    let kind = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    if !request.follow && !as_events {
        return Ok((kind, lines).into_response());
    }
    let has_sentences = request.sentences;
    let state = Following { admin, query, entries, write, has_sentences, is_silent: !as_events, is_over: false };
    let more = futures::stream::unfold(state, async |mut state| Some((Ok(state.next().await?), state)));
    let lines = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(lines))]);
    Ok((kind, Body::from_stream(futures::StreamExt::chain(lines, more))).into_response())
}

/// The newest entries: those in the files, and those that are not there yet. With it, a place to go on from.
pub(super) async fn history(
    admin: &Admin,
    query: &LogQuery,
    last: usize,
) -> Result<(VecDeque<LogEntry>, Subscription), Problem> {
    let (path, asked) = (supervisor_log::file(&admin.data_dir), query.clone());
    let reading = tokio::task::spawn_blocking(move || supervisor_log::read(&path, &asked, last));
    let Found { entries, last: place, .. } = reading
        .await
        .map_err(Problem::internal)?
        .map_err(|why| Problem::internal(format!("the supervisor log on disk cannot be read: {why}")))?;
    let opening = admin.system.opening();
    // Where the last line is of another opening, nothing of this one is on disk.
    let next = place.filter(|(of, _)| *of == opening.to_string()).map_or(0, |(_, cursor)| cursor + 1);
    let (mut history, mut rest) = (VecDeque::from(entries), admin.system.log().subscribe_from(next));
    while let Some(item) = rest.try_next() {
        if let Some(entry) = told(admin, query, &item) {
            history.push_back(entry);
        }
    }
    history.drain(..history.len().saturating_sub(last));
    Ok((history, rest))
}

/// The entry, if it is asked for. That some were missed always is.
fn told(admin: &Admin, query: &LogQuery, item: &LogItem) -> Option<LogEntry> {
    let opening = admin.system.opening();
    match item {
        LogItem::Event(event) if !supervisor_log::is_kept(event) => None,
        LogItem::Event(event) => Some(LogEntry::of(event, opening)).filter(|entry| query.matches(entry)),
        LogItem::Missed(missed) => Some(LogEntry::missed(opening, *missed, "more came than this reader took")),
    }
}

/// An entry, and what it means, as told when it came.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    entry: &'a LogEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentence: Option<String>,
}

fn line(entry: &LogEntry, has_sentence: bool) -> Vec<u8> {
    let sentence = has_sentence.then(|| supervisor_log::sentence(entry, entry.at, None));
    // Words and numbers: there is nothing in it that JSON cannot say.
    let mut line = serde_json::to_vec(&Told { entry, sentence }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Whether somebody asks for server-sent events in so many words.
fn wants_events(kinds: &HeaderValue) -> bool {
    let kinds = kinds.to_str().unwrap_or_default();
    kinds.split(',').any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/event-stream"))
}

/// The name of an entry of the system, for ever: the opening and its number there. The log's own entries have none.
fn event_id(entry: &LogEntry) -> Option<String> {
    entry.cursor.map(|cursor| format!("{}:{cursor}", entry.opening))
}

/// The entry as a server-sent event.
fn event(entry: &LogEntry, has_sentence: bool) -> Vec<u8> {
    let mut event = event_id(entry).map_or_else(Vec::new, |id| format!("id: {id}\n").into_bytes());
    event.extend_from_slice(b"data: ");
    event.extend(line(entry, has_sentence));
    event.push(b'\n');
    event
}

/// After so long without an entry one who follows by events is told that there is none: so both sides notice where the other has
/// gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Somebody who follows.
struct Following {
    admin: Admin,
    query: LogQuery,
    entries: Subscription,
    write: fn(&LogEntry, bool) -> Vec<u8>,
    has_sentences: bool,
    /// Whether nothing is said where there is nothing to say.
    is_silent: bool,
    is_over: bool,
}

impl Following {
    /// The next lines; `None` once the daemon ends.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let item = tokio::select! {
                biased;
                item = self.entries.next() => Some(item),
                () = self.admin.ends() => None,
                () = tokio::time::sleep(SILENCE), if !self.is_silent => return Some(Bytes::from_static(b":\n\n")),
            };
            self.is_over = item.is_none();
            let told = item.and_then(|item| told(&self.admin, &self.query, &item));
            if let Some(entry) = told {
                return Some((self.write)(&entry, self.has_sentences).into());
            }
        }
        None
    }
}
