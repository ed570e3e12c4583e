use std::io::{self, Write};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use headworks_actors::{StoreName, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Admin, LetterBody, Problem};
use crate::store::{EventQuery, EventReader, StoreReadError, StoredEvent};

/// How often somebody who follows has a look.
const GLANCE: Duration = Duration::from_millis(200);
/// So much is answered at once, or what one batch comes to.
const PIECE: usize = 64 << 10;

/// What is asked of `/v1/tenants/{id}/events`: the query of the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsRequest {
    /// Those that arrived then or later, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Those that arrived then or earlier, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// How many at the most, the oldest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// In which store; else in the first that the tenant's batches go through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreName>,
    /// Whether to go on with what comes.
    pub follow: bool,
    /// In which form.
    #[serde(rename = "as")]
    pub form: EventsAs,
}

/// How stored events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventsAs {
    /// The bodies as they came, each with a newline behind it.
    #[default]
    Lines,
    /// JSON objects, one a line.
    Json,
}

/// A stored event as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Whose.
    pub tenant: TenantId,
    /// When it happened, if that is kept: RFC 3339.
    pub time: Option<String>,
    /// When it arrived, if that is kept: RFC 3339.
    pub arrived: Option<String>,
    /// The id of its batch.
    pub batch: String,
    /// Its place there, from 0.
    pub place: u64,
    /// The bytes as they came.
    #[serde(flatten)]
    pub body: LetterBody,
}

impl EventsRequest {
    /// Which events that means.
    #[must_use]
    pub fn query(&self, tenant: TenantId) -> EventQuery {
        let Self { since, until, limit, store, .. } = self;
        let mut query = EventQuery::of(tenant);
        (query.since, query.until) = (since.map(UnixMillis), until.map(UnixMillis));
        (query.limit, query.store) = (*limit, store.clone());
        query
    }
}

/// Writes an event of the tenant.
fn write(form: EventsAs, tenant: &TenantId, event: &StoredEvent<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    match form {
        EventsAs::Lines => out.extend_from_slice(event.body),
        EventsAs::Json => {
            let StoredEvent { time, arrived, batch, place, body } = event;
            let (time, arrived) = (time.map(|at| at.to_string()), arrived.map(|at| at.to_string()));
            let (tenant, batch, body) = (tenant.clone(), (*batch).to_owned(), LetterBody::from(*body));
            serde_json::to_writer(&mut *out, &EventRow { tenant, time, arrived, batch, place: *place, body })?;
        }
    }
    out.push(b'\n');
    Ok(())
}

/// Writes the events of the next batches, some at a time, as they are by now; false where there is none.
fn write_some(reader: &mut EventReader, form: EventsAs, tenant: &TenantId, out: &mut Vec<u8>) -> io::Result<bool> {
    let mut written = Ok(());
    while out.len() < PIECE && written.is_ok() {
        let next = reader.next_batch(|event| {
            if written.is_ok() {
                written = write(form, tenant, &event, out);
            }
        });
        if !next.map_err(io::Error::other)? {
            written?;
            return Ok(!out.is_empty());
        }
    }
    written.map(|()| true)
}

/// Writes all events that there are.
///
/// # Errors
/// They cannot be read, or `out` not be written.
pub fn write_events(
    reader: &mut EventReader,
    form: EventsAs,
    tenant: &TenantId,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut piece = vec![];
    while write_some(reader, form, tenant, &mut piece)? {
        out.write_all(&piece)?;
        piece.clear();
    }
    Ok(())
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
    request: Result<Query<EventsRequest>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(tenant), Query(request)) = (id?, request?);
    let (data_dir, query) = (admin.data_dir.clone(), request.query(tenant.clone()));
    let opening = tokio::task::spawn_blocking(move || {
        let reader = EventReader::open(&data_dir, query)?;
        let is_known = reader.knows()?;
        Ok::<_, StoreReadError>((reader, is_known))
    });
    let (reader, is_known) = opening.await.map_err(Problem::internal)?.map_err(Problem::bad_request)?;
    // Who follows may wait for one that is yet to come.
    if !is_known && !request.follow && admin.system.tenant(&tenant).is_none() {
        return Err(Problem::not_found(format!("there is no tenant {tenant}: no event and no dead letter of it")));
    }
    let state = Some(Reading { admin, reader, tenant, form: request.form, follow: request.follow });
    let pieces = futures::stream::unfold(state, async |state| match state?.next().await {
        Ok(Some((piece, state))) => Some((Ok(piece), Some(state))),
        Ok(None) => None,
        // Whoever asked learns of it by a broken connection.
        Err(why) => {
            tracing::error!(target: "headworks", %why, "stored events that were asked for cannot be read");
            Some((Err(why), None))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)).into_response())
}

/// Somebody who reads.
struct Reading {
    admin: Admin,
    reader: EventReader,
    tenant: TenantId,
    form: EventsAs,
    follow: bool,
}

impl Reading {
    /// What comes next; `None` where nothing does, or the daemon ends.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            let reading = tokio::task::spawn_blocking(move || {
                let mut piece = vec![];
                write_some(&mut self.reader, self.form, &self.tenant, &mut piece).map(|_| (piece, self))
            });
            let (piece, reading) = reading.await.map_err(io::Error::other)??;
            if !piece.is_empty() {
                return Ok(Some((piece.into(), reading)));
            }
            if !reading.follow || reading.reader.is_done() {
                return Ok(None);
            }
            self = reading;
            tokio::select! {
                () = tokio::time::sleep(GLANCE) => {}
                () = self.admin.ends() => return Ok(None),
            }
        }
    }
}
