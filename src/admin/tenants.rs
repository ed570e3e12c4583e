use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use headworks_actors::{TenantId, TenantSnapshot, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Admin, Problem};
use crate::store::sqlite::TenantTotals;
use crate::store::{StoreReadError, StoreReader};

/// What the store holds of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantRow {
    /// None for dead letters of frames that name no tenant.
    pub tenant: Option<TenantId>,
    /// Events in the store.
    pub events: u64,
    /// Batches in the store.
    pub batches: u64,
    /// Dead letters of the tenant.
    pub dead_letters: u64,
    /// When the first of its events arrived, if any did: RFC 3339.
    pub first_arrived: Option<String>,
    /// When the last one did.
    pub last_arrived: Option<String>,
}

impl TenantRow {
    /// Whether the store holds anything of it.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.batches > 0 || self.dead_letters > 0
    }
}

impl From<TenantTotals> for TenantRow {
    fn from(totals: TenantTotals) -> Self {
        let text = |time: Option<UnixMillis>| time.map(|time| time.to_string());
        Self {
            tenant: Some(totals.tenant),
            events: totals.events,
            batches: totals.batches,
            dead_letters: totals.dead_letters,
            first_arrived: text(totals.first_arrived),
            last_arrived: text(totals.last_arrived),
        }
    }
}

/// What the store holds, by tenant; last the dead letters of no tenant, if there are any.
///
/// # Errors
/// Something cannot be read.
pub fn rows(store: &StoreReader) -> Result<Vec<TenantRow>, StoreReadError> {
    let mut rows: Vec<_> = store.tenants()?.into_iter().map(TenantRow::from).collect();
    let dead_letters = store.dead_letters_without_tenant()?;
    if dead_letters > 0 {
        rows.push(TenantRow { dead_letters, ..TenantRow::default() });
    }
    Ok(rows)
}

/// A tenant in the store, in the system, or in both.
#[derive(Serialize)]
pub(super) struct Tenant {
    #[serde(flatten)]
    row: TenantRow,
    /// How it is now, if it came up since the daemon was started.
    live: Option<TenantSnapshot>,
}

pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Vec<Tenant>>, Problem> {
    let mut live: BTreeMap<_, _> = admin.system.tenants().into_iter().map(|now| (now.tenant.clone(), now)).collect();
    let mut tenants: Vec<_> = admin
        .read(rows)
        .await?
        .into_iter()
        .map(|row| Tenant { live: row.tenant.as_ref().and_then(|tenant| live.remove(tenant)), row })
        .collect();
    tenants.extend(live.into_values().map(only_live));
    // By name, and last what is of no tenant.
    tenants.sort_by(|a, b| (a.row.tenant.is_none(), &a.row.tenant).cmp(&(b.row.tenant.is_none(), &b.row.tenant)));
    Ok(Json(tenants))
}

/// What a tenant of a running daemon can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Order {
    /// See [`TenantHandle::resume`](headworks_actors::TenantHandle::resume).
    Resume,
    /// See [`TenantHandle::stop`](headworks_actors::TenantHandle::stop).
    Stop,
    /// See [`TenantHandle::restart`](headworks_actors::TenantHandle::restart).
    Restart,
    /// See [`TenantHandle::passivate`](headworks_actors::TenantHandle::passivate).
    Passivate,
    /// See [`TenantHandle::flush`](headworks_actors::TenantHandle::flush).
    Flush,
    /// See [`TenantHandle::mute`](headworks_actors::TenantHandle::mute). The tenant need not be known yet.
    Mute,
    /// See [`TenantHandle::unmute`](headworks_actors::TenantHandle::unmute).
    Unmute,
}

impl Order {
    /// The word for it in a route.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Passivate => "passivate",
            Self::Flush => "flush",
            Self::Mute => "mute",
            Self::Unmute => "unmute",
        }
    }

    /// What has become of a tenant that was told so.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Resume => "resumed",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
            Self::Passivate => "passivated",
            Self::Flush => "flushed",
            Self::Mute => "muted",
            Self::Unmute => "unmuted",
        }
    }
}

/// The answer to an order that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Who was told.
    pub tenant: TenantId,
    /// What.
    pub order: Order,
}

/// How long a passivation may wait for what is in flight.
const PASSIVATE_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn order(
    State(admin): State<Admin>,
    told: Result<Path<(TenantId, Order)>, PathRejection>,
) -> Result<Json<Ordered>, Problem> {
    let Path((tenant, order)) = told?;
    match (order, admin.system.tenant(&tenant)) {
        (Order::Mute, _) => admin.system.mute(&tenant),
        (Order::Unmute, _) => admin.system.unmute(&tenant),
        (_, None) => {
            let why = format!(
                "there is no tenant {tenant} in the running daemon: none of its events came since it was started"
            );
            return Err(Problem::not_found(why));
        }
        (Order::Resume, Some(handle)) => handle.resume(),
        (Order::Stop, Some(handle)) => handle.stop(),
        (Order::Restart, Some(handle)) => handle.restart(),
        (Order::Flush, Some(handle)) => handle.flush(),
        (Order::Passivate, Some(handle)) => match tokio::time::timeout(PASSIVATE_WITHIN, handle.passivate()).await {
            Ok(done) => done.map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))?,
            Err(_) => {
                let TenantSnapshot { in_flight, status, .. } = handle.snapshot();
                let within = humantime::format_duration(PASSIVATE_WITHIN);
                let why = format!(
                    "tenant {tenant} is not passivated: after {within} it is {status} with {in_flight} events in flight; it goes \
                     on as it was"
                );
                return Err(Problem::new(StatusCode::CONFLICT, why));
            }
        },
    }
    Ok(Json(Ordered { tenant, order }))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
) -> Result<Json<Tenant>, Problem> {
    let Path(id) = id?;
    let live = admin.system.tenant(&id).map(|tenant| tenant.snapshot());
    let wanted = id.clone();
    let find = move |store: &StoreReader| {
        Ok(store.tenants()?.into_iter().find(|totals| totals.tenant == wanted).map(TenantRow::from))
    };
    match (admin.read(find).await?, live) {
        (Some(row), live) => Ok(Json(Tenant { row, live })),
        (None, Some(live)) => Ok(Json(only_live(live))),
        (None, None) => Err(Problem::not_found(format!("there is no tenant {id}: no event and no dead letter of it"))),
    }
}

fn only_live(live: TenantSnapshot) -> Tenant {
    Tenant { row: TenantRow { tenant: Some(live.tenant.clone()), ..TenantRow::default() }, live: Some(live) }
}
