use std::io::{self, Write};
use std::num::NonZeroU32;

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use headworks_actors::{DeadLetterQuery, DeadLetters, EditAnswer, StorageError, UnixMillis};
use serde::{Deserialize, Serialize};

use super::body::Whole;
use super::{Admin, Letter, LetterFilter, LettersAs, Problem, pieces};
use crate::source::{REPLAY_RATE, ReplayError, ReplayReport, Replayer};
use crate::store::{SqliteStore, StoreReadError, StoreReader};

pub(super) async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<LetterFilter>, QueryRejection>,
) -> Result<Json<Vec<Letter>>, Problem> {
    let Query(wanted) = wanted?;
    let query = wanted.query().map_err(Problem::bad_request)?;
    let letters = admin.read(move |store| store.dead_letters(&query)).await?;
    Ok(Json(letters.iter().map(Letter::from).collect()))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Letter>, Problem> {
    let Path(id) = id?;
    let wanted = id.clone();
    match admin.read(move |store| store.dead_letter(&wanted)).await? {
        Some(letter) => Ok(Json(Letter::from(&letter))),
        None => Err(missing(&id)),
    }
}

fn missing(id: &str) -> Problem {
    Problem::not_found(format!("there is no dead letter {id:?}"))
}

/// What is to be replayed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayRequest {
    /// Which letters.
    pub which: LetterFilter,
    /// How many a second; default 1,000.
    pub rate: Option<NonZeroU32>,
    /// Whether only to say what would be.
    pub dry_run: bool,
}

pub(super) async fn replay(
    State(admin): State<Admin>,
    Whole(request): Whole<ReplayRequest>,
) -> Result<Json<ReplayReport>, Problem> {
    let ReplayRequest { which, rate, dry_run } = request;
    let query = which.query().map_err(Problem::bad_request)?;
    let replayer = replayer(&admin)?;
    let done = match dry_run {
        true => replayer.preview(&query).await,
        false => replayer.replay(&admin.system, &query, rate.unwrap_or(REPLAY_RATE)).await,
    };
    done.map(Json).map_err(|why| match why {
        ReplayError::UnderWay => Problem::new(StatusCode::CONFLICT, why),
        why => Problem::internal(why),
    })
}

/// What is to be purged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeRequest {
    /// Which letters.
    pub which: LetterFilter,
    /// Whether only to say how many they are.
    pub dry_run: bool,
}

/// What became of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// How many letters went, or would go.
    pub letters: u64,
}

pub(super) async fn purge(
    State(admin): State<Admin>,
    Whole(request): Whole<PurgeRequest>,
) -> Result<Json<Purged>, Problem> {
    let PurgeRequest { which, dry_run } = request;
    let query = which.query().map_err(Problem::bad_request)?;
    let letters = match dry_run {
        true => admin.read(move |store| store.count_dead_letters(&query)).await?,
        false => {
            let letters = replayer(&admin)?.letters().purge(&query).await.map_err(Problem::internal)?;
            tracing::info!(target: "headworks", letters, "dead letters were purged");
            letters
        }
    };
    Ok(Json(Purged { letters }))
}

pub(super) async fn edit(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Letter>, Problem> {
    let (Path(id), body) = (id?, body.map_err(|why| Problem::new(why.status(), why.body_text()))?);
    let letters = replayer(&admin)?.letters();
    let answer = edited(letters, &id, body).await.map_err(Problem::internal)?;
    if let Err(why) = answer {
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    match letters.get(&id).await.map_err(Problem::internal)? {
        Some(letter) if answer == Ok(true) => {
            tracing::info!(target: "headworks", id, "a dead letter was edited");
            Ok(Json(Letter::from(&letter)))
        }
        _ => Err(missing(&id)),
    }
}

/// Edits a letter; false where there is none of that id.
///
/// # Errors
/// It cannot be written; or, within, why it must not be edited.
pub async fn edited(letters: &SqliteStore, id: &str, body: Bytes) -> Result<Result<bool, String>, StorageError> {
    Ok(match letters.edit(id, body, UnixMillis::now()).await? {
        EditAnswer::Edited => Ok(true),
        EditAnswer::Missing => Ok(false),
        EditAnswer::Replayed => Err(format!("dead letter {id} was replayed: what it says is an event already")),
        EditAnswer::InReplay => Err(format!("dead letter {id} belongs to a replay that has not ended; wait for it")),
    })
}

fn replayer(admin: &Admin) -> Result<&Replayer<SqliteStore>, Problem> {
    admin
        .replayer
        .as_ref()
        .ok_or_else(|| Problem::internal("this admin API was made without the dead letters to change"))
}

/// What is to be exported, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportRequest {
    /// Which letters.
    pub which: LetterFilter,
    /// In which form.
    #[serde(rename = "as")]
    pub form: LettersAs,
}

pub(super) async fn export(
    State(admin): State<Admin>,
    Whole(request): Whole<ExportRequest>,
) -> Result<Response, Problem> {
    let ExportRequest { which, form } = request;
    let query = which.query().map_err(Problem::bad_request)?;
    let data_dir = admin.data_dir.clone();
    Ok(pieces::stream(move |out| {
        let store = StoreReader::open(&data_dir).map_err(io::Error::other)?;
        export_letters(&store, &query, form, out)
    }))
}

/// Writes all letters that match, oldest first, whatever the query's limit is.
///
/// # Errors
/// They cannot be read, or `out` not be written.
pub fn export_letters(
    store: &StoreReader,
    query: &DeadLetterQuery,
    form: LettersAs,
    out: &mut dyn Write,
) -> io::Result<()> {
    let unread = |why: StoreReadError| io::Error::other(why);
    let mut query = query.clone();
    query.limit = 1_000;
    let mut after = Some(0);
    while let Some(at) = after {
        let page = store.dead_letter_page(&query, at).map_err(unread)?;
        for letter in &page.letters {
            match form {
                LettersAs::Raw => out.write_all(&letter.body)?,
                LettersAs::Ndjson => serde_json::to_writer(&mut *out, &Letter::from(letter))?,
            }
            out.write_all(b"\n")?;
        }
        after = page.next;
    }
    Ok(())
}
