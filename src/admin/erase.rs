use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use headworks_actors::{DeadLetterQuery, System, TenantId, What};
use serde::{Deserialize, Serialize};

use super::body::Whole;
use super::tenants::drained;
use super::{Admin, Problem};

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
    /// Dead letters.
    pub dead_letters: u64,
    /// Frames that came meanwhile and were dropped at the door. They are counted as muted.
    #[serde(default)]
    pub dropped: u64,
    /// Whether its events are let in again. They are not where it was muted before.
    #[serde(default)]
    pub let_in: bool,
    /// What is not gone yet, or does not go by this, in sentences.
    pub remains: Vec<String>,
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
    let _one_at_a_time = admin.erasing.lock().await;
    refused(&admin, &tenant).await?;
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
    // Taken down everywhere before anything goes: the next start goes on where a crash cut this short.
    if let Some(replayer) = &admin.replayer {
        replayer.letters().begin_erasing_letters(&tenant).await.map_err(Problem::internal)?;
    }
    let stores = || admin.stores.iter().filter_map(|(_, store)| store.as_ref());
    for store in stores() {
        store.begin_erasure(&tenant).await.map_err(Problem::internal)?;
    }
    let mut events = 0;
    for store in stores() {
        events += store.go_on_erasing(&tenant).await.map_err(Problem::internal)?;
    }
    let dead_letters = match &admin.replayer {
        Some(replayer) => replayer.letters().erase_letters(&tenant).await.map_err(Problem::internal)?,
        None => 0,
    };
    let (dropped, let_in) = (closed.dropped(), !closed.was_muted);
    drop(closed);
    let told = format!("{events} events and {dead_letters} dead letters{}", meanwhile(dropped, let_in));
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
    Ok(Json(Erased { tenant, events, dead_letters, dropped, let_in, remains }))
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

/// A store that cannot erase must have nothing of it, and somebody must know the tenant.
async fn refused(admin: &Admin, tenant: &TenantId) -> Result<(), Problem> {
    let unable: Vec<_> =
        admin.stores.iter().filter(|(_, store)| store.is_none()).map(|(name, _)| name.clone()).collect();
    let wanted = tenant.clone();
    let (held, is_known) = admin
        .read(move |store| {
            let mut held = None;
            for name in unable {
                if store.events_in(&name, &wanted)? > 0 {
                    held = Some(name);
                }
            }
            let mut query = DeadLetterQuery::default();
            query.tenant = Some(wanted.clone());
            let is_known =
                store.tenants()?.iter().any(|totals| totals.tenant == wanted) || store.count_dead_letters(&query)? > 0;
            Ok((held, is_known))
        })
        .await?;
    if let Some(store) = held {
        let why = format!(
            "{tenant} is not erased: the store {store} has events of it in plain files or on a server, and cannot erase them while it \
             runs; stop the daemon and remove the directory of the tenant there, or delete its rows from batches and events by SQL"
        );
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    if !is_known && admin.system.tenant(tenant).is_none() {
        return Err(Problem::not_found(format!("there is no tenant {tenant}: no event and no dead letter of it")));
    }
    Ok(())
}
