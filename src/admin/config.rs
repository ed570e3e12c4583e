use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use headworks_actors::{PolicyChange, TenantId};
use serde::{Deserialize, Serialize};

use super::{Admin, Problem};
use crate::config::{Change, shown};

/// The configuration that the daemon runs by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningConfig {
    /// The file that it came from, where one is read again when it is changed.
    pub file: Option<PathBuf>,
    /// Since when it holds: RFC 3339.
    pub since: String,
    /// The whole of it, as `headworks check --json` has it; secrets are `(redacted)`.
    pub config: serde_json::Value,
    /// What the file says beyond that: it needs a restart.
    pub needs_restart: Vec<Change>,
    /// Why the file as it is now changed nothing, where it is not valid.
    pub refused: Option<String>,
    /// The tenants that are muted now, by the configuration or by hand.
    pub muted: Vec<TenantId>,
    /// In what the rules that tenants were given by hand differ from those above; they hold until the daemon ends.
    pub set_at_run_time: BTreeMap<TenantId, Vec<PolicyChange>>,
}

pub(super) async fn show(State(admin): State<Admin>) -> Result<Json<RunningConfig>, Problem> {
    let Some(running) = admin.running.as_ref().map(|running| running.borrow().clone()) else {
        return Err(Problem::not_found("this daemon runs without a configuration"));
    };
    let config = &running.config;
    let changes = |id: TenantId| {
        let changes = config.effective_policy(&id).changes(&admin.system.policy(&id));
        (!changes.is_empty()).then_some((id, changes))
    };
    Ok(Json(RunningConfig {
        file: running.file.clone(),
        since: running.since.to_string(),
        config: shown(config),
        needs_restart: running.waiting.clone(),
        refused: running.refused.clone(),
        muted: admin.system.muted(),
        set_at_run_time: admin.system.ruled_apart().into_iter().filter_map(changes).collect(),
    }))
}
