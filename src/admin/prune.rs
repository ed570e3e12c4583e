use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body::Whole;
use super::{Admin, Problem};
use crate::retention::Report;

/// What is stored is to be pruned now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PruneRequest {
    /// Whether only to say what would go.
    pub dry_run: bool,
}

/// By the rules that hold now, without waiting for `retention.every`.
pub(super) async fn prune(
    State(admin): State<Admin>,
    Whole(PruneRequest { dry_run }): Whole<PruneRequest>,
) -> Result<Json<Report>, Problem> {
    let Some(pruner) = &admin.pruner else {
        return Err(Problem::new(StatusCode::CONFLICT, "nothing here prunes: this is no daemon's API"));
    };
    let report = pruner.prune(dry_run).await.map_err(Problem::internal)?;
    Ok(Json(report))
}
