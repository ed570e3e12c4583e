use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use headworks_actors::{Error, Status, TenantHandle, TenantId, TenantSnapshot, TenantSpec, UnixMillis, What};
use serde::{Deserialize, Serialize};

use super::body::Whole;
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
    /// Whether its events and batches are not known, as nobody can read them back: they went to a webhook or the standard output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
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
            unread: false,
        }
    }
}

/// What the store holds, by tenant; last the dead letters of no tenant, if there are any.
///
/// # Errors
/// Something cannot be read.
pub fn rows(store: &StoreReader) -> Result<Vec<TenantRow>, StoreReadError> {
    let mut rows: Vec<_> = store.tenants()?.into_iter().map(TenantRow::from).collect();
    for row in &mut rows {
        row.unread = row.batches == 0 && row.tenant.as_ref().is_some_and(|tenant| store.is_unread(tenant));
    }
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
    pub(super) row: TenantRow,
    /// How it is now, if it came up since the daemon was started.
    pub(super) live: Option<TenantSnapshot>,
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
    /// The same.
    Pause,
    /// See [`TenantHandle::restart`](headworks_actors::TenantHandle::restart).
    Restart,
    /// See [`TenantHandle::passivate`](headworks_actors::TenantHandle::passivate).
    Passivate,
    /// See [`TenantHandle::flush`](headworks_actors::TenantHandle::flush).
    Flush,
    /// Flushes it, and waits until nothing of it is in flight, for as long as is said.
    Drain,
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
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Passivate => "passivate",
            Self::Flush => "flush",
            Self::Drain => "drain",
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
            Self::Pause => "paused",
            Self::Restart => "restarted",
            Self::Passivate => "passivated",
            Self::Flush => "flushed",
            Self::Drain => "drained",
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
    /// What is to be said of it, where there was nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// What is said with an order: the query of the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrderRequest {
    /// For how long `drain` and `passivate` may wait for what is in flight: `30s`, or `500ms`, of at most three digits; 10 s if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// How long an order may wait for what is in flight where it is not said.
const WITHIN: Duration = Duration::from_secs(10);
/// How often somebody who waits has a look.
const GLANCE: Duration = Duration::from_millis(20);

impl OrderRequest {
    fn within(&self) -> Result<Duration, Problem> {
        let Some(text) = &self.within else { return Ok(WITHIN) };
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number = number.parse::<u64>().ok().filter(|_| number.len() <= 3);
        match (number, unit) {
            (Some(number), "ms") => Ok(Duration::from_millis(number)),
            (Some(number), "s") => Ok(Duration::from_secs(number)),
            _ => {
                Err(Problem::bad_request(format!("within is {text:?}; it must be like 30s or 500ms, of at most 999s")))
            }
        }
    }
}

pub(super) async fn order(
    State(admin): State<Admin>,
    told: Result<Path<(TenantId, Order)>, PathRejection>,
    request: Result<Query<OrderRequest>, QueryRejection>,
) -> Result<Json<Ordered>, Problem> {
    let (Path((tenant, order)), Query(request)) = (told?, request?);
    let within = request.within()?;
    // A mute says so itself.
    if order == Order::Mute || order == Order::Unmute {
        match order {
            Order::Mute => admin.system.mute(&tenant),
            _ => admin.system.unmute(&tenant),
        }
        return Ok(Json(Ordered { tenant, order, remark: None }));
    }
    let handle = known(&admin, &tenant)?;
    let remark = remark(order, &handle.snapshot())?;
    admin.system.log_order(&tenant, What::Ordered, order.as_str());
    let mut remark = remark;
    match order {
        Order::Resume => {
            if admin.patient.ask_again(&tenant) {
                remark = Some("its store had asked to be left alone, and is asked again now".to_owned());
            }
            handle.resume();
        }
        Order::Stop | Order::Pause => handle.stop(),
        Order::Restart => handle.restart(),
        Order::Flush => handle.flush(),
        Order::Drain => drained(&handle, within).await?,
        Order::Passivate => match tokio::time::timeout(within, handle.passivate()).await {
            Ok(done) => done.map_err(|why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))?,
            Err(_) => return Err(in_flight(&handle, order, within)),
        },
        Order::Mute | Order::Unmute => {}
    }
    Ok(Json(Ordered { tenant, order, remark }))
}

/// What an order has nothing to do with, as the tenant is; an error where it could not be carried out.
fn remark(order: Order, now: &TenantSnapshot) -> Result<Option<String>, Problem> {
    let TenantSnapshot { tenant, status, window, .. } = now;
    let is_held = matches!(status, Status::Stopped | Status::Quarantined | Status::Restarting);
    match order {
        Order::Flush if *window == 0 => Ok(Some("its window was empty".to_owned())),
        Order::Flush if is_held => {
            let events = if *window == 1 { "1 event".to_owned() } else { format!("{window} events") };
            let why = format!(
                "tenant {tenant} is not flushed: it is {status}, and its window with {events} stays open until its actors run; resume it first"
            );
            Err(Problem::new(StatusCode::CONFLICT, why))
        }
        Order::Resume if !is_held => Ok(Some(format!("nothing held it: it was {status}"))),
        _ => Ok(None),
    }
}

/// The tenant, if the running daemon has met it.
pub(super) fn known(admin: &Admin, tenant: &TenantId) -> Result<TenantHandle, Problem> {
    admin.system.tenant(tenant).ok_or_else(|| {
        Problem::not_found(format!(
            "there is no tenant {tenant} in the running daemon: none of its events came since it was started"
        ))
    })
}

/// Waits until nothing of it is in flight; windows that open meanwhile are closed.
pub(super) async fn drained(handle: &TenantHandle, within: Duration) -> Result<(), Problem> {
    let wait = async {
        loop {
            let TenantSnapshot { in_flight, window, .. } = handle.snapshot();
            match (in_flight, window) {
                (0, _) => return,
                (_, 0) => {}
                _ => handle.flush(),
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    tokio::time::timeout(within, wait).await.map_err(|_| in_flight(handle, Order::Drain, within))
}

/// It has taken too long.
fn in_flight(handle: &TenantHandle, order: Order, within: Duration) -> Problem {
    let TenantSnapshot { tenant, in_flight, status, .. } = handle.snapshot();
    let (order, within) = (order.done(), humantime::format_duration(within));
    let why = format!(
        "tenant {tenant} is not {order}: after {within} it is {status} with {in_flight} events in flight; it goes on as it was"
    );
    Problem::new(StatusCode::CONFLICT, why)
}

/// A tenant that is to come up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnRequest {
    /// Its name.
    pub tenant: TenantId,
}

pub(super) async fn spawn(
    State(admin): State<Admin>,
    Whole(request): Whole<SpawnRequest>,
) -> Result<Response, Problem> {
    let SpawnRequest { tenant } = request;
    let spawned = admin.system.spawn(TenantSpec::from(tenant.clone())).await.map_err(|why| match why {
        Error::TenantExists(_) | Error::TenantLimit { .. } => Problem::new(StatusCode::CONFLICT, why),
        Error::Closed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, why),
        why => Problem::internal(why),
    })?;
    admin.system.log_order(&tenant, What::Ordered, "spawn");
    let place = [(header::LOCATION, format!("/v1/tenants/{tenant}"))];
    Ok((StatusCode::CREATED, place, Json(only_live(spawned.snapshot()))).into_response())
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

pub(super) fn only_live(live: TenantSnapshot) -> Tenant {
    Tenant { row: TenantRow { tenant: Some(live.tenant.clone()), ..TenantRow::default() }, live: Some(live) }
}
