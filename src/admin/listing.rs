//! The tenants, a page at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use headworks_actors::{Counters, Status, TenantSnapshot};
use serde::{Deserialize, Serialize};

use super::tenants::{Tenant, only_live, rows};
use super::{Admin, Problem, TenantRow};
use crate::store::StoreReader;

/// How many there are that match.
pub(super) const TOTAL: &str = "x-total-count";
/// What to ask the next page with; not there on the last one.
pub(super) const NEXT: &str = "x-next-cursor";

/// What is asked of `/v1/tenants`: the query of the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantsRequest {
    /// How many at the most, at least 1; all if it is not said. What there are in all is in the header `x-total-count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Those behind a page: the header `x-next-cursor` of its answer, asked with the same `sort` and `order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// By what they are sorted, and then by name.
    pub sort: TenantSort,
    /// In which direction.
    pub order: Direction,
    /// Those whose names have this in them, in whatever letter case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Those with one of these [`Status`]es, with commas between them; what the daemon has not met has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Those that are muted, or those that are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted: Option<bool>,
}

/// By what tenants are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the words of the answer")]
pub enum TenantSort {
    #[default]
    Name,
    /// What is more wrong is greater.
    Status,
    Events,
    DeadLetters,
    Received,
    Accepted,
    Stored,
    InFlight,
    InFlightBytes,
    BatchesWaiting,
    AttemptsFailed,
    Restarts,
}

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The least first.
    #[default]
    Asc,
    /// The greatest first.
    Desc,
}

impl TenantSort {
    fn value(self, tenant: &Tenant) -> u64 {
        let live = |number: fn(&TenantSnapshot) -> u64| tenant.live.as_ref().map_or(0, number);
        let counted = |number: fn(&Counters) -> u64| tenant.live.as_ref().map_or(0, |live| number(&live.counters));
        match self {
            Self::Name => 0,
            Self::Status => live(|live| badness(live.status)),
            Self::Events => tenant.row.events,
            Self::DeadLetters => tenant.row.dead_letters,
            Self::Received => counted(|counters| counters.received),
            Self::Accepted => counted(|counters| counters.accepted),
            Self::Stored => counted(|counters| counters.stored),
            Self::InFlight => live(|live| live.in_flight),
            Self::InFlightBytes => live(|live| live.in_flight_bytes),
            Self::BatchesWaiting => live(|live| live.batches_waiting),
            Self::AttemptsFailed => counted(|counters| counters.attempts_failed),
            Self::Restarts => counted(|counters| counters.restarts),
        }
    }
}

fn badness(status: Status) -> u64 {
    match status {
        Status::Dormant => 1,
        Status::Idle => 2,
        Status::Active => 3,
        Status::Silent => 4,
        Status::Stopped => 5,
        Status::Failing => 6,
        Status::Retrying => 7,
        Status::Parked => 8,
        Status::BreakerOpen => 9,
        Status::Compensating => 10,
        Status::Restarting => 11,
        Status::Stalled => 12,
        Status::Quarantined => 13,
        _ => 14,
    }
}

/// A place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    value: u64,
    /// None for what is of no tenant, which comes last of those of its value.
    name: Option<String>,
}

impl Place {
    fn of(tenant: &Tenant, sort: TenantSort) -> Self {
        Self { value: sort.value(tenant), name: tenant.row.tenant.as_ref().map(ToString::to_string) }
    }

    fn cmp(&self, other: &Self, direction: Direction) -> Ordering {
        let name = |place: &Self| (place.name.is_none(), place.name.clone());
        let order = self.value.cmp(&other.value).then_with(|| name(self).cmp(&name(other)));
        match direction {
            Direction::Asc => order,
            Direction::Desc => order.reverse(),
        }
    }

    fn to_cursor(&self) -> String {
        format!("{}:{}", self.value, self.name.as_deref().unwrap_or_default())
    }

    fn from_cursor(cursor: &str) -> Option<Self> {
        let (value, name) = cursor.split_once(':')?;
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Some(Self { value: value.parse().ok()?, name })
    }
}

impl TenantsRequest {
    fn has(&self, tenant: &Tenant, wanted: &[&str]) -> bool {
        let live = tenant.live.as_ref();
        let name = tenant.row.tenant.as_ref().map_or("", |tenant| tenant.as_str()).to_ascii_lowercase();
        self.name.as_ref().is_none_or(|part| name.contains(&part.to_ascii_lowercase()))
            && (wanted.is_empty() || live.is_some_and(|live| wanted.contains(&live.status.as_str())))
            && self.muted.is_none_or(|muted| live.is_some_and(|live| live.is_muted) == muted)
    }

