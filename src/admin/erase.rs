use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use headworks_actors::{StorageError, StoreName, System, TenantId, What};
use serde::{Deserialize, Serialize};

use super::body::Whole;
use super::tenants::drained;
use super::{Admin, Problem};
use crate::erasure::Eraser;

/// The word that a tenant is to be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// The tenant's id once more: what is erased is gone.
    pub confirm: TenantId,
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Whose.
    pub tenant: TenantId,
    /// Events, in all stores together.
    pub events: u64,
    /// Messages of NATS streams, each a batch, or the word that one was taken back.
    #[serde(default)]
    pub messages: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Frames that came meanwhile and were dropped at the door. They are counted as muted.
    #[serde(default)]
    pub dropped: u64,
    /// Whether its events are let in again. They are not where it was muted before.
    #[serde(default)]
    pub let_in: bool,
    /// Stores that have events of it yet, or may have.
    #[serde(default)]
    pub not_erased: Vec<NotErased>,
    /// What is not gone yet, or does not go by this, in sentences.
    pub remains: Vec<String>,
}

/// A store from which a tenant was not erased, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotErased {
    /// Which.
    pub store: StoreName,
    /// Why.
    pub why: String,
    /// Whether the daemon goes on by itself until it is done.
    pub is_tried_again: bool,
}

/// How long what is in flight may take to be stored first.
const WITHIN: Duration = Duration::from_secs(30);

/// The tenant's events are dropped at the door for as long as this is kept; unless they were before, they are let in again then,
/// also where whoever asked has gone.
struct Closed<'a> {
    system: &'a System,
    tenant: &'a TenantId,
    was_muted: bool,
    /// How many of its frames had been dropped before.
    dropped: u64,
}

impl<'a> Closed<'a> {
    fn new(system: &'a System, tenant: &'a TenantId) -> Self {
        let was_muted = system.muted().contains(tenant);
        let dropped = muted(system, tenant);
        system.mute(tenant);
        Self { system, tenant, was_muted, dropped }
    }

    /// How many frames were dropped since.
    fn dropped(&self) -> u64 {
        muted(self.system, self.tenant).saturating_sub(self.dropped)
    }
}

fn muted(system: &System, tenant: &TenantId) -> u64 {
    system.tenant(tenant).map_or(0, |tenant| tenant.snapshot().counters.muted)
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if !self.was_muted {
            self.system.unmute(self.tenant);
        }
    }
}

pub(super) async fn erase(
    State(admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
    Whole(EraseRequest { confirm }): Whole<EraseRequest>,
) -> Result<Json<Erased>, Problem> {
    let Path(tenant) = id?;
    if confirm != tenant {
        let why = format!("{tenant} is not erased: confirm is {confirm}; repeat the id of the tenant there");
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    let Some(eraser) = &admin.eraser else {
        return Err(Problem::new(StatusCode::CONFLICT, "this system has no stores that tenants can be erased from"));
    };
    let _one_at_a_time = admin.erasing.lock().await;
    let beyond = known(&admin, eraser, &tenant).await?;
    let closed = Closed::new(&admin.system, &tenant);
    // What is in flight is in the journal: once it is stored, the journal has nothing of it that counts.
    if let Some(handle) = admin.system.tenant(&tenant) {
        drained(&handle, WITHIN).await?;
        let owed = handle.uncompensated().len();
        if owed > 0 {
            let why = format!(
                "{tenant} is not erased: {owed} of its compensations are not done, and may write to the stores yet; see \
                 `headworks uncompensated`"
            );
            return Err(Problem::new(StatusCode::CONFLICT, why));
        }
    }
    // A crash must not bring back from the journal what the store has lost.
    if tokio::time::timeout(WITHIN, admin.system.recorded()).await.is_err() {
        let why =
            format!("{tenant} is not erased: the journal cannot be written, and would bring back what the stores lose");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    let gone = eraser.erase(&tenant).await.map_err(|why| match why {
        StorageError::Unavailable { .. } => {
            let why = format!("{tenant} is not erased, and nothing was changed: {why}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)
        }
        why => Problem::internal(why),
    })?;
    let (dropped, let_in) = (closed.dropped(), !closed.was_muted);
    drop(closed);
    let mut told = gone.in_words();
    let not = |(store, why), is_tried_again| NotErased { store, why, is_tried_again };
    let mut not_erased: Vec<_> = gone.waits.into_iter().map(|of| not(of, true)).collect();
    not_erased.extend(gone.refused.into_iter().map(|of| not(of, false)));
    if !beyond.is_empty() {
        let names: Vec<_> = beyond.iter().map(|(name, _)| name.as_str()).collect();
        told += &format!("; what went to {} is out of reach", names.join(", "));
    }
    not_erased.extend(beyond.into_iter().map(|of| not(of, false)));
    told += &meanwhile(dropped, let_in);
    admin.system.log_order(&tenant, What::Erased, &told);
    let mut remains =
        vec!["its name and the counts of its events, and the supervisor log of what befell it".to_owned()];
    if admin.journal.is_some() {
        let why = "the bytes of its settled events in the journal, until the file that they are in is given back";
        remains.push(why.to_owned());
    }
    if admin.data_dir.join("headworks.segments").exists() {
        remains.push(
            "the bytes of its events in segments of layout = \"index\", until their segment is given back".to_owned(),
        );
    }
    remains.extend(eraser.remains().into_iter().map(str::to_owned));
    let (events, messages, dead_letters) = (gone.events, gone.messages, gone.dead_letters);
    Ok(Json(Erased { tenant, events, messages, dead_letters, dropped, let_in, not_erased, remains }))
}

/// What became of what came while a tenant was erased, and becomes of what comes after it.
fn meanwhile(dropped: u64, let_in: bool) -> String {
    let came = match dropped {
        0 => String::new(),
        1 => "; 1 frame that came meanwhile was dropped at the door".to_owned(),
        more => format!("; {more} frames that came meanwhile were dropped at the door"),
    };
    let then = match let_in {
        true => "; what comes from now on is let in and kept again",
        false => "; it stays muted",
    };
    came + then
}

/// Somebody must know the tenant. Where something of it may be that is out of reach, and why.
async fn known(admin: &Admin, eraser: &Eraser, tenant: &TenantId) -> Result<Vec<(StoreName, String)>, Problem> {
    let (wanted, eraser) = (tenant.clone(), eraser.clone());
    let is_here = admin.system.tenant(tenant).is_some();
    let (is_known, beyond) = admin
        .read(move |store| {
            let sent = eraser.sent().into_iter().filter(|(name, _)| store.goes_to(&wanted, name));
            let left = store.left(&wanted, |kind| eraser.is_now(kind)).into_iter();
            let beyond: Vec<_> = sent.chain(left.map(|why| (StoreName::ONLY, why))).collect();
            Ok((is_here || store.knows(&wanted)?, beyond))
        })
        .await?;
    match is_known {
        true => Ok(beyond),
        false => Err(Problem::not_found(format!("there is no tenant {tenant}: no event and no dead letter of it"))),
    }
}
