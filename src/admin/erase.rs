use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use headworks_actors::TenantId;
use serde::{Deserialize, Serialize};

use super::{Admin, Problem};

/// The word that a tenant is to be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// The tenant's id once more: what is erased is gone.
    pub confirm: String,
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Whose.
    pub tenant: TenantId,
    /// Events, in all stores.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

pub(super) async fn erase(
    State(_admin): State<Admin>,
    id: Result<Path<TenantId>, PathRejection>,
    request: Result<Json<EraseRequest>, JsonRejection>,
) -> Result<Json<Erased>, Problem> {
    let (Path(_tenant), Json(_request)) = (id?, request?);
    Err(Problem::internal("not yet"))
}