    /// The page, how many there are in all, and the cursor of the next page.
    fn page(&self, mut tenants: Vec<Tenant>) -> Result<(Vec<Tenant>, usize, Option<String>), Problem> {
        if self.limit == Some(0) {
            return Err(Problem::bad_request("limit is 0; it must be at least 1"));
        }
        let words: Vec<_> =
            self.status.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty()).collect();
        if let Some(word) = words.iter().find(|word| !STATUSES.contains(word)) {
            return Err(Problem::bad_request(format!("{word:?} is no status; valid: {}", STATUSES.join(", "))));
        }
        let behind = self.cursor.as_deref().map(|cursor| {
            let why = || Problem::bad_request(format!("{cursor:?} is no cursor; take it from the header {NEXT}"));
            Place::from_cursor(cursor).ok_or_else(why)
        });
        let behind = behind.transpose()?;
        tenants.retain(|tenant| self.has(tenant, &words));
        let total = tenants.len();
        let mut placed: Vec<_> = tenants.into_iter().map(|tenant| (Place::of(&tenant, self.sort), tenant)).collect();
        if let Some(behind) = behind {
            placed.retain(|(place, _)| place.cmp(&behind, self.order) == Ordering::Greater);
        }
        placed.sort_by(|(a, _), (b, _)| a.cmp(b, self.order));
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let next = (placed.len() > limit).then(|| placed[limit - 1].0.to_cursor());
        placed.truncate(limit);
        Ok((placed.into_iter().map(|(_, tenant)| tenant).collect(), total, next))
    }
}

/// The words of [`Status`].
pub(super) const STATUSES: [&str; 13] = [
    "dormant",
    "active",
    "idle",
    "silent",
    "failing",
    "retrying",
    "breaker_open",
    "parked",
    "compensating",
    "stalled",
    "restarting",
    "quarantined",
    "stopped",
];

pub(super) async fn list(
    State(admin): State<Admin>,
    request: Result<Query<TenantsRequest>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(request) = request?;
    let mut live: BTreeMap<_, _> = admin.system.tenants().into_iter().map(|now| (now.tenant.clone(), now)).collect();
    let ids: Vec<_> = live.keys().cloned().collect();
    let read = move |store: &StoreReader| {
        let unread: BTreeSet<_> = ids.into_iter().filter(|tenant| store.is_unread(tenant)).collect();
        Ok((rows(store)?, unread))
    };
    let (stored, unread) = admin.read(read).await?;
    let mut tenants: Vec<_> = stored
        .into_iter()
        .map(|row| Tenant { live: row.tenant.as_ref().and_then(|tenant| live.remove(tenant)), row })
        .collect();
    tenants.extend(live.into_values().map(|now| {
        let is_unread = unread.contains(&now.tenant);
        let Tenant { row, live } = only_live(now);
        Tenant { row: TenantRow { unread: is_unread, ..row }, live }
    }));
    let (page, total, next) = request.page(tenants)?;
    let mut response = Json(page).into_response();
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(TOTAL), HeaderValue::from(total));
    // Numbers and the letters of ids.
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
        headers.insert(HeaderName::from_static(NEXT), next);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use headworks_actors::TenantId;

    use super::*;
    use crate::admin::TenantRow;

    fn tenants() -> Vec<Tenant> {
        let row = |name: Option<&str>, events| TenantRow {
            tenant: name.map(|name| TenantId::new(name).unwrap()),
            events,
            ..TenantRow::default()
        };
        let rows = [row(Some("b"), 5), row(None, 0), row(Some("A-one"), 5), row(Some("c"), 9), row(Some("d"), 5)];
        rows.map(|row| Tenant { row, live: None }).into()
    }

    fn names(page: &[Tenant]) -> Vec<String> {
        page.iter().map(|tenant| tenant.row.tenant.as_ref().map_or("-", |id| id.as_str()).to_owned()).collect()
    }

    #[test]
    fn pages_of_any_size_and_order_together_are_everything_once() {
        for (sort, order, all) in [
            (TenantSort::Name, Direction::Asc, ["A-one", "b", "c", "d", "-"]),
            (TenantSort::Name, Direction::Desc, ["-", "d", "c", "b", "A-one"]),
            (TenantSort::Events, Direction::Asc, ["-", "A-one", "b", "d", "c"]),
            (TenantSort::Events, Direction::Desc, ["c", "d", "b", "A-one", "-"]),
        ] {
            for limit in 1..=6 {
                let mut request = TenantsRequest { limit: Some(limit), sort, order, ..TenantsRequest::default() };
                let mut found = vec![];
                loop {
                    let (page, total, next) = request.page(tenants()).unwrap();
                    assert!(total == 5 && page.len() <= limit as usize);
                    found.extend(names(&page));
                    match next {
                        Some(next) => request.cursor = Some(next),
                        None => break,
                    }
                }
                assert_eq!(found, all, "{sort:?} {order:?} {limit}");
            }
        }
    }

    #[test]
    fn a_filter_counts_what_matches_and_a_slip_in_one_is_named() {
        let page = |request: TenantsRequest| request.page(tenants()).map(|(page, total, _)| (names(&page), total));
        let request = TenantsRequest { name: Some("ONE".into()), limit: Some(1), ..TenantsRequest::default() };
        assert_eq!(page(request).unwrap(), (vec!["A-one".to_owned()], 1));
        let of = |status: &str| TenantsRequest { status: Some(status.into()), ..TenantsRequest::default() };
        assert_eq!(page(of("parked,stopped")).unwrap().1, 0);
        assert!(page(of("asleep")).unwrap_err().detail.contains("\"asleep\" is no status; valid: dormant, "));
        let cursor = TenantsRequest { cursor: Some("x".into()), ..TenantsRequest::default() };
        assert!(page(cursor).unwrap_err().detail.contains("is no cursor"));
        assert!(page(TenantsRequest { limit: Some(0), ..TenantsRequest::default() }).is_err());
    }
}
