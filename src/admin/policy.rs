use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use headworks_actors::{Policy, PolicyChange, StoreName, TenantId};
use serde::{Deserialize, Serialize};

use super::body::Whole;
use super::{Admin, Problem};
use crate::config::with_settings;

/// Rules of a tenant that are to be others, by key: `window.max_age` and `250ms`. The values are read as a configuration's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// The values, by key.
    pub set: BTreeMap<String, String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChanged {
    /// Whose rules.
    pub tenant: TenantId,
    /// Those that are others now; none where they were so before. They hold until the process ends.
    pub changes: Vec<PolicyChange>,
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
) -> Result<Json<Policy>, Problem> {
    let Path(id) = id?;
    Ok(Json(admin.system.policy(&id)))
}

pub(super) async fn change(
    State(admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
    Whole(request): Whole<PolicyRequest>,
) -> Result<Json<PolicyChanged>, Problem> {
    let (Path(tenant), PolicyRequest { set }) = (id?, request);
    // One after the other: each begins with what the one before made of the rules.
    let _only = admin.rules.lock().await;
    let before = admin.system.policy(&tenant);
    let settings = set.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let policy = with_settings(&before, settings).map_err(Problem::bad_request)?;
    let changes = before.changes(&policy);
    if policy.retention != before.retention && !policy.retention.keeps_all() {
        prunes(&admin, &tenant)?;
    }
    admin.system.set_policy(&tenant, policy).map_err(Problem::bad_request)?;
    Ok(Json(PolicyChanged { tenant, changes }))
}

/// A rule that no store obeys is not taken over without a word. An embedder has stores and rules of their own.
fn prunes(admin: &Admin, tenant: &TenantId) -> Result<(), Problem> {
    let Some(running) = &admin.running else { return Ok(()) };
    let running = running.borrow();
    let kind = |name: &StoreName| running.config.stores.get(name).unwrap_or(&running.config.store).kind;
    let unable = |store: &&StoreName| !kind(store).prunes();
    match running.config.effective_stores(tenant).iter().find(unable) {
        None => Ok(()),
        Some(store) => Err(Problem::bad_request(format!(
            "retention says that stored events of {tenant} are pruned, but its batches go to {store}, which is of a type that \
             prunes nothing; leave it as it is, and prune there"
        ))),
    }
}
